/* A connection, see conn.h. The loop's thread.
 *
 * Edge-triggered: each connection is added to epoll once, for everything, and no call is ever made to change that.
 * `readable` and `writable` remember the last edge; a connection that could be read and is not paused stands on the
 * loop's ready list. A paused connection leaves its bytes in the socket, which is how flow reaches the peer.
 *
 * Reading: into the loop's scratch buffer, feeding straight from there; only the unconsumed tail is kept, so an idle
 * connection has no buffer. A short tail (the usual half frame) is copied in front of the next gulp; a long one (a big
 * frame on its way) gets a buffer of its own, up to engine->in_max, that grows as bytes arrive, never on a promise.
 * An engine that leaves more than in_max unread is waiting for something (the core's ring): it is not read until it
 * says so by engine_dirty.
 *
 * TLS (tls.h) lies between the socket and all that: what is read is decrypted into the same scratch buffer, what leaves is
 * put together to whole records, pieces of files too, and sealed into a buffer of the loop. A connection's TLS begins with
 * it (engine_factory.tls), or when its engine says that what came is TLS (engine->begin_tls). Shaking hands costs more than
 * its bytes tell, so it is charged to the tick's budget like a full read.
 *
 * Closing: once want_close is set and everything is written the engine is told at once; the socket lingers, sending
 * FIN first and discarding what still comes, because closing with unread bytes would reset the connection and could
 * destroy the last words (close-ok) on their way. Hang-up while paused: what the socket still holds is read when the
 * pause ends, but after a second the peer counts as gone, or an alarm would keep dead sessions for hours. */
#include "net/conn.h"

#include "base/check.h"
#include "base/mem.h"
#include "net/net_int.h"
#include "net/tls.h"

#include <errno.h>
#include <stdio.h>

#define LINGER_NS (1 * NS_PER_S)
#define HANGUP_GRACE_NS (1 * NS_PER_S)
#define LAST_WORDS_NS (5 * NS_PER_S)         /* for a peer that does not read what want_close waits for */
#define STUCK_NS (10 * NS_PER_S)             /* for a peer that takes nothing of a file that has lost its name */
#define FLUSH_BYTES (2u << 20)               /* of one connection in a row, as far as there is more in its queue */
#define SEND_FILE_MAX (512u * 1024)          /* at once: the rest of a piece has its turn */
#define READ_SMALL (16u * 1024)              /* gulp while the engine's frames are small: before login */
#define RECORD_AS_IT_IS (TLS_RECORD_MAX / 4) /* a piece of that length is a record: to fill it up would cost a copy */
#define HANDSHAKE_COST READ_CONN_MAX         /* of a step of TLS's handshake, in bytes read */
#define COMPLAIN_EVERY_NS (1 * NS_PER_S)

struct conn {
    struct os_poll_target target; /* first */
    struct loop *loop;
    struct engine *engine; /* NULL: lingering or dead */
    struct tls *tls;       /* NULL: none */
    struct list link;      /* in loop->conns or loop->dead */
    struct list ready_link;
    struct timer timer; /* the engine's tick, the grace after a hang-up, or the end of lingering */
    mono_t cut_at;      /* a peer that hung up, or does not take our last words, is cut off then; MONO_NEVER: not */
    mono_t
        stuck_at; /* when it will have taken nothing for long of what has a file in it; MONO_NEVER: it takes, or no file */
    uint8_t *in; /* unconsumed bytes: in[in_at .. in_at + in_len) */
    uint32_t in_at, in_len, in_cap;
    int fd;
    bool readable, writable, hung_up, dead;
    bool refeed; /* the engine said that it may consume now */
};

static void on_events(struct os_poll_target *target, unsigned events);
static void on_timer(void *arg, struct timer *timer);

struct conn *conn_of_ready(struct list *node)
{
    return CONTAINER_OF(node, struct conn, ready_link);
}

struct conn *conn_of_link(struct list *node)
{
    return CONTAINER_OF(node, struct conn, link);
}

struct engine *conn_engine(struct conn *conn)
{
    return conn->engine;
}

size_t conn_memory(const struct conn *conn)
{
    return sizeof *conn + conn->in_cap + (conn->tls ? tls_memory(conn->tls) : 0);
}

static void ready_add(struct conn *conn)
{
    if (list_empty(&conn->ready_link))
        list_insert(&conn->loop->ready, &conn->ready_link);
}

static void timer_lower(struct conn *conn, mono_t due)
{
    if (due != MONO_NEVER && (!timer_is_set(&conn->timer) || due < conn->timer.due))
        wheel_set(&conn->loop->wheel, &conn->timer, due);
}

static void cut_in(struct conn *conn, mono_t grace_ns)
{
    conn->cut_at = conn->loop->now + grace_ns;
    timer_lower(conn, conn->cut_at);
}

/* After any call into the engine. */
static void engine_settled(struct conn *conn)
{
    if (conn->engine)
        timer_lower(conn, conn->engine->next_tick);
}

static void engine_adopt(struct conn *conn, struct engine *engine)
{
    conn->engine = engine;
    engine->conn = conn;
    engine->dirty = &conn->loop->dirty;
    engine->deflate = &conn->loop->deflate;
    engine->now = conn->loop->now;
}

/* ---- TLS ---- */

static int64_t pipe_recv(void *arg, void *ret, size_t len)
{
    return os_recv(((struct conn *)arg)->fd, ret, len);
}

static int64_t pipe_send(void *arg, const void *bytes, size_t len)
{
    struct iovec piece = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = len};
    return os_send_pieces(((struct conn *)arg)->fd, &piece, 1, false);
}

/* From now on what comes is TLS; early is what has come. False: no memory. */
static bool tls_begin(struct conn *conn, struct slice early)
{
    struct loop *loop = conn->loop;
    struct tls_pipe pipe = {.recv = pipe_recv, .send = pipe_send, .arg = conn};
    CHECK(!conn->tls && loop->options.tls);
    if (!loop->tls_buffers)
        loop->tls_buffers = tls_buffers_new();
    conn->tls = loop->tls_buffers ? tls_new(loop->options.tls, loop->tls_buffers, &pipe, early) : NULL;
    if (!conn->tls)
        return false;
    conn->engine->tls = true;
    conn->readable = true; /* what is in early */
    cut_in(conn, tls_handshake_ms(conn->tls) * NS_PER_MS);
    return true;
}

/* After every call into it: an edge has to come before more is written. */
static void tls_look(struct conn *conn)
{
    if (tls_owes(conn->tls))
        conn->writable = false;
}

/* Hands are shaken: now the engine may hear of the peer. */
static void tls_came_up(struct conn *conn)
{
    conn->engine->certified = tls_user(conn->tls);
    conn->cut_at = MONO_NEVER;
    if (conn->hung_up)
        cut_in(conn, HANGUP_GRACE_NS);
    if (tls_user(conn->tls))
        log_event(conn->loop->options.log, LOG_tls_user, log_str("peer", conn->engine->peer),
                  log_str("user", tls_user(conn->tls)));
    if (*tls_failure(conn->tls))
        log_event(conn->loop->options.log, LOG_tls_nobody, log_str("peer", conn->engine->peer),
                  log_str("reason", tls_failure(conn->tls)));
}

/* The peer hears why (an alert has left), and whoever looks after the broker, too. */
static void tls_complain(struct conn *conn)
{
    struct loop *loop = conn->loop;
    if (loop->tls_complained_at && loop->now - loop->tls_complained_at < COMPLAIN_EVERY_NS)
        return;
    loop->tls_complained_at = loop->now;
    log_event(loop->options.log, LOG_tls_failed, log_str("peer", conn->engine->peer),
              log_str("reason", tls_failure(conn->tls)), log_str("advice", tls_advice(conn->tls)));
}

struct conn *conn_open(struct loop *loop, int fd, const struct os_peer *peer, const struct engine_factory *factory)
{
    loop->now = loop->options.os->now_mono(loop->options.os); /* accepting comes before the tick takes the time */
    struct conn *conn = mem_zalloc_as(MEM_CONNECTIONS, sizeof *conn);
    struct engine *engine = conn ? factory->make(loop->options.owner, factory->arg, peer, loop->now) : NULL;
    if (!engine) {
        mem_free_as(MEM_CONNECTIONS, conn);
        os_socket_close(fd);
        return NULL;
    }
    *conn = (struct conn){.target.on_events = on_events,
                          .loop = loop,
                          .engine = engine,
                          .cut_at = MONO_NEVER,
                          .stuck_at = MONO_NEVER,
                          .fd = fd,
                          .readable = true,
                          .writable = true};
    list_init(&conn->ready_link);
    timer_init(&conn->timer, on_timer);
    list_insert(&loop->conns, &conn->link);
    atomic_fetch_add_explicit(&loop->conn_count, 1, memory_order_relaxed);
    loop->totals.accepted++;
    snprintf(engine->peer, sizeof engine->peer, "%s", peer->text);
    engine->peer_loopback = peer->loopback;
    engine_adopt(conn, engine);
    if ((factory->tls && !tls_begin(conn, (struct slice){0})) ||
        os_poll_add(&loop->poll, fd, OS_POLL_READ | OS_POLL_WRITE | OS_POLL_HANGUP | OS_POLL_EDGE, &conn->target) < 0) {
        conn_close(conn);
        return conn;
    }
    engine->next_tick = engine->ops->tick(engine, loop->now);
    engine_settled(conn);
    ready_add(conn);
    engine_dirty(engine);
    return conn;
}

/* Who has no login elsewhere either wonders why this port wants one. */
static void visitor_complain(struct loop *loop, const struct engine *engine)
{
    if (loop->visitor_complained_at && loop->now - loop->visitor_complained_at < COMPLAIN_EVERY_NS)
        return;
    loop->visitor_complained_at = loop->now;
    log_event(loop->options.log, LOG_visitor_refused, log_str("peer", engine->peer),
              log_str("protocol", engine->ops->name));
}

static void in_release(struct conn *conn)
{
    mem_free_as(MEM_CONNECTIONS, conn->in);
    conn->in = NULL;
    conn->in_at = conn->in_len = conn->in_cap = 0;
}

/* The engine hears that the transport is gone, and is not ours any more. */
static void engine_release(struct conn *conn)
{
    struct engine *engine = conn->engine;
    if (!engine)
        return;
    CHECK(!engine->successor); /* feed sets it, and then it is taken at once */
    conn->engine = NULL;
    if (engine->turned_away)
        visitor_complain(conn->loop, engine);
    if (engine->in_dirty) {
        list_remove(&engine->dirty_link);
        engine->in_dirty = false;
    }
    engine->dirty = NULL;
    engine->conn = NULL;
    engine->now = conn->loop->now;
    engine->ops->closed(engine);
}

void conn_close(struct conn *conn)
{
    if (conn->dead)
        return;
    conn->dead = true;
    engine_release(conn);
    wheel_cancel(&conn->loop->wheel, &conn->timer);
    if (!list_empty(&conn->ready_link))
        list_remove(&conn->ready_link);
    os_socket_close(conn->fd); /* leaves epoll with it */
    in_release(conn);
    tls_free(&conn->tls);
    list_remove(&conn->link);
    list_insert(&conn->loop->dead, &conn->link);
    atomic_fetch_sub_explicit(&conn->loop->conn_count, 1, memory_order_relaxed);
}

void conn_free(struct conn *conn)
{
    CHECK(conn->dead);
    list_remove(&conn->link);
    mem_free_as(MEM_CONNECTIONS, conn);
}

static void close_for_memory(struct conn *conn)
{
    log_event(conn->loop->options.log, LOG_connection_memory, log_str("peer", conn->engine ? conn->engine->peer : ""));
    conn_close(conn);
}

/* Everything is said: FIN, then discard what comes until the peer closes too. */
static void linger(struct conn *conn)
{
    engine_release(conn);
    in_release(conn);
    wheel_cancel(&conn->loop->wheel, &conn->timer);
    if (conn->tls)
        tls_bye(conn->tls);
    tls_free(&conn->tls);
    os_shutdown_write(conn->fd);
    wheel_set(&conn->loop->wheel, &conn->timer, conn->loop->now + LINGER_NS);
    ready_add(conn);
}

static void discard(struct conn *conn)
{
    int64_t n = os_recv(conn->fd, conn->loop->scratch, READ_GULP);
    if (n == 0 || (n < 0 && n != -EAGAIN))
        conn_close(conn);
    else if (n > 0)
        ready_add(conn);
    else
        conn->readable = false;
}

static void on_events(struct os_poll_target *target, unsigned events)
{
    struct conn *conn = CONTAINER_OF(target, struct conn, target);
    if (conn->dead)
        return;
    if (events & (OS_POLL_READ | OS_POLL_HANGUP))
        conn->readable = true;
    if (events & OS_POLL_HANGUP) {
        conn->hung_up = true;
        cut_in(conn, HANGUP_GRACE_NS);
    }
    if (conn->readable)
        ready_add(conn);
    if ((events & OS_POLL_WRITE) && !conn->writable) {
        conn->writable = true;
        if (conn->engine)
            engine_dirty(conn->engine);
    }
}

/* Room on the disk is not given back while somebody has a file that was dropped open: not for ever, then. */
static bool is_stuck(struct conn *conn)
{
    if (conn->stuck_at > conn->loop->now)
        return false;
    conn->stuck_at = conn->loop->now + STUCK_NS;
    return outq_has_orphan(&conn->engine->out);
}

static void on_timer(void *arg, struct timer *timer)
{
    struct loop *loop = arg;
    struct conn *conn = CONTAINER_OF(timer, struct conn, timer);
    if (!conn->engine) {
        conn_close(conn); /* lingered long enough */
        return;
    }
    if (conn->cut_at <= loop->now) {
        conn_close(conn);
        return;
    }
    struct engine *engine = conn->engine;
    if (is_stuck(conn)) {
        log_event(loop->options.log, LOG_piece_not_taken, log_str("peer", engine->peer));
        conn_close(conn);
        return;
    }
    engine->now = loop->now;
    if (engine->next_tick <= loop->now)
        engine->next_tick = engine->ops->tick(engine, loop->now);
    timer_lower(conn, conn->cut_at);
    timer_lower(conn, conn->stuck_at);
    engine_settled(conn);
}

static bool may_feed(const struct conn *conn)
{
    return conn->engine && !conn->engine->paused && !conn->engine->want_close && !conn->engine->out.failed;
}

static size_t in_max(const struct conn *conn)
{
    return conn->engine->in_max;
}

/* The connection is the successor's from now on; what was said before leaves first. */
static void engine_switch(struct conn *conn)
{
    struct engine *before = conn->engine, *after = before->successor;
    before->successor = NULL;
    outq_move(&before->out, &after->out);
    snprintf(after->peer, sizeof after->peer, "%s", before->peer);
    after->peer_loopback = before->peer_loopback;
    after->visiting = before->visiting;
    after->tls = before->tls;
    after->certified = before->certified;
    engine_release(conn);
    engine_adopt(conn, after);
    after->next_tick = after->ops->tick(after, conn->loop->now);
    engine_dirty(after);
}

static size_t feed(struct conn *conn, const uint8_t *bytes, size_t len)
{
    size_t used = 0;
    bool again;
    do {
        struct engine *engine = conn->engine;
        engine->now = conn->loop->now;
        size_t n = engine->ops->feed(engine, slice_of(bytes + used, len - used));
        CHECK(n <= len - used);
        used += n;
        if (engine->begin_tls) {
            engine->begin_tls = false;
            engine->out.failed |= !tls_begin(conn, slice_of(bytes + used, len - used));
            return len;
        }
        again = engine->successor;
        if (again)
            engine_switch(conn);
    } while (again && used < len && may_feed(conn));
    return used;
}

/* Makes sure that `in` can hold `need` bytes from in_at = 0 on. */
static bool in_reserve(struct conn *conn, size_t need)
{
    if (conn->in_at && conn->in_len)
        memmove(conn->in, conn->in + conn->in_at, conn->in_len);
    conn->in_at = 0;
    if (need <= conn->in_cap)
        return true;
    uint8_t *grown = mem_realloc_as(MEM_CONNECTIONS, conn->in, need);
    if (!grown)
        return false;
    conn->in = grown;
    conn->in_cap = (uint32_t)need;
    return true;
}

/* Keeps what the engine left of bytes that stand in the scratch buffer. */
static bool keep_tail(struct conn *conn, const uint8_t *bytes, size_t len)
{
    conn->in_len = 0;
    conn->in_at = 0;
    if (len == 0) {
        in_release(conn);
        return true;
    }
    if (!in_reserve(conn, len))
        return false;
    memcpy(conn->in, bytes, len);
    conn->in_len = (uint32_t)len;
    return true;
}

/* Lets the engine consume from `in`. */
static void feed_tail(struct conn *conn)
{
    size_t used = feed(conn, conn->in + conn->in_at, conn->in_len);
    conn->in_at += (uint32_t)used;
    conn->in_len -= (uint32_t)used;
    if (conn->in_len == 0)
        in_release(conn);
}

static size_t gulp_len(const struct conn *conn)
{
    size_t max = in_max(conn);
    return max >= READ_GULP ? READ_GULP : max > READ_SMALL ? max : READ_SMALL;
}

/* Bytes of the peer, decrypted; *ret_more: there may be more without another edge. */
static int64_t receive(struct conn *conn, void *ret, size_t len, bool *ret_more)
{
    if (!conn->tls) {
        int64_t n = os_recv(conn->fd, ret, len);
        *ret_more = n == (int64_t)len || (n > 0 && conn->hung_up);
        return n;
    }
    bool was_up = tls_is_up(conn->tls);
    *ret_more = false;
    int64_t n = tls_read(conn->tls, ret, len, ret_more);
    *ret_more |= conn->hung_up; /* its end came with the last edge */
    tls_look(conn);
    if (!was_up && tls_is_up(conn->tls))
        tls_came_up(conn);
    return n;
}

/* What receive said: true when bytes came. */
static bool received(struct conn *conn, int64_t n, bool more)
{
    conn->readable = more;
    if (n > 0) {
        conn->loop->totals.reads++;
        conn->loop->totals.bytes_in += (uint64_t)n;
        if (conn->hung_up)
            cut_in(conn, HANGUP_GRACE_NS);
        return true;
    }
    if (n == -EPROTO && conn->tls) {
        tls_complain(conn);
        linger(conn); /* or the alert would be lost with the connection */
    } else if (n != -EAGAIN) {
        conn_close(conn);
    }
    return false;
}

/* The usual case: everything new goes through the scratch buffer. */
static size_t read_scratch(struct conn *conn)
{
    uint8_t *scratch = conn->loop->scratch;
    size_t have = conn->in_len, asked = gulp_len(conn);
    bool more;
    int64_t n = receive(conn, scratch + have, asked, &more);
    if (!received(conn, n, more))
        return conn->engine && conn->readable ? asked : 0; /* much came that was nothing: that has its price */
    if (have)
        memcpy(scratch, conn->in + conn->in_at, have);
    size_t len = have + (size_t)n, used = feed(conn, scratch, len);
    if (!keep_tail(conn, scratch + used, len - used))
        close_for_memory(conn);
    return (size_t)n;
}

/* A big frame is on its way: it is gathered in the connection's own buffer, which doubles up to the engine's maximum. */
static size_t read_tail(struct conn *conn)
{
    size_t want = (size_t)conn->in_len * 2, max = in_max(conn);
    if (want > max)
        want = max;
    if (want < conn->in_len + 1)
        want = conn->in_len + 1;
    if (!in_reserve(conn, want)) {
        close_for_memory(conn);
        return 0;
    }
    size_t asked = conn->in_cap - conn->in_len;
    bool more;
    int64_t n = receive(conn, conn->in + conn->in_len, asked, &more);
    if (!received(conn, n, more))
        return conn->engine && conn->readable ? asked : 0;
    conn->in_len += (uint32_t)n;
    feed_tail(conn);
    return (size_t)n;
}

size_t conn_read(struct conn *conn, size_t budget)
{
    if (!conn->engine) {
        discard(conn);
        return 0;
    }
    size_t done = 0;
    if (conn->refeed && conn->in_len && may_feed(conn))
        feed_tail(conn);
    conn->refeed = false;
    bool shaking = conn->tls && !tls_is_up(conn->tls);
    while (!conn->dead && conn->readable && done < budget && may_feed(conn) && conn->in_len < in_max(conn))
        done += conn->in_len <= TAIL_COPY_MAX ? read_scratch(conn) : read_tail(conn);
    if (shaking)
        done += HANDSHAKE_COST;
    if (!conn->engine)
        return done;
    engine_settled(conn);
    if (conn->engine->out.len || conn->engine->want_close || conn->engine->out.failed)
        engine_dirty(conn->engine);
    if (conn->readable && done >= budget)
        ready_add(conn);
    return done;
}

/* What a write said. False: nothing more now. */
static bool sent(struct conn *conn, int64_t n)
{
    if (n == -EAGAIN)
        conn->writable = false; /* an edge comes when there is room again */
    else if (n < 0)
        conn_close(conn);
    if (n < 0)
        return false;
    conn->loop->totals.writes++;
    conn->loop->totals.bytes_out += (uint64_t)n;
    conn->stuck_at = MONO_NEVER;
    outq_consume(&conn->engine->out, (size_t)n);
    return true;
}

static bool write_memory(struct conn *conn)
{
    struct outq *out = &conn->engine->out;
    struct iovec pieces[WRITE_PIECES];
    int count = outq_peek(out, pieces, WRITE_PIECES);
    size_t asked = 0;
    for (int i = 0; i < count; i++)
        asked += pieces[i].iov_len;
    /* what is behind the pieces is in a file, and comes at once */
    int64_t n = os_send_pieces(conn->fd, pieces, count, count < WRITE_PIECES && asked < out->len);
    if (n >= 0 && (size_t)n < asked)
        conn->writable = false;
    return sent(conn, n);
}

/* Nothing can stand for these bytes: the peer was told how many there are. */
static void close_for_file(struct conn *conn, const struct file_piece *piece, int64_t n)
{
    log_event(conn->loop->options.log, LOG_piece_unreadable, log_str("peer", conn->engine->peer),
              log_str("reason", n < 0 ? strerror((int)-n) : "the file is shorter than it was"),
              log_num("position", (int64_t)piece->position));
    conn_close(conn);
}

/* Files that are not the system's, or that it cannot send from. */
static bool write_copied(struct conn *conn, const struct file_piece *piece)
{
    uint8_t *scratch = conn->loop->scratch;
    int64_t got =
        piece->file->read(piece->file, scratch, piece->len < READ_GULP ? piece->len : READ_GULP, piece->position);
    if (got <= 0) {
        close_for_file(conn, piece, got);
        return false;
    }
    struct iovec bytes = {.iov_base = scratch, .iov_len = (size_t)got};
    int64_t n = os_send_pieces(conn->fd, &bytes, 1, (size_t)got < conn->engine->out.len);
    if (n >= 0 && n < got)
        conn->writable = false;
    return sent(conn, n);
}

static bool write_file(struct conn *conn, const struct file_piece *piece)
{
    size_t len = piece->len < SEND_FILE_MAX ? piece->len : SEND_FILE_MAX;
    int64_t n = piece->file->fd < 0 ? -EINVAL : os_send_file(conn->fd, piece->file->fd, piece->position, len);
    if (n == -EINVAL || n == -ENOSYS)
        return write_copied(conn, piece);
    if (n == 0 || n == -EIO) {
        close_for_file(conn, piece, n);
        return false;
    }
    return sent(conn, n); /* a short count may be the file's doing: only -EAGAIN says that the socket is full */
}

/* What stands in front of the queue, at most a record of it, without a copy where it is long. 0 bytes: the connection is gone. */
static struct slice next_record(struct conn *conn)
{
    struct outq *out = &conn->engine->out;
    uint8_t *record = tls_buffers_record(conn->loop->tls_buffers);
    struct iovec pieces[WRITE_PIECES];
    struct file_piece piece;
    size_t len = 0;
    if (outq_peek_file(out, &piece)) {
        size_t want = piece.len < TLS_RECORD_MAX ? piece.len : TLS_RECORD_MAX;
        int64_t got = piece.file->read(piece.file, record, want, piece.position);
        if (got > 0)
            return slice_of(record, (size_t)got);
        close_for_file(conn, &piece, got);
        return (struct slice){0};
    }
    int count = outq_peek(out, pieces, WRITE_PIECES);
    if (pieces[0].iov_len >= RECORD_AS_IT_IS || count == 1)
        return slice_of(pieces[0].iov_base, pieces[0].iov_len < TLS_RECORD_MAX ? pieces[0].iov_len : TLS_RECORD_MAX);
    for (int i = 0; i < count && len < TLS_RECORD_MAX; i++) {
        size_t n = pieces[i].iov_len < TLS_RECORD_MAX - len ? pieces[i].iov_len : TLS_RECORD_MAX - len;
        memcpy(record + len, pieces[i].iov_base, n);
        len += n;
    }
    return slice_of(record, len);
}

/* Some records of the queue. False: nothing more now. */
static bool write_tls(struct conn *conn)
{
    struct outq *out = &conn->engine->out;
    size_t put = 0;
    int err = 0;
    for (unsigned i = 0; i < TLS_BATCH_RECORDS && out->len && err == 0; i++) {
        struct slice record = next_record(conn);
        if (!record.len)
            return false;
        err = tls_put(conn->tls, record.ptr, record.len);
        if (err == 0)
            outq_consume(out, record.len);
        put += record.len;
    }
    if (err == 0)
        err = tls_flush(conn->tls);
    if (err < 0 && err != -EAGAIN) {
        conn_close(conn);
        return false;
    }
    tls_look(conn);
    conn->loop->totals.writes++;
    conn->loop->totals.bytes_out += put;
    conn->stuck_at = MONO_NEVER;
    return err == 0;
}

/* What TLS has kept of earlier writes. False: the connection is gone. */
static bool write_owed(struct conn *conn)
{
    if (!conn->tls || !conn->writable || !tls_owes(conn->tls))
        return true;
    int err = tls_flush(conn->tls);
    tls_look(conn);
    if (err == 0 || err == -EAGAIN)
        return true;
    conn_close(conn);
    return false;
}

static bool owes(const struct conn *conn)
{
    return conn->tls && tls_owes(conn->tls);
}

/* Before hands are shaken there is nobody to write to. */
static bool may_write(const struct conn *conn)
{
    return conn->writable && (!conn->tls || tls_is_up(conn->tls));
}

static bool write_piece(struct conn *conn)
{
    struct file_piece piece;
    if (conn->tls)
        return write_tls(conn);
    return outq_peek_file(&conn->engine->out, &piece) ? write_file(conn, &piece) : write_memory(conn);
}

/* Writes until the queue is empty, the socket full, or others want their turn; false when the connection is gone. */
static bool write_out(struct conn *conn)
{
    bool more = true;
    const size_t before = conn->engine->out.len;
    while (more && may_write(conn) && conn->engine->out.len && before - conn->engine->out.len < FLUSH_BYTES)
        more = write_piece(conn);
    if (conn->dead)
        return false;
    if (may_write(conn) && conn->engine->out.len)
        engine_dirty(conn->engine);
    else if (conn->stuck_at == MONO_NEVER && conn->engine->out.files) {
        conn->stuck_at = conn->loop->now + STUCK_NS;
        timer_lower(conn, conn->stuck_at);
    }
    return true;
}

static bool has_drained(size_t before, size_t after)
{
    return before && (after == 0 || (before >= OUTQ_HIGH / 2 && after < OUTQ_HIGH / 2));
}

void conn_flush(struct conn *conn)
{
    struct engine *engine = conn->engine;
    if (engine->ops->gather) {
        engine->now = conn->loop->now;
        engine->ops->gather(engine);
    }
    if (engine->out.failed) {
        close_for_memory(conn);
        return;
    }
    size_t before = engine->out.len;
    if (!write_owed(conn) || (before && conn->writable && !write_out(conn)))
        return;
    if (has_drained(before, engine->out.len) && engine->ops->drained) {
        engine->now = conn->loop->now;
        engine->ops->drained(engine);
    }
    if (engine->want_close && engine->out.len == 0 && !owes(conn)) {
        linger(conn);
        return;
    }
    if (engine->want_close && conn->cut_at == MONO_NEVER)
        cut_in(conn, LAST_WORDS_NS);
    if (may_feed(conn) && (conn->in_len || conn->readable)) {
        conn->refeed = conn->in_len > 0;
        ready_add(conn);
    }
    engine_settled(conn);
}
