/* table: an operator's state by key: groups and sets of values. Keys are values of some columns as bytes, the same bytes for what SQL
 * takes for the same (NULL is the same as NULL, -0.0 as 0.0). Entries are walked in the order in which they came.
 *
 *   table_init ▸ { table_find | table_add | table_remove }* ▸ table_fini
 *
 * Everything is counted in the account. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_TABLE_H
#define MILLRACE_SQL_QUERY_TABLE_H

#include "sql/query/pieces.h"

struct entry {
    struct entry *newer, *older;
    uint64_t hash;
    uint32_t key_len, payload : 31, touched : 1;  /* touched: sql/query/spill.h's, found since it is in memory */
    uint8_t bytes[] __attribute__((aligned(16))); /* payload bytes, then the key */
};

struct table {
    struct account *account;
    struct pieces *pieces; /* what entries are made of; NULL: each is asked for by itself */
    struct entry **slots, *first, *last;
    uint32_t mask, count, payload;
};

void table_init(struct table *t, struct account *account, uint32_t payload);
void table_fini(struct table *t);
static inline struct slice entry_key(const struct entry *e)
{
    return slice_of(e->bytes + e->payload, e->key_len);
}
struct entry *table_find(const struct table *t, struct slice key, uint64_t hash);
/* The payload is zero. NULL: no memory. The key is not there yet. */
MUST_USE struct entry *table_add(struct table *t, struct slice key, uint64_t hash);
void table_remove(struct table *t, struct entry *e);

/* With the query's seed, so that nobody who does not know it can make keys that meet in one place. */
uint64_t key_hash(struct slice key, uint64_t seed);
static inline uint64_t table_hash(const struct table *t, struct slice key)
{
    return key_hash(key, t->account->budget->seed);
}
/* Bytes of these columns' values in a row; at most KEY_MAX. */
#define KEY_MAX (1u << 20)
/* Grows with what is put in; arena memory. False: no memory, or the key is longer than KEY_MAX (*ret_fault). */
MUST_USE bool key_of_row(struct arena *arena, const struct column *columns, uint32_t count, uint32_t row,
                         struct slice *ret, enum sql_fault *ret_fault);
/* Reads the value at *at and steps behind it: NULL: it is NULL. Texts are views of the key. `room` is for values that are not aligned. */
const void *key_value(enum sql_form form, const uint8_t **at, void *room);
#define KEY_ROOM 16u
/* A key in a snapshot. What is loaded is checked to be values of these types; it is in the arena. False: no memory, or the reader has failed. */
MUST_USE bool key_load(struct arena *arena, const struct sql_type *types, uint32_t count, struct state_reader *r,
                       struct slice *ret);

#endif
