/* rows: what the core says of topics that a request names, or of all, for handlers that look before they answer.
 *
 * In a handler's go:  if (kafka_rows(k, r, &state->rows) == KAFKA_AGAIN) return KAFKA_AGAIN;
 * in its effect, while !rows.done: kafka_rows_effect; in its drop: kafka_rows_drop. Rows and their slices live until then.
 * Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_ROWS_H
#define MILLRACE_PROTO_KAFKA_ROWS_H

#include "core/stream_admin.h"
#include "proto/kafka/kafka_int.h"

struct kafka_rows_block { /* one answer of the core, as it came */
    struct answer *answer;
    struct kafka_rows_block *next;
};

struct kafka_rows {
    struct slice names, ids; /* what is still to be asked for: s8 each, u64 each; both empty with all */
    size_t left;             /* of them */
    uint64_t after;          /* all: those with an id above it */
    bool all, sizes, asked, done;
    struct kafka_rows_block *first, *last;
    uint64_t bytes;          /* of the blocks: there is a limit, at which the connection is dropped */
    struct stream_row *rows; /* once done: in the order of the names, then of the ids, or by id */
    size_t count;
};

/* Names and ids as they are asked for; a name of no bytes or too many gets a row that says UNKNOWN. */
struct kafka_wanted {
    const struct slice *names;
    size_t name_count;
    const uint64_t *ids;
    size_t id_count;
};

/* wanted NULL: all that the user may see. False: no memory, and the connection has been dropped. */
MUST_USE bool kafka_rows_init(struct kafka *k, struct kafka_request *r, const struct kafka_wanted *wanted, bool sizes,
                              struct kafka_rows *ret);
enum kafka_progress kafka_rows(struct kafka *k, struct kafka_request *r, struct kafka_rows *rows);
void kafka_rows_effect(struct kafka *k, struct kafka_request *r, struct kafka_rows *rows, struct effect *e);
void kafka_rows_drop(struct kafka_rows *rows);

/* As kafka_room, for what grows with what there is instead of with what was sent: the arena's limit grows by it. */
MUST_USE void *kafka_more_room(struct kafka *k, struct kafka_request *r, size_t count, size_t size);

#endif
