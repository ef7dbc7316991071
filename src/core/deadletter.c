/* Dead letters: a message that is rejected, expired, pushed out or returned too often goes to its queue's dead-letter
 * exchange, with RabbitMQ's headers (reference queues.md 1.5).
 *
 * A message to be dead-lettered leaves its lane at once and waits in b->dead; dead_letter_run routes it. Removal from
 * the old queue and arrival in the new ones are one journal record (MOVE), so a crash in between repeats nothing and
 * loses nothing: before the record the message is still in the old queue. A message that has been in a queue for the
 * same reason before, with no rejection on the way, is dropped: that is a cycle.
 */
#include "core/core_int.h"

static const char *const reason_names[REASON_COUNT] = {[REASON_EXPIRED] = "expired",
                                                       [REASON_MAXLEN] = "maxlen",
                                                       [REASON_REJECTED] = "rejected",
                                                       [REASON_DELIVERY_LIMIT] = "delivery_limit"};

struct dead_letter {
    struct list link;
    struct entry *entry; /* in its queue's unacked list; NULL: the message never was in the queue */
    struct msg *msg;     /* own reference */
    struct queue *queue;
    enum reason reason;
    struct msg *made; /* as it goes out; made ahead for a transaction only */
};

static bool push(struct broker *b, struct queue *q, struct entry *e, struct msg *msg, enum reason reason)
{
    struct dead_letter *d = mem_alloc(sizeof *d);
    if (!d)
        return false;
    if (e && !(e->flags & ENTRY_UNACKED))
        backlog_take(b, e);
    *d = (struct dead_letter){.entry = e, .msg = msg_ref(msg), .queue = q, .reason = reason};
    list_insert(&b->dead, &d->link);
    b->dead_count++;
    return true;
}

bool dead_letter(struct broker *b, struct entry *e, enum reason reason)
{
    struct queue *q = e->queue;
    if (!q || !q->rules->has_dlx || q->deleting) {
        backlog_remove(b, e, reason);
        return true;
    }
    return push(b, q, e, e->msg, reason);
}

void dead_letter_msg(struct broker *b, struct queue *q, struct msg *msg, enum reason reason)
{
    if (q->rules->has_dlx)
        (void)push(b, q, NULL, msg, reason); /* without memory its publisher still hears that it was refused */
}

/* ---- x-death ---- */

static bool death_is(struct slice table, struct slice queue, const char *reason)
{
    struct amqp_value v;
    return amqp_table_find(table, "queue", &v) && amqp_value_is_str(&v) && slice_equal(v.s, queue) &&
           amqp_table_find(table, "reason", &v) && amqp_value_is_str(&v) && slice_is(v.s, reason);
}

/* Would this be the same round again? True when the queue stands in x-death for a reason other than rejection and nothing
 * in the cycle was rejected. */
static bool is_cycle(struct slice deaths, struct slice queue, enum reason reason)
{
    struct amqp_value element, v;
    struct reader r = reader_of(deaths);
    bool seen = false;
    if (reason == REASON_REJECTED)
        return false;
    while (!seen && amqp_array_next(&r, &element)) {
        if (element.type != 'F')
            continue;
        if (amqp_table_find(element.s, "reason", &v) && amqp_value_is_str(&v) && slice_is(v.s, "rejected"))
            return false;
        seen = amqp_table_find(element.s, "queue", &v) && amqp_value_is_str(&v) && slice_equal(v.s, queue);
    }
    return seen;
}

static void write_keys(struct writer *w, const struct msg *msg, struct slice headers)
{
    struct amqp_value cc, element;
    size_t mark = amqp_open(w, "routing-keys", 'A');
    amqp_put_element_str(w, msg_key(msg));
    if (amqp_table_find(headers, "CC", &cc) && cc.type == 'A') {
        struct reader r = reader_of(cc.s);
        while (amqp_array_next(&r, &element))
            if (amqp_value_is_str(&element))
                amqp_put_element_str(w, element.s);
    }
    amqp_close(w, mark);
}

/* The newest death first: the old one of the same queue and reason with its count raised, or a new one. */
static void write_deaths(struct broker *b, struct writer *w, const struct msg *msg, struct slice headers,
                         const struct amqp_props *props, struct slice old, struct slice queue, const char *reason)
{
    struct amqp_value element, v;
    struct slice same = {0};
    bool found = false;
    struct reader r = reader_of(old);
    while (amqp_array_next(&r, &element))
        if (element.type == 'F' && death_is(element.s, queue, reason)) {
            same = element.s;
            found = true;
        }
    size_t array = amqp_open(w, "x-death", 'A');
    size_t table = amqp_open_element(w, 'F');
    if (found) {
        struct reader t = reader_of(same);
        struct amqp_field field;
        while (amqp_table_next(&t, &field)) {
            if (slice_is(field.name, "count") && amqp_value_is_int(&field.value))
                amqp_put_long(w, "count", field.value.i + 1);
            else
                amqp_put_field(w, field.name, &field.value);
        }
    } else {
        amqp_put_long(w, "count", 1);
        amqp_put_str(w, "reason", slice_str(reason));
        amqp_put_str(w, "queue", queue);
        amqp_put_time(w, "time", (uint64_t)(b->wall / 1000));
        amqp_put_str(w, "exchange", msg_exchange(msg));
        write_keys(w, msg, headers);
        if (props->present & AMQP_EXPIRATION)
            amqp_put_str(w, "original-expiration", props->expiration);
    }
    amqp_close(w, table);
    r = reader_of(old);
    while (amqp_array_next(&r, &element))
        if (element.type == 'F' && !death_is(element.s, queue, reason)) {
            size_t mark = amqp_open_element(w, 'F');
            writer_slice_put(w, element.s);
            amqp_close(w, mark);
        }
    amqp_close(w, array);
    (void)v;
}

static bool has(struct slice headers, const char *name)
{
    return amqp_table_find(headers, name, &(struct amqp_value){0});
}

static void write_headers(struct broker *b, struct writer *w, const struct msg *msg, const struct amqp_props *props,
                          struct slice deaths, struct slice queue, const char *reason, bool keep_cc)
{
    struct slice old = props->headers;
    struct reader r = reader_of(old);
    struct amqp_field field;
    static const char *const last[] = {"x-last-death-reason", "x-last-death-queue", "x-last-death-exchange"};
    write_deaths(b, w, msg, old, props, deaths, queue, reason);
    while (amqp_table_next(&r, &field)) {
        bool skip = slice_is(field.name, "x-death") || (!keep_cc && slice_is(field.name, "CC")) ||
                    (msg->flags & MSG_OF_SHARE && slice_is(field.name, MQTT_HEADER_SHARE));
        for (size_t i = 0; i < ARRAY_LEN(last); i++)
            skip |= slice_is(field.name, last[i]);
        if (!skip)
            amqp_put_field(w, field.name, &field.value);
    }
    if (!has(old, "x-first-death-reason")) {
        amqp_put_str(w, "x-first-death-reason", slice_str(reason));
        amqp_put_str(w, "x-first-death-queue", queue);
        amqp_put_str(w, "x-first-death-exchange", msg_exchange(msg));
    }
    amqp_put_str(w, last[0], slice_str(reason));
    amqp_put_str(w, last[1], queue);
    amqp_put_str(w, last[2], msg_exchange(msg));
}

/* The message as it goes to the dead-letter exchange: new headers, no expiration, perhaps another routing key. */
static struct msg *make(struct broker *b, const struct dead_letter *d, const struct amqp_props *old,
                        struct slice deaths)
{
    const struct queue_rules *rules = d->queue->rules;
    struct slice key = rules->has_dlk ? rules->dlk : msg_key(d->msg);
    size_t max = old->headers.len + 2 * deaths.len + 6 * NAME_MAX_BYTES + 1024 + old->expiration.len;
    uint8_t *raw = mem_alloc(2 * max + 1024 + amqp_props_len_max(old));
    if (!raw)
        return NULL;
    struct writer w = writer_of(raw, max);
    struct amqp_props props = *old;
    write_headers(b, &w, d->msg, old, deaths, d->queue->name, reason_names[d->reason], !rules->has_dlk);
    CHECK(writer_ok(&w));
    props.headers = writer_slice(&w);
    props.present = (uint16_t)((props.present | AMQP_HEADERS) & ~AMQP_EXPIRATION);
    struct writer out = writer_of(raw + max, max + 1024 + amqp_props_len_max(old));
    amqp_props_write(&out, &props);
    CHECK(writer_ok(&out));
    struct msg *msg = msg_new(&b->heap, rules->dlx, key, writer_slice(&out), d->msg->body_len);
    if (msg) {
        msg->flags = (uint8_t)((d->msg->flags & ~(MSG_MANDATORY | MSG_OF_SHARE)) | MSG_HAS_HEADERS);
        msg->priority = d->msg->priority;
        if (d->msg->body_len)
            memcpy(msg_body_room(msg), msg_body(d->msg).ptr, d->msg->body_len);
    }
    mem_free(raw);
    return msg;
}

/* Cycle rule: a queue that the message died in before is no target. */
static void drop_cycles(struct broker *b, struct slice deaths, enum reason reason)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < b->route.count; i++)
        if (!is_cycle(deaths, b->route.queues[i]->name, reason))
            b->route.queues[kept++] = b->route.queues[i];
    b->route.count = kept;
}

static struct slice deaths_of(struct slice headers)
{
    struct amqp_value v;
    return amqp_table_find(headers, "x-death", &v) && v.type == 'A' ? v.s : (struct slice){0};
}

bool dead_letter_came_round(const struct msg *msg, const struct queue *q)
{
    return (msg->flags & MSG_HAS_HEADERS) && is_cycle(deaths_of(msg_headers(msg)), q->name, REASON_MAXLEN);
}

/* Makes the message if it is not made, and routes it; without queues in b->route it has nowhere to go. False: no memory. */
static bool aim(struct broker *b, struct dead_letter *d)
{
    struct exchange *x = exchange_find(d->queue->vhost, d->queue->rules->dlx);
    struct amqp_props props;
    b->route.count = b->route.audience_count = 0;
    if (!x || !amqp_props_parse(msg_props(d->msg), &props))
        return true;
    if (!d->made)
        d->made = make(b, d, &props, deaths_of(props.headers));
    if (!d->made || !route_message(b, x, d->made, msg_headers(d->made), &b->route))
        return false;
    drop_cycles(b, deaths_of(msg_headers(d->made)), d->reason);
    return true;
}

static void drop_made(struct broker *b, struct dead_letter *d)
{
    if (d->made)
        msg_unref(&b->heap, d->made);
    d->made = NULL;
}

/* False: no memory; nothing has changed, it may be tried again. */
static bool deliver_dead(struct broker *b, struct dead_letter *d)
{
    lsn_t lsn;
    bool starved = !aim(b, d);
    if (!starved && b->route.count) {
        starved = enqueue_routed(b, d->made, &b->route, d->entry, &lsn) == ENQUEUE_NO_MEMORY;
        if (!starved) {
            b->totals.dead_lettered++;
            if (d->entry)
                backlog_remove(b, d->entry, REASON_MOVED);
            d->entry = NULL;
        }
    }
    if (!starved)
        audiences_tell(b, &b->route, d->made, NULL);
    drop_made(b, d);
    if (starved && !d->queue->deleting && !b->recovering)
        return false;
    if (d->entry)
        backlog_remove(b, d->entry, d->reason); /* nowhere to go */
    return true;
}

bool dead_letter_run(struct broker *b, unsigned max)
{
    bool force = max == UINT32_MAX; /* a queue is going, or the broker: the journal takes an overdraft */
    struct list *node = b->dead.next;
    while (node != &b->dead && max-- && (force || b->options.log.room(b->options.log.self))) {
        struct dead_letter *d = CONTAINER_OF(node, struct dead_letter, link);
        if (!deliver_dead(b, d)) {
            if (!force)
                return false; /* no memory: no use in spinning, the next tick tries again */
            node = node->next;
            continue;
        }
        node = node->next;
        list_remove(&d->link);
        b->dead_count--;
        msg_unref(&b->heap, d->msg);
        mem_free(d);
    }
    return !list_empty(&b->dead);
}

void dead_letters_give_lsn(struct broker *b, lsn_t lsn)
{
    LIST_EACH(&b->dead, node, after)
    {
        struct entry *e = CONTAINER_OF(node, struct dead_letter, link)->entry;
        if (e && e->lsn == LSN_CAPTURED)
            e->lsn = lsn;
    }
}

/* ---- of a transaction ---- */

bool dead_letter_prepare(struct broker *b, struct entry *e, enum reason reason, struct tx_needs *needs,
                         size_t *ret_need, struct dead_letter **ret)
{
    struct dead_letter *d = mem_alloc(sizeof *d);
    *ret = NULL;
    if (!d)
        return false;
    *d = (struct dead_letter){.entry = e, .msg = msg_ref(e->msg), .queue = e->queue, .reason = reason};
    bool ok = aim(b, d) && (!b->route.count || dedup_reserve(b, d->made, &b->route, &needs->keys));
    if (ok && b->route.count && queues_rouse(b, &b->route)) {
        tx_need(needs, d->made, b->route.count, ret_need);
        *ret = d;
        return true;
    }
    ok = ok && !b->route.count;
    dead_letter_discard(b, &d);
    return ok;
}

void dead_letter_prepared(struct broker *b, struct dead_letter **d)
{
    CHECK(deliver_dead(b, *d));
    dead_letter_discard(b, d);
}

void dead_letter_discard(struct broker *b, struct dead_letter **d)
{
    if (!*d)
        return;
    drop_made(b, *d);
    msg_unref(&b->heap, (*d)->msg);
    mem_free(*d);
    *d = NULL;
}
