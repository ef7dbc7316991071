/* Topics and keys, see topic.h. */
#include "proto/mqtt/topic.h"

#include "base/utf8.h"

/* ---- validity ---- */

bool mqtt_topic_valid(struct slice topic)
{
    return topic.len && !memchr(topic.ptr, '+', topic.len) && !memchr(topic.ptr, '#', topic.len);
}

bool mqtt_filter_valid(struct slice filter)
{
    for (size_t i = 0; i < filter.len; i++) {
        uint8_t c = filter.ptr[i];
        bool alone = (i == 0 || filter.ptr[i - 1] == '/') && (i + 1 == filter.len || filter.ptr[i + 1] == '/');
        if ((c == '+' && !alone) || (c == '#' && (!alone || i + 1 != filter.len)))
            return false;
    }
    return filter.len > 0;
}

bool mqtt_filter_parse(struct slice text, struct mqtt_filter *ret)
{
    static const char share[] = "$share";
    const size_t len = sizeof share - 1;
    *ret = (struct mqtt_filter){.filter = text};
    if (slice_starts(text, share) && (text.len == len || text.ptr[len] == '/')) {
        const uint8_t *group = text.ptr + len + 1, *end = text.ptr + text.len;
        const uint8_t *slash = group < end ? memchr(group, '/', (size_t)(end - group)) : NULL;
        if (!slash)
            return false;
        ret->shared = true;
        ret->group = slice_of(group, (size_t)(slash - group));
        ret->filter = slice_of(slash + 1, (size_t)(end - slash - 1));
        if (!mqtt_topic_valid(ret->group))
            return false;
    }
    return mqtt_filter_valid(ret->filter);
}

/* ---- keys ---- */

static inline uint8_t swapped(uint8_t c)
{
    return c == '/' ? '.' : c == '.' ? '/' : c == '+' ? '*' : c == '*' ? '+' : c;
}

void mqtt_topic_swap(uint8_t *to, struct slice from)
{
    for (size_t i = 0; i < from.len; i++)
        to[i] = swapped(from.ptr[i]);
}

static size_t put_escaped(uint8_t *to, uint8_t c)
{
    static const char hex[] = "0123456789ABCDEF";
    to[0] = '%';
    to[1] = (uint8_t)hex[c >> 4];
    to[2] = (uint8_t)hex[c & 15];
    return 3;
}

/* Something in it cannot stand in a topic. */
static size_t topic_of_odd_key(struct slice key, uint8_t *to)
{
    size_t len = 0;
    for (size_t at = 0; at < key.len;) {
        uint8_t c = key.ptr[at];
        size_t n = utf8_char(slice_of(key.ptr + at, key.len - at));
        if (n == 0 || c == 0 || c == '*' || c == '#') {
            len += put_escaped(to + len, c);
            n = 1;
        } else if (n == 1) {
            to[len++] = swapped(c);
        } else {
            memcpy(to + len, key.ptr + at, n);
            len += n;
        }
        at += n;
    }
    return len ? len : put_escaped(to, 0);
}

size_t mqtt_topic_of_key(struct slice key, uint8_t to[MQTT_TOPIC_OF_KEY_MAX])
{
    bool odd = key.len == 0;
    for (size_t i = 0; i < key.len; i++) {
        uint8_t c = key.ptr[i];
        odd |= c == 0 || c == '*' || c == '#' || c >= 0x80;
        to[i] = swapped(c);
    }
    return odd ? topic_of_odd_key(key, to) : key.len;
}

/* ---- matching ---- */

bool mqtt_pattern_matches(struct slice pattern, struct slice key)
{
    size_t p = 0, k = 0;
    if (pattern.len && key.len && key.ptr[0] == '$' && pattern.ptr[0] != '$')
        return false;
    for (;;) { /* p and k stand at the beginning of a level */
        if (p < pattern.len && pattern.ptr[p] == '#')
            return true;
        if (p < pattern.len && pattern.ptr[p] == '*') {
            p++;
            while (k < key.len && key.ptr[k] != '.')
                k++;
        } else {
            while (p < pattern.len && pattern.ptr[p] != '.' && k < key.len && key.ptr[k] == pattern.ptr[p]) {
                p++;
                k++;
            }
        }
        bool pattern_ends = p == pattern.len, key_ends = k == key.len;
        if (pattern_ends && key_ends)
            return true;
        if (key_ends) /* what is left may be the level `#` alone, which stands for none, too */
            return pattern.len - p == 2 && pattern.ptr[p] == '.' && pattern.ptr[p + 1] == '#';
        if (pattern_ends || pattern.ptr[p] != '.' || key.ptr[k] != '.')
            return false;
        p++;
        k++;
    }
}
