/* CONNECT, AUTH and DISCONNECT.
 *
 * CONNECT ▸ SESSION_OPEN, LOGIN ▸ its answer ▸ ENTER, CHANNEL_OPEN, CONFIRM_SELECT, MQTT_ATTACH at once: what one of them refuses ends the
 * connection, so none needs another's answer ▸ the answer of ATTACH, durable ▸ CONNACK, PUBREL for what was released, MQTT_RESUME. Until
 * then nothing else is read; a client that does not wait for CONNACK finds its packets done in order.
 *
 * With an authentication method (4.12): SCRAM's first message is in CONNECT, the keys come from the core, AUTH goes both ways once, and the
 * login is what was proven. A client that came by a method may do it again at any time.
 *
 * A user name VHOST:USER names its vhost, as in RabbitMQ. Who names no user is whom its certificate names, else the anonymous user on the
 * loopback and a port of MQTT's own (engine_may_be_anonymous), nobody elsewhere.
 * Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "proto/mqtt/mapping.h"
#include "proto/mqtt/mqtt_int.h"

#include <stdio.h>

#define NOT_WORTH_ASKING 0xffffu  /* a receive maximum that limits nothing */
#define PACKET_MORE (128u * 1024) /* of a PUBLISH beside its payload */

/* ---- names of mechanisms ---- */

static bool mechanism_named(const struct mqtt *m, struct slice name, enum scram_hash *ret)
{
    return scram_named(name, ret) && m->options->mechanisms >> *ret & 1;
}

bool mqtt_mechanisms_parse(const char *names, unsigned *ret)
{
    unsigned mask = 0;
    for (const char *at = names + strspn(names, " ,"); *at; at += strspn(at, " ,")) {
        size_t len = strcspn(at, " ,");
        enum scram_hash hash;
        if (!scram_named(slice_of(at, len), &hash))
            return false;
        mask |= 1u << hash;
        at += len;
    }
    *ret = mask;
    return true;
}

static void scram_end(struct mqtt *m)
{
    if (!m->scram)
        return;
    scram_clear(m->scram);
    mem_free_as(MEM_CONNECTIONS, m->scram);
    m->scram = NULL;
}

void mqtt_connect_fini(struct mqtt *m)
{
    scram_end(m);
    if (m->hello)
        mem_free(m->hello->answer);
    mem_free_as(MEM_CONNECTIONS, m->hello);
    m->hello = NULL;
}

/* ---- to the core ---- */

static uint32_t peer_flags(const struct mqtt *m)
{
    return m->session.engine.peer_loopback ? ASK_LOOPBACK : 0;
}

static bool open_session(struct mqtt *m)
{
    struct slice none = {0};
    static const char *const names[] = {[MQTT_3_1] = "MQTT 3.1", [MQTT_3_1_1] = "MQTT 3.1.1", [MQTT_5] = "MQTT 5.0"};
    struct engine *engine = &m->session.engine;
    struct ask *ask = ask_new(slice_str(engine->peer), slice_str(names[m->version]), none, none);
    if (!mqtt_send_ask(m, CMD_SESSION_OPEN, 0, 0, peer_flags(m), ask))
        return false;
    m->session.core_open = true;
    return true;
}

static void login(struct mqtt *m, struct slice user, struct slice secret, const char *mechanism, uint32_t flags)
{
    struct ask *ask = ask_new(user, secret, slice_str(mechanism), (struct slice){0});
    mqtt_send_ask(m, CMD_LOGIN, MQTT_ORIGIN(MQTT_ASKED_LOGIN, 0), 0, peer_flags(m) | flags, ask);
}

static void ask_keys(struct mqtt *m, uint32_t flags)
{
    struct slice none = {0};
    struct ask *ask = ask_new(scram_user(m->scram), none, slice_str(scram_name(m->scram->hash)), none);
    mqtt_send_ask(m, CMD_SCRAM, MQTT_ORIGIN(MQTT_ASKED_KEYS, 0), 0, peer_flags(m) | flags, ask);
}

static struct slice hello_id(const struct mqtt_hello *h)
{
    return slice_of(h->bytes, h->client_id_len);
}

static struct slice hello_vhost(const struct mqtt_hello *h)
{
    return slice_of(h->bytes + h->client_id_len, h->vhost_len);
}

static struct slice hello_will(const struct mqtt_hello *h)
{
    return slice_of(h->bytes + h->client_id_len + h->vhost_len, h->will_len);
}

/* The login is granted: everything else in one go. */
static void attach(struct mqtt *m)
{
    struct slice none = {0};
    const struct mqtt_hello *h = m->hello;
    struct command channel = {.type = CMD_CHANNEL_OPEN, .channel = MQTT_CHANNEL};
    channel.origin = MQTT_ORIGIN(MQTT_ASKED_CHANNEL, 0);
    struct command confirms = channel;
    confirms.type = CMD_CONFIRM_SELECT;
    mqtt_state_move(m, MQTT_IS_ATTACHING);
    if (!mqtt_send_ask(m, CMD_ENTER, MQTT_ORIGIN(MQTT_ASKED_ENTER, 0), 0, 0,
                       ask_new(hello_vhost(h), none, none, none)) ||
        !mqtt_send(m, &channel) || !mqtt_send(m, &confirms))
        return;
    struct ask *ask = ask_new(hello_id(h), none, slice_str(m->options->exchange), hello_will(h));
    if (ask)
        ask->number = m->expiry_s;
    mqtt_send_ask(m, CMD_MQTT_ATTACH, MQTT_ORIGIN(MQTT_ASKED_ATTACH, 0), 0, h->clean ? ASK_CLEAN : 0, ask);
}

/* ---- CONNECT ---- */

static uint32_t capped(uint32_t value, uint32_t max)
{
    return value < max ? value : max;
}

/* What both sides may do, from what the client says and the options. */
static void negotiate(struct mqtt *m, const struct mqtt_connect_fields *c, struct mqtt_hello *h)
{
    const struct mqtt_options *o = m->options;
    const struct mqtt_props *p = &c->props;
    uint32_t asked = m->version == MQTT_5 ? (mqtt_has(p, MQTT_P_session_expiry) ? p->session_expiry : 0)
                     : c->clean           ? 0
                                          : MQTT_NEVER;
    m->bridge = c->bridge;
    m->expiry_s = capped(asked, o->session_expiry_max_s);
    h->said_expiry = m->expiry_s != asked;
    m->keep_alive_s = c->keep_alive_s;
    m->inflight_max = o->inflight_max;
    h->clean = c->clean;
    if (m->version != MQTT_5)
        return;
    if (o->keep_alive_max_s && c->keep_alive_s > o->keep_alive_max_s) {
        m->keep_alive_s = o->keep_alive_max_s;
        h->said_keep_alive = true;
    }
    if (mqtt_has(p, MQTT_P_receive_maximum))
        m->inflight_max = (uint16_t)capped(p->receive_maximum, o->inflight_max);
    if (mqtt_has(p, MQTT_P_maximum_packet_size))
        m->packet_max = p->maximum_packet_size;
    if (mqtt_has(p, MQTT_P_topic_alias_maximum))
        m->alias_out_max = (uint16_t)capped(p->topic_alias_maximum, o->topic_alias_max);
    h->wants_response = mqtt_has(p, MQTT_P_request_response) && p->request_response;
}

/* The will as core/mqtt.h lays it out. False: no memory. */
static bool put_will(struct writer *w, const struct mqtt_connect_fields *c, const struct mqtt_given *given)
{
    uint8_t key[MQTT_KEY_MAX];
    mqtt_topic_swap(key, c->will_topic);
    writer_u8(w, c->will_retain ? MQTT_WILL_RETAIN : 0);
    writer_u32(w, mqtt_has(&c->will_props, MQTT_P_will_delay) ? c->will_props.will_delay : 0);
    writer_str8(w, slice_of(key, c->will_topic.len));
    writer_str32(w, given->raw);
    writer_slice_put(w, c->will_payload);
    return writer_ok(w);
}

static struct mqtt_hello *hello_new(const struct mqtt_connect_fields *c, struct slice vhost,
                                    const struct mqtt_given *given)
{
    size_t will = c->has_will ? 1 + 4 + 1 + c->will_topic.len + 4 + given->raw.len + c->will_payload.len : 0;
    struct mqtt_hello *h = mem_zalloc_as(MEM_CONNECTIONS, sizeof *h + c->client_id.len + vhost.len + will);
    if (!h)
        return NULL;
    struct writer w = writer_of(h->bytes, c->client_id.len + vhost.len + will);
    writer_slice_put(&w, c->client_id);
    writer_slice_put(&w, vhost);
    if (c->has_will)
        CHECK(put_will(&w, c, given));
    h->client_id_len = (uint16_t)c->client_id.len;
    h->vhost_len = (uint16_t)vhost.len;
    h->will_len = (uint32_t)will;
    return h;
}

/* 0, or why the client cannot be had under this name. */
static uint8_t id_fault(const struct mqtt_connect_fields *c)
{
    bool must_have = c->version == MQTT_3_1 || (c->version == MQTT_3_1_1 && !c->clean);
    if (c->client_id.len > MQTT_CLIENT_ID_MAX || (c->client_id.len == 0 && must_have))
        return MQTT_R_client_id;
    if (slice_is(c->client_id, MQTT_SYS_ID)) /* the broker's own: who took it over would end the $SYS tree */
        return MQTT_R_client_id;
    return 0;
}

static uint8_t will_fault(const struct mqtt *m, const struct mqtt_connect_fields *c)
{
    if (!c->has_will)
        return 0;
    if (!mqtt_topic_valid(c->will_topic) || c->will_topic.len > MQTT_KEY_MAX || slice_starts(c->will_topic, "$SYS"))
        return MQTT_R_topic_invalid;
    return c->will_payload.len > m->options->message_bytes_max ? MQTT_R_too_large : 0;
}

/* VHOST:USER, at the last colon. */
static void split_user(const struct mqtt *m, struct slice text, struct slice *ret_vhost, struct slice *ret_user)
{
    size_t at = text.len;
    while (at && text.ptr[at - 1] != ':')
        at--;
    *ret_vhost = at ? slice_of(text.ptr, at - 1) : slice_str(m->options->vhost);
    *ret_user = at ? slice_of(text.ptr + at, text.len - at) : text;
}

/* 0, or the reason code. The core has been asked. */
static uint8_t begin_login(struct mqtt *m, const struct mqtt_connect_fields *c, struct slice user)
{
    enum scram_hash hash = SCRAM_SHA256;
    if (mqtt_has(&c->props, MQTT_P_auth_method)) {
        if (!mechanism_named(m, c->props.auth_method, &hash))
            return MQTT_R_bad_auth_method;
        m->scram = mem_alloc_as(MEM_CONNECTIONS, sizeof *m->scram);
        if (!m->scram)
            return MQTT_R_unavailable;
        scram_init(m->scram, hash);
        m->method = (uint8_t)(hash + 1);
        if (!scram_first(m->scram, c->props.auth_data))
            return MQTT_R_not_authorized;
    } else if (mqtt_has(&c->props, MQTT_P_auth_data)) {
        return MQTT_R_protocol_error;
    } else if (!c->has_user && !m->session.engine.certified &&
               (!engine_may_be_anonymous(&m->session.engine) || !m->options->anonymous[0])) {
        engine_turn_away(&m->session.engine);
        return MQTT_R_not_authorized;
    }
    mqtt_state_move(m, MQTT_IS_ASKING);
    if (!open_session(m))
        return 0;
    if (m->scram)
        ask_keys(m, 0);
    else if (c->has_user)
        login(m, user, c->password, "PLAIN", 0);
    else if (m->session.engine.certified)
        login(m, slice_str(m->session.engine.certified), (struct slice){0}, "EXTERNAL", ASK_CERTIFIED);
    else
        login(m, slice_str(m->options->anonymous), (struct slice){0}, "ANONYMOUS", ASK_TRUSTED);
    return 0;
}

static void begin(struct mqtt *m, const struct mqtt_connect_fields *c)
{
    struct slice vhost, user;
    struct mqtt_given given = {.raw = {0}};
    uint8_t fault = will_fault(m, c);
    if (!fault)
        fault = id_fault(c);
    if (!fault && c->has_will)
        fault = mqtt_given_make(&given, c->will_qos, c->will_retain, &c->will_props);
    if (fault) {
        mqtt_given_fini(&given);
        mqtt_fail(m, fault, NULL);
        return;
    }
    split_user(m, c->user, &vhost, &user);
    m->hello = hello_new(c, vhost, &given);
    mqtt_given_fini(&given);
    if (!m->hello) {
        mqtt_fail_memory(m);
        return;
    }
    negotiate(m, c, m->hello);
    fault = begin_login(m, c, user);
    if (fault)
        mqtt_fail(m, fault, NULL);
}

void mqtt_on_connect(struct mqtt *m, const struct mqtt_frame *frame)
{
    union mqtt_fields f;
    uint8_t fault = mqtt_decode(frame, 0, MQTT_CLIENT, &f);
    const struct mqtt_connect_fields *c = &f.connect;
    mqtt_count(&m->options->totals->connects, 1);
    if (frame->flags ||
        (fault && fault != MQTT_R_unsupported_version && (c->version < MQTT_3_1 || c->version > MQTT_5))) {
        mqtt_drop(m); /* no MQTT, or it cannot be seen which */
        return;
    }
    if (fault != MQTT_R_unsupported_version) {
        m->version = c->version;
        m->quiet = mqtt_has(&c->props, MQTT_P_request_problem) && !c->props.request_problem;
    }
    if (fault)
        mqtt_fail(m, fault, NULL);
    else
        begin(m, c);
}

/* ---- AUTH ---- */

static void out_auth(struct mqtt *m, uint8_t reason, struct slice token)
{
    union mqtt_fields f = {.end = {.reason = reason}};
    MQTT_SET(&f.end.props, auth_method, slice_str(scram_name((enum scram_hash)(m->method - 1))));
    MQTT_SET(&f.end.props, auth_data, token);
    mqtt_out(m, MQTT_auth, &f);
}

/* The keys have come: what the client is to prove. False: they make no sense. */
static bool challenge(struct mqtt *m, const struct effect *e)
{
    struct scram_keys keys;
    struct slice fields = e->answer ? e->answer->fields : (struct slice){0};
    if (fields.len <= SCRAM_NONCE ||
        !scram_keys_parse(slice_of(fields.ptr + SCRAM_NONCE, fields.len - SCRAM_NONCE), &keys))
        return false;
    out_auth(m, MQTT_R_continue_authentication, scram_reply(m->scram, &keys, fields.ptr));
    explicit_bzero(&keys, sizeof keys);
    explicit_bzero((void *)(uintptr_t)fields.ptr, fields.len);
    return true;
}

/* The client's last message: 0, or the reason code. */
static uint8_t prove(struct mqtt *m, struct slice token, uint32_t flags)
{
    char keys[SCRAM_TEXT_MAX];
    struct slice signature;
    size_t len = scram_keys_print(&m->scram->keys, keys);
    bool proven = scram_final(m->scram, token, &signature);
    if (proven)
        login(m, scram_user(m->scram), slice_of(keys, len), scram_name(m->scram->hash), ASK_PROVEN | flags);
    explicit_bzero(keys, sizeof keys);
    return proven ? 0 : MQTT_R_not_authorized;
}

/* While running: the client begins again, or goes on with that. */
static uint8_t again(struct mqtt *m, const struct mqtt_end_fields *f)
{
    if (f->reason == MQTT_R_reauthenticate && !m->scram) {
        m->scram = mem_alloc_as(MEM_CONNECTIONS, sizeof *m->scram);
        if (!m->scram)
            return MQTT_R_quota;
        scram_init(m->scram, (enum scram_hash)(m->method - 1));
        if (!scram_first(m->scram, f->props.auth_data))
            return MQTT_R_not_authorized;
        ask_keys(m, ASK_AGAIN);
        return 0;
    }
    if (f->reason != MQTT_R_continue_authentication || !m->scram || m->scram->step != SCRAM_FINAL)
        return MQTT_R_protocol_error;
    return prove(m, f->props.auth_data, ASK_AGAIN);
}

void mqtt_on_auth(struct mqtt *m, const struct mqtt_end_fields *f)
{
    enum scram_hash hash;
    uint8_t fault;
    if (!m->method || !mqtt_has(&f->props, MQTT_P_auth_method) || !scram_named(f->props.auth_method, &hash) ||
        hash + 1u != m->method) {
        mqtt_fail(m, MQTT_R_protocol_error, NULL);
        return;
    }
    if (m->state == MQTT_IS_READY) {
        fault = again(m, f);
    } else if (f->reason != MQTT_R_continue_authentication) {
        fault = MQTT_R_protocol_error;
    } else {
        mqtt_state_move(m, MQTT_IS_ASKING);
        fault = prove(m, f->props.auth_data, 0);
    }
    if (fault)
        mqtt_fail(m, fault, NULL);
}

void mqtt_again_answer(struct mqtt *m, const struct effect *e)
{
    if (!m->scram)
        return;
    if (m->scram->step == SCRAM_KEYS) {
        if (!challenge(m, e))
            mqtt_fail(m, MQTT_R_unspecified, NULL);
        return;
    }
    out_auth(m, 0, slice_str(m->scram->reply));
    scram_end(m);
}

/* ---- answers ---- */

static const struct {
    enum error_code code;
    uint8_t reason;
} attach_faults[] = {
    {ERR_ACCESS_REFUSED, MQTT_R_not_authorized}, {ERR_NOT_ALLOWED, MQTT_R_not_authorized},
    {ERR_NOT_FOUND, MQTT_R_unavailable},         {ERR_PRECONDITION_FAILED, MQTT_R_client_id},
    {ERR_RESOURCE_ERROR, MQTT_R_quota},
};

/* What the session left: subscriptions, and ids whose PUBREL has to be said again. */
static bool restore(struct mqtt *m, struct slice fields)
{
    struct reader r = reader_of(fields);
    if (fields.len == 0)
        return true;
    if (!mqtt_subs_restore(m, &r))
        return false;
    m->hello->ids_at = (uint32_t)(fields.len - r.left);
    uint32_t count = reader_u32(&r);
    for (uint32_t i = 0; i < count && reader_ok(&r); i++) {
        uint16_t id = reader_u16(&r);
        struct id_entry *entry = reader_ok(&r) && !ids_find(&m->ids, id) ? ids_put(&m->ids, id) : NULL;
        if (!entry)
            return false;
        entry->state = ID_WAITS_PUBCOMP;
    }
    return reader_done(&r);
}

static void attached(struct mqtt *m, struct effect *e)
{
    struct answer *answer = e->answer;
    enum error_code code = answer ? answer->code : ERR_NONE;
    if (code != ERR_NONE) {
        uint8_t reason = (uint8_t)error_row(code)->mqtt;
        for (size_t i = 0; i < ARRAY_LEN(attach_faults); i++)
            if (attach_faults[i].code == code)
                reason = attach_faults[i].reason;
        mqtt_fail(m, reason, NULL);
        return;
    }
    if (answer && !restore(m, answer->fields)) {
        mqtt_fail(m, MQTT_R_unavailable, NULL);
        return;
    }
    m->hello->answer = answer;
    e->answer = NULL;
    mqtt_owe(m, &(struct mqtt_owed){.type = MQTT_connack, .lsn = e->lsn});
}

void mqtt_connect_effect(struct mqtt *m, struct effect *e)
{
    enum mqtt_origin kind = (enum mqtt_origin)(e->origin >> 16);
    if (e->type == EFF_ERROR) {
        enum error_code code = e->answer ? e->answer->code : ERR_RESOURCE_ERROR;
        bool of_login = kind == MQTT_ASKED_LOGIN || kind == MQTT_ASKED_KEYS;
        mqtt_fail(m, of_login ? MQTT_R_bad_login : (uint8_t)error_row(code)->mqtt, NULL);
        return;
    }
    if (kind == MQTT_ASKED_KEYS) {
        mqtt_state_move(m, MQTT_IS_PROVING);
        if (!challenge(m, e))
            mqtt_fail(m, MQTT_R_unavailable, NULL);
        engine_dirty(&m->session.engine);
    } else if (kind == MQTT_ASKED_LOGIN) {
        attach(m);
    } else if (kind == MQTT_ASKED_ATTACH) {
        attached(m, e);
    } /* the others only say that it goes on */
}

/* ---- CONNACK ---- */

static uint32_t packet_limit(const struct mqtt *m)
{
    uint32_t limit = m->options->message_bytes_max + PACKET_MORE;
    return limit > MQTT_REMAINING_MAX ? MQTT_REMAINING_MAX : limit;
}

static void connack_props(struct mqtt *m, struct mqtt_props *p)
{
    const struct mqtt_hello *h = m->hello;
    const struct mqtt_options *o = m->options;
    if (h->said_expiry)
        MQTT_SET(p, session_expiry, m->expiry_s);
    if (o->receive_max < NOT_WORTH_ASKING)
        MQTT_SET(p, receive_maximum, o->receive_max);
    MQTT_SET(p, maximum_packet_size, packet_limit(m));
    if (o->topic_alias_max)
        MQTT_SET(p, topic_alias_maximum, o->topic_alias_max);
    if (h->client_id_len == 0 && h->answer)
        MQTT_SET(p, assigned_client_id, h->answer->name);
    if (h->said_keep_alive)
        MQTT_SET(p, server_keep_alive, m->keep_alive_s);
    if (h->wants_response && o->response_information[0])
        MQTT_SET(p, response_information, slice_str(o->response_information));
    if (m->scram) {
        MQTT_SET(p, auth_method, slice_str(scram_name(m->scram->hash)));
        MQTT_SET(p, auth_data, slice_str(m->scram->reply));
    }
}

static void count_client(struct mqtt *m)
{
    struct mqtt_totals *t = m->options->totals;
    m->counted = true;
    uint64_t now = atomic_fetch_add_explicit(&t->clients, 1, memory_order_relaxed) + 1;
    uint64_t most = atomic_load_explicit(&t->clients_max, memory_order_relaxed);
    while (now > most && !atomic_compare_exchange_weak_explicit(&t->clients_max, &most, now, memory_order_relaxed,
                                                                memory_order_relaxed))
        ;
}

/* In the order in which they were released (4.6). */
static void release_again(struct mqtt *m)
{
    struct slice fields = m->hello->answer ? m->hello->answer->fields : (struct slice){0};
    if (fields.len == 0)
        return;
    struct reader r = reader_of(slice_of(fields.ptr + m->hello->ids_at, fields.len - m->hello->ids_at));
    for (uint32_t left = reader_u32(&r); left; left--)
        mqtt_out_ack(m, MQTT_pubrel, reader_u16(&r), 0);
}

void mqtt_connected(struct mqtt *m)
{
    union mqtt_fields f = {.connack = {.reason = 0}};
    f.connack.session_present = m->version != MQTT_3_1 && m->hello->answer && m->hello->answer->number;
    if (m->version == MQTT_5)
        connack_props(m, &f.connack.props);
    mqtt_out(m, MQTT_connack, &f);
    release_again(m);
    mqtt_connect_fini(m);
    mqtt_state_move(m, MQTT_IS_READY);
    m->session.engine.in_max = packet_limit(m);
    count_client(m);
    struct command resume = {.type = CMD_MQTT_RESUME, .channel = MQTT_CHANNEL, .number = m->inflight_max};
    resume.origin = MQTT_ORIGIN(MQTT_ASKED_RESUME, 0);
    mqtt_send(m, &resume);
    m->session.heard_at = m->session.engine.now;
    mqtt_tick_by(m, m->session.engine.now); /* the keep alive begins; and what came meanwhile can be read */
}

/* ---- DISCONNECT ---- */

void mqtt_on_disconnect(struct mqtt *m, const struct mqtt_end_fields *f)
{
    uint32_t expiry = m->expiry_s;
    if (m->version == MQTT_5 && mqtt_has(&f->props, MQTT_P_session_expiry)) {
        if (expiry == 0 && f->props.session_expiry) { /* section 3.14.2.2.2 */
            mqtt_fail(m, MQTT_R_protocol_error, NULL);
            return;
        }
        expiry = capped(f->props.session_expiry, m->options->session_expiry_max_s);
    }
    if (m->state == MQTT_IS_READY) {
        struct command detach = {.type = CMD_MQTT_DETACH, .channel = MQTT_CHANNEL, .number = expiry};
        detach.flags = f->reason == MQTT_R_disconnect_with_will ? ASK_KEEP_WILL : 0;
        detach.origin = MQTT_ORIGIN(MQTT_ASKED_DETACH, 0);
        mqtt_send(m, &detach);
    }
    mqtt_drop(m);
}
