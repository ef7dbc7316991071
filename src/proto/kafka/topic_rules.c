/* Names, operations and results, see topic_rules.h. */
#include "proto/kafka/topic_rules.h"

#include "fmt/amqp_table.h"
#include "proto/kafka/config_table.h"

#include <stdio.h>

static bool is_plain(struct slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
              c == '-'))
            return false;
    }
    return true;
}

bool kafka_topic_name_good(struct slice name)
{
    return name.len > 0 && name.len <= KAFKA_NAME_MAX && !slice_is(name, ".") && !slice_is(name, "..") &&
           is_plain(name);
}

void kafka_topic_name_fault(struct slice name, char *ret, size_t len)
{
    int shown = (int)(name.len < 1000 ? name.len : 1000);
    if (name.len == 0)
        snprintf(ret, len, "Topic name is invalid: the empty string is not allowed");
    else if (slice_is(name, ".") || slice_is(name, ".."))
        snprintf(ret, len, "Topic name is invalid: '%.*s' is not allowed", shown, name.ptr);
    else if (name.len > KAFKA_NAME_MAX)
        snprintf(ret, len, "Topic name is invalid: the length of '%.*s' is longer than the max allowed length %u",
                 shown, name.ptr, KAFKA_NAME_MAX);
    else
        snprintf(ret, len,
                 "Topic name is invalid: '%.*s' contains one or more characters other than ASCII alphanumerics, '.', "
                 "'_' and '-'",
                 shown, name.ptr);
}

int32_t kafka_topic_operations(uint8_t verbs)
{
    enum {
        READ = 1 << 3,
        WRITE = 1 << 4,
        CREATE = 1 << 5,
        DELETE = 1 << 6,
        ALTER = 1 << 7,
        DESCRIBE = 1 << 8,
        DESCRIBE_CONFIGS = 1 << 10,
        ALTER_CONFIGS = 1 << 11
    };
    int32_t operations = verbs ? DESCRIBE | DESCRIBE_CONFIGS : 0;
    if (verbs & STREAM_MAY_READ)
        operations |= READ;
    if (verbs & STREAM_MAY_WRITE)
        operations |= WRITE;
    if (verbs & STREAM_MAY_CONFIGURE)
        operations |= CREATE | DELETE | ALTER | ALTER_CONFIGS;
    return operations;
}

struct ask *kafka_topic_ask(struct slice name, uint32_t partitions, struct slice configs, uint32_t flags)
{
    uint8_t room[1024];
    struct writer w = writer_of(room, sizeof room);
    struct slice none = {0};
    for (size_t i = 0; !configs.ptr && i < kafka_topic_config_count; i++)
        kafka_config_put(&w, &kafka_topic_configs[i], none);
    struct ask *ask = ask_new(name, none, none, configs.ptr ? configs : writer_slice(&w));
    if (ask) {
        ask->number = partitions;
        ask->flags = flags;
    }
    return ask;
}

int16_t kafka_stream_error(enum stream_result result)
{
    switch (result) {
    case STREAM_DONE: return KAFKA_ERR_NONE;
    case STREAM_EXISTS: return KAFKA_ERR_TOPIC_ALREADY_EXISTS;
    case STREAM_IS_QUEUE:
    case STREAM_BAD_NAME: return KAFKA_ERR_INVALID_TOPIC_EXCEPTION;
    case STREAM_UNKNOWN: return KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
    case STREAM_BAD_ARGUMENT: return KAFKA_ERR_INVALID_CONFIG;
    case STREAM_BAD_PARTITIONS: return KAFKA_ERR_INVALID_PARTITIONS;
    case STREAM_OUT_OF_RANGE: return KAFKA_ERR_OFFSET_OUT_OF_RANGE;
    case STREAM_REFUSED: return KAFKA_ERR_TOPIC_AUTHORIZATION_FAILED;
    case STREAM_NO_ROOM: return KAFKA_ERR_KAFKA_STORAGE_ERROR;
    }
    return KAFKA_ERR_UNKNOWN_SERVER_ERROR;
}
