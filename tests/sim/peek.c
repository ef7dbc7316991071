/* Looking into the core, see peek.h. The only file of the simulator that knows the core's structures. */
#include "peek.h"

#include "core/core_int.h"

#include <stdlib.h>

static int by_position(const void *a, const void *b)
{
    const struct entry *x = *(struct entry *const *)a, *y = *(struct entry *const *)b;
    return x->position < y->position ? -1 : x->position > y->position;
}

bool peek_queue(struct broker *broker, const char *name, void (*each)(void *arg, struct slice body), void *arg)
{
    struct vhost *vhost = vhost_find(broker, slice_str("/"));
    struct queue *q = !vhost ? NULL : *name ? queue_find(vhost, slice_str(name)) : vhost->delays;
    if (!q)
        return false;
    size_t count = 0;
    struct entry **entries = calloc(q->ready_count + q->unacked_count + 1, sizeof *entries);
    if (!entries)
        abort();
    for (unsigned lane = 0; lane <= (q->lanes == &q->lane ? 0u : q->rules.max_priority); lane++)
        LIST_EACH(&q->lanes[lane].entries, node, after)
    entries[count++] = CONTAINER_OF(node, struct entry, link);
    LIST_EACH(&q->unacked, node, after)
    entries[count++] = CONTAINER_OF(node, struct entry, link);
    qsort(entries, count, sizeof *entries, by_position);
    for (size_t i = 0; i < count; i++)
        each(arg, msg_body(entries[i]->msg));
    free(entries);
    return true;
}
