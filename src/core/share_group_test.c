/* Share groups: who is in them, what each is given, and that a group stays what it is. */
#include "core/group_words_test.h"

struct sharer {
    struct member_words as;
    const char *topics; /* one name; NULL: says nothing of them */
    uint32_t epoch, beat_ms;
    char has[200]; /* "0 1 | 2" */
    bool told;
};

static struct sharer sharer(const char *id, const char *topics)
{
    struct sharer s = {.topics = topics};
    s.as = (struct member_words){.session = 1, .group = "g"};
    snprintf(s.as.id, sizeof s.as.id, "%s", id);
    return s;
}

static int beat_at(struct rig *rig, struct sharer *s, uint32_t epoch)
{
    uint8_t raw[512];
    struct writer w = writer_of(raw, sizeof raw);
    writer_str8(&w, slice_str("client"));
    writer_u8(&w, s->topics != NULL);
    for (const char *at = s->topics ? s->topics : ""; *at;) {
        size_t len = strcspn(at, ",");
        writer_str8(&w, slice_of(at, len));
        at += len + (at[len] == ',');
    }
    int error = group_ask(rig, CMD_SHARE_BEAT, &s->as, epoch, writer_slice(&w), 0);
    if (error)
        return error;
    struct reader r = fields_of(rig, *last_number());
    uint64_t before = 0;
    size_t at = 0;
    take_text(&r, s->as.id, sizeof s->as.id);
    s->epoch = reader_u32(&r);
    s->beat_ms = reader_u32(&r);
    s->told = reader_u8(&r);
    if (s->told)
        s->has[0] = '\0';
    while (r.left) {
        uint64_t stream = reader_u64(&r);
        at += (size_t)snprintf(s->has + at, sizeof s->has - at, "%s%s%u", at ? " " : "",
                               before && stream != before ? "| " : "", reader_u32(&r));
        before = stream;
    }
    rig_clear(rig);
    return GROUP_OK;
}

static int share_beat(struct rig *rig, struct sharer *s)
{
    return beat_at(rig, s, s->epoch);
}

static void all_have_something(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 3);
    struct sharer a = sharer("a", "s"), c = sharer("c", "s"), d = sharer("d", "s"), e = sharer("e", "s");
    assert_int_equal(share_beat(rig, &a), GROUP_OK);
    assert_string_equal(a.has, "0 1 2");
    assert_int_equal(a.beat_ms, GROUP_CONSUMER_BEAT_MS);
    assert_int_equal(share_beat(rig, &c), GROUP_OK); /* nobody is waited for */
    assert_string_equal(c.has, "1");
    a.topics = NULL;
    assert_int_equal(share_beat(rig, &a), GROUP_OK);
    assert_true(a.told && a.epoch == 2);
    assert_string_equal(a.has, "0 2");
    assert_int_equal(share_beat(rig, &a), GROUP_OK);
    assert_false(a.told); /* nothing is new */
    assert_int_equal(share_beat(rig, &d), GROUP_OK);
    assert_int_equal(share_beat(rig, &e), GROUP_OK);
    assert_string_equal(d.has, "2");
    assert_string_equal(e.has, "0"); /* with a: there are more of them than partitions */
    assert_int_equal(share_beat(rig, &a), GROUP_OK);
    assert_string_equal(a.has, "0");
    assert_int_equal(beat_at(rig, &e, GROUP_EPOCH_LEAVE), GROUP_OK);
    assert_int_equal(e.epoch, GROUP_EPOCH_LEAVE);
    assert_int_equal(group_shown(the_group(rig, "g")), GROUP_STABLE);
    end(rig);
}

static void different_topics(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 2);
    (void)declare_stream(rig, "t", 1);
    struct sharer a = sharer("a", "s"), c = sharer("c", "s,t"), d = sharer("d", "none");
    assert_int_equal(share_beat(rig, &d), GROUP_OK);
    assert_string_equal(d.has, "");
    assert_int_equal(share_beat(rig, &c), GROUP_OK);
    assert_string_equal(c.has, "0 1 | 0");
    assert_int_equal(share_beat(rig, &a), GROUP_OK);
    assert_string_equal(a.has, "0");
    assert_int_equal(share_beat(rig, &c), GROUP_OK);
    assert_string_equal(c.has, "1 | 0");
    (void)declare_stream(rig, "none", 1);
    assert_int_equal(share_beat(rig, &d), GROUP_OK);
    assert_string_equal(d.has, "0");
    end(rig);
}

static void who_is_refused(void **state)
{
    (void)state;
    struct broker_options options = {.group_members_max = 2};
    struct rig *rig = begin_options(&options);
    (void)declare_stream(rig, "s", 1);
    struct sharer a = sharer("a", "s"), c = sharer("c", "s"), d = sharer("d", "s");
    struct member_words classic = somebody("range");
    assert_int_equal(beat_at(rig, &a, 1), GROUP_ERR_NO_GROUP);
    assert_int_equal(share_beat(rig, &a), GROUP_OK);
    assert_int_equal(beat_at(rig, &c, 1), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(beat_at(rig, &a, 7), GROUP_ERR_FENCED_EPOCH);
    assert_int_equal(share_beat(rig, &c), GROUP_OK);
    assert_int_equal(share_beat(rig, &d), GROUP_ERR_FULL);
    assert_int_equal(beat_at(rig, &a, 1), GROUP_OK);
    assert_int_equal(beat_at(rig, &a, 1), GROUP_OK); /* it has not got the answer that said 2 */
    assert_int_equal(a.epoch, 2);
    assert_int_equal(beat_at(rig, &a, GROUP_EPOCH_LEAVE), GROUP_OK);
    assert_int_equal(beat_at(rig, &c, GROUP_EPOCH_LEAVE), GROUP_OK);
    assert_int_equal(the_group(rig, "g")->state, GROUP_EMPTY);
    assert_int_equal(join(rig, &classic), GROUP_ERR_PROTOCOL); /* it is a share group for ever */
    classic.group = "classic";
    assert_int_not_equal(join(rig, &classic), GROUP_ERR_PROTOCOL);
    a.as.group = "classic";
    assert_int_equal(beat_at(rig, &a, 0), GROUP_ERR_NO_GROUP);
    end(rig);
}

static void a_restart(void **state)
{
    (void)state;
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 1);
    struct sharer a = sharer("a", "s");
    assert_int_equal(share_beat(rig, &a), GROUP_OK);
    restart(&rig);
    assert_true(the_group(rig, "g")->sharing);
    assert_int_equal(group_kind(the_group(rig, "g")), GROUP_SHARE);
    assert_int_equal(share_beat(rig, &a), GROUP_ERR_UNKNOWN_MEMBER);
    assert_int_equal(beat_at(rig, &a, 0), GROUP_OK);
    assert_int_equal(a.epoch, 1);
    rig_pass(rig, GROUP_CONSUMER_SESSION_MS + 1); /* it is not heard of any more */
    assert_int_equal(the_group(rig, "g")->state, GROUP_EMPTY);
    end(rig);
}

/* What a command asks is the core's to free, whichever it is. */
static void asks_are_given_back(void **state)
{
    (void)state;
    struct slice none = {0};
    size_t before = mem_in_use();
    struct rig *rig = begin();
    (void)declare_stream(rig, "s", 1);
    struct sharer a = sharer("a", "s");
    assert_int_equal(share_beat(rig, &a), GROUP_OK);
    assert_int_equal(group_ask(rig, CMD_SHARE_ACK, &a.as, 0, none, 0), GROUP_OK);
    assert_true(rig_ask(rig, CMD_SESSION_OPEN, 2, 0, "127.0.0.1:2", "Kafka", NULL, none, 0));
    assert_true(rig_ask(rig, CMD_SCRAM, 2, 0, "somebody", "", "SCRAM-SHA-256", none, 0));
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    end(rig);
    assert_int_equal(mem_in_use(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_have_something), cmocka_unit_test(different_topics),    cmocka_unit_test(who_is_refused),
        cmocka_unit_test(a_restart),          cmocka_unit_test(asks_are_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
