/* What a connection has to say, see outq.h. The loop's thread.
 *
 * A list of pieces: chunks, into which small things are copied, loans, and pieces of files, which are loans whose bytes are
 * not in memory. An empty queue holds no memory, so that an idle
 * connection costs nothing; the first chunk is small (heartbeats, single replies) and later ones grow to OUTQ_CHUNK_LEN.
 * Refused memory sets `failed`: what was written after that is dropped, and the connection has to be closed, because the
 * peer would otherwise see a stream with a hole. */
#include "net/outq.h"

#include "base/check.h"
#include "base/mem.h"

#define CHUNK_LEN_FIRST 960u /* with its header within the allocator's fast bins */
#define CHUNK_LEN_AFTER_LOAN 256u
#define MOVE_COPY_MAX                                                                                                  \
    1024u /* a shorter chunk is moved by copying it behind what stands there: one piece less to write */

struct piece {
    struct list link;
    uint8_t *at;                             /* first byte that has not left; piece of a file: NULL */
    size_t len;                              /* bytes that have not left */
    size_t room;                             /* chunk: bytes that can still be added behind */
    void (*release)(void *arg, void *owner); /* loan */
    void *arg, *owner;                       /* piece of a file: the owner is its handle */
    uint64_t position;                       /* piece of a file: of the first byte that has not left */
    uint8_t bytes[];
};

/* A loan of which parts are in several pieces, maybe of several queues. */
struct parted {
    void (*release)(void *arg, void *owner);
    void *arg, *owner;
    unsigned parts;
};

void outq_init(struct outq *q)
{
    list_init(&q->pieces);
    q->len = 0;
    q->files = 0;
    q->failed = false;
}

static void piece_free(struct piece *piece)
{
    list_remove(&piece->link);
    if (piece->release)
        piece->release(piece->arg, piece->owner);
    mem_free_as(MEM_CONNECTIONS, piece);
}

void outq_fini(struct outq *q)
{
    LIST_EACH(&q->pieces, node, after)
    piece_free(CONTAINER_OF(node, struct piece, link));
    q->len = 0;
    q->files = 0;
}

static struct piece *last_piece(const struct outq *q)
{
    return list_empty(&q->pieces) ? NULL : CONTAINER_OF(q->pieces.prev, struct piece, link);
}

static struct piece *chunk_add(struct outq *q, size_t n)
{
    const struct piece *last = last_piece(q);
    size_t room = q->len == 0 ? CHUNK_LEN_FIRST : q->len < OUTQ_CHUNK_LEN / 2 ? OUTQ_CHUNK_LEN / 4 : OUTQ_CHUNK_LEN;
    if (last && last->release)
        room = CHUNK_LEN_AFTER_LOAN; /* frame heads between bodies: the next piece is a loan again */
    if (room < n)
        room = n;
    struct piece *piece = mem_alloc_as(MEM_CONNECTIONS, sizeof *piece + room);
    if (!piece) {
        q->failed = true;
        return NULL;
    }
    *piece = (struct piece){.at = piece->bytes, .room = room};
    list_insert(&q->pieces, &piece->link);
    return piece;
}

uint8_t *outq_room(struct outq *q, size_t n)
{
    CHECK(n <= OUTQ_CHUNK_LEN);
    if (q->failed)
        return NULL;
    struct piece *piece = last_piece(q);
    if (!piece || piece->release || piece->room < n)
        piece = chunk_add(q, n);
    return piece ? piece->at + piece->len : NULL;
}

void outq_commit(struct outq *q, size_t used)
{
    struct piece *piece = last_piece(q);
    CHECK(piece && !piece->release && used <= piece->room);
    piece->len += used;
    piece->room -= used;
    q->len += used;
}

void outq_put(struct outq *q, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    while (len && !q->failed) {
        struct piece *piece = last_piece(q);
        if (!piece || piece->release || piece->room == 0)
            piece = chunk_add(q, len < OUTQ_CHUNK_LEN ? len : OUTQ_CHUNK_LEN);
        if (!piece)
            return;
        size_t n = len < piece->room ? len : piece->room;
        memcpy(piece->at + piece->len, at, n);
        outq_commit(q, n);
        at += n;
        len -= n;
    }
}

void outq_lend(struct outq *q, struct slice bytes, void (*release)(void *arg, void *owner), void *arg, void *owner)
{
    CHECK(release);
    struct piece *piece = q->failed || bytes.len == 0 ? NULL : mem_alloc_as(MEM_CONNECTIONS, sizeof *piece);
    if (!piece) {
        if (bytes.len)
            q->failed = true;
        release(arg, owner);
        return;
    }
    *piece =
        (struct piece){.at = (uint8_t *)bytes.ptr, .len = bytes.len, .release = release, .arg = arg, .owner = owner};
    list_insert(&q->pieces, &piece->link);
    q->len += bytes.len;
}

static void release_file(void *arg, void *owner)
{
    (void)arg;
    counted_file_unref(owner);
}

static bool is_file(const struct piece *piece)
{
    return piece->release == release_file;
}

void outq_lend_file(struct outq *q, struct file_piece *lent)
{
    struct piece *piece = q->failed || lent->len == 0 ? NULL : mem_alloc_as(MEM_CONNECTIONS, sizeof *piece);
    CHECK(lent->file || !lent->len);
    if (!piece) {
        if (lent->len)
            q->failed = true;
        file_piece_fini(lent);
        return;
    }
    *piece = (struct piece){.len = lent->len, .release = release_file, .owner = lent->file, .position = lent->position};
    list_insert(&q->pieces, &piece->link);
    q->len += lent->len;
    q->files++;
    *lent = (struct file_piece){0};
}

bool outq_peek_file(const struct outq *q, struct file_piece *ret)
{
    LIST_EACH(&q->pieces, node, after)
    {
        const struct piece *piece = CONTAINER_OF(node, struct piece, link);
        if (!piece->len)
            continue; /* a chunk that nothing was written to */
        if (is_file(piece))
            *ret = (struct file_piece){.file = piece->owner, .position = piece->position, .len = piece->len};
        return is_file(piece);
    }
    return false;
}

bool outq_has_orphan(const struct outq *q)
{
    LIST_EACH(&q->pieces, node, after)
    {
        const struct piece *piece = CONTAINER_OF(node, struct piece, link);
        const struct counted_file *file = piece->owner;
        if (is_file(piece) && atomic_load_explicit(&file->orphan, memory_order_relaxed))
            return true;
    }
    return false;
}

int outq_peek(const struct outq *q, struct iovec *ret, int max)
{
    int count = 0;
    LIST_EACH(&q->pieces, node, after)
    {
        struct piece *piece = CONTAINER_OF(node, struct piece, link);
        if (count == max || is_file(piece))
            break;
        if (piece->len)
            ret[count++] = (struct iovec){.iov_base = piece->at, .iov_len = piece->len};
    }
    return count;
}

void outq_consume(struct outq *q, size_t n)
{
    CHECK(n <= q->len);
    q->len -= n;
    while (!list_empty(&q->pieces)) {
        struct piece *piece = CONTAINER_OF(q->pieces.next, struct piece, link);
        size_t part = n < piece->len ? n : piece->len;
        if (is_file(piece))
            piece->position += part;
        else
            piece->at += part;
        piece->len -= part;
        n -= part;
        if (piece->len)
            return;
        q->files -= is_file(piece);
        piece_free(piece);
    }
}

void outq_move(struct outq *from, struct outq *to)
{
    while (!list_empty(&from->pieces)) {
        struct list *node = from->pieces.prev;
        list_remove(node);
        list_insert(to->pieces.next, node);
    }
    to->len += from->len;
    to->files += from->files;
    to->failed |= from->failed;
    from->len = 0;
    from->files = 0;
}

static void release_part(void *arg, void *owner)
{
    struct parted *parted = owner;
    (void)arg;
    if (--parted->parts)
        return;
    parted->release(parted->arg, parted->owner);
    mem_free_as(MEM_CONNECTIONS, parted);
}

/* Lends the first n bytes of a loan once more. False: no memory. */
static bool lend_part(struct outq *to, struct piece *piece, size_t n)
{
    if (piece->release != release_part) {
        struct parted *parted = mem_alloc_as(MEM_CONNECTIONS, sizeof *parted);
        if (!parted)
            return false;
        *parted = (struct parted){.release = piece->release, .arg = piece->arg, .owner = piece->owner, .parts = 1};
        piece->release = release_part;
        piece->arg = NULL;
        piece->owner = parted;
    }
    ((struct parted *)piece->owner)->parts++;
    outq_lend(to, slice_of(piece->at, n), release_part, NULL, piece->owner);
    return true;
}

/* Moves what is less than a piece. */
static void move_part(struct outq *to, struct outq *from, struct piece *piece, size_t n)
{
    if (is_file(piece)) {
        struct file_piece part = {.file = counted_file_ref(piece->owner), .position = piece->position, .len = n};
        outq_lend_file(to, &part);
    } else if (!piece->release) {
        outq_put(to, piece->at, n);
    } else if (!lend_part(to, piece, n)) {
        to->failed = true;
    }
    outq_consume(from, n);
}

static void move_piece(struct outq *to, struct outq *from, struct piece *piece)
{
    list_remove(&piece->link);
    list_insert(&to->pieces, &piece->link);
    from->len -= piece->len;
    to->len += piece->len;
    from->files -= is_file(piece);
    to->files += is_file(piece);
}

void outq_move_some(struct outq *from, struct outq *to, size_t n)
{
    CHECK(n <= from->len);
    to->failed |= from->failed;
    while (n) {
        struct piece *piece = CONTAINER_OF(from->pieces.next, struct piece, link);
        size_t part = n < piece->len ? n : piece->len;
        if (part < piece->len || (!piece->release && part <= MOVE_COPY_MAX))
            move_part(to, from, piece, part);
        else
            move_piece(to, from, piece);
        n -= part;
    }
}
