/* Snapshots as bytes: pieces of any size give the same values, and what is short, long or too large is seen. */
#include "sql/query/state.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct bytes {
    uint8_t *at;
    size_t len, given, piece;
    unsigned takes_left;
};

static bool take(void *arg, struct slice piece)
{
    struct bytes *b = arg;
    if (!b->takes_left)
        return false;
    b->takes_left--;
    b->at = mem_realloc(b->at, b->len + piece.len);
    assert_non_null(b->at);
    memcpy(b->at + b->len, piece.ptr, piece.len);
    b->len += piece.len;
    return true;
}

static bool give(void *arg, struct slice *ret)
{
    struct bytes *b = arg;
    size_t some = b->piece < b->len - b->given ? b->piece : b->len - b->given;
    *ret = slice_of(b->at + b->given, some);
    b->given += some;
    return some > 0;
}

static const uint64_t numbers[] = {0, 1, 127, 128, 1u << 20, UINT64_MAX - 1, UINT64_MAX};
static const int64_t signed_numbers[] = {0, -1, 1, 63, -64, 64, INT64_MIN, INT64_MAX};

static void write_all(struct bytes *b, size_t text_len)
{
    struct state_writer w;
    uint8_t *text = mem_zalloc(text_len + 1);
    memset(text, 'x', text_len);
    assert_true(state_writer_init(&w, take, b));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        state_put_varint(&w, numbers[i]);
    for (size_t i = 0; i < ARRAY_LEN(signed_numbers); i++)
        state_put_signed(&w, signed_numbers[i]);
    state_put_slice(&w, slice_of(text, text_len));
    state_put_slice(&w, (struct slice){0});
    mem_free(text);
    assert_true(state_writer_end(&w));
}

static void gives_back(void **unused)
{
    (void)unused;
    static const size_t pieces[] = {1, 7, 4096, STATE_PIECE}, texts[] = {3, STATE_PIECE, 3 * STATE_PIECE + 5};
    for (size_t t = 0; t < ARRAY_LEN(texts); t++)
        for (size_t p = 0; p < ARRAY_LEN(pieces); p++) {
            struct bytes b = {.piece = pieces[p], .takes_left = 100};
            struct state_reader r;
            write_all(&b, texts[t]);
            state_reader_init(&r, give, &b);
            for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
                assert_true(state_get_varint(&r) == numbers[i]);
            for (size_t i = 0; i < ARRAY_LEN(signed_numbers); i++)
                assert_true(state_get_signed(&r) == signed_numbers[i]);
            size_t len = state_get_len(&r, texts[t]);
            assert_int_equal(len, texts[t]);
            uint8_t *text = mem_alloc(len);
            state_get(&r, text, len);
            assert_true(text[0] == 'x' && text[len - 1] == 'x');
            mem_free(text);
            assert_int_equal(state_get_len(&r, 10), 0);
            assert_true(state_reader_end(&r));
            mem_free(b.at);
        }
}

static bool reads(const void *bytes, size_t len, size_t max, bool varint)
{
    struct bytes b = {.at = (uint8_t *)(uintptr_t)bytes, .len = len, .piece = 1};
    struct state_reader r;
    state_reader_init(&r, give, &b);
    if (varint)
        (void)state_get_varint(&r);
    else
        (void)state_get_len(&r, max);
    return state_reader_end(&r);
}

static void sees_damage(void **unused)
{
    (void)unused;
    uint8_t endless[11];
    memset(endless, 0xff, sizeof endless);
    assert_true(reads("\x05", 1, 5, false));
    assert_false(reads("\x06", 1, 5, false)); /* too large */
    assert_false(reads("\x80", 1, 0, true));  /* short */
    assert_false(reads("", 0, 0, true));
    assert_false(reads("\x01\x01", 2, 0, true)); /* something is left */
    assert_false(reads(endless, sizeof endless, 0, true));
}

static void taker_fails(void **unused)
{
    (void)unused;
    struct bytes b = {.takes_left = 1};
    struct state_writer w;
    uint8_t *zeroes = mem_zalloc(3 * STATE_PIECE);
    assert_true(state_writer_init(&w, take, &b));
    state_put(&w, zeroes, 3 * STATE_PIECE);
    state_put_varint(&w, 1);
    assert_false(state_writer_end(&w));
    assert_int_equal(b.len, STATE_PIECE);
    mem_free(zeroes);
    mem_free(b.at);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_back),
        cmocka_unit_test(sees_damage),
        cmocka_unit_test(taker_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
