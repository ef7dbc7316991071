/* The nearest name, see nearest.h. */
#include "base/nearest.h"

#define NEAREST_MAX 48u

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + 'a' - 'A') : c;
}

static unsigned least3(unsigned a, unsigned b, unsigned c)
{
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Insertions, deletions, replacements and swaps of neighbours that make one of the other. */
static unsigned distance(struct slice a, struct slice b)
{
    unsigned rows[3][NEAREST_MAX + 1];
    unsigned *before = rows[0], *last = rows[1], *now = rows[2];
    for (unsigned k = 0; k <= b.len; k++)
        last[k] = k;
    for (unsigned i = 1; i <= a.len; i++) {
        now[0] = i;
        for (unsigned k = 1; k <= b.len; k++) {
            uint8_t x = lower(a.ptr[i - 1]), y = lower(b.ptr[k - 1]);
            now[k] = least3(last[k] + 1, now[k - 1] + 1, last[k - 1] + (x != y));
            if (i > 1 && k > 1 && x == lower(b.ptr[k - 2]) && y == lower(a.ptr[i - 2]) && before[k - 2] + 1 < now[k])
                now[k] = before[k - 2] + 1;
        }
        unsigned *free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[b.len];
}

struct nearest nearest_of(struct slice wanted)
{
    /* one slip in a short name, one in three letters of a longer one */
    return (struct nearest){.wanted = wanted, .distance = wanted.len < 3 ? 2 : (unsigned)(wanted.len / 3 + 2)};
}

void nearest_try(struct nearest *nearest, struct slice name)
{
    if (!name.len || name.len > NEAREST_MAX || !nearest->wanted.len || nearest->wanted.len > NEAREST_MAX)
        return;
    unsigned far = distance(nearest->wanted, name);
    if (far < nearest->distance && far < name.len && far < nearest->wanted.len) {
        nearest->distance = far;
        nearest->best = name;
    }
}

bool nearest_found(const struct nearest *nearest)
{
    return nearest->best.len > 0;
}
