/* A join of random rows, out of order, some of them taken back: what comes out is the same whatever a step's size is, when it was saved and loaded in
 * between, when what it keeps is in a file time and again, and when memory fails it says so. What is right is compared with SQLite in tests/sql. */
#include "sql/query/op_join.h"

#include "base/mem.h"
#include "sql/query/scratch_rig_test.h"
#include "sql/query/spill.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define ROWS 600u
#define STEP_MAX 64u
#define COLUMNS 3u /* key, time, text */
#define DELAY 20

enum variant { INNER, LEFT, FULL, FULL_CHANGES, SEMI, ANTI, ANTI_CHANGES, FOREVER, TTL, VARIANTS };

struct input_row {
    unsigned side;
    int64_t key, time;
    bool null_key;
    int8_t weight;
    char text[24];
};

static struct input_row rows[ROWS];

static uint32_t next_random(void)
{
    static uint64_t state = 11;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* Each row that is taken back is one that came before, and one time only. */
static void make_rows(bool retracts)
{
    static bool taken_back[ROWS];
    memset(taken_back, 0, sizeof taken_back);
    for (uint32_t i = 0; i < ROWS; i++) {
        struct input_row *r = &rows[i];
        uint32_t old = i ? next_random() % i : 0, back = i > 30 ? i - 1 - old % 30 : 0;
        if (retracts && i > 30 && next_random() % 5 == 0 && rows[back].weight > 0 && !taken_back[back]) {
            *r = rows[back];
            r->weight = -1;
            taken_back[back] = true;
            continue;
        }
        *r = (struct input_row){.side = next_random() % 2,
                                .key = next_random() % 8,
                                .time = (int64_t)i + next_random() % 30,
                                .null_key = next_random() % 20 == 0,
                                .weight = 1};
        snprintf(r->text, sizeof r->text, "%.*s%u", (int)(next_random() % 18), "abcdefghijklmnopqrst", i);
    }
}

struct rig {
    struct op sink;
    struct budget budget;
    struct clock clock;
    struct join_rule rule;
    struct op *join;
    struct arena arena;
    struct memory_disk disk;
    struct scratch_file scratch;
    uint32_t spills; /* after each so many steps all goes to the file; 0: never */
    uint32_t next;   /* row */
    size_t len;
    char text[1 << 20];
};

static bool show(struct op *op, struct step *step, const struct batch *b)
{
    struct rig *r = CONTAINER_OF(op, struct rig, sink);
    (void)step;
    for (uint32_t k = 0; k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k);
        r->len += (size_t)snprintf(r->text + r->len, sizeof r->text - r->len, "%d", batch_weight(b, row));
        for (uint32_t i = 0; i < b->column_count; i++) {
            const struct slice *text = &((const struct slice *)b->columns[i].values)[row];
            if (column_null(&b->columns[i], row))
                r->len += (size_t)snprintf(r->text + r->len, sizeof r->text - r->len, " -");
            else
                r->len += (size_t)snprintf(r->text + r->len, sizeof r->text - r->len, " %.*s", SLICE_ARG(*text));
        }
        r->len += (size_t)snprintf(r->text + r->len, sizeof r->text - r->len, "\n");
        assert_true(r->len < sizeof r->text - 100);
    }
    return true;
}

static bool rig_init(struct rig *r, enum variant v, size_t max)
{
    static const struct op_kind kind = {.name = "show", .push = show};
    static const uint32_t kept[] = {2, 1};
    static const struct sql_type types[] = {{.kind = TYPE_TEXT}, {.kind = TYPE_TIMESTAMP}};
    static const struct join_test tests[] = {{.op = JOIN_LE, .form = FORM_I64, .left = 1, .right = 1}};
    static const struct join_out outs[] = {{0, 0}, {1, 0}};
    memset(r, 0, offsetof(struct rig, text));
    r->sink.kind = &kind;
    r->budget.max = max;
    r->clock.now = TIME_NEVER;
    r->rule = (struct join_rule){.tests = tests,
                                 .test_count = 1,
                                 .outs = outs,
                                 .out_count = v == SEMI || v == ANTI || v == ANTI_CHANGES ? 1 : 2,
                                 .semi = v == SEMI,
                                 .anti = v == ANTI || v == ANTI_CHANGES,
                                 .changes = v == FULL_CHANGES || v == ANTI_CHANGES,
                                 .weighted = true};
    for (unsigned s = 0; s < 2; s++) {
        struct join_side *side = &r->rule.sides[s];
        *side = (struct join_side){.key_count = 1, .kept = kept, .types = types, .kept_count = 2, .retracts = true};
        side->outer = v == FULL || v == FULL_CHANGES || (s == 0 && v != INNER && v < FOREVER);
        if (v >= FOREVER) {
            side->clock = v == TTL ? &r->clock : NULL;
            side->ttl = 30;
            continue;
        }
        /* left.time <= right.time <= left.time + 10 */
        side->ends[0] = (struct join_bound){.clock = &r->clock, .column = 1, .offset = s ? 0 : 10};
        side->promises[0] = (struct join_bound){.clock = &r->clock, .column = 1};
        side->end_count = side->promise_count = 1;
        side->clock = &r->clock;
    }
    arena_init(&r->arena, 16u << 20);
    memory_disk_init(&r->disk);
    scratch_init(&r->scratch, &r->disk.disk, UINT64_MAX);
    r->budget.scratch = &r->scratch;
    r->join = op_join_new(&r->budget, &r->rule);
    if (!r->join)
        return false;
    r->join->outputs[r->join->output_count++] = &r->sink;
    return true;
}

static void rig_fini(struct rig *r)
{
    op_free(&r->join);
    arena_fini(&r->arena);
    scratch_fini(&r->scratch);
    assert_int_equal(r->disk.open, 0);
    assert_int_equal(r->budget.used, 0);
}

static bool push_side(struct rig *r, struct step *step, unsigned side, const struct input_row *in, uint32_t count)
{
    int64_t keys[STEP_MAX], times[STEP_MAX];
    struct slice texts[STEP_MAX];
    uint64_t nulls[1] = {0};
    int8_t weights[STEP_MAX];
    uint16_t origins[STEP_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < count; i++)
        if (in[i].side == side) {
            keys[n] = in[i].key;
            times[n] = in[i].time;
            texts[n] = slice_str(in[i].text);
            nulls[0] |= (uint64_t)in[i].null_key << n;
            weights[n] = in[i].weight;
            origins[n++] = (uint16_t)i;
        }
    struct column columns[COLUMNS] = {{.form = FORM_I64, .values = keys, .nulls = nulls},
                                      {.form = FORM_I64, .values = times},
                                      {.form = FORM_TEXT, .values = texts}};
    struct batch b = {.arena = &r->arena,
                      .columns = columns,
                      .column_count = COLUMNS,
                      .rows = n,
                      .sel = {.count = n},
                      .weights = weights,
                      .origins = origins};
    return op_push(op_join_input(r->join, side), step, &b);
}

/* The next rows as one step. */
static bool step_rows(struct rig *r, uint32_t count)
{
    int64_t at[STEP_MAX + 1];
    struct step step = {.rows = count};
    const struct input_row *in = rows + r->next;
    at[0] = r->clock.now;
    for (uint32_t i = 0; i < count; i++)
        at[i + 1] = in[i].time - DELAY > at[i] ? in[i].time - DELAY : at[i];
    r->clock.at = at;
    r->clock.now = at[count];
    bool ok = push_side(r, &step, 0, in, count) && push_side(r, &step, 1, in, count) &&
              op_flush(op_join_input(r->join, 0), &step) && op_flush(op_join_input(r->join, 1), &step);
    r->clock.at = NULL;
    arena_reset(&r->arena);
    r->next += count;
    if (ok && r->spills && r->next % r->spills < count) {
        size_t max = r->budget.max;
        r->budget.max = r->budget.used + 4096; /* of which an eighth stays, of what was wanted again */
        assert_true(spill_out(r->join->spill, &step.fault));
        r->budget.max = max;
    }
    assert_true(ok == (step.fault == SQL_FAULT_NONE));
    return ok;
}

static bool run_to(struct rig *r, uint32_t to, uint32_t size)
{
    while (r->next < to)
        if (!step_rows(r, to - r->next < size ? to - r->next : size))
            return false;
    return true;
}

static struct rig one, two;

static void test_sizes_of_steps(void **state)
{
    (void)state;
    for (int retracts = 0; retracts < 2; retracts++)
        for (enum variant v = INNER; v < VARIANTS; v++) {
            static const uint32_t sizes[] = {2, 7, STEP_MAX};
            make_rows(retracts);
            assert_true(rig_init(&one, v, 1u << 24) && run_to(&one, ROWS, 1));
            assert_true(one.len > 300);
            for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
                assert_true(rig_init(&two, v, 1u << 24) && run_to(&two, ROWS, sizes[i]));
                assert_string_equal(one.text, two.text);
                assert_int_equal(one.join->late, two.join->late);
                rig_fini(&two);
            }
            assert_true(v >= FOREVER ? !one.join->late : one.join->late > 0);
            rig_fini(&one);
        }
}

/* When the later row of a pair comes, the earlier one has not ended; and each was of use when it came. */
static void test_which_pairs(void **state)
{
    (void)state;
    int64_t clock[ROWS + 1] = {TIME_NEVER};
    make_rows(false);
    size_t len = 0;
    uint32_t late = 0;
    bool used[ROWS];
    assert_true(rig_init(&one, INNER, 1u << 24) && run_to(&one, ROWS, 7));
    for (uint32_t i = 0; i < ROWS; i++) {
        const struct input_row *r = &rows[i];
        int64_t end = r->time + (r->side ? 0 : 10);
        used[i] = r->null_key || r->time >= clock[i] || end >= clock[i];
        late += !used[i];
        for (uint32_t k = 0; k < i; k++) {
            const struct input_row *left = r->side ? &rows[k] : r, *right = r->side ? r : &rows[k];
            bool met = rows[k].side != r->side && used[i] && used[k] && !r->null_key && !rows[k].null_key &&
                       r->key == rows[k].key && left->time <= right->time &&
                       rows[k].time + (rows[k].side ? 0 : 10) >= clock[i];
            if (met)
                len += (size_t)snprintf(two.text + len, sizeof two.text - len, "1 %s %s\n", left->text, right->text);
        }
        clock[i + 1] = r->time - DELAY > clock[i] ? r->time - DELAY : clock[i];
    }
    assert_string_equal(one.text, two.text);
    assert_int_equal(one.join->late, late);
    rig_fini(&one);
}

/* All that can be in a file gives the same; what is given out when it ends cannot. */
static void test_spilled(void **state)
{
    uint64_t back = 0;
    (void)state;
    for (int retracts = 0; retracts < 2; retracts++)
        for (enum variant v = INNER; v < VARIANTS; v++) {
            static const uint32_t sizes[] = {1, 7, 20};
            make_rows(retracts);
            assert_true(rig_init(&one, v, 1u << 24) && run_to(&one, ROWS, 7));
            assert_true(!one.join->spill == (v == LEFT || v == FULL || v == ANTI));
            for (size_t i = 0; one.join->spill && i < ARRAY_LEN(sizes); i++) {
                assert_true(rig_init(&two, v, 1u << 24));
                two.spills = 1 + (uint32_t)i * 30;
                assert_true(run_to(&two, ROWS, sizes[i]));
                back += two.join->spill->back;
                assert_string_equal(one.text, two.text);
                assert_int_equal(one.join->late, two.join->late);
                rig_fini(&two);
            }
            rig_fini(&one);
        }
    assert_true(back > 1000);
}

struct bytes {
    uint8_t at[1 << 20];
    size_t len, given;
};

static struct bytes saved;

static bool take(void *arg, struct slice piece)
{
    struct bytes *b = arg;
    assert_true(piece.len <= sizeof b->at - b->len);
    memcpy(b->at + b->len, piece.ptr, piece.len);
    b->len += piece.len;
    return true;
}

static bool give(void *arg, struct slice *ret)
{
    struct bytes *b = arg;
    size_t some = b->len - b->given < 1000 ? b->len - b->given : 1000;
    *ret = slice_of(b->at + b->given, some);
    b->given += some;
    return some > 0;
}

static void save(struct rig *r)
{
    struct state_writer w;
    saved.len = 0;
    assert_true(state_writer_init(&w, take, &saved));
    r->join->kind->save(r->join, &w);
    assert_true(state_writer_end(&w));
}

static bool load(struct rig *r)
{
    struct state_reader reader;
    saved.given = 0;
    state_reader_init(&reader, give, &saved);
    bool ok = r->join->kind->load(r->join, &reader);
    return ok && state_reader_end(&reader);
}

static void test_saved_and_loaded(void **state)
{
    (void)state;
    for (enum variant v = INNER; v < VARIANTS; v++)
        for (uint32_t at = 0; at < ROWS - 40; at += 97) {
            make_rows(at % 2);
            assert_true(rig_init(&one, v, 1u << 24) && run_to(&one, at, 7));
            one.spills = one.join->spill && at % 4 ? 40 : 0;
            assert_true(run_to(&one, at + 40, 7));
            save(&one);
            assert_true(rig_init(&two, v, 1u << 24) && load(&two));
            two.clock.now = one.clock.now;
            two.next = one.next;
            size_t before = one.len;
            assert_true(run_to(&one, ROWS, 7) && run_to(&two, ROWS, 13));
            assert_string_equal(one.text + before, two.text);
            rig_fini(&one);
            rig_fini(&two);
        }
}

/* Bytes that are too few, or wrong, are refused or are a state; whatever it is, it can be freed. */
static void test_damaged(void **state)
{
    (void)state;
    make_rows(false);
    assert_true(rig_init(&one, FULL, 1u << 24) && run_to(&one, 60, 7));
    save(&one);
    size_t len = saved.len;
    for (size_t cut = 0; cut < len; cut += 1 + cut / 50) {
        saved.len = cut;
        assert_true(rig_init(&two, FULL, 1u << 24));
        assert_false(load(&two));
        rig_fini(&two);
    }
    saved.len = len;
    for (size_t i = 0; i < len; i += 1 + i / 50) {
        saved.at[i] ^= 0x55;
        assert_true(rig_init(&two, FULL, 1u << 24));
        (void)load(&two);
        rig_fini(&two);
        saved.at[i] ^= 0x55;
    }
    rig_fini(&one);
}

static void test_no_memory(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    make_rows(true);
    assert_true(rig_init(&one, INNER, 1500) && !run_to(&one, ROWS, 7)); /* beyond its budget */
    rig_fini(&one);
    for (uint64_t n = 1;; n++) {
        mem_fail_at(n, false);
        bool ok = rig_init(&one, FULL, 1u << 24) && run_to(&one, 200, 7);
        uint64_t hit = mem_failures_hit();
        mem_fail_at(0, false);
        rig_fini(&one);
        assert_int_equal(mem_in_use(), before);
        if (!hit) {
            assert_true(ok);
            return;
        }
        assert_false(ok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes_of_steps), cmocka_unit_test(test_which_pairs),
                                       cmocka_unit_test(test_spilled),        cmocka_unit_test(test_saved_and_loaded),
                                       cmocka_unit_test(test_damaged),        cmocka_unit_test(test_no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
