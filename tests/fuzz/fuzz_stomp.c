/* Fuzz target of the STOMP engine: two clients, logged in, that interact, in front of the real core with a journal in memory.
 * fuzz: -max_len=4096
 * covers: src/proto/stomp/answers.c src/proto/stomp/commands.c src/proto/stomp/connect.c
 * covers: src/proto/stomp/destination.c src/proto/stomp/engine.c src/proto/stomp/errors.c
 * covers: src/proto/stomp/frame.c src/proto/stomp/out.c src/proto/stomp/props.c
 * covers: src/proto/stomp/receipts.c src/proto/stomp/send.c src/proto/stomp/subscription.c
 * covers: src/proto/stomp/transaction.c
 *
 * Input: a byte of modes, then what the clients send. Mode bits: 1 raw bytes of the first client instead of frames; 2 fed in small
 * pieces; 4 the journal becomes durable late; 8 it is replayed into a second core at the end; 16 compaction forced every few
 * commands; 32 not logged in: the input is the login itself; 64 ActiveMQ's dialect; 128 errors do not close the connection.
 * Frames: a byte (bit 0: which client, bit 1: let everything settle behind it, bit 2: it goes and comes back first), a length u16,
 * and the frame without its NUL, in which an octet 1 stands for the session's id. Whatever comes, the core's invariants hold, the
 * bytes that leave are well-formed frames, and nothing is leaked. */
#define RIG_IN_MAX (1u << 21)
#include "proto/stomp/rig_test.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

enum { RAW = 1, PIECES = 2, LATE = 4, REPLAY = 8, COMPACT = 16, EARLY = 32, ACTIVEMQ = 64, OPEN = 128 };

/* The journal of a new store: making one costs a password's derivation, so it is made once a process and replayed. */
static uint8_t new_store[1u << 16];
static size_t new_store_len;

static void world_begin(struct rig *rig, uint8_t mode)
{
    *rig = (struct rig){.port_slots = 256, .quiet = true, .compact_every = mode & COMPACT ? 7 : 0};
    rig->store = slice_of(new_store, new_store_len);
    CHECK(rig_begin(rig));
    if (!new_store_len) {
        CHECK(rig->records_len <= sizeof new_store);
        memcpy(new_store, rig->records, rig->records_len);
        new_store_len = rig->records_len;
    }
    rig->options.frame_bytes_max = 1u << 16;
    rig->options.tx_bytes_max = 1u << 16;
    rig->options.dialect = mode & ACTIVEMQ ? STOMP_AS_ACTIVEMQ : STOMP_AS_RABBITMQ;
    rig->options.stays_open = mode & OPEN;
}

static void some_turns(struct rig *rig, int turns)
{
    for (int i = 0; i < turns; i++) {
        rig->now += NS_PER_MS;
        rig_turn(rig);
    }
}

static void arrive(struct rig *rig, int i, const char *version)
{
    char frame[64];
    CHECK(rig_open(rig, i));
    snprintf(frame, sizeof frame, "CONNECT\naccept-version:%s\n\n", version);
    rig_frame(rig, i, frame);
    rig_settle(rig);
}

static void scene(struct rig *rig)
{
    arrive(rig, 0, "1.2");
    arrive(rig, 1, "1.1");
    rig_frame(rig, 0, "SUBSCRIBE\nid:1\ndestination:/queue/q\nack:client\n\n");
    rig_frame(rig, 1, "SUBSCRIBE\nid:1\ndestination:/topic/t.*\nack:client-individual\nprefetch-count:3\n\n");
    rig_frame(rig, 0, "SEND\ndestination:/queue/q\npersistent:true\n\nfirst");
    rig_settle(rig);
}

static void give(struct rig *rig, int i, const void *bytes, size_t len, bool pieces)
{
    const uint8_t *at = bytes;
    while (len && rig->peers[i].engine) {
        size_t n = pieces && len > 5 ? 5 : len;
        if (rig->peers[i].in_len + n > (1u << 18))
            return; /* it is not read any more */
        rig_bytes(rig, i, at, n);
        at += n;
        len -= n;
        some_turns(rig, 1);
    }
}

static void give_frame(struct rig *rig, int i, struct slice frame, bool pieces)
{
    static uint8_t room[1u << 17];
    size_t len = 0;
    const char *session = rig_stomp(rig, i)->session_id;
    for (size_t at = 0; at < frame.len && len + 64 < sizeof room; at++)
        if (frame.ptr[at] == 1) {
            memcpy(room + len, session, strlen(session));
            len += strlen(session);
        } else
            room[len++] = frame.ptr[at];
    room[len++] = 0;
    give(rig, i, room, len, pieces);
}

static void play(struct rig *rig, struct slice input, uint8_t mode)
{
    if (mode & (RAW | EARLY)) {
        give(rig, 0, input.ptr, input.len, mode & PIECES);
        return;
    }
    struct reader r = reader_of(input);
    while (r.left) {
        uint8_t how = reader_u8(&r);
        size_t n = reader_u16(&r) & 0xfffu;
        struct slice frame = reader_take(&r, n < r.left ? n : r.left);
        int i = how & 1;
        if (how & 4)
            rig_close(rig, i);
        if (!rig->peers[i].engine)
            arrive(rig, i, how & 8 ? "1.0" : how & 16 ? "1.1" : "1.2");
        if (rig->peers[i].engine)
            give_frame(rig, i, frame, mode & PIECES);
        if (how & 2)
            some_turns(rig, 4);
    }
}

/* The journal says the same to another core. */
static void replay(struct rig *rig)
{
    struct rig again = {.port_slots = 256};
    char why[256];
    struct broker *copy = rig_broker(&again);
    CHECK(copy);
    lsn_t lsn = rig_replay(copy, slice_of(rig->records, rig->records_len), rig->first_lsn);
    again.next_lsn = again.durable = lsn - 1;
    again.first_lsn = lsn;
    CHECK(broker_replayed(copy, rig->now, rig_wall(rig), why, sizeof why) == 0);
    broker_check(copy);
    broker_free(&copy);
    free(again.records);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct rig rig;
    if (len == 0)
        return 0;
    uint8_t mode = bytes[0];
    size_t before = mem_in_use();
    world_begin(&rig, mode);
    if (mode & EARLY)
        CHECK(rig_open(&rig, 0));
    else
        scene(&rig);
    rig.late = mode & LATE;
    play(&rig, slice_of(bytes + 1, len - 1), mode);
    rig.late = false;
    for (int i = 0; i < 50; i++)
        some_turns(&rig, 1);
    broker_check(rig.broker);
    if (mode & REPLAY)
        replay(&rig);
    rig_fini(&rig);
    CHECK(mem_in_use() == before);
    return 0;
}
