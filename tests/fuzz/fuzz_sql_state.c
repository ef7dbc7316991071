/* Fuzz target of what a query reads that is no statement: trails, pieces of partitions, snapshots, records.
 * fuzz: -max_len=4096
 * covers: src/sql/query/trail.c src/sql/query/input.c src/sql/query/scan.c src/sql/query/encode.c src/sql/query/record_column.c
 *
 * The first byte chooses. 0: a trail; what can be read can be added, and flattened twice it is as flattened once. 1: a piece, whose first batch's
 * checksum is made right; runs of one and of a thousand records are the same records. 2: a snapshot of a query; when it is taken, the query runs on.
 * 3: a record of CSV. 4: a record of JSON: encoded, it is read as what it was.
 */
#include "base/check.h"
#include "base/mem.h"
#include "fmt/crc32c.h"
#include "fmt/record_batch.h"
#include "sql/language/parse.h"
#include "sql/query/encode.h"
#include "sql/query/input.h"
#include "sql/query/trail.h"

#define BOUND (64u << 10)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static void use_trail(struct slice bytes)
{
    struct trail t, once;
    struct trail_reader r;
    struct trail_entry e;
    size_t read = 0, added = 0;
    bool damaged;
    trail_init(&t, BOUND);
    trail_init(&once, BOUND);
    bool ok = trail_append(&t, bytes, &damaged);
    CHECK(ok != damaged);
    trail_read_begin(&r, bytes);
    while (trail_read(&r, &e))
        read++;
    CHECK(trail_read_ok(&r) == ok);
    trail_read_begin(&r, trail_bytes(&t));
    while (trail_read(&r, &e))
        added++;
    CHECK(trail_read_ok(&r) && added <= read);
    CHECK(trail_flatten(&t) && trail_append(&once, trail_bytes(&t), &damaged) && trail_flatten(&once));
    CHECK(slice_equal(trail_bytes(&t), trail_bytes(&once)));
    trail_fini(&t);
    trail_fini(&once);
}

struct seen {
    uint64_t records, hash, place;
    enum input_verdict verdict;
};

static struct seen read_piece(struct input *in, struct slice piece, uint32_t rows)
{
    struct input_piece p = {.bytes = piece, .from = 1, .until = 1u << 30};
    struct query_input q;
    struct seen seen = {.hash = 0};
    input_begin(in, &p);
    while ((seen.verdict = input_next(in, rows, &q)) == INPUT_ROWS)
        for (uint32_t i = 0; i < q.rows; i++) {
            CHECK(q.offsets[i] >= p.from && q.offsets[i] < p.until && q.records[i].ptr);
            CHECK(!i || q.offsets[i] > q.offsets[i - 1]);
            seen.hash = seen.hash * 31 + crc32c((uint32_t)q.offsets[i], q.records[i].ptr, q.records[i].len);
            seen.records++;
        }
    seen.place = input_place(in);
    return seen;
}

static void use_piece(struct slice bytes)
{
    uint8_t *copy = mem_alloc(bytes.len + 1);
    struct compress *z = compress_new();
    struct input *in = input_new(z, BOUND);
    struct record_batch batch;
    CHECK(copy && z && in);
    memcpy(copy, bytes.ptr, bytes.len);
    if (record_batch_peek(bytes, &batch) == RECORD_OK && batch.bytes <= bytes.len) {
        uint32_t crc = htobe32(crc32c(0, copy + 21, batch.bytes - 21));
        memcpy(copy + 17, &crc, sizeof crc);
    }
    struct seen one = read_piece(in, slice_of(copy, bytes.len), 1),
                many = read_piece(in, slice_of(copy, bytes.len), 1000);
    CHECK(one.records == many.records && one.hash == many.hash && one.place == many.place &&
          one.verdict == many.verdict);
    input_free(&in);
    compress_free(&z);
    mem_free(copy);
}

/* ---------------------------------------------------------------------------------------------------------- queries */

static const char *const queries[] = {
    "CREATE STREAM s (k TEXT, v BIGINT, d DOUBLE, ts TIMESTAMP, WATERMARK FOR ts AS ts);"
    "SELECT k, max(k) AS m, count(DISTINCT v) AS n, avg(d) AS a, window_end FROM HOP(s, ts, INTERVAL '1' SECOND, "
    "INTERVAL '2' "
    "SECOND) GROUP BY k, window_end",
    "CREATE STREAM s (a TEXT, b INT, c TIMESTAMP, d BYTES, e JSON) WITH (format = 'csv');"
    "SELECT *, _key, _headers FROM s",
    "CREATE STREAM s (a TEXT, b BIGINT, c TIMESTAMP, d BYTES, e JSON, f DOUBLE, g DECIMAL(20, 5), h DATE, i TIME, j "
    "BOOLEAN);"
    "SELECT * FROM s",
};

struct rig {
    struct op op;
    struct arena arena;
    struct catalog catalog;
    struct query *q;
    struct encoder *encoder;
    uint8_t *out; /* the last row; NULL: none */
    size_t len;
    struct slice given; /* of a snapshot */
};

static bool push(struct op *op, struct step *step, const struct batch *b)
{
    struct rig *r = CONTAINER_OF(op, struct rig, op);
    (void)step;
    for (uint32_t k = 0; k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k);
        size_t room = encoder_room(r->encoder, b->columns, row);
        mem_free(r->out);
        r->out = mem_alloc(room);
        CHECK(r->out);
        r->len = encoder_row(r->encoder, b->columns, row, 0, r->out);
        CHECK(r->len + ENCODE_SPARE <= room);
    }
    return true;
}

static void rig_init(struct rig *r, const char *text)
{
    static const struct op_kind kind = {.name = "fuzz", .push = push};
    struct sql_error error = {0};
    struct ast_list list;
    *r = (struct rig){.op = {.kind = &kind}};
    arena_init(&r->arena, SQL_PARSE_MEMORY_MAX);
    CHECK(sql_parse(slice_str(text), &r->arena, &list, &error) && catalog_add(&r->catalog, list.at[0], &error));
    r->q = query_new(&r->catalog, list.at[1], 1 << 20, &r->op, &error);
    CHECK(r->q);
    r->encoder = encoder_new(query_plan(r->q)->columns, query_plan(r->q)->column_count);
    CHECK(r->encoder);
}

static void rig_fini(struct rig *r)
{
    query_free(&r->q);
    encoder_free(&r->encoder);
    mem_free(r->out);
    arena_fini(&r->arena);
}

static bool give(void *arg, struct slice *ret)
{
    struct rig *r = arg;
    *ret = r->given;
    r->given = (struct slice){0};
    return ret->len > 0;
}

static void use_snapshot(struct slice bytes)
{
    struct rig r;
    struct state_reader reader;
    struct sql_error error = {0};
    enum sql_fault fault;
    struct slice rows[] = {slice_str("{\"k\":\"a\",\"v\":1,\"ts\":\"2026-01-01 00:00:01\"}"),
                           slice_str("{\"k\":\"a\",\"v\":1,\"d\":2,\"ts\":\"2026-01-01 00:00:09\"}")};
    struct query_input in = {.records = rows, .rows = 2};
    rig_init(&r, queries[0]);
    r.given = bytes;
    state_reader_init(&reader, give, &r);
    if (query_load(r.q, &reader, &error))
        (void)query_step(r.q, &in, &fault);
    else
        CHECK(error.fault != SQL_FAULT_NONE);
    rig_fini(&r);
}

static void use_csv(struct slice bytes)
{
    struct rig r;
    enum sql_fault fault;
    struct query_input in = {.records = &bytes, .keys = &bytes, .headers = &bytes, .rows = 1};
    rig_init(&r, queries[1]);
    CHECK(query_step(r.q, &in, &fault));
    rig_fini(&r);
}

static void use_json(struct slice bytes)
{
    struct rig r, again;
    enum sql_fault fault;
    struct query_input in = {.records = &bytes, .rows = 1};
    rig_init(&r, queries[2]);
    rig_init(&again, queries[2]);
    CHECK(query_step(r.q, &in, &fault));
    struct slice row = slice_of(r.out, r.len);
    in.records = &row;
    if (r.out)
        CHECK(query_step(again.q, &in, &fault) && again.out && slice_equal(row, slice_of(again.out, again.len)));
    rig_fini(&r);
    rig_fini(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    size_t before = mem_in_use();
    if (!len)
        return 0;
    struct slice rest = slice_of(bytes + 1, len - 1);
    switch (bytes[0] % 5) {
    case 0: use_trail(rest); break;
    case 1: use_piece(rest); break;
    case 2: use_snapshot(rest); break;
    case 3: use_csv(rest); break;
    default: use_json(rest); break;
    }
    CHECK(mem_in_use() == before);
    return 0;
}
