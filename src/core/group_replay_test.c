/* Consumer groups and the journal: restarts, a power cut at any record, snapshots while everything goes on, refused memory, chance. */
#include "core/group_words_test.h"

static void restarts(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words a = somebody("range"), c = a;
    two_stable(rig, &a, &c);
    assert_int_equal(commit(rig, &a, stream, 9), GROUP_OK);
    for (int compacted = 0; compacted < 2; compacted++) {
        if (compacted)
            compact_all(rig);
        restart(&rig);
        assert_int_equal(beat(rig, &c), GROUP_OK);
        assert_int_equal(sync_group(rig, &c, NULL), GROUP_OK);
        assert_string_equal(assigned(rig, *last_number()), "part 1");
        assert_int_equal(beat(rig, &a), GROUP_OK);
        assert_true(slice_is(the_group(rig, "g")->leader->id, a.id));
        assert_string_equal(offsets_of(rig, "g"), "0:9:7:note");
        assert_int_equal(commit(rig, &c, stream, 9), GROUP_OK);
        assert_groups_replay(rig);
    }
    restart(&rig);
    rig_pass(rig, 10100); /* nobody came back */
    rig_pass(rig, 60000);
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    assert_int_equal(the_group(rig, "g")->generation, 2);
    restart(&rig);
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    assert_int_equal(the_group(rig, "g")->generation, 2);
    end(rig);
}

/* The first group of all is made when a snapshot has begun: what is said of it stands before its vhost and its stream. */
static void a_group_that_a_snapshot_has_not_met(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words simple = {.session = 1, .group = "g", .generation = SIMPLE};
    compact_start(rig->b);
    assert_true(list_empty(&rig->b->group_list));
    assert_int_equal(commit(rig, &simple, stream, 9), GROUP_OK);
    for (unsigned i = 0; i < 1000 && rig->b->compact.phase != COMPACT_IDLE; i++)
        rig_pass(rig, 5);
    restart(&rig);
    assert_non_null(the_group(rig, "g"));
    assert_int_equal(the_group(rig, "g")->offsets.count, 1);
    end(rig);
}

/* A snapshot of a group between two generations: the old assignment must not come back as that of the new one. */
static void a_snapshot_in_a_round(void **state)
{
    (void)state;
    for (int completing = 0; completing < 2; completing++) {
        struct rig *rig = begin();
        struct member_words a = somebody("range"), c = a, d = a;
        two_stable(rig, &a, &c);
        assert_int_equal(join(rig, &d), UNANSWERED);
        uint64_t third = *last_number();
        assert_int_equal(join(rig, &a), UNANSWERED);
        uint64_t first = *last_number();
        if (completing) {
            assert_int_equal(join(rig, &c), GROUP_OK);
            (void)joined_as(rig, *last_number(), &c);
            (void)joined_as(rig, first, &a);
            (void)joined_as(rig, third, &d);
        }
        compact_all(rig);
        restart(&rig);
        assert_int_equal(state_of(rig), GROUP_PREPARING);
        assert_int_equal(beat(rig, &c), GROUP_ERR_REBALANCE);
        assert_int_equal(sync_group(rig, &c, NULL), GROUP_ERR_REBALANCE);
        assert_int_equal(the_group(rig, "g")->member_count, 3);
        if (!completing) { /* it was never told its id */
            rig_pass(rig, 1);
            snprintf(d.id, sizeof d.id, "%.*s",
                     SLICE_ARG(CONTAINER_OF(the_group(rig, "g")->members.prev, struct member, link)->id));
        }
        assert_int_equal(join(rig, &a), UNANSWERED);
        assert_int_equal(join(rig, &c), UNANSWERED);
        first = *last_number();
        assert_int_equal(join(rig, &d), GROUP_OK);
        assert_int_equal(joined_as(rig, first, &c).generation, completing ? 3 : 2);
        end(rig);
    }
}

/* Every prefix of the journal starts, and what was answered by then is there. */
static void a_power_cut_at_any_record(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 2)->queue->id;
    struct member_words a = somebody("range"), c = a;
    size_t begun = rig->log->count, at[6];
    two_stable(rig, &a, &c);
    at[0] = rig->log->count;
    assert_int_equal(commit(rig, &a, stream, 1), GROUP_OK);
    at[1] = rig->log->count;
    assert_int_equal(commit_text(rig, &c, stream, 1, 2, NOTHING), GROUP_OK);
    assert_int_equal(leave(rig, &a), GROUP_OK);
    assert_int_equal(leave(rig, &c), GROUP_OK);
    at[2] = rig->log->count;
    assert_true(at[0] == begun + 1 && at[1] == at[0] + 1 && at[2] == at[1] + 2);
    for (size_t n = begun; n <= at[2]; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        struct rig *other = rig_new(copy, &rig->options, rig->wall);
        struct group *g = the_group(other, "g");
        assert_int_equal(g != NULL, n >= at[0]);
        if (g) {
            assert_int_equal(g->state, n >= at[2] ? GROUP_EMPTY : GROUP_STABLE);
            assert_int_equal(g->offsets.count, n >= at[1] ? n - at[0] > 2 ? 2 : n - at[0] : 0);
        }
        rig_free(other);
        rig_log_free(copy);
    }
    end(rig);
}

/* An answer that the disk has not caught up with is held, so a generation is never given out twice. */
static void a_generation_is_durable_before_it_is_told(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range"), c = a;
    const struct member_words *const one[] = {&a, NULL};
    assert_int_equal(join(rig, &a), UNANSWERED);
    uint64_t number = *last_number();
    assert_int_equal(join(rig, &c), UNANSWERED);
    uint64_t other = *last_number();
    rig_pass(rig, 1000);
    (void)joined_as(rig, number, &a);
    (void)joined_as(rig, other, &c);
    assert_int_equal(sync_group(rig, &c, NULL), UNANSWERED);
    other = *last_number();
    size_t before = rig->log->count;
    assert_int_equal(sync_group(rig, &a, one), GROUP_OK);
    assert_int_equal(group_effect(rig, other)->lsn, rig->log->count);
    assert_int_equal(rig->log->count, before + 1);
    assert_int_equal(group_effect(rig, *last_number())->lsn, rig->log->count);
    assert_int_equal(sync_group(rig, &a, NULL), GROUP_OK);
    assert_int_equal(group_effect(rig, *last_number())->lsn, rig->log->count);
    end(rig);
}

static void a_vhost_takes_its_groups_with_it(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct vhost *vhost = vhost_put(rig->b, slice_str("v"), NOTHING);
    assert_non_null(vhost);
    assert_non_null(group_make(rig->b, vhost, slice_str("g")));
    vhost_delete(rig->b, vhost);
    assert_int_equal(rig->b->group_bytes, 0);
    end(rig);
}

/* ---- refused memory ---- */

static uint64_t committed_until; /* the highest offset that a COMMIT was answered for */

static bool storm(struct rig *rig)
{
    struct member_words a = somebody("range,sticky"), c = a, d = a, simple = {.session = 1, .group = "h"};
    const struct member_words *const all[] = {&a, &c, &d, NULL};
    committed_until = 0;
    c.instance = "i";
    d.two_steps = true;
    simple.generation = SIMPLE;
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    if (!begin_with(rig) || !rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "s", NULL, NULL, writer_slice(&t.w), ASK_DURABLE))
        return false;
    struct member_words *const who[] = {&a, &c, &d};
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < ARRAY_LEN(who); i++) {
            int error = join(rig, who[i]);
            uint64_t number = *last_number();
            if (error == GROUP_ERR_NEED_MEMBER_ID) {
                struct reader r = fields_of(rig, number);
                take_text(&r, who[i]->id, sizeof who[i]->id);
                (void)join(rig, who[i]);
                number = *last_number();
            }
            rig_pass(rig, 250);
            if (answer_to(rig, number) == GROUP_OK)
                (void)joined_as(rig, number, who[i]);
            else if (answer_to(rig, number) == GROUP_ERR_UNKNOWN_MEMBER)
                who[i]->id[0] = '\0';
        }
        for (size_t i = ARRAY_LEN(who); i-- > 0;)
            (void)sync_group(rig, who[i], i ? NULL : all);
        for (uint64_t i = 1; i < 4; i++)
            if (commit(rig, &simple, stream_id(rig, "s"), committed_until + 1) == GROUP_OK)
                committed_until++;
        (void)beat(rig, &a);
        if (round == 1)
            (void)leave(rig, &c);
        c.id[0] = '\0';
        compact_start(rig->b);
        rig_pass(rig, 100);
        (void)group_ask(rig, CMD_GROUP_DESCRIBE, &a, 0, NOTHING, 0);
        (void)group_ask(rig, CMD_GROUP_LIST, &a, 0, slice_of("\0", 1), 0);
        (void)group_ask(rig, CMD_GROUP_OFFSETS, &a, 0, NOTHING, ASK_MULTIPLE);
        rig_clear(rig);
    }
    (void)group_ask(rig, CMD_GROUP_DELETE, &a, 0, NOTHING, 0);
    return true;
}

static uint64_t count(struct rig *rig)
{
    (void)rig;
    return committed_until;
}

static void is_there(struct rig *rig, uint64_t counted)
{
    struct group *g = the_group(rig, "h");
    const struct committed *o = g ? LIST_FIRST(&g->offset_list, struct committed, link) : NULL;
    assert_true(!counted || (o && o->offset >= counted));
}

static void memory_is_refused(void **state)
{
    (void)state;
    each_allocation_fails(storm, count, is_there);
}

/* ---- chance ---- */

#define PEOPLE 7
#define GROUPS 2

struct walk {
    struct rig *rig;
    uint64_t dice;
    struct member_words who[PEOPLE];
    uint64_t asked[PEOPLE]; /* number of a JOIN that is not answered */
    bool open[4];
    uint64_t committed[GROUPS];
    unsigned stable;
};

static unsigned pick(struct walk *w, unsigned n)
{
    w->dice = w->dice * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((w->dice >> 33) % n);
}

static const char *const group_names[GROUPS] = {"g", "h"};

static void restart_walk(struct walk *w)
{
    restart(&w->rig);
    memset(w->asked, 0, sizeof w->asked);
    memset(w->open, 0, sizeof w->open);
    w->open[1] = true;
    declare(w->rig, "x", NOTHING); /* a queue, so that there is something else */
    rig_clear(w->rig);
}

/* What came for who waited, and what he makes of it. */
static void hear(struct walk *w)
{
    for (unsigned i = 0; i < PEOPLE; i++) {
        struct member_words *m = &w->who[i];
        int answer = w->asked[i] ? answer_to(w->rig, w->asked[i]) : UNANSWERED;
        if (answer == UNANSWERED)
            continue;
        if (answer == GROUP_OK) {
            const struct group *g = the_group(w->rig, m->group);
            (void)joined_as(w->rig, w->asked[i], m);
            assert_true(!g || m->generation <= g->generation);
        } else if (answer == GROUP_ERR_NEED_MEMBER_ID) {
            struct reader r = fields_of(w->rig, w->asked[i]);
            take_text(&r, m->id, sizeof m->id);
        } else if (answer == GROUP_ERR_UNKNOWN_MEMBER || answer == GROUP_ERR_FENCED)
            m->id[0] = '\0';
        w->asked[i] = 0;
    }
    rig_clear(w->rig);
}

static void sync_walk(struct walk *w, struct member_words *m)
{
    const struct member_words *mates[PEOPLE + 1];
    unsigned n = 0;
    for (unsigned i = 0; i < PEOPLE; i++)
        if (w->who[i].group == m->group && w->who[i].id[0])
            mates[n++] = &w->who[i];
    mates[n] = NULL;
    (void)sync_group(w->rig, m, mates);
}

static void member_step(struct walk *w, unsigned i)
{
    struct rig *rig = w->rig;
    struct member_words *m = &w->who[i];
    unsigned g = m->group[0] - 'g';
    switch (pick(w, 10)) {
    case 0:
    case 1:
    case 2:
        m->protocols = pick(w, 4) ? "range,sticky" : "sticky,range";
        m->metadata = pick(w, 3) ? "topics" : "others";
        m->can_skip = pick(w, 2);
        (void)join(rig, m);
        w->asked[i] = *last_number();
        break;
    case 3:
    case 4:
    case 5: sync_walk(w, m); break;
    case 6: (void)beat(rig, m); break;
    case 7:
        if (pick(w, 3) == 0)
            (void)leave(rig, m);
        break;
    case 8:
        if (commit_text(rig, m, stream_id(rig, "s"), pick(w, 3), w->committed[g] + 1, slice_str("xyz")) == GROUP_OK)
            w->committed[g]++;
        break;
    default:
        if (pick(w, 4) == 0)
            m->id[0] = '\0'; /* the process is another */
    }
}

static void world_step(struct walk *w)
{
    struct rig *rig = w->rig;
    struct member_words admin = {.session = 1, .group = group_names[pick(w, GROUPS)], .generation = SIMPLE};
    unsigned session = 2 + pick(w, 2);
    switch (pick(w, 12)) {
    case 0: skip_ms(rig, pick(w, 12000)); break;
    case 1:
        if (pick(w, 3) == 0)
            restart_walk(w);
        break;
    case 2: compact_start(rig->b); break;
    case 3: (void)commit_text(rig, &admin, stream_id(rig, "s"), pick(w, 3), pick(w, 1000), NOTHING); break;
    case 4: (void)group_ask(rig, CMD_GROUP_DELETE, &admin, 0, NOTHING, 0); break;
    case 5:
        if (pick(w, 4) == 0)
            ASK(QUEUE_DELETE, "s", NULL, NULL, 0);
        if (!stream_id(rig, "s"))
            (void)declare_stream(rig, "s", 3);
        break;
    case 6:
        if (pick(w, 3) == 0 && w->open[session]) {
            rig_plain(rig, CMD_SESSION_CLOSE, session, 0, 0, 0);
            w->open[session] = false;
        }
        break;
    case 7: assert_groups_replay(rig); break;
    default: rig_pass(rig, pick(w, 300)); break;
    }
}

static void walk(uint64_t seed)
{
    struct broker_options options = {.group_session_min_ms = 1000, .group_retention_ms = 30000, .compact_every = 0};
    struct walk w = {.dice = seed};
    w.rig = begin_options(&options);
    w.open[1] = true;
    (void)declare_stream(w.rig, "s", 3);
    for (unsigned i = 0; i < PEOPLE; i++) {
        w.who[i] = somebody("range,sticky");
        w.who[i].group = group_names[i % GROUPS];
        w.who[i].session = 1 + i % 3;
        w.who[i].instance = i == 3 || i == 5 ? "one" : i == 4 ? "two" : NULL;
        w.who[i].two_steps = i % 2;
        w.who[i].session_ms = 3000 + 1000 * i;
        w.who[i].rebalance_ms = 2000;
    }
    for (unsigned step = 0; step < 3000; step++) {
        unsigned i = pick(&w, PEOPLE);
        uint32_t session = w.who[i].session;
        if (!w.open[session] && rig_open(w.rig, session))
            w.open[session] = true;
        if (pick(&w, 3))
            member_step(&w, i);
        else
            world_step(&w);
        hear(&w);
        struct group *g = the_group(w.rig, "g");
        w.stable += g && g->state == GROUP_STABLE && g->member_count > 1;
    }
    assert_true(w.stable > 20); /* it came to something */
    rig_pass(w.rig, 5000);
    skip_ms(w.rig, 60000);
    for (int i = 0; i < 30; i++)
        skip_ms(w.rig, 60000);
    assert_int_equal(w.rig->b->groups.count, 0); /* everybody went: nothing is left */
    assert_int_equal(w.rig->b->group_bytes, 0);
    rig_clear(w.rig);
    end(w.rig);
}

static void random_walks(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++)
        walk(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(restarts),
        cmocka_unit_test(a_group_that_a_snapshot_has_not_met),
        cmocka_unit_test(a_snapshot_in_a_round),
        cmocka_unit_test(a_power_cut_at_any_record),
        cmocka_unit_test(a_generation_is_durable_before_it_is_told),
        cmocka_unit_test(a_vhost_takes_its_groups_with_it),
        cmocka_unit_test(memory_is_refused),
        cmocka_unit_test(random_walks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
