/* ast: the syntax tree of statements: nodes as ast.def lists them, in the arena of whoever parses.
 *
 * A node says what was written, not what it means: names are as written, nothing is resolved. Two spellings of the same thing are the
 * same node (TABLE(TUMBLE(TABLE t, DESCRIPTOR(c), i)) and TUMBLE(t, c, i); != and <>). Trees are not changed once parsed; any thread may read.
 */
#ifndef MILLRACE_SQL_LANGUAGE_AST_H
#define MILLRACE_SQL_LANGUAGE_AST_H

#include "base/types.h"

enum ast_kind {
#define NODE(KIND, name, ...) AST_##KIND,
#include "sql/language/ast.def"
#undef NODE
    AST_KINDS
};

struct ast {
    uint16_t kind;
    uint16_t depth;   /* of the tree below, this node included */
    uint32_t at, len; /* in the text */
};

struct ast_list {
    struct ast **at;
    size_t count;
};

struct ast_names {
    struct slice *at;
    size_t count;
};

/* struct ast_literal, struct ast_binary, … : a struct ast and the fields. */
#define TEXT(field) struct slice field;
#define NAMES(field) struct ast_names field;
#define CHILD(field) struct ast *field;
#define LIST(field) struct ast_list field;
#define INT(field) int64_t field;
#define NODE(KIND, name, ...)                                                                                          \
    struct ast_##name {                                                                                                \
        struct ast ast;                                                                                                \
        __VA_ARGS__                                                                                                    \
    };
#include "sql/language/ast.def"
#undef NODE
#undef TEXT
#undef NAMES
#undef CHILD
#undef LIST
#undef INT

/* The node as its own struct: AST_AS(binary, node)->left. The kind has been looked at. */
#define AST_AS(name, node) ((struct ast_##name *)(node))

enum ast_op {
#define OPERATOR(name, keyword, symbol, text, power, chained) AST_OP_##name,
#include "sql/language/operators.def"
#undef OPERATOR
    AST_OPS
};

/* How tightly the rest binds; the operators' own strengths are in operators.def. */
enum ast_power {
    POWER_LOWEST = 0,
    POWER_OR = 1,
    POWER_NOT = 3,
    POWER_IS = 4,
    POWER_COMPARE = 5,
    POWER_BETWEEN = 6, /* IN, LIKE too */
    POWER_ZONE = 11,
    POWER_SIGN = 12,
    POWER_SUBSCRIPT = 13,
    POWER_CAST = 14,
    POWER_FIELD = 15,
    POWER_ATOM = 16,
};

enum ast_literal_kind { LITERAL_NULL, LITERAL_TRUE, LITERAL_FALSE, LITERAL_NUMBER, LITERAL_STRING };
enum ast_unary_op { UNARY_NOT, UNARY_MINUS, UNARY_PLUS };
enum ast_like_kind { LIKE_CASE, LIKE_NOCASE, LIKE_SIMILAR };
enum ast_is_kind { IS_NULL, IS_TRUE, IS_FALSE, IS_UNKNOWN, IS_DISTINCT };
enum ast_nulls_kind { NULLS_DEFAULT, NULLS_RESPECT, NULLS_IGNORE };
enum ast_order_nulls { ORDER_NULLS_DEFAULT, ORDER_NULLS_FIRST, ORDER_NULLS_LAST };
enum ast_setop_kind { SETOP_UNION, SETOP_EXCEPT, SETOP_INTERSECT };
enum ast_grouping_kind { GROUPING_SETS, GROUPING_ROLLUP, GROUPING_CUBE };
enum ast_frame_unit { FRAME_NONE, FRAME_ROWS, FRAME_RANGE, FRAME_GROUPS };
enum ast_bound_kind { BOUND_ALL_BEFORE, BOUND_BEFORE, BOUND_CURRENT, BOUND_AFTER, BOUND_ALL_AFTER };
enum ast_windowed_kind { WINDOWED_TUMBLE, WINDOWED_HOP, WINDOWED_CUMULATE, WINDOWED_SESSION, WINDOWED_KINDS };
enum ast_join_kind {
    JOIN_INNER,
    JOIN_LEFT,
    JOIN_RIGHT,
    JOIN_FULL,
    JOIN_CROSS,
    JOIN_SEMI,
    JOIN_ANTI,
    JOIN_ASOF,
    JOIN_LEFT_ASOF,
    JOIN_COMMA,
    JOIN_KINDS
};
enum ast_skip_kind { SKIP_DEFAULT, SKIP_PAST_LAST, SKIP_NEXT_ROW, SKIP_TO_FIRST, SKIP_TO_LAST };
enum ast_object {
    OBJECT_STREAM,
    OBJECT_TABLE,
    OBJECT_VIEW,
    OBJECT_MATERIALIZED_VIEW,
    OBJECT_SINK,
    OBJECT_QUERY,
    OBJECTS
};
enum ast_show_kind {
    SHOW_STREAMS,
    SHOW_TABLES,
    SHOW_VIEWS,
    SHOW_MATERIALIZED_VIEWS,
    SHOW_SINKS,
    SHOW_QUERIES,
    SHOW_FUNCTIONS,
    SHOW_CREATE,
    SHOW_COLUMNS,
    SHOW_KINDS
};
enum ast_emit_kind { EMIT_CHANGES, EMIT_CLOSE, EMIT_EVERY };
enum ast_unit {
    UNIT_NONE,
    UNIT_YEAR,
    UNIT_MONTH,
    UNIT_WEEK,
    UNIT_DAY,
    UNIT_HOUR,
    UNIT_MINUTE,
    UNIT_SECOND,
    UNIT_MILLISECOND,
    UNITS
};

const char *ast_op_text(enum ast_op op);
int ast_op_power(enum ast_op op);
bool ast_op_chained(enum ast_op op);
const char *ast_unit_text(enum ast_unit unit);
const char *ast_windowed_text(enum ast_windowed_kind what);
/* "HOP", "MATCH", …: the kind as in ast.def. */
const char *ast_kind_text(unsigned kind);
size_t ast_size(unsigned kind);

/* Whether two trees say the same; where they stood in their texts does not matter. */
bool ast_equal(const struct ast *a, const struct ast *b);
/* The same for trees that say the same, whatever made them; `seed` goes on from another one. */
uint64_t ast_hash(const struct ast *node, uint64_t seed);
/* Sets node->depth from its children; false: deeper than most. */
bool ast_measure(struct ast *node, unsigned most);
/* Calls visit for each child that is there, until it answers false. */
bool ast_each_child(const struct ast *node, bool (*visit)(const struct ast *child, void *arg), void *arg);

#endif
