/* See bench/kafka_group.h.
 *
 *   JOINING ──join──▶ SYNCING ──sync──▶ STABLE          any of them ──the group rebalances──▶ JOINING
 *
 * The first JoinGroup is answered with a member id and MEMBER_ID_REQUIRED; it is sent again with it. The member whose
 * JoinGroup names everybody is the leader and sends all shares with its SyncGroup. Until all members are stable in one
 * generation, the stable ones ask by Heartbeat whether the group is rebalancing: each one more that joins makes it so.
 *
 *   subscription: version 0 (2), topics (count 4, names), user data (length 4, -1)
 *   share:        version 0 (2), topics (count 4: name, count 4, partitions 4 each), user data (length 4, -1)
 */
#include "kafka_group.h"

#include "base/reader.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    JOIN_TIMEOUT_S = 60,
    SESSION_MS = 30000,
    REBALANCE_MS = 60000,
    ASK_AGAIN_MS = 20,
    HEARTBEAT_NS = 1000000000,
    MEMBER_ID_BYTES = 256,
};

enum state { JOINING, SYNCING, STABLE };

struct member {
    struct bench_kafka_wire wire;
    char id[MEMBER_ID_BYTES]; /* "" until the server gave one */
    enum state state;
    int32_t generation;
    bool waits; /* for an answer to `asked` */
    enum kafka_api_key asked;
    uint64_t asked_ns, beat_ns;
    int32_t *partitions, count;
};

struct bench_kafka_group {
    const struct bench_kafka_options *o;
    char topic[BENCH_TOPIC_BYTES];
    int32_t partition_count;
    struct member *members;
    char error[BENCH_SOCKET_ERROR_BYTES];
};

static int group_fail(struct bench_kafka_group *g, const struct member *m)
{
    if (g->error[0] == '\0')
        snprintf(g->error, sizeof(g->error), "%s", m->wire.socket.error);
    return -1;
}

void bench_kafka_range(int32_t partitions, int32_t members, int32_t member, int32_t *ret_first, int32_t *ret_count)
{
    int32_t each = partitions / members, more = partitions % members;
    *ret_first = member * each + (member < more ? member : more);
    *ret_count = each + (member < more ? 1 : 0);
}

/* ---- what members tell each other ---- */

static void put_text(struct writer *w, const char *text)
{
    writer_u16(w, (uint16_t)strlen(text));
    writer_put(w, text, strlen(text));
}

static void put_subscription(struct writer *w, const char *topic)
{
    writer_u16(w, 0);
    writer_u32(w, 1);
    put_text(w, topic);
    writer_u32(w, UINT32_MAX);
}

static void put_share(struct writer *w, const char *topic, int32_t first, int32_t count)
{
    writer_u16(w, 0);
    writer_u32(w, 1);
    put_text(w, topic);
    writer_u32(w, (uint32_t)count);
    for (int32_t i = 0; i < count; i++)
        writer_u32(w, (uint32_t)(first + i));
    writer_u32(w, UINT32_MAX);
}

/* An empty share has no topic. */
static int take_share(struct bench_kafka_group *g, struct member *m, struct slice share)
{
    struct reader r = reader_of(share);
    m->count = 0;
    if (share.len == 0)
        return 0;
    reader_take(&r, 2);
    int32_t topics = (int32_t)reader_u32(&r);
    for (int32_t i = 0; i < topics && reader_ok(&r); i++) {
        reader_take(&r, reader_u16(&r));
        int32_t count = (int32_t)reader_u32(&r);
        for (int32_t k = 0; k < count && reader_ok(&r) && m->count < g->partition_count; k++)
            m->partitions[m->count++] = (int32_t)reader_u32(&r);
    }
    return reader_ok(&r) ? 0 : client_socket_fail(&m->wire.socket, "the share of a group member cannot be read");
}

/* ---- asking ---- */

static int member_send(struct member *m, enum kafka_api_key key, const void *message)
{
    m->waits = true;
    m->asked = key;
    m->asked_ns = client_clock_ns();
    return bench_kafka_send(&m->wire, key, message);
}

static int member_join(struct bench_kafka_group *g, struct member *m)
{
    uint8_t bytes[BENCH_TOPIC_BYTES + 32];
    struct writer w = writer_of(bytes, sizeof(bytes));
    put_subscription(&w, g->topic);
    struct kafka_join_group_request_protocol range = {.name = slice_str("range"), .metadata = writer_slice(&w)};
    struct kafka_join_group_request ask = {.group_id = slice_str(g->o->group),
                                           .session_timeout_ms = SESSION_MS,
                                           .rebalance_timeout_ms = REBALANCE_MS,
                                           .member_id = slice_str(m->id),
                                           .protocol_type = slice_str("consumer")};
    ask.protocols.at = &range;
    ask.protocols.count = 1;
    m->state = JOINING;
    return member_send(m, KAFKA_API_join_group, &ask);
}

/* The leader sends all shares, the others none. */
static int member_sync(struct bench_kafka_group *g, struct member *m, const struct kafka_join_group_response *joined)
{
    int32_t count = joined->members.count;
    struct kafka_sync_group_request_assignment *rows = bench_zeroed((size_t)count, sizeof(*rows));
    struct kafka_sync_group_request ask = {
        .group_id = slice_str(g->o->group), .generation_id = joined->generation_id, .member_id = slice_str(m->id)};
    size_t room = (size_t)count * (BENCH_TOPIC_BYTES + 32) + (size_t)g->partition_count * 4;
    uint8_t *bytes = bench_zeroed(1, room);
    struct writer w = writer_of(bytes, room);
    for (int32_t i = 0; i < count; i++) {
        int32_t first, shared;
        size_t at = w.len;
        bench_kafka_range(g->partition_count, count, i, &first, &shared);
        put_share(&w, g->topic, first, shared);
        rows[i].member_id = joined->members.at[i].member_id;
        rows[i].assignment = slice_of(bytes + at, w.len - at);
    }
    ask.assignments.at = rows;
    ask.assignments.count = count;
    m->state = SYNCING;
    m->generation = joined->generation_id;
    int failed = writer_ok(&w) ? member_send(m, KAFKA_API_sync_group, &ask)
                               : client_socket_fail(&m->wire.socket, "the group has too many members");
    free(rows);
    free(bytes);
    return failed;
}

static int member_beat(struct bench_kafka_group *g, struct member *m)
{
    struct kafka_heartbeat_request ask = {
        .group_id = slice_str(g->o->group), .generation_id = m->generation, .member_id = slice_str(m->id)};
    m->beat_ns = client_clock_ns();
    return member_send(m, KAFKA_API_heartbeat, &ask);
}

static int member_commit(struct bench_kafka_group *g, struct member *m, const int64_t *offsets)
{
    struct kafka_offset_commit_request_partition *rows = bench_zeroed((size_t)m->count, sizeof(*rows));
    struct kafka_offset_commit_request_topic topic = {.name = slice_str(g->topic)};
    struct kafka_offset_commit_request ask = {.group_id = slice_str(g->o->group),
                                              .generation_id_or_member_epoch = m->generation,
                                              .member_id = slice_str(m->id),
                                              .retention_time_ms = -1};
    for (int32_t i = 0; i < m->count; i++)
        rows[i] = (struct kafka_offset_commit_request_partition){
            .partition_index = m->partitions[i], .committed_offset = offsets[i], .committed_leader_epoch = -1};
    topic.partitions.at = rows;
    topic.partitions.count = m->count;
    ask.topics.at = &topic;
    ask.topics.count = 1;
    int failed = member_send(m, KAFKA_API_offset_commit, &ask);
    free(rows);
    return failed;
}

/* ---- answers ---- */

static bool rebalances(int error)
{
    return error == KAFKA_ERR_REBALANCE_IN_PROGRESS || error == KAFKA_ERR_ILLEGAL_GENERATION ||
           error == KAFKA_ERR_MEMBER_ID_REQUIRED;
}

/* The group's offsets are being loaded, or made, or go elsewhere; in a moment it is known. */
static bool not_yet(int error)
{
    return error == KAFKA_ERR_COORDINATOR_LOAD_IN_PROGRESS || error == KAFKA_ERR_NOT_COORDINATOR ||
           error == KAFKA_ERR_COORDINATOR_NOT_AVAILABLE;
}

/* An error that ends in joining again, now or when nothing else happens. Answers 1 when it is no such error. */
static int join_again(struct bench_kafka_group *g, struct member *m, int error)
{
    m->state = JOINING;
    if (not_yet(error))
        return 0;
    return rebalances(error) ? member_join(g, m) : 1;
}

static int on_joined(struct bench_kafka_group *g, struct member *m, const struct kafka_join_group_response *answer)
{
    if (answer->member_id.len > 0 && answer->member_id.len < sizeof(m->id))
        snprintf(m->id, sizeof(m->id), "%.*s", SLICE_ARG(answer->member_id));
    if (answer->error_code == 0)
        return member_sync(g, m, answer);
    int failed = join_again(g, m, answer->error_code);
    return failed > 0 ? bench_kafka_refused(&m->wire, "JoinGroup", answer->error_code) : failed;
}

/* The first error of the partitions. */
static int commit_error(const struct kafka_offset_commit_response *answer)
{
    for (int32_t i = 0; i < answer->topics.count; i++)
        for (int32_t k = 0; k < answer->topics.at[i].partitions.count; k++)
            if (answer->topics.at[i].partitions.at[k].error_code != 0)
                return answer->topics.at[i].partitions.at[k].error_code;
    return 0;
}

/* An answer while the group forms. */
static int member_on_answer(struct bench_kafka_group *g, struct member *m, struct slice frame)
{
    void *found;
    enum kafka_api_key asked = m->asked;
    m->waits = false;
    if (bench_kafka_decode(&m->wire, asked, frame, &found) != 0)
        return -1;
    if (asked == KAFKA_API_join_group)
        return on_joined(g, m, found);
    int error = asked == KAFKA_API_sync_group ? ((struct kafka_sync_group_response *)found)->error_code
                                              : ((struct kafka_heartbeat_response *)found)->error_code;
    int failed = error != 0 ? join_again(g, m, error) : 0;
    if (failed > 0)
        return bench_kafka_refused(&m->wire, asked == KAFKA_API_sync_group ? "SyncGroup" : "Heartbeat", error);
    if (error != 0)
        return failed;
    m->state = STABLE;
    return asked == KAFKA_API_sync_group ? take_share(g, m, ((struct kafka_sync_group_response *)found)->assignment)
                                         : 0;
}

/* One read and what it brought. */
static int member_read(struct bench_kafka_group *g, struct member *m)
{
    struct slice frame;
    if (client_socket_fill(&m->wire.socket) < 0)
        return group_fail(g, m);
    int got = bench_kafka_frame_next(&m->wire, &frame);
    if (got > 0 && m->waits)
        got = member_on_answer(g, m, frame);
    return got < 0 ? group_fail(g, m) : 0;
}

/* ---- joining ---- */

static int coordinator_find(struct bench_kafka_group *g, struct member *m)
{
    struct kafka_find_coordinator_request ask = {.key = slice_str(g->o->group)};
    uint64_t from_ns = client_clock_ns();
    for (;;) {
        void *found;
        if (bench_kafka_ask(&m->wire, KAFKA_API_find_coordinator, &ask, &found) != 0)
            return -1;
        const struct kafka_find_coordinator_response *answer = found;
        if (answer->error_code == 0)
            return 0;
        if (!kafka_error_row(answer->error_code)->retriable || bench_seconds_since(from_ns) > JOIN_TIMEOUT_S)
            return bench_kafka_refused(&m->wire, "FindCoordinator", answer->error_code);
        poll(NULL, 0, ASK_AGAIN_MS);
    }
}

static bool all_stable(const struct bench_kafka_group *g)
{
    int32_t shared = 0;
    for (unsigned i = 0; i < g->o->consumers; i++) {
        const struct member *m = &g->members[i];
        if (m->state != STABLE || m->waits || m->generation != g->members[0].generation)
            return false;
        shared += m->count;
    }
    return shared == g->partition_count;
}

static int group_form(struct bench_kafka_group *g)
{
    struct pollfd *watched = bench_zeroed(g->o->consumers, sizeof(*watched));
    uint64_t from_ns = client_clock_ns();
    int failed = 0;
    while (failed == 0 && !all_stable(g)) {
        for (unsigned i = 0; i < g->o->consumers; i++)
            watched[i] = (struct pollfd){.fd = g->members[i].wire.socket.fd, .events = POLLIN};
        int ready = poll(watched, g->o->consumers, ASK_AGAIN_MS);
        for (unsigned i = 0; i < g->o->consumers && failed == 0; i++) {
            struct member *m = &g->members[i];
            if (ready > 0 && watched[i].revents != 0)
                failed = member_read(g, m);
            else if (ready == 0 && !m->waits && (m->state == STABLE ? member_beat(g, m) : member_join(g, m)) != 0)
                failed = group_fail(g, m);
        }
        if (failed == 0 && bench_seconds_since(from_ns) > JOIN_TIMEOUT_S) {
            snprintf(
                g->error, sizeof(g->error),
                "the %u members of group %s did not come to share %d partitions within %d s: is somebody else in it?",
                g->o->consumers, g->o->group, g->partition_count, JOIN_TIMEOUT_S);
            failed = -1;
        }
    }
    free(watched);
    return failed;
}

int bench_kafka_group_join(struct bench_kafka_group *g)
{
    for (unsigned i = 0; i < g->o->consumers; i++) {
        struct member *m = &g->members[i];
        if (bench_kafka_open(&m->wire, &g->o->server) != 0 || (i == 0 && coordinator_find(g, m) != 0) ||
            member_join(g, m) != 0)
            return group_fail(g, m);
        client_socket_nonblocking(&m->wire.socket, true);
    }
    return group_form(g);
}

/* ---- afterwards ---- */

int bench_kafka_group_committed(struct bench_kafka_group *g, unsigned member, int64_t *ret_offsets)
{
    struct member *m = &g->members[member];
    struct kafka_offset_fetch_request_topic topic = {.name = slice_str(g->topic)};
    struct kafka_offset_fetch_request ask = {.group_id = slice_str(g->o->group)};
    void *found;
    topic.partition_indexes.at = m->partitions;
    topic.partition_indexes.count = m->count;
    ask.topics.at = &topic;
    ask.topics.count = 1;
    client_socket_nonblocking(&m->wire.socket, false);
    int failed = bench_kafka_ask(&m->wire, KAFKA_API_offset_fetch, &ask, &found);
    client_socket_nonblocking(&m->wire.socket, true);
    if (failed != 0)
        return group_fail(g, m);
    const struct kafka_offset_fetch_response *answer = found;
    for (int32_t i = 0; i < m->count; i++)
        ret_offsets[i] = -1;
    for (int32_t i = 0; i < answer->topics.count; i++)
        for (int32_t k = 0; k < answer->topics.at[i].partitions.count; k++) {
            const struct kafka_offset_fetch_response_partition *row = &answer->topics.at[i].partitions.at[k];
            if (row->error_code != 0) {
                bench_kafka_refused(&m->wire, "OffsetFetch", row->error_code);
                return group_fail(g, m);
            }
            for (int32_t n = 0; n < m->count; n++)
                if (m->partitions[n] == row->partition_index)
                    ret_offsets[n] = row->committed_offset;
        }
    return 0;
}

int bench_kafka_group_tick(struct bench_kafka_group *g, unsigned member, const int64_t *offsets, uint64_t now_ns)
{
    struct member *m = &g->members[member];
    if (m->waits)
        return 0;
    bool beats = now_ns - m->beat_ns > HEARTBEAT_NS || m->count == 0;
    int failed = beats ? member_beat(g, m) : member_commit(g, m, offsets);
    return failed != 0 ? group_fail(g, m) : 0;
}

int bench_kafka_group_read(struct bench_kafka_group *g, unsigned member, struct bench_histogram *commits)
{
    struct member *m = &g->members[member];
    struct slice frame;
    void *found;
    if (client_socket_fill(&m->wire.socket) < 0)
        return group_fail(g, m);
    int got = bench_kafka_frame_next(&m->wire, &frame);
    if (got == 0)
        return 0;
    bool commit = m->asked == KAFKA_API_offset_commit;
    if (got < 0 || bench_kafka_decode(&m->wire, m->asked, frame, &found) != 0)
        return group_fail(g, m);
    m->waits = false;
    int error = commit ? commit_error(found) : ((struct kafka_heartbeat_response *)found)->error_code;
    if (error != 0) {
        bench_kafka_refused(&m->wire, rebalances(error) ? "somebody joined or left the group during the load" : "group",
                            error);
        return group_fail(g, m);
    }
    if (commit && commits != NULL)
        bench_histogram_add(commits, client_clock_ns() - m->asked_ns, 1);
    return 0;
}

int bench_kafka_group_leave(struct bench_kafka_group *g, unsigned member, const int64_t *offsets)
{
    struct member *m = &g->members[member];
    struct kafka_leave_group_request ask = {.group_id = slice_str(g->o->group), .member_id = slice_str(m->id)};
    void *found;
    client_socket_nonblocking(&m->wire.socket, false);
    while (m->waits)
        if (bench_kafka_group_read(g, member, NULL) != 0)
            return -1;
    if (m->count > 0 && member_commit(g, m, offsets) != 0)
        return group_fail(g, m);
    while (m->waits)
        if (bench_kafka_group_read(g, member, NULL) != 0)
            return -1;
    if (bench_kafka_ask(&m->wire, KAFKA_API_leave_group, &ask, &found) != 0)
        return group_fail(g, m);
    int error = ((struct kafka_leave_group_response *)found)->error_code;
    return error == 0 || bench_kafka_refused(&m->wire, "LeaveGroup", error) == 0 ? 0 : group_fail(g, m);
}

int32_t bench_kafka_group_generation(const struct bench_kafka_group *g)
{
    return g->members[0].generation;
}

const int32_t *bench_kafka_group_share(const struct bench_kafka_group *g, unsigned member, int32_t *ret_count)
{
    *ret_count = g->members[member].count;
    return g->members[member].partitions;
}

int bench_kafka_group_fd(const struct bench_kafka_group *g, unsigned member)
{
    return g->members[member].wire.socket.fd;
}

const char *bench_kafka_group_error(const struct bench_kafka_group *g)
{
    return g->error;
}

struct bench_kafka_group *bench_kafka_group_new(const struct bench_kafka_options *o, const char *topic,
                                                int32_t partitions)
{
    struct bench_kafka_group *g = bench_zeroed(1, sizeof(*g));
    g->o = o;
    g->partition_count = partitions;
    snprintf(g->topic, sizeof(g->topic), "%s", topic);
    g->members = bench_zeroed(o->consumers, sizeof(*g->members));
    for (unsigned i = 0; i < o->consumers; i++) {
        g->members[i].wire.socket.fd = -1;
        g->members[i].partitions = bench_zeroed((size_t)partitions, sizeof(*g->members[i].partitions));
    }
    return g;
}

void bench_kafka_group_free(struct bench_kafka_group *g)
{
    if (g == NULL)
        return;
    for (unsigned i = 0; i < g->o->consumers; i++) {
        bench_kafka_close(&g->members[i].wire);
        free(g->members[i].partitions);
    }
    free(g->members);
    free(g);
}
