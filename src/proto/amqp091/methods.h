/* methods: the method table of AMQP 0-9-1 (methods.def) and what derives from it: one struct per method, one decoder, one
 * encoder, the printed reference. Pure functions over constant tables, any thread.
 *
 * Decoded slices (short strings, long strings, tables) point into the frame. A table's slice is its content without the
 * leading length, and has been validated.
 */
#ifndef MILLRACE_PROTO_AMQP091_METHODS_H
#define MILLRACE_PROTO_AMQP091_METHODS_H

#include "base/types.h"
#include "base/writer.h"

#include <stdio.h>

#define AMQP091_WIRE_bit bool
#define AMQP091_WIRE_octet uint8_t
#define AMQP091_WIRE_short uint16_t
#define AMQP091_WIRE_long uint32_t
#define AMQP091_WIRE_longlong uint64_t
#define AMQP091_WIRE_shortstr struct slice
#define AMQP091_WIRE_longstr struct slice
#define AMQP091_WIRE_table struct slice

/* struct amqp091_queue_declare { uint16_t ticket; struct slice queue; … }; and so on. */
#define FIELD(method, type, name) AMQP091_WIRE_##type name;
#define METHOD(class_id, method_id, class, method, who, when, content, section, fields)                                \
    struct amqp091_##class##_##method                                                                                  \
    {                                                                                                                  \
        fields                                                                                                         \
    };
#include "proto/amqp091/methods.def"
#undef METHOD
#undef FIELD

/* AMQP091_queue_declare, … : the index of the row. */
enum amqp091_method {
#define METHOD(class_id, method_id, class, method, who, when, content, section, fields) AMQP091_##class##_##method,
#include "proto/amqp091/methods.def"
#undef METHOD
    AMQP091_METHOD_COUNT
};

/* Room for any decoded method. */
union amqp091_fields {
#define METHOD(class_id, method_id, class, method, who, when, content, section, fields)                                \
    struct amqp091_##class##_##method class##_##method;
#include "proto/amqp091/methods.def"
#undef METHOD
};

enum amqp091_field_type {
    AMQP091_bit,
    AMQP091_octet,
    AMQP091_short,
    AMQP091_long,
    AMQP091_longlong,
    AMQP091_shortstr,
    AMQP091_longstr,
    AMQP091_table,
};

enum amqp091_sender { AMQP091_CLIENT = 1, AMQP091_SERVER = 2, AMQP091_BOTH = 3 };

/* When a client may send a method. The first group is about channel 0 and the connection's state, the second about the
 * method's channel on a running connection. */
enum amqp091_when {
    AMQP091_NEVER,
    AMQP091_START,   /* after connection.start */
    AMQP091_SECURE,  /* after connection.secure */
    AMQP091_TUNE,    /* after connection.tune */
    AMQP091_OPEN,    /* after connection.tune-ok */
    AMQP091_RUNNING, /* after connection.open-ok */
    AMQP091_CLOSING, /* after the server's connection.close */
    AMQP091_ANY,
    AMQP091_FREE,   /* the channel's number is not in use */
    AMQP091_USED,   /* the channel is open */
    AMQP091_FAILED, /* after the server's channel.close */
};

struct amqp091_field {
    const char *name;
    uint16_t at;  /* in the method's struct */
    uint8_t type; /* enum amqp091_field_type */
};

struct amqp091_row {
    const char *name; /* "queue.declare" */
    const char *section;
    const struct amqp091_field *fields;
    uint16_t class_id, method_id;
    uint16_t struct_len;
    uint8_t field_count;
    uint8_t who;  /* enum amqp091_sender */
    uint8_t when; /* enum amqp091_when */
    bool content;
};

extern const struct amqp091_row amqp091_rows[AMQP091_METHOD_COUNT];

/* The row, or NULL. */
const struct amqp091_row *amqp091_row_find(uint16_t class_id, uint16_t method_id);

/* args: what follows class and method id in a method frame. ret: the method's struct. False: damaged, or bytes left over. */
MUST_USE bool amqp091_decode(const struct amqp091_row *row, struct slice args, void *ret);

/* Writes class id, method id and the fields. */
void amqp091_encode(struct writer *w, const struct amqp091_row *row, const void *fields);
/* The exact number of bytes that amqp091_encode writes. */
size_t amqp091_encoded_len(const struct amqp091_row *row, const void *fields);

/* For `millrace reference`: one line per method. */
void amqp091_print(FILE *to);

#endif
