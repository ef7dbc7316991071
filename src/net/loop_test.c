/* loop and conn: an echo engine behind real sockets: bytes come back whole under partial consumption, pauses, big frames,
 * slow readers and closes; connections end once; an idle connection keeps no buffer. */
#include "net/loop.h"

#include "base/mem.h"
#include "net/conn.h"
#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* Frames of a 4-byte length and bytes; each is sent back as it came. */
struct echo {
    struct engine engine;
    bool was_shutdown;
    bool close_after_frame;
};

struct record {
    struct echo *last;
    int made, closed, drained, ticks;
    size_t in_max;
};

static struct record seen;

static size_t echo_feed(struct engine *engine, struct slice bytes)
{
    struct echo *echo = (struct echo *)engine;
    size_t used = 0;
    while (bytes.len - used >= 4 && !engine->paused && !engine->want_close) {
        uint32_t len;
        memcpy(&len, bytes.ptr + used, 4);
        if (bytes.len - used - 4 < len)
            break;
        outq_put(&engine->out, bytes.ptr + used, len + 4);
        used += len + 4;
        if (echo->close_after_frame)
            engine->want_close = true;
    }
    if (used)
        engine_dirty(engine);
    return used;
}

static mono_t echo_tick(struct engine *engine, mono_t now)
{
    (void)engine;
    seen.ticks++;
    return now + 20 * NS_PER_MS;
}

static void echo_drained(struct engine *engine)
{
    (void)engine;
    seen.drained++;
}

static void echo_shutdown(struct engine *engine, const char *text)
{
    outq_put(&engine->out, text, strlen(text));
    engine->want_close = true;
}

static void echo_closed(struct engine *engine)
{
    seen.closed++;
    outq_fini(&engine->out);
    mem_free(engine);
}

static const struct engine_ops echo_ops = {"echo", echo_feed, echo_tick, echo_drained, echo_shutdown, echo_closed};

static struct engine *echo_make(void *owner, void *arg, const struct os_peer *peer, mono_t now)
{
    (void)owner;
    (void)arg;
    (void)peer;
    (void)now;
    struct echo *echo = mem_zalloc(sizeof *echo);
    if (!echo)
        return NULL;
    echo->engine.ops = &echo_ops;
    echo->engine.in_max = seen.in_max ? seen.in_max : 128 * 1024;
    outq_init(&echo->engine.out);
    seen.made++;
    seen.last = echo;
    return &echo->engine;
}

static const struct engine_factory echo_factory = {echo_make, NULL};

static struct loop *make_loop(void)
{
    struct loop_options options = {.os = os_posix()};
    struct loop *loop;
    assert_int_equal(loop_new(&options, &loop), 0);
    return loop;
}

/* A connected pair; one end belongs to the loop, the other is answered, non-blocking. */
static int connect_pair(struct loop *loop)
{
    int fds[2];
    struct os_peer peer = {.text = "test", .loopback = true};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_true(loop_connect(loop, fds[0], &peer, &echo_factory));
    return fds[1];
}

static void set_up(size_t in_max)
{
    seen = (struct record){.in_max = in_max};
}

/* Sends frames of the given length and reads them back while the loop ticks; pieces of at most `step` bytes. */
static void talk(struct loop *loop, int fd, uint32_t len, unsigned count, size_t step)
{
    size_t total = (size_t)count * (len + 4);
    uint8_t *out = malloc(total), *in = malloc(total);
    for (unsigned i = 0; i < count; i++) {
        memcpy(out + (size_t)i * (len + 4), &len, 4);
        for (uint32_t j = 0; j < len; j++)
            out[(size_t)i * (len + 4) + 4 + j] = (uint8_t)(i * 7 + j);
    }
    size_t sent = 0, got = 0;
    for (unsigned round = 0; got < total && round < 2000000; round++) {
        if (sent < total) {
            ssize_t n = send(fd, out + sent, total - sent < step ? total - sent : step, 0);
            sent += n > 0 ? (size_t)n : 0;
        }
        loop_tick(loop, false);
        ssize_t n = recv(fd, in + got, total - got < step ? total - got : step, 0);
        got += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(got, total);
    assert_memory_equal(in, out, total);
    free(out);
    free(in);
}

static void echo_small_and_large(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    int fd = connect_pair(loop);
    talk(loop, fd, 100, 3000, 65536);
    talk(loop, fd, 100, 100, 7); /* frames come in crumbs */
    talk(loop, fd, 100000, 20, 1000);
    talk(loop, fd, 120000, 30, 1 << 20);
    assert_int_equal(conn_memory(seen.last->engine.conn) < 512, true); /* idle: nothing is kept */
    assert_true(seen.drained > 0);
    close(fd);
    loop_tick(loop, false);
    assert_int_equal(seen.closed, 1);
    assert_int_equal(loop_conns(loop), 0);
    loop_free(&loop);
}

static void pause_leaves_bytes_in_the_socket(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    int fd = connect_pair(loop);
    loop_tick(loop, false);
    seen.last->engine.paused = true;
    uint32_t frame[2] = {4, 42}, back[2] = {0};
    assert_int_equal(send(fd, frame, sizeof frame, 0), sizeof frame);
    struct loop_totals before, after;
    loop_tick(loop, false);
    loop_totals(loop, &before);
    for (int i = 0; i < 10; i++)
        loop_tick(loop, false);
    loop_totals(loop, &after);
    assert_int_equal(after.reads, before.reads); /* not read, and no busy reading either */
    assert_int_equal(recv(fd, back, sizeof back, 0), -1);
    seen.last->engine.paused = false;
    engine_dirty(&seen.last->engine);
    for (int i = 0; i < 3; i++)
        loop_tick(loop, false);
    assert_int_equal(recv(fd, back, sizeof back, 0), sizeof back);
    assert_memory_equal(frame, back, sizeof back);
    close(fd);
    loop_free(&loop);
    assert_int_equal(seen.closed, 1);
}

/* An engine that was full (as with a full command ring) is fed again when it says so, without new bytes. */
static void stalled_engine_is_fed_again(void **state)
{
    (void)state;
    set_up(1024);
    struct loop *loop = make_loop();
    int fd = connect_pair(loop);
    loop_tick(loop, false);
    seen.last->engine.paused = true; /* stands for "the ring is full": feed consumes nothing */
    uint32_t frame[2] = {4, 1};
    static uint8_t back[1600];
    for (int i = 0; i < 200; i++)
        assert_int_equal(send(fd, frame, sizeof frame, 0), sizeof frame);
    loop_tick(loop, false);
    seen.last->engine.paused = false;
    engine_dirty(&seen.last->engine);
    size_t got = 0;
    for (int i = 0; i < 1000 && got < sizeof back; i++) {
        loop_tick(loop, false);
        ssize_t n = recv(fd, back + got, sizeof back - got, 0);
        got += n > 0 ? (size_t)n : 0;
    }
    assert_int_equal(got, sizeof back);
    close(fd);
    loop_free(&loop);
}

static void hang_up_while_paused_is_noticed(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    int fd = connect_pair(loop);
    loop_tick(loop, false);
    seen.last->engine.paused = true;
    close(fd);
    mono_t until = os_posix()->now_mono(os_posix()) + 3 * NS_PER_S;
    while (!seen.closed && os_posix()->now_mono(os_posix()) < until)
        loop_tick(loop, true);
    assert_int_equal(seen.closed, 1);
    loop_free(&loop);
}

static void last_words_arrive(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    int fd = connect_pair(loop);
    loop_tick(loop, false);
    seen.last->close_after_frame = true;
    uint32_t frames[4] = {4, 1, 4, 2}, back[4];
    assert_int_equal(send(fd, frames, sizeof frames, 0), sizeof frames);
    for (int i = 0; i < 3; i++)
        loop_tick(loop, false);
    assert_int_equal(seen.closed, 1);
    assert_int_equal(recv(fd, back, sizeof back, 0), 8); /* the answer to the first, then the end */
    assert_int_equal(recv(fd, back, sizeof back, 0), 0);
    assert_int_equal(loop_conns(loop), 1); /* lingers until we close too */
    close(fd);
    loop_tick(loop, false);
    loop_tick(loop, false);
    assert_int_equal(loop_conns(loop), 0);
    loop_free(&loop);
}

static void shutdown_tells_everybody(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    int fds[20];
    char text[8];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        fds[i] = connect_pair(loop);
    loop_tick(loop, false);
    loop_shutdown(loop, "bye");
    loop_tick(loop, false);
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        assert_int_equal(recv(fds[i], text, sizeof text, 0), 3);
        close(fds[i]);
    }
    loop_tick(loop, false);
    loop_tick(loop, false);
    assert_int_equal(seen.closed, 20);
    assert_int_equal(loop_conns(loop), 0);
    loop_free(&loop);
}

static void ticks_come_by_themselves(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    int fd = connect_pair(loop);
    mono_t until = os_posix()->now_mono(os_posix()) + 5 * NS_PER_S;
    while (seen.ticks < 4 && os_posix()->now_mono(os_posix()) < until)
        loop_tick(loop, true);
    assert_true(seen.ticks >= 4);
    close(fd);
    loop_free(&loop);
}

static void never_reading_peer_holds_only_its_own(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    int deaf = connect_pair(loop), fd = connect_pair(loop);
    uint32_t frame[250] = {996};
    for (int i = 0; i < 4000; i++) {
        if (send(deaf, frame, sizeof frame, 0) < 0)
            loop_tick(loop, false);
    }
    talk(loop, fd, 1000, 500, 65536);
    close(deaf);
    close(fd);
    loop_free(&loop);
    assert_int_equal(seen.closed, 2);
}

static void listener_accepts_and_limits(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    struct listener *listener;
    char path[64], byte;
    snprintf(path, sizeof path, "loop_test.%d.sock", (int)getpid());
    struct listener_options options = {.loop = loop, .conns_max = 3, .factory = &echo_factory};
    assert_int_equal(listener_open_unix(&options, path, &listener), 0);
    int fds[5];
    for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
        assert_int_equal(os_unix_connect(path, &fds[i]), 0);
        loop_tick(loop, false);
    }
    loop_tick(loop, false);
    assert_int_equal(loop_conns(loop), 3);
    assert_int_equal(recv(fds[4], &byte, 1, 0), 0); /* told at once */
    for (size_t i = 0; i < ARRAY_LEN(fds); i++)
        close(fds[i]);
    loop_tick(loop, false);
    loop_tick(loop, false);
    assert_int_equal(loop_conns(loop), 0);
    listener_close(&listener);
    loop_free(&loop);
    unlink(path);
}

static void out_of_descriptors_is_survived(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    struct listener *listener;
    char path[64];
    snprintf(path, sizeof path, "loop_test.%d.sock", (int)getpid());
    struct listener_options options = {.loop = loop, .factory = &echo_factory};
    assert_int_equal(listener_open_unix(&options, path, &listener), 0);
    int waiting[3];
    for (size_t i = 0; i < ARRAY_LEN(waiting); i++)
        assert_int_equal(os_unix_connect(path, &waiting[i]), 0);
    struct rlimit before, tight;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    tight = before;
    int lowest = dup(0);
    close(lowest);
    tight.rlim_cur = (rlim_t)lowest;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    struct loop_totals totals;
    for (int i = 0; i < 5; i++)
        loop_tick(loop, false);
    assert_int_equal(seen.made, 0); /* one was turned away, the listener rests */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    mono_t until = os_posix()->now_mono(os_posix()) + 3 * NS_PER_S;
    while (seen.made < 2 && os_posix()->now_mono(os_posix()) < until)
        loop_tick(loop, true);
    assert_int_equal(seen.made, 2);
    loop_totals(loop, &totals);
    for (size_t i = 0; i < ARRAY_LEN(waiting); i++)
        close(waiting[i]);
    loop_free(&loop);
    unlink(path);
}

static void *wake_later(void *arg)
{
    usleep(20000);
    loop_wake(arg);
    return NULL;
}

static void wakes_are_not_lost(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    loop_wake(loop);
    loop_tick(loop, true); /* a wake before the sleep: returns at once, or this test hangs */
    pthread_t thread;
    pthread_create(&thread, NULL, wake_later, loop);
    loop_tick(loop, true);
    pthread_join(thread, NULL);
    loop_free(&loop);
}

/* Every allocation of a connection's life fails once: the connection may die, the loop may not, nothing leaks. */
static void failed_allocations_cost_one_connection(void **state)
{
    (void)state;
    set_up(0);
    struct loop *loop = make_loop();
    size_t before = mem_in_use();
    for (uint64_t n = 1; n < 200; n++) {
        int fds[2];
        struct os_peer peer = {.text = "test"};
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
        mem_fail_at(n, false);
        loop_connect(loop, fds[0], &peer, &echo_factory);
        uint32_t frame[30] = {116};
        static uint8_t back[65536];
        for (int i = 0; i < 20; i++) {
            ssize_t sent = send(fds[1], frame, i % 3 ? sizeof frame : 50, MSG_NOSIGNAL);
            loop_tick(loop, false);
            sent += recv(fds[1], back, sizeof back, 0);
            (void)sent;
        }
        bool hit = mem_failures_hit() > 0;
        mem_fail_at(0, false);
        close(fds[1]);
        loop_tick(loop, false);
        loop_tick(loop, false);
        assert_int_equal(loop_conns(loop), 0);
        assert_int_equal(mem_in_use(), before);
        if (!hit)
            break;
    }
    assert_int_equal(seen.made, seen.closed);
    loop_free(&loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo_small_and_large),        cmocka_unit_test(pause_leaves_bytes_in_the_socket),
        cmocka_unit_test(stalled_engine_is_fed_again), cmocka_unit_test(hang_up_while_paused_is_noticed),
        cmocka_unit_test(last_words_arrive),           cmocka_unit_test(shutdown_tells_everybody),
        cmocka_unit_test(ticks_come_by_themselves),    cmocka_unit_test(never_reading_peer_holds_only_its_own),
        cmocka_unit_test(listener_accepts_and_limits), cmocka_unit_test(out_of_descriptors_is_survived),
        cmocka_unit_test(wakes_are_not_lost),          cmocka_unit_test(failed_allocations_cost_one_connection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
