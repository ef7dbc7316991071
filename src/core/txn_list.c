/* What is told of transactions: those that were named, with their partitions, or all that a client asks for, without. See txn.h for the rows.
 *
 * A vhost may have a million ids, so a listing is looked together in slices, one a tick, one listing after the other. Each id that is there all
 * the time is told of once, as it is when its turn comes.
 */
#include "core/txn_int.h"

#include <string.h>

#define TURN_WORK 4096u      /* ids that are only looked at */
#define LOOK_WORK 8u         /* what an id costs of it that rights and an expression are asked about */
#define SLOW_NAMES_MAX 1000u /* an expression that takes long for more of them is refused */

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

static bool is_wanted(const struct broker *b, const struct ask *asked, const struct txn *t)
{
    if (asked->key.len && !memchr(asked->key.ptr, t->state, asked->key.len))
        return false;
    if (asked->number && (!t->started || b->wall - t->started < (int64_t)asked->number))
        return false;
    return !asked->args.len || is_named(asked->args, t->producer);
}

/* ---- a listing on its way ---- */

enum progress { GOES_ON, IS_DONE, IS_REFUSED, NO_MEMORY };

struct txn_listing {
    struct list link; /* b->txn_listings */
    struct peer *peer;
    uint32_t origin;
    struct ask *asked;      /* a copy */
    struct reader names;    /* named: those that are left */
    struct pattern pattern; /* no code: any */
    unsigned patience;      /* names that it may take long for, still */
    struct list *at;        /* the vhost's next; its list: the end */
    struct buffer said;     /* the answer, with the rows behind it */
};

static enum progress some_named(struct broker *b, struct txn_listing *l, unsigned *budget)
{
    while (*budget && l->names.left) {
        struct slice name = reader_str32(&l->names);
        struct txn *t = reader_ok(&l->names) ? txn_find(l->peer->vhost, name) : NULL;
        if (!reader_ok(&l->names))
            return IS_DONE;
        budget_spend(budget, LOOK_WORK + (t ? t->part_count / 64 : 0));
        if (t && txn_may_use(b, l->peer, name) && !put_row(&l->said, t, true))
            return NO_MEMORY;
    }
    return l->names.left ? GOES_ON : IS_DONE;
}

/* The expression is a client's: it sees no name that the user may not, and one that takes too long for a name, or long for many, is
 * not tried with the others. */
static enum progress try_one(struct broker *b, struct txn_listing *l, const struct txn *t, unsigned *budget)
{
    bool matches = true;
    unsigned patience = l->patience;
    budget_spend(budget, 1);
    if (l->said.len + row_bytes(t, false) > l->said.limit || !is_wanted(b, l->asked, t))
        return GOES_ON;
    budget_spend(budget, LOOK_WORK);
    if (!txn_may_use(b, l->peer, t->name))
        return GOES_ON;
    if (l->pattern.code && !pattern_decides_within(&l->pattern, t->name, &l->patience, &matches))
        return IS_REFUSED;
    if (l->patience < patience)
        *budget = 0; /* it was enough for one turn */
    return !matches || put_row(&l->said, t, false) ? GOES_ON : NO_MEMORY;
}

/* Without their partitions, which nobody asks for here: many rows have room then. */
static enum progress some_of_all(struct broker *b, struct txn_listing *l, unsigned *budget)
{
    struct list *end = &l->peer->vhost->txn_list;
    while (*budget && l->at != end) {
        const struct txn *t = CONTAINER_OF(l->at, struct txn, vhost_link);
        l->at = l->at->next;
        enum progress progress = try_one(b, l, t, budget);
        if (progress != GOES_ON)
            return progress;
    }
    return l->at == end ? IS_DONE : GOES_ON;
}

static void listing_free(struct txn_listing *l)
{
    list_remove(&l->link);
    mem_free(l->asked);
    pattern_drop(&l->pattern);
    buffer_fini(&l->said);
    mem_free(l);
}

static void finish(struct broker *b, struct txn_listing *l, enum progress how)
{
    struct answer *said = NULL;
    if (how != NO_MEMORY) {
        size_t head = offsetof(struct answer, bytes), rows = how == IS_REFUSED ? 0 : l->said.len - head;
        said = (struct answer *)l->said.bytes;
        *said = (struct answer){.number = how == IS_REFUSED ? TXN_BAD_NAME : TXN_DONE};
        said->fields = slice_of(said->bytes, rows);
        l->said.bytes = NULL;
    }
    answer_give(b, l->peer, l->origin, said, 0);
    listing_free(l);
}

/* NULL: no memory. *ret_good: its expression is one. */
static struct txn_listing *listing_new(struct broker *b, struct peer *peer, const struct command *c, bool *ret_good)
{
    struct txn_listing *l = mem_zalloc(sizeof *l);
    if (!l)
        return NULL;
    list_init(&l->link);
    l->peer = peer;
    l->origin = c->origin;
    l->patience = SLOW_NAMES_MAX;
    l->at = peer->vhost->txn_list.next;
    l->said.limit = sizeof(struct answer) + TXN_ROWS_BYTES_MAX;
    l->asked = ask_new(c->ask->name, c->ask->other, c->ask->key, c->ask->args);
    *ret_good = pattern_make_whole(&l->pattern, c->ask->name);
    if (!l->asked || !buffer_reserve(&l->said, sizeof(struct answer))) {
        listing_free(l);
        return NULL;
    }
    l->said.len = offsetof(struct answer, bytes); /* its head is written at the end */
    l->asked->number = c->ask->number;
    l->names = reader_of(l->asked->other);
    list_insert(&b->txn_listings, &l->link);
    return l;
}

void do_txn_list(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    bool good = false;
    (void)ch;
    struct txn_listing *l = peer->state == PEER_ENTERED ? listing_new(b, peer, c, &good) : NULL;
    if (!l)
        answer_give(b, peer, c->origin, NULL, 0);
    else if (!good)
        finish(b, l, IS_REFUSED);
}

bool txn_listings_turn(struct broker *b)
{
    unsigned budget = TURN_WORK;
    while (budget && !list_empty(&b->txn_listings)) {
        struct txn_listing *l = CONTAINER_OF(b->txn_listings.next, struct txn_listing, link);
        enum progress progress = l->asked->other.len ? some_named(b, l, &budget) : some_of_all(b, l, &budget);
        if (progress != GOES_ON)
            finish(b, l, progress);
    }
    return !list_empty(&b->txn_listings);
}

void txn_listings_pass(struct broker *b, const struct txn *t)
{
    LIST_EACH(&b->txn_listings, node, after)
    {
        struct txn_listing *l = CONTAINER_OF(node, struct txn_listing, link);
        if (l->at == &t->vhost_link)
            l->at = t->vhost_link.next;
    }
}

void txn_listings_forget_peer(struct broker *b, const struct peer *peer)
{
    LIST_EACH(&b->txn_listings, node, after)
    if (CONTAINER_OF(node, struct txn_listing, link)->peer == peer)
        listing_free(CONTAINER_OF(node, struct txn_listing, link));
}
