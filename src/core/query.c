/* The catalogue of continuous SQL: statements by id, and by vhost and name; their records in the journal, and the replay of these.
 *
 * Texts, settings and trails are the engine's: they are kept as they came, and never looked into. Ids are queues' ids (QUEUE_IDS), so none comes
 * again. What must hold, and sql_check asserts:
 *   Q1  an object stands in b->sql.objects and by_id under its id, and in its vhost under its name; by_id ascends.
 *   Q2  b->sql.bytes is the sum of what objects keep, trails included; a trail has at most SQL_TRAIL_MAX bytes.
 *   Q3  number and trail of a query change together, with a QUERY_STEP that stands in one TX with what the step wrote (query_step.c).
 */
#include "base/utf8.h"
#include "core/query_int.h"
#include "core/records.h"

#define LIST_BYTES (256u * 1024) /* of rows, for one command */
#define LIST_ROWS 256u

/* ---- blocks ---- */

struct query_step *query_step_new(uint64_t query, uint64_t number, struct slice trail, uint32_t count)
{
    struct query_step *step;
    size_t outputs = count * sizeof step->outputs[0];
    if (count > QUERY_OUTPUTS_MAX || trail.len > SQL_TRAIL_MAX)
        return NULL;
    step = mem_alloc(sizeof *step + outputs + trail.len);
    if (!step)
        return NULL;
    memset(step, 0, sizeof *step + outputs);
    step->query = query;
    step->number = number;
    step->count = count;
    uint8_t *at = (uint8_t *)step->outputs + outputs;
    if (trail.len)
        memcpy(at, trail.ptr, trail.len);
    step->trail = slice_of(at, trail.len);
    return step;
}

bool query_step_acks(struct query_step *step, uint16_t channel, const uint64_t *tags, uint32_t count)
{
    uint64_t *acks = count && count <= QUERY_ACKS_MAX ? mem_alloc(count * sizeof *acks) : NULL;
    if (!acks)
        return false;
    memcpy(acks, tags, count * sizeof *acks);
    mem_free(step->acks);
    step->acks = acks;
    step->ack_count = count;
    step->channel = channel;
    return true;
}

void query_step_free(struct slab_heap *mine, struct query_step **step)
{
    for (uint32_t i = 0; *step && i < (*step)->count; i++)
        if ((*step)->outputs[i].msg)
            msg_unref(mine, (*step)->outputs[i].msg);
    if (*step)
        mem_free((*step)->acks);
    mem_free(*step);
    *step = NULL;
}

size_t query_step_bytes(const struct query_step *step)
{
    size_t bytes = step->trail.len;
    for (uint32_t i = 0; i < step->count; i++)
        bytes += step->outputs[i].msg ? msg_size(step->outputs[i].msg) : 0;
    return bytes;
}

/* ---- rows ---- */

bool sql_object_row_next(struct reader *r, struct sql_object_row *ret)
{
    if (!r->left || !reader_ok(r))
        return false;
    *ret = (struct sql_object_row){.id = reader_u64(r)};
    ret->vhost = reader_str8(r);
    ret->name = reader_str8(r);
    ret->owner = reader_str8(r);
    ret->kind = reader_u8(r);
    ret->state = reader_u8(r);
    ret->step = reader_u64(r);
    struct slice *texts[] = {&ret->text, &ret->settings, &ret->reason, &ret->trail};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        *texts[i] = reader_str32(r);
    return reader_ok(r);
}

uint64_t broker_statements(const struct broker *broker)
{
    return broker->sql.objects.count;
}

/* ---- objects ---- */

static struct slice id_of(const void *value)
{
    return map_key_u64(&((const struct sql_object *)value)->id);
}

static struct slice name_of(const void *value)
{
    return ((const struct sql_object *)value)->name;
}

static void gone_free(struct sql_object *o)
{
    list_remove(&o->link);
    mem_free(o);
}

void sql_init(struct broker *b)
{
    map_init_keyed(&b->sql.objects, b->seed + 20, id_of);
    list_init(&b->sql.by_id);
    list_init(&b->sql.gone);
    relays_init(b);
}

void sql_fini(struct broker *b)
{
    relays_fini(b);
    while (!list_empty(&b->sql.gone))
        gone_free(CONTAINER_OF(b->sql.gone.next, struct sql_object, link));
    map_fini(&b->sql.objects);
    mem_free(b->sql.plan);
    mem_free(b->sql.targets);
}

void sql_vhost_init(struct broker *b, struct vhost *vhost)
{
    map_init_keyed(&vhost->sql_objects, b->seed + 16, name_of);
}

bool sql_is_internal(struct slice name)
{
    return slice_starts(name, SQL_INTERNAL);
}

bool sql_owns(const struct broker *b, const struct peer *peer, struct slice name)
{
    return sql_is_internal(name) && sql_is_engine(b, peer);
}

struct sql_object *sql_object_find(const struct broker *b, uint64_t id)
{
    return map_get(&b->sql.objects, map_key_u64(&id));
}

static size_t kept_bytes(const struct sql_object *o)
{
    size_t bytes = o->name.len + o->owner.len + o->trail.len;
    for (size_t i = 0; i < SQL_TEXTS; i++)
        bytes += o->texts[i].len;
    return bytes;
}

/* Nothing is left of it but its id. */
static void object_empty(struct sql_object *o)
{
    slice_drop(&o->name);
    slice_drop(&o->owner);
    for (size_t i = 0; i < SQL_TEXTS; i++)
        slice_drop(&o->texts[i]);
    buffer_fini(&o->trail);
}

static void object_drop(struct sql_object *o)
{
    object_empty(o);
    mem_free(o);
}

/* Ids ascend, but the replay of a snapshot comes to the older ones when it has seen the newest. */
static void list_by_id(struct broker *b, struct sql_object *o)
{
    struct list *before = b->sql.by_id.prev;
    while (before != &b->sql.by_id && CONTAINER_OF(before, struct sql_object, link)->id > o->id)
        before = before->prev;
    list_insert(before->next, &o->link);
}

/* Nobody has its id or its name. NULL: no memory. */
static struct sql_object *object_make(struct broker *b, struct vhost *vhost, uint64_t id, struct slice name,
                                      struct slice owner, const struct slice texts[SQL_TEXTS])
{
    struct sql_object *o = mem_zalloc(sizeof *o);
    bool ok = o && slice_keep(&o->name, name) && slice_keep(&o->owner, owner);
    for (size_t i = 0; ok && i < SQL_TEXTS; i++)
        ok = slice_keep(&o->texts[i], texts[i]);
    if (!ok || !map_reserve(&b->sql.objects) || !map_reserve(&vhost->sql_objects)) {
        if (o)
            object_drop(o);
        return NULL;
    }
    o->vhost = vhost;
    o->id = id;
    o->trail.limit = SQL_TRAIL_MAX;
    (void)map_put(&b->sql.objects, id_of(o), o);
    (void)map_put(&vhost->sql_objects, o->name, o);
    list_by_id(b, o);
    object_add(b, &o->object, OBJ_SQL, true);
    b->sql.bytes += kept_bytes(o);
    return o;
}

/* Nobody finds it any more. */
static void object_take(struct broker *b, struct sql_object *o)
{
    b->sql.bytes -= kept_bytes(o);
    (void)map_take(&b->sql.objects, id_of(o));
    if (map_get(&o->vhost->sql_objects, o->name) == o) /* another one may have its place */
        (void)map_take(&o->vhost->sql_objects, o->name);
    list_remove(&o->link);
    object_remove(b, &o->object);
}

static void object_free(struct broker *b, struct sql_object *o)
{
    object_take(b, o);
    object_drop(o);
}

/* The engine runs them and has to hear of it: what is left of each waits for room in its port, so that needs no memory. */
bool sql_vhost_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    for (struct sql_object *o; *budget && (o = map_any(&vhost->sql_objects, &vhost->cursor)); budget_spend(budget, 2)) {
        if (b->recovering || !b->options.sql) {
            object_free(b, o);
            continue;
        }
        object_take(b, o);
        object_empty(o);
        list_insert(&b->sql.gone, &o->link);
    }
    return !vhost->sql_objects.count;
}

bool sql_next_gone(struct broker *b, uint64_t *ret_id)
{
    if (list_empty(&b->sql.gone))
        return false;
    struct sql_object *o = CONTAINER_OF(b->sql.gone.next, struct sql_object, link);
    *ret_id = o->id;
    gone_free(o);
    return true;
}

bool trail_reserve(struct sql_object *o, const struct query_step *step)
{
    size_t kept = step->restart ? 0 : o->trail.len, all = kept + step->trail.len;
    return all <= o->trail.len || buffer_reserve(&o->trail, all - o->trail.len);
}

void object_stepped(struct broker *b, struct sql_object *o, uint64_t number, bool restart, struct slice trail)
{
    b->sql.bytes -= o->trail.len;
    if (restart)
        o->trail.len = 0;
    if (trail.len)
        buffer_put(&o->trail, trail.ptr, trail.len);
    b->sql.bytes += o->trail.len;
    o->step = number;
}

/* Other texts from now on; those that it had come back. */
static void texts_swap(struct broker *b, struct sql_object *o, struct slice texts[SQL_TEXTS])
{
    b->sql.bytes -= kept_bytes(o);
    for (size_t i = 0; i < SQL_TEXTS; i++) {
        struct slice old = o->texts[i];
        o->texts[i] = texts[i];
        texts[i] = old;
    }
    b->sql.bytes += kept_bytes(o);
}

/* ---- the journal ---- */

static bool record_begin(struct broker *b, enum record_type type, size_t bytes, struct writer *w)
{
    if (b->recovering || !log_reserve(b, bytes, 1))
        return false;
    *w = writer_of(b->scratch.bytes, b->scratch.max);
    writer_u8(w, (uint8_t)type);
    return true;
}

lsn_t log_sql_object(struct broker *b, const struct sql_object *o)
{
    struct writer w;
    if (!record_begin(b, REC_SQL_OBJECT, 1024 + kept_bytes(o), &w))
        return 0;
    writer_varint(&w, o->id);
    writer_str8(&w, o->vhost->name);
    writer_str8(&w, o->name);
    writer_str8(&w, o->owner);
    writer_u8(&w, o->kind);
    writer_u8(&w, o->state);
    writer_varint(&w, o->step);
    for (size_t i = 0; i < SQL_TEXTS; i++)
        writer_varint(&w, o->texts[i].len);
    writer_varint(&w, o->trail.len);
    CHECK(writer_ok(&w));
    struct slice parts[2 + SQL_TEXTS] = {writer_slice(&w)};
    for (size_t i = 0; i < SQL_TEXTS; i++)
        parts[1 + i] = o->texts[i];
    parts[1 + SQL_TEXTS] = slice_of(o->trail.bytes, o->trail.len);
    return log_record(b, parts, ARRAY_LEN(parts));
}

lsn_t log_sql_snapshot(struct broker *b, const struct object *object)
{
    return log_sql_object(b, CONTAINER_OF(object, struct sql_object, object));
}

static lsn_t log_gone(struct broker *b, const struct sql_object *o)
{
    struct writer w;
    if (!record_begin(b, REC_SQL_OBJECT_GONE, 64, &w))
        return 0;
    writer_varint(&w, o->id);
    struct slice part = writer_slice(&w);
    return log_record(b, &part, 1);
}

static lsn_t log_state(struct broker *b, const struct sql_object *o, uint8_t state, struct slice reason)
{
    struct writer w;
    if (!record_begin(b, REC_SQL_STATE, 64 + reason.len, &w))
        return 0;
    writer_varint(&w, o->id);
    writer_u8(&w, state);
    struct slice parts[] = {writer_slice(&w), reason};
    return log_record(b, parts, ARRAY_LEN(parts));
}

lsn_t log_query_step(struct broker *b, const struct query_step *step)
{
    struct writer w;
    CHECK(record_begin(b, REC_QUERY_STEP, query_step_record_bytes(step), &w));
    writer_varint(&w, step->query);
    writer_varint(&w, step->number);
    writer_u8(&w, step->restart);
    struct slice parts[] = {writer_slice(&w), step->trail};
    return log_record(b, parts, ARRAY_LEN(parts));
}

/* ---- commands ---- */

/* With room for what is said, before anything has happened. NULL: no memory, and the peer has been told. */
static struct answer *answer_begin(struct broker *b, struct peer *peer, const struct command *c)
{
    struct slice none = {0};
    struct answer *answer = answer_new(none, none, none);
    if (!answer)
        answer_give(b, peer, c->origin, NULL, 0);
    return answer;
}

static void answer_end(struct broker *b, struct peer *peer, const struct command *c, struct answer *answer,
                       uint64_t number, uint64_t number2, lsn_t lsn)
{
    answer->number = number;
    answer->number2 = number2;
    answer_give(b, peer, c->origin, answer, lsn);
}

/* NULL: no memory. */
static struct answer *row_of(const struct sql_object *o)
{
    struct slice none = {0};
    size_t len = 1024 + kept_bytes(o);
    uint8_t *raw = mem_alloc(len);
    if (!raw)
        return NULL;
    struct writer w = writer_of(raw, len);
    writer_u64(&w, o->id);
    writer_str8(&w, o->vhost->name);
    writer_str8(&w, o->name);
    writer_str8(&w, o->owner);
    writer_u8(&w, o->kind);
    writer_u8(&w, o->state);
    writer_u64(&w, o->step);
    for (size_t i = 0; i < SQL_TEXTS; i++)
        writer_str32(&w, o->texts[i]);
    writer_str32(&w, slice_of(o->trail.bytes, o->trail.len));
    CHECK(writer_ok(&w));
    struct answer *answer = answer_new(none, none, writer_slice(&w));
    mem_free(raw);
    return answer;
}

/* The first with an id above that. The list's head: there is none. */
static struct list *first_above(const struct broker *b, uint64_t id)
{
    const struct sql_object *o = sql_object_find(b, id);
    if (o)
        return o->link.next;
    struct list *at = b->sql.by_id.next; /* it went meanwhile, or this is the beginning */
    while (at != &b->sql.by_id && CONTAINER_OF(at, struct sql_object, link)->id <= id)
        at = at->next;
    return at;
}

/* A row that there is no memory for ends the list before it: whoever asks for more begins there. */
void do_sql_list(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    size_t bytes = 0;
    uint32_t rows = 0;
    uint64_t upto = c->number;
    (void)ch;
    if (!answer)
        return;
    struct list *at = sql_is_engine(b, peer) ? first_above(b, c->number) : &b->sql.by_id;
    for (; at != &b->sql.by_id && rows < LIST_ROWS && bytes < LIST_BYTES; at = at->next, rows++) {
        const struct sql_object *o = CONTAINER_OF(at, struct sql_object, link);
        struct answer *row = row_of(o);
        if (!row)
            break;
        struct effect *e = effect_push(b, peer, EFF_ROW, 0);
        e->origin = c->origin;
        e->answer = row;
        bytes += kept_bytes(o);
        upto = o->id;
    }
    answer_end(b, peer, c, answer, at != &b->sql.by_id, upto, b->appended);
}

static bool texts_fit(const struct broker *b, const struct ask *ask)
{
    return ask->other.len <= SQL_TEXT_MAX && ask->args.len <= SQL_TEXT_MAX - ask->other.len &&
           b->sql.bytes + ask->name.len + ask->other.len + ask->args.len <= SQL_BYTES_MAX;
}

/* Nobody has its name. */
static enum query_result put_named(struct broker *b, const struct peer *peer, const struct command *c,
                                   struct sql_object **ret, lsn_t *ret_lsn)
{
    const struct ask *ask = c->ask;
    const struct slice texts[SQL_TEXTS] = {[SQL_TEXT] = ask->other, [SQL_SETTINGS] = ask->args};
    struct sql_object *o = object_make(b, peer->vhost, b->next_queue_id, ask->name, peer->user->name, texts);
    if (!o)
        return QUERY_NO_ROOM;
    o->kind = (uint8_t)ask->number;
    *ret_lsn = log_sql_object(b, o);
    if (!*ret_lsn) {
        object_free(b, o);
        return QUERY_NO_ROOM;
    }
    b->next_queue_id++;
    *ret = o;
    return QUERY_DONE;
}

static enum query_result put_new(struct broker *b, const struct peer *peer, const struct command *c,
                                 struct sql_object **ret, lsn_t *ret_lsn)
{
    const struct ask *ask = c->ask;
    if (!ask->name.len || ask->name.len > SQL_NAME_MAX || !utf8_valid(ask->name))
        return QUERY_BAD_NAME;
    if (map_get(&peer->vhost->sql_objects, ask->name))
        return QUERY_EXISTS;
    if (b->sql.objects.count >= SQL_OBJECTS_MAX || !texts_fit(b, ask))
        return QUERY_TOO_MANY;
    return put_named(b, peer, c, ret, ret_lsn);
}

/* The record of the new one says that the old one is gone: a replay drops who has the name. */
static enum query_result put_anew(struct broker *b, const struct peer *peer, const struct command *c,
                                  struct sql_object **ret, lsn_t *ret_lsn)
{
    struct sql_object *old = sql_object_find(b, c->number);
    if (!old || old->vhost != peer->vhost)
        return QUERY_UNKNOWN;
    if (!slice_equal(old->name, c->ask->name))
        return QUERY_BAD_NAME;
    if (!texts_fit(b, c->ask))
        return QUERY_TOO_MANY;
    (void)map_take(&peer->vhost->sql_objects, old->name);
    enum query_result result = put_named(b, peer, c, ret, ret_lsn);
    if (result == QUERY_DONE)
        object_free(b, old);
    else
        CHECK(map_put(&peer->vhost->sql_objects, old->name, old)); /* there is the room that it had */
    return result;
}

static enum query_result put_over(struct broker *b, const struct peer *peer, const struct command *c,
                                  struct sql_object **ret, lsn_t *ret_lsn)
{
    struct sql_object *o = sql_object_find(b, c->number);
    struct slice texts[SQL_TEXTS] = {0};
    if (!o || o->vhost != peer->vhost)
        return QUERY_UNKNOWN;
    if (!texts_fit(b, c->ask))
        return QUERY_TOO_MANY;
    bool ok = slice_keep(&texts[SQL_TEXT], c->ask->other) && slice_keep(&texts[SQL_SETTINGS], c->ask->args) &&
              slice_keep(&texts[SQL_REASON], o->texts[SQL_REASON]);
    if (ok) {
        uint8_t kind = o->kind;
        texts_swap(b, o, texts);
        o->kind = (uint8_t)c->ask->number;
        *ret_lsn = log_sql_object(b, o);
        ok = *ret_lsn != 0;
        if (!ok) {
            texts_swap(b, o, texts);
            o->kind = kind;
        }
    }
    for (size_t i = 0; i < SQL_TEXTS; i++)
        slice_drop(&texts[i]);
    *ret = o;
    return ok ? QUERY_DONE : QUERY_NO_ROOM;
}

void do_sql_put(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    struct sql_object *o = NULL;
    lsn_t lsn = 0;
    enum query_result result = QUERY_NO_RIGHT;
    (void)ch;
    if (!answer)
        return;
    if (sql_is_engine(b, peer) && peer->state == PEER_ENTERED && peer->user)
        result = (!c->number ? put_new : c->ask->flags & ASK_ANEW ? put_anew : put_over)(b, peer, c, &o, &lsn);
    answer_end(b, peer, c, answer, result, o ? o->id : 0, lsn);
}

/* Each has the other's name from now on. */
static void names_swap(struct sql_object *a, struct sql_object *b)
{
    struct map *names = &a->vhost->sql_objects;
    struct slice name = a->name;
    (void)map_take(names, a->name);
    (void)map_take(names, b->name);
    a->name = b->name;
    b->name = name;
    CHECK(map_put(names, a->name, a) && map_put(names, b->name, b)); /* there is the room that they had */
}

static enum query_result take_place(struct broker *b, const struct peer *peer, const struct command *c, lsn_t *ret_lsn)
{
    struct sql_object *o = sql_object_find(b, c->number), *old = sql_object_find(b, c->ask->number);
    if (!sql_is_engine(b, peer))
        return QUERY_NO_RIGHT;
    if (!o || !old || o == old || o->vhost != old->vhost)
        return QUERY_UNKNOWN;
    names_swap(o, old);
    *ret_lsn = log_sql_object(b, o);
    if (!*ret_lsn) {
        names_swap(o, old);
        return QUERY_NO_ROOM;
    }
    object_free(b, old);
    return QUERY_DONE;
}

/* As put_anew, but with who is there already: the record that has its new name says that the other one is gone. */
void do_sql_switch(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    lsn_t lsn = 0;
    (void)ch;
    if (!answer)
        return;
    enum query_result result = take_place(b, peer, c, &lsn);
    answer_end(b, peer, c, answer, result, 0, lsn);
}

static enum query_result drop(struct broker *b, const struct peer *peer, uint64_t id, lsn_t *ret_lsn)
{
    struct sql_object *o = sql_object_find(b, id);
    if (!sql_is_engine(b, peer))
        return QUERY_NO_RIGHT;
    if (!o)
        return QUERY_UNKNOWN;
    *ret_lsn = log_gone(b, o);
    if (!*ret_lsn)
        return QUERY_NO_ROOM;
    object_free(b, o);
    return QUERY_DONE;
}

void do_sql_drop(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    lsn_t lsn = 0;
    (void)ch;
    if (!answer)
        return;
    enum query_result result = drop(b, peer, c->number, &lsn);
    answer_end(b, peer, c, answer, result, 0, lsn);
}

/* The reason is a copy that passes to the object when it has the state. */
static void state_set(struct broker *b, struct sql_object *o, uint8_t state, struct slice *reason)
{
    b->sql.bytes += reason->len;
    b->sql.bytes -= o->texts[SQL_REASON].len;
    slice_drop(&o->texts[SQL_REASON]);
    o->texts[SQL_REASON] = *reason;
    o->state = state;
    *reason = (struct slice){0};
}

static enum query_result change_state(struct broker *b, const struct peer *peer, const struct command *c,
                                      lsn_t *ret_lsn)
{
    struct sql_object *o = sql_object_find(b, c->number);
    struct slice reason;
    if (!sql_is_engine(b, peer))
        return QUERY_NO_RIGHT;
    if (!o)
        return QUERY_UNKNOWN;
    if (c->ask->number >= SQL_OBJECT_STATES || c->ask->name.len > SQL_REASON_MAX)
        return QUERY_TOO_MANY;
    if (!slice_keep(&reason, c->ask->name))
        return QUERY_NO_ROOM;
    *ret_lsn = log_state(b, o, (uint8_t)c->ask->number, reason);
    if (*ret_lsn)
        state_set(b, o, (uint8_t)c->ask->number, &reason);
    slice_drop(&reason);
    return *ret_lsn ? QUERY_DONE : QUERY_NO_ROOM;
}

void do_sql_state(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct answer *answer = answer_begin(b, peer, c);
    lsn_t lsn = 0;
    (void)ch;
    if (!answer)
        return;
    enum query_result result = change_state(b, peer, c, &lsn);
    answer_end(b, peer, c, answer, result, 0, lsn);
}

/* ---- replay ---- */

/* It is called that from now on; nobody else is. False: no memory. */
static bool rename_to(struct broker *b, struct sql_object *o, struct slice name)
{
    struct slice kept;
    if (!slice_keep(&kept, name))
        return false;
    (void)map_take(&o->vhost->sql_objects, o->name);
    b->sql.bytes += kept.len - o->name.len;
    slice_drop(&o->name);
    o->name = kept;
    CHECK(map_put(&o->vhost->sql_objects, o->name, o)); /* there is the room that it had */
    return true;
}

/* What the record says of one that is there or is made now. NULL: no memory. */
static struct sql_object *replay_object(struct broker *b, struct vhost *vhost, uint64_t id, struct slice name,
                                        struct slice owner, const struct slice texts[SQL_TEXTS])
{
    struct sql_object *o = sql_object_find(b, id), *old = map_get(&vhost->sql_objects, name);
    struct slice kept[SQL_TEXTS] = {0};
    if (old && old != o)
        object_free(b, old); /* the name has passed on, whatever became of the record that said so */
    if (!o)
        return object_make(b, vhost, id, name, owner, texts);
    bool ok = slice_equal(o->name, name) || rename_to(b, o, name);
    for (size_t i = 0; i < SQL_TEXTS; i++)
        ok = ok && slice_keep(&kept[i], texts[i]);
    if (ok)
        texts_swap(b, o, kept);
    for (size_t i = 0; i < SQL_TEXTS; i++)
        slice_drop(&kept[i]);
    return ok ? o : NULL;
}

bool replay_sql_object(struct broker *b, struct reader *r)
{
    uint64_t id = reader_varint(r);
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice name = reader_str8(r), owner = reader_str8(r), texts[SQL_TEXTS];
    uint8_t kind = reader_u8(r), state = reader_u8(r);
    uint64_t number = reader_varint(r), lens[SQL_TEXTS + 1];
    for (size_t i = 0; i < ARRAY_LEN(lens); i++)
        lens[i] = reader_varint(r);
    for (size_t i = 0; i < SQL_TEXTS; i++)
        texts[i] = reader_take(r, lens[i]);
    struct slice trail = reader_take(r, lens[SQL_TEXTS]);
    if (!reader_done(r) || !id || id > INT64_MAX || state >= SQL_OBJECT_STATES || trail.len > SQL_TRAIL_MAX)
        return false;
    if (id >= b->next_queue_id)
        b->next_queue_id = id + 1;
    if (!vhost)
        return true; /* deleted later on */
    struct sql_object *o = replay_object(b, vhost, id, name, owner, texts);
    struct query_step step = {.restart = true, .trail = trail};
    if (!o || !trail_reserve(o, &step))
        return false;
    o->kind = kind;
    o->state = state;
    object_stepped(b, o, number, true, trail);
    return true;
}

bool replay_sql_object_gone(struct broker *b, struct reader *r)
{
    struct sql_object *o = sql_object_find(b, reader_varint(r));
    if (o)
        object_free(b, o);
    return reader_done(r);
}

bool replay_sql_state(struct broker *b, struct reader *r)
{
    struct sql_object *o = sql_object_find(b, reader_varint(r));
    uint8_t state = reader_u8(r);
    struct slice reason = reader_rest(r), kept;
    if (!reader_ok(r) || state >= SQL_OBJECT_STATES)
        return false;
    if (!o)
        return true; /* dropped later on, or a snapshot says it */
    if (!slice_keep(&kept, reason))
        return false;
    state_set(b, o, state, &kept);
    return true;
}

bool replay_query_step(struct broker *b, struct reader *r)
{
    struct query_step step = {.query = reader_varint(r)};
    step.number = reader_varint(r);
    uint8_t restart = reader_u8(r);
    step.restart = restart;
    step.trail = reader_rest(r);
    struct sql_object *o = sql_object_find(b, step.query);
    if (!reader_ok(r) || restart > 1)
        return false;
    if (!o || step.number <= o->step)
        return true; /* dropped later on, or a snapshot says it */
    if (step.number != o->step + 1 || !trail_reserve(o, &step))
        return false;
    object_stepped(b, o, step.number, step.restart, step.trail);
    return true;
}

/* ---- invariants ---- */

void sql_check(struct broker *b)
{
    uint64_t bytes = 0, last = 0, untold = 0;
    uint32_t objects = 0;
    LIST_EACH(&b->sql.by_id, node, after)
    {
        const struct sql_object *o = CONTAINER_OF(node, struct sql_object, link);
        CHECK(o->id > last && o->id < b->next_queue_id && sql_object_find(b, o->id) == o);
        CHECK(map_get(&o->vhost->sql_objects, o->name) == o &&
              (o->vhost->deleting || vhost_find(b, o->vhost->name) == o->vhost));
        CHECK(o->trail.len <= SQL_TRAIL_MAX && o->state < SQL_OBJECT_STATES);
        bytes += kept_bytes(o);
        last = o->id;
        objects++;
    }
    CHECK(bytes == b->sql.bytes && objects == b->sql.objects.count && !b->sql.committing);
    MAP_EACH(&b->sql.relays, struct relay, relay)
    {
        CHECK(relay->peer ? !list_empty(&relay->link) : !list_empty(&relay->untold_link));
        CHECK((relay->granted != 0 || !relay->peer) == !list_empty(&relay->untold_link));
        untold += !list_empty(&relay->untold_link);
    }
    LIST_EACH(&b->sql.untold, node, after)
    untold--;
    CHECK(untold == 0);
}
