/* Share groups: what members acquire, and what becomes of it when records, groups and streams go. */
#include "core/group_words_test.h"
#include "core/share_int.h"

#include <errno.h>

static const struct group_config from_the_start = {
    .lock_ms = SHARE_LOCK_MS, .deliveries_max = 5, .locks_max = 10, .earliest = true};

static void put_some(struct rig *rig, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        put(rig, "s", "x");
    rig_clear(rig);
}

static int member_says(struct rig *rig, uint32_t epoch)
{
    uint8_t raw[64];
    struct writer w = writer_of(raw, sizeof raw);
    struct member_words as = {.session = 1, .group = "g", .id = "member"};
    writer_str8(&w, slice_str("client"));
    writer_u8(&w, 1);
    writer_str8(&w, slice_str("s"));
    int error = group_ask(rig, CMD_SHARE_BEAT, &as, epoch, writer_slice(&w), 0);
    rig_clear(rig);
    return error;
}

/* A share group "g" that has no members, and begins with the first record of "s", which has so many; sessions 1 and 2. */
static struct rig *begin_sharing(unsigned count)
{
    struct rig *rig = begin();
    rig->check = true;
    assert_true(rig_open(rig, 2));
    (void)declare_stream(rig, "s", 1);
    put_some(rig, count);
    assert_int_equal(member_says(rig, 0), GROUP_OK);
    assert_int_equal(member_says(rig, GROUP_EPOCH_LEAVE), GROUP_OK);
    the_group(rig, "g")->config = &from_the_start;
    return rig;
}

static struct fetch *share_fetch(struct rig *rig, const char *member, uint64_t number)
{
    struct fetch *f = fetch_new(FETCH_RECORDS, 1);
    assert_non_null(f);
    f->bytes_min = 1;
    f->bytes_max = f->rows[0].bytes_max = 1 << 20;
    f->wait_ms = 500;
    f->rows[0].stream = stream_id(rig, "s");
    f->sharer = ask_new(slice_str("g"), slice_str(member), NOTHING, NOTHING);
    assert_non_null(f->sharer);
    f->sharer->number = number;
    return f;
}

static struct fetch *answered(struct rig *rig)
{
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    return e ? e->fetch : NULL;
}

/* The answer, or NULL; what came before is forgotten. */
static struct fetch *take(struct rig *rig, uint32_t session, const char *member, uint64_t number)
{
    struct fetch *f = share_fetch(rig, member, number);
    rig_clear(rig);
    rig_command(rig, 0, CMD_FETCH, session, 0)->fetch = f;
    rig_step(rig);
    return answered(rig);
}

/* "0-4:1 7-9:2" */
static const char *runs_of(const struct fetch *f)
{
    static char text[200];
    size_t at = 0;
    assert_non_null(f);
    const struct fetch_row *row = &f->rows[0];
    for (uint32_t i = text[0] = 0; i < row->run_count; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%u-%u:%u", i ? " " : "", (unsigned)row->runs[i].first,
                               (unsigned)row->runs[i].last, row->runs[i].deliveries);
    return text;
}

/* What is answered of the partition. */
static int ack_all(struct rig *rig, const char *member, uint64_t first, uint64_t last, struct slice acks)
{
    uint8_t raw[400];
    struct writer w = writer_of(raw, sizeof raw);
    struct member_words as = {.session = 2, .group = "g"};
    snprintf(as.id, sizeof as.id, "%s", member);
    writer_u64(&w, stream_id(rig, "s"));
    writer_u32(&w, 0);
    writer_u32(&w, 1);
    writer_u64(&w, first);
    writer_u64(&w, last);
    writer_str32(&w, acks);
    int error = group_ask(rig, CMD_SHARE_ACK, &as, 0, writer_slice(&w), 0);
    if (error)
        return error;
    struct reader r = fields_of(rig, *last_number());
    return reader_u8(&r);
}

static int ack(struct rig *rig, const char *member, uint64_t first, uint64_t last, uint8_t what)
{
    return ack_all(rig, member, first, last, slice_of(&what, 1));
}

static void trim(struct rig *rig, uint64_t offset)
{
    struct ask *ask = ask_new(slice_str("s"), NOTHING, NOTHING, NOTHING);
    assert_non_null(ask);
    ask->number = offset;
    rig_clear(rig);
    rig_command(rig, 0, CMD_STREAM_TRIM, 1, 0)->ask = ask;
    rig_step(rig);
}

static int delete_group(struct rig *rig)
{
    struct member_words nobody = {.session = 1, .group = "g"};
    return group_ask(rig, CMD_GROUP_DELETE, &nobody, 0, NOTHING, 0);
}

static uint64_t held_by(struct rig *rig, const char *member)
{
    const struct sharer *who = sharer_find(the_group(rig, "g"), slice_str(member));
    uint64_t held = 0;
    for (struct list *node = who ? who->holds.next : NULL; who && node != &who->holds; node = node->next)
        held += CONTAINER_OF(node, struct share_hold, link)->count;
    return held;
}

static void end_sharing(struct rig *rig)
{
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    end(rig);
}

static void what_is_trimmed_is_nobodys(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(10);
    assert_string_equal(runs_of(take(rig, 2, "a", 10)), "0-9:1");
    trim(rig, 5);
    assert_null(take(rig, 1, "c", 10)); /* it looks, and finds that half of it is gone */
    assert_int_equal(held_by(rig, "a"), 5);
    assert_int_equal(ack(rig, "a", 0, 9, SHARE_ACK_ACCEPT), GROUP_OK);
    assert_int_equal(held_by(rig, "a"), 0);
    rig_pass(rig, 600);
    put_some(rig, 10);
    assert_string_equal(runs_of(take(rig, 2, "a", 10)), "10-19:1");
    trim(rig, 20);
    assert_null(take(rig, 1, "c", 10));
    assert_int_equal(the_group(rig, "g")->sharers.count, 0);
    rig_pass(rig, 600);
    assert_int_equal(delete_group(rig), GROUP_OK);
    end_sharing(rig);
}

/* Three records, a second after each other, the last one just now. */
static struct rig *begin_by_time(const struct group_config *config)
{
    struct rig *rig = begin_sharing(1);
    the_group(rig, "g")->config = config;
    for (unsigned i = 0; i < 2; i++) {
        rig_pass(rig, 1000);
        put_some(rig, 1);
    }
    return rig;
}

/* by_duration: with the first record that is young enough, not with its file; behind all when none is. */
static void begins_so_long_ago(void **state)
{
    static const struct {
        int64_t since_ms;
        const char *given, *behind; /* at first; when another record came */
    } rows[] = {{1500, "1-2:1", "1-3:1"}, {500, "2-2:1", "2-3:1"}, {5000, "0-2:1", "0-3:1"}, {1, NULL, "3-3:1"}};
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct group_config config = from_the_start;
        config.since_ms = rows[i].since_ms;
        struct rig *rig = begin_by_time(&config);
        rig_pass(rig, 5);
        const struct fetch *f = take(rig, 2, "a", 10);
        assert_true((f != NULL) == (rows[i].given != NULL));
        if (f)
            assert_string_equal(runs_of(f), rows[i].given);
        if (f)
            assert_int_equal(ack(rig, "a", f->rows[0].runs[0].first, 2, SHARE_ACK_RELEASE), GROUP_OK);
        rig_clear(rig);
        put(rig, "s", "x");
        f = f ? take(rig, 2, "a", 10) : answered(rig);
        assert_int_equal(f->rows[0].runs[0].first, (uint64_t)(rows[i].behind[0] - '0'));
        assert_int_equal(f->rows[0].runs[f->rows[0].run_count - 1].last, 3);
        the_group(rig, "g")->config = &from_the_start;
        end_sharing(rig);
    }
}

/* While the store looks for that: another member looks too, and both share what there is; the group goes, the stream goes, the disk fails. */
static void what_happens_while_it_is_sought(void **state)
{
    (void)state;
    struct group_config config = from_the_start;
    config.since_ms = 1500;
    for (unsigned i = 0; i < 4; i++) {
        struct rig *rig = begin_by_time(&config);
        rig->log->streams->read_err = i == 3 ? -EIO : 0;
        rig_command(rig, 0, CMD_FETCH, 2, 0)->fetch = share_fetch(rig, "a", 1);
        if (i == 0)
            rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = share_fetch(rig, "c", 10);
        if (i == 1)
            assert_int_equal(delete_group(rig), GROUP_OK);
        else if (i == 2)
            (void)rig_ask(rig, CMD_QUEUE_DELETE, 1, 1, "s", NULL, NULL, NOTHING, 0);
        else
            rig_step(rig);
        static const enum fetch_result results[] = {FETCH_OK, FETCH_NO_GROUP, FETCH_UNKNOWN, FETCH_TROUBLE};
        struct fetch *f = answered(rig);
        assert_int_equal(f->rows[0].result, results[i]);
        assert_string_equal(runs_of(f), i ? "" : "1-1:1");
        if (i == 0)
            assert_string_equal(runs_of(rig_nth(rig, EFF_FETCHED, 1)->fetch), "2-2:1");
        if (the_group(rig, "g"))
            the_group(rig, "g")->config = &from_the_start;
        end_sharing(rig);
    }
}

/* Who waits is told that the group is gone, and gets no share of a group that is going. */
static void a_group_goes_while_somebody_waits(void **state)
{
    (void)state;
    for (unsigned latest = 0; latest < 2; latest++) { /* a new share would have something for him, or not */
        struct rig *rig = begin_sharing(10);
        assert_string_equal(runs_of(take(rig, 2, "a", 10)), "0-9:1");
        assert_null(take(rig, 1, "c", 10));
        if (latest)
            the_group(rig, "g")->config = NULL;
        assert_int_equal(delete_group(rig), GROUP_OK);
        assert_non_null(answered(rig));
        assert_int_equal(answered(rig)->rows[0].result, FETCH_NO_GROUP);
        assert_null(the_group(rig, "g"));
        end_sharing(rig);
    }
}

/* Who holds something already adds nothing; somebody new would. */
static void without_room_for_new_members(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(10);
    assert_string_equal(runs_of(take(rig, 2, "a", 4)), "0-3:1");
    rig->b->options.groups_bytes_max = rig->b->group_bytes;
    assert_string_equal(runs_of(take(rig, 2, "a", 3)), "4-6:1");
    struct fetch *f = take(rig, 2, "c", 3);
    assert_string_equal(runs_of(f), "");
    assert_int_equal(f->rows[0].result, FETCH_TROUBLE);
    rig->b->options.groups_bytes_max = 0;
    assert_string_equal(runs_of(take(rig, 2, "c", 3)), "7-9:1");
    end_sharing(rig);
}

/* What the store says that is nothing for members is not what they have acquired, whatever becomes of the row. */
static void nothing_is_given_of_what_failed(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(10);
    rig->log->streams->dead = true;
    assert_string_equal(runs_of(take(rig, 2, "a", 2)), "1-1:1");
    rig->log->streams->read_err = -EILSEQ;
    struct fetch *f = take(rig, 2, "a", 2);
    assert_string_equal(runs_of(f), "");
    assert_int_equal(f->rows[0].result, FETCH_DAMAGED);
    rig->log->streams->read_err = 0;
    rig_clear(rig);
    f = share_fetch(rig, "a", 2);
    f->wait_ms = 0;
    rig_command(rig, 0, CMD_FETCH, 2, 0)->fetch = f;
    assert_int_equal(delete_group(rig), GROUP_OK); /* before the store has said anything */
    f = answered(rig);
    assert_string_equal(runs_of(f), "");
    assert_int_equal(f->rows[0].result, FETCH_NO_GROUP);
    end_sharing(rig);
}

/* Neither what is given again nor what is new passes the limit of 10 that are not done with. */
static void no_more_than_the_limit(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(40);
    assert_string_equal(runs_of(take(rig, 2, "a", 100)), "0-9:1");
    assert_int_equal(ack(rig, "a", 0, 0, SHARE_ACK_RELEASE), GROUP_OK);
    assert_string_equal(runs_of(take(rig, 2, "a", 100)), "0-0:2");
    assert_int_equal(ack(rig, "a", 0, 4, SHARE_ACK_ACCEPT), GROUP_OK);
    assert_int_equal(ack(rig, "a", 5, 5, SHARE_ACK_RELEASE), GROUP_OK);
    assert_string_equal(runs_of(take(rig, 2, "a", 100)), "5-5:2 10-14:1");
    assert_int_equal(ack(rig, "a", 5, 6, SHARE_ACK_RELEASE), GROUP_OK);
    assert_string_equal(runs_of(take(rig, 2, "a", 1)), "5-5:3");
    assert_string_equal(runs_of(take(rig, 2, "a", UINT64_MAX)), "6-6:2");
    end_sharing(rig);
}

/* A range a record of a large batch: what would cut a share into more than so many is not heard, and nothing more is given. */
static void not_cut_without_end(void **state)
{
    (void)state;
    static const struct group_config generous = {
        .lock_ms = SHARE_LOCK_MS, .deliveries_max = 5, .locks_max = 1000, .earliest = true};
    uint8_t acks[100];
    for (unsigned i = 0; i < sizeof acks; i++)
        acks[i] = i % 2 ? SHARE_ACK_ACCEPT : SHARE_ACK_RELEASE;
    struct rig *rig = begin_sharing(101);
    the_group(rig, "g")->config = &generous;
    assert_string_equal(runs_of(take(rig, 2, "a", 100)), "0-99:1");
    the_group(rig, "g")->config = &from_the_start; /* 40 ranges at most */
    assert_int_equal(ack_all(rig, "a", 0, 99, slice_of(acks, 100)), GROUP_ERR_NO_MEMORY);
    assert_int_equal(ack_all(rig, "a", 0, 39, slice_of(acks, 40)), GROUP_ERR_NO_MEMORY);
    assert_int_equal(held_by(rig, "a"), 100);
    assert_int_equal(ack_all(rig, "a", 0, 38, slice_of(acks, 39)), GROUP_OK);
    assert_int_equal(ack(rig, "a", 50, 50, SHARE_ACK_ACCEPT), GROUP_ERR_NO_MEMORY);
    assert_null(take(rig, 1, "c", 1)); /* there is something for it, when others are done */
    assert_int_equal(ack(rig, "a", 39, 99, SHARE_ACK_ACCEPT), GROUP_OK);
    assert_string_equal(runs_of(answered(rig)), "0-0:2");
    end_sharing(rig);
}

/* The n-th answer since the last command: who was given what. */
static const char *nth_runs(struct rig *rig, unsigned n, const char *member)
{
    struct effect *e = rig_nth(rig, EFF_FETCHED, n);
    assert_non_null(e);
    assert_true(slice_is(e->fetch->sharer->other, member));
    return runs_of(e->fetch);
}

/* Of those that wait one looks, the one that has waited longest, and the next when there is more. */
static void one_after_the_other(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(3);
    assert_string_equal(runs_of(take(rig, 2, "a", 10)), "0-2:1");
    assert_null(take(rig, 2, "c", 1));
    assert_null(take(rig, 1, "d", 1));
    assert_null(take(rig, 2, "e", 1));
    uint64_t fetches = rig->log->streams->fetches;
    assert_int_equal(ack(rig, "a", 1, 1, SHARE_ACK_ACCEPT), GROUP_OK); /* nothing for anybody */
    assert_int_equal(rig_count(rig, EFF_FETCHED), 0);
    assert_int_equal(ack(rig, "a", 2, 2, SHARE_ACK_RELEASE), GROUP_OK);
    assert_string_equal(nth_runs(rig, 0, "c"), "2-2:2");
    assert_int_equal(rig_count(rig, EFF_FETCHED), 1);
    rig_clear(rig);
    put(rig, "s", "x");
    assert_string_equal(nth_runs(rig, 0, "d"), "3-3:1");
    assert_int_equal(rig_count(rig, EFF_FETCHED), 1);
    assert_int_equal(rig->log->streams->fetches, fetches + 2);
    rig_clear(rig);
    assert_null(take(rig, 2, "f", 1));
    rig->log->streams->blind = 1; /* e finds nothing, so it is f's turn */
    put(rig, "s", "x");
    assert_string_equal(nth_runs(rig, 0, "f"), "4-4:1");
    assert_int_equal(rig_count(rig, EFF_FETCHED), 1);
    rig_clear(rig);
    put_some(rig, 0);
    put(rig, "s", "x");
    assert_string_equal(nth_runs(rig, 0, "e"), "5-5:1");
    end_sharing(rig);
}

/* What changes while a block is with the store is not missed. */
static void something_comes_meanwhile(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(1);
    struct fetch *f = fetch_new(FETCH_RECORDS, 2);
    (void)declare_stream(rig, "t", 1);
    put(rig, "t", "x");
    assert_non_null(f);
    f->bytes_min = 1;
    f->bytes_max = f->rows[0].bytes_max = f->rows[1].bytes_max = 1 << 20;
    f->wait_ms = 500;
    f->rows[0].stream = stream_id(rig, "s");
    f->rows[1].stream = stream_id(rig, "t");
    f->sharer = ask_new(slice_str("g"), slice_str("c"), NOTHING, NOTHING);
    f->sharer->number = 10;
    struct fetch *other = share_fetch(rig, "a", 10);
    other->rows[0].stream = f->rows[1].stream;
    rig_clear(rig);
    rig_command(rig, 0, CMD_FETCH, 2, 0)->fetch = other;
    rig_step(rig);
    assert_string_equal(runs_of(answered(rig)), "0-0:1");
    rig_clear(rig);
    rig->chance = 42;
    rig->slow_store = true;
    rig_command(rig, 0, CMD_FETCH, 2, 0)->fetch = f;
    rig_step(rig);
    assert_null(answered(rig));
    struct member_words as = {.session = 2, .group = "g", .id = "a"};
    assert_int_equal(group_ask(rig, CMD_SHARE_ACK, &as, 0, NOTHING, ASK_MULTIPLE), GROUP_OK);
    rig->log->streams->blind = 1;
    rig->slow_store = false;
    rig_step(rig);
    assert_string_equal(nth_runs(rig, 0, "c"), "0-0:1");
    assert_int_equal(answered(rig)->rows[1].run_count, 1);
    end_sharing(rig);
}

static void take_right(struct rig *rig, bool has)
{
    char why[64];
    struct slice all = slice_str(".*");
    assert_true(permission_put(rig->b, user_find(rig->b, slice_str("guest")), vhost_find(rig->b, slice_str("/")), all,
                               all, has ? all : slice_str("s"), why, sizeof why));
}

/* Who may not read for the group any more is not given what comes while his fetch is parked. */
static void a_right_goes_meanwhile(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(1);
    assert_string_equal(runs_of(take(rig, 2, "a", 10)), "0-0:1");
    assert_null(take(rig, 2, "c", 10));
    take_right(rig, false);
    put(rig, "s", "x");
    assert_non_null(answered(rig));
    assert_int_equal(answered(rig)->rows[0].result, FETCH_GROUP_REFUSED);
    take_right(rig, true);
    assert_string_equal(runs_of(take(rig, 2, "c", 10)), "1-1:1");
    end_sharing(rig);
}

/* A lock is over when it was to be, whatever else was said before; a record is given so often and no more. */
static void locks_end(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(4);
    assert_string_equal(runs_of(take(rig, 2, "a", 2)), "0-1:1");
    rig_pass(rig, SHARE_LOCK_MS / 2);
    assert_string_equal(runs_of(take(rig, 2, "c", 2)), "2-3:1");
    assert_int_equal(ack(rig, "a", 1, 1, SHARE_ACK_RENEW), GROUP_OK);
    rig_pass(rig, SHARE_LOCK_MS / 2 + 10);
    assert_int_equal(held_by(rig, "a"), 1);
    assert_int_equal(ack(rig, "a", 0, 0, SHARE_ACK_ACCEPT), GROUP_ERR_RECORD_STATE);
    assert_string_equal(runs_of(take(rig, 2, "d", 10)), "0-0:2");
    assert_int_equal(ack(rig, "d", 0, 0, SHARE_ACK_ACCEPT), GROUP_OK);
    rig_pass(rig, SHARE_LOCK_MS / 2 + 10);
    assert_int_equal(held_by(rig, "a"), 0);
    assert_int_equal(held_by(rig, "c"), 0);
    assert_string_equal(runs_of(take(rig, 2, "a", 10)), "1-3:2");
    assert_int_equal(ack(rig, "a", 1, 2, SHARE_ACK_ACCEPT), GROUP_OK);
    for (unsigned n = 3; n <= 5; n++) {
        char text[16];
        snprintf(text, sizeof text, "3-3:%u", n);
        rig_pass(rig, SHARE_LOCK_MS + 10);
        assert_string_equal(runs_of(take(rig, 2, "a", 10)), text);
    }
    assert_null(take(rig, 2, "c", 10)); /* which waits for it */
    rig_pass(rig, SHARE_LOCK_MS + 10);
    assert_string_equal(runs_of(answered(rig)), "");
    const struct share *s = share_find(the_group(rig, "g"), stream_id(rig, "s"), 0);
    assert_true(s->ranges.start == 4 && s->ranges.live == 0);
    end_sharing(rig);
}

/* A share of thousands of ranges goes through a snapshot, record by record of it. */
static void a_long_snapshot(void **state)
{
    (void)state;
    static const struct group_config generous = {
        .lock_ms = SHARE_LOCK_MS, .deliveries_max = 5, .locks_max = 4000, .earliest = true};
    struct rig *rig = begin_sharing(0);
    rig->check = false;
    the_group(rig, "g")->config = &generous;
    for (unsigned i = 0; i < 3000; i++)
        put(rig, "s", "x");
    assert_string_equal(runs_of(take(rig, 2, "a", 3000)), "0-2999:1");
    for (uint64_t i = 1; i < 3000; i += 2)
        assert_int_equal(ack(rig, "a", i, i, i % 3 ? SHARE_ACK_ACCEPT : SHARE_ACK_RELEASE), GROUP_OK);
    const struct share *s = share_find(the_group(rig, "g"), stream_id(rig, "s"), 0);
    uint32_t count = s->ranges.count;
    uint64_t live = s->ranges.live;
    assert_true(count > 2000);
    rig->check = true;
    compact_all(rig);
    restart(&rig);
    s = share_find(the_group(rig, "g"), stream_id(rig, "s"), 0);
    assert_int_equal(s->ranges.live, live);
    assert_int_equal(s->ranges.available, live);
    assert_int_equal(s->ranges.count, count);
    share_ranges_check(&s->ranges);
    end(rig);
}

/* "0:3+7": the group begins at 3, and has 7 to be done with; "0:-": it has not read yet. */
static const char *offsets_said(struct rig *rig, const char *group)
{
    static char text[200];
    size_t at = 0;
    struct member_words nobody = {.session = 1, .group = group};
    text[0] = '\0';
    if (group_ask(rig, CMD_SHARE_OFFSETS, &nobody, 0, NOTHING, ASK_MULTIPLE) != GROUP_OK)
        return "none";
    for (struct reader r = fields_of(rig, *last_number()); r.left;) {
        (void)reader_u64(&r);
        uint32_t partition = reader_u32(&r);
        uint64_t start = reader_u64(&r);
        int64_t lag = (int64_t)reader_u64(&r);
        if (start)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%u:%d+%d", at ? " " : "", partition, (int)start - 1,
                                   (int)lag);
        else
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%u:-", at ? " " : "", partition);
    }
    return text;
}

/* The error of the row, or of the whole. */
static int alter(struct rig *rig, const char *group, uint64_t stream, uint32_t partition, uint64_t offset)
{
    uint8_t raw[32];
    struct writer w = writer_of(raw, sizeof raw);
    struct member_words nobody = {.session = 1, .group = group};
    writer_u64(&w, stream);
    writer_u32(&w, partition);
    writer_u64(&w, offset);
    int error = group_ask(rig, CMD_SHARE_ALTER, &nobody, 0, writer_slice(&w), 0);
    struct reader r = error ? reader_of(NOTHING) : fields_of(rig, *last_number());
    return error ? error : reader_u8(&r);
}

static int forget(struct rig *rig, const char *group, uint64_t stream)
{
    uint8_t raw[32];
    struct writer w = writer_of(raw, sizeof raw);
    struct member_words nobody = {.session = 1, .group = group};
    writer_u64(&w, stream);
    int error = group_ask(rig, CMD_SHARE_FORGET, &nobody, 0, writer_slice(&w), 0);
    struct reader r = error ? reader_of(NOTHING) : fields_of(rig, *last_number());
    return error ? error : reader_u8(&r);
}

static void administrators_move_it(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(10);
    uint64_t s = stream_id(rig, "s");
    assert_string_equal(offsets_said(rig, "g"), "");
    assert_string_equal(runs_of(take(rig, 2, "a", 4)), "0-3:1");
    assert_int_equal(ack(rig, "a", 1, 2, SHARE_ACK_ACCEPT), GROUP_OK);
    assert_string_equal(offsets_said(rig, "g"), "0:0+8");
    assert_int_equal(member_says(rig, 0), GROUP_OK);
    assert_int_equal(alter(rig, "g", s, 0, 5), GROUP_ERR_NOT_EMPTY);
    assert_int_equal(forget(rig, "g", s), GROUP_ERR_NOT_EMPTY);
    assert_int_equal(member_says(rig, GROUP_EPOCH_LEAVE), GROUP_OK);
    assert_int_equal(alter(rig, "g", s, 0, 5), GROUP_OK); /* who has something of it, has nothing */
    assert_string_equal(offsets_said(rig, "g"), "0:5+5");
    assert_int_equal(held_by(rig, "a"), 0);
    assert_int_equal(ack(rig, "a", 3, 3, SHARE_ACK_ACCEPT), GROUP_OK); /* it is below the start */
    assert_string_equal(runs_of(take(rig, 2, "a", 100)), "5-9:1");
    assert_int_equal(alter(rig, "g", s, 0, 2), GROUP_OK);
    assert_string_equal(runs_of(take(rig, 2, "a", 100)), "2-9:1");
    assert_int_equal(alter(rig, "g", s, 0, 20), GROUP_OK); /* where nothing is yet */
    assert_string_equal(offsets_said(rig, "g"), "0:20+-10");
    assert_int_equal(alter(rig, "g", s, 7, 0), GROUP_ERR_NO_STREAM);
    assert_int_equal(alter(rig, "g", 999, 0, 0), GROUP_ERR_NO_STREAM);
    restart(&rig);
    assert_string_equal(offsets_said(rig, "g"), "0:20+-10");
    assert_int_equal(alter(rig, "g", s, 0, (uint64_t)-1), GROUP_OK);
    assert_string_equal(offsets_said(rig, "g"), "");
    assert_int_equal(alter(rig, "h", s, 0, 3), GROUP_OK); /* a group that was not there */
    assert_string_equal(offsets_said(rig, "h"), "0:3+7");
    assert_int_equal(forget(rig, "h", s), GROUP_OK);
    assert_int_equal(forget(rig, "h", s), GROUP_ERR_NO_STREAM);
    assert_string_equal(offsets_said(rig, "h"), "");
    struct member_words simple = {.session = 1, .group = "classic", .generation = SIMPLE};
    assert_int_equal(commit(rig, &simple, s, 1), GROUP_OK);
    assert_int_equal(alter(rig, "classic", s, 0, 3), GROUP_ERR_NO_GROUP);
    assert_string_equal(offsets_said(rig, "classic"), "none");
    restart(&rig);
    assert_string_equal(offsets_said(rig, "g"), "");
    assert_string_equal(offsets_said(rig, "h"), "");
    assert_string_equal(offsets_said(rig, "nix"), "none");
    end(rig);
}

/* A group is moved while somebody reads who never was its member. */
static void moved_while_it_is_read(void **state)
{
    (void)state;
    struct rig *rig = begin_sharing(10);
    rig->chance = 42;
    rig->slow_store = true;
    assert_null(take(rig, 2, "a", 3));
    assert_int_equal(alter(rig, "g", stream_id(rig, "s"), 0, 5), GROUP_OK);
    rig_clear(rig);
    rig->slow_store = false;
    rig_step(rig);
    assert_string_equal(runs_of(answered(rig)), "5-7:1");
    rig_clear(rig);
    rig->chance = 42;
    rig->slow_store = true;
    assert_null(take(rig, 2, "a", 3));
    assert_int_equal(forget(rig, "g", stream_id(rig, "s")), GROUP_OK);
    rig_clear(rig);
    rig->slow_store = false;
    rig_step(rig);
    assert_string_equal(runs_of(answered(rig)), "");
    assert_int_equal(answered(rig)->rows[0].result, FETCH_NO_GROUP);
    assert_string_equal(runs_of(take(rig, 2, "a", 3)), "0-2:1");
    end_sharing(rig);
}

/* ---- refused memory ---- */

static uint64_t accepted_until; /* offsets below were said to be accepted */

static struct fetch *try_take(struct rig *rig, const char *member, uint64_t number)
{
    struct fetch *f = fetch_new(FETCH_RECORDS, 1);
    struct ask *ask = f ? ask_new(slice_str("g"), slice_str(member), NOTHING, NOTHING) : NULL;
    rig_clear(rig);
    if (!ask) {
        fetch_free(&f);
        return NULL;
    }
    f->bytes_min = 1;
    f->bytes_max = f->rows[0].bytes_max = 1 << 20;
    f->rows[0].stream = stream_id(rig, "s");
    f->sharer = ask;
    f->sharer->number = number;
    rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = f;
    rig_step(rig);
    return answered(rig);
}

/* How many bytes the operands have, and the error of what comes back, of one partition. */
static int try_ack(struct rig *rig, const char *member, uint64_t first, uint64_t last, uint8_t what)
{
    uint8_t raw[64];
    struct writer w = writer_of(raw, sizeof raw);
    struct member_words as = {.session = 1, .group = "g"};
    snprintf(as.id, sizeof as.id, "%s", member);
    writer_u64(&w, stream_id(rig, "s"));
    writer_u32(&w, 0);
    writer_u32(&w, 1);
    writer_u64(&w, first);
    writer_u64(&w, last);
    writer_str32(&w, slice_of(&what, 1));
    if (group_ask(rig, CMD_SHARE_ACK, &as, 0, writer_slice(&w), 0) != GROUP_OK)
        return -1;
    struct reader r = fields_of(rig, *last_number());
    return reader_u8(&r);
}

static bool storm(struct rig *rig)
{
    struct table t;
    uint8_t raw[64];
    struct writer w = writer_of(raw, sizeof raw);
    struct member_words as = {.session = 1, .group = "g", .id = "member"};
    accepted_until = 0;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    writer_str8(&w, slice_str("client"));
    writer_u8(&w, 1);
    writer_str8(&w, slice_str("s"));
    if (!begin_with(rig) || !rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "s", NULL, NULL, writer_slice(&t.w), ASK_DURABLE) ||
        group_ask(rig, CMD_SHARE_BEAT, &as, 0, writer_slice(&w), 0) != GROUP_OK)
        return false;
    (void)alter(rig, "other", stream_id(rig, "s"), 0, 0);
    for (unsigned round = 0; round < 4; round++) {
        const struct fetch *f = try_take(rig, "a", 10); /* the first one begins at the end */
        uint64_t first = f && f->rows[0].run_count ? f->rows[0].runs[0].first : UINT64_MAX;
        for (unsigned i = 0; i < 6; i++)
            (void)rig_publish(rig, 1, 1, "", "s", "x", true);
        if (first == accepted_until && try_ack(rig, "a", first, first + 1, SHARE_ACK_ACCEPT) == GROUP_OK)
            accepted_until = first + 2;
        (void)try_ack(rig, "a", first + 2, first + 2, SHARE_ACK_RELEASE);
        (void)try_take(rig, "c", 2);
        (void)group_ask(rig, CMD_SHARE_ACK, &as, 0, NOTHING, ASK_MULTIPLE);
        rig_pass(rig, SHARE_LOCK_MS / 3);
        compact_start(rig->b);
        rig_pass(rig, 50);
        (void)offsets_said(rig, "g");
        rig_clear(rig);
    }
    (void)alter(rig, "other", stream_id(rig, "s"), 0, 3);
    (void)forget(rig, "other", stream_id(rig, "s"));
    return true;
}

static uint64_t count_accepted(struct rig *rig)
{
    (void)rig;
    return accepted_until;
}

static void stays_accepted(struct rig *rig, uint64_t counted)
{
    struct group *g = the_group(rig, "g");
    const struct share *s = g ? share_find(g, stream_id(rig, "s"), 0) : NULL;
    assert_true(!counted || (s && s->ranges.start >= counted));
}

static void memory_is_refused(void **state)
{
    (void)state;
    each_allocation_fails(storm, count_accepted, stays_accepted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_trimmed_is_nobodys),
        cmocka_unit_test(begins_so_long_ago),
        cmocka_unit_test(what_happens_while_it_is_sought),
        cmocka_unit_test(a_group_goes_while_somebody_waits),
        cmocka_unit_test(without_room_for_new_members),
        cmocka_unit_test(nothing_is_given_of_what_failed),
        cmocka_unit_test(no_more_than_the_limit),
        cmocka_unit_test(not_cut_without_end),
        cmocka_unit_test(one_after_the_other),
        cmocka_unit_test(something_comes_meanwhile),
        cmocka_unit_test(a_right_goes_meanwhile),
        cmocka_unit_test(locks_end),
        cmocka_unit_test(a_long_snapshot),
        cmocka_unit_test(administrators_move_it),
        cmocka_unit_test(moved_while_it_is_read),
        cmocka_unit_test(memory_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
