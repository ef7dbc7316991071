/* A stream's file from end to end, see stream_verify.h and docs/formats/streams.md. Any one thread. */
#include "store/stream_verify.h"

#include "base/mem.h"
#include "store/stream_format.h"

#include <errno.h>

#define PIECE_BYTES (256u * 1024)

struct pieces { /* bytes [at, at + len) of the file */
    struct stream_verify *verify;
    int fd;
    uint8_t *bytes;
    size_t cap, len;
    uint64_t at;
};

static int wrong(struct stream_verify *verify, uint64_t position, const char *what)
{
    verify->position = position;
    verify->what = what;
    return -EILSEQ;
}

/* Makes len bytes from position on readable. 0, -EILSEQ: the file is shorter, or a negative errno. */
static int fetch(struct pieces *pieces, uint64_t position, size_t len, const uint8_t **ret)
{
    struct stream_verify *verify = pieces->verify;
    if (position < pieces->at || position + len > pieces->at + pieces->len) {
        size_t cap = len < PIECE_BYTES ? PIECE_BYTES : len;
        if (cap > pieces->cap) {
            mem_free(pieces->bytes);
            pieces->cap = 0;
            pieces->bytes = mem_alloc(cap);
            if (!pieces->bytes)
                return -ENOMEM;
            pieces->cap = cap;
        }
        pieces->len = 0;
        int64_t got = verify->os->pread(verify->os, pieces->fd, pieces->bytes, pieces->cap, position);
        if (got < 0)
            return (int)got;
        pieces->at = position;
        pieces->len = (size_t)got;
        if (verify->on_bytes)
            verify->on_bytes(verify->arg, (uint64_t)got);
    }
    if (pieces->len < len)
        return wrong(verify, position, "the file ends here");
    *ret = pieces->bytes + (position - pieces->at);
    return 0;
}

static int verify_head(struct pieces *pieces)
{
    struct stream_verify *v = pieces->verify;
    struct stream_head head;
    const uint8_t *block;
    uint64_t size;
    v->head_bad = true;
    int err = v->os->size(v->os, pieces->fd, &size);
    if (!err && size < v->extent.bytes)
        return wrong(v, size, "the file is too short");
    if (!err)
        err = fetch(pieces, 0, LAYOUT_BLOCK, &block);
    if (err)
        return err;
    enum layout_verdict verdict = stream_head_get(block, &head);
    if (verdict == LAYOUT_NEWER)
        return wrong(v, 0, "it was written by a newer version of this program");
    if (verdict != LAYOUT_GOOD)
        return wrong(v, 0, "the file's header is damaged");
    if (memcmp(head.uuid, v->uuid, LAYOUT_UUID_LEN) != 0)
        return wrong(v, 0, "it belongs to another data folder");
    if (head.stream != v->stream || head.partition != v->partition || head.base != v->extent.base ||
        head.generation != v->extent.generation)
        return wrong(v, 0, "it is in truth another file: names were swapped");
    v->head_bad = false;
    return 0;
}

static int verify_batch(struct pieces *pieces, uint64_t *position)
{
    struct stream_verify *v = pieces->verify;
    struct record_batch batch;
    const uint8_t *bytes;
    uint64_t left = v->extent.bytes - *position;
    if (left < RECORD_BATCH_HEADER)
        return wrong(v, *position, "there is no room for a batch");
    int err = fetch(pieces, *position, RECORD_BATCH_HEADER, &bytes);
    if (err)
        return err;
    if (record_batch_peek(slice_of(bytes, RECORD_BATCH_HEADER), &batch) != RECORD_OK)
        return wrong(v, *position, "there is no batch of records");
    if (batch.bytes > left || batch.bytes < RECORD_BATCH_HEADER)
        return wrong(v, *position, "the batch is longer than the file");
    if (batch.base_offset < 0 || (uint64_t)batch.base_offset != v->offset || batch.last_offset_delta < 0 ||
        (uint64_t)record_batch_last_offset(&batch) >= v->extent.end)
        return wrong(v, *position, "the batch has another offset");
    err = fetch(pieces, *position, batch.bytes, &bytes);
    if (err)
        return err;
    if (!record_batch_crc_ok(slice_of(bytes, batch.bytes)))
        return wrong(v, *position, "the checksum of the batch is wrong");
    *position += batch.bytes;
    v->offset = (uint64_t)record_batch_last_offset(&batch) + 1;
    v->records += batch.count;
    return 0;
}

/* Index and trailer: without them the index is made again, so only what is there and wrong counts. */
static int verify_trailer(struct pieces *pieces)
{
    struct stream_verify *v = pieces->verify;
    struct stream_trailer trailer;
    const uint8_t *bytes;
    uint32_t crc;
    uint64_t size;
    int err = v->os->size(v->os, pieces->fd, &size);
    if (err || size < v->extent.bytes + STREAM_TRAILER)
        return err;
    err = fetch(pieces, size - STREAM_TRAILER, STREAM_TRAILER, &bytes);
    if (err)
        return err;
    if (stream_trailer_get(bytes, &trailer, &crc) != LAYOUT_GOOD || trailer.bytes != v->extent.bytes ||
        trailer.end != v->extent.end || size != trailer.bytes + stream_trailer_len(trailer.count))
        return wrong(v, v->extent.bytes, "index or trailer are damaged; the index is made again from the batches");
    size_t len = (size_t)trailer.count * STREAM_INDEX_ENTRY;
    struct stream_mark *marks = mem_alloc((trailer.count + 1) * sizeof *marks);
    if (!marks)
        return -ENOMEM;
    err = fetch(pieces, trailer.bytes, len, &bytes);
    if (!err && !stream_marks_get(slice_of(bytes, len), crc, trailer.bytes, marks))
        err = wrong(v, v->extent.bytes, "index or trailer are damaged; the index is made again from the batches");
    mem_free(marks);
    return err;
}

int stream_verify(struct stream_verify *v, int fd)
{
    struct pieces pieces = {.verify = v, .fd = fd};
    uint64_t position = LAYOUT_BLOCK;
    v->offset = v->extent.base;
    v->records = 0;
    v->what = NULL;
    int err = verify_head(&pieces);
    while (!err && position < v->extent.bytes)
        err = verify_batch(&pieces, &position);
    if (!err && v->offset != v->extent.end)
        err = wrong(v, position, "the file ends before its last record");
    if (!err && v->sealed)
        err = verify_trailer(&pieces);
    mem_free(pieces.bytes);
    return err;
}
