/* loop and conn: an echo engine behind real sockets: bytes come back whole under partial consumption, pauses, big frames,
 * slow readers and closes; connections end once; an idle connection keeps no buffer; pieces of files arrive whole or not at all. */
#include "net/loop.h"

#include "base/mem.h"
#include "net/conn.h"
#include "net/listener.h"
#include "os/os_file.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
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

static const struct engine_ops echo_ops = {.name = "echo",
                                           .feed = echo_feed,
                                           .tick = echo_tick,
                                           .drained = echo_drained,
                                           .shutdown = echo_shutdown,
                                           .closed = echo_closed};

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

static const struct engine_factory echo_factory = {.make = echo_make};

static struct loop *make_loop_on(struct os *os)
{
    struct loop_options options = {.os = os};
    struct loop *loop;
    assert_int_equal(loop_new(&options, &loop), 0);
    return loop;
}

static struct loop *make_loop(void)
{
    return make_loop_on(os_posix());
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

/* ------------------------------------------------------------------------------------------------------------- files */

#define FILE_LEN (3u << 20) /* more than a socket buffers */

struct counted_os { /* the real one, but that it counts what is closed */
    struct os os;
    unsigned closed;
};

static int count_close(struct os *os, int fd)
{
    ((struct counted_os *)os)->closed++;
    return os_posix()->close(os_posix(), fd);
}

static uint8_t file_byte(size_t at)
{
    return (uint8_t)(at * 31 + at / 251);
}

/* A file without name; copied: not one that sendfile may be used for. */
static struct counted_file *make_file(struct counted_os *counted, bool copied)
{
    char path[] = "loop_test.XXXXXX";
    int fd = mkstemp(path);
    uint8_t *bytes = malloc(FILE_LEN);
    for (size_t i = 0; i < FILE_LEN; i++)
        bytes[i] = file_byte(i);
    assert_int_equal(write(fd, bytes, FILE_LEN), FILE_LEN);
    free(bytes);
    unlink(path);
    *counted = (struct counted_os){.os = *os_posix()};
    counted->os.close = count_close;
    struct counted_file *handle = os_file_new(&counted->os, fd);
    assert_non_null(handle);
    assert_int_equal(handle->fd, -1); /* not the system's table */
    handle->fd = copied ? -1 : fd;
    return handle;
}

/* Truncates what is behind a handle. */
static void cut_file(struct counted_file *handle, off_t len)
{
    int fd = handle->fd;
    assert_int_equal(ftruncate(fd, len), 0);
}

static void lend_file(struct outq *q, struct counted_file *file, uint64_t position, size_t len)
{
    struct file_piece piece = {.file = counted_file_ref(file), .position = position, .len = len};
    outq_lend_file(q, &piece);
}

static void on_release(void *arg, void *owner)
{
    (void)owner;
    ++*(int *)arg;
}

/* Everything that can be had, in steps, while the loop ticks and sleeps: a lost edge would end it early. 0: the peer closed. */
static size_t read_ticking(struct loop *loop, int fd, uint8_t *ret, size_t max, size_t step)
{
    size_t got = 0;
    mono_t until = os_posix()->now_mono(os_posix()) + 20 * NS_PER_S;
    while (got < max && os_posix()->now_mono(os_posix()) < until) {
        ssize_t n = recv(fd, ret + got, max - got < step ? max - got : step, 0);
        if (n == 0)
            break;
        got += n > 0 ? (size_t)n : 0;
        if (n < 0) /* the loop must have been told that there is room */
            loop_tick(loop, true);
    }
    return got;
}

static int listen_local(int *ret_fd)
{
    assert_int_equal(os_tcp_listen("127.0.0.1", 0, ret_fd), 0);
    return os_socket_port(*ret_fd);
}

/* A real TCP pair. */
static int connect_tcp(struct loop *loop)
{
    int listener, fd = socket(AF_INET, SOCK_STREAM, 0), ours;
    struct os_peer peer;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    to.sin_port = htons((uint16_t)listen_local(&listener));
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(os_accept(listener, &ours, &peer), 0);
    close(listener);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_true(loop_connect(loop, ours, &peer, &echo_factory));
    return fd;
}

static void file_pieces_arrive_whole(void **state)
{
    (void)state;
    for (unsigned row = 0; row < 8; row++) {
        struct counted_os counted;
        struct counted_file *file = make_file(&counted, row & 1);
        static uint8_t lent[50000], back[FILE_LEN + 2 * sizeof lent + 1000];
        memset(lent, 'l', sizeof lent);
        int released = 0;
        set_up(0);
        struct loop *loop = make_loop();
        int fd = row & 2 ? connect_tcp(loop) : connect_pair(loop);
        loop_tick(loop, false);
        struct outq *out = &seen.last->engine.out;
        outq_put(out, "head", 4);
        lend_file(out, file, 7, FILE_LEN - 8);
        outq_lend(out, slice_of(lent, sizeof lent), on_release, &released, NULL);
        lend_file(out, file, 100, 1);
        lend_file(out, file, 0, 50);
        outq_put(out, "tail", 4);
        counted_file_unref(file);
        size_t total = out->len;
        engine_dirty(&seen.last->engine);
        assert_int_equal(read_ticking(loop, fd, back, total, row & 4 ? 1u << 20 : 3000), total);
        assert_memory_equal(back, "head", 4);
        for (size_t i = 7; i < FILE_LEN - 1; i++)
            if (back[i - 3] != file_byte(i))
                fail_msg("row %u: byte %zu", row, i);
        const uint8_t *at = back + FILE_LEN - 4;
        assert_memory_equal(at, lent, sizeof lent);
        at += sizeof lent;
        assert_int_equal(at[0], file_byte(100));
        for (size_t i = 0; i < 50; i++)
            assert_int_equal(at[1 + i], file_byte(i));
        assert_memory_equal(at + 51, "tail", 4);
        assert_int_equal(released, 1);
        assert_int_equal(counted.closed, 1);
        assert_int_equal(seen.closed, 0);
        talk(loop, fd, 100, 10, 65536); /* and it goes on */
        close(fd);
        loop_free(&loop);
    }
}

/* A file that is shorter than was promised ends its connection: the peer sees the end, never other bytes in that place. */
static void short_file_closes_its_connection(void **state)
{
    (void)state;
    for (unsigned row = 0; row < 4; row++) {
        struct counted_os counted;
        struct counted_file *file = make_file(&counted, false);
        static uint8_t back[FILE_LEN + 100];
        set_up(0);
        struct loop *loop = make_loop();
        int deaf = connect_pair(loop);
        struct engine *engine = &seen.last->engine;
        int other = connect_pair(loop);
        loop_tick(loop, false);
        size_t cut = row < 2 ? FILE_LEN / 2 : FILE_LEN - 1;
        lend_file(&engine->out, file, 0, FILE_LEN);
        outq_put(&engine->out, "tail", 4);
        counted_file_unref(file);
        engine_dirty(engine);
        loop_tick(loop, false); /* some has left */
        cut_file(file, (off_t)cut);
        if (row & 1)
            file->fd = -1;
        assert_int_equal(read_ticking(loop, deaf, back, sizeof back, 65536), cut);
        for (size_t i = 0; i < cut; i++)
            if (back[i] != file_byte(i))
                fail_msg("byte %zu", i);
        assert_int_equal(seen.closed, 1);
        assert_int_equal(counted.closed, 1);
        talk(loop, other, 100, 10, 65536); /* nobody else has heard of it */
        close(deaf);
        close(other);
        loop_free(&loop);
    }
}

struct fast_clock { /* the real one, ahead of itself */
    struct os os;
    mono_t ahead;
};

static mono_t fast_now(struct os *os)
{
    return os_posix()->now_mono(os_posix()) + ((struct fast_clock *)os)->ahead;
}

static void seconds(struct loop *loop, struct fast_clock *fast, unsigned n)
{
    for (unsigned i = 0; i < 2 * n; i++) {
        fast->ahead += NS_PER_S / 2;
        loop_tick(loop, false);
    }
}

/* Who takes nothing is let go when what he has keeps room on the disk, and not before he has had his time. */
static void file_without_name_is_not_kept_for_ever(void **state)
{
    (void)state;
    for (unsigned takes = 0; takes < 2; takes++) {
        struct fast_clock fast = {.os = *os_posix()};
        struct counted_os counted;
        struct counted_file *file = make_file(&counted, false);
        static uint8_t back[200000];
        fast.os.now_mono = fast_now;
        set_up(0);
        struct loop *loop = make_loop_on(&fast.os);
        int fd = connect_pair(loop), deaf = connect_pair(loop);
        loop_tick(loop, false);
        struct outq *out = &seen.last->engine.out; /* of the second */
        outq_put(out, "head", 4);
        lend_file(out, file, 0, FILE_LEN);
        engine_dirty(&seen.last->engine);
        seconds(loop, &fast, 65);
        assert_int_equal(seen.closed, 0); /* it has its name: nobody minds */
        atomic_store(&file->orphan, true);
        counted_file_unref(file);
        if (takes) {
            seconds(loop, &fast, 2);
            while (recv(deaf, back, sizeof back, 0) > 0)
                continue;
            seconds(loop, &fast, 9);
            assert_int_equal(seen.closed, 0);
            assert_int_equal(counted.closed, 0);
        }
        seconds(loop, &fast, takes ? 2 : 10);
        assert_int_equal(seen.closed, 1);
        assert_int_equal(counted.closed, 1);
        talk(loop, fd, 100, 10, 65536);
        close(fd);
        close(deaf);
        loop_free(&loop);
    }
}

static void peer_that_goes_gives_the_file_back(void **state)
{
    (void)state;
    for (unsigned row = 0; row < 4; row++) {
        struct counted_os counted;
        struct counted_file *file = make_file(&counted, row & 1);
        set_up(0);
        struct loop *loop = make_loop();
        int fd = row & 2 ? connect_tcp(loop) : connect_pair(loop);
        loop_tick(loop, false);
        lend_file(&seen.last->engine.out, file, 0, FILE_LEN);
        lend_file(&seen.last->engine.out, file, 0, FILE_LEN);
        counted_file_unref(file);
        engine_dirty(&seen.last->engine);
        loop_tick(loop, false);
        assert_int_equal(counted.closed, 0);
        close(fd);
        mono_t until = os_posix()->now_mono(os_posix()) + 5 * NS_PER_S;
        while (!seen.closed && os_posix()->now_mono(os_posix()) < until)
            loop_tick(loop, true);
        assert_int_equal(seen.closed, 1);
        assert_int_equal(counted.closed, 1);
        loop_free(&loop);
    }
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* as the broker does: sendfile knows no other way */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo_small_and_large),
        cmocka_unit_test(pause_leaves_bytes_in_the_socket),
        cmocka_unit_test(stalled_engine_is_fed_again),
        cmocka_unit_test(hang_up_while_paused_is_noticed),
        cmocka_unit_test(last_words_arrive),
        cmocka_unit_test(shutdown_tells_everybody),
        cmocka_unit_test(ticks_come_by_themselves),
        cmocka_unit_test(never_reading_peer_holds_only_its_own),
        cmocka_unit_test(listener_accepts_and_limits),
        cmocka_unit_test(out_of_descriptors_is_survived),
        cmocka_unit_test(wakes_are_not_lost),
        cmocka_unit_test(failed_allocations_cost_one_connection),
        cmocka_unit_test(file_pieces_arrive_whole),
        cmocka_unit_test(short_file_closes_its_connection),
        cmocka_unit_test(file_without_name_is_not_kept_for_ever),
        cmocka_unit_test(peer_that_goes_gives_the_file_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
