/* Functions of dates, times and intervals. */
#include "sql/language/datetime.h"
#include "sql/language/kernel.h"

typedef struct slice text_t;

static inline int64_t moved(struct eval *e, uint32_t i, int64_t us, struct interval v, int sign)
{
    int64_t r = 0;
    if (!timestamp_add(us, &v, sign, &r))
        eval_fault(e, i, SQL_FAULT_TIME);
    return r;
}

static inline int64_t date_moved(struct eval *e, uint32_t i, int64_t days, int64_t by)
{
    int64_t r;
    if (!__builtin_add_overflow(days, by, &r) && r >= DATE_MIN && r <= DATE_MAX)
        return r;
    eval_fault(e, i, SQL_FAULT_TIME);
    return 0;
}

static inline int64_t of_day(int64_t us)
{
    int64_t rest = us % US_PER_DAY;
    return rest < 0 ? rest + US_PER_DAY : rest;
}

/* The difference of two times has days and a rest, never months. */
static inline struct interval between(int64_t us)
{
    return (struct interval){.days = (int32_t)(us / US_PER_DAY), .us = us % US_PER_DAY};
}

static inline struct interval interval_sum(struct eval *e, uint32_t i, struct interval a, struct interval b)
{
    struct interval r = {0};
    if (__builtin_add_overflow(a.months, b.months, &r.months) || __builtin_add_overflow(a.days, b.days, &r.days) ||
        __builtin_add_overflow(a.us, b.us, &r.us))
        eval_fault(e, i, SQL_FAULT_TIME);
    return r;
}

static inline struct interval interval_negative(struct eval *e, uint32_t i, struct interval a)
{
    if (a.months == INT32_MIN || a.days == INT32_MIN || a.us == INT64_MIN) {
        eval_fault(e, i, SQL_FAULT_TIME);
        return (struct interval){0};
    }
    return (struct interval){.months = -a.months, .days = -a.days, .us = -a.us};
}

/* A fraction of a month becomes days of 30, one of a day time. */
static struct interval interval_scaled(struct eval *e, uint32_t i, struct interval a, double by)
{
    double months = a.months * by, days = a.days * by + (months - (double)(int64_t)months) * 30;
    double us = (double)a.us * by + (days - (double)(int64_t)days) * (double)US_PER_DAY;
    if (!(months > -2e9 && months < 2e9 && days > -2e9 && days < 2e9 && us > -9e18 && us < 9e18)) {
        eval_fault(e, i, SQL_FAULT_TIME);
        return (struct interval){0};
    }
    return (struct interval){
        .months = (int32_t)months, .days = (int32_t)days, .us = (int64_t)(us < 0 ? us - 0.5 : us + 0.5)};
}

static struct interval interval_divided(struct eval *e, uint32_t i, struct interval a, double by)
{
    if (by == 0)
        eval_fault(e, i, SQL_FAULT_ZERO);
    return by == 0 ? a : interval_scaled(e, i, a, 1 / by);
}

KERNEL_2(timestamp_plus, int64_t, struct interval, int64_t, moved(e, i, a, b, 1))
KERNEL_2(timestamp_minus, int64_t, struct interval, int64_t, moved(e, i, a, b, -1))
KERNEL_2(plus_timestamp, struct interval, int64_t, int64_t, moved(e, i, b, a, 1))
KERNEL_2(timestamp_between, int64_t, int64_t, struct interval, between(a - b))
KERNEL_2(date_plus_interval, int64_t, struct interval, int64_t, moved(e, i, a *US_PER_DAY, b, 1))
KERNEL_2(date_minus_interval, int64_t, struct interval, int64_t, moved(e, i, a *US_PER_DAY, b, -1))
KERNEL_2(date_plus, int64_t, int64_t, int64_t, date_moved(e, i, a, b))
KERNEL_2(date_minus, int64_t, int64_t, int64_t, date_moved(e, i, a, -b))
KERNEL_2(date_between, int64_t, int64_t, int64_t, a - b)
KERNEL_2(time_plus, int64_t, struct interval, int64_t, of_day(a + b.us % US_PER_DAY))
KERNEL_2(time_minus, int64_t, struct interval, int64_t, of_day(a - b.us % US_PER_DAY))
KERNEL_2(interval_plus, struct interval, struct interval, struct interval, interval_sum(e, i, a, b))
KERNEL_2(interval_minus, struct interval, struct interval, struct interval,
         interval_sum(e, i, a, interval_negative(e, i, b)))
KERNEL_1(interval_neg, struct interval, struct interval, interval_negative(e, i, a))
KERNEL_2(interval_times, struct interval, double, struct interval, interval_scaled(e, i, a, b))
KERNEL_2(times_interval, double, struct interval, struct interval, interval_scaled(e, i, b, a))
KERNEL_2(interval_over, struct interval, double, struct interval, interval_divided(e, i, a, b))

/* ---------------------------------------------------------------------------------------------------------- extract */

static decimal_t extracted(struct eval *e, uint32_t i, text_t name, int64_t us)
{
    enum time_field field = time_field_find(name);
    if (field == TIME_FIELDS)
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
    return timestamp_extract(us, field);
}

static decimal_t interval_extracted(struct eval *e, uint32_t i, text_t name, struct interval v)
{
    enum time_field field = time_field_find(name);
    switch (field) {
    case FIELD_EPOCH:
        return ((decimal_t)(v.months / 12) * 36525 / 100 * US_PER_DAY) +
               ((decimal_t)(v.months % 12) * 30 + v.days) * US_PER_DAY + v.us;
    case FIELD_YEAR: return v.months / 12 * 1000000LL;
    case FIELD_MONTH: return v.months % 12 * 1000000LL;
    case FIELD_DAY: return v.days * 1000000LL;
    case FIELD_HOUR: return v.us / US_PER_HOUR * 1000000LL;
    case FIELD_MINUTE: return v.us / US_PER_MINUTE % 60 * 1000000LL;
    case FIELD_SECOND: return v.us % US_PER_MINUTE;
    case FIELD_MILLISECOND: return v.us % US_PER_MINUTE * 1000;
    case FIELD_MICROSECOND: return v.us % US_PER_MINUTE * 1000000LL;
    default: eval_fault(e, i, SQL_FAULT_ARGUMENT); return 0;
    }
}

/* A numeric with six places, as PostgreSQL's EXTRACT. */
KERNEL_2(extract, text_t, int64_t, decimal_t, extracted(e, i, a, b))
KERNEL_2(extract_date, text_t, int64_t, decimal_t, extracted(e, i, a, b *US_PER_DAY))
KERNEL_2(extract_interval, text_t, struct interval, decimal_t, interval_extracted(e, i, a, b))

#define FIELD_KERNEL(name, field) KERNEL_1(name, int64_t, int64_t, timestamp_extract(a, field) / 1000000)
FIELD_KERNEL(field_second, FIELD_SECOND)
FIELD_KERNEL(field_minute, FIELD_MINUTE)
FIELD_KERNEL(field_hour, FIELD_HOUR)
FIELD_KERNEL(field_day, FIELD_DAY)
FIELD_KERNEL(field_week, FIELD_WEEK)
FIELD_KERNEL(field_month, FIELD_MONTH)
FIELD_KERNEL(field_quarter, FIELD_QUARTER)
FIELD_KERNEL(field_year, FIELD_YEAR)
FIELD_KERNEL(field_dayofyear, FIELD_DOY)
FIELD_KERNEL(field_epoch, FIELD_EPOCH)

static int64_t truncated(struct eval *e, uint32_t i, text_t name, int64_t us)
{
    enum time_field field = time_field_find(name);
    int64_t r = 0;
    if (field == TIME_FIELDS || !timestamp_trunc(us, field, &r))
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
    return r;
}

KERNEL_2(date_trunc, text_t, int64_t, int64_t, truncated(e, i, a, b))

/* ---------------------------------------------------------------------------------------------------------- windows */

/* The begin of the window of that size in which us lies; windows are aligned to `origin`. */
static int64_t bin(struct eval *e, uint32_t i, struct interval size, int64_t us, int64_t origin)
{
    int64_t width, far;
    if (size.months || __builtin_mul_overflow((int64_t)size.days, US_PER_DAY, &width) ||
        __builtin_add_overflow(width, size.us, &width) || width <= 0 || __builtin_sub_overflow(us, origin, &far)) {
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
        return 0;
    }
    int64_t rest = far % width;
    return us - (rest < 0 ? rest + width : rest);
}

static int64_t bin_end(struct eval *e, uint32_t i, struct interval size, int64_t us)
{
    int64_t start = bin(e, i, size, us, 0);
    return start + size.days * US_PER_DAY + size.us;
}

KERNEL_2(tumble_start, int64_t, struct interval, int64_t, bin(e, i, b, a, 0))
KERNEL_2(tumble_end, int64_t, struct interval, int64_t, bin_end(e, i, b, a))

KERNEL(date_bin)
{
    ARG(0, struct interval);
    ARG(1, int64_t);
    ARG(2, int64_t);
    int64_t *r = ret->values;
    (void)x;
    EACH_ROW(i)
    {
        r[i] = bin(e, i, v0[i & m0], v1[i & m1], v2[i & m2]);
    }
}

/* ------------------------------------------------------------------------------------------------------------- text */

static text_t formatted(struct eval *e, uint32_t i, int64_t us, text_t pattern, bool java)
{
    size_t room = pattern.len * 9 + 16; /* no mask grows by more */
    uint8_t *out = room <= KERNEL_TEXT_MAX ? eval_take(e, room) : NULL;
    struct writer w = writer_of(out, out ? room : 0);
    if (!out || !timestamp_format(us, pattern, java, &w)) {
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
        return (text_t){0};
    }
    return writer_slice(&w);
}

/* Whether a pattern may show less than a second: a letter of such a mask is in it, quoted or not. */
static bool below_seconds(text_t pattern, bool java)
{
    for (size_t i = 0; i < pattern.len; i++)
        if (memchr(java ? "SAnN" : "SsFf", pattern.ptr[i], 4))
            return true;
    return false;
}

/* Times of a stream are mostly near one another: what the last row of the same second was is a view for this one, too. */
static void format_rows(struct eval *e, const struct column *const *args, struct column *ret, struct sel sel, bool java)
{
    ARG(0, int64_t);
    ARG(1, text_t);
    text_t *r = ret->values, last = {0};
    bool reuse = !m1 && sel.count && !below_seconds(v1[0], java);
    int64_t begin = INT64_MAX; /* of the last one's second */
    EACH_ROW(i)
    {
        int64_t us = v0[i & m0];
        if (!reuse || us < begin || us - begin >= US_PER_S) {
            last = formatted(e, i, us, v1[i & m1], java);
            begin = last.ptr ? us - (us % US_PER_S + US_PER_S) % US_PER_S : INT64_MAX;
        }
        r[i] = last;
    }
}

KERNEL(to_char)
{
    (void)x;
    format_rows(e, args, ret, sel, false);
}

KERNEL(date_format)
{
    (void)x;
    format_rows(e, args, ret, sel, true);
}

static int64_t epoch_us(struct eval *e, uint32_t i, double seconds)
{
    double us = seconds * 1e6;
    if (us >= (double)TIMESTAMP_MIN && us <= (double)TIMESTAMP_MAX)
        return (int64_t)(us < 0 ? us - 0.5 : us + 0.5);
    eval_fault(e, i, SQL_FAULT_TIME);
    return 0;
}

/* Flink's TO_TIMESTAMP_LTZ(number, 0 | 3): seconds or milliseconds. */
static int64_t epoch_units(struct eval *e, uint32_t i, int64_t number, int64_t digits)
{
    static const int64_t units[] = {US_PER_S, 100000, 10000, 1000, 100, 10, 1};
    int64_t us = 0;
    if (digits < 0 || digits > 6) {
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
        return 0;
    }
    if (__builtin_mul_overflow(number, units[digits], &us) || !timestamp_valid(us))
        eval_fault(e, i, SQL_FAULT_TIME);
    return us;
}

KERNEL_1(to_timestamp, double, int64_t, epoch_us(e, i, a))
KERNEL_2(to_timestamp_ltz, int64_t, int64_t, int64_t, epoch_units(e, i, a, b))

KERNEL(now)
{
    int64_t *r = ret->values;
    (void)args, (void)x;
    EACH_ROW(i)
    {
        r[i] = e->now_us;
    }
}

KERNEL(current_date)
{
    int64_t *r = ret->values;
    (void)args, (void)x;
    EACH_ROW(i)
    {
        r[i] = (e->now_us - of_day(e->now_us)) / US_PER_DAY;
    }
}

/* A fixed offset east; timestamp with time zone to local time, and back. */
static int64_t zoned(struct eval *e, uint32_t i, int64_t us, text_t zone, int sign)
{
    int64_t east = 0;
    if (!zone_parse(zone, &east))
        eval_fault(e, i, SQL_FAULT_ARGUMENT);
    return us + sign * east;
}

KERNEL_2(to_local, text_t, int64_t, int64_t, zoned(e, i, b, a, 1))
KERNEL_2(from_local, text_t, int64_t, int64_t, zoned(e, i, b, a, -1))
