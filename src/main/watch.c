/* The arithmetic of alarms, see watch.h. The two bounds of each keep a value that sways around its mark from blocking
 * and unblocking every publisher each second. */
#include "main/watch.h"

#include "core/broker.h"

#define MIB (1024ull * 1024)
#define TRIM_EVERY_NS (10 * NS_PER_S)
#define TRIM_BLOCKED_NS (NS_PER_S / 4)
#define PAUSE_FAR_NS NS_PER_S
#define PAUSE_NEAR_NS (NS_PER_S / 10)

uint64_t watch_memory_mark(double level, uint64_t memory_total)
{
    return level <= 1.0 ? (uint64_t)(level * (double)memory_total) : (uint64_t)level;
}

uint64_t watch_disk_min(uint64_t setting, uint64_t disk_total)
{
    if (setting)
        return setting;
    uint64_t share = disk_total / 20;
    return share < 64 * MIB ? 64 * MIB : share > 4096 * MIB ? 4096 * MIB : share;
}

static bool stays(bool raised, uint64_t value, uint64_t raise_above, uint64_t end_below)
{
    return value > raise_above || (raised && value >= end_below);
}

bool watch_trim_due(const struct watch *watch, uint64_t counted, uint64_t resident, mono_t since)
{
    uint64_t low = watch->memory_mark / 20 * 19;
    bool only_pages = (watch->raised & ALARM_MEMORY) && counted < low;
    return resident > low && resident > counted && since > (only_pages ? TRIM_BLOCKED_NS : TRIM_EVERY_NS);
}

unsigned watch_measure(struct watch *watch, uint64_t memory_used, uint64_t disk_free)
{
    bool memory = stays(watch->raised & ALARM_MEMORY, memory_used, watch->memory_mark, watch->memory_mark / 20 * 19);
    bool disk = disk_free < watch->disk_min ||
                ((watch->raised & ALARM_DISK) && disk_free <= watch->disk_min + watch->disk_min / 20);
    watch->raised = (memory ? ALARM_MEMORY : 0u) | (disk ? ALARM_DISK : 0u);
    watch->near = memory_used > watch->memory_mark / 2 || disk_free / 4 < watch->disk_min;
    return watch->raised;
}

mono_t watch_pause(const struct watch *watch)
{
    return watch->near ? PAUSE_NEAR_NS : PAUSE_FAR_NS;
}
