/* AlterConfigs and IncrementalAlterConfigs: a topic's configs are arguments of its stream, changed by one STREAM_SET each; a group's
 * are the core's, by one GROUP_SET.
 *
 * AlterConfigs says all that a topic is to have: what it does not name goes back to its default. The other one says what is
 * to change. Both are looked through as a whole before anything is asked of the core; one resource that is wrong does not
 * hold up the others.
 */
#include "fmt/amqp_table.h"
#include "proto/kafka/config_table.h"
#include "proto/kafka/errands.h"
#include "proto/kafka/group_asked.h"
#include "proto/kafka/names.h"
#include "proto/kafka/resources.h"
#include "proto/kafka/rows.h"
#include "proto/kafka/topic_rules.h"

enum operation { OP_SET, OP_DELETE, OP_APPEND, OP_SUBTRACT };

struct op { /* one config of a resource */
    struct slice name, value;
    int8_t operation;
};

struct resource { /* as both requests have it */
    int8_t type;
    struct slice name;
    const struct op *ops;
    size_t op_count;
    size_t row;
    int16_t *error_code;
    struct slice *error_message;
    struct slice set, gone; /* what the core is asked for; of a group: rows, and the numbers of settings */
};

struct altering {
    struct kafka_rows rows;
    struct kafka_errands errands;
    struct kafka_groups groups;
    size_t *group_of; /* resources that are groups, in the order of their commands */
    struct resource *resources;
    size_t count;
    bool whole, validate_only, looked; /* whole: AlterConfigs */
};

static bool wrong(struct resource *res, int16_t error, struct slice text)
{
    *res->error_code = error;
    *res->error_message = text;
    return false;
}

static int shown(struct slice s)
{
    return (int)(s.len < 200 ? s.len : 200);
}

/* ---- what may be wrong ---- */

/* Before the topic is looked at. */
static bool check_ops(struct kafka *k, struct kafka_request *r, struct resource *res)
{
    struct slice *names = kafka_more_room(k, r, res->op_count, sizeof *names);
    for (size_t i = 0; names && i < res->op_count; i++)
        names[i] = res->ops[i].name;
    const uint8_t *doubles = names ? kafka_doubles(k, r, names, res->op_count) : NULL;
    if (!doubles)
        return false;
    for (size_t i = 0; i < res->op_count; i++)
        if (doubles[i] != KAFKA_UNIQUE)
            return wrong(res, KAFKA_ERR_INVALID_REQUEST, slice_str("Error due to duplicate config keys"));
    for (size_t i = 0; i < res->op_count; i++) {
        const struct op *op = &res->ops[i];
        if (op->operation < OP_SET || op->operation > OP_SUBTRACT)
            return wrong(res, KAFKA_ERR_UNKNOWN_SERVER_ERROR, (struct slice){0}); /* as Kafka does */
        if (op->operation != OP_DELETE && !op->value.ptr)
            return wrong(res, KAFKA_ERR_INVALID_REQUEST,
                         kafka_text(k, r, "Null value not supported for : %.*s", shown(op->name), op->name.ptr));
    }
    return true;
}

static bool check_broker(struct kafka *k, struct kafka_request *r, struct resource *res)
{
    int16_t error = kafka_broker_fault(k, r, res->name, res->error_message);
    if (error) {
        *res->error_code = error;
        return false;
    }
    if (res->op_count)
        return wrong(res, KAFKA_ERR_INVALID_REQUEST,
                     kafka_text(k, r, "Cannot update these configs dynamically: [%.*s]", shown(res->ops[0].name),
                                res->ops[0].name.ptr));
    return true;
}

/* The rows that are to be set, and the settings that are to go. */
static bool prepare_group(struct kafka *k, struct kafka_request *r, struct resource *res)
{
    static const char *const words[] = {[OP_APPEND] = "APPEND to", [OP_SUBTRACT] = "SUBTRACT from"};
    char text[KAFKA_CONFIG_TEXT];
    size_t len = 0;
    if (!res->name.len)
        return wrong(res, KAFKA_ERR_INVALID_REQUEST, slice_str("Default group resources are not allowed."));
    for (size_t i = 0; i < res->op_count; i++)
        len += 10 + res->ops[i].value.len;
    uint8_t *room = kafka_more_room(k, r, len, 1), *gone = room ? kafka_more_room(k, r, res->op_count, 1) : NULL;
    if (!gone)
        return false;
    struct writer set = writer_of(room, len), keys = writer_of(gone, res->op_count);
    for (size_t i = 0; i < res->op_count; i++) {
        const struct op *op = &res->ops[i];
        const struct kafka_group_config *config = kafka_group_config_find(op->name);
        uint64_t number;
        if (op->operation == OP_APPEND || op->operation == OP_SUBTRACT) /* none is a list */
            return wrong(res, KAFKA_ERR_INVALID_CONFIG,
                         kafka_text(k, r, "Can't %s key %.*s because its type is not LIST.", words[op->operation],
                                    shown(op->name), op->name.ptr));
        if (!config && op->operation == OP_SET)
            return wrong(res, KAFKA_ERR_INVALID_CONFIG,
                         kafka_text(k, r, "Unknown group config name: %.*s", shown(op->name), op->name.ptr));
        if (!config)
            continue;
        if (op->operation == OP_DELETE) {
            writer_u8(&keys, config->setting);
            continue;
        }
        if (!kafka_group_config_check(config, op->value, &number, text, sizeof text))
            return wrong(res, KAFKA_ERR_INVALID_CONFIG, kafka_text(k, r, "%s", text));
        writer_u8(&set, config->setting);
        writer_u64(&set, number);
        writer_str8(&set, op->value);
    }
    res->set = writer_slice(&set);
    res->gone = writer_slice(&keys);
    return true;
}

/* ---- lists ---- */

static bool list_has(struct slice list, struct slice part)
{
    if (list.len == 0)
        return part.len == 0;
    for (size_t at = 0; at <= list.len;) {
        const uint8_t *comma = at < list.len ? memchr(list.ptr + at, ',', list.len - at) : NULL;
        size_t len = comma ? (size_t)(comma - list.ptr) - at : list.len - at;
        if (slice_equal(slice_of(list.ptr + at, len), part))
            return true;
        at += len + 1;
    }
    return false;
}

/* Puts the parts of `from` that are in `to` or not, as wanted. */
static void put_parts(struct writer *w, struct slice from, struct slice to, bool wanted)
{
    for (size_t at = 0; from.len && at <= from.len;) {
        const uint8_t *comma = at < from.len ? memchr(from.ptr + at, ',', from.len - at) : NULL;
        size_t len = comma ? (size_t)(comma - from.ptr) - at : from.len - at;
        struct slice part = slice_of(from.ptr + at, len);
        at += len + 1;
        if (list_has(to, part) != wanted)
            continue;
        if (w->len)
            writer_u8(w, ',');
        writer_slice_put(w, part);
    }
}

/* The list that the topic has, with some more, or without some. ptr NULL: the connection has been dropped. */
static struct slice edit_list(struct kafka *k, struct kafka_request *r, const struct op *op, struct slice current)
{
    size_t len = current.len + op->value.len + 2;
    uint8_t *room = kafka_more_room(k, r, len, 1);
    struct slice none = {0};
    if (!room)
        return none;
    struct writer w = writer_of(room, len);
    if (op->operation == OP_APPEND) {
        put_parts(&w, current, none, false);
        put_parts(&w, op->value, current, false);
    } else
        put_parts(&w, current, op->value, false);
    return writer_slice(&w).ptr ? writer_slice(&w) : slice_of(room, 0);
}

/* ---- what it comes down to ---- */

/* The new value of a config; ptr NULL: its default. False: it is wrong, or the connection has been dropped. */
static bool value_of(struct kafka *k, struct kafka_request *r, struct resource *res, const struct op *op,
                     const struct stream_row *row, const struct kafka_config *config, struct slice *ret)
{
    static const char *const words[] = {[OP_APPEND] = "APPEND", [OP_SUBTRACT] = "SUBTRACT"};
    char text[KAFKA_CONFIG_TEXT];
    struct kafka_config_value current;
    *ret = op->operation == OP_DELETE ? (struct slice){0} : op->value;
    if (op->operation == OP_APPEND || op->operation == OP_SUBTRACT) {
        if (!config || config->type != KAFKA_CONFIG_LIST)
            return wrong(res, KAFKA_ERR_INVALID_CONFIG,
                         kafka_text(k, r, "Can't %s %s key %.*s because its type is not LIST.", words[op->operation],
                                    op->operation == OP_APPEND ? "to" : "from", shown(op->name), op->name.ptr));
        kafka_config_of(config, k->options, row, &current);
        *ret = edit_list(k, r, op, current.value);
    }
    if (op->operation == OP_DELETE)
        return true;
    if (!config)
        return wrong(res, KAFKA_ERR_INVALID_CONFIG,
                     kafka_text(k, r, "Unknown topic config name: %.*s", shown(op->name), op->name.ptr));
    if (ret->ptr && !kafka_config_check(config, *ret, text, sizeof text))
        return wrong(res, KAFKA_ERR_INVALID_CONFIG, kafka_text(k, r, "%s", text));
    return ret->ptr != NULL;
}

static const struct op *op_of(const struct resource *res, const char *name)
{
    for (size_t i = 0; i < res->op_count; i++)
        if (slice_is(res->ops[i].name, name))
            return &res->ops[i];
    return NULL;
}

/* Arguments to be set, and keys to go, of all configs that change. */
static bool compose(struct kafka *k, struct kafka_request *r, struct resource *res, const struct slice *values,
                    bool whole)
{
    size_t len = 0;
    for (size_t i = 0; i < kafka_topic_config_count; i++)
        len += kafka_config_bytes(&kafka_topic_configs[i], values[i]);
    uint8_t *room = kafka_more_room(k, r, len, 1),
            *keys = room ? kafka_more_room(k, r, kafka_topic_config_count, KAFKA_CONFIG_KEYS) : NULL;
    if (!keys)
        return false;
    struct writer set = writer_of(room, len), gone = writer_of(keys, kafka_topic_config_count * KAFKA_CONFIG_KEYS);
    for (size_t i = 0; i < kafka_topic_config_count; i++) {
        const struct kafka_config *config = &kafka_topic_configs[i];
        if (!whole && !op_of(res, config->name))
            continue;
        kafka_config_put(&set, config, values[i]);
        kafka_config_put_keys(&gone, config);
    }
    res->set = writer_slice(&set);
    res->gone = writer_slice(&gone);
    return writer_ok(&set) && writer_ok(&gone);
}

static bool prepare_topic(struct kafka *k, struct kafka_request *r, struct resource *res, const struct stream_row *row,
                          bool whole)
{
    int16_t error = kafka_row_error(row, res->name);
    if (error == KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION)
        return wrong(res, error, kafka_text(k, r, "The topic '%.*s' does not exist.", SLICE_ARG(res->name)));
    if (error)
        return wrong(res, error, slice_str(kafka_error_row(error)->text));
    struct slice *values = kafka_more_room(k, r, kafka_topic_config_count, sizeof *values);
    for (size_t i = 0; values && i < res->op_count; i++) {
        const struct kafka_config *config = kafka_config_find(res->ops[i].name);
        struct slice value;
        if (!value_of(k, r, res, &res->ops[i], row, config, &value))
            return false;
        if (config)
            values[config - kafka_topic_configs] = value;
    }
    return values && compose(k, r, res, values, whole);
}

/* ---- both requests ---- */

static struct ask *alter_ask(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel)
{
    const struct altering *a = r->state;
    const struct resource *res = &a->resources[i];
    struct ask *ask = ask_new(res->name, res->gone, (struct slice){0}, res->set);
    (void)k;
    (void)ret_channel;
    if (ask)
        ask->flags = a->validate_only ? ASK_CHECK_ONLY : 0;
    return ask;
}

static void alter_done(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer)
{
    struct altering *a = r->state;
    enum stream_result result = (enum stream_result)answer->number;
    kafka_topic_forget(k, a->resources[i].name); /* what this connection remembers of it may be wrong now */
    if (result != STREAM_DONE)
        (void)wrong(&a->resources[i], kafka_stream_error(result), kafka_text(k, r, "%.*s", SLICE_ARG(answer->text)));
}

static bool group_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct altering *a = r->state;
    const struct resource *res = &a->resources[a->group_of[i]];
    if (!kafka_group_args(k, r, res->set.len, ret))
        return false;
    writer_slice_put(&ret->args, res->set);
    ret->group = res->name;
    ret->member = res->gone;
    ret->flags = (a->whole ? ASK_MULTIPLE : 0) | (a->validate_only ? ASK_CHECK_ONLY : 0);
    return true;
}

static void groups_done(struct altering *a)
{
    for (size_t i = 0; i < a->groups.count; i++) {
        enum group_error error = a->groups.said[i].error;
        if (error)
            (void)wrong(&a->resources[a->group_of[i]], kafka_group_error(error), (struct slice){0});
    }
}

static const struct kafka_errand_kind altered = {CMD_STREAM_SET, alter_ask, alter_done};

static struct altering *alter_new(struct kafka *k, struct kafka_request *r, size_t count, bool whole,
                                  bool validate_only)
{
    struct altering *a = r->state = kafka_room(k, r, 1, sizeof *a);
    struct resource *resources = a ? kafka_more_room(k, r, count, sizeof *resources) : NULL;
    if (!resources || !kafka_errands_init(k, r, &altered, count, &a->errands))
        return NULL;
    a->resources = resources;
    a->whole = whole;
    a->validate_only = validate_only;
    a->rows.done = true; /* until they are asked for */
    return a;
}

/* Resources are there: each once, then which topics are asked for. */
static bool alter_begin(struct kafka *k, struct kafka_request *r, struct altering *a)
{
    struct slice *names = kafka_more_room(k, r, a->count, sizeof *names);
    struct slice *topics = names ? kafka_more_room(k, r, a->count, sizeof *topics) : NULL;
    if (!topics)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        names[i] = kafka_text(k, r, "%d %.*s", a->resources[i].type, SLICE_ARG(a->resources[i].name));
        if (!names[i].ptr)
            return false;
    }
    const uint8_t *doubles = kafka_doubles(k, r, names, a->count);
    struct kafka_wanted wanted = {.names = topics};
    size_t groups = 0;
    a->group_of = doubles ? kafka_more_room(k, r, a->count, sizeof *a->group_of) : NULL;
    if (!a->group_of)
        return false;
    for (size_t i = 0; doubles && i < a->count; i++) {
        struct resource *res = &a->resources[i];
        if (doubles[i] != KAFKA_UNIQUE)
            (void)wrong(res, KAFKA_ERR_INVALID_REQUEST, slice_str("Each resource must appear at most once."));
        else if (!check_ops(k, r, res))
            continue;
        else if (res->type == KAFKA_RESOURCE_BROKER)
            (void)check_broker(k, r, res);
        else if (res->type == KAFKA_RESOURCE_GROUP) {
            if (prepare_group(k, r, res))
                a->group_of[groups++] = i;
        } else if (res->type != KAFKA_RESOURCE_TOPIC)
            (void)wrong(res, KAFKA_ERR_INVALID_REQUEST, slice_str("There is nothing to set of such a resource here."));
        else {
            res->row = wanted.name_count;
            topics[wanted.name_count++] = res->name;
        }
    }
    return kafka_live(k) && kafka_groups_init(k, r, groups, &a->groups) &&
           kafka_rows_init(k, r, &wanted, false, &a->rows);
}

static void alter_look(struct kafka *k, struct kafka_request *r, struct altering *a)
{
    a->looked = true;
    for (size_t i = 0; i < a->count && kafka_live(k); i++) {
        struct resource *res = &a->resources[i];
        if (*res->error_code || res->type != KAFKA_RESOURCE_TOPIC)
            continue;
        if (prepare_topic(k, r, res, &a->rows.rows[res->row], a->whole) && (res->set.len || res->gone.len))
            kafka_errand_want(&a->errands, i);
    }
}

static enum kafka_progress alter_go(struct kafka *k, struct kafka_request *r)
{
    struct altering *a = r->state;
    if (kafka_rows(k, r, &a->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!a->looked)
        alter_look(k, r, a);
    if (kafka_groups_go(k, r, &a->groups, CMD_GROUP_SET, group_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_done(&a->groups)) /* what was asked fits into no operand */
        groups_done(a);
    return kafka_errands(k, r, &a->errands);
}

static void alter_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct altering *a = r->state;
    if (e->type == EFF_GROUP) {
        if (kafka_groups_effect(k, r, &a->groups, e))
            groups_done(a);
    } else if (a->rows.done)
        kafka_errands_effect(k, r, &a->errands, e);
    else
        kafka_rows_effect(k, r, &a->rows, e);
}

static void alter_drop(struct kafka *k, struct kafka_request *r)
{
    struct altering *a = r->state;
    (void)k;
    if (!a)
        return;
    kafka_rows_drop(&a->rows);
    kafka_groups_drop(&a->groups);
}

/* ---- AlterConfigs ---- */

static bool whole_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_alter_configs_request *asked = r->message;
    struct kafka_alter_configs_response *said = r->response;
    size_t count = asked->resources.count > 0 ? (size_t)asked->resources.count : 0;
    struct altering *a = alter_new(k, r, count, true, asked->validate_only);
    said->responses.at = a ? kafka_more_room(k, r, count, sizeof *said->responses.at) : NULL;
    if (!said->responses.at)
        return false;
    said->responses.count = (int32_t)count;
    for (; a->count < count; a->count++) {
        const struct kafka_alter_configs_request_resource *from = &asked->resources.at[a->count];
        struct kafka_alter_configs_response_resource *to = &said->responses.at[a->count];
        size_t ops = from->configs.count > 0 ? (size_t)from->configs.count : 0;
        struct op *list = kafka_more_room(k, r, ops, sizeof *list);
        if (!list)
            return false;
        for (size_t i = 0; i < ops; i++)
            list[i] = (struct op){from->configs.at[i].name, from->configs.at[i].value, OP_SET};
        *to = (struct kafka_alter_configs_response_resource){.resource_type = from->resource_type,
                                                             .resource_name = from->resource_name};
        a->resources[a->count] = (struct resource){.type = from->resource_type,
                                                   .name = from->resource_name,
                                                   .ops = list,
                                                   .op_count = ops,
                                                   .error_code = &to->error_code,
                                                   .error_message = &to->error_message};
    }
    return alter_begin(k, r, a);
}

static enum kafka_progress alter_configs_go(struct kafka *k, struct kafka_request *r)
{
    return !r->state && !whole_begin(k, r) ? KAFKA_AGAIN : alter_go(k, r);
}

const struct kafka_handler kafka_on_alter_configs = {
    .go = alter_configs_go, .effect = alter_effect, .drop = alter_drop};

/* ---- IncrementalAlterConfigs ---- */

static bool steps_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_incremental_alter_configs_request *asked = r->message;
    struct kafka_incremental_alter_configs_response *said = r->response;
    size_t count = asked->resources.count > 0 ? (size_t)asked->resources.count : 0;
    struct altering *a = alter_new(k, r, count, false, asked->validate_only);
    said->responses.at = a ? kafka_more_room(k, r, count, sizeof *said->responses.at) : NULL;
    if (!said->responses.at)
        return false;
    said->responses.count = (int32_t)count;
    for (; a->count < count; a->count++) {
        const struct kafka_incremental_alter_configs_request_resource *from = &asked->resources.at[a->count];
        struct kafka_incremental_alter_configs_response_resource *to = &said->responses.at[a->count];
        size_t ops = from->configs.count > 0 ? (size_t)from->configs.count : 0;
        struct op *list = kafka_more_room(k, r, ops, sizeof *list);
        if (!list)
            return false;
        for (size_t i = 0; i < ops; i++)
            list[i] =
                (struct op){from->configs.at[i].name, from->configs.at[i].value, from->configs.at[i].config_operation};
        *to = (struct kafka_incremental_alter_configs_response_resource){.resource_type = from->resource_type,
                                                                         .resource_name = from->resource_name};
        a->resources[a->count] = (struct resource){.type = from->resource_type,
                                                   .name = from->resource_name,
                                                   .ops = list,
                                                   .op_count = ops,
                                                   .error_code = &to->error_code,
                                                   .error_message = &to->error_message};
    }
    return alter_begin(k, r, a);
}

static enum kafka_progress incremental_alter_configs_go(struct kafka *k, struct kafka_request *r)
{
    return !r->state && !steps_begin(k, r) ? KAFKA_AGAIN : alter_go(k, r);
}

const struct kafka_handler kafka_on_incremental_alter_configs = {
    .go = incremental_alter_configs_go, .effect = alter_effect, .drop = alter_drop};
