/* The arithmetic of alarms, see watch.h. The two bounds of each keep a value that sways around its mark from blocking
 * and unblocking every publisher each second. */
#include "main/watch.h"

#include "core/broker.h"

#define MIB (1024ull * 1024)
#define TRIM_EVERY_NS (10 * NS_PER_S)
#define TRIM_BLOCKED_NS (NS_PER_S / 4)
#define TRIM_IDLE_BYTES (16 * MIB) /* less is not worth it; also what program and stacks take beyond our account */
#define JUMP_MS 1000               /* who sets a clock right slowly moves it by half a millisecond a second */
#define CLOCKS_NEAR_NS (NS_PER_S / 10)
#define PAUSE_FAR_NS NS_PER_S
#define PAUSE_NEAR_NS (NS_PER_S / 10)

uint64_t watch_memory_mark(double level, uint64_t memory_total)
{
    return level <= 1.0 ? (uint64_t)(level * (double)memory_total) : (uint64_t)level;
}

uint64_t watch_disk_soft(uint64_t setting, uint64_t disk_total)
{
    if (setting)
        return setting;
    uint64_t share = disk_total / 20;
    return share < 64 * MIB ? 64 * MIB : share > 4096 * MIB ? 4096 * MIB : share;
}

uint64_t watch_disk_hard(const struct watch *watch)
{
    return watch->disk_hard > watch->owed ? watch->disk_hard : watch->owed;
}

static uint64_t disk_soft(const struct watch *watch)
{
    uint64_t least = watch_disk_hard(watch) / 4 * 5;
    return watch->disk_soft > least ? watch->disk_soft : least;
}

static bool above(bool raised, uint64_t value, uint64_t mark)
{
    return value > mark || (raised && value >= mark / 20 * 19);
}

static bool below(bool raised, uint64_t value, uint64_t mark)
{
    return value < mark || (raised && value <= mark + mark / 20);
}

bool watch_trim_due(const struct watch *watch, uint64_t counted, uint64_t resident, mono_t since, bool idle)
{
    uint64_t low = watch->memory_soft / 20 * 19;
    bool only_pages = (watch->raised & ALARM_MEMORY) && counted < low;
    bool much = resident > counted + counted / 8 + TRIM_IDLE_BYTES;
    return (resident > low || (idle && much)) && resident > counted &&
           since > (only_pages ? TRIM_BLOCKED_NS : TRIM_EVERY_NS);
}

unsigned watch_measure(struct watch *watch, uint64_t memory_used, uint64_t disk_free)
{
    unsigned was = watch->raised;
    uint64_t soft = disk_soft(watch);
    watch->raised = (above(was & ALARM_MEMORY, memory_used, watch->memory_soft) ? ALARM_MEMORY : 0u) |
                    (above(was & ALARM_MEMORY_HARD, memory_used, watch->memory_hard) ? ALARM_MEMORY_HARD : 0u) |
                    (below(was & ALARM_DISK, disk_free, soft) ? ALARM_DISK : 0u) |
                    (below(was & ALARM_DISK_HARD, disk_free, watch_disk_hard(watch)) ? ALARM_DISK_HARD : 0u);
    watch->near = memory_used > watch->memory_soft / 2 || disk_free / 4 < soft;
    return watch->raised;
}

int64_t watch_clock(struct watch *watch, mono_t before, wall_t wall, mono_t after)
{
    if (after - before > CLOCKS_NEAR_NS)
        return 0;
    int64_t apart = (int64_t)wall - after / NS_PER_MS;
    int64_t jump = watch->clocks_seen ? apart - watch->clocks_apart : 0;
    watch->clocks_apart = apart;
    watch->clocks_seen = true;
    return jump >= JUMP_MS || jump <= -JUMP_MS ? jump : 0;
}

mono_t watch_pause(const struct watch *watch)
{
    return watch->near ? PAUSE_NEAR_NS : PAUSE_FAR_NS;
}
