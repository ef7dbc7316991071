/* What goes out to a client: PUBLISH of all three kinds, and the client's answers to it.
 *
 *   QoS 0, live      EFF_FANOUT: one effect for the loop. Each form of the packet (version, RETAIN, identifier) is encoded once for all
 *                    sessions and copied from there; a long payload is lent. A full out-queue loses the message.
 *   from a queue     EFF_DELIVER: QoS 1 and 2, and what a shared subscription gets. The entry's place in the queue is its packet id; while that
 *                    is in use, which takes as many messages as there are ids, or those of two groups, deliveries wait here.
 *   retained, QoS 0  EFF_RETAINED
 *
 * From the client's own queue a message comes once, whichever of its subscriptions it matches: here it is seen which, for QoS, RETAIN and
 * identifiers. Thread: the loop's. */
#include "base/check.h"
#include "base/mem.h"
#include "proto/mqtt/mapping.h"
#include "proto/mqtt/mqtt_int.h"

#define IDENTIFIERS_MAX 256u /* of one message; more subscriptions with one are not named */
#define PROPS_SMALL 1024u
#define FIRST_PUBLISH (MQTT_publish << 4)
#define ALIAS_BYTES 3u
#define SHARED_IDS (UINT16_MAX - MQTT_OWN_IDS)

/* One PUBLISH but for its payload. */
struct packet {
    uint8_t first; /* type and flags */
    bool has_id;
    uint16_t id, alias; /* alias 0: none */
    struct slice topic;
    struct slice props; /* what the message has whoever gets it */
    const uint32_t *identifiers;
    uint32_t identifier_count;
    uint32_t payload_len;
};

/* ---- encoding ---- */

static size_t props_len(const struct packet *p)
{
    size_t len = p->props.len + (p->alias ? ALIAS_BYTES : 0);
    for (uint32_t i = 0; i < p->identifier_count; i++)
        len += 1 + mqtt_varint_len(p->identifiers[i]);
    return len;
}

/* Of everything behind the fixed header, with the payload. */
static size_t body_len(const struct packet *p, uint8_t version)
{
    size_t len = 2 + p->topic.len + (p->has_id ? 2u : 0) + p->payload_len, props = props_len(p);
    return version == MQTT_5 ? len + mqtt_varint_len((uint32_t)props) + props : len;
}

static size_t packet_len(const struct packet *p, uint8_t version)
{
    size_t body = body_len(p, version);
    return body > MQTT_REMAINING_MAX ? SIZE_MAX : 1 + mqtt_varint_len((uint32_t)body) + body;
}

/* All but the payload. */
static void put_head(struct writer *w, const struct packet *p, uint8_t version)
{
    writer_u8(w, p->first);
    mqtt_varint_put(w, (uint32_t)body_len(p, version));
    mqtt_text_put(w, p->topic);
    if (p->has_id)
        writer_u16(w, p->id);
    if (version != MQTT_5)
        return;
    mqtt_varint_put(w, (uint32_t)props_len(p));
    writer_slice_put(w, p->props);
    if (p->alias)
        mqtt_property_put(w, &(struct mqtt_one){.property = MQTT_P_topic_alias, .number = p->alias});
    for (uint32_t i = 0; i < p->identifier_count; i++)
        mqtt_property_put(w, &(struct mqtt_one){.property = MQTT_P_subscription_id, .number = p->identifiers[i]});
}

/* Properties of a message as a list; to be given back. */
struct list_bytes {
    uint8_t small[PROPS_SMALL];
    uint8_t *block;
    struct slice list;
};

static bool list_make(struct list_bytes *ret, const struct mqtt_content *content, uint32_t expiry_s, uint8_t version)
{
    ret->block = NULL;
    ret->list = (struct slice){0};
    if (version != MQTT_5 || (!content->props.present && !expiry_s))
        return true;
    size_t max = mqtt_content_len_max(content);
    uint8_t *room = ret->small;
    if (max > PROPS_SMALL)
        room = ret->block = mem_alloc(max);
    if (!room)
        return false;
    struct writer w = writer_of(room, max);
    mqtt_content_put(&w, content, expiry_s);
    CHECK(writer_ok(&w));
    ret->list = writer_slice(&w);
    return true;
}

static void message_release(void *arg, void *owner)
{
    msg_unref(arg, owner);
}

static void put_payload(struct mqtt *m, struct msg *msg)
{
    struct outq *out = &m->session.engine.out;
    struct slice payload = msg_body(msg);
    if (payload.len < OUTQ_LEND_MIN)
        outq_put(out, payload.ptr, payload.len);
    else
        outq_lend(out, payload, message_release, mqtt_heap(m), msg_ref(msg));
}

static void count_out(struct mqtt *m, size_t len)
{
    struct mqtt_totals *t = m->options->totals;
    mqtt_count(&t->packets_out, 1);
    mqtt_count(&t->publishes_out, 1);
    mqtt_count(&t->bytes_out, len);
    engine_dirty(&m->session.engine);
}

static void out_packet(struct mqtt *m, const struct packet *p, struct msg *msg)
{
    size_t len = packet_len(p, m->version), head = len - p->payload_len;
    struct outq *out = &m->session.engine.out;
    uint8_t *block = head > OUTQ_CHUNK_LEN ? mem_alloc(head) : NULL;
    uint8_t *to = head > OUTQ_CHUNK_LEN ? block : outq_room(out, head);
    if (!to) {
        mqtt_fail_memory(m);
        return;
    }
    struct writer w = writer_of(to, head);
    put_head(&w, p, m->version);
    CHECK(writer_ok(&w) && w.len == head);
    if (block)
        outq_put(out, block, head);
    else
        outq_commit(out, head);
    mem_free(block);
    put_payload(m, msg);
    count_out(m, len);
}

/* ---- aliases towards the client ---- */

/* The alias of the topic, a new one as long as there are some; 0: none. *ret_known: the client knows it. */
static uint16_t alias_of(struct mqtt *m, struct slice key, bool *ret_known)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < key.len; i++)
        hash = (hash ^ key.ptr[i]) * 16777619u;
    for (uint16_t i = 0; i < m->alias_out_count; i++) {
        const struct mqtt_alias *alias = m->aliases_out[i];
        *ret_known = alias->hash == hash && slice_equal(slice_of(alias->key, alias->len), key);
        if (*ret_known)
            return (uint16_t)(i + 1);
    }
    *ret_known = false;
    if (m->alias_out_count >= m->alias_out_max)
        return 0;
    if (!m->aliases_out)
        m->aliases_out = mem_zalloc_as(MEM_CONNECTIONS, m->options->topic_alias_max * sizeof *m->aliases_out);
    struct mqtt_alias *alias = m->aliases_out ? mem_alloc_as(MEM_CONNECTIONS, sizeof *alias + key.len) : NULL;
    if (!alias)
        return 0; /* the topic goes in full, then */
    alias->hash = hash;
    alias->len = (uint8_t)key.len;
    if (key.len)
        memcpy(alias->key, key.ptr, key.len);
    m->aliases_out[m->alias_out_count++] = alias;
    return m->alias_out_count;
}

/* The client takes no packet of that size (3.1.2.11.4): it counts as delivered. */
static bool is_too_large(struct mqtt *m, size_t len)
{
    if (len <= m->packet_max)
        return false;
    mqtt_count(&m->options->totals->dropped, 1);
    return true;
}

/* What this message is to this client, by the subscriptions that it came by. */
struct match {
    uint8_t qos;
    bool as_published;
    uint32_t identifiers[IDENTIFIERS_MAX];
    uint32_t identifier_count;
};

/* False: too large. */
static bool out_message(struct mqtt *m, struct msg *msg, const struct mqtt_content *content, const struct match *match,
                        uint32_t expiry_s, uint8_t first, uint16_t id)
{
    uint8_t topic[MQTT_TOPIC_OF_KEY_MAX];
    struct list_bytes list;
    if (!list_make(&list, content, expiry_s, m->version)) {
        mqtt_fail_memory(m);
        return true;
    }
    struct packet p = {.first = first,
                       .has_id = id != 0,
                       .id = id,
                       .topic = slice_of(topic, mqtt_topic_of_key(msg_key(msg), topic)),
                       .props = list.list,
                       .identifiers = match->identifiers,
                       .identifier_count = match->identifier_count,
                       .payload_len = msg->body_len};
    bool fits = !is_too_large(m, packet_len(&p, m->version));
    p.alias = fits && m->alias_out_max; /* how long it would be: lengths get longer, too */
    bool room = p.alias && packet_len(&p, m->version) <= m->packet_max;
    p.alias = 0;
    if (room) {
        bool known;
        p.alias = alias_of(m, msg_key(msg), &known);
        if (p.alias && known)
            p.topic.len = 0;
    }
    if (fits)
        out_packet(m, &p, msg);
    mem_free(list.block);
    return fits;
}

/* ---- QoS 0 to everybody ---- */

static uint32_t seconds_of(int64_t ms)
{
    return ms > 0 ? (uint32_t)((ms + 999) / 1000) : 0;
}

static uint8_t first_of(uint8_t qos, bool retain, bool dup)
{
    return (uint8_t)(FIRST_PUBLISH | (dup ? 8 : 0) | qos << 1 | retain);
}

/* The packet, or all of it that stands before a long payload, encoded into the room that the hub has for all. NULL: there is none. */
static const struct fanout_form *form_make(struct fanout *fanout, uint32_t key, uint8_t version, const struct packet *p)
{
    size_t len = packet_len(p, version);
    bool whole = p->payload_len < OUTQ_LEND_MIN;
    if (len == SIZE_MAX)
        return NULL;
    size_t room = whole ? len : len - p->payload_len;
    uint8_t *to = fanout_make(fanout, key, room);
    if (!to)
        return NULL;
    struct writer w = writer_of(to, room);
    put_head(&w, p, version);
    if (whole)
        writer_slice_put(&w, msg_body(fanout->msg));
    CHECK(writer_ok(&w) && w.len == room);
    return fanout_find(fanout, key);
}

static const struct fanout_form *form_new(struct mqtt *m, struct fanout *fanout, uint32_t key,
                                          const struct mqtt_content *content, bool retain, const uint32_t *identifier)
{
    uint8_t topic[MQTT_TOPIC_OF_KEY_MAX];
    struct msg *msg = fanout->msg;
    struct list_bytes list;
    if (!list_make(&list, content, seconds_of(msg->expiration_ms), m->version))
        return NULL;
    struct packet p = {.first = first_of(0, retain, false),
                       .topic = slice_of(topic, mqtt_topic_of_key(msg_key(msg), topic)),
                       .props = list.list,
                       .identifiers = identifier,
                       .identifier_count = *identifier && m->version == MQTT_5,
                       .payload_len = msg->body_len};
    const struct fanout_form *form = form_make(fanout, key, m->version, &p);
    mem_free(list.block);
    return form;
}

static void out_form(struct mqtt *m, const struct fanout_form *form, struct msg *msg)
{
    bool whole = msg->body_len < OUTQ_LEND_MIN;
    size_t len = form->len + (whole ? 0 : msg->body_len);
    if (is_too_large(m, len))
        return;
    outq_put(&m->session.engine.out, form->bytes, form->len);
    if (!whole)
        put_payload(m, msg);
    count_out(m, len);
}

/* By itself: it has aliases of its own, or there is no room for one more form. */
static void fanout_alone(struct mqtt *m, struct fanout *fanout, const struct mqtt_subscribed *sub,
                         const struct mqtt_content *content, bool retain)
{
    struct match match = {.identifier_count = 0};
    if (sub->identifier && m->version == MQTT_5)
        match.identifiers[match.identifier_count++] = sub->identifier;
    out_message(m, fanout->msg, content, &match, seconds_of(fanout->msg->expiration_ms), first_of(0, retain, false), 0);
}

void mqtt_on_fanout(struct session *session, struct fanout *fanout, uint32_t handle)
{
    struct mqtt *m = CONTAINER_OF(session, struct mqtt, session);
    const struct mqtt_subscribed *sub = m->state == MQTT_IS_READY ? mqtt_sub_of(m, handle) : NULL;
    if (!sub || (sub->options & MQTT_OPT_NO_LOCAL && fanout->any_from && fanout->from == session->number))
        return;
    if (session->engine.out.len > m->options->out_bytes_max) {
        mqtt_count(&m->options->totals->dropped, 1);
        return;
    }
    struct mqtt_content content; /* which takes time for each session, so most do without */
    bool as_published = sub->options & MQTT_OPT_AS_PUBLISHED;
    if (as_published)
        mqtt_content_read(fanout->msg, &content);
    bool retain = as_published && content.mark == MQTT_PUBLISHED_RETAINED;
    bool named = m->version == MQTT_5 && sub->identifier;
    uint32_t key = (named ? sub->identifier << 2 : 0) | (uint32_t)retain << 1 | (m->version == MQTT_5);
    const struct fanout_form *form = m->alias_out_max ? NULL : fanout_find(fanout, key);
    if (!form && !as_published)
        mqtt_content_read(fanout->msg, &content);
    if (!form && !m->alias_out_max)
        form = form_new(m, fanout, key, &content, retain, &sub->identifier);
    if (form)
        out_form(m, form, fanout->msg);
    else
        fanout_alone(m, fanout, sub, &content, retain);
}

/* ---- from queues ---- */

static void match_add(struct match *match, const struct mqtt_subscribed *sub, uint8_t version)
{
    uint8_t qos = sub->options & MQTT_OPT_QOS;
    match->qos = qos > match->qos ? qos : match->qos;
    match->as_published |= sub->options & MQTT_OPT_AS_PUBLISHED;
    if (sub->identifier && version == MQTT_5 && match->identifier_count < IDENTIFIERS_MAX)
        match->identifiers[match->identifier_count++] = sub->identifier;
}

struct own_match {
    struct match *match;
    uint8_t version;
    bool any;
};

static void own_found(void *arg, const struct mqtt_subscribed *sub)
{
    struct own_match *own = arg;
    match_add(own->match, sub, own->version);
    own->any = true;
}

static void match_own(const struct mqtt *m, struct slice key, struct match *match)
{
    struct own_match own = {.match = match, .version = m->version};
    mqtt_subs_match(m, key, true, own_found, &own);
    if (!own.any)
        match->qos = 2; /* it was there before its subscription went, and may have been sent so */
}

/* It moved into the client's queue because it is to be delivered with QoS 2, whatever has become of the subscription. */
static void match_shared(const struct mqtt *m, struct slice share, struct match *match)
{
    const struct mqtt_subscribed *sub = mqtt_sub_shared(m, share);
    if (sub)
        match_add(match, sub, m->version);
    match->qos = 2;
}

static void ack(struct mqtt *m, uint64_t tag, uint32_t flags, uint16_t id)
{
    struct command command = {.type = CMD_ACK, .channel = MQTT_CHANNEL, .number = tag, .flags = flags, .origin = id};
    mqtt_send(m, &command);
}

/* By the message's place in its queue, so that one that comes again has the id it had: a client that holds an id without a PUBREL takes
 * whatever comes with it for what it has already (4.3.3). 0: of a shared subscription that has gone meanwhile. */
static uint16_t id_of(const struct mqtt *m, const struct effect *e)
{
    if (e->consumer == MQTT_OWN_QUEUE)
        return (uint16_t)(1 + e->count % MQTT_OWN_IDS);
    const struct mqtt_subscribed *sub = mqtt_sub_of(m, e->consumer);
    return sub ? (uint16_t)(MQTT_OWN_IDS + 1 + (e->count + sub->hash) % SHARED_IDS) : 0;
}

/* The message goes out now. Takes it. */
static void deliver(struct mqtt *m, struct effect *e)
{
    struct mqtt_content content;
    struct match match = {.qos = 0};
    bool own = e->consumer == MQTT_OWN_QUEUE;
    const struct mqtt_subscribed *sub = own ? NULL : mqtt_sub_of(m, e->consumer);
    struct msg *msg = e->msg;
    mqtt_content_read(msg, &content);
    if (own && content.share.len)
        match_shared(m, content.share, &match);
    else if (own)
        match_own(m, msg_key(msg), &match);
    else if (sub)
        match_add(&match, sub, m->version);
    uint8_t qos = match.qos < content.qos ? match.qos : content.qos;
    bool retain =
        content.mark == MQTT_STORED_RETAINED || (content.mark == MQTT_PUBLISHED_RETAINED && match.as_published);
    uint16_t id = qos ? id_of(m, e) : 0;
    struct id_entry *entry = qos ? ids_put(&m->ids, id) : NULL;
    if (qos && !entry) {
        msg_unref(mqtt_heap(m), msg);
        mqtt_fail_memory(m);
        return;
    }
    if (entry) {
        entry->tag = e->number;
        entry->state = qos == 1 ? ID_WAITS_PUBACK : ID_WAITS_PUBREC;
    }
    m->session.credit_bytes += delivery_cost(msg);
    bool went = out_message(m, msg, &content, &match, e->origin,
                            first_of(qos, retain, qos && e->flags & EFFECT_REDELIVERED), id);
    msg_unref(mqtt_heap(m), msg);
    if (!went && entry && mqtt_live(m))
        ids_remove(&m->ids, id);
    if ((!went || !qos) && !(e->flags & EFFECT_NO_ACK) && mqtt_live(m))
        ack(m, e->number, 0, 0);
    if (!went)
        mqtt_credit_return(m); /* nothing of it has to be written first */
}

/* The subscription that asked has been made anew meanwhile, before its answer was read: any that matches stands for it. */
static void stands_in(void *arg, const struct mqtt_subscribed *sub)
{
    const struct mqtt_subscribed **ret = arg;
    *ret = sub;
}

static const struct mqtt_subscribed *sub_instead(const struct mqtt *m, struct slice key)
{
    const struct mqtt_subscribed *sub = NULL;
    mqtt_subs_match(m, key, false, stands_in, &sub);
    return sub;
}

static void deliver_retained(struct mqtt *m, struct effect *e)
{
    struct mqtt_content content;
    struct match match = {.qos = 0};
    const struct mqtt_subscribed *sub = mqtt_sub_of(m, e->consumer);
    struct msg *msg = e->msg;
    m->session.credit_bytes += delivery_cost(msg);
    if (!sub)
        sub = sub_instead(m, msg_key(msg));
    if (sub) {
        mqtt_content_read(msg, &content);
        match_add(&match, sub, m->version);
        sub = out_message(m, msg, &content, &match, e->origin, first_of(0, true, false), 0) ? sub : NULL;
    }
    msg_unref(mqtt_heap(m), msg);
    if (!sub)
        mqtt_credit_return(m);
}

void mqtt_deliver_effect(struct mqtt *m, struct effect *e)
{
    if (m->state != MQTT_IS_READY) { /* the core delivers from RESUME on: this is one of a session that was there */
        m->session.credit_bytes += delivery_cost(e->msg);
        hub_drop(mqtt_hub(m), e);
        return;
    }
    if (e->type == EFF_RETAINED) {
        deliver_retained(m, e);
        return;
    }
    if (e->flags & EFFECT_NO_ACK || (!m->waiting.count && !ids_find(&m->ids, id_of(m, e)))) {
        deliver(m, e);
        return;
    }
    struct effect *slot = fifo_push(&m->waiting);
    if (slot) {
        *slot = *e;
        return;
    }
    hub_drop(mqtt_hub(m), e);
    mqtt_fail_memory(m);
}

void mqtt_deliver_fini(struct mqtt *m)
{
    while (m->waiting.count) {
        hub_drop(mqtt_hub(m), fifo_first(&m->waiting));
        fifo_pop(&m->waiting);
    }
    ids_fini(&m->ids);
}

void mqtt_credit_return(struct mqtt *m)
{
    if (!m->debts.count)
        session_credit_return(&m->session);
}

/* ---- the client's answers ---- */

static void id_gone(struct mqtt *m, uint16_t id)
{
    ids_remove(&m->ids, id);
    while (m->waiting.count && mqtt_live(m)) {
        struct effect e = *(struct effect *)fifo_first(&m->waiting);
        if (ids_find(&m->ids, id_of(m, &e)))
            return;
        fifo_pop(&m->waiting);
        deliver(m, &e);
    }
}

static void on_pubrec(struct mqtt *m, struct id_entry *entry, const struct mqtt_ack_fields *f)
{
    bool refused = f->reason >= 0x80;
    if (!entry) {
        if (!refused) /* section 4.3.3: the exchange is ended all the same */
            mqtt_out_ack(m, MQTT_pubrel, f->id, MQTT_R_id_not_found);
        return;
    }
    if (entry->state == ID_WAITS_PUBCOMP && !refused)
        mqtt_out_ack(m, MQTT_pubrel, f->id, 0);
    if (entry->state != ID_WAITS_PUBREC)
        return;
    uint64_t tag = entry->tag;
    if (refused) {
        ack(m, tag, 0, 0);
        id_gone(m, f->id);
        return;
    }
    entry->state = ID_WAITS_RELEASE;
    ack(m, tag, ASK_RELEASING, f->id);
}

void mqtt_on_ack(struct mqtt *m, enum mqtt_type type, const struct mqtt_ack_fields *f)
{
    struct id_entry *entry = ids_find(&m->ids, f->id);
    if (type == MQTT_pubrec) {
        on_pubrec(m, entry, f);
        return;
    }
    if (type == MQTT_puback && entry && entry->state == ID_WAITS_PUBACK) {
        ack(m, entry->tag, 0, 0);
        id_gone(m, f->id);
        return;
    }
    if (type != MQTT_pubcomp || !entry || entry->state != ID_WAITS_PUBCOMP)
        return; /* of an exchange that is over: nothing is left to be said */
    entry->state = ID_WAITS_COMPLETE;
    struct command command = {.type = CMD_MQTT_COMPLETED, .channel = MQTT_CHANNEL, .number = f->id};
    command.origin = MQTT_ORIGIN(MQTT_ASKED_COMPLETED, f->id);
    mqtt_send(m, &command);
}

void mqtt_release_answer(struct mqtt *m, const struct effect *e)
{
    mqtt_owe(m, &(struct mqtt_owed){.lsn = e->lsn, .type = MQTT_pubrel, .id = (uint16_t)e->origin});
}

void mqtt_complete_answer(struct mqtt *m, const struct effect *e)
{
    mqtt_owe(m, &(struct mqtt_owed){.lsn = e->lsn, .id = (uint16_t)e->origin});
}

void mqtt_id_released(struct mqtt *m, uint16_t id)
{
    struct id_entry *entry = ids_find(&m->ids, id);
    if (entry)
        entry->state = ID_WAITS_PUBCOMP;
    mqtt_out_ack(m, MQTT_pubrel, id, 0);
}

void mqtt_id_free(struct mqtt *m, uint16_t id)
{
    if (ids_find(&m->ids, id))
        id_gone(m, id);
}
