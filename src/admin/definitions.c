/* Definitions, see definitions.h. One thread, no I/O but reading the file.
 *
 * One table of sections in the order of import (users before permissions, exchanges before bindings): each row has the
 * function that turns an entry into a request, or none for what we only note. Everything is checked before the first
 * request leaves, so a damaged file changes nothing; what the core then refuses is named by its entry.
 * Only the last request waits for the disk: when it is durable, so is everything before it. */
#include "admin/definitions.h"

#include "base/mem.h"
#include "core/broker.h"
#include "fmt/password.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct definitions {
    json_t *requests; /* array of {"request": …, "what": …} */
    size_t next;
    void (*note)(void *arg, const char *text);
    void *note_arg;
    char *why;
    size_t why_len;
};

/* Where in the file we are, for messages. */
struct place {
    struct definitions *definitions;
    const char *section;
    size_t index;
    const json_t *entry;
};

struct section_row {
    const char *name;
    json_t *(*request)(const struct place *place); /* NULL after refuse; json_null: left out */
};

__attribute__((format(printf, 2, 3))) static json_t *refuse(const struct place *place, const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *name = json_string_value(json_object_get(place->entry, "name"));
    snprintf(place->definitions->why, place->definitions->why_len, "definitions: %s[%zu]%s%s%s: %s", place->section,
             place->index, name ? " (" : "", name ? name : "", name ? ")" : "", text);
    return NULL;
}

__attribute__((format(printf, 2, 3))) static void remark(const struct place *place, const char *format, ...)
{
    char text[400];
    const char *name = json_string_value(json_object_get(place->entry, "name"));
    int len =
        snprintf(text, sizeof text, "%s[%zu]%s%.200s", place->section, place->index, name ? " " : "", name ? name : "");
    va_list args;
    va_start(args, format);
    vsnprintf(text + len, sizeof text - (size_t)len, format, args);
    va_end(args);
    if (place->definitions->note)
        place->definitions->note(place->definitions->note_arg, text);
}

static json_t *leave_out(const struct place *place, const char *reason)
{
    remark(place, " left out: %s", reason);
    return json_null();
}

/* A text of the entry, or the preset; NULL when it is missing and there is no preset. */
static const char *text_of(const struct place *place, const char *key, const char *preset)
{
    const json_t *value = json_object_get(place->entry, key);
    return json_is_string(value) ? json_string_value(value) : preset;
}

static bool has_texts(const struct place *place, const char *const *keys, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!json_is_string(json_object_get(place->entry, keys[i]))) {
            refuse(place, "%s is missing or no text", keys[i]);
            return false;
        }
    return true;
}

#define NEED(place, ...)                                                                                               \
    has_texts(place, (const char *const[]){__VA_ARGS__},                                                               \
              sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static json_t *flags_of(const struct place *place)
{
    static const char *const names[] = {"durable", "auto_delete", "internal"};
    json_t *flags = json_array();
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (json_is_true(json_object_get(place->entry, names[i])))
            json_array_append_new(flags, json_string(names[i]));
    return flags;
}

/* An object of the entry, or an empty one. A new reference. */
static json_t *object_of(const struct place *place, const char *key)
{
    json_t *value = json_object_get(place->entry, key);
    return json_is_object(value) ? json_incref(value) : json_object();
}

/* ---- entries ---- */

/* "administrator,monitoring", or a list of texts. */
static void join_tags(const json_t *tags, char *ret, size_t len)
{
    ret[0] = '\0';
    if (json_is_string(tags))
        snprintf(ret, len, "%s", json_string_value(tags));
    for (size_t i = 0; i < json_array_size(tags); i++) {
        size_t used = strlen(ret);
        const char *tag = json_string_value(json_array_get(tags, i));
        snprintf(ret + used, len - used, "%s%s", used ? "," : "", tag ? tag : "");
    }
}

static bool verifier_of(const struct place *place, char ret[PASSWORD_VERIFIER_MAX])
{
    const char *hash = text_of(place, "password_hash", "");
    const char *algorithm = text_of(place, "hashing_algorithm", "rabbit_password_hashing_sha256");
    ret[0] = '\0';
    if (*hash == '\0') /* a user that nobody can log in as, as in RabbitMQ */
        return true;
    if (password_valid(slice_str(hash)) && strlen(hash) < PASSWORD_VERIFIER_MAX) { /* exported by us */
        memcpy(ret, hash, strlen(hash) + 1);
        return true;
    }
    return password_from_rabbit(slice_str(hash), slice_str(algorithm), ret);
}

static json_t *user(const struct place *place)
{
    char tags[512], verifier[PASSWORD_VERIFIER_MAX];
    if (!NEED(place, "name"))
        return NULL;
    if (!verifier_of(place, verifier))
        return refuse(place, "password_hash is damaged, or its hashing_algorithm is unknown");
    join_tags(json_object_get(place->entry, "tags"), tags, sizeof tags);
    return json_pack("{s:s, s:s, s:s, s:s}", "op", "USER_PUT", "name", text_of(place, "name", ""), "other", verifier,
                     "key", tags);
}

static json_t *vhost(const struct place *place)
{
    if (!NEED(place, "name"))
        return NULL;
    const json_t *metadata = json_object_get(place->entry, "metadata");
    const char *type = json_string_value(json_object_get(metadata, "default_queue_type"));
    type = text_of(place, "default_queue_type", type ? type : "");
    if (strcmp(type, "undefined") == 0)
        type = "";
    return json_pack("{s:s, s:s, s:s}", "op", "VHOST_PUT", "name", text_of(place, "name", ""), "other", type);
}

static json_t *permission(const struct place *place)
{
    if (!NEED(place, "user", "configure", "write", "read"))
        return NULL;
    return json_pack("{s:s, s:s, s:s, s:{s:s, s:s, s:s}}", "op", "PERMISSION_PUT", "name", text_of(place, "user", ""),
                     "other", text_of(place, "vhost", "/"), "args", "configure", text_of(place, "configure", ""),
                     "write", text_of(place, "write", ""), "read", text_of(place, "read", ""));
}

static json_t *topic_permission(const struct place *place)
{
    if (!NEED(place, "user", "exchange", "write", "read"))
        return NULL;
    return json_pack("{s:s, s:s, s:s, s:{s:s, s:s, s:s}}", "op", "TOPIC_PERMISSION_PUT", "name",
                     text_of(place, "user", ""), "other", text_of(place, "vhost", "/"), "args", "exchange",
                     text_of(place, "exchange", ""), "write", text_of(place, "write", ""), "read",
                     text_of(place, "read", ""));
}

static json_t *policy_request(const struct place *place, const char *name, const json_t *body, const char *flag)
{
    const char *pattern = json_string_value(json_object_get(body, "pattern"));
    const char *apply_to = json_string_value(json_object_get(body, "apply-to"));
    json_t *definition = json_object_get(body, "definition"), *value;
    const char *key;
    char text[200];
    if (!pattern || !json_is_object(definition))
        return refuse(place, "pattern or definition is missing");
    json_object_foreach(definition, key, value)
    {
        enum policy_key is = policy_key_of(slice_str(key), text, sizeof text);
        if (is == POLICY_KEY_UNKNOWN)
            return refuse(place, "%s", text);
        if (is == POLICY_KEY_IGNORED)
            remark(place, ": its setting '%s' has no meaning here", key);
    }
    return json_pack("{s:s, s:s, s:s, s:[s], s:{s:s, s:s, s:I, s:O}}", "op", "POLICY_PUT", "name", name, "other",
                     text_of(place, "vhost", "/"), "flags", flag, "args", "pattern", pattern, "apply-to",
                     apply_to ? apply_to : "all", "priority",
                     (json_int_t)json_integer_value(json_object_get(body, "priority")), "definition", definition);
}

static json_t *policy(const struct place *place)
{
    if (!NEED(place, "name"))
        return NULL;
    return policy_request(place, text_of(place, "name", ""), place->entry, "");
}

/* Operator policies travel among the parameters; other components are those of plug-ins. */
static json_t *parameter(const struct place *place)
{
    if (!NEED(place, "component", "name"))
        return NULL;
    const char *component = text_of(place, "component", "");
    if (strcmp(component, "operator_policy") != 0)
        return leave_out(place, "parameters of plug-ins have no meaning here");
    return policy_request(place, text_of(place, "name", ""), json_object_get(place->entry, "value"), "internal");
}

static json_t *global_parameter(const struct place *place)
{
    const char *name = text_of(place, "name", "");
    if (strcmp(name, "internal_cluster_id") == 0 || strcmp(name, "cluster_name") == 0 ||
        strcmp(name, "cluster_tags") == 0)
        return json_null();
    return leave_out(place, "global parameters have no meaning here");
}

static json_t *exchange(const struct place *place)
{
    if (!NEED(place, "name", "type"))
        return NULL;
    const char *name = text_of(place, "name", "");
    if (*name == '\0' || strncmp(name, "amq.", 4) == 0)
        return json_null(); /* every vhost has them */
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o}", "op", "EXCHANGE_PUT", "name", name, "other",
                     text_of(place, "vhost", "/"), "key", text_of(place, "type", ""), "flags", flags_of(place), "args",
                     object_of(place, "arguments"));
}

static json_t *queue(const struct place *place)
{
    if (!NEED(place, "name"))
        return NULL;
    return json_pack("{s:s, s:s, s:s, s:o, s:o}", "op", "QUEUE_PUT", "name", text_of(place, "name", ""), "other",
                     text_of(place, "vhost", "/"), "flags", flags_of(place), "args", object_of(place, "arguments"));
}

static json_t *binding(const struct place *place)
{
    if (!NEED(place, "source", "destination", "destination_type", "routing_key"))
        return NULL;
    const char *type = text_of(place, "destination_type", "");
    if (strcmp(type, "queue") != 0 && strcmp(type, "exchange") != 0)
        return refuse(place, "destination_type %s is neither queue nor exchange", type);
    if (*text_of(place, "source", "") == '\0')
        return json_null(); /* every queue is bound to the default exchange */
    return json_pack("{s:s, s:s, s:s, s:s, s:{s:s, s:s, s:o}}", "op", "BINDING_PUT", "name",
                     text_of(place, "destination", ""), "other", text_of(place, "vhost", "/"), "key",
                     text_of(place, "routing_key", ""), "args", "source", text_of(place, "source", ""),
                     "destination_type", type, "arguments", object_of(place, "arguments"));
}

/* In the order of import. */
static const struct section_row sections[] = {
    {"users", user},
    {"vhosts", vhost},
    {"permissions", permission},
    {"exchanges", exchange},
    {"topic_permissions", topic_permission},
    {"global_parameters", global_parameter},
    {"policies", policy},
    {"parameters", parameter},
    {"queues", queue},
    {"bindings", binding},
};

/* ---- whole files ---- */

int definitions_load(struct os *os, const char *file, json_t **ret, char *why, size_t why_len)
{
    int fd, err = os->open(os, file, OS_READ, &fd);
    if (err < 0) {
        snprintf(why, why_len, "cannot read the definitions %s: %s", file, strerror(-err));
        return err;
    }
    uint64_t size = 0;
    err = os->size(os, fd, &size);
    char *text = err == 0 && size <= DEFINITIONS_BYTES_MAX ? mem_alloc(size + 1) : NULL;
    int64_t len = text ? os->pread(os, fd, text, size, 0) : err < 0 ? err : -ENOMEM;
    os->close(os, fd);
    json_error_t error = {.text = ""};
    *ret = len >= 0 ? json_loadb(text, (size_t)len, 0, &error) : NULL;
    mem_free(text);
    if (json_is_object(*ret))
        return 0;
    if (len < 0)
        snprintf(why, why_len, "cannot read the definitions %s: %s", file, strerror((int)-len));
    else
        snprintf(why, why_len, "%s:%d: %s", file, error.line > 0 ? error.line : 1,
                 *ret ? "definitions are one JSON object" : error.text);
    json_decref(*ret);
    *ret = NULL;
    return len < 0 ? (int)len : -EINVAL;
}

static bool add_request(struct definitions *definitions, const struct place *place, json_t *request)
{
    const char *name = text_of(place, "name", "");
    char what[400];
    snprintf(what, sizeof what, "%s[%zu]%s%s", place->section, place->index, *name ? " " : "", name);
    json_object_set_new(request, "lazy", json_true());
    json_t *entry = json_pack("{s:o, s:s}", "request", request, "what", what);
    return entry && json_array_append_new(definitions->requests, entry) == 0;
}

static bool take_section(struct definitions *definitions, const struct section_row *row, const json_t *list)
{
    struct place place = {.definitions = definitions, .section = row->name};
    if (list && !json_is_array(list)) {
        snprintf(definitions->why, definitions->why_len, "definitions: %s is not a list", row->name);
        return false;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        place.index = i;
        place.entry = json_array_get(list, i);
        json_t *request = json_is_object(place.entry) ? row->request(&place) : refuse(&place, "not an object");
        if (!request) {
            if (definitions->why[0] == '\0')
                refuse(&place, "a text in it is not valid");
            return false;
        }
        if (!json_is_null(request) && !add_request(definitions, &place, request))
            return false;
    }
    return true;
}

struct definitions *definitions_new(const json_t *json, void (*note)(void *arg, const char *text), void *arg, char *why,
                                    size_t why_len)
{
    why[0] = '\0';
    struct definitions *definitions = mem_zalloc(sizeof *definitions);
    if (!definitions)
        return NULL;
    *definitions =
        (struct definitions){.requests = json_array(), .note = note, .note_arg = arg, .why = why, .why_len = why_len};
    for (size_t i = 0; i < ARRAY_LEN(sections); i++)
        if (!take_section(definitions, &sections[i], json_object_get(json, sections[i].name))) {
            definitions_free(&definitions);
            return NULL;
        }
    size_t count = json_array_size(definitions->requests);
    if (count)
        json_object_del(json_object_get(json_array_get(definitions->requests, count - 1), "request"), "lazy");
    definitions->why = NULL;
    return definitions;
}

void definitions_free(struct definitions **definitions)
{
    if (!*definitions)
        return;
    json_decref((*definitions)->requests);
    mem_free(*definitions);
    *definitions = NULL;
}

size_t definitions_count(const struct definitions *definitions)
{
    return json_array_size(definitions->requests);
}

const json_t *definitions_next(struct definitions *definitions)
{
    if (definitions->next >= json_array_size(definitions->requests))
        return NULL;
    return json_object_get(json_array_get(definitions->requests, definitions->next++), "request");
}

const char *definitions_what(const struct definitions *definitions)
{
    if (definitions->next == 0)
        return "";
    return json_string_value(json_object_get(json_array_get(definitions->requests, definitions->next - 1), "what"));
}

int definitions_apply(struct definitions *definitions, json_t *(*ask)(void *arg, json_t *request), void *arg, char *why,
                      size_t why_len)
{
    const json_t *request;
    while ((request = definitions_next(definitions))) {
        json_t *response = ask(arg, json_incref((json_t *)(uintptr_t)request));
        bool ok = json_is_true(json_object_get(response, "ok"));
        const char *text = json_string_value(json_object_get(response, "text"));
        if (!ok)
            snprintf(why, why_len, "definitions: %s: %s", definitions_what(definitions),
                     !response ? "the broker went away"
                     : text    ? text
                               : "refused");
        json_decref(response);
        if (!ok)
            return response ? -EINVAL : -EPIPE;
    }
    return 0;
}

/* ---- export ---- */

static json_t *rows_of(json_t *(*ask)(void *arg, json_t *request), void *arg, const char *op, const char *flag,
                       char *why, size_t why_len)
{
    json_t *response = ask(arg, json_pack("{s:s, s:[s]}", "op", op, "flags", flag));
    json_t *rows =
        json_is_true(json_object_get(response, "ok")) ? json_incref(json_object_get(response, "rows")) : NULL;
    const char *text = json_string_value(json_object_get(response, "text"));
    if (!rows)
        snprintf(why, why_len, "%s: %s", op, text ? text : "the broker went away");
    json_decref(response);
    return rows;
}

/* Listings carry texts; definitions want booleans and numbers. */
static json_t *typed(const json_t *value, char type)
{
    const char *text = json_string_value(value);
    if (type == 'b')
        return json_boolean(json_is_true(value) || (text && (strcmp(text, "true") == 0 || strcmp(text, "1") == 0)));
    if (type == 'i' && text)
        return json_integer((json_int_t)strtoll(text, NULL, 10));
    if (type == 'o' && !json_is_object(value))
        return json_object();
    return value ? json_incref((json_t *)(uintptr_t)value) : json_string("");
}

struct export_row {
    const char *section, *op, *flag;
    const char *fields; /* "key:type", separated by spaces; types: s text, b boolean, i number, o object */
};

static const struct export_row exports[] = {
    {"users", "USER_LIST", "", "name:s tags:s verifier:s"},
    {"vhosts", "VHOST_LIST", "", "name:s default_queue_type:s"},
    {"permissions", "PERMISSION_LIST", "", "user:s vhost:s configure:s write:s read:s"},
    {"topic_permissions", "TOPIC_PERMISSION_LIST", "", "user:s vhost:s exchange:s write:s read:s"},
    {"policies", "POLICY_LIST", "", "vhost:s name:s pattern:s apply-to:s definition:o priority:i"},
    {"queues", "QUEUE_LIST", "", "name:s vhost:s durable:b auto_delete:b arguments:o"},
    {"exchanges", "EXCHANGE_LIST", "", "name:s vhost:s type:s durable:b auto_delete:b internal:b arguments:o"},
    {"bindings", "BINDING_LIST", "", "source:s vhost:s destination:s destination_type:s routing_key:s arguments:o"},
};

static json_t *export_entry(const json_t *row, const char *fields)
{
    json_t *entry = json_object();
    while (*fields) {
        char key[40];
        size_t len = strcspn(fields, ":");
        snprintf(key, sizeof key, "%.*s", (int)len, fields);
        json_object_set_new(entry, key, typed(json_object_get(row, key), fields[len + 1]));
        fields += len + 2;
        fields += *fields == ' ';
    }
    return entry;
}

static bool says(const json_t *row, const char *key)
{
    json_t *value = typed(json_object_get(row, key), 'b');
    bool is = json_is_true(value);
    json_decref(value);
    return is;
}

/* What every vhost has, what dies with its connection, and what is not durable does not belong into definitions, nor do the
 * queues that MQTT's sessions and share groups have: they come and go with these. */
static bool exportable(const struct export_row *export, const json_t *row)
{
    const char *name = json_string_value(json_object_get(row, "name"));
    const char *source = json_string_value(json_object_get(row, "source"));
    if (strcmp(export->section, "exchanges") == 0)
        return name && *name && strncmp(name, "amq.", 4) != 0;
    if (strcmp(export->section, "bindings") == 0)
        return source && *source && !says(row, "mqtt");
    if (strcmp(export->section, "queues") == 0)
        return !says(row, "exclusive") && !says(row, "mqtt");
    return true;
}

/* RabbitMQ's own hashes leave in RabbitMQ's form, ours as they are, under an algorithm that RabbitMQ refuses by name. */
static void export_password(json_t *user)
{
    json_t *verifier = json_incref(json_object_get(user, "verifier"));
    const char *text = json_is_string(verifier) ? json_string_value(verifier) : "";
    const char *dollar = strncmp(text, "rabbit_password_hashing_", 24) == 0 ? strchr(text, '$') : NULL;
    json_object_del(user, "verifier");
    json_object_set_new(user, "password_hash", json_string(dollar ? dollar + 1 : text));
    json_object_set_new(user, "hashing_algorithm",
                        dollar ? json_stringn(text, (size_t)(dollar - text)) : json_string("scram_sha256"));
    json_decref(verifier);
}

static json_t *export_section(const struct export_row *export, const json_t *rows)
{
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(rows); i++) {
        if (!exportable(export, json_array_get(rows, i)))
            continue;
        json_t *entry = export_entry(json_array_get(rows, i), export->fields);
        if (json_object_get(entry, "verifier"))
            export_password(entry);
        json_array_append_new(list, entry);
    }
    return list;
}

static json_t *operator_policies(const json_t *rows)
{
    json_t *list = json_array();
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        json_t *value = export_entry(row, "pattern:s apply-to:s definition:o priority:i");
        json_array_append_new(list,
                              json_pack("{s:O, s:O, s:s, s:o}", "vhost", json_object_get(row, "vhost"), "name",
                                        json_object_get(row, "name"), "component", "operator_policy", "value", value));
    }
    return list;
}

json_t *definitions_export(json_t *(*ask)(void *arg, json_t *request), void *arg, char *why, size_t why_len)
{
    json_t *json = json_pack("{s:s, s:s, s:s, s:[]}", "rabbitmq_definition_format", "cluster", "product_name",
                             "Millrace", "product_version", MILLRACE_VERSION, "global_parameters");
    for (size_t i = 0; i < ARRAY_LEN(exports) && json; i++) {
        json_t *rows = rows_of(ask, arg, exports[i].op, exports[i].flag, why, why_len);
        if (rows)
            json_object_set_new(json, exports[i].section, export_section(&exports[i], rows));
        else {
            json_decref(json);
            json = NULL;
        }
        json_decref(rows);
    }
    json_t *rows = json ? rows_of(ask, arg, "POLICY_LIST", "internal", why, why_len) : NULL;
    if (rows)
        json_object_set_new(json, "parameters", operator_policies(rows));
    json_decref(rows);
    return json;
}
