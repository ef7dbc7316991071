/* Partitions of what a query reads, see server/run.h: those that it has, and those that a stream gets while it runs.
 *
 * A query has a partition from where its trail names it first: in its beginning, with the place where it begins; later on with whatever is said of it, and
 * then it is read from its first record on. From that moment the partition holds back the watermark until it has a row or is idle, and a replay, which
 * reads the same trail, does the same at the same place. So what a query gives does not depend on when it heard of a partition, and RECORDS with the
 * place 0 is all that a trail needs to say.
 *
 * It hears by its fetches: each tells the core how many partitions it knows of, and is answered when there are more (core/fetch.h). */
#include "sql/server/run.h"

#include "base/mem.h"

/* Where they were is free: whoever is on a list stays there. */
static void move(struct run_partition *to, const struct run_partition *from)
{
    *to = *from;
    if (!from->asked)
        return;
    to->wait.prev->next = &to->wait;
    to->wait.next->prev = &to->wait;
}

void run_partitions_exist(struct run_source *s, uint32_t exist)
{
    s->exist = exist > s->exist ? exist : s->exist;
}

bool run_partitions(struct run_source *s, uint32_t exist)
{
    run_partitions_exist(s, exist);
    if (exist <= s->room)
        return true;
    struct run_partition *all = mem_alloc(exist * sizeof *all);
    if (!all) {
        run_fail(s->run, "no memory for the partitions");
        return false;
    }
    for (uint32_t i = 0; i < s->room; i++)
        move(&all[i], &s->partitions[i]);
    for (uint32_t i = s->room; i < exist; i++)
        all[i] = (struct run_partition){
            .source = s, .number = i, .until = UINT64_MAX, .limit = UINT64_MAX, .start = FETCH_NOWHERE};
    mem_free(s->partitions);
    s->partitions = all;
    s->room = exist;
    return true;
}

struct run_partition *run_partition_named(struct server_run *run, uint32_t source, uint32_t partition)
{
    struct run_source *s = source < run->source_count ? &run->sources[source] : NULL;
    if (!s || partition >= s->exist) {
        run_fail(run, "its trail names a partition that is not there any more");
        return NULL;
    }
    if (partition < s->count)
        return &s->partitions[partition];
    if (!run_partitions(s, s->exist))
        return NULL;
    if (!query_partitions(run->query, source, partition + 1)) {
        run_fail(run, "no memory for the clocks");
        return NULL;
    }
    run->turnover.looked = 0; /* nor is it known where the old version stands there */
    s->count = partition + 1;
    return &s->partitions[partition];
}

void run_join(struct server_run *run)
{
    if (run->bounded || run->queue || switch_hurries(run))
        return;
    for (uint32_t i = 0; i < run->source_count; i++)
        while (run->sources[i].count < run->sources[i].exist && !run->failed) {
            struct trail_entry entry = {.kind = TRAIL_RECORDS, .source = i, .partition = run->sources[i].count};
            if (run->object && !trail_add(&run->taken, &entry))
                run_fail(run, "no memory for its trail");
            else
                (void)run_partition_named(run, i, entry.partition);
        }
}
