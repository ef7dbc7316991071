/* plan: from a query to operators: scan, filter and projection, aggregation, joins. What is not built is refused with its name.
 *
 *   plan_query ▸ (query.c: running) ▸ plan_free
 *
 * The plan's expressions are in the arena given. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_PLAN_H
#define MILLRACE_SQL_QUERY_PLAN_H

#include "sql/language/catalog.h"
#include "sql/query/op.h"
#include "sql/query/scan.h"

#define PLAN_SOURCES_MAX 16u
#define PLAN_OPS_MAX 128u
#define SCAN_COLUMNS_MAX 512u
#define PLAN_JOINT_MAX 64u
#define PLAN_KEYS_MAX 16u
#define IDLE_DEFAULT_US US_PER_S

enum pseudo {
    PSEUDO_OFFSET,
    PSEUDO_PARTITION,
    PSEUDO_TS,
    PSEUDO_KEY,
    PSEUDO_HEADERS, /* a JSON object: of two of one name the last; what is no UTF-8 as base64 */
    PSEUDO_EVENT,   /* from here on: attributes of a CloudEvent, which are paths */
    PSEUDOS = PSEUDO_EVENT + 6
};

/* A column of the scan's batches: a path, or what the log knows of the record. */
struct source_column {
    struct scan_column path;
    int pseudo; /* -1: the path */
    struct expr *x;
};

struct source {
    const struct ast_create_stream *stream;
    struct scan_rule rule;
    bool events; /* CloudEvents, structured, as JSON: columns are members of `data` */
    struct source_column *columns;
    uint32_t count, room; /* of columns: most queries use a few */
    uint32_t scanned;     /* of them: that are paths */
    struct node *node;
    bool deletes;          /* of a TABLE: a record without a value says by its key which row goes */
    struct slice key_name; /* of one column: that is the key, as a text; empty: the key is an object of several */
    struct clock *clock, *arrival; /* by WATERMARK, by _ts */
    int64_t idle_us; /* a partition without rows for so long is to be said idle (query_idle): IDLE AFTER */
    struct op *op;
};

struct plan_column {
    struct slice name;
    struct sql_type type;
};

struct plan {
    struct source sources[PLAN_SOURCES_MAX];
    uint32_t source_count;
    struct op *ops[PLAN_OPS_MAX]; /* all of them; an operator's number is above that of what it pushes into */
    uint32_t op_count;
    struct clock *joint[PLAN_JOINT_MAX]; /* those that are of two others, which come before it */
    uint32_t joint_count;
    struct plan_column *columns;
    uint32_t column_count;
    bool retracts;
    uint32_t keys[PLAN_KEYS_MAX]; /* columns that tell its rows apart at any time … */
    uint32_t key_count;
    bool keyed;    /* … if that is known; no columns: there is one row at most */
    uint64_t hash; /* of the query and the views in it, as written */
    struct budget budget;
};

/* Makes operators that push into `sink`, which the plan does not own. False: the error is set. */
MUST_USE bool plan_query(const struct catalog *catalog, const struct ast_run *run, struct op *sink, struct arena *arena,
                         struct plan *ret, struct sql_error *error);
void plan_free(struct plan *plan);
/* Of what the query takes from that source: columns, how they are computed, the watermark. */
uint64_t plan_source_hash(const struct source *source);

#endif
