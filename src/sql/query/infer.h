/* infer: which columns JSON records have: their members by name, each with the narrowest type that all of a sample fit in.
 *
 *   infer_init ▸ infer_add … ▸ infer_elements
 *
 * true and false are BOOLEAN; whole numbers BIGINT, or DECIMAL(38, 0) when one is too large for that; other numbers DOUBLE; texts TEXT, or TIMESTAMP (with an
 * offset other than Z: TIMESTAMPTZ) when each is one as ISO 8601 writes it; objects ROW of their members; arrays, what is always null and what is now this, now
 * that, JSON. Columns are in the order in which their members were first seen. Beyond INFER_MEMBERS_MAX names an object is JSON, and
 * of the records themselves the others are no columns.
 *
 * Everything lives in the arena. Names are those of the records, copied. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_INFER_H
#define MILLRACE_SQL_QUERY_INFER_H

#include "base/arena.h"
#include "sql/language/ast.h"
#include "sql/language/lines.h"

#define INFER_MEMBERS_MAX 256u
#define INFER_DEPTH_MAX 8u

struct infer_member;

struct infer {
    struct arena *arena;
    struct infer_member *root;
    uint64_t records; /* that were objects */
    bool failed;      /* no memory */
};

void infer_init(struct infer *infer, struct arena *arena);
/* within: of that member of it, as CloudEvents have their data; empty: the record itself. What is no object says nothing. */
void infer_add(struct infer *infer, struct slice record, struct slice within);
/* Columns as CREATE STREAM has them, with commas between: but those that are among `declared`. False: there are none. */
MUST_USE bool infer_elements(const struct infer *infer, const struct ast_list *declared, struct lines *out);

#endif
