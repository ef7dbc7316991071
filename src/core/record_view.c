/* Looking at the core's journal records (records.def) without being the broker: what tools want to know of one, and one
 * line about each for people. Pure functions, any thread. */
#include "core/group_int.h"
#include "core/records.h"

#include <stdio.h>

const char *record_name(uint8_t type)
{
    switch (type) {
#define RECORD(name, number, fields)                                                                                   \
    case number:                                                                                                       \
        return #name;
#include "core/records.def"
#undef RECORD
    default: return NULL;
    }
}

/* ---- for tools ---- */

static bool enqueue_targets(struct reader *r, void (*each)(void *, uint64_t, uint64_t, bool), void *arg)
{
    uint8_t what = reader_u8(r);
    (void)reader_varint(r);
    if (what & ENQ_MOVE) {
        (void)reader_varint(r);
        (void)reader_varint(r);
    }
    uint64_t count = reader_varint(r);
    for (uint64_t i = 0; i < count && reader_ok(r); i++) {
        uint64_t queue = reader_varint(r), position = reader_varint(r);
        (void)reader_varint(r);
        (void)reader_varint(r);
        if (reader_ok(r))
            each(arg, queue, position, what & ENQ_SNAPSHOT);
    }
    return reader_ok(r);
}

bool record_targets(struct slice record, void (*each)(void *arg, uint64_t queue, uint64_t position, bool snapshot),
                    void *arg)
{
    struct reader r = reader_of(record);
    uint8_t type = reader_u8(&r);
    if (type == REC_MQTT_ONCE) {
        (void)reader_varint(&r);
        (void)reader_varint(&r);
        type = reader_u8(&r);
    }
    if (type == REC_KEYED)
        (void)reader_varint(&r);
    if (type == REC_ENQUEUE || type == REC_KEYED)
        return enqueue_targets(&r, each, arg);
    while (type == REC_TX && r.left) {
        struct slice inner = reader_str32(&r);
        if (!reader_ok(&r) || inner.len == 0 || inner.ptr[0] == REC_TX || !record_targets(inner, each, arg))
            return false;
    }
    return reader_ok(&r);
}

lsn_t record_checkpoint(struct slice record)
{
    struct reader r = reader_of(record);
    bool checkpoint = reader_u8(&r) == REC_CHECKPOINT;
    lsn_t first = reader_u64(&r);
    return checkpoint && reader_ok(&r) ? first : 0;
}

size_t record_remove(uint8_t *ret, uint64_t queue, uint64_t first, uint64_t last)
{
    struct writer w = writer_of(ret, RECORD_REMOVE_MAX);
    writer_u8(&w, REC_REMOVE);
    writer_varint(&w, queue);
    writer_varint(&w, 1);
    writer_varint(&w, first);
    writer_varint(&w, last - first + 1);
    CHECK(writer_ok(&w));
    return w.len;
}

size_t record_nothing(uint8_t *ret)
{
    struct writer w = writer_of(ret, RECORD_REMOVE_MAX);
    writer_u8(&w, REC_MARK);
    writer_varint(&w, 0); /* no queue has this id */
    writer_varint(&w, 0);
    return w.len;
}

/* ---- for people ---- */

static void print_enqueue(struct reader *r, bool keyed, char *ret, size_t len)
{
    uint8_t what = reader_u8(r);
    unsigned long long id = reader_varint(r);
    int n =
        snprintf(ret, len, "%s%s id %llu", keyed ? "KEYED" : "ENQUEUE", what & ENQ_SNAPSHOT ? " (snapshot)" : "", id);
    if (what & ENQ_MOVE) {
        unsigned long long queue = reader_varint(r), position = reader_varint(r);
        n += snprintf(ret + n, len - (size_t)n, " moved from queue %llu position %llu", queue, position);
    }
    uint64_t count = reader_varint(r);
    for (uint64_t i = 0; i < count && reader_ok(r) && (size_t)n + 80 < len; i++) {
        unsigned long long queue = reader_varint(r), position = reader_varint(r);
        (void)reader_varint(r);
        (void)reader_varint(r);
        n += snprintf(ret + n, len - (size_t)n, " → queue %llu position %llu", queue, position);
    }
    if (what & ENQ_BODY && (size_t)n + 60 < len)
        snprintf(ret + n, len - (size_t)n, ", %zu bytes", r->left);
}

static void print_stream(uint8_t type, struct reader *r, char *ret, size_t len)
{
    unsigned long long id = reader_varint(r), second = reader_varint(r), third = reader_varint(r),
                       fourth = r->left ? reader_varint(r) : 0;
    if (type == REC_PRODUCERS || type == REC_ISOLATION)
        snprintf(ret, len, " of stream %llu, partition %llu: %zu bytes", id, second, r->left);
    else if (type == REC_BATCH)
        snprintf(ret, len, " in stream %llu, partition %llu, at offset %llu: %zu bytes", id, second, third, r->left);
    else if (type == REC_CURSOR)
        snprintf(ret, len, " of queue %llu in stream %llu, partition %llu: offset %llu", second, id, third, fourth);
    else if (type == REC_STREAM)
        snprintf(ret, len, " %llu partition %llu: offsets %llu to %llu are synced", id, second, third, fourth);
    else if (type == REC_REWRITTEN)
        snprintf(ret, len, " %llu partition %llu: dirty from %llu, offsets %llu to %llu in a new file", id, second,
                 third, fourth, r->left ? (unsigned long long)reader_varint(r) : 0);
    else
        snprintf(ret, len, " %llu partition %llu begins at offset %llu", id, second, third);
}

static void print_remove(struct reader *r, char *ret, size_t len)
{
    unsigned long long id = reader_varint(r), runs = reader_varint(r);
    int n = snprintf(ret, len, " queue %llu: %llu runs, first", id, runs);
    for (unsigned long long i = 0; i < runs && i < 8 && reader_ok(r) && n > 0 && (size_t)n + 50 < len; i++) {
        unsigned long long first = reader_varint(r), count = reader_varint(r);
        n += snprintf(ret + n, len - (size_t)n, "%s %llu +%llu", i ? "," : "", first, count);
    }
}

static void print_page(struct reader *r, char *ret, size_t len)
{
    unsigned long long id = reader_varint(r), lane = reader_varint(r), segment = reader_varint(r),
                       offset = reader_varint(r);
    (void)reader_varint(r);
    unsigned long long first = reader_varint(r), span = reader_varint(r), count = reader_varint(r);
    snprintf(ret, len, " queue %llu lane %llu: positions %llu to %llu, %llu messages in segment %llu at %llu", id, lane,
             first, first + span, count, segment, offset);
}

static void print_mqtt(uint8_t type, struct reader *r, char *ret, size_t len)
{
    static const char *const what[] = {"received", "released", "releasing", "completed"};
    if (type == REC_RETAINED) {
        struct slice vhost = reader_str8(r), exchange = reader_str8(r), key = reader_str8(r);
        (void)reader_varint(r);
        bool there = reader_u8(r);
        snprintf(ret, len, " '%.*s' of '%.*s' in '%.*s'%s, %zu bytes", SLICE_ARG(key), SLICE_ARG(exchange),
                 SLICE_ARG(vhost), there ? "" : " is gone", r->left);
        return;
    }
    unsigned long long client = reader_varint(r);
    if (type == REC_MQTT_CLIENT) {
        struct slice vhost = reader_str8(r), id = reader_str8(r);
        unsigned long long expiry = reader_varint(r), left = r->left ? reader_varint(r) : 0;
        snprintf(ret, len, " %llu '%.*s' in '%.*s'%s, expiry %llu s", client, SLICE_ARG(id), SLICE_ARG(vhost),
                 !expiry ? " is gone"
                 : left  ? " has left"
                         : " is connected",
                 expiry ? expiry - 1 : 0);
    } else if (type == REC_MQTT_SUB) {
        struct slice pattern = reader_str8(r), group = reader_str8(r);
        unsigned long long options = reader_varint(r);
        snprintf(ret, len, " of client %llu: '%.*s'%s%.*s%s", client, SLICE_ARG(pattern),
                 group.len ? " shared by " : "", SLICE_ARG(group), options ? "" : " is gone");
    } else {
        uint8_t kind = reader_u8(r);
        snprintf(ret, len, " of client %llu: packet id %llu %s", client, (unsigned long long)reader_varint(r),
                 kind < ARRAY_LEN(what) ? what[kind] : "?");
    }
}

static void print_sql(uint8_t type, struct reader *r, char *ret, size_t len)
{
    unsigned long long id = reader_varint(r);
    if (type == REC_SQL_OBJECT) {
        struct slice vhost = reader_str8(r), name = reader_str8(r), owner = reader_str8(r);
        snprintf(ret, len, " %llu '%.*s' of '%.*s' in '%.*s', %zu bytes", id, SLICE_ARG(name), SLICE_ARG(owner),
                 SLICE_ARG(vhost), r->left);
    } else if (type == REC_QUERY_STEP) {
        unsigned long long number = reader_varint(r);
        bool whole = reader_u8(r);
        snprintf(ret, len, " %llu of query %llu: %s %zu bytes", number, id,
                 whole ? "the trail is" : "its trail grows by", r->left);
    } else if (type == REC_SQL_STATE) {
        unsigned state = reader_u8(r);
        struct slice reason = reader_rest(r);
        snprintf(ret, len, " of %llu: %u %.*s", id, state, SLICE_ARG(reason));
    } else
        snprintf(ret, len, " %llu", id);
}

void record_print(struct slice record, char *ret, size_t len)
{
    struct reader r = reader_of(record);
    uint8_t type = reader_u8(&r);
    if (type == REC_MQTT_ONCE) {
        unsigned long long client = reader_varint(&r), id = reader_varint(&r);
        int said = snprintf(ret, len, "MQTT_ONCE of client %llu, packet id %llu: ", client, id);
        if (said > 0 && (size_t)said < len)
            record_print(reader_rest(&r), ret + said, len - (size_t)said);
        return;
    }
    const char *name = record_name(type);
    if ((type == REC_ENQUEUE || type == REC_KEYED) && len > 200) {
        if (type == REC_KEYED)
            (void)reader_varint(&r);
        print_enqueue(&r, type == REC_KEYED, ret, len);
        return;
    }
    int n = snprintf(ret, len, "%s", name ? name : "unknown");
    if (n < 0 || (size_t)n >= len)
        return;
    switch (type) {
    case REC_VHOST_PUT:
    case REC_VHOST_DELETE:
    case REC_USER_PUT:
    case REC_USER_DELETE: {
        struct slice one = reader_str8(&r); /* SLICE_ARG says what it is given twice */
        snprintf(ret + n, len - (size_t)n, " '%.*s'", SLICE_ARG(one));
        break;
    }
    case REC_EXCHANGE_PUT:
    case REC_EXCHANGE_DELETE:
    case REC_POLICY_PUT:
    case REC_POLICY_DELETE:
    case REC_PERMISSION_PUT:
    case REC_PERMISSION_DELETE:
    case REC_BINDING_PUT:
    case REC_BINDING_DELETE: {
        struct slice a = reader_str8(&r), c = reader_str8(&r);
        snprintf(ret + n, len - (size_t)n, " '%.*s' '%.*s'", SLICE_ARG(a), SLICE_ARG(c));
        break;
    }
    case REC_QUEUE_PUT: {
        unsigned long long id = reader_varint(&r);
        struct slice vhost = reader_str8(&r), queue = reader_str8(&r);
        snprintf(ret + n, len - (size_t)n, " %llu '%.*s' in '%.*s'", id, SLICE_ARG(queue), SLICE_ARG(vhost));
        break;
    }
    case REC_QUEUE_DELETE:
    case REC_QUEUE_ARGS:
    case REC_MARK:
    case REC_RETRY:
    case REC_RETURN: {
        unsigned long long id = reader_varint(&r), value = r.left ? reader_varint(&r) : 0;
        snprintf(ret + n, len - (size_t)n, " queue %llu %llu", id, value);
        break;
    }
    case REC_REMOVE: print_remove(&r, ret + n, len - (size_t)n); break;
    case REC_PAGE: print_page(&r, ret + n, len - (size_t)n); break;
    case REC_STREAM:
    case REC_STREAM_TRIM:
    case REC_BATCH:
    case REC_PRODUCERS:
    case REC_ISOLATION:
    case REC_REWRITTEN:
    case REC_CURSOR: print_stream(type, &r, ret + n, len - (size_t)n); break;
    case REC_GROUP:
    case REC_GROUP_CONFIG:
    case REC_SHARE:
    case REC_OFFSETS: {
        struct slice vhost = reader_str8(&r), group = reader_str8(&r);
        snprintf(ret + n, len - (size_t)n, " '%.*s' in vhost '%.*s', %zu bytes", SLICE_ARG(group), SLICE_ARG(vhost),
                 r.left);
        break;
    }
    case REC_TXN: {
        struct slice vhost = reader_str8(&r), id = reader_str32(&r);
        unsigned long long producer = reader_varint(&r), epoch = reader_varint(&r), state = reader_varint(&r);
        snprintf(ret + n, len - (size_t)n, " '%.*s' in '%.*s': producer %llu, epoch %llu, %s", SLICE_ARG(id),
                 SLICE_ARG(vhost), producer, epoch, txn_state_name((enum txn_state)state));
        break;
    }
    case REC_TXN_OFFSETS: {
        unsigned long long producer = reader_varint(&r), at = reader_varint(&r);
        struct slice group = reader_str8(&r);
        (void)at;
        snprintf(ret + n, len - (size_t)n, " of producer %llu: group '%.*s', %zu bytes", producer, SLICE_ARG(group),
                 r.left);
        break;
    }
    case REC_TXN_ADD: {
        unsigned long long producer = reader_varint(&r), at = reader_varint(&r), stream = reader_varint(&r);
        (void)at;
        snprintf(ret + n, len - (size_t)n, " of producer %llu: stream %llu, partition %llu", producer, stream,
                 (unsigned long long)reader_varint(&r));
        break;
    }
    case REC_SQL_OBJECT:
    case REC_SQL_OBJECT_GONE:
    case REC_SQL_STATE:
    case REC_QUERY_STEP: print_sql(type, &r, ret + n, len - (size_t)n); break;
    case REC_MQTT_CLIENT:
    case REC_MQTT_SUB:
    case REC_MQTT_ID:
    case REC_RETAINED: print_mqtt(type, &r, ret + n, len - (size_t)n); break;
    case REC_WINDOW: {
        unsigned long long id = reader_varint(&r);
        snprintf(ret + n, len - (size_t)n, " queue %llu, %zu bytes of keys", id, r.left);
        break;
    }
    case REC_PRODUCER_IDS:
    case REC_QUEUE_IDS:
        snprintf(ret + n, len - (size_t)n, " below %llu are taken", (unsigned long long)reader_varint(&r));
        break;
    case REC_CHECKPOINT:
        snprintf(ret + n, len - (size_t)n, " snapshot begins at lsn %llu", (unsigned long long)reader_u64(&r));
        break;
    default: snprintf(ret + n, len - (size_t)n, " %zu bytes", record.len); break;
    }
}
