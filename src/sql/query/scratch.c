/* Blocks of a file, and which of them are free, see scratch.h. */
#include "sql/query/scratch.h"

#include "base/check.h"
#include "base/mem.h"

void scratch_init(struct scratch_file *s, const struct scratch_disk *disk, uint64_t max)
{
    *s = (struct scratch_file){.disk = disk, .max = max};
}

static void close_file(struct scratch_file *s)
{
    if (s->file)
        s->disk->close(s->file);
    s->file = NULL;
    s->end = s->free_count = 0;
}

void scratch_fini(struct scratch_file *s)
{
    close_file(s);
    mem_free(s->free);
    *s = (struct scratch_file){0};
}

bool scratch_fail(struct scratch_file *s, enum sql_fault fault)
{
    if (s->fault == SQL_FAULT_NONE)
        s->fault = fault;
    return false;
}

/* Room for giving back a block more than there are now, so that this never fails. */
static bool reserve_free(struct scratch_file *s)
{
    if (s->end < s->free_room)
        return true;
    uint32_t room = s->free_room ? 2 * s->free_room : 64;
    uint32_t *more = room > s->free_room ? mem_realloc(s->free, room * sizeof *more) : NULL;
    if (!more)
        return scratch_fail(s, SQL_FAULT_MEMORY);
    s->free = more;
    s->free_room = room;
    return true;
}

bool scratch_put(struct scratch_file *s, const void *block, uint32_t *ret_number)
{
    if (s->fault != SQL_FAULT_NONE)
        return false;
    if (!s->disk || scratch_bytes(s) + SCRATCH_BLOCK > s->max)
        return scratch_fail(s, SQL_FAULT_SCRATCH_FULL);
    if (!s->file && !(s->file = s->disk->open(s->disk->arg)))
        return scratch_fail(s, SQL_FAULT_SCRATCH_LOST);
    if (!s->free_count && !reserve_free(s))
        return false;
    uint32_t number = s->free_count ? s->free[s->free_count - 1] : s->end;
    enum sql_fault fault = s->disk->write(s->file, (uint64_t)number * SCRATCH_BLOCK, block, SCRATCH_BLOCK);
    if (fault != SQL_FAULT_NONE)
        return scratch_fail(s, fault);
    if (s->free_count)
        s->free_count--;
    else
        s->end++;
    *ret_number = number;
    return true;
}

bool scratch_read(struct scratch_file *s, uint32_t number, uint32_t at, void *ret, size_t len)
{
    CHECK(number < s->end && len <= SCRATCH_BLOCK && at <= SCRATCH_BLOCK - len);
    if (s->fault != SQL_FAULT_NONE)
        return false;
    return s->disk->read(s->file, (uint64_t)number * SCRATCH_BLOCK + at, ret, len) ||
           scratch_fail(s, SQL_FAULT_SCRATCH_LOST);
}

void scratch_give(struct scratch_file *s, uint32_t number)
{
    CHECK(number < s->end && s->free_count < s->free_room);
    s->free[s->free_count++] = number;
    if (s->free_count == s->end)
        close_file(s);
}
