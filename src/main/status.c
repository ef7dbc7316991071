/* Figures for people, see status.h.
 *
 * Memory by kind is our own account, from allocation to free. What the process occupies is more, by what libraries allocate,
 * by the program, and by what the allocator keeps for the next burst, and stacks; and less, by what was allocated and never
 * touched. Of these two only the difference is known: it is told as kept or as untouched, the other one is 0. All but
 * untouched, less untouched, is what the system says. */
#include "main/status.h"

#include "base/mem.h"
#include "journal/sync_times.h"
#include "os/os_process.h"

#include <stdio.h>

static void number(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

static void put_memory(json_t *object)
{
    struct os_memory memory;
    uint64_t counted = 0;
    os_memory_figures(&memory);
    number(object, "memory_resident", memory.resident);
    for (int kind = 0; kind < MEM_KINDS; kind++) {
        char key[64];
        uint64_t bytes = mem_in_use_as((enum mem_kind)kind);
        snprintf(key, sizeof key, "memory_%s", mem_kind_key((enum mem_kind)kind));
        number(object, key, bytes);
        counted += bytes;
    }
    uint64_t libraries = memory.heap > counted ? memory.heap - counted : 0;
    uint64_t known = counted + libraries + memory.files;
    number(object, "memory_libraries", libraries);
    number(object, "memory_program", memory.files);
    number(object, "memory_kept", memory.resident > known ? memory.resident - known : 0);
    number(object, "memory_untouched", known > memory.resident ? known - memory.resident : 0);
}

static void put_marks(json_t *object, struct worker *worker)
{
    struct worker_figures figures;
    char alarms[80];
    worker_figures(worker, &figures);
    number(object, "memory_total", figures.memory_total);
    number(object, "memory_soft_mark", figures.memory_soft);
    number(object, "memory_hard_mark", figures.memory_hard);
    number(object, "disk_free", figures.disk_free);
    number(object, "disk_total", figures.disk_total);
    number(object, "disk_soft_mark", figures.disk_soft);
    number(object, "disk_hard_mark", figures.disk_hard);
    snprintf(alarms, sizeof alarms, "%s%s%s%s", figures.alarms & ALARM_MEMORY ? "memory " : "",
             figures.alarms & ALARM_MEMORY_HARD ? "memory-hard " : "", figures.alarms & ALARM_DISK ? "disk " : "",
             figures.alarms & ALARM_DISK_HARD ? "disk-hard " : "");
    size_t len = strlen(alarms);
    alarms[len ? len - 1 : 0] = '\0';
    json_object_set_new(object, "alarms", json_string(alarms));
}

static void put_scrub(json_t *object, const struct scrubber *scrubber)
{
    struct scrub_stats stats;
    scrubber_stats(scrubber, &stats);
    number(object, "scrub_rounds", stats.rounds);
    number(object, "scrub_files", stats.files);
    number(object, "scrub_bytes", stats.bytes);
    number(object, "scrub_damaged", stats.damaged);
}

/* How long clients wait for the disk. */
static void put_syncs(json_t *object, const struct sync_times *times)
{
    number(object, "journal_syncs", sync_times_count(times));
    number(object, "journal_sync_p50_us", sync_times_within(times, 500) / 1000);
    number(object, "journal_sync_p99_us", sync_times_within(times, 990) / 1000);
    number(object, "journal_sync_max_us", sync_times_within(times, 1000) / 1000);
}

json_t *status_json(struct worker *worker, const struct journal *journal, const struct scrubber *scrubber)
{
    json_t *object = json_object();
    if (!object)
        return NULL;
    json_object_set_new(object, "version", json_string(MILLRACE_VERSION));
    put_memory(object);
    put_marks(object, worker);
    number(object, "journal_bytes", journal_live_bytes(journal));
    put_syncs(object, journal_sync_times(journal));
    if (scrubber)
        put_scrub(object, scrubber);
    if (journal_ready(journal) != UINT64_MAX)
        number(object, "journal_reserve", journal_ready(journal));
    return object;
}
