/* Scripts over stores, see stores.h. */
#include "stores.h"

#include "base/mem.h"
#include "fmt/amqp_table.h"

static bool well(const struct world *w)
{
    return !w->dead && !w->model->wrong[0];
}

/* ---- streams ---- */

/* Their headers are named as the broker's own: these are left out on the way to a consumer. */
static void send_copied_records(struct world *w)
{
    uint8_t room[128], body[64];
    struct writer out = writer_of(room, sizeof room);
    amqp_put_long(&out, "x-stream-offset", 7);
    amqp_put_str(&out, "other", slice_str("kept"));
    for (unsigned i = 0; i < 2 && well(w); i++) {
        uint64_t id = model_published(w->model, 1u << PLACE_LOG | 1u << PLACE_FED, true, 40, false);
        model_body(id, 40, body);
        client_publish_headers(&w->client, CH_CONFIRM, "", place_names[PLACE_LOG], slice_of(body, 40),
                               writer_slice(&out));
        world_sent(w, id);
        world_turn(w);
    }
}

/* Of partition 0; what stands before it in a sealed file is found by the file's index. */
static void read_from(struct world *w, enum place place, uint64_t offset)
{
    uint8_t room[64];
    char tag[3] = {'c', (char)('0' + place), 0};
    struct writer args = writer_of(room, sizeof room);
    if (!well(w))
        return;
    for (unsigned i = 0; i < MODEL_PARTITIONS; i++)
        w->reading[place - PLACE_LOG][i] = i ? UINT64_MAX : offset;
    amqp_put_long(&args, "x-stream-offset", (int64_t)offset);
    amqp_put_long(&args, "x-stream-partition", 0);
    client_qos(&w->client, CH_CONSUME, 200);
    client_consume_from(&w->client, CH_CONSUME, place_names[place], tag, writer_slice(&args));
    w->consuming[place] = true;
    (void)world_wait(w, ASKED(60, 21));
    world_turns(w, 10);
}

/* A session on a port whose answers nobody takes. */
static void say(struct world *w, enum command_type type, const char *name, const char *other, const char *key,
                uint64_t number)
{
    struct ask *ask = well(w) ? ask_new(slice_str(name), slice_str(other), slice_str(key), (struct slice){0}) : NULL;
    struct port *port = broker_port(w->broker, 1);
    struct command *c = ask ? ring_push(&port->commands) : NULL;
    if (!c) {
        mem_free(ask);
        return;
    }
    ask->number = number;
    *c = (struct command){.type = (uint8_t)type, .session = 2, .ask = ask};
    ring_publish(&port->commands);
    world_turns(w, 4);
}

/* One partition more, which stays empty, for a reader and a bound queue. */
static void grow(struct world *w)
{
    say(w, CMD_SESSION_OPEN, "127.0.0.1:9", "Kafka", "", 0);
    say(w, CMD_LOGIN, "guest", "guest", "PLAIN", 0);
    say(w, CMD_ENTER, "/", "", "", 0);
    say(w, CMD_STREAM_LIST, "", "", "", 0);
    say(w, CMD_STREAM_CREATE, "made", "", "", 3);
    say(w, CMD_STREAM_TRIM, "made", "", "", UINT64_MAX);
    say(w, CMD_STREAM_DELETE, "made", "", "", 0);
    say(w, CMD_STREAM_GROW, place_names[PLACE_LOG], "", "", MODEL_PARTITIONS + 1);
}

/* One of what was fed, and something published, in one commit. Without an answer it may be gone for good, though its record
 * still stands in the stream. */
static void take_in_tx(struct world *w)
{
    uint8_t body[64];
    if (!well(w))
        return;
    w->at++;
    w->get_place = PLACE_FED;
    w->get_no_ack = false;
    client_get(&w->client, CH_TX, place_names[PLACE_FED], false);
    if (!world_wait(w, ASKED(60, 71)) || !w->held_count[CH_TX])
        return;
    struct held h = w->held[CH_TX][--w->held_count[CH_TX]];
    client_ack(&w->client, CH_TX, h.tag, false);
    model_tx_acked(w->model, h.place, h.id);
    uint64_t id = model_published(w->model, 1u << PLACE_PLAIN, true, 40, true);
    model_body(id, 40, body);
    client_publish(&w->client, CH_TX, "", place_names[PLACE_PLAIN], slice_of(body, 40), true, 0, -1, -1, -1);
    model_commit(w->model);
    client_tx(&w->client, CH_TX, 20);
    if (world_wait(w, ASKED(90, 21)))
        model_committed(w->model);
}

void stores_streams(struct world *w)
{
    read_from(w, PLACE_LOG, 1);
    world_streams_publish(w, PLACE_LOG, 4, 30000, 1);
    world_streams_publish(w, PLACE_LOG, 24, 40, 24);
    world_streams_publish(w, PLACE_KEPT, 5, 30000, 1);
    send_copied_records(w);
    world_confirmed(w);
    world_publish(w, PLACE_PLAIN, 60, 20); /* a compaction, which syncs them */
    world_confirmed(w);
    take_in_tx(w);
    world_take(w, PLACE_FED, 12, false);
    grow(w);
    if (well(w))
        world_streams_delete(w, PLACE_KEPT);
}

/* ---- pages ---- */

static void publish_mixed(struct world *w, enum place place, unsigned count)
{
    uint8_t body[600];
    for (unsigned i = 0; i < count && well(w); i++) {
        uint64_t id = model_published(w->model, 1u << place, i % 3 != 0, sizeof body, false);
        model_body(id, sizeof body, body);
        client_publish(&w->client, CH_CONFIRM, "", place_names[place], slice_of(body, sizeof body), i % 3 != 0, 0, -1,
                       -1, -1);
        world_sent(w, id);
        if (i % 32 == 31)
            world_turn(w);
    }
    world_confirmed(w);
    world_turns(w, 20);
}

/* Takes that many; acknowledges all but every n-th, which goes back. */
static void take_between(struct world *w, enum place place, unsigned count, unsigned n)
{
    if (!well(w) || !world_get_at_once(w, place, count))
        return;
    for (unsigned i = 0; i < w->held_count[CH_GET]; i++) {
        struct held h = w->held[CH_GET][i];
        if (i % n == 0)
            continue;
        client_ack(&w->client, CH_GET, h.tag, false);
        model_leaving(w->model, h.place, h.id);
    }
    world_turns(w, 4);
    if (well(w)) {
        client_nack(&w->client, CH_GET, 0, true, true);
        w->held_count[CH_GET] = 0;
    }
    world_turns(w, 10);
}

void stores_pages(struct world *w)
{
    journal_hold(w->journal, true);
    publish_mixed(w, PLACE_PLAIN, 160);
    publish_mixed(w, PLACE_QUORUM, 100);
    take_between(w, PLACE_PLAIN, 100, 2);
    take_between(w, PLACE_QUORUM, 60, 1);
    take_between(w, PLACE_QUORUM, 60, 8);
    take_between(w, PLACE_PLAIN, 100, 8);
    if (!w->dead)
        journal_hold(w->journal, false);
    publish_mixed(w, PLACE_PLAIN, 60);
    take_between(w, PLACE_QUORUM, 90, 8);
}

/* ---- delays ---- */

void stores_delays(struct world *w)
{
    uint8_t body[80];
    for (unsigned i = 0; i < 30 && well(w); i++) {
        bool persistent = i % 4 != 0;
        uint64_t id = model_published(w->model, 1u << PLACE_DELAYED, persistent, sizeof body, false);
        model_body(id, sizeof body, body);
        client_publish(&w->client, CH_CONFIRM, "late", place_names[PLACE_DELAYED], slice_of(body, sizeof body),
                       persistent, 0, 60 + (int)(i * 7 % 40), -1, -1);
        world_sent(w, id);
        if (i % 8 == 7)
            world_turn(w);
    }
    world_confirmed(w);
    world_turns(w, 120); /* to pages, back, to newer pages, and out of them */
}

/* ---- retries ---- */

static void publish_retries(struct world *w, unsigned count)
{
    uint8_t body[80];
    for (unsigned i = 0; i < count && well(w); i++) {
        bool persistent = i % 4 != 0;
        uint64_t id = model_published(w->model, 1u << PLACE_RETRY, persistent, sizeof body, false);
        model_body(id, sizeof body, body);
        client_publish(&w->client, CH_CONFIRM, "", place_names[PLACE_RETRY], slice_of(body, sizeof body), persistent, 0,
                       -1, -1, -1);
        world_sent(w, id);
    }
    world_confirmed(w);
}

void stores_retries(struct world *w)
{
    publish_retries(w, 30);
    for (unsigned round = 0; round < 3; round++) {
        take_between(w, PLACE_RETRY, 14, 1); /* all go back */
        world_turns(w, 4);
    }
    world_turns(w, 120); /* to pages, and back */
    take_between(w, PLACE_RETRY, 12, 3);
    world_turns(w, 60);
}

/* ---- keys ---- */

/* A key is new now and then, so that some come while a snapshot is being written: before the keys that it writes, but behind their queue. */
#define KEY_EVERY 6u

void stores_keys(struct world *w, unsigned count)
{
    uint8_t body[64];
    for (unsigned i = 0; i < count && well(w); i++) {
        uint32_t key;
        uint64_t id = model_published_once(w->model, i / KEY_EVERY % MODEL_KEYS, true, 20, &key);
        model_body(id, 20, body);
        client_publish(&w->client, CH_CONFIRM, "", place_names[PLACE_ONCE], slice_of(body, 20), true, 0, -1, -1,
                       (int)key);
        world_sent(w, id);
        world_turn(w);
    }
    world_confirmed(w);
}
