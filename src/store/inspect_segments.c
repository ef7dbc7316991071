/* `millrace inspect`, second half: the segment files in the words of docs/formats/segments.md.
 *
 * Pages are found by walking: behind a page stands the next one, or zeros up to the next block. Where a block begins with
 * neither, the walk goes on block by block until it finds a page: what was cut off there, or damaged, is told with its
 * place. A body is read in pieces, so that no length from a file asks for memory. Nothing is written. Any one thread.
 */
#include "store/inspect_segments.h"

#include "base/mem.h"
#include "fmt/json_line.h"
#include "journal/recover.h"
#include "store/page_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define PIECE_BYTES (256u * 1024)

struct inspection {
    struct os *os;
    FILE *out;
    bool pages, json;
    char folder[WAL_PATH_MAX];
    bool uuid_known;
    uint8_t uuid[LAYOUT_UUID_LEN]; /* the journal's */

    uint32_t *numbers;
    size_t numbers_len, numbers_cap;
    uint64_t count, messages, bytes, gaps;

    /* the file that is walked */
    struct segment_head head;
    int fd;
    uint64_t size;
    uint8_t *piece;
};

/* --------------------------------------------------------------------------------------------------------------- files */

bool store_inspect_uuid(struct os *os, const char *dir, uint8_t ret[LAYOUT_UUID_LEN])
{
    for (unsigned i = 0; i < 2; i++) {
        enum super_state state;
        struct layout_super super;
        if (recover_super(os, dir, "ab"[i], &state, &super) == 0 && state == SUPER_GOOD) {
            memcpy(ret, super.uuid, LAYOUT_UUID_LEN);
            return true;
        }
    }
    return false;
}

static int note_file(void *arg, const char *name)
{
    struct inspection *in = arg;
    uint64_t number;
    if (!wal_name(name, 's', &number) || number > UINT32_MAX)
        return 0;
    if (in->numbers_len == in->numbers_cap) {
        size_t cap = in->numbers_cap ? in->numbers_cap * 2 : 64;
        uint32_t *numbers = mem_realloc(in->numbers, cap * sizeof *numbers);
        if (!numbers)
            return -ENOMEM;
        in->numbers = numbers;
        in->numbers_cap = cap;
    }
    in->numbers[in->numbers_len++] = (uint32_t)number;
    return 0;
}

static int compare_numbers(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* --------------------------------------------------------------------------------------------------------------- pages */

/* 1: the body's checksum is right; 0: it is not, or the file ends before; a negative errno. */
static int check_body(struct inspection *in, uint64_t offset, const struct page_head *page, uint32_t seed)
{
    uint64_t at = offset + PAGE_HEADER, left = page->body_len;
    uint32_t crc = seed;
    while (left) {
        size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        int64_t got = in->os->pread(in->os, in->fd, in->piece, n, at);
        if (got < 0)
            return (int)got;
        if ((size_t)got < n)
            return 0;
        crc = layout_crc(crc, in->piece, n);
        at += n;
        left -= n;
    }
    return crc == page->body_crc;
}

static void json_page(struct inspection *in, uint64_t offset, const struct page_head *page, bool whole)
{
    json_line_begin(in->out, "page");
    json_line_number(in->out, "segment", in->head.segment);
    json_line_number(in->out, "offset", offset);
    json_line_number(in->out, "queue_id", page->queue);
    json_line_number(in->out, "lane", page->lane);
    json_line_number(in->out, "messages", page->count);
    json_line_number(in->out, "first_position", page->first);
    json_line_number(in->out, "last_position", page->last);
    json_line_number(in->out, "bytes", PAGE_HEADER + (uint64_t)page->body_len);
    json_line_flag(in->out, "whole", whole);
    json_line_end(in->out);
}

static void json_gap(FILE *out, const char *kind, uint64_t from, uint64_t to)
{
    json_line_begin(out, kind);
    json_line_number(out, "offset", from);
    json_line_number(out, "end", to);
    json_line_end(out);
}

static void print_page(struct inspection *in, uint64_t offset, const struct page_head *page, bool whole)
{
    in->count++;
    in->messages += page->count;
    in->bytes += PAGE_HEADER + page->body_len;
    in->gaps += !whole;
    if (in->json && (in->pages || !whole))
        json_page(in, offset, page, whole);
    else if (in->pages || !whole)
        fprintf(in->out,
                "  page at %-9" PRIu64 " queue %" PRIu64 " lane %u messages %" PRIu32 " positions %" PRIu64
                " to %" PRIu64 " bytes %" PRIu32 "%s\n",
                offset, page->queue, page->lane, page->count, page->first, page->last, PAGE_HEADER + page->body_len,
                whole ? "" : "  NOT WHOLE: its messages do not fit their checksum");
}

static void print_gap(struct inspection *in, uint64_t from, uint64_t to)
{
    if (from == to)
        return;
    in->gaps++;
    if (in->json)
        json_gap(in->out, "segment_gap", from, to);
    else
        fprintf(in->out, "  from %" PRIu64 " to %" PRIu64 " no page: cut off when it was written, or damaged\n", from,
                to);
}

/* Is there a page at offset? 1, 0, or a negative errno. */
static int look(struct inspection *in, uint64_t offset, struct page_head *ret, bool *ret_whole)
{
    uint8_t bytes[PAGE_HEADER];
    int64_t got = offset <= UINT32_MAX ? in->os->pread(in->os, in->fd, bytes, sizeof bytes, offset) : 0;
    if (got < (int64_t)sizeof bytes)
        return got < 0 ? (int)got : 0;
    uint32_t seed = page_seed(in->head.uuid, in->head.segment, (uint32_t)offset);
    if (page_head_get(bytes, seed, ret) != LAYOUT_GOOD)
        return 0;
    int whole = check_body(in, offset, ret, seed);
    *ret_whole = whole > 0;
    return whole < 0 ? whole : 1;
}

static int print_pages(struct inspection *in)
{
    uint64_t at = LAYOUT_BLOCK, gap = at; /* gap: the first block that holds nothing known */
    while (at < in->size) {
        struct page_head page;
        bool whole = false;
        int found = look(in, at, &page, &whole);
        if (found < 0)
            return found;
        if (found) {
            print_gap(in, gap, at);
            print_page(in, at, &page, whole);
            at += PAGE_HEADER + (uint64_t)page.body_len;
            gap = at;
        } else {
            bool zeros = gap == at && at % LAYOUT_BLOCK; /* what a last block is filled up with */
            at = (at / LAYOUT_BLOCK + 1) * LAYOUT_BLOCK;
            gap = zeros ? at : gap;
        }
    }
    if (gap < in->size)
        print_gap(in, gap, in->size);
    return 0;
}

static void json_head(struct inspection *in, uint32_t number, enum layout_verdict verdict)
{
    json_line_begin(in->out, "segment");
    json_line_number(in->out, "segment", number);
    json_line_number(in->out, "bytes", in->size);
    json_line_flag(in->out, "whole", verdict == LAYOUT_GOOD);
    json_line_flag(in->out, "newer", verdict == LAYOUT_NEWER);
    if (verdict == LAYOUT_GOOD) {
        json_line_number(in->out, "truth", in->head.segment);
        json_line_hex(in->out, "uuid", in->head.uuid, LAYOUT_UUID_LEN);
        json_line_flag(in->out, "foreign", in->uuid_known && memcmp(in->uuid, in->head.uuid, LAYOUT_UUID_LEN) != 0);
        json_line_signed(in->out, "time", in->head.wall_ms);
    }
    json_line_end(in->out);
}

static int print_head(struct inspection *in, uint32_t number)
{
    uint8_t block[LAYOUT_BLOCK];
    int64_t got = in->os->size(in->os, in->fd, &in->size);
    if (!got)
        got = in->os->pread(in->os, in->fd, block, sizeof block, 0);
    if (got < 0)
        return (int)got;
    enum layout_verdict verdict = got == sizeof block ? segment_head_get(block, &in->head) : LAYOUT_DAMAGED;
    if (in->json) {
        json_head(in, number, verdict);
        in->gaps += verdict != LAYOUT_GOOD;
        return verdict == LAYOUT_GOOD ? print_pages(in) : 0;
    }
    fprintf(in->out, "file s-%016" PRIx32 "  size %" PRIu64, number, in->size);
    if (verdict != LAYOUT_GOOD) {
        in->gaps++;
        fprintf(in->out, "  %s\n",
                verdict == LAYOUT_NEWER ? "of a newer format"
                                        : "NOT WHOLE: no header; cut off when it was begun, or damaged");
        return 0;
    }
    bool foreign = in->uuid_known && memcmp(in->uuid, in->head.uuid, LAYOUT_UUID_LEN) != 0;
    fprintf(in->out, " time %" PRId64, in->head.wall_ms);
    if (in->head.segment != number)
        fprintf(in->out, "  is in truth s-%016" PRIx32, in->head.segment);
    fprintf(in->out, "%s\n", foreign ? "  of another data folder" : "");
    return print_pages(in);
}

static int print_file(struct inspection *in, uint32_t number)
{
    char path[WAL_PATH_MAX];
    if (!wal_path(path, in->folder, 's', number))
        return -ENAMETOOLONG;
    int err = in->os->open(in->os, path, OS_READ, &in->fd);
    if (err)
        return err == -ENOENT ? 0 : err; /* a running broker has just removed it */
    err = print_head(in, number);
    in->os->close(in->os, in->fd);
    return err;
}

static int print_all(struct inspection *in, const char *dir)
{
    int err = in->os->list(in->os, in->folder, note_file, in);
    if (err)
        return err == -ENOENT ? 0 : err; /* a broker that has never paged, or an older one's folder */
    in->piece = mem_alloc(PIECE_BYTES);
    if (!in->piece)
        return -ENOMEM;
    in->uuid_known = store_inspect_uuid(in->os, dir, in->uuid);
    if (in->numbers_len)
        qsort(in->numbers, in->numbers_len, sizeof *in->numbers, compare_numbers);
    for (size_t i = 0; i < in->numbers_len && !err; i++)
        err = print_file(in, in->numbers[i]);
    if (err)
        return err;
    if (in->json) {
        json_line_begin(in->out, "segments");
        json_line_number(in->out, "files", in->numbers_len);
        json_line_number(in->out, "pages", in->count);
        json_line_number(in->out, "messages", in->messages);
        json_line_number(in->out, "bytes", in->bytes);
        json_line_number(in->out, "not_whole", in->gaps);
        json_line_end(in->out);
        return 0;
    }
    fprintf(in->out, "%zu segment files, %" PRIu64 " pages, %" PRIu64 " messages, %" PRIu64 " bytes of pages\n",
            in->numbers_len, in->count, in->messages, in->bytes);
    if (in->gaps)
        fprintf(in->out, "%" PRIu64 " places are not whole: only the journal knows whether anybody needs them\n",
                in->gaps);
    return 0;
}

int store_inspect(struct os *os, const char *dir, bool pages, bool json, FILE *out)
{
    struct inspection in = {.os = os, .out = out, .pages = pages, .json = json};
    int n = snprintf(in.folder, sizeof in.folder, "%s/seg", dir);
    if (n <= 0 || (size_t)n + 32 > sizeof in.folder)
        return -ENAMETOOLONG;
    int err = print_all(&in, dir);
    mem_free(in.numbers);
    mem_free(in.piece);
    return err;
}
