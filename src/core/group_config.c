/* What is set of groups. */
#include "core/group_config.h"

#include "core/share_int.h"

static const struct group_config defaults = {
    .lock_ms = SHARE_LOCK_MS, .deliveries_max = SHARE_DELIVERIES_MAX, .locks_max = SHARE_LOCKS_MAX};

const struct group_config *group_config_of(const struct group *g)
{
    return g->config ? g->config : &defaults;
}
