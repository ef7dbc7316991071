/* value_set: the different values of a group's column, and for each which of up to 64 members it counts for: the aggregates with DISTINCT over that
 * column, which differ in their FILTERs. So a value is there once, however many of them look at it.
 *
 * Where rows may be taken back (counted) there is a count for each member, else a bit. Integers that are only added are in one array of pairs;
 * all else is in a table. Everything is counted in the account. One thread.
 */
#ifndef MILLRACE_SQL_QUERY_VALUE_SET_H
#define MILLRACE_SQL_QUERY_VALUE_SET_H

#include "sql/query/table.h"

#define VALUE_MEMBERS_MAX 64u

struct value_set;

/* NULL: no memory. */
MUST_USE struct value_set *value_set_new(struct account *account, enum sql_form form, uint32_t members, bool counted);
void value_set_free(struct value_set **set);
uint32_t value_set_count(const struct value_set *set);
/* The value comes (weight above 0) or goes for these members; *ret_changed: those for which it is there from now on, or not any more. False: no memory,
 * or the value is longer than KEY_MAX (*ret_fault). */
MUST_USE bool value_set_change(struct value_set *set, const void *value, uint64_t members, int64_t weight,
                               uint64_t *ret_changed, enum sql_fault *ret_fault);
/* Calls visit for each value with the members for which it is there, until it answers false; *weights: of each member, NULL when there are only bits. */
bool value_set_each(const struct value_set *set,
                    bool (*visit)(void *arg, const void *value, uint64_t members, const int64_t *weights), void *arg);
void value_set_save(const struct value_set *set, struct state_writer *w);
/* Into an empty one. False: no memory, or the reader has failed. */
MUST_USE bool value_set_load(struct value_set *set, struct state_reader *r);

#endif
