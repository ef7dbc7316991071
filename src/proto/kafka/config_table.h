/* config_table: Kafka's configs (configs.def), what each becomes as an argument of a stream, and what a stream's arguments
 * are as configs.
 *
 * A config that is set through Kafka stands among the stream's arguments as kafka.NAME, as it was given; one that a stream
 * has a word for stands there as that, too, and that is what acts. Where the two disagree, because a policy or an AMQP client
 * has had its say, what acts is told. Constant tables and pure functions, any thread.
 */
#ifndef MILLRACE_PROTO_KAFKA_CONFIG_TABLE_H
#define MILLRACE_PROTO_KAFKA_CONFIG_TABLE_H

#include "base/writer.h"
#include "core/stream_admin.h"
#include "proto/kafka/engine.h"

enum kafka_config_type { /* numbers as on the wire */
                         KAFKA_CONFIG_BOOLEAN = 1,
                         KAFKA_CONFIG_STRING = 2,
                         KAFKA_CONFIG_INT = 3,
                         KAFKA_CONFIG_SHORT = 4,
                         KAFKA_CONFIG_LONG = 5,
                         KAFKA_CONFIG_DOUBLE = 6,
                         KAFKA_CONFIG_LIST = 7,
};

enum kafka_config_source { /* as on the wire */
                           KAFKA_SOURCE_TOPIC = 1,
                           KAFKA_SOURCE_CLUSTER = 3,
                           KAFKA_SOURCE_STATIC = 4,
                           KAFKA_SOURCE_DEFAULT = 5,
                           KAFKA_SOURCE_GROUP = 8,
};

enum kafka_config_means {
    KAFKA_MEANS_KEPT,
    KAFKA_MEANS_AGE,
    KAFKA_MEANS_BYTES,
    KAFKA_MEANS_SEGMENT,
    KAFKA_MEANS_CLEANUP,
    KAFKA_MEANS_LAG,
    KAFKA_MEANS_TOMBSTONE,
    KAFKA_MEANS_BATCH,
    KAFKA_MEANS_CLUSTER, /* kept; without it Kafka 4 says that the cluster as a whole has it */
};

struct kafka_config { /* of a topic */
    const char *name;
    const char *otherwise; /* its default */
    int64_t least, most;
    const char *values;
    const char *argument;
    const char *broker_name;
    const char *documentation;
    uint8_t type, means;
};

struct kafka_group_config { /* of a group's name */
    struct kafka_config config;
    int64_t from, to; /* of numbers: what a broker lets administrators set */
    uint8_t setting;  /* core/group_config.h */
};

struct kafka_broker_config {
    const char *name, *value;
    const char *documentation;
    uint8_t type, says;
};

extern const struct kafka_config kafka_topic_configs[];
extern const struct kafka_group_config kafka_group_configs[];
extern const struct kafka_broker_config kafka_broker_configs[];
extern const size_t kafka_topic_config_count, kafka_group_config_count, kafka_broker_config_count;

#define KAFKA_CONFIG_TEXT 400u /* of a sentence that says what is wrong */
#define KAFKA_CONFIG_ROOM 64u  /* of a value that is made here */

/* NULL: there is no such config. */
const struct kafka_config *kafka_config_find(struct slice name);
const struct kafka_group_config *kafka_group_config_find(struct slice name);

/* False: text says in Kafka's words why the topic cannot have this. */
MUST_USE bool kafka_config_check(const struct kafka_config *config, struct slice value, char *text, size_t len);

/* The same of a group's; *ret is what it means to the core. */
MUST_USE bool kafka_group_config_check(const struct kafka_group_config *config, struct slice value, uint64_t *ret,
                                       char *text, size_t len);

/* Puts the arguments that a checked value becomes; ptr NULL: those of the default. Bytes: at most these. */
void kafka_config_put(struct writer *w, const struct kafka_config *config, struct slice value);
size_t kafka_config_bytes(const struct kafka_config *config, struct slice value);
/* Puts the keys, each s8, of all arguments that the config can have become; at most KAFKA_CONFIG_KEYS. */
void kafka_config_put_keys(struct writer *w, const struct kafka_config *config);
#define KAFKA_CONFIG_KEYS 160u

/* What the topic has. value: a loan of the row, of the table or of room. */
struct kafka_config_value {
    struct slice value;
    uint8_t source; /* enum kafka_config_source */
    char room[KAFKA_CONFIG_ROOM];
};
void kafka_config_of(const struct kafka_config *config, const struct kafka_options *options,
                     const struct stream_row *row, struct kafka_config_value *ret);

/* What a topic wants of its batches. */
struct kafka_batch_rules {
    uint32_t bytes_max;                  /* larger ones are refused (max.message.bytes); 0: the broker's limit */
    int64_t before_max_ms, after_max_ms; /* so far from the broker's clock a record's time may be */
    bool append_time;                    /* records have the time at which they came (message.timestamp.type) */
    uint8_t compression;                 /* enum compress_kind; COMPRESS_KINDS: as the producer has it */
    int32_t level;                       /* of that, COMPRESS_LEVEL_DEFAULT */
};
void kafka_config_batch_rules(const struct stream_row *row, struct kafka_batch_rules *ret);
/* row NULL: what a topic has that says nothing. value ptr NULL: there is none (advertised.listeners). */
void kafka_broker_config_of(const struct kafka_broker_config *config, const struct kafka_options *options,
                            struct kafka_config_value *ret);

#endif
