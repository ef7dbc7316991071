/* Groups in which the broker assigns: epochs, who gives back and who waits, static members, topics that change, assignors, limits. */
#include "core/group_words_test.h"

struct taker { /* somebody who consumes, as its client would */
    struct member_words as;
    const char *topics; /* "s,t"; NULL: says nothing of them */
    const char *pattern;
    uint32_t epoch;
    struct portion has[64];
    uint32_t count;
    bool says, keeps; /* what it has; and does not give it back */
    int assignor;     /* -1: none named */
    uint32_t beat_ms;
    bool told; /* the last answer had an assignment */
};

static struct taker taker(const char *id, const char *topics)
{
    struct taker t = {.topics = topics, .assignor = -1, .says = true};
    t.as = (struct member_words){.session = 1, .group = "g"};
    snprintf(t.as.id, sizeof t.as.id, "%s", id);
    return t;
}

/* Sends what a client in that epoch sends; takes over what is answered. */
static int ask_share_at(struct rig *rig, struct taker *t, uint32_t epoch)
{
    uint8_t raw[4096];
    struct writer w = writer_of(raw, sizeof raw);
    writer_str8(&w, slice_str("client"));
    writer_u8(&w, (uint8_t)((t->pattern ? CONSUME_PATTERN : 0) | (t->topics ? CONSUME_TOPICS : 0) |
                            (t->says ? CONSUME_OWNED : 0) | (t->assignor >= 0 ? CONSUME_ASSIGNOR : 0)));
    writer_u8(&w, (uint8_t)(t->assignor >= 0 ? t->assignor : 0));
    size_t mark = writer_mark32(&w);
    for (const char *at = t->topics ? t->topics : ""; *at;) {
        size_t len = strcspn(at, ",");
        writer_str8(&w, slice_of(at, len));
        at += len + (at[len] == ',');
    }
    writer_patch32(&w, mark);
    writer_str32(&w, rig_text(t->pattern));
    for (uint32_t i = 0; t->says && epoch && i < t->count; i++) {
        writer_u64(&w, t->has[i].stream);
        writer_u32(&w, t->has[i].partition);
    }
    int error = group_ask(rig, CMD_GROUP_CONSUME, &t->as, (uint64_t)5000 << 32 | epoch, writer_slice(&w), 0);
    if (error)
        return error;
    struct reader r = fields_of(rig, *last_number());
    take_text(&r, t->as.id, sizeof t->as.id);
    t->epoch = reader_u32(&r);
    t->beat_ms = reader_u32(&r);
    t->told = reader_u8(&r);
    if (t->told && !t->keeps)
        for (t->count = 0; r.left; t->count++) {
            t->has[t->count].stream = reader_u64(&r);
            t->has[t->count].partition = reader_u32(&r);
        }
    rig_clear(rig);
    return GROUP_OK;
}

static int ask_share(struct rig *rig, struct taker *t)
{
    return ask_share_at(rig, t, t->epoch);
}

/* Partitions it has, of streams in the order of their ids: "0 1 | 2". */
static const char *has(const struct taker *t)
{
    static char text[400];
    size_t at = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < t->count; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%s%u", i ? " " : "",
                               i && t->has[i].stream != t->has[i - 1].stream ? "| " : "", t->has[i].partition);
    return text;
}

static void two_share(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 4);
    struct taker a = taker("a", "s"), c = taker("c", "s");
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 1 2 3");
    assert_int_equal(a.epoch, 1);
    assert_int_equal(a.beat_ms, GROUP_CONSUMER_BEAT_MS);
    assert_int_equal(ask_share(rig, &c), GROUP_OK); /* nothing is free yet */
    assert_string_equal(has(&c), "");
    assert_int_equal(c.epoch, 2);
    assert_true(c.beat_ms < GROUP_CONSUMER_BEAT_MS);
    a.keeps = true;
    assert_int_equal(ask_share(rig, &a), GROUP_OK); /* it is told to give back, and does not yet */
    assert_int_equal(a.epoch, 1);
    assert_true(a.told);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_string_equal(has(&c), "");
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(a.epoch, 1);
    assert_int_equal(group_shown(the_group(rig, "g")), GROUP_RECONCILING);
    a.keeps = false;
    a.count = 2; /* now it does */
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_true(a.epoch == 2 && a.count == 2);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(c.count, 2);
    assert_int_equal(group_shown(the_group(rig, "g")), GROUP_STABLE);
    a.topics = NULL;
    a.says = false;
    assert_int_equal(ask_share(rig, &a), GROUP_OK); /* nothing new: nothing is said */
    assert_false(a.told);
    assert_int_equal(ask_share_at(rig, &c, GROUP_EPOCH_LEAVE), GROUP_OK);
    assert_int_equal(c.epoch, GROUP_EPOCH_LEAVE);
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 1 2 3");
    assert_int_equal(ask_share_at(rig, &a, GROUP_EPOCH_LEAVE), GROUP_OK);
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    end(rig);
}

static void who_is_refused(void **state)
{
    (void)state;
    struct broker_options options = {.group_members_max = 2};
    struct rig *rig = begin_options(&options);
    uint64_t stream = declare_stream(rig, "s", 4)->queue->id;
    struct taker a = taker("a", "s"), c = taker("c", "s"), d = taker("d", "s");
    struct member_words classic = somebody("range"), simple = {.session = 1, .group = "g", .generation = SIMPLE};
    assert_int_equal(ask_share_at(rig, &a, 1), GROUP_ERR_UNKNOWN_MEMBER); /* no group */
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(ask_share_at(rig, &c, 1), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(ask_share_at(rig, &a, 7), GROUP_ERR_FENCED_EPOCH);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(ask_share(rig, &d), GROUP_ERR_FULL);
    assert_int_equal(join(rig, &classic), GROUP_ERR_PROTOCOL);
    assert_int_equal(beat(rig, &classic), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(commit(rig, &simple, stream, 1), GROUP_ERR_UNKNOWN_MEMBER);
    a.as.generation = a.epoch;
    assert_int_equal(commit(rig, &a.as, stream, 1), GROUP_OK);
    a.as.generation = a.epoch + 1;
    assert_int_equal(commit(rig, &a.as, stream, 1), GROUP_ERR_STALE_EPOCH);
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSETS, &a.as, a.epoch + 1, NOTHING, ASK_MULTIPLE),
                     GROUP_ERR_STALE_EPOCH);
    assert_int_equal(group_ask(rig, CMD_GROUP_DELETE, &simple, 0, NOTHING, 0), GROUP_ERR_NOT_EMPTY);
    assert_int_equal(group_ask(rig, CMD_GROUP_DESCRIBE, &simple, 0, NOTHING, 0), GROUP_ERR_NO_GROUP);
    assert_int_equal(group_ask(rig, CMD_GROUP_DESCRIBE_CONSUMERS, &simple, 0, NOTHING, 0), GROUP_OK);
    assert_int_equal(group_ask(rig, CMD_GROUP_CONSUME, &a.as, 1, slice_str("torn"), 0), GROUP_ERR_INVALID);
    classic.group = "classic";
    assert_int_equal(join(rig, &classic), UNANSWERED);
    a.as.group = "classic";
    assert_int_equal(ask_share_at(rig, &a, 0), GROUP_ERR_NO_GROUP);
    assert_int_equal(group_ask(rig, CMD_GROUP_DESCRIBE_CONSUMERS, &a.as, 0, NOTHING, 0), GROUP_ERR_NO_GROUP);
    end(rig);
}

static void an_answer_is_lost(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 4);
    struct taker a = taker("a", "s"), c = taker("c", "s");
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(ask_share(rig, &a), GROUP_OK); /* it hears what to give back, and has done so … */
    struct taker before = a;
    assert_int_equal(ask_share(rig, &a), GROUP_OK); /* … and of this it hears nothing */
    assert_int_equal(a.epoch, 2);
    assert_int_equal(ask_share(rig, &before), GROUP_OK); /* so it asks again */
    assert_true(before.epoch == 2 && before.told && before.count == 2);
    before.epoch = 1;
    before.has[before.count++] = (struct portion){4711, 3}; /* and with what is not its own it is fenced */
    assert_int_equal(ask_share(rig, &before), GROUP_ERR_FENCED_EPOCH);
    end(rig);
}

static void times(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 4);
    struct taker a = taker("a", "s"), c = taker("c", "s");
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    a.keeps = true;
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    rig_pass(rig, 5100); /* it was to give back by now */
    assert_int_equal(ask_share(rig, &a), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_string_equal(has(&c), "0 1 2 3");
    a.keeps = false;
    assert_int_equal(ask_share_at(rig, &a, 0), GROUP_OK); /* it begins again */
    skip_ms(rig, 44000);
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    skip_ms(rig, 2000);
    assert_int_equal(ask_share(rig, &c), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 1 2 3");
    skip_ms(rig, 46000);
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    end(rig);
}

static void topics_change(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 2);
    struct taker a = taker("a", "s,t");
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 1"); /* t is not there */
    (void)declare_stream(rig, "t", 1);
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 1 | 0");
    assert_int_equal(a.epoch, 2);
    assert_true(rig_ask_full(rig, CMD_STREAM_GROW, 1, 0, "t", NULL, NULL, NOTHING, 0, 3));
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 1 | 0 1 2");
    assert_true(ASK(QUEUE_DELETE, "s", NULL, NULL, 0));
    assert_int_equal(ask_share(rig, &a), GROUP_OK); /* what is gone has to be given back, too */
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 1 2");
    a.topics = "none";
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "");
    end(rig);
}

/* It is a member all the same, in an epoch, and takes part when it names some. */
static void no_topics_at_first(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 2);
    struct taker a = taker("a", ""), c = taker("c", "");
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(a.epoch, 1);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(c.epoch, 2);
    a.topics = "s";
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 1");
    end(rig);
}

static void patterns(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s1", 1);
    (void)declare_stream(rig, "xs1", 1);
    struct taker a = taker("a", NULL), c = taker("c", NULL);
    a.pattern = "s.";
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0"); /* the whole name has to match */
    (void)declare_stream(rig, "s2", 2);
    declare(rig, "s3", NOTHING); /* no stream */
    a.pattern = NULL;            /* as it was */
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 | 0 1");
    a.topics = "xs1";
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 | 0 | 0 1");
    assert_true(ASK(QUEUE_DELETE, "s1", NULL, NULL, 0));
    a.topics = NULL;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0 | 0 1");
    a.pattern = ""; /* none any more */
    for (int i = 0; i < 3; i++)
        assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_string_equal(has(&a), "0");
    c.pattern = "s(";
    assert_int_equal(ask_share(rig, &c), GROUP_ERR_INVALID);
    c.pattern = "s)|(x"; /* no more than one */
    assert_int_equal(ask_share(rig, &c), GROUP_ERR_INVALID);
    assert_int_equal(the_group(rig, "g")->assignee_count, 1);
    end(rig);
}

/* A name for which an expression takes long costs a third of a millisecond, in one step of the core: with too many it is refused. */
static void a_pattern_that_takes_long(void **state)
{
    (void)state;
    char name[120];
    struct rig *rig = begin();
    struct taker a = taker("a", NULL), c = taker("c", NULL), d = taker("d", NULL);
    memset(name, 's', 100);
    for (unsigned i = 0; i < 33; i++) {
        if (i == 32) {
            a.pattern = c.pattern = ".*.*[xy]|s+0";
            assert_int_equal(ask_share(rig, &a), GROUP_OK);
            assert_int_equal(ask_share(rig, &c), GROUP_OK);
            assert_string_equal(has(&a), "0");
        }
        snprintf(name + 100, sizeof name - 100, "%u", i);
        (void)declare_stream(rig, name, 1);
    }
    d.pattern = a.pattern;
    assert_int_equal(ask_share(rig, &d), GROUP_ERR_INVALID); /* 33 now */
    a.pattern = c.pattern = NULL;
    assert_int_equal(ask_share(rig, &a), GROUP_OK); /* who is there stays, and has what the others find */
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(the_group(rig, "g")->assignee_count, 2);
    end(rig);
}

static void assignors(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 5);
    (void)declare_stream(rig, "t", 4);
    struct taker who[] = {taker("a", "s,t"), taker("c", "s,t"), taker("d", "t")};
    for (int i = 0; i < 3; i++)
        who[i].assignor = GROUP_RANGE;
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < 3; i++)
            assert_int_equal(ask_share(rig, &who[i]), GROUP_OK);
    assert_string_equal(has(&who[0]), "0 1 2 | 0 1");
    assert_string_equal(has(&who[1]), "3 4 | 2");
    assert_string_equal(has(&who[2]), "3");
    for (int i = 0; i < 3; i++)
        who[i].assignor = GROUP_UNIFORM; /* from two on they are the most */
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < 3; i++)
            assert_int_equal(ask_share(rig, &who[i]), GROUP_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(who[i].count, 3);
    struct taker before = who[0];
    assert_int_equal(ask_share_at(rig, &who[2], GROUP_EPOCH_LEAVE), GROUP_OK);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 2; i++)
            assert_int_equal(ask_share(rig, &who[i]), GROUP_OK);
    for (uint32_t i = 0; i < before.count; i++) /* it keeps what it had */
        assert_true(portions_have(&(struct portions){who[0].has, who[0].count}, &before.has[i]));
    assert_int_equal(who[0].count + who[1].count, 9);
    assert_true(who[0].count >= 4 && who[1].count >= 4);
    end(rig);
}

/* Whose subscription is wider gives away what another can have as well. */
static void shares_are_evened_out(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 4);
    (void)declare_stream(rig, "t", 2);
    struct taker a = taker("a", "s"), c = taker("c", "s");
    for (int round = 0; round < 8; round++) {
        assert_int_equal(ask_share(rig, &a), GROUP_OK);
        assert_int_equal(ask_share(rig, &c), GROUP_OK);
        if (round == 3) {
            assert_true(a.count == 2 && c.count == 2);
            c.topics = "s,t";
        }
    }
    assert_true(a.count == 3 && c.count == 3);
    end(rig);
}

static void static_members(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 4);
    struct taker a = taker("a", "s"), c = taker("c", "s"), again = taker("a2", "s");
    a.as.instance = again.as.instance = "i";
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(ask_share(rig, &again), GROUP_ERR_INSTANCE_HELD);
    uint32_t epoch = a.epoch, held = a.count;
    assert_int_equal(ask_share_at(rig, &a, GROUP_EPOCH_AWAY), GROUP_OK);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(c.count, 2); /* its place is kept */
    assert_int_equal(ask_share_at(rig, &a, epoch), GROUP_ERR_FENCED_EPOCH);
    assert_int_equal(ask_share(rig, &again), GROUP_OK);
    assert_true(again.epoch == epoch && again.count == held);
    a.epoch = epoch;
    assert_int_equal(ask_share(rig, &a), GROUP_ERR_FENCED);
    assert_int_equal(ask_share_at(rig, &again, GROUP_EPOCH_AWAY), GROUP_OK);
    skip_ms(rig, 30000);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    skip_ms(rig, 20000); /* it does not come back */
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(c.count, 4);
    end(rig);
}

/* By an administrator, who knows the instance, the id or both. */
static void members_are_removed(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 4);
    struct taker a = taker("a", "s"), c = taker("c", "s"), d = taker("d", "s");
    struct member_words admin = {.session = 1, .group = "g"};
    a.as.instance = "i";
    c.as.instance = "k";
    assert_int_equal(ask_share(rig, &a), GROUP_OK);
    assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_int_equal(ask_share(rig, &d), GROUP_OK);
    assert_int_equal(leave(rig, &admin), GROUP_ERR_UNKNOWN_MEMBER);
    admin.instance = "none";
    assert_int_equal(leave(rig, &admin), GROUP_ERR_UNKNOWN_MEMBER);
    admin.instance = "i";
    snprintf(admin.id, sizeof admin.id, "c");
    assert_int_equal(leave(rig, &admin), GROUP_ERR_FENCED);
    assert_int_equal(leave(rig, &a.as), GROUP_OK);
    assert_int_equal(leave(rig, &a.as), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(ask_share_at(rig, &a, a.epoch), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(leave(rig, &d.as), GROUP_OK);
    for (int i = 0; i < 2; i++)
        assert_int_equal(ask_share(rig, &c), GROUP_OK);
    assert_string_equal(has(&c), "0 1 2 3");
    assert_int_equal(ask_share_at(rig, &c, GROUP_EPOCH_AWAY), GROUP_OK);
    admin.instance = "k";
    admin.id[0] = '\0';
    assert_int_equal(leave(rig, &admin), GROUP_OK);
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    end(rig);
}

/* Members are gone after a restart, offsets are not, however old they are. */
static void restarts(void **state)
{
    (void)state;
    struct broker_options options = {.group_retention_ms = 3600 * 1000, .group_consumer_session_ms = 7200 * 1000};
    struct rig *rig = begin_options(&options);
    uint64_t stream = declare_stream(rig, "s", 4)->queue->id;
    struct taker a = taker("a", "s");
    for (int compacted = 0; compacted < 2; compacted++) {
        a.epoch = 0;
        assert_int_equal(ask_share(rig, &a), GROUP_OK);
        a.as.generation = a.epoch;
        assert_int_equal(commit(rig, &a.as, stream, 5), GROUP_OK);
        skip_ms(rig, 7100 * 1000);
        if (compacted)
            compact_all(rig);
        restart(&rig);
        assert_int_equal(state_of(rig), GROUP_EMPTY);
        assert_int_equal(ask_share(rig, &a), GROUP_ERR_UNKNOWN_MEMBER);
        rig_pass(rig, 1000);
        assert_string_equal(offsets_of(rig, "g"), "0:5:7:note");
    }
    skip_ms(rig, 3600 * 1000);
    assert_null(the_group(rig, "g"));
    end(rig);
}

/* ---- refused memory, chance ---- */

static bool storm(struct rig *rig)
{
    struct table t;
    struct taker who[] = {taker("a", "s"), taker("c", "s"), taker("d", "s")};
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_long(&t.w, "x-stream-partitions", 5);
    if (!begin_with(rig) || !rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "s", NULL, NULL, writer_slice(&t.w), ASK_DURABLE))
        return false;
    who[2].as.instance = "i";
    who[1].pattern = ".";
    for (int round = 0; round < 5; round++)
        for (size_t i = 0; i < ARRAY_LEN(who); i++) {
            int error = ask_share(rig, &who[i]);
            if (error == GROUP_ERR_UNKNOWN_MEMBER || error == GROUP_ERR_FENCED_EPOCH)
                who[i].epoch = who[i].count = 0;
            if (round == 3 && i == 1)
                (void)ask_share_at(rig, &who[1], GROUP_EPOCH_LEAVE);
        }
    (void)group_ask(rig, CMD_GROUP_DESCRIBE_CONSUMERS, &who[0].as, 0, NOTHING, 0);
    (void)ask_share_at(rig, &who[2], GROUP_EPOCH_AWAY);
    who[2].epoch = 0;
    snprintf(who[2].as.id, sizeof who[2].as.id, "d2");
    (void)ask_share(rig, &who[2]);
    return true;
}

static void memory_is_refused(void **state)
{
    (void)state;
    each_allocation_fails(storm, NULL, NULL);
}

#define PEOPLE 6

static unsigned pick(uint64_t *dice, unsigned n)
{
    *dice = *dice * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((*dice >> 33) % n);
}

static bool is_held(const struct taker *who, const struct portion *p, int except)
{
    for (int i = 0; i < PEOPLE; i++)
        for (uint32_t n = 0; i != except && n < who[i].count; n++)
            if (portion_order(&who[i].has[n], p) == 0)
                return true;
    return false;
}

static void walk(uint64_t dice)
{
    struct rig *rig = begin();
    static const char *const topics[] = {"s", "s,t", "t,s,u", "u"};
    struct taker who[PEOPLE];
    for (int i = 0; i < PEOPLE; i++) {
        char id[8];
        snprintf(id, sizeof id, "m%d", i);
        who[i] = taker(id, "s");
    }
    (void)declare_stream(rig, "s", 7);
    (void)declare_stream(rig, "t", 3);
    for (int step = 0; step < 4000; step++) {
        int i = (int)pick(&dice, PEOPLE);
        struct taker *t = &who[i];
        switch (pick(&dice, 14)) {
        case 0: t->topics = topics[pick(&dice, ARRAY_LEN(topics))]; break;
        case 1: t->assignor = (int)pick(&dice, GROUP_ASSIGNORS); break;
        case 2:
            if (t->epoch && pick(&dice, 3) == 0) {
                (void)ask_share_at(rig, t, GROUP_EPOCH_LEAVE);
                t->epoch = t->count = 0;
            }
            break;
        case 3:
            if (stream_id(rig, "u"))
                ASK(QUEUE_DELETE, "u", NULL, NULL, 0);
            else
                (void)declare_stream(rig, "u", 2);
            break;
        case 4:
            if (pick(&dice, 4) == 0) {
                skip_ms(rig, pick(&dice, 40000));
                for (int n = 0; n < PEOPLE; n++) /* who has lost its place knows it by its own clock */
                    if (!the_group(rig, "g") || !the_group(rig, "g")->assignee_count)
                        who[n].epoch = who[n].count = 0;
            }
            break;
        default: {
            uint32_t had = t->count;
            int error = ask_share(rig, t);
            if (error) {
                assert_true(error == GROUP_ERR_UNKNOWN_MEMBER || error == GROUP_ERR_FENCED_EPOCH);
                t->epoch = t->count = 0;
            }
            (void)had;
            break;
        }
        }
        rig_clear(rig);
    }
    for (int round = 0; round < 40; round++) /* left alone they settle */
        for (int i = 0; i < PEOPLE; i++)
            if (ask_share(rig, &who[i]))
                who[i].epoch = who[i].count = 0;
    assert_int_equal(group_shown(the_group(rig, "g")), GROUP_STABLE);
    unsigned total = 0;
    for (int i = 0; i < PEOPLE; i++)
        for (uint32_t n = 0; n < who[i].count; n++, total++)
            assert_false(is_held(who, &who[i].has[n], i));
    bool s = false, rest = false;
    for (int i = 0; i < PEOPLE; i++) {
        s = s || strchr(who[i].topics, 's');
        rest = rest || strchr(who[i].topics, 't');
    }
    assert_true(total >= (s ? 7u : 0) + (rest ? 3u : 0));
    end(rig);
}

static void random_walks(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++)
        walk(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_share),
        cmocka_unit_test(patterns),
        cmocka_unit_test(a_pattern_that_takes_long),
        cmocka_unit_test(shares_are_evened_out),
        cmocka_unit_test(no_topics_at_first),
        cmocka_unit_test(who_is_refused),
        cmocka_unit_test(an_answer_is_lost),
        cmocka_unit_test(times),
        cmocka_unit_test(topics_change),
        cmocka_unit_test(assignors),
        cmocka_unit_test(static_members),
        cmocka_unit_test(members_are_removed),
        cmocka_unit_test(restarts),
        cmocka_unit_test(memory_is_refused),
        cmocka_unit_test(random_walks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
