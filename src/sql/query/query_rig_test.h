/* query_rig: a query over records of a test, and the rows that it gives as text; saved, and gone on with. For this folder's tests only. */
#ifndef MILLRACE_SQL_QUERY_QUERY_RIG_TEST_H
#define MILLRACE_SQL_QUERY_QUERY_RIG_TEST_H

#include "sql/query/query.h"

#include "base/mem.h"
#include "sql/language/parse.h"

#include <stdio.h>

#define RIG_FN __attribute__((unused)) static

#define STATE_MAX (1u << 20)
#define SCHEMA                                                                                                         \
    "CREATE STREAM s (k TEXT, v BIGINT, n INT, d DOUBLE, j JSON, r ROW<a INT, b ROW<c TEXT>>, ts TIMESTAMP, "          \
    "twice AS (v + v), WATERMARK FOR ts AS ts - INTERVAL '2' SECOND);"                                                 \
    "CREATE STREAM plain (k TEXT, ts TIMESTAMP);"                                                                      \
    "CREATE VIEW big (name, amount) AS SELECT k, v FROM s WHERE v > 10;"

/* Rows as text, one a line, with the weight in front unless it is 1. */
struct shown {
    struct op op;
    struct writer w;
    char text[4096];
    uint32_t faults;
};

RIG_FN bool show(struct op *op, struct step *step, const struct batch *b)
{
    struct shown *shown = CONTAINER_OF(op, struct shown, op);
    (void)step;
    for (uint32_t k = 0; k < b->sel.count; k++) {
        uint32_t row = sel_row(b->sel, k);
        if (batch_weight(b, row) < 0)
            writer_u8(&shown->w, '-');
        for (uint32_t i = 0; i < b->column_count; i++) {
            const struct column *c = &b->columns[i];
            char number[32];
            writer_put(&shown->w, ",", i > 0);
            if (column_null(c, row)) {
                writer_put(&shown->w, "NULL", 4);
            } else if (c->form == FORM_TEXT) {
                writer_slice_put(&shown->w, ((const struct slice *)c->values)[row & column_mask(c)]);
            } else {
                int64_t v = c->form == FORM_I64    ? ((const int64_t *)c->values)[row & column_mask(c)]
                            : c->form == FORM_I128 ? (int64_t)((const decimal_t *)c->values)[row & column_mask(c)]
                            : c->form == FORM_F64  ? (int64_t)((const double *)c->values)[row & column_mask(c)]
                                                   : ((const uint8_t *)c->values)[row & column_mask(c)];
                int len = snprintf(number, sizeof number, "%lld", (long long)v);
                writer_put(&shown->w, number, (size_t)len);
            }
        }
        writer_u8(&shown->w, '\n');
    }
    return true;
}

RIG_FN void diverted(void *arg, uint32_t origin, enum sql_fault fault)
{
    (void)origin, (void)fault;
    ((struct shown *)arg)->faults++;
}

/* A snapshot. */
struct bytes {
    uint8_t *at;
    size_t len, given, piece;
};

RIG_FN bool bytes_take(void *arg, struct slice piece)
{
    struct bytes *b = arg;
    uint8_t *more = mem_realloc(b->at, b->len + piece.len);
    if (!more)
        return false;
    b->at = more;
    memcpy(b->at + b->len, piece.ptr, piece.len);
    b->len += piece.len;
    return true;
}

RIG_FN bool bytes_give(void *arg, struct slice *ret)
{
    struct bytes *b = arg;
    size_t some = b->piece < b->len - b->given ? b->piece : b->len - b->given;
    *ret = slice_of(b->at + b->given, some);
    b->given += some;
    return some > 0;
}

struct rig {
    struct arena arena;
    struct catalog catalog;
    struct shown shown;
    const struct ast *statement;
    size_t state_max;
    struct query *q;
    struct sql_error error;
    struct bytes saved;
    bool restarts; /* before each step */
};

RIG_FN bool rig_query(struct rig *r)
{
    r->q = query_new(&r->catalog, r->statement, r->state_max, &r->shown.op, &r->error);
    if (r->q)
        query_divert(r->q, diverted, &r->shown);
    return r->q;
}

RIG_FN bool rig_init(struct rig *r, const char *query, size_t state_max)
{
    static const struct op_kind kind = {.name = "show", .push = show};
    char text[2048];
    struct ast_list list;
    *r = (struct rig){.shown = {.op = {.kind = &kind}}};
    r->shown.w = writer_of(r->shown.text, sizeof r->shown.text - 1);
    arena_init(&r->arena, SQL_PARSE_MEMORY_MAX);
    int len = snprintf(text, sizeof text, "%s%s", SCHEMA, query);
    if (!sql_parse(slice_of(text, (size_t)len), &r->arena, &list, &r->error))
        return false;
    for (size_t i = 0; i + 1 < list.count; i++)
        if (!catalog_add(&r->catalog, list.at[i], &r->error))
            return false;
    r->statement = list.at[list.count - 1];
    r->state_max = state_max;
    return rig_query(r) && query_begin(r->q, 0, &r->error.fault);
}

RIG_FN bool rig_save(struct rig *r)
{
    struct state_writer w;
    mem_free(r->saved.at);
    r->saved = (struct bytes){.piece = 5};
    if (!state_writer_init(&w, bytes_take, &r->saved))
        return false;
    query_save(r->q, &w);
    return state_writer_end(&w);
}

/* Another query goes on with what was saved. */
RIG_FN bool rig_load(struct rig *r)
{
    struct state_reader reader;
    query_free(&r->q);
    r->saved.given = 0;
    state_reader_init(&reader, bytes_give, &r->saved);
    return rig_query(r) && query_load(r->q, &reader, &r->error) && state_reader_end(&reader);
}

RIG_FN void rig_fini(struct rig *r)
{
    query_free(&r->q);
    mem_free(r->saved.at);
    arena_fini(&r->arena);
}

RIG_FN bool feed(struct rig *r, const char *const *records, uint32_t count, uint32_t batch, enum sql_fault *ret)
{
    struct slice at[64];
    *ret = SQL_FAULT_NONE;
    for (uint32_t i = 0; i < count; i++)
        at[i] = slice_str(records[i]);
    for (uint32_t from = 0; from < count; from += batch) {
        struct query_input in = {
            .records = at + from, .offset = from, .rows = count - from < batch ? count - from : batch};
        if (r->restarts && !(rig_save(r) && rig_load(r))) {
            *ret = r->error.fault == SQL_FAULT_NONE ? SQL_FAULT_MEMORY : r->error.fault;
            return false;
        }
        if (!query_step(r->q, &in, ret))
            return false;
    }
    return true;
}

#endif
