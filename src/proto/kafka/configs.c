/* DescribeConfigs and ListConfigResources: what governs topics, groups and this broker; configs.def has what there is. */
#include "base/mem.h"
#include "proto/kafka/config_table.h"
#include "proto/kafka/errands.h"
#include "proto/kafka/group_asked.h"
#include "proto/kafka/resources.h"
#include "proto/kafka/rows.h"
#include "proto/kafka/topic_rules.h"

/* ---- DescribeConfigs ---- */

struct describing {
    struct kafka_rows rows; /* of the topics among the resources */
    size_t *row_of;         /* by resource: of rows, or of groups */
    struct kafka_groups groups;
    struct slice *group_names; /* by command */
    const uint8_t *doubles;    /* who asks twice for everything is answered once */
};

static bool is_wanted(const struct kafka_describe_configs_request_resource *asked, const char *name)
{
    for (int32_t i = 0; i < asked->configuration_keys.count; i++)
        if (slice_is(asked->configuration_keys.at[i], name))
            return true;
    return asked->configuration_keys.count < 1;
}

/* So many are said at most: what is made for an answer is no more than the request's own length would have it. */
static size_t most_of(const struct kafka_describe_configs_request_resource *asked, size_t all)
{
    return asked->configuration_keys.count > 0 && (size_t)asked->configuration_keys.count < all
               ? (size_t)asked->configuration_keys.count
               : all;
}

/* The value, then what it would be without that. */
static bool say_synonyms(struct kafka *k, struct kafka_request *r, const struct kafka_config *config,
                         const struct kafka_config_value *value, const struct kafka_config_value *otherwise,
                         struct kafka_describe_configs_response_config *said)
{
    said->synonyms.at = kafka_more_room(k, r, 2, sizeof *said->synonyms.at);
    if (!said->synonyms.at)
        return false;
    if (value->source == KAFKA_SOURCE_TOPIC)
        said->synonyms.at[said->synonyms.count++] =
            (struct kafka_describe_configs_response_synonym){slice_str(config->name), value->value, KAFKA_SOURCE_TOPIC};
    if (config->broker_name)
        said->synonyms.at[said->synonyms.count++] = (struct kafka_describe_configs_response_synonym){
            slice_str(config->broker_name), otherwise->value, (int8_t)otherwise->source};
    return true;
}

static bool say_topic(struct kafka *k, struct kafka_request *r, const struct stream_row *row,
                      const struct kafka_describe_configs_request_resource *asked,
                      struct kafka_describe_configs_response_result *said)
{
    const struct kafka_describe_configs_request *all = r->message;
    size_t most = most_of(asked, kafka_topic_config_count);
    struct kafka_config_value *values = kafka_more_room(k, r, 2 * most, sizeof *values);
    said->configs.at = values ? kafka_more_room(k, r, most, sizeof *said->configs.at) : NULL;
    for (size_t i = 0; said->configs.at && i < kafka_topic_config_count; i++) {
        const struct kafka_config *config = &kafka_topic_configs[i];
        if (!is_wanted(asked, config->name))
            continue;
        struct kafka_config_value *value = &values[2 * said->configs.count], *otherwise = value + 1;
        kafka_config_of(config, k->options, row, value);
        kafka_config_of(config, k->options, NULL, otherwise);
        struct kafka_describe_configs_response_config *one = &said->configs.at[said->configs.count++];
        *one = (struct kafka_describe_configs_response_config){.name = slice_str(config->name),
                                                               .value = value->value,
                                                               .is_default = value->source == KAFKA_SOURCE_DEFAULT,
                                                               .config_source = (int8_t)value->source,
                                                               .config_type = (int8_t)config->type};
        if (all->include_documentation)
            one->documentation = slice_str(config->documentation);
        if (all->include_synonyms && !say_synonyms(k, r, config, value, otherwise, one))
            return false;
    }
    return said->configs.at != NULL;
}

static bool say_broker(struct kafka *k, struct kafka_request *r,
                       const struct kafka_describe_configs_request_resource *asked,
                       struct kafka_describe_configs_response_result *said)
{
    const struct kafka_describe_configs_request *all = r->message;
    size_t most = most_of(asked, kafka_broker_config_count);
    struct kafka_config_value *values = kafka_more_room(k, r, most, sizeof *values);
    said->configs.at = values ? kafka_more_room(k, r, most, sizeof *said->configs.at) : NULL;
    for (size_t i = 0; said->configs.at && i < kafka_broker_config_count; i++) {
        const struct kafka_broker_config *config = &kafka_broker_configs[i];
        if (!is_wanted(asked, config->name))
            continue;
        struct kafka_config_value *value = &values[said->configs.count];
        kafka_broker_config_of(config, k->options, value);
        struct kafka_describe_configs_response_config *one = &said->configs.at[said->configs.count++];
        *one = (struct kafka_describe_configs_response_config){.name = slice_str(config->name),
                                                               .value = value->value,
                                                               .read_only = true,
                                                               .is_default = value->source == KAFKA_SOURCE_DEFAULT,
                                                               .config_source = (int8_t)value->source,
                                                               .config_type = (int8_t)config->type};
        if (all->include_documentation)
            one->documentation = slice_str(config->documentation);
        if (!all->include_synonyms || !value->value.ptr)
            continue;
        one->synonyms.at = kafka_more_room(k, r, 1, sizeof *one->synonyms.at);
        if (!one->synonyms.at)
            return false;
        one->synonyms.count = 1;
        one->synonyms.at[0] =
            (struct kafka_describe_configs_response_synonym){one->name, one->value, one->config_source};
    }
    return said->configs.at != NULL;
}

/* What was set, and what it would be without that. */
static bool say_group_synonyms(struct kafka *k, struct kafka_request *r, const struct kafka_config *config,
                               struct kafka_describe_configs_response_config *said)
{
    said->synonyms.at = kafka_more_room(k, r, 2, sizeof *said->synonyms.at);
    if (!said->synonyms.at)
        return false;
    if (said->config_source == KAFKA_SOURCE_GROUP)
        said->synonyms.at[said->synonyms.count++] =
            (struct kafka_describe_configs_response_synonym){said->name, said->value, KAFKA_SOURCE_GROUP};
    said->synonyms.at[said->synonyms.count++] = (struct kafka_describe_configs_response_synonym){
        slice_str(config->broker_name ? config->broker_name : config->name), slice_str(config->otherwise),
        KAFKA_SOURCE_DEFAULT};
    return true;
}

/* What was set of it; ptr NULL: nothing. */
static struct slice group_value(struct reader rows, uint8_t setting)
{
    while (rows.left) {
        uint8_t which = reader_u8(&rows);
        (void)reader_u64(&rows);
        struct slice text = reader_str8(&rows);
        if (which == setting)
            return text.ptr ? text : slice_str("");
    }
    return (struct slice){0};
}

static bool say_group(struct kafka *k, struct kafka_request *r, const struct kafka_group_said *one,
                      const struct kafka_describe_configs_request_resource *asked,
                      struct kafka_describe_configs_response_result *said)
{
    const struct kafka_describe_configs_request *all = r->message;
    said->configs.at = kafka_more_room(k, r, most_of(asked, kafka_group_config_count), sizeof *said->configs.at);
    for (size_t i = 0; said->configs.at && i < kafka_group_config_count; i++) {
        const struct kafka_config *config = &kafka_group_configs[i].config;
        if (!is_wanted(asked, config->name))
            continue;
        struct slice value = group_value(kafka_group_fields(one), kafka_group_configs[i].setting);
        struct kafka_describe_configs_response_config *row = &said->configs.at[said->configs.count++];
        *row = (struct kafka_describe_configs_response_config){
            .name = slice_str(config->name),
            .value = value.ptr ? value : slice_str(config->otherwise),
            .is_default = !value.ptr,
            .config_source = (int8_t)(value.ptr ? KAFKA_SOURCE_GROUP : KAFKA_SOURCE_DEFAULT),
            .config_type = (int8_t)config->type};
        if (all->include_documentation)
            row->documentation = slice_str(config->documentation);
        if (all->include_synonyms && !say_group_synonyms(k, r, config, row))
            return false;
    }
    return said->configs.at != NULL;
}

/* What it is, or what is wrong with it. False: the connection has been dropped. */
static bool say_resource(struct kafka *k, struct kafka_request *r, const struct describing *d, size_t i,
                         struct kafka_describe_configs_response_result *said)
{
    const struct kafka_describe_configs_request *all = r->message;
    const struct kafka_describe_configs_request_resource *asked = &all->resources.at[i];
    kafka_defaults(&kafka_describe_configs_response_result_table, said);
    said->resource_type = asked->resource_type;
    said->resource_name = asked->resource_name;
    switch (asked->resource_type) {
    case KAFKA_RESOURCE_TOPIC: {
        const struct stream_row *row = &d->rows.rows[d->row_of[i]];
        said->error_code = kafka_row_error(row, asked->resource_name);
        if (said->error_code == KAFKA_ERR_INVALID_TOPIC_EXCEPTION) {
            char text[1200];
            kafka_topic_name_fault(asked->resource_name, text, sizeof text);
            said->error_message = kafka_text(k, r, "%s", text);
        }
        return said->error_code || say_topic(k, r, row, asked, said);
    }
    case KAFKA_RESOURCE_BROKER:
        said->error_code = kafka_broker_fault(k, r, asked->resource_name, &said->error_message);
        if (said->error_code || asked->resource_name.len == 0) /* of all brokers together nothing is set */
            return kafka_live(k);
        return say_broker(k, r, asked, said);
    case KAFKA_RESOURCE_BROKER_LOGGER:
    case KAFKA_RESOURCE_CLIENT_METRICS: return true; /* there are none */
    case KAFKA_RESOURCE_GROUP: {
        if (!asked->resource_name.len) {
            said->error_code = KAFKA_ERR_INVALID_REQUEST;
            said->error_message = slice_str("Group name must not be empty");
            return true;
        }
        const struct kafka_group_said *one = &d->groups.said[d->row_of[i]];
        said->error_code = kafka_group_error(one->error);
        return said->error_code || say_group(k, r, one, asked, said);
    }
    default:
        said->error_code = KAFKA_ERR_INVALID_REQUEST;
        said->error_message = slice_str("There is no such type of resource.");
        return true;
    }
}

static bool describe_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_configs_request *asked = r->message;
    size_t count = asked->resources.count > 0 ? (size_t)asked->resources.count : 0;
    struct describing *d = r->state = kafka_room(k, r, 1, sizeof *d);
    struct slice *names = d ? kafka_more_room(k, r, count, sizeof *names) : NULL;
    size_t *row_of = names ? kafka_more_room(k, r, count, sizeof *row_of) : NULL;
    if (!row_of)
        return false;
    d->row_of = row_of;
    for (size_t i = 0; i < count; i++) {
        struct slice name = asked->resources.at[i].resource_name;
        names[i] = kafka_text(k, r, "%d %.*s", asked->resources.at[i].resource_type, SLICE_ARG(name));
        if (!names[i].ptr)
            return false;
    }
    d->doubles = kafka_doubles(k, r, names, count);
    struct kafka_wanted wanted = {.names = names};
    size_t groups = 0;
    d->group_names = d->doubles ? kafka_more_room(k, r, count, sizeof *d->group_names) : NULL;
    for (size_t i = 0; d->group_names && i < count; i++)
        if (asked->resources.at[i].resource_type == KAFKA_RESOURCE_TOPIC) {
            row_of[i] = wanted.name_count;
            names[wanted.name_count++] = asked->resources.at[i].resource_name;
        } else if (asked->resources.at[i].resource_type == KAFKA_RESOURCE_GROUP &&
                   asked->resources.at[i].resource_name.len) {
            row_of[i] = groups;
            d->group_names[groups++] = asked->resources.at[i].resource_name;
        }
    return d->group_names && kafka_groups_init(k, r, groups, &d->groups) &&
           kafka_rows_init(k, r, &wanted, false, &d->rows);
}

static bool group_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct describing *d = r->state;
    (void)k;
    ret->group = d->group_names[i];
    return true;
}

static bool is_superfluous(const struct kafka_describe_configs_request *asked, const struct describing *d, size_t i)
{
    return d->doubles[i] == KAFKA_LATER && asked->resources.at[i].configuration_keys.count < 1;
}

static enum kafka_progress describe_configs_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_configs_request *asked = r->message;
    struct kafka_describe_configs_response *said = r->response;
    if (!r->state && !describe_begin(k, r))
        return KAFKA_AGAIN;
    struct describing *d = r->state;
    if (kafka_rows(k, r, &d->rows) == KAFKA_AGAIN ||
        kafka_groups_go(k, r, &d->groups, CMD_GROUP_CONFIGS, group_make) == KAFKA_AGAIN ||
        !kafka_groups_done(&d->groups))
        return KAFKA_AGAIN;
    size_t count = asked->resources.count > 0 ? (size_t)asked->resources.count : 0;
    said->results.at = kafka_more_room(k, r, count, sizeof *said->results.at);
    for (size_t i = 0; said->results.at && i < count; i++)
        if (!is_superfluous(asked, d, i) && !say_resource(k, r, d, i, &said->results.at[said->results.count++]))
            break;
    return KAFKA_SENT;
}

static void describe_configs_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct describing *d = r->state;
    if (e->type == EFF_GROUP)
        (void)kafka_groups_effect(k, r, &d->groups, e);
    else
        kafka_rows_effect(k, r, &d->rows, e);
}

static void describe_configs_drop(struct kafka *k, struct kafka_request *r)
{
    struct describing *d = r->state;
    (void)k;
    if (!d)
        return;
    kafka_rows_drop(&d->rows);
    kafka_groups_drop(&d->groups);
}

const struct kafka_handler kafka_on_describe_configs = {
    .go = describe_configs_go, .effect = describe_configs_effect, .drop = describe_configs_drop};

/* ---- ListConfigResources ---- */

struct group_part { /* names of groups, as the core said them */
    struct answer *answer;
    struct group_part *next;
};

struct listing {
    struct kafka_rows rows;
    bool topics, brokers, loggers;
    bool groups, asked; /* they are still to be asked for; that is under way */
    size_t group_count;
    struct slice behind;
    struct group_part *first;
};

static bool list_types(const struct kafka_request *r, struct listing *l)
{
    const struct kafka_list_config_resources_request *asked = r->message;
    if (r->form.version == 0)
        return true; /* which knows client metrics only */
    l->topics = l->brokers = l->loggers = l->groups = asked->resource_types.count < 1;
    for (int32_t i = 0; i < asked->resource_types.count; i++)
        switch (asked->resource_types.at[i]) {
        case KAFKA_RESOURCE_TOPIC: l->topics = true; break;
        case KAFKA_RESOURCE_BROKER: l->brokers = true; break;
        case KAFKA_RESOURCE_BROKER_LOGGER: l->loggers = true; break;
        case KAFKA_RESOURCE_GROUP: l->groups = true; break;
        case KAFKA_RESOURCE_CLIENT_METRICS: break;
        default: return false;
        }
    return true;
}

static bool list_begin(struct kafka *k, struct kafka_request *r)
{
    struct kafka_list_config_resources_response *said = r->response;
    struct listing *l = r->state = kafka_room(k, r, 1, sizeof *l);
    if (!l)
        return false;
    if (!list_types(r, l))
        said->error_code = KAFKA_ERR_UNSUPPORTED_VERSION;
    l->groups = l->groups && !said->error_code;
    static const struct kafka_wanted nothing;
    return kafka_rows_init(k, r, l->topics && !said->error_code ? NULL : &nothing, false, &l->rows);
}

/* Groups of which something is set, a thousand at a time. */
static void ask_groups(struct kafka *k, struct kafka_request *r, struct listing *l)
{
    struct slice none = {0};
    struct ask *ask = ask_new(l->behind, none, none, none);
    if (!ask) {
        kafka_drop_memory(k);
        return;
    }
    struct command *command = kafka_command(k, r, CMD_GROUP_CONFIG_LIST);
    if (!command) {
        mem_free(ask);
        return;
    }
    command->ask = ask;
    l->asked = true;
}

static void forget_groups(struct listing *l)
{
    for (struct group_part *part = l->first; part; part = part->next) {
        mem_free(part->answer);
        part->answer = NULL;
    }
    l->first = NULL;
    l->group_count = 0;
    l->behind = (struct slice){0};
}

static void take_groups(struct kafka *k, struct kafka_request *r, struct listing *l, struct effect *e)
{
    l->asked = false;
    if (e->flags == GROUP_ERR_NO_GROUP) { /* the one to go on behind has gone: once more */
        forget_groups(l);
        return;
    }
    struct group_part *part = e->answer ? kafka_more_room(k, r, 1, sizeof *part) : NULL;
    if (!part) {
        hub_drop(kafka_hub(k), e);
        kafka_drop_memory(k);
        return;
    }
    part->answer = e->answer;
    part->next = l->first;
    l->first = part;
    struct reader fields = reader_of(part->answer->fields);
    l->behind = reader_str8(&fields);
    for (l->groups = l->behind.len > 0; fields.left; l->group_count++)
        (void)reader_str8(&fields);
}

static enum kafka_progress list_config_resources_go(struct kafka *k, struct kafka_request *r)
{
    struct kafka_list_config_resources_response *said = r->response;
    if (!r->state && !list_begin(k, r))
        return KAFKA_AGAIN;
    struct listing *l = r->state;
    if (kafka_rows(k, r, &l->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (l->groups) {
        if (!l->asked)
            ask_groups(k, r, l);
        return KAFKA_AGAIN;
    }
    if (said->error_code)
        return KAFKA_SENT;
    struct slice node = kafka_text(k, r, "%d", k->options->node_id);
    said->config_resources.at =
        kafka_more_room(k, r, l->rows.count + l->group_count + 2, sizeof *said->config_resources.at);
    if (!node.ptr || !said->config_resources.at)
        return KAFKA_SENT;
    for (size_t i = 0; i < l->rows.count; i++)
        said->config_resources.at[said->config_resources.count++] =
            (struct kafka_list_config_resources_response_config_resource){l->rows.rows[i].name, KAFKA_RESOURCE_TOPIC};
    for (const struct group_part *part = l->first; part; part = part->next) {
        struct reader fields = reader_of(part->answer->fields);
        (void)reader_str8(&fields);
        while (fields.left)
            said->config_resources.at[said->config_resources.count++] =
                (struct kafka_list_config_resources_response_config_resource){reader_str8(&fields),
                                                                              KAFKA_RESOURCE_GROUP};
    }
    if (l->brokers)
        said->config_resources.at[said->config_resources.count++] =
            (struct kafka_list_config_resources_response_config_resource){node, KAFKA_RESOURCE_BROKER};
    if (l->loggers)
        said->config_resources.at[said->config_resources.count++] =
            (struct kafka_list_config_resources_response_config_resource){node, KAFKA_RESOURCE_BROKER_LOGGER};
    return KAFKA_SENT;
}

static void list_config_resources_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct listing *l = r->state;
    if (e->type == EFF_GROUP)
        take_groups(k, r, l, e);
    else
        kafka_rows_effect(k, r, &l->rows, e);
}

static void list_config_resources_drop(struct kafka *k, struct kafka_request *r)
{
    struct listing *l = r->state;
    (void)k;
    if (!l)
        return;
    kafka_rows_drop(&l->rows);
    forget_groups(l);
}

const struct kafka_handler kafka_on_list_config_resources = {
    .go = list_config_resources_go, .effect = list_config_resources_effect, .drop = list_config_resources_drop};
