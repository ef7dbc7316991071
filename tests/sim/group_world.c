/* Consumer groups in a world, see group_world.h. */
#include "group_world.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "core/group.h"
#include "core/group_config.h"

#define SESSION 2u /* on port 1, which is no loop's */
#define TOPIC "topic"
#define SIMPLE UINT32_MAX

static bool well(const struct world *w)
{
    return !w->dead && !w->model->wrong[0];
}

struct told { /* an answer */
    bool came;
    enum group_error error;
    uint64_t number2; /* of an ANSWER */
    uint8_t fields[2000];
    size_t len;
};

/* Takes what the port says, of which the answer to `number` is kept. */
static void listen(struct world *w, uint64_t number, struct told *ret)
{
    struct port *port = broker_port(w->broker, 1);
    for (struct effect *e; (e = ring_peek(&port->effects)); ring_pop(&port->effects)) {
        if (e->type != EFF_GROUP && e->type != EFF_ANSWER && e->type != EFF_ERROR && e->type != EFF_SESSION_KICK)
            continue;
        if (ret && e->type == EFF_GROUP && e->number == number && e->lsn <= journal_durable(w->journal)) {
            ret->came = true;
            ret->error = (enum group_error)e->flags;
            ret->len = e->answer && e->answer->fields.len <= sizeof ret->fields ? e->answer->fields.len : 0;
            if (ret->len)
                memcpy(ret->fields, e->answer->fields.ptr, ret->len);
        }
        if (ret && e->type == EFF_ANSWER && e->answer)
            ret->number2 = e->answer->number2;
        mem_free(e->answer);
    }
}

/* Sends it and takes what is answered within some turns, when the journal has caught up. */
static struct told ask(struct world *w, enum command_type type, const char *group, const char *member, uint64_t number,
                       struct slice args, uint32_t flags)
{
    struct told told = {0};
    struct slice none = {0};
    struct ask *ask = well(w) ? ask_new(slice_str(group), slice_str(member), none, args) : NULL;
    struct port *port = broker_port(w->broker, 1);
    struct command *c = ask ? ring_push(&port->commands) : NULL;
    if (!c) {
        mem_free(ask);
        return told;
    }
    ask->number = number;
    ask->flags = flags;
    uint64_t tag = ++w->group_tag;
    *c = (struct command){.type = (uint8_t)type, .session = SESSION, .number = tag, .ask = ask};
    ring_publish(&port->commands);
    for (int i = 0; i < 12 && !told.came; i++) {
        world_turns(w, 1);
        while (!w->dead && journal_durable(w->journal) < journal_appended(w->journal) && journal_step(w->journal) > 0)
            ;
        if (!w->broker)
            break;
        listen(w, tag, &told);
    }
    return told;
}

static void enter(struct world *w)
{
    struct slice none = {0}, key = slice_str("PLAIN");
    struct port *port = broker_port(w->broker, 1);
    const struct {
        enum command_type type;
        const char *name, *other;
    } steps[] = {{CMD_SESSION_OPEN, "127.0.0.1:9", "Kafka"}, {CMD_LOGIN, "guest", "guest"}, {CMD_ENTER, "/", ""}};
    for (size_t i = 0; i < ARRAY_LEN(steps) && well(w); i++) {
        struct ask *ask = ask_new(slice_str(steps[i].name), slice_str(steps[i].other), key, none);
        struct command *c = ask ? ring_push(&port->commands) : NULL;
        if (!c) {
            mem_free(ask);
            return;
        }
        *c = (struct command){.type = (uint8_t)steps[i].type, .session = SESSION, .ask = ask};
        ring_publish(&port->commands);
        world_turns(w, 4);
        listen(w, 0, NULL);
    }
}

static struct told join(struct world *w, const char *member)
{
    uint8_t room[200];
    struct writer args = writer_of(room, sizeof room);
    writer_str8(&args, slice_str("client"));
    writer_str8(&args, slice_str("consumer"));
    writer_str8(&args, slice_str("range"));
    writer_str32(&args, slice_str("topics"));
    return ask(w, CMD_GROUP_JOIN, "workers", member, (uint64_t)6000 << 32 | 6000, writer_slice(&args), 0);
}

/* The member that answer is about; nothing of one that did not come. */
static void member_of(const struct told *told, char *ret, size_t len)
{
    struct reader r = reader_of(slice_of(told->fields, told->error ? 0 : told->len));
    (void)reader_u32(&r);
    for (int i = 0; i < 3; i++)
        (void)reader_str8(&r);
    struct slice id = reader_str8(&r);
    snprintf(ret, len, "%.*s", (int)id.len, id.len ? (const char *)id.ptr : "");
}

static void sync_workers(struct world *w, const char *member)
{
    uint8_t room[600];
    struct writer args = writer_of(room, sizeof room);
    writer_u16(&args, 0);
    writer_str8(&args, slice_str(member));
    writer_str32(&args, slice_str("everything"));
    (void)ask(w, CMD_GROUP_SYNC, "workers", member, 1, writer_slice(&args), 0);
}

/* A member of a group in which the broker assigns. */
static void share(struct world *w, const char *member, uint32_t epoch)
{
    uint8_t room[200];
    struct writer args = writer_of(room, sizeof room);
    writer_str8(&args, slice_str("client"));
    writer_u8(&args, CONSUME_TOPICS | CONSUME_OWNED | CONSUME_PATTERN);
    writer_u8(&args, GROUP_UNIFORM);
    size_t mark = writer_mark32(&args);
    writer_str8(&args, slice_str(TOPIC));
    writer_patch32(&args, mark);
    writer_str32(&args, slice_str("none"));
    (void)ask(w, CMD_GROUP_CONSUME, "sharers", member, (uint64_t)5000 << 32 | epoch, writer_slice(&args), 0);
}

static void commit(struct world *w, uint64_t stream)
{
    uint8_t room[100];
    struct writer args = writer_of(room, sizeof room);
    struct group_offset row = {.stream = stream, .offset = w->group_offset + 1, .metadata = slice_str("note")};
    group_offset_put(&args, &row);
    struct told told = ask(w, CMD_GROUP_COMMIT, "simple", "", SIMPLE, writer_slice(&args), 0);
    if (told.came && !told.error && told.len == 1 && told.fields[0] == GROUP_OK)
        w->group_offset++;
}

/* A share group that is moved, and of which something is set. */
static void move_share(struct world *w, uint64_t stream)
{
    uint8_t room[100];
    struct writer args = writer_of(room, sizeof room);
    writer_u64(&args, stream);
    writer_u32(&args, 0);
    writer_u64(&args, w->share_offset + 1);
    struct told told = ask(w, CMD_SHARE_ALTER, "moved", "", 0, writer_slice(&args), 0);
    if (told.came && !told.error && told.len == 1 && told.fields[0] == GROUP_OK)
        w->share_offset++;
    args = writer_of(room, sizeof room);
    writer_u8(&args, GROUP_SET_SHARE_LOCKS);
    writer_u64(&args, 100 + w->share_offset);
    writer_str8(&args, slice_str("text"));
    told = ask(w, CMD_GROUP_SET, "moved", "", 0, writer_slice(&args), 0);
    if (told.came && !told.error)
        w->share_set = true;
}

static void check_share(struct world *w)
{
    struct slice none = {0};
    if (!w->share_offset)
        return;
    struct told told = ask(w, CMD_SHARE_OFFSETS, "moved", "", 0, none, ASK_MULTIPLE);
    struct reader r = reader_of(slice_of(told.fields, told.len));
    (void)reader_u64(&r);
    (void)reader_u32(&r);
    uint64_t start = reader_u64(&r) - 1;
    if (!told.came || told.error || !reader_ok(&r) || start < w->share_offset)
        model_fault(w->model, "a share group is back at %llu, not at %llu", (unsigned long long)start,
                    (unsigned long long)w->share_offset);
    told = ask(w, CMD_GROUP_CONFIGS, "moved", "", 0, none, 0);
    if (w->share_set && (!told.came || told.error || !told.len))
        model_fault(w->model, "what was set of a group is gone");
}

static uint64_t topic(struct world *w, enum command_type type)
{
    struct slice none = {0};
    struct ask *ask = well(w) ? ask_new(slice_str(TOPIC), none, none, none) : NULL;
    struct port *port = broker_port(w->broker, 1);
    struct told told = {0};
    struct command *c = ask ? ring_push(&port->commands) : NULL;
    if (!c) {
        mem_free(ask);
        return 0;
    }
    ask->number = 1;
    *c = (struct command){.type = (uint8_t)type, .session = SESSION, .ask = ask};
    ring_publish(&port->commands);
    world_turns(w, 6);
    if (w->broker)
        listen(w, 0, &told);
    return told.number2;
}

void world_groups_play(struct world *w)
{
    char member[300];
    struct slice none = {0};
    enter(w);
    w->group_stream = topic(w, CMD_STREAM_CREATE);
    struct told told = join(w, ""); /* held: the group waits for more */
    os_sim_clock_advance(w->disk, 300 * NS_PER_MS);
    uint64_t held = w->group_tag;
    for (int i = 0; i < 6 && well(w) && !told.came; i++) {
        world_turns(w, 1);
        listen(w, held, &told);
    }
    member_of(&told, member, sizeof member);
    sync_workers(w, member);
    for (int i = 0; i < 6 && well(w); i++) {
        commit(w, w->group_stream);
        move_share(w, w->group_stream);
        world_publish(w, PLACE_PLAIN, 8, 20); /* a compaction, when it has come to that */
        (void)ask(w, CMD_GROUP_BEAT, "workers", member, 1, none, 0);
    }
    share(w, "a", 0);
    share(w, "b", 0);
    share(w, "a", 1);
    share(w, "b", 2);
    (void)ask(w, CMD_GROUP_DESCRIBE_CONSUMERS, "sharers", "", 0, none, 0);
    share(w, "a", GROUP_EPOCH_LEAVE);
    (void)ask(w, CMD_GROUP_OFFSETS, "simple", "", 0, none, ASK_MULTIPLE);
    (void)ask(w, CMD_GROUP_DESCRIBE, "workers", "", 0, none, 0);
    (void)ask(w, CMD_GROUP_LIST, "", "", 0, slice_of("\0", 1), 0);
    (void)join(w, ""); /* another round, which the first one does not join */
    os_sim_clock_advance(w->disk, 7 * NS_PER_S);
    world_turns(w, 10);
    if (w->broker)
        listen(w, 0, NULL);
    (void)ask(w, CMD_GROUP_DELETE, "workers", "", 0, none, 0);
    world_confirmed(w);
}

void world_groups_check(struct world *w)
{
    struct slice none = {0};
    if (!w->group_offset)
        return;
    enter(w);
    struct told told = ask(w, CMD_GROUP_OFFSETS, "simple", "", 0, none, ASK_MULTIPLE);
    struct reader r = reader_of(slice_of(told.fields, told.len));
    struct group_offset o = group_offset_read(&r);
    if (!told.came || told.error || !reader_done(&r) || o.offset < w->group_offset)
        model_fault(w->model, "a committed offset is missing: %llu, not %llu", (unsigned long long)o.offset,
                    (unsigned long long)w->group_offset);
    check_share(w);
}
