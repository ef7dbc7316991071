/* Publishing: from one message to entries in queues, one journal record, and what the publisher is told.
 *
 * Order of a publish: checks → route → reserve (journal room, entries) → refuse what a full queue refuses → one ENQ
 * record for all journalled targets → entries → return and confirm. Nothing changes before the reservation has
 * succeeded; without memory the channel's connection gets RESOURCE_ERROR and the message is nowhere.
 */
#include "core/core_int.h"

#include <stdio.h>

#define MARK_STRIDE 4096u
#define MARK_STRIDE_MQTT 512u /* a crash moves positions on by that, and packet ids with them: there are 32,767 */
#define TARGETS_MAX (1u << 20)

struct slice msg_headers(const struct msg *msg)
{
    struct amqp_props props;
    if (!(msg->flags & MSG_HAS_HEADERS) || !amqp_props_parse(msg_props(msg), &props))
        return (struct slice){0};
    return props.headers;
}

struct msg *msg_with_props(struct broker *b, const struct msg *msg, const struct amqp_props *props)
{
    size_t max = amqp_props_len_max(props);
    uint8_t small[2048], *raw = max <= sizeof small ? small : mem_alloc(max);
    if (!raw)
        return NULL;
    struct writer w = writer_of(raw, max);
    amqp_props_write(&w, props);
    CHECK(writer_ok(&w));
    struct msg *copy = msg_new(&b->heap, msg_exchange(msg), msg_key(msg), writer_slice(&w), msg->body_len);
    if (raw != small)
        mem_free(raw);
    if (!copy)
        return NULL;
    copy->flags = (uint8_t)((msg->flags & ~MSG_HAS_HEADERS) | (props->present & AMQP_HEADERS ? MSG_HAS_HEADERS : 0));
    copy->priority = msg->priority;
    copy->expiration_ms = props->present & AMQP_EXPIRATION ? msg->expiration_ms : -1;
    if (msg->body_len)
        memcpy(msg_body_room(copy), msg_body(msg).ptr, msg->body_len);
    return copy;
}

/* ---- enqueue ---- */

void mark_cover(struct broker *b, struct queue *q, uint64_t position)
{
    if (position < q->mark)
        return;
    q->mark = position + (q->mqtt ? MARK_STRIDE_MQTT : MARK_STRIDE);
    q->busy->mark_lsn = log_mark(b, q, q->mark);
}

bool targets_reserve(struct broker *b, uint32_t count)
{
    if (count <= b->target_max)
        return true;
    uint32_t max = b->target_max ? b->target_max : 16;
    while (max < count)
        max *= 2;
    struct target *grown = max <= TARGETS_MAX ? mem_realloc(b->targets, max * sizeof *grown) : NULL;
    if (!grown)
        return false;
    b->targets = grown;
    b->target_max = max;
    return true;
}

/* moved: the record takes it out of another queue, so it is delivered behind that even when this queue is in no journal. */
static void append_one(struct broker *b, struct msg *msg, const struct target *t, lsn_t lsn, bool moved)
{
    struct queue *q = t->queue;
    if (q->stream) {
        stream_append(b, t, msg);
        return;
    }
    bool journalled = backlog_journals(q, msg);
    struct entry *e =
        backlog_append(b, q, msg_ref(msg), t->position, journalled || moved ? lsn : 0, t->deadline, journalled);
    CHECK(e);
    if (e->lsn == LSN_CAPTURED && !q->busy->captured_from)
        q->busy->captured_from = t->position;
    queue_schedule(b, q);
    if (!queue_has_ready_consumer(b, q))
        backlog_limit(b, q);
}

bool enqueue_reserve(struct broker *b, struct msg *msg, const struct route *route, size_t more, unsigned records)
{
    uint32_t count = route->count;
    return targets_reserve(b, count) && queues_rouse(b, route) && pool_reserve_many(&b->entries, count) &&
           dedup_reserve(b, msg, route, NULL) &&
           log_reserve(b, log_enqueue_bytes(msg, count) + 64u * count + more, count + 1 + records);
}

enum enqueue_result enqueue_routed(struct broker *b, struct msg *msg, const struct route *route, struct entry *from,
                                   lsn_t *ret_lsn)
{
    uint32_t count = route->count, journalled = 0;
    *ret_lsn = 0;
    if (!enqueue_reserve(b, msg, route, 0, 0))
        return ENQUEUE_NO_MEMORY;
    bool rejected = false, duplicate = false;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < count; i++)
        if (route->queues[i]->stream)
            msg->flags |= MSG_PERSISTENT; /* as what is read from it; before any queue asks whether it is */
    for (uint32_t i = 0; i < count; i++) {
        struct queue *q = route->queues[i];
        if (q->stream) {
            stream_target(b, q, msg, &b->targets[kept++]);
            continue;
        }
        struct key_value key = {0};
        if (q->rules->dedup)
            key = dedup_key(q, msg, b->wall);
        if (key.has && !b->mqtt.moving && dedup_is_duplicate(b, q, msg, &key, from)) {
            duplicate = true;
            continue;
        }
        if (backlog_would_overflow(q, msg) && !(from && from->queue->rules->at_least_once) && !b->mqtt.moving &&
            !b->sql.committing) {
            rejected = true;
            b->totals.rejected++;
            if (q->rules->overflow == OVERFLOW_REJECT_DLX)
                dead_letter_msg(b, q, msg, REASON_MAXLEN);
            continue;
        }
        if (key.has)
            dedup_accept(b, q, &key, q->next_position, backlog_journals(q, msg));
        b->targets[kept++] = (struct target){
            .queue = q, .position = q->next_position++, .deadline = backlog_deadline(b, q, msg), .keyed = key.has};
    }
    for (uint32_t i = 0; i < kept; i++) {
        struct queue *q = b->targets[i].queue;
        if (!backlog_journals(q, msg))
            continue;
        journalled++;
        if (q->busy->consumer_count && !q->stream)
            mark_cover(b, q, b->targets[i].position);
    }
    bool from_journal = from && (from->flags & ENTRY_JOURNALLED);
    if (journalled && journalled > 1 && !msg->id)
        msg->id = b->next_msg_id++;
    if (journalled || from_journal)
        *ret_lsn = log_enqueue(b, msg, b->targets, kept, from_journal ? from : NULL, false, true);
    for (uint32_t i = 0; i < kept; i++) {
        struct target t = b->targets[i]; /* dead letters of a full queue may come through here again */
        append_one(b, msg, &t, *ret_lsn, from_journal);
    }
    b->totals.routed += kept;
    if (duplicate && *ret_lsn < b->appended)
        *ret_lsn = b->appended; /* what it is a duplicate of may be on its way to the disk */
    return rejected ? ENQUEUE_REJECTED : ENQUEUE_OK;
}

/* ---- what the publisher is told ---- */

static void confirm_with(struct broker *b, struct channel *ch, uint64_t seq, uint64_t bytes, lsn_t lsn, uint8_t flags)
{
    flags |= ch->mode == MODE_CONFIRM ? 0 : EFFECT_SILENT;
    struct port_side *side = ch->peer->side;
    if (side->overflow_first == side->overflow_count) {
        struct effect *last = ring_last_unpublished(&side->port.effects);
        if (last && last->type == EFF_CONFIRM && last->session == ch->peer->number && last->channel == ch->number &&
            last->flags == flags) {
            last->number = seq;
            last->bytes += bytes;
            last->lsn = lsn > last->lsn ? lsn : last->lsn;
            return;
        }
    }
    struct effect *e = effect_push(b, ch->peer, EFF_CONFIRM, ch->number);
    e->flags = flags;
    e->number = seq;
    e->bytes = bytes;
    e->lsn = lsn;
}

void publish_confirmed(struct broker *b, struct channel *ch, uint64_t seq, uint64_t bytes, lsn_t lsn)
{
    confirm_with(b, ch, seq, bytes, lsn, 0);
}

void publish_refused(struct broker *b, struct channel *ch, uint64_t seq, uint64_t bytes, enum nack_why why)
{
    if (ch->mode != MODE_CONFIRM) {
        publish_confirmed(b, ch, seq, bytes, 0);
        return;
    }
    struct effect *e = effect_push(b, ch->peer, EFF_NACK, ch->number);
    e->number = seq;
    e->bytes = bytes;
    e->flags = (uint8_t)why;
}

/* Somebody whose channel is not to fail for it is told that the one publish was refused. False: it fails. */
static bool softly(struct broker *b, struct channel *ch, const struct msg *msg, const struct command *c,
                   enum nack_why why)
{
    if (!(c->flags & ASK_SOFT))
        return false;
    publish_refused(b, ch, c->number, msg_size(msg), why);
    return true;
}

struct answer *return_answer(void)
{
    struct answer *answer = answer_new(slice_str("NO_ROUTE"), (struct slice){0}, (struct slice){0});
    if (answer)
        answer->code = ERR_NO_ROUTE;
    return answer;
}

void return_msg(struct broker *b, struct channel *ch, struct msg *msg, uint32_t origin, struct answer **answer)
{
    struct effect *e = effect_push(b, ch->peer, EFF_RETURN, ch->number);
    e->origin = origin;
    e->msg = msg_ref(msg);
    e->answer = *answer;
    *answer = NULL;
    b->totals.returned++;
}

/* Queues of the message are known (b->route): enqueue, return, confirm. Keeps its own reference of msg. */
static void publish_routed(struct broker *b, struct channel *ch, struct exchange *x, struct msg *msg,
                           const struct command *c, bool delivered, uint64_t bytes)
{
    lsn_t lsn = 0;
    enum enqueue_result result = ENQUEUE_OK;
    struct mqtt_publish mqtt;
    bool is_mqtt = ch->peer->mqtt != NULL;
    delivered |= b->route.audience_count > 0;
    if (is_mqtt && !mqtt_publish_begin(b, ch, x, msg, c, &mqtt))
        return;
    lsn_t retained = is_mqtt ? mqtt_publish_retain(b, &mqtt) : 0;
    bool unrouted = is_mqtt && !delivered && !b->route.count;
    if (b->route.count)
        result = enqueue_routed(b, msg, &b->route, NULL, &lsn);
    else if ((msg->flags & MSG_MANDATORY) && !delivered) {
        struct answer *answer = return_answer();
        if (answer)
            return_msg(b, ch, msg, c->origin, &answer);
        else
            result = ENQUEUE_NO_MEMORY;
    }
    if (result != ENQUEUE_NO_MEMORY)
        audiences_tell(b, &b->route, msg, ch->peer);
    if (is_mqtt) {
        mqtt_publish_end(b, ch, result == ENQUEUE_OK, &lsn);
        lsn = retained > lsn ? retained : lsn;
    }
    if (result == ENQUEUE_NO_MEMORY)
        no_memory(b, ch->peer, c->channel, c->origin);
    else if (result == ENQUEUE_REJECTED)
        publish_refused(b, ch, c->number, bytes, NACK_FULL);
    else
        confirm_with(b, ch, c->number, bytes, lsn, unrouted ? EFFECT_UNROUTED : 0);
}

/* ---- checks ---- */

/* Looks the exchange up and asks for permission; both answers are kept while the topology stands. */
static struct exchange *exchange_of(struct broker *b, struct channel *ch, const struct msg *msg,
                                    const struct command *c)
{
    struct slice name = msg_exchange(msg);
    struct peer *peer = ch->peer;
    if (ch->cached_exchange && ch->cached_gen == b->topology_gen && slice_equal(ch->cached_name, name))
        return ch->cached_exchange;
    if ((c->flags & ASK_SOFT) && !authorise(b, peer->user, peer->vhost, VERB_WRITE, name)) {
        publish_refused(b, ch, c->number, msg_size(msg), NACK_ACCESS);
        return NULL;
    }
    if (!allowed(b, peer, c, VERB_WRITE, "exchange", name))
        return NULL;
    struct exchange *x = exchange_find(peer->vhost, name);
    if ((!x || x->internal) && softly(b, ch, msg, c, x ? NACK_ACCESS : NACK_NOWHERE))
        return NULL;
    if (!x) {
        fail(b, peer, c->channel, c->origin, ERR_NOT_FOUND, "no exchange '%.*s' in vhost '%.*s'", SLICE_ARG(name),
             SLICE_ARG(peer->vhost->name));
        return NULL;
    }
    if (x->internal) {
        fail(b, peer, c->channel, c->origin, ERR_ACCESS_REFUSED,
             "cannot publish to internal exchange '%.*s' in vhost '%.*s'", SLICE_ARG(name),
             SLICE_ARG(peer->vhost->name));
        return NULL;
    }
    if (name.len)
        memcpy(ch->cached_bytes, name.ptr, name.len);
    ch->cached_name = slice_of(ch->cached_bytes, name.len);
    ch->cached_exchange = x;
    ch->cached_gen = b->topology_gen;
    return x;
}

static bool topic_allowed(struct broker *b, struct channel *ch, struct exchange *x, const struct msg *msg,
                          const struct command *c)
{
    struct user *user = ch->peer->user;
    if (!user || !x->type->by_topic || authorise_topic(b, user, x, VERB_WRITE, msg_key(msg)))
        return true;
    if (softly(b, ch, msg, c, NACK_ACCESS))
        return false;
    fail(b, ch->peer, c->channel, c->origin, ERR_ACCESS_REFUSED,
         "write access to topic '%.*s' in exchange '%.*s' in vhost '%.*s' refused for user '%.*s'",
         SLICE_ARG(msg_key(msg)), SLICE_ARG(x->name), SLICE_ARG(x->vhost->name), SLICE_ARG(user->name));
    return false;
}

static bool user_id_right(struct broker *b, struct channel *ch, const struct amqp_props *props, const struct command *c)
{
    struct user *user = ch->peer->user;
    if (!(props->present & AMQP_USER_ID) || !user || slice_equal(props->user_id, user->name) ||
        memmem(user->tags.ptr, user->tags.len, "impersonator", 12))
        return true;
    if (softly(b, ch, c->msg, c, NACK_INVALID))
        return false;
    fail(b, ch->peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
         "user_id property set to '%.*s' but authenticated user was '%.*s'", SLICE_ARG(props->user_id),
         SLICE_ARG(user->name));
    return false;
}

static bool routes_right(struct broker *b, struct channel *ch, struct slice headers, const struct command *c,
                         bool *ret_bcc)
{
    static const char *const keys[] = {"CC", "BCC"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        struct amqp_value v;
        if (!amqp_table_find(headers, keys[i], &v))
            continue;
        if (v.type != 'A') {
            if (softly(b, ch, c->msg, c, NACK_INVALID))
                return false;
            fail(b, ch->peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
                 "invalid message: {unacceptable_type_in_header,\"%s\",%s}", keys[i], amqp_type_name(v.type));
            return false;
        }
        *ret_bcc = i == 1;
    }
    return true;
}

static struct msg *without_bcc(struct broker *b, const struct msg *msg, struct amqp_props *props)
{
    uint8_t *raw = mem_alloc(props->headers.len);
    if (!raw)
        return NULL;
    struct writer w = writer_of(raw, props->headers.len);
    struct reader r = reader_of(props->headers);
    struct amqp_field field;
    while (amqp_table_next(&r, &field))
        if (!slice_is(field.name, "BCC"))
            amqp_put_field(&w, field.name, &field.value);
    props->headers = writer_slice(&w);
    struct msg *copy = msg_with_props(b, msg, props);
    mem_free(raw);
    return copy;
}

bool msg_hide_bcc(struct broker *b, const struct msg *msg, struct msg **ret_copy)
{
    struct amqp_props props;
    struct amqp_value v;
    *ret_copy = NULL;
    if (!(msg->flags & MSG_HAS_HEADERS) || !amqp_props_parse(msg_props(msg), &props) ||
        !amqp_table_find(props.headers, "BCC", &v))
        return true;
    *ret_copy = without_bcc(b, msg, &props);
    return *ret_copy;
}

/* Property checks of messages that have a user id or headers. May replace the message (BCC is not for consumers, and stays while it
 * waits for when it is due); the headers for routing are those that came. False: reported. */
static bool properties_right(struct broker *b, struct channel *ch, const struct exchange *x, const struct command *c,
                             struct msg **msg, struct slice *ret_headers, struct msg **ret_original)
{
    struct amqp_props props;
    int64_t delay_ms;
    bool bcc = false;
    if (!((*msg)->flags & (MSG_HAS_HEADERS | MSG_HAS_USER_ID | MSG_INVALID)))
        return true;
    if (!amqp_props_parse(msg_props(*msg), &props)) {
        if (!softly(b, ch, *msg, c, NACK_INVALID))
            fail(b, ch->peer, c->channel, c->origin, ERR_SYNTAX_ERROR, "damaged properties");
        return false;
    }
    char why[ERROR_TEXT_MAX];
    int64_t expiration_ms;
    if (((*msg)->flags & MSG_INVALID) && !amqp_props_acceptable(&props, &expiration_ms, why, sizeof why)) {
        if (softly(b, ch, *msg, c, NACK_INVALID))
            return false;
        fail(b, ch->peer, c->channel, c->origin, ERR_PRECONDITION_FAILED, "%s", why);
        return false;
    }
    (*msg)->flags &= (uint8_t)~MSG_INVALID; /* which in a queue would be MSG_OF_SHARE */
    if (!user_id_right(b, ch, &props, c) || !routes_right(b, ch, props.headers, c, &bcc))
        return false;
    *ret_headers = props.headers;
    if (!bcc || delay_of(x, *msg, &delay_ms))
        return true;
    struct msg *copy = without_bcc(b, *msg, &props);
    if (!copy) {
        no_memory(b, ch->peer, c->channel, c->origin);
        return false;
    }
    *ret_original = *msg;
    *msg = copy;
    return true;
}

/* ---- the command ---- */

/* It waits in the vhost's delays; what a client of MQTT wants with it is done now. */
static void publish_delayed(struct broker *b, struct channel *ch, struct exchange *x, struct msg *msg,
                            const struct command *c, int64_t delay_ms)
{
    struct mqtt_publish mqtt;
    lsn_t lsn = 0, retained = 0;
    b->route.count = b->route.audience_count = 0;
    if (ch->peer->mqtt) {
        if (!mqtt_publish_begin(b, ch, x, msg, c, &mqtt))
            return;
        retained = mqtt_publish_retain(b, &mqtt);
    }
    bool ok = delay_publish(b, x, msg, delay_ms, &lsn);
    if (ch->peer->mqtt)
        mqtt_publish_end(b, ch, ok, &lsn);
    if (ok)
        publish_confirmed(b, ch, c->number, msg_size(msg), retained > lsn ? retained : lsn);
    else
        no_memory(b, ch->peer, c->channel, c->origin);
}

static void publish_checked(struct broker *b, struct channel *ch, struct exchange *x, struct msg *msg,
                            struct slice headers, const struct command *c, uint64_t bytes)
{
    int64_t delay_ms;
    if (delay_of(x, msg, &delay_ms)) {
        if (ch->mode == MODE_TX) {
            tx_publish(b, ch, msg, NULL, delay_ms, c->origin);
            publish_confirmed(b, ch, c->number, bytes, 0);
        } else
            publish_delayed(b, ch, x, msg, c, delay_ms);
        return;
    }
    bool delivered = false;
    if (x->name.len == 0 && slice_starts(msg_key(msg), REPLY_TO "."))
        delivered = reply_publish(b, msg, 0);
    b->route.from = ch->peer->mqtt;
    if (!route_message(b, x, msg, headers, &b->route)) {
        no_memory(b, ch->peer, c->channel, c->origin);
        return;
    }
    if (ch->mode == MODE_TX) {
        tx_publish(b, ch, msg, &b->route, 0, c->origin);
        publish_confirmed(b, ch, c->number, bytes, 0);
    } else
        publish_routed(b, ch, x, msg, c, delivered, bytes);
}

/* A hard alarm holds: without confirms the channel ends, so that nothing is lost in silence. */
static void refuse_for_alarm(struct broker *b, struct channel *ch, const struct command *c, uint64_t bytes)
{
    bool disk = b->alarms & ALARM_DISK_HARD;
    b->totals.refused++;
    if (ch->mode == MODE_CONFIRM)
        publish_refused(b, ch, c->number, bytes, NACK_FULL);
    else
        fail(b, ch->peer, c->channel, c->origin, ERR_PRECONDITION_FAILED,
             "the broker is out of %s: publishes are refused for now", disk ? "disk space" : "memory");
}

void do_publish(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct msg *msg = c->msg, *original = NULL;
    struct slice headers = {0};
    uint64_t bytes = msg_size(msg);
    if (peer->removal_epoch == b->removal_epoch)
        backlog_flush_removals(b); /* acks that this client sent before must not become durable after this publish */
    if (!peer->publisher) {
        peer->publisher = true;
        alarms_apply(b, peer);
    }
    /* Before anything refuses it: the client would take its id for free, and the next message with it would count as this one. */
    if (peer->mqtt && (c->flags & ASK_ONCE) && mqtt_publish_again(b, ch, c)) {
        msg_unref(&b->heap, msg);
        return;
    }
    if (b->alarms & (ALARM_MEMORY_HARD | ALARM_DISK_HARD)) {
        refuse_for_alarm(b, ch, c, bytes);
        msg_unref(&b->heap, msg);
        return;
    }
    b->totals.published++;
    struct exchange *x = exchange_of(b, ch, msg, c);
    if (x && topic_allowed(b, ch, x, msg, c) && properties_right(b, ch, x, c, &msg, &headers, &original)) {
        struct msg *rewritten = msg;
        if (msg->flags & MSG_HAS_REPLY_TO)
            rewritten = reply_rewrite(b, ch, msg);
        if (rewritten)
            publish_checked(b, ch, x, rewritten, headers, c, bytes);
        if (rewritten && rewritten != msg)
            msg_unref(&b->heap, rewritten);
    }
    msg_unref(&b->heap, msg);
    if (original)
        msg_unref(&b->heap, original);
}
