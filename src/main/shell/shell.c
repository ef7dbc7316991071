/* The shell, see shell/shell.h.
 *
 * Lines are gathered until a semicolon ends a statement; then it runs, and so does what stands behind it on the line. The history holds
 * statements, each on one line. Names for completion are asked for on a connection of their own, when a key asks and something may
 * have changed, and waited for NAMES_NS at most. */
#include "main/shell/shell.h"

#include "base/mem.h"
#include "main/shell/complete.h"
#include "main/shell/split.h"
#include "os/os.h"
#include "os/os_net.h"
#include "os/os_process.h"

#include <histedit.h>
#include <stdlib.h>
#include <unistd.h>

#define HISTORY_MAX 1000
#define TEXT_MAX (1u << 20)
#define PATH_MAX_BYTES 4096u
#define NAMES_NS NS_PER_S
#define NAMES_MS 200

struct shell {
    struct sql_run *run;
    EditLine *edit;
    History *history;
    char path[PATH_MAX_BYTES]; /* of the history; empty: it is not kept */
    char *text;                /* what has been typed of a statement */
    size_t len;
    struct sql_client asker; /* of names */
    struct sql_names names;
    bool stale; /* the names are */
    bool over;
};

/* ---- names ---- */

static void take_name(struct shell *s, struct slice line)
{
    struct json_view whole, row, name;
    struct json_fault fault;
    if (!json_view_of(line, &whole, &fault) || !json_view_member(&whole, slice_str("row"), &row) ||
        !json_view_element(&row, 0, &name) || name.kind != JSON_VIEW_STRING)
        return;
    uint8_t *text = mem_alloc(name.len + 1);
    if (text)
        sql_names_add(&s->names, slice_of(text, json_view_text(&name, text)));
    mem_free(text);
}

static void ask_names(struct shell *s, const char *statement, mono_t until)
{
    struct os *os = os_posix();
    struct slice line;
    if (!sql_client_ask(&s->asker, slice_str(statement)))
        return;
    while (os->now_mono(os) < until) {
        enum sql_client_got got = sql_client_line(&s->asker, NAMES_MS, &line);
        if (got == SQL_CLIENT_LINE)
            take_name(s, line);
        else if (got != SQL_CLIENT_NOTHING)
            return;
    }
    sql_client_stop(&s->asker);
}

static void names_refresh(struct shell *s)
{
    static const char *const statements[] = {"SHOW STREAMS", "SHOW TABLES", "SHOW VIEWS", "SHOW MATERIALIZED VIEWS",
                                             "SHOW SINKS"};
    struct os *os = os_posix();
    mono_t until = os->now_mono(os) + NAMES_NS;
    if (!s->stale)
        return;
    s->stale = false;
    sql_names_fini(&s->names);
    for (size_t i = 0; i < ARRAY_LEN(statements) && os->now_mono(os) < until; i++)
        ask_names(s, statements[i], until);
}

/* ---- keys ---- */

static char *prompt(EditLine *edit)
{
    static char first[] = "millrace> ", next[] = "      -> ";
    struct shell *s = NULL;
    el_get(edit, EL_CLIENTDATA, &s);
    return s->len ? next : first;
}

/* What it could be, below the line. */
static void list(const struct sql_completion *c, unsigned columns)
{
    unsigned width = 0, across;
    for (unsigned i = 0; i < c->count; i++)
        if (sql_show_width(slice_str(c->words[i])) + 2 > width)
            width = sql_show_width(slice_str(c->words[i])) + 2;
    across = columns / width ? columns / width : 1;
    for (unsigned i = 0; i < c->count; i++) {
        bool last = i % across + 1 == across || i + 1 == c->count;
        if (i % across == 0)
            putchar('\n');
        printf("%s%*s", c->words[i], last ? 0 : (int)(width - sql_show_width(slice_str(c->words[i]))), "");
    }
    putchar('\n');
    fflush(stdout);
}

static unsigned char on_tab(EditLine *edit, int key)
{
    struct shell *s = NULL;
    const LineInfo *line = el_line(edit);
    struct sql_completion c;
    (void)key;
    el_get(edit, EL_CLIENTDATA, &s);
    struct slice typed = slice_of(line->buffer, (size_t)(line->cursor - line->buffer));
    if (!s->len && typed.len == 0)
        return CC_ERROR;
    names_refresh(s);
    sql_complete(&s->names, typed, &c);
    if (!c.count)
        return CC_ERROR;
    size_t more = strlen(c.more);
    bool same = more == c.erase && memcmp(c.more, line->cursor - c.erase, more) == 0;
    if (same) {
        list(&c, s->run->show.columns_max ? s->run->show.columns_max : 80);
        return CC_REDISPLAY;
    }
    el_deletestr(edit, (int)c.erase);
    return el_insertstr(edit, c.more) == 0 ? CC_REFRESH : CC_ERROR;
}

/* A Ctrl-D that was typed while the terminal still gathered lines, or ran a statement, comes as a NUL when the terminal gives out keys. */
static unsigned char on_nul(EditLine *edit, int key)
{
    const LineInfo *line = el_line(edit);
    (void)key;
    return line->lastchar == line->buffer ? CC_EOF : CC_NORM;
}

/* Before the prompt is shown, so that whoever sees it has keys; libedit by itself waits for the first key. A NUL that was not typed ahead is
 * Ctrl-Space; where no key is set to quote others, libedit takes it for that one, and the next key, be it Ctrl-D, would be a character. */
static void take_terminal(struct shell *s)
{
    el_set(s->edit, EL_PREP_TERM, 1);
    bool ahead = os_wait_readable(STDIN_FILENO, 0) > 0;
    el_set(s->edit, EL_BIND, "^@", ahead ? "end-sql" : "em-set-mark", NULL);
}

/* ---- history ---- */

static void history_open(struct shell *s)
{
    HistEvent event;
    const char *path = secure_getenv("MILLRACE_HISTORY"), *home = secure_getenv("HOME");
    if (path)
        snprintf(s->path, sizeof s->path, "%s", path);
    else if (home)
        snprintf(s->path, sizeof s->path, "%s/.millrace_history", home);
    history(s->history, &event, H_SETSIZE, HISTORY_MAX);
    history(s->history, &event, H_SETUNIQUE, 1);
    if (*s->path)
        history(s->history, &event, H_LOAD, s->path);
}

/* On one line, unless a comment ends with its line. */
static void remember(struct shell *s, struct slice statement)
{
    HistEvent event;
    char *text = mem_slicedup(statement);
    if (!text)
        return;
    if (!strstr(text, "--"))
        for (char *c = text; *c; c++)
            *c = *c == '\n' || *c == '\t' ? ' ' : *c;
    history(s->history, &event, H_ENTER, text);
    mem_free(text);
    if (*s->path)
        history(s->history, &event, H_SAVE, s->path);
}

/* ---- commands of the shell ---- */

static void help(void)
{
    puts("Statements end with a semicolon. Ctrl-C stops a query or throws away what is being typed, Ctrl-D ends, Tab "
         "completes.\n"
         "  \\d           streams, tables, views, sinks, queries\n"
         "  \\d NAME      columns of one of them\n"
         "  \\i FILE      runs the statements in a file\n"
         "  \\table       rows as a table, or \\csv, or \\json\n"
         "  \\q           ends");
}

static void describe(struct shell *s, const char *name)
{
    static const char *const all[] = {"SHOW STREAMS", "SHOW TABLES", "SHOW VIEWS", "SHOW MATERIALIZED VIEWS",
                                      "SHOW SINKS",   "SHOW QUERIES"};
    char text[400];
    if (*name) {
        snprintf(text, sizeof text, "DESCRIBE %s", name);
        (void)sql_run_statement(s->run, slice_str(text));
        return;
    }
    s->run->show.hushed = "0A000"; /* a broker may not know all of them */
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        s->run->show.title = all[i] + strlen("SHOW ");
        if (sql_run_statement(s->run, slice_str(all[i])) == END_NO_BROKER)
            break;
    }
    s->run->show.title = s->run->show.hushed = NULL;
}

static void command(struct shell *s, char *text)
{
    char *word = text + 1, *rest = word + strcspn(word, " \t");
    if (*rest)
        *rest++ = '\0';
    rest += strspn(rest, " \t");
    if (strcmp(word, "q") == 0)
        s->over = true;
    else if (strcmp(word, "?") == 0)
        help();
    else if (strcmp(word, "d") == 0)
        describe(s, rest);
    else if (strcmp(word, "i") == 0)
        (void)sql_run_file(s->run, rest);
    else if (strcmp(word, "table") == 0)
        s->run->show.form = SQL_FORM_TABLE;
    else if (strcmp(word, "csv") == 0)
        s->run->show.form = SQL_FORM_CSV;
    else if (strcmp(word, "json") == 0)
        s->run->show.form = SQL_FORM_JSON;
    else
        sql_show_error(&s->run->show, "there is no \\%s; \\? lists what there is", word);
    s->stale = true;
}

/* ---- lines ---- */

static void forget_text(struct shell *s)
{
    mem_free(s->text);
    s->text = NULL;
    s->len = 0;
}

static bool text_add(struct shell *s, const char *line)
{
    size_t more = strlen(line);
    char *grown = s->len + more <= TEXT_MAX ? mem_realloc(s->text, s->len + more + 1) : NULL;
    if (!grown)
        return false;
    s->text = grown;
    memcpy(s->text + s->len, line, more + 1);
    s->len += more;
    return true;
}

/* Space and comments alone are as nothing. */
static void run_whole(struct shell *s)
{
    size_t len;
    bool blank;
    while ((len = sql_split(slice_of(s->text, s->len), &blank))) {
        size_t space = strspn(s->text, " \t\r\n");
        struct slice statement = slice_of(s->text + space, len - space);
        if (!blank) {
            remember(s, statement);
            (void)sql_run_statement(s->run, statement);
            s->stale = true;
        }
        memmove(s->text, s->text + len, s->len - len + 1);
        s->len -= len;
    }
    if (blank)
        forget_text(s);
}

static void on_line(struct shell *s, const char *line)
{
    size_t space = strspn(line, " \t");
    if (!s->len && line[space] == '\\') {
        char *text = mem_strdup(line + space);
        if (!text)
            return;
        text[strcspn(text, "\r\n")] = '\0';
        remember(s, slice_str(text));
        command(s, text);
        mem_free(text);
    } else if (text_add(s, line)) {
        run_whole(s);
    } else {
        sql_show_error(&s->run->show, "a statement has at most 1 MiB");
        forget_text(s);
    }
}

static void loop(struct shell *s)
{
    while (!s->over) {
        int count = 0;
        take_terminal(s);
        el_resize(s->edit);
        const char *line = el_gets(s->edit, &count);
        if (line && count > 0) {
            on_line(s, line);
        } else if (os_interrupt_taken()) {
            fputs("^C\n", stdout);
            forget_text(s);
            el_reset(s->edit);
        } else {
            putchar('\n');
            s->over = true;
        }
        (void)os_interrupt_taken();
    }
}

static bool edit_open(struct shell *s)
{
    s->history = history_init();
    s->edit = s->history ? el_init("millrace", stdin, stdout, stderr) : NULL;
    if (!s->edit)
        return false;
    el_set(s->edit, EL_CLIENTDATA, s);
    el_set(s->edit, EL_PROMPT, prompt);
    el_set(s->edit, EL_EDITOR, "emacs");
    el_set(s->edit, EL_SIGNAL, 0);
    el_set(s->edit, EL_HIST, history, s->history);
    el_set(s->edit, EL_ADDFN, "complete-sql", "completes words and names", on_tab);
    el_set(s->edit, EL_ADDFN, "end-sql", "ends the shell", on_nul);
    el_set(s->edit, EL_BIND, "^I", "complete-sql", NULL);
    el_set(s->edit, EL_BIND, "^R", "em-inc-search-prev", NULL);
    el_source(s->edit, NULL);
    history_open(s);
    return true;
}

enum exit_code sql_shell(struct sql_run *r)
{
    struct shell *s = mem_zalloc(sizeof *s);
    if (!s || !edit_open(s)) {
        sql_show_error(&r->show, "out of memory");
        mem_free(s);
        return END_SYSTEM;
    }
    s->run = r;
    s->stale = true;
    sql_client_init(&s->asker, r->client.host, r->client.port);
    s->asker.user = r->client.user;
    s->asker.password = r->client.password;
    s->asker.vhost = r->client.vhost;
    os_interrupts_keep();
    if (!r->show.quiet)
        printf("Millrace " MILLRACE_VERSION ", continuous SQL at %s:%u. \\? helps, Ctrl-D ends.\n", r->client.host,
               r->client.port);
    loop(s);
    el_end(s->edit);
    history_end(s->history);
    sql_client_fini(&s->asker);
    sql_names_fini(&s->names);
    forget_text(s);
    mem_free(s);
    return END_OK;
}
