/* WebSocket: an engine that echoes behind frames that are cut at every byte, fragmented, wrong in every way that RFC 6455 names
 * and that Autobahn's cases 1 to 7 and 9 try; text, closing, slow peers, pauses, refused memory; and the handshake. */
#include "net/websocket_rig_test.h"
#include "net/websocket_upgrade.h"

/* ---- hearing ---- */

static uint8_t script[600000], plain[600000];

/* Cases 1, 2 and 5: frames of every length form, fragments, control frames between them. */
static size_t script_write(size_t *ret_plain)
{
    size_t at = 0, len = 0;
    static const size_t lens[] = {0, 1, 124, 125, 126, 127, 128, 65535, 65536, 70001};
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        for (size_t k = 0; k < lens[i]; k++)
            plain[len + k] = (uint8_t)('a' + (k * 7 + i) % 20);
        size_t half = lens[i] / 3;
        at += frame_to(script + at, BIN | FIN, plain + len, lens[i]);
        memmove(plain + len + lens[i], plain + len, lens[i]); /* the same again, in three fragments */
        const uint8_t *again = plain + len + lens[i];
        at += frame_to(script + at, BIN, again, half);
        at += frame_to(script + at, PING, "between", 7);
        at += frame_to(script + at, CONT, again + half, 0);
        at += frame_to(script + at, PONG, "unasked", 7);
        at += frame_to(script + at, CONT | FIN, again + half, lens[i] - half);
        len += 2 * lens[i];
    }
    *ret_plain = len;
    return at;
}

static void frames_cut_anywhere(void **state)
{
    static const size_t steps[] = {1, 2, 3, 5, 13, 131, 4096, 65536, sizeof script}, units[] = {1, 7, 5000};
    size_t len, total = script_write(&len), before = mem_in_use();
    (void)state;
    for (size_t u = 0; u < ARRAY_LEN(units); u++)
        for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
            struct rig *rig = rig_new(false);
            rig->unit = units[u];
            rig->options.message_bytes_max = 1u << 20;
            for (size_t at = 0; at < total; at += steps[i]) {
                give(rig, script + at, total - at < steps[i] ? total - at : steps[i], steps[i]);
                flush(rig, SIZE_MAX);
                rig->said[0] = '\0';
            }
            settle(rig);
            assert_int_equal(rig->in_len, 0);
            assert_int_equal(rig->heard_len, len / units[u] * units[u]);
            assert_memory_equal(rig->heard, plain, rig->heard_len);
            assert_int_equal(rig->payload_len, rig->heard_len);
            assert_memory_equal(rig->payload, plain, rig->heard_len);
            assert_int_equal(rig->closed, 0);
            assert_true(rig->drained > 0);
            rig_free(rig);
            assert_int_equal(mem_in_use(), before);
        }
}

static void pings_get_pongs(void **state)
{
    struct rig *rig = rig_new(false);
    char longest[126];
    (void)state;
    memset(longest, 'p', 125);
    longest[125] = '\0';
    give_frame(rig, PING, "", 1);
    give_frame(rig, PING, "hello", 1);
    give_frame(rig, PONG, "hello", 1);
    give_frame(rig, PING, longest, 3);
    give_frame(rig, BIN, "ab", 1);
    give_frame(rig, PING, "mid", 1);
    give_frame(rig, CONT | FIN, "cd", 1);
    settle(rig);
    assert_string_equal(rig->said, "pong\npong hello\npong [125]\npong mid\nbinary abcd\n");
    rig_free(rig);
}

/* A peer that pings and does not read: it is not listened to above a bound. */
static void pongs_are_bounded(void **state)
{
    struct rig *rig = rig_new(false);
    uint8_t ping[140];
    size_t len = frame_to(ping, PING, script, 125);
    (void)state;
    for (int i = 0; i < 20000 && rig->in_len == 0; i++)
        give(rig, ping, len, len);
    assert_true(rig->in_len > 0);
    assert_true(rig->outer.out.len <= OUTQ_HIGH + 127);
    settle(rig);
    give(rig, ping, len, len);
    assert_int_equal(rig->in_len, 0);
    rig_free(rig);
}

/* Cases 3 to 5, 7: each is refused at the byte that breaks the rule, and nothing is heard of what comes behind it. */
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
    ROW(false, "\xc2\x80" M, "close 1002\n"),
    ROW(false, "\xa2\x80" M, "close 1002\n"),
    ROW(false, "\x92\x80" M, "close 1002\n"),
    ROW(false, "\xc9\x80" M, "close 1002\n"),
    ROW(false,
        "\x82\x01"
        "a",
        "close 1002\n"), /* not masked */
    ROW(false, "\x89\x00", "close 1002\n"),
    ROW(false, "\x83\x80" M, "close 1002\n"),
    ROW(false, "\x84\x81" M "a", "close 1002\n"),
    ROW(false, "\x85\x80" M, "close 1002\n"),
    ROW(false, "\x86\x80" M, "close 1002\n"),
    ROW(false, "\x87\x80" M, "close 1002\n"),
    ROW(false, "\x8b\x80" M, "close 1002\n"),
    ROW(false, "\x8c\x80" M, "close 1002\n"),
    ROW(false, "\x8d\x80" M, "close 1002\n"),
    ROW(false, "\x8e\x80" M, "close 1002\n"),
    ROW(false, "\x8f\x80" M, "close 1002\n"),
    ROW(false, "\x09\x80" M, "close 1002\n"), /* a ping in parts */
    ROW(false, "\x08\x80" M, "close 1002\n"),
    ROW(false, "\x89\xfe\x00\x7e", "close 1002\n"), /* of 126 bytes */
    ROW(false, "\x88\xff", "close 1002\n"),
    ROW(false, "\x80\x81" M "a", "close 1002\n"), /* continues nothing */
    ROW(false, "\x00\x81" M "a", "close 1002\n"),
    ROW(false, "\x82\x80" M "\x80\x80" M, "close 1002\n"),
    ROW(false, "\x02\x80" M "\x82\x80" M, "close 1002\n"), /* within another */
    ROW(true, "\x01\x80" M "\x81\x80" M, "close 1002\n"),
    ROW(false, "\x82\xfe\x00\x7d", "close 1002\n"), /* too long forms */
    ROW(false, "\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", "close 1002\n"),
    ROW(false, "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00", "close 1002\n"),
    ROW(false, "\x82\xff\x7f\x00\x00\x00\x00\x00\x00\x00" M, "close 1009\n"),
    ROW(false, "\x82\xff\x00\x00\x00\x00\x00\x04\x93\xe1" M, "close 1009\n"), /* 300001 */
    ROW(false, "\x02\x80" M "\x80\xff\x00\x00\x00\x00\x00\x04\x93\xe1" M, "close 1009\n"),
    ROW(false, "\x02\x81" M "a\x80\xff\x00\x00\x00\x00\x00\x04\x93\xe0" M, "close 1009\n"),
    ROW(false, "\x81\x80" M, "close 1003\n"), /* text where none is */
    ROW(false, "\x01\x80" M, "close 1003\n"),
    ROW(true, "\x81\x81" M "\xff", "close 1007\n"),
    ROW(true, "\x81\x84" M "\xf4\x90\x80\x80", "close 1007\n"),
    ROW(true, "\x81\x82" M "\xce\x41", "close 1007\n"),       /* a character that does not go on */
    ROW(true, "\x01\x81" M "\xce\x80\x80" M, "close 1007\n"), /* ends within a character */
    ROW(false, "\x88\x81" M "a", "close 1002\n"),
    ROW(false, "\x88\x83" M "\x03\xe8\xff", "close 1007\n"),
    ROW(false, "\x88\x80" M, "close\n"),
    ROW(false, "\x88\x82" M "\x03\xe8", "close 1000\n"),
    ROW(false,
        "\x88\x87" M "\x03\xe8"
        "hello",
        "close 1000\n"),
};

static void rules(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(broken); i++)
        for (size_t step = 1; step <= 64; step *= 4) {
            struct rig *rig = rig_new(broken[i].text);
            rig->echo = false;
            give_frame(rig, BIN | FIN, "ok", step);
            settle(rig);
            rig->said[0] = '\0';
            size_t len = broken[i].len;
            memcpy(script, broken[i].bytes, len);
            len += frame_to(script + len, BIN | FIN, "unheard", 7);
            len += frame_to(script + len, PING, "unheard", 7);
            give(rig, script, len, step);
            settle(rig);
            if (strcmp(rig->said, broken[i].said) != 0 || !rig->outer.want_close || rig->closed != 1 || rig->in_len ||
                rig->heard_len > 3)
                fail_msg("row %zu by %zu: %s", i, step, rig->said);
            rig_free(rig);
        }
}

/* Cases 7.7, 7.9, 7.13. */
static void close_codes(void **state)
{
    (void)state;
    for (unsigned code = 0; code <= 65535; code = code < 5100 ? code + 1 : code * 2 + 1) {
        bool fine = (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
                    (code >= 3000 && code <= 4999);
        struct rig *rig = rig_new(false);
        uint8_t payload[2] = {(uint8_t)(code >> 8), (uint8_t)code}, bytes[20];
        char want[40];
        give(rig, bytes, frame_to(bytes, CLOSE, payload, 2), 20);
        settle(rig);
        snprintf(want, sizeof want, "close %u\n", fine ? code : 1002);
        assert_string_equal(rig->said, want);
        rig_free(rig);
    }
}

/* Case 6: the same text cut into fragments and bytes everywhere. */
static void text_in_fragments(void **state)
{
    static const char text[] =
        "Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!! \xf0\x9f\x90\x98";
    (void)state;
    for (size_t cut = 0; cut < sizeof text; cut++)
        for (size_t step = 1; step < 40; step += 6) {
            struct rig *rig = rig_new(true);
            uint8_t bytes[200];
            size_t len = frame_to(bytes, TEXT, text, cut);
            rig->parrot->rig->unit = 1;
            len += frame_to(bytes + len, PING, "", 0);
            len += frame_to(bytes + len, CONT | FIN, text + cut, sizeof text - 1 - cut);
            give(rig, bytes, len, step);
            /* '!' ends the parrot's conversation: what is behind it is not heard, but must not look like an error */
            settle(rig);
            assert_int_equal(rig->heard_len, strcspn(text, "!") + 1);
            assert_non_null(strstr(rig->said, "close 1000\n"));
            rig_free(rig);
        }
}

/* ---- saying ---- */

static void speak(struct rig *rig, const void *bytes, size_t len)
{
    outq_put(&rig->parrot->engine.out, bytes, len);
    engine_dirty(&rig->parrot->engine);
}

static void messages_that_leave(void **state)
{
    static const struct {
        size_t len;
        const char *said;
    } rows[] = {
        {1, "binary a\n"},
        {125, "binary [125]\n"},
        {126, "binary [126]\n"},
        {65535, "binary [65535]\n"},
        {65536, "binary [65536]\n"},
        {65537, "binary [65536]\nbinary b\n"},
        {300000, "binary [65536]\nbinary [65536]\nbinary [65536]\nbinary [65536]\nbinary [37856]\n"},
    };
    (void)state;
    for (size_t i = 0; i < 300000; i++)
        plain[i] = (uint8_t)('a' + i / 65536);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct rig *rig = rig_new(false);
        speak(rig, plain, rows[i].len);
        settle(rig);
        assert_string_equal(rig->said, rows[i].said);
        assert_int_equal(rig->payload_len, rows[i].len);
        assert_memory_equal(rig->payload, plain, rows[i].len);
        rig_free(rig);
    }
}

static void text_that_leaves(void **state)
{
    struct rig *rig = rig_new(true);
    (void)state;
    speak(rig, "first", 5); /* text, until the peer has shown what it sends */
    settle(rig);
    give_frame(rig, BIN | FIN, "b", 1);
    settle(rig);
    give_frame(rig, TEXT | FIN, "t", 1);
    settle(rig);
    speak(rig, "\xff", 1); /* the body of somebody else */
    settle(rig);
    speak(rig, "\xc3", 1); /* a character in two parts */
    settle(rig);
    assert_string_equal(rig->said, "text first\nbinary b\ntext t\nbinary \xff\nbinary \xc3\n");
    rig->said[0] = '\0';
    memset(plain, 'a', 65535);
    memcpy(plain + 65535, "\xc3\xa4z", 3);
    speak(rig, plain, 65538);
    settle(rig);
    assert_string_equal(rig->said, "text [65535]\ntext \xc3\xa4z\n");
    rig_free(rig);
}

static void on_release(void *arg, void *owner)
{
    (void)owner;
    ((struct rig *)arg)->released++;
}

/* A body that is lent is cut into messages without being copied, and given back once: also when the engine is gone first. */
static void loans(void **state)
{
    (void)state;
    for (int gone = 0; gone < 3; gone++) {
        struct rig *rig = rig_new(false);
        for (size_t i = 0; i < 300000; i++)
            plain[i] = (uint8_t)(i * 31 + i / 253);
        outq_put(&rig->parrot->engine.out, plain, 10);
        outq_lend(&rig->parrot->engine.out, slice_of(plain + 10, 200000), on_release, rig, NULL);
        outq_put(&rig->parrot->engine.out, plain + 200010, 10);
        size_t before = mem_in_use();
        websocket_gather(rig->ws);
        assert_true(mem_in_use() - before < 3000);
        flush(rig, 100000);
        assert_int_equal(rig->released, 0);
        if (gone == 1)
            websocket_closed(&rig->ws);
        if (gone == 2)
            give_frame(rig, BIN, "x", 1), give_frame(rig, BIN, "", 1); /* breaks a rule */
        if (gone != 1)
            settle(rig);
        assert_int_equal(rig->released, gone != 1);
        if (gone == 0) {
            assert_int_equal(rig->payload_len, 200020);
            assert_memory_equal(rig->payload, plain, 200020);
        }
        outq_fini(&rig->outer.out);
        assert_int_equal(rig->released, 1);
        rig_free(rig);
    }
}

/* What a slow peer does not take stays where its engine sees it. */
static void slow_peer(void **state)
{
    struct rig *rig = rig_new(false);
    (void)state;
    memset(plain, 'p', 300000);
    for (int i = 0; i < 4; i++)
        speak(rig, plain, 300000);
    for (int i = 0; i < 100; i++) {
        flush(rig, 1000);
        assert_true(rig->outer.out.len <= WEBSOCKET_AHEAD_MAX + WEBSOCKET_MESSAGE_OUT_MAX + 100);
    }
    assert_true(rig->parrot->engine.out.len > 700000);
    assert_int_equal(rig->drained, 0);
    settle(rig);
    assert_int_equal(rig->payload_len, 1200000);
    assert_true(rig->drained > 1);
    rig_free(rig);
}

/* ---- flow ---- */

static void pauses(void **state)
{
    struct rig *rig = rig_new(false);
    (void)state;
    give_frame(rig, BIN | FIN, "ab#cd", 64);
    assert_true(rig->outer.paused);
    assert_int_equal(rig->heard_len, 3);
    give_frame(rig, BIN | FIN, "ef", 64);
    give_frame(rig, PING, "x", 64);
    settle(rig);
    assert_int_equal(rig->heard_len, 3);
    assert_string_equal(rig->said, "binary ab#\n");
    rig->parrot->engine.paused = false;
    settle(rig); /* the engine said so by engine_dirty; what was left comes first */
    assert_false(rig->outer.paused);
    assert_int_equal(rig->heard_len, 5);
    give(rig, "", 0, 1);
    size_t used = websocket_feed(rig->ws, slice_of(rig->in, rig->in_len));
    assert_int_equal(used, rig->in_len);
    settle(rig);
    assert_memory_equal(rig->heard, "ab#cdef", 7);
    assert_string_equal(rig->said, "binary ab#\nbinary cd\npong x\nbinary ef\n");
    rig_free(rig);
}

/* An engine that takes nothing for now, without a pause (the core's ring is full): no more than it can hold is kept. */
static void full_ring(void **state)
{
    struct rig *rig = rig_new(false);
    (void)state;
    rig->unit = 1000000;
    rig->parrot->engine.in_max = 5000;
    memset(plain, 'r', 100000);
    size_t len = frame_to(script, BIN | FIN, plain, 100000), before = mem_in_use();
    size_t used = websocket_feed(rig->ws, slice_of(script, len));
    assert_true(used >= 5000 && used <= 5000 + 16384 + 14);
    assert_int_equal(websocket_feed(rig->ws, slice_of(script + used, len - used)), 0);
    rig->unit = 10;
    websocket_gather(rig->ws);
    while (used < len) {
        size_t n = websocket_feed(rig->ws, slice_of(script + used, len - used));
        assert_true(n > 0);
        used += n;
        settle(rig);
    }
    assert_int_equal(rig->heard_len, 100000);
    assert_memory_equal(rig->heard, plain, 100000);
    assert_int_equal(mem_in_use(), before); /* and nothing is kept any more */
    rig_free(rig);
}

/* ---- endings ---- */

static void the_engine_leaves(void **state)
{
    (void)state;
    for (int peer_answers = 0; peer_answers < 2; peer_answers++) {
        struct rig *rig = rig_new(false);
        give_frame(rig, BIN | FIN, "bye!ignored", 64);
        settle(rig);
        assert_string_equal(rig->said, "binary bye!\nclose 1000\n");
        assert_int_equal(rig->closed, 1);
        assert_false(rig->outer.want_close);
        assert_true(rig->outer.next_tick <= 6 * NS_PER_S);
        give_frame(rig, BIN | FIN, "ignored", 1);
        give_frame(rig, PING, "ignored", 1);
        rig->outer.now = 5 * NS_PER_S;
        assert_int_equal(websocket_tick(rig->ws, 5 * NS_PER_S), 6 * NS_PER_S);
        if (peer_answers)
            give_frame(rig, CLOSE, "\x03\xe8", 1);
        else
            assert_int_equal(websocket_tick(rig->ws, 6 * NS_PER_S), MONO_NEVER);
        assert_true(rig->outer.want_close);
        settle(rig);
        assert_string_equal(rig->said, "binary bye!\nclose 1000\n");
        rig_free(rig);
    }
}

/* Its last bytes do not leave: not for ever. */
static void nobody_reads_the_goodbye(void **state)
{
    struct rig *rig = rig_new(false);
    (void)state;
    for (int i = 0; i < 3; i++)
        speak(rig, plain, 300000);
    give_frame(rig, BIN | FIN, "!", 1);
    flush(rig, 10);
    assert_int_equal(rig->closed, 0);
    give_frame(rig, BIN | FIN, "ignored", 1);
    rig->outer.now = 6 * NS_PER_S;
    assert_int_equal(websocket_tick(rig->ws, 6 * NS_PER_S), MONO_NEVER);
    assert_int_equal(rig->closed, 1);
    assert_true(rig->outer.want_close);
    rig_free(rig);
}

static void the_broker_stops(void **state)
{
    struct rig *rig = rig_new(false);
    (void)state;
    websocket_shutdown(rig->ws, "shutdown"); /* an engine that waits for its peer's word */
    settle(rig);
    assert_string_equal(rig->said, "binary shutdown\n");
    rig->parrot->engine.want_close = true;
    settle(rig);
    assert_string_equal(rig->said, "binary shutdown\nclose 1001\n");
    websocket_shutdown(rig->ws, "again");
    settle(rig);
    assert_string_equal(rig->said, "binary shutdown\nclose 1001\n");
    rig_free(rig);
}

static void pings(void **state)
{
    struct rig *rig = rig_new(false);
    (void)state;
    assert_int_equal(websocket_tick(rig->ws, 30 * NS_PER_S), 31 * NS_PER_S);
    assert_int_equal(websocket_tick(rig->ws, 31 * NS_PER_S), 61 * NS_PER_S);
    settle(rig);
    assert_string_equal(rig->said, "ping\n");
    rig->outer.now = 40 * NS_PER_S;
    give_frame(rig, PONG, "", 1);
    assert_int_equal(websocket_tick(rig->ws, 61 * NS_PER_S), 70 * NS_PER_S);
    rig->parrot->engine.paused = true;
    settle(rig);
    assert_int_equal(websocket_tick(rig->ws, 70 * NS_PER_S), 100 * NS_PER_S); /* who is not read cannot answer */
    settle(rig);
    assert_string_equal(rig->said, "ping\n");
    assert_int_equal(rig->ticks, 1);
    websocket_tick(rig->ws, 101 * NS_PER_S);
    assert_int_equal(rig->ticks, 2);
    rig_free(rig);
    rig = rig_new(false);
    rig->options.ping_ms = 0;
    assert_int_equal(websocket_tick(rig->ws, 90 * NS_PER_S), 101 * NS_PER_S);
    rig_free(rig);
}

/* Every allocation fails once: the connection goes, or nobody notices; nothing leaks and nothing is heard wrong. */
static void refused_memory(void **state)
{
    size_t len, total = script_write(&len), before = mem_in_use();
    (void)state;
    for (uint64_t n = 1; n < 100000; n++) {
        struct rig *rig = rig_new(false);
        rig->unit = 5000;
        mem_fail_at(n, false);
        for (size_t at = 0; at < total && !rig->outer.out.failed; at += 30000) {
            give(rig, script + at, total - at < 30000 ? total - at : 30000, 30000);
            if (!rig->outer.out.failed)
                flush(rig, SIZE_MAX);
            rig->said[0] = '\0';
        }
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        assert_int_equal(rig->outer.out.failed, hit);
        assert_memory_equal(rig->heard, plain, rig->heard_len);
        rig_free(rig);
        assert_int_equal(mem_in_use(), before);
        if (!hit)
            return;
    }
}

static void refused_at_once(void **state)
{
    struct engine outer = {.next_tick = MONO_NEVER}, inner = {.ops = &parrot_ops}, *taken = &inner;
    struct websocket_options options = {.message_bytes_max = 1};
    (void)state;
    outq_init(&outer.out);
    mem_fail_at(1, false);
    assert_null(websocket_open(&options, &outer, &taken, false, &(struct websocket_terms){0}, 0));
    mem_fail_at(0, false);
    assert_ptr_equal(taken, &inner);
}

/* ---- the handshake ---- */

#define ASK "GET /ws HTTP/1.1\r\nHost: h\r\n"
#define UPGRADE "Upgrade: websocket\r\n"
#define CONNECTION "Connection: keep-alive, Upgrade\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"

static void parse(const char *text, struct http_request *ret)
{
    static char head[2000]; /* the request is a loan of it */
    int n = snprintf(head, sizeof head, "%s\r\n", text);
    assert_int_equal(http_parse(slice_of(head, (size_t)n), ret), 0);
}

static void upgrades(void **state)
{
    static const struct {
        const char *text;
        unsigned status; /* 0: it does not ask */
    } rows[] = {
        {ASK, 0},
        {ASK "Upgrade: h2c\r\n" CONNECTION KEY VERSION, 0},
        {ASK UPGRADE CONNECTION KEY VERSION, 101},
        {ASK "Upgrade: h2c, WebSocket\r\nConnection: UPGRADE\r\n" KEY VERSION, 101},
        {ASK UPGRADE KEY VERSION, 400},
        {ASK UPGRADE "Connection: close\r\n" KEY VERSION, 400},
        {ASK UPGRADE CONNECTION VERSION, 400},
        {ASK UPGRADE CONNECTION KEY, 426},
        {ASK UPGRADE CONNECTION KEY "Sec-WebSocket-Version: 8\r\n", 426},
        {ASK UPGRADE CONNECTION KEY VERSION VERSION, 426},
        {ASK UPGRADE CONNECTION KEY KEY VERSION, 400},
        {ASK UPGRADE CONNECTION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n" VERSION, 400},
        {ASK UPGRADE CONNECTION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=\r\n" VERSION, 400}, /* 17 bytes */
        {ASK UPGRADE CONNECTION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25!ZQ==\r\n" VERSION, 400},
        {ASK UPGRADE CONNECTION KEY VERSION "Content-Length: 1\r\n", 400},
        {ASK UPGRADE CONNECTION KEY VERSION "Transfer-Encoding: chunked\r\n", 400},
        {"POST /ws HTTP/1.1\r\nHost: h\r\n" UPGRADE CONNECTION KEY VERSION, 400},
        {"GET /ws HTTP/1.0\r\n" UPGRADE CONNECTION KEY VERSION, 400},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_request r;
        char accept[WEBSOCKET_ACCEPT_LEN + 1];
        parse(rows[i].text, &r);
        assert_int_equal(websocket_asked(&r), rows[i].status != 0);
        if (!rows[i].status)
            continue;
        if (websocket_check(&r, accept) != rows[i].status)
            fail_msg("row %zu", i);
        if (rows[i].status == 101)
            assert_string_equal(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); /* section 1.3 */
    }
    char text[300];
    for (int protocol = 0; protocol < 2; protocol++) {
        struct writer w = writer_of(text, sizeof text);
        websocket_put_answer(&w, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", slice_str(protocol ? "mqtt" : ""),
                             &(struct websocket_terms){0});
        assert_true(writer_ok(&w));
        text[w.len] = '\0';
        assert_non_null(strstr(text, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert_int_equal(strstr(text, "Sec-WebSocket-Protocol: mqtt\r\n") != NULL, protocol);
        assert_null(strstr(text, "Extensions"));
    }
}

static void origins(void **state)
{
    static const struct {
        const char *origin, *allowed;
        bool loopback, fine;
    } rows[] = {
        {NULL, "", true, true},
        {NULL, "https://a.example", false, true},
        {"http://localhost", "", true, true},
        {"http://LOCALHOST:3000", "", true, true},
        {"https://127.0.0.1:8443", "", true, true},
        {"http://[::1]:80", "", true, true},
        {"http://evil.example", "", true, false},
        {"http://localhost.evil.example", "", true, false},
        {"http://127.0.0.1.evil.example:80", "", true, false},
        {"null", "", true, false},
        {"file://localhost", "", true, false},
        {"", "", true, false},
        {"http://evil.example", "", false, true},
        {"http://evil.example", "*", true, true},
        {"http://a.example", "https://a.example", true, false},
        {"https://a.example", "http://b.example:8080 https://a.example", true, true},
        {"https://a.example", "http://b.example:8080,https://a.example", false, true},
        {"https://a.example.com", "https://a.example", false, false},
        {"https://a.exampl", "https://a.example", false, false},
        {"http://localhost", "https://a.example", true, false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct http_request r;
        char text[300];
        snprintf(text, sizeof text, ASK "%s%s%s", rows[i].origin ? "Origin: " : "",
                 rows[i].origin ? rows[i].origin : "", rows[i].origin ? "\r\n" : "");
        parse(text, &r);
        if (websocket_origin_allowed(&r, rows[i].allowed, rows[i].loopback) != rows[i].fine)
            fail_msg("row %zu", i);
    }
    struct http_request r;
    parse(ASK "Origin: http://localhost\r\nOrigin: http://localhost\r\n", &r);
    assert_false(websocket_origin_allowed(&r, "", true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_cut_anywhere),
        cmocka_unit_test(pings_get_pongs),
        cmocka_unit_test(pongs_are_bounded),
        cmocka_unit_test(rules),
        cmocka_unit_test(close_codes),
        cmocka_unit_test(text_in_fragments),
        cmocka_unit_test(messages_that_leave),
        cmocka_unit_test(text_that_leaves),
        cmocka_unit_test(loans),
        cmocka_unit_test(slow_peer),
        cmocka_unit_test(pauses),
        cmocka_unit_test(full_ring),
        cmocka_unit_test(the_engine_leaves),
        cmocka_unit_test(nobody_reads_the_goodbye),
        cmocka_unit_test(the_broker_stops),
        cmocka_unit_test(pings),
        cmocka_unit_test(refused_memory),
        cmocka_unit_test(refused_at_once),
        cmocka_unit_test(upgrades),
        cmocka_unit_test(origins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
