/* Consumer groups in the core: every row of the table in group.c, who leads, what is elected, static members, sessions that close,
 * limits. What groups have read is group_offsets_test.c, restarts and chance group_replay_test.c. */
#include "core/group_words_test.h"

/* ---- rows of the table ---- */

static void rows_of_empty(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words a = somebody("range"), nobody = {.session = 1, .group = "g", .generation = SIMPLE};
    snprintf(a.id, sizeof a.id, "an old id");
    assert_int_equal(beat(rig, &a), GROUP_ERR_UNKNOWN_MEMBER); /* no group at all */
    assert_int_equal(join(rig, &a), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(leave(rig, &a), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(group_ask(rig, CMD_GROUP_DELETE, &nobody, 0, NOTHING, 0), GROUP_ERR_NO_GROUP);
    assert_int_equal(commit(rig, &a, stream, 1), GROUP_ERR_NO_GROUP);
    assert_int_equal(commit(rig, &nobody, stream, 1), GROUP_OK); /* makes it */
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    assert_int_equal(beat(rig, &a), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(sync_group(rig, &a, NULL), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(join(rig, &a), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(leave(rig, &a), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(commit(rig, &a, stream, 1), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(commit(rig, &nobody, stream, 2), GROUP_OK);
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSET_DELETE, &nobody, 0, NOTHING, 0), GROUP_OK);
    assert_int_equal(group_ask(rig, CMD_GROUP_DELETE, &nobody, 0, NOTHING, 0), GROUP_OK);
    assert_int_equal(state_of(rig), GROUP_DEAD);
    a.id[0] = '\0';
    a.two_steps = true;
    assert_int_equal(join(rig, &a), GROUP_ERR_NEED_MEMBER_ID);
    struct reader r = fields_of(rig, *last_number());
    take_text(&r, a.id, sizeof a.id);
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    assert_int_equal(beat(rig, &a), GROUP_ERR_UNKNOWN_MEMBER); /* it is none yet */
    assert_int_equal(join(rig, &a), UNANSWERED);
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    end(rig);
}

static void rows_of_preparing(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words a = somebody("range"), c = a, d = a,
                        nobody = {.session = 1, .group = "g", .generation = SIMPLE};
    two_stable(rig, &a, &c);
    assert_int_equal(join(rig, &d), UNANSWERED);
    uint64_t new_one = *last_number();
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    assert_int_equal(beat(rig, &a), GROUP_ERR_REBALANCE);
    assert_int_equal(sync_group(rig, &a, NULL), GROUP_ERR_REBALANCE);
    assert_int_equal(commit(rig, &a, stream, 4), GROUP_OK); /* what it did until now */
    assert_int_equal(commit(rig, &nobody, stream, 5), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(group_ask(rig, CMD_GROUP_DELETE, &nobody, 0, NOTHING, 0), GROUP_ERR_NOT_EMPTY);
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSET_DELETE, &nobody, 99, NOTHING, 0), GROUP_ERR_NOT_EMPTY);
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSET_DELETE, &nobody, 1, NOTHING, 0), GROUP_OK);
    assert_int_equal(join(rig, &a), UNANSWERED);
    uint64_t again = *last_number();
    assert_int_equal(join(rig, &a), UNANSWERED); /* it has lost patience: the first one's answer is for nobody */
    assert_int_equal(answer_to(rig, again), GROUP_ERR_REBALANCE);
    assert_int_equal(leave(rig, &c), GROUP_OK); /* all that are left have joined */
    assert_int_equal(joined_as(rig, new_one, &d).generation, 2);
    assert_int_equal(state_of(rig), GROUP_COMPLETING);
    end(rig);
}

static void rows_of_completing(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words a = somebody("range"), c = a, d = a,
                        nobody = {.session = 1, .group = "g", .generation = SIMPLE};
    const struct member_words *const both[] = {&a, &c, NULL};
    assert_int_equal(join(rig, &a), UNANSWERED);
    uint64_t first = *last_number();
    assert_int_equal(join(rig, &c), UNANSWERED);
    uint64_t second = *last_number();
    rig_pass(rig, 1000);
    (void)joined_as(rig, first, &a);
    (void)joined_as(rig, second, &c);
    assert_int_equal(state_of(rig), GROUP_COMPLETING);
    assert_int_equal(beat(rig, &c), GROUP_OK);
    assert_int_equal(commit(rig, &c, stream, 4), GROUP_ERR_REBALANCE);
    assert_int_equal(commit(rig, &nobody, stream, 4), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(group_ask(rig, CMD_GROUP_DELETE, &nobody, 0, NOTHING, 0), GROUP_ERR_NOT_EMPTY);
    assert_int_equal(join(rig, &a), GROUP_OK); /* the answer was lost on its way */
    assert_int_equal(joined_as(rig, *last_number(), &a).members, 2);
    assert_int_equal(join(rig, &c), GROUP_OK);
    assert_int_equal(joined_as(rig, *last_number(), &c).members, 0);
    assert_int_equal(sync_group(rig, &c, NULL), UNANSWERED);
    uint64_t held = *last_number();
    c.metadata = "other topics";
    assert_int_equal(join(rig, &c), UNANSWERED);
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    assert_int_equal(answer_to(rig, held), GROUP_ERR_REBALANCE);
    second = *last_number();
    assert_int_equal(join(rig, &a), GROUP_OK);
    assert_int_equal(joined_as(rig, second, &c).generation, 2);
    (void)joined_as(rig, *last_number(), &a);
    assert_int_equal(join(rig, &d), UNANSWERED); /* somebody new */
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    assert_int_equal(leave(rig, &a), GROUP_OK);
    assert_int_equal(join(rig, &c), GROUP_OK);
    assert_int_equal(joined_as(rig, *last_number(), &c).generation, 3);
    assert_string_equal(the_group(rig, "g")->leader->id.len ? c.id : "", c.id);
    assert_int_equal(leave(rig, &c), GROUP_OK); /* the leader, before it has assigned */
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    (void)both;
    end(rig);
}

static void rows_of_stable(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words a = somebody("range"), c = a, nobody = {.session = 1, .group = "g", .generation = SIMPLE};
    two_stable(rig, &a, &c);
    assert_int_equal(beat(rig, &c), GROUP_OK);
    assert_int_equal(commit(rig, &c, stream, 4), GROUP_OK);
    assert_int_equal(commit(rig, &nobody, stream, 4), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(sync_group(rig, &c, NULL), GROUP_OK);
    assert_string_equal(assigned(rig, *last_number()), "part 1");
    assert_int_equal(join(rig, &c), GROUP_OK);
    assert_int_equal(joined_as(rig, *last_number(), &c).generation, 1);
    assert_int_equal(group_effect(rig, *last_number())->lsn, the_group(rig, "g")->lsn);
    struct member_words apart = c;
    apart.protocols = "sticky";
    assert_int_equal(join(rig, &apart), GROUP_ERR_PROTOCOL); /* of which the other has none */
    assert_int_equal(state_of(rig), GROUP_STABLE);
    assert_int_equal(group_ask(rig, CMD_GROUP_DELETE, &nobody, 0, NOTHING, 0), GROUP_ERR_NOT_EMPTY);
    struct member_words old = c, wrong = c;
    snprintf(wrong.id, sizeof wrong.id, "somebody else");
    old.generation = 7;
    assert_int_equal(beat(rig, &wrong), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(beat(rig, &old), GROUP_ERR_GENERATION);
    assert_int_equal(sync_group(rig, &old, NULL), GROUP_ERR_GENERATION);
    assert_int_equal(commit(rig, &old, stream, 4), GROUP_ERR_GENERATION);
    assert_int_equal(join(rig, &a), UNANSWERED); /* the leader has seen another topic */
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    assert_int_equal(join(rig, &c), GROUP_OK);
    assert_int_equal(joined_as(rig, *last_number(), &c).generation, 2);
    end(rig);
}

/* ---- timers ---- */

static void an_empty_group_waits_for_more(void **state)
{
    (void)state;
    struct broker_options options = {.group_delay_ms = 100};
    struct rig *rig = begin_options(&options);
    struct member_words a = somebody("range"), c = a;
    a.rebalance_ms = c.rebalance_ms = 250;
    assert_int_equal(join(rig, &a), UNANSWERED);
    uint64_t first = *last_number();
    rig_pass(rig, 90);
    assert_int_equal(join(rig, &c), UNANSWERED);
    rig_pass(rig, 50); /* the delay is over: it begins again, since somebody came */
    assert_int_equal(answer_to(rig, first), UNANSWERED);
    rig_pass(rig, 75);
    assert_int_equal(joined_as(rig, first, &a).members, 2);
    rig_clear(rig);
    struct member_words d = somebody("range");
    d.group = "h";
    d.rebalance_ms = 250;
    assert_int_equal(join(rig, &d), UNANSWERED);
    first = *last_number();
    for (int i = 0; i < 3; i++) { /* who comes again and again does not put it off beyond the time of a round */
        rig_pass(rig, 80);
        d.session_ms++;
        (void)join(rig, &d);
    }
    rig_pass(rig, 40);
    assert_int_equal(joined_as(rig, first, &d).members, 4);
    end(rig);
}

static void no_delay(void **state)
{
    (void)state;
    struct broker_options options = {.group_delay_ms = -1};
    struct rig *rig = begin_options(&options);
    struct member_words a = somebody("range");
    assert_int_equal(join(rig, &a), GROUP_OK);
    assert_int_equal(joined_as(rig, *last_number(), &a).members, 1);
    end(rig);
}

static void who_does_not_join_goes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range"), c = a, d = a;
    a.rebalance_ms = c.rebalance_ms = 3000;
    d.rebalance_ms = 2000;
    two_stable(rig, &a, &c);
    assert_int_equal(join(rig, &d), UNANSWERED);
    uint64_t number = *last_number();
    for (int i = 0; i < 29; i++) { /* c beats only */
        rig_pass(rig, 100);
        assert_int_equal(beat(rig, &c), GROUP_ERR_REBALANCE);
        if (i == 10)
            assert_int_equal(join(rig, &a), UNANSWERED);
    }
    assert_int_equal(answer_to(rig, number), UNANSWERED);
    rig_pass(rig, 150);
    assert_int_equal(joined_as(rig, number, &d).generation, 2);
    assert_int_equal(beat(rig, &c), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(the_group(rig, "g")->member_count, 2);
    assert_true(slice_is(the_group(rig, "g")->leader->id, a.id)); /* it led, and has joined */
    end(rig);
}

static void who_does_not_sync_goes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range"), c = a;
    const struct member_words *const both[] = {&a, &c, NULL};
    a.rebalance_ms = c.rebalance_ms = 1000;
    assert_int_equal(join(rig, &a), UNANSWERED);
    uint64_t first = *last_number();
    assert_int_equal(join(rig, &c), UNANSWERED);
    uint64_t second = *last_number();
    rig_pass(rig, 500);
    (void)joined_as(rig, first, &a);
    (void)joined_as(rig, second, &c);
    assert_int_equal(sync_group(rig, &a, both), GROUP_OK); /* stable, but c has not come */
    assert_int_equal(state_of(rig), GROUP_STABLE);
    rig_pass(rig, 1100);
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    assert_int_equal(beat(rig, &c), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(join(rig, &a), GROUP_OK);
    assert_int_equal(joined_as(rig, *last_number(), &a).generation, 2);
    rig_pass(rig, 1100); /* now the leader does not come */
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    assert_int_equal(the_group(rig, "g")->generation, 3);
    end(rig);
}

static void a_session_ends(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range"), c = a;
    two_stable(rig, &a, &c);
    rig_pass(rig, 9000);
    assert_int_equal(beat(rig, &a), GROUP_OK);
    rig_pass(rig, 2000);
    assert_int_equal(beat(rig, &c), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(beat(rig, &a), GROUP_ERR_REBALANCE);
    assert_int_equal(join(rig, &a), GROUP_OK);
    assert_int_equal(joined_as(rig, *last_number(), &a).generation, 2);
    rig_pass(rig, 11000); /* the last one, while it is the leader of a generation that nobody has assigned */
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    end(rig);
}

static void a_pending_member_is_waited_for(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range"), c = a, d = a;
    two_stable(rig, &a, &c);
    d.two_steps = true;
    assert_int_equal(join(rig, &d), GROUP_ERR_NEED_MEMBER_ID);
    struct reader r = fields_of(rig, *last_number());
    take_text(&r, d.id, sizeof d.id);
    assert_int_equal(state_of(rig), GROUP_STABLE); /* nothing has happened yet */
    assert_int_equal(join(rig, &a), UNANSWERED);
    uint64_t first = *last_number();
    assert_int_equal(join(rig, &c), UNANSWERED);
    assert_int_equal(join(rig, &d), GROUP_OK);
    assert_int_equal(joined_as(rig, first, &a).members, 3);
    d.id[0] = '\0';
    assert_int_equal(join(rig, &d), GROUP_ERR_NEED_MEMBER_ID); /* and one that never comes: its session ends */
    assert_int_equal(the_group(rig, "g")->pending_count, 1);
    rig_pass(rig, 10100);
    assert_int_equal(the_group(rig, "g")->pending_count, 0);
    end(rig);
}

/* ---- protocols, leaders ---- */

static void what_is_elected(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words who[] = {somebody("range,sticky,robin"), somebody("sticky,range"), somebody("sticky,range,x")};
    uint64_t number[3];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(join(rig, &who[i]), UNANSWERED);
        number[i] = *last_number();
    }
    struct member_words other = somebody("robin"), type = somebody("range"), none = somebody("");
    type.type = "connect";
    assert_int_equal(join(rig, &other), GROUP_ERR_PROTOCOL); /* one has it only */
    assert_int_equal(join(rig, &type), GROUP_ERR_PROTOCOL);
    assert_int_equal(join(rig, &none), GROUP_ERR_PROTOCOL);
    rig_pass(rig, 1000);
    assert_string_equal(joined_as(rig, number[0], &who[0]).protocol, "sticky"); /* two votes of three */
    (void)joined_as(rig, number[1], &who[1]);
    type.id[0] = '\0';
    assert_int_equal(leave(rig, &who[1]), GROUP_OK);
    assert_int_equal(join(rig, &who[0]), UNANSWERED);
    (void)joined_as(rig, number[2], &who[2]);
    assert_int_equal(join(rig, &who[2]), GROUP_OK);
    assert_string_equal(joined_as(rig, *last_number(), &who[2]).protocol, "range"); /* one vote each: the eldest's */
    struct member_words wrong = who[0];
    (void)join(rig, &who[0]);
    wrong.generation = the_group(rig, "g")->generation;
    uint8_t raw[64];
    struct writer w = writer_of(raw, sizeof raw);
    writer_str8(&w, slice_str("consumer"));
    writer_str8(&w, slice_str("sticky"));
    assert_int_equal(group_ask(rig, CMD_GROUP_SYNC, &wrong, wrong.generation, writer_slice(&w), 0), GROUP_ERR_PROTOCOL);
    end(rig);
}

/* ---- static members ---- */

static struct member_words named(const char *instance)
{
    struct member_words m = somebody("range");
    m.instance = instance;
    m.two_steps = true; /* which does not concern it */
    return m;
}

static void static_members_are_replaced(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words a = named("i"), c = named("k");
    two_stable(rig, &a, &c);
    struct member_words old = a, again = named("i");
    again.can_skip = true;
    again.metadata = "changed"; /* the leader hears of it when it compares, as with Kafka */
    assert_int_equal(join(rig, &again), GROUP_OK);
    struct joined j = joined_as(rig, *last_number(), &again);
    assert_true(j.generation == 1 && j.skip && j.members == 2 && strcmp(j.id, old.id) != 0);
    assert_string_equal(j.leader, j.id);
    assert_true(group_effect(rig, *last_number())->lsn == the_group(rig, "g")->lsn);
    assert_int_equal(sync_group(rig, &again, NULL), GROUP_OK);
    assert_string_equal(assigned(rig, *last_number()), "part 0");
    assert_int_equal(beat(rig, &old), GROUP_ERR_FENCED);
    assert_int_equal(sync_group(rig, &old, NULL), GROUP_ERR_FENCED);
    assert_int_equal(join(rig, &old), GROUP_ERR_FENCED);
    assert_int_equal(commit(rig, &old, stream, 1), GROUP_ERR_FENCED);
    assert_int_equal(leave(rig, &old), GROUP_ERR_FENCED);
    assert_int_equal(commit(rig, &again, stream, 1), GROUP_OK);
    old = again; /* a leader that cannot skip is told that another leads */
    again = named("i");
    assert_int_equal(join(rig, &again), GROUP_OK);
    j = joined_as(rig, *last_number(), &again);
    assert_true(j.generation == 1 && !j.skip && j.members == 0);
    assert_string_equal(j.leader, old.id);
    assert_groups_replay(rig);
    struct member_words third = named("k"); /* and one that is not the leader */
    assert_int_equal(join(rig, &third), GROUP_OK);
    assert_string_equal(joined_as(rig, *last_number(), &third).leader, again.id);
    assert_int_equal(sync_group(rig, &third, NULL), GROUP_OK);
    assert_string_equal(assigned(rig, *last_number()), "part 1");
    struct member_words stranger = named("nobody's");
    snprintf(stranger.id, sizeof stranger.id, "%s", third.id);
    assert_int_equal(beat(rig, &stranger), GROUP_ERR_UNKNOWN_MEMBER);
    assert_groups_replay(rig);
    end(rig);
}

static void a_static_member_changes_the_protocol(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = named("i"), c = named("k");
    a.protocols = c.protocols = "range,sticky";
    two_stable(rig, &a, &c);
    struct member_words again = named("k");
    again.protocols = "sticky";
    assert_int_equal(join(rig, &again), UNANSWERED);
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    uint64_t number = *last_number();
    assert_int_equal(join(rig, &a), GROUP_OK);
    assert_string_equal(joined_as(rig, number, &again).protocol, "sticky");
    end(rig);
}

static void static_members_in_a_round(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = named("i"), c = named("k");
    a.rebalance_ms = c.rebalance_ms = 1000;
    a.session_ms = c.session_ms = 20000;
    two_stable(rig, &a, &c);
    assert_int_equal(join(rig, &a), UNANSWERED);
    uint64_t held = *last_number();
    struct member_words again = a;
    again.id[0] = '\0';
    assert_int_equal(join(rig, &again), UNANSWERED); /* while the old one waits */
    assert_int_equal(answer_to(rig, held), GROUP_ERR_FENCED);
    held = *last_number();
    rig_pass(rig, 1100); /* c is away; its session is not over, so it keeps its place */
    struct joined j = joined_as(rig, held, &again);
    assert_true(j.generation == 2 && j.members == 2);
    assert_int_equal(sync_group(rig, &again, NULL), GROUP_OK);
    again.id[0] = '\0';
    assert_int_equal(join(rig, &again), GROUP_OK); /* before c has synced */
    (void)joined_as(rig, *last_number(), &again);
    assert_int_equal(beat(rig, &c), GROUP_ERR_GENERATION);
    assert_int_equal(join(rig, &c), GROUP_OK);
    (void)joined_as(rig, *last_number(), &c);
    assert_int_equal(sync_group(rig, &c, NULL), GROUP_OK);
    struct member_words admin = named("k"); /* an administrator knows the instance only */
    assert_int_equal(leave(rig, &admin), GROUP_OK);
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    rig_pass(rig, 1100); /* nobody joins; the static one keeps its place until its session is over */
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    assert_int_equal(the_group(rig, "g")->member_count, 1);
    rig_pass(rig, 20000);
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    end(rig);
}

/* Who led last leads again, though another is older. */
static void a_leader_stays_the_leader(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = named("i"), c = somebody("range");
    a.session_ms = 60000;
    a.rebalance_ms = c.rebalance_ms = 1000;
    two_stable(rig, &a, &c);
    c.metadata = "others";
    assert_int_equal(join(rig, &c), UNANSWERED);
    uint64_t number = *last_number();
    rig_pass(rig, 1100); /* without a */
    assert_string_equal(joined_as(rig, number, &c).leader, c.id);
    assert_int_equal(join(rig, &a), GROUP_OK);
    assert_string_equal(joined_as(rig, *last_number(), &a).leader, c.id);
    c.metadata = "topics";
    assert_int_equal(join(rig, &c), UNANSWERED);
    number = *last_number();
    assert_int_equal(join(rig, &a), GROUP_OK);
    struct joined j = joined_as(rig, number, &c);
    assert_true(strcmp(j.leader, c.id) == 0 && j.members == 2 && strcmp(j.first, a.id) == 0);
    end(rig);
}

static void replaced_while_completing(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = named("i"), c = named("k");
    assert_int_equal(join(rig, &a), UNANSWERED);
    uint64_t first = *last_number();
    assert_int_equal(join(rig, &c), UNANSWERED);
    uint64_t second = *last_number();
    rig_pass(rig, 1000);
    (void)joined_as(rig, first, &a);
    (void)joined_as(rig, second, &c);
    assert_int_equal(sync_group(rig, &c, NULL), UNANSWERED);
    second = *last_number();
    struct member_words again = named("k");
    assert_int_equal(join(rig, &again), UNANSWERED);
    assert_int_equal(answer_to(rig, second), GROUP_ERR_FENCED);
    assert_int_equal(state_of(rig), GROUP_PREPARING);
    end(rig);
}

static void several_leave_at_once(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range"), c = named("k"), d = somebody("range");
    two_stable(rig, &a, &c);
    assert_int_equal(join(rig, &d), UNANSWERED);
    uint64_t number = *last_number();
    uint8_t raw[1024];
    struct writer w = writer_of(raw, sizeof raw);
    struct member_words as = {.session = 1, .group = "g"};
    const char *const rows[][2] = {{a.id, ""}, {"", "k"}, {"nobody", ""}, {c.id, "k"}, {"", ""}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        writer_str8(&w, slice_str(rows[i][0]));
        writer_str8(&w, slice_str(rows[i][1]));
    }
    assert_int_equal(group_ask(rig, CMD_GROUP_LEAVE, &as, 0, writer_slice(&w), 0), GROUP_OK);
    struct reader r = fields_of(rig, *last_number());
    const uint8_t want[] = {GROUP_OK, GROUP_OK, GROUP_ERR_UNKNOWN_MEMBER, GROUP_ERR_UNKNOWN_MEMBER,
                            GROUP_ERR_UNKNOWN_MEMBER};
    assert_int_equal(r.left, sizeof want);
    assert_memory_equal(r.at, want, sizeof want);
    struct joined j = joined_as(rig, number, &d); /* one round for both */
    assert_true(j.generation == 2 && j.members == 1);
    end(rig);
}

/* ---- connections ---- */

static void sessions_close(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range"), c = a, d = a;
    assert_true(rig_open(rig, 2));
    c.session = 2;
    two_stable(rig, &a, &c);
    d.session = 2;
    assert_int_equal(join(rig, &d), UNANSWERED);
    assert_int_equal(join(rig, &c), UNANSWERED);
    assert_int_equal(the_group(rig, "g")->member_count, 3);
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    assert_int_equal(the_group(rig, "g")->member_count, 2); /* nobody knows d's id; c's JOIN counts */
    assert_int_equal(join(rig, &a), GROUP_OK);
    assert_int_equal(joined_as(rig, *last_number(), &a).generation, 2);
    c.session = 1;
    assert_int_equal(join(rig, &c), GROUP_OK); /* c is back, and hears what it missed */
    assert_int_equal(joined_as(rig, *last_number(), &c).generation, 2);
    end(rig);
}

static void a_held_request_is_a_sign_of_life(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range"), c = a, d = a;
    c.session_ms = 100000;
    two_stable(rig, &a, &c);
    assert_true(rig_open(rig, 2));
    d.session = 2;
    assert_int_equal(join(rig, &d), UNANSWERED);
    uint64_t number = *last_number();
    assert_int_equal(join(rig, &a), UNANSWERED);
    rig_pass(rig, 30000); /* c is slow: three sessions of the others */
    assert_int_equal(the_group(rig, "g")->member_count, 3);
    assert_int_equal(join(rig, &c), GROUP_OK);
    (void)joined_as(rig, number, &d);
    assert_int_equal(sync_group(rig, &d, NULL), UNANSWERED);
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    rig_pass(rig, 10100);
    assert_int_equal(beat(rig, &c), GROUP_ERR_GENERATION); /* nobody: those that were told, and did not come */
    assert_int_equal(the_group(rig, "g")->member_count, 1);
    end(rig);
}

/* ---- limits ---- */

static void limits(void **state)
{
    (void)state;
    struct broker_options options = {.group_members_max = 2, .group_session_min_ms = 100, .group_session_max_ms = 200};
    struct rig *rig = begin_options(&options);
    struct member_words a = somebody("range");
    a.session_ms = 99;
    assert_int_equal(join(rig, &a), GROUP_ERR_SESSION_TIMEOUT);
    a.session_ms = 201;
    assert_int_equal(join(rig, &a), GROUP_ERR_SESSION_TIMEOUT);
    assert_int_equal(state_of(rig), GROUP_DEAD); /* nothing was made */
    a.session_ms = 200;
    assert_int_equal(join(rig, &a), UNANSWERED);
    a.two_steps = true;
    assert_int_equal(join(rig, &a), GROUP_ERR_NEED_MEMBER_ID);
    assert_int_equal(join(rig, &a), GROUP_ERR_FULL);
    a.group = "";
    assert_int_equal(join(rig, &a), GROUP_ERR_INVALID_ID);
    a.group = "h";
    a.protocols = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,1,2,3,4,5,6,7";
    assert_int_equal(join(rig, &a), GROUP_ERR_PROTOCOL);
    a.protocols = "range";
    assert_int_equal(group_ask(rig, CMD_GROUP_JOIN, &a, (uint64_t)200 << 32, slice_str("\x05"), 0), GROUP_ERR_INVALID);
    rig->b->group_bytes += GROUPS_BYTES_MAX;
    rig->check = false;
    assert_int_equal(join(rig, &a), GROUP_ERR_NO_MEMORY);
    rig->b->group_bytes -= GROUPS_BYTES_MAX;
    rig->check = true;
    rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

static void too_large(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range");
    char *metadata = calloc(1, GROUP_BYTES_MAX);
    uint8_t *rows = malloc(3 * (size_t)GROUP_BYTES_MAX);
    struct writer w = writer_of(rows, 3 * (size_t)GROUP_BYTES_MAX);
    writer_str8(&w, NOTHING);
    writer_str8(&w, slice_str("consumer"));
    writer_str8(&w, slice_str("range"));
    writer_str32(&w, slice_of(metadata, GROUP_BYTES_MAX - 100));
    assert_int_equal(group_ask(rig, CMD_GROUP_JOIN, &a, (uint64_t)10000 << 32, writer_slice(&w), 0), GROUP_ERR_FULL);
    assert_int_equal(join(rig, &a), UNANSWERED);
    uint64_t number = *last_number();
    rig_pass(rig, 1000);
    (void)joined_as(rig, number, &a);
    w.len = 0;
    writer_u16(&w, 0);
    for (int i = 0; i < 2; i++) {
        writer_str8(&w, slice_str(a.id));
        writer_str32(&w, slice_of(metadata, GROUP_BYTES_MAX));
    }
    assert_int_equal(group_ask(rig, CMD_GROUP_SYNC, &a, 1, writer_slice(&w), 0), GROUP_ERR_TOO_LARGE);
    assert_int_equal(state_of(rig), GROUP_COMPLETING);
    w.len = 0;
    writer_u16(&w, 0);
    writer_str8(&w, slice_str(a.id));
    writer_str32(&w, slice_of(metadata, GROUP_BYTES_MAX));
    assert_int_equal(group_ask(rig, CMD_GROUP_SYNC, &a, 1, writer_slice(&w), 0), GROUP_OK); /* a record in pieces */
    free(rows);
    free(metadata);
    assert_groups_replay(rig);
    end(rig);
}

static void who_may_not(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct member_words a = somebody("range");
    a.session = 3; /* it has not logged in */
    assert_true(rig_ask(rig, CMD_SESSION_OPEN, 3, 0, "127.0.0.1:1", "Kafka", NULL, NOTHING, ASK_LOOPBACK));
    assert_int_equal(join(rig, &a), GROUP_ERR_REFUSED);
    assert_int_equal(group_ask(rig, CMD_GROUP_LIST, &a, 0, slice_str("\0"), 0), GROUP_ERR_REFUSED);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_empty),
        cmocka_unit_test(rows_of_preparing),
        cmocka_unit_test(rows_of_completing),
        cmocka_unit_test(rows_of_stable),
        cmocka_unit_test(an_empty_group_waits_for_more),
        cmocka_unit_test(no_delay),
        cmocka_unit_test(who_does_not_join_goes),
        cmocka_unit_test(who_does_not_sync_goes),
        cmocka_unit_test(a_session_ends),
        cmocka_unit_test(a_pending_member_is_waited_for),
        cmocka_unit_test(what_is_elected),
        cmocka_unit_test(static_members_are_replaced),
        cmocka_unit_test(a_static_member_changes_the_protocol),
        cmocka_unit_test(static_members_in_a_round),
        cmocka_unit_test(replaced_while_completing),
        cmocka_unit_test(a_leader_stays_the_leader),
        cmocka_unit_test(several_leave_at_once),
        cmocka_unit_test(sessions_close),
        cmocka_unit_test(a_held_request_is_a_sign_of_life),
        cmocka_unit_test(limits),
        cmocka_unit_test(too_large),
        cmocka_unit_test(who_may_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
