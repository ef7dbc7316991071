/* broker_rig: a broker on a table: commands in through its port's ring, effects kept in an array, the journal an array of
 * records that a second broker can replay. For this folder's tests only. */
#ifndef MILLRACE_CORE_BROKER_RIG_TEST_H
#define MILLRACE_CORE_BROKER_RIG_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#undef fail /* a function of the core */

#include "core/core_int.h"
#include "core/group_int.h"
#include "core/query_int.h"
#include "core/records.h"
#include "core/retained_int.h"
#include "core/stream_rig_test.h"
#include "core/txn_int.h"

#define rig_fail(...)                                                                                                  \
    do {                                                                                                               \
        print_error(__VA_ARGS__);                                                                                      \
        _fail(__FILE__, __LINE__);                                                                                     \
    } while (0)
#define RIG_FN static __attribute__((unused))
#define RIG_EFFECTS_MAX 4096

struct rig_record {
    uint8_t *bytes;
    size_t len;
};

/* The store: pages in memory, served in order, some turns later. Shared by a log and its copies, for ever. */
struct rig_page {
    struct page_job *job; /* items with messages of nobody's heap */
    bool gone;            /* its file was dropped */
};

struct rig_store {
    struct rig_page *pages; /* where.segment: 8 pages each; where.offset: index in it */
    uint32_t count, max;
    uint64_t written, read, dropped;
    unsigned fail_writes; /* so many more fail */
    bool damaged;         /* what is read is not what was written */
};

struct rig_log {
    struct rig_store *store;
    struct rig_streams *streams;
    struct rig_record *records; /* lsn - 1 */
    size_t count, max;
    lsn_t first;          /* trimmed below */
    uint64_t live, ready; /* ready 0: the disk has room */
    uint64_t fresh_loss;  /* of ready, when what follows begins in a place of its own */
    bool no_room, is_copy;
    bool drops; /* no prefix of it will be replayed: what the store is told to drop is gone */
};

struct rig {
    struct broker *b;
    struct broker_options options;
    struct rig_log *log;
    uint64_t chance;
    mono_t now;
    wall_t wall;
    lsn_t durable;
    bool hold;    /* nothing becomes durable */
    bool check;   /* broker_check after every step */
    bool starved; /* without memory it need not come to rest */
    bool slow_store;
    struct effect effects[RIG_EFFECTS_MAX];
    unsigned effect_count;
    uint64_t seq[8][8]; /* publish sequence per session and channel */
    bool (*engine)(
        struct rig
            *rig); /* has the SQL port's effects, in each step; true: there is more to do. NULL: they are kept, too */
    void *engine_arg;
};

/* ---- the store ---- */

RIG_FN struct msg *rig_msg_copy(struct slab_heap *heap, const struct msg *msg)
{
    struct msg *copy =
        heap ? msg_new(heap, msg_exchange(msg), msg_key(msg), msg_props(msg), msg->body_len) : calloc(1, msg_size(msg));
    if (!copy)
        return NULL;
    if (!heap)
        memcpy(copy, msg, msg_size(msg));
    copy->flags = msg->flags;
    copy->priority = msg->priority;
    copy->expiration_ms = msg->expiration_ms;
    if (msg->body_len)
        memcpy(msg_body_room(copy), msg_body(msg).ptr, msg->body_len);
    return copy;
}

RIG_FN void rig_page_free(struct rig_page *page)
{
    for (uint32_t n = 0; page->job && n < page->job->count; n++)
        free(page->job->items[n].msg);
    free(page->job);
    page->job = NULL;
}

RIG_FN void rig_store_free(struct rig_store *store)
{
    for (uint32_t i = 0; i < store->count; i++)
        rig_page_free(&store->pages[i]);
    free(store->pages);
    free(store);
}

/* ---- the journal ---- */

RIG_FN bool rig_log_room(void *self)
{
    return !((struct rig_log *)self)->no_room;
}

RIG_FN bool rig_log_reserve(void *self, size_t bytes, unsigned count)
{
    (void)self;
    (void)bytes;
    (void)count;
    void *probe = mem_alloc(1); /* so that failing allocations reach it */
    mem_free(probe);
    return probe != NULL;
}

RIG_FN lsn_t rig_log_append(void *self, const struct slice *parts, unsigned count)
{
    struct rig_log *log = self;
    size_t len = 0, at = 0;
    for (unsigned i = 0; i < count; i++)
        len += parts[i].len;
    assert_true(len <= CORE_RECORD_BYTES_MAX);
    if (log->count == log->max) {
        log->max = log->max ? log->max * 2 : 64;
        log->records = realloc(log->records, log->max * sizeof *log->records);
    }
    uint8_t *bytes = malloc(len + 1);
    for (unsigned i = 0; i < count; i++) {
        if (parts[i].len)
            memcpy(bytes + at, parts[i].ptr, parts[i].len);
        at += parts[i].len;
    }
    log->records[log->count++] = (struct rig_record){bytes, len};
    log->live += len + 8;
    return log->count;
}

/* Its records have no files; that a reservation ends here is the simulator's to see, which has the real journal. */
RIG_FN void rig_log_fresh(void *self)
{
    (void)self;
}

RIG_FN void rig_log_trim(void *self, lsn_t upto)
{
    struct rig_log *log = self;
    assert_true(upto >= log->first && upto <= log->count);
    while (log->first < upto)
        log->live -= log->records[log->first++ - 1].len + 8;
}

RIG_FN uint64_t rig_log_live(void *self)
{
    return ((struct rig_log *)self)->live;
}

RIG_FN uint64_t rig_log_ready(void *self, bool fresh)
{
    const struct rig_log *log = self;
    return !log->ready ? UINT64_MAX : log->ready - (fresh ? log->fresh_loss : 0);
}

RIG_FN struct rig_log *rig_log_new(void)
{
    struct rig_log *log = calloc(1, sizeof *log);
    log->first = 1;
    log->store = calloc(1, sizeof *log->store);
    log->streams = rig_streams_copy(NULL);
    return log;
}

/* A copy of the first count records, trimmed as the original. */
RIG_FN struct rig_log *rig_log_copy(const struct rig_log *from, size_t count)
{
    struct rig_log *log = rig_log_new();
    for (size_t i = 0; i < count; i++) {
        struct slice part = slice_of(from->records[i].bytes, from->records[i].len);
        rig_log_append(log, &part, 1);
    }
    if (from->first <= count)
        rig_log_trim(log, from->first);
    free(log->store);
    log->store = from->store;
    rig_streams_free(log->streams);
    log->streams = rig_streams_copy(from->streams);
    log->is_copy = true;
    return log;
}

RIG_FN void rig_log_free(struct rig_log *log)
{
    for (size_t i = 0; i < log->count; i++)
        free(log->records[i].bytes);
    free(log->records);
    if (!log->is_copy)
        rig_store_free(log->store);
    rig_streams_free(log->streams);
    free(log);
}

/* ---- what the store does ---- */

RIG_FN void rig_store_write(struct rig_store *store, struct page_job *job)
{
    if (store->count == store->max) {
        store->max = store->max ? store->max * 2 : 64;
        store->pages = realloc(store->pages, store->max * sizeof *store->pages);
    }
    size_t len = sizeof *job + job->count * sizeof job->items[0];
    struct page_job *kept = malloc(len);
    memcpy(kept, job, len);
    for (uint32_t i = 0; i < job->count; i++) {
        assert_true(i == 0 || job->items[i].position > job->items[i - 1].position);
        kept->items[i].msg = rig_msg_copy(NULL, job->items[i].msg);
    }
    job->where = (struct page_where){.segment = 1 + store->count / 8, .offset = store->count % 8, .len = 1};
    store->pages[store->count++] = (struct rig_page){.job = kept};
    store->written++;
}

RIG_FN struct page_job *rig_store_page(struct rig_store *store, struct page_where where)
{
    uint32_t i = (where.segment - 1) * 8 + where.offset;
    assert_true(i < store->count && where.offset < 8);
    assert_non_null(store->pages[i].job); /* dropped, but named */
    return store->pages[i].job;
}

RIG_FN void rig_store_read(struct rig_store *store, struct slab_heap *heap, struct page_job *job)
{
    const struct page_job *kept = rig_store_page(store, job->where);
    assert_true(kept->count == job->count && kept->queue == job->queue && kept->lane == job->lane);
    for (uint32_t i = 0; i < job->count && !job->err; i++) {
        struct msg *msg = rig_msg_copy(heap, kept->items[i].msg);
        job->items[i] = kept->items[i];
        job->items[i].msg = msg;
        job->err = msg ? 0 : -12;
    }
    store->read++;
}

/* Nothing happens when the file holds a page that the core was not told of when it asked. */
RIG_FN void rig_store_drop(struct rig_log *log, struct page_where where)
{
    struct rig_store *store = log->store;
    uint32_t first = (where.segment - 1) * 8, end = first + where.offset + where.len;
    for (uint32_t i = first; i < store->count && i < first + 8; i++)
        if (i >= end)
            return;
    for (uint32_t i = first; i < end; i++) {
        store->pages[i].gone = true;
        if (log->drops)
            rig_page_free(&store->pages[i]);
    }
    store->dropped++;
}

/* Files that are there, but for the one that is being written. */
RIG_FN unsigned rig_store_files(const struct rig_store *store)
{
    unsigned files = 0;
    for (uint32_t i = 0; i + 8 < store->count; i += 8)
        files += !store->pages[i].gone;
    return files;
}

/* Does up to max of what is asked. */
RIG_FN void rig_store_serve(struct broker *b, struct rig_log *log, unsigned max)
{
    struct port *p = broker_port(b, 2);
    struct effect *e;
    while (max-- && (e = ring_peek(&p->effects))) {
        struct page_job *job = e->job;
        ring_pop(&p->effects);
        if (job->type == PAGE_DROP) {
            rig_store_drop(log, job->where);
            page_job_free(broker_heap(b), &job);
            continue;
        }
        if (job->type == PAGE_WRITE && log->store->fail_writes) {
            log->store->fail_writes--;
            job->err = -28;
        } else if (job->type == PAGE_READ && log->store->damaged)
            job->err = -84;
        else if (job->type == PAGE_WRITE)
            rig_store_write(log->store, job);
        else
            rig_store_read(log->store, broker_heap(b), job);
        struct command *c = ring_push(&p->commands);
        assert_non_null(c);
        *c = (struct command){.type = CMD_PAGED, .job = job};
        ring_publish(&p->commands);
    }
}

/* ---- life cycle ---- */

RIG_FN void rig_random(void *arg, void *ret, size_t len)
{
    uint64_t *x = arg;
    for (size_t i = 0; i < len; i++) {
        *x = *x * 6364136223846793005ull + 1442695040888963407ull;
        ((uint8_t *)ret)[i] = (uint8_t)(*x >> 56);
    }
}

RIG_FN void rig_clear(struct rig *rig)
{
    for (unsigned i = 0; i < rig->effect_count; i++) {
        struct effect *e = &rig->effects[i];
        if (e->msg)
            msg_unref(NULL, e->msg);
        if (e->type == EFF_FETCHED)
            fetch_free(&e->fetch);
        else if (e->type == EFF_FANOUT)
            audience_unref(e->audience);
        else if (e->type == EFF_QUERY_STEPPED)
            query_step_free(NULL, &e->query_step);
        else if (e->type != EFF_CONFIRM && e->type != EFF_NACK && e->type != EFF_GET_OK && e->type != EFF_DELIVER &&
                 e->type != EFF_PRODUCED && e->type != EFF_SQL_MORE)
            mem_free(e->answer);
    }
    rig->effect_count = 0;
}

/* Replays what the log holds. NULL answer in *ret_why: it started. */
RIG_FN struct rig *rig_try(struct rig_log *log, const struct broker_options *options, wall_t wall, const char **ret_why)
{
    static char why[300];
    struct rig *rig = calloc(1, sizeof *rig);
    rig->log = log;
    rig->options = options ? *options : (struct broker_options){0};
    rig->chance = 42;
    rig->options.log = (struct core_log){log,           rig_log_room, rig_log_reserve, rig_log_append,
                                         rig_log_fresh, rig_log_trim, rig_log_live,    rig_log_ready};
    rig->options.random = rig_random;
    rig->options.random_arg = &rig->chance;
    rig->options.ports = 1;
    rig->options.streams = true;
    rig->options.sql = true;
    rig->options.port_slots = rig->options.port_slots ? rig->options.port_slots : 1024;
    rig->now = 1000 * NS_PER_S;
    rig->wall = wall;
    rig->check = true;
    *ret_why = "no memory";
    rig->b = broker_new(&rig->options);
    why[0] = '\0';
    int err = rig->b ? 0 : -12;
    for (lsn_t lsn = log->first; !err && lsn <= log->count; lsn++)
        err = broker_replay(rig->b, lsn, slice_of(log->records[lsn - 1].bytes, log->records[lsn - 1].len), why,
                            sizeof why);
    if (!err)
        err = broker_replayed(rig->b, rig->now, rig->wall, why, sizeof why);
    rig->durable = log->count;
    if (!err)
        err = broker_streams(rig->b, rig_stream_keep, log->streams);
    if (rig->b)
        *ret_why = err ? why : NULL;
    return rig;
}

RIG_FN struct rig *rig_new(struct rig_log *log, const struct broker_options *options, wall_t wall)
{
    const char *why;
    struct rig *rig = rig_try(log, options, wall, &why);
    if (why)
        rig_fail("the broker did not start: %s", why);
    broker_check(rig->b);
    return rig;
}

RIG_FN void rig_free(struct rig *rig)
{
    rig_clear(rig);
    broker_free(&rig->b);
    free(rig);
}

/* ---- driving ---- */

RIG_FN void rig_take(struct rig *rig, unsigned port)
{
    struct effect *e;
    struct port *p = broker_port(rig->b, port);
    while ((e = ring_peek(&p->effects))) {
        assert_true(rig->effect_count < RIG_EFFECTS_MAX);
        rig->effects[rig->effect_count++] = *e;
        ring_pop(&p->effects);
    }
}

RIG_FN struct command *rig_command(struct rig *rig, unsigned port, enum command_type type, uint32_t session,
                                   uint16_t channel)
{
    struct command *c = ring_push(&broker_port(rig->b, port)->commands);
    assert_non_null(c);
    *c = (struct command){.type = (uint8_t)type, .session = session, .channel = channel};
    return c;
}

/* Answers password checks: everything is right. What else the worker is told is kept. */
RIG_FN void rig_worker(struct rig *rig)
{
    struct effect *e;
    struct port *p = broker_port(rig->b, 1);
    while ((e = ring_peek(&p->effects))) {
        struct effect taken = *e;
        ring_pop(&p->effects);
        if (taken.type != EFF_VERIFY) {
            assert_true(rig->effect_count < RIG_EFFECTS_MAX);
            rig->effects[rig->effect_count++] = taken;
            continue;
        }
        mem_free(taken.answer);
        struct command *c = rig_command(rig, 1, CMD_VERIFIED, 0, 0);
        c->number = taken.number;
        c->flags = ASK_VERIFY_OK;
        ring_publish(&p->commands);
    }
}

RIG_FN void rig_step(struct rig *rig)
{
    for (unsigned i = 0; i < 10000; i++) {
        if (!rig->hold)
            rig->durable = rig->log->count;
        ring_publish(&broker_port(rig->b, 0)->commands);
        ring_publish(&broker_port(rig->b, 4)->commands);
        size_t before = rig->log->count;
        unsigned effects = rig->effect_count;
        bool more = broker_step(rig->b, rig->now, rig->wall, rig->durable);
        rig_take(rig, 0);
        if (rig->engine)
            more = rig->engine(rig) || more;
        else
            rig_take(rig, 4);
        rig_worker(rig);
        rig_store_serve(rig->b, rig->log, rig->slow_store ? rig->chance >> 60 : 64);
        rig_streams_serve(rig->b, rig->log->streams, 3, rig->slow_store ? rig->chance >> 60 : 64);
        if (rig->check)
            broker_check(rig->b);
        if (!more && before == rig->log->count && effects == rig->effect_count &&
            ring_empty(&broker_port(rig->b, 0)->commands) && ring_empty(&broker_port(rig->b, 1)->commands) &&
            ring_empty(&broker_port(rig->b, 2)->commands) && ring_empty(&broker_port(rig->b, 3)->commands) &&
            ring_empty(&broker_port(rig->b, 4)->commands) && ring_empty(&broker_port(rig->b, 4)->effects) &&
            (rig->slow_store ||
             (ring_empty(&broker_port(rig->b, 2)->effects) && ring_empty(&broker_port(rig->b, 3)->effects))) &&
            (rig->hold || rig->durable == rig->log->count))
            return;
        if (rig->starved && i > 20)
            return;
    }
    rig_fail("the broker does not come to rest");
}

RIG_FN void rig_alarm(struct rig *rig, unsigned alarms)
{
    rig_command(rig, 1, CMD_ALARM, 0, 0)->number = alarms;
    ring_publish(&broker_port(rig->b, 1)->commands);
    rig_step(rig);
}

RIG_FN void rig_pass(struct rig *rig, int64_t ms)
{
    for (int64_t done = 0; done < ms;) {
        int64_t part = ms - done < 5 ? ms - done : 5;
        rig->now += part * NS_PER_MS;
        rig->wall += part;
        done += part;
        rig_step(rig);
    }
}

RIG_FN struct slice rig_text(const char *text)
{
    return text ? slice_str(text) : (struct slice){0};
}

/* False: no memory for the operands (the allocation failed on purpose). */
RIG_FN bool rig_ask_full(struct rig *rig, enum command_type type, uint32_t session, uint16_t channel, const char *name,
                         const char *other, const char *key, struct slice args, uint32_t flags, uint64_t number)
{
    struct ask *ask = ask_new(rig_text(name), rig_text(other), rig_text(key), args);
    if (!ask)
        return false;
    ask->flags = flags;
    ask->number = number;
    struct command *c = rig_command(rig, 0, type, session, channel);
    c->ask = ask;
    c->number = number;
    rig_step(rig);
    return true;
}

RIG_FN bool rig_ask(struct rig *rig, enum command_type type, uint32_t session, uint16_t channel, const char *name,
                    const char *other, const char *key, struct slice args, uint32_t flags)
{
    return rig_ask_full(rig, type, session, channel, name, other, key, args, flags, 0);
}

RIG_FN void rig_plain(struct rig *rig, enum command_type type, uint32_t session, uint16_t channel, uint64_t number,
                      uint32_t flags)
{
    struct command *c = rig_command(rig, 0, type, session, channel);
    c->number = number;
    c->flags = flags;
    rig_step(rig);
}

RIG_FN bool rig_open(struct rig *rig, uint32_t session)
{
    if (!rig_ask(rig, CMD_SESSION_OPEN, session, 0, "127.0.0.1:1", "AMQP 0-9-1", NULL, (struct slice){0},
                 ASK_LOOPBACK | ASK_CAN_CANCEL | ASK_CAN_BLOCK))
        return false;
    if (!rig_ask(rig, CMD_LOGIN, session, 0, "guest", "guest", "PLAIN", (struct slice){0}, 0))
        return false;
    return rig_ask(rig, CMD_ENTER, session, 0, "/", NULL, NULL, (struct slice){0}, 0);
}

RIG_FN bool rig_publish_with(struct rig *rig, uint32_t session, uint16_t channel, const char *exchange, const char *key,
                             struct slice body, const struct amqp_props *props, uint8_t flags)
{
    uint8_t raw[4096];
    struct writer w = writer_of(raw, sizeof raw);
    amqp_props_write(&w, props);
    struct msg *msg = msg_new(broker_heap(rig->b), slice_str(exchange), slice_str(key), writer_slice(&w), body.len);
    if (!msg)
        return false;
    if (body.len)
        memcpy(msg_body_room(msg), body.ptr, body.len);
    msg->flags = flags;
    if (props->present & AMQP_HEADERS)
        msg->flags |= MSG_HAS_HEADERS;
    if (props->present & AMQP_REPLY_TO)
        msg->flags |= MSG_HAS_REPLY_TO;
    if (props->delivery_mode == 2)
        msg->flags |= MSG_PERSISTENT;
    msg->priority = props->priority;
    if (props->present & AMQP_EXPIRATION)
        msg->expiration_ms = strtoll((const char *)props->expiration.ptr, NULL, 10);
    struct command *c = rig_command(rig, 0, CMD_PUBLISH, session, channel);
    c->msg = msg;
    c->number = ++rig->seq[session][channel];
    rig_step(rig);
    return true;
}

RIG_FN bool rig_publish(struct rig *rig, uint32_t session, uint16_t channel, const char *exchange, const char *key,
                        const char *body, bool persistent)
{
    struct amqp_props props = {.present = persistent ? AMQP_DELIVERY_MODE : 0, .delivery_mode = persistent ? 2 : 0};
    return rig_publish_with(rig, session, channel, exchange, key, slice_str(body), &props, 0);
}

/* ---- looking ---- */

RIG_FN unsigned rig_count(struct rig *rig, enum effect_type type)
{
    unsigned n = 0;
    for (unsigned i = 0; i < rig->effect_count; i++)
        n += rig->effects[i].type == type;
    return n;
}

/* The n-th effect of the type from 0; NULL. */
RIG_FN struct effect *rig_nth(struct rig *rig, enum effect_type type, unsigned n)
{
    for (unsigned i = 0; i < rig->effect_count; i++)
        if (rig->effects[i].type == type && n-- == 0)
            return &rig->effects[i];
    return NULL;
}

RIG_FN const char *rig_body(const struct effect *e)
{
    static char text[64];
    assert_non_null(e);
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(msg_body(e->msg)));
    return text;
}

/* Bodies of all deliveries since the last clear: "a b* c"; * means redelivered. */
RIG_FN const char *rig_delivered(struct rig *rig)
{
    static char text[65536];
    size_t at = 0;
    text[0] = '\0';
    for (unsigned i = 0; i < rig->effect_count; i++)
        if (rig->effects[i].type == EFF_DELIVER || rig->effects[i].type == EFF_GET_OK)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%s%s", at ? " " : "", rig_body(&rig->effects[i]),
                                   rig->effects[i].flags & EFFECT_REDELIVERED ? "*" : "");
    return text;
}

/* Why the last thing failed: "404 text"; "" when nothing did. */
RIG_FN const char *rig_error(struct rig *rig)
{
    static char text[700];
    struct effect *e = rig_nth(rig, EFF_ERROR, 0);
    text[0] = '\0';
    if (e)
        snprintf(text, sizeof text, "%u %.*s", error_row(e->answer->code)->amqp, SLICE_ARG(e->answer->text));
    return text;
}

RIG_FN uint64_t rig_ready(struct rig *rig, const char *queue)
{
    struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str(queue));
    return q ? q->busy->ready_count : UINT64_MAX;
}

/* ---- the durable state as text, in an order that does not depend on history ---- */

RIG_FN int rig_by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

RIG_FN int rig_by_position(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    return x->position < y->position ? -1 : x->position > y->position;
}

RIG_FN uint32_t rig_sum(struct slice s)
{
    uint32_t sum = 17;
    for (size_t i = 0; i < s.len; i++)
        sum = sum * 31 + s.ptr[i];
    return sum;
}

/* Entries as they would be, had the pages been read. */
RIG_FN size_t rig_paged(const struct queue *q, struct rig_store *store, struct entry **ret)
{
    size_t count = 0;
    LIST_EACH(&q->busy->pages, node, after)
    {
        struct page *page = CONTAINER_OF(node, struct page, queue_link);
        const struct page_job *kept = page->state == PAGE_LOADED ? NULL : rig_store_page(store, page->where);
        for (uint32_t i = 0; kept && i < kept->count; i++) {
            const struct page_item *item = &kept->items[i];
            if (!page_has(page, item->position) || page_lends(page, item->position))
                continue;
            struct entry *e = calloc(1, sizeof *e);
            *e = (struct entry){.msg = item->msg,
                                .position = item->position,
                                .deadline = item->deadline,
                                .returns = item->returns,
                                .lane = page->lane};
            for (uint32_t r = 0; r < page->return_count; r++)
                if (page->returns[r].position == e->position) {
                    e->returns = page->returns[r].returns;
                    e->lsn = (lsn_t)page->returns[r].due; /* where nothing else is, as it has no queue */
                }
            if (page->retry) {
                e->lsn = (lsn_t)item->due;
                e->lane = lane_of_msg(q, e->msg);
            }
            if (page->journalled && backlog_journals(q, e->msg))
                e->flags = ENTRY_JOURNALLED;
            ret[count++] = e;
        }
    }
    return count;
}

/* Until when it waits for its retry; 0: it does not. */
RIG_FN long long rig_due(const struct entry *e, wall_t wall)
{
    wall_t due = !e->queue ? (wall_t)e->lsn : e->flags & ENTRY_DELAYED ? retry_due_of(e) : 0;
    return due > wall && e->deadline > wall ? due : 0;
}

RIG_FN char *rig_dump_queue(const struct queue *q, struct rig_store *store, bool loose, wall_t wall)
{
    size_t max = 512 + (q->busy->ready_count + q->busy->unacked_count + (q->extra ? q->extra->window.count : 0)) * 160,
           count = 0, at;
    uint64_t delayed = q->extra ? q->extra->retry.count : 0;
    max += delayed * 160;
    char *text = malloc(max);
    struct entry **entries = calloc(q->busy->ready_count + q->busy->unacked_count + delayed + 1, sizeof *entries);
    at = (size_t)snprintf(text, max, "queue %s%.*s id=%llu args=%u", q->hidden ? "(delays)" : "", SLICE_ARG(q->name),
                          (unsigned long long)q->id, rig_sum(q->args));
    size_t paged = rig_paged(q, store, entries);
    count = paged;
    struct entry **made = calloc(paged + 1, sizeof *made);
    memcpy(made, entries, paged * sizeof *made);
    for (unsigned lane = 0; lane < lane_count(q); lane++) {
        LIST_EACH(&q->busy->lanes[lane].entries, node, after)
        entries[count++] = CONTAINER_OF(node, struct entry, link);
        if (q->busy->lanes[lane].paging)
            LIST_EACH(&q->busy->lanes[lane].paging->front, node, after)
        entries[count++] = CONTAINER_OF(node, struct entry, link);
    }
    LIST_EACH(&q->busy->unacked, node, after)
    entries[count++] = CONTAINER_OF(node, struct entry, link);
    if (delayed)
        LIST_EACH(retry_list(q), node, after)
    entries[count++] = CONTAINER_OF(node, struct entry, link);
    if (delay_loaded(q))
        LIST_EACH(delay_loaded(q), node, after)
    entries[count++] = CONTAINER_OF(node, struct entry, link);
    qsort(entries, count, sizeof *entries, rig_by_position);
    for (size_t i = 0; i < count; i++)
        if (entries[i]->flags & ENTRY_JOURNALLED)
            at += (size_t)snprintf(text + at, max - at, " %llu:%u:%u:%u:%lld:%u:%u:%lld",
                                   (unsigned long long)entries[i]->position, rig_sum(msg_body(entries[i]->msg)),
                                   rig_sum(msg_props(entries[i]->msg)), rig_sum(msg_key(entries[i]->msg)),
                                   (long long)(entries[i]->deadline == WALL_NEVER ? -1 : entries[i]->deadline),
                                   loose ? 0 : entries[i]->returns, entries[i]->lane,
                                   loose ? 0 : rig_due(entries[i], wall));
    if (q->extra && q->extra->window.count)
        LIST_EACH(&q->extra->window.keys, node, after)
        {
            const struct key *k = CONTAINER_OF(node, struct key, link);
            const struct window *w = &q->extra->window;
            bool there = k->position >= w->purged_upto || k->kept == w->purges;
            bool counts = k->value.until == WALL_NEVER ? there : k->value.until > wall;
            if (k->journalled && counts)
                at += (size_t)snprintf(text + at, max - at, " key-%llx-%llx:%llu:%lld",
                                       (unsigned long long)k->value.hash[0], (unsigned long long)k->value.hash[1],
                                       (unsigned long long)k->position, (long long)k->value.until);
        }
    for (size_t i = 0; i < paged; i++)
        free(made[i]);
    free(made);
    free(entries);
    return text;
}

/* What the journal has of an MQTT client; whether it is connected is another matter after a start. */
RIG_FN size_t rig_dump_client(const struct mqtt_client *client, char **lines, size_t count)
{
    char text[4000];
    size_t at;
    if (!client->journalled)
        return count;
    at = (size_t)snprintf(text, sizeof text, "client %.*s %llu expiry=%u durable=%d will=%u", SLICE_ARG(client->id),
                          (unsigned long long)client->number, client->expiry_s, client->durable,
                          client->will ? rig_sum(msg_body(client->will)) : 0);
    for (uint32_t i = 0; client->durable && i < client->received.count && at < 3000; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, " received-%u", client->received.at[i]);
    for (uint32_t i = 0; client->durable && i < client->releasing.count && at < 3800; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, " releasing-%u", client->releasing.at[i]);
    lines[count++] = strdup(text);
    if (!client->durable)
        return count;
    LIST_EACH(&client->subs, node, after)
    {
        const struct mqtt_sub *sub = CONTAINER_OF(node, struct mqtt_sub, link);
        snprintf(text, sizeof text, "sub %llu %.*s/%.*s %u %u", (unsigned long long)client->number,
                 SLICE_ARG(sub->group), SLICE_ARG(sub->pattern), sub->options, sub->identifier);
        lines[count++] = strdup(text);
    }
    return count;
}

RIG_FN size_t rig_dump_retained(struct broker *b, char **lines, size_t count)
{
    LIST_EACH(&b->mqtt.retained.trees, node, after)
    {
        struct retained_tree *tree = CONTAINER_OF(node, struct retained_tree, link);
        for (struct retained_node *at = &tree->root; at;) {
            uint8_t room[256];
            char text[1200];
            if (at->value && !(at->value->flags & RETAINED_UNSAID) && retained_deadline(at->value) > b->wall) {
                snprintf(text, sizeof text, "retained %.*s %.*s %u %u %lld", SLICE_ARG(tree->exchange->name),
                         SLICE_ARG(retained_key(at, room)), rig_sum(retained_body(at->value)),
                         rig_sum(retained_props(at->value)), (long long)retained_deadline(at->value));
                lines[count++] = strdup(text);
            }
            if (at->children) {
                at = at->children;
                continue;
            }
            while (at->parent && !at->next)
                at = at->parent;
            at = at->parent ? at->next : NULL;
        }
    }
    return count;
}

/* loose: without what may be forgotten for want of memory, the return counts. */
RIG_FN char *rig_dump(struct broker *b, struct rig_store *store, bool loose)
{
    char *lines[4096];
    size_t count = 0, len = 1;
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        char text[1200] = "";
        if (!object->journalled)
            continue;
        switch (object->kind) {
        case OBJ_VHOST:
            snprintf(text, sizeof text, "vhost %.*s", SLICE_ARG(CONTAINER_OF(object, struct vhost, object)->name));
            break;
        case OBJ_USER:
            snprintf(text, sizeof text, "user %.*s %u", SLICE_ARG(CONTAINER_OF(object, struct user, object)->name),
                     rig_sum(CONTAINER_OF(object, struct user, object)->verifier));
            break;
        case OBJ_PERMISSION:
        case OBJ_TOPIC_PERMISSION: {
            const struct permission *p = CONTAINER_OF(object, struct permission, object);
            snprintf(text, sizeof text, "permission %.*s %.*s %.*s %u", SLICE_ARG(p->user->name),
                     SLICE_ARG(p->vhost->name), SLICE_ARG(p->exchange), rig_sum(p->patterns[0].text));
            break;
        }
        case OBJ_POLICY: {
            const struct policy *p = CONTAINER_OF(object, struct policy, object);
            snprintf(text, sizeof text, "policy %.*s %.*s %u %d", SLICE_ARG(p->name), SLICE_ARG(p->pattern.text),
                     rig_sum(p->definition), (int)p->priority);
            break;
        }
        case OBJ_EXCHANGE: {
            const struct exchange *x = CONTAINER_OF(object, struct exchange, object);
            snprintf(text, sizeof text, "exchange %.*s %s %d%d%d %u", SLICE_ARG(x->name), x->type->name, x->auto_delete,
                     x->internal, x->delayed, rig_sum(x->args));
            break;
        }
        case OBJ_QUEUE:
            lines[count++] = rig_dump_queue(CONTAINER_OF(object, struct queue, object), store, loose, b->wall);
            continue;
        case OBJ_BINDING: {
            const struct binding *p = CONTAINER_OF(object, struct binding, object);
            snprintf(text, sizeof text, "binding %.*s %.*s %.*s %u", SLICE_ARG(p->source->name),
                     SLICE_ARG(p->queue ? p->queue->name : p->exchange->name), SLICE_ARG(p->key), rig_sum(p->args));
            break;
        }
        case OBJ_GROUP_RULES: {
            const struct group_rules *p = CONTAINER_OF(object, struct group_rules, object);
            snprintf(text, sizeof text, "settings of %.*s %u", SLICE_ARG(p->name), rig_sum(p->rows));
            break;
        }
        case OBJ_TXN: {
            const struct txn *t = CONTAINER_OF(object, struct txn, object);
            snprintf(text, sizeof text, "transaction %.*s %llu %u %s %u %u", SLICE_ARG(t->name),
                     (unsigned long long)t->producer, t->epoch, txn_state_name((enum txn_state)t->state), t->timeout_ms,
                     t->part_count);
            break;
        }
        case OBJ_SQL: {
            const struct sql_object *o = CONTAINER_OF(object, struct sql_object, object);
            snprintf(text, sizeof text, "statement %llu %.*s %.*s %.*s %u %u %u %u %llu %u", (unsigned long long)o->id,
                     SLICE_ARG(o->name), SLICE_ARG(o->owner), SLICE_ARG(o->texts[SQL_REASON]),
                     rig_sum(o->texts[SQL_TEXT]), rig_sum(o->texts[SQL_SETTINGS]), o->kind, o->state,
                     (unsigned long long)o->step, rig_sum(slice_of(o->trail.bytes, o->trail.len)));
            break;
        }
        }
        lines[count++] = strdup(text);
        assert_true(count < ARRAY_LEN(lines));
    }
    LIST_EACH(&b->mqtt.clients, node, after)
    count = rig_dump_client(CONTAINER_OF(node, struct mqtt_client, link), lines, count);
    count = rig_dump_retained(b, lines, count);
    assert_true(count < ARRAY_LEN(lines));
    qsort(lines, count, sizeof *lines, rig_by_text);
    for (size_t i = 0; i < count; i++)
        len += strlen(lines[i]) + 1;
    char *all = malloc(len);
    all[0] = '\0';
    char *at = all;
    for (size_t i = 0; i < count; i++) {
        at = stpcpy(stpcpy(at, lines[i]), "\n");
        free(lines[i]);
    }
    return all;
}

RIG_FN void rig_print_missing(const char *what, const char *of, const char *in)
{
    while (*of) {
        const char *end = strchr(of, '\n');
        char *line = strndup(of, (size_t)(end - of) + 1);
        if (!strstr(in, line))
            fprintf(stderr, "%s: %s", what, line);
        free(line);
        of = end + 1;
    }
}

/* Every word of the line stands in the line of `in` that begins with the same two words. */
RIG_FN bool rig_words_in(char *line, const char *in)
{
    char *save, *word = strtok_r(line, " ", &save), *name = strtok_r(NULL, " ", &save), head[300];
    snprintf(head, sizeof head, "\n%s %s ", word, name);
    const char *other = strstr(in, head);
    const char *end = other ? strchr(other + 1, '\n') : NULL;
    while (other && (word = strtok_r(NULL, " ", &save))) {
        const char *found = strstr(other, word);
        if (!found || found > end)
            return false;
    }
    return other != NULL;
}

/* After failed allocations a restart may bring back what was removed, but nothing that is there may be missing. */
RIG_FN void rig_assert_nothing_lost(struct rig *rig)
{
    struct rig_log *copy = rig_log_copy(rig->log, rig->log->count);
    struct rig *other = rig_new(copy, &rig->options, rig->wall);
    char *a = rig_dump(rig->b, rig->log->store, true), *b = rig_dump(other->b, rig->log->store, true), *save, *in;
    if (asprintf(&in, "\n%s", b) < 0)
        abort();
    for (char *line = strtok_r(a, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *text = strdup(line);
        if (strncmp(line, "queue ", 6) == 0 ? !rig_words_in(text, in) : !strstr(in, line))
            rig_fail("lost: %s\nafter replay:%s", line, in);
        free(text);
    }
    free(a);
    free(b);
    free(in);
    rig_free(other);
    rig_log_free(copy);
}

/* What is journalled, replayed into a second broker, is the same state. */
RIG_FN void rig_assert_replays(struct rig *rig)
{
    struct rig_log *copy = rig_log_copy(rig->log, rig->log->count);
    struct rig *other = rig_new(copy, &rig->options, rig->wall);
    char *a = rig_dump(rig->b, rig->log->store, false), *b = rig_dump(other->b, rig->log->store, false);
    if (strcmp(a, b) != 0) {
        rig_print_missing("before only", a, b);
        rig_print_missing("replayed only", b, a);
        rig_fail("replay differs");
    }
    free(a);
    free(b);
    rig_free(other);
    rig_log_free(copy);
}

#endif
