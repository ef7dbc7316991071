/* What the Kafka clients do, see kafka_chain.h. */
#include "kafka_chain.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "fmt/record_batch.h"
#include "kafka_chain_int.h"

#define TIMEOUT_MS 900000 /* of a transaction: none ends by itself */
#define AGAIN 51          /* concurrent transactions */

static const struct slice nothing;

struct slice kafka_chain_group(unsigned writer)
{
    static const char *const names[KAFKA_WRITERS] = {"", "g1", "g2"};
    return slice_str(names[writer]);
}

static bool excused(const struct guest *g)
{
    return g->w->dead || g->w->may_fail || g->w->reads_fail || os_sim_is_cut(g->w->disk) || g->w->model->wrong[0];
}

bool kafka_chain_refused(struct kafka_chain *k, struct guest *g, const char *what, int error)
{
    if (error && !excused(g))
        model_fault(g->w->model, "%s is answered with error %d", what, error);
    if (!error && !g->engine && !excused(g))
        model_fault(g->w->model, "the Kafka client lost its connection in %s", what);
    k->stopped = true;
    return false;
}

/* ---- batches ---- */

static void put_batch(struct kafka_chain *k, struct guest *g, uint32_t id)
{
    static uint8_t bytes[1 << 15];
    const struct kafka_batch *one = &k->batches[id];
    struct writer w = writer_of(bytes, sizeof bytes);
    struct record_batch_writer batch;
    struct record_batch head = record_batch_head(0, 1700000000000);
    head.producer_id = one->pid;
    head.producer_epoch = one->epoch;
    head.base_sequence = one->sequence;
    head.transactional = one->tx != 0;
    record_batch_begin(&batch, &w, &head);
    for (uint8_t i = 0; i < one->count; i++) {
        uint8_t room[400] = {0};
        struct writer v = writer_of(room, sizeof room);
        writer_u32(&v, id);
        writer_u8(&v, i);
        struct slice value = slice_of(room, 5 + id * 37 % 390);
        if (!record_batch_put(&batch, head.base_timestamp, NULL, &value, NULL, 0))
            abort();
    }
    struct kafka_produce_request_partition part = {.index = one->part, .records = record_batch_finish(&batch, -1)};
    struct kafka_produce_request_topic topic = {.name = slice_str(KAFKA_CHAIN_TOPIC), .partition_data = {&part, 1}};
    guest_ask(g, KAFKA_API_produce, 9,
              &(struct kafka_produce_request){.transactional_id = one->tx ? kafka_chain_group(one->writer) : nothing,
                                              .acks = -1,
                                              .timeout_ms = 1000,
                                              .topic_data = {&topic, 1}});
}

/* The answer to the oldest of a writer in a partition. */
static bool take_produced(struct kafka_chain *k, struct guest *g, struct kafka_writer *writer, unsigned part)
{
    const struct kafka_produce_response *said = guest_answer(g);
    uint32_t id = writer->unanswered[part][0];
    if (!said || said->responses.count != 1 || said->responses.at[0].partition_responses.count != 1)
        return kafka_chain_refused(k, g, "Produce", 0);
    const struct kafka_produce_response_partition *row = &said->responses.at[0].partition_responses.at[0];
    if (row->error_code)
        return kafka_chain_refused(k, g, "Produce", row->error_code);
    kafka_chain_own(k, g->w, part, (uint64_t)row->base_offset, id);
    if (g->w->talk > 1)
        printf("    kafka: batch %u is at %lld of partition %u\n", id, (long long)row->base_offset, part);
    writer->flying[part]--;
    memmove(writer->unanswered[part], writer->unanswered[part] + 1, writer->flying[part] * sizeof(uint32_t));
    return true;
}

/* The last `count` of each partition were sent one after the other, those of partition 0 first. */
static bool take_all(struct kafka_chain *k, struct guest *g, struct kafka_writer *writer)
{
    for (unsigned part = 0; part < KAFKA_PARTS; part++)
        while (writer->flying[part])
            if (!take_produced(k, g, writer, part))
                return false;
    return true;
}

static bool send_again(struct kafka_chain *k, struct guest *g, struct kafka_writer *writer)
{
    for (unsigned part = 0; part < KAFKA_PARTS; part++)
        for (unsigned i = 0; i < writer->flying[part]; i++) {
            put_batch(k, g, writer->unanswered[part][i]);
            k->resent++;
        }
    return take_all(k, g, writer);
}

static bool produce_some(struct kafka_chain *k, struct guest *g, unsigned number)
{
    struct kafka_writer *writer = &k->writers[number];
    for (unsigned part = 0; part < KAFKA_PARTS; part++)
        for (unsigned n = world_pick(g->w, KAFKA_FLIGHT + 1); n; n--) {
            uint8_t count = (uint8_t)(1 + world_pick(g->w, 4));
            if (k->batch_count + 1 >= KAFKA_BATCHES || k->end[part] + 200 > KAFKA_OFFSETS)
                return take_all(k, g, writer);
            uint32_t id = ++k->batch_count;
            k->batches[id] = (struct kafka_batch){.pid = writer->pid,
                                                  .epoch = writer->epoch,
                                                  .sequence = writer->sequence[part],
                                                  .tx = writer->tx,
                                                  .writer = (uint8_t)number,
                                                  .part = (uint8_t)part,
                                                  .count = count};
            writer->sequence[part] += count;
            writer->unanswered[part][writer->flying[part]++] = id;
            put_batch(k, g, id);
            k->produced++;
        }
    return take_all(k, g, writer);
}

/* ---- instances ---- */

static bool renew(struct kafka_chain *k, struct guest *g, unsigned number)
{
    struct kafka_writer *writer = &k->writers[number];
    writer->phase = PHASE_ASKED;
    if (writer->tx && k->txs[writer->tx].state == TX_OPEN)
        k->txs[writer->tx].state = TX_ABORTED;
    const struct kafka_init_producer_id_response *said =
        ANSWER(g, init_producer_id, 4, .transactional_id = number ? kafka_chain_group(number) : nothing,
               .transaction_timeout_ms = TIMEOUT_MS, .producer_id = -1, .producer_epoch = -1);
    if (!said || said->error_code)
        return kafka_chain_refused(k, g, "InitProducerId", said ? said->error_code : 0);
    for (uint32_t id = 1; id <= k->batch_count; id++)
        if (k->batches[id].writer == number)
            k->batches[id].renewed = true;
    for (unsigned part = 0; part < KAFKA_PARTS; part++) {
        writer->sequence[part] = 0;
        writer->flying[part] = 0;
    }
    writer->pid = said->producer_id;
    writer->epoch = said->producer_epoch;
    writer->tx = 0;
    writer->phase = PHASE_IDLE;
    return true;
}

/* ---- transactions ---- */

static bool add_partitions(struct kafka_chain *k, struct guest *g, unsigned number)
{
    struct kafka_writer *writer = &k->writers[number];
    int32_t parts[KAFKA_PARTS] = {0, 1};
    struct kafka_add_partitions_to_txn_request_topic topic = {.name = slice_str(KAFKA_CHAIN_TOPIC),
                                                              .partitions = {parts, KAFKA_PARTS}};
    const struct kafka_add_partitions_to_txn_response *said =
        ANSWER(g, add_partitions_to_txn, 3, .v3_and_below_transactional_id = kafka_chain_group(number),
               .v3_and_below_producer_id = writer->pid, .v3_and_below_producer_epoch = writer->epoch,
               .v3_and_below_topics = {&topic, 1});
    if (!said || said->results_by_topic_v3_and_below.count != 1)
        return kafka_chain_refused(k, g, "AddPartitionsToTxn", 0);
    for (int32_t i = 0; i < said->results_by_topic_v3_and_below.at[0].results_by_partition.count; i++) {
        int error = said->results_by_topic_v3_and_below.at[0].results_by_partition.at[i].partition_error_code;
        if (error)
            return kafka_chain_refused(k, g, "AddPartitionsToTxn", error);
    }
    return true;
}

static bool commit_offset(struct kafka_chain *k, struct guest *g, unsigned number)
{
    struct kafka_writer *writer = &k->writers[number];
    if (!k->txs[writer->tx].offset)
        k->txs[writer->tx].offset = ++writer->offset;
    struct kafka_txn_offset_commit_request_partition part = {.committed_offset = k->txs[writer->tx].offset,
                                                             .committed_leader_epoch = -1};
    struct kafka_txn_offset_commit_request_topic topic = {.name = slice_str(KAFKA_CHAIN_TOPIC),
                                                          .partitions = {&part, 1}};
    const struct kafka_txn_offset_commit_response *said =
        ANSWER(g, txn_offset_commit, 3, .transactional_id = kafka_chain_group(number),
               .group_id = kafka_chain_group(number), .producer_id = writer->pid, .producer_epoch = writer->epoch,
               .generation_id_or_member_epoch = -1, .topics = {&topic, 1});
    if (!said || said->topics.count != 1 || said->topics.at[0].partitions.count != 1)
        return kafka_chain_refused(k, g, "TxnOffsetCommit", 0);
    int error = said->topics.at[0].partitions.at[0].error_code;
    k->txs[writer->tx].offset_answered = !error;
    if (g->w->talk > 1)
        printf("    kafka: offset %lld goes with transaction %u\n", (long long)k->txs[writer->tx].offset, writer->tx);
    return !error || kafka_chain_refused(k, g, "TxnOffsetCommit", error);
}

static bool begin(struct kafka_chain *k, struct guest *g, unsigned number)
{
    struct kafka_writer *writer = &k->writers[number];
    if (k->tx_count + 1 >= KAFKA_TXS)
        return false;
    writer->tx = ++k->tx_count;
    k->txs[writer->tx] = (struct kafka_tx){.state = TX_OPEN, .writer = (uint8_t)number};
    writer->phase = PHASE_OPEN;
    return add_partitions(k, g, number);
}

static bool finish(struct kafka_chain *k, struct guest *g, unsigned number)
{
    struct kafka_writer *writer = &k->writers[number];
    struct kafka_tx *tx = &k->txs[writer->tx];
    if (tx->offset && !tx->offset_answered && writer->phase == PHASE_OPEN && !commit_offset(k, g, number))
        return false;
    tx->state = writer->commit ? TX_COMMITTING : TX_ABORTED;
    writer->phase = PHASE_ENDING;
    const struct kafka_end_txn_response *said =
        ANSWER(g, end_txn, 3, .transactional_id = kafka_chain_group(number), .producer_id = writer->pid,
               .producer_epoch = writer->epoch, .committed = writer->commit);
    if (!said || said->error_code)
        return kafka_chain_refused(k, g, "EndTxn", said ? said->error_code : 0);
    if (g->w->talk > 1)
        printf("    kafka: transaction %u %s\n", writer->tx, writer->commit ? "committed" : "aborted");
    if (writer->commit) {
        tx->state = TX_COMMITTED;
        writer->offset_sure = tx->offset ? tx->offset : writer->offset_sure;
        k->commits++;
    } else
        k->aborts++;
    writer->tx = 0;
    writer->phase = PHASE_IDLE;
    return true;
}

static bool transact(struct kafka_chain *k, struct guest *g, unsigned number)
{
    struct kafka_writer *writer = &k->writers[number];
    unsigned draw = world_pick(g->w, 16);
    if (writer->phase == PHASE_IDLE)
        return begin(k, g, number);
    if (draw == 0)
        return renew(k, g, number);
    if (draw < 7)
        return produce_some(k, g, number);
    if (draw < 9)
        return commit_offset(k, g, number);
    writer->commit = world_pick(g->w, 10) < 7;
    return finish(k, g, number);
}

/* ---- a life ---- */

/* After a death: as it was, or as a new instance. */
static bool resume(struct kafka_chain *k, struct guest *g, unsigned number)
{
    struct kafka_writer *writer = &k->writers[number];
    if (writer->pid < 0 || writer->phase == PHASE_ASKED || world_pick(g->w, 4) == 0)
        return renew(k, g, number);
    if (writer->phase == PHASE_OPEN && !add_partitions(k, g, number))
        return false;
    if (!send_again(k, g, writer))
        return false;
    return writer->phase != PHASE_ENDING || finish(k, g, number);
}

static bool cut(struct kafka_chain *k, struct guest *g)
{
    unsigned part = world_pick(g->w, KAFKA_PARTS);
    uint32_t at = kafka_chain_cut_at(k, part);
    if (at <= k->start[part])
        return true;
    struct kafka_delete_records_request_partition row = {.partition_index = (int32_t)part, .offset = at};
    struct kafka_delete_records_request_topic topic = {.name = slice_str(KAFKA_CHAIN_TOPIC), .partitions = {&row, 1}};
    k->start_asked[part] = at;
    const struct kafka_delete_records_response *said =
        ANSWER(g, delete_records, 2, .topics = {&topic, 1}, .timeout_ms = 1000);
    if (!said || said->topics.count != 1 || said->topics.at[0].partitions.count != 1)
        return kafka_chain_refused(k, g, "DeleteRecords", 0);
    int error = said->topics.at[0].partitions.at[0].error_code;
    if (error)
        return kafka_chain_refused(k, g, "DeleteRecords", error);
    k->start[part] = at;
    return true;
}

void kafka_chain_begin(struct kafka_chain *k, struct guest *g, struct world *w)
{
    k->stopped = !guest_connect(g, w);
    if (!k->stopped)
        k->stopped = !kafka_chain_compare(k, g, true);
    for (unsigned number = 0; number < KAFKA_WRITERS && !k->stopped; number++)
        (void)resume(k, g, number);
}

void kafka_chain_op(struct kafka_chain *k, struct guest *g)
{
    unsigned draw = world_pick(g->w, 20);
    if (k->stopped)
        return;
    if (draw < 6)
        (void)produce_some(k, g, 0);
    else if (draw == 6)
        (void)renew(k, g, 0);
    else if (draw == 7)
        (void)kafka_chain_compare(k, g, false);
    else if (draw == 8 && !g->w->runs_sql)
        (void)cut(k, g);
    else
        (void)transact(k, g, 1 + world_pick(g->w, KAFKA_WRITERS - 1));
}

void kafka_chain_furnish(struct kafka_chain *k, struct world *w)
{
    struct guest g;
    *k = (struct kafka_chain){0};
    for (unsigned number = 0; number < KAFKA_WRITERS; number++)
        k->writers[number] = (struct kafka_writer){.pid = -1};
    struct kafka_create_topics_request_config config = {.name = slice_str("retention.ms"), .value = slice_str("-1")};
    struct kafka_create_topics_request_topic topic = {.name = slice_str(KAFKA_CHAIN_TOPIC),
                                                      .num_partitions = KAFKA_PARTS,
                                                      .replication_factor = 1,
                                                      .configs = {&config, 1}};
    const struct kafka_create_topics_response *made =
        guest_connect(&g, w) ? ANSWER(&g, create_topics, 7, .topics = {&topic, 1}, .timeout_ms = 1000) : NULL;
    if (!made || made->topics.count != 1 || made->topics.at[0].error_code)
        model_fault(w->model, "the topic of the Kafka clients is not made");
    guest_end(&g);
    client_queue_declare(&w->client, CH_CONFIRM, KAFKA_CHAIN_QUEUE, nothing);
    if (world_wait(w, ASKED(50, 11))) {
        client_queue_bind(&w->client, CH_CONFIRM, KAFKA_CHAIN_QUEUE, "amq.stream." KAFKA_CHAIN_TOPIC, "#", nothing);
        (void)world_wait(w, ASKED(50, 21));
    }
}
