/* stream_rig: the stream store of a rig: records in memory, served in order. Each log has its own, a copy of the log a copy of
 * it; a start cuts it off behind what the journal says is synced, as the real one is. For this folder's tests only. */
#ifndef MILLRACE_CORE_STREAM_RIG_TEST_H
#define MILLRACE_CORE_STREAM_RIG_TEST_H

#include "core/broker.h"
#include "fmt/record_batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RIG_STREAM_FN static __attribute__((unused))

struct rig_stream_record {
    uint64_t stream, offset;
    uint32_t partition;
    wall_t timestamp;
    struct msg *msg;             /* of nobody's heap */
    bool transactional, control; /* of a batch of producer: */
    int64_t producer;
};

struct rig_stream_part { /* a partition's open segment */
    uint64_t stream;
    uint32_t partition;
    struct stream_extent tail;
};

struct rig_streams {
    struct rig_stream_record *records;
    struct rig_stream_part *parts;
    size_t count, max, part_count;
    unsigned fail_writes, fail_syncs; /* so many more fail */
    unsigned writes, reads, seals, drops, rewrites, replacements, given_up;
    unsigned aborted_told; /* with KEYS and REWRITE */
    int read_err, rewrite_err;
    unsigned fetches;   /* jobs */
    unsigned blind;     /* so many fetches find nothing, and may come again */
    bool dead;          /* the first record of what a share group is given is nothing for its members */
    uint64_t keys_room; /* keys of so many offsets have room; 0: all */
    bool nothing_won;
    bool batches;           /* pieces are record batches, as in files, and not texts; … */
    struct compress *packs; /* … packed by it; NULL: not packed */
};

RIG_STREAM_FN struct rig_stream_part *rig_stream_part(struct rig_streams *all, uint64_t stream, uint32_t partition)
{
    for (size_t i = 0; i < all->part_count; i++)
        if (all->parts[i].stream == stream && all->parts[i].partition == partition)
            return &all->parts[i];
    all->parts = realloc(all->parts, (all->part_count + 1) * sizeof *all->parts);
    all->parts[all->part_count] = (struct rig_stream_part){.stream = stream, .partition = partition};
    return &all->parts[all->part_count++];
}

RIG_STREAM_FN void rig_stream_put(struct rig_streams *all, struct rig_stream_record record)
{
    if (all->count == all->max) {
        all->max = all->max ? all->max * 2 : 64;
        all->records = realloc(all->records, all->max * sizeof *all->records);
    }
    struct msg *copy = calloc(1, msg_size(record.msg));
    memcpy(copy, record.msg, msg_size(record.msg));
    record.msg = copy;
    all->records[all->count++] = record;
}

RIG_STREAM_FN struct rig_streams *rig_streams_copy(const struct rig_streams *from)
{
    struct rig_streams *all = calloc(1, sizeof *all);
    all->batches = from && from->batches;
    for (size_t i = 0; from && i < from->count; i++)
        rig_stream_put(all, from->records[i]);
    return all;
}

RIG_STREAM_FN void rig_streams_free(struct rig_streams *all)
{
    for (size_t i = 0; i < all->count; i++)
        free(all->records[i].msg);
    free(all->records);
    free(all->parts);
    free(all);
}

/* Forgets the records of a partition from `first` to before `until`. */
RIG_STREAM_FN void rig_stream_cut(struct rig_streams *all, uint64_t stream, uint32_t partition, uint64_t first,
                                  uint64_t until)
{
    size_t kept = 0;
    for (size_t i = 0; i < all->count; i++) {
        struct rig_stream_record *r = &all->records[i];
        if (r->stream == stream && r->partition == partition && r->offset >= first && r->offset < until)
            free(r->msg);
        else
            all->records[kept++] = *r;
    }
    all->count = kept;
}

/* For broker_streams, after a replay. */
RIG_STREAM_FN int rig_stream_keep(void *arg, const struct stream_files *files)
{
    struct rig_streams *all = arg;
    uint64_t next = files->sealed_count ? files->sealed[0].base : files->tail.base;
    for (uint32_t i = 0; i < files->sealed_count; i++) {
        CHECK(files->sealed[i].base == next && files->sealed[i].end > next);
        next = files->sealed[i].end;
    }
    CHECK(next <= files->tail.base && files->start <= files->tail.end + 1000000);
    rig_stream_cut(all, files->stream, files->partition, files->tail.end, UINT64_MAX);
    uint64_t have = 0;
    for (size_t i = 0; i < all->count; i++)
        have += all->records[i].stream == files->stream && all->records[i].partition == files->partition &&
                all->records[i].offset >= files->start;
    CHECK(files->start >= files->tail.end || have == files->tail.end - files->start); /* R1 */
    rig_stream_part(all, files->stream, files->partition)->tail = files->tail;
    return 0;
}

RIG_STREAM_FN void rig_stream_put_item(struct rig_streams *all, const struct stream_job *job, uint64_t offset,
                                       wall_t timestamp, struct msg *msg)
{
    rig_stream_put(
        all,
        (struct rig_stream_record){
            .stream = job->stream, .partition = job->partition, .offset = offset, .timestamp = timestamp, .msg = msg});
}

/* What is read back of a batch are its records, as messages. */
RIG_STREAM_FN void rig_stream_put_batch(struct rig_streams *all, const struct stream_job *job,
                                        const struct stream_item *item)
{
    struct record_batch head;
    struct record_reader r;
    struct record record;
    struct slice body = msg_body(item->msg);
    struct compress *z =
        record_batch_peek(body, &head) == RECORD_OK && head.compression != COMPRESS_NONE ? compress_new() : NULL;
    CHECK(record_batch_open(body, z, 16 << 20, &head, &r) == RECORD_OK);
    CHECK(record_batch_crc_ok(msg_body(item->msg)) && (uint64_t)head.base_offset == item->offset);
    while (record_next(&r, &record)) {
        struct msg *msg = calloc(1, sizeof *msg + record.key.len + 2 + record.value.len);
        msg->key_len = (uint8_t)record.key.len;
        msg->props_len = 2;
        msg->body_len = (uint32_t)record.value.len;
        if (record.key.len)
            memcpy(msg->bytes, record.key.ptr, record.key.len);
        memcpy(msg_body_room(msg), record.value.ptr, record.value.len);
        rig_stream_put_item(all, job, (uint64_t)record.offset, record.timestamp, msg);
        struct rig_stream_record *put = &all->records[all->count - 1];
        put->transactional = head.transactional;
        put->control = head.control;
        put->producer = head.producer_id;
        free(msg);
    }
    CHECK(record_reader_ok(&r));
    compress_free(&z);
}

RIG_STREAM_FN void rig_stream_write(struct rig_streams *all, struct stream_job *job)
{
    struct rig_stream_part *part = rig_stream_part(all, job->stream, job->partition);
    struct stream_extent *tail = &part->tail;
    bool old = job->seal_before && tail->end > tail->base && tail->first_at < job->seal_before;
    CHECK(tail->end == job->first || tail->bytes == 0);
    job->sealed = (struct stream_extent){0};
    if (tail->bytes > job->segment_bytes || old) {
        job->sealed = *tail;
        tail->bytes = 0;
        all->seals++;
    }
    if (tail->bytes == 0)
        *tail = (struct stream_extent){
            .base = job->first, .end = job->first, .bytes = 4096, .first_at = job->items[0].timestamp};
    for (uint32_t i = 0; i < job->count; i++) {
        const struct stream_item *item = &job->items[i];
        CHECK(item->offset == tail->end);
        if (item->msg->flags & MSG_BATCH)
            rig_stream_put_batch(all, job, item);
        else
            rig_stream_put_item(all, job, item->offset, item->timestamp, item->msg);
        tail->end += msg_offsets(item->msg);
        tail->bytes += msg_size(item->msg);
        tail->max_at = item->timestamp > tail->max_at ? item->timestamp : tail->max_at;
    }
    job->tail = *tail;
    all->writes++;
}

RIG_STREAM_FN void rig_stream_read(struct rig_streams *all, struct slab_heap *heap, struct stream_job *job)
{
    uint64_t next = job->first;
    size_t bytes = 0;
    for (size_t i = 0; i < all->count && job->count < job->max; i++) {
        const struct rig_stream_record *r = &all->records[i];
        if (r->stream != job->stream || r->partition != job->partition || r->offset < job->first)
            continue;
        if (r->offset >= job->until || (job->count && bytes + msg_size(r->msg) > job->bytes_max))
            break;
        if (r->control || (r->transactional && aborted_has(job->aborted, job->aborted_count, r->producer, r->offset))) {
            next = r->offset + 1;
            continue;
        }
        struct msg *msg = msg_new(heap, msg_exchange(r->msg), msg_key(r->msg), msg_props(r->msg), r->msg->body_len);
        if (!msg) {
            job->err = -12;
            return;
        }
        msg->flags = r->msg->flags;
        if (msg->body_len)
            memcpy(msg_body_room(msg), msg_body(r->msg).ptr, msg->body_len);
        job->items[job->count++] = (struct stream_item){r->offset, r->timestamp, msg};
        bytes += msg_size(msg);
        next = r->offset + 1;
    }
    job->next = next > job->first ? next : job->until;
    all->reads++;
}

RIG_STREAM_FN void rig_stream_find(struct rig_streams *all, struct stream_job *job)
{
    job->next = job->until;
    job->found_at = -1;
    for (size_t i = 0; i < all->count; i++) {
        const struct rig_stream_record *r = &all->records[i];
        if (r->stream == job->stream && r->partition == job->partition && r->offset >= job->first &&
            r->offset < job->next && r->timestamp >= job->timestamp) {
            job->next = r->offset;
            job->found_at = r->timestamp;
        }
    }
}

/* A piece of a fetch: the records' bodies, a blank behind each. */
struct rig_file {
    struct counted_file handle; /* first */
    char bytes[];
};

RIG_STREAM_FN int64_t rig_file_read(struct counted_file *handle, void *ret, size_t len, uint64_t at)
{
    memcpy(ret, ((const struct rig_file *)handle)->bytes + at, len);
    return (int64_t)len;
}

RIG_STREAM_FN void rig_file_close(struct counted_file *handle)
{
    free(handle);
}

RIG_STREAM_FN const char *rig_piece(const struct file_piece *piece)
{
    return piece->file ? ((const struct rig_file *)piece->file)->bytes : "";
}

RIG_STREAM_FN void rig_stream_fetch_row(const struct rig_streams *all, struct fetch_row *row, size_t room, bool one)
{
    char text[8192] = "";
    size_t len = 0, max = row->bytes_max < room ? row->bytes_max : room;
    for (size_t i = 0; i < all->count; i++) {
        const struct rig_stream_record *r = &all->records[i];
        if (r->stream != row->stream || r->partition != row->partition || r->offset < row->offset)
            continue;
        size_t more = r->msg->body_len + 1;
        if (r->offset >= row->until || (len + more > max && !(one && !len)) || len + more >= sizeof text ||
            (len && row->enough && r->offset >= row->enough))
            break;
        row->base = len ? row->base : r->offset;
        row->next = r->offset + 1;
        len += (size_t)snprintf(text + len, sizeof text - len, "%.*s ", SLICE_ARG(msg_body(r->msg)));
    }
    if (!len)
        return;
    struct rig_file *file = calloc(1, sizeof *file + len + 1);
    file->handle = (struct counted_file){.refs = 1, .fd = -1, .read = rig_file_read, .close = rig_file_close};
    memcpy(file->bytes, text, len);
    row->piece = (struct file_piece){.file = &file->handle, .len = len};
}

/* The same as one record batch. */
RIG_STREAM_FN void rig_stream_fetch_batch(const struct rig_streams *all, struct fetch_row *row)
{
    size_t room = 512 * 1024, at = 0; /* for a piece of a snapshot, too */
    struct rig_file *file = calloc(1, sizeof *file + room);
    struct writer w = writer_of(file->bytes, room);
    struct record_batch_writer b;
    for (size_t i = 0; i < all->count; i++) {
        const struct rig_stream_record *r = &all->records[i];
        if (r->stream != row->stream || r->partition != row->partition || r->offset < row->offset || r->control ||
            r->offset >= row->until)
            continue;
        struct record_batch head = record_batch_head((int64_t)r->offset, r->timestamp);
        if (!at++)
            record_batch_begin(&b, &w, &head);
        struct record record = {.offset = (int64_t)r->offset,
                                .timestamp = r->timestamp,
                                .has_value = r->msg->body_len > 0, /* what has no bytes stands for NULL here */
                                .has_key = r->msg->key_len > 0,
                                .key = msg_key(r->msg),
                                .value = msg_body(r->msg)};
        if (!record_batch_add(&b, &record))
            break;
    }
    if (!at) {
        free(file);
        return;
    }
    size_t len = record_batch_finish(&b, -1).len;
    if (all->packs) {
        uint8_t *plain = malloc(len);
        memcpy(plain, file->bytes, len);
        w = writer_of(file->bytes, room);
        CHECK(record_batch_repack(slice_of(plain, len), COMPRESS_GZIP, COMPRESS_LEVEL_DEFAULT, all->packs, room, &w) ==
              RECORD_OK);
        len = writer_slice(&w).len;
        free(plain);
    }
    file->handle = (struct counted_file){.refs = 1, .fd = -1, .read = rig_file_read, .close = rig_file_close};
    row->piece = (struct file_piece){.file = &file->handle, .len = len};
}

RIG_STREAM_FN void rig_stream_fetch(struct rig_streams *all, struct fetch *fetch)
{
    size_t room = fetch->bytes_max;
    bool one = true;
    all->fetches++;
    if (all->blind && all->blind--)
        return;
    for (uint32_t i = 0; i < fetch->count; i++) {
        struct fetch_row *row = &fetch->rows[i];
        if (row->result != FETCH_OK || row->until <= row->offset)
            continue;
        row->err = all->read_err;
        if (all->dead && row->enough) {
            row->runs = mem_alloc(sizeof *row->runs);
            CHECK(row->runs);
            row->runs[row->run_count++] = (struct offset_run){.first = row->offset, .last = row->offset};
        }
        if (row->err)
            continue;
        if (fetch->kind == FETCH_OFFSETS || row->at == FETCH_AT_TIME) {
            struct stream_job job = {.stream = row->stream,
                                     .partition = row->partition,
                                     .first = row->offset,
                                     .until = row->until,
                                     .timestamp = row->time};
            rig_stream_find(all, &job);
            row->offset = job.next;
            row->time = job.found_at;
            continue;
        }
        if (all->batches)
            rig_stream_fetch_batch(all, row);
        else
            rig_stream_fetch_row(all, row, room, one);
        room -= row->piece.len < room ? row->piece.len : room;
        one = one && !row->piece.len;
    }
}

/* A file with the same records and fewer bytes. */
RIG_STREAM_FN void rig_stream_rewrite(struct rig_streams *all, struct stream_job *job)
{
    job->err = job->type == STREAM_REWRITE ? all->rewrite_err : 0;
    all->aborted_told += job->aborted_count;
    if (job->type == STREAM_KEYS) {
        job->next =
            all->keys_room && job->until - job->first > all->keys_room ? job->first + all->keys_room : job->until;
        return;
    }
    CHECK(job->first < job->until && job->segment_bytes &&
          job->sealed.generation > job->bytes_max / job->segment_bytes);
    all->rewrites++;
    job->sealed = (struct stream_extent){.base = job->first,
                                         .end = job->until,
                                         .generation = job->sealed.generation,
                                         .bytes = all->nothing_won ? 0 : 5000,
                                         .first_at = 1,
                                         .max_at = 2};
}

RIG_STREAM_FN void rig_stream_do(struct rig_streams *all, struct slab_heap *heap, struct stream_job *job)
{
    job->err = 0;
    if ((job->type == STREAM_WRITE && all->fail_writes && all->fail_writes--) ||
        (job->type == STREAM_SYNC && all->fail_syncs && all->fail_syncs--))
        job->err = -28;
    else if (job->type == STREAM_READ && all->read_err)
        job->err = all->read_err;
    else if (job->type == STREAM_WRITE)
        rig_stream_write(all, job);
    else if (job->type == STREAM_READ)
        rig_stream_read(all, heap, job);
    else if (job->type == STREAM_KEYS || job->type == STREAM_REWRITE)
        rig_stream_rewrite(all, job);
    else if (job->type == STREAM_FIND)
        rig_stream_find(all, job);
    else if (job->type == STREAM_FETCH)
        rig_stream_fetch(all, job->fetch);
    else
        job->tail = rig_stream_part(all, job->stream, job->partition)->tail;
}

/* Does up to max of what is asked. */
RIG_STREAM_FN void rig_streams_serve(struct broker *b, struct rig_streams *all, unsigned port, unsigned max)
{
    struct port *p = broker_port(b, port);
    struct effect *e;
    while (max-- && (e = ring_peek(&p->effects))) {
        struct stream_job *job = e->stream_job;
        ring_pop(&p->effects);
        if (job->type == STREAM_DROP) {
            rig_stream_cut(all, job->stream, job->partition, 0, job->until);
            all->drops++;
            stream_job_free(broker_heap(b), &job);
            continue;
        }
        if (job->type == STREAM_REPLACE) {
            all->replacements += job->until != 0;
            all->given_up += job->until == 0;
            stream_job_free(broker_heap(b), &job);
            continue;
        }
        rig_stream_do(all, broker_heap(b), job);
        struct command *c = ring_push(&p->commands);
        CHECK(c);
        *c = (struct command){.type = CMD_STREAMED, .stream_job = job};
        ring_publish(&p->commands);
    }
}

#endif
