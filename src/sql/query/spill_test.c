/* Entries in memory and in a file against a model that knows them all: nothing is lost, nothing comes twice, memory stays within its budget; what is over
 * goes; a disk or memory that fails, a disk that is full and one that forgets end it by their names. */
#include "sql/query/spill.h"

#include "base/mem.h"
#include "sql/query/scratch_rig_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define KEYS 3000u
#define BUDGET (256u * 1024)
#define TEXT_MAX 200000u

/* What the payload owns: text made of a seed. */
struct owned {
    uint8_t *text;
    uint32_t len, seed;
    int64_t until;
};

struct model {
    uint32_t len, seed;
    int64_t until;
    bool there;
};

struct rig {
    struct op op;
    struct budget budget;
    struct table table;
    struct spill spill;
    struct scratch_file scratch;
    struct memory_disk disk;
    struct model model[KEYS];
    int64_t clock;
    enum sql_fault fault;
};

static uint64_t chance = 1;

static uint32_t next_random(void)
{
    chance = chance * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(chance >> 33);
}

static uint8_t byte_of(uint32_t seed, uint32_t i)
{
    return (uint8_t)(seed * 31 + i * 7 + (i >> 8));
}

static struct owned *owned_of(struct entry *e)
{
    return (struct owned *)(void *)e->bytes;
}

static void toy_save(struct op *op, struct entry *e, struct state_writer *w, int64_t until[RUN_UNTIL])
{
    const struct owned *o = owned_of(e);
    (void)op;
    state_put_varint(w, o->seed);
    state_put_signed(w, o->until);
    state_put_slice(w, slice_of(o->text, o->len));
    until[0] = until[1] = o->until;
}

static bool toy_load(struct op *op, struct entry *e, struct state_reader *r)
{
    struct owned *o = owned_of(e);
    o->seed = (uint32_t)state_get_varint(r);
    o->until = state_get_signed(r);
    uint32_t len = (uint32_t)state_get_len(r, TEXT_MAX);
    if (r->failed || !(o->text = account_take(&op->account, len + 1)))
        return false;
    o->len = len;
    state_get(r, o->text, o->len);
    return !r->failed;
}

static void toy_drop(struct op *op, struct entry *e)
{
    account_give(&op->account, owned_of(e)->text, owned_of(e)->len + 1);
}

static bool toy_over(const struct op *op, const int64_t until[RUN_UNTIL])
{
    return until[0] < CONTAINER_OF(op, const struct rig, op)->clock;
}

static const struct spill_kind toy = {.save = toy_save, .load = toy_load, .drop = toy_drop, .over = toy_over};

static void rig_init(struct rig *r, uint64_t max)
{
    memset(r, 0, sizeof *r);
    memory_disk_init(&r->disk);
    r->budget.max = BUDGET;
    r->op.account.budget = &r->budget;
    scratch_init(&r->scratch, &r->disk.disk, max);
    r->budget.scratch = &r->scratch;
    table_init(&r->table, &r->op.account, sizeof(struct owned));
    spill_init(&r->spill, &r->op, &r->table, &toy);
}

static void rig_fini(struct rig *r)
{
    spill_fini(&r->spill);
    assert_null(r->budget.spills);
    assert_int_equal(scratch_bytes(&r->scratch), 0);
    for (struct entry *e = r->table.first; e; e = e->newer)
        toy_drop(&r->op, e);
    table_fini(&r->table);
    assert_int_equal(r->budget.used, 0);
    scratch_fini(&r->scratch);
    assert_int_equal(r->disk.open, 0);
}

static struct slice key_of(uint32_t key, char room[24])
{
    int len = snprintf(room, 24, "key %u", key);
    return slice_of(room, (size_t)len);
}

static bool look(struct rig *r, uint32_t key, struct entry **ret)
{
    char room[24];
    struct slice k = key_of(key, room);
    return spill_find(&r->spill, k, table_hash(&r->table, k), ret, &r->fault);
}

/* The text is set, changed, or goes. False: it failed. */
static bool change(struct rig *r, uint32_t key, const struct model *to)
{
    char room[24];
    struct slice k = key_of(key, room);
    struct entry *e;
    if (!look(r, key, &e))
        return false;
    if (e)
        toy_drop(&r->op, e);
    if (e && !to->there) {
        table_remove(&r->table, e);
    } else if (to->there) {
        uint8_t *text = account_take(&r->op.account, to->len + 1);
        r->fault = SQL_FAULT_MEMORY;
        if (e)
            *owned_of(e) = (struct owned){0};
        else
            e = text ? table_add(&r->table, k, table_hash(&r->table, k)) : NULL;
        if (!text || !e) {
            account_give(&r->op.account, text, to->len + 1);
            if (e)
                table_remove(&r->table, e);
            return false;
        }
        for (uint32_t i = 0; i < to->len; i++)
            text[i] = byte_of(to->seed, i);
        *owned_of(e) = (struct owned){.text = text, .len = to->len, .seed = to->seed, .until = to->until};
    }
    r->model[key] = *to;
    return spill_relieve(&r->budget, &r->fault);
}

static struct model any_text(void)
{
    struct model m = {.len = next_random() % 900, .seed = next_random(), .until = INT64_MAX, .there = true};
    if (next_random() % 500 == 0)
        m.len = 20000 + next_random() % 20000; /* longer than a block, at times */
    return m;
}

static bool run_changes(struct rig *r, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct model to = next_random() % 8 ? any_text() : (struct model){0};
        uint32_t key = next_random() % (next_random() % 3 ? KEYS : 50); /* some are wanted again and again */
        if (!change(r, key, &to))
            return false;
    }
    return true;
}

/* False: it failed; what is there is right in any case. */
static bool all_right(struct rig *r)
{
    for (uint32_t key = 0; key < KEYS; key++) {
        const struct model *m = &r->model[key];
        struct entry *e;
        if (!look(r, key, &e))
            return false;
        assert_true(m->there ? e != NULL : e == NULL);
        for (uint32_t i = 0; e && i < m->len; i++)
            assert_int_equal(owned_of(e)->text[i], byte_of(m->seed, i));
        assert_true(!e || owned_of(e)->len == m->len);
        if (!spill_relieve(&r->budget, &r->fault))
            return false;
    }
    return true;
}

static void test_nothing_is_lost(void **state)
{
    static struct rig r;
    (void)state;
    rig_init(&r, UINT64_MAX);
    for (uint32_t i = 0; i < 20; i++) {
        assert_true(run_changes(&r, 1500));
        assert_true(r.budget.used <= BUDGET / 5 * 4);
        assert_true(all_right(&r));
        uint32_t runs = 0;
        for (const struct spill_run *run = r.spill.runs; run; run = run->next)
            runs++;
        assert_in_range(runs, 1, 24);
    }
    assert_true(r.spill.out > KEYS && r.spill.back > KEYS);
    assert_true(scratch_bytes(&r.scratch) < 8u << 20); /* holes are taken again: what is there is some 1.5 MiB */
    rig_fini(&r);
}

static void test_nothing_is_written_as_long_as_there_is_memory(void **state)
{
    static struct rig r;
    (void)state;
    rig_init(&r, UINT64_MAX);
    r.budget.max = 64u << 20;
    assert_true(run_changes(&r, 5000) && all_right(&r));
    assert_int_equal(r.disk.calls, 0);
    rig_fini(&r);
}

/* What has been found again stays, the rest goes. */
static void test_what_is_used_stays(void **state)
{
    static struct rig r;
    struct entry *e;
    (void)state;
    rig_init(&r, UINT64_MAX);
    for (uint32_t key = 0; !r.spill.out; key++) {
        struct model m = {.len = 500, .seed = key, .until = INT64_MAX, .there = true};
        assert_true(change(&r, key, &m));
        assert_true(look(&r, 3, &e) && (key < 3 || e));
    }
    assert_int_equal(r.table.count, 1);
    assert_int_equal(r.spill.back, 0);
    assert_true(look(&r, 3, &e) && e && r.spill.back == 0);
    assert_true(look(&r, 4, &e) && e && r.spill.back == 1);
    rig_fini(&r);
}

static void test_what_is_over_goes(void **state)
{
    static struct rig r;
    (void)state;
    rig_init(&r, UINT64_MAX);
    for (uint32_t key = 0; key < KEYS; key++) {
        struct model m = {.len = 300, .seed = key, .until = key, .there = true};
        assert_true(change(&r, key, &m));
    }
    uint64_t before = scratch_bytes(&r.scratch), all = spill_count(&r.spill);
    assert_true(before > 0);
    r.clock = KEYS - 500;
    for (uint32_t key = 0; key < KEYS; key++) { /* others come */
        struct model m = {.len = 300, .seed = key, .until = INT64_MAX, .there = true};
        char room[24];
        struct slice k = slice_of(room, (size_t)snprintf(room, sizeof room, "other %u", key));
        struct entry *e = table_add(&r.table, k, table_hash(&r.table, k));
        assert_non_null(e);
        *owned_of(e) = (struct owned){.text = account_take(&r.op.account, 1), .until = m.until};
        assert_true(spill_relieve(&r.budget, &r.fault));
    }
    uint64_t old = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        struct entry *e;
        assert_true(look(&r, key, &e));
        old += e != NULL;
        assert_true(e || key < KEYS - 500);
        assert_true(spill_relieve(&r.budget, &r.fault));
    }
    assert_true(old < all);
    rig_fini(&r);
}

static bool take_bytes(void *arg, struct slice piece)
{
    *(size_t *)arg += piece.len;
    return true;
}

static void test_all_of_it_is_saved(void **state)
{
    static struct rig r;
    struct state_writer w;
    size_t len = 0, wanted = 0;
    (void)state;
    rig_init(&r, UINT64_MAX);
    assert_true(run_changes(&r, 6000));
    assert_true(state_writer_init(&w, take_bytes, &len));
    spill_save(&r.spill, &w);
    assert_true(state_writer_end(&w));
    uint64_t there = 0;
    for (uint32_t key = 0; key < KEYS; key++)
        there += r.model[key].there;
    assert_int_equal(spill_count(&r.spill) + r.table.count, there);
    for (uint32_t key = 0; key < KEYS; key++)
        wanted += r.model[key].len;
    for (struct entry *e = r.table.first; e; e = e->newer)
        wanted -= owned_of(e)->len;
    assert_true(len > wanted && len < wanted + 40 * there);
    assert_true(all_right(&r)); /* nothing has gone by it */
    rig_fini(&r);
}

static bool save_all(struct rig *r, size_t *ret_len)
{
    struct state_writer w;
    *ret_len = 0;
    if (!state_writer_init(&w, take_bytes, ret_len))
        return false;
    spill_save(&r->spill, &w);
    return state_writer_end(&w);
}

/* Memory that is not there for a moment fails what is saved, and nothing else. */
static void test_no_memory_for_a_moment_while_it_is_saved(void **state)
{
    static struct rig r;
    size_t whole, len;
    unsigned failed = 0;
    (void)state;
    rig_init(&r, UINT64_MAX);
    assert_true(run_changes(&r, 6000) && save_all(&r, &whole));
    for (uint64_t n = 1, hit = 1; hit; n++) {
        mem_fail_at(n, false);
        bool ok = save_all(&r, &len);
        hit = mem_failures_hit();
        mem_fail_at(0, false);
        assert_true(ok == !hit);
        assert_int_equal(r.scratch.fault, SQL_FAULT_NONE);
        failed += !ok;
    }
    assert_true(failed > 4 && len == whole);
    assert_true(run_changes(&r, 3000) && all_right(&r));
    rig_fini(&r);
}

static void test_a_disk_that_fails(void **state)
{
    static struct rig r;
    (void)state;
    uint64_t failed = 0;
    for (uint64_t n = 1;; n += 1 + n / 20) {
        chance = 7;
        rig_init(&r, UINT64_MAX);
        r.disk.fail_at = n;
        r.disk.fault = n % 2 ? SQL_FAULT_SCRATCH_FULL : SQL_FAULT_SCRATCH_LOST;
        bool ok = run_changes(&r, 4000) && all_right(&r);
        assert_true(ok || r.fault == SQL_FAULT_SCRATCH_LOST || r.fault == SQL_FAULT_SCRATCH_FULL);
        assert_true(ok || r.scratch.fault == r.fault);
        rig_fini(&r);
        if (ok)
            break;
        failed++;
    }
    assert_true(failed > 60);
}

static void test_memory_that_fails(void **state)
{
    static struct rig r;
    (void)state;
    uint64_t failed = 0;
    for (uint64_t n = 1;; n += 1 + n / 10) {
        chance = 9;
        rig_init(&r, UINT64_MAX);
        mem_fail_at(n, true);
        bool ok = run_changes(&r, 2500) && all_right(&r);
        mem_fail_at(0, false);
        assert_true(ok || r.fault == SQL_FAULT_MEMORY);
        rig_fini(&r);
        if (ok)
            break;
        failed++;
    }
    assert_true(failed > 60);
}

static void test_a_file_that_may_not_grow(void **state)
{
    static struct rig r;
    (void)state;
    rig_init(&r, 8 * SCRATCH_BLOCK);
    assert_false(run_changes(&r, 20000));
    assert_int_equal(r.fault, SQL_FAULT_SCRATCH_FULL);
    assert_true(scratch_bytes(&r.scratch) <= 8 * SCRATCH_BLOCK);
    rig_fini(&r);
}

/* A bit of the file turns: what was there is never given out as something else. */
static void test_a_disk_that_forgets(void **state)
{
    static struct rig r;
    (void)state;
    for (uint32_t i = 0; i < 100; i++) {
        chance = 1000 + i;
        rig_init(&r, UINT64_MAX);
        assert_true(run_changes(&r, 3000));
        r.disk.bytes[next_random() % r.disk.len] ^= (uint8_t)(1u << next_random() % 8);
        assert_true(all_right(&r) || r.fault == SQL_FAULT_SCRATCH_LOST);
        rig_fini(&r);
    }
}

/* Where the first entry of a run stands that has not come back. */
static uint8_t *first_entry(struct rig *r)
{
    for (const struct spill_run *run = r->spill.runs; run; run = run->next)
        if (run->marks[0])
            return r->disk.bytes + (size_t)run->blocks[0] * SCRATCH_BLOCK;
    fail_msg("all of them are holes");
    return NULL;
}

/* The same of each bit in front of an entry: it is told of, and the entry is neither lost nor taken for another one. */
static void test_a_head_that_is_damaged(void **state)
{
    static struct rig r;
    (void)state;
    for (uint32_t bit = 0; bit < 8 * sizeof(struct run_entry); bit++) {
        struct run_entry head;
        struct state_writer w;
        struct entry *e;
        size_t len = 0;
        chance = 5;
        rig_init(&r, UINT64_MAX);
        assert_true(run_changes(&r, 3000));
        uint8_t *at = first_entry(&r);
        memcpy(&head, at, sizeof head);
        at[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(spill_find(&r.spill, slice_of(at + sizeof head, head.key_len), head.hash, &e, &r.fault));
        assert_int_equal(r.fault, SQL_FAULT_SCRATCH_LOST);
        assert_true(state_writer_init(&w, take_bytes, &len));
        spill_save(&r.spill, &w);
        assert_false(state_writer_end(&w));
        rig_fini(&r);
    }
}

/* Nor does it get into the run that its own becomes a part of. */
static void test_a_damaged_head_is_not_merged(void **state)
{
    static struct rig r;
    (void)state;
    for (uint32_t bit = 0; bit < 8 * sizeof(struct run_entry); bit++) {
        enum sql_fault fault = SQL_FAULT_NONE;
        chance = 5;
        rig_init(&r, UINT64_MAX);
        assert_true(run_changes(&r, 3000));
        first_entry(&r)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        bool ok = true;
        for (uint32_t i = 0; ok && i < 100; i++) { /* one entry that nobody knows at a time */
            char room[24];
            struct slice key = slice_of(room, (size_t)snprintf(room, sizeof room, "other %u", i));
            struct entry *e = table_add(&r.table, key, table_hash(&r.table, key));
            assert_non_null(e);
            *owned_of(e) = (struct owned){.text = account_take(&r.op.account, 1), .until = INT64_MAX};
            ok = spill_out(&r.spill, &fault);
        }
        assert_false(ok);
        assert_int_equal(fault, SQL_FAULT_SCRATCH_LOST);
        rig_fini(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_lost),
        cmocka_unit_test(test_nothing_is_written_as_long_as_there_is_memory),
        cmocka_unit_test(test_what_is_used_stays),
        cmocka_unit_test(test_what_is_over_goes),
        cmocka_unit_test(test_all_of_it_is_saved),
        cmocka_unit_test(test_no_memory_for_a_moment_while_it_is_saved),
        cmocka_unit_test(test_a_disk_that_fails),
        cmocka_unit_test(test_memory_that_fails),
        cmocka_unit_test(test_a_file_that_may_not_grow),
        cmocka_unit_test(test_a_disk_that_forgets),
        cmocka_unit_test(test_a_head_that_is_damaged),
        cmocka_unit_test(test_a_damaged_head_is_not_merged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
