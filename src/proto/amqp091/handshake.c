/* Negotiation, see handshake.h.
 *
 * The client speaks first (8 bytes), the server starts, the client logs in, limits are offered, asked and agreed, and a
 * vhost is opened. Checking a password and a vhost is the core's business: until its answer comes, nothing more is read.
 * What a peer may send before it is logged in is bounded twice (frame size and total, engine.h) and by a deadline.
 * Mechanisms are rows: EXTERNAL is offered where TLS has verified a certificate that names a user (engine.certified).
 * Thread: the loop's. */
#include "proto/amqp091/handshake.h"

#include "base/check.h"
#include "base/mem.h"
#include "fmt/amqp_table.h"
#include "proto/amqp091/out.h"

#define AUTH_DELAY_MS 3000u /* a refused client without authentication_failure_close waits for its end that long */
#define START_LEN_MAX 2048u

static const char protocol_header[8] = {'A', 'M', 'Q', 'P', 0, 0, 9, 1};

/* ---- connection.start: what the server offers ---- */

static const char *const server_capabilities[] = {
    "publisher_confirms",           "exchange_exchange_bindings", "basic.nack",
    "consumer_cancel_notify",       "connection.blocked",         "consumer_priorities",
    "authentication_failure_close", "per_consumer_qos",           "direct_reply_to",
};

struct credentials {
    struct slice user, secret;
};

static bool plain_parse(struct slice response, struct credentials *ret);
static bool amqplain_parse(struct slice response, struct credentials *ret);
static bool external_parse(struct slice response, struct credentials *ret);

static const struct mechanism {
    const char *name;
    bool certified; /* the user is whom the transport has authenticated, whatever the response says */
    bool (*parse)(struct slice response, struct credentials *ret);
} mechanisms[] = {
    {"PLAIN", false, plain_parse},
    {"AMQPLAIN", false, amqplain_parse},
    {"EXTERNAL", true, external_parse},
};

static void put_server_properties(struct writer *w, const struct amqp091_options *options)
{
    size_t capabilities = amqp_open(w, "capabilities", 'F');
    for (unsigned i = 0; i < ARRAY_LEN(server_capabilities); i++)
        amqp_put_bool(w, server_capabilities[i], true);
    amqp_close(w, capabilities);
    amqp_put_str(w, "cluster_name", slice_str(options->cluster_name));
    amqp_put_str(w, "copyright", slice_str("The Millrace authors"));
    amqp_put_str(w, "information", slice_str("Licensed under the Apache License 2.0"));
    amqp_put_str(w, "platform", slice_str(options->platform));
    amqp_put_str(w, "product", slice_str("Millrace"));
    amqp_put_str(w, "version", slice_str(options->version));
}

static bool is_offered(const struct amqp091 *a, const struct mechanism *mechanism)
{
    return !mechanism->certified || a->session.engine.certified;
}

static void put_mechanisms(struct writer *w, const struct amqp091 *a)
{
    for (unsigned i = 0; i < ARRAY_LEN(mechanisms); i++) {
        if (!is_offered(a, &mechanisms[i]))
            continue;
        if (w->len)
            writer_u8(w, ' ');
        writer_slice_put(w, slice_str(mechanisms[i].name));
    }
}

static void send_start(struct amqp091 *a)
{
    uint8_t properties[START_LEN_MAX], names[64];
    struct writer w = writer_of(properties, sizeof properties), m = writer_of(names, sizeof names);
    put_server_properties(&w, a->options);
    put_mechanisms(&m, a);
    CHECK(writer_ok(&w) && writer_ok(&m));
    amqp091_out_method(a, 0, AMQP091_connection_start,
                       &(struct amqp091_connection_start){.version_major = 0,
                                                          .version_minor = 9,
                                                          .server_properties = writer_slice(&w),
                                                          .mechanisms = writer_slice(&m),
                                                          .locales = slice_str("en_US")});
}

size_t amqp091_handshake_header(struct amqp091 *a, struct slice bytes)
{
    size_t n = bytes.len < sizeof protocol_header ? bytes.len : sizeof protocol_header;
    bool ours = memcmp(bytes.ptr, protocol_header, n) == 0;
    if (ours && n < sizeof protocol_header)
        return 0;
    if (!ours) {
        amqp091_out_header(a);
        amqp091_drop(a, 0);
        return bytes.len;
    }
    send_start(a);
    amqp091_state_move(a, CONN_START);
    return sizeof protocol_header;
}

/* ---- connection.start-ok: who is there ---- */

/* RFC 4616 without an authorisation identity: NUL user NUL secret. */
static bool plain_parse(struct slice response, struct credentials *ret)
{
    if (response.len < 2 || response.ptr[0] != 0)
        return false;
    const uint8_t *user = response.ptr + 1;
    const uint8_t *nul = memchr(user, 0, response.len - 1);
    if (!nul)
        return false;
    ret->user = slice_of(user, (size_t)(nul - user));
    ret->secret = slice_of(nul + 1, response.len - ret->user.len - 2);
    return ret->secret.len == 0 || !memchr(ret->secret.ptr, 0, ret->secret.len);
}

/* A table (without its length) with LOGIN and PASSWORD. */
static bool amqplain_parse(struct slice response, struct credentials *ret)
{
    struct amqp_value user, secret;
    if (!amqp_table_valid(response) || !amqp_table_find(response, "LOGIN", &user) ||
        !amqp_table_find(response, "PASSWORD", &secret) || user.type != 'S' || secret.type != 'S')
        return false;
    *ret = (struct credentials){.user = user.s, .secret = secret.s};
    return true;
}

/* As RabbitMQ, and because some clients send a placeholder: what the response says does not matter. */
static bool external_parse(struct slice response, struct credentials *ret)
{
    (void)response;
    *ret = (struct credentials){0};
    return true;
}

static void take_capabilities(struct amqp091 *a, struct slice properties)
{
    static const struct {
        const char *name;
        uint8_t flag;
    } known[] = {{"connection.blocked", CLIENT_BLOCKED},
                 {"consumer_cancel_notify", CLIENT_CANCEL_NOTIFY},
                 {"authentication_failure_close", CLIENT_AUTH_CLOSE}};
    struct amqp_value table, value;
    if (!amqp_table_find(properties, "capabilities", &table) || table.type != 'F')
        return;
    for (unsigned i = 0; i < ARRAY_LEN(known); i++)
        if (amqp_table_find(table.s, known[i].name, &value) && value.type == 't' && value.i)
            a->capabilities |= known[i].flag;
}

static const struct mechanism *mechanism_find(const struct amqp091 *a, struct slice name)
{
    for (const struct mechanism *m = mechanisms; m < mechanisms + ARRAY_LEN(mechanisms); m++)
        if (slice_is(name, m->name) && is_offered(a, m))
            return m;
    return NULL;
}

/* SESSION_OPEN and LOGIN; false: no memory. The driver has made sure of the slots. */
static bool send_login(struct amqp091 *a, const struct mechanism *mechanism, const struct credentials *who)
{
    struct slice none = {0};
    struct ask *open = ask_new(slice_str(a->session.engine.peer), slice_str("AMQP 0-9-1"), none, none);
    struct ask *login = open ? ask_new(who->user, who->secret, slice_str(mechanism->name), none) : NULL;
    if (!login) {
        mem_free(open);
        return false;
    }
    open->flags = (a->session.engine.peer_loopback ? ASK_LOOPBACK : 0u) |
                  (a->capabilities & CLIENT_BLOCKED ? ASK_CAN_BLOCK : 0u) |
                  (a->capabilities & CLIENT_CANCEL_NOTIFY ? ASK_CAN_CANCEL : 0u);
    login->flags = (open->flags & ASK_LOOPBACK) | (mechanism->certified ? ASK_CERTIFIED : 0u);
    struct command *command = hub_command(amqp091_hub(a), &a->session);
    command->type = CMD_SESSION_OPEN;
    command->ask = open;
    a->session.core_open = true;
    command = hub_command(amqp091_hub(a), &a->session);
    command->type = CMD_LOGIN;
    command->origin = AMQP091_ORIGIN(10, 11);
    command->ask = login;
    return true;
}

void amqp091_on_start_ok(struct amqp091 *a, const struct amqp091_connection_start_ok *f)
{
    take_capabilities(a, f->client_properties);
    const struct mechanism *mechanism = mechanism_find(a, f->mechanism);
    if (!mechanism) {
        amqp091_fail(a, ERR_COMMAND_INVALID, 0, 0, "unknown authentication mechanism '%.*s'", SLICE_ARG(f->mechanism));
        return;
    }
    struct credentials who;
    if (!mechanism->parse(f->response, &who)) {
        amqp091_fail(a, ERR_SYNTAX_ERROR, 0, 0, "the response of mechanism %s is invalid", mechanism->name);
        return;
    }
    if (mechanism->certified)
        who.user = slice_str(a->session.engine.certified);
    a->mechanism = (uint8_t)(mechanism - mechanisms);
    if (!send_login(a, mechanism, &who)) {
        amqp091_fail_memory(a);
        return;
    }
    amqp091_state_move(a, CONN_LOGIN);
}

void amqp091_logged_in(struct amqp091 *a)
{
    amqp091_out_method(a, 0, AMQP091_connection_tune,
                       &(struct amqp091_connection_tune){.channel_max = a->offered.channel_max,
                                                         .frame_max = a->offered.frame_max,
                                                         .heartbeat = a->offered.heartbeat_s});
    amqp091_state_move(a, CONN_TUNE);
}

void amqp091_login_refused(struct amqp091 *a, const struct answer *answer)
{
    hub_close(amqp091_hub(a), &a->session);
    if (!(a->capabilities & CLIENT_AUTH_CLOSE)) {
        amqp091_drop(a, AUTH_DELAY_MS);
        return;
    }
    if (answer->text.len)
        amqp091_fail(a, answer->code, 0, 0, "%.*s", SLICE_ARG(answer->text));
    else
        amqp091_fail(a, answer->code, 0, 0,
                     "Login was refused using authentication mechanism %s. For details see the broker logfile.",
                     mechanisms[a->mechanism].name);
}

/* ---- connection.tune-ok: what both can live with ---- */

/* asked must lie between min and offered; 0 asks for "no limit", which is only within an offer of 0. */
static bool tune_within(struct amqp091 *a, const char *field, uint32_t asked, uint32_t min, uint32_t offered,
                        const char *zero)
{
    bool low = asked != 0 && asked < min;
    if (!low && (offered == 0 || (asked != 0 && asked <= offered)))
        return true;
    amqp091_fail(a, ERR_NOT_ALLOWED, 10, 30, "negotiated %s = %u%s is %s than the %s allowed value (%u)", field, asked,
                 asked == 0 ? zero : "", low ? "lower" : "higher", low ? "minimum" : "maximum", low ? min : offered);
    return false;
}

void amqp091_on_tune_ok(struct amqp091 *a, const struct amqp091_connection_tune_ok *f)
{
    a->asked =
        (struct amqp091_tune){.frame_max = f->frame_max, .channel_max = f->channel_max, .heartbeat_s = f->heartbeat};
    if (!tune_within(a, "frame_max", a->asked.frame_max, AMQP091_FRAME_MIN, a->offered.frame_max, "") ||
        !tune_within(a, "channel_max", a->asked.channel_max, 1, a->offered.channel_max, " (no limit)"))
        return;
    a->agreed = a->asked; /* the heartbeat is the client's choice */
    a->frame_limit = a->agreed.frame_max;
    a->session.engine.in_max = a->frame_limit + FRAME_OVERHEAD;
    amqp091_state_move(a, CONN_OPEN);
}

/* ---- connection.open: the vhost ---- */

void amqp091_on_open(struct amqp091 *a, const struct amqp091_connection_open *f)
{
    struct slice none = {0};
    struct ask *ask = ask_new(f->virtual_host, none, none, none);
    if (!ask) {
        amqp091_fail_memory(a);
        return;
    }
    struct command *command = hub_command(amqp091_hub(a), &a->session);
    command->type = CMD_ENTER;
    command->origin = AMQP091_ORIGIN(10, 40);
    command->ask = ask;
    amqp091_state_move(a, CONN_ENTER);
}

void amqp091_entered(struct amqp091 *a)
{
    amqp091_state_move(a, CONN_RUNNING);
    amqp091_out_method(a, 0, AMQP091_connection_open_ok, &(struct amqp091_connection_open_ok){{0}});
    a->deadline = MONO_NEVER;
    a->beat_at = a->session.engine.now;
    amqp091_tick_by(a, a->session.engine.now); /* starts the heartbeats */
}

void amqp091_on_update_secret(struct amqp091 *a, const struct amqp091_connection_update_secret *f)
{
    struct slice none = {0};
    struct ask *ask = ask_new(none, f->new_secret, none, none);
    if (!ask) {
        amqp091_fail_memory(a);
        return;
    }
    struct command *command = hub_command(amqp091_hub(a), &a->session);
    command->type = CMD_UPDATE_SECRET;
    command->origin = AMQP091_ORIGIN(10, 70);
    command->ask = ask;
}
