/* group_config: what administrators have set of groups, by name, whether there is a group of that name or not.
 *
 * A setting has a number, a text as it was given, and what that means as a number. Those from GROUP_SETTING_KEPT on are only kept.
 */
#ifndef MILLRACE_CORE_GROUP_CONFIG_H
#define MILLRACE_CORE_GROUP_CONFIG_H

#include "base/types.h"

enum group_setting {                            /* numbers stand in the journal */
                     GROUP_SET_SHARE_RESET = 1, /* GROUP_FROM_END, GROUP_FROM_START, or so many ms ago */
                     GROUP_SET_SHARE_COMMITTED = 2,
                     GROUP_SET_SHARE_LOCK_MS = 3,
                     GROUP_SET_SHARE_DELIVERIES = 4,
                     GROUP_SET_SHARE_LOCKS = 5,
                     GROUP_SET_SHARE_RENEWS = 6,
                     GROUP_SET_SHARE_SESSION_MS = 7,
                     GROUP_SET_SHARE_BEAT_MS = 8,
                     GROUP_SET_CONSUMER_SESSION_MS = 9,
                     GROUP_SET_CONSUMER_BEAT_MS = 10,
                     GROUP_SETTING_KEPT = 32,
                     GROUP_SETTINGS = 64, /* they are below */
};

#define GROUP_FROM_END UINT64_MAX
#define GROUP_FROM_START (UINT64_MAX - 1)

struct group_config {
    uint32_t lock_ms;        /* share.record.lock.duration.ms */
    uint32_t deliveries_max; /* share.delivery.count.limit */
    uint32_t locks_max;      /* share.partition.max.record.locks */
    bool earliest;           /* share.auto.offset.reset; else latest … */
    int64_t since_ms;        /* … or so long ago, unless it is 0 */
    bool committed;          /* share.isolation.level read_committed */
    bool no_renewal;         /* share.renew.acknowledge.enable false */
    uint32_t session_ms;     /* share.session.timeout.ms; 0, as those below: the broker's own */
    uint32_t beat_ms;        /* share.heartbeat.interval.ms */
    uint32_t consumer_session_ms, consumer_beat_ms;
};

#endif
