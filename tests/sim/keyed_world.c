/* A keyed stream of the simulator's broker: updates of a few keys, compacted while they come, and what it holds after a start.
 *
 * What must hold, whatever happened: the last confirmed value of each key, or a later one, is there (K1); records stand at the
 * offsets at which they were published, once each (K2); no file is left that nobody names (K3). */
#include "world.h"

#include "fmt/amqp_table.h"

#include <stdio.h>

#define NAME "keyed"
#define KEYS 5u
#define RECORD_BYTES 20000u

static bool well(const struct world *w)
{
    return !w->dead && !w->model->wrong[0];
}

static void declare(struct world *w)
{
    uint8_t room[300];
    struct writer out = writer_of(room, sizeof room);
    amqp_put_str(&out, "x-queue-type", slice_str("stream"));
    amqp_put_str(&out, "x-cleanup-policy", slice_str("compact"));
    amqp_put_long(&out, "x-stream-max-segment-size-bytes", 65536);
    client_queue_declare(&w->client, CH_CONFIRM, NAME, writer_slice(&out));
    if (!world_wait(w, ASKED(50, 11)))
        return;
    client_queue_bind(&w->client, CH_CONFIRM, NAME, "amq.topic", "#", (struct slice){0});
    (void)world_wait(w, ASKED(50, 21));
}

/* The model's number of a message chooses its key. */
static void update(struct world *w)
{
    static uint8_t body[RECORD_BYTES];
    char key[12];
    uint64_t id = model_published(w->model, 0, true, RECORD_BYTES, false);
    model_body(id, RECORD_BYTES, body);
    snprintf(key, sizeof key, "key %llu", (unsigned long long)id % KEYS);
    client_publish(&w->client, CH_CONFIRM, "amq.topic", key, slice_of(body, RECORD_BYTES), true, 0, -1, -1, -1);
    world_sent(w, id);
}

void keyed_play(struct world *w, unsigned updates)
{
    if (well(w))
        declare(w);
    for (unsigned i = 0; i < updates && well(w); i++) {
        update(w);
        if (i % 4 == 3)
            world_confirmed(w);
        world_turns(w, i % 8 == 7 ? 60 : 2);
    }
    if (!well(w))
        return;
    world_confirmed(w);
    world_turns(w, 100);
}

struct found {
    struct world *w;
    uint64_t first_id; /* of the stream's first record; 0: not known */
    uint64_t last[KEYS], before, end;
};

static void see_range(void *arg, uint32_t partition, uint64_t start, uint64_t end)
{
    struct found *found = arg;
    (void)partition;
    if (start)
        model_fault(found->w->model, "the keyed stream begins at %llu", (unsigned long long)start);
    found->end = end;
}

static void see_record(void *arg, uint32_t partition, uint64_t offset, struct slice body)
{
    struct found *found = arg;
    struct model *m = found->w->model;
    uint64_t id = model_identify(m, body);
    unsigned long long at = offset, whose = id;
    (void)partition;
    if (!id || offset >= found->end || id <= found->before)
        model_fault(m, "the keyed stream: message %llu at offset %llu, behind %llu", whose, at,
                    (unsigned long long)found->before);
    else if (id - found->first_id != offset && !found->w->gaps)
        model_fault(m, "the keyed stream: message %llu at offset %llu, not its own", whose, at);
    found->before = id;
    if (id)
        found->last[id % KEYS] = id;
}

void keyed_check(struct world *w, uint64_t first_id)
{
    struct peek_stream_reader reader = world_stream_reader(w);
    struct found found = {.w = w, .first_id = first_id};
    struct peek_log log = {see_range, see_record, &found};
    if (!peek_stream(w->broker, NAME, &reader, &log) || w->model->wrong[0])
        return;
    for (uint64_t seq = 1; seq <= w->confirmed; seq++) {
        uint64_t id = w->published[seq];
        if (id >= first_id && found.last[id % KEYS] < id)
            model_fault(w->model, "key %llu of the keyed stream: %llu was confirmed, the last is %llu",
                        (unsigned long long)id % KEYS, (unsigned long long)id,
                        (unsigned long long)found.last[id % KEYS]);
    }
}

static void count_file(void *arg, const char *path)
{
    (void)path;
    ++*(uint64_t *)arg;
}

void keyed_check_files(struct world *w)
{
    struct streams_stats stats;
    uint64_t files = 0;
    streams_stats(w->streams, &stats);
    os_sim_each(w->disk, "/data/str", count_file, &files);
    if (files != stats.segments)
        model_fault(w->model, "%llu files of streams, %llu in use", (unsigned long long)files,
                    (unsigned long long)stats.segments);
}
