/* faults: AMQP scripts, and some of Kafka, STOMP and MQTT clients, through engine, core, journal and store, with the n-th allocation or the n-th I/O call failing, for
 * every n, once and from then on; and the same for starts on what several power cuts left.
 *
 * What must hold: no crash, no check of ours fails, no memory is left; a failed allocation costs at most the connection; a
 * failed I/O call at most the broker. After it the machine restarts without faults: the broker starts, and everything
 * that the client was told is there (the same model as sim.c). A commit that got no answer has taken effect as a whole or not
 * at all, in the broker that ran on and in the one that restarted. A round of the scrub says what it could not do, and the
 * next one sees all. One passed per script and kind of fault.
 *
 * `faults --only SEED --first N` plays one script, from its N-th call on, to look for a bug.
 * `faults --sites FILE` also writes the place in the code of each call that was failed; tests/sim/faults compares them with the
 * calls that stand in the sources. EINTR and short reads and writes never come through the table of os.h: os_posix_test has them.
 */
#include "features.h"
#include "group_world.h"
#include "kafka_world.h"
#include "mqtt_world.h"
#include "query_world.h"
#include "scrub_world.h"
#include "stomp_world.h"
#include "stores.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

enum fault {
    FAULT_MEMORY,
    FAULT_EIO,
    FAULT_ENOSPC,
    FAULT_EMFILE,
    FAULT_NO_DIRECT,      /* a file system without direct reads, */
    FAULT_NO_DIRECT_READ, /* or where only the read says so: for who asks for these */
    FAULT_COUNT
};
static const struct {
    const char *name;
    int err;
    unsigned mask;
} faults[FAULT_COUNT] = {
    [FAULT_MEMORY] = {"allocation", 0, 0},
    [FAULT_EIO] = {"I/O call with EIO", EIO, OS_SIM_ALL & ~(1u << OS_SIM_CLOSE)},
    [FAULT_ENOSPC] = {"I/O call with ENOSPC", ENOSPC,
                      1u << OS_SIM_OPEN | 1u << OS_SIM_PWRITE | 1u << OS_SIM_FDATASYNC | 1u << OS_SIM_TRUNCATE |
                          1u << OS_SIM_RENAME | 1u << OS_SIM_MKDIR | 1u << OS_SIM_SYNC_DIR},
    [FAULT_EMFILE] = {"I/O call with EMFILE", EMFILE, 1u << OS_SIM_OPEN | 1u << OS_SIM_SYNC_DIR | 1u << OS_SIM_LIST},
    [FAULT_NO_DIRECT] = {"open or read with EINVAL", EINVAL, 1u << OS_SIM_OPEN | 1u << OS_SIM_PREAD},
    [FAULT_NO_DIRECT_READ] = {"read with EINVAL", EINVAL, 1u << OS_SIM_PREAD},
};

enum kind {
    RANDOM,   /* operations of the simulator's client */
    TX,       /* the same, mostly of transactions */
    RECOVERY, /* only a start, on what a power cut in the middle of RANDOM left */
    CREATION, /* a start on an empty disk, and its furniture */
    FEATURES, /* features.h */
    BIG,      /* messages of many journal files */
    RETURNED, /* only a start: messages were given back, with a count, after they had gone to pages */
    DRAIN,    /* takes all that an earlier life left in pages, then rests */
    LARGE,    /* messages with a file of their own: an earlier life's are taken, new ones are written and read back */
    SCRUB,    /* a round of the scrub over pages, sealed files of streams and the journal that an earlier life left */
    KEYED,    /* updates of a keyed stream, which is compacted meanwhile */
    STREAMS,  /* stores.h: on what an earlier life had not synced, and a file that nobody names */
    PAGES,    /* stores.h */
    DELAYS,   /* stores.h */
    RETRIES,  /* stores.h */
    KAFKA,    /* kafka_world.h */
    KEYS,     /* stores.h: a start in the middle of a compaction, and on */
    GROUPS,   /* group_world.h */
    READERS,  /* kafka_world.h: its second script */
    STOMP,    /* stomp_world.h */
    MQTT,     /* mqtt_world.h: ops is its enum mqtt_script */
    QUERIES,  /* query_world.h */
};

static bool has_streams(enum kind kind)
{
    return kind == SCRUB || kind == KEYED || kind == STREAMS || kind == GROUPS || kind == KAFKA || kind == READERS ||
           kind == QUERIES;
}

struct script {
    uint64_t seed;
    enum kind kind;
    unsigned ops;
};

/* ---- where calls were failed ---- */

#define SITES_MAX 4096u

struct site {
    const void *caller;
    bool memory;
};

static struct site sites[SITES_MAX]; /* by the caller's address, open */
static unsigned sites_count;

static void site_failed(const void *caller, bool memory)
{
    unsigned at = (unsigned)((uintptr_t)caller * 2654435761u >> 7) % SITES_MAX;
    while (sites[at].caller && sites[at].caller != caller)
        at = (at + 1) % SITES_MAX;
    if (sites[at].caller)
        return;
    if (++sites_count == SITES_MAX)
        abort();
    sites[at] = (struct site){caller, memory};
}

static void memory_failed(const void *caller)
{
    site_failed(caller, true);
}

static void io_failed(const void *caller, enum os_sim_op op)
{
    (void)op;
    site_failed(caller, false);
}

extern const char __executable_start; /* the linker's */

static bool write_sites(const char *path)
{
    FILE *out = fopen(path, "w");
    if (!out)
        return false;
    for (unsigned i = 0; i < SITES_MAX; i++)
        if (sites[i].caller)
            fprintf(out, "%s %lx\n", sites[i].memory ? "memory" : "io",
                    (unsigned long)((const char *)sites[i].caller - &__executable_start));
    return fclose(out) == 0;
}

/* ---- runs ---- */

/* What a run finds: a disk, and what its client knows. */
struct before {
    struct os_sim *disk;
    struct model *model;
};

static void arm(struct world *w, enum fault fault, uint64_t n, bool for_ever)
{
    if (fault == FAULT_MEMORY)
        mem_fail_at(n, for_ever);
    else
        os_sim_fail(w->disk, faults[fault].mask, n, faults[fault].err, for_ever);
}

static uint64_t hits(const struct world *w)
{
    return mem_failures_hit() + os_sim_failures_hit(w->disk);
}

static uint64_t disarm(struct world *w)
{
    uint64_t hit = hits(w);
    mem_fail_at(0, false);
    os_sim_fail(w->disk, 0, 0, 0, false);
    return hit;
}

static void play_random(struct world *w, unsigned ops)
{
    for (unsigned i = 0; i < ops && !w->dead && !w->model->wrong[0]; i++)
        world_op(w);
}

/* Nobody asks anything for some seconds. */
static void rest(struct world *w)
{
    for (unsigned i = 0; i < 3; i++) {
        world_turns(w, 20);
        os_sim_clock_advance(w->disk, 2 * NS_PER_S);
    }
    world_turns(w, 20);
}

/* More gets than there are messages in memory, so that some wait for a page; all is given back. */
static void ask_at_once(struct world *w, unsigned count)
{
    w->get_place = PLACE_PLAIN;
    w->get_no_ack = false;
    for (unsigned i = 0; i < count; i++)
        client_get(&w->client, CH_GET, place_names[PLACE_PLAIN], false);
    world_turns(w, 60);
    client_nack(&w->client, CH_GET, 0, true, true);
    w->held_count[CH_GET] = 0;
    world_turns(w, 5);
}

#define LARGE_BYTES (1u << 20)

/* What lies before it keeps the large one from staying in memory as the queue's front. */
static void publish_large(struct world *w)
{
    world_publish(w, PLACE_PLAIN, 8, 200);
    world_publish(w, PLACE_PLAIN, 1, LARGE_BYTES);
    world_confirmed(w);
    world_turns(w, 20);
}

/* A round says what it could not do, or it was all done in another way. */
static void scrub(struct world *w, bool must_say)
{
    uint64_t before = hits(w);
    struct scrub_report report = world_scrub(w);
    bool said = report.err || report.stats.damaged, hit = hits(w) != before;
    if (said && !hit)
        model_fault(w->model, "the scrub finds fault with a whole folder: %d, %llu places", report.err,
                    (unsigned long long)report.stats.damaged);
    if (!said && hit && must_say)
        model_fault(w->model, "a round of the scrub says nothing of what has failed");
}

/* The next round sees all of it, whatever became of the one before. */
static void scrub_again(struct world *w)
{
    struct scrub_report report = world_scrub(w);
    if (report.err || report.stats.damaged || report.stats.files < 6)
        model_fault(w->model, "the scrub's next round: %d, %llu places in %llu files", report.err,
                    (unsigned long long)report.stats.damaged, (unsigned long long)report.stats.files);
}

static void play_keyed(struct world *w, unsigned updates)
{
    struct broker_totals totals;
    keyed_play(w, updates);
    broker_totals(w->broker, &totals);
    if (hits(w) == 0 && totals.keyed_files < 2)
        model_fault(w->model, "the script of the keyed stream compacts nothing");
}

static void play_groups(struct world *w)
{
    world_groups_play(w);
    if (hits(w) == 0 && (w->group_offset < 6 || w->share_offset < 6 || !w->share_set))
        model_fault(w->model, "the script of groups commits nothing");
}

static bool faultless(const struct world *w)
{
    return hits(w) == 0;
}

/* must_say: a fault that lasts, and that nothing goes round. */
static void play(struct world *w, const struct script *script, bool must_say)
{
    if (!world_start(w) || script->kind == RECOVERY || script->kind == RETURNED)
        return;
    if (script->kind == SCRUB) {
        scrub(w, must_say);
        return;
    }
    if (!world_connect(w))
        return;
    switch (script->kind) {
    case RANDOM:
    case TX: play_random(w, script->ops); break;
    case CREATION: world_furnish(w); break;
    case FEATURES: features_play(w); break;
    case BIG:
        world_publish(w, PLACE_PLAIN, script->ops, 700000);
        world_publish(w, PLACE_FAN, 12, 30000);
        world_take(w, PLACE_PLAIN, script->ops, false);
        world_take(w, PLACE_FAN, 12, false);
        world_publish(w, PLACE_PLAIN, 60, 20); /* a compaction, which gives many files back */
        break;
    case DRAIN:
        ask_at_once(w, 12);
        world_take(w, PLACE_PLAIN, script->ops, false);
        world_publish(w, PLACE_PLAIN, script->ops, 60); /* in a new file: the old one is dropped */
        break;
    case LARGE:
        world_take(w, PLACE_PLAIN, 9, false);
        publish_large(w);
        world_take(w, PLACE_PLAIN, 9, false);
        break;
    case KEYED: play_keyed(w, script->ops); break;
    case STREAMS: stores_streams(w); break;
    case KAFKA: kafka_play(w, faultless); break;
    case READERS: kafka_play_readers(w, faultless); break;
    case STOMP: stomp_play(w, faultless); break;
    case MQTT: world_mqtt_play(w, (enum mqtt_script)script->ops, faultless); break;
    case QUERIES: world_queries_play(w, faultless); break;
    case PAGES: stores_pages(w); break;
    case DELAYS: stores_delays(w); break;
    case RETRIES: stores_retries(w); break;
    case KEYS: stores_keys(w, 5); break;
    case GROUPS: play_groups(w); break;
    case RECOVERY:
    case RETURNED:
    case SCRUB: break;
    }
    rest(w);
}

static void begin(struct world *w, const struct script *script)
{
    w->dice = script->seed;
    w->mostly_tx = script->kind == TX;
    w->compact_every = script->kind == BIG || script->kind == PAGES ? 120 : 20;
    w->lag = 2;
    w->paging_bytes = script->kind == FEATURES ? 0 : 1200;
    if (script->kind == PAGES)
        w->paging_bytes = 40000; /* some messages to a page */
    if (script->kind == KEYS)
        w->compact_slice_bytes = 1;
    w->with_streams = has_streams(script->kind);
    w->with_sql = script->kind == QUERIES;
    w->keyed_every_ms = 5;
    w->gaps = script->kind == KEYED;
    w->stomp_told = false;
    w->query = w->query_steps = w->query_acked = w->group_tag = w->group_stream = w->group_offset = w->share_offset = 0;
    w->share_set = w->mqtt_session = w->mqtt_retained = false;
    w->os = os_sim_os(w->disk);
    os_sim_watch_failures(w->disk, io_failed);
}

/* Returns how many faults were hit; a violation is in w->model->wrong. */
static uint64_t run(struct world *w, const struct before *before, const struct script *script, enum fault fault,
                    uint64_t n, bool for_ever)
{
    w->tolerant = w->may_fail = true;
    memcpy(w->model, before->model, sizeof *w->model);
    w->disk = os_sim_clone(before->disk);
    begin(w, script);
    arm(w, fault, n, for_ever);
    play(w, script, fault == FAULT_MEMORY || (for_ever && faults[fault].err != EINVAL));
    uint64_t hit = disarm(w);
    if (w->broker && w->hub) {
        if (script->kind == SCRUB)
            scrub_again(w);
        broker_check(w->broker);
        world_check_commit(w);
    }
    world_end(w, false);
    os_sim_crash(w->disk, n);
    w->may_fail = w->tolerant = false;
    if (!w->model->wrong[0] && world_start(w)) {
        if (script->kind == KEYED)
            keyed_check(w, before->model->count + 1);
        world_compare(w);
        if (script->kind == STOMP && world_connect(w))
            stomp_check(w);
        if (script->kind == GROUPS && world_connect(w))
            world_groups_check(w);
        if (script->kind == QUERIES && world_connect(w))
            world_queries_check(w);
        if (script->kind == MQTT && world_connect(w))
            world_mqtt_check(w);
    } else
        model_fault(w->model, "the broker does not start: %s", w->why);
    world_end(w, false);
    os_sim_free(&w->disk);
    return hit;
}

static bool sweep(const struct before *before, const struct script *script, enum fault fault, bool for_ever,
                  uint64_t first)
{
    struct world w;
    world_init(&w);
    w.model = malloc(sizeof *w.model);
    if (!w.model)
        abort();
    size_t in_use[MEM_KINDS];
    for (unsigned kind = 0; kind < MEM_KINDS; kind++)
        in_use[kind] = mem_in_use_as(kind);
    uint64_t n = first, hit, cut_short = 0;
    do {
        hit = run(&w, before, script, fault, n, for_ever);
        cut_short += w.model->tx_checked;
        for (unsigned kind = 0; kind < MEM_KINDS; kind++)
            if (mem_in_use_as(kind) != in_use[kind])
                model_fault(w.model, "%zd bytes of %s were not given back",
                            (ssize_t)(mem_in_use_as(kind) - in_use[kind]), mem_kind_key(kind));
    } while (hit && !w.model->wrong[0] && ++n);
    bool good = !w.model->wrong[0];
    if (!good)
        printf("FAIL script %llu, %s %s %llu: %s\n", (unsigned long long)script->seed, faults[fault].name,
               for_ever ? "from" : "only", (unsigned long long)n, w.model->wrong);
    else
        printf("script %llu: each of %llu fails %s (%s), looks at commits without an answer: %llu\n",
               (unsigned long long)script->seed, (unsigned long long)n - 1, for_ever ? "with all after it" : "once",
               faults[fault].name, (unsigned long long)cut_short);
    fflush(stdout);
    free(w.model);
    world_fini(&w);
    return good;
}

/* Queues and exchanges of an empty broker. */
static bool furnish(struct before *ret, bool with_streams)
{
    struct world w;
    world_init(&w);
    w.with_streams = with_streams;
    w.disk = os_sim_new(1);
    w.os = os_sim_os(w.disk);
    os_sim_clock_set(w.disk, 1000 * NS_PER_S, 1700000000000);
    w.model = malloc(sizeof *w.model);
    if (!w.model)
        abort();
    model_init(w.model);
    bool good = world_start(&w) && world_connect(&w);
    if (good)
        world_furnish(&w);
    good = good && !w.model->wrong[0];
    world_end(&w, true);
    os_sim_crash(w.disk, 1);
    *ret = (struct before){w.disk, w.model};
    world_fini(&w);
    return good;
}

/* What an earlier life of the broker left for a script. */
static bool prepare(const struct before *furnished, const struct script *script, struct before *ret)
{
    struct world w;
    world_init(&w);
    w.model = malloc(sizeof *w.model);
    if (!w.model)
        abort();
    memcpy(w.model, furnished->model, sizeof *w.model);
    w.disk = os_sim_clone(furnished->disk);
    begin(&w, script);
    if (script->kind == RECOVERY)
        os_sim_cut_after(w.disk, 40 + (int64_t)(script->seed * 7 % 50));
    enum place place = script->kind == DRAIN || script->kind == SCRUB ? PLACE_PLAIN : PLACE_QUORUM;
    bool good = world_start(&w) && world_connect(&w);
    if (good && script->kind == RECOVERY) {
        play_random(&w, script->ops);
    } else if (good && script->kind == LARGE) {
        publish_large(&w);
    } else if (good && script->kind == STREAMS) {
        world_streams_publish(&w, PLACE_LOG, 8, 30000, 1);
        world_publish(&w, PLACE_PLAIN, 60, 20); /* a compaction, which syncs them */
        world_confirmed(&w);
        world_streams_publish(&w, PLACE_LOG, 2, 300, 1);
        world_confirmed(&w);
        world_turns(&w, 10);
    } else if (good && script->kind == KEYS) {
        stores_keys(&w, script->ops);
    } else if (good) {
        world_publish(&w, place, script->ops, script->kind == SCRUB ? 700 : 60);
        if (script->kind == SCRUB)
            world_streams_publish(&w, PLACE_LOG, 12, 30000, 1);
        world_confirmed(&w);
        world_turns(&w, 40);
    }
    if (good && script->kind == RETURNED) {
        world_take(&w, place, 20, false); /* what never went to a page */
        world_take(&w, place, 3, true);
        world_turns(&w, 20);
    }
    good = good && !w.model->wrong[0];
    world_end(&w, false);
    if (script->kind == STREAMS) /* what was not synced is there */
        os_sim_kill(w.disk);
    else
        os_sim_crash(w.disk, script->seed);
    if (script->kind == STREAMS)
        os_sim_put(w.disk, "/data/str/0000000000000063-0000-0000000000000000", slice_str("left behind"));
    if (script->kind == RETURNED) /* a file that nobody names */
        os_sim_put(w.disk, "/data/seg/s-00000000000000ff", slice_str("left behind"));
    *ret = (struct before){w.disk, w.model};
    world_fini(&w);
    return good;
}

/* Nothing at all. */
static void empty(struct before *ret)
{
    ret->disk = os_sim_new(1);
    os_sim_clock_set(ret->disk, 1000 * NS_PER_S, 1700000000000);
    ret->model = malloc(sizeof *ret->model);
    if (!ret->model)
        abort();
    model_init(ret->model);
}

static void let_go(struct before *before)
{
    os_sim_free(&before->disk);
    free(before->model);
}

struct tally {
    unsigned passed, failed; /* sweeps */
};

/* All kinds of fault on one script. */
static struct tally sweep_all(const struct before *before, const struct script *script, uint64_t first)
{
    struct tally tally = {0};
    for (int fault = 0; fault < (script->kind == SCRUB ? FAULT_COUNT : FAULT_NO_DIRECT); fault++)
        for (int for_ever = 0; for_ever < 2; for_ever++)
            if (sweep(before, script, (enum fault)fault, for_ever, first))
                tally.passed++;
            else
                tally.failed++;
    return tally;
}

static bool is_prepared(enum kind kind)
{
    return kind == RECOVERY || kind == RETURNED || kind == DRAIN || kind == LARGE || kind == SCRUB || kind == STREAMS ||
           kind == KEYS;
}

/* furnished: without streams, and with. */
static struct tally sweep_script(const struct before furnished[2], const struct script *script, uint64_t first)
{
    struct before own;
    bool good = true;
    const struct before *mine = &furnished[has_streams(script->kind)];
    if (script->kind == CREATION)
        empty(&own);
    else if (is_prepared(script->kind))
        good = prepare(mine, script, &own);
    else
        return sweep_all(mine, script, first);
    if (!good)
        printf("FAIL script %llu: it cannot be prepared: %s\n", (unsigned long long)script->seed, own.model->wrong);
    struct tally tally = good ? sweep_all(&own, script, first) : (struct tally){0, 1};
    let_go(&own);
    return tally;
}

static const struct script scripts[] = {{11, RANDOM, 60},   {12, RANDOM, 90},   {13, RANDOM, 40},   {14, TX, 70},
                                        {15, TX, 70},       {21, RECOVERY, 90}, {22, RECOVERY, 90}, {23, RECOVERY, 90},
                                        {24, RECOVERY, 90}, {25, RECOVERY, 90}, {26, RECOVERY, 90}, {31, CREATION, 0},
                                        {32, FEATURES, 0},  {33, BIG, 1},       {34, RETURNED, 40}, {35, DRAIN, 40},
                                        {36, LARGE, 0},     {37, SCRUB, 120},   {38, STREAMS, 0},   {39, PAGES, 0},
                                        {40, KEYS, 80},     {41, KEYED, 24},    {42, GROUPS, 0},    {43, KAFKA, 0},
                                        {44, READERS, 0},   {45, STOMP, 0},     {46, MQTT, 0},      {47, MQTT, 1},
                                        {48, QUERIES, 0},   {49, DELAYS, 0},    {50, RETRIES, 0}};

/* --sites FILE, --only SEED, --first N */
static const char *option(int argc, char **argv, const char *name)
{
    for (int i = 1; i + 1 < argc; i += 2)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return NULL;
}

int main(int argc, char **argv)
{
    struct tally all = {0};
    const char *sites_path = option(argc, argv, "--sites"), *only = option(argc, argv, "--only"),
               *first = option(argc, argv, "--first");
    struct before furnished[2];
    mem_watch_failures(memory_failed);
    for (unsigned i = 0; i < 2; i++)
        if (!furnish(&furnished[i], i)) {
            printf("FAIL furniture: %s\n", furnished[i].model->wrong);
            all.failed++;
        }
    for (size_t i = 0; i < ARRAY_LEN(scripts); i++) {
        if (only && strtoull(only, NULL, 0) != scripts[i].seed)
            continue;
        struct tally one = sweep_script(furnished, &scripts[i], first ? strtoull(first, NULL, 0) : 1);
        all.passed += one.passed;
        all.failed += one.failed;
    }
    for (unsigned i = 0; i < 2; i++)
        let_go(&furnished[i]);
    if (sites_path && !write_sites(sites_path)) {
        printf("FAIL cannot write %s\n", sites_path);
        all.failed++;
    }
    printf("%u passed, %u failed\n", all.passed, all.failed);
    return all.failed != 0;
}
