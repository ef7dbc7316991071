/* Lines of JSON, see lines.h. */
#include "sql/language/lines.h"

#include "base/mem.h"

#include <stdio.h>

#define ROOM_FIRST 4096u

void lines_init(struct lines *l, size_t max)
{
    *l = (struct lines){.max = max};
}

void lines_fini(struct lines *l)
{
    mem_free(l->bytes);
    *l = (struct lines){.failed = true};
}

uint8_t *lines_room(struct lines *l, size_t len)
{
    if (l->failed || len > l->max - l->len) {
        l->failed = true;
        return NULL;
    }
    if (len > l->room - l->len) {
        size_t room = l->room ? 2 * l->room : ROOM_FIRST;
        while (room < l->len + len)
            room *= 2;
        uint8_t *more = mem_realloc(l->bytes, room);
        if (!more) {
            l->failed = true;
            return NULL;
        }
        l->bytes = more;
        l->room = room;
    }
    l->len += len;
    return l->bytes + l->len - len;
}

void lines_put(struct lines *l, const void *bytes, size_t len)
{
    uint8_t *at = lines_room(l, len);
    if (at && len)
        memcpy(at, bytes, len);
}

void lines_text(struct lines *l, const char *json)
{
    lines_put(l, json, strlen(json));
}

void lines_name(struct lines *l, struct slice name)
{
    lines_put(l, "\"", 1);
    for (size_t i = 0; i < name.len; i++) {
        if (name.ptr[i] == '"')
            lines_put(l, "\"", 1);
        lines_put(l, name.ptr + i, 1);
    }
    lines_put(l, "\"", 1);
}

void lines_number(struct lines *l, int64_t v)
{
    char text[24];
    lines_put(l, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)v));
}

void lines_string(struct lines *l, struct slice s)
{
    static const char plain[256] = {['"'] = '"', ['\\'] = '\\', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    size_t from = 0;
    lines_put(l, "\"", 1);
    for (size_t i = 0; i < s.len; i++) {
        char escape[8];
        uint8_t c = s.ptr[i];
        if (c >= 0x20 && !plain[c])
            continue;
        lines_put(l, s.ptr + from, i - from);
        from = i + 1;
        lines_put(l, escape,
                  (size_t)(plain[c] ? snprintf(escape, sizeof escape, "\\%c", plain[c])
                                    : snprintf(escape, sizeof escape, "\\u%04x", c)));
    }
    lines_put(l, s.ptr + from, s.len - from);
    lines_put(l, "\"", 1);
}

void lines_drop(struct lines *l, size_t len)
{
    l->len -= len;
    if (l->len)
        memmove(l->bytes, l->bytes + len, l->len);
    if (l->len || l->room <= 16 * ROOM_FIRST)
        return;
    mem_free(l->bytes);
    l->bytes = NULL;
    l->room = 0;
}
