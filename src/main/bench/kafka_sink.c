/* See bench/kafka_sink.h.
 *
 * One thread, level-triggered poll. Requests are decoded and answers encoded by proto/kafka, in whatever version they come;
 * a request it does not know closes the connection. A fetch that finds nothing is kept until something came or its time is
 * over. It trusts its only clients, which live in the same process, and still never reads past a frame.
 */
#include "kafka_sink.h"

#include "command.h"
#include "fmt/record_batch.h"
#include "kafka_wire.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, ARENA_MAX = 64 << 20, IN_BYTES = 256 * 1024, FAULTY = 3, WAIT_MS = 5, REFUSED = 19 };

struct partition {
    uint8_t *log; /* batches in a row */
    size_t len, max;
    int64_t next, kept_end; /* of all; of what is in the log */
    int64_t committed;      /* by any group, + 1; 0: never */
    uint64_t batches;
};

struct client {
    struct client_socket socket;
    struct arena arena;
    uint8_t *out; /* answers of one read, sent together */
    size_t out_len, out_cap;
    uint8_t *waiting; /* a fetch without its length, that found nothing */
    size_t waiting_len;
    uint64_t until_ns;
};

struct bench_kafka_sink {
    pthread_t thread;
    int listener, stop;
    struct bench_kafka_sink_kind kind;
    struct partition *partitions;
    unsigned client_count;
    struct client *clients[CLIENTS_MAX];
    int32_t generation; /* of the group */
    uint64_t cpu_ns;
};

/* ---- the log ---- */

static void partition_keep(struct partition *p, struct slice batch, int64_t offset, uint32_t count)
{
    if (batch.len > p->max - p->len)
        return;
    if (p->log == NULL)
        p->log = bench_zeroed(1, p->max);
    memcpy(p->log + p->len, batch.ptr, batch.len);
    record_batch_set_base(p->log + p->len, offset, 0);
    p->len += batch.len;
    p->kept_end = offset + count;
}

/* Answers the offset that the producer is told. */
static int64_t partition_append(struct bench_kafka_sink *s, struct partition *p, struct slice batch)
{
    struct record_batch head;
    enum bench_kafka_fault fault = ++p->batches == FAULTY ? s->kind.fault : BENCH_FAULT_NONE;
    if (record_batch_peek(batch, &head) != RECORD_OK)
        return -1;
    int64_t offset = p->next;
    size_t at = p->len;
    if (fault != BENCH_FAULT_LOSE && fault != BENCH_FAULT_FORGET)
        partition_keep(p, batch, offset, head.count);
    if (fault == BENCH_FAULT_FLIP && p->len > at)
        p->log[p->len - 1] ^= 1;
    if (fault == BENCH_FAULT_REPEAT)
        partition_keep(p, batch, offset, head.count);
    if (fault == BENCH_FAULT_DOUBLE)
        partition_keep(p, batch, p->next += head.count, head.count);
    if (fault != BENCH_FAULT_FORGET)
        p->next += head.count;
    return fault == BENCH_FAULT_STALE ? 0 : offset;
}

/* The batches from the one that holds `offset` on. */
static struct slice partition_from(const struct partition *p, int64_t offset, size_t most)
{
    struct reader r = reader_of(slice_of(p->log, p->len));
    struct record_batch head;
    struct slice whole = {0};
    if (offset >= p->next)
        return whole;
    while (record_batch_take(&r, &head, &whole) == RECORD_OK)
        if (record_batch_last_offset(&head) >= offset) {
            size_t left = p->len - (size_t)(whole.ptr - p->log);
            return slice_of(whole.ptr, left < most ? left : most);
        }
    return (struct slice){0};
}

/* ---- answers ---- */

static void *take(struct client *c, size_t count, size_t size)
{
    void *p = arena_take(&c->arena, count * size);
    if (p == NULL)
        abort(); /* the generator does not ask for so much */
    memset(p, 0, count * size);
    return p;
}

/* Answers are allocated with room for `list`.count elements, which the caller fills. */
#define TAKE_LIST(c, list, n) ((list).at = take(c, (size_t)(n), sizeof(*(list).at)), (list).count = (n))

static void on_api_versions(struct client *c, struct kafka_api_versions_response *answer)
{
    TAKE_LIST(c, answer->api_keys, (int32_t)kafka_api_count);
    for (size_t i = 0; i < kafka_api_count; i++)
        answer->api_keys.at[i] = (struct kafka_api_versions_response_api_key){
            .api_key = kafka_apis[i].key, .min_version = kafka_apis[i].first, .max_version = kafka_apis[i].last};
}

static void on_create_topics(struct client *c, const struct kafka_create_topics_request *ask,
                             struct kafka_create_topics_response *answer)
{
    TAKE_LIST(c, answer->topics, ask->topics.count);
    for (int32_t i = 0; i < ask->topics.count; i++)
        answer->topics.at[i].name = ask->topics.at[i].name;
}

static void on_delete_topics(struct client *c, const struct kafka_delete_topics_request *ask,
                             struct kafka_delete_topics_response *answer)
{
    TAKE_LIST(c, answer->responses, ask->topic_names.count);
    for (int32_t i = 0; i < ask->topic_names.count; i++)
        answer->responses.at[i].name = ask->topic_names.at[i];
}

static void on_metadata(struct bench_kafka_sink *s, struct client *c, const struct kafka_metadata_request *ask,
                        struct kafka_metadata_response *answer)
{
    TAKE_LIST(c, answer->topics, ask->topics.count);
    for (int32_t i = 0; i < ask->topics.count; i++) {
        answer->topics.at[i].name = ask->topics.at[i].name;
        TAKE_LIST(c, answer->topics.at[i].partitions, s->kind.partitions);
        for (int32_t k = 0; k < s->kind.partitions; k++)
            answer->topics.at[i].partitions.at[k].partition_index = k;
    }
}

static void on_list_offsets(struct bench_kafka_sink *s, struct client *c, const struct kafka_list_offsets_request *ask,
                            struct kafka_list_offsets_response *answer)
{
    TAKE_LIST(c, answer->topics, ask->topics.count);
    for (int32_t i = 0; i < ask->topics.count; i++) {
        int32_t count = ask->topics.at[i].partitions.count;
        TAKE_LIST(c, answer->topics.at[i].partitions, count);
        for (int32_t k = 0; k < count; k++) {
            const struct kafka_list_offsets_request_partition *row = &ask->topics.at[i].partitions.at[k];
            struct kafka_list_offsets_response_partition *ret = &answer->topics.at[i].partitions.at[k];
            ret->partition_index = row->partition_index;
            if (row->partition_index >= s->kind.partitions)
                ret->error_code = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
            else
                ret->offset = row->timestamp == -1 ? s->partitions[row->partition_index].next : 0;
        }
    }
}

static void on_produce(struct bench_kafka_sink *s, struct client *c, const struct kafka_produce_request *ask,
                       struct kafka_produce_response *answer)
{
    TAKE_LIST(c, answer->responses, ask->topic_data.count);
    for (int32_t i = 0; i < ask->topic_data.count; i++) {
        int32_t count = ask->topic_data.at[i].partition_data.count;
        TAKE_LIST(c, answer->responses.at[i].partition_responses, count);
        answer->responses.at[i].name = ask->topic_data.at[i].name;
        for (int32_t k = 0; k < count; k++) {
            const struct kafka_produce_request_partition *row = &ask->topic_data.at[i].partition_data.at[k];
            struct kafka_produce_response_partition *ret = &answer->responses.at[i].partition_responses.at[k];
            struct partition *p = row->index < s->kind.partitions ? &s->partitions[row->index] : NULL;
            ret->index = row->index;
            ret->base_offset = p != NULL ? partition_append(s, p, row->records) : -1;
            if (ret->base_offset < 0)
                ret->error_code = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
            if (s->kind.fault == BENCH_FAULT_REFUSE && p != NULL && p->batches == FAULTY)
                ret->error_code = REFUSED;
        }
    }
}

/* Answers whether there was anything. */
static bool on_fetch(struct bench_kafka_sink *s, struct client *c, const struct kafka_fetch_request *ask,
                     struct kafka_fetch_response *answer)
{
    bool found = false;
    TAKE_LIST(c, answer->responses, ask->topics.count);
    for (int32_t i = 0; i < ask->topics.count; i++) {
        int32_t count = ask->topics.at[i].partitions.count;
        TAKE_LIST(c, answer->responses.at[i].partitions, count);
        answer->responses.at[i].topic = ask->topics.at[i].topic;
        for (int32_t k = 0; k < count; k++) {
            const struct kafka_fetch_request_partition *row = &ask->topics.at[i].partitions.at[k];
            struct kafka_fetch_response_partition *ret = &answer->responses.at[i].partitions.at[k];
            ret->partition_index = row->partition;
            ret->aborted_transactions.count = -1;
            ret->error_code = KAFKA_ERR_UNKNOWN_TOPIC_OR_PARTITION;
            if (row->partition >= s->kind.partitions)
                continue;
            const struct partition *p = &s->partitions[row->partition];
            ret->error_code = 0;
            ret->high_watermark = ret->last_stable_offset = p->kept_end;
            ret->records = partition_from(p, row->fetch_offset, (size_t)row->partition_max_bytes);
            found = found || ret->records.len > 0;
        }
    }
    return found;
}

/* A group of one member: its first id is given, its first generation does not last. */
static void on_join_group(struct bench_kafka_sink *s, struct client *c, const struct kafka_join_group_request *ask,
                          struct kafka_join_group_response *answer)
{
    answer->member_id = answer->leader = slice_str("member-1");
    answer->protocol_name = slice_str("range");
    if (ask->member_id.len == 0) {
        answer->error_code = KAFKA_ERR_MEMBER_ID_REQUIRED;
        return;
    }
    answer->generation_id = ++s->generation;
    TAKE_LIST(c, answer->members, 1);
    answer->members.at[0].member_id = ask->member_id;
    answer->members.at[0].metadata = ask->protocols.at[0].metadata;
}

static void on_sync_group(struct bench_kafka_sink *s, const struct kafka_sync_group_request *ask,
                          struct kafka_sync_group_response *answer)
{
    answer->assignment = slice_str("");
    if (s->generation == 1 || ask->generation_id != s->generation)
        answer->error_code = KAFKA_ERR_REBALANCE_IN_PROGRESS;
    else if (ask->assignments.count == 1)
        answer->assignment = ask->assignments.at[0].assignment;
}

static void on_offset_commit(struct bench_kafka_sink *s, struct client *c,
                             const struct kafka_offset_commit_request *ask, struct kafka_offset_commit_response *answer)
{
    int32_t count = ask->topics.at[0].partitions.count;
    TAKE_LIST(c, answer->topics, 1);
    TAKE_LIST(c, answer->topics.at[0].partitions, count);
    for (int32_t i = 0; i < count; i++) {
        const struct kafka_offset_commit_request_partition *row = &ask->topics.at[0].partitions.at[i];
        answer->topics.at[0].partitions.at[i].partition_index = row->partition_index;
        if (row->partition_index < s->kind.partitions)
            s->partitions[row->partition_index].committed = row->committed_offset + 1;
    }
}

static void on_offset_fetch(struct bench_kafka_sink *s, struct client *c, const struct kafka_offset_fetch_request *ask,
                            struct kafka_offset_fetch_response *answer)
{
    int32_t count = ask->topics.at[0].partition_indexes.count;
    TAKE_LIST(c, answer->topics, 1);
    TAKE_LIST(c, answer->topics.at[0].partitions, count);
    for (int32_t i = 0; i < count; i++) {
        int32_t partition = ask->topics.at[0].partition_indexes.at[i];
        answer->topics.at[0].partitions.at[i].partition_index = partition;
        answer->topics.at[0].partitions.at[i].committed_offset = s->partitions[partition].committed - 1;
    }
}

/* ---- requests ---- */

static int client_answer(struct client *c, const struct kafka_request_head *head, const void *answer)
{
    size_t room = c->out_len + 64 + kafka_encode_size(head->api->response, head->form, answer);
    if (room > c->out_cap) {
        c->out_cap = 2 * room;
        c->out = realloc(c->out, c->out_cap);
        if (c->out == NULL)
            abort(); /* nothing of a benchmark is left without memory */
    }
    struct writer w = writer_of(c->out, c->out_cap);
    w.len = c->out_len;
    size_t mark = kafka_response_begin(&w, head->api, head->form, head->correlation_id);
    kafka_encode(&w, head->api->response, head->form, answer, NULL);
    kafka_response_end(&w, mark, 0);
    c->out_len = w.len;
    return writer_ok(&w) ? 0 : -1;
}

static int client_flush(struct client *c)
{
    int failed = c->out_len > 0 ? client_socket_send(&c->socket, c->out, c->out_len) : 0;
    c->out_len = 0;
    return failed;
}

/* Answers 1 when a fetch has to wait. */
static int client_on_request(struct bench_kafka_sink *s, struct client *c, struct slice frame, bool patient)
{
    struct kafka_request_head head;
    struct slice body;
    void *ask;
    arena_reset(&c->arena);
    if (kafka_request_head(frame, &head, &body) != KAFKA_HEAD_OK ||
        kafka_request_decode(&head, body, &c->arena, &ask) != KAFKA_OK)
        return -1;
    void *answer = take(c, 1, head.api->response->struct_len);
    kafka_defaults(head.api->response, answer);
    switch ((enum kafka_api_key)head.key) {
    case KAFKA_API_api_versions: on_api_versions(c, answer); break;
    case KAFKA_API_create_topics: on_create_topics(c, ask, answer); break;
    case KAFKA_API_delete_topics: on_delete_topics(c, ask, answer); break;
    case KAFKA_API_metadata: on_metadata(s, c, ask, answer); break;
    case KAFKA_API_list_offsets: on_list_offsets(s, c, ask, answer); break;
    case KAFKA_API_init_producer_id: ((struct kafka_init_producer_id_response *)answer)->producer_id = 7; break;
    case KAFKA_API_find_coordinator:
    case KAFKA_API_heartbeat:
    case KAFKA_API_leave_group: break;
    case KAFKA_API_join_group: on_join_group(s, c, ask, answer); break;
    case KAFKA_API_sync_group: on_sync_group(s, ask, answer); break;
    case KAFKA_API_offset_commit: on_offset_commit(s, c, ask, answer); break;
    case KAFKA_API_offset_fetch: on_offset_fetch(s, c, ask, answer); break;
    case KAFKA_API_produce:
        on_produce(s, c, ask, answer);
        if (((struct kafka_produce_request *)ask)->acks == 0)
            return 0;
        break;
    case KAFKA_API_fetch:
        if (!on_fetch(s, c, ask, answer) && patient) {
            c->until_ns =
                client_clock_ns() + (uint64_t)((struct kafka_fetch_request *)ask)->max_wait_ms * BENCH_NS_PER_MS;
            return 1;
        }
        break;
    default: return -1;
    }
    return client_answer(c, &head, answer);
}

static int client_read(struct bench_kafka_sink *s, struct client *c)
{
    struct bench_kafka_wire wire = {.socket = c->socket};
    struct slice frame;
    ssize_t n = client_socket_fill(&wire.socket);
    int got = n <= 0 ? -1 : 0;
    while (n > 0 && (got = bench_kafka_frame_next(&wire, &frame)) > 0) {
        int waits = client_on_request(s, c, frame, true);
        if (waits < 0) {
            got = -1;
            break;
        }
        if (waits > 0) {
            free(c->waiting);
            c->waiting = bench_zeroed(1, frame.len);
            memcpy(c->waiting, frame.ptr, frame.len);
            c->waiting_len = frame.len;
        }
    }
    c->socket = wire.socket;
    return got;
}

static int client_wake(struct bench_kafka_sink *s, struct client *c)
{
    if (c->waiting == NULL)
        return 0;
    int waits = client_on_request(s, c, slice_of(c->waiting, c->waiting_len), client_clock_ns() < c->until_ns);
    if (waits > 0)
        return 0;
    free(c->waiting);
    c->waiting = NULL;
    return waits;
}

static void client_free(struct client *c)
{
    client_socket_close(&c->socket);
    arena_fini(&c->arena);
    free(c->waiting);
    free(c->out);
    free(c);
}

static void sink_accept(struct bench_kafka_sink *s)
{
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    if (s->client_count == CLIENTS_MAX) {
        close(fd);
        return;
    }
    struct client *c = bench_zeroed(1, sizeof(*c));
    c->socket.fd = fd;
    arena_init(&c->arena, ARENA_MAX);
    if (client_socket_reserve(&c->socket, IN_BYTES) != 0)
        abort();
    s->clients[s->client_count++] = c;
}

static void *sink_thread(void *arg)
{
    struct bench_kafka_sink *s = arg;
    struct pollfd watched[CLIENTS_MAX + 2];
    for (;;) {
        bool waiting = false;
        watched[0] = (struct pollfd){.fd = s->stop, .events = POLLIN};
        watched[1] = (struct pollfd){.fd = s->listener, .events = POLLIN};
        for (unsigned i = 0; i < s->client_count; i++) {
            watched[i + 2] = (struct pollfd){.fd = s->clients[i]->socket.fd, .events = POLLIN};
            waiting = waiting || s->clients[i]->waiting != NULL;
        }
        unsigned count = s->client_count;
        if (poll(watched, count + 2, waiting ? WAIT_MS : -1) < 0 && errno != EINTR)
            break;
        if (watched[0].revents != 0)
            break;
        if (watched[1].revents != 0)
            sink_accept(s);
        for (unsigned i = count; i-- > 0;) {
            struct client *c = s->clients[i];
            if ((watched[i + 2].revents != 0 && client_read(s, c) < 0) || client_wake(s, c) < 0 ||
                client_flush(c) != 0) {
                client_free(c);
                s->clients[i] = s->clients[--s->client_count];
            }
        }
    }
    s->cpu_ns = client_clock_cpu_ns();
    return NULL;
}

/* ---- starting and stopping ---- */

static int sink_listen(struct bench_kafka_sink *s, unsigned *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->listener < 0 || bind(s->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(s->listener, CLIENTS_MAX) != 0 || getsockname(s->listener, (struct sockaddr *)&address, &len) != 0)
        return -1;
    *ret_port = ntohs(address.sin_port);
    return 0;
}

static void sink_free(struct bench_kafka_sink *s)
{
    for (unsigned i = 0; i < s->client_count; i++)
        client_free(s->clients[i]);
    for (int32_t i = 0; i < s->kind.partitions; i++)
        free(s->partitions[i].log);
    if (s->listener >= 0)
        close(s->listener);
    if (s->stop >= 0)
        close(s->stop);
    free(s->partitions);
    free(s);
}

struct bench_kafka_sink *bench_kafka_sink_start(const struct bench_kafka_sink_kind *kind, unsigned *ret_port,
                                                char *error, size_t error_cap)
{
    struct bench_kafka_sink *s = bench_zeroed(1, sizeof(*s));
    s->kind = *kind;
    s->listener = -1;
    s->stop = eventfd(0, EFD_CLOEXEC);
    s->partitions = bench_zeroed((size_t)kind->partitions, sizeof(*s->partitions));
    for (int32_t i = 0; i < kind->partitions; i++)
        s->partitions[i].max = kind->keep_bytes / (size_t)kind->partitions;
    if (s->stop < 0 || sink_listen(s, ret_port) != 0 || pthread_create(&s->thread, NULL, sink_thread, s) != 0) {
        snprintf(error, error_cap, "cannot start: %s", strerror(errno));
        sink_free(s);
        return NULL;
    }
    return s;
}

void bench_kafka_sink_stop(struct bench_kafka_sink *s, uint64_t *ret_cpu_ns)
{
    uint64_t one = 1;
    if (write(s->stop, &one, sizeof(one)) != sizeof(one))
        abort(); /* an eventfd takes a number */
    pthread_join(s->thread, NULL);
    if (ret_cpu_ns != NULL)
        *ret_cpu_ns = s->cpu_ns;
    sink_free(s);
}
