/* faults: an AMQP script through engine, core and journal, with the n-th allocation or the n-th I/O call failing, for
 * every n, once and from then on.
 *
 * What must hold: no crash, no check of ours fails, no memory is left; a failed allocation costs at most the connection; a
 * failed I/O call at most the broker. After it the machine restarts without faults: the broker starts, and everything
 * that the client was told is there (the same model as sim.c). A commit that got no answer has taken effect as a whole or not
 * at all, in the broker that ran on and in the one that restarted. One passed per script and kind of fault.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"

enum fault { FAULT_MEMORY, FAULT_EIO, FAULT_ENOSPC, FAULT_COUNT };
static const char *const fault_names[FAULT_COUNT] = {"allocation", "I/O call with EIO", "I/O call with ENOSPC"};

struct script {
    uint64_t seed;
    unsigned ops;
    bool mostly_tx;
};

static struct os_sim *furnished;
static struct model *furnished_model;

static void arm(struct world *w, enum fault fault, uint64_t n, bool for_ever)
{
    if (fault == FAULT_MEMORY)
        mem_fail_at(n, for_ever);
    else
        os_sim_fail(w->disk, OS_SIM_ALL & ~(1u << OS_SIM_CLOSE), n, fault == FAULT_EIO ? 5 : 28, for_ever);
}

static uint64_t disarm(struct world *w)
{
    uint64_t hit = mem_failures_hit() + os_sim_failures_hit(w->disk);
    mem_fail_at(0, false);
    os_sim_fail(w->disk, 0, 0, 0, false);
    return hit;
}

static void play(struct world *w, unsigned ops)
{
    if (!world_start(w) || !world_connect(w))
        return;
    for (unsigned i = 0; i < ops && !w->dead && !w->model->wrong[0]; i++)
        world_op(w);
    for (unsigned i = 0; i < 20 && !w->dead; i++)
        world_turn(w);
}

/* Returns how many faults were hit; a violation is in w->model->wrong. */
static uint64_t run(struct world *w, const struct script *script, enum fault fault, uint64_t n, bool for_ever)
{
    w->dice = script->seed;
    w->mostly_tx = script->mostly_tx;
    w->compact_every = 20;
    w->lag = 2;
    w->paging_bytes = 1200;
    w->tolerant = w->may_fail = true;
    memcpy(w->model, furnished_model, sizeof *w->model);
    w->disk = os_sim_clone(furnished);
    w->os = os_sim_os(w->disk);
    arm(w, fault, n, for_ever);
    play(w, script->ops);
    uint64_t hit = disarm(w);
    if (w->broker && w->hub) {
        broker_check(w->broker);
        world_check_commit(w);
    }
    world_end(w, false);
    os_sim_crash(w->disk, n);
    w->may_fail = w->tolerant = false;
    if (!w->model->wrong[0] && world_start(w))
        world_compare(w);
    else
        model_fault(w->model, "the broker does not start: %s", w->why);
    world_end(w, false);
    os_sim_free(&w->disk);
    return hit;
}

static bool sweep(const struct script *script, enum fault fault, bool for_ever, uint64_t first)
{
    struct world w;
    world_init(&w);
    w.model = malloc(sizeof *w.model);
    if (!w.model)
        abort();
    size_t before[MEM_KINDS];
    for (unsigned kind = 0; kind < MEM_KINDS; kind++)
        before[kind] = mem_in_use_as(kind);
    uint64_t n = first, hit, cut_short = 0;
    do {
        hit = run(&w, script, fault, n, for_ever);
        cut_short += w.model->tx_checked;
        for (unsigned kind = 0; kind < MEM_KINDS; kind++)
            if (mem_in_use_as(kind) != before[kind])
                model_fault(w.model, "%zd bytes of %s were not given back",
                            (ssize_t)(mem_in_use_as(kind) - before[kind]), mem_kind_key(kind));
    } while (hit && !w.model->wrong[0] && ++n);
    bool good = !w.model->wrong[0];
    if (!good)
        printf("FAIL script %llu, %s %s %llu: %s\n", (unsigned long long)script->seed, fault_names[fault],
               for_ever ? "from" : "only", (unsigned long long)n, w.model->wrong);
    else
        printf("script %llu: each of %llu fails %s (%s), looks at commits without an answer: %llu\n",
               (unsigned long long)script->seed, (unsigned long long)n - 1, for_ever ? "with all after it" : "once",
               fault_names[fault], (unsigned long long)cut_short);
    fflush(stdout);
    free(w.model);
    world_fini(&w);
    return good;
}

static bool furnish(void)
{
    struct world w;
    world_init(&w);
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
    furnished = w.disk;
    furnished_model = w.model;
    world_fini(&w);
    return good;
}

int main(int argc, char **argv)
{
    static const struct script scripts[] = {
        {11, 60, false}, {12, 90, false}, {13, 40, false}, {14, 70, true}, {15, 70, true}};
    unsigned passed = 0, failed = 0;
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    if (!furnish())
        failed++;
    for (size_t i = 0; !failed && i < ARRAY_LEN(scripts); i++)
        for (int fault = 0; fault < FAULT_COUNT; fault++)
            for (int for_ever = 0; for_ever < 2; for_ever++)
                *(sweep(&scripts[i], (enum fault)fault, for_ever, first) ? &passed : &failed) += 1;
    os_sim_free(&furnished);
    free(furnished_model);
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0;
}
