/* Size classes over chunks, see pieces.h. Up to 512 bytes a class each 16 bytes, then four for each power of two; what is longer than the
 * last has a chunk of its own. Chunks grow from 1 KiB to 64 KiB: an idle query costs little, a busy one asks rarely. */
#include "sql/query/pieces.h"

#include "base/check.h"

#define STEP 16u
#define FINE 512u /* up to here a class is a step wide */
#define CLASSED 8192u
#define CHUNK_FIRST 1024u
#define CHUNK_MAX 65536u
#define SHARE 64u

struct pieces_free {
    struct pieces_free *next;
};

struct chunk {
    struct list node;
    size_t len; /* with this */
    uint8_t bytes[] __attribute__((aligned(16)));
};

void pieces_init(struct pieces *p, struct account *account)
{
    *p = (struct pieces){.account = account, .next_len = CHUNK_FIRST};
    list_init(&p->chunks);
}

void pieces_fini(struct pieces *p)
{
    LIST_EACH(&p->chunks, node, after)
    {
        struct chunk *c = CONTAINER_OF(node, struct chunk, node);
        list_remove(node);
        account_give(p->account, c, c->len);
    }
    pieces_init(p, p->account);
}

/* The class of a length, and how long its pieces are. */
static uint32_t class_of(size_t len, size_t *ret_len)
{
    if (len <= FINE) {
        uint32_t steps = len ? (uint32_t)((len + STEP - 1) / STEP) : 1;
        *ret_len = steps * STEP;
        return steps - 1;
    }
    unsigned shift = 61 - (unsigned)__builtin_clzll(len - 1); /* a quarter of the power of two below it */
    size_t quarters = (len + ((size_t)1 << shift) - 1) >> shift;
    *ret_len = quarters << shift;
    return FINE / STEP + (shift - 7) * 4 + (uint32_t)quarters - 5;
}

static struct chunk *chunk_new(struct pieces *p, size_t len)
{
    struct chunk *c = account_take(p->account, len);
    if (!c)
        return NULL;
    c->len = len;
    list_insert(&p->chunks, &c->node);
    return c;
}

/* What is left of a chunk becomes free pieces. */
static void use_rest(struct pieces *p)
{
    while (p->left >= STEP) {
        size_t len = p->left < FINE ? p->left : FINE, whole;
        uint32_t class = class_of(len, &whole);
        struct pieces_free *f = (struct pieces_free *)(void *)p->at;
        CHECK(whole == len);
        f->next = p->free[class];
        p->free[class] = f;
        p->at += len;
        p->left -= len;
    }
}

static void *take_new(struct pieces *p, size_t whole)
{
    if (whole > p->left) {
        size_t len = p->next_len;
        while (len < sizeof(struct chunk) + whole)
            len *= 2;
        struct chunk *c = chunk_new(p, len);
        if (!c)
            return NULL;
        use_rest(p);
        p->at = c->bytes;
        p->left = (len - sizeof *c) / STEP * STEP;
        size_t most = p->account->budget->max / SHARE / STEP * STEP; /* little of it stands idle */
        most = most < CHUNK_FIRST ? CHUNK_FIRST : most > CHUNK_MAX ? CHUNK_MAX : most;
        p->next_len = 2 * len < most ? 2 * len : most;
    }
    void *got = p->at;
    p->at += whole;
    p->left -= whole;
    return got;
}

void *pieces_take(struct pieces *p, size_t len)
{
    size_t whole;
    void *got;
    if (len > CLASSED) {
        struct chunk *c = len < SIZE_MAX / 2 ? chunk_new(p, sizeof *c + len) : NULL;
        got = c ? c->bytes : NULL;
    } else {
        uint32_t class = class_of(len, &whole);
        struct pieces_free *f = p->free[class];
        if (f)
            p->free[class] = f->next;
        got = f ? (void *)f : take_new(p, whole);
    }
    p->out += got != NULL;
    return got;
}

void pieces_give(struct pieces *p, void *piece, size_t len)
{
    size_t whole;
    CHECK(p->out > 0);
    if (--p->out == 0) {
        pieces_fini(p);
        return;
    }
    if (len > CLASSED) {
        struct chunk *c = (struct chunk *)(void *)((uint8_t *)piece - offsetof(struct chunk, bytes));
        list_remove(&c->node);
        account_give(p->account, c, c->len);
        return;
    }
    uint32_t class = class_of(len, &whole);
    struct pieces_free *f = piece;
    f->next = p->free[class];
    p->free[class] = f;
}
