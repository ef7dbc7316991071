/* message: what a producer published, immutable and counted, in one block of memory.
 *
 * The block holds, in this order: exchange name, routing key, raw AMQP property bytes (property flags and list exactly
 * as they came), body. A small extracted struct stands in front so that nobody parses properties on the hot path.
 * Life cycle: msg_new (one writer fills it) → shared by msg_ref/msg_unref on any thread.
 * `mine` is always the calling thread's own slab heap.
 */
#ifndef MILLRACE_CORE_MESSAGE_H
#define MILLRACE_CORE_MESSAGE_H

#include "base/mem.h"
#include "base/slab.h"
#include "base/types.h"

#include <endian.h>
#include <stdatomic.h>
#include <string.h>

enum msg_flag {
    MSG_PERSISTENT = 1,  /* delivery_mode 2 */
    MSG_HAS_HEADERS = 2, /* a header table is present: CC, BCC, x-delay, headers exchange may matter */
    MSG_HAS_USER_ID = 4,
    MSG_HAS_REPLY_TO = 8,
    MSG_MANDATORY = 16, /* of the publish, not of the message; ignored once routed */
    MSG_INVALID = 32,   /* of the publish: expiration or delivery mode are refused once the exchange is known */
    MSG_OF_SHARE = 32,  /* the same bit of what lies in a queue: it moved there from a share group (mqtt_share.c) */
    MSG_DELAYED = 128,  /* of the publish: x-delay counts, whatever its exchange */
    MSG_BATCH = 64,     /* not a message but a Kafka record batch, verbatim as the body, without names and properties */
};

struct msg {
    _Atomic uint32_t refs;
    uint8_t large;    /* from mem_alloc, not from a slab */
    uint8_t flags;    /* enum msg_flag */
    uint8_t priority; /* property, 0 when absent */
    uint8_t exchange_len, key_len;
    uint32_t props_len; /* property flags (2 bytes at least) + property list */
    uint32_t body_len;
    int64_t expiration_ms; /* property `expiration`; -1: none */
    uint64_t id;           /* core's: shared-body number in the journal, 0 until journalled */
    uint64_t mark;         /* core's: compaction generation that has written the body */
    uint8_t bytes[];
};

/* A message with refs 1 and room for everything; exchange, key and props are copied, the body is to be filled by the
 * caller at msg_body_room. NULL: no memory. The names are at most 255 bytes. */
MUST_USE struct msg *msg_new(struct slab_heap *mine, struct slice exchange, struct slice key, struct slice props,
                             size_t body_len);
/* A message made of a block that holds exchange, key, props and body in this order from `at` on: for large ones, which are
 * not to be in memory twice. block is of mem_alloc's family and of that kind; it is taken over. NULL: no memory, and the block stays the
 * caller's. The lengths lie within the block. */
MUST_USE struct msg *msg_adopt(enum mem_kind kind, void *block, size_t at, const struct msg *lengths);
#define MSG_ADOPT_BYTES (1u << 20) /* bodies of so much or more are worth it */
void msg_free(struct slab_heap *mine, struct msg *msg);

static inline struct msg *msg_ref(struct msg *msg)
{
    atomic_fetch_add_explicit(&msg->refs, 1, memory_order_relaxed);
    return msg;
}

static inline void msg_unref(struct slab_heap *mine, struct msg *msg)
{
    if (atomic_load_explicit(&msg->refs, memory_order_acquire) == 1 ||
        atomic_fetch_sub_explicit(&msg->refs, 1, memory_order_acq_rel) == 1)
        msg_free(mine, msg);
}

static inline struct slice msg_exchange(const struct msg *msg)
{
    return slice_of(msg->bytes, msg->exchange_len);
}

static inline struct slice msg_key(const struct msg *msg)
{
    return slice_of(msg->bytes + msg->exchange_len, msg->key_len);
}

static inline struct slice msg_props(const struct msg *msg)
{
    return slice_of(msg->bytes + msg->exchange_len + msg->key_len, msg->props_len);
}

static inline uint8_t *msg_body_room(struct msg *msg)
{
    return msg->bytes + msg->exchange_len + msg->key_len + msg->props_len;
}

static inline struct slice msg_body(const struct msg *msg)
{
    return slice_of(msg->bytes + msg->exchange_len + msg->key_len + msg->props_len, msg->body_len);
}

/* Bytes that this message occupies; also what a delivery of it costs of a connection's byte credit. */
static inline size_t msg_size(const struct msg *msg)
{
    return sizeof *msg + msg->exchange_len + msg->key_len + (size_t)msg->props_len + msg->body_len;
}

/* How many offsets of a stream it covers: 1, or those of a batch, whose header has been checked. */
static inline uint32_t msg_offsets(const struct msg *msg)
{
    uint32_t last_delta;
    if (!(msg->flags & MSG_BATCH))
        return 1;
    memcpy(&last_delta, msg_body(msg).ptr + 23, sizeof last_delta); /* fmt/record_batch.h */
    return be32toh(last_delta) + 1;
}

#endif
