/* What members of groups in which the broker assigns subscribe to: topics by their names, and all whose names match a pattern, which are
 * looked for again when there are other streams than before. A pattern has to match the whole name; its syntax is PCRE2's, of which
 * what Kafka's (RE2J) has in common with it is nearly everything. */
#include "core/group_int.h"
#include "core/stream_int.h"

#include <stdio.h>

#define TOPICS_MAX 1000u   /* that a member names */
#define SLOW_NAMES_MAX 32u /* that an expression may take long for, 0.3 ms each: all of it is one step of the core */

bool topics_next(struct reader *r, struct slice *ret)
{
    *ret = reader_str8(r);
    return reader_ok(r) && ret->len;
}

bool topics_valid(struct slice names)
{
    struct reader r = reader_of(names);
    unsigned n = 0;
    for (; r.left; n++)
        if (!reader_str8(&r).len)
            return false;
    return reader_ok(&r) && n <= TOPICS_MAX;
}

uint64_t topics_hash(const struct group *g)
{
    uint64_t hash = 14695981039346656037u;
    LIST_EACH(&g->assignees, node, after)
    {
        struct reader r = reader_of(CONTAINER_OF(node, struct assignee, link)->topics);
        for (struct slice name; topics_next(&r, &name);) {
            const struct queue *q = queue_find(g->vhost, name);
            hash = (hash ^ (q && q->stream ? q->id : 0)) * 1099511628211u;
            hash = (hash ^ (q && q->stream ? q->stream->partition_count : 0)) * 1099511628211u;
        }
    }
    return hash;
}

/* The names, and behind them those that match; not those for which the expression takes too long, of which *ret_slow tells.
 * False: no memory. */
static bool match(struct broker *b, const struct group *g, struct slice named, const struct pattern *pattern,
                  struct slice *ret, bool *ret_slow)
{
    unsigned patience = SLOW_NAMES_MAX;
    size_t len = named.len;
    LIST_EACH(&g->vhost->streams, node, after)
    len += 1 + CONTAINER_OF(node, struct stream, vhost_link)->queue->name.len;
    uint8_t *room = mem_alloc_as(MEM_GROUPS, len + 1);
    if (!room)
        return false;
    struct writer w = writer_of(room, len);
    writer_slice_put(&w, named);
    LIST_EACH(&g->vhost->streams, node, after)
    {
        struct slice name = CONTAINER_OF(node, struct stream, vhost_link)->queue->name;
        bool matches = false;
        if (pattern->code && !pattern_decides_within(pattern, name, &patience, &matches))
            *ret_slow = true;
        if (matches)
            writer_str8(&w, name);
    }
    bool good = group_keep(b, ret, writer_slice(&w));
    mem_free_as(MEM_GROUPS, room);
    return good;
}

static void set(struct broker *b, struct slice *to, struct slice from)
{
    group_drop(b, to);
    *to = from;
}

enum group_error topics_subscribe(struct broker *b, struct assignee *c, const struct slice *names,
                                  const struct slice *pattern, bool *ret_changed)
{
    struct pattern fresh = {0};
    struct slice named, topics;
    if (pattern && (pattern->len > NAME_MAX_BYTES || !pattern_make_whole(&fresh, *pattern)))
        return GROUP_ERR_INVALID;
    const struct pattern *as = pattern ? &fresh : &c->pattern;
    bool slow = false, kept = group_keep(b, &named, names ? *names : c->named);
    bool matched = kept && match(b, c->group, named, as, &topics, &slow);
    if (matched && slow && pattern)
        group_drop(b, &topics);
    if (!matched || (slow && pattern)) {
        if (kept)
            group_drop(b, &named);
        pattern_drop(&fresh);
        return matched ? GROUP_ERR_INVALID : GROUP_ERR_NO_MEMORY;
    }
    *ret_changed = !slice_equal(topics, c->topics);
    set(b, &c->named, named);
    set(b, &c->topics, topics);
    if (pattern) {
        pattern_drop(&c->pattern);
        c->pattern = fresh;
    }
    return GROUP_OK;
}

static bool asks_the_same(const struct assignee *a, const struct assignee *c)
{
    return a && slice_equal(a->pattern.text, c->pattern.text) && slice_equal(a->named, c->named);
}

/* Most groups' members ask for the same: it is looked for once. */
bool topics_match_again(struct broker *b, struct group *g)
{
    const struct assignee *before = NULL;
    LIST_EACH(&g->assignees, node, after)
    {
        struct assignee *c = CONTAINER_OF(node, struct assignee, link);
        struct slice topics;
        bool slow = false;
        if (!c->pattern.code)
            continue;
        if (asks_the_same(before, c) ? !group_keep(b, &topics, before->topics)
                                     : !match(b, g, c->named, &c->pattern, &topics, &slow))
            return false;
        set(b, &c->topics, topics);
        before = c;
    }
    return true;
}

void topics_drop(struct broker *b, struct assignee *c)
{
    group_drop(b, &c->named);
    group_drop(b, &c->topics);
    pattern_drop(&c->pattern);
}
