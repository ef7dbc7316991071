/* What groups have read: commits and their text, streams that go, retention, deletion, and what administrators are shown. */
#include "core/group_words_test.h"

static struct member_words simple(const char *group)
{
    return (struct member_words){.session = 1, .group = group, .generation = SIMPLE};
}

static int delete_group(struct rig *rig, const char *group)
{
    struct member_words as = simple(group);
    return group_ask(rig, CMD_GROUP_DELETE, &as, 0, NOTHING, 0);
}

static void commits_and_their_text(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 3)->queue->id;
    struct member_words m = simple("g");
    static char text[GROUP_TEXT_MAX + 1];
    memset(text, 'x', sizeof text);
    assert_int_equal(commit(rig, &m, stream, 5), GROUP_OK);
    assert_int_equal(group_effect(rig, *last_number())->lsn, rig->b->appended);
    assert_int_equal(commit_text(rig, &m, stream, 2, 0, NOTHING), GROUP_OK);
    assert_int_equal(commit_text(rig, &m, stream, 1, INT64_MAX, slice_of(text, 3)), GROUP_OK);
    assert_string_equal(offsets_of(rig, "g"), "0:5:7:note 2:0:7: 1:9223372036854775807:7:xxx");
    assert_int_equal(commit(rig, &m, stream, 6), GROUP_OK); /* in the place of the old one */
    assert_string_equal(offsets_of(rig, "g"), "2:0:7: 1:9223372036854775807:7:xxx 0:6:7:note");
    assert_int_equal(commit_text(rig, &m, stream, 0, 7, slice_of(text, GROUP_TEXT_MAX + 1)), GROUP_ERR_METADATA);
    assert_int_equal(commit_text(rig, &m, stream, 0, 7, slice_of(text, GROUP_TEXT_MAX)), GROUP_OK);
    assert_int_equal(commit_text(rig, &m, stream, 3, 7, NOTHING), GROUP_ERR_NO_STREAM);
    assert_int_equal(commit_text(rig, &m, 4711, 0, 7, NOTHING), GROUP_ERR_NO_STREAM);
    assert_int_equal(commit_text(rig, &m, stream, 0, (uint64_t)-5, NOTHING), GROUP_OK); /* Kafka takes it too */
    assert_string_equal(offsets_of(rig, "g"), "2:0:7: 1:9223372036854775807:7:xxx 0:18446744073709551611:7:");
    assert_groups_replay(rig);
    assert_int_equal(commit_text(rig, &m, stream, 0, UINT64_MAX, NOTHING), GROUP_OK); /* none */
    assert_int_equal(commit_text(rig, &m, stream, 0, UINT64_MAX, NOTHING), GROUP_OK);
    assert_string_equal(offsets_of(rig, "g"), "2:0:7: 1:9223372036854775807:7:xxx");
    assert_int_equal(group_ask(rig, CMD_GROUP_COMMIT, &m, SIMPLE, slice_str("torn"), 0), GROUP_ERR_INVALID);
    m.group = ""; /* of who names no group */
    assert_int_equal(commit(rig, &m, stream, 6), GROUP_OK);
    assert_string_equal(offsets_of(rig, ""), "0:6:7:note");
    m.group = "nothing is left of it";
    assert_int_equal(commit_text(rig, &m, 4711, 0, 7, NOTHING), GROUP_ERR_NO_STREAM);
    assert_null(the_group(rig, m.group));
    assert_groups_replay(rig);
    end(rig);
}

static void several_rows(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 3)->queue->id;
    struct member_words m = simple("g");
    uint8_t raw[400];
    struct writer w = writer_of(raw, sizeof raw);
    const struct group_offset rows[] = {{stream, 1, 0, 10, slice_str("a")},
                                        {stream, 9, 0, 11, slice_str("b")},
                                        {stream, 1, 3, 12, slice_str("c")}}; /* the last one counts */
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        group_offset_put(&w, &rows[i]);
    assert_int_equal(group_ask(rig, CMD_GROUP_COMMIT, &m, SIMPLE, writer_slice(&w), 0), GROUP_OK);
    struct reader r = fields_of(rig, *last_number());
    assert_int_equal(reader_u8(&r), GROUP_OK);
    assert_int_equal(reader_u8(&r), GROUP_ERR_NO_STREAM);
    assert_int_equal(reader_u8(&r), GROUP_OK);
    assert_string_equal(offsets_of(rig, "g"), "1:12:3:c");
    w.len = 0; /* some that were committed, and some that were not */
    for (uint32_t i = 0; i < 2; i++) {
        writer_u64(&w, stream);
        writer_u32(&w, i);
    }
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSETS, &m, 0, writer_slice(&w), 0), GROUP_OK);
    r = fields_of(rig, *last_number());
    struct group_offset o = group_offset_read(&r);
    assert_true(o.offset == UINT64_MAX && o.epoch == UINT32_MAX && o.partition == 0 && o.stream == stream);
    o = group_offset_read(&r);
    assert_true(o.offset == 12 && o.epoch == 3 && reader_done(&r));
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSETS, &m, 0, slice_str("torn"), 0), GROUP_ERR_INVALID);
    assert_string_equal(offsets_of(rig, "no such group"), "");
    end(rig);
}

/* What is answered is durable: it waits for the commit's record, not for others'. */
static void an_answer_waits_for_its_commit(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words m = simple("g"), other = simple("h");
    assert_int_equal(commit(rig, &m, stream, 5), GROUP_OK);
    lsn_t lsn = rig->b->appended;
    assert_int_equal(commit(rig, &other, stream, 5), GROUP_OK);
    assert_true(rig->b->appended > lsn);
    (void)offsets_of(rig, "g");
    assert_int_equal(group_effect(rig, *last_number())->lsn, lsn);
    end(rig);
}

static void a_stream_takes_its_offsets_with_it(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t s = declare_stream(rig, "s", 2)->queue->id, t = declare_stream(rig, "t", 1)->queue->id;
    struct member_words m = simple("g"), other = simple("h");
    assert_int_equal(commit(rig, &m, s, 5), GROUP_OK);
    assert_int_equal(commit_text(rig, &m, s, 1, 6, NOTHING), GROUP_OK);
    assert_int_equal(commit(rig, &m, t, 7), GROUP_OK);
    assert_int_equal(commit(rig, &other, s, 8), GROUP_OK);
    assert_true(ASK(QUEUE_DELETE, "s", NULL, NULL, 0));
    assert_string_equal(offsets_of(rig, "g"), "0:7:7:note");
    assert_string_equal(offsets_of(rig, "h"), "");
    assert_int_equal(commit(rig, &m, s, 5), GROUP_ERR_NO_STREAM);
    assert_true(declare_stream(rig, "s", 1)->queue->id != s); /* another one, of which nothing is known */
    restart(&rig);
    assert_string_equal(offsets_of(rig, "g"), "0:7:7:note");
    skip_ms(rig, GROUP_UNUSED_MS); /* what has nothing is nothing */
    assert_null(the_group(rig, "h"));
    assert_groups_replay(rig);
    end(rig);
}

static void retention_of_simple_groups(void **state)
{
    (void)state;
    struct broker_options options = {.group_retention_ms = 3600 * 1000};
    struct rig *rig = begin_options(&options);
    uint64_t stream = declare_stream(rig, "s", 400)->queue->id;
    struct member_words m = simple("g");
    for (uint32_t i = 0; i < 300; i++)
        assert_int_equal(commit_text(rig, &m, stream, i, i, NOTHING), GROUP_OK);
    rig_clear(rig);
    skip_ms(rig, 1800 * 1000);
    assert_int_equal(commit(rig, &m, stream, 1000), GROUP_OK); /* partition 0 again */
    restart(&rig);
    skip_ms(rig, 1799 * 1000);
    assert_int_equal(the_group(rig, "g")->offsets.count, 300);
    skip_ms(rig, 2 * 1000);
    skip_ms(rig, 1000);
    assert_string_equal(offsets_of(rig, "g"), "0:1000:7:note"); /* the others were not committed any more */
    assert_groups_replay(rig);
    skip_ms(rig, 1800 * 1000);
    assert_null(the_group(rig, "g"));
    restart(&rig);
    assert_null(the_group(rig, "g"));
    assert_int_equal(rig->b->group_bytes, 0);
    end(rig);
}

static void retention_begins_when_the_last_member_goes(void **state)
{
    (void)state;
    struct broker_options options = {.group_retention_ms = 3600 * 1000};
    struct rig *rig = begin_options(&options);
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words a = somebody("range"), c = a;
    a.session_ms = c.session_ms = GROUP_SESSION_MAX_MS;
    two_stable(rig, &a, &c);
    assert_int_equal(commit(rig, &a, stream, 5), GROUP_OK);
    for (int i = 0; i < 5; i++) { /* long beyond the time, but it has members */
        skip_ms(rig, 1200 * 1000);
        assert_int_equal(beat(rig, &a), GROUP_OK);
        assert_int_equal(beat(rig, &c), GROUP_OK);
    }
    assert_int_equal(leave(rig, &a), GROUP_OK);
    assert_int_equal(leave(rig, &c), GROUP_OK);
    assert_int_equal(state_of(rig), GROUP_EMPTY);
    skip_ms(rig, 3000 * 1000);
    restart(&rig);
    skip_ms(rig, 500 * 1000);
    assert_string_equal(offsets_of(rig, "g"), "0:5:7:note");
    skip_ms(rig, 101 * 1000);
    assert_null(the_group(rig, "g"));
    end(rig);
}

static void retention_waits_for_who_is_about_to_join(void **state)
{
    (void)state;
    struct broker_options options = {.group_retention_ms = 1000};
    struct rig *rig = begin_options(&options);
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words m = simple("g"), a = somebody("range");
    a.two_steps = true;
    assert_int_equal(commit(rig, &m, stream, 5), GROUP_OK);
    assert_int_equal(join(rig, &a), GROUP_ERR_NEED_MEMBER_ID);
    struct reader r = fields_of(rig, *last_number());
    take_text(&r, a.id, sizeof a.id);
    skip_ms(rig, 1100);
    assert_int_equal(join(rig, &a), UNANSWERED);
    assert_non_null(the_group(rig, "g"));
    end(rig);
}

/* The wall's clock is set back, and forward again: nothing is out of order, nothing lives for ever. */
static void the_clock_is_set(void **state)
{
    (void)state;
    struct broker_options options = {.group_retention_ms = 3600 * 1000};
    struct rig *rig = begin_options(&options);
    uint64_t stream = declare_stream(rig, "s", 2)->queue->id;
    struct member_words m = simple("g");
    assert_int_equal(commit(rig, &m, stream, 5), GROUP_OK);
    rig->wall -= 100000;
    assert_int_equal(commit_text(rig, &m, stream, 1, 6, NOTHING), GROUP_OK);
    assert_string_equal(offsets_of(rig, "g"), "1:6:7: 0:5:7:note");
    assert_groups_replay(rig);
    rig->wall -= 365 * 24 * 3600 * INT64_C(1000);
    skip_ms(rig, 3700 * 1000); /* they are of the future now */
    assert_int_equal(the_group(rig, "g")->offsets.count, 2);
    rig->wall += 366 * 24 * 3600 * INT64_C(1000);
    skip_ms(rig, 3800 * 1000);
    assert_null(the_group(rig, "g"));
    end(rig);
}

static void offsets_are_deleted(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint64_t stream = declare_stream(rig, "s", 3)->queue->id;
    struct member_words m = simple("g");
    uint8_t raw[100];
    struct writer w = writer_of(raw, sizeof raw);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(commit_text(rig, &m, stream, i, i, NOTHING), GROUP_OK);
    const uint32_t partitions[] = {1, 1, 9};
    for (size_t i = 0; i < ARRAY_LEN(partitions); i++) {
        writer_u64(&w, stream);
        writer_u32(&w, partitions[i]);
    }
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSET_DELETE, &m, 0, writer_slice(&w), 0), GROUP_OK);
    struct reader r = fields_of(rig, *last_number());
    assert_true(reader_u8(&r) == GROUP_OK && reader_u8(&r) == GROUP_OK && reader_u8(&r) == GROUP_ERR_NO_STREAM);
    assert_string_equal(offsets_of(rig, "g"), "0:0:7: 2:2:7:");
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSET_DELETE, &m, 0, slice_str("torn"), 0), GROUP_ERR_INVALID);
    m.group = "h";
    assert_int_equal(group_ask(rig, CMD_GROUP_OFFSET_DELETE, &m, 0, NOTHING, 0), GROUP_ERR_NO_GROUP);
    assert_groups_replay(rig);
    assert_int_equal(delete_group(rig, "g"), GROUP_OK);
    assert_true(group_effect(rig, *last_number())->lsn > 0);
    assert_int_equal(delete_group(rig, "g"), GROUP_ERR_NO_GROUP);
    restart(&rig);
    assert_null(the_group(rig, "g"));
    end(rig);
}

/* Names and states of what is listed, part by part. */
static unsigned list(struct rig *rig, uint64_t states, char *ret, size_t len)
{
    struct member_words as = {.session = 1};
    char behind[300] = "";
    unsigned count = 0;
    ret[0] = '\0';
    do {
        uint8_t raw[300];
        struct writer w = writer_of(raw, sizeof raw);
        writer_str8(&w, slice_str(behind));
        assert_int_equal(group_ask(rig, CMD_GROUP_LIST, &as, states, writer_slice(&w), 0), GROUP_OK);
        struct reader r = fields_of(rig, *last_number());
        take_text(&r, behind, sizeof behind);
        for (; r.left; count++) {
            char name[300], type[300];
            take_text(&r, name, sizeof name);
            take_text(&r, type, sizeof type);
            unsigned is = reader_u8(&r);
            assert_int_equal(reader_u8(&r), 0);
            if (count < 8)
                snprintf(ret + strlen(ret), len - strlen(ret), "%s(%s)%u ", name, type, is);
        }
        assert_true(reader_ok(&r));
        rig_clear(rig);
    } while (behind[0]);
    return count;
}

static void lists_and_descriptions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char text[1000];
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    struct member_words a = somebody("range"), c = a, m = simple("h");
    c.instance = "i";
    two_stable(rig, &a, &c);
    assert_int_equal(commit(rig, &m, stream, 5), GROUP_OK);
    assert_int_equal(list(rig, 0, text, sizeof text), 2);
    assert_string_equal(text, "g(consumer)3 h()0 ");
    (void)list(rig, 1 << GROUP_EMPTY | 1 << GROUP_PREPARING, text, sizeof text);
    assert_string_equal(text, "h()0 ");
    assert_int_equal(group_ask(rig, CMD_GROUP_DESCRIBE, &a, 0, NOTHING, 0), GROUP_OK);
    struct reader r = fields_of(rig, *last_number());
    assert_true(reader_u8(&r) == GROUP_STABLE && reader_u32(&r) == 1);
    assert_true(slice_is(reader_str8(&r), "consumer") && slice_is(reader_str8(&r), "range"));
    assert_true(slice_is(reader_str8(&r), a.id) && reader_str8(&r).len == 0);
    assert_true(slice_is(reader_str8(&r), "client") && slice_is(reader_str8(&r), "127.0.0.1:1"));
    assert_true(slice_is(reader_str32(&r), "topics") && slice_is(reader_str32(&r), "part 0"));
    (void)reader_str8(&r);
    assert_true(slice_is(reader_str8(&r), "i"));
    assert_int_equal(join(rig, &a), UNANSWERED); /* what holds no more is not shown */
    assert_int_equal(group_ask(rig, CMD_GROUP_DESCRIBE, &a, 0, NOTHING, 0), GROUP_OK);
    r = fields_of(rig, *last_number());
    assert_true(reader_u8(&r) == GROUP_PREPARING && reader_u32(&r) == 1 && slice_is(reader_str8(&r), "consumer"));
    assert_true(reader_str8(&r).len == 0);
    for (int i = 0; i < 4; i++)
        (void)reader_str8(&r);
    assert_true(reader_str32(&r).len == 0 && reader_str32(&r).len == 0 && r.left);
    m.group = "none";
    assert_int_equal(group_ask(rig, CMD_GROUP_DESCRIBE, &m, 0, NOTHING, 0), GROUP_ERR_NO_GROUP);
    end(rig);
}

static void a_long_list_comes_in_parts(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char text[1000];
    uint64_t stream = declare_stream(rig, "s", 1)->queue->id;
    rig->check = false;
    for (int i = 0; i < 2500; i++) {
        char name[20];
        snprintf(name, sizeof name, "group %d", i);
        struct member_words m = simple(name);
        assert_int_equal(commit(rig, &m, stream, 5), GROUP_OK);
        rig_clear(rig);
    }
    assert_int_equal(list(rig, 0, text, sizeof text), 2500);
    assert_int_equal(list(rig, 1 << GROUP_STABLE, text, sizeof text), 0);
    struct member_words as = {.session = 1};
    assert_int_equal(group_ask(rig, CMD_GROUP_LIST, &as, 0, slice_str("\4gone"), 0), GROUP_ERR_NO_GROUP);
    broker_check(rig->b);
    end(rig);
}

/* Of each vhost its own, however they stand among each other. */
static void a_long_list_of_several_vhosts(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char text[1000];
    struct vhost *other = vhost_put(rig->b, slice_str("other"), NOTHING), *own = vhost_find(rig->b, slice_str("/"));
    assert_non_null(other);
    for (int i = 0; i < 2500; i++) {
        char name[20];
        snprintf(name, sizeof name, "group %d", i);
        assert_non_null(group_make(rig->b, i % 1000 > 1 ? other : own, slice_str(name))); /* no thousandth is its own */
    }
    assert_int_equal(list(rig, 0, text, sizeof text), 6);
    unsigned budget = UINT32_MAX;
    assert_true(groups_vhost_gone(rig->b, own, &budget)); /* none of this is in the journal */
    vhost_delete(rig->b, other);
    end(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_list_of_several_vhosts),
        cmocka_unit_test(commits_and_their_text),
        cmocka_unit_test(several_rows),
        cmocka_unit_test(an_answer_waits_for_its_commit),
        cmocka_unit_test(a_stream_takes_its_offsets_with_it),
        cmocka_unit_test(retention_of_simple_groups),
        cmocka_unit_test(retention_begins_when_the_last_member_goes),
        cmocka_unit_test(retention_waits_for_who_is_about_to_join),
        cmocka_unit_test(the_clock_is_set),
        cmocka_unit_test(offsets_are_deleted),
        cmocka_unit_test(lists_and_descriptions),
        cmocka_unit_test(a_long_list_comes_in_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
