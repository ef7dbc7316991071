/* messages: the decoded form of every message of Kafka's protocol, made from messages.def: struct kafka_produce_request and
 * so on, and for each a constant table, kafka_produce_request_table, that codec.h walks.
 *
 * In the structs null is: a string, bytes or records with ptr NULL (empty ones point somewhere); an array of count -1 (its
 * loops need no special case); a struct that is a NULL pointer. Where a version knows no null, the encoder writes these as
 * empty, and a NULL struct as its defaults. So a zeroed struct is a valid answer, except for fields whose DEFAULT matters:
 * kafka_defaults (codec.h) sets those.
 * Constant tables, any thread.
 */
#ifndef MILLRACE_PROTO_KAFKA_MESSAGES_H
#define MILLRACE_PROTO_KAFKA_MESSAGES_H

#include "base/types.h"

struct kafka_uuid {
    uint8_t bytes[16];
};

#define KAFKA_C_bool bool
#define KAFKA_C_i8 int8_t
#define KAFKA_C_i16 int16_t
#define KAFKA_C_i32 int32_t
#define KAFKA_C_i64 int64_t
#define KAFKA_C_u16 uint16_t
#define KAFKA_C_f64 double
#define KAFKA_C_uuid struct kafka_uuid
#define KAFKA_C_string struct slice
#define KAFKA_C_bytes struct slice
#define KAFKA_C_records struct slice

/* Every array of a struct looks like this one, with a pointer of its own type. */
struct kafka_array {
    void *at;
    int32_t count; /* -1: null */
};

/* struct kafka_heartbeat_request { struct slice group_id; int32_t generation_id; … }; and so on. */
#define FIELD(struct_, kind, name, ...) KAFKA_C_##kind name;
#define LIST(struct_, kind, name, ...)                                                                                 \
    struct {                                                                                                           \
        KAFKA_C_##kind *at;                                                                                            \
        int32_t count;                                                                                                 \
    } name;
#define ARRAY(struct_, element, name, ...)                                                                             \
    struct {                                                                                                           \
        struct kafka_##element *at;                                                                                    \
        int32_t count;                                                                                                 \
    } name;
#define PART(struct_, element, name, ...) struct kafka_##element *name;
#define TABLE(name, rows)                                                                                              \
    struct kafka_##name {                                                                                              \
        rows                                                                                                           \
    };
#include "proto/kafka/messages.def"
#undef FIELD
#undef LIST
#undef ARRAY
#undef PART
#undef TABLE

enum kafka_kind {
    KAFKA_bool,
    KAFKA_i8,
    KAFKA_i16,
    KAFKA_i32,
    KAFKA_i64,
    KAFKA_u16,
    KAFKA_f64,
    KAFKA_uuid,
    KAFKA_string,
    KAFKA_bytes,
    KAFKA_records,
    KAFKA_PART,
    KAFKA_LIST,
    KAFKA_ARRAY,
    KAFKA_KINDS
};

struct kafka_field {
    const char *name;
    const struct kafka_table *element; /* of KAFKA_PART and KAFKA_ARRAY */
    int32_t otherwise;                 /* what it is where a version has it not; -1 is null where null can be */
    uint16_t at;                       /* in the struct */
    uint8_t kind, item;                /* enum kafka_kind; item: of the elements of KAFKA_LIST */
    uint8_t from, to;                  /* versions */
    uint8_t null_from;                 /* version + 1; 0: never null */
    uint8_t tag;                       /* + 1; 0: not tagged */
};

struct kafka_table {
    const char *name;
    const struct kafka_field *fields;
    uint16_t struct_len;
    uint8_t field_count; /* the tagged ones come after the plain ones */
};

/* kafka_heartbeat_request_table and so on. */
#define TABLE(name, rows) extern const struct kafka_table kafka_##name##_table;
#include "proto/kafka/messages.def"
#undef TABLE

#endif
