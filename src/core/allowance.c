/* Shares of memory, see allowance.h. */
#include "core/allowance.h"

#include "base/check.h"

void allowance_take(struct allowance *allowance, uint64_t bytes)
{
    for (; allowance; allowance = allowance->of)
        allowance->bytes += bytes;
}

void allowance_give(struct allowance *allowance, uint64_t bytes)
{
    for (; allowance; allowance = allowance->of) {
        CHECK(allowance->bytes >= bytes);
        allowance->bytes -= bytes;
    }
}

uint64_t allowance_left(const struct allowance *allowance, uint64_t max)
{
    uint64_t above = allowance->of ? allowance_left(allowance->of, max) : max;
    uint64_t left = above > allowance->bytes ? above - allowance->bytes : 0;
    return allowance->of ? left / 2 : left;
}
