/* Fetches: what Kafka's clients ask of streams, in blocks (core/fetch.h) that nobody copies.
 *
 *   CMD_FETCH ─▶ look at the rows ─┬─ nothing to read, and nothing to wait for ─────────────────────▶ EFF_FETCHED
 *                   ▲              ├─ something to read ─▶ READY ─▶ AWAY (store) ─▶ enough, or late ─┘
 *                   │              │                                                │ too little
 *                   │              └─ nothing yet ─▶ PARKED ◀───────────────────────┘
 *                   └─ more came, or time is up ────────┘
 *
 * A parked fetch hangs on the list of each of its partitions, and on a timer: nobody looks at it before one of them has grown, or
 * goes, or there are more partitions than it knows of (row->known). How many bytes came is known roughly (partition->filled), so that one who waits for many does not read at every record.
 * What is readable is durable and in the file; the end that a client is told is the durable one, which a restart does not take
 * back, though the files are behind the journal for a moment then.
 * A time is looked for in the files, too: what was durable when it was asked for is waited for, though not for ever.
 * Who closes its session leaves at once: of a block that the store has only `peer` is cleared, and it is freed when it is back.
 */
#include "core/share_int.h"

#include <errno.h>
#include <stdlib.h>

#define FETCH_JOBS_MAX 64u             /* with the store: others find room there, too */
#define OFFSETS_WAIT_NS (2 * NS_PER_S) /* for the files, where a time is looked for */

void fetches_init(struct broker *b)
{
    list_init(&b->streams.fetched);
    list_init(&b->streams.fetches_ready);
    list_init(&b->streams.fetch_session_list);
}

/* ---- rows ---- */

/* A row must not cost a regular expression: the stream remembers the last user. */
static bool may_read(struct broker *b, const struct peer *peer, struct queue *q)
{
    struct stream *s = q->stream;
    if (peer->state != PEER_ENTERED || q->vhost != peer->vhost)
        return false;
    if (!peer->user || sql_owns(b, peer, q->name))
        return true;
    if (s->reader != peer->user || s->reader_gen != b->topology_gen) {
        s->reader_may = authorise(b, peer->user, q->vhost, VERB_READ, q->name);
        s->reader = peer->user;
        s->reader_gen = b->topology_gen;
    }
    return s->reader_may;
}

struct partition *fetch_partition_of(struct broker *b, uint64_t stream, uint32_t partition)
{
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&stream));
    return q && q->stream && partition < q->stream->partition_count ? q->stream->partitions[partition] : NULL;
}

static struct partition *partition_of(struct broker *b, const struct fetch_row *row)
{
    return fetch_partition_of(b, row->stream, row->partition);
}

void fetch_see(struct broker *b, struct partition *p)
{
    uint64_t readable = partition_visible(b, p);
    if (readable <= p->seen)
        return;
    p->seen = readable;
    if (readable == p->written)
        p->seen_bytes = p->filled;
    else if (p->seen_bytes < p->filled)
        p->seen_bytes++; /* so many at least: the rest is counted when it is durable */
}

static enum fetch_result look_for_records(const struct fetch *f, struct fetch_row *row, const struct partition *p)
{
    if (row->offset < p->start || row->offset > p->end)
        return FETCH_OUT_OF_RANGE;
    row->until = f->committed && row->stable < p->seen ? row->stable : p->seen;
    return FETCH_OK;
}

/* Where the highest time is; false: there is no record. */
static bool newest(const struct partition *p, struct fetch_row *row)
{
    const struct stream_extent *best = p->tail.end > p->tail.base ? &p->tail : NULL;
    for (uint32_t i = p->sealed_count; i-- > 0;)
        if (!best || p->sealed[i].max_at >= best->max_at)
            best = &p->sealed[i];
    if (!best)
        return false;
    row->time = best->max_at;
    row->offset = best->base > p->start ? best->base : p->start;
    row->until = best->end < p->seen ? best->end : p->seen;
    return row->offset < row->until;
}

static void look_for_offset(const struct fetch *f, struct fetch_row *row, const struct partition *p)
{
    bool sought = false;
    row->until = 0; /* nothing for the store */
    switch ((enum fetch_at)row->at) {
    case FETCH_AT_START: row->offset = p->start; break;
    case FETCH_AT_END: row->offset = f->committed ? row->stable : row->end; break;
    case FETCH_AT_TIME:
        row->offset = p->start;
        row->until = p->seen;
        sought = row->offset < row->until;
        break;
    case FETCH_AT_NEWEST: sought = newest(p, row); break;
    }
    if (sought)
        return;
    row->time = -1;
    if (row->at >= FETCH_AT_TIME) {
        row->offset = FETCH_NOWHERE;
        row->until = 0;
    }
}

static void look_for_epoch(struct fetch_row *row)
{
    bool known = row->wanted == LEADER_EPOCH;
    row->wanted = known ? LEADER_EPOCH : -1;
    row->offset = known ? row->end : FETCH_NOWHERE;
}

/* Behind the last record that is in no open transaction. */
static uint64_t stable_end(struct broker *b, struct partition *p, uint64_t end)
{
    uint64_t stable = partition_stable(b, p);
    stable = stable < p->start ? p->start : stable; /* the beginning of a transaction may have been trimmed away */
    return stable < end ? stable : end;
}

enum fetch_result fetch_look_at(struct broker *b, struct fetch *f, struct fetch_row *row)
{
    struct partition *p = partition_of(b, row);
    row->until = 0;
    row->start = row->end = row->stable = FETCH_NOWHERE;
    if (!p)
        return FETCH_UNKNOWN;
    if (!may_read(b, f->peer, p->stream->queue))
        return FETCH_REFUSED;
    if (row->epoch != -1 && row->epoch != LEADER_EPOCH)
        return row->epoch < LEADER_EPOCH ? FETCH_OLD_EPOCH : FETCH_NEW_EPOCH;
    row->partitions = p->stream->partition_count;
    row->start = p->start;
    row->end = partition_durable(b, p);
    row->stable = stable_end(b, p, row->end);
    fetch_see(b, p);
    row->filled = p->seen_bytes;
    row->trimmed = p->isolation.trimmed;
    if (row->awaited == FETCH_NOWHERE)
        row->awaited = row->end;
    if (f->sharer)
        return share_look(b, f, row, p);
    return f->kind == FETCH_RECORDS ? look_for_records(f, row, p) : FETCH_OK;
}

/* Not everything that was durable when it was asked for is in the files. */
static bool is_behind(struct broker *b, const struct fetch *f)
{
    for (uint32_t i = 0; f->kind == FETCH_OFFSETS && !f->late && i < f->count; i++) {
        const struct fetch_row *row = &f->rows[i];
        if (row->result == FETCH_OK && row->at >= FETCH_AT_TIME && partition_of(b, row)->seen < row->awaited)
            return true;
    }
    return false;
}

/* What needs no store is answered now. */
static void look_for_places(struct broker *b, struct fetch *f)
{
    for (uint32_t i = 0; f->kind != FETCH_RECORDS && i < f->count; i++) {
        struct fetch_row *row = &f->rows[i];
        if (row->result == FETCH_OK && f->kind == FETCH_OFFSETS)
            look_for_offset(f, row, partition_of(b, row));
        else if (row->result == FETCH_OK)
            look_for_epoch(row);
    }
}

/* ---- from state to state ---- */

static void leave_lists(struct broker *b, struct fetch *f)
{
    for (uint32_t i = 0; f->state == FETCH_STATE_PARKED && i < f->count; i++) {
        list_remove(&f->rows[i].link);
        if (f->sharer)
            list_remove(&f->rows[i].share_link);
    }
    list_remove(&f->ready_link);
    wheel_cancel(&b->wheel, &f->timer);
}

static int by_first(const void *a, const void *b)
{
    const struct aborted *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* False: no memory. */
static bool tell_aborted(struct broker *b, struct fetch_row *row)
{
    if (!row->piece.len)
        return true;
    const struct partition *p = partition_of(b, row);
    if (!p || p->start > row->offset) { /* what was aborted there is forgotten by now */
        file_piece_fini(&row->piece);
        row->result = p ? FETCH_OUT_OF_RANGE : FETCH_UNKNOWN;
        return true;
    }
    if (row->trimmed != p->isolation.trimmed && row->offset < p->isolation.trimmed) {
        file_piece_fini(&row->piece); /* of a file that is compacted since, maybe: it is asked for again */
        return true;
    }
    uint32_t count = isolation_overlaps(&p->isolation, row->offset, row->until, NULL, 0);
    if (!count)
        return true;
    row->aborted = mem_alloc(count * sizeof *row->aborted);
    if (!row->aborted)
        return false;
    row->aborted_count = isolation_overlaps(&p->isolation, row->offset, row->until, row->aborted, count);
    qsort(row->aborted, count, sizeof *row->aborted, by_first);
    return true;
}

void fetch_answer(struct broker *b, struct fetch *f)
{
    for (uint32_t i = 0; f->committed && !f->sharer && i < f->count; i++)
        if (!tell_aborted(b, &f->rows[i])) {
            file_piece_fini(&f->rows[i].piece);
            f->rows[i].result = FETCH_TROUBLE;
        }
    leave_lists(b, f);
    list_remove(&f->peer_link);
    if (f->session)
        fetch_session_told(f);
    struct effect *e = effect_push(b, f->peer, EFF_FETCHED, 0);
    e->origin = f->origin;
    e->fetch = f;
}

static void forget_pieces(struct fetch *f)
{
    for (uint32_t i = 0; i < f->count; i++)
        file_piece_fini(&f->rows[i].piece);
}

void fetch_expect(struct broker *b, struct partition *p)
{
    partition_hurry(b, p);
    if (p->seen < p->written && list_empty(&p->fetch_link)) {
        list_insert(&b->streams.fetched, &p->fetch_link);
        b->streams.fetched_news = true;
    }
}

/* A transaction held it back, and has ended: how much that gives is not known before it is looked at. */
bool fetch_is_let_go(struct broker *b, const struct fetch *f, uint64_t held, struct partition *p)
{
    return f->committed && held != FETCH_NOWHERE && stable_end(b, p, p->seen) > held;
}

/* Who reads all of the stream does not know of all its partitions. */
static bool is_outgrown(const struct fetch_row *row, uint32_t partitions)
{
    return row->known && row->known < partitions;
}

static void look(struct broker *b, struct fetch *f);

/* The rows of a session are told of what comes all the time, and count it. */
static void park_session(struct broker *b, struct fetch *f)
{
    f->state = FETCH_STATE_PARKED;
    if (fetch_hopes_enough(f))
        fetch_look_again(b, f);
    else
        wheel_set(&b->wheel, &f->timer, f->due);
}

/* The rows of a share group wait for their shares, which are told of what comes. */
static void park_sharer(struct broker *b, struct fetch *f)
{
    f->state = FETCH_STATE_PARKED;
    if (share_park(b, f)) {
        wheel_set(&b->wheel, &f->timer, f->due);
        return;
    }
    leave_lists(b, f);
    look(b, f);
}

/* Rows that are not good wait for nothing. */
static void park(struct broker *b, struct fetch *f)
{
    bool let_go = false;
    if (f->sharer) {
        park_sharer(b, f);
        return;
    }
    if (f->session && f->session_op == FETCH_NEXT) {
        park_session(b, f);
        return;
    }
    f->state = FETCH_STATE_PARKED;
    f->hoped = 0;
    for (uint32_t i = 0; i < f->count; i++) {
        struct fetch_row *row = &f->rows[i];
        struct partition *p = partition_of(b, row);
        if (row->result != FETCH_OK)
            continue;
        if (!p) { /* it went meanwhile */
            leave_lists(b, f);
            look(b, f);
            return;
        }
        fetch_see(b, p);
        f->hoped += p->seen_bytes - row->filled;
        row->filled = p->seen_bytes;
        let_go = let_go || fetch_is_let_go(b, f, fetch_held_at(row), p) || is_outgrown(row, p->stream->partition_count);
        list_insert(&p->fetches, &row->link);
        fetch_expect(b, p);
    }
    if (let_go || fetch_hopes_enough(f)) { /* it came while the store was asked */
        leave_lists(b, f);
        look(b, f);
        return;
    }
    wheel_set(&b->wheel, &f->timer, f->due);
}

static void ready(struct broker *b, struct fetch *f)
{
    f->state = FETCH_STATE_READY;
    list_insert(&b->streams.fetches_ready, &f->ready_link);
}

/* It is on no list but its peer's. */
static void look(struct broker *b, struct fetch *f)
{
    bool wanted = false, wrong = false; /* or there is more to say than records */
    f->state = FETCH_STATE_NEW;
    f->found = 0;
    bool next = f->session && f->session_op == FETCH_NEXT;
    if (next)
        f = fetch_session_gather(b, f);
    for (uint32_t i = 0; i < f->count; i++) {
        struct fetch_row *row = &f->rows[i];
        if (!next)
            row->result = (uint8_t)fetch_look_at(b, f, row);
        wrong = wrong || row->result != FETCH_OK || is_outgrown(row, row->partitions);
    }
    if (is_behind(b, f)) {
        park(b, f);
        return;
    }
    look_for_places(b, f);
    for (uint32_t i = 0; i < f->count; i++)
        wanted = wanted || (f->rows[i].result == FETCH_OK && f->rows[i].until > f->rows[i].offset);
    if (wanted)
        ready(b, f);
    else if (wrong || f->late || !f->bytes_min || (!f->count && f->session_op != FETCH_NEXT) ||
             f->kind != FETCH_RECORDS)
        fetch_answer(b, f);
    else
        park(b, f);
}

void fetch_look_again(struct broker *b, struct fetch *f)
{
    leave_lists(b, f);
    look(b, f);
}

void fetch_look_at_row(struct broker *b, struct fetch_row *row)
{
    struct fetch *f = row->fetch;
    row->result = (uint8_t)fetch_look_at(b, f, row);
    if (row->result != FETCH_OK)
        fetch_look_again(b, f); /* and is answered */
    else if (row->until > row->offset) {
        leave_lists(b, f);
        ready(b, f);
    }
}

void fetch_out_of_time(void *arg, struct timer *timer)
{
    struct fetch *f = CONTAINER_OF(timer, struct fetch, timer);
    f->late = true;
    if (f->state == FETCH_STATE_PARKED)
        fetch_look_again(arg, f);
}

void do_fetch(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct fetch *f = c->fetch;
    (void)ch;
    f->peer = peer;
    f->origin = c->origin;
    f->due = b->now + (f->kind == FETCH_RECORDS ? (mono_t)f->wait_ms * NS_PER_MS : OFFSETS_WAIT_NS);
    f->late = f->kind == FETCH_RECORDS && f->wait_ms == 0;
    if (f->bytes_min > f->bytes_max)
        f->bytes_min = f->bytes_max;
    if (f->sharer && f->bytes_min > 1)
        f->bytes_min = 1;
    list_init(&f->ready_link);
    timer_init(&f->timer, fetch_out_of_time);
    for (uint32_t i = 0; i < f->count; i++) {
        f->rows[i].fetch = f;
        f->rows[i].awaited = FETCH_NOWHERE;
        list_init(&f->rows[i].link);
        list_init(&f->rows[i].share_link);
    }
    list_insert(&peer->fetches, &f->peer_link);
    if (f->session_op != FETCH_ALONE)
        fetch_session_begin(b, peer, f);
    if (f->session_op == FETCH_NEXT && !f->session)
        fetch_answer(b, f); /* it is lost */
    else
        look(b, f);
}

/* ---- the store's answer ---- */

/* Who reads what is committed is told of no place behind that, as Kafka does it. */
static void hide_unstable(const struct fetch *f, struct fetch_row *row)
{
    if (!f->committed || row->offset == FETCH_NOWHERE || row->offset < row->stable)
        return;
    row->offset = FETCH_NOWHERE;
    row->time = -1;
}

static bool settle_row(struct fetch *f, struct fetch_row *row)
{
    bool asked = row->result == FETCH_OK && row->until > (f->kind == FETCH_RECORDS ? row->offset : 0);
    if (!asked)
        return row->result == FETCH_OK;
    if (row->err)
        row->result = row->err == -EILSEQ ? FETCH_DAMAGED : FETCH_TROUBLE;
    else if (f->kind == FETCH_OFFSETS && row->time < 0)
        row->offset = FETCH_NOWHERE;
    else if (f->kind == FETCH_OFFSETS)
        hide_unstable(f, row);
    return !row->err;
}

void fetch_back(struct broker *b, struct stream_job *job)
{
    struct fetch *f = job->fetch;
    bool good = true;
    b->streams.fetch_jobs--;
    if (!f->peer) {
        share_leave(b, f);
        fetch_free(&f);
        return;
    }
    f->found = 0;
    for (uint32_t i = 0; i < f->count; i++)
        good = settle_row(f, &f->rows[i]) && good;
    bool more = false;
    if (f->sharer) {
        share_take(b, f, &more);
        share_leave(b, f);
    }
    bool grown = false; /* park would look again at once, and so on */
    for (uint32_t i = 0; i < f->count; i++) {
        good = good && f->rows[i].result == FETCH_OK;
        grown = grown || is_outgrown(&f->rows[i], f->rows[i].partitions);
        f->found += f->rows[i].piece.len;
    }
    if (more && good && !f->found) { /* there was nothing where it looked; behind that there may be */
        look(b, f);
        return;
    }
    if (!good || grown || f->late || f->kind != FETCH_RECORDS || f->found >= f->bytes_min) {
        fetch_answer(b, f);
        return;
    }
    forget_pieces(f);
    park(b, f);
}

/* ---- partitions grow and go ---- */

void fetches_filled(struct broker *b, struct partition *p)
{
    if (list_empty(&p->fetches) && list_empty(&p->watches) && list_empty(&p->shares))
        return;
    b->streams.fetched_news = true;
    if (list_empty(&p->fetch_link))
        list_insert(&b->streams.fetched, &p->fetch_link);
}

/* Takes the whole list over: who is not pleased comes into it again. */
static void take_waiting(struct partition *p, struct list *ret)
{
    list_init(ret);
    list_insert(p->fetches.next, ret);
    list_remove(&p->fetches);
}

static void wake(struct broker *b, struct partition *p)
{
    struct list waiting;
    take_waiting(p, &waiting);
    while (!list_empty(&waiting)) {
        struct fetch_row *row = CONTAINER_OF(waiting.next, struct fetch_row, link);
        struct fetch *f = row->fetch;
        list_remove(&row->link);
        list_insert(&p->fetches, &row->link);
        f->hoped += p->seen_bytes - row->filled;
        row->filled = p->seen_bytes;
        if (fetch_hopes_enough(f) || fetch_is_let_go(b, f, fetch_held_at(row), p))
            fetch_look_again(b, f);
    }
}

static void send_ready(struct broker *b)
{
    struct stream_state *all = &b->streams;
    while (!list_empty(&all->fetches_ready) && all->fetch_jobs < FETCH_JOBS_MAX) {
        struct fetch *f = CONTAINER_OF(all->fetches_ready.next, struct fetch, ready_link);
        struct stream_job *job = f->job;
        if (!stream_send(b, &job)) {
            stream_look_again(b);
            return;
        }
        all->fetch_jobs++;
        list_remove(&f->ready_link);
        f->state = FETCH_STATE_AWAY;
    }
}

void fetches_turn(struct broker *b)
{
    struct stream_state *all = &b->streams;
    bool news = all->fetched_news || all->fetched_durable != b->durable;
    all->fetched_news = false;
    all->fetched_durable = b->durable;
    for (struct list *node = all->fetched.next; news && node != &all->fetched;) {
        struct partition *p = CONTAINER_OF(node, struct partition, fetch_link);
        node = node->next;
        fetch_see(b, p);
        if (p->seen == p->written)
            list_remove(&p->fetch_link);
        if (p->seen == p->waked)
            continue; /* `seen` moves for others, too, who do not tell those that wait */
        p->waked = p->seen;
        wake(b, p);
        fetch_session_wake(b, p);
        shares_partition_changed(b, p);
    }
    send_ready(b);
}

void fetches_outgrown(struct broker *b, struct partition *p)
{
    struct list waiting;
    take_waiting(p, &waiting);
    while (!list_empty(&waiting)) {
        struct fetch_row *row = CONTAINER_OF(waiting.next, struct fetch_row, link);
        list_remove(&row->link);
        list_insert(&p->fetches, &row->link);
        if (is_outgrown(row, p->stream->partition_count))
            fetch_look_again(b, row->fetch);
    }
}

void fetches_partition_gone(struct broker *b, struct partition *p)
{
    while (!list_empty(&p->fetches))
        fetch_look_again(b, CONTAINER_OF(p->fetches.next, struct fetch_row, link)->fetch);
    fetch_session_partition_gone(b, p);
    list_remove(&p->fetch_link);
}

void fetches_trimmed(struct broker *b, struct partition *p)
{
    fetch_session_trimmed(p);
    shares_partition_changed(b, p);
}

void fetches_release(struct broker *b, struct peer *peer)
{
    fetch_session_end(b, peer);
    while (!list_empty(&peer->fetches)) {
        struct fetch *f = CONTAINER_OF(peer->fetches.next, struct fetch, peer_link);
        list_remove(&f->peer_link);
        if (f->state == FETCH_STATE_AWAY)
            f->peer = NULL;
        else {
            leave_lists(b, f);
            share_leave(b, f);
            fetch_free(&f);
        }
    }
}
