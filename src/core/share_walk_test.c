/* Share groups at random: members that fetch, acknowledge, renew, vanish, and come again, records that go, restarts and snapshots,
 * against a model that knows of each record who has it and how often it was given. */
#include "core/group_words_test.h"
#include "core/share_int.h"

#define MEMBERS 6u
#define SESSIONS 3u /* from 2 on; 1 is the world's */
#define PLACES 3u
#define RECORDS 4000u
#define LOCK_MS 4003 /* it is never over at the moment when somebody looks: time goes in steps of 5 */

static const struct group_config config = {.lock_ms = LOCK_MS, .deliveries_max = 4, .locks_max = 40, .earliest = true};

static const struct {
    const char *stream;
    uint32_t partition;
} places[PLACES] = {{"s", 0}, {"s", 1}, {"t", 0}};

struct seen { /* of a record */
    bool done;
    unsigned deliveries;
    unsigned holder; /* member + 1; 0: nobody */
    mono_t until;
};

struct walk {
    struct rig *rig;
    uint64_t dice;
    struct seen seen[PLACES][RECORDS];
    bool open[SESSIONS];
    unsigned given, accepted, expired, refused;
};

static unsigned pick(struct walk *w, unsigned n)
{
    w->dice = w->dice * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)((w->dice >> 33) % n);
}

static uint32_t session_of(unsigned member)
{
    return 2 + member % SESSIONS;
}

static struct share *share_at(struct walk *w, unsigned place)
{
    struct group *g = the_group(w->rig, "g");
    return g ? share_find(g, stream_id(w->rig, places[place].stream), places[place].partition) : NULL;
}

static struct partition *partition_at(struct walk *w, unsigned place)
{
    return fetch_partition_of(w->rig->b, stream_id(w->rig, places[place].stream), places[place].partition);
}

/* Given back, or lost: again, or it has been given as often as may be. */
static void back(struct seen *r)
{
    r->holder = 0;
    r->done = r->done || r->deliveries >= config.deliveries_max;
}

static void all_back(struct walk *w, unsigned session)
{
    for (unsigned p = 0; p < PLACES; p++)
        for (unsigned i = 0; i < RECORDS; i++)
            if (w->seen[p][i].holder && (!session || session_of(w->seen[p][i].holder - 1) == session))
                back(&w->seen[p][i]);
}

static void lock_ends(struct walk *w, struct seen *r)
{
    back(r);
    w->expired++;
}

static void locks_end(struct walk *w)
{
    for (unsigned p = 0; p < PLACES; p++)
        for (unsigned i = 0; i < RECORDS; i++)
            if (w->seen[p][i].holder && w->seen[p][i].until <= w->rig->now)
                lock_ends(w, &w->seen[p][i]);
}

/* A group with one member for a moment. */
static void make_group(struct walk *w)
{
    uint8_t raw[64];
    struct writer words = writer_of(raw, sizeof raw);
    struct member_words as = {.session = 1, .group = "g", .id = "first"};
    writer_str8(&words, slice_str("client"));
    writer_u8(&words, 1);
    writer_str8(&words, slice_str("s"));
    assert_int_equal(group_ask(w->rig, CMD_SHARE_BEAT, &as, 0, writer_slice(&words), 0), GROUP_OK);
    assert_int_equal(group_ask(w->rig, CMD_SHARE_BEAT, &as, GROUP_EPOCH_LEAVE, writer_slice(&words), 0), GROUP_OK);
    the_group(w->rig, "g")->config = &config;
}

/* ---- what they do ---- */

static void fetch_some(struct walk *w, unsigned member)
{
    char name[8];
    struct slice none = {0};
    struct fetch *f = fetch_new(FETCH_RECORDS, PLACES);
    assert_non_null(f);
    snprintf(name, sizeof name, "m%u", member);
    f->bytes_min = 1;
    f->bytes_max = pick(w, 4) ? 1 << 20 : 1 + pick(w, 40);
    f->wait_ms = pick(w, 2) ? 0 : pick(w, 3000);
    f->sharer = ask_new(slice_str("g"), slice_str(name), none, none);
    assert_non_null(f->sharer);
    f->sharer->number = 1 + pick(w, 25);
    f->sharer->flags = pick(w, 2) ? ASK_STRICT : 0;
    unsigned first = pick(w, PLACES);
    for (unsigned i = 0; i < PLACES; i++) {
        unsigned p = (first + i) % PLACES;
        f->rows[i].stream = stream_id(w->rig, places[p].stream);
        f->rows[i].partition = places[p].partition;
        f->rows[i].bytes_max = f->bytes_max;
    }
    rig_command(w->rig, 0, CMD_FETCH, session_of(member), 0)->fetch = f;
    rig_step(w->rig);
}

/* What the model says of the member's word for the records. */
static int expected(struct walk *w, unsigned member, unsigned place, uint64_t first, uint64_t last)
{
    const struct share *s = share_at(w, place);
    if (!s)
        return GROUP_ERR_NO_STREAM;
    if (last >= s->ranges.end)
        return GROUP_ERR_INVALID;
    for (uint64_t i = first < s->ranges.start ? s->ranges.start : first; i <= last; i++)
        if (i >= RECORDS || w->seen[place][i].holder != member + 1)
            return GROUP_ERR_RECORD_STATE;
    return GROUP_OK;
}

static void say(struct walk *w, unsigned member, unsigned place, uint64_t first, uint64_t last, uint8_t what)
{
    uint8_t raw[200];
    struct writer words = writer_of(raw, sizeof raw);
    struct member_words as = {.session = session_of(member), .group = "g"};
    snprintf(as.id, sizeof as.id, "m%u", member);
    writer_u64(&words, stream_id(w->rig, places[place].stream));
    writer_u32(&words, places[place].partition);
    writer_u32(&words, 1);
    writer_u64(&words, first);
    writer_u64(&words, last);
    writer_str32(&words, slice_of(&what, 1));
    int want = expected(w, member, place, first, last);
    int error = group_ask(w->rig, CMD_SHARE_ACK, &as, 0, writer_slice(&words), 0);
    if (error) {
        assert_int_equal(error, GROUP_ERR_NO_GROUP);
        assert_null(the_group(w->rig, "g"));
        return;
    }
    struct reader r = fields_of(w->rig, *last_number());
    assert_int_equal(reader_u8(&r), want);
    w->refused += want != GROUP_OK;
    for (uint64_t i = first; !want && i <= last; i++) {
        struct seen *one = &w->seen[place][i];
        if (one->holder != member + 1) /* the start has moved over it */
            continue;
        w->accepted += what == SHARE_ACK_ACCEPT;
        if (what == SHARE_ACK_RELEASE)
            back(one);
        else if (what == SHARE_ACK_RENEW)
            one->until = w->rig->now + LOCK_MS * NS_PER_MS;
        else
            one->holder = 0, one->done = true;
    }
}

static void say_something(struct walk *w, unsigned member)
{
    unsigned place = pick(w, PLACES), from = pick(w, RECORDS), n = 1 + pick(w, 12), i = 0;
    const struct share *s = share_at(w, place);
    if (s && s->ranges.end > s->ranges.start)
        from = (unsigned)(s->ranges.start + pick(w, (unsigned)(s->ranges.end - s->ranges.start)));
    while (i < RECORDS && w->seen[place][(from + i) % RECORDS].holder != member + 1)
        i++;
    from = (from + i) % RECORDS;
    if (pick(w, 8)) /* only its own */
        for (i = 1; i < n && from + i < RECORDS && w->seen[place][from + i].holder == member + 1;)
            i++;
    else
        i = n;
    static const uint8_t words[] = {SHARE_ACK_ACCEPT,  SHARE_ACK_ACCEPT, SHARE_ACK_ACCEPT, SHARE_ACK_RELEASE,
                                    SHARE_ACK_RELEASE, SHARE_ACK_REJECT, SHARE_ACK_GAP,    SHARE_ACK_RENEW};
    if (from + i <= RECORDS)
        say(w, member, place, from, from + i - 1, words[pick(w, sizeof words)]);
}

static void release_all(struct walk *w, unsigned member)
{
    struct slice none = {0};
    struct member_words as = {.session = session_of(member), .group = "g"};
    snprintf(as.id, sizeof as.id, "m%u", member);
    if (group_ask(w->rig, CMD_SHARE_ACK, &as, 0, none, ASK_MULTIPLE) != GROUP_OK)
        return;
    for (unsigned p = 0; p < PLACES; p++)
        for (unsigned i = 0; i < RECORDS; i++)
            if (w->seen[p][i].holder == member + 1)
                back(&w->seen[p][i]);
}

/* ---- what they hear ---- */

static void hear_run(struct walk *w, unsigned member, unsigned place, const struct offset_run *run)
{
    for (uint64_t i = run->first; i <= run->last; i++) {
        struct seen *one = &w->seen[place][i];
        assert_true(i < RECORDS);
        if (one->holder && one->until <= w->rig->now)
            lock_ends(w, one);
        assert_false(one->done);
        assert_true(one->holder == 0);
        assert_int_equal(run->deliveries, one->deliveries + 1);
        one->deliveries++;
        one->holder = member + 1;
        one->until = w->rig->now + LOCK_MS * NS_PER_MS;
        w->given++;
    }
}

/* In the order in which they came, and before anything else is done. */
static void hear(struct walk *w)
{
    for (unsigned n = 0; n < w->rig->effect_count; n++) {
        struct effect *e = &w->rig->effects[n];
        if (e->type != EFF_FETCHED)
            continue;
        unsigned member = (unsigned)(e->fetch->sharer->other.ptr[1] - '0');
        for (unsigned i = 0; i < e->fetch->count; i++) {
            const struct fetch_row *row = &e->fetch->rows[i];
            assert_true(row->result == FETCH_OK || (!row->run_count && !row->piece.len));
            for (unsigned p = 0; p < PLACES; p++)
                for (uint32_t k = 0; row->stream == stream_id(w->rig, places[p].stream) &&
                                     row->partition == places[p].partition && k < row->run_count;
                     k++)
                    hear_run(w, member, p, &row->runs[k]);
        }
    }
    rig_clear(w->rig);
}

static void pass(struct walk *w, unsigned ms)
{
    for (unsigned done = 0; done < ms; done += 5) {
        rig_pass(w->rig, 5);
        hear(w);
        locks_end(w);
    }
}

/* Nobody waits for what he could have. */
static void nobody_is_forgotten(struct walk *w)
{
    for (unsigned p = 0; p < PLACES; p++) {
        const struct share *s = share_at(w, p);
        if (!s || s->busy || (list_empty(&s->waiting) && list_empty(&s->resting)))
            continue;
        bool more = s->ranges.end < s->partition->seen && s->ranges.live < config.locks_max;
        assert_true(share_is_full(s) || (!s->ranges.available && !more));
    }
}

/* ---- what happens to them ---- */

static void assert_shares_replay(struct walk *w)
{
    struct rig_log *copy = rig_log_copy(w->rig->log, w->rig->log->count);
    struct rig *other = rig_new(copy, &w->rig->options, w->rig->wall);
    struct group *g = the_group(w->rig, "g"), *again = the_group(other, "g");
    assert_true(!g == !again);
    for (unsigned p = 0; g && p < PLACES; p++) {
        struct share *s = share_at(w, p);
        struct share *t = share_find(again, stream_id(w->rig, places[p].stream), places[p].partition);
        assert_true(!s == !t);
        for (uint64_t i = s ? s->ranges.start : 0; s && i < s->ranges.end; i++) {
            const struct share_range *was = &s->ranges.at[share_ranges_find(&s->ranges, i)];
            uint32_t at = share_ranges_find(&t->ranges, i);
            /* holes and what was never said of are found again */
            bool there = at < t->ranges.count && t->ranges.at[at].first <= i;
            uint16_t count = (uint16_t)(was->count - (was->state == SHARE_ACQUIRED));
            if (was->state == SHARE_GONE)
                assert_true(there ? t->ranges.at[at].state == SHARE_GONE : i < t->ranges.start);
            else
                assert_true(there ? t->ranges.at[at].state == SHARE_AVAILABLE && t->ranges.at[at].count == count
                                  : i >= t->ranges.end && !count);
        }
    }
    rig_free(other);
    rig_log_free(copy);
}

/* The journal ends anywhere: what can be read of it is in order. */
static void cut(struct walk *w)
{
    const struct rig_log *log = w->rig->log;
    size_t count = pick(w, (unsigned)log->count) + 1;
    struct rig_log *copy = rig_log_copy(log, count);
    const char *why = NULL;
    struct rig *other = rig_try(copy, &w->rig->options, w->rig->wall, &why);
    if (other) {
        broker_check(other->b);
        rig_free(other);
    }
    rig_log_free(copy);
}

static void restart_walk(struct walk *w)
{
    restart(&w->rig);
    w->rig->check = true;
    memset(w->open, 0, sizeof w->open);
    for (unsigned p = 0; p < PLACES; p++)
        for (unsigned i = 0; i < RECORDS; i++)
            if (w->seen[p][i].holder) {
                w->seen[p][i].holder = 0;
                w->seen[p][i].deliveries--;
            }
    if (the_group(w->rig, "g"))
        the_group(w->rig, "g")->config = &config;
}

static void trim_some(struct walk *w, unsigned place)
{
    const struct partition *p = partition_at(w, place);
    struct slice none = {0};
    if (!p || p->start >= p->end)
        return;
    struct ask *ask = ask_new(slice_str(places[place].stream), none, none, none);
    uint64_t until = p->start + pick(w, (unsigned)(p->end - p->start) / 2 + 1);
    assert_non_null(ask);
    ask->number = until;
    struct command *c = rig_command(w->rig, 0, CMD_STREAM_TRIM, 1, (uint16_t)places[place].partition);
    c->ask = ask;
    rig_step(w->rig);
    p = partition_at(w, place);
    for (uint64_t i = 0; i < p->start && i < RECORDS; i++)
        if (share_at(w, place) && share_at(w, place)->ranges.start > i)
            w->seen[place][i] = (struct seen){.done = true};
}

static void delete_group(struct walk *w)
{
    struct member_words nobody = {.session = 1, .group = "g"};
    struct slice none = {0};
    if (group_ask(w->rig, CMD_GROUP_DELETE, &nobody, 0, none, 0) == GROUP_OK)
        memset(w->seen, 0, sizeof w->seen);
}

static void close_session(struct walk *w, unsigned n)
{
    if (!w->open[n])
        return;
    hear(w);
    rig_plain(w->rig, CMD_SESSION_CLOSE, 2 + n, 0, 0, 0);
    all_back(w, 2 + n);
    w->open[n] = false;
}

static void world_step(struct walk *w)
{
    struct rig *rig = w->rig;
    switch (pick(w, 14)) {
    case 0:
    case 1:
    case 2:
    case 3:
        for (unsigned n = pick(w, 15); n; n--)
            put(rig, pick(w, 3) ? "s" : "t", "x");
        break;
    case 4: pass(w, pick(w, 60)); break;
    case 5: pass(w, pick(w, 1500)); break;
    case 6:
        if (pick(w, 4) == 0)
            pass(w, LOCK_MS + 50);
        break;
    case 7: close_session(w, pick(w, SESSIONS)); break;
    case 8: compact_start(rig->b); break;
    case 9:
        assert_shares_replay(w);
        cut(w);
        break;
    case 10:
        if (pick(w, 4) == 0)
            restart_walk(w);
        break;
    case 11:
        if (pick(w, 3) == 0)
            trim_some(w, pick(w, PLACES));
        break;
    case 12:
        if (pick(w, 12) == 0)
            delete_group(w);
        break;
    default: release_all(w, pick(w, MEMBERS)); break;
    }
}

/* Everything that there is comes to somebody, and then nothing is left. */
static void drain(struct walk *w)
{
    for (unsigned n = 0; n < SESSIONS; n++)
        close_session(w, n);
    assert_true(rig_open(w->rig, session_of(0)));
    w->open[0] = true;
    for (unsigned round = 0; round < 2000; round++) {
        unsigned given = w->given;
        fetch_some(w, 0);
        pass(w, 3100);
        for (unsigned p = 0; p < PLACES; p++)
            for (unsigned i = 0; i < RECORDS; i++)
                if (w->seen[p][i].holder)
                    say(w, 0, p, i, i, SHARE_ACK_ACCEPT);
        rig_clear(w->rig);
        if (given == w->given)
            break;
    }
    for (unsigned p = 0; p < PLACES; p++) {
        const struct share *s = share_at(w, p);
        assert_true(!s || (s->ranges.start == partition_at(w, p)->end && !s->ranges.live && list_empty(&s->holds)));
    }
    assert_true(!the_group(w->rig, "g") || the_group(w->rig, "g")->sharers.count == 0);
}

static void walk(uint64_t seed)
{
    struct walk *w = calloc(1, sizeof *w);
    w->dice = seed;
    w->rig = begin();
    w->rig->check = true;
    (void)declare_stream(w->rig, "s", 2);
    (void)declare_stream(w->rig, "t", 1);
    for (unsigned step = 0; step < 1200; step++) {
        unsigned member = pick(w, MEMBERS), session = session_of(member) - 2;
        if (!the_group(w->rig, "g"))
            make_group(w);
        if (!w->open[session])
            w->open[session] = rig_open(w->rig, 2 + session);
        hear(w);
        w->rig->slow_store = pick(w, 3) == 0;
        if (pick(w, 3) == 0)
            world_step(w);
        else if (pick(w, 2))
            fetch_some(w, member);
        else
            say_something(w, member);
        if (w->rig->slow_store) {
            w->rig->slow_store = false;
            rig_step(w->rig);
        }
        hear(w);
        nobody_is_forgotten(w);
    }
    drain(w);
    assert_true(w->given > 500 && w->accepted > 100 && w->expired > 10 && w->refused > 10); /* it came to something */
    end(w->rig);
    free(w);
}

static void random_walks(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++)
        walk(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_walks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
