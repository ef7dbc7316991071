/* streams_test_rig: what the tests of streams share: messages that follow from stream, partition and offset, so that what comes
 * back can be compared without keeping it. Test code only, one thread.
 */
#ifndef MILLRACE_STORE_STREAMS_TEST_RIG_H
#define MILLRACE_STORE_STREAMS_TEST_RIG_H

#include "core/stream_job.h"
#include "fmt/amqp_props.h"
#include "fmt/amqp_table.h"
#include "store/store_test_rig.h"

#include <stdio.h>

/* Every type of field, in tables and arrays. */
static inline void rig_table(struct writer *w, uint64_t *dice, unsigned depth)
{
    static const char types[] = "tbBsuIilLfdDTSxV";
    static const unsigned widths[] = {1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0, 0, 0};
    uint8_t value[40];
    for (unsigned i = 0; i < sizeof types - 1; i++) {
        uint64_t d = rig_draw(dice);
        char name[24];
        int len = snprintf(name, sizeof name, "%c%u-%c", types[i], depth, (char)('a' + d % 26));
        struct amqp_value field = {.type = types[i]};
        uint32_t text = (uint32_t)(d >> 8) % 32;
        if (d % 3 == 0)
            continue;
        rig_fill(value, sizeof value, d);
        if (types[i] == 't')
            value[0] &= 1;
        if (types[i] == 'S' || types[i] == 'x') {
            struct writer s = writer_of(value, 4);
            writer_u32(&s, text);
            field.raw = slice_of(value, 4 + text);
        } else {
            field.raw = slice_of(value, widths[i]);
        }
        amqp_put_field(w, slice_of(name, (size_t)len), &field);
    }
    if (depth < 3) {
        size_t mark = amqp_open(w, "inner", 'F');
        rig_table(w, dice, depth + 1);
        amqp_close(w, mark);
        mark = amqp_open(w, "list", 'A');
        amqp_put_element_str(w, slice_str("element"));
        size_t element = amqp_open_element(w, 'F');
        rig_table(w, dice, 3);
        amqp_close(w, element);
        amqp_close(w, mark);
    }
}

/* A valid property list; ret has 8 KiB. */
static inline struct slice rig_props(uint8_t *ret, uint64_t dice, uint8_t *ret_flags, uint8_t *ret_priority,
                                     int64_t *ret_expiration_ms)
{
    uint8_t headers[6000];
    struct writer table = writer_of(headers, sizeof headers), w = writer_of(ret, 8192);
    uint64_t d = rig_draw(&dice);
    struct amqp_props props = {.present = d % 4 == 0   ? 0
                                          : d % 4 == 1 ? AMQP_DELIVERY_MODE
                                                       : (uint16_t)((d >> 8) & 0xfffc)};
    char expiration[24];
    props.delivery_mode = d >> 30 & 1 ? 2 : 1;
    props.priority = (uint8_t)(d >> 32);
    props.timestamp = d;
    snprintf(expiration, sizeof expiration, "%llu", (unsigned long long)(d >> 40));
    props.expiration = slice_str(expiration);
    props.content_type = slice_str("text/plain");
    props.content_encoding = props.correlation_id = props.message_id = props.type = slice_str("x");
    props.user_id = props.app_id = slice_str("guest");
    props.reply_to = slice_of(headers, 0);
    props.cluster_id = slice_str("c");
    if (props.present & AMQP_HEADERS) {
        rig_table(&table, &dice, d >> 38 & 1 ? 0 : 3);
        if (d >> 39 & 1)
            amqp_put_str(&table, "x-stream-key", slice_str("a key"));
        props.headers = writer_slice(&table);
    }
    amqp_props_write(&w, &props);
    CHECK(writer_ok(&w) && writer_ok(&table));
    *ret_flags = (uint8_t)((props.present & AMQP_DELIVERY_MODE && props.delivery_mode == 2 ? MSG_PERSISTENT : 0) |
                           (props.present & AMQP_HEADERS ? MSG_HAS_HEADERS : 0) |
                           (props.present & AMQP_USER_ID ? MSG_HAS_USER_ID : 0) |
                           (props.present & AMQP_REPLY_TO ? MSG_HAS_REPLY_TO : 0));
    *ret_priority = props.present & AMQP_PRIORITY ? props.priority : 0;
    *ret_expiration_ms = props.present & AMQP_EXPIRATION ? (int64_t)(d >> 40) : -1;
    return writer_slice(&w);
}

/* The message at an offset; NULL: no memory. body_max: of most; one in 64 is 40 times as long. */
static inline struct msg *rig_message(struct slab_heap *heap, uint64_t stream, uint32_t partition, uint64_t offset,
                                      uint32_t body_max)
{
    uint8_t names[2][255], raw[8192], flags, priority;
    int64_t expiration_ms;
    uint64_t dice = (stream * 1000003 + partition) * 1000003 + offset, d = rig_draw(&dice);
    size_t exchange_len = d % 7 == 0 ? 255 : d % 5, key_len = d % 11 == 0 ? 255 : d % 9;
    size_t body_len = !body_max ? 0 : (d >> 32) % (body_max + 1) * (d % 64 ? 1 : 40);
    rig_fill(names[0], exchange_len, d + 1);
    rig_fill(names[1], key_len, d + 2);
    struct slice props = rig_props(raw, d + 3, &flags, &priority, &expiration_ms);
    struct msg *msg = msg_new(heap, slice_of(names[0], exchange_len), slice_of(names[1], key_len), props, body_len);
    if (!msg)
        return NULL;
    rig_fill(msg_body_room(msg), body_len, d + 4);
    msg->flags = flags;
    msg->priority = priority;
    msg->expiration_ms = expiration_ms;
    return msg;
}

/* Goes up, with steps back. */
static inline wall_t rig_time(uint64_t stream, uint64_t offset)
{
    uint64_t dice = stream * 31 + offset;
    return 1700000000000 + (wall_t)offset * 10 + (wall_t)(rig_draw(&dice) % 200);
}

#endif
