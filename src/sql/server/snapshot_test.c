/* Snapshots larger than their memory: they go by a file of the disk; a disk or memory that fails fails that snapshot by its name, and the query goes on. A
 * start reads them where they are. */
#include "sql/server/rig_test.h"
#include "sql/server/run.h"

#include "sql/query/scratch_rig_test.h"

#define KEYS 300u
#define MEMORY 1000u /* less than a piece: all of them go to the file */
#define QUERY                                                                                                          \
    "CREATE STREAM s (k TEXT, v BIGINT) WITH (topic = 'in'); CREATE STREAM out WITH (partitions = 1) AS "              \
    "SELECT COUNT(*) AS n, MAX(v) AS v FROM s GROUP BY k EMIT CHANGES"

/* Keys are long, so that a snapshot has several pieces. */
static void put_key(struct world *w, unsigned key, unsigned value)
{
    char body[4096];
    snprintf(body, sizeof body, "{\"k\":\"%u%03800u\",\"v\":%u}", key, 0u, value);
    put(w->rig, "in", body);
}

static void put_keys(struct world *w, unsigned from, unsigned until)
{
    for (unsigned i = from; i < until; i++)
        put_key(w, i, i);
}

static struct server_run *the_run(struct world *w)
{
    return list_empty(&w->server->runs) ? NULL : CONTAINER_OF(w->server->runs.next, struct server_run, link);
}

static const char *shown_by(struct world *w)
{
    return say(w, "SHOW QUERIES");
}

/* It goes on from all that it has read: each key comes once more, and is known. */
static void check_goes_on(struct world *w)
{
    unsigned before = lines_of(records_of(w, "out"));
    char expected[60];
    for (unsigned i = 0; i < KEYS; i += 50) {
        put_key(w, i, 1000 + i);
        rig_pass(w->rig, 300); /* what could not be asked for at once is asked for a little later */
        snprintf(expected, sizeof expected, "\"v\":%u", 1000 + i);
        const char *at = strstr(records_of(w, "out"), expected);
        if (!at || !strstr(records_of(w, "out"), "\"n\":2"))
            rig_fail("key %u: %s\n%u lines, %s", i, at ? at : "", lines_of(records_of(w, "out")), shown_by(w));
    }
    assert_true(lines_of(records_of(w, "out")) > before);
}

static bool has_snapshot(const struct world *w)
{
    struct run_snapshot *s = &the_run((struct world *)(uintptr_t)w)->snapshot;
    return s->state == SNAPSHOT_NONE && s->stream && s->made_at && !s->why;
}

static struct world *world_full(struct memory_disk *disk)
{
    memory_disk_init(disk);
    struct world *w = world_on(KEYS, &disk->disk, MEMORY);
    say(w, QUERY);
    put_keys(w, 0, KEYS);
    return w;
}

static void test_by_a_file(void **state)
{
    struct memory_disk disk;
    struct world *w = world_full(&disk);
    (void)state;
    rest(w);
    assert_true(has_snapshot(w) && disk.calls > 10 && disk.open == 0);
    uint64_t calls = disk.calls;
    struct world *other = world_cut(w, w->rig->log->count);
    rig_pass(other->rig, 100);
    assert_int_equal(disk.calls, calls); /* a start has no need of it */
    check_goes_on(other);
    world_free(other);
    check_goes_on(w);
    world_free(w);
    assert_int_equal(disk.open, 0);
}

/* Killed while it is written: all of it is read again, and the next one is made. */
static void test_killed_at_any_record(void **state)
{
    struct memory_disk disk;
    struct world *w = world_full(&disk);
    (void)state;
    rest(w);
    size_t end = w->rig->log->count;
    unsigned cuts = 0;
    for (size_t cut = end - 14; cut <= end; cut++, cuts++) {
        struct world *other = world_cut(w, cut);
        rig_pass(other->rig, 100);
        check_goes_on(other);
        world_free(other);
        assert_int_equal(disk.open, 0);
    }
    world_free(w);
}

/* Each call to the disk fails once while it is made: it is not made, SHOW QUERIES says why, the query goes on and nothing is tried before a second has passed;
 * then it is made. */
static void test_a_disk_that_fails_while_it_is_made(void **state)
{
    unsigned failed = 0;
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct memory_disk disk;
        memory_disk_init(&disk);
        struct world *w = world_on(KEYS, &disk.disk, MEMORY);
        disk.fail_at = n;
        disk.fault = SQL_FAULT_SCRATCH_FULL;
        say(w, QUERY);
        put_keys(w, 0, KEYS);
        rest(w);
        bool hit = disk.calls >= n;
        disk.fail_at = 0;
        if (hit) {
            const struct run_snapshot *s = &the_run(w)->snapshot;
            const char *why = s->why;
            assert_non_null(why);
            assert_true(s->state == SNAPSHOT_NONE && disk.open == 0);
            if (!strstr(shown_by(w), "\"RUNNING\"") || !strstr(w->said, "\"its last snapshot could not be made: ") ||
                !strstr(w->said, why))
                rig_fail("%s", w->said);
            failed += strstr(why, "the disk has no room") != NULL;
            uint64_t calls = disk.calls;
            rig_pass(w->rig, 900);
            assert_int_equal(disk.calls, calls);
            rig_pass(w->rig, 200);
            put_key(w, KEYS, 1);
            rest(w);
            assert_true(disk.calls > calls);
        }
        assert_true(has_snapshot(w));
        assert_null(strstr(shown_by(w), "snapshot"));
        struct world *other = world_cut(w, w->rig->log->count);
        rig_pass(other->rig, 100);
        check_goes_on(other);
        world_free(other);
        world_free(w);
        assert_int_equal(disk.open, 0);
        if (!hit)
            break;
    }
    assert_true(failed >= 4);
}

/* The same of each allocation of the turns in which it is made. */
static void test_no_memory_while_it_is_made(void **state)
{
    unsigned hits = 0, failed = 0;
    (void)state;
    for (unsigned back = 0; back < 12; back++)
        for (uint64_t n = 1, hit = 1; hit; n++) {
            struct memory_disk disk;
            memory_disk_init(&disk); /* one piece fits into memory */
            struct world *w = world_on(KEYS, &disk.disk, 300 * MEMORY);
            say(w, QUERY);
            put_keys(w, 0, KEYS - 1);
            rest(w);
            w->fail_turn = w->turn + 1 + back;
            w->fail_at = n;
            put_key(w, KEYS - 1, KEYS - 1);
            rest(w);
            rig_pass(w->rig, 200);
            hit = w->hit;
            hits += w->hit;
            struct server_run *run = the_run(w);
            failed += run && run->snapshot.why;
            if (run && run->snapshot.why) {
                assert_int_equal(run->object->state, SQL_RUNNING);
                rig_pass(w->rig, 1100);
                put_key(w, KEYS, 1);
                rest(w);
            }
            if (run) {
                assert_true(has_snapshot(w));
                check_goes_on(w);
            }
            world_free(w);
            assert_int_equal(disk.open, 0);
        }
    assert_true(hits > 20 && failed >= 4);
}

/* At a start: a file that is right when it is looked at and cannot be read behind that. */
static int64_t read_badly(struct counted_file *file, void *ret, size_t len, uint64_t at)
{
    (void)file, (void)ret, (void)len, (void)at;
    return -5;
}

static void read_badly_in_the_end(struct world *w)
{
    struct server_run *run = the_run(w);
    if (w->count || !run || !run->snapshot.loading.count)
        return;
    w->count++;
    run->snapshot.loading.parts[0].piece.file->read = read_badly;
}

static void test_a_file_that_cannot_be_read_at_a_start(void **state)
{
    struct memory_disk disk;
    struct world *w = world_full(&disk);
    (void)state;
    rest(w);
    say(w, "PAUSE out");
    struct world *other = world_cut(w, w->rig->log->count);
    other->meanwhile = read_badly_in_the_end;
    say(other, "RESUME out");
    rig_pass(other->rig, 100);
    assert_non_null(strstr(shown_by(other), "\"FAILED\""));
    assert_non_null(strstr(other->said, "its snapshot cannot be loaded: its records cannot be read"));
    say(other, "RESUME out");
    rig_pass(other->rig, 100);
    check_goes_on(other);
    world_free(other);
    world_free(w);
}

/* Each allocation of the turns of a start fails once: it waits, or has ended by that name and can be resumed. */
static void test_no_memory_at_a_start(void **state)
{
    struct memory_disk disk;
    struct world *w = world_full(&disk);
    unsigned hits = 0, ended = 0;
    (void)state;
    rest(w);
    say(w, "PAUSE out");
    for (unsigned turn = 1; turn < 25; turn++)
        for (uint64_t n = 1, hit = 1; hit; n += 1 + n / 8) {
            struct world *other = world_cut(w, w->rig->log->count);
            other->fail_turn = other->turn + turn;
            other->fail_at = n;
            say(other, "RESUME out");
            rig_pass(other->rig, 500);
            hit = other->hit;
            hits += other->hit;
            if (strstr(shown_by(other), "\"FAILED\"")) {
                assert_non_null(strstr(other->said, "no memory"));
                ended++;
            }
            if (!strstr(other->said, "\"RUNNING\""))
                say(other, "RESUME out");
            rig_pass(other->rig, 300);
            check_goes_on(other);
            world_free(other);
        }
    assert_true(hits > 30 && ended > 3);
    world_free(w);
}

/* A hard alarm comes while it is written: it waits, as the query's steps do, and is whole in one piece when there is room again. */
static void alarm_amid_it(struct world *w)
{
    struct server_run *run = the_run(w);
    if (w->count || !run || run->snapshot.state != SNAPSHOT_WRITING || run->snapshot.at != 2)
        return;
    w->count++;
    rig_command(w->rig, 1, CMD_ALARM, 0, 0)->number = ALARM_DISK | ALARM_DISK_HARD;
    ring_publish(&broker_port(w->rig->b, 1)->commands);
}

static void test_an_alarm_while_it_is_written(void **state)
{
    struct memory_disk disk;
    (void)state;
    memory_disk_init(&disk);
    struct world *w = world_on(KEYS, &disk.disk, MEMORY);
    say(w, QUERY);
    w->meanwhile = alarm_amid_it;
    put_keys(w, 0, KEYS);
    rig_pass(w->rig, 2000);
    struct run_snapshot *s = &the_run(w)->snapshot;
    assert_true(w->count == 1 && s->state == SNAPSHOT_WRITING && s->at >= 2 && s->at < s->count);
    rig_alarm(w->rig, 0);
    rig_pass(w->rig, 1000);
    assert_true(has_snapshot(w) && s->first == 0);
    check_goes_on(w);
    world_free(w);
    assert_int_equal(disk.open, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_a_file),
        cmocka_unit_test(test_killed_at_any_record),
        cmocka_unit_test(test_a_disk_that_fails_while_it_is_made),
        cmocka_unit_test(test_no_memory_while_it_is_made),
        cmocka_unit_test(test_a_file_that_cannot_be_read_at_a_start),
        cmocka_unit_test(test_no_memory_at_a_start),
        cmocka_unit_test(test_an_alarm_while_it_is_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
