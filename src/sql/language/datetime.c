/* Dates, times and intervals, see datetime.h. Days to dates and back: Howard Hinnant's algorithms. */
#include "sql/language/datetime.h"

#include <stdio.h>

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

int64_t days_from_civil(int year, int month, int day)
{
    int64_t y = year - (month <= 2), era = floor_div(y, 400), yoe = y - era * 400;
    int64_t doy = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
}

struct civil civil_from_us(int64_t us)
{
    int64_t days = floor_div(us, US_PER_DAY), rest = us - days * US_PER_DAY;
    int64_t z = days + 719468, era = floor_div(z, 146097), doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    return (struct civil){.year = (int)(yoe + era * 400 + (mp >= 10)),
                          .month = (int)(mp < 10 ? mp + 3 : mp - 9),
                          .day = (int)(doy - (153 * mp + 2) / 5 + 1),
                          .hour = (int)(rest / US_PER_HOUR),
                          .minute = (int)(rest / US_PER_MINUTE % 60),
                          .second = (int)(rest / US_PER_S % 60),
                          .us = (int)(rest % US_PER_S)};
}

static bool is_leap(int year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int month_days(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year));
}

bool civil_valid(const struct civil *c)
{
    return c->year >= 1 && c->year <= 9999 && c->month >= 1 && c->month <= 12 && c->day >= 1 &&
           c->day <= month_days(c->year, c->month);
}

/* ------------------------------------------------------------------------------------------------------- from text */

struct text {
    const uint8_t *at, *end;
};

static struct text text_of(struct slice s)
{
    struct text t = {.at = s.ptr, .end = s.ptr + s.len};
    while (t.at < t.end && (*t.at == ' ' || *t.at == '\t'))
        t.at++;
    while (t.end > t.at && (t.end[-1] == ' ' || t.end[-1] == '\t'))
        t.end--;
    return t;
}

static bool take_char(struct text *t, char c)
{
    if (t->at == t->end || *t->at != (uint8_t)c)
        return false;
    t->at++;
    return true;
}

static bool take_digits(struct text *t, int least, int most, int64_t *ret)
{
    int64_t n = 0;
    int count = 0;
    for (; count < most && t->at < t->end && *t->at >= '0' && *t->at <= '9'; count++)
        n = n * 10 + (*t->at++ - '0');
    *ret = n;
    return count >= least;
}

static bool take_int(struct text *t, int least, int most, int *ret)
{
    int64_t n;
    bool ok = take_digits(t, least, most, &n);
    *ret = (int)n;
    return ok;
}

/* .123 as microseconds; more digits than six round. */
static bool take_fraction(struct text *t, int64_t *ret_us)
{
    static const int64_t scale[] = {1000000, 100000, 10000, 1000, 100, 10, 1};
    *ret_us = 0;
    if (!take_char(t, '.'))
        return true;
    int64_t n;
    const uint8_t *start = t->at;
    if (!take_digits(t, 1, 6, &n))
        return false;
    n *= scale[t->at - start];
    if (t->at < t->end && *t->at >= '5' && *t->at <= '9')
        n++;
    while (t->at < t->end && *t->at >= '0' && *t->at <= '9')
        t->at++;
    *ret_us = n;
    return true;
}

static bool take_date(struct text *t, int64_t *ret_days)
{
    struct civil c = {0};
    if (!take_int(t, 4, 4, &c.year) || !take_char(t, '-') || !take_int(t, 1, 2, &c.month) || !take_char(t, '-') ||
        !take_int(t, 1, 2, &c.day) || !civil_valid(&c))
        return false;
    *ret_days = days_from_civil(c.year, c.month, c.day);
    return true;
}

/* hh:mm[:ss[.ffffff]] */
static bool take_time(struct text *t, int64_t *ret_us)
{
    int hour, minute, second = 0;
    int64_t fraction = 0;
    if (!take_int(t, 1, 2, &hour) || !take_char(t, ':') || !take_int(t, 2, 2, &minute))
        return false;
    if (take_char(t, ':') && (!take_int(t, 2, 2, &second) || !take_fraction(t, &fraction)))
        return false;
    *ret_us = hour * US_PER_HOUR + minute * US_PER_MINUTE + second * US_PER_S + fraction;
    return hour <= 24 && minute < 60 && second <= 60 && *ret_us <= US_PER_DAY;
}

static bool take_zone(struct text *t, int64_t *ret_us)
{
    *ret_us = 0;
    if (t->at == t->end || take_char(t, 'Z') || take_char(t, 'z'))
        return true;
    if (t->end - t->at >= 3 && name_equal(slice_of(t->at, 3), slice_str("UTC"))) {
        t->at += 3;
        return true;
    }
    bool minus = take_char(t, '-');
    int hour, minute = 0;
    if ((!minus && !take_char(t, '+')) || !take_int(t, 1, 2, &hour))
        return false;
    if ((take_char(t, ':') || t->at < t->end) && !take_int(t, 2, 2, &minute))
        return false;
    *ret_us = (hour * US_PER_HOUR + minute * US_PER_MINUTE) * (minus ? -1 : 1);
    return hour <= 15 && minute < 60;
}

bool zone_parse(struct slice text, int64_t *ret_us)
{
    struct text t = text_of(text);
    return t.at < t.end && take_zone(&t, ret_us) && t.at == t.end;
}

bool timestamp_parse(struct slice text, bool zoned, int64_t *ret_us)
{
    struct text t = text_of(text);
    int64_t days, us = 0, zone = 0;
    if (!take_date(&t, &days))
        return false;
    if (t.at < t.end && (take_char(&t, 'T') || take_char(&t, 't') || take_char(&t, ' '))) {
        while (take_char(&t, ' '))
            ;
        if (!take_time(&t, &us))
            return false;
        while (take_char(&t, ' '))
            ;
        if (!take_zone(&t, &zone))
            return false;
    }
    us += days * US_PER_DAY - (zoned ? zone : 0);
    *ret_us = us;
    return t.at == t.end && timestamp_valid(us);
}

bool date_parse(struct slice text, int64_t *ret_days)
{
    int64_t us;
    if (!timestamp_parse(text, false, &us))
        return false;
    *ret_days = floor_div(us, US_PER_DAY);
    return true;
}

bool time_parse(struct slice text, int64_t *ret_us)
{
    struct text t = text_of(text);
    int64_t zone;
    return take_time(&t, ret_us) && take_zone(&t, &zone) && t.at == t.end;
}

/* -------------------------------------------------------------------------------------------------------- intervals */

static const struct {
    const char *text; /* with a space between */
    int months, days;
    int64_t us;
} units[] = {
    {"us usec microsecond", 0, 0, 1},
    {"ms msec millisecond", 0, 0, 1000},
    {"s sec second", 0, 0, US_PER_S},
    {"m min minute", 0, 0, US_PER_MINUTE},
    {"h hr hour", 0, 0, US_PER_HOUR},
    {"d day", 0, 1, 0},
    {"w week", 0, 7, 0},
    {"mon month", 1, 0, 0},
    {"y yr year", 12, 0, 0},
    {"decade", 120, 0, 0},
    {"century", 1200, 0, 0},
};

static size_t unit_find(struct slice word)
{
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        for (const char *p = units[i].text; *p;) {
            size_t len = strcspn(p, " ");
            bool plural = word.len == len + 1 && (word.ptr[len] | 0x20) == 's';
            if (name_equal(plural ? slice_of(word.ptr, len) : word, slice_of(p, len)))
                return i;
            p += len + (p[len] == ' ');
        }
    return ARRAY_LEN(units);
}

/* value millionths of a unit: what is no whole month goes into days, what is no whole day into time. */
static bool add_part(struct interval *v, int64_t millionths, size_t unit)
{
    __int128 months = (__int128)millionths * units[unit].months, days = (__int128)millionths * units[unit].days;
    days += months % 1000000 * 30;
    __int128 us = (__int128)millionths * units[unit].us / 1000000 + days % 1000000 * (US_PER_DAY / 1000000);
    return !__builtin_add_overflow(v->months, months / 1000000, &v->months) &&
           !__builtin_add_overflow(v->days, days / 1000000, &v->days) && !__builtin_add_overflow(v->us, us, &v->us);
}

static size_t unit_of(enum ast_unit unit)
{
    return unit_find(slice_str(ast_unit_text(unit)));
}

/* A signed number with a fraction, in millionths. */
static bool take_number(struct text *t, bool minus, int64_t *ret)
{
    int64_t whole = 0, fraction;
    if ((t->at < t->end && *t->at != '.' && !take_digits(t, 1, 12, &whole)) || !take_fraction(t, &fraction))
        return false;
    *ret = (whole * 1000000 + fraction) * (minus ? -1 : 1);
    return true;
}

/* h:mm[:ss[.f]], with more hours than a day has. */
static bool take_clock(struct text *t, bool minus, struct interval *v)
{
    int64_t hour, minute, second = 0, fraction = 0;
    if (!take_digits(t, 1, 9, &hour) || !take_char(t, ':') || !take_digits(t, 1, 2, &minute))
        return false;
    if (take_char(t, ':') && (!take_digits(t, 1, 2, &second) || !take_fraction(t, &fraction)))
        return false;
    int64_t us = hour * US_PER_HOUR + minute * US_PER_MINUTE + second * US_PER_S + fraction;
    return minute < 60 && second < 60 && !__builtin_add_overflow(v->us, minus ? -us : us, &v->us);
}

/* What follows a number's digits tells what it is. */
static uint8_t behind_digits(const struct text *t)
{
    const uint8_t *p = t->at;
    while (p < t->end && *p >= '0' && *p <= '9')
        p++;
    return p < t->end ? *p : 0;
}

static bool take_part(struct text *t, enum ast_unit from, enum ast_unit to, struct interval *v)
{
    bool minus = take_char(t, '-');
    int64_t number, months;
    if (!minus)
        (void)take_char(t, '+');
    uint8_t behind = behind_digits(t);
    if (behind == ':' && from == UNIT_MINUTE && to == UNIT_SECOND) { /* '5:30' is minutes and seconds there */
        int64_t minutes, seconds, fraction;
        bool ok = take_digits(t, 1, 9, &minutes) && take_char(t, ':') && take_digits(t, 1, 2, &seconds) &&
                  take_fraction(t, &fraction);
        v->us += ok ? (minutes * US_PER_MINUTE + seconds * US_PER_S + fraction) * (minus ? -1 : 1) : 0;
        return ok;
    }
    if (behind == ':')
        return take_clock(t, minus, v);
    if (behind == '-') { /* years-months */
        if (!take_digits(t, 1, 5, &number) || !take_char(t, '-') || !take_digits(t, 1, 2, &months))
            return false;
        v->months += (int32_t)((number * 12 + months) * (minus ? -1 : 1));
        return months < 12;
    }
    if (!take_number(t, minus, &number))
        return false;
    while (take_char(t, ' '))
        ;
    const uint8_t *word = t->at;
    while (t->at < t->end && ((*t->at | 0x20) >= 'a' && (*t->at | 0x20) <= 'z'))
        t->at++;
    size_t unit = word < t->at ? unit_find(slice_of(word, (size_t)(t->at - word)))
                               : unit_of(to     ? (from == UNIT_DAY && t->at < t->end ? UNIT_DAY : to)
                                         : from ? from
                                                : UNIT_SECOND);
    return unit < ARRAY_LEN(units) && add_part(v, number, unit);
}

bool interval_parse(struct slice text, enum ast_unit from, enum ast_unit to, struct interval *ret)
{
    struct text t = text_of(text);
    struct interval v = {0};
    if (t.at == t.end)
        return false;
    while (t.at < t.end) {
        const uint8_t *start = t.at;
        if (t.end - t.at == 3 && name_equal(slice_of(t.at, 3), slice_str("ago"))) {
            v = (struct interval){.months = -v.months, .days = -v.days, .us = -v.us};
            t.at += 3;
            break;
        }
        if (!take_part(&t, from, to, &v) || t.at == start)
            return false;
        while (take_char(&t, ' ') || take_char(&t, ','))
            ;
    }
    *ret = v;
    return true;
}

/* ---------------------------------------------------------------------------------------------------------- to text */

static size_t clock_print(int64_t us, char *out)
{
    int64_t fraction = us % US_PER_S;
    int len = snprintf(out, 32, "%02lld:%02lld:%02lld", (long long)(us / US_PER_HOUR),
                       (long long)(us / US_PER_MINUTE % 60), (long long)(us / US_PER_S % 60));
    if (fraction) {
        len += snprintf(out + len, 16, ".%06lld", (long long)fraction);
        while (out[len - 1] == '0')
            len--;
    }
    return (size_t)len;
}

size_t date_print(int64_t days, char *out)
{
    struct civil c = civil_from_us(days * US_PER_DAY);
    return (size_t)snprintf(out, DATETIME_TEXT_MAX, "%04d-%02d-%02d", c.year, c.month, c.day);
}

size_t time_print(int64_t us, char *out)
{
    return clock_print(us, out);
}

size_t timestamp_print(int64_t us, bool zoned, char *out)
{
    int64_t days = floor_div(us, US_PER_DAY);
    size_t len = date_print(days, out);
    out[len++] = ' ';
    len += clock_print(us - days * US_PER_DAY, out + len);
    if (zoned) {
        memcpy(out + len, "+00", 3);
        len += 3;
    }
    return len;
}

static size_t part_print(char *out, size_t len, int value, const char *unit)
{
    if (!value)
        return len;
    return len + (size_t)snprintf(out + len, 24, "%s%d %s%s", len ? " " : "", value, unit, value == 1 ? "" : "s");
}

size_t interval_print(const struct interval *v, char *out)
{
    size_t len = part_print(out, 0, v->months / 12, "year");
    len = part_print(out, len, v->months % 12, "mon");
    len = part_print(out, len, v->days, "day");
    if (v->us || !len) {
        out[len] = ' ';
        len += len > 0;
        if (v->us < 0)
            out[len++] = '-';
        len += clock_print(v->us < 0 ? -v->us : v->us, out + len);
    }
    return len;
}

/* ------------------------------------------------------------------------------------------------------- arithmetic */

bool timestamp_add(int64_t us, const struct interval *v, int sign, int64_t *ret_us)
{
    int64_t moved;
    if (v->months) {
        struct civil c = civil_from_us(us);
        int64_t months = c.year * 12LL + c.month - 1 + (int64_t)v->months * sign;
        int64_t year = floor_div(months, 12), of_day = us - floor_div(us, US_PER_DAY) * US_PER_DAY;
        if (year < 1 || year > 9999)
            return false;
        int month = (int)(months - year * 12) + 1, last = month_days((int)year, month);
        us = days_from_civil((int)year, month, c.day < last ? c.day : last) * US_PER_DAY + of_day;
    }
    if (__builtin_add_overflow(us, (int64_t)v->days * sign * US_PER_DAY, &moved))
        return false;
    if (sign > 0 ? __builtin_add_overflow(moved, v->us, &moved) : __builtin_sub_overflow(moved, v->us, &moved))
        return false;
    *ret_us = moved;
    return timestamp_valid(moved);
}

decimal_t interval_order(const struct interval *v)
{
    return ((decimal_t)v->months * 30 + v->days) * US_PER_DAY + v->us;
}

static const char *const field_names[TIME_FIELDS] = {
    [FIELD_MICROSECOND] = "microsecond us",
    [FIELD_MILLISECOND] = "millisecond ms",
    [FIELD_SECOND] = "second s",
    [FIELD_MINUTE] = "minute min",
    [FIELD_HOUR] = "hour h",
    [FIELD_DAY] = "day d",
    [FIELD_WEEK] = "week w",
    [FIELD_MONTH] = "month mon",
    [FIELD_QUARTER] = "quarter",
    [FIELD_YEAR] = "year y",
    [FIELD_DECADE] = "decade",
    [FIELD_CENTURY] = "century",
    [FIELD_DOW] = "dow",
    [FIELD_ISODOW] = "isodow",
    [FIELD_DOY] = "doy",
    [FIELD_ISOYEAR] = "isoyear",
    [FIELD_EPOCH] = "epoch",
};

enum time_field time_field_find(struct slice name)
{
    for (unsigned i = 0; i < TIME_FIELDS; i++)
        for (const char *p = field_names[i]; *p;) {
            size_t len = strcspn(p, " ");
            bool plural = name.len == len + 1 && len > 2 && (name.ptr[len] | 0x20) == 's';
            if (name_equal(plural ? slice_of(name.ptr, len) : name, slice_of(p, len)))
                return (enum time_field)i;
            p += len + (p[len] == ' ');
        }
    return TIME_FIELDS;
}

/* Monday is 0. */
static int64_t weekday(int64_t days)
{
    return ((days + 3) % 7 + 7) % 7;
}

/* The Thursday of a date's week decides its year and number. */
static void iso_week(int64_t days, int *ret_year, int *ret_week)
{
    int64_t thursday = days - weekday(days) + 3;
    struct civil c = civil_from_us(thursday * US_PER_DAY);
    *ret_year = c.year;
    *ret_week = (int)((thursday - days_from_civil(c.year, 1, 1)) / 7) + 1;
}

int64_t timestamp_extract(int64_t us, enum time_field field)
{
    struct civil c = civil_from_us(us);
    int64_t days = floor_div(us, US_PER_DAY);
    int year, week;
    iso_week(days, &year, &week);
    switch (field) {
    case FIELD_MICROSECOND: return (c.second * US_PER_S + c.us) * 1000000;
    case FIELD_MILLISECOND: return (c.second * US_PER_S + c.us) * 1000;
    case FIELD_SECOND: return c.second * US_PER_S + c.us;
    case FIELD_MINUTE: return c.minute * 1000000LL;
    case FIELD_HOUR: return c.hour * 1000000LL;
    case FIELD_DAY: return c.day * 1000000LL;
    case FIELD_WEEK: return week * 1000000LL;
    case FIELD_MONTH: return c.month * 1000000LL;
    case FIELD_QUARTER: return (c.month + 2) / 3 * 1000000LL;
    case FIELD_YEAR: return c.year * 1000000LL;
    case FIELD_DECADE: return c.year / 10 * 1000000LL;
    case FIELD_CENTURY: return (c.year + 99) / 100 * 1000000LL;
    case FIELD_DOW: return (weekday(days) + 1) % 7 * 1000000LL;
    case FIELD_ISODOW: return (weekday(days) + 1) * 1000000LL;
    case FIELD_DOY: return (days - days_from_civil(c.year, 1, 1) + 1) * 1000000LL;
    case FIELD_ISOYEAR: return year * 1000000LL;
    case FIELD_EPOCH: return us;
    default: return 0;
    }
}

bool timestamp_trunc(int64_t us, enum time_field field, int64_t *ret_us)
{
    static const int64_t steps[] = {
        [FIELD_MICROSECOND] = 1,        [FIELD_MILLISECOND] = 1000, [FIELD_SECOND] = US_PER_S,
        [FIELD_MINUTE] = US_PER_MINUTE, [FIELD_HOUR] = US_PER_HOUR, [FIELD_DAY] = US_PER_DAY};
    struct civil c = civil_from_us(us);
    int64_t days = floor_div(us, US_PER_DAY);
    if (field <= FIELD_DAY) {
        *ret_us = floor_div(us, steps[field]) * steps[field];
        return true;
    }
    switch (field) {
    case FIELD_WEEK: days -= weekday(days); break;
    case FIELD_MONTH: days = days_from_civil(c.year, c.month, 1); break;
    case FIELD_QUARTER: days = days_from_civil(c.year, (c.month - 1) / 3 * 3 + 1, 1); break;
    case FIELD_YEAR: days = days_from_civil(c.year, 1, 1); break;
    case FIELD_DECADE: days = days_from_civil(c.year / 10 * 10, 1, 1); break;
    case FIELD_CENTURY: days = days_from_civil((c.year + 99) / 100 * 100 - 99, 1, 1); break;
    default: return false;
    }
    *ret_us = days * US_PER_DAY;
    return timestamp_valid(*ret_us);
}

/* ----------------------------------------------------------------------------------------------------------- patterns */

static const char *const month_names[] = {"January", "February", "March",     "April",   "May",      "June",
                                          "July",    "August",   "September", "October", "November", "December"};
static const char *const day_names[] = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"};

static void put_int(struct writer *out, int64_t value, int width)
{
    char text[24];
    int len = snprintf(text, sizeof text, "%0*lld", width, (long long)value);
    writer_put(out, text, (size_t)len);
}

/* `like` says which letters are capitals: MONTH, Month, month. Padded to `width` when it is not 0. */
static void put_word(struct writer *out, const char *word, size_t len, const uint8_t *like, size_t width)
{
    bool first = like[0] >= 'A' && like[0] <= 'Z', rest = like[1] >= 'A' && like[1] <= 'Z';
    for (size_t i = 0; i < len; i++) {
        char c = word[i];
        bool capital = i ? rest : first;
        writer_u8(out, (uint8_t)(capital && c >= 'a' && c <= 'z'    ? c - 0x20
                                 : !capital && c >= 'A' && c <= 'Z' ? c + 0x20
                                                                    : c));
    }
    for (; len < width; len++)
        writer_u8(out, ' ');
}

enum mask {
    MASK_YEAR4,
    MASK_YEAR2,
    MASK_MONTH,
    MASK_DAY,
    MASK_DAY_OF_YEAR,
    MASK_HOUR24,
    MASK_HOUR12,
    MASK_MINUTE,
    MASK_SECOND,
    MASK_MS,
    MASK_US,
    MASK_MONTH_NAME,
    MASK_MON,
    MASK_DAY_NAME,
    MASK_DY,
    MASK_D,
    MASK_ID,
    MASK_Q,
    MASK_AM,
    MASK_WEEK,
    MASK_ISO_YEAR,
    MASK_SSSS,
};

struct mask_row {
    const char *text;
    enum mask mask;
    bool any_case;
};

/* Longer ones before those that they begin with. */
static const struct mask_row masks[] = {
    {"YYYY", MASK_YEAR4, true},
    {"IYYY", MASK_ISO_YEAR, true},
    {"YY", MASK_YEAR2, true},
    {"MONTH", MASK_MONTH_NAME, true},
    {"MON", MASK_MON, true},
    {"MM", MASK_MONTH, true},
    {"MI", MASK_MINUTE, true},
    {"MS", MASK_MS, true},
    {"DDD", MASK_DAY_OF_YEAR, true},
    {"DD", MASK_DAY, true},
    {"DAY", MASK_DAY_NAME, true},
    {"DY", MASK_DY, true},
    {"D", MASK_D, true},
    {"ID", MASK_ID, true},
    {"HH24", MASK_HOUR24, true},
    {"HH12", MASK_HOUR12, true},
    {"HH", MASK_HOUR12, true},
    {"SSSS", MASK_SSSS, true},
    {"SS", MASK_SECOND, true},
    {"US", MASK_US, true},
    {"AM", MASK_AM, true},
    {"PM", MASK_AM, true},
    {"IW", MASK_WEEK, true},
    {"Q", MASK_Q, true},
};
static const struct mask_row java_masks[] = {
    {"yyyy", MASK_YEAR4, false},
    {"yy", MASK_YEAR2, false},
    {"MMMM", MASK_MONTH_NAME, false},
    {"MMM", MASK_MON, false},
    {"MM", MASK_MONTH, false},
    {"dd", MASK_DAY, false},
    {"DDD", MASK_DAY_OF_YEAR, false},
    {"HH", MASK_HOUR24, false},
    {"hh", MASK_HOUR12, false},
    {"mm", MASK_MINUTE, false},
    {"ss", MASK_SECOND, false},
    {"SSSSSS", MASK_US, false},
    {"SSS", MASK_MS, false},
    {"EEEE", MASK_DAY_NAME, false},
    {"EEE", MASK_DY, false},
    {"a", MASK_AM, false},
    {"u", MASK_ID, false},
    {"ww", MASK_WEEK, false},
};

static const struct mask_row *mask_find(const struct mask_row *rows, size_t count, struct slice rest)
{
    for (size_t i = 0; i < count; i++) {
        struct slice text = slice_str(rows[i].text);
        if (rest.len < text.len)
            continue;
        struct slice head = slice_of(rest.ptr, text.len);
        if (rows[i].any_case ? name_equal(head, text) : slice_equal(head, text))
            return &rows[i];
    }
    return NULL;
}

/* One row for each mask; that is why it is long. `padded`: PostgreSQL fills names up to nine characters. */
static void put_mask(struct writer *out, int64_t us, enum mask mask, const uint8_t *like, bool padded)
{
    struct civil c = civil_from_us(us);
    int64_t days = floor_div(us, US_PER_DAY);
    const char *month = month_names[c.month - 1], *day = day_names[weekday(days)];
    int year, week;
    iso_week(days, &year, &week);
    switch (mask) {
    case MASK_YEAR4: put_int(out, c.year, 4); break;
    case MASK_YEAR2: put_int(out, c.year % 100, 2); break;
    case MASK_MONTH: put_int(out, c.month, 2); break;
    case MASK_DAY: put_int(out, c.day, 2); break;
    case MASK_DAY_OF_YEAR: put_int(out, days - days_from_civil(c.year, 1, 1) + 1, 3); break;
    case MASK_HOUR24: put_int(out, c.hour, 2); break;
    case MASK_HOUR12: put_int(out, c.hour % 12 ? c.hour % 12 : 12, 2); break;
    case MASK_MINUTE: put_int(out, c.minute, 2); break;
    case MASK_SECOND: put_int(out, c.second, 2); break;
    case MASK_MS: put_int(out, c.us / 1000, 3); break;
    case MASK_US: put_int(out, c.us, 6); break;
    case MASK_MONTH_NAME: put_word(out, month, strlen(month), like, padded ? 9 : 0); break;
    case MASK_MON: put_word(out, month, 3, like, 0); break;
    case MASK_DAY_NAME: put_word(out, day, strlen(day), like, padded ? 9 : 0); break;
    case MASK_DY: put_word(out, day, 3, like, 0); break;
    case MASK_D: put_int(out, (weekday(days) + 1) % 7 + 1, 1); break;
    case MASK_ID: put_int(out, weekday(days) + 1, 1); break;
    case MASK_Q: put_int(out, (c.month + 2) / 3, 1); break;
    case MASK_AM: put_word(out, c.hour < 12 ? "am" : "pm", 2, like, 0); break;
    case MASK_WEEK: put_int(out, week, 2); break;
    case MASK_ISO_YEAR: put_int(out, year, 4); break;
    case MASK_SSSS: put_int(out, (us - days * US_PER_DAY) / US_PER_S, 1); break;
    }
}

bool timestamp_format(int64_t us, struct slice pattern, bool java, struct writer *out)
{
    uint8_t quote = java ? '\'' : '"';
    while (pattern.len) {
        const struct mask_row *row =
            java ? mask_find(java_masks, ARRAY_LEN(java_masks), pattern) : mask_find(masks, ARRAY_LEN(masks), pattern);
        size_t step = 1;
        if (*pattern.ptr == quote) {
            const uint8_t *end = memchr(pattern.ptr + 1, quote, pattern.len - 1);
            if (!end)
                return false;
            step = (size_t)(end - pattern.ptr) + 1;
            if (java && step == 2) /* '' is one quote */
                writer_u8(out, quote);
            writer_put(out, pattern.ptr + 1, step - 2);
        } else if (row) {
            static const uint8_t capitals[] = "Aa", both[] = "AA";
            step = strlen(row->text);
            put_mask(out, us, row->mask,
                     !java                  ? (step > 1 ? pattern.ptr : capitals)
                     : row->mask == MASK_AM ? both
                                            : capitals,
                     !java);
        } else if (java && ((*pattern.ptr | 0x20) >= 'a' && (*pattern.ptr | 0x20) <= 'z')) {
            return false;
        } else {
            writer_u8(out, *pattern.ptr);
        }
        pattern = slice_of(pattern.ptr + step, pattern.len - step);
    }
    return writer_ok(out);
}
