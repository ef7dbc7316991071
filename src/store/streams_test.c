/* Streams as the core sees them, on the simulated disk: what was written comes back, by offset and by time; files roll over, go
 * and are swept; what is damaged is refused.
 */
#include "os/thread.h"
#include "store/inspect_streams.h"
#include "store/streams_store_rig_test.h"

#include <errno.h>
#include <stdatomic.h>

static void write_and_read(void **state)
{
    (void)state;
    struct rig *rig = rig_new(1);
    struct streams_stats stats;
    rig->segment_bytes = STREAM_SEGMENT_BYTES;
    rig_open(rig);
    assert_int_equal(rig_files(rig), 0); /* a stream without records has no file */
    struct part *a = rig_part(rig, 7, 0, 0), *b = rig_part(rig, 7, 1, 1000);
    for (uint32_t i = 1; i < 12; i++)
        assert_true(rig_write(rig, a, i) && rig_write(rig, b, 2 * i));
    assert_int_equal(rig_steps(rig), 0);
    assert_true(os_sim_count(rig->sim, OS_SIM_PWRITE) <= 4); /* what waits behind one another is one write, or few */
    assert_int_equal(rig_files(rig), 2);
    assert_int_equal(a->now->tail.end, 66);
    assert_int_equal(b->now->tail.end, 1132);
    assert_true(a->now->tail.first_at == rig_time(7, 0));
    rig_all_parts_readable(rig);
    uint64_t next = 0;
    assert_int_equal(rig_read_next(rig, a, 10, 20, 3, UINT32_MAX, &next), 0);
    assert_int_equal(next, 13);
    assert_int_equal(rig_read_next(rig, a, 10, 20, 30, UINT32_MAX, &next), 0);
    assert_int_equal(next, 20);
    assert_int_equal(rig_read_next(rig, a, 10, 20, 30, 0, &next), 0); /* one at least */
    assert_int_equal(next, 11);
    assert_int_equal(rig_read_next(rig, a, 10, 10, 30, 99, &next), 0);
    assert_int_equal(next, 10);
    assert_int_equal(rig_read_next(rig, b, 0, 1001, 30, UINT32_MAX, &next), 0); /* what is gone is stepped over */
    assert_int_equal(next, 1001);
    struct part *none = rig_part(rig, 99, 0, 5);
    assert_int_equal(rig_read_next(rig, none, 5, 9, 30, 99, &next), 0);
    assert_int_equal(next, 5);
    streams_stats(rig->streams, &stats);
    assert_int_equal(stats.records_written, 198);
    assert_int_equal(stats.syncs, 0);
    assert_int_equal(stats.segments, 2);
    rig_sync_now(rig, a);
    rig_sync_now(rig, b);
    rig_sync_now(rig, b);
    rig_sync_now(rig, none);
    streams_stats(rig->streams, &stats);
    assert_int_equal(stats.syncs, 3); /* two files, and the folder once */
    assert_int_equal(stats.jobs_failed, 0);
    assert_int_equal(rig->faults, 0);
    rig_free(rig);
}

static void roll_over(void **state)
{
    (void)state;
    struct rig *rig = rig_new(2);
    rig_open(rig);
    struct part *part = rig_part(rig, 3, 1023, 5);
    for (unsigned i = 0; i < 60; i++)
        rig_write_now(rig, part, 1 + i % 40);
    assert_true(part->now->count > 5);
    assert_int_equal(rig_files(rig), part->now->count + 1);
    for (uint32_t i = 0; i < part->now->count; i++)
        assert_true(part->now->sealed[i].bytes > rig->segment_bytes);
    rig_all_readable(rig, part);
    /* by age */
    uint32_t count = part->now->count;
    rig->seal_before = rig_time(3, part->now->tail.base) + 1;
    rig_write_now(rig, part, 1);
    assert_int_equal(part->now->count, count + 1);
    rig->seal_before = rig_time(3, part->now->tail.base);
    rig_write_now(rig, part, 1);
    assert_int_equal(part->now->count, count + 1);
    /* much more than a batch in one job, with one message that is larger than that */
    rig->body_max = 2000;
    rig_write_now(rig, part, STREAM_ITEMS_MAX);
    struct part *huge = rig_part(rig, 4, 0, 0);
    rig->body_max = 100000;
    rig_write_now(rig, huge, 150);
    rig_all_readable(rig, huge);
    assert_true(huge->now->tail.bytes > 4u << 20);
    rig_free(rig);
}

/* Files that were made by one run are read and gone on with by the next, whatever is behind what the journal names. */
static void restart(void **state)
{
    (void)state;
    struct rig *rig = rig_new(3);
    rig_open(rig);
    struct part *a = rig_part(rig, 1, 0, 0), *b = rig_part(rig, 2, 0, 0);
    for (unsigned i = 0; i < 30; i++) {
        rig_write_now(rig, a, 40);
        rig_write_now(rig, b, 3);
        if (i == 17)
            rig_sync_now(rig, a);
    }
    struct stream_extent tail = a->now->tail;
    assert_true(a->now->count > a->synced->count && a->synced->count > 1);
    os_sim_put(rig->sim, "d/str/notes", slice_str("not ours"));
    rig_die(rig, false, 0);
    rig_open(rig);
    assert_int_equal(rig_files(rig), a->synced->count + 2); /* and b has none: nobody names it */
    assert_int_equal(os_sim_peek(rig->sim, path_of(a, a->synced->tail.base)).len, a->synced->tail.bytes);
    rig_all_parts_readable(rig);
    rig_write_again(rig);
    assert_int_equal(a->now->tail.end, tail.end);
    rig_all_parts_readable(rig);
    /* what ends at or below the start need not be there */
    rig_sync_now(rig, a);
    rig_sync_now(rig, b);
    a->synced->start = a->synced->sealed[2].end;
    os_sim_remove(rig->sim, path_of(a, a->synced->sealed[1].base));
    rig_die(rig, false, 0);
    rig_open(rig);
    assert_int_equal(rig_files(rig), a->synced->count - 3 + 1 + b->synced->count + 1 + 1);
    rig_all_parts_readable(rig);
    rig_write_now(rig, a, 10);
    rig_all_parts_readable(rig);
    rig_free(rig);
}

static void refused_starts(void **state)
{
    (void)state;
    struct rig *rig = rig_new(4);
    rig_open(rig);
    struct part *part = rig_part(rig, 0xabc, 2, 0);
    while (part->now->count < 2)
        rig_write_now(rig, part, 50);
    rig_sync_now(rig, part);
    rig_die(rig, false, 0);
    static const char *const phrases[] = {"belongs to another data folder",
                                          "header is damaged",
                                          "is too short",
                                          "in truth",
                                          "is missing",
                                          "does not follow",
                                          "is too short"};
    struct named whole = *part->synced;
    uint64_t base = whole.sealed[1].base;
    for (unsigned i = 0; i < ARRAY_LEN(phrases); i++) {
        struct os_sim *sim = os_sim_clone(rig->sim);
        struct slice file = os_sim_peek(rig->sim, path_of(part, base));
        rig->options.uuid[3] ^= i == 0;
        if (i == 1)
            os_sim_flip(rig->sim, path_of(part, base), 33, 1);
        if (i == 2)
            os_sim_put(rig->sim, path_of(part, base), slice_of(file.ptr, whole.sealed[1].bytes - 1));
        if (i == 3)
            os_sim_put(rig->sim, path_of(part, 0), file);
        if (i == 4)
            os_sim_remove(rig->sim, path_of(part, base));
        if (i == 5)
            part->synced->sealed[1] = part->synced->sealed[0];
        if (i == 6)
            part->synced->tail.bytes++;
        int err = rig_open_keeping(rig);
        if (err != -EILSEQ || !strstr(rig->why, phrases[i]) || !strstr(rig->why, "str/0000000000000abc-0002-"))
            fail_msg("row %u: %d, %s", i, err, rig->why);
        assert_true(rig_files(rig) >= 2); /* nothing was swept */
        rig->options.uuid[3] ^= i == 0;
        *part->synced = whole;
        os_sim_free(&rig->sim);
        rig->sim = sim;
        rig->options.os = os_sim_os(sim);
    }
    rig_open(rig);
    rig_all_readable(rig, part);
    rig_free(rig);
}

/* No bit of the batches may be wrong, and nothing else than these matters. */
static void flipped_bits(void **state)
{
    (void)state;
    struct rig *rig = rig_new(5);
    rig->body_max = 20;
    rig->options.on_fault = on_fault;
    rig_open(rig);
    struct part *part = rig_part(rig, 9, 0, 100);
    rig_write_now(rig, part, 3);
    rig_write_now(rig, part, 2);
    rig_sync_now(rig, part);
    uint64_t end = part->now->tail.bytes;
    for (uint64_t at = LAYOUT_BLOCK; at < end; at++) {
        uint64_t offset = 100;
        int err = 0;
        uint8_t mask = (uint8_t)(1 << at % 8);
        assert_true(os_sim_flip(rig->sim, path_of(part, 100), at, mask));
        while (!err && offset < 105)
            err = rig_read_next(rig, part, offset, 105, 10, UINT32_MAX, &offset);
        bool epoch = at % end >= LAYOUT_BLOCK + 12 && at < LAYOUT_BLOCK + 16; /* which nobody looks at */
        if (err != -EILSEQ && !epoch && offset != 105)
            fail_msg("bit at %llu: %d", (unsigned long long)at, err);
        if (err)
            assert_non_null(strstr(rig->sentence, "of stream 9, partition 0 cannot be read: "));
        assert_true(os_sim_flip(rig->sim, path_of(part, 100), at, mask));
    }
    assert_true(rig->faults > end - LAYOUT_BLOCK - 20);
    rig_all_readable(rig, part);
    rig_free(rig);
}

/* Whether an index was kept, read from the trailer or made again: the same messages are found, the same times. */
static void find(void **state)
{
    (void)state;
    struct rig *rig = rig_new(6);
    rig_open(rig);
    struct part *part = rig_part(rig, 2, 0, 50);
    for (unsigned i = 0; i < 90; i++)
        rig_write_now(rig, part, 20);
    assert_true(part->now->count > 3);
    rig_sync_now(rig, part);
    uint64_t end = part->now->tail.end;
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 120; i++) {
            wall_t timestamp = rig_time(2, 50) - 300 + (wall_t)(rig_draw(&rig->dice) % (10 * 1800 + 600));
            uint64_t first = 50 + rig_draw(&rig->dice) % 1700, until = i % 2 ? end : first + rig_draw(&rig->dice) % 300;
            uint64_t expected = first;
            until = until < end ? until : end;
            while (expected < until && rig_time(2, expected) < timestamp)
                expected++;
            assert_int_equal(rig_find(rig, part, first, until, timestamp), expected);
        }
        assert_int_equal(rig_find(rig, part, 50, end, INT64_MAX), end);
        if (round == 1) /* without trailers */
            for (uint32_t i = 0; i < part->synced->count; i++) {
                const struct stream_extent *extent = &part->synced->sealed[i];
                struct slice file = os_sim_peek(rig->sim, path_of(part, extent->base));
                uint8_t *copy = calloc(1, file.len);
                memcpy(copy, file.ptr, i % 2 ? file.len : extent->bytes);
                if (i % 2)
                    copy[extent->bytes + 5] ^= 1;
                os_sim_put(rig->sim, path_of(part, extent->base), slice_of(copy, i % 2 ? file.len : extent->bytes));
                free(copy);
            }
        rig_die(rig, false, 0);
        rig_open(rig);
    }
    rig_free(rig);
}

/* The same file comes of it, whether one run wrote it or its index had to be made again from the batches. */
static void same_index(void **state)
{
    (void)state;
    uint8_t *first = NULL;
    size_t first_len = 0;
    for (unsigned again = 0; again < 2; again++) {
        struct rig *rig = rig_new(18);
        rig->segment_bytes = 400 * 1024;
        rig_open(rig);
        struct part *part = rig_part(rig, 3, 0, 10);
        while (!part->now->count) {
            if (again && part->now->tail.bytes > rig->segment_bytes) {
                rig_sync_now(rig, part);
                rig_die(rig, false, 0);
                rig_open(rig);
            }
            rig_write_now(rig, part, 25);
        }
        struct slice file = os_sim_peek(rig->sim, path_of(part, 10));
        assert_true(file.len > part->now->sealed[0].bytes + stream_trailer_len(10));
        if (again) {
            assert_int_equal(file.len, first_len);
            assert_memory_equal(file.ptr, first, file.len);
        } else {
            first = malloc(file.len);
            first_len = file.len;
            memcpy(first, file.ptr, file.len);
        }
        rig_free(rig);
    }
    free(first);
}

static void drop(void **state)
{
    (void)state;
    struct rig *rig = rig_new(7);
    rig_open(rig);
    struct part *a = rig_part(rig, 1, 0, 0), *b = rig_part(rig, 2, 0, 0);
    while (a->now->count < 6)
        rig_write_now(rig, a, 50);
    rig_write_now(rig, b, 50);
    rig_all_readable(rig, a); /* descriptors are open */
    assert_true(rig_drop(rig, a, a->now->sealed[2].end - 1));
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 7 - 2 + 1);
    a->now->start = a->now->sealed[2].base;
    rig_all_readable(rig, a);
    assert_true(rig_drop(rig, a, a->now->sealed[2].end)); /* as far as it goes */
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 7 - 3 + 1);
    assert_true(rig_drop(rig, a, UINT64_MAX));
    assert_true(rig_drop(rig, a, UINT64_MAX));
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 1);
    rig_all_readable(rig, b);
    assert_true(rig_drop(rig, b, 50)); /* all that there is: the next write begins a file */
    b->now->tail = (struct stream_extent){.base = 50, .end = 50};
    assert_true(rig_write_at(rig, b, 50, 5));
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 1);
    struct streams_stats stats;
    streams_stats(rig->streams, &stats);
    assert_int_equal(stats.segments, 1);
    assert_true(rig_drop(rig, b, UINT64_MAX));
    rig_steps(rig);
    assert_int_equal(rig_files(rig), 0);
    size_t before = mem_in_use();
    for (unsigned i = 0; i < 300; i++) { /* of a stream that is gone nothing stays */
        struct part *part = rig_part(rig, 100 + i, 0, 0);
        rig_write_now(rig, part, 1);
        assert_true(rig_drop(rig, part, UINT64_MAX));
        rig_steps(rig);
    }
    assert_true(mem_in_use() < before + 4096);
    rig_free(rig);
}

/* What comes behind a write that failed is not written, and a gap never is. */
static void no_gaps(void **state)
{
    (void)state;
    struct rig *rig = rig_new(8);
    rig_open(rig);
    struct part *part = rig_part(rig, 1, 0, 100);
    for (unsigned round = 0; round < 3; round++) {
        os_sim_fail(rig->sim, 1u << OS_SIM_PWRITE, 1, EIO, false);
        assert_true(rig_write(rig, part, 5));
        assert_true(rig_sync(rig, part));
        assert_true(rig_write(rig, part, 5));
        assert_int_equal(rig_steps(rig), -EINVAL);
        assert_true(part->now->tail.end == 100 + round * 10);
        assert_int_equal(os_sim_peek(rig->sim, path_of(part, 100)).len,
                         part->now->tail.bytes); /* nothing is left behind */
        part->sent = part->now->tail.end;
        part->next = part->sent;
        rig_write_now(rig, part, 10);
        rig_all_readable(rig, part);
    }
    /* where the rest cannot be cut off the file ends, and the next write begins another */
    struct stream_extent tail = part->now->tail;
    os_sim_fail(rig->sim, 1u << OS_SIM_PWRITE | 1u << OS_SIM_TRUNCATE, 1, EIO, true);
    assert_true(rig_write(rig, part, 5));
    assert_int_equal(rig_steps(rig), -EIO);
    os_sim_fail(rig->sim, 0, 0, 0, false);
    rig_all_readable(rig, part);
    rig_write_now(rig, part, 5);
    assert_int_equal(part->now->count, 1);
    assert_memory_equal(&part->now->sealed[0], &tail, sizeof tail);
    /* a file of that name that nobody names is in nobody's way */
    os_sim_put(rig->sim, path_of(part, part->now->tail.end), slice_str("left behind"));
    rig->seal_before = INT64_MAX;
    rig_write_now(rig, part, 5);
    assert_int_equal(part->now->count, 2);
    rig_all_readable(rig, part);
    rig_free(rig);
}

/* More partitions than descriptors, on a disk that has 64 of these for everybody. */
static void many_partitions(void **state)
{
    (void)state;
    struct rig *rig = rig_new(9);
    rig->options.writers_max = 20;
    rig->segment_bytes = 8192;
    for (unsigned round = 0; round < 2; round++) {
        rig_open(rig);
        for (unsigned i = 0; i < 300 && !round; i++)
            rig_part(rig, 1 + i / 100, i % 100, i);
        for (unsigned n = 0; n < 5; n++)
            for (unsigned i = 0; i < 300; i++)
                rig_write_now(rig, &rig->parts[i], 1 + (i + n) % 7);
        rig_all_parts_readable(rig);
        for (unsigned i = 0; i < 300; i++)
            rig_sync_now(rig, &rig->parts[i]);
        rig_die(rig, true, round);
        rig->options.writers_max = 0;
    }
    rig_open(rig);
    rig_all_parts_readable(rig);
    rig_free(rig);
}

static void bounded(void **state)
{
    (void)state;
    struct rig *rig = rig_new(10);
    rig_open(rig);
    struct part *part = rig_part(rig, 1, 0, 0);
    unsigned count = 0;
    while (rig_write_at(rig, part, count, 1))
        count++;
    assert_int_equal(count, STREAMS_JOBS_MAX);
    while (streams_step(rig->streams)) /* without taking what is finished */
        continue;
    assert_false(rig_write_at(rig, part, count, 1));
    rig_take(rig);
    assert_true(rig_write_at(rig, part, count, 1));
    rig_free(rig); /* with a job inside */
}

static void inspected_has(struct rig *rig, bool batches, const char *phrase, bool there)
{
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    assert_int_equal(streams_inspect(os_sim_os(rig->sim), "d", batches, false, out), 0);
    fclose(out);
    if ((strstr(text, phrase) != NULL) != there)
        fail_msg("%s \"%s\":\n%s", there ? "without" : "with", phrase, text);
    free(text);
}

static void inspection(void **state)
{
    (void)state;
    struct rig *rig = rig_new(17);
    inspected_has(rig, true, "file", false);
    rig_open(rig);
    inspected_has(rig, true, "file", false); /* nobody who has no stream is told of them */
    struct part *a = rig_part(rig, 0xab, 0, 0), *b = rig_part(rig, 0xcd, 3, 70);
    while (a->now->count < 1)
        rig_write_now(rig, a, 30);
    rig_write_now(rig, b, 5);
    char phrase[200];
    snprintf(phrase, sizeof phrase, "3 files of streams, %llu batches, %llu records",
             (unsigned long long)(a->next / 30 + 1), (unsigned long long)a->next + 5);
    inspected_has(rig, false, phrase, true);
    inspected_has(rig, false, "batch at", false);
    inspected_has(rig, true, "batch at 4096      offsets 0 to 29 records 30 times 1700000", true);
    inspected_has(rig, true, "file str/00000000000000cd-0003-0000000000000046", true);
    inspected_has(rig, true, "stream 205 partition 3 from offset 70", true);
    snprintf(phrase, sizeof phrase, "  sealed: batches end at %llu before offset %llu",
             (unsigned long long)a->now->sealed[0].bytes, (unsigned long long)a->now->sealed[0].end);
    inspected_has(rig, false, phrase, true);
    inspected_has(rig, true, "no batch", false);
    inspected_has(rig, true, "not whole", false);
    assert_true(os_sim_flip(rig->sim, path_of(b, 70), 4096 + 100, 1));
    inspected_has(rig, false, "NOT WHOLE", true);
    assert_true(os_sim_flip(rig->sim, path_of(b, 70), 4096 + 5, 1));
    inspected_has(rig, false, "  from 4096 to ", true);
    struct slice other = os_sim_peek(rig->sim, path_of(a, 0));
    os_sim_put(rig->sim, path_of(b, 4), other);
    inspected_has(rig, true, "is in truth 00000000000000ab-0000-0000000000000000", true);
    os_sim_put(rig->sim, path_of(b, 4), slice_str("x"));
    inspected_has(rig, true, "no header", true);
    rig_free(rig);
}

/* -------------------------------------------------------------------------------------------------------------- thread */

static void set_event(void *arg)
{
    os_event_set(arg);
}

static void threaded(void **state)
{
    (void)state;
    struct rig *rig = rig_new(16);
    struct os_event done = {0};
    rig->options.on_fault = NULL;
    rig->options.on_done = set_event;
    rig->options.arg = &done;
    rig_open(rig);
    struct part *part = rig_part(rig, 1, 0, 0);
    assert_int_equal(streams_start(rig->streams), 0);
    uint64_t read = 0;
    for (unsigned i = 0; read < 6000; i++) {
        for (unsigned k = 0; k < 3 && part->sent < 6000; k++)
            assert_true(rig_write(rig, part, 20));
        if (i % 10 == 0)
            assert_true(rig_sync(rig, part));
        if (read < part->now->tail.end) {
            struct stream_job *job = rig_job(part, STREAM_READ, 100);
            job->first = read;
            job->until = part->now->tail.end;
            job->bytes_max = UINT32_MAX;
            read = job->until < read + 100 ? job->until : read + 100;
            assert_true(rig_submit(rig, job));
        }
        streams_wake(rig->streams);
        os_event_wait(&done, NS_PER_S);
        assert_int_equal(rig_take(rig), 0);
    }
    assert_true(rig_write(rig, part, 20));
    streams_stop(rig->streams); /* finishes what was submitted */
    rig_take(rig);
    assert_int_equal(rig->answered, rig->submitted);
    rig_free(rig);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        BATCHES(write_and_read),
        BATCHES(roll_over),
        BATCHES(restart),
        BATCHES(find),
        BATCHES(same_index),
        BATCHES(flipped_bits),
        BATCHES(drop),
        cmocka_unit_test(write_and_read),
        cmocka_unit_test(roll_over),
        cmocka_unit_test(restart),
        cmocka_unit_test(refused_starts),
        cmocka_unit_test(flipped_bits),
        cmocka_unit_test(find),
        cmocka_unit_test(same_index),
        cmocka_unit_test(drop),
        cmocka_unit_test(no_gaps),
        cmocka_unit_test(many_partitions),
        cmocka_unit_test(bounded),
        cmocka_unit_test(inspection),
        cmocka_unit_test(threaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
