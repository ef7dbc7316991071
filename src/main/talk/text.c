/* Messages as text, see talk/text.h. Main thread. */
#include "main/talk/text.h"

#include "base/mem.h"
#include "base/utf8.h"
#include "fmt/base64.h"

#include <ctype.h>
#include <stdlib.h>

#define SHOWN_BYTES 256u /* of a body that is no text */

/* ---- printing ---- */

/* What a terminal would obey is not for whoever has published: controls, C1's too (U+0080 to U+009F), are shown as \xNN. */
static void put_shown(FILE *to, const char *text, bool lines)
{
    for (const uint8_t *at = (const uint8_t *)text; *at; at++) {
        bool pair = at[0] == 0xc2 && at[1] >= 0x80 && at[1] <= 0x9f;
        if (pair)
            fprintf(to, "\\x%02x", *++at);
        else if ((*at < ' ' && !(lines && *at == '\n')) || *at == 0x7f)
            fprintf(to, "\\x%02x", *at);
        else
            fputc(*at, to);
    }
}

static void put_json(FILE *to, const json_t *json, size_t flags)
{
    size_t len = json_dumpb(json, NULL, 0, flags);
    char *text = mem_alloc(len + 1);
    if (text)
        text[json_dumpb(json, text, len, flags)] = '\0';
    put_shown(to, text ? text : "(out of memory)", true);
    mem_free(text);
}

/* Names and values on the line in front of a body. */
static void print_about(FILE *to, const json_t *about, const char *before)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)about, key, value)
    {
        bool empty =
            (json_is_string(value) && !json_string_length(value)) || json_is_false(value) || json_is_null(value);
        if (json_is_object(value)) {
            print_about(to, value, strcmp(key, "headers") == 0 ? "headers." : before);
        } else if (json_is_true(value)) {
            fprintf(to, "  %s", before);
            put_shown(to, key, false);
        } else if (!empty) {
            fprintf(to, "  %s", before);
            put_shown(to, key, false);
            fputc('=', to);
            if (json_is_string(value))
                put_shown(to, json_string_value(value), false);
            else
                put_json(to, value, JSON_COMPACT | JSON_ENCODE_ANY);
        }
    }
}

static bool is_printable(struct slice body)
{
    for (size_t i = 0; i < body.len; i++)
        if ((body.ptr[i] < ' ' && !strchr("\t\r\n", body.ptr[i])) || body.ptr[i] == 0x7f || body.ptr[i] == 0 ||
            (i && body.ptr[i - 1] == 0xc2 && body.ptr[i] >= 0x80 && body.ptr[i] <= 0x9f))
            return false;
    return utf8_valid(body);
}

static json_t *as_json(struct slice body)
{
    return body.len && strchr("{[", body.ptr[0]) ? json_loadb((const char *)body.ptr, body.len, 0, NULL) : NULL;
}

static void print_body(FILE *to, struct slice body)
{
    json_t *json = as_json(body);
    if (json) {
        put_json(to, json, JSON_INDENT(2));
        json_decref(json);
    } else if (is_printable(body)) {
        fwrite(body.ptr, 1, body.len, to);
    } else {
        fprintf(to, "(%zu bytes that are no text)", body.len);
        for (size_t i = 0; i < body.len && i < SHOWN_BYTES; i++)
            fprintf(to, "%s%02x", i % 32 ? " " : "\n  ", body.ptr[i]);
        if (body.len > SHOWN_BYTES)
            fputs(" …", to);
    }
    fputc('\n', to);
}

static bool print_json(FILE *to, const struct talk_message *message)
{
    struct slice body = message->body;
    json_t *line = json_copy(message->about);
    json_t *payload = utf8_valid(body) ? json_stringn((const char *)body.ptr, body.len) : NULL;
    const char *encoding = "string";
    if (!payload) {
        char *text = mem_alloc(BASE64_LEN(body.len) + 1);
        if (text)
            base64_encode(body, text);
        payload = text ? json_string(text) : NULL;
        encoding = "base64";
        mem_free(text);
    }
    bool ok = line && payload && json_object_set_new(line, "payload", payload) == 0 &&
              json_object_set_new(line, "payload_encoding", json_string(encoding)) == 0 &&
              json_dumpf(line, to, JSON_COMPACT) == 0 && fputc('\n', to) != EOF;
    json_decref(line);
    return ok;
}

bool talk_print(FILE *to, enum talk_form form, const struct talk_message *message)
{
    switch (form) {
    case TALK_JSON: return print_json(to, message) && !ferror(to);
    case TALK_RAW:
        fwrite(message->body.ptr, 1, message->body.len, to);
        fputc('\n', to);
        break;
    case TALK_PRETTY:
        fputs("--", to);
        print_about(to, message->about, "");
        fputc('\n', to);
        print_body(to, message->body);
        break;
    }
    return !ferror(to);
}

/* ---- reading ---- */

static bool take_payload(const json_t *line, struct slice *ret, char **ret_body)
{
    const json_t *payload = json_object_get(line, "payload");
    const char *encoding = json_string_value(json_object_get(line, "payload_encoding"));
    bool base64 = encoding && strcmp(encoding, "base64") == 0;
    if (json_is_object(payload) || json_is_array(payload)) {
        size_t len = json_dumpb(payload, NULL, 0, JSON_COMPACT);
        *ret_body = mem_alloc(len + 1);
        if (*ret_body)
            *ret = slice_of(*ret_body, json_dumpb(payload, *ret_body, len, JSON_COMPACT));
        return *ret_body;
    }
    if ((payload && !json_is_string(payload)) || (encoding && !base64 && strcmp(encoding, "string") != 0))
        return false;
    struct slice text = slice_of(payload ? json_string_value(payload) : "", json_string_length(payload));
    *ret_body = mem_alloc(text.len + 1);
    if (!*ret_body)
        return false;
    int64_t len = base64 ? base64_decode(text, (uint8_t *)*ret_body, text.len + 1) : (int64_t)text.len;
    if (!base64)
        memcpy(*ret_body, text.ptr, text.len);
    *ret = slice_of(*ret_body, len < 0 ? 0 : (size_t)len);
    return len >= 0;
}

bool talk_parse(struct slice line, struct talk_message *ret, char **ret_body, char *why, size_t why_len)
{
    json_error_t error;
    json_t *json = json_loadb((const char *)line.ptr, line.len, JSON_ALLOW_NUL, &error);
    *ret_body = NULL;
    *ret = (struct talk_message){0};
    if (!json_is_object(json)) {
        snprintf(why, why_len, "%s", json ? "it is no JSON object" : error.text);
        json_decref(json);
        return false;
    }
    const json_t *properties = json_object_get(json, "properties");
    bool ok = (!properties || json_is_object(properties)) && take_payload(json, &ret->body, ret_body);
    if (ok) {
        json_object_del(json, "payload");
        json_object_del(json, "payload_encoding");
        ret->about = json;
        return true;
    }
    snprintf(why, why_len,
             "payload is a text, base64 if payload_encoding says so, an object or a list; properties are an object");
    mem_free(*ret_body);
    *ret_body = NULL;
    json_decref(json);
    return false;
}

bool talk_pair_set(json_t *object, const char *pair)
{
    size_t len = strcspn(pair, "=");
    bool json = len && pair[len] == '=' && pair[len - 1] == ':';
    char name[256];
    if (pair[len] != '=' || len - json == 0 || len - json >= sizeof name)
        return false;
    memcpy(name, pair, len - json);
    name[len - json] = '\0';
    json_t *value = json ? json_loads(pair + len + 1, JSON_DECODE_ANY, NULL) : json_string(pair + len + 1);
    return value && json_object_set_new(object, name, value) == 0;
}

bool talk_property_set(json_t *properties, const char *pair)
{
    static const char *const texts[] = {"content_type", "content_encoding", "correlation_id",
                                        "reply_to",     "expiration",       "message_id",
                                        "type",         "user_id",          "app_id"};
    static const char *const numbers[] = {"delivery_mode", "priority", "timestamp"};
    size_t len = strcspn(pair, "=");
    char name[64], *end;
    if (pair[len] != '=' || len >= sizeof name)
        return false;
    for (size_t i = 0; i < len; i++)
        name[i] = pair[i] == '-' ? '_' : (char)tolower((unsigned char)pair[i]);
    name[len] = '\0';
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        if (strcmp(name, texts[i]) == 0)
            return json_object_set_new(properties, name, json_string(pair + len + 1)) == 0;
    long long number = strtoll(pair + len + 1, &end, 10);
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (strcmp(name, numbers[i]) == 0 && end != pair + len + 1 && *end == '\0' && number >= 0)
            return json_object_set_new(properties, name, json_integer(number)) == 0;
    return false;
}
