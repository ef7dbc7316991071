/* `millrace inspect`, third part: the files of streams in the words of docs/formats/streams.md.
 *
 * Batches are found by walking from header to header; where none follows, the walk ends, for nothing says where the next
 * one would begin. A trailer that is good says where the batches have to end. A batch's checksum is made in pieces, so that no
 * length from a file asks for memory. Nothing is written. Any one thread.
 */
#include "store/inspect_streams.h"

#include "base/mem.h"
#include "fmt/crc32c.h"
#include "fmt/json_line.h"
#include "journal/walk.h"
#include "store/inspect_segments.h"
#include "store/stream_format.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define PIECE_BYTES (256u * 1024)
#define CRC_BEGINS 21u /* in a batch */

struct inspection {
    struct os *os;
    FILE *out;
    bool batches, json;
    char folder[WAL_PATH_MAX];
    bool uuid_known;
    uint8_t uuid[LAYOUT_UUID_LEN]; /* the journal's */

    char (*names)[STREAM_NAME_LEN + 1];
    size_t names_len, names_cap;
    uint64_t count, records, bytes, gaps;
    uint8_t *piece;

    /* the file that is walked */
    int fd;
    uint64_t size;
    struct stream_head head;
};

static int note_file(void *arg, const char *name)
{
    struct inspection *in = arg;
    struct stream_name parts;
    if (!stream_name_get(name, &parts))
        return 0;
    if (in->names_len == in->names_cap) {
        size_t cap = in->names_cap ? in->names_cap * 2 : 64;
        void *names = mem_realloc(in->names, cap * sizeof *in->names);
        if (!names)
            return -ENOMEM;
        in->names = names;
        in->names_cap = cap;
    }
    memcpy(in->names[in->names_len++], name, strlen(name) + 1);
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b); /* in the order of stream, partition, base and generation */
}

/* ------------------------------------------------------------------------------------------------------------- batches */

/* 1: the checksum is right; 0: it is not, or the file ends before; a negative errno. */
static int check_batch(struct inspection *in, uint64_t at, const struct record_batch *batch)
{
    uint64_t left = batch->bytes - CRC_BEGINS;
    uint32_t crc = 0;
    for (at += CRC_BEGINS; left;) {
        size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        int64_t got = in->os->pread(in->os, in->fd, in->piece, n, at);
        if (got < 0)
            return (int)got;
        if ((size_t)got < n)
            return 0;
        crc = crc32c(crc, in->piece, n);
        at += n;
        left -= n;
    }
    return crc == batch->crc;
}

/* Is there a batch that may follow? 1, 0, or a negative errno. */
static int look(struct inspection *in, uint64_t at, uint64_t end, uint64_t expected, struct record_batch *ret)
{
    uint8_t bytes[RECORD_BATCH_HEADER];
    if (end - at < sizeof bytes)
        return 0;
    int64_t got = in->os->pread(in->os, in->fd, bytes, sizeof bytes, at);
    if (got < (int64_t)sizeof bytes)
        return got < 0 ? (int)got : 0;
    return record_batch_peek(slice_of(bytes, sizeof bytes), ret) == RECORD_OK && ret->bytes <= end - at &&
           ret->bytes >= RECORD_BATCH_HEADER && ret->base_offset >= 0 && (uint64_t)ret->base_offset == expected &&
           ret->last_offset_delta >= 0;
}

static void json_batch(struct inspection *in, uint64_t at, const struct record_batch *batch, bool whole)
{
    json_line_begin(in->out, "batch");
    json_line_number(in->out, "stream", in->head.stream);
    json_line_number(in->out, "partition", in->head.partition);
    json_line_number(in->out, "base", in->head.base);
    json_line_number(in->out, "offset", at);
    json_line_signed(in->out, "first", batch->base_offset);
    json_line_signed(in->out, "last", record_batch_last_offset(batch));
    json_line_number(in->out, "records", batch->count);
    json_line_signed(in->out, "first_time", batch->base_timestamp);
    json_line_signed(in->out, "last_time", batch->max_timestamp);
    json_line_number(in->out, "bytes", batch->bytes);
    json_line_number(in->out, "compression", batch->compression);
    json_line_flag(in->out, "whole", whole);
    json_line_end(in->out);
}

static void json_end(struct inspection *in, uint64_t at, uint64_t end, const struct stream_trailer *sealed)
{
    if (at < end) {
        json_line_begin(in->out, "stream_gap");
        json_line_number(in->out, "offset", at);
        json_line_number(in->out, "end", end);
        json_line_end(in->out);
    }
    if (sealed) {
        json_line_begin(in->out, "stream_trailer");
        json_line_number(in->out, "batches_end", sealed->bytes);
        json_line_number(in->out, "end", sealed->end);
        json_line_signed(in->out, "first_time", sealed->first_at);
        json_line_signed(in->out, "last_time", sealed->max_at);
        json_line_number(in->out, "index_entries", sealed->count);
        json_line_end(in->out);
    }
}

static void print_batch(struct inspection *in, uint64_t at, const struct record_batch *batch, bool whole)
{
    const char *packed = compress_name(batch->compression);
    in->count++;
    in->records += batch->count;
    in->bytes += batch->bytes;
    in->gaps += !whole;
    if (in->json && (in->batches || !whole))
        json_batch(in, at, batch, whole);
    else if (in->batches || !whole)
        fprintf(in->out,
                "  batch at %-9" PRIu64 " offsets %" PRId64 " to %" PRId64 " records %" PRIu32 " times %" PRId64
                " to %" PRId64 " bytes %" PRIu32 "%s%s%s\n",
                at, batch->base_offset, record_batch_last_offset(batch), batch->count, batch->base_timestamp,
                batch->max_timestamp, batch->bytes, batch->compression ? " packed " : "",
                !batch->compression ? ""
                : packed            ? packed
                                    : "in an unknown way",
                whole ? "" : "  NOT WHOLE: its records do not fit their checksum");
}

/* The trailer of a sealed file; false: there is none. */
static bool find_trailer(struct inspection *in, struct stream_trailer *ret)
{
    uint8_t bytes[STREAM_TRAILER];
    uint32_t crc;
    return in->size >= LAYOUT_BLOCK + sizeof bytes &&
           in->os->pread(in->os, in->fd, bytes, sizeof bytes, in->size - sizeof bytes) == sizeof bytes &&
           stream_trailer_get(bytes, ret, &crc) == LAYOUT_GOOD &&
           ret->bytes + stream_trailer_len(ret->count) == in->size;
}

static int print_batches(struct inspection *in)
{
    struct stream_trailer trailer = {0};
    struct record_batch batch;
    bool sealed = find_trailer(in, &trailer);
    uint64_t at = LAYOUT_BLOCK, end = sealed ? trailer.bytes : in->size, expected = in->head.base;
    int found;
    while (at < end && (found = look(in, at, end, expected, &batch)) != 0) {
        int whole = found < 0 ? found : check_batch(in, at, &batch);
        if (whole < 0)
            return whole;
        print_batch(in, at, &batch, whole);
        at += batch.bytes;
        expected = (uint64_t)record_batch_last_offset(&batch) + 1;
    }
    if (in->json) {
        in->gaps += at < end;
        json_end(in, at, end, sealed ? &trailer : NULL);
        return 0;
    }
    if (at < end) {
        in->gaps++;
        fprintf(in->out, "  from %" PRIu64 " to %" PRIu64 " no batch: cut off when it was written, or damaged\n", at,
                end);
    }
    if (sealed)
        fprintf(in->out,
                "  sealed: batches end at %" PRIu64 " before offset %" PRIu64 ", times %" PRId64 " to %" PRId64
                ", index of %" PRIu32 "\n",
                trailer.bytes, trailer.end, trailer.first_at, trailer.max_at, trailer.count);
    return 0;
}

/* --------------------------------------------------------------------------------------------------------------- files */

static void json_head(struct inspection *in, const char *name, enum layout_verdict verdict)
{
    json_line_begin(in->out, "stream_file");
    json_line_text(in->out, "name", name);
    json_line_number(in->out, "bytes", in->size);
    json_line_flag(in->out, "whole", verdict == LAYOUT_GOOD);
    json_line_flag(in->out, "newer", verdict == LAYOUT_NEWER);
    if (verdict == LAYOUT_GOOD) {
        json_line_number(in->out, "stream", in->head.stream);
        json_line_number(in->out, "partition", in->head.partition);
        json_line_number(in->out, "base", in->head.base);
        json_line_number(in->out, "generation", in->head.generation);
        json_line_hex(in->out, "uuid", in->head.uuid, LAYOUT_UUID_LEN);
        json_line_signed(in->out, "time", in->head.wall_ms);
    }
    json_line_end(in->out);
}

static int print_head(struct inspection *in, const char *name)
{
    uint8_t block[LAYOUT_BLOCK];
    char truth[STREAM_NAME_LEN + 1];
    int64_t got = in->os->size(in->os, in->fd, &in->size);
    if (!got)
        got = in->os->pread(in->os, in->fd, block, sizeof block, 0);
    if (got < 0)
        return (int)got;
    enum layout_verdict verdict = got == sizeof block ? stream_head_get(block, &in->head) : LAYOUT_DAMAGED;
    if (in->json) {
        json_head(in, name, verdict);
        in->gaps += verdict != LAYOUT_GOOD;
        return verdict == LAYOUT_GOOD ? print_batches(in) : 0;
    }
    fprintf(in->out, "file str/%s  size %" PRIu64, name, in->size);
    if (verdict != LAYOUT_GOOD) {
        in->gaps++;
        fprintf(in->out, "  %s\n",
                verdict == LAYOUT_NEWER ? "of a newer format"
                                        : "NOT WHOLE: no header; cut off when it was begun, or damaged");
        return 0;
    }
    bool foreign = in->uuid_known && memcmp(in->uuid, in->head.uuid, LAYOUT_UUID_LEN) != 0;
    stream_name_put(truth, &(struct stream_name){.stream = in->head.stream,
                                                 .partition = in->head.partition,
                                                 .base = in->head.base,
                                                 .generation = in->head.generation});
    fprintf(in->out, " stream %" PRIu64 " partition %" PRIu32 " from offset %" PRIu64 " time %" PRId64, in->head.stream,
            in->head.partition, in->head.base, in->head.wall_ms);
    if (in->head.generation)
        fprintf(in->out, "  compacted, generation %" PRIu32, in->head.generation);
    if (strcmp(truth, name) != 0)
        fprintf(in->out, "  is in truth %s", truth);
    fprintf(in->out, "%s\n", foreign ? "  of another data folder" : "");
    return print_batches(in);
}

static int print_file(struct inspection *in, const char *name)
{
    char path[WAL_PATH_MAX + STREAM_NAME_LEN + 2];
    snprintf(path, sizeof path, "%s/%s", in->folder, name);
    int err = in->os->open(in->os, path, OS_READ, &in->fd);
    if (err)
        return err == -ENOENT ? 0 : err; /* a running broker has just removed it */
    err = print_head(in, name);
    in->os->close(in->os, in->fd);
    return err;
}

static int print_all(struct inspection *in, const char *dir)
{
    int err = in->os->list(in->os, in->folder, note_file, in);
    if (err)
        return err == -ENOENT ? 0 : err; /* an older broker's folder */
    if (!in->names_len)
        return 0;
    in->piece = mem_alloc(PIECE_BYTES);
    if (!in->piece)
        return -ENOMEM;
    in->uuid_known = store_inspect_uuid(in->os, dir, in->uuid);
    qsort(in->names, in->names_len, sizeof *in->names, compare_names);
    for (size_t i = 0; i < in->names_len && !err; i++)
        err = print_file(in, in->names[i]);
    if (err)
        return err;
    if (in->json) {
        json_line_begin(in->out, "streams");
        json_line_number(in->out, "files", in->names_len);
        json_line_number(in->out, "batches", in->count);
        json_line_number(in->out, "records", in->records);
        json_line_number(in->out, "bytes", in->bytes);
        json_line_number(in->out, "not_whole", in->gaps);
        json_line_end(in->out);
        return 0;
    }
    fprintf(in->out, "%zu files of streams, %" PRIu64 " batches, %" PRIu64 " records, %" PRIu64 " bytes of batches\n",
            in->names_len, in->count, in->records, in->bytes);
    if (in->gaps)
        fprintf(in->out, "%" PRIu64 " places are not whole: only the journal knows whether anybody needs them\n",
                in->gaps);
    return 0;
}

int streams_inspect(struct os *os, const char *dir, bool batches, bool json, FILE *out)
{
    struct inspection in = {.os = os, .out = out, .batches = batches, .json = json};
    int n = snprintf(in.folder, sizeof in.folder, "%s/str", dir);
    if (n <= 0 || (size_t)n >= sizeof in.folder)
        return -ENAMETOOLONG;
    int err = print_all(&in, dir);
    mem_free(in.names);
    mem_free(in.piece);
    return err;
}
