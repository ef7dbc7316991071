/* DescribeGroups, ListGroups, DeleteGroups. */
#include "proto/kafka/group_asked.h"

#include <strings.h>

#include "base/mem.h"

#define VERSION_NOT_FOUND                                                                                              \
    6u /* DescribeGroups says of a group that is not there that it is not there; before: that it is Dead */
static const char *const types[] = {
    [GROUP_CLASSIC] = "classic", [GROUP_CONSUMER] = "consumer", [GROUP_SHARE] = "share"};

static void drop(struct kafka *k, struct kafka_request *r)
{
    (void)k;
    if (r->state)
        kafka_groups_drop(r->state);
}

/* One command for each name. */
static struct kafka_groups *commands(struct kafka *k, struct kafka_request *r, int32_t count)
{
    struct kafka_groups *g = r->state;
    if (g)
        return g;
    g = kafka_room(k, r, 1, sizeof *g);
    if (g && kafka_groups_init(k, r, count > 0 ? (size_t)count : 0, g))
        r->state = g;
    return r->state;
}

/* ---- DescribeGroups ---- */

static bool describe_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_describe_groups_request *asked = r->message;
    (void)k;
    ret->group = asked->groups.at[i];
    return true;
}

static void describe_members(struct kafka *k, struct kafka_request *r, struct reader fields,
                             struct kafka_describe_groups_response_group *said)
{
    struct reader again = fields;
    size_t count = 0;
    for (; again.left; count++) {
        for (int i = 0; i < 4; i++)
            (void)reader_str8(&again);
        (void)reader_str32(&again);
        (void)reader_str32(&again);
    }
    r->arena.max += count * sizeof *said->members.at + 64; /* it grows with the group */
    said->members.at = kafka_room(k, r, count, sizeof *said->members.at);
    for (size_t i = 0; said->members.at && i < count; i++) {
        struct kafka_describe_groups_response_member *m = &said->members.at[i];
        m->member_id = reader_str8(&fields);
        m->group_instance_id = reader_str8(&fields);
        m->client_id = reader_str8(&fields);
        m->client_host = kafka_group_host(k, r, reader_str8(&fields));
        m->member_metadata = kafka_or_empty(reader_str32(&fields));
        m->member_assignment = kafka_or_empty(reader_str32(&fields));
        if (!m->group_instance_id.len)
            m->group_instance_id.ptr = NULL;
    }
    said->members.count = said->members.at ? (int32_t)count : 0;
}

static void describe_one(struct kafka *k, struct kafka_request *r, size_t i)
{
    const struct kafka_describe_groups_request *asked = r->message;
    struct kafka_describe_groups_response *response = r->response;
    struct kafka_describe_groups_response_group *said = &response->groups.at[i];
    const struct kafka_group_said *one = &((struct kafka_groups *)r->state)->said[i];
    struct reader fields = kafka_group_fields(one);
    bool none = one->error == GROUP_ERR_NO_GROUP;
    kafka_defaults(&kafka_describe_groups_response_group_table, said);
    said->group_id = asked->groups.at[i];
    said->protocol_type = said->protocol_data = said->group_state = slice_str("");
    if (none)
        said->group_state = kafka_group_state(GROUP_DEAD);
    if (none && r->form.version >= VERSION_NOT_FOUND)
        said->error_message = slice_str("there is no such group");
    if (one->error) {
        said->error_code = none && r->form.version < VERSION_NOT_FOUND ? 0 : kafka_group_error(one->error);
        return;
    }
    said->group_state = kafka_group_state((enum group_state)reader_u8(&fields));
    (void)reader_u32(&fields);
    said->protocol_type = kafka_or_empty(reader_str8(&fields));
    said->protocol_data = kafka_or_empty(reader_str8(&fields));
    if (asked->include_authorized_operations)
        said->authorized_operations = KAFKA_GROUP_OPERATIONS;
    describe_members(k, r, fields, said);
}

static void describe_say(struct kafka *k, struct kafka_request *r)
{
    struct kafka_describe_groups_response *said = r->response;
    const struct kafka_groups *g = r->state;
    said->groups.at = kafka_room(k, r, g->count, sizeof *said->groups.at);
    if (!said->groups.at)
        return;
    said->groups.count = (int32_t)g->count;
    for (size_t i = 0; i < g->count; i++)
        describe_one(k, r, i);
}

static enum kafka_progress describe_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_groups_request *asked = r->message;
    bool begins = !r->state;
    struct kafka_groups *g = commands(k, r, asked->groups.count);
    if (!g || (begins && !kafka_groups_once(k, r, g, asked->groups.at)) ||
        kafka_groups_go(k, r, g, CMD_GROUP_DESCRIBE, describe_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_done(g))
        describe_say(k, r);
    return KAFKA_SENT;
}

static void describe_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    if (kafka_groups_effect(k, r, r->state, e))
        describe_say(k, r);
}

const struct kafka_handler kafka_on_describe_groups = {.go = describe_go, .effect = describe_effect, .drop = drop};

/* ---- DeleteGroups ---- */

static bool delete_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_delete_groups_request *asked = r->message;
    (void)k;
    ret->group = asked->groups_names.at[i];
    return true;
}

static void delete_say(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_delete_groups_request *asked = r->message;
    struct kafka_delete_groups_response *said = r->response;
    const struct kafka_groups *g = r->state;
    said->results.at = kafka_room(k, r, g->count, sizeof *said->results.at);
    if (!said->results.at)
        return;
    said->results.count = (int32_t)g->count;
    for (size_t i = 0; i < g->count; i++)
        said->results.at[i] = (struct kafka_delete_groups_response_result){
            .group_id = asked->groups_names.at[i], .error_code = kafka_group_error(g->said[i].error)};
}

static enum kafka_progress delete_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_delete_groups_request *asked = r->message;
    struct kafka_groups *g = commands(k, r, asked->groups_names.count);
    if (!g || kafka_groups_go(k, r, g, CMD_GROUP_DELETE, delete_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_done(g))
        delete_say(k, r);
    return KAFKA_SENT;
}

static void delete_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    if (kafka_groups_effect(k, r, r->state, e))
        delete_say(k, r);
}

const struct kafka_handler kafka_on_delete_groups = {.go = delete_go, .effect = delete_effect, .drop = drop};

/* ---- ListGroups ---- */

struct list_part { /* an answer of the core */
    struct list_part *next;
    struct answer *answer;
};

struct listing {
    struct list_part *first, *last;
    struct slice behind; /* in the last part */
    bool asked, done;
};

static bool is_text(struct slice s, struct slice name)
{
    return s.len == name.len && strncasecmp((const char *)s.ptr, (const char *)name.ptr, s.len) == 0;
}

/* Bits of the states that are asked for; 0: all. A name that no state has is one that no group is in. */
static uint64_t states_of(const struct kafka_list_groups_request *asked)
{
    uint64_t bits = 0;
    for (int32_t i = 0; i < asked->states_filter.count; i++) {
        bits |= 1u << GROUP_DEAD;
        for (int state = GROUP_EMPTY; state < GROUP_DEAD; state++)
            if (is_text(asked->states_filter.at[i], kafka_group_state((enum group_state)state)))
                bits |= 1u << state;
    }
    return bits;
}

static bool type_is_asked(const struct kafka_list_groups_request *asked, enum group_kind kind)
{
    for (int32_t i = 0; i < asked->types_filter.count; i++)
        if (is_text(asked->types_filter.at[i], slice_str(types[kind])))
            return true;
    return asked->types_filter.count <= 0;
}

static bool list_ask(struct kafka *k, struct kafka_request *r, struct listing *l)
{
    uint8_t room[UINT8_MAX + 1];
    struct writer w = writer_of(room, sizeof room);
    struct slice none = {0};
    writer_str8(&w, l->behind);
    struct ask *ask = ask_new(none, none, none, writer_slice(&w));
    if (!ask) {
        kafka_drop_memory(k);
        return false;
    }
    struct command *command = kafka_command(k, r, CMD_GROUP_LIST);
    if (!command) {
        mem_free(ask);
        return false;
    }
    ask->number = states_of(r->message);
    command->ask = ask;
    l->asked = true;
    return true;
}

static size_t list_rows(const struct kafka_list_groups_request *asked, struct list_part *part,
                        struct kafka_list_groups_response_group *ret)
{
    size_t n = 0;
    for (; part; part = part->next) {
        struct reader fields = reader_of(part->answer->fields);
        (void)reader_str8(&fields);
        while (fields.left) {
            struct slice id = reader_str8(&fields), type = reader_str8(&fields);
            enum group_state state = (enum group_state)reader_u8(&fields);
            enum group_kind kind = (enum group_kind)reader_u8(&fields);
            if (!type_is_asked(asked, kind))
                continue;
            if (ret)
                ret[n] = (struct kafka_list_groups_response_group){.group_id = id,
                                                                   .protocol_type = kafka_or_empty(type),
                                                                   .group_state = kafka_group_state(state),
                                                                   .group_type = slice_str(types[kind])};
            n++;
        }
    }
    return n;
}

static void list_say(struct kafka *k, struct kafka_request *r, struct listing *l)
{
    struct kafka_list_groups_response *said = r->response;
    size_t count = list_rows(r->message, l->first, NULL);
    r->arena.max += count * sizeof *said->groups.at + 64; /* it grows with what there is */
    said->groups.at = kafka_room(k, r, count, sizeof *said->groups.at);
    if (!said->groups.at)
        return;
    said->groups.count = (int32_t)list_rows(r->message, l->first, said->groups.at);
}

static void list_forget(struct listing *l)
{
    for (struct list_part *part = l->first; part; part = part->next)
        mem_free(part->answer);
    *l = (struct listing){0};
}

static enum kafka_progress list_go(struct kafka *k, struct kafka_request *r)
{
    struct listing *l = r->state ? r->state : (r->state = kafka_room(k, r, 1, sizeof *l));
    if (!l)
        return KAFKA_AGAIN;
    if (!l->done) {
        if (!l->asked)
            (void)list_ask(k, r, l);
        return KAFKA_AGAIN;
    }
    list_say(k, r, l);
    return KAFKA_SENT;
}

static void list_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct listing *l = r->state;
    struct kafka_list_groups_response *said = r->response;
    if (e->type == EFF_GROUP && e->flags == GROUP_ERR_NO_GROUP) { /* the one to go on behind has gone: once more */
        list_forget(l);
        return;
    }
    r->arena.max += sizeof(struct list_part) + 64;
    struct list_part *part = e->type == EFF_GROUP && e->answer ? kafka_room(k, r, 1, sizeof *part) : NULL;
    if (!part) {
        said->error_code = e->type == EFF_GROUP ? kafka_group_error((enum group_error)e->flags) : 0;
        l->done = said->error_code != 0;
        hub_drop(kafka_hub(k), e);
        if (!l->done)
            kafka_drop_memory(k);
        return;
    }
    part->answer = e->answer;
    if (l->last)
        l->last->next = part;
    else
        l->first = part;
    l->last = part;
    struct reader fields = reader_of(part->answer->fields);
    l->behind = reader_str8(&fields);
    l->asked = false;
    l->done = !l->behind.len;
}

static void list_drop(struct kafka *k, struct kafka_request *r)
{
    (void)k;
    if (r->state)
        list_forget(r->state);
}

const struct kafka_handler kafka_on_list_groups = {.go = list_go, .effect = list_effect, .drop = list_drop};
