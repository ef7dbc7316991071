/* Streams by command: what is answered to whom, what survives, and what without memory. */
#include "core/broker_words_test.h"
#include "core/stream_int.h"

#define NO_ARGS ((struct slice){0})

static struct queue *queue_named(struct rig *rig, const char *name)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name));
}

/* The one answer since the last clear; never an error, and nobody has failed. */
static const struct answer *answer_of(struct rig *rig)
{
    assert_string_equal(rig_error(rig), "");
    assert_int_equal(rig_count(rig, EFF_SESSION_KICK), 0);
    assert_int_equal(rig_count(rig, EFF_ANSWER), 1);
    assert_non_null(rig_nth(rig, EFF_ANSWER, 0)->answer);
    return rig_nth(rig, EFF_ANSWER, 0)->answer;
}

static enum stream_result ask_stream(struct rig *rig, enum command_type type, const char *name, struct slice args,
                                     uint32_t flags, uint64_t number)
{
    rig_clear(rig);
    assert_true(rig_ask_full(rig, type, 1, 0, name, NULL, NULL, args, flags, number));
    return (enum stream_result)answer_of(rig)->number;
}

static enum stream_result create(struct rig *rig, const char *name, uint64_t partitions, struct slice args)
{
    return ask_stream(rig, CMD_STREAM_CREATE, name, args, 0, partitions);
}

static const char *text_of(struct rig *rig)
{
    static char text[ERROR_TEXT_MAX];
    snprintf(text, sizeof text, "%.*s", SLICE_ARG(answer_of(rig)->text));
    return text;
}

/* "a:1 b:3", with what became of those that are no streams. */
static const char *list(struct rig *rig, const char *names, const uint64_t *ids, size_t id_count, uint32_t flags,
                        uint64_t after)
{
    static char text[65536];
    uint8_t name_bytes[512], id_bytes[512];
    struct writer n = writer_of(name_bytes, sizeof name_bytes), i = writer_of(id_bytes, sizeof id_bytes);
    char *copy = strdup(names), *save;
    for (char *name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save))
        writer_str8(&n, slice_str(name));
    free(copy);
    for (size_t k = 0; k < id_count; k++)
        writer_u64(&i, ids[k]);
    rig_clear(rig);
    struct ask *ask = ask_new(writer_slice(&n), NO_ARGS, writer_slice(&i), NO_ARGS);
    ask->flags = flags;
    ask->number = after;
    rig_command(rig, 0, CMD_STREAM_LIST, 1, 0)->ask = ask;
    rig_step(rig);
    struct reader r = reader_of(answer_of(rig)->fields);
    struct stream_row row;
    size_t at = 0;
    text[0] = '\0';
    while (stream_row_next(&r, &row))
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%.*s:%u%s", at ? " " : "", SLICE_ARG(row.name),
                               row.partitions,
                               row.result == STREAM_DONE       ? ""
                               : row.result == STREAM_UNKNOWN  ? "?"
                               : row.result == STREAM_IS_QUEUE ? "queue"
                                                               : "refused");
    assert_true(reader_ok(&r));
    return text;
}

static struct stream_row first_row(struct rig *rig, const char *name, uint32_t flags)
{
    struct stream_row row;
    (void)list(rig, name, NULL, 0, flags, 0);
    struct reader r = reader_of(answer_of(rig)->fields);
    assert_true(stream_row_next(&r, &row));
    return row;
}

static void set_permissions(struct rig *rig, const char *configure, const char *write, const char *read)
{
    char why[200];
    struct user *user = user_find(rig->b, slice_str("guest"));
    assert_true(permission_put(rig->b, user, vhost_find(rig->b, slice_str("/")), slice_str(configure), slice_str(write),
                               slice_str(read), why, sizeof why));
}

static void made_listed_and_deleted(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_str(&table(&t)->w, "x-max-age", slice_str("7D"));
    amqp_put_str(&t.w, "kafka.min.insync.replicas", slice_str("1"));
    amqp_put_str(&t.w, "x-queue-type", slice_str("classic")); /* it is a stream all the same */
    declare(rig, "plain", NO_ARGS);
    assert_int_equal(create(rig, "a", 0, NO_ARGS), STREAM_DONE);
    uint64_t a = answer_of(rig)->number2;
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->lsn, rig->b->appended); /* held until that is durable */
    assert_int_equal(a, queue_named(rig, "a")->id);
    assert_int_equal(create(rig, "b", 3, writer_slice(&t.w)), STREAM_DONE);
    assert_int_equal(create(rig, "a", 5, NO_ARGS), STREAM_EXISTS);
    assert_int_equal(create(rig, "plain", 1, NO_ARGS), STREAM_IS_QUEUE);
    uint64_t ids[] = {a, 999};
    assert_string_equal(list(rig, "b plain none", ids, 2, 0, 0), "b:3 plain:0queue none:0? a:1 :0?");
    assert_string_equal(list(rig, "", NULL, 0, 0, 0), "a:1 b:3");
    assert_string_equal(list(rig, "", NULL, 0, 0, a), "b:3");
    struct stream_row row = first_row(rig, "b", ASK_SIZES);
    assert_int_equal(row.limits.max_age_ms, 7 * 86400000);
    assert_int_equal(row.limits.max_bytes, -1);
    assert_true(row.limits.deletes && !row.limits.compacts && row.verbs == 7);
    struct amqp_value v;
    assert_true(amqp_table_find(row.args, "kafka.min.insync.replicas", &v));
    assert_int_equal(row.sizes.len, 3 * 24);
    restart(&rig);
    assert_string_equal(list(rig, "", NULL, 0, 0, 0), "a:1 b:3");
    assert_int_equal(ask_stream(rig, CMD_STREAM_DELETE, "plain", NO_ARGS, 0, 0), STREAM_IS_QUEUE);
    assert_int_equal(ask_stream(rig, CMD_STREAM_DELETE, "none", NO_ARGS, 0, 0), STREAM_UNKNOWN);
    assert_int_equal(ask_stream(rig, CMD_STREAM_DELETE, "b", NO_ARGS, 0, 0), STREAM_DONE);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->lsn, rig->b->appended);
    assert_int_equal(ask_stream(rig, CMD_STREAM_DELETE, NULL, NO_ARGS, 0, a), STREAM_DONE);
    assert_int_equal(ask_stream(rig, CMD_STREAM_DELETE, NULL, NO_ARGS, 0, a), STREAM_UNKNOWN);
    assert_string_equal(list(rig, "", NULL, 0, 0, 0), "");
    end(rig);
}

static void what_is_refused(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    char name[300];
    memset(name, 'n', sizeof name);
    name[256] = '\0';
    assert_int_equal(create(rig, name, 1, NO_ARGS), STREAM_BAD_NAME);
    assert_int_equal(create(rig, "amq.mine", 1, NO_ARGS), STREAM_BAD_NAME);
    assert_int_equal(create(rig, NULL, 1, NO_ARGS), STREAM_BAD_NAME);
    assert_int_equal(create(rig, "s", STREAM_PARTITIONS_MAX + 1, NO_ARGS), STREAM_BAD_PARTITIONS);
    assert_int_equal(create(rig, "s", UINT64_MAX, NO_ARGS), STREAM_BAD_PARTITIONS);
    amqp_put_str(&table(&t)->w, "x-max-age", slice_str("soon"));
    assert_int_equal(create(rig, "s", 1, writer_slice(&t.w)), STREAM_BAD_ARGUMENT);
    assert_string_equal(text_of(rig), "invalid arg 'x-max-age' for queue 's' in vhost '/': invalid_max_age");
    assert_int_equal(create(rig, "s", 1, slice_str("no table")), STREAM_BAD_ARGUMENT);
    assert_int_equal(ask_stream(rig, CMD_STREAM_CREATE, "s", NO_ARGS, ASK_CHECK_ONLY, 2), STREAM_DONE);
    assert_null(queue_named(rig, "s"));
    assert_int_equal(create(rig, "s", 2, NO_ARGS), STREAM_DONE);
    set_permissions(rig, "^x", "^s", "");
    assert_int_equal(create(rig, "t", 2, NO_ARGS), STREAM_REFUSED);
    assert_int_equal(create(rig, "x", 2, NO_ARGS), STREAM_DONE);
    assert_int_equal(ask_stream(rig, CMD_STREAM_DELETE, "s", NO_ARGS, 0, 0), STREAM_REFUSED);
    assert_string_equal(list(rig, "x s t", NULL, 0, 0, 0), "x:2 s:2 t:0refused");
    assert_int_equal(first_row(rig, "s", 0).verbs, STREAM_MAY_WRITE);
    set_permissions(rig, "^x", "", "");
    assert_string_equal(list(rig, "", NULL, 0, 0, 0), "x:2");
    set_permissions(rig, ".*", ".*", ".*");
    end(rig);
}

/* A page holds so many; what a deletion between two pages takes away is no trap. */
static void many_in_pages(void **state)
{
    (void)state;
    struct rig *rig = begin();
    char name[16];
    rig->check = false;
    for (unsigned i = 0; i < 2500; i++) {
        snprintf(name, sizeof name, "s%u", i);
        assert_int_equal(create(rig, name, 1, NO_ARGS), STREAM_DONE);
    }
    uint64_t after = 0;
    unsigned seen = 0, pages = 0;
    for (bool more = true; more; pages++) {
        (void)list(rig, "", NULL, 0, 0, after);
        const struct answer *answer = answer_of(rig);
        struct reader r = reader_of(answer->fields);
        for (struct stream_row row; stream_row_next(&r, &row); seen++)
            assert_true(row.id > after || row.id <= answer->number2);
        more = answer->number == 1;
        after = answer->number2;
        if (pages == 0)
            assert_int_equal(ask_stream(rig, CMD_STREAM_DELETE, NULL, NO_ARGS, 0, after), STREAM_DONE);
    }
    assert_int_equal(pages, 3);
    assert_int_equal(seen, 2500);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

static void publish_keyed(struct rig *rig, unsigned first, unsigned count)
{
    char text[16];
    struct table t;
    for (unsigned i = first; i < first + count; i++) {
        snprintf(text, sizeof text, "%u", i);
        amqp_put_str(&table(&t)->w, "x-stream-key", slice_str(text));
        struct amqp_props props = {
            .present = AMQP_HEADERS | AMQP_DELIVERY_MODE, .delivery_mode = 2, .headers = writer_slice(&t.w)};
        assert_true(rig_publish_with(rig, 1, 1, "", "s", slice_str(text), &props, 0));
    }
}

static void follow(struct rig *rig, const char *tag, int64_t partition)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    if (partition >= 0)
        amqp_put_long(&t.w, "x-stream-partition", partition);
    rig_plain(rig, CMD_QOS, 1, 1, 10000, 0);
    assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, "s", tag, NULL, writer_slice(&t.w), 0));
    rig_clear(rig);
}

static void compact(struct rig *rig)
{
    uint64_t before = rig->b->totals.compactions;
    compact_start(rig->b);
    while (rig->b->totals.compactions == before)
        rig_step(rig);
    rig_clear(rig);
}

static enum stream_result grow(struct rig *rig, uint64_t count)
{
    return ask_stream(rig, CMD_STREAM_GROW, "s", NO_ARGS, 0, count);
}

/* Each number came once. */
static void assert_delivered(struct rig *rig, unsigned count)
{
    bool seen[200] = {0};
    assert_int_equal(rig_count(rig, EFF_DELIVER), count);
    for (unsigned i = 0; i < count; i++) {
        long n = strtol(rig_body(rig_nth(rig, EFF_DELIVER, i)), NULL, 10);
        assert_true(n >= 0 && n < (long)ARRAY_LEN(seen) && !seen[n]);
        seen[n] = true;
    }
}

/* Who reads the whole stream, and a queue that is bound to it, get what is in the new partitions; who reads one does not. */
static void more_partitions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare(rig, "q", NO_ARGS);
    assert_int_equal(create(rig, "s", 1, NO_ARGS), STREAM_DONE);
    ASK(QUEUE_BIND, "q", "amq.stream.s", "", 0);
    publish_keyed(rig, 0, 10);
    follow(rig, "all", -1);
    assert_int_equal(grow(rig, 1), STREAM_BAD_PARTITIONS);
    assert_int_equal(answer_of(rig)->number2, 1);
    assert_int_equal(grow(rig, STREAM_PARTITIONS_MAX + 1), STREAM_BAD_PARTITIONS);
    assert_int_equal(ask_stream(rig, CMD_STREAM_GROW, "s", NO_ARGS, ASK_CHECK_ONLY, 4), STREAM_DONE);
    assert_int_equal(answer_of(rig)->number2, 1);
    assert_int_equal(ask_stream(rig, CMD_STREAM_GROW, "q", NO_ARGS, 0, 4), STREAM_IS_QUEUE);
    assert_int_equal(ask_stream(rig, CMD_STREAM_GROW, "none", NO_ARGS, 0, 4), STREAM_UNKNOWN);
    assert_int_equal(grow(rig, 4), STREAM_DONE);
    assert_int_equal(answer_of(rig)->number2, 4);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->lsn, rig->b->appended);
    rig_clear(rig);
    publish_keyed(rig, 10, 30);
    assert_delivered(rig, 30);
    unsigned used = 0;
    for (unsigned i = 0; i < 4; i++)
        used += queue_named(rig, "s")->stream->partitions[i]->end > 0;
    assert_int_equal(used, 4);
    assert_int_equal(rig_ready(rig, "q"), 40);
    follow(rig, "one", 0);
    assert_int_equal(grow(rig, 9), STREAM_DONE);
    rig_clear(rig);
    uint64_t in_first = queue_named(rig, "s")->stream->partitions[0]->end;
    publish_keyed(rig, 40, 60);
    in_first = queue_named(rig, "s")->stream->partitions[0]->end - in_first;
    assert_true(in_first > 0);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 60 + in_first);
    restart(&rig);
    assert_string_equal(list(rig, "s", NULL, 0, 0, 0), "s:9");
    assert_int_equal(rig_ready(rig, "q"), 100);
    rig_plain(rig, CMD_QOS, 1, 1, 10000, 0);
    rig_clear(rig);
    struct table t;
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, "s", "all", NULL, writer_slice(&t.w), 0));
    assert_delivered(rig, 100);
    compact(rig);
    restart(&rig);
    publish_keyed(rig, 100, 50);
    assert_int_equal(rig_ready(rig, "q"), 150);
    assert_string_equal(list(rig, "s", NULL, 0, 0, 0), "s:9");
    end(rig);
}

static enum stream_result trim(struct rig *rig, unsigned partition, uint64_t offset)
{
    rig_clear(rig);
    struct ask *ask = ask_new(slice_str("s"), NO_ARGS, NO_ARGS, NO_ARGS);
    ask->number = offset;
    rig_command(rig, 0, CMD_STREAM_TRIM, 1, (uint16_t)partition)->ask = ask;
    rig_step(rig);
    return (enum stream_result)answer_of(rig)->number;
}

static void a_new_beginning(void **state)
{
    (void)state;
    struct rig *rig = begin();
    static uint8_t large[40000];
    declare(rig, "q", NO_ARGS);
    struct table t;
    amqp_put_long(&table(&t)->w, "x-stream-max-segment-size-bytes", 65536); /* two records in each */
    assert_int_equal(create(rig, "s", 1, writer_slice(&t.w)), STREAM_DONE);
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    for (unsigned i = 0; i < 10; i++)
        assert_true(rig_publish_with(rig, 1, 1, "", "s", slice_of(large, sizeof large), &props, 0));
    amqp_put_long(&table(&t)->w, "x-max-length", 1); /* a feeder that has not passed what goes */
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
    declare(rig, "slow", writer_slice(&t.w));
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    assert_true(rig_ask(rig, CMD_QUEUE_BIND, 1, 1, "slow", "amq.stream.s", "", writer_slice(&t.w), 0));
    assert_int_equal(trim(rig, 1, 0), STREAM_UNKNOWN);
    assert_int_equal(trim(rig, 0, 11), STREAM_OUT_OF_RANGE);
    assert_int_equal(trim(rig, 0, 0), STREAM_DONE);
    assert_int_equal(answer_of(rig)->number2, 0);
    assert_int_equal(rig->log->streams->drops, 0);
    assert_int_equal(trim(rig, 0, 5), STREAM_DONE);
    assert_int_equal(answer_of(rig)->number2, 5);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->lsn > 0, true);
    assert_true(rig->log->streams->drops > 0); /* whole segments below */
    assert_int_equal(rig->b->totals.stream_records, 5);
    assert_int_equal(trim(rig, 0, 3), STREAM_DONE); /* never back */
    assert_int_equal(answer_of(rig)->number2, 5);
    follow(rig, "c", -1);
    restart(&rig);
    assert_int_equal(queue_named(rig, "s")->stream->partitions[0]->start, 5);
    assert_int_equal(rig->b->totals.stream_records, 5);
    compact(rig);
    restart(&rig);
    assert_int_equal(queue_named(rig, "s")->stream->partitions[0]->start, 5);
    ASK(QUEUE_BIND, "q", "amq.stream.s", "", 0);
    assert_true(rig_publish_with(rig, 1, 1, "", "s", slice_of(large, 10), &props, 0));
    assert_int_equal(trim(rig, 0, UINT64_MAX), STREAM_DONE);
    assert_int_equal(answer_of(rig)->number2, 11);
    assert_int_equal(rig->b->totals.stream_records, 0);
    restart(&rig); /* it begins behind what is synced */
    assert_int_equal(queue_named(rig, "s")->stream->partitions[0]->start, 11);
    assert_int_equal(queue_named(rig, "s")->stream->partitions[0]->tail.base, 10); /* in a file of its own */
    assert_int_equal(rig->b->totals.stream_records, 0);
    assert_true(rig_publish_with(rig, 1, 1, "", "s", slice_str("11"), &props, 0));
    rig_clear(rig);
    rig_plain(rig, CMD_QOS, 1, 1, 10000, 0);
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, "s", "c", NULL, writer_slice(&t.w), 0));
    assert_string_equal(rig_delivered(rig), "11");
    assert_int_equal(rig_nth(rig, EFF_DELIVER, 0)->count, 11);
    end(rig);
}

/* What the journal does not have yet is not visible. */
static void not_beyond_what_is_durable(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_int_equal(create(rig, "s", 1, NO_ARGS), STREAM_DONE);
    publish_keyed(rig, 0, 3);
    rig->hold = true;
    publish_keyed(rig, 3, 4);
    assert_int_equal(queue_named(rig, "s")->stream->partitions[0]->written, 7);
    assert_int_equal(trim(rig, 0, 4), STREAM_OUT_OF_RANGE);
    assert_int_equal(trim(rig, 0, UINT64_MAX), STREAM_DONE);
    assert_int_equal(answer_of(rig)->number2, 3);
    rig->hold = false;
    assert_int_equal(trim(rig, 0, UINT64_MAX), STREAM_DONE);
    assert_int_equal(answer_of(rig)->number2, 7);
    end(rig);
}

/* What is durable may be given up before it is in a file. */
static void ahead_of_the_file(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    assert_int_equal(create(rig, "s", 1, NO_ARGS), STREAM_DONE);
    rig->log->streams->fail_writes = 2;
    publish_keyed(rig, 0, 5);
    struct partition *p = queue_named(rig, "s")->stream->partitions[0];
    assert_int_equal(p->written, 0);
    rig_plain(rig, CMD_QOS, 1, 1, 10000, 0);
    assert_int_equal(trim(rig, 0, UINT64_MAX), STREAM_DONE);
    assert_int_equal(answer_of(rig)->number2, 5);
    assert_int_equal(p->written, 0);
    rig_clear(rig);
    amqp_put_time(&table(&t)->w, "x-stream-offset", 1);
    assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, "s", "c", NULL, writer_slice(&t.w), 0));
    rig_pass(rig, 3000);
    assert_int_equal(p->written, 5);
    publish_keyed(rig, 5, 2);
    assert_string_equal(rig_delivered(rig), "5 6");
    assert_int_equal(rig->b->totals.stream_records, 2);
    compact(rig);
    restart(&rig);
    assert_int_equal(queue_named(rig, "s")->stream->partitions[0]->start, 5);
    assert_int_equal(rig->b->totals.stream_records, 2);
    end(rig);
}

static enum stream_result set(struct rig *rig, struct slice args, const char *gone)
{
    uint8_t bytes[100];
    struct writer w = writer_of(bytes, sizeof bytes);
    if (gone)
        writer_str8(&w, slice_str(gone));
    rig_clear(rig);
    struct ask *ask = ask_new(slice_str("s"), writer_slice(&w), NO_ARGS, args);
    rig_command(rig, 0, CMD_STREAM_SET, 1, 0)->ask = ask;
    rig_step(rig);
    return (enum stream_result)answer_of(rig)->number;
}

static void other_arguments(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_str(&table(&t)->w, "x-max-age", slice_str("1m"));
    assert_int_equal(create(rig, "s", 2, writer_slice(&t.w)), STREAM_DONE);
    publish_keyed(rig, 0, 5);
    amqp_put_str(&table(&t)->w, "x-max-age", slice_str("7D"));
    amqp_put_str(&t.w, "kafka.flush.ms", slice_str("1"));
    assert_int_equal(set(rig, writer_slice(&t.w), NULL), STREAM_DONE);
    assert_int_equal(rig_nth(rig, EFF_ANSWER, 0)->lsn, rig->b->appended);
    struct stream_row row = first_row(rig, "s", 0);
    assert_int_equal(row.limits.max_age_ms, 7 * 86400000);
    assert_int_equal(row.partitions, 2);
    restart(&rig);
    assert_int_equal(first_row(rig, "s", 0).limits.max_age_ms, 7 * 86400000);
    assert_int_equal(rig->b->totals.stream_records, 5);
    amqp_put_long(&table(&t)->w, "x-max-length-bytes", -5);
    assert_int_equal(set(rig, writer_slice(&t.w), NULL), STREAM_BAD_ARGUMENT);
    amqp_put_long(&table(&t)->w, "x-stream-partitions", 5);
    assert_int_equal(set(rig, writer_slice(&t.w), NULL), STREAM_BAD_ARGUMENT);
    assert_int_equal(set(rig, NO_ARGS, "x-queue-type"), STREAM_BAD_ARGUMENT);
    assert_int_equal(set(rig, slice_str("no table"), NULL), STREAM_BAD_ARGUMENT);
    assert_int_equal(set(rig, NO_ARGS, "x-max-age"), STREAM_DONE);
    row = first_row(rig, "s", 0);
    assert_int_equal(row.limits.max_age_ms, -1);
    struct amqp_value v;
    assert_true(amqp_table_find(row.args, "kafka.flush.ms", &v) && slice_is(v.s, "1"));
    rig_assert_replays(rig);
    compact(rig);
    restart(&rig);
    assert_int_equal(first_row(rig, "s", 0).limits.max_age_ms, -1);
    assert_string_equal(list(rig, "s", NULL, 0, 0, 0), "s:2");
    end(rig);
}

/* The power goes after each record, in compactions too: a stream has what the records that are there say. */
static void each_prefix_of_the_journal(uint64_t compact_every)
{
    struct rig *rig = begin_options(&(struct broker_options){.compact_every = compact_every});
    struct table t;
    size_t made, grown, changed, trimmed;
    assert_int_equal(create(rig, "s", 1, NO_ARGS), STREAM_DONE);
    made = rig->log->count;
    publish_keyed(rig, 0, 5);
    assert_int_equal(grow(rig, 3), STREAM_DONE);
    grown = (size_t)rig_nth(rig, EFF_ANSWER, 0)->lsn;
    publish_keyed(rig, 5, 10);
    amqp_put_str(&table(&t)->w, "x-max-age", slice_str("7D"));
    assert_int_equal(set(rig, writer_slice(&t.w), NULL), STREAM_DONE);
    changed = (size_t)rig_nth(rig, EFF_ANSWER, 0)->lsn;
    assert_int_equal(trim(rig, 0, 4), STREAM_DONE);
    trimmed = (size_t)rig_nth(rig, EFF_ANSWER, 0)->lsn;
    publish_keyed(rig, 15, 20);
    for (size_t n = rig->log->first > made ? rig->log->first : made; n <= rig->log->count; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        const char *why;
        struct rig *other = rig_try(copy, &rig->options, rig->wall, &why);
        struct queue *q = why ? NULL : queue_named(other, "s");
        if (q) { /* else the copy ends before the snapshot that it begins with does */
            assert_int_equal(q->stream->partition_count, n >= grown ? 3 : 1);
            assert_int_equal(q->rules->max_age_ms, n >= changed ? 7 * 86400000 : -1);
            if (n >= trimmed && q->stream->partitions[0]->end > 4)
                assert_int_equal(q->stream->partitions[0]->start, 4);
        }
        rig_free(other);
        rig_log_free(copy);
    }
    assert_true(compact_every || rig->log->first <= made);
    end(rig);
}

static void a_crash_after_each_record(void **state)
{
    (void)state;
    each_prefix_of_the_journal(0);
    each_prefix_of_the_journal(7);
    each_prefix_of_the_journal(25);
}

/* An id that was given out is not given again, though nothing of its queue is left in the journal. */
static void ids_are_given_once(void **state)
{
    (void)state;
    struct rig *rig = begin();
    assert_int_equal(create(rig, "s", 1, NO_ARGS), STREAM_DONE);
    uint64_t id = answer_of(rig)->number2;
    assert_int_equal(ask_stream(rig, CMD_STREAM_DELETE, "s", NO_ARGS, 0, 0), STREAM_DONE);
    compact(rig);
    restart(&rig);
    assert_int_equal(create(rig, "s", 1, NO_ARGS), STREAM_DONE);
    assert_true(answer_of(rig)->number2 > id);
    end(rig);
}

/* Changes of one stream: each is there as a whole, after a restart too, or not at all. */
static bool storm_of_changes(struct rig *rig)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-max-age", slice_str("7D"));
    struct slice args = writer_slice(&t.w);
    return begin_with(rig) && rig_ask_full(rig, CMD_STREAM_CREATE, 1, 0, "s", NULL, NULL, NO_ARGS, 0, 1) &&
           rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "q", NULL, NULL, NO_ARGS, ASK_DURABLE) &&
           ASK(QUEUE_BIND, "q", "amq.stream.s", "", 0) && rig_publish(rig, 1, 1, "", "s", "0", true) &&
           rig_ask_full(rig, CMD_STREAM_GROW, 1, 0, "s", NULL, NULL, NO_ARGS, 0, 3) &&
           rig_publish(rig, 1, 1, "", "s", "1", true) && rig_publish(rig, 1, 1, "", "s", "2", true) &&
           rig_ask(rig, CMD_STREAM_SET, 1, 0, "s", NULL, NULL, args, 0) &&
           rig_ask_full(rig, CMD_STREAM_TRIM, 1, 0, "s", NULL, NULL, NO_ARGS, 0, 1) &&
           rig_ask_full(rig, CMD_STREAM_GROW, 1, 0, "s", NULL, NULL, NO_ARGS, 0, 5);
}

static uint64_t state_of(struct rig *rig)
{
    struct queue *q = queue_named(rig, "s");
    struct amqp_value v;
    return !q ? 0
              : q->stream->partition_count | (amqp_table_find(q->args, "x-max-age", &v) ? 256 : 0) |
                    q->stream->partitions[0]->start << 16;
}

static void state_is(struct rig *rig, uint64_t before)
{
    if (before)
        assert_int_equal(state_of(rig), before);
}

static void changes_without_memory(void **state)
{
    (void)state;
    each_allocation_fails(storm_of_changes, state_of, state_is);
}

static bool storm(struct rig *rig)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-max-age", slice_str("7D"));
    return begin_with(rig) && rig_ask_full(rig, CMD_STREAM_CREATE, 1, 0, "s", NULL, NULL, writer_slice(&t.w), 0, 3) &&
           rig_ask_full(rig, CMD_STREAM_CREATE, 1, 0, "t", NULL, NULL, NO_ARGS, 0, 0) &&
           rig_ask(rig, CMD_STREAM_LIST, 1, 0, NULL, NULL, NULL, NO_ARGS, ASK_SIZES) &&
           rig_ask(rig, CMD_STREAM_LIST, 1, 0, "\1s", NULL, NULL, NO_ARGS, 0) &&
           rig_ask(rig, CMD_STREAM_DELETE, 1, 0, "s", NULL, NULL, NO_ARGS, 0);
}

/* How many are there after a restart, by what was told: made ones, less those of them that were deleted. */
static uint64_t streams_told(struct rig *rig)
{
    uint64_t told = 0, made[64];
    for (unsigned i = 0; i < rig->effect_count; i++) {
        const struct effect *e = &rig->effects[i];
        if (e->type != EFF_ANSWER || !e->answer || e->answer->fields.len || !e->answer->number2 || !e->lsn)
            continue;
        assert_int_equal(e->answer->number, STREAM_DONE);
        uint64_t at = 0;
        while (at < told && made[at] != e->answer->number2)
            at++;
        if (at == told)
            made[told++] = e->answer->number2;
        else
            made[at] = made[--told];
    }
    return told;
}

static void streams_as_told(struct rig *rig, uint64_t told)
{
    assert_int_equal(told, (queue_named(rig, "s") != NULL) + (queue_named(rig, "t") != NULL));
}

static void without_memory(void **state)
{
    (void)state;
    each_allocation_fails(storm, streams_told, streams_as_told);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(made_listed_and_deleted),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(many_in_pages),
        cmocka_unit_test(more_partitions),
        cmocka_unit_test(a_new_beginning),
        cmocka_unit_test(not_beyond_what_is_durable),
        cmocka_unit_test(ahead_of_the_file),
        cmocka_unit_test(other_arguments),
        cmocka_unit_test(a_crash_after_each_record),
        cmocka_unit_test(ids_are_given_once),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(changes_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
