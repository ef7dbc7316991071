/* Destinations, see destination.h. One row per kind. Pure functions, any thread. */
#include "proto/stomp/destination.h"

static const struct place_row {
    const char *prefix; /* what follows begins with a slash */
    const char *word;
} rows[STOMP_PLACES] = {
    [STOMP_QUEUE] = {"/queue", "queue"},
    [STOMP_TOPIC] = {"/topic", "topic"},
    [STOMP_EXCHANGE] = {"/exchange", "exchange"},
    [STOMP_AMQ_QUEUE] = {"/amq/queue", "amqqueue"},
    [STOMP_TEMP_QUEUE] = {"/temp-queue", "temp_queue"},
    [STOMP_REPLY_QUEUE] = {"/reply-queue", "reply_queue"},
    [STOMP_TEMP_TOPIC] = {"/temp-topic", "temp_topic"},
};

const char *stomp_place_word(enum stomp_place place)
{
    return rows[place].word;
}

/* ---- names ---- */

static bool is_plain(uint8_t c)
{
    return c >= 0x20 && c < 0x80 && c != '/' && c != '%';
}

static int hex(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Undoes what put_name does, and nothing else: %20 is three characters. False: longer than a name may be. */
static bool read_name(struct slice text, uint8_t *room, struct slice *ret)
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.ptr[i];
        int high = c == '%' && text.len - i > 2 ? hex(text.ptr[i + 1]) : -1,
            low = high >= 0 ? hex(text.ptr[i + 2]) : -1;
        if (low >= 0 && !is_plain((uint8_t)(high << 4 | low))) {
            c = (uint8_t)(high << 4 | low);
            i += 2;
        }
        if (len == STOMP_NAME_MAX)
            return false;
        room[len++] = c;
    }
    *ret = slice_of(room, len);
    return true;
}

static uint8_t *put_name(uint8_t *at, struct slice name)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.ptr[i];
        if (is_plain(c)) {
            *at++ = c;
            continue;
        }
        *at++ = '%';
        *at++ = (uint8_t)digits[c >> 4];
        *at++ = (uint8_t)digits[c & 15];
    }
    return at;
}

static uint8_t *put_text(uint8_t *at, const char *text)
{
    size_t len = strlen(text);
    memcpy(at, text, len);
    return at + len;
}

/* ---- reading ---- */

/* The kind whose prefix stands alone or in front of a slash. */
static bool place_find(struct slice text, enum stomp_place *ret)
{
    for (enum stomp_place p = 0; p < STOMP_PLACES; p++) {
        size_t len = strlen(rows[p].prefix);
        if (slice_starts(text, rows[p].prefix) && (text.len == len || text.ptr[len] == '/')) {
            *ret = p;
            return true;
        }
    }
    return false;
}

static bool exchange_read(struct slice rest, struct stomp_destination *ret)
{
    const uint8_t *slash = memchr(rest.ptr, '/', rest.len);
    struct slice name = slash ? slice_of(rest.ptr, (size_t)(slash - rest.ptr)) : rest,
                 key = slash ? slice_of(slash + 1, rest.len - name.len - 1) : (struct slice){0};
    if (name.len == 0 || (key.len && memchr(key.ptr, '/', key.len)))
        return false; /* the default exchange has no name that could stand here */
    return read_name(name, ret->room, &ret->name) && read_name(key, ret->room + STOMP_NAME_MAX, &ret->key);
}

static enum stomp_destination_result word_read(struct slice text, struct stomp_destination *ret)
{
    ret->place = STOMP_QUEUE;
    if (text.len == 0)
        return STOMP_DESTINATION_BLANK;
    if (memchr(text.ptr, '/', text.len))
        return STOMP_DESTINATION_UNKNOWN;
    return read_name(text, ret->room, &ret->name) ? STOMP_DESTINATION_OK : STOMP_DESTINATION_INVALID;
}

enum stomp_destination_result stomp_destination_parse(struct slice text, struct stomp_destination *ret,
                                                      struct slice *ret_rest)
{
    ret->name = ret->key = (struct slice){0};
    *ret_rest = text;
    if (text.len == 0 || text.ptr[0] != '/')
        return word_read(text, ret);
    if (!place_find(text, &ret->place))
        return STOMP_DESTINATION_UNKNOWN;
    size_t len = strlen(rows[ret->place].prefix);
    *ret_rest = slice_of(text.ptr + len, text.len - len);
    if (ret_rest->len == 0)
        return ret->place == STOMP_REPLY_QUEUE ? STOMP_DESTINATION_UNKNOWN : STOMP_DESTINATION_INVALID;
    struct slice name = slice_of(ret_rest->ptr + 1, ret_rest->len - 1);
    bool right = ret->place == STOMP_EXCHANGE
                     ? exchange_read(name, ret)
                     : name.len > 0 && (ret->place == STOMP_REPLY_QUEUE || !memchr(name.ptr, '/', name.len)) &&
                           read_name(name, ret->room, &ret->name);
    return right ? STOMP_DESTINATION_OK : STOMP_DESTINATION_INVALID;
}

enum stomp_destination_result stomp_destination_parse_activemq(struct slice text, struct stomp_destination *ret,
                                                               struct slice *ret_rest)
{
    const uint8_t *options = text.len ? memchr(text.ptr, '?', text.len) : NULL;
    ret->name = ret->key = (struct slice){0};
    ret->place = STOMP_QUEUE;
    *ret_rest = text;
    if (text.len == 0)
        return STOMP_DESTINATION_BLANK;
    if (options)
        text.len = (size_t)(options - text.ptr);
    if (text.ptr[0] != '/' || !place_find(text, &ret->place) || ret->place == STOMP_EXCHANGE ||
        ret->place == STOMP_AMQ_QUEUE)
        return STOMP_DESTINATION_UNKNOWN;
    size_t len = strlen(rows[ret->place].prefix) + 1;
    *ret_rest = slice_of(text.ptr + len - 1, text.len - len + 1);
    return text.len > len && read_name(slice_of(text.ptr + len, text.len - len), ret->room, &ret->name)
               ? STOMP_DESTINATION_OK
               : STOMP_DESTINATION_INVALID;
}

bool stomp_is_destination(struct slice text)
{
    static const char *const prefixes[] = {"/exchange", "/topic", "/queue", "/amq/queue", "/reply-queue/"};
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (slice_starts(text, prefixes[i]))
            return true;
    return false;
}

/* ---- writing ---- */

size_t stomp_destination_print(uint8_t *ret, struct slice exchange, struct slice key, struct slice topic_exchange)
{
    uint8_t *at = ret;
    if (exchange.len == 0)
        at = put_name(put_text(at, "/queue/"), key);
    else if (slice_equal(exchange, topic_exchange))
        at = put_name(put_text(at, "/topic/"), key);
    else {
        at = put_name(put_text(at, "/exchange/"), exchange);
        if (key.len)
            at = put_name(put_text(at, "/"), key);
    }
    return (size_t)(at - ret);
}
