/* datetime: dates (days since 1970), times and timestamps (microseconds, UTC), intervals: from text, to text, and arithmetic, by the
 * proleptic Gregorian calendar, years 1 to 9999. There is no table of time zones: UTC and fixed offsets only. Any thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_DATETIME_H
#define MILLRACE_SQL_LANGUAGE_DATETIME_H

#include "sql/language/type.h"

#define DATETIME_TEXT_MAX 96u
#define DATE_MIN (-719162LL) /* 0001-01-01 */
#define DATE_MAX 2932896LL   /* 9999-12-31 */
#define TIMESTAMP_MIN (DATE_MIN * US_PER_DAY)
#define TIMESTAMP_MAX ((DATE_MAX + 1) * US_PER_DAY - 1)

struct civil {
    int year, month, day, hour, minute, second, us;
};

int64_t days_from_civil(int year, int month, int day);
struct civil civil_from_us(int64_t us);
/* False: no such date. */
bool civil_valid(const struct civil *c);
static inline bool timestamp_valid(int64_t us)
{
    return us >= TIMESTAMP_MIN && us <= TIMESTAMP_MAX;
}

/* Texts with blanks around them. A zone's offset is subtracted when `zoned`, else read and ignored, as in PostgreSQL. */
MUST_USE bool timestamp_parse(struct slice text, bool zoned, int64_t *ret_us);
MUST_USE bool date_parse(struct slice text, int64_t *ret_days);
MUST_USE bool time_parse(struct slice text, int64_t *ret_us);
/* '1 day 02:00:00', '1-2', '3 hours', '-1 mon'; with a unit: '10' is that many. */
MUST_USE bool interval_parse(struct slice text, enum ast_unit from, enum ast_unit to, struct interval *ret);
/* 'UTC', 'Z', '+02', '-03:30': microseconds east. */
MUST_USE bool zone_parse(struct slice text, int64_t *ret_us);

/* At most DATETIME_TEXT_MAX bytes; answer how many. ISO 8601 with a blank, as PostgreSQL prints them. */
size_t timestamp_print(int64_t us, bool zoned, char *out);
size_t date_print(int64_t days, char *out);
size_t time_print(int64_t us, char *out);
size_t interval_print(const struct interval *v, char *out);

/* False: out of range. A month's end stays within the month. */
MUST_USE bool timestamp_add(int64_t us, const struct interval *v, int sign, int64_t *ret_us);
/* With 30 days a month, for comparisons; sums of intervals keep their parts. */
decimal_t interval_order(const struct interval *v);

/* Fields of EXTRACT and units of DATE_TRUNC. */
enum time_field {
    FIELD_MICROSECOND,
    FIELD_MILLISECOND,
    FIELD_SECOND,
    FIELD_MINUTE,
    FIELD_HOUR,
    FIELD_DAY,
    FIELD_WEEK,
    FIELD_MONTH,
    FIELD_QUARTER,
    FIELD_YEAR,
    FIELD_DECADE,
    FIELD_CENTURY,
    FIELD_DOW,
    FIELD_ISODOW,
    FIELD_DOY,
    FIELD_ISOYEAR,
    FIELD_EPOCH,
    TIME_FIELDS
};
/* TIME_FIELDS: there is none such. */
enum time_field time_field_find(struct slice name);
/* In millionths, as seconds have a fraction. */
int64_t timestamp_extract(int64_t us, enum time_field field);
/* False: the field is no unit to cut at. */
MUST_USE bool timestamp_trunc(int64_t us, enum time_field field, int64_t *ret_us);

/* PostgreSQL's TO_CHAR ('YYYY-MM-DD HH24:MI') or Flink's DATE_FORMAT ('yyyy-MM-dd HH:mm'). False: `out` is too small, or a pattern
 * that there is not. */
MUST_USE bool timestamp_format(int64_t us, struct slice pattern, bool java, struct writer *out);

#endif
