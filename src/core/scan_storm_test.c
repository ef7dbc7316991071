/* Whatever happens to a queue with selectors and pages, of every kind: what comes back waits, what is too old or too much goes to
 * another queue, channels close, memory is refused at random. Its state is in order after every step, nobody starves, and a start
 * finds what there was. */
#include "core/broker_words_test.h"

enum { COLORS = 3, CHANNELS = 3, CONSUMERS = 9, NUMBERS = 4000, TAGS = 20000 };
enum kind { PLAIN, DELAYED, SHORT, AGING, LIMITED, MIXED, KINDS };

static const char *const colors[COLORS] = {"red", "blue", "green"};

struct someone { /* a consumer */
    int chooses; /* a color; COLORS: all, -1: there is none */
    unsigned channel, prefetch, held;
    uint32_t id;
};

struct world {
    struct rig *rig;
    uint64_t seed, chance;
    enum kind kind;
    bool starving, forgetful; /* memory is refused now and then; it was: what is gone may come again */
    unsigned published, color[NUMBERS];
    bool gone[NUMBERS], held[NUMBERS], transient[NUMBERS];
    unsigned gets[CHANNELS + 1];
    struct someone someone[CONSUMERS];
    uint64_t next_tag[CHANNELS + 1];
    struct {
        unsigned number;
        int whose; /* -1: nobody's */
        bool held;
    } tags[CHANNELS + 1][TAGS];
};

static unsigned chance_of(struct world *w, unsigned n)
{
    w->chance = w->chance * 6364136223846793005ull + 1442695040888963407ull;
    return (unsigned)(w->chance >> 33) % n;
}

static bool is_strict(const struct world *w)
{
    return w->kind == PLAIN || w->kind == DELAYED || w->kind == MIXED;
}

static void forget_channel(struct world *w, unsigned channel)
{
    for (uint64_t t = 0; t < TAGS && t <= w->next_tag[channel]; t++) {
        if (w->tags[channel][t].held)
            w->held[w->tags[channel][t].number] = false;
        w->tags[channel][t].held = false;
    }
    for (unsigned c = 0; c < CONSUMERS; c++)
        if (w->someone[c].channel == channel)
            w->someone[c].chooses = -1;
    w->gets[channel] = 0;
    w->next_tag[channel] = 0;
    w->rig->seq[1][channel] = 0;
}

static void open_again(struct world *w)
{
    struct rig *rig = w->rig;
    mem_fail_at(0, false);
    for (unsigned ch = 1; ch <= CHANNELS; ch++)
        forget_channel(w, ch);
    rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
    rig_pass(rig, 20);
    rig_clear(rig);
    assert_true(rig_open(rig, 1));
    for (uint16_t ch = 1; ch <= CHANNELS; ch++)
        rig_plain(rig, CMD_CHANNEL_OPEN, 1, ch, 0, 0);
    if (*rig_error(rig))
        rig_fail("seed %llu: %s", (unsigned long long)w->seed, rig_error(rig));
    rig_clear(rig);
}

static void came(struct world *w, const struct effect *e)
{
    unsigned number = (unsigned)strtoul(rig_body(e), NULL, 10), ch = e->channel;
    assert_true(number < w->published + 1 && e->number < TAGS);
    if (w->held[number] || (w->gone[number] && !w->forgetful))
        rig_fail("seed %llu: %u came twice", (unsigned long long)w->seed, number);
    w->gone[number] = false;
    w->held[number] = true;
    w->next_tag[ch] = e->number;
    int whose = -1;
    for (unsigned c = 0; e->type == EFF_DELIVER && c < CONSUMERS; c++)
        if (w->someone[c].chooses >= 0 && w->someone[c].channel == ch && w->someone[c].id == e->consumer)
            whose = (int)c;
    w->tags[ch][e->number].number = number;
    w->tags[ch][e->number].whose = whose;
    w->tags[ch][e->number].held = true;
    if (whose >= 0) {
        w->someone[whose].held++;
        assert_true(w->someone[whose].chooses == COLORS || w->someone[whose].chooses == (int)w->color[number]);
    }
}

static void take(struct world *w)
{
    struct rig *rig = w->rig;
    bool failed = *rig_error(rig) != 0;
    if (failed && !w->starving)
        rig_fail("seed %llu: %s", (unsigned long long)w->seed, rig_error(rig));
    for (unsigned i = 0; i < rig->effect_count; i++) {
        const struct effect *e = &rig->effects[i];
        if (e->type == EFF_GET_OK || e->type == EFF_GET_EMPTY)
            w->gets[e->channel]--;
        if (e->type == EFF_DELIVER || e->type == EFF_GET_OK)
            came(w, e);
        failed |= e->type == EFF_SESSION_KICK || e->type == EFF_CONSUMER_GONE;
    }
    rig_clear(rig);
    if (failed)
        open_again(w);
}

static void settle_some(struct world *w, bool back)
{
    unsigned ch = 1 + chance_of(w, CHANNELS);
    uint64_t upto = w->next_tag[ch], tag = upto ? 1 + chance_of(w, (unsigned)upto) : 0;
    bool all = chance_of(w, 6) == 0;
    for (uint64_t tries = 0; !all && tries < 30 && tag && !w->tags[ch][tag].held; tries++)
        tag = 1 + chance_of(w, (unsigned)upto);
    if (!tag || !w->tags[ch][tag].held)
        return;
    for (uint64_t t = all ? 1 : tag; t <= tag; t++) {
        if (!w->tags[ch][t].held)
            continue;
        w->tags[ch][t].held = false;
        w->held[w->tags[ch][t].number] = false;
        w->gone[w->tags[ch][t].number] = !back;
        if (w->tags[ch][t].whose >= 0)
            w->someone[w->tags[ch][t].whose].held--;
    }
    rig_plain(w->rig, back ? CMD_NACK : CMD_ACK, 1, (uint16_t)ch, tag,
              (back ? ASK_REQUEUE : 0) | (all ? ASK_MULTIPLE : 0));
}

static void come_or_go(struct world *w)
{
    unsigned c = chance_of(w, CONSUMERS);
    struct someone *s = &w->someone[c];
    char tag[8], selector[40];
    struct table t;
    snprintf(tag, sizeof tag, "c%u", c);
    if (s->chooses >= 0) {
        for (uint64_t n = 1; n <= w->next_tag[s->channel]; n++)
            if (w->tags[s->channel][n].whose == (int)c)
                w->tags[s->channel][n].whose = -1;
        s->chooses = -1;
        (void)rig_ask(w->rig, CMD_CANCEL, 1, (uint16_t)s->channel, tag, NULL, NULL, (struct slice){0}, 0);
        return;
    }
    *s = (struct someone){.channel = 1 + chance_of(w, CHANNELS), .prefetch = 1 + chance_of(w, 30), .chooses = -1};
    int chosen = (int)chance_of(w, COLORS * 4);
    chosen = chosen <= COLORS ? chosen : chosen % COLORS;
    rig_plain(w->rig, CMD_QOS, 1, (uint16_t)s->channel, s->prefetch, 0);
    take(w);
    snprintf(selector, sizeof selector, "color = '%s'", chosen < COLORS ? colors[chosen] : "");
    struct slice args = {0};
    if (chosen < COLORS) {
        amqp_put_str(&table(&t)->w, "x-selector", slice_str(selector));
        args = writer_slice(&t.w);
    }
    if (!rig_ask(w->rig, CMD_CONSUME, 1, (uint16_t)s->channel, "q", tag, NULL, args, 0))
        return;
    const struct effect *answer = rig_nth(w->rig, EFF_ANSWER, 0);
    if (answer && answer->answer) {
        s->chooses = chosen;
        s->id = (uint32_t)answer->answer->number;
    }
}

static void put_some(struct world *w)
{
    for (unsigned n = chance_of(w, 12); n && w->published < NUMBERS; n--) {
        unsigned number = w->published;
        struct table t;
        char body[200];
        int len = snprintf(body, sizeof body, "%u ", number);
        memset(body + len, '.', sizeof body - (size_t)len);
        w->color[number] = chance_of(w, 8) ? 0 : chance_of(w, COLORS);
        w->transient[number] = w->kind == MIXED && chance_of(w, 3) == 0;
        amqp_put_str(&table(&t)->w, "color", slice_str(colors[w->color[number]]));
        struct amqp_props props = {.present = AMQP_DELIVERY_MODE | AMQP_HEADERS,
                                   .delivery_mode = w->transient[number] ? 1 : 2,
                                   .headers = writer_slice(&t.w)};
        w->published++;
        if (!rig_publish_with(w->rig, 1, (uint16_t)(1 + chance_of(w, CHANNELS)), "", "q",
                              slice_of(body, (size_t)len + chance_of(w, 100)), &props, 0))
            w->gone[number] = true;
        take(w);
    }
}

static void crash(struct world *w)
{
    mem_fail_at(0, false);
    if (w->forgetful)
        rig_assert_nothing_lost(w->rig);
    else
        rig_assert_replays(w->rig);
    restart(&w->rig);
    for (unsigned ch = 1; ch <= CHANNELS; ch++)
        forget_channel(w, ch);
    for (unsigned i = 0; i < w->published; i++)
        w->gone[i] |= w->transient[i];
    open_again(w);
}

static void stop(struct world *w)
{
    rig_plain(w->rig, CMD_DRAIN, 1, 0, 0, 0);
    take(w);
    crash(w);
}

static struct queue *queue(struct world *w)
{
    return queue_find(vhost_find(w->rig->b, slice_str("/")), slice_str("q"));
}

/* Who can take something gets what there is. */
static void nobody_starves(struct world *w)
{
    struct rig *rig = w->rig;
    mem_fail_at(0, false);
    bool slow = rig->slow_store;
    rig->slow_store = false;
    rig_pass(rig, 1200);
    take(w);
    rig_pass(rig, 200);
    take(w);
    rig->slow_store = slow;
    for (unsigned ch = 1; ch <= CHANNELS; ch++)
        if (w->gets[ch] && w->gets[ch] < 1000000)
            rig_fail("seed %llu: %u gets of channel %u are not answered", (unsigned long long)w->seed, w->gets[ch], ch);
    for (unsigned c = 0; c < CONSUMERS; c++) {
        const struct someone *s = &w->someone[c];
        if (s->chooses < 0 || s->held >= s->prefetch)
            continue;
        if (s->chooses == COLORS && queue(w)->busy->ready_count)
            rig_fail("seed %llu: consumer %u starves", (unsigned long long)w->seed, c);
        for (unsigned i = 0; i < w->published && is_strict(w) && !w->forgetful; i++)
            if ((int)w->color[i] == s->chooses && !w->gone[i] && !w->held[i])
                rig_fail("seed %llu: %u is kept from consumer %u", (unsigned long long)w->seed, i, c);
    }
}

static void close_channel(struct world *w)
{
    unsigned ch = 1 + chance_of(w, CHANNELS);
    take(w);
    forget_channel(w, ch);
    rig_plain(w->rig, CMD_CHANNEL_CLOSE, 1, (uint16_t)ch, 0, 0);
    take(w);
    rig_pass(w->rig, 5);
    take(w);
    mem_fail_at(0, false);
    rig_plain(w->rig, CMD_CHANNEL_OPEN, 1, (uint16_t)ch, 0, 0);
}

static void purge(struct world *w)
{
    take(w);
    if (!rig_ask(w->rig, CMD_QUEUE_PURGE, 1, 1, "q", NULL, NULL, (struct slice){0}, 0))
        return;
    take(w);
    for (unsigned i = 0; i < w->published; i++)
        w->gone[i] |= !w->held[i];
}

static void something(struct world *w)
{
    unsigned what = chance_of(w, 1000), ch = 1 + chance_of(w, CHANNELS);
    if (w->starving && chance_of(w, 6) == 0) {
        mem_fail_at(1 + chance_of(w, 25), chance_of(w, 3) == 0);
        w->forgetful = true;
    }
    if (what < 400)
        put_some(w);
    else if (what < 640)
        settle_some(w, false);
    else if (what < 770)
        settle_some(w, true);
    else if (what < 870)
        come_or_go(w);
    else if (what < 905) {
        w->gets[ch]++;
        if (!rig_ask(w->rig, CMD_GET, 1, (uint16_t)ch, "q", NULL, NULL, (struct slice){0}, 0))
            w->gets[ch]--;
    } else if (what < 930)
        rig_pass(w->rig, 1 + chance_of(w, 60));
    else if (what < 950)
        w->rig->slow_store = !w->rig->slow_store;
    else if (what < 965)
        compact_start(w->rig->b);
    else if (what < 975)
        close_channel(w);
    else if (what < 980)
        w->rig->log->store->fail_writes = 1;
    else if (what < 984)
        crash(w);
    else if (what < 986)
        stop(w);
    else if (what < 988 && !w->rig->slow_store)
        purge(w);
    else if (what < 995)
        nobody_starves(w);
    take(w);
    mem_fail_at(0, false);
    if (w->rig->log->store->fail_writes == 0 && chance_of(w, 20) == 0)
        rig_pass(w->rig, 10);
    take(w);
}

static void declare_kind(struct world *w)
{
    struct table t;
    table(&t);
    if (w->kind == DELAYED || w->kind == LIMITED)
        amqp_put_str(&t.w, "x-queue-type", slice_str("quorum"));
    if (w->kind == DELAYED) {
        amqp_put_int(&t.w, "x-delayed-retry-min", 40);
        amqp_put_str(&t.w, "x-delayed-retry-type", slice_str("all"));
        amqp_put_int(&t.w, "x-delivery-limit", -1);
    } else if (w->kind == LIMITED)
        amqp_put_int(&t.w, "x-delivery-limit", 2);
    else if (w->kind == SHORT)
        amqp_put_int(&t.w, "x-max-length", 60);
    else if (w->kind == AGING)
        amqp_put_int(&t.w, "x-message-ttl", 300);
    if (w->kind == SHORT || w->kind == AGING || w->kind == LIMITED) {
        amqp_put_str(&t.w, "x-dead-letter-exchange", slice_str(""));
        amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("dead"));
    }
    declare(w->rig, "q", writer_slice(&t.w));
    declare(w->rig, "dead", (struct slice){0});
    rig_clear(w->rig);
}

/* All that is left is found. */
static void finish(struct world *w)
{
    struct rig *rig = w->rig;
    mem_fail_at(0, false);
    rig->slow_store = false;
    open_again(w);
    rig_pass(rig, 1500);
    for (unsigned c = 0; c < COLORS; c++) {
        struct table t;
        char selector[40];
        snprintf(selector, sizeof selector, "color = '%s'", colors[c]);
        amqp_put_str(&table(&t)->w, "x-selector", slice_str(selector));
        assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, "q", colors[c], NULL, writer_slice(&t.w), ASK_NO_ACK));
        for (unsigned i = 0; i < 10; i++) {
            rig_pass(rig, 20);
            take(w);
        }
    }
    rig_pass(rig, 400);
    take(w);
    for (unsigned i = 0; i < w->published && is_strict(w) && !w->forgetful; i++)
        if (!w->held[i] && !w->gone[i])
            rig_fail("seed %llu: %u was never found", (unsigned long long)w->seed, i);
    if (rig_ready(rig, "q") || queue(w)->busy->unacked_count)
        rig_fail("seed %llu: %llu wait", (unsigned long long)w->seed, (unsigned long long)rig_ready(rig, "q"));
}

static void play(uint64_t seed, unsigned steps)
{
    struct world *w = calloc(1, sizeof *w);
    static const uint64_t paging[] = {1, 4000, 20000};
    w->seed = w->chance = seed;
    w->kind = seed % KINDS;
    w->starving = seed / KINDS % 3 == 2;
    w->rig = begin_options(&(struct broker_options){.paging_bytes = paging[chance_of(w, 3)],
                                                    .page_bytes = 150 + chance_of(w, chance_of(w, 2) ? 1500 : 6000)});
    for (unsigned c = 0; c < CONSUMERS; c++)
        w->someone[c].chooses = -1;
    declare_kind(w);
    open_again(w);
    for (unsigned i = 0; i < steps; i++) {
        w->rig->starved = w->starving;
        something(w);
    }
    w->rig->starved = false;
    finish(w);
    if (w->forgetful) {
        rig_assert_nothing_lost(w->rig);
        struct rig_log *log = w->rig->log;
        rig_free(w->rig);
        rig_log_free(log);
    } else
        end(w->rig);
    free(w);
}

static void whatever_happens(void **state)
{
    (void)state;
    const char *first = getenv("SCAN_FIRST"), *last = getenv("SCAN_LAST"); /* by hand: many more */
    for (uint64_t seed = first ? strtoull(first, NULL, 10) : 1; seed <= (last ? strtoull(last, NULL, 10) : 24); seed++)
        play(seed, 400);
    play(30019, 400); /* a get waited for ever */
    play(61, 400);    /* a retry waited behind a front that nobody wanted */
    play(583, 400);   /* retries were written and read again, and again */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
