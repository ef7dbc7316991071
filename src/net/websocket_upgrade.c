/* The WebSocket handshake, see websocket_upgrade.h. */
#include "net/websocket_upgrade.h"

#include "base/check.h"
#include "fmt/base64.h"

#include <openssl/sha.h>

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

void websocket_put_answer(struct writer *w, const char *accept, struct slice protocol)
{
    http_put_status(w, 101);
    http_put_field(w, "Upgrade", slice_str("websocket"));
    http_put_field(w, "Connection", slice_str("Upgrade"));
    http_put_field(w, "Sec-WebSocket-Accept", slice_str(accept));
    if (protocol.len)
        http_put_field(w, "Sec-WebSocket-Protocol", protocol);
    http_put_end(w);
}
