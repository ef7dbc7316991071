/* The administrative commands: `millrace user|vhost|permission|policy|list|alarm|connection|compact|reload|definitions`. Main
 * thread; they talk to a running broker over the control socket in its data folder.
 *
 * One table: command, verb, how many words it takes, usage, and the function that makes the request; lists need no
 * function, only the operation and the columns to print. Passwords are turned into verifiers here, so that the broker's
 * threads never see them and never spend the milliseconds. */
#include "main/cli_int.h"

#include "admin/control_client.h"
#include "admin/definitions.h"
#include "base/mem.h"
#include "core/broker.h"
#include "fmt/password.h"
#include "os/os_process.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct admin_call {
    const struct cli_line *line;
    const char *dir;
    struct control_client client;
};

struct verb_row {
    const char *command, *verb;
    unsigned words_min, words_max; /* after the verb */
    const char *usage;
    int (*run)(struct admin_call *call, const char *const *words, unsigned count);
    const char *op;      /* lists: the operation … */
    const char *columns; /* … and what to print */
};

/* ---- asking ---- */

static json_t *ask(struct admin_call *call, json_t *request)
{
    json_t *response = control_client_request(&call->client, request);
    if (!response) {
        cli_complain("the broker on %s went away", call->dir);
        return NULL;
    }
    if (json_is_true(json_object_get(response, "ok")))
        return response;
    const char *error = json_string_value(json_object_get(response, "error"));
    const char *text = json_string_value(json_object_get(response, "text"));
    cli_complain("%s - %s", error ? error : "ERROR", text ? text : "the request failed");
    json_decref(response);
    return NULL;
}

/* For requests of which only success matters. */
static int tell(struct admin_call *call, json_t *request)
{
    json_t *response = ask(call, request);
    json_decref(response);
    return response ? END_OK : END_FAILED;
}

static const char *vhost_of(const struct admin_call *call)
{
    return call->line->vhost ? call->line->vhost : "/";
}

/* ---- users ---- */

/* A terminal does not show it. */
static bool read_password(char *ret, size_t len)
{
    if (os_is_terminal(STDIN_FILENO)) {
        char *typed = getpass("password: ");
        snprintf(ret, len, "%s", typed ? typed : "");
        if (typed)
            explicit_bzero(typed, strlen(typed));
        return typed != NULL;
    }
    if (!fgets(ret, (int)len, stdin))
        return false;
    ret[strcspn(ret, "\r\n")] = '\0';
    return true;
}

static int put_user(struct admin_call *call, const char *name, const char *password, const char *tags)
{
    char typed[1024], verifier[PASSWORD_VERIFIER_MAX];
    uint8_t salts[PASSWORD_SALTS];
    if (!password && !read_password(typed, sizeof typed)) {
        cli_complain("a password is needed");
        return END_USAGE;
    }
    const char *secret = password ? password : typed;
    os_posix()->random(os_posix(), salts, sizeof salts);
    bool made = *secret && password_make(slice_str(secret), salts, PASSWORD_ITERATIONS, verifier);
    explicit_bzero(typed, sizeof typed);
    if (!made) {
        cli_complain("an empty password never lets anybody in");
        return END_USAGE;
    }
    return tell(call,
                json_pack("{s:s, s:s, s:s, s:s}", "op", "USER_PUT", "name", name, "other", verifier, "key", tags));
}

static int user_add(struct admin_call *call, const char *const *words, unsigned count)
{
    return put_user(call, words[0], count > 1 ? words[1] : NULL, call->line->tags ? call->line->tags : "");
}

/* The tags stay: they are looked up first, since a put replaces both. */
static int user_password(struct admin_call *call, const char *const *words, unsigned count)
{
    json_t *response = ask(call, json_pack("{s:s}", "op", "USER_LIST"));
    if (!response)
        return END_FAILED;
    int code = END_FAILED;
    size_t i;
    json_t *row, *found = NULL;
    json_array_foreach(json_object_get(response, "rows"), i, row)
    {
        const char *name = json_string_value(json_object_get(row, "name"));
        if (name && strcmp(name, words[0]) == 0)
            found = row;
    }
    const char *tags = json_string_value(json_object_get(found, "tags"));
    if (found)
        code = put_user(call, words[0], count > 1 ? words[1] : NULL, tags ? tags : "");
    else
        cli_complain("there is no user %s", words[0]);
    json_decref(response);
    return code;
}

static int user_tags(struct admin_call *call, const char *const *words, unsigned count)
{
    const char *tags = count > 1 ? words[1] : "";
    return tell(call, json_pack("{s:s, s:s, s:s}", "op", "USER_TAGS", "name", words[0], "key", tags));
}

static int user_delete(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)count;
    return tell(call, json_pack("{s:s, s:s}", "op", "USER_DELETE", "name", words[0]));
}

/* ---- vhosts, permissions, policies ---- */

static int vhost_add(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)count;
    return tell(call, json_pack("{s:s, s:s}", "op", "VHOST_PUT", "name", words[0]));
}

static int vhost_delete(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)count;
    return tell(call, json_pack("{s:s, s:s}", "op", "VHOST_DELETE", "name", words[0]));
}

static int permission_set(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)count;
    return tell(call, json_pack("{s:s, s:s, s:s, s:{s:s, s:s, s:s}}", "op", "PERMISSION_PUT", "name", words[0], "other",
                                vhost_of(call), "args", "configure", words[1], "write", words[2], "read", words[3]));
}

static int permission_clear(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)count;
    return tell(call,
                json_pack("{s:s, s:s, s:s}", "op", "PERMISSION_DELETE", "name", words[0], "other", vhost_of(call)));
}

static const char *const *policy_flags(const struct admin_call *call)
{
    static const char *const flags[] = {"", "internal"};
    return &flags[call->line->operator_policy];
}

static int policy_set(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)count;
    json_error_t error;
    json_t *definition = json_loads(words[2], 0, &error);
    if (!json_is_object(definition)) {
        cli_complain("the definition is not a JSON object: %s", error.text);
        json_decref(definition);
        return END_USAGE;
    }
    const char *apply_to = call->line->apply_to ? call->line->apply_to : "all", *key;
    char text[200];
    json_t *value;
    json_object_foreach(definition, key, value)
    {
        if (policy_key_of(slice_str(key), text, sizeof text) == POLICY_KEY_IGNORED)
            cli_complain("its setting '%s' has no meaning here", key);
    }
    return tell(call, json_pack("{s:s, s:s, s:s, s:[s], s:{s:s, s:s, s:i, s:o}}", "op", "POLICY_PUT", "name", words[0],
                                "other", vhost_of(call), "flags", *policy_flags(call), "args", "pattern", words[1],
                                "apply-to", apply_to, "priority", call->line->priority, "definition", definition));
}

static int policy_clear(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)count;
    return tell(call, json_pack("{s:s, s:s, s:s, s:[s]}", "op", "POLICY_DELETE", "name", words[0], "other",
                                vhost_of(call), "flags", *policy_flags(call)));
}

/* ---- the rest ---- */

static int alarm_raise(struct admin_call *call, const char *const *words, unsigned count)
{
    json_t *raised = json_array();
    for (unsigned i = 0; i < count; i++)
        json_array_append_new(raised, json_string(words[i]));
    return tell(call, json_pack("{s:s, s:o}", "op", "alarm", "raised", raised));
}

static int connection_close(struct admin_call *call, const char *const *words, unsigned count)
{
    const char *reason = count > 1 ? words[1] : "closed by an administrator";
    char *end;
    errno = 0;
    unsigned long long id = strtoull(words[0], &end, 10);
    if (errno || *end || !strchr("123456789", *words[0])) {
        cli_complain("%s is not the id of a connection; millrace list connections shows them", words[0]);
        return END_USAGE;
    }
    return tell(call, json_pack("{s:s, s:I, s:s}", "op", "SESSION_CLOSE", "number", (json_int_t)id, "name", reason));
}

static int compact(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)words;
    (void)count;
    return tell(call, json_pack("{s:s}", "op", "COMPACT"));
}

static int reload(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)words;
    (void)count;
    return tell(call, json_pack("{s:s}", "op", "reload"));
}

/* ---- definitions ---- */

static json_t *ask_for_import(void *arg, json_t *request)
{
    return control_client_request(&((struct admin_call *)arg)->client, request);
}

static void note(void *arg, const char *text)
{
    (void)arg;
    cli_complain("%s", text);
}

static int definitions_import(struct admin_call *call, const char *const *words, unsigned count)
{
    (void)count;
    char why[600];
    json_t *json;
    if (definitions_load(os_posix(), words[0], &json, why, sizeof why) < 0) {
        cli_complain("%s", why);
        return END_DEFINITIONS;
    }
    struct definitions *definitions = definitions_new(json, note, NULL, why, sizeof why);
    json_decref(json);
    int err = definitions ? definitions_apply(definitions, ask_for_import, call, why, sizeof why) : -EINVAL;
    if (err < 0)
        cli_complain("%s", why);
    else
        printf("%zu objects imported\n", definitions_count(definitions));
    definitions_free(&definitions);
    return err < 0 ? END_DEFINITIONS : END_OK;
}

static int write_new(struct os *os, const char *path, struct slice text)
{
    int fd = -1, err = os->unlink(os, path); /* what an interrupted one left may be readable to others */
    if (err == 0 || err == -ENOENT)
        err = os->open(os, path, OS_WRITE | OS_CREATE | OS_EXCLUSIVE, &fd);
    if (err < 0)
        return err;
    err = os->pwrite(os, fd, text.ptr, text.len, 0);
    if (err == 0)
        err = os->fdatasync(os, fd);
    int closed = os->close(os, fd);
    return err < 0 ? err : closed;
}

/* Made beside it under another name, so that what bears the name is whole; and for our eyes only, since verifiers of passwords are in
 * it. A link stays a link. */
static int replace_file(const char *path, struct slice text)
{
    struct os *os = os_posix();
    char name[PATH_MAX], partial[PATH_MAX + 16];
    if (!realpath(path, name) && snprintf(name, sizeof name, "%s", path) >= (int)sizeof name)
        return -ENAMETOOLONG;
    snprintf(partial, sizeof partial, "%s.partial", name);
    int err = write_new(os, partial, text);
    if (err == 0)
        err = os->rename(os, partial, name);
    if (err == 0)
        return os->sync_dir(os, dirname(partial));
    (void)os->unlink(os, partial);
    return err;
}

/* What is no file (a pipe, a terminal) is written to as it is. */
static int write_definitions(const json_t *json, const char *path)
{
    json_free_t json_free;
    if (os_is_special(path))
        return json_dump_file(json, path, JSON_INDENT(2)) < 0 ? -EIO : 0;
    char *text = json_dumps(json, JSON_INDENT(2));
    int err = text ? replace_file(path, slice_str(text)) : -ENOMEM;
    json_get_alloc_funcs(NULL, &json_free);
    json_free(text);
    return err;
}

static int definitions_save(struct admin_call *call, const char *const *words, unsigned count)
{
    char why[600] = "";
    json_t *json = definitions_export(ask_for_import, call, why, sizeof why);
    if (!json) {
        cli_complain("%s", why);
        return END_FAILED;
    }
    int err = 0;
    if (count == 0)
        err = json_dumpf(json, stdout, JSON_INDENT(2)) < 0 ? -EIO : putchar('\n') == EOF ? -EIO : 0;
    else
        err = write_definitions(json, words[0]);
    json_decref(json);
    if (err < 0)
        cli_complain("%s cannot be written: %s", count ? words[0] : "standard output", strerror(-err));
    return err < 0 ? END_FAILED : END_OK;
}

/* ---- lists ---- */

static void cell_text(const json_t *value, char *ret, size_t len)
{
    if (json_is_string(value)) {
        snprintf(ret, len, "%s", json_string_value(value));
        return;
    }
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    snprintf(ret, len, "%s", text ? text : "");
    json_free_t json_free;
    json_get_alloc_funcs(NULL, &json_free);
    json_free(text);
}

#define COLUMNS_MAX 12

struct column {
    char name[32];
    size_t width;
};

static unsigned split_columns(const char *columns, struct column *ret)
{
    unsigned count = 0;
    while (*columns && count < COLUMNS_MAX) {
        size_t len = strcspn(columns, " ");
        snprintf(ret[count].name, sizeof ret[count].name, "%.*s", (int)len, columns);
        ret[count++].width = len;
        columns += len + (columns[len] == ' ');
    }
    return count;
}

static void print_table(const json_t *rows, const char *columns)
{
    struct column column[COLUMNS_MAX];
    unsigned count = split_columns(columns, column);
    char text[512];
    size_t i;
    json_t *row;
    json_array_foreach((json_t *)(uintptr_t)rows, i, row) for (unsigned c = 0; c < count; c++)
    {
        cell_text(json_object_get(row, column[c].name), text, sizeof text);
        column[c].width = strlen(text) > column[c].width ? strlen(text) : column[c].width;
    }
    for (unsigned c = 0; c < count; c++)
        printf("%-*s%s", c + 1 < count ? (int)column[c].width : 0, column[c].name, c + 1 < count ? "  " : "\n");
    json_array_foreach((json_t *)(uintptr_t)rows, i, row) for (unsigned c = 0; c < count; c++)
    {
        cell_text(json_object_get(row, column[c].name), text, sizeof text);
        printf("%-*s%s", c + 1 < count ? (int)column[c].width : 0, text, c + 1 < count ? "  " : "\n");
    }
}

/* One object, a line per member. */
static void print_pairs(const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        char text[512];
        cell_text(value, text, sizeof text);
        printf("%-18s  %s\n", key, text);
    }
}

/* The definitions carry them; a list on a screen does not. */
static void hide_verifiers(json_t *rows)
{
    for (size_t i = 0; i < json_array_size(rows); i++)
        json_object_del(json_array_get(rows, i), "verifier");
}

static int list_rows(struct admin_call *call, const struct verb_row *verb, const char *const *words, unsigned count)
{
    const char *vhost = call->line->vhost ? call->line->vhost : "";
    const char *flag = call->line->operator_policy ? "internal" : "";
    json_t *response = ask(call, json_pack("{s:s, s:s, s:s, s:[s]}", "op", verb->op, "name", count ? words[0] : "",
                                           "other", vhost, "flags", flag));
    if (!response)
        return END_FAILED;
    json_t *rows = json_object_get(response, "rows");
    if (strcmp(verb->op, "USER_LIST") == 0)
        hide_verifiers(rows);
    if (call->line->json) {
        json_dumpf(rows, stdout, JSON_INDENT(2));
        putchar('\n');
    } else if (*verb->columns) {
        print_table(rows, verb->columns);
    } else {
        print_pairs(json_array_get(rows, 0));
    }
    json_decref(response);
    return END_OK;
}

/* ---- the table ---- */

static const struct verb_row verbs[] = {
    {"user", "add", 1, 2, "NAME [PASSWORD]", user_add, NULL, NULL},
    {"user", "delete", 1, 1, "NAME", user_delete, NULL, NULL},
    {"user", "password", 1, 2, "NAME [PASSWORD]", user_password, NULL, NULL},
    {"user", "tags", 1, 2, "NAME [A,B]", user_tags, NULL, NULL},
    {"user", "list", 0, 0, "", NULL, "USER_LIST", "name tags"},
    {"vhost", "add", 1, 1, "NAME", vhost_add, NULL, NULL},
    {"vhost", "delete", 1, 1, "NAME", vhost_delete, NULL, NULL},
    {"vhost", "list", 0, 0, "", NULL, "VHOST_LIST", "name default_queue_type"},
    {"permission", "set", 4, 4, "USER CONFIGURE WRITE READ", permission_set, NULL, NULL},
    {"permission", "clear", 1, 1, "USER", permission_clear, NULL, NULL},
    {"permission", "list", 0, 1, "[USER]", NULL, "PERMISSION_LIST", "user vhost configure write read"},
    {"policy", "set", 3, 3, "NAME PATTERN DEFINITION", policy_set, NULL, NULL},
    {"policy", "clear", 1, 1, "NAME", policy_clear, NULL, NULL},
    {"policy", "list", 0, 0, "", NULL, "POLICY_LIST", "vhost name pattern apply-to priority definition"},
    {"definitions", "import", 1, 1, "FILE", definitions_import, NULL, NULL},
    {"definitions", "export", 0, 1, "[FILE]", definitions_save, NULL, NULL},
    {"list", "queues", 0, 0, "", NULL, "QUEUE_LIST", "vhost name type durable messages consumers arguments"},
    {"list", "exchanges", 0, 0, "", NULL, "EXCHANGE_LIST", "vhost name type durable arguments"},
    {"list", "bindings", 0, 0, "", NULL, "BINDING_LIST",
     "vhost source destination_type destination routing_key arguments"},
    {"list", "connections", 0, 0, "", NULL, "SESSION_LIST", "id user vhost peer protocol channels blocked"},
    {"list", "consumers", 0, 0, "", NULL, "CONSUMER_LIST",
     "vhost queue consumer_tag peer channel ack_required prefetch_count unacked"},
    {"list", "clients", 0, 0, "", NULL, "MQTT_CLIENT_LIST",
     "vhost client_id user connected peer expiry_s subscriptions messages will"},
    {"list", "statements", 0, 0, "", NULL, "SQL_LIST", "vhost name owner state steps reason"},
    {"list", "totals", 0, 0, "", NULL, "TOTALS", ""},
    {"status", "show", 0, 0, "", NULL, "status", ""},
    {"alarm", "raise", 1, 2, "memory|disk|memory-hard|disk-hard ...", alarm_raise, NULL, NULL},
    {"alarm", "clear", 0, 0, "", alarm_raise, NULL, NULL},
    {"connection", "close", 1, 2, "ID [REASON]", connection_close, NULL, NULL},
    {"compact", "now", 0, 0, "", compact, NULL, NULL},
    {"reload", "now", 0, 0, "", reload, NULL, NULL},
};

static const struct verb_row *verb_find(const char *command, const char *verb)
{
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (strcmp(verbs[i].command, command) == 0 && strcmp(verbs[i].verb, verb) == 0)
            return &verbs[i];
    return NULL;
}

/* What is wrong with the words, and what they may be. */
static void print_usage(const struct cli_line *line, const struct verb_row *verb)
{
    if (verb)
        cli_complain("%s %s takes other arguments", line->command, verb->verb);
    else if (line->word_count)
        cli_complain("there is no %s %s", line->command, line->words[0]);
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
        if (verb ? verb == &verbs[i] : strcmp(verbs[i].command, line->command) == 0)
            cli_complain("usage: millrace %s %s%s%s", line->command, verbs[i].verb, *verbs[i].usage ? " " : "",
                         verbs[i].usage);
}

static int run_verb(struct admin_call *call, const struct verb_row *verb)
{
    int err = control_client_open(&call->client, call->dir);
    if (err < 0) {
        cli_complain(err == -ENOENT || err == -ECONNREFUSED
                         ? "no broker is running on %s: start one with millrace serve --data %s"
                         : "the broker on %s cannot be reached (%s)",
                     call->dir, err == -ENOENT || err == -ECONNREFUSED ? call->dir : strerror(-err));
        return END_NO_BROKER;
    }
    const char *const *words = call->line->words + 1;
    unsigned count = call->line->word_count - 1;
    int code = verb->run ? verb->run(call, words, count) : list_rows(call, verb, words, count);
    control_client_close(&call->client);
    return code;
}

int cli_admin(int argc, char **argv)
{
    struct cli_line line;
    struct config config;
    char usage[600] = "";
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        size_t len = strlen(usage);
        if (strcmp(verbs[i].command, argv[0]) == 0)
            snprintf(usage + len, sizeof usage - len, "%s%s%s%s", len ? "\n" : "", verbs[i].verb,
                     *verbs[i].usage ? " " : "", verbs[i].usage);
    }
    cli_line_parse(&line, usage, "Looks after a running broker through the control socket in its data folder.", argc,
                   argv);
    if (line.word_count == 0 && (strcmp(line.command, "compact") == 0 || strcmp(line.command, "reload") == 0))
        line.words[line.word_count++] = "now";
    if (line.word_count == 0 && strcmp(line.command, "status") == 0)
        line.words[line.word_count++] = "show";
    const struct verb_row *verb = line.word_count ? verb_find(line.command, line.words[0]) : NULL;
    int code = END_USAGE;
    if (!verb || line.word_count - 1 < verb->words_min || line.word_count - 1 > verb->words_max)
        print_usage(&line, verb);
    else if ((code = cli_config_load(&line, &config)) == END_OK) {
        struct admin_call call = {.line = &line, .dir = config.data};
        code = run_verb(&call, verb);
        config_free(&config);
    }
    cli_line_free(&line);
    return code;
}
