/* Making and freeing messages, see message.h. */
#include "core/message.h"

#include "base/check.h"
#include "base/mem.h"

struct msg *msg_new(struct slab_heap *mine, struct slice exchange, struct slice key, struct slice props,
                    size_t body_len)
{
    CHECK(exchange.len <= 255 && key.len <= 255 && props.len <= UINT32_MAX && body_len <= UINT32_MAX);
    size_t len = sizeof(struct msg) + exchange.len + key.len + props.len + body_len;
    bool large = len > SLAB_LEN_MAX;
    struct msg *msg = large ? mem_alloc_as(MEM_MESSAGES, len) : slab_take(mine, len);
    if (!msg)
        return NULL;
    *msg = (struct msg){.large = large,
                        .exchange_len = (uint8_t)exchange.len,
                        .key_len = (uint8_t)key.len,
                        .props_len = (uint32_t)props.len,
                        .body_len = (uint32_t)body_len,
                        .expiration_ms = -1};
    atomic_init(&msg->refs, 1);
    uint8_t *at = msg->bytes;
    if (exchange.len)
        memcpy(at, exchange.ptr, exchange.len);
    if (key.len)
        memcpy(at + exchange.len, key.ptr, key.len);
    if (props.len)
        memcpy(at + exchange.len + key.len, props.ptr, props.len);
    return msg;
}

struct msg *msg_adopt(enum mem_kind kind, void *block, size_t at, const struct msg *lengths)
{
    size_t bytes = msg_size(lengths) - sizeof *lengths;
    if (at < sizeof *lengths) { /* room for the struct in front */
        block = mem_realloc_as(kind, block, sizeof *lengths + bytes);
        if (!block)
            return NULL;
    }
    struct msg *msg = block;
    memmove(msg->bytes, (uint8_t *)block + at, bytes);
    memcpy(msg, lengths, sizeof *lengths);
    msg->large = true;
    atomic_init(&msg->refs, 1);
    struct msg *smaller = mem_realloc_as(kind, msg, sizeof *msg + bytes);
    msg = smaller ? smaller : msg;
    mem_move_as(kind, MEM_MESSAGES, msg);
    return msg;
}

void msg_free(struct slab_heap *mine, struct msg *msg)
{
    if (msg->large)
        mem_free_as(MEM_MESSAGES, msg);
    else
        slab_give(mine, msg);
}
