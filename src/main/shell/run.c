/* Statements, one after the other, see shell/run.h. */
#include "main/shell/run.h"

#include "base/mem.h"
#include "main/shell/file.h"
#include "main/shell/split.h"
#include "os/os.h"
#include "os/os_process.h"

#include <stdlib.h>
#include <unistd.h>

#define GATHER_MS 50              /* silence after which the rows that have come are shown */
#define SHOW_NS (200 * NS_PER_MS) /* and how long they wait at most */
#define WAIT_MS 1000

static bool is_plain(void)
{
    const char *variable = secure_getenv("NO_COLOR");
    return variable && *variable;
}

void sql_run_init(struct sql_run *r, const char *host, unsigned port, enum sql_show_form form)
{
    bool screen = os_is_terminal(STDOUT_FILENO);
    sql_client_init(&r->client, host, port);
    sql_show_init(&r->show, form, stdout, stderr);
    r->show.columns_max = screen ? os_terminal_columns(STDOUT_FILENO) : 0;
    r->show.colours = screen && !is_plain();
    r->show.err_colours = os_is_terminal(STDERR_FILENO) && !is_plain();
}

void sql_run_fini(struct sql_run *r)
{
    sql_client_fini(&r->client);
    sql_show_fini(&r->show);
}

static enum exit_code lost(struct sql_run *r)
{
    sql_show_end(&r->show);
    sql_show_error(&r->show, "%s", r->client.error);
    return r->client.unreachable ? END_NO_BROKER : END_FAILED;
}

static enum exit_code stopped(struct sql_run *r)
{
    unsigned long long rows = r->show.shown;
    sql_client_stop(&r->client);
    sql_show_end(&r->show);
    if (!r->show.quiet)
        fprintf(stderr, "\n(stopped after %llu row%s)\n", rows, rows == 1 ? "" : "s");
    return END_OK;
}

enum exit_code sql_run_statement(struct sql_run *r, struct slice text)
{
    struct os *os = os_posix();
    struct sql_show *show = &r->show;
    struct slice line;
    mono_t since = 0; /* rows wait */
    show->failed = show->csv.error = false;
    show->shown = 0;
    if (show->columns_max)
        show->columns_max = os_terminal_columns(STDOUT_FILENO);
    if (!sql_client_ask(&r->client, text))
        return lost(r);
    for (;;) {
        enum sql_client_got got = sql_client_line(&r->client, sql_show_waits(show) ? GATHER_MS : WAIT_MS, &line);
        bool ok = true;
        if (os_interrupt_taken())
            return stopped(r);
        if (got == SQL_CLIENT_FAILED)
            return lost(r);
        if (got == SQL_CLIENT_END)
            break;
        if (got == SQL_CLIENT_LINE)
            ok = sql_show_line(show, line);
        mono_t now = os->now_mono(os);
        since = !sql_show_waits(show) ? 0 : since ? since : now;
        if (ok && since && (got == SQL_CLIENT_NOTHING || now - since > SHOW_NS)) {
            ok = sql_show_rest(show);
            since = 0;
        }
        if (!ok) {
            sql_client_stop(&r->client);
            sql_show_error(show, ferror(show->out) ? "standard output cannot be written to" : "out of memory");
            return END_FAILED;
        }
    }
    if (!sql_show_end(show))
        sql_show_error(show, "standard output cannot be written to");
    return show->failed ? END_FAILED : END_OK;
}

/* ---- texts ---- */

/* The whole statements at the beginning; *ret_used: how much that was. */
static enum exit_code run_whole(struct sql_run *r, struct slice text, size_t *ret_used)
{
    enum exit_code code = END_OK;
    size_t len;
    bool blank;
    *ret_used = 0;
    while (code == END_OK && (len = sql_split(slice_of(text.ptr + *ret_used, text.len - *ret_used), &blank))) {
        struct slice statement = sql_without_space(slice_of(text.ptr + *ret_used, len), &r->show.line);
        if (!blank)
            code = sql_run_statement(r, statement);
        r->show.line += sql_lines_in(statement);
        *ret_used += len;
    }
    return code;
}

/* What has no semicolon behind it, but nothing else either. Who asked nothing at all hears, too, when nobody is there. */
static enum exit_code run_last(struct sql_run *r, struct slice text)
{
    bool blank = true;
    if (text.len == 0 || (sql_split(text, &blank) == 0 && blank))
        return sql_client_reach(&r->client) ? END_OK : lost(r);
    return sql_run_statement(r, sql_without_space(text, &r->show.line));
}

enum exit_code sql_run_text(struct sql_run *r, const char *name, struct slice text)
{
    size_t used;
    r->show.file = name;
    r->show.line = 1;
    enum exit_code code = run_whole(r, text, &used);
    if (code == END_OK)
        code = run_last(r, slice_of(text.ptr + used, text.len - used));
    r->show.file = NULL;
    return code;
}

enum exit_code sql_run_file(struct sql_run *r, const char *path)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    int err = sql_file_read(path, &bytes, &len);
    enum exit_code code = END_FAILED;
    if (err == 0)
        code = sql_run_text(r, path, slice_of(bytes, len));
    else
        sql_show_error(&r->show, "%s cannot be read: %s", path, strerror(-err));
    mem_free(bytes);
    return code;
}

/* Adds a line of standard input. 1: there was one; 0: the end; -1: too long, or no memory. */
static int line_add(char **text, size_t *len, size_t *room)
{
    int c;
    size_t before = *len;
    while ((c = getc_unlocked(stdin)) != EOF) {
        if (*len == *room) {
            size_t more = *room ? *room * 2 : 4096;
            char *grown = more <= SQL_FILE_MAX ? mem_realloc(*text, more) : NULL;
            if (!grown)
                return -1;
            *text = grown;
            *room = more;
        }
        (*text)[(*len)++] = (char)c;
        if (c == '\n')
            return 1;
    }
    return *len > before;
}

enum exit_code sql_run_input(struct sql_run *r)
{
    char *text = NULL;
    size_t len = 0, room = 0, used;
    enum exit_code code = END_OK;
    int more = 1;
    r->show.file = "standard input";
    while (code == END_OK && (more = line_add(&text, &len, &room)) > 0) {
        code = run_whole(r, slice_of(text, len), &used);
        memmove(text, text + used, len - used);
        len -= used;
    }
    if (more < 0) {
        sql_show_error(&r->show, "a statement is too long");
        code = END_FAILED;
    }
    if (code == END_OK)
        code = run_last(r, slice_of(text, len));
    r->show.file = NULL;
    mem_free(text);
    return code;
}
