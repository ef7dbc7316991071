/* The WebSocket handshake, see websocket_upgrade.h. */
#include "net/websocket_upgrade.h"

#include "base/check.h"
#include "fmt/base64.h"

#include <openssl/sha.h>
#include <stdio.h>

#define KEY_BYTES 16
#define KEY_LEN BASE64_LEN(KEY_BYTES)
#define KEY_GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

bool websocket_asked(const struct http_request *r)
{
    return http_list_has(r, "upgrade", "websocket");
}

/* Section 4.2.2, item 5.4. */
static void accept_of(struct slice key, char ret[WEBSOCKET_ACCEPT_LEN + 1])
{
    uint8_t text[KEY_LEN + sizeof KEY_GUID - 1], digest[SHA_DIGEST_LENGTH];
    CHECK(key.len == KEY_LEN && BASE64_LEN(SHA_DIGEST_LENGTH) == WEBSOCKET_ACCEPT_LEN);
    memcpy(text, key.ptr, KEY_LEN);
    memcpy(text + KEY_LEN, KEY_GUID, sizeof KEY_GUID - 1);
    SHA1(text, sizeof text, digest);
    base64_encode(slice_of(digest, sizeof digest), ret);
}

unsigned websocket_check(const struct http_request *r, char ret_accept[WEBSOCKET_ACCEPT_LEN + 1])
{
    uint8_t bytes[KEY_BYTES];
    struct slice key = http_field(r, "sec-websocket-key");
    if (!slice_is(r->method, "GET") || r->minor == 0 || !http_list_has(r, "connection", "upgrade"))
        return 400;
    if (http_field_count(r, "sec-websocket-version") != 1 ||
        !slice_is(http_field(r, "sec-websocket-version"), WEBSOCKET_VERSION))
        return 426;
    if (http_field_count(r, "sec-websocket-key") != 1 || key.len != KEY_LEN ||
        base64_decode(key, bytes, sizeof bytes) != KEY_BYTES || r->chunked || r->content_length)
        return 400;
    accept_of(key, ret_accept);
    return 101;
}

/* Is the origin of a server on loopback, whatever its port? */
static bool is_local(struct slice origin)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1", "[::1]"};
    size_t scheme = slice_starts(origin, "http://") ? 7 : slice_starts(origin, "https://") ? 8 : 0;
    if (!scheme)
        return false;
    struct slice host = slice_of(origin.ptr + scheme, origin.len - scheme);
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        size_t len = strlen(hosts[i]);
        if (host.len >= len && http_same(slice_of(host.ptr, len), hosts[i]) &&
            (host.len == len || host.ptr[len] == ':'))
            return true;
    }
    return false;
}

bool websocket_origin_allowed(const struct http_request *r, const char *allowed, bool trusted)
{
    struct slice origin = http_field(r, "origin");
    if (!origin.ptr)
        return true;
    if (http_field_count(r, "origin") > 1)
        return false;
    if (!*allowed)
        return !trusted || is_local(origin);
    while (*allowed) {
        size_t len = strcspn(allowed, " ,");
        char one[300];
        if (len == 1 && *allowed == '*')
            return true;
        if (len && len < sizeof one) {
            memcpy(one, allowed, len);
            one[len] = '\0';
            if (http_same(origin, one))
                return true;
        }
        allowed += len + (allowed[len] != '\0');
    }
    return false;
}

/* ---- permessage-deflate ---- */

#define EXTENSION "permessage-deflate"

enum { SERVER_FORGETS = 1, CLIENT_FORGETS = 2, SERVER_BITS = 4, CLIENT_BITS = 8 };

struct offer {
    unsigned named;                    /* which parameters */
    unsigned server_bits, client_bits; /* WEBSOCKET_BITS_MAX: not named, or without a value */
};

/* 8 to 15, without zeros in front; 0: it is something else. */
static unsigned bits_of(struct slice value)
{
    if (value.len >= 2 && value.ptr[0] == '"' && value.ptr[value.len - 1] == '"')
        value = slice_of(value.ptr + 1, value.len - 2);
    if (value.len == 1 && (value.ptr[0] == '8' || value.ptr[0] == '9'))
        return value.ptr[0] - (unsigned)'0';
    if (value.len == 2 && value.ptr[0] == '1' && value.ptr[1] >= '0' && value.ptr[1] <= '5')
        return 10 + value.ptr[1] - (unsigned)'0';
    return 0;
}

/* False: a parameter that is unknown, named twice, or has a value that it cannot have. */
static bool take_parameter(struct offer *offer, struct slice name, bool has_value, struct slice value)
{
    unsigned which = slice_is(name, "server_no_context_takeover")   ? SERVER_FORGETS
                     : slice_is(name, "client_no_context_takeover") ? CLIENT_FORGETS
                     : slice_is(name, "server_max_window_bits")     ? SERVER_BITS
                     : slice_is(name, "client_max_window_bits")     ? CLIENT_BITS
                                                                    : 0;
    unsigned bits = has_value ? bits_of(value) : which == CLIENT_BITS ? WEBSOCKET_BITS_MAX : 0;
    if (!which || (offer->named & which))
        return false;
    offer->named |= which;
    if (which == SERVER_BITS)
        offer->server_bits = bits;
    else if (which == CLIENT_BITS)
        offer->client_bits = bits;
    else
        return !has_value;
    return bits > 0;
}

/* One element of the list: a name and its parameters. */
static bool read_offer(struct slice element, struct offer *ret)
{
    *ret = (struct offer){.server_bits = WEBSOCKET_BITS_MAX, .client_bits = WEBSOCKET_BITS_MAX};
    if (!slice_is(http_part(&element, ';'), EXTENSION))
        return false;
    while (element.len) {
        struct slice rest = http_part(&element, ';');
        bool has_value = rest.len && memchr(rest.ptr, '=', rest.len);
        struct slice name = http_part(&rest, '='), value = http_part(&rest, ';');
        if (!take_parameter(ret, name, has_value, value))
            return false;
    }
    return ret->server_bits >= WEBSOCKET_BITS_MIN; /* zlib packs with no smaller window */
}

/* A client may be told only what it has named itself, but for what both sides can always do: to forget. */
bool websocket_packing_offered(const struct http_request *r, struct websocket_terms *ret)
{
    struct http_list list = {.name = "sec-websocket-extensions"};
    struct slice element;
    struct offer offer;
    while (http_list_next(r, &list, &element)) {
        if (!read_offer(element, &offer))
            continue;
        bool says_in = offer.named & CLIENT_BITS, says_out = offer.named & SERVER_BITS;
        unsigned in = says_in && offer.client_bits > WEBSOCKET_BITS_IN ? WEBSOCKET_BITS_IN : offer.client_bits;
        unsigned out = offer.server_bits > WEBSOCKET_BITS_OUT ? WEBSOCKET_BITS_OUT : offer.server_bits;
        *ret = (struct websocket_terms){
            .in_bits = (uint8_t)in, .out_bits = (uint8_t)out, .says_in = says_in, .says_out = says_out};
        return true;
    }
    return false;
}

static void put_terms(struct writer *w, const struct websocket_terms *terms)
{
    char text[160], in[32] = "", out[32] = "";
    if (terms->says_in)
        snprintf(in, sizeof in, "; client_max_window_bits=%u", terms->in_bits);
    if (terms->says_out)
        snprintf(out, sizeof out, "; server_max_window_bits=%u", terms->out_bits);
    snprintf(text, sizeof text, EXTENSION "; server_no_context_takeover; client_no_context_takeover%s%s", out, in);
    http_put_field(w, "Sec-WebSocket-Extensions", slice_str(text));
}

void websocket_put_answer(struct writer *w, const char *accept, struct slice protocol,
                          const struct websocket_terms *terms)
{
    http_put_status(w, 101);
    http_put_field(w, "Upgrade", slice_str("websocket"));
    http_put_field(w, "Connection", slice_str("Upgrade"));
    http_put_field(w, "Sec-WebSocket-Accept", slice_str(accept));
    if (protocol.len)
        http_put_field(w, "Sec-WebSocket-Protocol", protocol);
    if (terms->in_bits)
        put_terms(w, terms);
    http_put_end(w);
}
