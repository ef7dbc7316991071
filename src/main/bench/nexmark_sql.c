/* Statements over POST /sql, and what SHOW QUERIES says of one. */
#include "nexmark_int.h"

#include <jansson.h>
#include <stdio.h>

enum { WAIT_MS = 60000 };

void bench_nexmark_sql_init(struct bench_nexmark_sql *s, const struct bench_nexmark_options *o)
{
    s->error[0] = '\0';
    s->refused = false;
    s->made = 0;
    sql_client_init(&s->client, o->server.host, o->http_port);
    s->client.user = o->server.user;
    s->client.password = o->server.password;
}

void bench_nexmark_sql_fini(struct bench_nexmark_sql *s)
{
    sql_client_fini(&s->client);
}

/* The next line of the answer; NULL at its end, and when it has failed: then there is an error. */
static json_t *line_next(struct bench_nexmark_sql *s)
{
    struct slice line;
    json_error_t why;
    int64_t patience_ns = (int64_t)WAIT_MS * BENCH_NS_PER_MS;
    uint64_t from_ns = client_clock_ns();
    enum sql_client_got got;
    while ((got = sql_client_line(&s->client, WAIT_MS, &line)) == SQL_CLIENT_NOTHING)
        if ((int64_t)(client_clock_ns() - from_ns) > patience_ns)
            break;
    if (got == SQL_CLIENT_END)
        return NULL;
    json_t *told = got == SQL_CLIENT_LINE ? json_loadb((const char *)line.ptr, line.len, 0, &why) : NULL;
    if (got == SQL_CLIENT_NOTHING)
        sql_client_stop(&s->client);
    if (told == NULL)
        snprintf(s->error, sizeof(s->error), "%s",
                 got == SQL_CLIENT_FAILED    ? s->client.error
                 : got == SQL_CLIENT_NOTHING ? "a statement does not end"
                                             : "the broker's answer is no JSON");
    json_t *error = json_object_get(told, "error");
    if (error == NULL)
        return told;
    const char *message = json_string_value(json_object_get(error, "message"));
    snprintf(s->error, sizeof(s->error), "%s", message != NULL ? message : "an error without a message");
    s->refused = true;
    return told;
}

static bool ask(struct bench_nexmark_sql *s, const char *text)
{
    s->error[0] = '\0';
    s->refused = false;
    if (sql_client_ask(&s->client, slice_str(text)))
        return true;
    snprintf(s->error, sizeof(s->error), "%s", s->client.error);
    return false;
}

bool bench_nexmark_sql_run(struct bench_nexmark_sql *s, const char *text)
{
    json_t *line;
    if (!ask(s, text))
        return false;
    while ((line = line_next(s)) != NULL)
        json_decref(line);
    return s->error[0] == '\0';
}

static uint64_t number_of(const json_t *row, size_t at)
{
    json_int_t v = json_integer_value(json_array_get(row, at));
    return v > 0 ? (uint64_t)v : 0;
}

static void text_of(const json_t *row, size_t at, char *ret, size_t room)
{
    const char *text = json_string_value(json_array_get(row, at));
    snprintf(ret, room, "%s", text != NULL ? text : "");
}

static void column_take(const char *name, const json_t *row, size_t at, struct bench_nexmark_shown *ret)
{
    const struct {
        const char *name;
        uint64_t *to;
    } numbers[] = {{"lag", &ret->lag},   {"rows_in", &ret->rows_in}, {"rows_out", &ret->rows_out},
                   {"late", &ret->late}, {"faults", &ret->faults},   {"state_bytes", &ret->state_bytes}};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (strcmp(name, numbers[i].name) == 0)
            *numbers[i].to = number_of(row, at);
    if (strcmp(name, "state") == 0)
        text_of(row, at, ret->state, sizeof(ret->state));
    if (strcmp(name, "reason") == 0)
        text_of(row, at, ret->reason, sizeof(ret->reason));
}

bool bench_nexmark_sql_show(struct bench_nexmark_sql *s, const char *query, struct bench_nexmark_shown *ret)
{
    char text[128];
    json_t *line, *columns = NULL, *column;
    size_t i;
    memset(ret, 0, sizeof(*ret));
    snprintf(text, sizeof(text), "SHOW QUERIES LIKE '%s'", query);
    if (!ask(s, text))
        return false;
    while ((line = line_next(s)) != NULL) {
        json_t *row = json_object_get(line, "row");
        if (columns == NULL)
            columns = json_incref(json_object_get(line, "columns"));
        json_array_foreach(columns, i, column)
        {
            const char *name = json_string_value(json_object_get(column, "name"));
            if (row != NULL && name != NULL)
                column_take(name, row, i, ret);
        }
        ret->there = ret->there || row != NULL;
        json_decref(line);
    }
    json_decref(columns);
    return s->error[0] == '\0';
}
