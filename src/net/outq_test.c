/* outq: what goes in comes out, in order, whole; loans are given back exactly once; refused memory is sticky. */
#include "net/outq.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void on_release(void *arg, void *owner)
{
    (void)owner;
    ++*(int *)arg;
}

/* A file whose bytes are at hand. */
struct memory_file {
    struct counted_file handle; /* first */
    const uint8_t *bytes;
    unsigned closed;
};

static int64_t memory_read(struct counted_file *handle, void *ret, size_t len, uint64_t at)
{
    memcpy(ret, ((struct memory_file *)handle)->bytes + at, len);
    return (int64_t)len;
}

static void memory_close(struct counted_file *handle)
{
    ((struct memory_file *)handle)->closed++;
}

static struct memory_file memory_file(const uint8_t *bytes)
{
    return (struct memory_file){.handle = {.refs = 1, .fd = -1, .read = memory_read, .close = memory_close},
                                .bytes = bytes};
}

static void lend_file(struct outq *q, struct memory_file *file, uint64_t position, size_t len)
{
    struct file_piece piece = {.file = counted_file_ref(&file->handle), .position = position, .len = len};
    outq_lend_file(q, &piece);
    assert_null(piece.file);
}

/* Takes everything out in steps of at most `step` bytes. */
static size_t drain(struct outq *q, uint8_t *ret, size_t step)
{
    size_t done = 0;
    while (q->len) {
        struct iovec pieces[4];
        struct file_piece piece;
        int count = outq_peek(q, pieces, 4);
        size_t left = step;
        assert_int_equal(outq_peek_file(q, &piece), count == 0);
        if (!count) {
            size_t n = piece.len < step ? piece.len : step;
            assert_int_equal(piece.file->read(piece.file, ret + done, n, piece.position), n);
            outq_consume(q, n);
            done += n;
            continue;
        }
        for (int i = 0; i < count && left; i++) {
            size_t n = pieces[i].iov_len < left ? pieces[i].iov_len : left;
            memcpy(ret + done, pieces[i].iov_base, n);
            done += n;
            left -= n;
        }
        outq_consume(q, step - left);
    }
    return done;
}

static void order_is_kept(void **state)
{
    (void)state;
    static uint8_t in[200000], out[200000];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 31 + i / 251);
    struct outq q;
    outq_init(&q);
    int released = 0;
    struct memory_file file = memory_file(in);
    size_t at = 0, before = mem_in_use();
    for (size_t n = 1; at + n <= sizeof in; n = n * 3 % 5003 + 1) {
        if (n % 4 == 0)
            lend_file(&q, &file, at, n);
        else if (n % 3 == 0)
            outq_lend(&q, slice_of(in + at, n), on_release, &released, NULL);
        else if (n % 3 == 1)
            outq_put(&q, in + at, n);
        else {
            uint8_t *room = outq_room(&q, n);
            assert_non_null(room);
            memcpy(room, in + at, n);
            outq_commit(&q, n);
        }
        at += n;
        assert_int_equal(q.len, at);
    }
    assert_int_equal(drain(&q, out, 777), at);
    assert_memory_equal(in, out, at);
    assert_true(released > 0);
    assert_int_equal(file.handle.refs, 1);
    assert_int_equal(file.closed, 0);
    assert_int_equal(mem_in_use(), before); /* an empty queue holds nothing */
    outq_fini(&q);
}

static void loans_come_back_once(void **state)
{
    (void)state;
    struct outq q;
    outq_init(&q);
    int released = 0;
    static const uint8_t body[3000] = {1};
    outq_lend(&q, slice_of(body, sizeof body), on_release, &released, NULL);
    outq_put(&q, "tail", 4);
    outq_consume(&q, sizeof body - 1);
    assert_int_equal(released, 0);
    outq_consume(&q, 1);
    assert_int_equal(released, 1);
    outq_lend(&q, slice_of(body, 10), on_release, &released, NULL);
    outq_lend(&q, slice_of(body, 0), on_release, &released, NULL); /* nothing to say: back at once */
    assert_int_equal(released, 2);
    outq_fini(&q);
    assert_int_equal(released, 3);
}

static void files_are_closed_by_their_last_holder(void **state)
{
    (void)state;
    struct outq q;
    struct iovec piece[2];
    struct file_piece left;
    struct memory_file file = memory_file((const uint8_t *)"0123456789");
    outq_init(&q);
    assert_false(outq_peek_file(&q, &left));
    assert_non_null(outq_room(&q, 100)); /* and nothing written: no byte stands in front */
    lend_file(&q, &file, 2, 6);
    lend_file(&q, &file, 0, 0); /* nothing to say */
    outq_put(&q, "behind", 6);
    lend_file(&q, &file, 9, 1);
    counted_file_unref(&file.handle);
    assert_int_equal(q.len, 13);
    assert_int_equal(outq_peek(&q, piece, 2), 0); /* nothing overtakes a piece of a file */
    outq_consume(&q, 4);
    assert_true(outq_peek_file(&q, &left));
    assert_int_equal(left.position, 6);
    assert_int_equal(left.len, 2);
    outq_consume(&q, 5);
    assert_int_equal(outq_peek(&q, piece, 2), 1);
    assert_int_equal(piece[0].iov_len, 3);
    assert_int_equal(file.closed, 0);
    outq_fini(&q);
    assert_int_equal(file.closed, 1);
}

/* From one queue into another, in runs that end anywhere: nothing changes its place, loans come back once. */
static void moving(void **state)
{
    (void)state;
    static uint8_t in[200000], out[200000];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i * 31 + i / 251);
    for (size_t run = 1; run < 30000; run = run * 3 + 1) {
        struct outq from, to;
        int released = 0, lent = 0;
        struct memory_file file = memory_file(in);
        size_t at = 0, moved = 0, before = mem_in_use();
        outq_init(&from);
        outq_init(&to);
        for (size_t n = 1; at + n <= sizeof in; n = n * 3 % 5003 + 1) {
            if (n % 4 == 0)
                lend_file(&from, &file, at, n);
            else if (n % 3 == 0)
                outq_lend(&from, slice_of(in + at, n), on_release, &released, NULL), lent++;
            else
                outq_put(&from, in + at, n);
            at += n;
        }
        assert_non_null(outq_room(&from, 100)); /* nothing comes into it */
        while (from.len) {
            size_t n = from.len < run ? from.len : run;
            outq_move_some(&from, &to, n);
            moved += n;
            assert_int_equal(to.len, moved);
            assert_int_equal(from.len, at - moved);
        }
        outq_move_some(&from, &to, 0);
        outq_fini(&from);
        assert_int_equal(released, 0);
        assert_false(to.failed);
        assert_int_equal(drain(&to, out, 777), at);
        assert_memory_equal(in, out, at);
        assert_int_equal(released, lent);
        assert_int_equal(file.handle.refs, 1);
        assert_int_equal(from.files, 0);
        assert_int_equal(to.files, 0);
        outq_fini(&to);
        assert_int_equal(mem_in_use(), before);
    }
}

/* The parts of a loan may go in any order. */
static void parts_of_a_loan(void **state)
{
    (void)state;
    static const uint8_t body[3000] = {1};
    for (int order = 0; order < 2; order++) {
        struct outq from, to;
        int released = 0;
        size_t before = mem_in_use();
        outq_init(&from);
        outq_init(&to);
        outq_lend(&from, slice_of(body, sizeof body), on_release, &released, NULL);
        outq_move_some(&from, &to, 1000);
        outq_move_some(&from, &to, 1000);
        outq_fini(order ? &from : &to);
        assert_int_equal(released, 0);
        outq_fini(order ? &to : &from);
        assert_int_equal(released, 1);
        assert_int_equal(mem_in_use(), before);
    }
}

static void moving_without_memory(void **state)
{
    (void)state;
    static const uint8_t body[3000] = {1};
    for (uint64_t n = 1; n < 10; n++) {
        struct outq from, to;
        int released = 0;
        struct memory_file file = memory_file(body);
        size_t before = mem_in_use();
        outq_init(&from);
        outq_init(&to);
        outq_put(&from, body, 10);
        outq_lend(&from, slice_of(body, sizeof body), on_release, &released, NULL);
        lend_file(&from, &file, 0, 100);
        mem_fail_at(n, false);
        outq_move_some(&from, &to, 1000);
        outq_move_some(&from, &to, 2050);
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        assert_int_equal(to.failed, hit);
        assert_int_equal(from.len, 60);
        outq_fini(&from);
        outq_fini(&to);
        assert_int_equal(released, 1);
        assert_int_equal(file.handle.refs, 1);
        assert_int_equal(mem_in_use(), before);
        if (!hit)
            return;
    }
    fail_msg("ten allocations for three pieces");
}

static void room_without_commit_is_no_byte(void **state)
{
    (void)state;
    struct outq q;
    struct iovec piece[2];
    outq_init(&q);
    assert_non_null(outq_room(&q, 100));
    outq_commit(&q, 0);
    assert_int_equal(outq_peek(&q, piece, 2), 0);
    outq_put(&q, "x", 1);
    assert_int_equal(outq_peek(&q, piece, 2), 1);
    outq_fini(&q);
}

static void refused_memory_is_sticky(void **state)
{
    (void)state;
    struct outq q;
    int released = 0;
    outq_init(&q);
    mem_fail_at(1, false);
    assert_null(outq_room(&q, 10));
    assert_true(q.failed);
    outq_put(&q, "lost", 4);
    outq_lend(&q, slice_str("lost"), on_release, &released, NULL);
    assert_int_equal(released, 1);
    struct memory_file file = memory_file((const uint8_t *)"lost");
    lend_file(&q, &file, 0, 4);
    assert_int_equal(file.handle.refs, 1);
    q.failed = false; /* and this is the first that is refused */
    mem_fail_at(1, false);
    lend_file(&q, &file, 0, 4);
    assert_true(q.failed);
    assert_int_equal(file.handle.refs, 1);
    assert_int_equal(q.len, 0);
    mem_fail_at(0, false);
    outq_fini(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_kept),
        cmocka_unit_test(loans_come_back_once),
        cmocka_unit_test(files_are_closed_by_their_last_holder),
        cmocka_unit_test(moving),
        cmocka_unit_test(parts_of_a_loan),
        cmocka_unit_test(moving_without_memory),
        cmocka_unit_test(room_without_commit_is_no_byte),
        cmocka_unit_test(refused_memory_is_sticky),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
