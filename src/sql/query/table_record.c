/* Tombstones as rows, see table_record.h. */
#include "sql/query/table_record.h"

#include "sql/query/encode.h"

/* {"id":"7"}: every type of a key is read from a text, too. Empty: it has no key. False: no memory. */
static bool object_of(struct slice name, struct slice key, struct arena *arena, struct slice *ret)
{
    *ret = (struct slice){.ptr = (const uint8_t *)""};
    if (!key.ptr)
        return true;
    if (!name.ptr) {
        *ret = key;
        return true;
    }
    uint8_t *begin = arena_take(arena, 6 * (name.len + key.len) + ENCODE_SPARE), *out = begin;
    if (!out)
        return false;
    memcpy(out, "{\"", 2);
    out = encode_escaped(out + 2, name);
    memcpy(out, "\":\"", 3);
    out = encode_escaped(out + 3, key);
    memcpy(out, "\"}", 2);
    *ret = slice_of(begin, (size_t)(out + 2 - begin));
    return true;
}

bool table_records(const struct source *source, const struct query_input *in, struct arena *arena,
                   const struct slice **ret_records, const int8_t **ret_weights)
{
    uint32_t row = 0;
    *ret_records = in->records;
    *ret_weights = NULL;
    while (row < in->rows && (in->records[row].ptr || !source->deletes))
        row++;
    if (row == in->rows)
        return true;
    struct slice *records = arena_take(arena, in->rows * sizeof *records);
    int8_t *weights = arena_take(arena, in->rows);
    if (!records || !weights)
        return false;
    for (row = 0; row < in->rows; row++) {
        weights[row] = in->records[row].ptr ? 1 : -1;
        records[row] = in->records[row];
        struct slice key = in->keys ? in->keys[row] : (struct slice){0};
        if (weights[row] < 0 && !object_of(source->key_name, key, arena, &records[row]))
            return false;
    }
    *ret_records = records;
    *ret_weights = weights;
    return true;
}

void table_forgive(struct eval *e, const int8_t *weights, uint32_t rows)
{
    for (uint32_t i = 0; weights && e->fault_count && i < rows; i++)
        if (weights[i] < 0 && e->faults[i] == SQL_FAULT_NOT_NULL) {
            e->faults[i] = SQL_FAULT_NONE;
            e->fault_count--;
        }
}
