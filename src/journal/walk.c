/* The reading side of the journal, rule 3 of docs/formats/journal.md section 4: a group counts when it validates and
 * continues the one before it; where none does, the next file may continue exactly there; otherwise the walk ends.
 *
 * Reads 1 MiB at a time through the page cache. Whether the end is a torn tail or damage is recovery's question, not
 * asked here. Thread: the caller's.
 */
#include "journal/walk.h"

#include "base/check.h"
#include "base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define READ_BYTES (1024u * 1024)

bool wal_path(char ret[WAL_PATH_MAX], const char *wal, char kind, uint64_t number)
{
    int n = snprintf(ret, WAL_PATH_MAX, "%s/%c-%016" PRIx64, wal, kind, number);
    return n > 0 && n < WAL_PATH_MAX;
}

bool wal_name(const char *name, char kind, uint64_t *ret_number)
{
    if (name[0] != kind || name[1] != '-' || strlen(name) != 18)
        return false;
    uint64_t number = 0;
    for (const char *at = name + 2; *at; at++) {
        const char *digits = "0123456789abcdef", *digit = strchr(digits, *at);
        if (!digit)
            return false;
        number = number << 4 | (uint64_t)(digit - digits);
    }
    *ret_number = number;
    return true;
}

static void ended(struct walk *walk, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void ended(struct walk *walk, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(walk->reason, sizeof walk->reason, format, args);
    va_end(args);
}

int walk_bytes(struct walk *walk, uint64_t offset, size_t len, const uint8_t **ret)
{
    if (offset >= walk->buf_at && offset - walk->buf_at <= walk->buf_len &&
        len <= walk->buf_len - (size_t)(offset - walk->buf_at)) {
        *ret = walk->buf + (offset - walk->buf_at);
        return 1;
    }
    if (offset > walk->size || len > walk->size - offset)
        return 0;
    size_t cap = walk->size < READ_BYTES ? layout_blocks(walk->size) : READ_BYTES;
    cap = cap < len ? layout_blocks(len) : cap;
    if (cap > walk->buf_cap) {
        mem_free(walk->buf);
        walk->buf_len = walk->buf_cap = 0;
        walk->buf = mem_aligned(LAYOUT_BLOCK, cap);
        if (!walk->buf)
            return -ENOMEM;
        walk->buf_cap = cap;
    }
    uint64_t left = walk->size - offset;
    walk->buf_len = 0;
    int64_t n = walk->os->pread(walk->os, walk->fd, walk->buf, left < walk->buf_cap ? left : walk->buf_cap, offset);
    if (n < 0)
        return (int)n;
    walk->buf_at = offset;
    walk->buf_len = (size_t)n;
    *ret = walk->buf;
    return walk->buf_len >= len;
}

int walk_block(struct walk *walk, uint64_t offset, const uint8_t **ret)
{
    return walk_bytes(walk, offset, LAYOUT_BLOCK, ret);
}

/* Opens file seq and reads its header block. 1: it is there with a good header of this journal; 0: not; or an errno. */
static int open_file(struct walk *walk, uint64_t seq, int *ret_fd, uint64_t *ret_size, struct layout_file *ret_head)
{
    char path[WAL_PATH_MAX];
    if (!wal_path(path, walk->wal, 'w', seq))
        return -ENAMETOOLONG;
    int fd, err = walk->os->open(walk->os, path, OS_READ, &fd);
    if (err == -ENOENT)
        return 0;
    if (err)
        return err;
    uint8_t *block = mem_aligned(LAYOUT_BLOCK, LAYOUT_BLOCK);
    int64_t n = block ? walk->os->size(walk->os, fd, ret_size) : -ENOMEM;
    if (n == 0)
        n = walk->os->pread(walk->os, fd, block, LAYOUT_BLOCK, 0);
    int found = n < 0 ? (int)n : 0;
    if (n == LAYOUT_BLOCK && layout_file_get(block, ret_head) == LAYOUT_GOOD)
        found = ret_head->seq == seq && memcmp(ret_head->uuid, walk->uuid, LAYOUT_UUID_LEN) == 0;
    mem_free(block);
    if (found > 0)
        *ret_fd = fd;
    else
        walk->os->close(walk->os, fd);
    return found;
}

static int enter(struct walk *walk, uint64_t seq, int fd, uint64_t size, const struct layout_file *head)
{
    if (walk->in_file)
        walk->os->close(walk->os, walk->fd);
    walk->in_file = true;
    walk->fd = fd;
    walk->seq = seq;
    walk->size = size;
    walk->head = *head;
    walk->offset = LAYOUT_BLOCK;
    walk->lsn = head->start_lsn;
    walk->chain = head->crc;
    walk->epoch = head->epoch > walk->epoch ? head->epoch : walk->epoch;
    walk->buf_len = 0;
    return walk->on_file ? walk->on_file(walk->arg, walk) : 0;
}

int walk_open(struct walk *walk, struct os *os, const char *wal, const uint8_t uuid[LAYOUT_UUID_LEN], uint64_t seq,
              lsn_t start_lsn, int (*on_file)(void *arg, const struct walk *walk), void *arg)
{
    *walk = (struct walk){
        .os = os, .wal = wal, .seq = seq, .first_seq = seq, .lsn = start_lsn, .on_file = on_file, .arg = arg};
    memcpy(walk->uuid, uuid, LAYOUT_UUID_LEN);
    int fd;
    uint64_t size;
    struct layout_file head;
    int found = open_file(walk, seq, &fd, &size, &head);
    if (found == 0)
        ended(walk, "the file is missing or its header is not valid");
    if (found <= 0)
        return found;
    if (head.start_lsn > start_lsn) {
        ended(walk, "the file begins at lsn %" PRIu64, head.start_lsn);
        os->close(os, fd);
        return 0;
    }
    return enter(walk, seq, fd, size, &head);
}

/* Does the next file continue where this one ends? As open_file; on 1 the walk is in it. */
static int next_file(struct walk *walk)
{
    int fd;
    uint64_t size;
    struct layout_file head;
    int found = open_file(walk, walk->seq + 1, &fd, &size, &head);
    if (found <= 0)
        return found;
    if (head.start_lsn != walk->lsn || head.chain != walk->chain || head.epoch < walk->epoch) {
        walk->os->close(walk->os, fd);
        return 0;
    }
    int stop = enter(walk, walk->seq + 1, fd, size, &head);
    return stop ? stop : 1;
}

/* Is there a group at the offset that continues the walk? 1, 0 with a reason, or a negative errno. */
static int group_here(struct walk *walk, struct layout_group *ret, const uint8_t **ret_bytes)
{
    const uint8_t *bytes;
    int r = walk_bytes(walk, walk->offset, LAYOUT_BLOCK, &bytes);
    if (r <= 0) {
        ended(walk, "the file ends");
        return r;
    }
    enum layout_verdict verdict = layout_group_get(bytes, walk->uuid, ret);
    if (verdict != LAYOUT_GOOD) {
        ended(walk, verdict == LAYOUT_NOT_OURS ? "there is no group header" : "the group header is damaged");
        return 0;
    }
    if (ret->seq != walk->seq || ret->lsn != walk->lsn || ret->epoch < walk->epoch || ret->chain != walk->chain) {
        ended(walk, "the group with lsn %" PRIu64 " does not continue the one before", ret->lsn);
        return 0;
    }
    r = walk_bytes(walk, walk->offset, layout_group_bytes(ret->len), &bytes);
    if (r <= 0) {
        ended(walk, "the file ends inside the group");
        return r;
    }
    if (!layout_body_check(bytes, walk->uuid, ret)) {
        ended(walk, "the checksum of the group's %" PRIu32 " bytes is wrong", ret->len);
        return 0;
    }
    *ret_bytes = bytes;
    return 1;
}

int walk_next(struct walk *walk, struct layout_group *ret, struct slice *ret_body)
{
    const uint8_t *bytes;
    if (!walk->in_file)
        return 0;
    for (;;) {
        int r = group_here(walk, ret, &bytes);
        if (r < 0)
            return r;
        if (r > 0)
            break;
        r = next_file(walk);
        if (r != 1)
            return r;
    }
    walk->offset += layout_group_bytes(ret->len);
    walk->lsn += ret->nrec;
    walk->chain = ret->crc;
    walk->epoch = ret->epoch;
    *ret_body = slice_of(bytes + LAYOUT_GROUP_HEADER, ret->len);
    return 1;
}

void walk_close(struct walk *walk)
{
    if (walk->in_file)
        walk->os->close(walk->os, walk->fd);
    mem_free(walk->buf);
    walk->buf = NULL;
    walk->in_file = false;
}
