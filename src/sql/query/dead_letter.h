/* dead_letter: records that a query could not use, as a record batch for its dead-letter stream: key, value and headers as they were, and behind
 * these what was wrong: sql.error (SQLSTATE), sql.reason, sql.query, sql.stream, sql.partition, sql.offset. Of a record that is larger than
 * DEAD_LETTER_RECORD_MAX there is only what was wrong, and where it is.
 *
 *   dead_letters_init ▸ { dead_letters_add … ▸ dead_letters_take }* ▸ dead_letters_fini
 *
 * Nothing is allocated before the first. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_DEAD_LETTER_H
#define MILLRACE_SQL_QUERY_DEAD_LETTER_H

#include "core/message.h"
#include "fmt/record_batch.h"
#include "sql/language/error.h"

#define DEAD_LETTER_SUFFIX ".dlq"
#define DEAD_LETTER_RECORD_MAX (1u << 20)
#define DEAD_LETTER_BYTES_MAX (32u << 20) /* of what waits: more than any step reads */

struct dead_letter {
    struct slice query, stream;
    uint32_t partition;
    uint64_t offset;
    struct slice key, value, headers; /* ptr NULL: it has none */
    enum sql_fault fault;
    wall_t at;
};

struct dead_letters {
    struct writer w;
    struct record_batch_writer batch;
    uint32_t count;
};

void dead_letters_init(struct dead_letters *d);
void dead_letters_fini(struct dead_letters *d);
/* False: no memory, or too much. */
MUST_USE bool dead_letters_add(struct dead_letters *d, const struct dead_letter *letter);
/* Those so far as one batch, which is the caller's. False: no memory, and they stay. NULL: there are none. */
MUST_USE bool dead_letters_take(struct dead_letters *d, struct slab_heap *heap, struct msg **ret);

#endif
