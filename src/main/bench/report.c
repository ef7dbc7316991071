/* Results of `millrace bench`: rows of (group, name, value), kept in the order they were added.
 *
 * A row is written once by the scenario and printed by whichever printer the user asked for, so the table and --json can
 * not disagree. Numbers in JSON carry at most three decimals; nothing is rounded to look better.
 */
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_MAX = 512, TEXT_MAX = 200 };

enum row_kind { ROW_TEXT, ROW_NUMBER, ROW_LIST };

struct row {
    enum row_kind kind;
    const char *group;
    const char *name;
    const char *unit;
    double value;
    double *values; /* of a list */
    unsigned value_count;
    char text[TEXT_MAX];
};

struct bench_report {
    const char *scenario;
    unsigned row_count;
    struct row rows[ROWS_MAX];
};

struct bench_report *bench_report_new(const char *scenario)
{
    struct bench_report *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        fputs("millrace bench: out of memory\n", stderr);
        abort();
    }
    r->scenario = scenario;
    return r;
}

void bench_report_free(struct bench_report *r)
{
    for (unsigned i = 0; i < r->row_count; i++)
        free(r->rows[i].values);
    free(r);
}

static struct row *row_add(struct bench_report *r, const char *group, const char *name, enum row_kind kind)
{
    if (r->row_count == ROWS_MAX) {
        fputs("millrace bench: a report has too many rows\n", stderr);
        abort();
    }
    struct row *row = &r->rows[r->row_count++];
    row->kind = kind;
    row->group = group;
    row->name = name;
    return row;
}

void bench_report_text(struct bench_report *r, const char *group, const char *name, const char *text)
{
    snprintf(row_add(r, group, name, ROW_TEXT)->text, TEXT_MAX, "%s", text);
}

void bench_report_number(struct bench_report *r, const char *group, const char *name, double value, const char *unit)
{
    struct row *row = row_add(r, group, name, ROW_NUMBER);
    row->value = value;
    row->unit = unit;
}

void bench_report_list(struct bench_report *r, const char *group, const char *name, const double *values,
                       unsigned count)
{
    struct row *row = row_add(r, group, name, ROW_LIST);
    row->values = calloc(count > 0 ? count : 1, sizeof(*values));
    if (row->values == NULL) {
        fputs("millrace bench: out of memory\n", stderr);
        abort();
    }
    for (unsigned i = 0; i < count; i++)
        row->values[i] = values[i];
    row->value_count = count;
}

void bench_report_latency(struct bench_report *r, const char *group, const struct bench_histogram *h)
{
    static const struct {
        const char *name;
        double quantile;
    } POINTS[] = {{"p50_us", 0.5}, {"p90_us", 0.9}, {"p99_us", 0.99}, {"p99.9_us", 0.999}};
    if (bench_histogram_count(h) == 0)
        return;
    for (unsigned i = 0; i < sizeof(POINTS) / sizeof(POINTS[0]); i++)
        bench_report_number(r, group, POINTS[i].name, (double)bench_histogram_quantile(h, POINTS[i].quantile) / 1000.0,
                            "");
    bench_report_number(r, group, "max_us", (double)bench_histogram_max(h) / 1000.0, "");
    bench_report_number(r, group, "mean_us", bench_histogram_mean(h) / 1000.0, "");
}

void bench_report_connects(struct bench_report *r, unsigned opened, double took_s, const struct bench_histogram *each)
{
    bench_report_number(r, "connect", "connections", opened, "");
    bench_report_number(r, "connect", "seconds", took_s, "");
    bench_report_number(r, "connect", "rate", opened / took_s, "connections/s");
    bench_report_latency(r, "connect latency", each);
}

void bench_report_syncs(struct bench_report *r, const struct bench_histogram *answers,
                        const struct bench_histogram *syncs)
{
    bench_report_latency(r, "fdatasync", syncs);
    double answer = (double)bench_histogram_quantile(answers, 0.5) / 1000.0;
    double sync = (double)bench_histogram_quantile(syncs, 0.5) / 1000.0;
    bench_report_number(r, "difference", "p50_us", answer - sync, "");
}

double bench_report_find(const struct bench_report *r, const char *group, const char *name)
{
    for (unsigned i = 0; i < r->row_count; i++)
        if (r->rows[i].kind == ROW_NUMBER && strcmp(r->rows[i].group, group) == 0 && strcmp(r->rows[i].name, name) == 0)
            return r->rows[i].value;
    return NAN;
}

static void json_string(const char *text, FILE *out)
{
    fputc('"', out);
    for (const char *p = text; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void json_number(double value, FILE *out)
{
    if (!isfinite(value))
        fputs("null", out);
    else if (value == floor(value))
        fprintf(out, "%.0f", value);
    else
        fprintf(out, "%.3f", value);
}

static void json_list(const struct row *row, FILE *out)
{
    fputc('[', out);
    for (unsigned i = 0; i < row->value_count; i++) {
        if (i > 0)
            fputc(',', out);
        json_number(row->values[i], out);
    }
    fputc(']', out);
}

static void print_json(const struct bench_report *r, FILE *out)
{
    fputs("{\"scenario\":", out);
    json_string(r->scenario, out);
    for (unsigned i = 0; i < r->row_count; i++) {
        const struct row *row = &r->rows[i];
        bool opens = i == 0 || strcmp(r->rows[i - 1].group, row->group) != 0;
        if (opens) {
            fputs(i == 0 ? "," : "},", out);
            json_string(row->group, out);
            fputs(":{", out);
        } else {
            fputc(',', out);
        }
        json_string(row->name, out);
        fputc(':', out);
        if (row->kind == ROW_TEXT)
            json_string(row->text, out);
        else if (row->kind == ROW_LIST)
            json_list(row, out);
        else
            json_number(row->value, out);
    }
    fputs(r->row_count > 0 ? "}}\n" : "}\n", out);
}

/* 1234567.8 → "1,234,568"; small numbers keep their decimals. */
static void print_number(double value, FILE *out)
{
    if (value != floor(value) && fabs(value) < 1000.0) {
        fprintf(out, "%.*f", fabs(value) < 10.0 ? 3 : 1, value);
        return;
    }
    char digits[40];
    int len = snprintf(digits, sizeof(digits), "%.0f", value);
    for (int i = 0; i < len; i++) {
        fputc(digits[i], out);
        int left = len - i - 1;
        if (left > 0 && left % 3 == 0 && digits[i] != '-')
            fputc(',', out);
    }
}

static void print_list(const struct row *row, FILE *out)
{
    for (unsigned i = 0; i < row->value_count; i++) {
        if (i > 0)
            fputc(' ', out);
        print_number(row->values[i], out);
    }
}

static void print_table(const struct bench_report *r, FILE *out)
{
    fprintf(out, "%s", r->scenario);
    for (unsigned i = 0; i < r->row_count; i++) {
        const struct row *row = &r->rows[i];
        if (i == 0 || strcmp(r->rows[i - 1].group, row->group) != 0)
            fprintf(out, "\n  %-20s", row->group);
        else
            fputs("   ", out);
        fprintf(out, "%s ", row->name);
        if (row->kind == ROW_TEXT)
            fputs(row->text, out);
        else if (row->kind == ROW_LIST)
            print_list(row, out);
        else
            print_number(row->value, out);
        if (row->kind == ROW_NUMBER && row->unit[0] != '\0')
            fprintf(out, " %s", row->unit);
    }
    fputc('\n', out);
}

void bench_report_print(const struct bench_report *r, bool json, FILE *out)
{
    if (json)
        print_json(r, out);
    else
        print_table(r, out);
    fflush(out);
}
