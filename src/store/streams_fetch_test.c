/* Pieces of the streams' files: what a fetch must answer, who holds a file, how many there may be, damage. On the simulated disk.
 */
#include "store/streams_store_rig_test.h"

#include <errno.h>

#define LEAP_READ (64u * 1024)

/* What a fetch must answer, made from all bytes of the files. */
struct fetched {
    uint64_t base, position, next;
    size_t len;
};

static struct fetched fetch_by_hand(struct rig *rig, const struct part *part, uint64_t first, uint64_t until,
                                    uint32_t bytes_max)
{
    struct fetched ret = {.next = first};
    for (uint32_t i = 0; i <= part->now->count && !ret.len; i++) {
        const struct stream_extent *extent = i < part->now->count ? &part->now->sealed[i] : &part->now->tail;
        if (extent->end <= first)
            continue;
        struct slice file = os_sim_peek(rig->sim, path_of(part, extent->base));
        struct reader r = reader_of(slice_of(file.ptr + LAYOUT_BLOCK, extent->bytes - LAYOUT_BLOCK));
        struct record_batch batch;
        struct slice bytes;
        ret.base = extent->base;
        while (record_batch_take(&r, &batch, &bytes) == RECORD_OK) {
            uint64_t behind = (uint64_t)record_batch_last_offset(&batch) + 1;
            if (behind <= first)
                continue;
            if (behind > until || (ret.len + bytes.len > bytes_max && ret.len))
                return ret;
            if (!ret.len)
                ret.position = (uint64_t)(bytes.ptr - file.ptr);
            ret.len += bytes.len;
            ret.next = behind;
        }
    }
    return ret;
}

static void fetch_compared(struct rig *rig, struct part *part, uint64_t first, uint64_t until, uint32_t bytes_max)
{
    uint64_t next = 0;
    struct fetched right = fetch_by_hand(rig, part, first, until, bytes_max);
    assert_int_equal(rig_fetch(rig, part, first, until, bytes_max, &next), 0);
    if (rig->piece.len != right.len || next != right.next || (right.len && rig->piece.position != right.position))
        fail_msg("fetch at %llu below %llu, %u bytes: %zu bytes at %llu, next %llu; %zu at %llu, next %llu are right",
                 (unsigned long long)first, (unsigned long long)until, bytes_max, rig->piece.len,
                 (unsigned long long)rig->piece.position, (unsigned long long)next, right.len,
                 (unsigned long long)right.position, (unsigned long long)right.next);
}

/* Whatever is asked, after a restart and without trailers too. */
static void fetch_any(void **state)
{
    (void)state;
    struct rig *rig = rig_new(20);
    rig_open(rig);
    struct part *part = rig_part(rig, 6, 1, 40);
    for (unsigned i = 0; i < 90; i++)
        rig_write_now(rig, part, 1 + i % 40);
    assert_true(part->now->count > 3);
    rig_sync_now(rig, part);
    uint64_t end = part->now->tail.end;
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 400; i++) {
            uint64_t first = 40 + rig_draw(&rig->dice) % (end - 40), left = end - first;
            uint64_t until = i % 3 ? end : first + rig_draw(&rig->dice) % (left < 60 ? left : 60);
            fetch_compared(rig, part, first, until, (uint32_t)(rig_draw(&rig->dice) % (i % 2 ? 3000 : 100000)));
        }
        fetch_compared(rig, part, end, end, 1000);
        fetch_compared(rig, part, end - 1, end, UINT32_MAX);
        for (uint32_t i = 0; i < part->now->count && round == 1; i++) { /* without trailers */
            const struct stream_extent *extent = &part->now->sealed[i];
            struct slice file = os_sim_peek(rig->sim, path_of(part, extent->base));
            uint8_t *copy = malloc(extent->bytes);
            memcpy(copy, file.ptr, extent->bytes);
            os_sim_put(rig->sim, path_of(part, extent->base), slice_of(copy, extent->bytes));
            free(copy);
        }
        rig_die(rig, false, 0);
        rig_open(rig);
    }
    struct part *none = rig_part(rig, 99, 0, 5);
    uint64_t next = 0;
    assert_int_equal(rig_fetch(rig, none, 5, 9, 99, &next), 0);
    assert_int_equal(next, 5);
    assert_null(rig->piece.file);
    rig_free(rig);
}

/* A reader at the end: one descriptor however much the file grows, and nothing is read but the headers of what is new. */
static void fetch_at_the_end(void **state)
{
    (void)state;
    struct rig *rig = rig_new(21);
    struct streams_stats before, after;
    rig->segment_bytes = STREAM_SEGMENT_BYTES;
    rig_open(rig);
    struct part *part = rig_part(rig, 6, 1, 0);
    rig_write_now(rig, part, 50);
    uint64_t next = 0, opened = 0;
    struct counted_file *file = NULL;
    for (unsigned i = 0; i < 40; i++) {
        rig->body_max = i % 3 ? 300 : 20000; /* some of many times a step */
        streams_stats(rig->streams, &before);
        assert_int_equal(rig_fetch(rig, part, next, part->now->tail.end, UINT32_MAX, &next), 0);
        streams_stats(rig->streams, &after);
        assert_int_equal(next, part->now->tail.end);
        assert_true(i == 0 || rig->piece.file == file);
        file = rig->piece.file;
        assert_true(after.bytes_read - before.bytes_read <= rig->piece.len);
        assert_true(as_batches || after.bytes_read - before.bytes_read <= 3 * 16384); /* of up to 400 KiB */
        if (i == 0)
            opened = os_sim_count(rig->sim, OS_SIM_OPEN);
        rig_write_now(rig, part, 20);
    }
    assert_int_equal(os_sim_count(rig->sim, OS_SIM_OPEN), opened);
    uint64_t first = part->now->tail.end;
    rig->body_max = 200000;
    for (unsigned i = 0; i < 40; i++)
        rig_write_now(rig, part, 1); /* a long batch */
    streams_stats(rig->streams, &before);
    assert_int_equal(rig_fetch(rig, part, first, part->now->tail.end, UINT32_MAX, &next), 0);
    streams_stats(rig->streams, &after);
    assert_true(as_batches || after.bytes_read - before.bytes_read < 12u * 16384); /* a step each would be 40 */
    rig_free(rig);
}

/* A long run of short batches: its middle is not read, whatever is asked for, and damage shows where it begins. */
static void fetch_long(void **state)
{
    (void)state;
    struct rig *rig = rig_new(25);
    struct streams_stats before, after;
    rig->segment_bytes = 8u << 20;
    rig_open(rig);
    struct part *part = rig_part(rig, 6, 1, 40);
    for (unsigned i = 0; i < 3000; i++)
        rig_write_now(rig, part, 1 + i % 3);
    uint64_t end = part->now->tail.end, bytes = part->now->tail.bytes;
    assert_true(bytes > 700000 && part->now->count == 0);
    for (unsigned i = 0; i < 60; i++) {
        uint64_t first = 40 + rig_draw(&rig->dice) % (end - 40);
        uint64_t until = i % 2 ? end : first + 1 + rig_draw(&rig->dice) % (end - first);
        streams_stats(rig->streams, &before);
        fetch_compared(rig, part, first, until, (uint32_t)(rig_draw(&rig->dice) % (i % 3 ? 2 * bytes : 100000)));
        streams_stats(rig->streams, &after);
        assert_true(after.bytes_read - before.bytes_read <= 6 * 16384 + LEAP_READ);
    }
    rig_sync_now(rig, part);
    const char *path = path_of(part, 40);
    struct slice file = os_sim_peek(rig->sim, path);
    struct reader r = reader_of(slice_of(file.ptr + LAYOUT_BLOCK, bytes - LAYOUT_BLOCK));
    struct record_batch batch;
    struct slice one;
    unsigned seen = 0, leapt = 0;
    rig->damaged = true;
    for (unsigned n = 0; record_batch_take(&r, &batch, &one) == RECORD_OK; n++) {
        uint64_t next = 0, at = (uint64_t)(one.ptr - file.ptr), until = (uint64_t)batch.base_offset + 20;
        until = until < end ? until : end;
        if (n < 10 || n % 7)
            continue;
        assert_true(os_sim_flip(rig->sim, path, at + 6, 1));
        assert_int_equal(rig_fetch(rig, part, 40, until, UINT32_MAX, &next), 0);
        seen += (int64_t)next == batch.base_offset;
        leapt += (int64_t)next > batch.base_offset;
        assert_true((int64_t)next >= batch.base_offset);
        assert_int_equal(rig_fetch(rig, part, (uint64_t)batch.base_offset, end, UINT32_MAX, &next), -EILSEQ);
        assert_true(os_sim_flip(rig->sim, path, at + 6, 1));
    }
    assert_true(seen > 50 && leapt > 50);
    rig_free(rig);
}

/* What the answer has room for is shared by its rows, in their order. */
static void rows_share_an_answer(void **state)
{
    (void)state;
    struct rig *rig = rig_new(26);
    rig->options.lent_max = 3;
    rig_open(rig);
    size_t len[5];
    uint64_t next;
    for (unsigned i = 0; i < 5; i++) {
        struct part *part = rig_part(rig, 1, i, 0);
        rig_write_now(rig, part, 3);
        assert_int_equal(rig_fetch(rig, part, 0, 3, UINT32_MAX, &next), 0);
        len[i] = rig->piece.len;
        file_piece_fini(&rig->piece);
    }
    for (unsigned round = 0; round < 3; round++) {
        struct fetch *fetch = fetch_new(FETCH_RECORDS, 5);
        static const uint32_t wanted[][5] = {{1, 1, 0, 0, 0}, {0, 1, 1, 0, 0}, {1, 1, 1, 0, 0}};
        fetch->bytes_max = round == 0 ? (uint32_t)(len[0] + len[1]) : round == 1 ? (uint32_t)len[2] : UINT32_MAX;
        for (unsigned i = 0; i < 5; i++)
            fetch->rows[i] = (struct fetch_row){
                .stream = 1, .partition = i, .until = 3, .bytes_max = round == 1 && i == 1 ? 0 : 9999};
        if (round == 1) {
            fetch->rows[0].result = FETCH_UNKNOWN; /* and nothing is looked at */
            fetch->bytes_max = (uint32_t)(len[1] + len[2]);
        }
        struct stream_job *job = fetch->job;
        assert_true(streams_submit(rig->streams, &job) && streams_step(rig->streams));
        job = streams_take(rig->streams);
        assert_int_equal(job->err, 0);
        for (unsigned i = 0; i < 5; i++) {
            assert_int_equal(fetch->rows[i].piece.len, wanted[round][i] ? len[i] : 0);
            assert_int_equal(fetch->rows[i].err,
                             0); /* three files are open, in the last round: no error, but nothing */
        }
        stream_job_free(&rig->heap, &job);
    }
    rig_free(rig);
}

/* What retention takes is read to its end by those who have it, and then closed. */
static void fetched_and_dropped(void **state)
{
    (void)state;
    struct rig *rig = rig_new(22);
    rig_open(rig);
    struct part *part = rig_part(rig, 6, 1, 0);
    while (part->now->count < 4)
        rig_write_now(rig, part, 50);
    uint64_t next = 0, end = part->now->tail.end;
    uint8_t one[100], two[100];
    assert_int_equal(rig_fetch(rig, part, 60, end, 20000, &next), 0);
    struct file_piece held = rig->piece;
    rig->piece = (struct file_piece){0};
    assert_int_equal(held.file->read(held.file, one, sizeof one, held.position), sizeof one);
    assert_int_equal(rig_fetch(rig, part, 90, end, 20000, &next), 0);
    assert_ptr_equal(rig->piece.file, held.file); /* one descriptor for all of a file */
    assert_int_equal(atomic_load(&held.file->refs), 3);
    struct stream_job *job = fetch_job(part, 60, end, 20000);
    assert_true(streams_submit(rig->streams, &job) && streams_step(rig->streams));
    job = streams_take(rig->streams);
    assert_int_equal(atomic_load(&held.file->refs), 4);
    stream_job_free(&rig->heap, &job); /* with its piece */
    assert_int_equal(atomic_load(&held.file->refs), 3);
    assert_true(rig_drop(rig, part, part->now->sealed[1].end));
    rig_steps(rig);
    part->now->start = part->now->sealed[1].end;
    assert_int_equal(rig_files(rig), 3);
    assert_int_equal(atomic_load(&held.file->refs), 2);
    assert_int_equal(rig_fetch(rig, part, 60, end, 20000, &next), 0); /* stepped over */
    assert_true(next > part->now->start);
    assert_int_equal(held.file->read(held.file, two, sizeof two, held.position), sizeof two);
    assert_memory_equal(one, two, sizeof one);
    assert_true(rig_drop(rig, part, UINT64_MAX));
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 0);
    /* a stream that has the offsets again is another: nothing is remembered of this one */
    part->now->tail = (struct stream_extent){.base = 0, .end = 0};
    part->now->count = 0;
    part->now->start = 0;
    rig->body_max = 100;
    assert_true(rig_write_at(rig, part, 0, 120));
    rig_steps(rig);
    for (uint64_t first = 0; first < 120; first += 7)
        fetch_compared(rig, part, first, 120, 500);
    streams_close(&rig->streams);
    assert_int_equal(held.file->read(held.file, two, sizeof two, held.position), sizeof two);
    assert_memory_equal(one, two, sizeof one);
    file_piece_fini(&held);
    rig_free(rig);
}

/* More files than this disk has descriptors: those that nobody holds make room, those that somebody holds are counted. */
static void fetched_files_are_bounded(void **state)
{
    struct file_piece held[80] = {{0}};
    unsigned count = 0, most = *(unsigned *)*state;
    struct rig *rig = rig_new(23);
    rig->options.writers_max = 4;
    rig->options.lent_max = most < 64 ? most : 0;
    rig_open(rig);
    for (unsigned i = 0; i < 200; i++)
        rig_write_now(rig, rig_part(rig, 1, i, 0), 3);
    uint64_t next = 0;
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < 200; i++)
            assert_int_equal(rig_fetch(rig, &rig->parts[i], 0, 3, 1000, &next), 0);
    for (int err = 0; !err && count < 80; count += !err) {
        err = rig_fetch(rig, &rig->parts[count], 0, 3, 1000, &next);
        assert_true(!err || err == -EMFILE);
        assert_true(!err || strstr(rig->sentence, "cannot be opened"));
        held[count] = rig->piece;
        rig->piece = (struct file_piece){0};
    }
    assert_int_equal(count, most);
    file_piece_fini(&held[7]);
    assert_int_equal(rig_fetch(rig, &rig->parts[100], 0, 3, 1000, &next), 0);
    for (unsigned i = 0; i < count; i++)
        file_piece_fini(&held[i]);
    rig_all_parts_readable(rig);
    rig_free(rig);
}

/* A damaged header is found; before it all is given. Bodies and what the checksum covers are not looked at. */
static void fetch_damage(void **state)
{
    (void)state;
    struct rig *rig = rig_new(24);
    rig_open(rig);
    struct part *part = rig_part(rig, 6, 1, 0);
    rig_write_now(rig, part, 3);
    uint64_t next = 0, second = part->now->tail.bytes;
    rig_write_now(rig, part, 3);
    rig_write_now(rig, part, 3);
    for (unsigned i = 0; i < 17; i++) { /* base offset, length, epoch, format */
        if (i >= 12 && i < 16)
            continue;
        assert_true(os_sim_flip(rig->sim, path_of(part, 0), second + i, 1));
        assert_int_equal(rig_fetch(rig, part, 0, 9, UINT32_MAX, &next), 0);
        assert_int_equal(next, 3);
        assert_int_equal(rig->piece.len, second - LAYOUT_BLOCK);
        unsigned faults = rig->faults;
        assert_int_equal(rig_fetch(rig, part, 3, 9, UINT32_MAX, &next), -EILSEQ);
        assert_int_equal(rig->faults, faults + 1);
        assert_null(rig->piece.file);
        assert_non_null(strstr(rig->sentence, "offsets 3 to 8 of stream 6, partition 1 cannot be read: "));
        assert_true(os_sim_flip(rig->sim, path_of(part, 0), second + i, 1));
    }
    fetch_compared(rig, part, 3, 9, UINT32_MAX);
    rig_free(rig);
}

int main(void)
{
    unsigned disk_has = 64, allowed = 10;
    const struct CMUnitTest tests[] = {
        BATCHES(fetch_any),
        BATCHES(fetch_at_the_end),
        cmocka_unit_test(fetch_any),
        cmocka_unit_test(fetch_at_the_end),
        BATCHES(fetch_long),
        cmocka_unit_test(fetch_long),
        cmocka_unit_test(rows_share_an_answer),
        cmocka_unit_test(fetched_and_dropped),
        cmocka_unit_test_prestate(fetched_files_are_bounded, &disk_has),
        cmocka_unit_test_prestate(fetched_files_are_bounded, &allowed),
        cmocka_unit_test(fetch_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
