/* catalog: the streams and views that a query's names can mean, as their statements say.
 *
 *   catalog_init ▸ catalog_add … ▸ query_new …
 *
 * Trees are lent, and must outlive it and the queries made with it. One thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_CATALOG_H
#define MILLRACE_SQL_LANGUAGE_CATALOG_H

#include "sql/language/ast.h"
#include "sql/language/error.h"

#define CATALOG_MAX 256u

struct catalog {
    const struct ast *relations[CATALOG_MAX]; /* CREATE_STREAM or CREATE_VIEW */
    uint32_t count;
    uint64_t seed; /* of the hash tables of its queries: what strangers cannot guess; rows do not depend on it */
};

static inline struct catalog catalog_init(void)
{
    return (struct catalog){.count = 0};
}

/* A CREATE STREAM or CREATE VIEW. False: the error is set, for what of it is not there, too. */
MUST_USE bool catalog_add(struct catalog *catalog, const struct ast *statement, struct sql_error *error);
/* NULL: none of that name; the nearest is tried. */
const struct ast *catalog_find(const struct catalog *catalog, struct slice name, struct nearest *nearest);
struct slice catalog_name(const struct ast *relation);

#endif
