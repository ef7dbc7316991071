/* What the tests of consumer groups say: join, sync, beat, leave, commit as commands, answers by the number of their command. */
#ifndef MILLRACE_CORE_GROUP_WORDS_TEST_H
#define MILLRACE_CORE_GROUP_WORDS_TEST_H

#include "core/broker_words_test.h"
#include "core/group_int.h"
#include "core/stream_int.h"

#define NOTHING ((struct slice){0})
#define UNANSWERED (-1)
#define SIMPLE UINT32_MAX /* generation of who follows no protocol */

struct member_words { /* one who asks; a test may write into it */
    uint32_t session;
    const char *group, *instance, *type, *protocols; /* "range,sticky" */
    const char *metadata;
    char id[300];
    uint32_t generation;
    uint32_t session_ms, rebalance_ms;
    bool two_steps, can_skip;
};

struct joined { /* an answer to JOIN */
    uint32_t generation, members;
    char type[64], protocol[64], leader[300], id[300], first[300];
    bool skip;
};

/* What is answered to the command with that number. */
RIG_FN struct effect *group_effect(struct rig *rig, uint64_t number)
{
    for (unsigned i = 0; i < rig->effect_count; i++)
        if (rig->effects[i].type == EFF_GROUP && rig->effects[i].number == number)
            return &rig->effects[i];
    return NULL;
}

RIG_FN int answer_to(struct rig *rig, uint64_t number)
{
    struct effect *e = group_effect(rig, number);
    return e ? e->flags : UNANSWERED;
}

RIG_FN struct reader fields_of(struct rig *rig, uint64_t number)
{
    struct effect *e = group_effect(rig, number);
    assert_non_null(e);
    return reader_of(e->answer ? e->answer->fields : NOTHING);
}

/* The number of the command that was sent last. */
RIG_FN uint64_t *last_number(void)
{
    static uint64_t number = 1000;
    return &number;
}

RIG_FN int group_ask(struct rig *rig, enum command_type type, const struct member_words *m, uint64_t number,
                     struct slice args, uint32_t flags)
{
    struct ask *ask = ask_new(rig_text(m->group), rig_text(m->id), rig_text(m->instance), args);
    if (!ask)
        return GROUP_ERR_NO_MEMORY;
    ask->number = number;
    ask->flags = flags;
    struct command *c = rig_command(rig, 0, type, m->session, 0);
    c->ask = ask;
    c->number = ++*last_number();
    rig_step(rig);
    return answer_to(rig, *last_number());
}

RIG_FN struct member_words somebody(const char *protocols)
{
    return (struct member_words){.session = 1,
                                 .group = "g",
                                 .type = "consumer",
                                 .protocols = protocols,
                                 .metadata = "topics",
                                 .session_ms = 10000,
                                 .rebalance_ms = 60000};
}

RIG_FN int join(struct rig *rig, const struct member_words *m)
{
    uint8_t raw[1024];
    struct writer w = writer_of(raw, sizeof raw);
    writer_str8(&w, slice_str("client"));
    writer_str8(&w, slice_str(m->type));
    for (const char *at = m->protocols; *at;) {
        size_t len = strcspn(at, ",");
        writer_str8(&w, slice_of(at, len));
        writer_str32(&w, slice_str(m->metadata));
        at += len + (at[len] == ',');
    }
    return group_ask(rig, CMD_GROUP_JOIN, m, (uint64_t)m->session_ms << 32 | m->rebalance_ms, writer_slice(&w),
                     (m->two_steps ? ASK_NEED_MEMBER_ID : 0) | (m->can_skip ? ASK_CAN_SKIP : 0));
}

RIG_FN void take_text(struct reader *r, char *ret, size_t len)
{
    struct slice s = reader_str8(r);
    assert_true(s.len < len);
    if (s.len)
        memcpy(ret, s.ptr, s.len);
    ret[s.len] = '\0';
}

/* The answer to the JOIN of that number, which m takes over. */
RIG_FN struct joined joined_as(struct rig *rig, uint64_t number, struct member_words *m)
{
    struct joined j = {0};
    struct reader r = fields_of(rig, number);
    assert_int_equal(answer_to(rig, number), GROUP_OK);
    j.generation = reader_u32(&r);
    take_text(&r, j.type, sizeof j.type);
    take_text(&r, j.protocol, sizeof j.protocol);
    take_text(&r, j.leader, sizeof j.leader);
    take_text(&r, j.id, sizeof j.id);
    j.skip = reader_u8(&r);
    for (; r.left; j.members++) {
        char id[300];
        take_text(&r, id, sizeof id);
        if (!j.members)
            memcpy(j.first, id, sizeof id);
        (void)reader_str8(&r);
        (void)reader_str32(&r);
    }
    assert_true(reader_ok(&r));
    m->generation = j.generation;
    memcpy(m->id, j.id, sizeof m->id);
    return j;
}

/* The leader names others, each with its own assignment. */
RIG_FN int sync_group(struct rig *rig, const struct member_words *m, const struct member_words *const *others)
{
    uint8_t raw[2048];
    struct writer w = writer_of(raw, sizeof raw);
    writer_u16(&w, 0);
    for (int i = 0; others && others[i]; i++) {
        char text[16];
        snprintf(text, sizeof text, "part %d", i);
        writer_str8(&w, slice_str(others[i]->id));
        writer_str32(&w, slice_str(text));
    }
    return group_ask(rig, CMD_GROUP_SYNC, m, m->generation, writer_slice(&w), 0);
}

RIG_FN const char *assigned(struct rig *rig, uint64_t number)
{
    static char text[64];
    struct reader r = fields_of(rig, number);
    assert_int_equal(answer_to(rig, number), GROUP_OK);
    (void)reader_str8(&r);
    (void)reader_str8(&r);
    struct slice s = reader_str32(&r);
    assert_true(reader_done(&r));
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(s));
    return text;
}

RIG_FN int beat(struct rig *rig, const struct member_words *m)
{
    return group_ask(rig, CMD_GROUP_BEAT, m, m->generation, NOTHING, 0);
}

/* The error of the one row. */
RIG_FN int leave(struct rig *rig, const struct member_words *m)
{
    uint8_t raw[600];
    struct writer w = writer_of(raw, sizeof raw);
    struct member_words as = {.session = m->session, .group = m->group};
    writer_str8(&w, rig_text(m->id));
    writer_str8(&w, rig_text(m->instance));
    int error = group_ask(rig, CMD_GROUP_LEAVE, &as, 0, writer_slice(&w), 0);
    struct reader r = error == GROUP_OK ? fields_of(rig, *last_number()) : reader_of(NOTHING);
    return error == GROUP_OK ? reader_u8(&r) : error;
}

RIG_FN struct group *the_group(struct rig *rig, const char *name)
{
    return group_find(rig->b, vhost_find(rig->b, slice_str("/")), slice_str(name));
}

RIG_FN enum group_state state_of(struct rig *rig)
{
    struct group *g = the_group(rig, "g");
    return g ? g->state : GROUP_DEAD;
}

RIG_FN struct stream *declare_stream(struct rig *rig, const char *name, int64_t partitions)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_long(&t.w, "x-stream-partitions", partitions);
    declare(rig, name, writer_slice(&t.w));
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name))->stream;
}

RIG_FN uint64_t stream_id(struct rig *rig, const char *name)
{
    struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name));
    return q ? q->id : 0;
}

/* The error of the row, or of the whole. */
RIG_FN int commit_text(struct rig *rig, const struct member_words *m, uint64_t stream, uint32_t partition,
                       uint64_t offset, struct slice text)
{
    uint8_t raw[8192];
    struct writer w = writer_of(raw, sizeof raw);
    struct group_offset row = {
        .stream = stream, .partition = partition, .offset = offset, .epoch = 7, .metadata = text};
    group_offset_put(&w, &row);
    int error = group_ask(rig, CMD_GROUP_COMMIT, m, m->generation, writer_slice(&w), 0);
    struct reader r = error == GROUP_OK ? fields_of(rig, *last_number()) : reader_of(NOTHING);
    return error == GROUP_OK ? reader_u8(&r) : error;
}

RIG_FN int commit(struct rig *rig, const struct member_words *m, uint64_t stream, uint64_t offset)
{
    return commit_text(rig, m, stream, 0, offset, slice_str("note"));
}

/* All offsets of the group as "partition:offset:epoch:text …", in order of their commits. */
RIG_FN const char *offsets_of(struct rig *rig, const char *group)
{
    static char text[4096];
    size_t at = 0;
    struct member_words as = {.session = 1, .group = group};
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSETS, &as, 0, NOTHING, ASK_MULTIPLE), GROUP_OK);
    struct reader r = fields_of(rig, *last_number());
    for (text[0] = '\0'; r.left;) {
        struct group_offset o = group_offset_read(&r);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%u:%llu:%u:%.*s", at ? " " : "", o.partition,
                               (unsigned long long)o.offset, o.epoch, SLICE_ARG(o.metadata));
    }
    assert_true(reader_ok(&r));
    return text;
}

/* a and c are members of the stable generation 1, a leads. */
RIG_FN void two_stable(struct rig *rig, struct member_words *a, struct member_words *c)
{
    const struct member_words *const both[] = {a, c, NULL};
    assert_int_equal(join(rig, a), UNANSWERED);
    uint64_t first = *last_number();
    assert_int_equal(join(rig, c), UNANSWERED);
    uint64_t second = *last_number();
    rig_pass(rig, 1000);
    struct joined ja = joined_as(rig, first, a), jc = joined_as(rig, second, c);
    assert_true(ja.generation == 1 && ja.members == 2 && jc.members == 0);
    assert_string_equal(ja.leader, ja.id);
    assert_string_equal(jc.leader, ja.id);
    assert_int_equal(sync_group(rig, c, NULL), UNANSWERED);
    second = *last_number();
    assert_int_equal(sync_group(rig, a, both), GROUP_OK);
    assert_string_equal(assigned(rig, *last_number()), "part 0");
    assert_string_equal(assigned(rig, second), "part 1");
    assert_int_equal(state_of(rig), GROUP_STABLE);
}

/* Time goes on at once; what waits for several timers takes several of these. */
RIG_FN void skip_ms(struct rig *rig, int64_t ms)
{
    rig->now += ms * NS_PER_MS;
    rig->wall += ms;
    rig_step(rig);
    rig_pass(rig, 10);
}

RIG_FN void compact_all(struct rig *rig)
{
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    for (unsigned i = 0; i < 1000 && rig->b->totals.compactions == before; i++)
        rig_pass(rig, 5);
    assert_true(rig->b->totals.compactions > before);
}

RIG_FN int group_by_key(const void *a, const void *b)
{
    const struct slice x = (*(const struct group *const *)a)->key, y = (*(const struct group *const *)b)->key;
    int order = memcmp(x.ptr, y.ptr, x.len < y.len ? x.len : y.len);
    return order ? order : (x.len > y.len) - (x.len < y.len);
}

/* What a restart must bring back. settled: only of groups that are; of others the journal has an older generation. */
RIG_FN char *groups_dump(struct broker *b, struct broker *settled_in)
{
    size_t max = 1u << 18, at = 0;
    char *text = malloc(max);
    text[0] = '\0';
    const struct group *groups[64];
    size_t group_count = 0;
    LIST_EACH(&b->group_list, node, after)
    {
        assert_true(group_count < ARRAY_LEN(groups));
        groups[group_count++] = CONTAINER_OF(node, struct group, link);
    }
    qsort(groups, group_count, sizeof groups[0], group_by_key); /* one may have been there before it was journalled */
    for (size_t n = 0; n < group_count; n++) {
        const struct group *g = groups[n];
        struct group *as = map_get(&settled_in->groups, g->key);
        char *lines[512];
        size_t count = 0;
        if (as && as->journalled && (as->state == GROUP_STABLE || (as->state == GROUP_EMPTY && as->generation))) {
            at += (size_t)snprintf(text + at, max - at, "%.*s %u %d '%.*s' '%.*s' '%.*s'\n", SLICE_ARG(g->name),
                                   g->generation, g->state, SLICE_ARG(g->type), SLICE_ARG(g->protocol),
                                   SLICE_ARG(g->leader ? g->leader->id : NOTHING));
            LIST_EACH(&g->members, member, next)
            {
                const struct member *m = CONTAINER_OF(member, struct member, link);
                at +=
                    (size_t)snprintf(text + at, max - at, "  %.*s '%.*s' %.*s %.*s %u %u %u '%.*s'\n", SLICE_ARG(m->id),
                                     SLICE_ARG(m->instance), SLICE_ARG(m->client), SLICE_ARG(m->host), m->session_ms,
                                     m->rebalance_ms, rig_sum(m->protocols), SLICE_ARG(m->assignment));
            }
        }
        LIST_EACH(&g->offset_list, row, next)
        {
            const struct committed *o = CONTAINER_OF(row, struct committed, link);
            char line[200];
            snprintf(line, sizeof line, "  %.*s %llu %llu %llu %u %u %lld\n", SLICE_ARG(g->name),
                     (unsigned long long)o->key[0], (unsigned long long)o->key[1], (unsigned long long)o->offset,
                     o->epoch, rig_sum(slice_of(o->metadata, o->len)), (long long)o->at);
            assert_true(count < ARRAY_LEN(lines));
            lines[count++] = strdup(line);
        }
        qsort(lines, count, sizeof *lines, rig_by_text);
        for (size_t i = 0; i < count; i++) {
            at += (size_t)snprintf(text + at, max - at, "%s", lines[i]);
            free(lines[i]);
        }
        assert_true(at < max);
    }
    return text;
}

RIG_FN void assert_groups_replay(struct rig *rig)
{
    struct rig_log *copy = rig_log_copy(rig->log, rig->log->count);
    struct rig *other = rig_new(copy, &rig->options, rig->wall);
    char *a = groups_dump(rig->b, rig->b), *b = groups_dump(other->b, rig->b);
    if (strcmp(a, b) != 0) {
        rig_print_missing("before only", a, b);
        rig_print_missing("replayed only", b, a);
        rig_fail("replay of groups differs");
    }
    free(a);
    free(b);
    rig_free(other);
    rig_log_free(copy);
}

#endif
