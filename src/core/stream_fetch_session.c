/* Fetch sessions (Kafka's KIP-227): who reads a thousand partitions pays for those that have news.
 *
 * A session is a peer's, at most one of it, and goes with it. It has a watch for each row, which knows what is asked for and what
 * was told last. A watch hangs on its partition, which tells it when it grows, is trimmed or goes; it is among the session's news
 * then, and stays there until it was looked at and there is nothing to say. So a request costs its own rows and the news, and so
 * does each look at one that is parked; only another user's rights or another isolation level make everything news.
 *
 *   FETCH_OPEN   the block is answered whole, as one without a session; all its rows are news
 *   FETCH_NEXT   what it asks for is written into the watches ▸ gather: a block of the news ▸ as stream_fetch.c has it ▸ told
 *
 * Rows with records come last the next time, so that all have their turn where an answer has less room than there is to read.
 * One block at a time is the session's: the engine waits for its answer before it sends the next.
 *
 * How many there are, and their bytes, both here and at the client's engine, have a limit. Who needs room when there is none takes
 * that of another as KIP-227 has it, in which all of our clients are equal, since none is a replica: of the session that has not been
 * used for the longest time, if that is two minutes; else of the smallest one that is older than that, if it is smaller than the new
 * one. Who finds none does without a session. Whose session went hears of it: FETCH_SESSION_ID_NOT_FOUND, and it begins anew.
 */
#include "core/stream_int.h"

#define FETCH_SESSIONS_MAX 1000u /* Kafka's max.incremental.fetch.session.cache.slots */
#define OLD_NS (120 * NS_PER_S)  /* Kafka's min.incremental.fetch.session.eviction.ms */
#define BYTES_MAX (256ull << 20)

struct fetch_watch {
    struct list link;      /* partition->watches */
    struct list news_link; /* session->news */
    struct fetch_session *session;
    uint64_t stream, offset;
    uint64_t told_start, told_end; /* FETCH_NOWHERE: nothing was, or an error */
    uint64_t filled;               /* of the partition when it was looked at */
    uint64_t held;                 /* fetch_held_at, at that time */
    uint32_t slot, partition, bytes_max;
    int32_t epoch;
};

struct fetch_session {
    struct list link; /* b->streams.fetch_session_list, longest unused first */
    struct peer *peer;
    mono_t made, used;
    uint64_t bytes; /* of b->streams.fetch_session_bytes */
    uint32_t id, watch_max, watch_count;
    struct fetch_watch **watches; /* by slot; NULL: free */
    struct list news;
    struct fetch *current;
    uint64_t topology_gen;
    bool committed;
};

/* ---- watches ---- */

static void note(struct fetch_watch *w)
{
    if (list_empty(&w->news_link))
        list_insert(&w->session->news, &w->news_link);
}

static void watch_free(struct fetch_watch *w)
{
    list_remove(&w->link);
    list_remove(&w->news_link);
    mem_free_as(MEM_CONNECTIONS, w);
}

/* False: no memory. */
static bool room_for(struct fetch_session *s, uint32_t slot)
{
    uint32_t max = s->watch_max ? s->watch_max : 16;
    while (max <= slot)
        max *= 2;
    if (max == s->watch_max)
        return true;
    struct fetch_watch **grown = mem_realloc_as(MEM_CONNECTIONS, s->watches, max * sizeof(struct fetch_watch *));
    if (!grown)
        return false;
    memset(grown + s->watch_max, 0, (max - s->watch_max) * sizeof(struct fetch_watch *));
    s->watches = grown;
    s->watch_max = max;
    return true;
}

/* What the row asks for, from now on. False: no memory. */
static bool take_over(struct fetch_session *s, const struct fetch_row *row)
{
    CHECK(row->slot < FETCH_ROWS_MAX);
    if (!room_for(s, row->slot))
        return false;
    struct fetch_watch *w = s->watches[row->slot];
    if (!w) {
        w = s->watches[row->slot] = mem_alloc_as(MEM_CONNECTIONS, sizeof *w);
        if (!w)
            return false;
        *w = (struct fetch_watch){.session = s,
                                  .slot = row->slot,
                                  .told_start = FETCH_NOWHERE,
                                  .told_end = FETCH_NOWHERE,
                                  .held = FETCH_NOWHERE};
        list_init(&w->link);
        list_init(&w->news_link);
        s->watch_count++;
    }
    if (w->stream != row->stream)
        list_remove(&w->link);
    w->stream = row->stream;
    w->partition = row->partition;
    w->offset = row->offset;
    w->bytes_max = row->bytes_max;
    w->epoch = row->epoch;
    note(w);
    return true;
}

static void forget(struct fetch_session *s, uint32_t slot)
{
    if (slot >= s->watch_max || !s->watches[slot])
        return;
    watch_free(s->watches[slot]);
    s->watches[slot] = NULL;
    s->watch_count--;
}

/* ---- sessions ---- */

void fetch_session_end(struct broker *b, struct peer *peer)
{
    struct fetch_session *s = peer->fetch_session;
    peer->fetch_session = NULL;
    if (!s)
        return;
    if (s->current)
        s->current->session = NULL;
    for (uint32_t i = 0; i < s->watch_max; i++)
        forget(s, i);
    list_remove(&s->link);
    b->streams.fetch_session_bytes -= s->bytes;
    mem_free_as(MEM_CONNECTIONS, s->watches);
    mem_free_as(MEM_CONNECTIONS, s);
    b->streams.fetch_sessions--;
}

/* Its client is told with the answer of its block, which comes at once unless the store has it, or by an effect of its own. */
static void evict(struct broker *b, struct fetch_session *s)
{
    struct peer *peer = s->peer;
    struct fetch *f = s->current;
    uint32_t id = s->id;
    fetch_session_end(b, peer);
    b->totals.fetch_sessions_evicted++;
    if (!f) {
        effect_push(b, peer, EFF_FETCH_SESSION_GONE, 0)->number = id;
        return;
    }
    f->session_id = 0;
    f->late = true;
    if (f->state == FETCH_STATE_PARKED)
        fetch_answer(b, f);
}

/* Makes room for one with so many partitions, which may be in the list itself. False: all that there are go before it. */
static bool evict_for(struct broker *b, const struct fetch_session *new, uint32_t count)
{
    struct fetch_session *victim = NULL;
    LIST_EACH(&b->streams.fetch_session_list, node, after)
    {
        struct fetch_session *s = CONTAINER_OF(node, struct fetch_session, link);
        if (s == new)
            continue;
        if (b->now - s->used > OLD_NS) { /* the list begins with those */
            victim = s;
            break;
        }
        if (b->now - s->made > OLD_NS && s->watch_count < (victim ? victim->watch_count : count))
            victim = s;
    }
    if (victim)
        evict(b, victim);
    return victim;
}

/* It has been used, and may have grown. False: there is no room for it. */
static bool used(struct broker *b, struct fetch_session *s, const struct fetch *f)
{
    uint64_t max = b->options.fetch_sessions_bytes_max ? b->options.fetch_sessions_bytes_max : BYTES_MAX;
    uint64_t bytes = sizeof *s + s->watch_max * sizeof(struct fetch_watch *) +
                     s->watch_count * sizeof(struct fetch_watch) + f->session_bytes;
    b->streams.fetch_session_bytes += bytes - s->bytes;
    s->bytes = bytes;
    s->used = b->now;
    list_remove(&s->link);
    list_insert(&b->streams.fetch_session_list, &s->link);
    while (b->streams.fetch_session_bytes > max)
        if (bytes > max || !evict_for(b, s, s->watch_count))
            return false;
    return true;
}

static void begin_session(struct broker *b, struct peer *peer, struct fetch *f)
{
    struct fetch_session *s;
    if (b->streams.fetch_sessions >= FETCH_SESSIONS_MAX && !evict_for(b, NULL, f->count))
        return;
    s = peer->fetch_session = mem_zalloc_as(MEM_CONNECTIONS, sizeof *s);
    if (!s)
        return;
    b->streams.fetch_sessions++;
    s->peer = peer;
    s->made = b->now;
    list_init(&s->link);
    list_init(&s->news);
    for (uint32_t i = 0; i < f->count; i++) {
        f->rows[i].slot = i;
        if (!take_over(s, &f->rows[i])) {
            fetch_session_end(b, peer);
            return;
        }
        f->rows[i].watch = s->watches[i];
    }
    if (!used(b, s, f)) {
        fetch_session_end(b, peer);
        return;
    }
    uint32_t *last = &b->streams.fetch_session_id; /* begins anywhere, so that one of before a restart is another */
    if (!*last)
        *last = (uint32_t)random_u64(b);
    *last = (*last + 1) & INT32_MAX;
    *last += *last == 0;
    s->id = *last;
    s->committed = f->committed;
    s->topology_gen = b->topology_gen;
    s->current = f;
    f->session = s;
    f->session_id = s->id;
}

static void all_are_news(struct fetch_session *s)
{
    for (uint32_t i = 0; i < s->watch_max; i++)
        if (s->watches[i])
            note(s->watches[i]);
}

static void next(struct broker *b, struct peer *peer, struct fetch *f)
{
    struct fetch_session *s = peer->fetch_session;
    if (!s)
        return;
    CHECK(!s->current);
    for (uint32_t i = 0; i < f->count; i++) {
        if (f->rows[i].forget) {
            forget(s, f->rows[i].slot);
        } else if (!take_over(s, &f->rows[i])) {
            fetch_session_end(b, peer);
            return;
        }
    }
    if (!used(b, s, f)) {
        fetch_session_end(b, peer);
        return;
    }
    if (s->committed != f->committed || s->topology_gen != b->topology_gen)
        all_are_news(s);
    s->committed = f->committed;
    s->topology_gen = b->topology_gen;
    s->current = f;
    f->session = s;
    f->session_id = s->id;
}

void fetch_session_begin(struct broker *b, struct peer *peer, struct fetch *f)
{
    f->session_id = 0;
    switch ((enum fetch_session_op)f->session_op) {
    case FETCH_ALONE: break;
    case FETCH_OPEN:
        fetch_session_end(b, peer);
        begin_session(b, peer, f);
        break;
    case FETCH_NEXT: next(b, peer, f); break;
    case FETCH_CLOSE: fetch_session_end(b, peer); break;
    }
}

/* ---- a look at the news ---- */

static bool is_news(const struct fetch_watch *w, const struct fetch_row *row)
{
    return row->result != FETCH_OK || row->until > row->offset || row->start != w->told_start ||
           row->end != w->told_end;
}

/* Looks at what is asked for, as row n of the block; false: nothing to say, and the partition says when there is. */
static bool look_at(struct broker *b, struct fetch *f, struct fetch_row *row, struct fetch_watch *w)
{
    struct partition *p = fetch_partition_of(b, w->stream, w->partition);
    *row = (struct fetch_row){.slot = w->slot,
                              .stream = w->stream,
                              .partition = w->partition,
                              .epoch = w->epoch,
                              .wanted = -1,
                              .offset = w->offset,
                              .bytes_max = w->bytes_max,
                              .fetch = f,
                              .awaited = FETCH_NOWHERE,
                              .watch = w};
    row->result = (uint8_t)fetch_look_at(b, f, row);
    if (!p)
        return true;
    if (list_empty(&w->link))
        list_insert(&p->watches, &w->link);
    fetch_expect(b, p);
    w->filled = p->seen_bytes;
    w->held = fetch_held_at(row);
    return is_news(w, row);
}

struct fetch *fetch_session_gather(struct broker *b, struct fetch *f)
{
    struct fetch_session *s = f->session;
    uint32_t max = 0;
    for (struct list *node = s->news.next; node != &s->news; node = node->next)
        max++;
    struct fetch *ret = fetch_new(FETCH_RECORDS, max);
    f->count = 0; /* its rows have nothing of their own */
    if (!ret) {
        f->late = true;
        return f;
    }
    struct stream_job *job = ret->job;
    list_remove(&f->peer_link);
    *ret = *f;
    ret->job = job;
    ret->hoped = 0;
    list_init(&ret->ready_link);
    timer_init(&ret->timer, fetch_out_of_time);
    list_insert(&ret->peer->fetches, &ret->peer_link);
    s->current = ret;
    fetch_free(&f);
    for (; max; max--) {
        struct fetch_watch *w = LIST_FIRST(&s->news, struct fetch_watch, news_link);
        struct fetch_row *row = &ret->rows[ret->count];
        list_remove(&w->news_link);
        if (!look_at(b, ret, row, w))
            continue;
        list_insert(&s->news, &w->news_link);
        list_init(&row->link);
        ret->count++;
    }
    return ret;
}

void fetch_session_told(struct fetch *f)
{
    struct fetch_session *s = f->session;
    uint32_t kept = 0;
    f->session = NULL;
    s->current = NULL;
    for (uint32_t i = 0; i < f->count; i++) {
        struct fetch_row *row = &f->rows[i];
        struct fetch_watch *w = row->watch;
        bool moved = row->start != w->told_start || row->end != w->told_end;
        if (f->session_op == FETCH_NEXT && row->result == FETCH_OK && !row->piece.len && !moved)
            continue; /* it may have something, but this time there was no room for it */
        w->told_start = row->result == FETCH_OK ? row->start : FETCH_NOWHERE;
        w->told_end = row->result == FETCH_OK ? row->end : FETCH_NOWHERE;
        if (row->piece.len) {
            list_remove(&w->news_link);
            note(w);
        }
        if (kept != i)
            f->rows[kept] = *row;
        kept++;
    }
    f->count = kept;
}

/* ---- what partitions tell ---- */

void fetch_session_wake(struct broker *b, struct partition *p)
{
    LIST_EACH(&p->watches, node, after)
    {
        struct fetch_watch *w = CONTAINER_OF(node, struct fetch_watch, link);
        struct fetch *f = w->session->current;
        note(w);
        if (f && f->session_op == FETCH_OPEN)
            f = NULL; /* its rows are told themselves */
        if (f)
            f->hoped += p->seen_bytes - w->filled + (fetch_is_let_go(b, f, w->held, p) ? f->bytes_min : 0);
        w->filled = p->seen_bytes;
        if (f && f->state == FETCH_STATE_PARKED && fetch_hopes_enough(f))
            fetch_look_again(b, f);
    }
}

void fetch_session_trimmed(struct partition *p)
{
    for (struct list *node = p->watches.next; node != &p->watches; node = node->next)
        note(CONTAINER_OF(node, struct fetch_watch, link));
}

void fetch_session_partition_gone(struct broker *b, struct partition *p)
{
    while (!list_empty(&p->watches)) {
        struct fetch_watch *w = CONTAINER_OF(p->watches.next, struct fetch_watch, link);
        struct fetch *f = w->session->current;
        list_remove(&w->link);
        note(w);
        if (f && f->session_op == FETCH_NEXT && f->state == FETCH_STATE_PARKED)
            fetch_look_again(b, f);
    }
}
