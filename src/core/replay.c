/* Recovery: the journal's records turned back into the broker's state.
 *
 * Replay applies decisions and never decides: nothing expires, overflows or is dead-lettered here. Records may come twice
 * (a snapshot repeats what is alive) and may name what is gone; both are nothing. While replaying, a queue keeps its
 * messages in two arrays sorted by position, one for records of ordinary traffic and one for snapshots, because each of
 * these comes in ascending order; broker_replayed merges them into the lanes.
 *
 * What cannot be: a record of an unknown type, or one that does not parse. The journal's checksums were right, so that is
 * a newer format or a bug of ours, and the broker refuses to start rather than guess.
 */
#include <stdio.h>

#include "core/core_int.h"
#include "core/records.h"
#include "core/txn_int.h"
#include "fmt/password.h"

#define GUEST_ITERATIONS 4096u /* guest/guest is no secret; this keeps the first start short */

struct held { /* a message in a queue, while replaying */
    uint64_t position;
    struct msg *msg; /* NULL: removed */
    wall_t deadline;
    uint32_t returns;
    bool redelivered;
    wall_t due; /* not to be delivered before; 0: at once */
};

struct held_list {
    struct held *items;
    uint32_t first, end, max, live;
};

struct replay_queue {
    struct held_list live, snapshot;
    struct page **pages; /* by lane and position */
    uint32_t page_count, page_max;
};

/* ---- held messages ---- */

static uint32_t held_bound(const struct held_list *list, uint64_t position)
{
    uint32_t low = list->first, high = list->end;
    if (low < high && list->items[high - 1].position < position)
        return high;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (list->items[middle].position < position)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static struct held *held_find(struct held_list *list, uint64_t position)
{
    uint32_t i = held_bound(list, position);
    return i < list->end && list->items[i].position == position && list->items[i].msg ? &list->items[i] : NULL;
}

static void held_squeeze(struct held_list *list)
{
    uint32_t kept = 0;
    for (uint32_t i = list->first; i < list->end; i++)
        if (list->items[i].msg)
            list->items[kept++] = list->items[i];
    list->first = 0;
    list->end = kept;
}

static bool held_room(struct held_list *list)
{
    if (list->end < list->max)
        return true;
    if (list->live < list->max / 2) {
        held_squeeze(list);
        return true;
    }
    uint32_t max = list->max ? list->max * 2 : 8;
    struct held *grown = mem_realloc(list->items, max * sizeof *grown);
    if (!grown)
        return false;
    list->items = grown;
    list->max = max;
    return true;
}

static bool held_add(struct held_list *list, struct held item)
{
    if (!held_room(list))
        return false;
    uint32_t i = held_bound(list, item.position);
    if (i < list->end && list->items[i].position == item.position) { /* a hole of the same position */
        list->items[i] = item;
    } else {
        memmove(list->items + i + 1, list->items + i, (list->end - i) * sizeof *list->items);
        list->items[i] = item;
        list->end++;
    }
    list->live++;
    return true;
}

static void held_drop(struct broker *b, struct held_list *list, struct held *item)
{
    msg_unref(&b->heap, item->msg);
    item->msg = NULL;
    list->live--;
    while (list->first < list->end && !list->items[list->first].msg)
        list->first++;
    if (list->first == list->end)
        list->first = list->end = 0;
}

static void remove_run(struct broker *b, struct held_list *list, uint64_t first, uint64_t count)
{
    uint64_t last = first + count - 1;
    for (uint32_t i = held_bound(list, first); i < list->end && list->items[i].position <= last; i++)
        if (list->items[i].msg)
            held_drop(b, list, &list->items[i]);
}

static void held_fini(struct broker *b, struct held_list *list)
{
    for (uint32_t i = list->first; i < list->end; i++)
        if (list->items[i].msg)
            msg_unref(&b->heap, list->items[i].msg);
    mem_free(list->items);
    *list = (struct held_list){0};
}

/* ---- pages ---- */

/* Index of the first page of the lane that ends at or behind the position, or of the next lane's first. */
static uint32_t page_bound(const struct replay_queue *held, unsigned lane, uint64_t position)
{
    uint32_t low = 0, high = held->page_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct page *page = held->pages[middle];
        if (page_lane(page) < lane || (page_lane(page) == lane && page->last < position))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* RETRY_LANE comes behind the last one that the queue has. */
static unsigned lane_behind(const struct queue *q, unsigned lane)
{
    return lane == q->rules->max_priority ? RETRY_LANE : lane + 1;
}

static void page_forget(struct page *page)
{
    mem_free(page->holes.runs);
    mem_free(page->transient.runs);
    mem_free(page->returns);
    mem_free_as(MEM_PAGES, page);
}

/* Holes for what lives between the two positions. */
static bool page_remove(struct page *page, uint64_t first, uint64_t last)
{
    if (!page_unpack(page))
        return false;
    first = first < page->first ? page->first : first;
    last = last > page->last ? page->last : last;
    for (uint64_t at = first; at <= last;) {
        uint64_t end;
        if (!page_alive_from(page, &at, &end) || at > last)
            return true;
        end = end > last ? last : end;
        uint64_t count = end - at + 1;
        if (!page_hole(page, at, count))
            return false;
        page->body_bytes -= page->body_bytes / page->live * count; /* about; reading it tells exactly */
        page->live -= (uint32_t)count;
        at = end + 1;
    }
    return true;
}

static bool pages_remove(struct queue *q, uint64_t first, uint64_t count)
{
    struct replay_queue *held = q->replay;
    uint64_t last = first + count - 1;
    for (unsigned lane = 0; held->page_count && lane <= RETRY_LANE; lane = lane_behind(q, lane))
        for (uint32_t i = page_bound(held, lane, first);
             i < held->page_count && page_lane(held->pages[i]) == lane && held->pages[i]->first <= last; i++)
            if (!page_remove(held->pages[i], first, last))
                return false;
    return true;
}

static struct page *page_of_position(struct queue *q, uint64_t position)
{
    struct replay_queue *held = q->replay;
    for (unsigned lane = 0; held->page_count && lane <= RETRY_LANE; lane = lane_behind(q, lane)) {
        uint32_t i = page_bound(held, lane, position);
        if (i < held->page_count && page_lane(held->pages[i]) == lane && page_has(held->pages[i], position))
            return held->pages[i];
    }
    return NULL;
}

/* due NULL: as it was. */
static bool page_return(struct page *page, uint64_t position, uint32_t returns, const wall_t *due)
{
    for (uint32_t i = 0; i < page->return_count; i++)
        if (page->returns[i].position == position) {
            page->returns[i].returns = returns > page->returns[i].returns ? returns : page->returns[i].returns;
            page->returns[i].due = due ? *due : page->returns[i].due;
            return true;
        }
    struct page_return *grown = mem_realloc(page->returns, (page->return_count + 1) * sizeof *grown);
    if (!grown)
        return false;
    grown[page->return_count++] = (struct page_return){position, returns, due ? *due : 0};
    page->returns = grown;
    return true;
}

/* A page that lies across others replaces them: it is one of them as it is now, or what they have become when they moved. It
 * knows what they knew of returns, but of messages that had left them: such a one may have come back from a page of retries, and its
 * returns with it. False: no memory. */
static bool page_replaces(struct replay_queue *held, struct page *page, uint32_t i)
{
    uint32_t n = 0;
    bool ok = true;
    for (; i + n < held->page_count; n++) {
        struct page *old = held->pages[i + n];
        if (page_lane(old) != page_lane(page) || old->first > page->last)
            break;
        for (uint32_t r = 0; ok && r < old->return_count; r++)
            if (page_has(old, old->returns[r].position) && page_has(page, old->returns[r].position))
                ok = page_return(page, old->returns[r].position, old->returns[r].returns, &old->returns[r].due);
        page_forget(old);
    }
    if (n)
        memmove(held->pages + i, held->pages + i + n, (held->page_count - i - n) * sizeof(struct page *));
    held->page_count -= n;
    return ok;
}

/* Takes its place in the list. False: no memory. */
static bool page_add(struct replay_queue *held, struct page *page)
{
    uint32_t i = page_bound(held, page_lane(page), page->first);
    if (!page_replaces(held, page, i))
        return false;
    if (held->page_count == held->page_max) {
        uint32_t max = held->page_max ? held->page_max * 2 : 8;
        struct page **grown = mem_realloc(held->pages, max * sizeof(struct page *));
        if (!grown)
            return false;
        held->pages = grown;
        held->page_max = max;
    }
    memmove(held->pages + i + 1, held->pages + i, (held->page_count - i) * sizeof(struct page *));
    held->pages[i] = page;
    held->page_count++;
    return true;
}

/* Made when the queue gets something, so that empty ones leave no holes in the heap. NULL: no memory. */
static struct replay_queue *replay_of(struct queue *q)
{
    if (!q->replay)
        q->replay = mem_zalloc(sizeof *q->replay);
    return q->replay;
}

void replay_queue_drop(struct broker *b, struct queue *q)
{
    if (!q->replay)
        return;
    held_fini(b, &q->replay->live);
    held_fini(b, &q->replay->snapshot);
    for (uint32_t i = 0; i < q->replay->page_count; i++)
        if (q->replay->pages[i])
            page_forget(q->replay->pages[i]);
    mem_free(q->replay->pages);
    mem_free(q->replay);
    q->replay = NULL;
}

static struct queue *queue_by_id(struct broker *b, uint64_t id)
{
    return map_get(&b->queues_by_id, map_key_u64(&id));
}

/* ---- records of the catalogue ---- */

static struct exchange *find_exchange(struct broker *b, struct slice vhost, struct slice name)
{
    struct vhost *v = vhost_find(b, vhost);
    return v ? exchange_find(v, name) : NULL;
}

static bool replay_permission(struct broker *b, struct reader *r, bool put)
{
    char text[ERROR_TEXT_MAX];
    struct user *user = user_find(b, reader_str8(r));
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    bool topic = reader_u8(r);
    struct slice exchange = reader_str8(r);
    if (!put) {
        struct permission *p = user && vhost ? permission_find(user, vhost, topic ? &exchange : NULL) : NULL;
        if (p)
            permission_delete(b, p);
        return true;
    }
    struct slice configure = reader_str32(r), write = reader_str32(r), read = reader_str32(r);
    if (!reader_ok(r) || !user || !vhost)
        return reader_ok(r);
    return topic ? topic_permission_put(b, user, vhost, exchange, write, read, text, sizeof text)
                 : permission_put(b, user, vhost, configure, write, read, text, sizeof text);
}

static bool replay_policy(struct broker *b, struct reader *r, bool put)
{
    char text[ERROR_TEXT_MAX];
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice name = reader_str8(r);
    bool operator_policy = reader_u8(r);
    if (!put) {
        struct policy *p = vhost ? policy_find(vhost, name, operator_policy) : NULL;
        if (p)
            policy_delete(b, p);
        return true;
    }
    enum apply_to apply_to = (enum apply_to)reader_u8(r);
    int64_t priority = (int64_t)reader_u64(r);
    struct slice pattern = reader_str32(r), definition = reader_str32(r);
    if (!reader_ok(r) || !vhost || apply_to > APPLY_EXCHANGES)
        return reader_ok(r);
    return policy_put(b, vhost, name, pattern, apply_to, priority, definition, operator_policy, text, sizeof text);
}

static bool replay_exchange(struct broker *b, struct reader *r, bool put)
{
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice name = reader_str8(r);
    struct exchange *x = vhost ? exchange_find(vhost, name) : NULL;
    if (!put) {
        if (x)
            exchange_delete(b, x);
        return true;
    }
    const struct exchange_type *type = exchange_type_find(reader_str8(r));
    uint8_t flags = reader_u8(r);
    struct slice args = reader_str32(r);
    if (!reader_ok(r) || !type)
        return false;
    if (!vhost || x)
        return true;
    return exchange_make(b, vhost, name, type, flags & 8, true, flags & 2, flags & 4, args) != NULL;
}

static bool replay_queue_put(struct broker *b, struct reader *r)
{
    uint64_t id = reader_varint(r);
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice name = reader_str8(r);
    uint8_t flags = reader_u8(r);
    uint64_t next = reader_varint(r), mark = reader_varint(r);
    struct slice args = reader_str32(r);
    if (!reader_ok(r))
        return false;
    struct queue *q = queue_by_id(b, id);
    if (!vhost)
        return true;
    if (!q && (flags & 4)) {
        if (!delay_queue_make(b, vhost, id))
            return false;
        q = delay_queue(vhost);
    } else if (!q) {
        struct queue *old = queue_find(vhost, name);
        if (old)
            queue_delete(b, old);
        q = queue_make(b, vhost, name, flags & 1, false, flags & 2, args, NULL, id);
    }
    if (!q)
        return false;
    q->mqtt = flags & 8;
    q->next_position = next > q->next_position ? next : q->next_position;
    q->mark = mark > q->mark ? mark : q->mark;
    return true;
}

static bool replay_binding(struct broker *b, struct reader *r, bool put)
{
    struct slice vhost_name = reader_str8(r);
    struct exchange *source = find_exchange(b, vhost_name, reader_str8(r));
    bool to_queue = reader_u8(r) == 'q';
    struct slice target = reader_str8(r), key = reader_str8(r), args = reader_str32(r);
    if (!reader_ok(r))
        return false;
    struct queue *q = source && to_queue ? queue_find(source->vhost, target) : NULL;
    struct exchange *x = source && !to_queue ? exchange_find(source->vhost, target) : NULL;
    struct binding *binding;
    if (!q && !x)
        return true;
    if (put)
        return binding_make(b, source, q, x, key, args, &binding);
    if (!binding_find(source->vhost, source, q, x, key, args, &binding))
        return false;
    if (binding)
        binding_delete(b, binding, false);
    return true;
}

/* ---- records of messages ---- */

struct replay_target {
    uint64_t queue, position, returns;
    wall_t deadline;
};

static bool target_read(struct reader *r, struct replay_target *ret)
{
    ret->queue = reader_varint(r);
    ret->position = reader_varint(r);
    uint64_t deadline = reader_varint(r);
    ret->deadline = deadline ? (wall_t)(deadline - 1) : WALL_NEVER;
    ret->returns = reader_varint(r);
    return reader_ok(r);
}

/* A large one out of pieces takes over the memory in which they were put together: with it goes the record, so it must be
 * the only one there and not a part of a transaction. */
static struct msg *msg_of_pieces(struct broker *b, const struct msg *lengths, struct slice body)
{
    size_t before = (size_t)lengths->exchange_len + lengths->key_len + lengths->props_len;
    size_t at = (size_t)(body.ptr - b->pieces.bytes) - before;
    struct msg *msg = msg_adopt(MEM_OTHER, b->pieces.bytes, at, lengths);
    if (msg)
        b->pieces = (struct buffer){.limit = b->pieces.limit};
    return msg;
}

static struct msg *msg_read(struct broker *b, struct reader *r, uint64_t id, bool record_may_go)
{
    uint8_t flags = reader_u8(r), priority = reader_u8(r);
    int64_t expiration = (int64_t)reader_varint(r) - 1;
    uint8_t exchange_len = reader_u8(r), key_len = reader_u8(r);
    uint64_t props_len = reader_varint(r), body_len = reader_varint(r);
    struct slice exchange = reader_take(r, exchange_len), key = reader_take(r, key_len),
                 props = reader_take(r, props_len), body = reader_take(r, body_len);
    if (!reader_done(r))
        return NULL;
    const uint8_t *pieces = b->pieces.bytes;
    if (record_may_go && body.len >= MSG_ADOPT_BYTES && pieces && pieces[0] != REC_TX && body.ptr > pieces &&
        body.ptr < pieces + b->pieces.len) {
        struct msg lengths = {.exchange_len = exchange_len,
                              .key_len = key_len,
                              .props_len = (uint32_t)props_len,
                              .body_len = (uint32_t)body_len,
                              .flags = flags,
                              .priority = priority,
                              .expiration_ms = expiration,
                              .id = id};
        return msg_of_pieces(b, &lengths, body);
    }
    struct msg *msg = msg_new(&b->heap, exchange, key, props, body.len);
    if (!msg)
        return NULL;
    msg->flags = flags;
    msg->priority = priority;
    msg->expiration_ms = expiration;
    msg->id = id;
    if (body.len)
        memcpy(msg_body_room(msg), body.ptr, body.len);
    return msg;
}

/* The body that an earlier record of the same snapshot carried. */
static struct msg *shared_find(struct broker *b, uint64_t id)
{
    return b->shared && id ? map_get(b->shared, map_key_u64(&id)) : NULL;
}

static bool shared_keep(struct broker *b, struct msg *msg)
{
    if (!b->shared) {
        b->shared = mem_alloc(sizeof *b->shared);
        if (!b->shared)
            return false;
        map_init(b->shared, b->seed);
    }
    struct msg *old = map_take(b->shared, map_key_u64(&msg->id));
    if (old)
        msg_unref(&b->heap, old);
    if (!map_put(b->shared, map_key_u64(&msg->id), msg))
        return false;
    (void)msg_ref(msg);
    return true;
}

void replay_fini(struct broker *b)
{
    if (!b->shared)
        return;
    MAP_EACH(b->shared, struct msg, msg)
    msg_unref(&b->heap, msg);
    map_fini(b->shared);
    mem_free(b->shared);
    b->shared = NULL;
}

/* accepted: when, of a record that says so, for the queue's window. */
static bool hold(struct broker *b, const struct replay_target *t, struct msg *msg, bool snapshot,
                 const wall_t *accepted)
{
    struct queue *q = queue_by_id(b, t->queue);
    if (q && q->stream) {
        struct target target = {
            .queue = q, .position = t->position, .deadline = t->deadline, .returns = (uint32_t)(t->returns >> 1)};
        return stream_hold(b, q, &target, msg);
    }
    if (!q)
        return true; /* deleted later on, or its definition comes later in the snapshot together with this message */
    if (!replay_of(q))
        return false;
    if (accepted) {
        struct key_value key = dedup_key(q, msg, *accepted);
        if (key.has && !dedup_restore(b, q, &key, t->position))
            return false;
    }
    if (t->position >= q->next_position)
        q->next_position = t->position + 1;
    struct page *page = page_of_position(q, t->position);
    if (page)
        return t->returns >> 1 == 0 || page_return(page, t->position, (uint32_t)(t->returns >> 1), NULL);
    struct held *have = held_find(&q->replay->live, t->position);
    if (!have)
        have = held_find(&q->replay->snapshot, t->position);
    if (have) {
        have->returns = t->returns >> 1 > have->returns ? (uint32_t)(t->returns >> 1) : have->returns;
        have->redelivered |= t->returns & 1;
        return true;
    }
    struct held item = {.position = t->position,
                        .msg = msg_ref(msg),
                        .deadline = t->deadline,
                        .returns = (uint32_t)(t->returns >> 1),
                        .redelivered = t->returns & 1};
    if (held_add(snapshot ? &q->replay->snapshot : &q->replay->live, item))
        return true;
    msg_unref(&b->heap, msg);
    return false;
}

static bool replay_enqueue(struct broker *b, struct reader *r, const wall_t *accepted)
{
    uint8_t what = reader_u8(r);
    uint64_t id = reader_varint(r);
    if (id >= b->next_msg_id)
        b->next_msg_id = id + 1;
    if (what & ENQ_MOVE) {
        struct queue *from = queue_by_id(b, reader_varint(r));
        uint64_t position = reader_varint(r);
        if (from && from->replay) {
            remove_run(b, &from->replay->live, position, 1);
            remove_run(b, &from->replay->snapshot, position, 1);
            if (!pages_remove(from, position, 1))
                return false;
        }
    }
    uint64_t count = reader_varint(r);
    struct reader targets = *r;
    struct replay_target t;
    if (count > r->left / 4)
        return count == 0 && reader_ok(r);
    for (uint64_t i = 0; i < count; i++)
        if (!target_read(r, &t))
            return false;
    if (count == 0)
        return reader_ok(r);
    struct msg *msg = what & ENQ_BODY ? msg_read(b, r, id, count == 1) : shared_find(b, id);
    if (!msg)
        return !(what & ENQ_BODY);
    bool ok = true;
    if ((what & ENQ_BODY) && (what & ENQ_SNAPSHOT) && id)
        ok = shared_keep(b, msg);
    for (uint64_t i = 0; i < count && ok; i++) /* the only target has been read, and perhaps its record is gone */
        ok = (count == 1 || target_read(&targets, &t)) && hold(b, &t, msg, what & ENQ_SNAPSHOT, accepted);
    if (what & ENQ_BODY)
        msg_unref(&b->heap, msg);
    return ok;
}

static bool replay_keyed(struct broker *b, struct reader *r)
{
    wall_t accepted = (wall_t)reader_varint(r);
    return accepted <= WALL_NEVER - TIME_MS_MAX && replay_enqueue(b, r, &accepted);
}

/* The id first: with a large message goes the record. */
static bool replay_mqtt_once(struct broker *b, struct reader *r)
{
    struct mqtt_client *client = mqtt_client_numbered(b, reader_varint(r));
    uint64_t id = reader_varint(r);
    uint8_t type = reader_u8(r);
    if (!reader_ok(r) || id == 0 || id > UINT16_MAX)
        return false;
    if (client && !mqtt_ids_has(&client->received, (uint16_t)id)) {
        if (!mqtt_ids_reserve(&client->received))
            return false;
        mqtt_ids_add(&client->received, (uint16_t)id);
    }
    return type == REC_KEYED ? replay_keyed(b, r) : type == REC_ENQUEUE && replay_enqueue(b, r, NULL);
}

static bool replay_window(struct broker *b, struct reader *r)
{
    struct queue *q = queue_by_id(b, reader_varint(r));
    while (r->left && reader_ok(r)) {
        struct key_value value = {.has = true};
        value.hash[0] = reader_u64(r);
        value.hash[1] = reader_u64(r);
        uint64_t position = reader_varint(r), until = reader_varint(r);
        value.until = until ? (wall_t)(until - 1) : WALL_NEVER;
        if (!reader_ok(r) || position == 0 || value.until < 0)
            return false;
        if (!q || !q->rules->dedup)
            continue; /* deleted later on, or its keys mean nothing any more */
        if (!dedup_restore(b, q, &value, position))
            return false;
        if (position >= q->next_position)
            q->next_position = position + 1;
    }
    return reader_ok(r);
}

static bool replay_remove(struct broker *b, struct reader *r)
{
    struct queue *q = queue_by_id(b, reader_varint(r));
    uint64_t count = reader_varint(r);
    for (uint64_t i = 0; i < count && reader_ok(r); i++) {
        uint64_t first = reader_varint(r), length = reader_varint(r);
        if (!reader_ok(r) || length == 0 || !q)
            continue;
        if (q->replay) {
            remove_run(b, &q->replay->live, first, length);
            remove_run(b, &q->replay->snapshot, first, length);
            if (!pages_remove(q, first, length))
                return false;
        }
        if (first + length > q->next_position)
            q->next_position = first + length;
    }
    return reader_ok(r);
}

bool replay_taken(struct broker *b, uint64_t queue, uint64_t position)
{
    struct queue *q = queue_by_id(b, queue);
    if (!q)
        return true;
    if (position >= q->next_position)
        q->next_position = position + 1;
    if (!q->replay)
        return true;
    remove_run(b, &q->replay->live, position, 1);
    remove_run(b, &q->replay->snapshot, position, 1);
    return pages_remove(q, position, 1);
}

/* delayed: the record says until when. */
static bool replay_return(struct broker *b, struct reader *r, bool delayed)
{
    struct queue *q = queue_by_id(b, reader_varint(r));
    uint64_t position = reader_varint(r), returns = reader_varint(r);
    wall_t due = delayed ? (wall_t)reader_varint(r) : 0;
    struct held *item = NULL;
    if (q && q->replay && !(item = held_find(&q->replay->live, position)))
        item = held_find(&q->replay->snapshot, position);
    if (item) {
        item->returns = (uint32_t)returns;
        item->redelivered = true;
        item->due = due;
    }
    struct page *page = q && q->replay && !item ? page_of_position(q, position) : NULL;
    return reader_ok(r) && (!page || page_return(page, position, (uint32_t)returns, &due));
}

/* What the page holds leaves the list of messages in memory. */
static void page_covers(struct broker *b, struct held_list *list, const struct page *page)
{
    for (uint32_t i = held_bound(list, page->first); i < list->end && list->items[i].position <= page->last; i++)
        if (list->items[i].msg && page_has(page, list->items[i].position))
            held_drop(b, list, &list->items[i]);
}

static bool page_read(struct reader *r, struct page *page)
{
    page->where.segment = (uint32_t)reader_varint(r);
    page->where.offset = (uint32_t)reader_varint(r);
    page->where.len = (uint32_t)reader_varint(r);
    page->first = reader_varint(r);
    uint64_t span = reader_varint(r);
    page->last = page->first + span;
    page->count = (uint32_t)reader_varint(r);
    page->body_bytes = reader_varint(r);
    uint64_t deadline = reader_varint(r), runs = reader_varint(r);
    page->deadline = deadline ? (wall_t)(deadline - 1) : WALL_NEVER;
    page->journalled = true;
    if (!reader_ok(r) || runs > r->left / 2 || span >= UINT32_MAX || page->last < page->first || page->count == 0 ||
        page->count > PAGE_ITEMS_MAX)
        return false;
    page->live = (uint32_t)span + 1;
    uint64_t body_bytes = page->body_bytes; /* of what is alive as the record has it */
    for (uint64_t i = 0; i < runs; i++) {
        uint64_t first = reader_varint(r), length = reader_varint(r);
        if (!reader_ok(r) || length == 0 || first < page->first || first + length - 1 > page->last ||
            first + length < first || !page_remove(page, first, first + length - 1))
            return false;
    }
    page->body_bytes = body_bytes;
    uint64_t arrival = page->queue->hidden || page->retry ? reader_varint(r) : 0;
    page->arrival = (uint32_t)arrival;
    return arrival <= UINT32_MAX && reader_done(r) && page->live <= page->count;
}

static bool replay_page(struct broker *b, struct reader *r)
{
    struct queue *q = queue_by_id(b, reader_varint(r));
    uint64_t lane = reader_varint(r);
    if (!q)
        return reader_ok(r); /* deleted later on */
    bool retry = lane == RETRY_LANE;
    struct page *page =
        (retry || lane <= q->rules->max_priority) && replay_of(q) ? page_new(q, retry ? 0 : (unsigned)lane) : NULL;
    if (!page)
        return false;
    page->retry = retry;
    if (!page_read(r, page)) {
        page_forget(page);
        return false;
    }
    if (page->last >= q->next_position)
        q->next_position = page->last + 1;
    page_covers(b, &q->replay->live, page);
    page_covers(b, &q->replay->snapshot, page);
    if (page_add(q->replay, page)) {
        page_pack(page);
        return true;
    }
    page_forget(page);
    return false;
}

static bool replay_mark(struct broker *b, struct reader *r)
{
    struct queue *q = queue_by_id(b, reader_varint(r));
    uint64_t mark = reader_varint(r);
    if (q)
        q->mark = mark; /* may go back: a clean stop leaves the exact mark */
    return reader_ok(r);
}

static bool replay_ids(struct broker *b, struct reader *r, uint8_t type)
{
    uint64_t end = reader_varint(r);
    if (type == REC_PRODUCER_IDS && end > b->producer_ids_end)
        b->next_producer_id = b->producer_ids_end = end;
    if (type == REC_QUEUE_IDS && end > b->next_queue_id)
        b->next_queue_id = end;
    return reader_ok(r) && end <= INT64_MAX;
}

/* ---- dispatch ---- */

static bool apply(struct broker *b, struct slice record);

static bool replay_tx(struct broker *b, struct reader *r)
{
    while (r->left && reader_ok(r)) {
        struct slice inner = reader_str32(r);
        if (!reader_ok(r) || inner.len == 0 || inner.ptr[0] == REC_TX || !apply(b, inner))
            return false;
    }
    return reader_ok(r);
}

static bool piece(struct broker *b, struct reader *r, bool last)
{
    uint64_t number = reader_varint(r);
    struct slice bytes = reader_rest(r);
    if (number == 0) { /* what lies there is undecided: its COMMIT was never durable */
        buffer_fini(&b->pieces);
        b->piece_count = 0;
    }
    if (number != b->piece_count || bytes.len == 0 || !buffer_reserve(&b->pieces, bytes.len))
        return false;
    b->piece_count++;
    buffer_put(&b->pieces, bytes.ptr, bytes.len);
    if (!last)
        return true;
    struct slice whole = slice_of(b->pieces.bytes, b->pieces.len);
    bool ok = whole.len && whole.ptr[0] != REC_PIECE && whole.ptr[0] != REC_COMMIT && apply(b, whole);
    buffer_fini(&b->pieces);
    b->piece_count = 0;
    return ok;
}

static bool apply(struct broker *b, struct slice record)
{
    struct reader r = reader_of(record);
    struct slice name, vhost_name;
    uint8_t type = reader_u8(&r);
    switch (type) {
    case REC_PIECE: return piece(b, &r, false);
    case REC_COMMIT: return piece(b, &r, true);
    case REC_CHECKPOINT: return true;
    case REC_TX: return replay_tx(b, &r);
    case REC_VHOST_PUT: name = reader_str8(&r); return vhost_put(b, name, reader_str8(&r)) && reader_ok(&r);
    case REC_VHOST_DELETE: {
        struct vhost *vhost = vhost_find(b, reader_str8(&r));
        if (vhost)
            vhost_delete(b, vhost);
        return reader_ok(&r);
    }
    case REC_USER_PUT:
        name = reader_str8(&r);
        vhost_name = reader_str32(&r);
        return user_put(b, name, vhost_name, reader_str32(&r), true) && reader_ok(&r);
    case REC_USER_DELETE: {
        struct user *user = user_find(b, reader_str8(&r));
        if (user)
            user_delete(b, user);
        return reader_ok(&r);
    }
    case REC_PERMISSION_PUT: return replay_permission(b, &r, true);
    case REC_PERMISSION_DELETE: return replay_permission(b, &r, false);
    case REC_POLICY_PUT: return replay_policy(b, &r, true);
    case REC_POLICY_DELETE: return replay_policy(b, &r, false);
    case REC_EXCHANGE_PUT: return replay_exchange(b, &r, true);
    case REC_EXCHANGE_DELETE: return replay_exchange(b, &r, false);
    case REC_QUEUE_PUT: return replay_queue_put(b, &r);
    case REC_QUEUE_DELETE: {
        struct queue *q = queue_by_id(b, reader_varint(&r));
        if (q)
            queue_delete(b, q);
        return reader_ok(&r);
    }
    case REC_BINDING_PUT: return replay_binding(b, &r, true);
    case REC_BINDING_DELETE: return replay_binding(b, &r, false);
    case REC_ENQUEUE: return replay_enqueue(b, &r, NULL);
    case REC_KEYED: return replay_keyed(b, &r);
    case REC_MQTT_ONCE: return replay_mqtt_once(b, &r);
    case REC_MQTT_CLIENT: return replay_mqtt_client(b, &r);
    case REC_MQTT_SUB: return replay_mqtt_sub(b, &r);
    case REC_MQTT_ID: return replay_mqtt_id(b, &r);
    case REC_RETAINED: return replay_retained(b, &r);
    case REC_WINDOW: return replay_window(b, &r);
    case REC_REMOVE: return replay_remove(b, &r);
    case REC_RETURN: return replay_return(b, &r, false);
    case REC_RETRY: return replay_return(b, &r, true);
    case REC_PAGE: return replay_page(b, &r);
    case REC_STREAM: return replay_stream(b, &r);
    case REC_REWRITTEN: return replay_rewritten(b, &r);
    case REC_STREAM_TRIM: return replay_stream_trim(b, &r);
    case REC_CURSOR: return replay_cursor(b, &r);
    case REC_BATCH: return replay_batch(b, &r);
    case REC_PRODUCERS: return replay_producers(b, &r);
    case REC_GROUP: return replay_group(b, &r);
    case REC_SHARE: return replay_share(b, &r);
    case REC_GROUP_CONFIG: return replay_group_config(b, &r);
    case REC_OFFSETS: return replay_offsets(b, &r);
    case REC_ISOLATION: return replay_isolation(b, &r);
    case REC_TXN: return replay_txn(b, &r);
    case REC_TXN_GONE: return replay_txn_gone(b, &r);
    case REC_TXN_ADD: return replay_txn_add(b, &r);
    case REC_TXN_OFFSETS: return replay_txn_offsets(b, &r);
    case REC_QUEUE_ARGS: return replay_queue_args(b, &r);
    case REC_SQL_OBJECT: return replay_sql_object(b, &r);
    case REC_SQL_OBJECT_GONE: return replay_sql_object_gone(b, &r);
    case REC_SQL_STATE: return replay_sql_state(b, &r);
    case REC_QUERY_STEP: return replay_query_step(b, &r);
    case REC_SECRET: return replay_secret(b, &r);
    case REC_PRODUCER_IDS:
    case REC_QUEUE_IDS: return replay_ids(b, &r, type);
    case REC_MARK: return replay_mark(b, &r);
    default: return false;
    }
}

int broker_replay(struct broker *b, lsn_t lsn, struct slice record, char *why, size_t why_len)
{
    CHECK(b->recovering);
    uint8_t type = record.len ? record.ptr[0] : 0;
    b->store_was_new = false;
    b->appended = b->durable = lsn;
    if (b->pieces.len && type != REC_PIECE && type != REC_COMMIT) {
        buffer_fini(&b->pieces); /* undecided: its COMMIT was never durable */
        b->piece_count = 0;
    }
    if (apply(b, record))
        return 0;
    const char *name = record_name(type);
    snprintf(why, why_len, "journal record %llu (%s, %zu bytes) cannot be applied: %s", (unsigned long long)lsn,
             name ? name : "unknown type", record.len,
             name ? "it is damaged, or memory is short" : "it was written by a newer version");
    return -84; /* EILSEQ */
}

bool broker_queue_known(struct broker *b, uint64_t id, struct slice *ret_vhost, struct slice *ret_name,
                        uint64_t *ret_next_position)
{
    const struct queue *q = queue_by_id(b, id);
    if (!q)
        return false;
    *ret_vhost = q->vhost->name;
    *ret_name = q->name;
    *ret_next_position = q->stream ? UINT64_MAX : q->next_position; /* a stream's records have offsets, by partition */
    return true;
}

/* ---- after the last record ---- */

static bool settle_one(struct broker *b, struct queue *q, struct held *item)
{
    bool journalled = true;
    struct entry *e =
        backlog_append(b, q, item->msg, item->position, 0, q->hidden ? WALL_NEVER : item->deadline, journalled);
    if (!e)
        return false;
    item->msg = NULL; /* its reference went into the entry */
    paging_settle_entry(b, &q->busy->lanes[e->lane], e);
    e->flags &= (uint8_t)~ENTRY_FRESH;
    e->returns = item->returns;
    if (item->redelivered || item->position < q->mark)
        e->flags |= ENTRY_REDELIVERED;
    if (q->hidden) {
        e->deadline = item->deadline;
        return delay_entry_recovered(b, e);
    }
    return item->due <= b->wall || e->deadline <= b->wall || retry_park(b, e, item->due);
}

static bool is_there(struct queue *q, uint64_t position)
{
    return q->replay && (held_find(&q->replay->live, position) || held_find(&q->replay->snapshot, position) ||
                         page_of_position(q, position));
}

static bool settle_messages(struct broker *b, struct queue *q)
{
    struct replay_queue *held = q->replay;
    struct held_list *a = &held->live, *s = &held->snapshot;
    uint32_t i = a->first, j = s->first;
    bool ok = held->page_count + a->live + s->live == 0 || queue_rouse(b, q);
    for (uint32_t p = 0; ok && p < held->page_count; p++) {
        ok = page_settle(b, held->pages[p]);
        if (ok)
            held->pages[p] = NULL; /* the lane has it */
    }
    while (ok && (i < a->end || j < s->end)) {
        bool from_live = j >= s->end || (i < a->end && a->items[i].position < s->items[j].position);
        struct held *item = from_live ? &a->items[i++] : &s->items[j++];
        if (item->msg)
            ok = settle_one(b, q, item);
    }
    replay_queue_drop(b, q);
    if (!list_empty(&q->busy->pages) && !q->hidden)
        backlog_arm(b, q);
    return ok;
}

static bool settle_queue(struct broker *b, struct queue *q)
{
    bool ok = dedup_settle(b, q, is_there) && (!q->replay || settle_messages(b, q));
    if (q->next_position < q->mark)
        q->next_position = q->mark;
    q->delivered_upto = q->mark;
    if (queue_is_busy(q))
        q->busy->mark_safe = q->busy->recovered_mark = q->mark;
    return ok;
}

static bool make_defaults(struct broker *b, char *why, size_t why_len)
{
    const struct broker_options *o = &b->options;
    char verifier[PASSWORD_VERIFIER_MAX];
    uint8_t salts[PASSWORD_SALTS];
    struct slice user = o->default_user.len ? o->default_user : slice_str("guest");
    struct slice pass = o->default_pass.len ? o->default_pass : slice_str("guest");
    struct slice vhost_name = o->default_vhost.len ? o->default_vhost : slice_str("/");
    bool guest = slice_is(pass, "guest");
    o->random(o->random_arg, salts, sizeof salts);
    if (!password_make(pass, salts, guest ? GUEST_ITERATIONS : PASSWORD_ITERATIONS, verifier)) {
        snprintf(why, why_len, "the default user's password could not be hashed");
        return false;
    }
    struct vhost *vhost = vhost_put(b, vhost_name, (struct slice){0});
    snprintf(why, why_len, "out of memory");
    if (!vhost || !user_put(b, user, slice_str(verifier), slice_str("administrator"), true))
        return false;
    struct user *u = user_find(b, user);
    if (!permission_put(b, u, vhost, slice_str(".*"), slice_str(".*"), slice_str(".*"), why, why_len))
        return false;
    b->recovering = false;
    snprintf(why, why_len, "out of memory");
    return log_object(b, &vhost->object) && log_object(b, &u->object) &&
           log_object(b, &permission_find(u, vhost, NULL)->object);
}

int broker_replayed(struct broker *b, mono_t now, wall_t wall, char *why, size_t why_len)
{
    b->now = now;
    b->wall = wall;
    wheel_init(&b->wheel, now);
    buffer_fini(&b->pieces);
    replay_fini(b);
    bool ok = true, whole = true;
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        struct queue *q = CONTAINER_OF(object, struct queue, object);
        if (object->kind == OBJ_QUEUE)
            ok = ok && settle_queue(b, q);
        if (object->kind == OBJ_QUEUE && q->stream)
            whole = whole && stream_settle(b, q, why, why_len);
    }
    if (!whole)
        return -84; /* EILSEQ */
    if (!ok || !queue_rules_retry(b)) {
        snprintf(why, why_len, "out of memory while rebuilding queues");
        return -12;
    }
    streams_recovered(b);
    if (b->store_was_new && !make_defaults(b, why, why_len))
        return -12;
    b->recovering = false;
    secret_ready(b);
    busy_recovered(b);
    groups_recovered(b);
    txns_recovered(b);
    if (!mqtt_recovered(b)) {
        snprintf(why, why_len, "out of memory while rebuilding MQTT sessions");
        return -12;
    }
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        struct queue *q = CONTAINER_OF(object, struct queue, object);
        if (object->kind != OBJ_QUEUE)
            continue;
        queue_used(b, q);
        if (q->stream)
            stream_recovered(b, q);
    }
    return 0;
}
