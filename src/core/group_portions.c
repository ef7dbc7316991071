/* Sets of partitions, see group_portions.h. */
#include "core/group_portions.h"

#include <stdlib.h>

int portion_order(const void *a, const void *b)
{
    const struct portion *x = a, *y = b;
    if (x->stream != y->stream)
        return x->stream < y->stream ? -1 : 1;
    return (x->partition > y->partition) - (x->partition < y->partition);
}

bool portions_have(const struct portions *set, const struct portion *p)
{
    return set->count && bsearch(p, set->at, set->count, sizeof *p, portion_order);
}

bool portions_equal(const struct portions *a, const struct portions *b)
{
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (portion_order(&a->at[i], &b->at[i]) != 0)
            return false;
    return true;
}

bool portions_meet(const struct portions *a, const struct portions *b)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (portions_have(b, &a->at[i]))
            return true;
    return false;
}

bool portions_set(struct broker *b, struct portions *ret, const struct portion *from, uint32_t count)
{
    struct portion *at = count ? mem_alloc_as(MEM_GROUPS, count * sizeof *at) : NULL;
    uint32_t n = 0;
    if (count && !at)
        return false;
    if (count) {
        memcpy(at, from, count * sizeof *at);
        qsort(at, count, sizeof *at, portion_order);
    }
    for (uint32_t i = 0; i < count; i++)
        if (!n || portion_order(&at[n - 1], &at[i]) != 0)
            at[n++] = at[i];
    portions_drop(b, ret);
    ret->at = at;
    ret->count = n;
    b->group_bytes += n * sizeof *at;
    return true;
}

bool portions_of(struct broker *b, struct portions *ret, const struct portions *a, const struct portions *in,
                 bool there)
{
    struct portion *at = a->count ? mem_alloc_as(MEM_GROUPS, a->count * sizeof *at) : NULL;
    uint32_t n = 0;
    if (a->count && !at)
        return false;
    for (uint32_t i = 0; i < a->count; i++)
        if (portions_have(in, &a->at[i]) == there)
            at[n++] = a->at[i];
    if (!n) {
        mem_free_as(MEM_GROUPS, at);
        at = NULL;
    }
    portions_drop(b, ret);
    ret->at = at;
    ret->count = n;
    b->group_bytes += n * sizeof *at;
    return true;
}

void portions_drop(struct broker *b, struct portions *set)
{
    b->group_bytes -= set->count * sizeof *set->at;
    mem_free_as(MEM_GROUPS, set->at);
    *set = (struct portions){0};
}
