/* sim: core, journal and AMQP engine together on a simulated disk, against a reference model.
 *
 * Streams take part (stream_world.c, model_log.c): one of two partitions, one with retention, and a small queue that is fed from
 * both, whose contents together with what its cursors have before them is compared like any queue.
 *
 * Kafka's clients take part (kafka_chain.c): batches of an idempotent producer and of two transactional ones, with offsets of groups,
 * and a queue that is fed from their topic; after a death a producer goes on as it was.
 *
 * MQTT's clients take part (mqtt_chain.c): QoS 0, 1 and 2 both ways, a share group, retained values, a will; they go on with their sessions.
 *
 * Two members of a share group read the Kafka clients' topic together (share_chain.c), each with a connection of its own. A compacted topic is
 * updated while it is compacted (keyed_chain.c).
 *
 * In one chain of twelve queries run (query_chain.c) over the Kafka clients' topic, which has aborted transactions: each record that readers of committed
 * ones see has its effect once, in a filter and in sums that are state with snapshots.
 *
 * A chain is a disk that lives through several lives of the broker. A life: recovery, complete comparison with the model,
 * an AMQP client's random work, then an end: the power goes after the k-th disk operation (unsynced writes are lost,
 * torn, reordered as the seed says), during recovery too; or the process dies; or the disk gives EIO or ENOSPC; or an
 * orderly stop. Each end that is recovered from and compared is one crash point. Now and then a copy of the disk gets a
 * flipped bit: the broker must refuse, or start without inventing anything.
 *
 * A chain depends on its seed only: `sim --seed N --chains 1` repeats it, and a failing chain is shrunk by bisecting the
 * number of operations. The last line is "N passed, N failed": one passed per thousand crash points.
 */
#include "kafka_chain_int.h"
#include "keyed_chain.h"
#include "mqtt_chain.h"
#include "peek.h"
#include "query_chain.h"
#include "share_chain.h"
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/mem.h"

#define LIVES 12
#define CHAINS_A_QUERY 12u /* by its seed, so that the others are what they would be without */

enum ending { END_CUT, END_CUT_EARLY, END_KILL, END_EIO, END_ENOSPC, END_CLEAN, END_COUNT };
static const char *const ending_names[END_COUNT] = {
    "power cut", "power cut while starting", "process killed", "EIO", "ENOSPC", "orderly stop"};

struct totals {
    uint64_t chains, lives, ends[END_COUNT], ops, confirms, deliveries, compactions, flips, flips_refused, waits,
        pages_written, pages_read;
    uint64_t compared, sure, gone, pairs, transactions, disk_ops, duplicates;
    uint64_t letters, letters_again, letters_got, letters_compared, values, wills;
    uint64_t batches, batches_again, commits, aborts, batches_compared;
    uint64_t query_chains, query_rows;
    uint64_t acquired, acquired_again, accepted, expired, shared;
    uint64_t updates, nulls, updates_compared, updates_missing, nulls_missing;
    uint64_t records_found, records_trimmed, feeds, records_written, records_read, stream_syncs, stream_deliveries;
};

struct limits {
    uint64_t ops; /* of a chain; UINT64_MAX: none */
    unsigned talk;
};

static struct os_sim *furnished; /* every chain begins with a copy of this disk */
static struct model *furnished_model;
static struct kafka_chain *furnished_kafka, *kafka; /* of the chain that runs */
static struct mqtt_chain *furnished_mqtt, *mqtt;
static struct mqtt_life mqtt_life;
static struct share_chain *furnished_share, *share;
static struct share_life share_life;
static struct keyed_chain *keyed;
static struct os_sim *furnished_sql; /* the same with queries */
static struct query_chain queries;

/* ---- one life ---- */

static enum ending choose_ending(struct world *w)
{
    unsigned n = world_pick(w, 100);
    return n < 76   ? END_CUT
           : n < 84 ? END_CUT_EARLY
           : n < 90 ? END_KILL
           : n < 94 ? END_EIO
           : n < 97 ? END_ENOSPC
                    : END_CLEAN;
}

static void arm(struct world *w, enum ending ending)
{
    w->may_fail = ending != END_CLEAN && ending != END_KILL;
    if (ending == END_CUT_EARLY)
        os_sim_cut_after(w->disk, (int64_t)world_pick(w, 14));
}

static void arm_started(struct world *w, enum ending ending)
{
    static const unsigned masks[] = {1u << OS_SIM_PWRITE, 1u << OS_SIM_FDATASYNC,
                                     1u << OS_SIM_PWRITE | 1u << OS_SIM_FDATASYNC, OS_SIM_ALL};
    if (ending == END_CUT || ending == END_KILL) {
        static const unsigned spans[] = {4, 40, 40, 120};
        os_sim_cut_after(w->disk, (int64_t)world_pick(w, spans[world_pick(w, 4)]));
    }
    if (ending == END_EIO)
        os_sim_fail(w->disk, masks[world_pick(w, 4)], 1 + world_pick(w, 30), 5, world_pick(w, 2));
    if (ending == END_ENOSPC)
        os_sim_fail(w->disk, 1u << OS_SIM_PWRITE | (world_pick(w, 2) ? 0 : 1u << OS_SIM_TRUNCATE),
                    1 + world_pick(w, 30), 28, true);
}

static void after_end(struct world *w, enum ending ending)
{
    os_sim_fail(w->disk, 0, 0, 0, false);
    os_sim_cut_after(w->disk, -1);
    if (ending == END_KILL)
        os_sim_kill(w->disk);
    else
        os_sim_crash(w->disk, world_draw(w));
}

static void compare_queries(struct world *w, struct guest *guest)
{
    if (w->runs_sql && guest->engine && !kafka->stopped && !w->dead && kafka_chain_compare(kafka, guest, false))
        query_chain_compare(&queries, kafka, w);
}

/* False: over, by a violation or because the operations are used up. */
static bool live(struct world *w, struct totals *t, const struct limits *limits)
{
    enum ending ending = choose_ending(w);
    w->lag = world_pick(w, 7);
    arm(w, ending);
    bool started = world_start(w);
    if (!started && !(ending == END_CUT_EARLY && os_sim_is_cut(w->disk)))
        model_fault(w->model, "the broker does not start: %s", w->why);
    bool more = true;
    if (started) {
        struct guest guest = {0};
        world_compare(w);
        if (w->runs_sql && !w->model->wrong[0])
            query_chain_started(&queries, w);
        bool connected = !w->model->wrong[0] && world_connect(w);
        if (connected && !w->dead)
            kafka_chain_begin(kafka, &guest, w);
        if (guest.engine && !kafka->stopped && !w->dead)
            keyed_chain_compare(keyed, kafka, &guest);
        compare_queries(w, &guest);
        if (connected && !w->dead && !w->model->wrong[0]) {
            mqtt_chain_begin(mqtt, &mqtt_life, w);
            share_chain_begin(share, &share_life, kafka, w);
        }
        arm_started(w, ending);
        if (connected) {
            unsigned ops = 1 + world_pick(w, world_pick(w, 3) ? 30 : 90);
            for (unsigned i = 0; more && i < ops && !w->dead && !w->model->wrong[0]; i++) {
                more = w->ops < limits->ops;
                if (more && mqtt_life.chain && world_pick(w, 3) == 0 && !mqtt->stopped) {
                    w->ops++;
                    mqtt_chain_op(&mqtt_life);
                } else if (more && world_pick(w, 4) == 0 && !kafka->stopped) {
                    w->ops++;
                    if (world_pick(w, 4))
                        kafka_chain_op(kafka, &guest);
                    else
                        keyed_chain_op(keyed, kafka, &guest);
                } else if (more && share_life.chain && world_pick(w, 5) == 0) {
                    w->ops++;
                    share_chain_op(&share_life);
                } else if (more)
                    world_op(w);
            }
        }
        guest_end(&guest);
        mqtt_chain_end(&mqtt_life);
        share_chain_end(&share_life);
        broker_check(w->broker);
        struct broker_totals totals;
        broker_totals(w->broker, &totals);
        t->compactions += totals.compactions;
    }
    if (limits->talk)
        printf("  life %u: %s, %llu operations so far, %llu messages\n", w->model->life, ending_names[ending],
               (unsigned long long)w->ops, (unsigned long long)w->model->count);
    world_end(w, ending == END_CLEAN && !w->dead && !w->model->wrong[0]);
    after_end(w, ending);
    t->lives++;
    t->ends[ending]++;
    return more && !w->model->wrong[0];
}

/* ---- damage at rest ---- */

struct file_choice {
    struct world *w;
    char path[300];
    unsigned seen;
};

static void choose_file(void *arg, const char *path)
{
    struct file_choice *c = arg;
    if (!strstr(path, "/f-") && world_pick(c->w, ++c->seen) == 0)
        snprintf(c->path, sizeof c->path, "%s", path);
}

static void known_body(void *arg, struct slice body)
{
    struct model *m = arg;
    if (!model_identify(m, body))
        model_fault(m, "after a flipped bit: a body of %zu bytes that nobody published", body.len);
}

/* On a copy of the disk: a bit flips somewhere; the broker refuses to start or shows nothing that was never published. */
static void flip(struct world *w, struct totals *t)
{
    struct os_sim *disk = w->disk;
    struct os *os = w->os;
    w->disk = os_sim_clone(disk);
    w->os = os_sim_os(w->disk);
    struct file_choice choice = {.w = w};
    os_sim_each(w->disk, "/data", choose_file, &choice);
    struct slice bytes = choice.path[0] ? os_sim_peek(w->disk, choice.path) : (struct slice){0};
    uint64_t at = bytes.len ? world_draw(w) % bytes.len : 0;
    for (int i = 0; i < 200 && bytes.len && !bytes.ptr[at]; i++) /* most of a file is zeros that mean nothing */
        at = world_draw(w) % bytes.len;
    if (bytes.len && os_sim_flip(w->disk, choice.path, at, (uint8_t)(1u << world_pick(w, 8)))) {
        t->flips++;
        w->may_fail = true;
        struct peek_reader reader = world_reader(w);
        if (world_start(w)) {
            for (int p = 0; p < PLACE_LOG; p++)
                (void)peek_queue(w->broker, place_names[p], &reader, known_body, w->model);
            world_streams_each(w, known_body, w->model);
        } else
            t->flips_refused++;
        world_end(w, false);
    }
    os_sim_free(&w->disk);
    w->disk = disk;
    w->os = os;
}

/* ---- a chain ---- */

/* The last end is recovered from too. */
static void last_life(struct world *w)
{
    struct guest guest = {0};
    w->may_fail = false;
    if (world_start(w)) {
        world_compare(w);
        if (!w->model->wrong[0] && world_connect(w)) {
            world_streams_drain(w);
            kafka_chain_begin(kafka, &guest, w);
            if (!kafka->stopped && !w->model->wrong[0])
                keyed_chain_compare(keyed, kafka, &guest);
            if (!kafka->stopped && !w->model->wrong[0])
                kafka_chain_drained(kafka, &guest);
            if (!kafka->stopped && !w->model->wrong[0]) {
                share_chain_begin(share, &share_life, kafka, w);
                share_chain_drained(&share_life);
            }
            if (w->runs_sql && !kafka->stopped && !w->model->wrong[0])
                query_chain_drained(&queries, kafka, w);
            if (!w->model->wrong[0])
                mqtt_chain_begin(mqtt, &mqtt_life, w);
        }
        guest_end(&guest);
        mqtt_chain_end(&mqtt_life);
        share_chain_end(&share_life);
    } else
        model_fault(w->model, "the broker does not start: %s", w->why);
    world_end(w, true);
}

static bool run_chain(uint64_t seed, const struct limits *limits, struct totals *t, char *ret_wrong, size_t len)
{
    struct world w;
    world_init(&w);
    w.dice = seed;
    w.talk = limits->talk;
    w.group_bytes = world_pick(&w, 2) ? 0 : 16384;
    w.compact_every = 5 + world_pick(&w, 46); /* commands of the core between compactions */
    w.compact_slice_bytes = 1 + world_pick(&w, 4000);
    w.with_streams = true;
    w.keyed_every_ms = 10 + world_pick(&w, 100);
    w.stream_sync_bytes = world_pick(&w, 2) ? 1 + world_pick(&w, 20000) : 0;
    w.long_delays = true;
    w.paging_bytes = world_pick(&w, 3) ? 400 + world_pick(&w, 4000) : 0;
    w.model = malloc(sizeof *w.model);
    if (!w.model)
        abort();
    memcpy(w.model, furnished_model, sizeof *w.model);
    memcpy(kafka, furnished_kafka, sizeof *kafka);
    memcpy(mqtt, furnished_mqtt, sizeof *mqtt);
    memcpy(share, furnished_share, sizeof *share);
    *keyed = (struct keyed_chain){0};
    queries = (struct query_chain){0};
    w.with_sql = w.runs_sql = seed % CHAINS_A_QUERY == 0;
    w.disk = os_sim_clone(w.runs_sql ? furnished_sql : furnished);
    w.os = os_sim_os(w.disk);
    uint64_t before = os_sim_ops(w.disk);
    bool more = true;
    for (int i = 0; i < LIVES && more; i++) {
        more = live(&w, t, limits);
        if (more && world_pick(&w, 40) == 0)
            flip(&w, t);
    }
    if (!w.model->wrong[0])
        last_life(&w);
    snprintf(ret_wrong, len, "%s", w.model->wrong);
    t->chains++;
    t->ops += w.ops;
    t->confirms += w.confirms;
    t->deliveries += w.deliveries;
    t->pages_written += w.pages_written;
    t->pages_read += w.pages_read;
    t->waits += w.waits;
    t->compared += w.model->compared;
    t->sure += w.model->sure_checked;
    t->gone += w.model->gone_checked;
    t->pairs += w.model->groups_checked;
    t->transactions += w.model->tx_checked;
    t->duplicates += w.model->duplicates;
    t->records_found += w.model->records_found;
    t->records_trimmed += w.model->records_trimmed;
    t->feeds += w.model->feeds_checked;
    t->records_written += w.records_written;
    t->records_read += w.records_read;
    t->stream_syncs += w.stream_syncs;
    t->stream_deliveries += w.stream_deliveries;
    t->letters += mqtt->published;
    t->letters_again += mqtt->resent;
    t->letters_got += mqtt->got;
    t->letters_compared += mqtt->compared;
    t->values += mqtt->values;
    t->wills += mqtt->wills;
    t->batches += kafka->produced;
    t->batches_again += kafka->resent;
    t->commits += kafka->commits;
    t->aborts += kafka->aborts;
    t->batches_compared += kafka->compared;
    t->acquired += share->acquired;
    t->acquired_again += share->again;
    t->accepted += share->accepted;
    t->expired += share->expired;
    t->shared += share->checked;
    t->updates += keyed->updates;
    t->nulls += keyed->nulls;
    t->updates_compared += keyed->compared;
    t->updates_missing += keyed->missing;
    t->nulls_missing += keyed->nulls_missing;
    t->query_chains += w.runs_sql;
    t->query_rows += queries.compared;
    t->disk_ops += os_sim_ops(w.disk) - before;
    bool good = !w.model->wrong[0];
    os_sim_free(&w.disk);
    free(w.model);
    world_fini(&w);
    return good;
}

static bool furnish(void)
{
    struct world w;
    world_init(&w);
    w.with_streams = true;
    w.disk = os_sim_new(1);
    w.os = os_sim_os(w.disk);
    os_sim_clock_set(w.disk, 1000 * NS_PER_S, 1700000000000);
    w.model = malloc(sizeof *w.model);
    if (!w.model)
        abort();
    model_init(w.model);
    bool good = world_start(&w) && world_connect(&w);
    kafka = malloc(sizeof *kafka);
    furnished_kafka = malloc(sizeof *furnished_kafka);
    mqtt = malloc(sizeof *mqtt);
    furnished_mqtt = malloc(sizeof *furnished_mqtt);
    share = malloc(sizeof *share);
    furnished_share = malloc(sizeof *furnished_share);
    keyed = malloc(sizeof *keyed);
    if (!kafka || !furnished_kafka || !mqtt || !furnished_mqtt || !share || !furnished_share || !keyed)
        abort();
    if (good)
        world_furnish(&w);
    if (good && !w.model->wrong[0])
        kafka_chain_furnish(furnished_kafka, &w);
    if (good && !w.model->wrong[0])
        mqtt_chain_furnish(furnished_mqtt, &w);
    if (good && !w.model->wrong[0])
        share_chain_furnish(furnished_share, &w);
    if (good && !w.model->wrong[0])
        keyed_chain_furnish(&w);
    if (!good || w.model->wrong[0])
        printf("the empty broker could not be furnished: %s %s\n", w.why, w.model->wrong);
    good = good && !w.model->wrong[0];
    world_end(&w, true);
    os_sim_crash(w.disk, 1);
    furnished = w.disk;
    furnished_model = w.model;
    world_fini(&w);
    return good;
}

/* The furnished disk with statements. */
static bool furnish_sql(void)
{
    struct world w;
    world_init(&w);
    w.with_streams = w.with_sql = w.runs_sql = true;
    w.disk = os_sim_clone(furnished);
    w.os = os_sim_os(w.disk);
    w.model = furnished_model;
    if (!world_start(&w))
        model_fault(w.model, "the broker does not start: %s", w.why);
    else if (world_connect(&w))
        query_chain_furnish(&queries, &w);
    if (w.model->wrong[0])
        printf("the broker could not be furnished with queries: %s\n", w.model->wrong);
    world_end(&w, true);
    os_sim_crash(w.disk, 1);
    furnished_sql = w.disk;
    world_fini(&w);
    return !furnished_model->wrong[0];
}

/* ---- a failure is made small ---- */

static void shrink(uint64_t seed)
{
    struct totals t = {0};
    char wrong[400], last[400] = "";
    uint64_t low = 0, high = 1;
    struct limits limits = {.ops = high};
    while (high < 4096 && run_chain(seed, &limits, &t, wrong, sizeof wrong))
        limits.ops = high *= 2;
    while (low + 1 < high) {
        limits.ops = low + (high - low) / 2;
        if (run_chain(seed, &limits, &t, wrong, sizeof wrong))
            low = limits.ops;
        else {
            high = limits.ops;
            memcpy(last, wrong, sizeof last);
        }
    }
    printf("  shortest: --seed %llu --chains 1 --ops %llu: %s\n", (unsigned long long)seed, (unsigned long long)high,
           last);
}

static uint64_t failed_chain(uint64_t seed, const char *wrong, bool small)
{
    printf("seed %llu: %s\n  again: sim --seed %llu --chains 1\n", (unsigned long long)seed, wrong,
           (unsigned long long)seed);
    if (small)
        shrink(seed);
    return 1;
}

static void report(const struct totals *t, double seconds)
{
    printf("%llu crash points in %llu chains, %.1f s: ", (unsigned long long)t->lives, (unsigned long long)t->chains,
           seconds);
    for (int i = 0; i < END_COUNT; i++)
        printf("%s%llu %s", i ? ", " : "", (unsigned long long)t->ends[i], ending_names[i]);
    printf("\n%llu operations, %llu confirms, %llu deliveries, %llu compactions, %llu disk operations\n",
           (unsigned long long)t->ops, (unsigned long long)t->confirms, (unsigned long long)t->deliveries,
           (unsigned long long)t->compactions, (unsigned long long)t->disk_ops);
    printf(
        "compared %llu places: %llu sure to be there, %llu gone for ever, %llu moving pairs, %llu unanswered commits, "
        "%llu duplicates\n",
        (unsigned long long)t->compared, (unsigned long long)t->sure, (unsigned long long)t->gone,
        (unsigned long long)t->pairs, (unsigned long long)t->transactions, (unsigned long long)t->duplicates);
    printf("%llu pages written, %llu read; %llu flipped bits, %llu of them refused; %llu waits for room on the disk\n",
           (unsigned long long)t->pages_written, (unsigned long long)t->pages_read, (unsigned long long)t->flips,
           (unsigned long long)t->flips_refused, (unsigned long long)t->waits);
    printf("streams: %llu records written, %llu read, %llu delivered, %llu syncs; compared: %llu records at their "
           "offsets, "
           "%llu given up, %llu to be fed\n",
           (unsigned long long)t->records_written, (unsigned long long)t->records_read,
           (unsigned long long)t->stream_deliveries, (unsigned long long)t->stream_syncs,
           (unsigned long long)t->records_found, (unsigned long long)t->records_trimmed, (unsigned long long)t->feeds);
    printf("kafka: %llu batches produced, %llu sent again after a death, %llu transactions committed, %llu aborted; "
           "compared: %llu "
           "batches\n",
           (unsigned long long)t->batches, (unsigned long long)t->batches_again, (unsigned long long)t->commits,
           (unsigned long long)t->aborts, (unsigned long long)t->batches_compared);
    printf("mqtt: %llu messages published, %llu sent again, %llu delivered, %llu wills; compared: %llu messages, %llu "
           "retained values\n",
           (unsigned long long)t->letters, (unsigned long long)t->letters_again, (unsigned long long)t->letters_got,
           (unsigned long long)t->wills, (unsigned long long)t->letters_compared, (unsigned long long)t->values);
    printf("share group: %llu records acquired, %llu of them again, %llu after a lock was over, %llu accepted or "
           "rejected; compared: "
           "%llu records\n",
           (unsigned long long)t->acquired, (unsigned long long)t->acquired_again, (unsigned long long)t->expired,
           (unsigned long long)t->accepted, (unsigned long long)t->shared);
    printf("compacted topic: %llu updates, %llu of them null values; compaction took %llu, and of those %llu null "
           "values that were the last of "
           "their key; compared: %llu records\n",
           (unsigned long long)t->updates, (unsigned long long)t->nulls, (unsigned long long)t->updates_missing,
           (unsigned long long)t->nulls_missing, (unsigned long long)t->updates_compared);
    printf("queries: in %llu chains; compared: %llu rows\n", (unsigned long long)t->query_chains,
           (unsigned long long)t->query_rows);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static uint64_t argument(int argc, char **argv, const char *name, uint64_t otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return strtoull(argv[i + 1], NULL, 0);
    return otherwise;
}

int main(int argc, char **argv)
{
    uint64_t seed = argument(argc, argv, "--seed", 1), cycles = argument(argc, argv, "--cycles", UINT64_MAX);
    uint64_t chains = argument(argc, argv, "--chains", UINT64_MAX),
             seconds = argument(argc, argv, "--seconds", UINT64_MAX);
    uint64_t failures_max = argument(argc, argv, "--failures", 3);
    struct limits limits = {.ops = argument(argc, argv, "--ops", UINT64_MAX),
                            .talk = (unsigned)argument(argc, argv, "--talk", 0)};
    if (cycles == UINT64_MAX && chains == UINT64_MAX && seconds == UINT64_MAX)
        cycles = 2000;
    struct totals t = {0};
    uint64_t failed = 0;
    double begin = seconds_now();
    printf("seeds from %llu on\n", (unsigned long long)seed);
    if (!furnish() || !furnish_sql())
        failed = failures_max;
    while (failed < failures_max && t.lives < cycles && t.chains < chains && seconds_now() - begin < (double)seconds) {
        char wrong[400];
        uint64_t now = seed + t.chains;
        if (!run_chain(now, &limits, &t, wrong, sizeof wrong)) {
            failed += failed_chain(now, wrong, limits.ops == UINT64_MAX && !argument(argc, argv, "--quick", 0));
            printf("\n");
        }
        fflush(stdout);
    }
    report(&t, seconds_now() - begin);
    if (furnished)
        os_sim_free(&furnished);
    if (furnished_sql)
        os_sim_free(&furnished_sql);
    free(furnished_model);
    free(furnished_kafka);
    free(kafka);
    free(furnished_mqtt);
    free(mqtt);
    free(furnished_share);
    free(share);
    free(keyed);
    printf("%llu passed, %llu failed\n", (unsigned long long)(t.lives / 1000), (unsigned long long)failed);
    return failed != 0;
}
