/* `millrace reference`: everything that is a table in the source, printed as Markdown, so that it cannot drift from what
 * the binary does. Main thread. */
#include "admin/caller.h"
#include "main/cli_int.h"
#include "net/outq.h"
#include "os/log.h"
#include "proto/amqp091/engine.h"
#include "proto/amqp091/methods.h"
#include "proto/kafka/engine.h"
#include "sql/language/function.h"

#include <inttypes.h>

static void print_errors(void)
{
    puts("\n## Errors\n\nWhat clients are told, and how each protocol says it.\n");
    puts("| error | AMQP 0-9-1 | closes | Kafka | MQTT 5 | HTTP |\n|---|---|---|---|---|---|");
    for (unsigned code = ERR_NONE + 1; code < ERR_COUNT; code++) {
        const struct error_row *row = error_row((enum error_code)code);
        printf("| %s | %u | %s | %d | 0x%02x | %u |\n", row->name, row->amqp, row->hard ? "connection" : "channel",
               row->kafka, row->mqtt, row->http);
    }
}

static void print_limits(void)
{
    static const struct {
        const char *what;
        uint64_t value;
        const char *unit;
    } rows[] = {
        {"frame before login", AMQP091_FRAME_EARLY, "bytes"},
        {"everything a peer may send before login", AMQP091_BYTES_EARLY, "bytes"},
        {"smallest frame_max", AMQP091_FRAME_MIN, "bytes"},
        {"header table of a message", AMQP091_HEADERS_MAX, "bytes"},
        {"published and not yet durable, per connection; then it is not read", AMQP091_INFLIGHT_HIGH, "bytes"},
        {"answers that wait for the journal, per connection; then it is not read", AMQP091_HELD_MAX, "answers"},
        {"largest Kafka request before a login", KAFKA_REQUEST_EARLY, "bytes"},
        {"Kafka requests without an answer, per connection; then it is not read", KAFKA_REQUESTS_MAX, "requests"},
        {"Kafka batches not yet durable, per connection; then it is not read", KAFKA_INFLIGHT_HIGH, "bytes"},
        {"deliveries on their way to one connection", SESSION_CREDIT_BYTES, "bytes"},
        {"waiting to be written to one connection; then it is not read", OUTQ_HIGH, "bytes"},
    };
    puts("\n## Limits that are no settings\n\n| limit | value | unit |\n|---|---|---|");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        printf("| %s | %" PRIu64 " | %s |\n", rows[i].what, rows[i].value, rows[i].unit);
}

static void print_log_events(void)
{
    puts("\n## Log events\n\n| id | level | meaning |\n|---|---|---|");
    for (unsigned id = 0; id < LOG_COUNT; id++)
        printf("| `%s` | %s | %s |\n", log_row((enum log_id)id)->id, log_level_name(log_row((enum log_id)id)->level),
               log_row((enum log_id)id)->text);
}

static void print_exit_codes(void)
{
    puts("\n## Exit codes\n\n| code | meaning |\n|---|---|");
#define EXIT_CODE(name, number, text) printf("| %d | %s |\n", number, text);
#include "main/exit_codes.def"
#undef EXIT_CODE
}

static void print_admin(void)
{
    static const char *const operands[ADMIN_COUNT] = {
#define ADMIN(name, text) [ADMIN_##name] = text,
#include "core/admin.def"
#undef ADMIN
    };
    puts("\n## Operations of the control socket\n\n| operation | operands |\n|---|---|");
    for (unsigned op = 0; op < ADMIN_COUNT; op++)
        printf("| `%s` | %s |\n", admin_op_name((enum admin_op)op), operands[op]);
}

/* In a table a bar ends a cell, also within code. */
static void put_code(const char *text)
{
    putchar('`');
    for (; *text; text++) {
        if (*text == '|')
            putchar('\\');
        putchar(*text);
    }
    putchar('`');
}

static void put_function(const struct function *f)
{
    const char *name, *of;
    fputs("| ", stdout);
    put_code(f->name);
    for (size_t i = 0; (name = function_alias_at(i, &of)); i++)
        if (strcmp(of, f->name) == 0) {
            fputs(", ", stdout);
            put_code(name);
        }
    fputs(" | ", stdout);
    for (const char *c = f->sentence; *c; c++)
        printf(*c == '|' ? "\\|" : "%c", *c);
    fputs(" | ", stdout);
    put_code(f->example);
    fputs(" | ", stdout);
    put_code(f->expected);
    puts(" |");
}

/* One row for what does the same with several types. */
static void print_functions(void)
{
    const struct function *f, *before = NULL;
    puts("\n## SQL functions and operators\n\n| name | gives | example | which is |\n|---|---|---|---|");
    for (size_t i = 0; (f = function_at(i)); before = f, i++)
        if (!before || strcmp(before->name, f->name) != 0 || strcmp(before->sentence, f->sentence) != 0)
            put_function(f);
}

int cli_reference(int argc, char **argv)
{
    struct cli_line line;
    cli_line_parse(&line, "", "Prints settings, errors, limits, methods, SQL functions and log events as Markdown.",
                   argc, argv);
    puts("# Millrace " MILLRACE_VERSION ": reference\n\nPrinted by `millrace reference`.\n\n## Settings\n");
    puts("In a file (`--config`), by `--set key=value`, or by the environment variable `MILLRACE_KEY` with dots as "
         "underscores; the later of default, file, environment, `--set` wins.\n");
    config_print_reference(stdout);
    print_errors();
    print_limits();
    puts("\n## AMQP 0-9-1 methods\n");
    amqp091_print(stdout);
    puts("\n## Kafka requests\n");
    fflush(stdout);
    kafka_print_requests(stdout);
    print_functions();
    print_admin();
    print_log_events();
    print_exit_codes();
    cli_line_free(&line);
    return END_OK;
}
