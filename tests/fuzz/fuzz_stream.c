/* Fuzzes what is believed of the files of streams: a file that was put there instead of a good one, and records of Kafka clients.
 *
 * The first byte says how.
 *   0 mod 3: the rest is the batches of a file (its header is good; with bit 2 the checksums, lengths and offsets of batches are
 *   made right first, or nothing would get past them) whose end the journal names as the input says. It is read, searched and
 *   inspected, sealed by one more write, and read again: no answer but messages that an AMQP publisher could have sent, -EILSEQ,
 *   or -ENOMEM; and what is written behind is read back.
 *   1 mod 3: the rest is a trailer and its index: the same, with good batches before it.
 *   2 mod 3: the rest draws a Kafka record with any headers, `mr-amqp` among them: what comes of it can be written again, and comes
 *   back as it was.
 *
 * covers: src/store/stream_format.c src/store/stream_scan.c src/store/stream_index.c
 * fuzz: -max_len=4096
 */
#include "base/mem.h"
#include "core/fetch.h"
#include "fmt/amqp_props.h"
#include "fmt/crc32c.h"
#include "os/os_sim.h"
#include "store/inspect_streams.h"
#include "store/stream_format.h"
#include "store/streams.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define FILE_BYTES_MAX 65536u
#define STREAM 7u
#define GOOD 20u /* messages of the file before one that was forged */

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const uint8_t uuid[LAYOUT_UUID_LEN] = "fifteen letters";

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "violated: %s\n", what);
    abort();
}

/* ------------------------------------------------------------------------------------------------------------- messages */

static void sound(const struct msg *msg)
{
    struct amqp_props props;
    int64_t expiration_ms;
    must(amqp_props_parse(msg_props(msg), &props), "properties that the engine can send");
    must(amqp_props_acceptable(&props, &expiration_ms, NULL, 0), "properties that a publisher may send");
    must(expiration_ms == msg->expiration_ms && props.priority == msg->priority, "what stands beside them follows");
    must(!(msg->flags & (MSG_MANDATORY | MSG_INVALID)), "no flag of a publish");
    must(((msg->flags & MSG_PERSISTENT) != 0) == (props.delivery_mode == 2), "persistent");
    must(((msg->flags & MSG_HAS_HEADERS) != 0) == ((props.present & AMQP_HEADERS) != 0), "headers");
    must(((msg->flags & MSG_HAS_USER_ID) != 0) == ((props.present & AMQP_USER_ID) != 0), "user id");
    must(((msg->flags & MSG_HAS_REPLY_TO) != 0) == ((props.present & AMQP_REPLY_TO) != 0), "reply to");
}

static bool same(const struct msg *a, const struct msg *b)
{
    return a->flags == b->flags && a->priority == b->priority && a->expiration_ms == b->expiration_ms &&
           slice_equal(msg_exchange(a), msg_exchange(b)) && slice_equal(msg_key(a), msg_key(b)) &&
           slice_equal(msg_props(a), msg_props(b)) && slice_equal(msg_body(a), msg_body(b));
}

static void record_there_and_back(struct slab_heap *heap, const struct msg *msg)
{
    struct stream_scratch scratch = {0};
    struct record_batch_writer batch;
    struct record_reader reader;
    struct record_batch head = record_batch_head(3, 5);
    struct record record;
    struct msg *back = NULL;
    size_t max = RECORD_BATCH_HEADER + (size_t)stream_record_max(msg);
    struct writer w = writer_of(mem_alloc(max), max);
    record_batch_begin(&batch, &w, &head);
    must(stream_record_put(&batch, 5, msg, &scratch) == 0, "the bound of a record holds");
    struct slice bytes = record_batch_finish(&batch, -1);
    must(record_batch_open(bytes, NULL, 0, &head, &reader) == RECORD_OK && record_next(&reader, &record), "a batch");
    must(stream_record_get(&record, heap, &scratch, &back) == 0 && same(msg, back), "a message comes back");
    msg_unref(heap, back);
    mem_free(w.base);
    stream_scratch_fini(&scratch);
}

static void draw_record(struct slab_heap *heap, struct slice bytes)
{
    struct reader r = reader_of(bytes);
    struct record_header headers[40];
    struct record_batch_writer batch;
    struct record_reader reader;
    struct record record;
    struct stream_scratch scratch = {0};
    struct msg *msg = NULL;
    uint8_t shape = reader_u8(&r);
    uint32_t count = shape % 40;
    struct slice key = reader_take(&r, r.left && shape & 64 ? reader_u16(&r) % (r.left + 1) : 0);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t what = reader_u8(&r);
        headers[i].key = what & 1 ? slice_str("mr-amqp") : reader_take(&r, r.left ? what % (r.left + 1) : 0);
        headers[i].has_value = what & 2;
        headers[i].value = reader_take(&r, r.left && what & 4 ? reader_u8(&r) % (r.left + 1) : 0);
        headers[i].value.len = headers[i].has_value ? headers[i].value.len : 0;
    }
    struct slice body = reader_rest(&r);
    struct writer w = writer_of(mem_alloc(FILE_BYTES_MAX), FILE_BYTES_MAX);
    struct record_batch head = record_batch_head(3, 5);
    record_batch_begin(&batch, &w, &head);
    must(record_batch_put(&batch, shape, shape & 64 ? &key : NULL, shape & 128 ? &body : NULL, headers, count), "room");
    must(record_batch_open(record_batch_finish(&batch, -1), NULL, 0, &head, &reader) == RECORD_OK, "a batch");
    must(record_next(&reader, &record), "a record");
    must(stream_record_get(&record, heap, &scratch, &msg) == 0, "every record is a message");
    sound(msg);
    record_there_and_back(heap, msg);
    msg_unref(heap, msg);
    stream_scratch_fini(&scratch);
    mem_free(w.base);
}

/* ---------------------------------------------------------------------------------------------------------------- files */

struct disk {
    struct os_sim *sim;
    struct streams *streams;
    struct slab_heap *heap;
    struct stream_extent forged, tail;
};

static void put32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

/* Offsets, lengths, magic and checksums of what may be batches; how many records they say they have. */
static uint64_t repair(uint8_t *bytes, size_t len)
{
    uint64_t offset = 0;
    while (len >= RECORD_BATCH_HEADER) {
        size_t take = RECORD_BATCH_BEFORE_LEN + (size_t)(bytes[10] << 8 | bytes[11]);
        take = take < RECORD_BATCH_HEADER ? RECORD_BATCH_HEADER : take > len ? len : take;
        uint32_t count = bytes[59] % 4u + 1;
        memset(bytes, 0, 8);
        bytes[7] = (uint8_t)offset;
        put32(bytes + 8, (uint32_t)take - RECORD_BATCH_BEFORE_LEN);
        bytes[16] = 2;
        put32(bytes + 23, count - 1);
        memset(bytes + 57, 0, 3);
        bytes[60] = (uint8_t)count;
        put32(bytes + 17, crc32c(0, bytes + 21, take - 21));
        offset += count;
        bytes += take;
        len -= take;
    }
    return offset;
}

static struct stream_job *job_of(enum stream_job_type type, uint32_t max, uint64_t first, uint64_t until)
{
    struct stream_job *job = stream_job_new(type, max);
    must(job != NULL, "memory");
    job->stream = STREAM;
    job->first = job->next = first;
    job->until = until;
    job->bytes_max = UINT32_MAX;
    job->segment_bytes = LAYOUT_BLOCK;
    return job;
}

static struct stream_job *done(struct disk *disk, struct stream_job *job)
{
    must(streams_submit(disk->streams, &job), "room for a job");
    while (streams_step(disk->streams))
        continue;
    job = streams_take(disk->streams);
    must(job && !streams_take(disk->streams), "one answer");
    return job;
}

static void write_some(struct disk *disk, uint64_t first, uint32_t count)
{
    struct stream_job *job = job_of(STREAM_WRITE, count, first, 0);
    for (; job->count < count; job->count++) {
        struct msg *msg = msg_new(disk->heap, slice_str("x"), slice_str("key"), slice_of("\0\0", 2), 3);
        must(msg != NULL, "memory");
        memset(msg_body_room(msg), 'a' + (int)job->count, 3);
        job->items[job->count] = (struct stream_item){.offset = first + job->count, .timestamp = 1000, .msg = msg};
    }
    job->next = first + count;
    job = done(disk, job);
    must(job->err == 0 && job->tail.end == first + count, "a write behind whatever was there");
    disk->tail = job->tail;
    stream_job_free(disk->heap, &job);
}

static void read_all(struct disk *disk, uint64_t end, bool good)
{
    for (uint64_t at = 0; at < end;) {
        struct stream_job *job = done(disk, job_of(STREAM_READ, 50, at, end));
        must(job->err == 0 || (job->err == -EILSEQ && !good), "messages, or damage");
        must(job->err == 0 || job->count == 0, "all or nothing");
        must(job->err || (job->next > at && job->next <= end), "it goes on");
        for (uint32_t i = 0; i < job->count; i++) {
            must(job->items[i].offset >= at && job->items[i].offset < end, "what was asked for");
            sound(job->items[i].msg);
        }
        at = job->err ? at + 1 : job->next;
        stream_job_free(disk->heap, &job);
    }
}

static void find_some(struct disk *disk, uint64_t end)
{
    for (wall_t timestamp = 0; timestamp < 2000; timestamp += 500) {
        struct stream_job *job = job_of(STREAM_FIND, 0, 0, end);
        job->timestamp = timestamp;
        job = done(disk, job);
        must(job->err == -EILSEQ || (job->err == 0 && job->next <= end), "an offset, or damage");
        stream_job_free(disk->heap, &job);
    }
}

/* Pieces of the file: whole batches by their headers, wherever one begins, with a little room and with much. */
static void fetch_some(struct disk *disk, uint64_t end)
{
    for (uint64_t at = 0; at < end; at += 1 + end / 16) {
        struct fetch *f = fetch_new(FETCH_RECORDS, 2);
        must(f != NULL, "memory");
        f->bytes_max = 1u << 20;
        for (uint32_t i = 0; i < f->count; i++) {
            f->rows[i].stream = STREAM;
            f->rows[i].offset = at;
            f->rows[i].until = end;
            f->rows[i].bytes_max = i ? 1u << 20 : 200;
        }
        struct stream_job *job = done(disk, f->job);
        must(job == f->job, "the same block");
        for (uint32_t i = 0; i < f->count; i++)
            must(f->rows[i].err == 0 || (f->rows[i].err == -EILSEQ && f->rows[i].piece.len == 0), "a piece, or damage");
        fetch_free(&f);
    }
}

static void open_disk(struct disk *disk, const struct stream_extent *sealed, uint32_t count,
                      const struct stream_extent *tail)
{
    char why[400];
    struct streams_options options = {.os = os_sim_os(disk->sim), .dir = "d"};
    memcpy(options.uuid, uuid, sizeof uuid);
    must(streams_open(&options, &disk->streams, why, sizeof why) == 0, why);
    must(streams_keep(disk->streams, STREAM, 0, 0, sealed, count, tail, why, sizeof why) == 0, why);
    must(streams_sweep(disk->streams, why, sizeof why) == 0, why);
}

static void put_file(struct disk *disk, uint64_t base, uint8_t *block, struct slice before, struct slice rest)
{
    char path[64] = "d/str/";
    struct stream_head head = {.stream = STREAM, .base = base};
    memcpy(head.uuid, uuid, sizeof uuid);
    stream_head_put(block, &head);
    stream_name_put(path + strlen(path), &(struct stream_name){.stream = STREAM, .base = base});
    uint8_t *file = mem_alloc(LAYOUT_BLOCK + before.len + rest.len);
    struct writer w = writer_of(file, LAYOUT_BLOCK + before.len + rest.len);
    writer_put(&w, block, LAYOUT_BLOCK);
    writer_slice_put(&w, before);
    writer_slice_put(&w, rest);
    os_sim_put(disk->sim, path, writer_slice(&w));
    mem_free(file);
}

static void inspect(struct disk *disk)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    must(streams_inspect(os_sim_os(disk->sim), "d", true, false, out) == 0, "people are told of it");
    fclose(out);
    free(text);
}

static void forged_batches(struct disk *disk, uint8_t *bytes, size_t len, bool repaired)
{
    uint8_t block[LAYOUT_BLOCK];
    uint64_t end = repaired ? repair(bytes, len) : len ? bytes[0] : 0;
    struct stream_extent extent = {.end = end ? end : 1, .bytes = LAYOUT_BLOCK + len, .max_at = INT64_MAX};
    put_file(disk, 0, block, slice_of(bytes, len), (struct slice){0});
    open_disk(disk, NULL, 0, &extent);
    read_all(disk, extent.end, false);
    find_some(disk, extent.end);
    fetch_some(disk, extent.end);
    write_some(disk, extent.end, 5); /* seals it, with what index there is */
    inspect(disk);
    read_all(disk, extent.end + 5, false);
    find_some(disk, extent.end + 5);
    fetch_some(disk, extent.end + 5);
    streams_close(&disk->streams);
    if (disk->tail.base == 0)
        return;                               /* there was nothing in it, so it was gone on with */
    open_disk(disk, &extent, 1, &disk->tail); /* and once more with the index from the file */
    read_all(disk, extent.end + 5, false);
    find_some(disk, extent.end + 5);
    fetch_some(disk, extent.end + 5);
}

static void forged_trailer(struct disk *disk, uint8_t *bytes, size_t len, bool repaired)
{
    uint8_t block[LAYOUT_BLOCK];
    char path[64] = "d/str/";
    open_disk(disk, NULL, 0, &(struct stream_extent){0});
    write_some(disk, 0, GOOD / 2);
    struct stream_extent extent = disk->tail;
    stream_name_put(path + strlen(path), &(struct stream_name){.stream = STREAM});
    struct slice good = os_sim_peek(disk->sim, path);
    good = slice_of(good.ptr + LAYOUT_BLOCK, good.len - LAYOUT_BLOCK);
    if (repaired && len >= STREAM_TRAILER) {
        uint8_t *trailer = bytes + len - STREAM_TRAILER;
        size_t marks = (len - STREAM_TRAILER) / STREAM_INDEX_ENTRY * STREAM_INDEX_ENTRY;
        memmove(bytes + marks, trailer, STREAM_TRAILER);
        trailer = bytes + marks;
        len = marks + STREAM_TRAILER;
        memcpy(trailer, "MRSI", 4);
        put32(trailer + 4, (uint32_t)(marks / STREAM_INDEX_ENTRY));
        put32(trailer + 8, 0);
        put32(trailer + 12, (uint32_t)extent.bytes);
        put32(trailer + 16, 0);
        put32(trailer + 20, (uint32_t)extent.end);
        memset(trailer + 40, 0, 16);
        put32(trailer + 56, crc32c(0, bytes, marks));
        put32(trailer + 60, crc32c(0, trailer, 60));
    }
    put_file(disk, 0, block, good, slice_of(bytes, len));
    streams_close(&disk->streams);
    struct stream_extent none = {.base = extent.end, .end = extent.end};
    open_disk(disk, &extent, 1, &none);
    read_all(disk, extent.end, false); /* a forged index with good checksums may lead astray, but to no message */
    find_some(disk, extent.end);
    fetch_some(disk, extent.end);
    write_some(disk, extent.end, GOOD / 2);
    inspect(disk);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct slab_heap heap;
    if (len == 0)
        return 0;
    slab_heap_init(&heap);
    uint8_t *copy = mem_alloc(len); /* exactly, for the sanitizer */
    memcpy(copy, bytes + 1, len - 1);
    if (bytes[0] % 3 == 2) {
        draw_record(&heap, slice_of(copy, len - 1));
    } else {
        struct disk disk = {.sim = os_sim_new(1), .heap = &heap};
        struct os *os = os_sim_os(disk.sim);
        must(os->mkdir(os, "d") == 0 && os->mkdir(os, "d/str") == 0, "a disk");
        if (bytes[0] % 3 == 0)
            forged_batches(&disk, copy, len - 1, bytes[0] & 4);
        else
            forged_trailer(&disk, copy, len - 1, bytes[0] & 4);
        streams_close(&disk.streams);
        os_sim_free(&disk.sim);
    }
    mem_free(copy);
    slab_heap_fini(&heap);
    return 0;
}
