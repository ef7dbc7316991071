/* messages.def turned into constant tables, see messages.h. */
#include "proto/kafka/messages.h"

#define ROW(struct_, field_name, from_, to_, ...)                                                                      \
    .name = #field_name, .at = offsetof(struct kafka_##struct_, field_name), .from = from_, .to = to_, ##__VA_ARGS__

/* fields_heartbeat_request[] and so on. */
#define FIELD(struct_, kind_, field_name, ...) {.kind = KAFKA_##kind_, ROW(struct_, field_name, __VA_ARGS__)},
#define LIST(struct_, kind_, field_name, ...)                                                                          \
    {.kind = KAFKA_LIST, .item = KAFKA_##kind_, ROW(struct_, field_name, __VA_ARGS__)},
#define ARRAY(struct_, element_, field_name, ...)                                                                      \
    {.kind = KAFKA_ARRAY, .element = &kafka_##element_##_table, ROW(struct_, field_name, __VA_ARGS__)},
#define PART(struct_, element_, field_name, ...)                                                                       \
    {.kind = KAFKA_PART, .element = &kafka_##element_##_table, ROW(struct_, field_name, __VA_ARGS__)},
#define TABLE(table_name, rows) static const struct kafka_field fields_##table_name[] = {rows};
#include "proto/kafka/messages.def"
#undef TABLE
#undef FIELD
#undef LIST
#undef ARRAY
#undef PART

#define TABLE(table_name, rows)                                                                                        \
    const struct kafka_table kafka_##table_name##_table = {                                                            \
        .name = #table_name,                                                                                           \
        .fields = fields_##table_name,                                                                                 \
        .struct_len = sizeof(struct kafka_##table_name),                                                               \
        .field_count = ARRAY_LEN(fields_##table_name),                                                                 \
    };
#include "proto/kafka/messages.def"
#undef TABLE
