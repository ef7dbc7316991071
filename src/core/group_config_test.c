/* What is set of groups: kept, listed, and what it does to groups and shares. */
#include "core/group_words_test.h"
#include "core/share_int.h"

static int set_rows(struct rig *rig, const char *group, struct slice rows, struct slice gone, uint32_t flags)
{
    struct ask *ask = ask_new(slice_str(group), gone, NOTHING, rows);
    assert_non_null(ask);
    ask->flags = flags;
    struct command *c = rig_command(rig, 0, CMD_GROUP_SET, 1, 0);
    c->ask = ask;
    c->number = ++*last_number();
    rig_step(rig);
    return answer_to(rig, *last_number());
}

static int set(struct rig *rig, const char *group, enum group_setting which, uint64_t number, const char *text)
{
    uint8_t raw[300];
    struct writer w = writer_of(raw, sizeof raw);
    writer_u8(&w, (uint8_t)which);
    writer_u64(&w, number);
    writer_str8(&w, slice_str(text));
    return set_rows(rig, group, writer_slice(&w), NOTHING, 0);
}

static int unset(struct rig *rig, const char *group, enum group_setting which)
{
    uint8_t one = (uint8_t)which;
    return set_rows(rig, group, NOTHING, slice_of(&one, 1), 0);
}

/* "3=15000 40=x" */
static const char *configs_of(struct rig *rig, const char *group)
{
    static char text[400];
    size_t at = 0;
    struct member_words as = {.session = 1, .group = group};
    text[0] = '\0';
    assert_int_equal(group_ask(rig, CMD_GROUP_CONFIGS, &as, 0, NOTHING, 0), GROUP_OK);
    for (struct reader r = fields_of(rig, *last_number()); r.left;) {
        unsigned which = reader_u8(&r);
        (void)reader_u64(&r);
        struct slice value = reader_str8(&r);
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%u=%.*s", at ? " " : "", which, SLICE_ARG(value));
    }
    return text;
}

static unsigned listed(struct rig *rig)
{
    unsigned count = 0, parts = 0;
    struct member_words as = {.session = 1, .group = ""};
    char behind[300] = "";
    do {
        as.group = behind;
        assert_int_equal(group_ask(rig, CMD_GROUP_CONFIG_LIST, &as, 0, NOTHING, 0), GROUP_OK);
        struct reader r = fields_of(rig, *last_number());
        take_text(&r, behind, sizeof behind);
        for (; r.left; count++)
            (void)reader_str8(&r);
        rig_clear(rig);
        parts++;
    } while (behind[0]);
    assert_in_range(parts, 1 + count / 1000, 2 + count / 1000);
    return count;
}

static void set_and_kept(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->check = true;
    assert_string_equal(configs_of(rig, "g"), "");
    assert_int_equal(set(rig, "g", GROUP_SET_SHARE_LOCK_MS, 15000, "15000"), GROUP_OK);
    assert_int_equal(set(rig, "g", GROUP_SETTING_KEPT + 8, 1, "x"), GROUP_OK);
    assert_int_equal(set(rig, "h", GROUP_SET_SHARE_LOCKS, 100, "100"), GROUP_OK);
    assert_string_equal(configs_of(rig, "g"), "3=15000 40=x");
    assert_int_equal(set(rig, "g", GROUP_SET_SHARE_LOCK_MS, 20000, "20000"), GROUP_OK);
    assert_int_equal(listed(rig), 2);
    restart(&rig);
    assert_string_equal(configs_of(rig, "g"), "3=20000 40=x");
    compact_all(rig);
    restart(&rig);
    rig->check = true;
    assert_string_equal(configs_of(rig, "g"), "3=20000 40=x");
    assert_int_equal(unset(rig, "g", GROUP_SET_SHARE_LOCK_MS), GROUP_OK);
    assert_int_equal(unset(rig, "g", GROUP_SET_SHARE_LOCKS), GROUP_OK); /* which it has not */
    assert_string_equal(configs_of(rig, "g"), "40=x");
    uint8_t raw[16], zero = 0;
    struct writer w = writer_of(raw, sizeof raw);
    writer_u8(&w, GROUP_SET_SHARE_LOCKS);
    writer_u64(&w, 200);
    writer_str8(&w, slice_str("200"));
    assert_int_equal(set_rows(rig, "g", writer_slice(&w), NOTHING, ASK_CHECK_ONLY), GROUP_OK);
    assert_string_equal(configs_of(rig, "g"), "40=x");
    assert_int_equal(set_rows(rig, "g", writer_slice(&w), NOTHING, ASK_MULTIPLE), GROUP_OK); /* and nothing else */
    assert_string_equal(configs_of(rig, "g"), "5=200");
    assert_int_equal(set_rows(rig, "g", slice_of(raw, 5), NOTHING, 0), GROUP_ERR_INVALID);
    assert_int_equal(set_rows(rig, "g", slice_of(&zero, 1), NOTHING, 0), GROUP_ERR_INVALID);
    assert_int_equal(set_rows(rig, "", writer_slice(&w), NOTHING, 0), GROUP_ERR_INVALID_ID);
    assert_int_equal(unset(rig, "g", GROUP_SET_SHARE_LOCKS), GROUP_OK);
    assert_int_equal(unset(rig, "h", GROUP_SET_SHARE_LOCKS), GROUP_OK);
    assert_int_equal(listed(rig), 0);
    assert_int_equal(rig->b->group_bytes, 0);
    restart(&rig);
    assert_int_equal(listed(rig), 0);
    for (unsigned i = 0; i < 2005; i++) {
        char name[16];
        snprintf(name, sizeof name, "g%u", i);
        assert_int_equal(set(rig, name, GROUP_SET_SHARE_LOCKS, 100, "100"), GROUP_OK);
        rig_clear(rig);
    }
    assert_int_equal(listed(rig), 2005);
    end(rig);
}

/* Of each vhost its own, however they stand among each other. */
static void listed_in_its_vhost(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint8_t raw[16];
    struct writer w = writer_of(raw, sizeof raw);
    writer_u8(&w, GROUP_SET_SHARE_LOCKS);
    writer_u64(&w, 100);
    writer_str8(&w, slice_str("100"));
    char why[200];
    struct vhost *other = vhost_put(rig->b, slice_str("other"), NOTHING), *own = vhost_find(rig->b, slice_str("/"));
    struct peer *peer = CONTAINER_OF(rig->b->peers.next, struct peer, link);
    assert_non_null(other);
    assert_true(
        permission_put(rig->b, peer->user, other, slice_str(".*"), slice_str(".*"), slice_str(".*"), why, sizeof why));
    for (unsigned i = 0; i < 1500; i++) {
        char name[16];
        snprintf(name, sizeof name, "g%u", i);
        peer->vhost = i % 1000 > 1 ? other : own; /* no thousandth is its own */
        assert_int_equal(set_rows(rig, name, writer_slice(&w), NOTHING, 0), GROUP_OK);
        rig_clear(rig);
    }
    peer->vhost = own;
    assert_int_equal(listed(rig), 4);
    peer->vhost = other;
    assert_int_equal(listed(rig), 1496);
    peer->vhost = own;
    vhost_delete(rig->b, other); /* which is not in the journal */
    end(rig);
}

static int beat_of(struct rig *rig, enum command_type type, const char *group, uint32_t epoch)
{
    uint8_t raw[64];
    struct writer w = writer_of(raw, sizeof raw);
    struct member_words as = {.session = 1, .group = group, .id = "m"};
    writer_str8(&w, slice_str("client"));
    writer_u8(&w, 1);
    if (type == CMD_GROUP_CONSUME) {
        struct slice topic = slice_str("\1s");
        writer_u8(&w, GROUP_UNIFORM);
        writer_str32(&w, topic);
        writer_str32(&w, NOTHING);
    } else
        writer_str8(&w, slice_str("s"));
    if (group_ask(rig, type, &as, (uint64_t)(type == CMD_GROUP_CONSUME) * 60000 << 32 | epoch, writer_slice(&w), 0) !=
        GROUP_OK)
        return -1;
    struct reader r = fields_of(rig, *last_number());
    (void)reader_str8(&r);
    (void)reader_u32(&r);
    return (int)reader_u32(&r);
}

static void sessions_and_beats(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->check = true;
    (void)declare_stream(rig, "s", 1);
    assert_int_equal(set(rig, "g", GROUP_SET_SHARE_BEAT_MS, 7000, "7000"), GROUP_OK);
    assert_int_equal(set(rig, "c", GROUP_SET_CONSUMER_BEAT_MS, 8000, "8000"), GROUP_OK);
    assert_int_equal(beat_of(rig, CMD_SHARE_BEAT, "g", 0), 7000);
    assert_int_equal(beat_of(rig, CMD_GROUP_CONSUME, "c", 0), 8000);
    assert_int_equal(set(rig, "g", GROUP_SET_SHARE_SESSION_MS, 60000, "60000"), GROUP_OK);
    assert_int_equal(set(rig, "c", GROUP_SET_CONSUMER_SESSION_MS, 50000, "50000"), GROUP_OK);
    assert_int_equal(set(rig, "c", GROUP_SET_SHARE_SESSION_MS, 1, "1"), GROUP_OK); /* it is of the other kind */
    assert_int_equal(beat_of(rig, CMD_SHARE_BEAT, "g", 1), 7000);
    assert_int_equal(beat_of(rig, CMD_GROUP_CONSUME, "c", 1), 8000);
    assert_int_equal(unset(rig, "g", GROUP_SET_SHARE_BEAT_MS), GROUP_OK);
    rig_clear(rig);
    skip_ms(rig, 49000);
    assert_int_equal(the_group(rig, "c")->assignee_count, 1);
    skip_ms(rig, 2000);
    assert_int_equal(the_group(rig, "c")->assignee_count, 0);
    assert_int_equal(beat_of(rig, CMD_SHARE_BEAT, "g", 1), GROUP_CONSUMER_BEAT_MS);
    skip_ms(rig, 59000);
    assert_int_equal(the_group(rig, "g")->assignee_count, 1);
    skip_ms(rig, 2000);
    assert_int_equal(the_group(rig, "g")->assignee_count, 0);
    rig_clear(rig);
    end(rig);
}

/* NULL: it waits. */
static struct fetch_row *answered(struct rig *rig)
{
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    return e ? &e->fetch->rows[0] : NULL;
}

static void fetch(struct rig *rig, const char *group, uint64_t number, uint32_t wait_ms)
{
    struct fetch *f = fetch_new(FETCH_RECORDS, 1);
    assert_non_null(f);
    f->bytes_min = 1;
    f->wait_ms = wait_ms;
    f->bytes_max = f->rows[0].bytes_max = 1 << 20;
    f->rows[0].stream = stream_id(rig, "s");
    f->sharer = ask_new(slice_str(group), slice_str("m"), NOTHING, NOTHING);
    assert_non_null(f->sharer);
    f->sharer->number = number;
    rig_clear(rig);
    rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = f;
    rig_step(rig);
}

static struct fetch_row *take(struct rig *rig, const char *group, uint64_t number)
{
    fetch(rig, group, number, 0);
    assert_non_null(answered(rig));
    return answered(rig);
}

static void where_shares_begin(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->check = true;
    struct stream *s = declare_stream(rig, "s", 1);
    static const struct {
        const char *group;
        uint64_t reset;
        int first;
    } cases[] = {
        {"first", GROUP_FROM_START, 0}, {"last", GROUP_FROM_END, 20}, {"hour", 3600000, 0}, {"second", 1000, 20}};
    for (unsigned i = 0; i < 20; i++)
        put(rig, "s", "x");
    rig_clear(rig);
    rig_pass(rig, 2000);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(set(rig, cases[i].group, GROUP_SET_SHARE_RESET, cases[i].reset, "?"), GROUP_OK);
        assert_true(beat_of(rig, CMD_SHARE_BEAT, cases[i].group, 0) > 0);
        const struct fetch_row *row = take(rig, cases[i].group, 5);
        assert_int_equal(row->run_count, cases[i].first < 20);
        const struct share *share = share_find(the_group(rig, cases[i].group), s->queue->id, 0);
        assert_int_equal(share->ranges.start, cases[i].first);
    }
    rig_clear(rig);
    end(rig);
}

static void limits_of_shares(void **state)
{
    (void)state;
    struct rig *rig = begin();
    rig->check = true;
    struct stream *s = declare_stream(rig, "s", 1);
    assert_int_equal(set(rig, "g", GROUP_SET_SHARE_RESET, GROUP_FROM_START, "earliest"), GROUP_OK);
    assert_int_equal(set(rig, "g", GROUP_SET_SHARE_LOCK_MS, 1000, "1000"), GROUP_OK);
    assert_int_equal(set(rig, "g", GROUP_SET_SHARE_DELIVERIES, 2, "2"), GROUP_OK);
    assert_int_equal(set(rig, "g", GROUP_SET_SHARE_LOCKS, 3, "3"), GROUP_OK);
    assert_true(beat_of(rig, CMD_SHARE_BEAT, "g", 0) > 0);
    for (unsigned i = 0; i < 10; i++)
        put(rig, "s", "x");
    for (uint32_t n = 1; n <= 2; n++) {
        const struct fetch_row *row = take(rig, "g", 100);
        assert_true(row->run_count == 1 && row->runs[0].first == 0 && row->runs[0].last == 2);
        assert_int_equal(row->runs[0].deliveries, n);
        rig_pass(rig, 1010);
    }
    const struct share *share = share_find(the_group(rig, "g"), s->queue->id, 0);
    assert_true(share->ranges.start == 3 && !share->ranges.live);
    assert_int_equal(take(rig, "g", 100)->runs[0].last, 5);
    fetch(rig, "g", 100, 60000);
    assert_null(answered(rig));
    assert_int_equal(unset(rig, "g", GROUP_SET_SHARE_LOCKS), GROUP_OK); /* who waits is told */
    rig_step(rig);
    assert_non_null(answered(rig));
    assert_int_equal(answered(rig)->runs[0].last, 9);
    rig_clear(rig);
    end(rig);
}

/* ---- refused memory ---- */

static bool storm(struct rig *rig)
{
    if (!begin_with(rig))
        return false;
    for (unsigned i = 0; i < 3; i++) {
        uint8_t raw[40], gone = GROUP_SET_SHARE_LOCKS;
        struct writer w = writer_of(raw, sizeof raw);
        writer_u8(&w, GROUP_SET_SHARE_LOCKS);
        writer_u64(&w, 100);
        writer_str8(&w, slice_str("100"));
        for (unsigned n = 0; n < 3; n++) {
            char name[8];
            snprintf(name, sizeof name, "g%u", n);
            struct ask *ask = ask_new(slice_str(name), n == 2 && i ? slice_of(&gone, 1) : NOTHING, NOTHING,
                                      n == 2 && i ? NOTHING : writer_slice(&w));
            if (!ask)
                return false;
            rig_command(rig, 0, CMD_GROUP_SET, 1, 0)->ask = ask;
            rig_step(rig);
            struct member_words as = {.session = 1, .group = name};
            (void)group_ask(rig, CMD_GROUP_CONFIGS, &as, 0, NOTHING, 0);
            (void)group_ask(rig, CMD_GROUP_CONFIG_LIST, &(struct member_words){.session = 1, .group = ""}, 0, NOTHING,
                            0);
            rig_clear(rig);
        }
        compact_start(rig->b);
        rig_pass(rig, 50);
    }
    return true;
}

static void memory_is_refused(void **state)
{
    (void)state;
    each_allocation_fails(storm, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_and_kept),     cmocka_unit_test(sessions_and_beats), cmocka_unit_test(where_shares_begin),
        cmocka_unit_test(limits_of_shares), cmocka_unit_test(memory_is_refused),  cmocka_unit_test(listed_in_its_vhost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
