/* Pieces in memory and in a file, see stash.h.
 *
 * The file is one row of pieces, each behind a head of its length and a sum, and is read in the order in which it was written. The sum begins with the
 * piece's number, so that one that stands where another was written is told from it. The file is not synced: it means nothing after a crash. */
#include "sql/server/stash.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/query/table.h"

#define WITHOUT_DISK (1u << 30) /* what may be in memory when there is nowhere else */
#define PIECE_MAX (16u << 20)   /* of a file: what is longer was not written */

struct head {
    uint64_t sum, len;
};

void stash_init(struct stash *s, const struct scratch_disk *disk, size_t memory)
{
    *s = (struct stash){.disk = disk, .memory = disk ? memory : WITHOUT_DISK};
}

void stash_fini(struct stash *s)
{
    if (s->file)
        s->disk->close(s->file);
    for (uint32_t i = 0; i < s->in_memory; i++)
        mem_free((void *)(uintptr_t)s->pieces[i].ptr);
    mem_free(s->pieces);
    mem_free(s->buffer);
    *s = (struct stash){0};
}

static bool stash_fail(struct stash *s, enum sql_fault fault)
{
    if (s->fault == SQL_FAULT_NONE)
        s->fault = fault;
    return false;
}

/* ---- memory ---- */

static bool keep(struct stash *s, struct slice piece)
{
    if (s->in_memory == s->room) {
        uint32_t room = s->room ? 2 * s->room : 16;
        struct slice *more = mem_realloc(s->pieces, room * sizeof *more);
        if (!more)
            return stash_fail(s, SQL_FAULT_MEMORY);
        s->pieces = more;
        s->room = room;
    }
    uint8_t *bytes = mem_alloc(piece.len + !piece.len);
    if (!bytes)
        return stash_fail(s, SQL_FAULT_MEMORY);
    if (piece.len)
        memcpy(bytes, piece.ptr, piece.len);
    s->pieces[s->in_memory++] = slice_of(bytes, piece.len);
    s->bytes += piece.len;
    return true;
}

/* What is behind the buffer's head; NULL: no memory. */
static uint8_t *buffer_for(struct stash *s, size_t len)
{
    if (!s->buffer || len > s->buffer_len) {
        mem_free(s->buffer);
        s->buffer = mem_alloc(sizeof(struct head) + len);
        s->buffer_len = s->buffer ? len : 0;
    }
    if (s->buffer)
        return s->buffer + sizeof(struct head);
    (void)stash_fail(s, SQL_FAULT_MEMORY);
    return NULL;
}

/* ---- the file ---- */

static bool write_piece(struct stash *s, struct slice piece)
{
    if (piece.len > PIECE_MAX)
        return stash_fail(s, SQL_FAULT_LIMIT);
    struct head head = {.sum = key_hash(piece, s->count), .len = piece.len};
    size_t len = sizeof head + piece.len;
    uint8_t *bytes = buffer_for(s, piece.len);
    if (!bytes)
        return false;
    memcpy(s->buffer, &head, sizeof head);
    if (piece.len)
        memcpy(bytes, piece.ptr, piece.len);
    if (!s->file && !(s->file = s->disk->open(s->disk->arg)))
        return stash_fail(s, SQL_FAULT_SCRATCH_LOST);
    enum sql_fault fault = s->disk->write(s->file, s->end, s->buffer, len);
    if (fault != SQL_FAULT_NONE)
        return stash_fail(s, fault);
    s->end += len;
    return true;
}

static bool read_piece(struct stash *s, struct slice *ret)
{
    struct head head;
    if (!s->disk->read(s->file, s->at, &head, sizeof head) || head.len > PIECE_MAX)
        return stash_fail(s, SQL_FAULT_SCRATCH_LOST);
    uint8_t *bytes = buffer_for(s, head.len);
    if (!bytes)
        return false;
    if (!s->disk->read(s->file, s->at + sizeof head, bytes, head.len))
        return stash_fail(s, SQL_FAULT_SCRATCH_LOST);
    *ret = slice_of(bytes, head.len);
    if (head.sum != key_hash(*ret, s->given))
        return stash_fail(s, SQL_FAULT_SCRATCH_LOST);
    s->at += sizeof head + head.len;
    return true;
}

/* ---- both ---- */

bool stash_put(struct stash *s, struct slice piece)
{
    CHECK(!s->given);
    if (s->fault != SQL_FAULT_NONE)
        return false;
    bool fits = s->count == s->in_memory && s->bytes + piece.len <= s->memory;
    if (!fits && !s->disk)
        return stash_fail(s, SQL_FAULT_SCRATCH_FULL);
    if (!(fits ? keep(s, piece) : write_piece(s, piece)))
        return false;
    s->count++;
    return true;
}

bool stash_next(struct stash *s, struct slice *ret)
{
    if (s->fault != SQL_FAULT_NONE)
        return false;
    if (s->given && s->given <= s->in_memory) { /* nobody looks at the one before any more */
        struct slice *before = &s->pieces[s->given - 1];
        mem_free((void *)(uintptr_t)before->ptr);
        *before = (struct slice){0};
    }
    if (s->given == s->count)
        return false;
    if (s->given < s->in_memory)
        *ret = s->pieces[s->given];
    else if (!read_piece(s, ret))
        return false;
    s->given++;
    return true;
}
