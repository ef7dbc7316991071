/* selector: the conditions of JMS over a message's headers (JMS 1.1 section 3.8.1), a part of SQL-92.
 *
 * Life cycle: selector_parse once, into an array of the caller's → selector_matches for each message. Nodes point into the text,
 * which the caller keeps. Logic has three values; a message is selected when the condition is true. Pure functions, any thread.
 *
 *   = <> < <= > >=  + - * /  AND OR NOT  [NOT] BETWEEN a AND b  [NOT] IN ('a', 'b')  [NOT] LIKE 'a%_' [ESCAPE '\']  IS [NOT] NULL
 *   'text', 1, 1.5, 1e3, 0x1f, TRUE, FALSE; names of letters, digits, _ $ and dots, or "any text"
 *
 * One thing is wider than JMS: text that is compared with a number or a boolean counts as what it looks like, because the headers
 * of STOMP have no types (ActiveMQ does the same behind `convert_string_expressions:`, which is accepted and skipped).
 */
#ifndef MILLRACE_FMT_SELECTOR_H
#define MILLRACE_FMT_SELECTOR_H

#include "base/types.h"

#define SELECTOR_TEXT_MAX 2048u
#define SELECTOR_NODES_MAX 256u
#define SELECTOR_DEPTH_MAX 32u
#define SELECTOR_STEPS_MAX                                                                                             \
    20000u /* of one evaluation: parts, octets of patterns, and what texts cost; more is not true */

enum selector_kind { SELECT_NULL, SELECT_BOOL, SELECT_LONG, SELECT_DOUBLE, SELECT_TEXT };

struct selector_value {
    enum selector_kind kind;
    union {
        bool b;
        int64_t i;
        double d;
        struct slice s;
    };
};

struct selector_node {
    uint8_t op; /* enum selector_op (selector.c) */
    bool negated;
    uint16_t left, right, third; /* of the array; of IN: the first of `third` literals is right */
    struct selector_value value;
};

/* What a name stands for; SELECT_NULL: nothing of that name. */
typedef struct selector_value selector_lookup(const void *message, struct slice name);

/* How many nodes were filled, the last of which is the condition; -1: why says what is wrong and where. */
int selector_parse(struct slice text, struct selector_node *ret, unsigned max, char *why, size_t why_len);

/* name_steps: that looking for a name costs beside its own. ret_steps: all that it took, up to the maximum. */
bool selector_matches(const struct selector_node *nodes, unsigned count, selector_lookup *lookup, const void *message,
                      unsigned name_steps, unsigned *ret_steps);

#endif
