/* with: the options of WITH (…): what each means, and of which statements. Every option is obeyed or refused by its name, none is ignored.
 *
 * Pure; slices point into the statement's tree. Any thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_WITH_H
#define MILLRACE_SQL_LANGUAGE_WITH_H

#include "base/arena.h"
#include "sql/language/ast.h"
#include "sql/language/error.h"

/* Whose options they are. */
enum with_place {
    WITH_STREAM = 1,       /* CREATE STREAM over records that others write */
    WITH_STREAM_QUERY = 2, /* CREATE STREAM … AS a query */
    WITH_SINK = 4,
    WITH_VIEW = 8,
    WITH_INSERT = 16,
    WITH_MATERIALIZED = 32,
    WITH_QUEUE = 64, /* CREATE STREAM … FROM QUEUE */
};

enum with_start { START_UNSAID, START_EARLIEST, START_LATEST, START_TIME };
enum with_on_error { ON_ERROR_UNSAID, ON_ERROR_DLQ, ON_ERROR_SKIP, ON_ERROR_FAIL };
enum with_format { FORMAT_JSON, FORMAT_RAW, FORMAT_CSV, FORMAT_CLOUDEVENTS };

struct sql_with {
    struct slice topic;    /* the stream's name in the broker; empty: the statement's */
    uint32_t partitions;   /* 0: one */
    uint8_t format;        /* enum with_format */
    uint8_t start;         /* enum with_start */
    uint8_t on_error;      /* enum with_on_error */
    int64_t start_us;      /* of START_TIME */
    uint64_t state_memory; /* 0: the server's */
    struct slice queue,
        exchange;      /* where a sink's rows go, if not to a stream; a queue that is read has its name here, too */
    uint32_t prefetch; /* of that; 0: it was not said */
};

/* False: the error is set. */
MUST_USE bool sql_with_read(const struct ast_list *options, enum with_place place, struct sql_with *ret,
                            struct sql_error *error);
/* Those of a query that the planner obeys. False: no memory. */
MUST_USE bool sql_with_planned(const struct ast_list *options, struct arena *arena, struct ast_list *ret);

#endif
