/* Streams by command, for those who keep them as a catalogue: listed, made, deleted. See stream_admin.h.
 *
 * They share what QUEUE_DECLARE and QUEUE_DELETE do, but say what became of it instead of failing somebody. The block of the
 * answer is taken before anything changes, so that what has happened is always told; an answer without one means that there
 * was no memory and nothing has happened. A listing of all goes in pages, by ids, which ascend: one command does a bounded
 * part of it, however many streams there are.
 */
#include "core/stream_int.h"

#include <stdarg.h>
#include <stdio.h>

#define SCAN_MAX (4 * STREAM_ROWS_MAX) /* streams looked at by one command, seen or not */
#define ROWS_BUFFER_MAX (64u << 20)
#define ROW_FIXED 400u

/* ---- answers ---- */

/* With room for a text. NULL: no memory, and the peer has been told. */
static struct answer *answer_begin(struct broker *b, struct peer *peer, const struct command *c)
{
    static const uint8_t room[ERROR_TEXT_MAX];
    struct answer *answer = answer_new(slice_of(room, sizeof room), (struct slice){0}, (struct slice){0});
    if (answer)
        answer->text.len = 0;
    else
        answer_give(b, peer, c->origin, NULL, 0);
    return answer;
}

static void answer_end(struct broker *b, struct peer *peer, const struct command *c, struct answer **answer,
                       enum stream_result result, uint64_t number, lsn_t lsn)
{
    (*answer)->number = result;
    (*answer)->number2 = number;
    answer_give(b, peer, c->origin, *answer, lsn);
    *answer = NULL;
}

static enum stream_result because(struct answer *answer, enum stream_result result, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static enum stream_result because(struct answer *answer, enum stream_result result, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf((char *)answer->bytes, ERROR_TEXT_MAX, format, args);
    va_end(args);
    answer->text.len = strlen((char *)answer->bytes);
    return result;
}

static uint8_t verbs_of(struct broker *b, const struct peer *peer, struct slice name)
{
    uint8_t verbs = 0;
    if (peer->state != PEER_ENTERED)
        return 0;
    for (enum verb v = 0; v < VERB_COUNT; v++)
        if (peer_may(b, peer, v, name) && (v != VERB_CONFIGURE || !sql_is_internal(name) || sql_owns(b, peer, name)))
            verbs |= (uint8_t)(1u << v);
    return verbs;
}

/* The queue of that name, or without one of that id, in the session's vhost. */
static struct queue *queue_of(struct broker *b, const struct peer *peer, struct slice name, uint64_t id)
{
    if (peer->state != PEER_ENTERED)
        return NULL;
    struct queue *q = name.len ? queue_find(peer->vhost, name) : map_get(&b->queues_by_id, map_key_u64(&id));
    return q && q->vhost == peer->vhost && !q->hidden ? q : NULL;
}

/* The stream that a command is to change. False: the result says why not. */
static bool stream_to_change(struct broker *b, const struct peer *peer, struct slice name, uint64_t id,
                             struct queue **ret, enum stream_result *ret_result)
{
    struct queue *q = queue_of(b, peer, name, id);
    *ret = q;
    if (!q && !name.len)
        *ret_result = STREAM_UNKNOWN;
    else if (!(verbs_of(b, peer, q ? q->name : name) & STREAM_MAY_CONFIGURE))
        *ret_result = STREAM_REFUSED;
    else if (!q)
        *ret_result = STREAM_UNKNOWN;
    else if (!q->stream)
        *ret_result = STREAM_IS_QUEUE;
    else
        return true;
    return false;
}

/* ---- rows ---- */

static void put_limits(struct writer *w, const struct queue_rules *r)
{
    const int64_t numbers[] = {r->max_age_ms, r->max_length_bytes, r->segment_bytes, r->min_lag_ms, r->tombstone_ms};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        writer_u64(w, (uint64_t)numbers[i]);
    writer_u8(w, r->cleanup != CLEANUP_COMPACT);
    writer_u8(w, r->cleanup == CLEANUP_COMPACT || r->cleanup == CLEANUP_BOTH);
}

static void put_sizes(struct writer *w, const struct stream *s)
{
    for (uint32_t i = 0; i < s->partition_count; i++) {
        const struct partition *p = s->partitions[i];
        writer_u64(w, p->start);
        writer_u64(w, p->end);
        writer_u64(w, stream_partition_bytes(p));
    }
}

/* q NULL: a name or id that was asked for and is not there, or not for everybody. False: no memory. */
static bool put_row(struct buffer *rows, enum stream_result result, uint8_t verbs, struct slice name, uint64_t id,
                    const struct queue *q, bool sizes)
{
    const struct stream *s = q ? q->stream : NULL;
    if (!buffer_reserve(rows, ROW_FIXED + (q ? q->args.len : 0) + (s && sizes ? 24 * (size_t)s->partition_count : 0)))
        return false;
    struct writer w = writer_of(rows->bytes + rows->len, rows->max - rows->len);
    writer_u8(&w, (uint8_t)result);
    writer_u8(&w, verbs);
    writer_u64(&w, q ? q->id : id);
    writer_u32(&w, s ? s->partition_count : 0);
    writer_str8(&w, name);
    writer_str32(&w, s ? q->args : (struct slice){0});
    writer_u8(&w, s != NULL);
    if (s)
        put_limits(&w, q->rules);
    size_t mark = writer_mark32(&w);
    if (s && sizes)
        put_sizes(&w, s);
    writer_patch32(&w, mark);
    CHECK(writer_ok(&w));
    rows->len += w.len;
    return true;
}

static struct stream_limits limits_read(struct reader *r)
{
    struct stream_limits limits;
    int64_t *numbers[] = {&limits.max_age_ms, &limits.max_bytes, &limits.segment_bytes, &limits.min_lag_ms,
                          &limits.tombstone_ms};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        *numbers[i] = (int64_t)reader_u64(r);
    limits.deletes = reader_u8(r);
    limits.compacts = reader_u8(r);
    return limits;
}

bool stream_row_next(struct reader *r, struct stream_row *ret)
{
    if (!r->left || !reader_ok(r))
        return false;
    *ret = (struct stream_row){.result = (enum stream_result)reader_u8(r)};
    ret->verbs = reader_u8(r);
    ret->id = reader_u64(r);
    ret->partitions = reader_u32(r);
    ret->name = reader_str8(r);
    ret->args = reader_str32(r);
    if (reader_u8(r))
        ret->limits = limits_read(r);
    ret->sizes = reader_str32(r);
    return reader_ok(r);
}

bool stream_row_sizes(struct reader *r, struct stream_partition_row *ret)
{
    if (!r->left || !reader_ok(r))
        return false;
    ret->start = reader_u64(r);
    ret->end = reader_u64(r);
    ret->bytes = reader_u64(r);
    return reader_ok(r);
}

/* ---- listing ---- */

struct listing {
    struct broker *b;
    struct peer *peer;
    bool sizes, more;
    uint32_t count;
    uint64_t upto; /* last id, or how many of names and ids were answered */
    struct buffer rows;
};

static bool is_full(const struct listing *l)
{
    return l->count >= STREAM_ROWS_MAX || l->rows.len >= STREAM_ROWS_BYTES;
}

/* One that was asked for by name, or by id. False: no memory. */
static bool list_one(struct listing *l, struct slice name, uint64_t id)
{
    struct queue *q = queue_of(l->b, l->peer, name, id);
    uint8_t verbs = verbs_of(l->b, l->peer, q ? q->name : name);
    enum stream_result result = STREAM_DONE;
    if (!verbs && (name.len || q))
        result = STREAM_REFUSED;
    else if (!q)
        result = STREAM_UNKNOWN;
    else if (!q->stream)
        result = STREAM_IS_QUEUE;
    if (result != STREAM_DONE)
        return put_row(&l->rows, result, verbs, name, id, NULL, false);
    return put_row(&l->rows, result, verbs, q->name, q->id, q, l->sizes);
}

static bool list_asked(struct listing *l, struct slice names, struct slice ids)
{
    struct reader r = reader_of(names), by_id = reader_of(ids);
    for (; r.left || by_id.left; l->count++, l->upto++) {
        if (is_full(l)) {
            l->more = true;
            return true;
        }
        bool named = r.left > 0;
        struct slice name = named ? reader_str8(&r) : (struct slice){0}; /* one of no bytes is nobody's */
        uint64_t id = named ? 0 : reader_u64(&by_id);
        if (!reader_ok(&r) || !reader_ok(&by_id))
            return true; /* whoever sends half a name gets no row for it */
        if (!list_one(l, name, id))
            return false;
    }
    return true;
}

/* The first stream of the vhost with an id above that. The list's head: there is none. */
static struct list *first_above(struct broker *b, const struct vhost *vhost, uint64_t id)
{
    const struct queue *q = map_get(&b->queues_by_id, map_key_u64(&id));
    if (q && q->stream && q->vhost == vhost)
        return q->stream->vhost_link.next;
    struct list *at = vhost->streams.next; /* it went meanwhile, or this is the beginning */
    while (at != &vhost->streams && CONTAINER_OF(at, struct stream, vhost_link)->queue->id <= id)
        at = at->next;
    return at;
}

static bool list_all(struct listing *l, uint64_t after)
{
    const struct vhost *vhost = l->peer->vhost;
    uint32_t seen = 0;
    for (struct list *at = first_above(l->b, vhost, after); at != &vhost->streams; at = at->next, seen++) {
        const struct queue *q = CONTAINER_OF(at, struct stream, vhost_link)->queue;
        if (is_full(l) || seen >= SCAN_MAX) {
            l->more = true;
            return true;
        }
        uint8_t verbs = verbs_of(l->b, l->peer, q->name);
        if (verbs && !put_row(&l->rows, STREAM_DONE, verbs, q->name, q->id, q, l->sizes))
            return false;
        l->count += verbs != 0;
        l->upto = q->id;
    }
    return true;
}

void do_stream_list(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct listing l = {.b = b, .peer = peer, .sizes = c->ask->flags & ASK_SIZES, .rows.limit = ROWS_BUFFER_MAX};
    struct answer *answer = NULL;
    bool asked = c->ask->name.len || c->ask->key.len;
    (void)ch;
    bool ok =
        asked ? list_asked(&l, c->ask->name, c->ask->key) : peer->state != PEER_ENTERED || list_all(&l, c->ask->number);
    if (ok)
        answer = answer_new((struct slice){0}, (struct slice){0}, slice_of(l.rows.bytes, l.rows.len));
    buffer_fini(&l.rows);
    if (answer) {
        answer->number = l.more;
        answer->number2 = l.upto;
    }
    answer_give(b, peer, c->origin, answer, 0);
}

/* ---- making ---- */

/* The arguments that the queue gets: its type, and how many partitions when there are several, which a client that declares
 * it by AMQP says too. False: they are too many, or there is no memory. */
static bool args_make(struct buffer *ret, struct slice args, uint64_t partitions)
{
    struct reader r = reader_of(args);
    struct amqp_field field;
    if (args.len > STREAM_ARGS_MAX || !buffer_reserve(ret, args.len + 128))
        return false;
    struct writer w = writer_of(ret->bytes, ret->max);
    amqp_put_str(&w, "x-queue-type", slice_str("stream"));
    if (partitions > 1)
        amqp_put_long(&w, "x-stream-partitions", (int64_t)partitions);
    while (amqp_table_next(&r, &field))
        if (!slice_is(field.name, "x-queue-type") && !slice_is(field.name, "x-stream-partitions"))
            amqp_put_field(&w, field.name, &field.value);
    CHECK(writer_ok(&w));
    ret->len = w.len;
    return true;
}

static bool name_is_good(const struct broker *b, const struct peer *peer, struct slice name)
{
    return name.len && name.len <= NAME_MAX_BYTES && (!slice_starts(name, "amq.") || sql_owns(b, peer, name));
}

/* DONE: nothing speaks against it. */
static enum stream_result may_create(struct broker *b, struct peer *peer, const struct command *c,
                                     struct answer *answer)
{
    struct slice name = c->ask->name;
    const struct queue *q = queue_of(b, peer, name, 0);
    if (!name_is_good(b, peer, name))
        return because(answer, STREAM_BAD_NAME, "a name has 1 to %d bytes and does not begin with amq.",
                       NAME_MAX_BYTES);
    if (!(verbs_of(b, peer, name) & STREAM_MAY_CONFIGURE))
        return STREAM_REFUSED;
    if (q)
        return q->stream ? STREAM_EXISTS : STREAM_IS_QUEUE;
    if (c->ask->number > STREAM_PARTITIONS_MAX)
        return because(answer, STREAM_BAD_PARTITIONS, "a stream has 1 to %u partitions", STREAM_PARTITIONS_MAX);
    if (!b->options.streams)
        return because(answer, STREAM_BAD_ARGUMENT, "streams are switched off");
    if (c->ask->args.len > STREAM_ARGS_MAX || !amqp_table_valid(c->ask->args))
        return because(answer, STREAM_BAD_ARGUMENT, "the arguments are no table, or have more than %u bytes",
                       STREAM_ARGS_MAX);
    return STREAM_DONE;
}

static enum stream_result create(struct broker *b, struct peer *peer, const struct command *c, struct answer *answer,
                                 uint64_t *ret_id, lsn_t *ret_lsn)
{
    struct queue_rules rules;
    char text[ERROR_TEXT_MAX];
    struct buffer args = {.limit = STREAM_ARGS_MAX + 1024};
    struct queue *q = NULL;
    enum stream_result result = may_create(b, peer, c, answer);
    if (result != STREAM_DONE)
        return result;
    if (!args_make(&args, c->ask->args, c->ask->number))
        return STREAM_NO_ROOM;
    struct slice table = slice_of(args.bytes, args.len);
    if (!queue_args_check(table, c->ask->name, peer->vhost->name, &rules, text, sizeof text))
        result = because(answer, STREAM_BAD_ARGUMENT, "%s", text);
    else if (!(c->ask->flags & ASK_CHECK_ONLY)) {
        q = queue_create(b, peer->vhost, c->ask->name, ASK_DURABLE, table, NULL, ret_lsn);
        result = q ? STREAM_DONE : STREAM_NO_ROOM;
    }
    if (q)
        *ret_id = q->id;
    buffer_fini(&args);
    return result;
}

void do_stream_create(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    uint64_t id = 0;
    lsn_t lsn = 0;
    (void)ch;
    if (!answer)
        return;
    enum stream_result result = create(b, peer, c, answer, &id, &lsn);
    answer_end(b, peer, c, &answer, result, id, lsn);
}

/* ---- deleting ---- */

void do_stream_delete(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    enum stream_result result;
    struct queue *q;
    (void)ch;
    if (!answer)
        return;
    bool ok = stream_to_change(b, peer, c->ask->name, c->ask->number, &q, &result);
    if (ok && !log_object_reserve(b, &q->object)) {
        ok = false;
        result = STREAM_NO_ROOM;
    }
    if (!ok) {
        answer_end(b, peer, c, &answer, result, 0, 0);
        return;
    }
    lsn_t lsn = queue_end_begin(b, q);
    answer_end(b, peer, c, &answer, STREAM_DONE, q->id, lsn);
    queue_end_finish(b, q);
}

/* ---- changing ---- */

static bool is_named(struct slice names, struct slice name)
{
    struct reader r = reader_of(names);
    while (r.left) {
        struct slice one = reader_str8(&r);
        if (!reader_ok(&r))
            return false;
        if (slice_equal(one, name))
            return true;
    }
    return false;
}

/* The table with what is set instead of what it had, and without what is to go. False: no memory, or it is too long. */
static bool args_edit(struct buffer *ret, struct slice old, struct slice set, struct slice gone)
{
    struct reader r = reader_of(old);
    struct amqp_field field;
    struct amqp_value v;
    ret->limit = STREAM_ARGS_MAX + old.len;
    if (!buffer_reserve(ret, old.len + set.len))
        return false;
    struct writer w = writer_of(ret->bytes, ret->max);
    while (amqp_table_next(&r, &field))
        if (!amqp_table_find_slice(set, field.name, &v) && !is_named(gone, field.name))
            amqp_put_field(&w, field.name, &field.value);
    writer_slice_put(&w, set);
    CHECK(writer_ok(&w));
    ret->len = w.len;
    return true;
}

/* Makes everything that the queue needs with such arguments. False: no memory, nothing has changed. */
static bool change_prepare(struct broker *b, struct queue *q, struct slice args, uint32_t partitions, struct slice *ret)
{
    if (!slice_keep(ret, args))
        return false;
    if (!q->stream || stream_grow_prepare(b, q->stream, partitions))
        return true;
    slice_drop(ret);
    return false;
}

static void change(struct broker *b, struct queue *q, struct slice *args, uint32_t partitions)
{
    if (q->stream)
        stream_grow(b, q->stream, partitions);
    b->topology_gen++;
    b->streams.topics_gen++; /* groups that read it look at their topics again */
    streams_changed(b);
    queue_args_replace(b, q, args);
}

static bool change_logged(struct broker *b, struct queue *q, struct slice args, uint32_t partitions, lsn_t *ret_lsn)
{
    struct slice kept;
    if (!change_prepare(b, q, args, partitions, &kept))
        return false;
    *ret_lsn = log_queue_args(b, q, kept);
    if (*ret_lsn)
        change(b, q, &kept, partitions);
    else {
        stream_grow_undo(q->stream, partitions);
        slice_drop(&kept);
    }
    return *ret_lsn != 0;
}

bool replay_queue_args(struct broker *b, struct reader *r)
{
    uint64_t id = reader_varint(r);
    struct slice args = reader_str32(r), kept;
    struct queue *q = map_get(&b->queues_by_id, map_key_u64(&id));
    struct amqp_value v;
    uint32_t partitions = 1;
    if (!reader_done(r))
        return false;
    if (!q)
        return true; /* deleted later on */
    if (amqp_table_find(args, "x-stream-partitions", &v) && amqp_value_is_int(&v) && v.i > 0 &&
        v.i <= STREAM_PARTITIONS_MAX)
        partitions = (uint32_t)v.i;
    if (!change_prepare(b, q, args, partitions, &kept))
        return false;
    change(b, q, &kept, partitions);
    return true;
}

static enum stream_result grow(struct broker *b, struct queue *q, const struct command *c, struct answer *answer,
                               lsn_t *ret_lsn)
{
    uint64_t count = c->ask->number, have = q->stream->partition_count;
    uint8_t set[64];
    struct writer w = writer_of(set, sizeof set);
    struct buffer args = {0};
    if (count <= have || count > STREAM_PARTITIONS_MAX)
        return because(answer, STREAM_BAD_PARTITIONS, "the stream has %llu partitions, and may have up to %u",
                       (unsigned long long)have, STREAM_PARTITIONS_MAX);
    if (c->ask->flags & ASK_CHECK_ONLY)
        return STREAM_DONE;
    amqp_put_long(&w, "x-stream-partitions", (int64_t)count);
    bool ok = args_edit(&args, q->args, writer_slice(&w), (struct slice){0}) &&
              change_logged(b, q, slice_of(args.bytes, args.len), (uint32_t)count, ret_lsn);
    buffer_fini(&args);
    return ok ? STREAM_DONE : STREAM_NO_ROOM;
}

void do_stream_grow(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    enum stream_result result;
    struct queue *q;
    lsn_t lsn = 0;
    (void)ch;
    if (!answer)
        return;
    if (stream_to_change(b, peer, c->ask->name, 0, &q, &result))
        result = grow(b, q, c, answer, &lsn);
    answer_end(b, peer, c, &answer, result, q && q->stream ? q->stream->partition_count : 0, lsn);
}

/* What makes a queue what it is stays. */
static const char *fixed_key(struct slice set, struct slice gone)
{
    static const char *const keys[] = {"x-queue-type", "x-stream-partitions"};
    struct amqp_value v;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (amqp_table_find(set, keys[i], &v) || is_named(gone, slice_str(keys[i])))
            return keys[i];
    return NULL;
}

static enum stream_result set(struct broker *b, struct queue *q, const struct command *c, struct answer *answer,
                              lsn_t *ret_lsn)
{
    struct queue_rules rules;
    char text[ERROR_TEXT_MAX];
    struct buffer args = {0};
    enum stream_result result = STREAM_DONE;
    if (!amqp_table_valid(c->ask->args) || c->ask->args.len + q->args.len > STREAM_ARGS_MAX)
        return because(answer, STREAM_BAD_ARGUMENT, "the arguments are no table, or have more than %u bytes",
                       STREAM_ARGS_MAX);
    const char *fixed = fixed_key(c->ask->args, c->ask->other);
    if (fixed)
        return because(answer, STREAM_BAD_ARGUMENT, "'%s' of a stream is not set", fixed);
    if (!args_edit(&args, q->args, c->ask->args, c->ask->other))
        return STREAM_NO_ROOM;
    struct slice table = slice_of(args.bytes, args.len);
    if (!amqp_table_valid(table) || !queue_args_check(table, q->name, q->vhost->name, &rules, text, sizeof text))
        result = because(answer, STREAM_BAD_ARGUMENT, "%s", text);
    else if (!(c->ask->flags & ASK_CHECK_ONLY) && !change_logged(b, q, table, q->stream->partition_count, ret_lsn))
        result = STREAM_NO_ROOM;
    buffer_fini(&args);
    return result;
}

void do_stream_set(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    enum stream_result result;
    struct queue *q;
    lsn_t lsn = 0;
    (void)ch;
    if (!answer)
        return;
    if (stream_to_change(b, peer, c->ask->name, c->ask->number, &q, &result))
        result = set(b, q, c, answer, &lsn);
    answer_end(b, peer, c, &answer, result, q ? q->id : 0, lsn);
}

/* ---- giving up what is old ---- */

void do_stream_trim(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    uint64_t offset = c->ask->number;
    enum stream_result result;
    struct queue *q;
    lsn_t lsn = 0;
    (void)ch;
    if (!answer)
        return;
    if (!stream_to_change(b, peer, c->ask->name, 0, &q, &result))
        offset = 0;
    else if (c->channel >= q->stream->partition_count) {
        result = STREAM_UNKNOWN;
        offset = 0;
    } else
        result = stream_trim(b, q->stream->partitions[c->channel], &offset, &lsn);
    answer_end(b, peer, c, &answer, result, offset, lsn);
}
