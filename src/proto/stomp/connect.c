/* CONNECT and DISCONNECT: version, login, vhost, heart-beats, and the way out.
 *
 * Checking a password and a vhost is the core's business: until its answers have come nothing more is read. A client that gives
 * no login is options.anonymous where engine_may_be_anonymous, of which the core checks the loopback once more, and refused
 * elsewhere. `host` names a vhost, as in RabbitMQ; ActiveMQ ignores it. Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "proto/stomp/stomp_int.h"

#include <stdio.h>

#define BEAT_MIN_MS 100u /* an interval that is shorter is as if it were this */

/* ---- version ---- */

static enum stomp_version version_of(struct slice text)
{
    while (text.len && *text.ptr == ' ') {
        text.ptr++;
        text.len--;
    }
    for (enum stomp_version v = STOMP_10; v < STOMP_VERSIONS; v++)
        if (slice_is(text, stomp_version_text(v)))
            return v;
    return STOMP_UNKNOWN;
}

/* The highest that both know; a client that says nothing speaks 1.0. */
static enum stomp_version negotiate(const struct stomp_frame *frame)
{
    struct slice list;
    enum stomp_version best = STOMP_UNKNOWN;
    if (!stomp_header_find(frame, "accept-version", &list))
        return STOMP_10;
    for (;;) {
        const uint8_t *comma = memchr(list.ptr, ',', list.len);
        size_t len = comma ? (size_t)(comma - list.ptr) : list.len;
        enum stomp_version v = version_of(slice_of(list.ptr, len));
        best = v > best ? v : best;
        if (!comma)
            return best;
        list = slice_of(comma + 1, list.len - len - 1);
    }
}

/* ---- heart-beats ---- */

static bool read_ms(struct slice *text, uint32_t *ret)
{
    uint64_t value = 0;
    size_t digits = 0;
    while (text->len && *text->ptr >= '0' && *text->ptr <= '9') {
        value = value > UINT32_MAX ? value : value * 10 + (uint64_t)(*text->ptr - '0');
        text->ptr++;
        text->len--;
        digits++;
    }
    *ret = value > INT32_MAX ? INT32_MAX : value == 0 ? 0 : value < BEAT_MIN_MS ? BEAT_MIN_MS : (uint32_t)value;
    return digits > 0;
}

/* "<what the client can do>,<what it would like>", in ms (1.2, "Heart-beating"). The server can do and likes what it is asked. */
static bool take_beats(struct stomp *s, const struct stomp_frame *frame)
{
    struct slice text;
    if (!stomp_header_find(frame, "heart-beat", &text))
        return true;
    if (!read_ms(&text, &s->beat_expect_ms) || text.len == 0 || *text.ptr != ',')
        return false;
    text = slice_of(text.ptr + 1, text.len - 1);
    return read_ms(&text, &s->beat_send_ms) && text.len == 0;
}

/* ---- login ---- */

static struct slice kept(uint8_t **at, struct slice from)
{
    struct slice to = slice_of(*at, from.len);
    if (from.len)
        memcpy(*at, from.ptr, from.len);
    *at += from.len;
    return to;
}

static bool login_keep(struct stomp *s, struct slice user, struct slice vhost, struct slice client_id)
{
    struct stomp_login *login = mem_alloc(sizeof *login + user.len + vhost.len + client_id.len);
    if (!login)
        return false;
    uint8_t *at = login->bytes;
    login->user = kept(&at, user);
    login->vhost = kept(&at, vhost);
    login->client_id = kept(&at, client_id);
    s->login = login;
    return true;
}

/* SESSION_OPEN and LOGIN; false: no memory. */
static bool send_login(struct stomp *s, struct slice user, struct slice secret, uint32_t flags)
{
    char protocol[16];
    struct slice none = {0};
    snprintf(protocol, sizeof protocol, "STOMP %s", stomp_version_text((enum stomp_version)s->version));
    struct ask *open = ask_new(slice_str(s->session.engine.peer), slice_str(protocol), none, none);
    struct ask *login = open ? ask_new(user, secret, slice_str("PLAIN"), none) : NULL;
    if (!login) {
        mem_free(open);
        return false;
    }
    open->flags = (s->session.engine.peer_loopback ? ASK_LOOPBACK : 0u) | ASK_CAN_BLOCK | ASK_CAN_CANCEL;
    login->flags = flags;
    struct command *command = stomp_command(s, CMD_SESSION_OPEN, 0);
    command->channel = 0;
    command->ask = open;
    s->session.core_open = true;
    command = stomp_command(s, CMD_LOGIN, ORIGIN(CUE_LOGIN, 0));
    command->channel = 0;
    command->ask = login;
    return true;
}

static bool has_text(const char *text)
{
    return text && *text;
}

/* Who a client is that does not say: whom its certificate names, or on the loopback whom the settings do. */
static bool without_login(const struct stomp *s, struct slice *ret_user, uint32_t *ret_flags)
{
    const struct engine *engine = &s->session.engine;
    if (!engine->certified && !(engine_may_be_anonymous(engine) && has_text(s->options->anonymous)))
        return false;
    *ret_user = slice_str(engine->certified ? engine->certified : s->options->anonymous);
    *ret_flags = engine->certified ? ASK_CERTIFIED : ASK_TRUSTED;
    return true;
}

void stomp_on_connect(struct stomp *s, const struct stomp_frame *frame)
{
    struct slice user, secret = {0}, vhost, client_id;
    enum stomp_version version = negotiate(frame);
    if (version == STOMP_UNKNOWN) {
        stomp_error(s, WRONG_VERSION, "Supported versions are 1.0,1.1,1.2\n");
        return;
    }
    if (!take_beats(s, frame)) {
        stomp_error(s, WRONG_LOGIN, "'heart-beat' must be two numbers of milliseconds with a comma between them\n");
        return;
    }
    uint32_t flags = 0;
    if (stomp_header_find(frame, "login", &user))
        (void)stomp_header_find(frame, "passcode", &secret);
    else if (!without_login(s, &user, &flags)) {
        engine_turn_away(&s->session.engine);
        stomp_error(s, WRONG_LOGIN, "Missing login or passcode header(s)");
        return;
    }
    if (s->options->dialect == STOMP_AS_ACTIVEMQ || !stomp_header_find(frame, "host", &vhost))
        vhost = slice_str(s->options->vhost);
    s->version = (uint8_t)version;
    if (!stomp_header_find(frame, "client-id", &client_id))
        client_id = (struct slice){0};
    if (!login_keep(s, user, vhost, client_id) || !send_login(s, user, secret, flags)) {
        stomp_fail_memory(s);
        return;
    }
    stomp_state_move(s, CONN_LOGIN);
}

void stomp_logged_in(struct stomp *s)
{
    stomp_state_move(s, CONN_ENTER);
    stomp_enter(s);
}

/* What follows a command that fails is ignored by the core. */
void stomp_enter(struct stomp *s)
{
    struct slice none = {0};
    s->owes_enter = hub_room(stomp_hub(s)) < 3;
    if (s->owes_enter) {
        hub_wait_room(stomp_hub(s), &s->session);
        return;
    }
    struct ask *ask = ask_new(s->login->vhost, none, none, none);
    if (!ask) {
        stomp_fail_memory(s);
        return;
    }
    struct command *command = stomp_command(s, CMD_ENTER, ORIGIN(CUE_ENTER, 0));
    command->channel = 0;
    command->ask = ask;
    stomp_command(s, CMD_CHANNEL_OPEN, 0);
    stomp_command(s, CMD_CONFIRM_SELECT, 0);
}

void stomp_entered(struct stomp *s)
{
    if (s->options->dialect != STOMP_AS_ACTIVEMQ) {
        mem_free(s->login);
        s->login = NULL;
    }
    memcpy(s->session_id, "session-", 8);
    stomp_random_text(s, s->session_id + 8, 22);
    s->limits = (struct stomp_limits){.head_bytes_max = STOMP_HEAD_MAX, .body_bytes_max = s->options->frame_bytes_max};
    s->session.engine.in_max = (size_t)STOMP_HEAD_MAX + s->options->frame_bytes_max + 2;
    stomp_state_move(s, CONN_RUNNING);
    stomp_out_connected(s);
    s->beat_at = s->session.heard_at = s->session.engine.now;
    s->session.engine.next_tick = s->session.engine.now; /* the heart-beats begin */
    engine_dirty(&s->session.engine);
}

void stomp_login_refused(struct stomp *s, const struct answer *answer)
{
    if (s->state == CONN_LOGIN)
        stomp_error(s, WRONG_LOGIN, "Access refused for user '%.*s'\n", SLICE_ARG(s->login->user));
    else if (answer->code == ERR_NOT_ALLOWED)
        stomp_error(s, WRONG_LOGIN, "Virtual host '%.*s' access denied", SLICE_ARG(s->login->vhost));
    else
        stomp_error_core(s, answer->code, answer->text, (struct slice){0});
}

/* ---- the way out ---- */

void stomp_on_disconnect(struct stomp *s, const struct stomp_frame *frame)
{
    (void)frame;
    s->farewell = stomp_receipt_take(s);
    if (!stomp_live(s))
        return;
    stomp_state_move(s, CONN_LEAVING);
    hub_close(stomp_hub(s), &s->session);
}
