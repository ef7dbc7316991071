/* Arguments of queues and exchanges: what is known, what is allowed, what counts as the same, and how policies join in.
 *
 * Texts and the order of checks follow RabbitMQ (reference queues.md 1.3). Only known keys are validated and compared;
 * unknown keys are kept for listings and ignored otherwise. A key that the type of the queue does not have is refused, and
 * one that comes with a policy does nothing.
 */
#include "core/core_int.h"

#include "base/nearest.h"

#include <stdio.h>

enum arg_check {
    ARG_POSITIVE,
    ARG_TIME,
    ARG_NOT_NEGATIVE,
    ARG_LIMIT,
    ARG_STRING,
    ARG_BOOL,
    ARG_PRIORITY,
    ARG_OVERFLOW,
    ARG_TYPE,
    ARG_MODE,
    ARG_STRATEGY,
    ARG_AGE,
    ARG_COUNT,
    ARG_LOCATOR,
    ARG_PARTITIONS,
    ARG_NAME,
    ARG_RETRY,
    ARG_KEYS,
    ARG_CLEANUP,
    ARG_INTERVAL
};

struct arg_row {
    const char *key;
    enum arg_check check;
    const char *policy_key; /* the same setting in a policy's definition */
    bool minimum;           /* numeric limit: the smaller of argument and policy wins */
    size_t offset;          /* int64 in struct queue_rules; SIZE_MAX: handled by name */
};

#define RULE(field) offsetof(struct queue_rules, field)

static const struct arg_row rows[] = {
    {"x-expires", ARG_POSITIVE, "expires", true, RULE(expires_ms)},
    {"x-message-ttl", ARG_TIME, "message-ttl", true, RULE(message_ttl_ms)},
    {"x-dead-letter-exchange", ARG_STRING, "dead-letter-exchange", false, SIZE_MAX},
    {"x-dead-letter-routing-key", ARG_STRING, "dead-letter-routing-key", false, SIZE_MAX},
    {"x-dead-letter-strategy", ARG_STRATEGY, "dead-letter-strategy", false, SIZE_MAX},
    {"x-max-length", ARG_NOT_NEGATIVE, "max-length", true, RULE(max_length)},
    {"x-max-length-bytes", ARG_NOT_NEGATIVE, "max-length-bytes", true, RULE(max_length_bytes)},
    {"x-max-priority", ARG_PRIORITY, NULL, false, SIZE_MAX},
    {"x-overflow", ARG_OVERFLOW, "overflow", false, SIZE_MAX},
    {"x-queue-mode", ARG_MODE, NULL, false, SIZE_MAX},
    {"x-single-active-consumer", ARG_BOOL, NULL, false, SIZE_MAX},
    {"x-queue-type", ARG_TYPE, NULL, false, SIZE_MAX},
    {"x-delivery-limit", ARG_LIMIT, "delivery-limit", true, RULE(delivery_limit)},
    {"x-message-deduplication", ARG_BOOL, "message-deduplication", false, SIZE_MAX},
    {"x-deduplication-header", ARG_NAME, "deduplication-header", false, SIZE_MAX},
    {"x-cache-size", ARG_KEYS, "cache-size", true, RULE(cache_size)},
    {"x-cache-ttl", ARG_POSITIVE, "cache-ttl", true, RULE(cache_ttl_ms)},
    {"x-delayed-retry-type", ARG_RETRY, "delayed-retry-type", false, SIZE_MAX},
    {"x-delayed-retry-min", ARG_POSITIVE, "delayed-retry-min", true, RULE(retry_min_ms)},
    {"x-delayed-retry-max", ARG_POSITIVE, "delayed-retry-max", true, RULE(retry_max_ms)},
    {"x-delayed-retry-multiplier", ARG_POSITIVE, "delayed-retry-multiplier", true, RULE(retry_multiplier)},
    {"x-consumer-timeout", ARG_POSITIVE, "consumer-timeout", true, RULE(consumer_timeout_ms)},
    {"x-max-age", ARG_AGE, "max-age", false, SIZE_MAX},
    {"x-stream-max-segment-size-bytes", ARG_NOT_NEGATIVE, "stream-max-segment-size-bytes", false, RULE(segment_bytes)},
    {"x-stream-length-kept", ARG_BOOL, "stream-length-kept", false, SIZE_MAX},
    {"x-stream-partitions", ARG_PARTITIONS, NULL, false, RULE(partitions)},
    {"x-cleanup-policy", ARG_CLEANUP, "cleanup-policy", false, SIZE_MAX},
    {"x-min-compaction-lag", ARG_INTERVAL, "min-compaction-lag", false, SIZE_MAX},
    {"x-delete-retention", ARG_INTERVAL, "delete-retention", false, SIZE_MAX},
    {"x-initial-cluster-size", ARG_COUNT, NULL, false, SIZE_MAX},
    {"x-queue-leader-locator", ARG_LOCATOR, NULL, false, SIZE_MAX},
};

#define OF(type) (1u << QUEUE_##type)

/* Keys that not all types of queue have. */
static const struct {
    const char *key;
    unsigned types;
} typed[] = {
    {"x-expires", OF(CLASSIC) | OF(QUORUM)},
    {"x-message-ttl", OF(CLASSIC) | OF(QUORUM)},
    {"x-dead-letter-exchange", OF(CLASSIC) | OF(QUORUM)},
    {"x-dead-letter-routing-key", OF(CLASSIC) | OF(QUORUM)},
    {"x-dead-letter-strategy", OF(CLASSIC) | OF(QUORUM)},
    {"x-max-length", OF(CLASSIC) | OF(QUORUM)},
    {"x-max-priority", OF(CLASSIC)},
    {"x-overflow", OF(CLASSIC) | OF(QUORUM)},
    {"x-queue-mode", OF(CLASSIC) | OF(QUORUM)},
    {"x-single-active-consumer", OF(CLASSIC) | OF(QUORUM)},
    {"x-delivery-limit", OF(CLASSIC) | OF(QUORUM)},
    {"x-message-deduplication", OF(CLASSIC) | OF(QUORUM)},
    {"x-delayed-retry-type", OF(CLASSIC) | OF(QUORUM)},
    {"x-delayed-retry-min", OF(CLASSIC) | OF(QUORUM)},
    {"x-max-age", OF(STREAM)},
    {"x-stream-max-segment-size-bytes", OF(STREAM)},
    {"x-stream-length-kept", OF(STREAM)},
    {"x-stream-partitions", OF(STREAM)},
    {"x-cleanup-policy", OF(STREAM)},
    {"x-min-compaction-lag", OF(STREAM)},
    {"x-delete-retention", OF(STREAM)},
    {"x-initial-cluster-size", OF(STREAM)},
};

static const char *const type_names[] = {
    [QUEUE_CLASSIC] = "rabbit_classic_queue",
    [QUEUE_QUORUM] = "rabbit_quorum_queue",
    [QUEUE_STREAM] = "rabbit_stream_queue",
};

const char *const queue_arg_keys[] = {"x-expires",
                                      "x-message-ttl",
                                      "x-dead-letter-exchange",
                                      "x-dead-letter-routing-key",
                                      "x-dead-letter-strategy",
                                      "x-max-length",
                                      "x-max-length-bytes",
                                      "x-max-priority",
                                      "x-overflow",
                                      "x-queue-mode",
                                      "x-single-active-consumer",
                                      "x-queue-type",
                                      "x-delivery-limit",
                                      "x-max-age",
                                      "x-stream-max-segment-size-bytes",
                                      "x-stream-length-kept",
                                      "x-stream-partitions",
                                      "x-cleanup-policy",
                                      "x-min-compaction-lag",
                                      "x-delete-retention",
                                      "x-initial-cluster-size",
                                      "x-queue-leader-locator",
                                      "x-message-deduplication",
                                      "x-deduplication-header",
                                      "x-cache-size",
                                      "x-cache-ttl",
                                      "x-delayed-retry-type",
                                      "x-delayed-retry-min",
                                      "x-delayed-retry-max",
                                      "x-delayed-retry-multiplier",
                                      NULL};

const char *const exchange_arg_keys[] = {"alternate-exchange", NULL};

static enum retry_type retry_type_of(struct slice text)
{
    return slice_is(text, "disabled")   ? RETRY_DISABLED
           : slice_is(text, "all")      ? RETRY_ALL
           : slice_is(text, "failed")   ? RETRY_FAILED
           : slice_is(text, "returned") ? RETRY_RETURNED
                                        : RETRY_UNSET;
}

/* As Kafka writes cleanup.policy. */
static enum cleanup cleanup_of(struct slice text)
{
    return slice_is(text, "delete")                                               ? CLEANUP_DELETE
           : slice_is(text, "compact")                                            ? CLEANUP_COMPACT
           : slice_is(text, "compact,delete") || slice_is(text, "delete,compact") ? CLEANUP_BOTH
                                                                                  : CLEANUP_UNSET;
}

/* Says what is wrong with a value, in RabbitMQ's words; an empty text means that it is fine. */
static void check_value(enum arg_check check, const struct amqp_value *v, char *why, size_t len)
{
    why[0] = '\0';
    switch (check) {
    case ARG_POSITIVE:
    case ARG_TIME:
    case ARG_NOT_NEGATIVE:
    case ARG_LIMIT:
    case ARG_COUNT:
    case ARG_PARTITIONS:
    case ARG_PRIORITY:
    case ARG_KEYS:
        if (!amqp_value_is_int(v))
            snprintf(why, len, "\"expected integer, got %s\"", amqp_type_name(v->type));
        else if ((check == ARG_POSITIVE || check == ARG_COUNT || check == ARG_KEYS) && v->i == 0)
            snprintf(why, len, "{value_zero,0}");
        else if (v->i < 0 && !(check == ARG_LIMIT && v->i == -1))
            snprintf(why, len, "{value_negative,%lld}", (long long)v->i);
        else if ((check == ARG_PRIORITY && v->i > 255) || (check == ARG_KEYS && v->i > DEDUP_KEYS_MAX))
            snprintf(why, len, "{max_value_exceeded,%lld}", (long long)v->i);
        else if (check == ARG_PARTITIONS && (v->i < 1 || v->i > STREAM_PARTITIONS_MAX))
            snprintf(why, len, "a stream has 1 to %u partitions", STREAM_PARTITIONS_MAX);
        else if ((check == ARG_TIME || check == ARG_POSITIVE) && v->i > TIME_MS_MAX)
            snprintf(why, len, "{value_too_large,%lld}", (long long)v->i);
        break;
    case ARG_BOOL:
        if (v->type != 't')
            snprintf(why, len, "{unacceptable_type,%s}", amqp_type_name(v->type));
        break;
    case ARG_STRING:
    case ARG_OVERFLOW:
    case ARG_TYPE:
    case ARG_MODE:
    case ARG_STRATEGY:
    case ARG_AGE:
    case ARG_LOCATOR:
    case ARG_NAME:
    case ARG_RETRY:
    case ARG_CLEANUP:
    case ARG_INTERVAL:
        if (!amqp_value_is_str(v))
            snprintf(why, len, "{unacceptable_type,%s}", amqp_type_name(v->type));
        else if (check == ARG_OVERFLOW && !slice_is(v->s, "drop-head") && !slice_is(v->s, "reject-publish") &&
                 !slice_is(v->s, "reject-publish-dlx"))
            snprintf(why, len, "invalid_overflow");
        else if (check == ARG_TYPE && !slice_is(v->s, "classic") && !slice_is(v->s, "quorum") &&
                 !slice_is(v->s, "stream"))
            snprintf(why, len, "\"unsupported queue type '%.*s'\"", SLICE_ARG(v->s));
        else if (check == ARG_MODE && !slice_is(v->s, "default") && !slice_is(v->s, "lazy"))
            snprintf(why, len, "\"unsupported queue mode '%.*s'\"", SLICE_ARG(v->s));
        else if (check == ARG_STRATEGY && !slice_is(v->s, "at-most-once") && !slice_is(v->s, "at-least-once"))
            snprintf(why, len, "invalid_dlx_strategy");
        else if (check == ARG_AGE && !age_parse(v->s, &(int64_t){0}))
            snprintf(why, len, "invalid_max_age");
        else if (check == ARG_LOCATOR && !slice_is(v->s, "client-local") && !slice_is(v->s, "balanced") &&
                 !slice_is(v->s, "random") && !slice_is(v->s, "least-leaders"))
            snprintf(why, len, "invalid_queue_locator_arg");
        else if (check == ARG_RETRY && retry_type_of(v->s) == RETRY_UNSET)
            snprintf(why, len, "\"unsupported retry type '%.*s'\"", SLICE_ARG(v->s));
        else if (check == ARG_CLEANUP && cleanup_of(v->s) == CLEANUP_UNSET)
            snprintf(why, len, "\"expected delete, compact or compact,delete, got '%.*s'\"", SLICE_ARG(v->s));
        else if (check == ARG_INTERVAL && !age_parse(v->s, &(int64_t){0}))
            snprintf(why, len, "\"expected an interval such as 10m, 1h or 7D, got '%.*s'\"", SLICE_ARG(v->s));
        else if (check == ARG_NAME && v->s.len == 0)
            snprintf(why, len, "\"expected the name of a header\"");
        break;
    }
}

static void take_value(const struct arg_row *row, const struct amqp_value *v, struct queue_rules *r)
{
    if (row->offset != SIZE_MAX) {
        int64_t *field = (int64_t *)(void *)((char *)r + row->offset);
        if (*field < 0 || !row->minimum || v->i < *field)
            *field = v->i;
        return;
    }
    if (strcmp(row->key, "x-dead-letter-exchange") == 0 && !r->has_dlx) {
        r->dlx = v->s;
        r->has_dlx = true;
    } else if (strcmp(row->key, "x-dead-letter-routing-key") == 0 && !r->has_dlk) {
        r->dlk = v->s;
        r->has_dlk = true;
    } else if (strcmp(row->key, "x-dead-letter-strategy") == 0 && !r->has_strategy) {
        r->at_least_once = slice_is(v->s, "at-least-once");
        r->has_strategy = true;
    } else if (strcmp(row->key, "x-message-deduplication") == 0 && !r->has_dedup) {
        r->dedup = v->i != 0;
        r->has_dedup = true;
    } else if (strcmp(row->key, "x-deduplication-header") == 0 && !r->dedup_header.len)
        r->dedup_header = v->s;
    else if (strcmp(row->key, "x-delayed-retry-type") == 0 && r->retry_type == RETRY_UNSET)
        r->retry_type = retry_type_of(v->s);
    else if (strcmp(row->key, "x-max-priority") == 0)
        r->max_priority = (uint8_t)v->i;
    else if (strcmp(row->key, "x-single-active-consumer") == 0)
        r->single_active = v->i != 0;
    else if (strcmp(row->key, "x-stream-length-kept") == 0 && !r->has_length_kept) {
        r->length_kept = v->i != 0;
        r->has_length_kept = true;
    } else if (strcmp(row->key, "x-max-age") == 0) {
        if (r->max_age_ms < 0)
            CHECK(age_parse(v->s, &r->max_age_ms)); /* it was checked */
    } else if (strcmp(row->key, "x-cleanup-policy") == 0) {
        if (r->cleanup == CLEANUP_UNSET)
            r->cleanup = cleanup_of(v->s);
    } else if (strcmp(row->key, "x-min-compaction-lag") == 0) {
        if (r->min_lag_ms < 0)
            CHECK(age_parse(v->s, &r->min_lag_ms));
    } else if (strcmp(row->key, "x-delete-retention") == 0) {
        if (r->tombstone_ms < 0)
            CHECK(age_parse(v->s, &r->tombstone_ms));
    } else if (strcmp(row->key, "x-overflow") == 0 && r->overflow == OVERFLOW_DROP_HEAD)
        r->overflow = slice_is(v->s, "reject-publish")       ? OVERFLOW_REJECT
                      : slice_is(v->s, "reject-publish-dlx") ? OVERFLOW_REJECT_DLX
                                                             : OVERFLOW_DROP_HEAD;
}

static void nothing_set(struct queue_rules *r)
{
    *r = (struct queue_rules){.message_ttl_ms = -1,
                              .expires_ms = -1,
                              .max_length = -1,
                              .max_length_bytes = -1,
                              .delivery_limit = -1,
                              .cache_size = -1,
                              .cache_ttl_ms = -1,
                              .retry_min_ms = -1,
                              .retry_max_ms = -1,
                              .retry_multiplier = -1,
                              .consumer_timeout_ms = -1,
                              .max_age_ms = -1,
                              .min_lag_ms = -1,
                              .tombstone_ms = -1,
                              .segment_bytes = -1,
                              .partitions = -1};
}

bool queue_type_has(enum queue_type type, const char *key)
{
    for (size_t i = 0; i < ARRAY_LEN(typed); i++)
        if (strcmp(typed[i].key, key) == 0)
            return typed[i].types & 1u << type;
    return true;
}

const char *queue_type_module(enum queue_type type)
{
    return type_names[type];
}

static enum queue_type type_of(struct slice args)
{
    struct amqp_value v;
    if (!amqp_table_find(args, "x-queue-type", &v) || !amqp_value_is_str(&v))
        return QUEUE_CLASSIC;
    return slice_is(v.s, "quorum") ? QUEUE_QUORUM : slice_is(v.s, "stream") ? QUEUE_STREAM : QUEUE_CLASSIC;
}

bool queue_args_check(struct slice args, struct slice queue, struct slice vhost, struct queue_rules *ret, char *text,
                      size_t text_len)
{
    nothing_set(ret);
    if (args.len == 0)
        return true;
    ret->type = type_of(args);
    char why[200];
    struct amqp_value v;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (!queue_type_has(ret->type, rows[i].key) || !amqp_table_find(args, rows[i].key, &v))
            continue;
        check_value(rows[i].check, &v, why, sizeof why);
        if (!why[0] && strcmp(rows[i].key, "x-dead-letter-routing-key") == 0 &&
            !amqp_table_find(args, "x-dead-letter-exchange", &(struct amqp_value){0}))
            snprintf(why, sizeof why, "routing_key_but_no_dlx_defined");
        if (why[0]) {
            snprintf(text, text_len, "invalid arg '%s' for queue '%.*s' in vhost '%.*s': %s", rows[i].key,
                     SLICE_ARG(queue), SLICE_ARG(vhost), why);
            return false;
        }
        take_value(&rows[i], &v, ret);
    }
    for (size_t i = 0; i < ARRAY_LEN(typed); i++)
        if (!queue_type_has(ret->type, typed[i].key) && amqp_table_find(args, typed[i].key, &v)) {
            snprintf(text, text_len, "invalid arg '%s' for queue '%.*s' in vhost '%.*s' of queue type %s", typed[i].key,
                     SLICE_ARG(queue), SLICE_ARG(vhost), queue_type_module(ret->type));
            return false;
        }
    return true;
}

/* What RabbitMQ knows, and what means nothing here: definitions that come from there have it. */
static const char *const policy_keys_ignored[] = {"ha-mode",
                                                  "ha-params",
                                                  "ha-sync-mode",
                                                  "ha-sync-batch-size",
                                                  "ha-promote-on-shutdown",
                                                  "ha-promote-on-failure",
                                                  "queue-mode",
                                                  "queue-version",
                                                  "queue-master-locator",
                                                  "queue-leader-locator",
                                                  "initial-cluster-size",
                                                  "target-group-size",
                                                  "max-in-memory-length",
                                                  "max-in-memory-bytes",
                                                  "stream-filter-size-bytes",
                                                  "federation-upstream",
                                                  "federation-upstream-set",
                                                  "federation-upstream-pattern",
                                                  "shards-per-node",
                                                  "routing-key",
                                                  "consumer-disconnected-timeout",
                                                  "member-placement-tag"};

/* Each of those that policies have; NULL: that was all. */
static const char *policy_key_next(size_t *at)
{
    for (; *at < ARRAY_LEN(rows); ++*at)
        if (rows[*at].policy_key)
            return rows[(*at)++].policy_key;
    return exchange_arg_keys[(*at)++ - ARRAY_LEN(rows)];
}

enum policy_key policy_key_of(struct slice key, char *text, size_t text_len)
{
    struct nearest nearest = nearest_of(key);
    const char *known;
    for (size_t at = 0; (known = policy_key_next(&at));)
        if (slice_is(key, known))
            return POLICY_KEY_KNOWN;
    for (size_t i = 0; i < ARRAY_LEN(policy_keys_ignored); i++)
        if (slice_is(key, policy_keys_ignored[i]))
            return POLICY_KEY_IGNORED;
    for (size_t at = 0; (known = policy_key_next(&at));)
        nearest_try(&nearest, slice_str(known));
    bool meant = nearest_found(&nearest);
    snprintf(text, text_len, "'%.*s' is not a recognised policy setting%s%.*s%s", SLICE_ARG(key),
             meant ? "; did you mean '" : "", SLICE_ARG(nearest.best), meant ? "'?" : "");
    return POLICY_KEY_UNKNOWN;
}

bool policy_keys_check(struct slice definition, char *text, size_t text_len)
{
    struct reader r = reader_of(definition);
    struct amqp_field field;
    while (amqp_table_next(&r, &field))
        if (policy_key_of(field.name, text, text_len) == POLICY_KEY_UNKNOWN)
            return false;
    return true;
}

static void add_policy(const struct policy *policy, struct queue_rules *r)
{
    struct amqp_value v;
    char why[200];
    for (size_t i = 0; policy && i < ARRAY_LEN(rows); i++) {
        if (!rows[i].policy_key || !queue_type_has(r->type, rows[i].key) ||
            !amqp_table_find(policy->definition, rows[i].policy_key, &v))
            continue;
        check_value(rows[i].check, &v, why, sizeof why);
        if (!why[0])
            take_value(&rows[i], &v, r);
    }
}

/* Arguments, then policy, then operator policy: numbers take the smallest, for the rest the first that is set wins. */
void queue_rules_resolve(const struct queue *q, struct queue_rules *ret)
{
    char text[ERROR_TEXT_MAX];
    if (!queue_args_check(q->args, q->name, q->vhost->name, ret, text, sizeof text)) {
        /* An older journal may hold arguments that are refused today: what is right of them counts. */
    }
    add_policy(q->policy, ret);
    add_policy(q->operator_policy, ret);
    if (ret->type == QUEUE_STREAM) { /* of a policy for all queues */
        ret->dedup = false;
        ret->retry_min_ms = -1;
    }
    if (ret->type == QUEUE_QUORUM && ret->delivery_limit < 0 &&
        !amqp_table_find(q->args, "x-delivery-limit", &(struct amqp_value){0}))
        ret->delivery_limit = 20;
}

/* RabbitMQ's rule: a key that only one side has differs, except that x-queue-type classic is the same as absent. */
bool args_equivalent(const char *what, struct slice name, struct slice vhost, struct slice asked, struct slice current,
                     const char *const *keys, char *text, size_t text_len)
{
    for (; *keys; keys++) {
        struct amqp_value a = {0}, c = {0};
        bool has_a = amqp_table_find(asked, *keys, &a), has_c = amqp_table_find(current, *keys, &c);
        if (strcmp(*keys, "x-queue-type") == 0) {
            has_a = has_a && !(amqp_value_is_str(&a) && slice_is(a.s, "classic"));
            has_c = has_c && !(amqp_value_is_str(&c) && slice_is(c.s, "classic"));
        }
        if (has_a == has_c && (!has_a || amqp_value_equal(&a, &c)))
            continue;
        char got[120] = "none", have[120] = "none", value[80];
        if (has_a && has_c) {
            amqp_value_print(&a, got, sizeof got);
            amqp_value_print(&c, have, sizeof have);
        } else if (has_a) {
            amqp_value_print(&a, value, sizeof value);
            snprintf(got, sizeof got, "the value %s of type '%s'", value, amqp_type_name(a.type));
        } else if (has_c) {
            amqp_value_print(&c, value, sizeof value);
            snprintf(have, sizeof have, "the value %s of type '%s'", value, amqp_type_name(c.type));
        }
        snprintf(text, text_len, "inequivalent arg '%s' for %s '%.*s' in vhost '%.*s': received %s but current is %s",
                 *keys, what, SLICE_ARG(name), SLICE_ARG(vhost), got, have);
        return false;
    }
    return true;
}
