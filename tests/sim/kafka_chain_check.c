/* What the Kafka clients find, against what they know; see kafka_chain.h. */
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fmt/record_batch.h"
#include "kafka_chain_int.h"

#define MARK_ABORT UINT32_MAX /* owners of offsets that are no batches */
#define MARK_COMMIT (UINT32_MAX - 1)

struct row { /* of a partition, in order */
    uint64_t offset;
    int64_t pid;
    uint32_t id; /* of the batch, or a mark */
    bool told;   /* a reader of committed records is given it */
    bool committed, open;
};

struct view {
    struct row rows[KAFKA_OFFSETS];
    unsigned count;
    uint64_t start, end, stable;
};

#define WRONG(w, ...) (model_fault((w)->model, __VA_ARGS__), false)

static bool is_mark(uint32_t id)
{
    return id == MARK_ABORT || id == MARK_COMMIT;
}

static uint32_t length_of(const struct kafka_chain *k, uint32_t id)
{
    return is_mark(id) ? 1 : k->batches[id].count;
}

void kafka_chain_own(struct kafka_chain *k, struct world *w, unsigned part, uint64_t offset, uint32_t id)
{
    uint32_t count = length_of(k, id);
    if (offset + count > KAFKA_OFFSETS)
        model_fault(w->model, "offset %llu of partition %u is far from its end", (unsigned long long)offset, part);
    for (uint32_t i = 0; i < count && offset + i < KAFKA_OFFSETS; i++) {
        uint32_t *owner = &k->owner[part][offset + i];
        if (*owner && *owner != id)
            model_fault(w->model, "batch %u is at offset %llu of partition %u, where %u was", id,
                        (unsigned long long)offset, part, *owner);
        *owner = id;
    }
    if (offset + count > k->end[part])
        k->end[part] = (uint32_t)(offset + count);
}

/* ---- reading ---- */

/* Which batch it is: its records say so; 0: none that anybody sent. */
static uint32_t identify(const struct kafka_chain *k, struct slice bytes)
{
    struct record_reader records;
    struct record_batch batch;
    struct record record;
    uint32_t id = 0, at = 0;
    if (!record_batch_crc_ok(bytes) || record_batch_open(bytes, NULL, 0, &batch, &records) != RECORD_OK)
        return 0;
    if (batch.control) {
        if (!record_next(&records, &record) || record.key.len != 4)
            return 0;
        return record.key.ptr[3] ? MARK_COMMIT : MARK_ABORT;
    }
    for (; record_next(&records, &record); at++) {
        struct reader r = reader_of(record.value);
        uint32_t mine = reader_u32(&r);
        if (reader_u8(&r) != at || !reader_ok(&r) || !mine || mine > k->batch_count || (id && mine != id))
            return 0;
        id = mine;
    }
    const struct kafka_batch *sent = &k->batches[id];
    return id && at == sent->count && batch.producer_id == sent->pid && batch.producer_epoch == sent->epoch &&
                   batch.base_sequence == sent->sequence && batch.transactional == (sent->tx != 0)
               ? id
               : 0;
}

static const struct kafka_fetch_response_partition *fetch(struct guest *g, unsigned part, uint64_t at, int8_t isolation)
{
    struct kafka_fetch_request_partition row = {.partition = (int32_t)part,
                                                .current_leader_epoch = -1,
                                                .last_fetched_epoch = -1,
                                                .fetch_offset = (int64_t)at,
                                                .partition_max_bytes = 100000};
    struct kafka_fetch_request_topic topic = {.topic = slice_str(KAFKA_CHAIN_TOPIC), .partitions = {&row, 1}};
    const struct kafka_fetch_response *said =
        ANSWER(g, fetch, 11, .replica_id = -1, .max_wait_ms = 500, .min_bytes = 1, .max_bytes = 100000,
               .isolation_level = isolation, .session_epoch = -1, .topics = {&topic, 1}, .rack_id = slice_str(""));
    return said && said->responses.count == 1 && said->responses.at[0].partitions.count == 1
               ? &said->responses.at[0].partitions.at[0]
               : NULL;
}

static bool read_all(struct kafka_chain *k, struct guest *g, unsigned part, struct view *v)
{
    struct record_batch batch;
    struct slice one;
    for (uint64_t at = v->start;;) {
        const struct kafka_fetch_response_partition *got = fetch(g, part, at, 0);
        if (!got || got->error_code)
            return kafka_chain_refused(k, g, "Fetch", got ? got->error_code : 0);
        v->end = (uint64_t)got->high_watermark;
        v->stable = (uint64_t)got->last_stable_offset;
        struct reader r = reader_of(got->records);
        uint64_t before = at;
        while (record_batch_take(&r, &batch, &one) == RECORD_OK && v->count < KAFKA_OFFSETS) {
            uint32_t id = identify(k, one);
            if (!id)
                return WRONG(g->w, "nobody sent what is at %lld of partition %u", (long long)batch.base_offset, part);
            v->rows[v->count++] =
                (struct row){.offset = (uint64_t)batch.base_offset, .pid = batch.producer_id, .id = id};
            at = (uint64_t)record_batch_last_offset(&batch) + 1;
        }
        if (at >= v->end)
            return true;
        if (at == before && g->w->talk > 1)
            printf("    kafka: nothing at %llu of partition %u, start %llu, end %llu\n", (unsigned long long)at, part,
                   (unsigned long long)v->start, (unsigned long long)v->end);
        if (at == before) /* a disk that gives nothing */
            return kafka_chain_refused(k, g, "a Fetch that gives nothing", -1);
    }
}

/* What a client that leaves out aborted transactions as it is told gives to its reader. */
static bool read_committed(struct kafka_chain *k, struct guest *g, unsigned part, struct view *v)
{
    struct record_batch batch;
    struct slice one;
    unsigned next = 0;
    for (uint64_t at = v->start; at < v->stable;) {
        const struct kafka_fetch_response_partition *got = fetch(g, part, at, 1);
        if (!got || got->error_code)
            return kafka_chain_refused(k, g, "Fetch of committed records", got ? got->error_code : 0);
        struct reader r = reader_of(got->records);
        int64_t ended[64];
        int32_t ended_count = 0, taken = 0;
        uint64_t before = at;
        while (record_batch_take(&r, &batch, &one) == RECORD_OK) {
            while (next < v->count && v->rows[next].offset < (uint64_t)batch.base_offset)
                next++;
            while (taken < got->aborted_transactions.count && ended_count < 64 &&
                   got->aborted_transactions.at[taken].first_offset <= batch.base_offset)
                ended[ended_count++] = got->aborted_transactions.at[taken++].producer_id;
            int32_t found = -1;
            for (int32_t i = 0; i < ended_count; i++)
                found = ended[i] == batch.producer_id ? i : found;
            uint32_t id = identify(k, one);
            if (id == MARK_ABORT && found >= 0)
                ended[found] = ended[--ended_count];
            else if (!is_mark(id) && (found < 0 || !batch.transactional) && next < v->count)
                v->rows[next].told = true;
            at = (uint64_t)record_batch_last_offset(&batch) + 1;
        }
        if (at == before)
            return kafka_chain_refused(k, g, "a Fetch of committed records that gives nothing", -1);
    }
    return true;
}

static bool start_of(struct kafka_chain *k, struct guest *g, unsigned part, uint64_t *ret)
{
    struct kafka_list_offsets_request_partition row = {
        .partition_index = (int32_t)part, .current_leader_epoch = -1, .timestamp = -2};
    struct kafka_list_offsets_request_topic topic = {.name = slice_str(KAFKA_CHAIN_TOPIC), .partitions = {&row, 1}};
    const struct kafka_list_offsets_response *said = ANSWER(g, list_offsets, 7, .topics = {&topic, 1});
    if (!said || said->topics.count != 1 || said->topics.at[0].partitions.count != 1)
        return kafka_chain_refused(k, g, "ListOffsets", 0);
    if (said->topics.at[0].partitions.at[0].error_code)
        return kafka_chain_refused(k, g, "ListOffsets", said->topics.at[0].partitions.at[0].error_code);
    *ret = (uint64_t)said->topics.at[0].partitions.at[0].offset;
    return true;
}

/* ---- comparing ---- */

/* Density, what was known, and the sequences of each instance. */
static bool check_order(struct kafka_chain *k, struct world *w, unsigned part, const struct view *v)
{
    uint64_t at = v->start;
    uint32_t last[KAFKA_WRITERS] = {0};
    if (v->start < k->start[part] ||
        v->start > (k->start_asked[part] > k->start[part] ? k->start_asked[part] : k->start[part]))
        return WRONG(w, "partition %u begins at %llu, not at %u", part, (unsigned long long)v->start, k->start[part]);
    if (v->end < k->end[part])
        return WRONG(w, "partition %u ends at %llu; %u was known", part, (unsigned long long)v->end, k->end[part]);
    for (unsigned i = 0; i < v->count; i++) {
        const struct row *row = &v->rows[i];
        if (row->offset != at)
            return WRONG(w, "partition %u has %llu behind %llu", part, (unsigned long long)row->offset,
                         (unsigned long long)at);
        at += length_of(k, row->id);
        kafka_chain_own(k, w, part, row->offset, row->id);
        if (is_mark(row->id))
            continue;
        const struct kafka_batch *one = &k->batches[row->id], *before = &k->batches[last[one->writer]];
        if (one->part != part || one->given_up || row->id <= last[one->writer])
            return WRONG(w, "batch %u is in partition %u behind %u%s", row->id, part, last[one->writer],
                         one->given_up ? ", and was not there before" : "");
        bool follows = last[one->writer] && before->pid == one->pid && before->epoch == one->epoch;
        if (follows && one->sequence != before->sequence + before->count)
            return WRONG(w, "batch %u of partition %u has sequence %d behind %d of batch %u", row->id, part,
                         one->sequence, before->sequence, last[one->writer]);
        last[one->writer] = row->id;
    }
    if (at != v->end)
        return WRONG(w, "partition %u ends at %llu, its last batch at %llu", part, (unsigned long long)v->end,
                     (unsigned long long)at);
    k->start[part] = (uint32_t)v->start;
    return !w->model->wrong[0];
}

/* What the markers say must be what the broker says. */
static bool check_isolation(struct world *w, const struct kafka_chain *k, unsigned part, struct view *v)
{
    uint64_t stable = v->end;
    for (unsigned i = v->count; i-- > 0;) {
        struct row *row = &v->rows[i];
        if (is_mark(row->id))
            continue;
        row->committed = !k->batches[row->id].tx;
        row->open = !row->committed;
        for (unsigned n = i + 1; row->open && n < v->count; n++)
            if (is_mark(v->rows[n].id) && v->rows[n].pid == row->pid) {
                row->open = false;
                row->committed = v->rows[n].id == MARK_COMMIT;
            }
        stable = row->open ? row->offset : stable;
    }
    if (v->stable != stable)
        return WRONG(w, "partition %u is stable up to %llu, and should be up to %llu of %llu", part,
                     (unsigned long long)v->stable, (unsigned long long)stable, (unsigned long long)v->end);
    for (unsigned i = 0; i < v->count; i++) {
        const struct row *row = &v->rows[i];
        if (!is_mark(row->id) && row->told != (row->committed && row->offset < stable))
            return WRONG(w, "batch %u at %llu of partition %u is %s to readers of committed records", row->id,
                         (unsigned long long)row->offset, part, row->told ? "given" : "not given");
    }
    return true;
}

struct standing { /* of a transaction, over all partitions */
    uint16_t committed, open, gone, sent;
};

static void stand(const struct kafka_chain *k, const struct view views[KAFKA_PARTS], struct standing *all)
{
    static bool seen[KAFKA_BATCHES];
    memset(all, 0, KAFKA_TXS * sizeof *all);
    memset(seen, 0, sizeof seen);
    for (unsigned part = 0; part < KAFKA_PARTS; part++)
        for (unsigned i = 0; i < views[part].count; i++) {
            const struct row *row = &views[part].rows[i];
            uint32_t tx = is_mark(row->id) ? 0 : k->batches[row->id].tx;
            if (is_mark(row->id))
                continue;
            seen[row->id] = true;
            all[tx].committed += row->committed;
            all[tx].open += row->open;
        }
    for (unsigned part = 0; part < KAFKA_PARTS; part++) /* what was cut away counts as it was */
        for (uint32_t at = 0; at < k->start[part]; at++)
            if (k->owner[part][at] && !is_mark(k->owner[part][at]) && !seen[k->owner[part][at]]) {
                seen[k->owner[part][at]] = true;
                all[k->batches[k->owner[part][at]].tx].gone++;
            }
    for (uint32_t id = 1; id <= k->batch_count; id++)
        all[k->batches[id].tx].sent++;
}

static bool check_transactions(struct kafka_chain *k, struct world *w, const struct view views[KAFKA_PARTS])
{
    static struct standing all[KAFKA_TXS];
    stand(k, views, all);
    for (uint32_t tx = 1; tx <= k->tx_count; tx++) {
        struct kafka_tx *t = &k->txs[tx];
        const struct standing *s = &all[tx];
        bool whole = s->committed + s->gone == s->sent;
        if (s->committed && (t->state == TX_OPEN || t->state == TX_ABORTED))
            return WRONG(w, "%u batches of transaction %u, which is %s, are read as committed", s->committed, tx,
                         t->state == TX_OPEN ? "open" : "aborted");
        if (t->state == TX_COMMITTED && !whole)
            return WRONG(w, "transaction %u was committed; %u of %u batches are read", tx, s->committed, s->sent);
        if (t->state == TX_COMMITTING && s->committed && !whole)
            return WRONG(w, "transaction %u is read in parts: %u of %u batches", tx, s->committed, s->sent);
        if (t->state == TX_COMMITTING && s->committed) {
            t->state = TX_COMMITTED;
            k->writers[t->writer].offset_sure = t->offset ? t->offset : k->writers[t->writer].offset_sure;
        } else if (t->state == TX_COMMITTING && s->sent && !s->open)
            t->state = TX_ABORTED;
    }
    return true;
}

/* A commit that had no answer and no batches may be what the offset tells of. */
static bool may_be(const struct kafka_chain *k, unsigned number, int64_t offset)
{
    for (uint32_t tx = 1; tx <= k->tx_count; tx++)
        if (k->txs[tx].writer == number && k->txs[tx].offset == offset && k->txs[tx].state == TX_COMMITTING)
            return true;
    return false;
}

static bool check_offsets(struct kafka_chain *k, struct guest *g)
{
    for (unsigned number = 1; number < KAFKA_WRITERS; number++) {
        int32_t zero = 0;
        struct kafka_offset_fetch_request_topic topic = {.name = slice_str(KAFKA_CHAIN_TOPIC),
                                                         .partition_indexes = {&zero, 1}};
        const struct kafka_offset_fetch_response *said =
            ANSWER(g, offset_fetch, 6, .group_id = kafka_chain_group(number), .topics = {&topic, 1});
        if (!said || said->topics.count != 1 || said->topics.at[0].partitions.count != 1)
            return kafka_chain_refused(k, g, "OffsetFetch", 0);
        int64_t now = said->topics.at[0].partitions.at[0].committed_offset, sure = k->writers[number].offset_sure;
        if (now != (sure ? sure : -1) && !may_be(k, number, now))
            return WRONG(g->w, "group %u has offset %lld, not %lld", number, (long long)now, (long long)sure);
        if (now > 0)
            k->writers[number].offset_sure = now;
    }
    return true;
}

/* ---- the queue ---- */

struct heap_of_records {
    struct kafka_chain *k;
    struct world *w;
    const struct view *views;
    uint32_t last[KAFKA_WRITERS][KAFKA_PARTS];
    uint64_t count;
    uint8_t seen[KAFKA_BATCHES]; /* a bit for each record */
};

static bool is_committed(const struct view *v, uint32_t id)
{
    for (unsigned i = 0; i < v->count; i++)
        if (v->rows[i].id == id)
            return v->rows[i].committed && v->rows[i].offset < v->stable;
    return false;
}

static void in_queue(void *arg, struct slice body)
{
    struct heap_of_records *h = arg;
    struct reader r = reader_of(body);
    uint32_t id = reader_u32(&r), n = reader_u8(&r);
    if (!reader_ok(&r) || !id || id > h->k->batch_count || n >= h->k->batches[id].count) {
        model_fault(h->w->model, "the queue has %zu bytes that nobody sent", body.len);
        return;
    }
    const struct kafka_batch *one = &h->k->batches[id];
    uint32_t *last = &h->last[one->writer][one->part];
    bool cut = one->part < KAFKA_PARTS && h->views[one->part].start > 0 && !is_committed(&h->views[one->part], id);
    if (h->seen[id] >> n & 1)
        model_fault(h->w->model, "record %u of batch %u is in the queue twice", n, id);
    if (id < *last)
        model_fault(h->w->model, "batch %u is in the queue behind %u", id, *last);
    if (!cut && !is_committed(&h->views[one->part], id))
        model_fault(h->w->model, "batch %u is in the queue and no reader of committed records sees it", id);
    if (one->tx && h->k->txs[one->tx].state == TX_ABORTED)
        model_fault(h->w->model, "batch %u of transaction %u, which is aborted, is in the queue", id, one->tx);
    h->seen[id] |= (uint8_t)(1u << n);
    *last = id;
    h->count++;
}

static bool check_queue(struct kafka_chain *k, struct world *w, const struct view views[KAFKA_PARTS],
                        struct heap_of_records *h)
{
    struct peek_reader reader = world_reader(w);
    memset(h, 0, sizeof *h);
    h->k = k;
    h->w = w;
    h->views = views;
    if (!peek_queue(w->broker, KAFKA_CHAIN_QUEUE, &reader, in_queue, h))
        return WRONG(w, "the queue of the Kafka clients is not there");
    return !w->model->wrong[0];
}

/* ---- all of it ---- */

static void settle(struct kafka_chain *k)
{
    static bool there[KAFKA_BATCHES];
    memset(there, 0, sizeof there);
    for (unsigned part = 0; part < KAFKA_PARTS; part++)
        for (uint32_t at = 0; at < k->end[part]; at++)
            if (k->owner[part][at] && !is_mark(k->owner[part][at]))
                there[k->owner[part][at]] = true;
    for (uint32_t id = 1; id <= k->batch_count; id++)
        k->batches[id].given_up = k->batches[id].renewed && !there[id];
}

static bool view_all(struct kafka_chain *k, struct guest *g, struct view views[KAFKA_PARTS])
{
    for (unsigned part = 0; part < KAFKA_PARTS; part++) {
        struct view *v = &views[part];
        v->count = 0;
        if (!start_of(k, g, part, &v->start) || !read_all(k, g, part, v) || !read_committed(k, g, part, v) ||
            !check_order(k, g->w, part, v) || !check_isolation(g->w, k, part, v))
            return false;
        k->stable[part] = (uint32_t)v->stable;
        k->compared += v->count;
    }
    return true;
}

uint32_t kafka_chain_cut_at(const struct kafka_chain *k, unsigned part)
{
    uint32_t at = k->stable[part];
    while (at > k->start[part] && k->owner[part][at] && k->owner[part][at] == k->owner[part][at - 1] &&
           !is_mark(k->owner[part][at]))
        at--;
    return at;
}

bool kafka_chain_committed(const struct kafka_chain *k, unsigned part, uint64_t offset)
{
    uint32_t id = offset < k->stable[part] ? k->owner[part][offset] : 0;
    return id && !is_mark(id) && (!k->batches[id].tx || k->txs[k->batches[id].tx].state == TX_COMMITTED);
}

bool kafka_chain_marker(const struct kafka_chain *k, unsigned part, uint64_t offset)
{
    return offset < k->end[part] && is_mark(k->owner[part][offset]);
}

bool kafka_chain_compare(struct kafka_chain *k, struct guest *g, bool with_queue)
{
    static struct view views[KAFKA_PARTS];
    static struct heap_of_records heap;
    if (!view_all(k, g, views) || !check_transactions(k, g->w, views) || !check_offsets(k, g))
        return false;
    settle(k);
    return g->w->dead || !with_queue || check_queue(k, g->w, views, &heap);
}

void kafka_chain_drained(struct kafka_chain *k, struct guest *g)
{
    static struct view views[KAFKA_PARTS];
    static struct heap_of_records heap;
    if (!view_all(k, g, views))
        return;
    uint64_t wanted = 0, most = 0;
    for (unsigned part = 0; part < KAFKA_PARTS; part++)
        for (unsigned i = 0; i < views[part].count; i++)
            if (views[part].rows[i].told)
                wanted += length_of(k, views[part].rows[i].id);
    for (unsigned i = 0; i < 200 && !g->w->dead && check_queue(k, g->w, views, &heap); i++) {
        most = 0;
        for (unsigned part = 0; part < KAFKA_PARTS; part++)
            for (unsigned n = 0; n < views[part].count; n++)
                if (views[part].rows[n].told)
                    most += (unsigned)__builtin_popcount(heap.seen[views[part].rows[n].id]);
        if (most == wanted)
            return;
        for (unsigned n = 0; n < 20; n++)
            guest_turn(g);
    }
    if (!g->w->dead)
        model_fault(g->w->model, "of %llu records that readers of committed ones see %llu came to the queue",
                    (unsigned long long)wanted, (unsigned long long)most);
}
