/* OffsetCommit, OffsetFetch, OffsetDelete: what groups have read. Topics are named, or have ids in the newest versions; the core
 * knows streams by their numbers. */
#include "proto/kafka/group_asked.h"
#include "proto/kafka/names.h"
#include "proto/kafka/rows.h"

#include <stdlib.h>

#define VERSION_BY_ID 10u
#define VERSION_GROUPS 8u      /* OffsetFetch: many groups */
#define VERSION_GROUP_ERROR 2u /* … an error of its own for the group */
#define VERSION_EPOCHS 9u      /* OffsetCommit: a group that is not there is said to be not there */
#define NO_TEXT slice_str("")

/* 0 is no stream's: the core says so. */
static uint64_t stream_named(struct kafka *k, struct slice name)
{
    const struct kafka_topic *topic = kafka_topic_find(k, name);
    return topic ? topic->id : 0;
}

static uint64_t stream_of_uuid(const struct kafka *k, const struct kafka_uuid *uuid)
{
    uint64_t id;
    return kafka_topic_of_uuid(k, uuid, &id) ? id : 0;
}

static size_t count_of(int32_t count)
{
    return count > 0 ? (size_t)count : 0;
}

/* ---- OffsetCommit ---- */

struct commit {
    struct kafka_lookup lookup;
    struct kafka_groups groups; /* one */
};

static bool commit_by_id(const struct kafka_request *r)
{
    return r->form.version >= VERSION_BY_ID;
}

static struct commit *commit_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_offset_commit_request *asked = r->message;
    size_t topics = count_of(asked->topics.count);
    struct commit *c = kafka_room(k, r, 1, sizeof *c);
    struct slice *names = c ? kafka_room(k, r, topics, sizeof *names) : NULL;
    if (!names || !kafka_groups_init(k, r, 1, &c->groups))
        return NULL;
    for (size_t i = 0; i < topics; i++)
        names[i] = asked->topics.at[i].name;
    if (!kafka_lookup_init(k, r, names, commit_by_id(r) ? 0 : topics, &c->lookup))
        return NULL;
    return r->state = c;
}

static bool commit_make(struct kafka *k, struct kafka_request *r, size_t command, struct kafka_group_ask *ret)
{
    const struct kafka_offset_commit_request *asked = r->message;
    size_t bytes = 0;
    (void)command;
    for (int32_t i = 0; i < asked->topics.count; i++)
        for (int32_t n = 0; n < asked->topics.at[i].partitions.count; n++)
            bytes += GROUP_OFFSET_BYTES + asked->topics.at[i].partitions.at[n].committed_metadata.len;
    if (!kafka_group_args(k, r, bytes, ret))
        return false;
    ret->group = asked->group_id;
    ret->member = asked->member_id;
    ret->instance = asked->group_instance_id;
    ret->number = (uint32_t)asked->generation_id_or_member_epoch;
    for (int32_t i = 0; i < asked->topics.count; i++) {
        const struct kafka_offset_commit_request_topic *topic = &asked->topics.at[i];
        uint64_t stream = commit_by_id(r) ? stream_of_uuid(k, &topic->topic_id) : stream_named(k, topic->name);
        for (int32_t n = 0; n < topic->partitions.count; n++) {
            const struct kafka_offset_commit_request_partition *p = &topic->partitions.at[n];
            struct group_offset row = {.stream = stream, .partition = (uint32_t)p->partition_index};
            row.epoch = (uint32_t)p->committed_leader_epoch;
            row.offset = (uint64_t)p->committed_offset;
            row.metadata = p->committed_metadata;
            group_offset_put(&ret->args, &row);
        }
    }
    return true;
}

/* What all rows are answered, when the whole was refused. */
static int16_t commit_error(const struct kafka_request *r, enum group_error error)
{
    if (error == GROUP_ERR_NO_GROUP && r->form.version < VERSION_EPOCHS)
        return KAFKA_ERR_ILLEGAL_GENERATION;
    return kafka_group_error(error);
}

static int16_t row_error(struct kafka *k, enum group_error error, bool by_id, struct slice name)
{
    if (error == GROUP_ERR_NO_STREAM && by_id)
        return KAFKA_ERR_UNKNOWN_TOPIC_ID;
    if (error == GROUP_ERR_NO_STREAM)
        kafka_topic_forget(k, name); /* it is looked up again the next time */
    return kafka_group_error(error);
}

static void commit_say(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_offset_commit_request *asked = r->message;
    struct kafka_offset_commit_response *said = r->response;
    const struct kafka_group_said *one = &((struct commit *)r->state)->groups.said[0];
    struct reader fields = kafka_group_fields(one);
    size_t topics = count_of(asked->topics.count);
    said->topics.at = kafka_room(k, r, topics, sizeof *said->topics.at);
    for (size_t i = 0; said->topics.at && i < topics; i++) {
        const struct kafka_offset_commit_request_topic *topic = &asked->topics.at[i];
        struct kafka_offset_commit_response_topic *ret = &said->topics.at[i];
        size_t count = count_of(topic->partitions.count);
        ret->name = topic->name;
        ret->topic_id = topic->topic_id;
        ret->partitions.at = kafka_room(k, r, count, sizeof *ret->partitions.at);
        if (!ret->partitions.at)
            return;
        ret->partitions.count = (int32_t)count;
        for (size_t n = 0; n < count; n++) {
            ret->partitions.at[n].partition_index = topic->partitions.at[n].partition_index;
            ret->partitions.at[n].error_code =
                one->error ? commit_error(r, one->error)
                           : row_error(k, (enum group_error)reader_u8(&fields), commit_by_id(r), topic->name);
        }
    }
    said->topics.count = said->topics.at ? (int32_t)topics : 0;
}

static enum kafka_progress commit_go(struct kafka *k, struct kafka_request *r)
{
    struct commit *c = r->state ? r->state : commit_begin(k, r);
    if (!c || kafka_lookup(k, r, &c->lookup) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_go(k, r, &c->groups, CMD_GROUP_COMMIT, commit_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_done(&c->groups))
        commit_say(k, r);
    return KAFKA_SENT;
}

static void commit_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct commit *c = r->state;
    if (!c->lookup.done)
        kafka_lookup_effect(k, &c->lookup, e);
    else if (kafka_groups_effect(k, r, &c->groups, e))
        commit_say(k, r);
}

static void commit_drop(struct kafka *k, struct kafka_request *r)
{
    struct commit *c = r->state;
    (void)k;
    if (c)
        kafka_groups_drop(&c->groups);
}

const struct kafka_handler kafka_on_offset_commit = {.go = commit_go, .effect = commit_effect, .drop = commit_drop};

/* ---- OffsetFetch ----
 *
 * Versions below 8 are about one group, whose fields stand in the request itself: they are read as a list of one group, and the
 * answer of that is written into the response itself. */

struct row { /* an offset of a group that is asked for all */
    struct group_offset offset;
    size_t group;
};

struct offset_fetch {
    struct kafka_lookup lookup;
    struct kafka_offset_fetch_request_group *groups;
    struct kafka_groups commands;
    struct row *all; /* of groups that are asked for all: by group, then by stream */
    size_t all_count;
    uint64_t *ids; /* streams in them, each once */
    size_t id_count;
    struct kafka_rows names;
    bool gathered;
};

/* The one group of an old version, as a new one would say it. */
static bool fetch_as_group(struct kafka *k, struct kafka_request *r, struct kafka_offset_fetch_request_group *ret)
{
    const struct kafka_offset_fetch_request *asked = r->message;
    size_t topics = count_of(asked->topics.count);
    *ret = (struct kafka_offset_fetch_request_group){.group_id = asked->group_id, .member_epoch = -1};
    ret->topics.at = kafka_room(k, r, topics, sizeof *ret->topics.at);
    ret->topics.count = asked->topics.count;
    for (size_t i = 0; ret->topics.at && i < topics; i++) {
        ret->topics.at[i].name = asked->topics.at[i].name;
        ret->topics.at[i].partition_indexes.at = asked->topics.at[i].partition_indexes.at;
        ret->topics.at[i].partition_indexes.count = asked->topics.at[i].partition_indexes.count;
    }
    return ret->topics.at != NULL;
}

static bool fetch_names(struct kafka *k, struct kafka_request *r, struct offset_fetch *f)
{
    size_t count = 0, n = 0;
    for (size_t i = 0; i < f->commands.count && r->form.version < VERSION_BY_ID; i++)
        count += count_of(f->groups[i].topics.count);
    struct slice *names = kafka_room(k, r, count, sizeof *names);
    for (size_t i = 0; names && n < count; i++)
        for (int32_t t = 0; t < f->groups[i].topics.count; t++)
            names[n++] = f->groups[i].topics.at[t].name;
    return names && kafka_lookup_init(k, r, names, count, &f->lookup);
}

static struct offset_fetch *fetch_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_offset_fetch_request *asked = r->message;
    struct offset_fetch *f = kafka_room(k, r, 1, sizeof *f);
    bool many = r->form.version >= VERSION_GROUPS;
    if (!f)
        return NULL;
    f->groups = many ? asked->groups.at : kafka_room(k, r, 1, sizeof *f->groups);
    if (!many && (!f->groups || !fetch_as_group(k, r, f->groups)))
        return NULL;
    if (!kafka_groups_init(k, r, many ? count_of(asked->groups.count) : 1, &f->commands) || !fetch_names(k, r, f))
        return NULL;
    struct slice *ids = kafka_more_room(k, r, f->commands.count, sizeof *ids);
    for (size_t i = 0; ids && i < f->commands.count; i++)
        ids[i] = f->groups[i].group_id;
    if (!ids || !kafka_groups_once(k, r, &f->commands, ids))
        return NULL;
    return r->state = f;
}

static bool fetch_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_offset_fetch_request_group *group = &((struct offset_fetch *)r->state)->groups[i];
    size_t bytes = 0;
    ret->group = group->group_id;
    bool stable = ((const struct kafka_offset_fetch_request *)r->message)->require_stable;
    ret->flags = (group->topics.count < 0 ? ASK_MULTIPLE : 0u) | (stable ? ASK_STABLE : 0u);
    ret->member = group->member_epoch >= 0 ? group->member_id : (struct slice){0};
    ret->number = (uint32_t)group->member_epoch;
    for (int32_t t = 0; t < group->topics.count; t++)
        bytes += GROUP_PLACE_BYTES * count_of(group->topics.at[t].partition_indexes.count);
    if (!kafka_group_args(k, r, bytes, ret))
        return false;
    for (int32_t t = 0; t < group->topics.count; t++) {
        const struct kafka_offset_fetch_request_group_topic *topic = &group->topics.at[t];
        uint64_t stream =
            r->form.version >= VERSION_BY_ID ? stream_of_uuid(k, &topic->topic_id) : stream_named(k, topic->name);
        for (int32_t n = 0; n < topic->partition_indexes.count; n++) {
            writer_u64(&ret->args, stream);
            writer_u32(&ret->args, (uint32_t)topic->partition_indexes.at[n]);
        }
    }
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct row *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->offset.stream != y->offset.stream)
        return x->offset.stream < y->offset.stream ? -1 : 1;
    return (x->offset.partition > y->offset.partition) - (x->offset.partition < y->offset.partition);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* What groups have that are asked for all, and of which streams: these are to be named. False: no memory. */
static bool fetch_gather(struct kafka *k, struct kafka_request *r, struct offset_fetch *f)
{
    size_t count = 0, n = 0;
    for (size_t i = 0; i < f->commands.count; i++)
        for (struct reader fields = kafka_group_fields(&f->commands.said[i]);
             f->groups[i].topics.count < 0 && fields.left; count++)
            (void)group_offset_read(&fields);
    f->all = kafka_more_room(k, r, count, sizeof *f->all);
    f->ids = f->all ? kafka_more_room(k, r, count, sizeof *f->ids) : NULL;
    if (!f->ids)
        return false;
    for (size_t i = 0; i < f->commands.count; i++)
        for (struct reader fields = kafka_group_fields(&f->commands.said[i]);
             f->groups[i].topics.count < 0 && fields.left;)
            f->all[n++] = (struct row){group_offset_read(&fields), i};
    f->all_count = n;
    for (size_t i = 0; i < n; i++)
        f->ids[i] = f->all[i].offset.stream;
    if (n) {
        qsort(f->all, n, sizeof *f->all, by_place);
        qsort(f->ids, n, sizeof *f->ids, by_number);
    }
    for (size_t i = 0; i < n; i++)
        if (!i || f->ids[i] != f->ids[f->id_count - 1])
            f->ids[f->id_count++] = f->ids[i];
    struct kafka_wanted wanted = {.ids = f->ids, .id_count = f->id_count};
    f->gathered = kafka_rows_init(k, r, &wanted, false, &f->names);
    return f->gathered;
}

/* NULL: it has gone, or the user may not see it. */
static const struct stream_row *fetch_stream(const struct offset_fetch *f, uint64_t stream)
{
    const uint64_t *id = bsearch(&stream, f->ids, f->id_count, sizeof *f->ids, by_number);
    const struct stream_row *row = id ? &f->names.rows[id - f->ids] : NULL;
    return row && row->result == STREAM_DONE ? row : NULL;
}

static void fetch_say_row(const struct group_offset *row, int16_t error,
                          struct kafka_offset_fetch_response_group_partition *ret)
{
    *ret = (struct kafka_offset_fetch_response_group_partition){
        .partition_index = (int32_t)row->partition, .committed_offset = -1, .committed_leader_epoch = -1};
    ret->metadata = NO_TEXT;
    ret->error_code = error;
    if (error || row->offset == UINT64_MAX)
        return;
    ret->committed_offset = (int64_t)row->offset;
    ret->committed_leader_epoch = (int32_t)row->epoch;
    ret->metadata = kafka_or_empty(row->metadata);
}

/* Topic by topic of the sorted rows. */
static void fetch_say_all(struct kafka *k, struct kafka_request *r, const struct offset_fetch *f, size_t group,
                          struct kafka_offset_fetch_response_group *ret)
{
    size_t from = 0;
    ret->topics.at = kafka_more_room(k, r, f->id_count, sizeof *ret->topics.at);
    if (!ret->topics.at)
        return;
    while (from < f->all_count && f->all[from].group < group)
        from++;
    for (size_t end; from < f->all_count && f->all[from].group == group; from = end) {
        uint64_t stream = f->all[from].offset.stream;
        for (end = from; end < f->all_count && f->all[end].group == group && f->all[end].offset.stream == stream;)
            end++;
        const struct stream_row *row = fetch_stream(f, stream);
        if (!row)
            continue;
        struct kafka_offset_fetch_response_group_topic *topic = &ret->topics.at[ret->topics.count];
        topic->name = row->name;
        kafka_topic_uuid(k, stream, &topic->topic_id);
        topic->partitions.at = kafka_more_room(k, r, end - from, sizeof *topic->partitions.at);
        if (!topic->partitions.at)
            return;
        topic->partitions.count = (int32_t)(end - from);
        for (size_t i = from; i < end; i++)
            fetch_say_row(&f->all[i].offset, KAFKA_ERR_NONE, &topic->partitions.at[i - from]);
        ret->topics.count++;
    }
}

/* In the order of the request. A partition that is not there has no offset, and one of an unknown id an error. */
static void fetch_say_asked(struct kafka *k, struct kafka_request *r, const struct offset_fetch *f, size_t group,
                            struct kafka_offset_fetch_response_group *ret)
{
    const struct kafka_offset_fetch_request_group *asked = &f->groups[group];
    const struct kafka_group_said *one = &f->commands.said[group];
    struct reader fields = kafka_group_fields(one);
    size_t topics = count_of(asked->topics.count);
    ret->topics.at = kafka_more_room(k, r, topics, sizeof *ret->topics.at);
    for (size_t t = 0; ret->topics.at && t < topics; t++) {
        const struct kafka_offset_fetch_request_group_topic *from = &asked->topics.at[t];
        struct kafka_offset_fetch_response_group_topic *topic = &ret->topics.at[t];
        size_t count = count_of(from->partition_indexes.count);
        bool unknown = r->form.version >= VERSION_BY_ID && !stream_of_uuid(k, &from->topic_id);
        topic->name = from->name;
        topic->topic_id = from->topic_id;
        topic->partitions.at = kafka_more_room(k, r, count, sizeof *topic->partitions.at);
        if (!topic->partitions.at)
            return;
        topic->partitions.count = (int32_t)count;
        for (size_t n = 0; n < count; n++) {
            struct group_offset row = {.offset = UINT64_MAX};
            if (!one->error)
                row = group_offset_read(&fields);
            row.partition = (uint32_t)from->partition_indexes.at[n];
            fetch_say_row(&row,
                          one->error ? kafka_group_error(one->error)
                          : unknown  ? KAFKA_ERR_UNKNOWN_TOPIC_ID
                                     : 0,
                          &topic->partitions.at[n]);
        }
        ret->topics.count++;
    }
}

/* The answer of one group in the form of an old version: the structs differ in what they have, not in what they say. */
static void fetch_say_alone(struct kafka *k, struct kafka_request *r,
                            const struct kafka_offset_fetch_response_group *from)
{
    struct kafka_offset_fetch_response *said = r->response;
    size_t topics = count_of(from->topics.count);
    said->error_code = from->error_code;
    said->topics.at = kafka_more_room(k, r, topics, sizeof *said->topics.at);
    for (size_t t = 0; said->topics.at && t < topics; t++) {
        size_t count = count_of(from->topics.at[t].partitions.count);
        struct kafka_offset_fetch_response_topic *topic = &said->topics.at[t];
        topic->name = from->topics.at[t].name;
        topic->partitions.at = kafka_more_room(k, r, count, sizeof *topic->partitions.at);
        if (!topic->partitions.at)
            return;
        topic->partitions.count = (int32_t)count;
        for (size_t n = 0; n < count; n++) {
            const struct kafka_offset_fetch_response_group_partition *p = &from->topics.at[t].partitions.at[n];
            topic->partitions.at[n] = (struct kafka_offset_fetch_response_partition){
                p->partition_index, p->committed_offset, p->committed_leader_epoch, p->metadata, p->error_code};
        }
        said->topics.count++;
    }
}

static void fetch_say(struct kafka *k, struct kafka_request *r, const struct offset_fetch *f)
{
    struct kafka_offset_fetch_response *said = r->response;
    size_t count = f->commands.count;
    bool many = r->form.version >= VERSION_GROUPS;
    struct kafka_offset_fetch_response_group *groups = kafka_room(k, r, count, sizeof *groups);
    for (size_t i = 0; groups && i < count; i++) {
        const struct kafka_group_said *one = &f->commands.said[i];
        bool all = f->groups[i].topics.count < 0; /* what is not stable is said of the rows that were asked for */
        bool rows_only = r->form.version < VERSION_GROUP_ERROR || (one->error == GROUP_ERR_UNSTABLE && !all);
        groups[i].group_id = f->groups[i].group_id;
        groups[i].error_code = rows_only ? KAFKA_ERR_NONE : kafka_group_error(one->error);
        if (one->error && !rows_only)
            continue;
        if (all)
            fetch_say_all(k, r, f, i, &groups[i]);
        else
            fetch_say_asked(k, r, f, i, &groups[i]);
    }
    if (!groups)
        return;
    said->groups.at = many ? groups : NULL;
    said->groups.count = many ? (int32_t)count : 0;
    if (!many)
        fetch_say_alone(k, r, groups);
}

static enum kafka_progress fetch_go(struct kafka *k, struct kafka_request *r)
{
    struct offset_fetch *f = r->state ? r->state : fetch_begin(k, r);
    if (!f || kafka_lookup(k, r, &f->lookup) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_go(k, r, &f->commands, CMD_GROUP_OFFSETS, fetch_make) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (!kafka_groups_done(&f->commands) || (!f->gathered && !fetch_gather(k, r, f)))
        return KAFKA_AGAIN;
    if (kafka_rows(k, r, &f->names) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    fetch_say(k, r, f);
    return KAFKA_SENT;
}

static void fetch_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct offset_fetch *f = r->state;
    if (!f->lookup.done)
        kafka_lookup_effect(k, &f->lookup, e);
    else if (!f->gathered)
        (void)kafka_groups_effect(k, r, &f->commands, e);
    else
        kafka_rows_effect(k, r, &f->names, e);
}

static void fetch_drop(struct kafka *k, struct kafka_request *r)
{
    struct offset_fetch *f = r->state;
    (void)k;
    if (!f)
        return;
    kafka_groups_drop(&f->commands);
    kafka_rows_drop(&f->names);
}

const struct kafka_handler kafka_on_offset_fetch = {.go = fetch_go, .effect = fetch_effect, .drop = fetch_drop};

/* ---- OffsetDelete ----
 *
 * Of a group that has members only topics can go that none of them reads. What they read stands in their metadata, which the core
 * does not know to read: it is looked at here, and the core is told of which generation it was. */

struct offset_delete {
    struct kafka_lookup lookup;
    struct kafka_groups describe, command; /* one each */
    uint32_t generation;
    bool *subscribed; /* by topic */
    bool looked;
};

static struct offset_delete *delete_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_offset_delete_request *asked = r->message;
    size_t topics = count_of(asked->topics.count);
    struct offset_delete *d = kafka_room(k, r, 1, sizeof *d);
    struct slice *names = d ? kafka_room(k, r, topics, sizeof *names) : NULL;
    d = names ? d : NULL;
    if (!d || !(d->subscribed = kafka_room(k, r, topics, sizeof *d->subscribed)))
        return NULL;
    for (size_t i = 0; i < topics; i++)
        names[i] = asked->topics.at[i].name;
    if (!kafka_lookup_init(k, r, names, topics, &d->lookup) || !kafka_groups_init(k, r, 1, &d->describe) ||
        !kafka_groups_init(k, r, 1, &d->command))
        return NULL;
    return r->state = d;
}

static bool describe_make(struct kafka *k, struct kafka_request *r, size_t i, struct kafka_group_ask *ret)
{
    const struct kafka_offset_delete_request *asked = r->message;
    (void)k;
    (void)i;
    ret->group = asked->group_id;
    return true;
}

/* A subscription as consumers write it: i16 version, topics: i32 count, i16 length and name each, and more that is not looked at.
 * What cannot be read may be a subscription to anything. */
static void subscriptions(const struct kafka_offset_delete_request *asked, struct slice metadata, bool *subscribed)
{
    struct reader r = reader_of(metadata);
    (void)reader_u16(&r);
    uint32_t count = reader_u32(&r);
    for (uint32_t n = 0; n < count && reader_ok(&r); n++) {
        struct slice name = reader_take(&r, reader_u16(&r));
        for (int32_t i = 0; i < asked->topics.count; i++)
            subscribed[i] = subscribed[i] || (reader_ok(&r) && slice_equal(asked->topics.at[i].name, name));
    }
    for (int32_t i = 0; i < asked->topics.count && !reader_ok(&r); i++)
        subscribed[i] = true;
}

/* What is refused before the core is asked. */
static enum group_error delete_look(struct kafka_request *r, struct offset_delete *d)
{
    const struct kafka_group_said *one = &d->describe.said[0];
    struct reader fields = kafka_group_fields(one);
    d->looked = true;
    if (one->error)
        return one->error;
    enum group_state state = (enum group_state)reader_u8(&fields);
    d->generation = reader_u32(&fields);
    struct slice type = reader_str8(&fields);
    (void)reader_str8(&fields);
    if (state == GROUP_EMPTY)
        return GROUP_OK;
    if (state != GROUP_STABLE || !slice_is(type, "consumer"))
        return GROUP_ERR_NOT_EMPTY;
    while (fields.left) {
        for (int i = 0; i < 4; i++)
            (void)reader_str8(&fields);
        subscriptions(r->message, reader_str32(&fields), d->subscribed);
        (void)reader_str32(&fields);
    }
    return GROUP_OK;
}

static bool delete_make(struct kafka *k, struct kafka_request *r, size_t command, struct kafka_group_ask *ret)
{
    const struct kafka_offset_delete_request *asked = r->message;
    const struct offset_delete *d = r->state;
    size_t rows = 0;
    (void)command;
    for (int32_t i = 0; i < asked->topics.count; i++)
        rows += d->subscribed[i] ? 0 : count_of(asked->topics.at[i].partitions.count);
    if (!kafka_group_args(k, r, GROUP_PLACE_BYTES * rows, ret))
        return false;
    ret->group = asked->group_id;
    ret->number = d->generation;
    for (int32_t i = 0; i < asked->topics.count; i++)
        for (int32_t n = 0; !d->subscribed[i] && n < asked->topics.at[i].partitions.count; n++) {
            writer_u64(&ret->args, stream_named(k, asked->topics.at[i].name));
            writer_u32(&ret->args, (uint32_t)asked->topics.at[i].partitions.at[n].partition_index);
        }
    return true;
}

static void delete_say(struct kafka *k, struct kafka_request *r, struct offset_delete *d, enum group_error error)
{
    const struct kafka_offset_delete_request *asked = r->message;
    struct kafka_offset_delete_response *said = r->response;
    struct reader fields = kafka_group_fields(&d->command.said[0]);
    size_t topics = error ? 0 : count_of(asked->topics.count);
    said->error_code = kafka_group_error(error);
    said->topics.at = kafka_room(k, r, topics, sizeof *said->topics.at);
    for (size_t i = 0; said->topics.at && i < topics; i++) {
        size_t count = count_of(asked->topics.at[i].partitions.count);
        said->topics.at[i].name = asked->topics.at[i].name;
        said->topics.at[i].partitions.at = kafka_room(k, r, count, sizeof *said->topics.at[i].partitions.at);
        if (!said->topics.at[i].partitions.at)
            return;
        said->topics.at[i].partitions.count = (int32_t)count;
        for (size_t n = 0; n < count; n++)
            said->topics.at[i].partitions.at[n] = (struct kafka_offset_delete_response_partition){
                .partition_index = asked->topics.at[i].partitions.at[n].partition_index,
                .error_code = d->subscribed[i] ? KAFKA_ERR_GROUP_SUBSCRIBED_TO_TOPIC
                                               : row_error(k, (enum group_error)reader_u8(&fields), false,
                                                           asked->topics.at[i].name)};
        said->topics.count++;
    }
}

static enum kafka_progress delete_go(struct kafka *k, struct kafka_request *r)
{
    struct offset_delete *d = r->state ? r->state : delete_begin(k, r);
    if (!d || kafka_lookup(k, r, &d->lookup) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    if (kafka_groups_go(k, r, &d->describe, CMD_GROUP_DESCRIBE, describe_make) == KAFKA_AGAIN ||
        !kafka_groups_done(&d->describe))
        return KAFKA_AGAIN;
    enum group_error error = d->looked ? GROUP_OK : delete_look(r, d);
    if (error) {
        delete_say(k, r, d, error);
        return KAFKA_SENT;
    }
    return kafka_groups_go(k, r, &d->command, CMD_GROUP_OFFSET_DELETE, delete_make);
}

static void delete_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct offset_delete *d = r->state;
    if (!d->lookup.done)
        kafka_lookup_effect(k, &d->lookup, e);
    else if (!kafka_groups_done(&d->describe))
        (void)kafka_groups_effect(k, r, &d->describe, e);
    else if (kafka_groups_effect(k, r, &d->command, e))
        delete_say(k, r, d, d->command.said[0].error);
}

static void delete_drop(struct kafka *k, struct kafka_request *r)
{
    struct offset_delete *d = r->state;
    (void)k;
    if (!d)
        return;
    kafka_groups_drop(&d->describe);
    kafka_groups_drop(&d->command);
}

const struct kafka_handler kafka_on_offset_delete = {.go = delete_go, .effect = delete_effect, .drop = delete_drop};
