/* What clients publish: PUBLISH and PUBREL in, PUBACK and PUBREC out (PUBCOMP: engine.c, with the rest of what waits for an lsn).
 *
 * Every publish has a number; the core confirms up to a number, with an lsn. `publishes` are those that want an answer, `confirms` what
 * the core has said, both in order: when a confirm is durable its publishes are answered. What is under way in bytes bounds how far
 * a client may run ahead of the disk, whatever its QoS.
 *
 * A topic alias is kept as the key that it stands for. Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "proto/mqtt/mapping.h"
#include "proto/mqtt/mqtt_int.h"

/* ---- aliases ---- */

void mqtt_aliases_free(struct mqtt *m, struct mqtt_alias ***aliases)
{
    for (uint16_t i = 0; *aliases && i < m->options->topic_alias_max; i++)
        mem_free_as(MEM_CONNECTIONS, (*aliases)[i]);
    mem_free_as(MEM_CONNECTIONS, *aliases);
    *aliases = NULL;
}

static bool alias_keep(struct mqtt *m, uint16_t number, struct slice key)
{
    if (!m->aliases_in)
        m->aliases_in = mem_zalloc_as(MEM_CONNECTIONS, m->options->topic_alias_max * sizeof *m->aliases_in);
    struct mqtt_alias *alias = m->aliases_in ? mem_alloc_as(MEM_CONNECTIONS, sizeof *alias + key.len) : NULL;
    if (!alias)
        return false;
    alias->len = (uint8_t)key.len;
    memcpy(alias->key, key.ptr, key.len);
    mem_free_as(MEM_CONNECTIONS, m->aliases_in[number - 1]);
    m->aliases_in[number - 1] = alias;
    return true;
}

/* The key of the topic, or of the alias that stands for it. room: MQTT_KEY_MAX bytes. 0, or the reason code; too_long: of this
 * publish only. */
static uint8_t key_of(struct mqtt *m, const struct mqtt_publish_fields *f, uint8_t *room, struct slice *ret,
                      bool *ret_too_long)
{
    bool has_alias = mqtt_has(&f->props, MQTT_P_topic_alias);
    uint16_t number = f->props.topic_alias;
    *ret_too_long = false;
    if (has_alias && (number == 0 || number > m->options->topic_alias_max))
        return MQTT_R_topic_alias;
    if (f->topic.len == 0 && has_alias) {
        if (!m->aliases_in || !m->aliases_in[number - 1])
            return MQTT_R_protocol_error; /* section 3.3.2.3.4 */
        *ret = slice_of(m->aliases_in[number - 1]->key, m->aliases_in[number - 1]->len);
        return 0;
    }
    if (f->topic.len == 0 && m->version == MQTT_5)
        return MQTT_R_protocol_error;
    if (!mqtt_topic_valid(f->topic))
        return m->version == MQTT_5 ? MQTT_R_protocol_error : MQTT_R_malformed;
    if (f->topic.len > MQTT_KEY_MAX) {
        *ret_too_long = true;
        return has_alias ? MQTT_R_topic_invalid : 0;
    }
    mqtt_topic_swap(room, f->topic);
    *ret = slice_of(room, f->topic.len);
    return has_alias && !alias_keep(m, number, *ret) ? MQTT_R_quota : 0;
}

/* ---- in ---- */

/* Nothing of it reaches the core; it has its answer in its turn all the same. */
static void refuse(struct mqtt *m, const struct mqtt_publish_fields *f, uint8_t reason)
{
    if (f->qos == 0)
        return;
    struct mqtt_published *published = fifo_push(&m->publishes);
    if (!published) {
        mqtt_fail_memory(m);
        return;
    }
    *published = (struct mqtt_published){.number = m->published, .id = f->id, .qos = f->qos, .refused = reason};
    m->quota_used++;
    hub_hold(mqtt_hub(m), &m->session);
    if (m->publishes.count > MQTT_UNANSWERED_MAX)
        mqtt_pause(m, MQTT_PAUSE_OWED);
}

/* The message of a publish; NULL: why, which is a reason code or 0 for no memory. */
static struct msg *message_of(struct mqtt *m, const struct mqtt_publish_fields *f, struct slice key, uint8_t *ret_fault)
{
    struct mqtt_given given;
    struct msg *msg = NULL;
    *ret_fault = mqtt_given_make(&given, f->qos, f->retain, &f->props);
    if (!*ret_fault)
        msg = msg_new(mqtt_heap(m), slice_str(m->options->exchange), key, given.raw, f->payload.len);
    if (msg) {
        msg->flags = given.flags;
        msg->priority = given.priority;
        msg->expiration_ms = given.expiration_ms;
        if (f->payload.len)
            memcpy(msg_body_room(msg), f->payload.ptr, f->payload.len);
    }
    mqtt_given_fini(&given);
    return msg;
}

static void send(struct mqtt *m, const struct mqtt_publish_fields *f, struct msg *msg)
{
    struct command command = {.type = CMD_PUBLISH, .channel = MQTT_CHANNEL, .number = m->published + 1, .msg = msg};
    command.origin = MQTT_ORIGIN(MQTT_ASKED_PUBLISH, f->id);
    command.flags = ASK_SOFT | (f->retain ? ASK_RETAIN : 0) | (f->qos == 2 ? ASK_ONCE : 0);
    size_t size = msg_size(msg);
    if (f->qos) {
        struct mqtt_published *published = fifo_push(&m->publishes);
        if (!published) {
            msg_unref(mqtt_heap(m), msg);
            mqtt_fail_memory(m);
            return;
        }
        *published = (struct mqtt_published){.number = command.number, .id = f->id, .qos = f->qos};
        m->quota_used++;
    }
    m->published++;
    m->unsettled_bytes += size;
    if (!mqtt_send(m, &command))
        return;
    if (m->unsettled_bytes > MQTT_INFLIGHT_HIGH)
        mqtt_pause(m, MQTT_PAUSE_FLOW);
    if (m->publishes.count > MQTT_UNANSWERED_MAX)
        mqtt_pause(m, MQTT_PAUSE_OWED);
}

void mqtt_on_publish(struct mqtt *m, const struct mqtt_publish_fields *f)
{
    uint8_t room[MQTT_KEY_MAX];
    struct slice key = {0};
    bool too_long;
    mqtt_count(&m->options->totals->publishes_in, 1);
    uint8_t fault = key_of(m, f, room, &key, &too_long);
    if (!fault && mqtt_has(&f->props, MQTT_P_response_topic) && f->props.response_topic.len &&
        !mqtt_topic_valid(f->props.response_topic))
        fault = MQTT_R_protocol_error; /* section 3.3.2.3.5 */
    if (!fault && f->payload.len > m->options->message_bytes_max)
        fault = MQTT_R_too_large;
    if (!fault && f->qos && m->version == MQTT_5 && m->quota_used >= m->options->receive_max)
        fault = MQTT_R_receive_maximum;
    if (fault) {
        mqtt_fail(m, fault, NULL);
        return;
    }
    if (too_long || slice_starts(key, "$SYS")) {
        refuse(m, f, too_long ? MQTT_R_topic_invalid : MQTT_R_not_authorized);
        return;
    }
    struct msg *msg = message_of(m, f, key, &fault);
    if (msg)
        send(m, f, msg);
    else if (fault)
        refuse(m, f, fault);
    else
        mqtt_fail_memory(m);
}

void mqtt_on_pubrel(struct mqtt *m, const struct mqtt_ack_fields *f)
{
    struct command command = {.type = CMD_MQTT_RELEASED, .channel = MQTT_CHANNEL, .number = f->id};
    command.origin = MQTT_ORIGIN(MQTT_ASKED_RELEASED, f->id);
    mqtt_send(m, &command);
}

/* ---- the core's word ---- */

static const uint8_t nack_reasons[] = {
    [NACK_FULL] = MQTT_R_quota,  [NACK_ACCESS] = MQTT_R_not_authorized,  [NACK_NOWHERE] = MQTT_R_implementation,
    [NACK_QUOTA] = MQTT_R_quota, [NACK_INVALID] = MQTT_R_implementation,
};

void mqtt_publish_effect(struct mqtt *m, const struct effect *e)
{
    uint8_t reason = 0;
    if (e->type == EFF_NACK)
        reason = e->flags < ARRAY_LEN(nack_reasons) ? nack_reasons[e->flags] : MQTT_R_unspecified;
    else if (e->flags & EFFECT_UNROUTED)
        reason = MQTT_R_no_matching_subscribers;
    hub_hold(mqtt_hub(m), &m->session);
    if (!confirms_add(&m->confirms, e, reason, hub_durable(mqtt_hub(m))))
        mqtt_fail_memory(m);
}

/* PUBREC with a fault ends the exchange, as PUBACK does (4.3.3). 3.x has no word for it: what the client must not do counts as done
 * (3.3.5), and what cannot be done now ends the connection, so that the client comes again with it. */
static void answer(struct mqtt *m, const struct mqtt_published *p, uint8_t reason)
{
    bool refused = reason >= 0x80;
    if (refused && m->version != MQTT_5) {
        if (reason != MQTT_R_not_authorized) {
            mqtt_drop(m);
            return;
        }
        refused = false;
    }
    if (p->qos == 1 || refused)
        m->quota_used -= m->quota_used > 0;
    mqtt_out_ack(m, p->qos == 1 ? MQTT_puback : MQTT_pubrec, p->id, reason);
}

/* Those up to that number are answered, and what was refused among them and right behind. */
static void answer_upto(struct mqtt *m, uint64_t number, uint8_t reason)
{
    while (m->publishes.count && mqtt_live(m)) {
        struct mqtt_published p = *(struct mqtt_published *)fifo_first(&m->publishes);
        if (!p.refused && p.number > number)
            return;
        fifo_pop(&m->publishes);
        answer(m, &p, p.refused ? p.refused : reason);
    }
}

void mqtt_publish_release(struct mqtt *m, lsn_t durable)
{
    uint64_t bytes = 0;
    struct confirm c;
    while (mqtt_live(m) && confirms_take(&m->confirms, durable, &c)) {
        bytes += c.bytes;
        answer_upto(m, c.number, c.kind);
    }
    answer_upto(m, 0, 0);
    m->unsettled_bytes -= bytes < m->unsettled_bytes ? bytes : m->unsettled_bytes;
    if (m->unsettled_bytes < MQTT_INFLIGHT_LOW)
        mqtt_resume(m, MQTT_PAUSE_FLOW);
}
