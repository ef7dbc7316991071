/* scan: records to the columns of a batch: each column is a path and a type, and only the paths are decoded.
 *
 *   scan_new ▸ { scan_batch ▸ use eval.columns … ▸ reset of the batch's arena }* ▸ scan_free
 *                { scan_apart ▸ scan_pick, for each who wants some of the columns ▸ reset }*
 *
 * What does not fit marks its row, with the reason: a record that is no JSON, a value that is none of the type, NULL where
 * there may be none. An absent member is NULL. Texts are views of the records, which must outlive the batch; those with escapes are in the
 * arena. One thread at a time.
 */
#ifndef MILLRACE_SQL_QUERY_SCAN_H
#define MILLRACE_SQL_QUERY_SCAN_H

#include "fmt/json_scan.h"
#include "sql/language/eval.h"

struct scan_column {
    const struct json_step *path;
    uint32_t steps; /* at most JSON_SCAN_STEPS_MAX */
    struct sql_type type;
    bool not_null;
};

enum scan_format {
    SCAN_JSON,
    SCAN_RAW, /* the record is the value of each column */
    SCAN_CSV, /* RFC 4180, a record a line; a path is one step, the field's position. Nothing between two delimiters is NULL, "" an empty text */
};

struct scan_rule {
    enum scan_format format;
    char delimiter; /* of CSV */
};

struct scan;

/* The columns are copied, their names and types are lent. NULL: no memory, or more paths than there may be. */
MUST_USE struct scan *scan_new(const struct scan_column *columns, uint32_t count);
MUST_USE struct scan *scan_new_of(const struct scan_rule *rule, const struct scan_column *columns, uint32_t count);
/* Takes *scan and NULLs it; *scan may be NULL. */
void scan_free(struct scan **scan);
/* Begins ret with the columns of the records, rows of them (at most BATCH_ROWS_MAX). False: no memory. */
MUST_USE bool scan_batch(struct scan *scan, const struct slice *records, uint32_t rows, struct arena *arena,
                         struct eval *ret);

/* Columns that several want, each some of them. A value that does not fit is a fault for who wants its column only, so each column has its own. */
struct scan_columns {
    const struct column *columns;
    uint32_t count, rows;
    const uint8_t *bad;           /* by row: the fault of a record that cannot be read at all; NULL: none has one */
    const uint8_t *const *faults; /* by column, by row; NULL: none of its rows has one */
};

/* The same as scan_batch, with faults by column; of JSON. Valid until the arena's reset. False: no memory. */
MUST_USE bool scan_apart(struct scan *scan, const struct slice *records, uint32_t rows, struct arena *arena,
                         struct scan_columns *ret);
/* Begins ret as scan_batch would that scans those columns alone: same values, same faults. False: no memory. */
MUST_USE bool scan_pick(const struct scan_columns *from, const uint16_t *picks, uint32_t count, struct arena *arena,
                        struct eval *ret);

#endif
