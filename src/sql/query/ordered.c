/* A treap: a search tree by key and a heap by priorities that are drawn, so that it is shallow whatever comes; see ordered.h. */
#include "sql/query/ordered.h"

#include "base/check.h"

int ordered_compare(struct slice a, struct slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int order = len ? memcmp(a.ptr, b.ptr, len) : 0;
    return order ? order : (a.len > b.len) - (a.len < b.len);
}

static uint32_t draw(struct ordered *o)
{
    uint32_t x = o->random ? o->random : 2463534242u; /* xorshift */
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return o->random = x;
}

static void link_between(struct ordered *o, struct ordered_row *row, struct ordered_row *before,
                         struct ordered_row *after)
{
    row->before = before;
    row->after = after;
    *(before ? &before->after : &o->first) = row;
    *(after ? &after->before : &o->last) = row;
}

void ordered_add(struct ordered *o, struct ordered_row *row)
{
    struct ordered_row **link = &o->root, **left = &row->left, **right = &row->right, *before = NULL, *after = NULL;
    struct slice key = ordered_key(row);
    row->priority = draw(o);
    while (*link && (*link)->priority >= row->priority) {
        bool less = ordered_compare(key, ordered_key(*link)) < 0;
        *(less ? &after : &before) = *link;
        link = less ? &(*link)->left : &(*link)->right;
    }
    struct ordered_row *rest =
        *link; /* is below the row from now on: what is less on its left, what is more on its right */
    *link = row;
    while (rest) {
        bool less = ordered_compare(key, ordered_key(rest)) < 0;
        struct ordered_row ***side = less ? &right : &left;
        *(less ? &after : &before) = rest;
        **side = rest;
        *side = less ? &rest->left : &rest->right;
        rest = **side;
    }
    *left = *right = NULL;
    link_between(o, row, before, after);
    o->count++;
}

void ordered_remove(struct ordered *o, struct ordered_row *row)
{
    struct ordered_row **link = &o->root, *left = row->left, *right = row->right;
    while (*link != row) {
        CHECK(*link);
        link = ordered_compare(ordered_key(row), ordered_key(*link)) < 0 ? &(*link)->left : &(*link)->right;
    }
    while (left && right) {
        bool first = left->priority >= right->priority;
        struct ordered_row *top = first ? left : right;
        *link = top;
        link = first ? &top->right : &top->left;
        *(first ? &left : &right) = *link;
    }
    *link = left ? left : right;
    *(row->before ? &row->before->after : &o->first) = row->after;
    *(row->after ? &row->after->before : &o->last) = row->before;
    o->count--;
}

struct ordered_row *ordered_at_most(const struct ordered *o, struct slice key)
{
    struct ordered_row *found = NULL;
    for (struct ordered_row *row = o->root; row;) {
        bool more = ordered_compare(ordered_key(row), key) > 0;
        found = more ? found : row;
        row = more ? row->left : row->right;
    }
    return found;
}
