/* Packed messages of WebSockets (RFC 7692): what is offered and agreed, the vectors of section 7.2.3, Autobahn's cases 12 and 13 as far
 * as they are about a server, every cut, bombs, messages that are none, engines that take little, refused memory; what leaves. */
#include "net/websocket_rig_test.h"
#include "net/websocket_upgrade.h"

enum { PACKED = 0x40 };

#define BIG 400000u

static uint8_t script[2 * BIG], plain[2 * BIG], packed[2 * BIG];

/* ---- a client that packs ---- */

/* zlib's part of a client: window, level, and the end that the sender leaves off. Returns the length. */
static size_t pack(uint8_t *to, const void *bytes, size_t len, int bits, int level)
{
    z_stream z = {
        .next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)len, .next_out = to, .avail_out = sizeof packed};
    assert_int_equal(deflateInit2(&z, level, Z_DEFLATED, -bits, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_SYNC_FLUSH), Z_OK);
    assert_true(z.avail_out > 0);
    deflateEnd(&z);
    return sizeof packed - z.avail_out - WEBSOCKET_TAIL_LEN;
}

/* What sensors say, about. */
static void write_records(uint8_t *to, size_t len)
{
    uint32_t chance = 1;
    char line[120];
    for (size_t at = 0; at < len;) {
        chance = chance * 1103515245 + 12345;
        size_t n = (size_t)snprintf(line, sizeof line, "{\"device\":%u,\"humidity\":%u,\"state\":\"%s\"}\n",
                                    chance >> 20, (chance >> 8) % 97, chance & 1024 ? "online" : "off");
        n = n < len - at ? n : len - at;
        memcpy(to + at, line, n);
        at += n;
    }
}

/* Without the words that the engine obeys. */
static void write_noise(uint8_t *to, size_t len)
{
    uint32_t chance = 7;
    for (size_t i = 0; i < len; i++) {
        chance = chance * 1664525 + 1013904223;
        to[i] = (uint8_t)(chance >> 24);
        if (to[i] == '!' || to[i] == '#')
            to[i] ^= 0x80;
    }
}

/* ---- agreeing ---- */

static void offers(void **state)
{
    static const struct {
        const char *fields, *said; /* NULL: nothing is agreed */
    } rows[] = {
#define X "Sec-WebSocket-Extensions: "
#define SAID "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        {"", NULL},
        {X "permessage-deflate\r\n", SAID},
        {X "permessage-deflate; client_max_window_bits\r\n", SAID "; client_max_window_bits=12"}, /* Chromium */
        {X "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12\r\n", /* python3-websockets */
         SAID "; server_max_window_bits=12; client_max_window_bits=12"},
        {X "permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n", SAID}, /* gorilla */
        {X "permessage-deflate;server_max_window_bits=15;client_max_window_bits=15\r\n",
         SAID "; server_max_window_bits=12; client_max_window_bits=12"},
        {X "permessage-deflate ;\tserver_max_window_bits = \"9\" ; client_max_window_bits=\"8\"\r\n",
         SAID "; server_max_window_bits=9; client_max_window_bits=8"},
        {X "permessage-deflate; server_max_window_bits=10\r\n", SAID "; server_max_window_bits=10"},
        {X "permessage-deflate; server_max_window_bits=8\r\n", NULL}, /* zlib cannot */
        {X "permessage-deflate; server_max_window_bits=8, permessage-deflate\r\n", SAID},
        {X "x-webkit-deflate-frame, permessage-deflate; later, permessage-deflate; server_max_window_bits=11\r\n",
         SAID "; server_max_window_bits=11"},
        {X "permessage-bzip2\r\n" X "permessage-deflate\r\n", SAID},
        {X "permessage-deflate; unknown\r\n", NULL},
        {X "permessage-deflate; server_max_window_bits\r\n", NULL},
        {X "permessage-deflate; server_max_window_bits=\r\n", NULL},
        {X "permessage-deflate; server_max_window_bits=7\r\n", NULL},
        {X "permessage-deflate; server_max_window_bits=16\r\n", NULL},
        {X "permessage-deflate; server_max_window_bits=09\r\n", NULL},
        {X "permessage-deflate; server_max_window_bits=+9\r\n", NULL},
        {X "permessage-deflate; server_max_window_bits=\"12\r\n", NULL},
        {X "permessage-deflate; server_max_window_bits=1\r\n", NULL},
        {X "permessage-deflate; server_max_window_bits=100\r\n", NULL},
        {X "permessage-deflate; client_max_window_bits=\r\n", NULL},
        {X "permessage-deflate; client_max_window_bits=7\r\n", NULL},
        {X "permessage-deflate; client_max_window_bits=x\r\n", NULL},
        {X "permessage-deflate; server_no_context_takeover=1\r\n", NULL},
        {X "permessage-deflate; client_no_context_takeover=\r\n", NULL},
        {X "permessage-deflate; client_max_window_bits; client_max_window_bits=9\r\n", NULL},
        {X "permessage-deflate; server_no_context_takeover; server_no_context_takeover\r\n", NULL},
        {X "permessage-deflate; ; client_max_window_bits\r\n", NULL},
        {X "permessage-deflate=1\r\n", NULL},
        {X "permessage-deflatex\r\n", NULL},
        {X ",;=, \"\r\n", NULL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char head[400], text[600];
        struct http_request r;
        struct websocket_terms terms = {0};
        int n = snprintf(head, sizeof head, "GET /ws HTTP/1.1\r\nHost: h\r\n%s\r\n", rows[i].fields);
        assert_int_equal(http_parse(slice_of(head, (size_t)n), &r), 0);
        if (websocket_packing_offered(&r, &terms) != (rows[i].said != NULL))
            fail_msg("row %zu", i);
        struct writer w = writer_of(text, sizeof text);
        websocket_put_answer(&w, "x", slice_str(""), &terms);
        assert_true(writer_ok(&w));
        text[w.len] = '\0';
        char *found = strstr(text, X);
        assert_int_equal(found != NULL, rows[i].said != NULL);
        if (!found)
            continue;
        found += sizeof X - 1;
        *strchr(found, '\r') = '\0';
        assert_string_equal(found, rows[i].said);
    }
}

/* ---- hearing ---- */

/* Section 7.2.3. */
static void vectors(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *heard;
    } rows[] = {
#define ROW(bytes, heard) {bytes, sizeof bytes - 1, heard}
        ROW("\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello"),
        ROW("\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello"), /* as it is */
        ROW("\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello"),             /* in a last block */
        ROW("\xf3\x48\xcd\xc9\xc9\x07\x00", "Hello"),                 /* whose sender forgot that there is more */
        ROW("\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello"), /* in two blocks */
        ROW("\xf3\x48\xcd\xc9\xc9\x07\x00\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "HelloHello"),
        ROW("\x00", ""),
        ROW("\x02\x00", ""),
        ROW("", ""),
#undef ROW
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t cut = 0; cut <= rows[i].len; cut++) /* in two frames, with one of control between */
            for (size_t step = 1; step < 40; step += 3) {
                struct rig *rig = rig_new_packing(true, 15, 12);
                size_t len = frame_to(script, TEXT | PACKED, rows[i].bytes, cut);
                len += frame_to(script + len, PING, "mid", 3);
                len += frame_to(script + len, CONT | FIN, rows[i].bytes + cut, rows[i].len - cut);
                len += frame_to(script + len, TEXT | FIN, "plain", 5);
                give(rig, script, len, step);
                settle(rig);
                if (rig->heard_len != strlen(rows[i].heard) + 5 ||
                    memcmp(rig->heard, rows[i].heard, strlen(rows[i].heard)) != 0 ||
                    memcmp(rig->heard + rig->heard_len - 5, "plain", 5) != 0)
                    fail_msg("row %zu, cut at %zu, by %zu: %s", i, cut, step, rig->said);
                assert_int_equal(rig->in_len, 0);
                rig_free(rig);
            }
}

/* Every byte a frame, and frames without any. */
static void every_byte_a_frame(void **state)
{
    struct rig *rig = rig_new_packing(false, 12, 12);
    (void)state;
    write_records(plain, 3000);
    size_t len = pack(packed, plain, 3000, 12, 9), at = frame_to(script, BIN | PACKED, "", 0);
    for (size_t i = 0; i < len; i++) {
        at += frame_to(script + at, CONT, packed + i, 1);
        at += frame_to(script + at, i % 2 ? PING : CONT, "", 0);
    }
    at += frame_to(script + at, CONT | FIN, "", 0);
    give(rig, script, at, 7);
    settle(rig);
    assert_int_equal(rig->heard_len, 3000);
    assert_memory_equal(rig->heard, plain, 3000);
    rig_free(rig);
}

/* Case 12: messages of every size, cut everywhere, to engines that take pieces of any size, packed well, badly and not at all. */
static void packed_messages_cut_anywhere(void **state)
{
    static const size_t lens[] = {1, 16, 64, 256, 1024, 4096, 8192, 16384, 32768, 65536, 131072},
                        steps[] = {1, 2, 131, 4096, 65536}, units[] = {1, 7, 5000};
    size_t before = mem_in_use();
    (void)state;
    for (size_t u = 0; u < ARRAY_LEN(units); u++)
        for (size_t s = 0; s < ARRAY_LEN(steps); s++) {
            struct rig *rig = rig_new_packing(false, 12, 12);
            size_t all = 0;
            rig->unit = units[u];
            for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
                (i % 3 == 2 ? write_noise : write_records)(plain + all, lens[i]);
                size_t len = pack(packed, plain + all, lens[i], 12, (int)(i % 2 ? 0 : 9)), half = len / 3;
                size_t at = frame_to(script, BIN | PACKED, packed, half);
                at += frame_to(script + at, CONT, packed + half, half);
                at += frame_to(script + at, CONT | FIN, packed + 2 * half, len - 2 * half);
                all += lens[i];
                for (size_t k = 0; k < at; k += steps[s]) {
                    give(rig, script + k, at - k < steps[s] ? at - k : steps[s], steps[s]);
                    flush(rig, SIZE_MAX);
                    rig->said[0] = '\0';
                }
            }
            settle(rig);
            for (int i = 0; i < 50 && rig->in_len; i++) {
                give(rig, "", 0, 1);
                size_t used = websocket_feed(rig->ws, slice_of(rig->in, rig->in_len));
                memmove(rig->in, rig->in + used, rig->in_len - used);
                rig->in_len -= used;
                settle(rig);
            }
            assert_int_equal(rig->in_len, 0);
            assert_int_equal(rig->heard_len, all / units[u] * units[u]);
            assert_memory_equal(rig->heard, plain, rig->heard_len);
            assert_int_equal(rig->payload_len, rig->heard_len);
            assert_memory_equal(rig->payload, plain, rig->heard_len);
            rig_free(rig);
            assert_int_equal(mem_in_use(), before);
        }
}

/* What breaks a rule ends the connection there, and nothing is heard of what comes behind it. */
#define M "\0\0\0\0" /* a mask that changes nothing */

static const struct {
    const char *bytes;
    size_t len;
    const char *said;
    bool text;
} broken[] = {
#define ROW(text, bytes, said)                                                                                         \
    {                                                                                                                  \
        bytes, sizeof bytes - 1, said, text                                                                            \
    }
    ROW(false, "\xa2\x80" M, "close 1002\n"),
    ROW(false, "\x92\x80" M, "close 1002\n"),
    ROW(false, "\xe2\x80" M, "close 1002\n"),
    ROW(false, "\xc9\x80" M, "close 1002\n"), /* control frames are never packed */
    ROW(false, "\xca\x80" M, "close 1002\n"),
    ROW(false, "\xc8\x80" M, "close 1002\n"),
    ROW(false, "\xc3\x80" M, "close 1002\n"),
    ROW(false, "\xc0\x80" M, "close 1002\n"), /* continues nothing */
    ROW(false, "\x42\x81" M "\xf2\xc0\x80" M, "close 1002\n"),
    ROW(false, "\x02\x81" M "x\xc0\x80" M, "close 1002\n"),
    ROW(false, "\x42\x81" M "\xf2\x82\x80" M, "close 1002\n"),
    ROW(false,
        "\xc2\x05"
        "abcde",
        "close 1002\n"),                                                         /* not masked */
    ROW(false, "\xc2\x81" M "\xff", "close 1002\n"),                             /* no such block */
    ROW(false, "\xc2\x83" M "\xf2\x48\xcd", "close 1002\n"),                     /* cut off */
    ROW(false, "\xc2\x85" M "\x00\x05\x00\xfa\xfe", "close 1002\n"),             /* lengths that differ */
    ROW(false, "\xc2\x88" M "\x00\x05\x00\xfa\xff\x48\x65\x6c", "close 1002\n"), /* shorter than it says */
    ROW(false, "\xc2\x85" M "\xf2\x00\x11\x00\x00", "close 1002\n"),             /* of the message before: 7.2.3.2 */
    ROW(false, "\xc2\xff\x00\x00\x00\x00\x00\x04\x93\xe1" M, "close 1009\n"),
    ROW(false, "\xc1\x80" M, "close 1003\n"),
    ROW(true, "\xc1\x87" M "\x00\x01\x00\xfe\xff\xff\x00", "close 1007\n"),
    ROW(true, "\xc1\x87" M "\x00\x01\x00\xfe\xff\xce\x00", "close 1007\n"), /* ends within a character */
#undef ROW
};

static void rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(broken); i++)
        for (size_t step = 1; step <= 64; step *= 4) {
            struct rig *rig = rig_new_packing(broken[i].text, 15, 12);
            rig->echo = false;
            give(rig, script, frame_to(script, BIN | FIN | PACKED, "\xf2\x48\xcd\xc9\xc9\x07\x00", 7), step);
            settle(rig);
            rig->said[0] = '\0';
            size_t len = broken[i].len;
            memcpy(script, broken[i].bytes, len);
            len += frame_to(script + len, BIN | FIN, "unheard", 7);
            give(rig, script, len, step);
            settle(rig);
            if (strcmp(rig->said, broken[i].said) != 0 || !rig->outer.want_close || rig->closed != 1 || rig->in_len ||
                rig->heard_len > 5 + 3)
                fail_msg("row %zu by %zu: %s", i, step, rig->said);
            rig_free(rig);
        }
}

/* Case 13: who was asked to keep to a small window and looks further back is refused. */
static void windows(void **state)
{
    (void)state;
    write_noise(plain, 5000);
    memcpy(plain + 5000, plain, 5000); /* found only by who looks 5000 bytes back */
    for (uint8_t bits = 8; bits <= 15; bits++) {
        struct rig *rig = rig_new_packing(false, bits, 12);
        rig->echo = false;
        size_t len = pack(packed, plain, 10000, 15, 9);
        give(rig, script, frame_to(script, BIN | FIN | PACKED, packed, len), 64);
        settle(rig);
        assert_string_equal(rig->said, bits < 13 ? "close 1002\n" : "");
        assert_true(bits < 13 ? rig->heard_len < 10000 : rig->heard_len == 10000);
        rig_free(rig);
    }
}

/* ---- bombs ---- */

static size_t write_bomb(size_t len)
{
    uint8_t *zeros = calloc(1, len);
    size_t n = pack(packed, zeros, len, 12, 9);
    free(zeros);
    return frame_to(script, BIN | FIN | PACKED, packed, n);
}

static void too_big_when_unpacked(void **state)
{
    struct rig *rig = rig_new_packing(false, 12, 12);
    (void)state;
    rig->echo = false;
    size_t len = write_bomb(100000000); /* from 100 KB */
    assert_true(len < 200000);
    size_t before = mem_in_use(), used = 0;
    for (int i = 0; i < 100 && !rig->outer.want_close; i++) {
        used += websocket_feed(rig->ws, slice_of(script + used, len - used));
        assert_true(rig->heard_len <= ((size_t)i + 1) * 2 * 65536); /* others have their turn */
        assert_true(mem_in_use() - before < 20000);
        flush(rig, SIZE_MAX);
    }
    assert_string_equal(rig->said, "close 1009\n");
    assert_true(rig->heard_len <= 300000);
    rig_free(rig);
}

/* An engine that takes nothing for now: nothing more is unpacked than it can hold, and the rest comes although no byte does. */
static void a_bomb_waits(void **state)
{
    struct rig *rig = rig_new_packing(false, 12, 12);
    (void)state;
    rig->unit = 1000000;
    rig->parrot->engine.in_max = 5000;
    size_t len = write_bomb(250000), before = mem_in_use();
    assert_true(len < 400);
    size_t used = websocket_feed(rig->ws, slice_of(script, len));
    used += websocket_feed(rig->ws, slice_of(script + used, len - used));
    assert_true(mem_in_use() - before < 5000 + 16384 + 20000);
    settle(rig);
    assert_true(mem_in_use() - before < 5000 + 16384 + 20000);
    assert_int_equal(rig->heard_len, 0);
    while (!list_empty(&rig->dirty)) /* nothing goes round and round meanwhile */
        list_remove(rig->dirty.next);
    rig->outer.in_dirty = rig->parrot->engine.in_dirty = false;
    websocket_gather(rig->ws);
    assert_true(list_empty(&rig->dirty));
    rig->unit = 10;
    settle(rig);
    while (used < len) {
        size_t n = websocket_feed(rig->ws, slice_of(script + used, len - used));
        assert_true(n > 0);
        used += n;
        settle(rig);
    }
    assert_int_equal(rig->heard_len, 250000);
    give_frame(rig, BIN | FIN, "0123456789", 1);
    assert_int_equal(rig->heard_len, 250010);
    rig_free(rig);
}

/* All bytes are here: what is left in the inflater leaves it in turns, each of which asks for the next. */
static void turns(void **state)
{
    struct rig *rig = rig_new_packing(false, 12, 12);
    (void)state;
    rig->echo = false;
    size_t len = write_bomb(290000), used = 0;
    int rounds = 0;
    for (; rig->heard_len < 290000 && rounds < 100; rounds++) {
        while (!list_empty(&rig->dirty))
            list_remove(rig->dirty.next);
        rig->outer.in_dirty = rig->parrot->engine.in_dirty = false;
        size_t before = rig->heard_len;
        if (used < len)
            used += websocket_feed(rig->ws, slice_of(script + used, len - used));
        else
            websocket_gather(rig->ws);
        assert_true(rig->heard_len - before <= 65536);
        assert_true(rig->heard_len == 290000 || rig->outer.in_dirty);
    }
    assert_true(rounds >= 5 && rounds < 20);
    rig_free(rig);
}

/* The last byte of a message may stand for more than one turn gives: then no byte has to come for the rest to leave. */
static void turns_without_bytes(void **state)
{
    int met = 0;
    (void)state;
    for (size_t size = 65537; size < 65537 + 300; size++) {
        struct rig *rig = rig_new_packing(false, 12, 12);
        rig->echo = false;
        size_t len = write_bomb(size);
        if (websocket_feed(rig->ws, slice_of(script, len)) == len && rig->heard_len < size) {
            assert_true(rig->outer.in_dirty);
            websocket_gather(rig->ws);
            assert_int_equal(rig->heard_len, size);
            met++;
        }
        rig_free(rig);
    }
    assert_true(met > 0);
}

static void a_pause_and_an_end_within(void **state)
{
    static const char *const texts[] = {"ab#cd", "bye!ignored"};
    (void)state;
    for (int i = 0; i < 2; i++)
        for (size_t step = 1; step < 40; step += 4) {
            struct rig *rig = rig_new_packing(false, 12, 12);
            size_t len = pack(packed, texts[i], strlen(texts[i]), 12, 9),
                   at = frame_to(script, BIN | PACKED, packed, len);
            at += frame_to(script + at, CONT | FIN, "", 0);
            at += frame_to(script + at, BIN | FIN, "behind", 6);
            give(rig, script, at, step);
            settle(rig);
            assert_int_equal(rig->heard_len, i ? 4 : 3);
            if (i == 0) {
                assert_true(rig->outer.paused);
                rig->parrot->engine.paused = false;
                settle(rig);
                assert_int_equal(websocket_feed(rig->ws, slice_of(rig->in, rig->in_len)), rig->in_len);
                assert_memory_equal(rig->heard, "ab#cdbehind", 11);
            } else {
                assert_string_equal(rig->said, "binary bye!\nclose 1000\n");
                give_frame(rig, BIN | FIN | PACKED, "unheard and no packed message", 5);
                give_frame(rig, CLOSE, "\x03\xe8", 1);
                assert_true(rig->outer.want_close);
            }
            rig_free(rig);
        }
}

/* Many messages on their way at a time have a state each; one state is kept when they are over, and a connection has none. */
static void memory(void **state)
{
    enum { MANY = 20 };
    struct websocket_deflate *d = websocket_deflate_new();
    struct websocket_inflate *m[MANY];
    (void)state;
    size_t before = mem_in_use();
    write_records(plain, 20000);
    size_t len = pack(packed, plain, 20000, 12, 9);
    for (int round = 0; round < 3; round++) {
        uint8_t to[20001];
        for (int i = 0; i < MANY; i++) {
            m[i] = websocket_inflate_begin(d, 12);
            struct slice first = slice_of(packed, len / 2);
            size_t n = sizeof to;
            assert_int_equal(websocket_inflate_step(m[i], &first, to, &n), WEBSOCKET_INFLATED);
            assert_true(n > 5000);
        }
        assert_true(mem_in_use() - before < MANY * 12000);
        for (int i = 0; i < MANY; i++) {
            struct slice rest = slice_of(packed + len / 2, len - len / 2), tail = slice_str("");
            size_t n = sizeof to;
            assert_int_equal(websocket_inflate_step(m[i], &rest, to, &n), WEBSOCKET_INFLATED);
            assert_false(websocket_inflate_whole(m[i]));
            tail = slice_of(WEBSOCKET_TAIL, WEBSOCKET_TAIL_LEN);
            assert_int_equal(websocket_inflate_step(m[i], &tail, to, &n), WEBSOCKET_INFLATED);
            assert_true(websocket_inflate_whole(m[i]));
            websocket_inflate_end(d, &m[i]);
            assert_null(m[i]);
            websocket_inflate_end(d, &m[i]);
        }
        assert_true(mem_in_use() - before < 12000);
    }
    struct iovec piece = {.iov_base = plain, .iov_len = 20000};
    assert_true(websocket_pack(d, 12, &piece, 20000).len > 0);
    assert_true(mem_in_use() - before < 12000 + 40000 + 66000);
    websocket_deflate_free(&d);
    websocket_deflate_free(&d);
}

/* ---- saying ---- */

static void speak(struct rig *rig, const void *bytes, size_t len)
{
    outq_put(&rig->parrot->engine.out, bytes, len);
    engine_dirty(&rig->parrot->engine);
}

/* What is long enough and becomes shorter leaves packed, within the window that the client has asked for. */
static void packed_messages_that_leave(void **state)
{
    (void)state;
    for (uint8_t bits = WEBSOCKET_BITS_MIN; bits <= WEBSOCKET_BITS_OUT; bits++) {
        struct rig *rig = rig_new_packing(false, 15, bits);
        write_records(plain, 200000);
        speak(rig, plain, WEBSOCKET_PACK_MIN - 1);
        settle(rig);
        speak(rig, plain + WEBSOCKET_PACK_MIN - 1, WEBSOCKET_PACK_MIN);
        settle(rig);
        speak(rig, plain + 2 * WEBSOCKET_PACK_MIN - 1, 200000 - 2 * WEBSOCKET_PACK_MIN + 1);
        websocket_gather(rig->ws);
        assert_true(rig->parrot->engine.out.len > 100000); /* one a turn */
        assert_true(rig->outer.in_dirty);
        settle(rig);
        assert_string_equal(rig->said, "binary [511]\npacked binary [512]\npacked binary [65536]\npacked binary "
                                       "[65536]\npacked binary [65536]\npacked binary [2369]\n");
        assert_int_equal(rig->payload_len, 200000);
        assert_memory_equal(rig->payload, plain, 200000);
        rig_free(rig);
    }
}

static void what_does_not_become_shorter(void **state)
{
    struct rig *rig = rig_new_packing(false, 12, 12);
    (void)state;
    write_noise(plain, 10000);
    speak(rig, plain, 1000);
    settle(rig);
    assert_string_equal(rig->said, "binary [1000]\n");
    write_records(plain, 1000);
    for (int i = 0; i < 16; i++) {
        rig->said[0] = '\0';
        speak(rig, plain, 1000);
        settle(rig);
        assert_string_equal(rig->said, i < 15 ? "binary [1000]\n" : "packed binary [1000]\n");
    }
    rig_free(rig);
}

static void packed_text_that_leaves(void **state)
{
    struct rig *rig = rig_new_packing(true, 12, 12);
    (void)state;
    memset(plain, 'a', 65535);
    memcpy(plain + 65535, "\xc3\xa4z", 3);
    speak(rig, plain, 65538);
    settle(rig);
    assert_string_equal(rig->said, "packed text [65535]\ntext \xc3\xa4z\n");
    plain[700] = 0xff;
    speak(rig, plain, 1000);
    settle(rig);
    assert_non_null(strstr(rig->said, "packed binary [1000]\n"));
    rig_free(rig);
}

static void on_release(void *arg, void *owner)
{
    (void)owner;
    ((struct rig *)arg)->released++;
}

/* What was lent is given back when it is packed; the engine hears that its bytes have left. */
static void loans_are_packed(void **state)
{
    struct rig *rig = rig_new_packing(false, 12, 12);
    (void)state;
    write_records(plain, 100000);
    outq_put(&rig->parrot->engine.out, plain, 10);
    outq_lend(&rig->parrot->engine.out, slice_of(plain + 10, 99990), on_release, rig, NULL);
    websocket_gather(rig->ws);
    assert_int_equal(rig->released, 0);
    settle(rig);
    assert_int_equal(rig->released, 1);
    assert_int_equal(rig->payload_len, 100000);
    assert_memory_equal(rig->payload, plain, 100000);
    assert_true(rig->drained > 0);
    rig_free(rig);
}

/* ---- refused memory ---- */

/* Every allocation fails once: the connection goes, or a message leaves as it is. */
static void refused_memory(void **state)
{
    size_t before = mem_in_use();
    (void)state;
    write_records(plain, 60000);
    size_t len = pack(packed, plain, 60000, 12, 9), total = frame_to(script, BIN | FIN | PACKED, packed, len);
    for (uint64_t n = 1; n < 1000; n++) {
        struct rig *rig = rig_new_packing(false, 12, 12);
        rig->unit = 5000;
        mem_fail_at(n, false);
        for (int i = 0; i < 3 && !rig->outer.out.failed; i++)
            for (size_t at = 0; at < total && !rig->outer.out.failed; at += 3000) {
                give(rig, script + at, total - at < 3000 ? total - at : 3000, 3000);
                if (!rig->outer.out.failed)
                    settle(rig);
                rig->said[0] = '\0';
            }
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        assert_true(!rig->outer.out.failed || hit);
        assert_true(rig->outer.out.failed || rig->heard_len == 180000);
        for (size_t at = 0; at < rig->heard_len; at += 5000)
            assert_memory_equal(rig->heard + at, plain + at % 60000, 5000);
        if (!rig->outer.out.failed)
            assert_memory_equal(rig->payload + 120000, plain, 60000);
        rig_free(rig);
        assert_int_equal(mem_in_use(), before);
        if (!hit)
            return;
    }
    fail_msg("it never ends");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(offers),
        cmocka_unit_test(vectors),
        cmocka_unit_test(every_byte_a_frame),
        cmocka_unit_test(packed_messages_cut_anywhere),
        cmocka_unit_test(rules),
        cmocka_unit_test(windows),
        cmocka_unit_test(too_big_when_unpacked),
        cmocka_unit_test(a_bomb_waits),
        cmocka_unit_test(turns),
        cmocka_unit_test(turns_without_bytes),
        cmocka_unit_test(a_pause_and_an_end_within),
        cmocka_unit_test(memory),
        cmocka_unit_test(packed_messages_that_leave),
        cmocka_unit_test(what_does_not_become_shorter),
        cmocka_unit_test(packed_text_that_leaves),
        cmocka_unit_test(loans_are_packed),
        cmocka_unit_test(refused_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
