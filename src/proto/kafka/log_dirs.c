/* DescribeLogDirs: what the partitions of topics take in the one data folder. */
#include "proto/kafka/errands.h"
#include "proto/kafka/rows.h"

struct dirs {
    struct kafka_rows rows;
    const uint8_t *doubles; /* who asks twice is answered once */
};

static bool dirs_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_log_dirs_request *asked = r->message;
    struct dirs *d = r->state = kafka_room(k, r, 1, sizeof *d);
    size_t count = asked->topics.count > 0 ? (size_t)asked->topics.count : 0;
    struct slice *names = d ? kafka_more_room(k, r, count, sizeof *names) : NULL;
    if (!names)
        return false;
    for (size_t i = 0; i < count; i++)
        names[i] = asked->topics.at[i].topic;
    d->doubles = kafka_doubles(k, r, names, count);
    if (!d->doubles)
        return false;
    struct kafka_wanted wanted = {.names = names, .name_count = count};
    return kafka_rows_init(k, r, asked->topics.count < 0 ? NULL : &wanted, true, &d->rows);
}

/* Of a topic that was named only the partitions that were. */
static bool is_wanted(const struct kafka_describe_log_dirs_request *asked, size_t i, int32_t partition)
{
    if (asked->topics.count < 0)
        return true;
    for (int32_t p = 0; p < asked->topics.at[i].partitions.count; p++)
        if (asked->topics.at[i].partitions.at[p] == partition)
            return true;
    return false;
}

static bool say_topic(struct kafka *k, struct kafka_request *r, const struct dirs *d, size_t i,
                      struct kafka_describe_log_dirs_response_result *dir)
{
    const struct kafka_describe_log_dirs_request *asked = r->message;
    const struct stream_row *row = &d->rows.rows[i];
    struct kafka_describe_log_dirs_response_topic *said = &dir->topics.at[dir->topics.count++];
    struct reader sizes = reader_of(row->sizes);
    struct stream_partition_row size;
    said->name = row->name;
    said->partitions.at = kafka_more_room(k, r, row->partitions, sizeof *said->partitions.at);
    if (!said->partitions.at)
        return false;
    for (int32_t p = 0; stream_row_sizes(&sizes, &size); p++)
        if (is_wanted(asked, i, p))
            said->partitions.at[said->partitions.count++] = (struct kafka_describe_log_dirs_response_partition){
                .partition_index = p, .partition_size = (int64_t)size.bytes};
    if (said->partitions.count == 0)
        dir->topics.count--; /* as Kafka: it has nothing here */
    return true;
}

/* -1 stays where it is not known. */
static void say_disk(const struct kafka *k, struct kafka_describe_log_dirs_response_result *dir)
{
    uint64_t total, free;
    if (!k->options->disk)
        return;
    k->options->disk(k->options->disk_arg, &total, &free);
    dir->total_bytes = (int64_t)total;
    dir->usable_bytes = (int64_t)free;
}

static void say_dir(struct kafka *k, struct kafka_request *r, const struct dirs *d)
{
    struct kafka_describe_log_dirs_response *said = r->response;
    struct kafka_describe_log_dirs_response_result *dir = kafka_room(k, r, 1, sizeof *dir);
    if (!dir)
        return;
    kafka_defaults(&kafka_describe_log_dirs_response_result_table, dir);
    say_disk(k, dir);
    dir->log_dir = slice_str(k->options->log_dir);
    dir->topics.at = kafka_more_room(k, r, d->rows.count, sizeof *dir->topics.at);
    if (!dir->topics.at)
        return;
    for (size_t i = 0; i < d->rows.count; i++)
        if (d->rows.rows[i].result == STREAM_DONE && (d->rows.all || d->doubles[i] != KAFKA_LATER) &&
            !say_topic(k, r, d, i, dir))
            return;
    said->results.at = dir;
    said->results.count = 1;
}

static enum kafka_progress describe_log_dirs_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !dirs_begin(k, r))
        return KAFKA_AGAIN;
    struct dirs *d = r->state;
    if (kafka_rows(k, r, &d->rows) == KAFKA_AGAIN)
        return KAFKA_AGAIN;
    say_dir(k, r, d);
    return KAFKA_SENT;
}

static void describe_log_dirs_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    struct dirs *d = r->state;
    kafka_rows_effect(k, r, &d->rows, e);
}

static void describe_log_dirs_drop(struct kafka *k, struct kafka_request *r)
{
    struct dirs *d = r->state;
    (void)k;
    if (d)
        kafka_rows_drop(&d->rows);
}

const struct kafka_handler kafka_on_describe_log_dirs = {
    .go = describe_log_dirs_go, .effect = describe_log_dirs_effect, .drop = describe_log_dirs_drop};
