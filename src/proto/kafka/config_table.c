/* Configs as arguments and back, see config_table.h. */
#include "proto/kafka/config_table.h"

#include "base/check.h"
#include "core/group_config.h"
#include "fmt/amqp_table.h"
#include "fmt/compress.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#define CLOCK_AHEAD_MS 3600000              /* message.timestamp.after.max.ms of a topic that says nothing */
#define GZIP_LEVEL "compression.gzip.level" /* Kafka has a rule for it alone */
#define LENGTH_KEPT "x-stream-length-kept"  /* with retention.bytes */
#define PREFIX "kafka."
#define FOR_EVER_MS 3153600000000ll /* a hundred years: no limit */

enum says {
    SAYS_CONSTANT,
    SAYS_ADVERTISED,
    SAYS_AUTO_CREATE,
    SAYS_NODE_ID,
    SAYS_IDLE_MS,
    SAYS_BATCH_BYTES,
    SAYS_PARTITIONS,
    SAYS_REQUEST_BYTES,
    SAYS_LOG_DIR
};

#define TOPIC(name_, type_, default_, least_, most_, values_, means_, argument_, broker_, doc_)                        \
    {.name = (name_),                                                                                                  \
     .otherwise = (default_),                                                                                          \
     .least = (least_),                                                                                                \
     .most = (most_),                                                                                                  \
     .values = (values_),                                                                                              \
     .argument = (argument_),                                                                                          \
     .broker_name = (broker_),                                                                                         \
     .documentation = (doc_),                                                                                          \
     .type = KAFKA_CONFIG_##type_,                                                                                     \
     .means = KAFKA_MEANS_##means_},
#define BROKER(...)
#define GROUP(...)
const struct kafka_config kafka_topic_configs[] = {
#include "proto/kafka/configs.def"
};
#undef TOPIC
#undef BROKER
#undef GROUP

#define TOPIC(...)
#define GROUP(...)
#define BROKER(name_, type_, value_, says_, doc_)                                                                      \
    {.name = (name_), .value = (value_), .documentation = (doc_), .type = KAFKA_CONFIG_##type_, .says = SAYS_##says_},
const struct kafka_broker_config kafka_broker_configs[] = {
#include "proto/kafka/configs.def"
};
#undef TOPIC
#undef BROKER

#undef GROUP

#define TOPIC(...)
#define BROKER(...)
#define GROUP(name_, type_, default_, least_, from_, to_, values_, setting_, broker_, doc_)                            \
    {.config = {.name = (name_),                                                                                       \
                .otherwise = (default_),                                                                               \
                .least = (least_),                                                                                     \
                .most = INT32_MAX,                                                                                     \
                .values = (values_),                                                                                   \
                .broker_name = (broker_),                                                                              \
                .documentation = (doc_),                                                                               \
                .type = KAFKA_CONFIG_##type_},                                                                         \
     .from = (from_),                                                                                                  \
     .to = (to_),                                                                                                      \
     .setting = (setting_)},
const struct kafka_group_config kafka_group_configs[] = {
#include "proto/kafka/configs.def"
};
#undef TOPIC
#undef BROKER
#undef GROUP

const size_t kafka_group_config_count = ARRAY_LEN(kafka_group_configs);
const size_t kafka_topic_config_count = ARRAY_LEN(kafka_topic_configs);
const size_t kafka_broker_config_count = ARRAY_LEN(kafka_broker_configs);

const struct kafka_config *kafka_config_find(struct slice name)
{
    for (size_t i = 0; i < kafka_topic_config_count; i++)
        if (slice_is(name, kafka_topic_configs[i].name))
            return &kafka_topic_configs[i];
    return NULL;
}

const struct kafka_group_config *kafka_group_config_find(struct slice name)
{
    for (size_t i = 0; i < kafka_group_config_count; i++)
        if (slice_is(name, kafka_group_configs[i].config.name))
            return &kafka_group_configs[i];
    return NULL;
}

/* ---- values ---- */

static struct slice trimmed(struct slice s)
{
    while (s.len && s.ptr[0] <= ' ') {
        s.ptr++;
        s.len--;
    }
    while (s.len && s.ptr[s.len - 1] <= ' ')
        s.len--;
    return s;
}

static bool number_parse(struct slice text, int64_t *ret)
{
    char copy[32], *end;
    text = trimmed(text);
    if (text.len == 0 || text.len >= sizeof copy)
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    errno = 0;
    *ret = strtoll(copy, &end, 10);
    return !errno && *end == '\0' && copy[0] > ' ';
}

static bool ratio_parse(struct slice text, double *ret)
{
    char copy[64], *end;
    text = trimmed(text);
    if (text.len == 0 || text.len >= sizeof copy)
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    *ret = strtod(copy, &end);
    return *end == '\0';
}

static bool truth_parse(struct slice text, bool *ret)
{
    text = trimmed(text);
    *ret = text.len == 4 && strncasecmp((const char *)text.ptr, "true", 4) == 0;
    return *ret || (text.len == 5 && strncasecmp((const char *)text.ptr, "false", 5) == 0);
}

/* The next part of a list, without the blanks around it. */
static bool part_next(struct slice *list, struct slice *ret)
{
    if (!list->ptr)
        return false;
    const uint8_t *comma = list->len ? memchr(list->ptr, ',', list->len) : NULL;
    size_t len = comma ? (size_t)(comma - list->ptr) : list->len;
    *ret = trimmed(slice_of(list->ptr, len));
    *list = comma ? slice_of(comma + 1, list->len - len - 1) : (struct slice){0};
    return true;
}

static bool among(const char *values, struct slice one)
{
    struct slice list = slice_str(values), part;
    while (part_next(&list, &part))
        if (slice_equal(part, one))
            return true;
    return false;
}

static bool is_number(const struct kafka_config *config)
{
    return config->type == KAFKA_CONFIG_INT || config->type == KAFKA_CONFIG_LONG;
}

#define VALUE_SHOWN 100
static int shown(struct slice value)
{
    return value.len < VALUE_SHOWN ? (int)value.len : VALUE_SHOWN;
}

static bool check_number(const struct kafka_config *config, struct slice value, char *why, size_t len)
{
    int64_t n;
    if (!number_parse(value, &n) || (config->type == KAFKA_CONFIG_INT && (n < INT32_MIN || n > INT32_MAX)))
        snprintf(why, len, "Not a number of type %s", config->type == KAFKA_CONFIG_INT ? "INT" : "LONG");
    else if (strcmp(config->name, GZIP_LEVEL) == 0 && (n < -1 || n == 0 || n > config->most))
        snprintf(why, len, "Value must be between 1 and %" PRId64 " or equal to -1", config->most);
    else if (n < config->least)
        snprintf(why, len, "Value must be at least %" PRId64, config->least);
    else if (n > config->most)
        snprintf(why, len, "Value must be no more than %" PRId64, config->most);
    else
        return true;
    return false;
}

static bool check_ratio(const struct kafka_config *config, struct slice value, char *why, size_t len)
{
    double ratio;
    if (!ratio_parse(value, &ratio))
        snprintf(why, len, "Not a number of type DOUBLE");
    else if (!(ratio >= (double)config->least))
        snprintf(why, len, "Value must be at least %" PRId64, config->least);
    else if (ratio > (double)config->most)
        snprintf(why, len, "Value must be no more than %" PRId64, config->most);
    else
        return true;
    return false;
}

static bool check_words(const struct kafka_config *config, struct slice value, char *why, size_t len)
{
    struct slice list = config->type == KAFKA_CONFIG_LIST ? value : (struct slice){0}, part = trimmed(value);
    if (!config->values)
        return true;
    bool good = config->type != KAFKA_CONFIG_LIST || value.len > 0;
    if (list.ptr)
        while (good && part_next(&list, &part))
            good = among(config->values, part);
    else
        good = among(config->values, part);
    if (!good)
        snprintf(why, len, "String must be one of: %s", config->values);
    return good;
}

bool kafka_config_check(const struct kafka_config *config, struct slice value, char *text, size_t len)
{
    char why[200];
    bool truth, good;
    if (is_number(config))
        good = check_number(config, value, why, sizeof why);
    else if (config->type == KAFKA_CONFIG_DOUBLE)
        good = check_ratio(config, value, why, sizeof why);
    else if (config->type == KAFKA_CONFIG_BOOLEAN) {
        good = truth_parse(value, &truth);
        snprintf(why, sizeof why, "Expected value to be either true or false");
        if (good && truth && config->values) {
            good = false;
            snprintf(why, sizeof why, "this broker cannot");
        }
    } else
        good = check_words(config, value, why, sizeof why);
    if (!good)
        snprintf(text, len, "Invalid value %.*s for configuration %s: %s", shown(value), value.ptr, config->name, why);
    return good;
}

/* ---- of groups ---- */

/* PnDTnHnMn.nS, each part once and in this order; milliseconds. */
static bool duration_parse(struct slice text, uint64_t *ret_ms)
{
    static const struct {
        char unit;
        bool of_day;
        double ms;
    } units[] = {{'D', false, 86400e3}, {'H', true, 3600e3}, {'M', true, 60e3}, {'S', true, 1e3}};
    char copy[64], *at = copy;
    double ms = 0;
    bool of_day = false;
    size_t next = 0;
    if (text.len < 3 || text.len >= sizeof copy)
        return false;
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = '\0';
    if ((*at++ | 32) != 'p')
        return false;
    while (*at) {
        char *end;
        if (!of_day && (*at | 32) == 't') {
            of_day = true;
            at++;
        }
        if (*at < '0' || *at > '9')
            return false;
        double n = strtod(at, &end);
        while (next < ARRAY_LEN(units) && ((*end & ~32) != units[next].unit || units[next].of_day != of_day))
            next++;
        if (next == ARRAY_LEN(units) || (*end | 32) == 'e' ||
            (units[next].unit != 'S' && memchr(at, '.', (size_t)(end - at))))
            return false;
        ms += n * units[next++].ms;
        at = end + 1;
    }
    *ret_ms = ms < 1e18 ? (uint64_t)ms : (uint64_t)1e18;
    return next > 0;
}

static bool reset_parse(struct slice value, uint64_t *ret)
{
    static const char since[] = "by_duration:";
    const size_t len = sizeof since - 1;
    if (slice_is(value, "latest") || slice_is(value, "earliest")) {
        *ret = slice_is(value, "latest") ? GROUP_FROM_END : GROUP_FROM_START;
        return true;
    }
    return value.len > len && memcmp(value.ptr, since, len) == 0 &&
           duration_parse(slice_of(value.ptr + len, value.len - len), ret);
}

bool kafka_group_config_check(const struct kafka_group_config *config, struct slice value, uint64_t *ret, char *text,
                              size_t len)
{
    const char *name = config->config.name;
    int64_t n = 0;
    bool truth = false;
    *ret = 0;
    if (config->setting == GROUP_SET_SHARE_RESET) {
        if (reset_parse(value, ret) && value.len <= UINT8_MAX)
            return true;
        snprintf(text, len,
                 "Invalid value %.*s for configuration %s: The value must be either 'earliest', 'latest' or of the "
                 "format 'by_duration:<PnDTnHnMn.nS>'.",
                 shown(value), value.ptr, name);
        return false;
    }
    if (!kafka_config_check(&config->config, value, text, len))
        return false;
    if (value.len > UINT8_MAX) {
        snprintf(text, len, "The value of %s is too long", name);
        return false;
    }
    if (config->config.type == KAFKA_CONFIG_INT) {
        CHECK(number_parse(value, &n));
        if (n < config->from || n > config->to) {
            snprintf(text, len, "%s must be %s than or equal to %" PRId64, name, n < config->from ? "greater" : "less",
                     n < config->from ? config->from : config->to);
            return false;
        }
        *ret = (uint64_t)n;
    } else if (config->config.type == KAFKA_CONFIG_BOOLEAN)
        *ret = truth_parse(value, &truth) && truth;
    else
        *ret = slice_is(trimmed(value), "read_committed");
    return true;
}

/* ---- into arguments ---- */

/* As people would write it where they can. */
static void put_interval(struct writer *w, const char *argument, int64_t ms)
{
    static const struct {
        int64_t ms;
        const char *unit;
    } units[] = {{86400000, "D"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    char text[40];
    size_t i = 0;
    ms = ms > 0 ? ms : 1; /* at once */
    while (ms % units[i].ms)
        i++;
    snprintf(text, sizeof text, "%" PRId64 "%s", ms / units[i].ms, units[i].unit);
    amqp_put_str(w, argument, slice_str(text));
}

static bool cleanup_has(struct slice value, const char *word)
{
    struct slice list = value, part;
    while (part_next(&list, &part))
        if (slice_is(part, word))
            return true;
    return false;
}

static void put_cleanup(struct writer *w, const char *argument, struct slice value)
{
    bool compact = cleanup_has(value, "compact"), removes = cleanup_has(value, "delete");
    amqp_put_str(w, argument, slice_str(compact && removes ? "compact,delete" : compact ? "compact" : "delete"));
}

static void put_argument(struct writer *w, const struct kafka_config *config, struct slice value)
{
    int64_t n = 0;
    if (is_number(config))
        CHECK(number_parse(value, &n)); /* it was checked */
    switch ((enum kafka_config_means)config->means) {
    case KAFKA_MEANS_KEPT:
    case KAFKA_MEANS_CLUSTER:
    case KAFKA_MEANS_BATCH: return;
    case KAFKA_MEANS_AGE:
        if (n >= 0 && n < FOR_EVER_MS)
            put_interval(w, config->argument, n);
        return;
    case KAFKA_MEANS_BYTES:
        if (n < 0)
            return;
        amqp_put_long(w, config->argument, n);
        amqp_put_bool(w, LENGTH_KEPT, true);
        return;
    case KAFKA_MEANS_SEGMENT: amqp_put_long(w, config->argument, n); return;
    case KAFKA_MEANS_CLEANUP: put_cleanup(w, config->argument, value); return;
    case KAFKA_MEANS_LAG:
        if (n > 0)
            put_interval(w, config->argument, n < FOR_EVER_MS ? n : FOR_EVER_MS);
        return;
    case KAFKA_MEANS_TOMBSTONE: put_interval(w, config->argument, n < FOR_EVER_MS ? n : FOR_EVER_MS); return;
    }
}

void kafka_config_put(struct writer *w, const struct kafka_config *config, struct slice value)
{
    char key[80];
    if (!value.ptr) { /* of the defaults only this one is not what a stream does anyway */
        if (config->means == KAFKA_MEANS_AGE)
            put_argument(w, config, slice_str(config->otherwise));
        return;
    }
    snprintf(key, sizeof key, PREFIX "%s", config->name);
    amqp_put_str(w, key, value);
    put_argument(w, config, value);
}

size_t kafka_config_bytes(const struct kafka_config *config, struct slice value)
{
    return 2 * strlen(config->name) + value.len + 120;
}

void kafka_config_put_keys(struct writer *w, const struct kafka_config *config)
{
    char key[80];
    snprintf(key, sizeof key, PREFIX "%s", config->name);
    writer_str8(w, slice_str(key));
    if (config->argument)
        writer_str8(w, slice_str(config->argument));
    if (config->means == KAFKA_MEANS_BYTES)
        writer_str8(w, slice_str(LENGTH_KEPT));
}

/* ---- and back ---- */

static void number_into(struct kafka_config_value *ret, int64_t n)
{
    snprintf(ret->room, sizeof ret->room, "%" PRId64, n);
    ret->value = slice_str(ret->room);
}

/* What acts, and whether that is what the kept value says. */
static bool acts(const struct kafka_config *config, const struct stream_limits *limits, struct slice kept,
                 struct kafka_config_value *ret)
{
    int64_t n = 0;
    if (kept.ptr && is_number(config) && !number_parse(kept, &n))
        return false;
    switch ((enum kafka_config_means)config->means) {
    case KAFKA_MEANS_KEPT:
    case KAFKA_MEANS_CLUSTER:
    case KAFKA_MEANS_BATCH: break;
    case KAFKA_MEANS_AGE:
        number_into(ret, limits->max_age_ms);
        return limits->max_age_ms < 0 ? n < 0 || n >= FOR_EVER_MS : limits->max_age_ms == (n > 0 ? n : 1);
    case KAFKA_MEANS_BYTES: number_into(ret, limits->max_bytes); return limits->max_bytes == n;
    case KAFKA_MEANS_SEGMENT:
        if (limits->segment_bytes < 0)
            return false;
        number_into(ret, limits->segment_bytes);
        return limits->segment_bytes == n;
    case KAFKA_MEANS_CLEANUP:
        ret->value = slice_str(!limits->compacts ? "delete" : limits->deletes ? "compact,delete" : "compact");
        return cleanup_has(kept, "compact") == limits->compacts && cleanup_has(kept, "delete") == limits->deletes;
    case KAFKA_MEANS_LAG:
        number_into(ret, limits->min_lag_ms < 0 ? 0 : limits->min_lag_ms);
        return limits->min_lag_ms < 0 ? n == 0 : limits->min_lag_ms == n || n > FOR_EVER_MS;
    case KAFKA_MEANS_TOMBSTONE:
        if (limits->tombstone_ms < 0)
            return false;
        number_into(ret, limits->tombstone_ms);
        return limits->tombstone_ms == (n > 0 ? n : 1) || n > FOR_EVER_MS;
    }
    return true;
}

void kafka_config_of(const struct kafka_config *config, const struct kafka_options *options,
                     const struct stream_row *row, struct kafka_config_value *ret)
{
    char key[80];
    struct amqp_value kept = {0};
    snprintf(key, sizeof key, PREFIX "%s", config->name);
    ret->value = slice_str(config->otherwise);
    if (config->means == KAFKA_MEANS_BATCH)
        number_into(ret, options->batch_bytes_max);
    ret->source = config->means == KAFKA_MEANS_CLUSTER ? KAFKA_SOURCE_CLUSTER : KAFKA_SOURCE_DEFAULT;
    if (config->means == KAFKA_MEANS_BATCH && !slice_is(ret->value, config->otherwise))
        ret->source = KAFKA_SOURCE_STATIC;
    if (!row)
        return;
    bool is_kept = amqp_table_find(row->args, key, &kept) && amqp_value_is_str(&kept);
    struct slice text = is_kept ? kept.s : (struct slice){0};
    bool same = acts(config, &row->limits, text, ret);
    if (is_kept && same)
        ret->value = text;
    if ((is_kept && same) || (config->argument && !slice_is(ret->value, config->otherwise)))
        ret->source = KAFKA_SOURCE_TOPIC;
}

/* The value that is kept under the name; ptr NULL: none. */
static struct slice kept_of(const struct stream_row *row, const char *name)
{
    char key[80];
    struct amqp_value kept;
    snprintf(key, sizeof key, PREFIX "%s", name);
    return amqp_table_find(row->args, key, &kept) && amqp_value_is_str(&kept) ? kept.s : (struct slice){0};
}

static int64_t kept_number(const struct stream_row *row, const char *name, int64_t least, int64_t most,
                           int64_t otherwise)
{
    struct slice kept = kept_of(row, name);
    int64_t n;
    return kept.ptr && number_parse(kept, &n) && n >= least && n <= most ? n : otherwise;
}

void kafka_config_batch_rules(const struct stream_row *row, struct kafka_batch_rules *ret)
{
    char level[40];
    struct slice codec = kept_of(row, "compression.type");
    int64_t bytes = kept_number(row, "max.message.bytes", 0, INT32_MAX, -1);
    *ret = (struct kafka_batch_rules){
        .bytes_max = bytes > 0 ? (uint32_t)bytes : bytes == 0,
        .before_max_ms = kept_number(row, "message.timestamp.before.max.ms", 0, INT64_MAX, INT64_MAX),
        .after_max_ms = kept_number(row, "message.timestamp.after.max.ms", 0, INT64_MAX, CLOCK_AHEAD_MS),
        .append_time = slice_is(kept_of(row, "message.timestamp.type"), "LogAppendTime"),
        .compression = (uint8_t)(codec.ptr ? compress_find(codec) : COMPRESS_KINDS),
        .level = COMPRESS_LEVEL_DEFAULT,
    };
    if (ret->compression == COMPRESS_KINDS || ret->compression == COMPRESS_NONE)
        return;
    snprintf(level, sizeof level, "compression.%s.level", compress_name(ret->compression));
    int64_t n = kept_number(row, level, INT16_MIN * 8, INT16_MAX, COMPRESS_LEVEL_DEFAULT);
    if (ret->compression != COMPRESS_GZIP || n != -1) /* gzip's word for the default */
        ret->level = (int32_t)n;
}

void kafka_broker_config_of(const struct kafka_broker_config *config, const struct kafka_options *options,
                            struct kafka_config_value *ret)
{
    *ret = (struct kafka_config_value){.source = KAFKA_SOURCE_DEFAULT};
    if (config->value)
        ret->value = slice_str(config->value);
    switch ((enum says)config->says) {
    case SAYS_CONSTANT: return;
    case SAYS_ADVERTISED:
        if (options->advertised_host) {
            snprintf(ret->room, sizeof ret->room, "PLAINTEXT://%.40s:%u", options->advertised_host,
                     options->advertised_port);
            ret->value = slice_str(ret->room);
        }
        break;
    case SAYS_LOG_DIR: ret->value = slice_str(options->log_dir); break;
    case SAYS_AUTO_CREATE: ret->value = slice_str(options->auto_create ? "true" : "false"); break;
    case SAYS_NODE_ID: number_into(ret, options->node_id); break;
    case SAYS_IDLE_MS: number_into(ret, options->idle_ms); break;
    case SAYS_BATCH_BYTES: number_into(ret, options->batch_bytes_max); break;
    case SAYS_PARTITIONS: number_into(ret, options->partitions); break;
    case SAYS_REQUEST_BYTES: number_into(ret, options->request_bytes_max); break;
    }
    if (ret->value.ptr && !(config->value && slice_is(ret->value, config->value)))
        ret->source = KAFKA_SOURCE_STATIC;
}
