/* pieces: memory for the rows that an operator keeps: pieces of any length from chunks, so that the heap is asked once for many rows.
 *
 *   pieces_init ▸ { pieces_take | pieces_give }* ▸ pieces_fini (frees all that is out, too)
 *
 * Chunks are counted in the account; when nothing is out any more all of them are given back. A piece is aligned to 16 bytes and not zeroed.
 * One thread.
 */
#ifndef MILLRACE_SQL_QUERY_PIECES_H
#define MILLRACE_SQL_QUERY_PIECES_H

#include "base/list.h"
#include "sql/query/op.h"

#define PIECES_CLASSES 48u

struct pieces_free;

struct pieces {
    struct account *account;
    struct list chunks;
    uint8_t *at; /* of the newest chunk: what has never been out */
    size_t left, next_len, out;
    struct pieces_free *free[PIECES_CLASSES];
};

void pieces_init(struct pieces *p, struct account *account);
void pieces_fini(struct pieces *p);
/* NULL: no memory, or beyond the budget. */
MUST_USE void *pieces_take(struct pieces *p, size_t len);
void pieces_give(struct pieces *p, void *piece, size_t len); /* the length that was asked for */

#endif
