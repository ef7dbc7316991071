/* Fuzz target of the JSON scanner, against jansson.
 * fuzz: -max_len=4096
 * covers: src/fmt/json_scan.c
 *
 * Up to the first zero byte the input is paths, separated by commas, their steps by dots (#3 is a position); what follows are
 * texts with zero bytes between them, read by one scanner one after the other, as the records of a stream are. Each must be accepted or
 * refused as jansson does it, and every wanted value must be what a walk of jansson's tree finds. Known differences: jansson refuses
 * numbers that fit neither an int64_t nor a double and names with \u0000, and has a depth limit of its own; we refuse numbers of more than
 * JSON_SCAN_NUMBER_MAX characters.
 */
#include "base/check.h"
#include "base/mem.h"
#include "fmt/json_scan.h"

#include <jansson.h>

#define PATHS 16u
#define STEPS 4u

struct path {
    struct json_step steps[STEPS];
    unsigned count;
    int slot;
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static struct slice until(struct slice *rest, uint8_t end)
{
    const uint8_t *at = rest->len ? memchr(rest->ptr, end, rest->len) : NULL;
    struct slice part = slice_of(rest->ptr, at ? (size_t)(at - rest->ptr) : rest->len);
    size_t past = part.len + (at != NULL);
    *rest = slice_of(rest->len ? rest->ptr + past : NULL, rest->len - past);
    return part;
}

static void want(struct json_scan *scan, struct path *path, struct slice text)
{
    path->count = 0;
    while (text.len && path->count < STEPS) {
        struct slice step = until(&text, '.');
        struct json_step *to = &path->steps[path->count++];
        *to = (struct json_step){.key = step};
        if (step.len && step.ptr[0] == '#')
            *to = (struct json_step){.index = step.len > 1 ? step.ptr[1] % 8u : 0};
    }
    path->slot = json_scan_want(scan, path->steps, path->count);
    CHECK(path->slot >= 0);
}

static const json_t *walk(const json_t *node, const struct path *path)
{
    for (unsigned i = 0; i < path->count && node; i++) {
        const struct json_step *step = &path->steps[i];
        if (step->key.ptr) {
            char *key = mem_slicedup(step->key);
            node = strlen(key) == step->key.len ? json_object_get(node, key) : NULL;
            mem_free(key);
        } else {
            node = json_array_get(node, step->index);
        }
    }
    return node;
}

static void compare_text(const struct json_view *view, const json_t *expected)
{
    uint8_t *text = mem_alloc(view->len + 1);
    size_t len = json_view_text(view, text);
    CHECK(len == json_string_length(expected) && memcmp(text, json_string_value(expected), len) == 0);
    CHECK(json_view_is(view, slice_of(text, len)));
    mem_free(text);
}

static void compare(const struct json_view *view, const json_t *expected)
{
    double real;
    if (!expected) {
        CHECK(view->kind == JSON_VIEW_ABSENT);
        return;
    }
    switch (json_typeof(expected)) {
    case JSON_NULL: CHECK(view->kind == JSON_VIEW_NULL); break;
    case JSON_TRUE: CHECK(view->kind == JSON_VIEW_TRUE); break;
    case JSON_FALSE: CHECK(view->kind == JSON_VIEW_FALSE); break;
    case JSON_INTEGER: CHECK(view->kind == JSON_VIEW_INT && view->number == json_integer_value(expected)); break;
    case JSON_REAL:
        CHECK(view->kind == JSON_VIEW_NUMBER && json_view_double(view, &real) && real == json_real_value(expected));
        break;
    case JSON_STRING:
        CHECK(view->kind == JSON_VIEW_STRING);
        compare_text(view, expected);
        break;
    case JSON_OBJECT:
    case JSON_ARRAY: {
        CHECK(view->kind == (json_is_object(expected) ? JSON_VIEW_OBJECT : JSON_VIEW_ARRAY));
        json_t *again = json_loadb((const char *)view->at, view->len, JSON_ALLOW_NUL, NULL);
        CHECK(again && json_equal(again, expected));
        json_decref(again);
        break;
    }
    }
}

/* The walk over items must meet what jansson holds, the last of each name. */
static void compare_items(const struct json_view *view, const json_t *expected)
{
    struct json_items items = json_items_of(view);
    struct json_view name, value, again;
    size_t count = 0;
    while (json_items_next(&items, &name, &value)) {
        if (json_is_array(expected)) {
            compare(&value, json_array_get(expected, count));
            CHECK(json_view_element(view, (int64_t)count, &again) && again.at == value.at);
        } else {
            uint8_t *text = mem_alloc(name.len + 1);
            size_t len = json_view_text(&name, text);
            text[len] = 0;
            CHECK(json_view_member(view, slice_of(text, len), &again));
            compare(&again, json_object_get(expected, (const char *)text));
            mem_free(text);
        }
        count++;
    }
    CHECK(json_is_array(expected) ? count == json_array_size(expected) : count >= json_object_size(expected));
}

static bool known_difference(const struct json_fault *fault, enum json_error_code code)
{
    if (code == json_error_numeric_overflow || code == json_error_null_byte_in_key || code == json_error_stack_overflow)
        return true;
    return fault->why && (strstr(fault->why, "too many digits") || strstr(fault->why, "too deeply"));
}

static void read_text(struct json_scan *scan, const struct path *paths, unsigned count, struct slice text)
{
    uint8_t *copy =
        mem_alloc(text.len + !text.len); /* a block of its own, so that the sanitizer sees a byte too many */
    struct json_view views[PATHS + 1], whole;
    struct json_fault fault = {0}, fault_again = {0};
    json_error_t error;
    if (text.len)
        memcpy(copy, text.ptr, text.len);
    text = slice_of(copy, text.len);
    json_t *tree = json_loadb(text.len ? (const char *)copy : "", text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    bool ok = json_scan_read(scan, text, views, &fault);
    CHECK(json_view_of(text, &whole, &fault_again) == ok);
    CHECK(ok || (fault.why && fault.at <= text.len && fault.at == fault_again.at));
    if (ok != (tree != NULL))
        CHECK(known_difference(&fault, tree ? json_error_unknown : json_error_code(&error)));
    for (unsigned i = 0; i < count && ok && tree; i++)
        compare(&views[paths[i].slot], walk(tree, &paths[i]));
    if (ok && tree && (json_is_object(tree) || json_is_array(tree)))
        compare_items(&whole, tree);
    json_decref(tree);
    mem_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct slice rest = slice_of(bytes, len), wanted = until(&rest, 0);
    struct json_scan *scan = json_scan_new();
    struct path paths[PATHS];
    unsigned count = 0;
    while (wanted.len && count < PATHS)
        want(scan, &paths[count++], until(&wanted, ','));
    do
        read_text(scan, paths, count, until(&rest, 0));
    while (rest.len);
    json_scan_free(&scan);
    return 0;
}
