/* What is told of transactions: those that were named, with their partitions, or all that a client asks for, without. See txn.h for the rows. */
#include "core/txn_int.h"

#include <string.h>

static size_t row_bytes(const struct txn *t, bool parts)
{
    return 64 + t->name.len + (parts ? 12 * (size_t)t->part_count : 0);
}

static bool put_row(struct buffer *rows, const struct txn *t, bool parts)
{
    if (!buffer_reserve(rows, row_bytes(t, parts)))
        return false;
    struct writer w = writer_of(rows->bytes + rows->len, rows->max - rows->len);
    writer_str32(&w, t->name);
    writer_u64(&w, t->producer);
    writer_u16(&w, t->epoch);
    writer_u8(&w, t->state);
    writer_u32(&w, t->timeout_ms);
    writer_u64(&w, (uint64_t)t->started);
    size_t mark = writer_mark32(&w);
    for (uint32_t i = 0; parts && i < t->part_count; i++) {
        writer_u64(&w, t->parts[i].stream);
        writer_u32(&w, t->parts[i].number);
    }
    writer_patch32(&w, mark);
    CHECK(writer_ok(&w));
    rows->len += w.len;
    return true;
}

bool txn_row_next(struct reader *r, struct txn_row *ret)
{
    if (!r->left || !reader_ok(r))
        return false;
    *ret = (struct txn_row){.name = reader_str32(r)};
    ret->producer = reader_u64(r);
    ret->epoch = reader_u16(r);
    ret->state = (enum txn_state)reader_u8(r);
    ret->timeout_ms = reader_u32(r);
    ret->started = (wall_t)reader_u64(r);
    ret->partitions = reader_str32(r);
    return reader_ok(r);
}

static bool list_named(struct broker *b, struct peer *peer, struct slice names, struct buffer *rows)
{
    for (struct reader r = reader_of(names); r.left;) {
        struct slice name = reader_str32(&r);
        struct txn *t = reader_ok(&r) ? txn_find(peer->vhost, name) : NULL;
        if (!reader_ok(&r))
            return true;
        if (t && txn_may_use(b, peer, name) && !put_row(rows, t, true))
            return false;
    }
    return true;
}

struct wanted {
    struct pattern pattern; /* no code: any */
    struct slice states;    /* u8 each; none: any */
    struct slice producers; /* u64 each, ascending: a client may name millions; none: any */
    uint64_t age_ms;        /* older than age_ms - 1; 0: any, also what is not ongoing */
};

static bool is_named(struct slice producers, uint64_t producer)
{
    size_t low = 0, high = producers.len / sizeof(uint64_t);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        struct reader r = reader_of(slice_of(producers.ptr + middle * sizeof(uint64_t), sizeof(uint64_t)));
        uint64_t one = reader_u64(&r);
        if (one == producer)
            return true;
        if (one < producer)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

static bool is_wanted(const struct broker *b, const struct wanted *w, const struct txn *t)
{
    if (w->states.len && !memchr(w->states.ptr, t->state, w->states.len))
        return false;
    if (w->age_ms && (!t->started || b->wall - t->started < (int64_t)w->age_ms))
        return false;
    return !w->producers.len || is_named(w->producers, t->producer);
}

/* Without their partitions, which nobody asks for here: many rows have room then. The expression is a client's: it sees no name that the
 * user may not, and one that takes too long for a name is not tried with the others (*ret_good false). */
static bool list_all(struct broker *b, struct peer *peer, const struct wanted *wanted, struct buffer *rows,
                     bool *ret_good)
{
    MAP_EACH(&peer->vhost->txns, struct txn, t)
    {
        bool matches = true;
        if (rows->len + row_bytes(t, false) > rows->limit || !is_wanted(b, wanted, t) || !txn_may_use(b, peer, t->name))
            continue;
        if (wanted->pattern.code && !pattern_decides(&wanted->pattern, t->name, &matches)) {
            rows->len = 0;
            *ret_good = false;
            return true;
        }
        if (matches && !put_row(rows, t, false))
            return false;
    }
    return true;
}

void do_txn_list(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct buffer rows = {.limit = TXN_ROWS_BYTES_MAX};
    struct wanted wanted = {.states = c->ask->key, .producers = c->ask->args, .age_ms = c->ask->number};
    struct answer *said = NULL;
    (void)ch;
    bool good = pattern_make_whole(&wanted.pattern, c->ask->name), ok = peer->state == PEER_ENTERED;
    if (ok && good)
        ok = c->ask->other.len ? list_named(b, peer, c->ask->other, &rows) : list_all(b, peer, &wanted, &rows, &good);
    if (ok)
        said = answer_new((struct slice){0}, (struct slice){0}, slice_of(rows.bytes, rows.len));
    if (said)
        said->number = good ? TXN_DONE : TXN_BAD_NAME;
    buffer_fini(&rows);
    pattern_drop(&wanted.pattern);
    struct effect *e = effect_push(b, peer, EFF_ANSWER, 0);
    e->origin = c->origin;
    e->answer = said;
}
