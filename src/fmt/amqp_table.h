/* amqp_table: AMQP 0-9-1 field tables and arrays with RabbitMQ's types (AMQP 0-9-1 section 4.2.5, with the field types as
 * RabbitMQ and its clients use them: t b B s u I i l L f d D S A T F V x).
 *
 * A "table" here is its content, without the leading 32-bit length. Values point into the bytes they were read from.
 * Pure functions, any thread.
 */
#ifndef MILLRACE_FMT_AMQP_TABLE_H
#define MILLRACE_FMT_AMQP_TABLE_H

#include "base/reader.h"
#include "base/writer.h"

#define AMQP_TABLE_DEPTH_MAX 8
#define AMQP_TABLE_FIELDS_MAX 1024 /* all levels together */

struct amqp_value {
    char type;        /* field type letter */
    struct slice raw; /* the value's bytes on the wire, without the type letter */
    union {
        int64_t i;      /* t (0/1) b B s u I i l L(as signed) T */
        double d;       /* f d */
        struct slice s; /* S x: the bytes; A F: the content */
        struct {
            uint8_t scale;
            int32_t unscaled;
        } decimal; /* D */
    };
};

struct amqp_field {
    struct slice name;
    struct amqp_value value;
};

/* Whole table: every name and type known, depth and count within limits, nothing left over. */
bool amqp_table_valid(struct slice table);

/* Next field of a table; false at the end or on damage (then reader_ok is false). */
bool amqp_table_next(struct reader *table, struct amqp_field *ret);
/* Next element of an array's content. */
bool amqp_array_next(struct reader *array, struct amqp_value *ret);

/* The first field of that name. */
bool amqp_table_find(struct slice table, const char *name, struct amqp_value *ret);
bool amqp_table_find_slice(struct slice table, struct slice name, struct amqp_value *ret);

static inline bool amqp_value_is_int(const struct amqp_value *v)
{
    return v->type && strchr("bBsuIilL", v->type) != NULL; /* T is no number; t is a boolean */
}
static inline bool amqp_value_is_str(const struct amqp_value *v)
{
    return v->type == 'S';
}
/* RabbitMQ's name of the type in error texts: signedint, longstr, bool, … */
const char *amqp_type_name(char type);
/* Equal value by RabbitMQ's rule: all integer types are one class, float and double another. */
bool amqp_value_equal(const struct amqp_value *a, const struct amqp_value *b);
/* Prints the value as RabbitMQ's error texts do: '10', 'text', 'true'. Truncates. */
void amqp_value_print(const struct amqp_value *v, char *ret, size_t len);
/* The same without quotes, and bytes as an Erlang term: 10, <<"text">>, [{<<"name">>,longstr,<<"text">>}]. */
void amqp_value_print_term(const struct amqp_value *v, char *ret, size_t len);

/* Writing fields: name, type letter, value. */
void amqp_put_field(struct writer *w, struct slice name, const struct amqp_value *value); /* copies value.raw */
void amqp_put_str(struct writer *w, const char *name, struct slice value);                /* S */
void amqp_put_long(struct writer *w, const char *name, int64_t value);                    /* l */
void amqp_put_int(struct writer *w, const char *name, int32_t value);                     /* I */
void amqp_put_bool(struct writer *w, const char *name, bool value);                       /* t */
void amqp_put_time(struct writer *w, const char *name, uint64_t seconds);                 /* T */
/* Opens a nested table or array; returns the mark for amqp_close. type 'F' or 'A'. */
size_t amqp_open(struct writer *w, const char *name, char type);
/* An element of an array that is a table / a string. */
size_t amqp_open_element(struct writer *w, char type);
void amqp_put_element_str(struct writer *w, struct slice value);
void amqp_close(struct writer *w, size_t mark);

#endif
