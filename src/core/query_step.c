/* Steps of queries: what one has written, and how far it has come, take effect together.
 *
 * As a transaction's commit (tx.c) a step has two halves. The first looks at each output, finds where it goes, asks for the right to it and for
 * memory, and adds up what the journal needs; when anything is refused nothing has changed. The second cannot fail. It writes one TX
 *   { REMOVE …, ENQUEUE | KEYED | BATCH …, QUERY_STEP }
 * so recovery finds the outputs and the trail that says what they came from, or neither; what goes into the queues waits for that record to be
 * durable, as any message does.
 *
 * Outputs go as publishes go (exchange and key, alternates, delays, without BCC; replies when the step is durable), or straight to a queue, or as a batch to a stream's partition, where they get
 * their offsets. What differs: nobody is told that a message went nowhere, and a queue that refuses what is beyond its limit refuses the whole
 * step, for which outputs to one queue are counted together (planned_count). A duplicate in a queue that deduplicates is counted there, too,
 * though it will not come in: at the worst the step waits for a message more to leave.
 *
 * What a query takes from queues it cannot read again: so it consumes as any client does, on a channel of its session, and the step acknowledges
 * what it has used. A crash before the step leaves these messages in their queues, one behind it finds them gone and the outputs there.
 */
#include "core/query_int.h"
#include "core/stream_int.h"
#include "fmt/record_batch.h"

#define STEP_TARGETS_MAX (1u << 18) /* places in queues, of all outputs */

struct planned {                 /* one output */
    struct exchange *delaying;   /* it waits in its vhost's delays first, … */
    int64_t delay_ms;            /* … so long … */
    struct entry *entry;         /* … as this */
    struct partition *partition; /* a batch goes there */
    struct msg *shown;           /* without what is not for those who get it: BCC; NULL: as it is */
    uint32_t first, count;       /* of b->sql.targets: its queues */
    size_t need;                 /* log_captured_bytes of it */
};

/* While a step is looked at. */
struct look {
    struct broker *b;
    struct peer *peer;
    struct query_step *step;
    struct sql_object *object;
    struct tx_needs needs;
    uint32_t planned;          /* outputs in b->sql.plan */
    struct channel *channel;   /* of the acknowledgements; NULL: there are none */
    struct exchange *exchange; /* that the output before went to, whose name … */
    struct slice name;         /* … is this */
};

/* ---- scratch ---- */

static bool plan_reserve(struct broker *b, uint32_t count)
{
    uint32_t max = b->sql.plan_max ? b->sql.plan_max : 16;
    if (count <= b->sql.plan_max)
        return true;
    while (max < count)
        max *= 2;
    struct planned *grown = mem_realloc(b->sql.plan, max * sizeof *grown);
    if (!grown)
        return false;
    b->sql.plan = grown;
    b->sql.plan_max = max;
    return true;
}

static bool step_targets_reserve(struct broker *b, uint32_t more)
{
    uint32_t max = b->sql.target_max ? b->sql.target_max : 64;
    if (b->sql.target_count + more <= b->sql.target_max)
        return true;
    while (max < b->sql.target_count + more)
        max *= 2;
    struct queue **grown = mem_realloc(b->sql.targets, max * sizeof(struct queue *));
    if (!grown)
        return false;
    b->sql.targets = grown;
    b->sql.target_max = max;
    return true;
}

static struct route route_planned(struct broker *b, const struct planned *p)
{
    return (struct route){.queues = b->sql.targets + p->first, .count = p->count, .max = p->count};
}

/* Nothing is planned any more. */
static void forget_plan(struct look *l)
{
    struct broker *b = l->b;
    for (uint32_t i = 0; i < l->planned; i++)
        if (b->sql.plan[i].shown)
            msg_unref(&b->heap, b->sql.plan[i].shown);
    l->planned = 0;
    for (uint32_t i = 0; i < b->sql.target_count; i++)
        if (queue_is_busy(b->sql.targets[i]))
            b->sql.targets[i]->busy->planned_count = b->sql.targets[i]->busy->planned_bytes = 0;
    b->sql.target_count = 0;
    if (b->sql.target_max > QUERY_OUTPUTS_MAX) {
        mem_free(b->sql.targets);
        b->sql.targets = NULL;
        b->sql.target_max = 0;
    }
}

/* ---- first half: nothing changes ---- */

static enum query_result may_publish(struct look *l, const struct msg *msg)
{
    struct broker *b = l->b;
    struct user *user = l->peer->user;
    struct slice name = msg_exchange(msg);
    struct amqp_props props;
    if (!l->exchange || !slice_equal(l->name, name)) {
        struct exchange *x = exchange_find(l->peer->vhost, name);
        if (!authorise(b, user, l->peer->vhost, VERB_WRITE, name))
            return QUERY_NO_RIGHT;
        if (!x)
            return QUERY_NO_TARGET;
        if (x->internal)
            return QUERY_NO_RIGHT;
        l->exchange = x;
        l->name = name;
    }
    if (l->exchange->type->by_topic && !authorise_topic(b, user, l->exchange, VERB_WRITE, msg_key(msg)))
        return QUERY_NO_RIGHT;
    if ((msg->flags & MSG_HAS_USER_ID) &&
        (!amqp_props_parse(msg_props(msg), &props) || !slice_equal(props.user_id, user->name)))
        return QUERY_NO_RIGHT;
    return QUERY_DONE;
}

/* The queues in b->route are the output's, and they have room for it. */
static enum query_result plan_queues(struct look *l, struct planned *p, const struct msg *msg)
{
    struct broker *b = l->b;
    uint32_t count = b->route.count;
    if (count > STEP_TARGETS_MAX - b->sql.target_count)
        return QUERY_TOO_MANY;
    if (!queues_rouse(b, &b->route) || !step_targets_reserve(b, count) ||
        !dedup_reserve(b, msg, &b->route, &l->needs.keys))
        return QUERY_NO_ROOM;
    for (uint32_t i = 0; i < count; i++)
        if (backlog_would_overflow(b->route.queues[i], msg))
            return QUERY_FULL;
    p->first = b->sql.target_count;
    p->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct queue *q = b->route.queues[i];
        b->sql.targets[b->sql.target_count++] = q;
        q->busy->planned_count++;
        q->busy->planned_bytes += msg->body_len;
    }
    if (count)
        tx_need(&l->needs, msg, count, &p->need);
    return QUERY_DONE;
}

static enum query_result plan_publish(struct look *l, struct planned *p, const struct msg *msg)
{
    struct broker *b = l->b;
    enum query_result result = may_publish(l, msg);
    if (result != QUERY_DONE)
        return result;
    struct exchange *x = l->exchange;
    if (delay_of(x, msg, &p->delay_ms)) {
        p->delaying = x;
        tx_need(&l->needs, msg, 1, &p->need);
        return delay_prepare(b, x->vhost, ++l->needs.delays) ? QUERY_DONE : QUERY_NO_ROOM;
    }
    bool ok = msg_hide_bcc(b, msg, &p->shown) && route_message(b, x, msg, msg_headers(msg), &b->route);
    return ok ? plan_queues(l, p, msg) : QUERY_NO_ROOM;
}

static enum query_result plan_queue(struct look *l, struct planned *p, const struct query_output *out)
{
    struct broker *b = l->b;
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&out->queue));
    struct record_batch head;
    bool batch = out->msg->flags & MSG_BATCH;
    if (!q || q->vhost != l->peer->vhost || q->hidden || (q->stream != NULL) != batch ||
        (batch && out->partition >= q->stream->partition_count))
        return QUERY_NO_TARGET;
    if (!peer_may(b, l->peer, VERB_WRITE, q->name) || queue_locked(q, l->peer))
        return QUERY_NO_RIGHT;
    if (!batch) {
        b->route_gen++;
        b->route.count = b->route.audience_count = 0;
        b->route.failed = false;
        (void)route_add(b, &b->route, q);
        return b->route.failed ? QUERY_NO_ROOM : plan_queues(l, p, out->msg);
    }
    struct slice bytes = msg_body(out->msg);
    CHECK(record_batch_peek(bytes, &head) == RECORD_OK && head.bytes == bytes.len && head.last_offset_delta >= 0 &&
          head.producer_id < 0 && !head.transactional && !head.control);
    p->partition = q->stream->partitions[out->partition];
    p->need = log_captured_bytes(64 + bytes.len, 1);
    l->needs.bytes += p->need;
    l->needs.entries++;
    return QUERY_DONE;
}

/* Whether it is one at all, and the next. */
static enum query_result look_at_step(struct look *l)
{
    struct broker *b = l->b;
    struct query_step *step = l->step;
    if (!sql_is_engine(b, l->peer) || l->peer->state != PEER_ENTERED || (!l->peer->user && !b->stopping))
        return QUERY_NO_RIGHT;
    l->object = sql_object_find(b, step->query);
    if (!l->object || l->object->vhost != l->peer->vhost)
        return QUERY_UNKNOWN;
    if (step->number != l->object->step + 1)
        return QUERY_STALE;
    size_t kept = step->restart ? 0 : l->object->trail.len, bytes = query_step_bytes(step) - step->trail.len;
    uint64_t all = b->sql.bytes - l->object->trail.len + kept + step->trail.len;
    if (step->count > QUERY_OUTPUTS_MAX || kept + step->trail.len > SQL_TRAIL_MAX || all > SQL_BYTES_MAX ||
        (step->count > 1 && bytes > QUERY_STEP_BYTES_MAX)) {
        step->failed = step->count;
        return QUERY_TOO_MANY;
    }
    bool alarm = b->alarms & (ALARM_MEMORY_HARD | ALARM_DISK_HARD);
    b->totals.refused += alarm;
    return alarm || b->stopping ? QUERY_NO_ROOM : QUERY_DONE;
}

static enum query_result plan_outputs(struct look *l)
{
    struct broker *b = l->b;
    struct query_step *step = l->step;
    enum query_result result = QUERY_DONE;
    for (uint32_t i = 0; i < step->count && result == QUERY_DONE; i++) {
        const struct query_output *out = &step->outputs[i];
        struct planned *p = &b->sql.plan[i];
        step->failed = i;
        *p = (struct planned){0};
        l->planned++;
        if (!out->msg || out->msg->body_len > b->options.message_bytes_max)
            result = out->msg ? QUERY_TOO_MANY : QUERY_NO_TARGET;
        else
            result = out->queue ? plan_queue(l, p, out) : plan_publish(l, p, out->msg);
    }
    return result;
}

/* Each of them is a delivery that waits for one. */
static enum query_result plan_acks(struct look *l)
{
    struct query_step *step = l->step;
    l->channel = step->ack_count ? channel_of(l->peer, step->channel) : NULL;
    for (uint32_t i = 0; i < step->ack_count; i++) {
        bool ascends = i == 0 || step->acks[i] > step->acks[i - 1];
        step->failed = i;
        if (!l->channel || l->channel->failed || !ascends || !unacked_find(&l->channel->unacked, step->acks[i]))
            return QUERY_NO_ACK;
    }
    l->needs.bytes += (size_t)step->ack_count * REMOVAL_BYTES;
    return QUERY_DONE;
}

static enum query_result prepare(struct look *l)
{
    struct broker *b = l->b;
    struct query_step *step = l->step;
    backlog_flush_removals(b);
    if (!list_empty(&b->removals))
        return QUERY_NO_ROOM; /* what is older must not become part of this */
    if (!plan_reserve(b, step->count))
        return QUERY_NO_ROOM;
    enum query_result result = plan_acks(l);
    if (result == QUERY_DONE)
        result = plan_outputs(l);
    if (result != QUERY_DONE)
        return result;
    step->failed = 0;
    struct tx_needs *needs = &l->needs;
    needs->bytes += log_captured_bytes(query_step_record_bytes(step), 1);
    if (needs->bytes > b->capture.limit / 2)
        return QUERY_TOO_MANY;
    bool ok = trail_reserve(l->object, step) && targets_reserve(b, needs->targets) &&
              pool_reserve_many(&b->entries, needs->entries) && dedup_reserve_keys(b, needs->keys) &&
              log_capture_begin(b, needs->bytes, needs->records);
    return ok ? QUERY_DONE : QUERY_NO_ROOM;
}

/* ---- second half: nothing fails ---- */

static void commit_batch(struct broker *b, struct planned *p, struct msg *msg)
{
    struct partition *part = p->partition;
    struct target t = {
        .queue = part->stream->queue, .position = part->end, .deadline = b->wall, .returns = part->number};
    record_batch_set_base(msg_body_room(msg), (int64_t)part->end, LEADER_EPOCH);
    (void)log_batch(b, part, part->end, msg);
    part->end += msg_offsets(msg);
    stream_append(b, &t, msg);
    b->totals.published += msg_offsets(msg);
}

static void commit_output(struct broker *b, struct planned *p, struct msg *whole)
{
    struct msg *msg = p->shown ? p->shown : whole;
    lsn_t lsn;
    b->promised -= p->need;
    if (p->partition) {
        commit_batch(b, p, msg);
        return;
    }
    b->totals.published++;
    if (p->delaying)
        p->entry = delay_prepared(b, p->delaying, msg, p->delay_ms);
    else if (p->count) {
        struct route route = route_planned(b, p);
        CHECK(enqueue_routed(b, msg, &route, NULL, &lsn) == ENQUEUE_OK);
    }
}

/* Who is subscribed now; what is not remembered anywhere may find no memory. */
static void tell_taps(struct look *l)
{
    struct broker *b = l->b;
    for (uint32_t i = 0; i < l->step->count; i++) {
        const struct query_output *out = &l->step->outputs[i];
        struct exchange *x =
            out->queue || b->sql.plan[i].entry ? NULL : exchange_find(l->peer->vhost, msg_exchange(out->msg));
        struct msg *shown = b->sql.plan[i].shown ? b->sql.plan[i].shown : out->msg;
        if (x && route_message(b, x, out->msg, msg_headers(out->msg), &b->route))
            audiences_tell(b, &b->route, shown, l->peer);
    }
}

/* To those who wait for a reply, when the step is durable. */
static void send_replies(struct look *l, lsn_t lsn)
{
    struct broker *b = l->b;
    for (uint32_t i = 0; i < l->step->count; i++) {
        const struct query_output *out = &l->step->outputs[i];
        const struct planned *p = &b->sql.plan[i];
        if (!out->queue && !p->entry && !msg_exchange(out->msg).len && slice_starts(msg_key(out->msg), REPLY_TO "."))
            (void)reply_publish(b, p->shown ? p->shown : out->msg, lsn);
    }
}

/* Their removals are written at once: later ones are not of the step. */
static void commit_acks(struct look *l)
{
    struct broker *b = l->b;
    for (uint32_t i = 0; i < l->step->ack_count; i++) {
        struct unacked *u = unacked_find(&l->channel->unacked, l->step->acks[i]), item = *u;
        b->promised -= REMOVAL_BYTES;
        unacked_drop(&l->channel->unacked, u);
        settle(b, l->channel, item, true, BACK_NOT);
    }
    backlog_flush_removals(b);
    CHECK(list_empty(&b->removals));
}

static lsn_t commit(struct look *l)
{
    struct broker *b = l->b;
    struct query_step *step = l->step;
    b->sql.committing = true;
    pool_pin(&b->entries);
    pool_pin(&b->keys);
    commit_acks(l);
    for (uint32_t i = 0; i < step->count; i++)
        commit_output(b, &b->sql.plan[i], step->outputs[i].msg);
    b->promised -= log_captured_bytes(query_step_record_bytes(step), 1);
    (void)log_query_step(b, step);
    lsn_t lsn = log_capture_end(b);
    b->sql.committing = false;
    for (uint32_t i = 0; i < step->count; i++)
        if (b->sql.plan[i].entry && b->sql.plan[i].entry->lsn == LSN_CAPTURED)
            b->sql.plan[i].entry->lsn = lsn;
    object_stepped(b, l->object, step->number, step->restart, step->trail);
    if (b->mqtt.taps)
        tell_taps(l);
    send_replies(l, lsn);
    pool_unpin(&b->entries);
    pool_unpin(&b->keys);
    for (uint32_t i = 0; i < step->count; i++) {
        msg_unref(&b->heap, step->outputs[i].msg);
        step->outputs[i].msg = NULL;
    }
    forget_plan(l);
    if (l->channel && !list_empty(&l->channel->parked))
        consumers_unpark(b, l->channel);
    return lsn;
}

void do_query_step(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct look l = {.b = b, .peer = peer, .step = c->query_step, .needs = {.records = 2}};
    lsn_t lsn = 0;
    (void)ch;
    if (!peer->publisher) {
        peer->publisher = true;
        alarms_apply(b, peer);
    }
    l.step->failed = 0;
    enum query_result result = look_at_step(&l);
    if (result == QUERY_DONE && (result = prepare(&l)) != QUERY_DONE)
        forget_plan(&l);
    else if (result == QUERY_DONE)
        lsn = commit(&l);
    else if (result == QUERY_STALE)
        lsn = b->appended; /* the record of the one that was accepted is not behind that */
    l.step->result = (uint8_t)result;
    struct effect *e = effect_push(b, peer, EFF_QUERY_STEPPED, 0);
    e->origin = c->origin;
    e->lsn = lsn;
    e->query_step = l.step;
}
