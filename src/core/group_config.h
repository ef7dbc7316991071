/* group_config: what administrators have set of a group. */
#ifndef MILLRACE_CORE_GROUP_CONFIG_H
#define MILLRACE_CORE_GROUP_CONFIG_H

#include "base/types.h"

struct group_config {
    uint32_t lock_ms;        /* share.record.lock.duration.ms */
    uint32_t deliveries_max; /* share.delivery.count.limit */
    uint32_t locks_max;      /* share.partition.max.record.locks */
    bool earliest;           /* share.auto.offset.reset; else latest */
    bool committed;          /* share.isolation.level read_committed */
};

#endif
