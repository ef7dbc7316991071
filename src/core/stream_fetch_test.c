/* Fetches in the core: what is answered when, who is waked by what, and what becomes of a fetch whose stream, session or broker
 * goes. */
#include "core/broker_words_test.h"
#include "core/stream_int.h"

#include <errno.h>

enum {
#define ADMIN(name, operands) OP_##name,
#include "core/admin.def"
#undef ADMIN
};

static void declare_stream(struct rig *rig, const char *name, int64_t partitions)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_long(&t.w, "x-stream-partitions", partitions);
    declare(rig, name, writer_slice(&t.w));
    rig_clear(rig);
}

static struct queue *stream_named(struct rig *rig, const char *name)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(name));
}

static uint64_t id_of(struct rig *rig, const char *name)
{
    struct queue *q = stream_named(rig, name);
    return q ? q->id : 0;
}

static void put_numbers(struct rig *rig, const char *name, unsigned first, unsigned count)
{
    char text[16];
    for (unsigned i = first; i < first + count; i++) {
        snprintf(text, sizeof text, "%u", i);
        put(rig, name, text);
    }
    rig_clear(rig);
}

/* From the offset on, of partition 0. */
static struct fetch *fetch_of(struct rig *rig, const char *name, uint64_t offset)
{
    struct fetch *f = fetch_new(FETCH_RECORDS, 1);
    if (!f)
        return NULL;
    f->bytes_min = 1;
    f->bytes_max = 1 << 20;
    f->wait_ms = 500;
    f->rows[0].stream = id_of(rig, name);
    f->rows[0].offset = offset;
    f->rows[0].bytes_max = 1 << 20;
    return f;
}

static void send_by(struct rig *rig, uint32_t session, struct fetch *f)
{
    struct command *c = rig_command(rig, 0, CMD_FETCH, session, 0);
    c->fetch = f;
    c->origin = 88;
    rig_step(rig);
}

/* The answer, or NULL; what came before is forgotten. */
static struct fetch *send(struct rig *rig, struct fetch *f)
{
    rig_clear(rig);
    send_by(rig, 1, f);
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    assert_true(!e || (e->origin == 88 && e->fetch == f));
    return e ? e->fetch : NULL;
}

static struct fetch *answered(struct rig *rig)
{
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    return e ? e->fetch : NULL;
}

static const char *row_text(const struct fetch *f, unsigned row)
{
    assert_non_null(f);
    return rig_piece(&f->rows[row].piece);
}

static void what_is_there_comes_at_once(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 5);
    struct fetch *f = send(rig, fetch_of(rig, "s", 0));
    assert_string_equal(row_text(f, 0), "0 1 2 3 4 ");
    assert_int_equal(f->rows[0].result, FETCH_OK);
    assert_int_equal(f->rows[0].start, 0);
    assert_int_equal(f->rows[0].end, 5);
    assert_int_equal(f->rows[0].stable, 5);
    assert_string_equal(row_text(send(rig, fetch_of(rig, "s", 3)), 0), "3 4 ");
    struct fetch *little = fetch_of(rig, "s", 1);
    little->rows[0].bytes_max = 5;
    assert_string_equal(row_text(send(rig, little), 0), "1 2 ");
    assert_null(send(rig, fetch_of(rig, "s", 5)));   /* at the end it waits */
    assert_int_equal(rig->log->streams->fetches, 3); /* and nobody asked the store */
    restart(&rig);
    assert_string_equal(row_text(send(rig, fetch_of(rig, "s", 0)), 0), "0 1 2 3 4 ");
    end(rig);
}

static void a_parked_fetch_is_waked_by_a_record(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    assert_null(send(rig, fetch_of(rig, "s", 2)));
    put(rig, "s", "2");
    assert_string_equal(row_text(answered(rig), 0), "2 ");
    assert_int_equal(answered(rig)->rows[0].end, 3);
    assert_int_equal(rig->log->streams->fetches, 1);
    rig_pass(rig, 2000); /* its timer is gone */
    assert_int_equal(rig_count(rig, EFF_FETCHED), 1);
    end(rig);
}

static void time_ends_the_wait(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    assert_null(send(rig, fetch_of(rig, "s", 2)));
    rig_pass(rig, 490);
    assert_null(answered(rig));
    rig_pass(rig, 20);
    assert_string_equal(row_text(answered(rig), 0), "");
    assert_int_equal(answered(rig)->rows[0].result, FETCH_OK);
    assert_int_equal(answered(rig)->rows[0].end, 2);
    struct fetch *f = fetch_of(rig, "s", 2);
    f->wait_ms = 0;
    assert_non_null(send(rig, f));
    f = fetch_of(rig, "s", 2);
    f->bytes_min = 0;
    assert_non_null(send(rig, f));
    f = fetch_new(FETCH_RECORDS, 0);
    f->bytes_min = 1;
    assert_non_null(send(rig, f)); /* of nothing */
    assert_int_equal(rig->log->streams->fetches, 0);
    end(rig);
}

/* Who wants many bytes is not looked at for each record, and gets what there is when the time is over. */
static void few_bytes_wait_for_more(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 10, 2);
    struct fetch *f = fetch_of(rig, "s", 0);
    f->bytes_min = 9;
    assert_null(send(rig, f));
    assert_int_equal(rig->log->streams->fetches, 1);
    put(rig, "s", "12"); /* the files grow by more than what this rig's pieces have */
    assert_string_equal(row_text(answered(rig), 0), "10 11 12 ");
    f = fetch_of(rig, "s", 0);
    f->bytes_min = 3000;
    assert_null(send(rig, f));
    unsigned before = rig->log->streams->fetches;
    for (unsigned i = 0; i < 30; i++)
        put(rig, "s", "x");
    assert_true(rig->log->streams->fetches - before <= 3);
    assert_null(answered(rig));
    rig_pass(rig, 600);
    assert_int_equal(strlen(row_text(answered(rig), 0)), 9 + 60);
    f = fetch_of(rig, "s", 33); /* never more than it takes */
    f->bytes_min = 1 << 30;
    f->bytes_max = 2;
    assert_null(send(rig, f));
    put(rig, "s", "y");
    assert_string_equal(row_text(answered(rig), 0), "y ");
    end(rig);
}

static void only_what_is_durable(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    rig->hold = true;
    assert_true(rig_publish(rig, 1, 1, "", "s", "2", true));
    assert_int_equal(stream_named(rig, "s")->stream->partitions[0]->written, 3);
    struct fetch *f = send(rig, fetch_of(rig, "s", 0));
    assert_string_equal(row_text(f, 0), "0 1 ");
    assert_int_equal(f->rows[0].end, 2);
    assert_null(send(rig, fetch_of(rig, "s", 2)));
    assert_true(rig_publish(rig, 1, 1, "", "s", "3", true));
    assert_null(send(rig, fetch_of(rig, "s", 3))); /* behind what is durable is not out of range */
    rig->hold = false;
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_FETCHED), 2);
    assert_string_equal(row_text(rig_nth(rig, EFF_FETCHED, 0)->fetch, 0), "2 3 ");
    assert_string_equal(row_text(rig_nth(rig, EFF_FETCHED, 1)->fetch, 0), "3 ");
    end(rig);
}

/* What a start finds in the journal is durable, whatever its first tick appends: who was told of a record is shown it. */
static void what_was_there_before_a_start(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct rig_log *log = rig->log;
    wall_t wall = rig->wall;
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 3);
    rig_free(rig);
    rig = rig_new(log, NULL, wall);
    rig->hold = true;
    assert_true(rig_ask_full(rig, CMD_ADMIN, 2, 0, "v", "", NULL, (struct slice){0}, ASK_INTERNAL_ADMIN, OP_VHOST_PUT));
    assert_true(begin_with(rig));
    assert_true(rig->b->durable < rig->b->appended);
    struct fetch *f = fetch_new(FETCH_OFFSETS, 1);
    f->rows[0].stream = id_of(rig, "s");
    f->rows[0].at = FETCH_AT_END;
    assert_int_equal(send(rig, f)->rows[0].offset, 3);
    f = send(rig, fetch_of(rig, "s", 0));
    assert_string_equal(row_text(f, 0), "0 1 2 ");
    assert_int_equal(f->rows[0].end, 3);
    rig->hold = false;
    end(rig);
}

/* A chunk that goes to its file leaves the next one, which is not durable. */
static void durable_before_written(void **state)
{
    (void)state;
    static char body[1100000];
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    rig->log->streams->fail_writes = 1;
    put_numbers(rig, "s", 0, 2);
    rig->hold = true;
    memset(body, 'b', sizeof body - 1);
    assert_true(rig_publish(rig, 1, 1, "", "s", body, true));
    rig_pass(rig, 3000);
    assert_int_equal(stream_named(rig, "s")->stream->partitions[0]->written, 3);
    struct fetch *f = send(rig, fetch_of(rig, "s", 0));
    assert_string_equal(row_text(f, 0), "0 1 ");
    assert_int_equal(f->rows[0].end, 2);
    rig->hold = false;
    end(rig);
}

/* Nobody is on the list of the partition then. */
static void more_comes_while_the_store_is_asked(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    rig->hold = true;
    assert_true(rig_publish(rig, 1, 1, "", "s", "2", true));
    rig_clear(rig);
    struct fetch *f = fetch_of(rig, "s", 0);
    f->bytes_min = 6;
    rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = f;
    ring_publish(&broker_port(rig->b, 0)->commands);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    assert_int_equal(rig->b->streams.fetch_jobs, 1);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->log->count);
    rig->hold = false;
    rig_step(rig);
    assert_string_equal(row_text(answered(rig), 0), "0 1 2 ");
    end(rig);
}

/* The files are behind: what is durable is the end all the same. */
static void only_what_is_written(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    rig->log->streams->fail_writes = 2;
    put_numbers(rig, "s", 2, 2);
    struct fetch *f = send(rig, fetch_of(rig, "s", 0));
    assert_string_equal(row_text(f, 0), "0 1 ");
    assert_int_equal(f->rows[0].end, 4);
    assert_null(send(rig, fetch_of(rig, "s", 2)));
    f = fetch_of(rig, "s", 4);
    f->wait_ms = 5000;
    send_by(rig, 1, f);
    rig_pass(rig, 3000);
    assert_string_equal(row_text(answered(rig), 0), ""); /* its 500 ms */
    assert_string_equal(row_text(send(rig, fetch_of(rig, "s", 2)), 0), "2 3 ");
    end(rig);
}

static void several_rows(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 3);
    declare_stream(rig, "t", 1);
    put_numbers(rig, "s", 0, 9); /* in turn */
    put_numbers(rig, "t", 100, 2);
    struct fetch *f = fetch_new(FETCH_RECORDS, 5);
    f->bytes_min = 1;
    f->bytes_max = 9;
    f->wait_ms = 100;
    for (unsigned i = 0; i < 5; i++) {
        f->rows[i].stream = id_of(rig, i < 3 ? "s" : "t");
        f->rows[i].partition = i < 3 ? i : 0;
        f->rows[i].bytes_max = i == 1 ? 2 : 1000;
    }
    f->rows[0].offset = 3;
    f = send(rig, f);
    assert_string_equal(row_text(f, 0), "");
    assert_string_equal(row_text(f, 1), "1 ");     /* its own limit */
    assert_string_equal(row_text(f, 2), "2 5 8 "); /* what is left of all */
    assert_string_equal(row_text(f, 3), "");
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(f->rows[i].result, FETCH_OK);
    /* the first batch comes though it is larger than everything */
    f = fetch_of(rig, "t", 0);
    f->bytes_max = f->rows[0].bytes_max = 0;
    assert_string_equal(row_text(send(rig, f), 0), "100 ");
    /* one parked on all three is waked by any */
    f = fetch_new(FETCH_RECORDS, 4);
    f->bytes_min = 1;
    f->bytes_max = 1000;
    f->wait_ms = 5000;
    for (unsigned i = 0; i < 4; i++) {
        f->rows[i].stream = id_of(rig, "s");
        f->rows[i].partition = i % 3; /* twice the first */
        f->rows[i].bytes_max = 1000;
        f->rows[i].offset = 3;
    }
    assert_null(send(rig, f));
    put(rig, "s", "9");
    f = answered(rig);
    assert_string_equal(row_text(f, 0), "9 ");
    assert_string_equal(row_text(f, 1), "");
    assert_string_equal(row_text(f, 3), "9 ");
    end(rig);
}

static enum fetch_result result_of(struct rig *rig, struct fetch *f)
{
    f = send(rig, f);
    assert_non_null(f);
    assert_null(f->rows[0].piece.file);
    return (enum fetch_result)f->rows[0].result;
}

/* An error is answered at once, and the other rows with it. */
static void refusals(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 2);
    declare(rig, "q", (struct slice){0});
    put_numbers(rig, "s", 0, 4);
    assert_int_equal(result_of(rig, fetch_of(rig, "none", 0)), FETCH_UNKNOWN);
    assert_int_equal(result_of(rig, fetch_of(rig, "q", 0)), FETCH_UNKNOWN);
    struct fetch *f = fetch_of(rig, "s", 0);
    f->rows[0].partition = 2;
    assert_int_equal(result_of(rig, f), FETCH_UNKNOWN);
    f = fetch_of(rig, "s", 0);
    f->rows[0].partition = UINT32_MAX;
    assert_int_equal(result_of(rig, f), FETCH_UNKNOWN);
    assert_int_equal(result_of(rig, fetch_of(rig, "s", 3)), FETCH_OUT_OF_RANGE);
    assert_int_equal(answered(rig)->rows[0].start, 0);
    assert_int_equal(answered(rig)->rows[0].end, 2);
    assert_int_equal(result_of(rig, fetch_of(rig, "s", UINT64_MAX)), FETCH_OUT_OF_RANGE);
    f = fetch_of(rig, "s", 0);
    f->rows[0].epoch = 1;
    assert_int_equal(result_of(rig, f), FETCH_NEW_EPOCH);
    f = fetch_of(rig, "s", 0);
    f->rows[0].epoch = -2;
    assert_int_equal(result_of(rig, f), FETCH_OLD_EPOCH);
    f = fetch_of(rig, "s", 2);
    f->rows[0].epoch = 0;
    assert_null(send(rig, f));
    f = fetch_new(FETCH_RECORDS, 2);
    f->bytes_min = f->bytes_max = 1000;
    f->wait_ms = 1000;
    f->rows[1].stream = id_of(rig, "s");
    f->rows[1].bytes_max = 1000;
    assert_int_equal(result_of(rig, f), FETCH_UNKNOWN);
    assert_string_equal(row_text(answered(rig), 1), "0 2 ");
    char why[64];
    struct user *guest = user_find(rig->b, slice_str("guest"));
    struct slice all = slice_str(".*"), none = {0};
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    assert_true(permission_put(rig->b, guest, vhost, all, all, none, why, sizeof why));
    assert_int_equal(result_of(rig, fetch_of(rig, "s", 0)), FETCH_REFUSED);
    assert_int_equal(answered(rig)->rows[0].end, FETCH_NOWHERE); /* nothing is told of it */
    assert_true(permission_put(rig->b, guest, vhost, all, all, all, why, sizeof why));
    assert_true(user_put(rig->b, slice_str("u"), slice_str("v"), none, true));
    struct user *other = user_find(rig->b, slice_str("u"));
    assert_true(permission_put(rig->b, other, vhost, all, all, none, why, sizeof why));
    assert_true(rig_ask(rig, CMD_SESSION_OPEN, 2, 0, "1.2.3.4:5", "Kafka", NULL, none, 0));
    assert_true(rig_ask(rig, CMD_LOGIN, 2, 0, "u", "w", "PLAIN", none, 0));
    for (unsigned round = 0; round < 2; round++) { /* before it has entered, and behind another's back */
        assert_string_equal(row_text(send(rig, fetch_of(rig, "s", 0)), 0), "0 2 ");
        rig_clear(rig);
        send_by(rig, 2, fetch_of(rig, "s", 0));
        assert_int_equal(answered(rig)->rows[0].result, FETCH_REFUSED);
        assert_true(rig_ask(rig, CMD_ENTER, 2, 0, "/", NULL, NULL, none, 0));
    }
    assert_string_equal(row_text(send(rig, fetch_of(rig, "s", 0)), 0), "0 2 ");
    rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
    user_delete(rig->b, other);
    rig->log->streams->read_err = -EILSEQ;
    assert_int_equal(result_of(rig, fetch_of(rig, "s", 0)), FETCH_DAMAGED);
    rig->log->streams->read_err = -EMFILE;
    assert_int_equal(result_of(rig, fetch_of(rig, "s", 0)), FETCH_TROUBLE);
    rig->log->streams->read_err = 0;
    assert_string_equal(row_text(send(rig, fetch_of(rig, "s", 0)), 0), "0 2 ");
    end(rig);
}

static void a_stream_that_goes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    declare_stream(rig, "t", 1);
    put_numbers(rig, "s", 0, 2);
    struct fetch *f = fetch_new(FETCH_RECORDS, 3);
    f->bytes_min = f->bytes_max = 1000;
    f->wait_ms = 5000;
    for (unsigned i = 0; i < 3; i++) {
        f->rows[i].stream = id_of(rig, i == 1 ? "t" : "s");
        f->rows[i].offset = i == 1 ? 0 : 2;
    }
    assert_null(send(rig, f));
    ASK(QUEUE_DELETE, "s", NULL, NULL, 0);
    f = answered(rig);
    assert_non_null(f);
    assert_int_equal(f->rows[0].result, FETCH_UNKNOWN);
    assert_int_equal(f->rows[1].result, FETCH_OK);
    assert_int_equal(f->rows[2].result, FETCH_UNKNOWN);
    /* while the store has the block */
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    rig_clear(rig);
    struct command *c = rig_command(rig, 0, CMD_FETCH, 1, 0);
    c->fetch = fetch_of(rig, "s", 0);
    c->fetch->bytes_min = 1000;
    c->fetch->wait_ms = 5000;
    c = rig_command(rig, 0, CMD_QUEUE_DELETE, 1, 1);
    c->ask = ask_new(slice_str("s"), (struct slice){0}, (struct slice){0}, (struct slice){0});
    rig_step(rig);
    f = answered(rig);
    assert_non_null(f);
    assert_int_equal(f->rows[0].result, FETCH_UNKNOWN);
    end(rig);
}

/* Retention may pass who waits for more bytes. */
static void what_is_gone_is_out_of_range(void **state)
{
    (void)state;
    struct rig *rig = begin();
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    amqp_put_long(&t.w, "x-max-length-bytes", 3000000);
    amqp_put_long(&t.w, "x-stream-max-segment-size-bytes", 65536);
    declare(rig, "s", writer_slice(&t.w));
    static char body[60000];
    memset(body, 'b', sizeof body - 1);
    for (unsigned i = 0; i < 100; i++)
        put(rig, "s", body);
    struct partition *p = stream_named(rig, "s")->stream->partitions[0];
    assert_true(p->start > 0);
    assert_int_equal(result_of(rig, fetch_of(rig, "s", p->start - 1)), FETCH_OUT_OF_RANGE);
    assert_int_equal(answered(rig)->rows[0].start, p->start);
    end(rig);
}

static void open_another(struct rig *rig)
{
    assert_true(rig_open(rig, 2));
    rig_clear(rig);
}

/* Parked, waiting for its turn, with the store: nothing comes any more, and nothing is left. */
static void a_session_that_goes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    for (unsigned round = 0; round < 3; round++) {
        open_another(rig);
        for (unsigned i = 0; i < 100; i++) { /* more than there are jobs */
            struct command *c = rig_command(rig, 0, CMD_FETCH, 2, 0);
            c->fetch = fetch_of(rig, "s", round == 0 ? 2 : i % 3);
            if (round == 1)
                rig_step(rig);
        }
        if (round != 2)
            rig_step(rig);
        rig_clear(rig);
        rig_plain(rig, CMD_SESSION_CLOSE, 2, 0, 0, 0);
        assert_int_equal(rig_count(rig, EFF_FETCHED), 0);
        put_numbers(rig, "s", 2, 1);
        rig_pass(rig, 1000);
        assert_int_equal(rig_count(rig, EFF_FETCHED), 0);
        assert_true(list_empty(&stream_named(rig, "s")->stream->partitions[0]->fetches));
        assert_int_equal(rig->b->streams.fetch_jobs, 0);
    }
    open_another(rig);
    send_by(rig, 2, fetch_of(rig, "s", 5)); /* and the broker, with all of them */
    send_by(rig, 1, fetch_of(rig, "s", 5));
    struct rig_log *log = rig->log;
    rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = fetch_of(rig, "s", 0);
    ring_publish(&broker_port(rig->b, 0)->commands);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = fetch_of(rig, "s", 0);
    ring_publish(&broker_port(rig->b, 0)->commands);
    rig_free(rig);
    rig_log_free(log);
}

static void pipelined(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 3);
    rig_clear(rig);
    for (unsigned i = 0; i < 200; i++)
        rig_command(rig, 0, CMD_FETCH, 1, 0)->fetch = fetch_of(rig, "s", i % 3);
    ring_publish(&broker_port(rig->b, 0)->commands);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    assert_int_equal(rig->b->streams.fetch_jobs, 64); /* the rest of the jobs is for others */
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_FETCHED), 200);
    end(rig);
}

/* ---- sessions ---- */

static struct fetch *session_of(enum fetch_session_op op, uint32_t rows)
{
    struct fetch *f = fetch_new(FETCH_RECORDS, rows);
    if (!f)
        return NULL;
    f->session_op = (uint8_t)op;
    f->bytes_min = 1;
    f->bytes_max = 1 << 20;
    f->wait_ms = 500;
    for (uint32_t i = 0; i < rows; i++) {
        f->rows[i].slot = i;
        f->rows[i].bytes_max = 1 << 20;
    }
    return f;
}

/* A session of the partitions 0 to n - 1, each in the slot of its number, and all of them were told. */
static void open_session(struct rig *rig, uint32_t n)
{
    struct fetch *f = session_of(FETCH_OPEN, n);
    for (uint32_t i = 0; i < n; i++) {
        f->rows[i].stream = id_of(rig, "s");
        f->rows[i].partition = i;
    }
    f->wait_ms = 0;
    f = send(rig, f);
    assert_non_null(f);
    assert_true(f->session_id > 0);
    assert_int_equal(f->count, n);
}

/* The next request, which asks for nothing anew; NULL: it is parked. */
static const struct fetch *next(struct rig *rig, bool waits)
{
    struct fetch *f = session_of(FETCH_NEXT, 0);
    f->wait_ms = waits ? 500 : 0;
    rig_clear(rig);
    send_by(rig, 1, f);
    return answered(rig);
}

static struct partition *part(struct rig *rig, unsigned n)
{
    return stream_named(rig, "s")->stream->partitions[n];
}

static bool hears(struct rig *rig, unsigned n)
{
    return !list_empty(&part(rig, n)->watches);
}

/* One record in the partition that its key has. */
static unsigned put_somewhere(struct rig *rig, const char *text)
{
    uint64_t before[64];
    struct stream *s = stream_named(rig, "s")->stream;
    for (unsigned i = 0; i < s->partition_count; i++)
        before[i] = s->partitions[i]->end;
    put(rig, "s", text);
    for (unsigned i = 0; i < s->partition_count; i++)
        if (s->partitions[i]->end > before[i])
            return i;
    assert_true(false);
    return 0;
}

/* Of fifty partitions only the one with a record is looked at and told of, once. */
static void a_session_tells_news(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 50);
    open_session(rig, 50);
    assert_null(next(rig, true));
    for (unsigned i = 0; i < 50; i++)
        assert_true(hears(rig, i));
    rig_clear(rig);
    unsigned where = put_somewhere(rig, "x");
    const struct fetch *f = answered(rig);
    assert_string_equal(row_text(f, 0), "x ");
    assert_int_equal(f->count, 1);
    assert_int_equal(f->rows[0].slot, where);
    assert_int_equal(f->rows[0].end, 1);
    assert_string_equal(row_text(next(rig, true), 0), "x "); /* it was not asked for differently */
    struct fetch *ask = session_of(FETCH_NEXT, 1);
    ask->rows[0] = (struct fetch_row){
        .slot = where, .stream = id_of(rig, "s"), .partition = where, .offset = 1, .bytes_max = 100, .epoch = -1};
    rig_clear(rig);
    send_by(rig, 1, ask);
    assert_null(answered(rig));
    rig_pass(rig, 510);
    assert_int_equal(answered(rig)->count, 0);
    assert_true(list_empty(&part(rig, where)->fetch_link));
    end(rig);
}

/* Many bytes are waited for, in however many partitions; the start of one is news, and its end alone. */
static void a_session_waits_for_more(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 4);
    open_session(rig, 4);
    struct fetch *f = session_of(FETCH_NEXT, 0);
    f->bytes_min = 300;
    rig_clear(rig);
    send_by(rig, 1, f);
    unsigned records = 0;
    for (; records < 100 && !answered(rig); records++)
        put(rig, "s", "some text");
    const struct fetch *said = answered(rig);
    assert_non_null(said);
    assert_int_equal(records, 30); /* the rig's files have ten bytes for each */
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < said->count; i++)
        bytes += said->rows[i].piece.len;
    assert_true(bytes >= 300);
    struct partition *p = part(rig, said->rows[0].slot);
    struct fetch *ask = session_of(FETCH_NEXT, 4);
    for (unsigned i = 0; i < 4; i++) {
        ask->rows[i].stream = id_of(rig, "s");
        ask->rows[i].partition = i;
        ask->rows[i].offset = part(rig, i)->end;
    }
    ask->wait_ms = 0;
    rig_clear(rig);
    send_by(rig, 1, ask);
    assert_int_equal(answered(rig)->count, 0);
    uint64_t offset = 1;
    lsn_t lsn;
    assert_int_equal(stream_trim(rig->b, p, &offset, &lsn), STREAM_DONE);
    said = next(rig, false);
    assert_int_equal(said->count, 1);
    assert_int_equal(said->rows[0].start, 1);
    assert_int_equal(said->rows[0].piece.len, 0);
    assert_int_equal(next(rig, false)->count, 0);
    end(rig);
}

/* Its stream goes: who waits is told, and each time after that, until the row is forgotten. */
static void a_stream_of_a_session_goes(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 2);
    open_session(rig, 2);
    assert_null(next(rig, true));
    rig_clear(rig);
    queue_delete(rig->b, stream_named(rig, "s"));
    rig_step(rig);
    assert_int_equal(answered(rig)->count, 1); /* one goes after the other */
    assert_int_equal(answered(rig)->rows[0].result, FETCH_UNKNOWN);
    assert_int_equal(next(rig, true)->count, 2);
    declare_stream(rig, "s", 2);
    struct fetch *f = session_of(FETCH_NEXT, 2);
    f->rows[0].forget = true;
    f->rows[1].stream = id_of(rig, "s");
    rig_clear(rig);
    send_by(rig, 1, f);
    assert_null(answered(rig));
    rig_clear(rig);
    put_numbers(rig, "s", 0, 5); /* not all of them in one partition */
    end(rig);
}

/* A session goes with its peer, with what replaces it, and when it is closed; there are only so many of them. */
static void sessions_end(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 2);
    open_session(rig, 2);
    open_session(rig, 1);
    assert_int_equal(rig->b->streams.fetch_sessions, 1);
    assert_null(next(rig, true));
    assert_false(hears(rig, 1));
    rig_pass(rig, 510);
    struct fetch *f = session_of(FETCH_CLOSE, 1);
    f->rows[0].stream = id_of(rig, "s");
    f->wait_ms = 0;
    f = send(rig, f);
    assert_int_equal(f->count, 1);
    assert_int_equal(f->session_id, 0);
    assert_int_equal(rig->b->streams.fetch_sessions, 0);
    assert_int_equal(next(rig, true)->session_id, 0); /* there is none */
    rig->b->streams.fetch_sessions = 1000;
    f = session_of(FETCH_OPEN, 1);
    f->rows[0].stream = id_of(rig, "s");
    f->wait_ms = 0;
    f = send(rig, f);
    assert_int_equal(f->count, 1);
    assert_int_equal(f->session_id, 0);
    rig->b->streams.fetch_sessions = 0;
    open_session(rig, 2);
    assert_null(next(rig, true));
    rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
    assert_int_equal(rig->b->streams.fetch_sessions, 0);
    assert_false(hears(rig, 0));
    end(rig);
}

/* One of n partitions for another peer. 0: it got none. */
static uint32_t open_for(struct rig *rig, uint32_t peer, uint32_t n, uint64_t bytes)
{
    struct fetch *f = session_of(FETCH_OPEN, n);
    for (uint32_t i = 0; i < n; i++) {
        f->rows[i].stream = id_of(rig, "s");
        f->rows[i].partition = i;
    }
    f->wait_ms = 0;
    f->session_bytes = bytes;
    rig_clear(rig);
    send_by(rig, peer, f);
    assert_non_null(answered(rig));
    return answered(rig)->session_id;
}

/* Of the next request of that peer; 0: its session is lost. */
static uint32_t goes_on(struct rig *rig, uint32_t peer, uint64_t bytes)
{
    struct fetch *f = session_of(FETCH_NEXT, 0);
    f->wait_ms = 0;
    f->session_bytes = bytes;
    rig_clear(rig);
    send_by(rig, peer, f);
    assert_non_null(answered(rig));
    return answered(rig)->session_id;
}

/* Who needs room takes it from who was silent for two minutes, or else from a smaller one that is older than that. */
static void sessions_make_room(void **state)
{
    (void)state;
    struct rig *rig = begin();
    uint32_t id[5] = {0};
    const uint64_t own = 100000;
    declare_stream(rig, "s", 4);
    for (uint32_t peer = 2; peer < 5; peer++)
        assert_true(rig_open(rig, peer));
    rig->b->options.fetch_sessions_bytes_max = 3 * own + own / 2;
    for (uint32_t peer = 1; peer < 4; peer++)
        assert_true((id[peer] = open_for(rig, peer, peer, own)) != 0);
    assert_int_equal(open_for(rig, 4, 4, own), 0); /* nobody is old */
    assert_int_equal(rig->b->streams.fetch_sessions, 3);
    rig->now += 70 * NS_PER_S;
    rig->wall += 70000;
    for (uint32_t peer = 1; peer < 4; peer++)
        assert_int_equal(goes_on(rig, peer, own), id[peer]);
    rig->now += 70 * NS_PER_S;
    rig->wall += 70000;
    assert_int_equal(open_for(rig, 4, 1, own), 0); /* none is smaller */
    assert_true(open_for(rig, 4, 3, own) != 0);    /* the smallest goes, and its client hears of it */
    assert_int_equal(rig->b->streams.fetch_sessions, 3);
    struct effect *e = rig_nth(rig, EFF_FETCH_SESSION_GONE, 0);
    assert_true(e && e->session == 1 && e->number == id[1]);
    assert_int_equal(goes_on(rig, 1, own), 0);
    rig->now += 70 * NS_PER_S;
    rig->wall += 70000;
    assert_int_equal(goes_on(rig, 2, own), id[2]);
    assert_true(open_for(rig, 1, 1, own) != 0); /* who is silent goes first, however large it is */
    assert_int_equal(goes_on(rig, 3, own), 0);
    assert_int_equal(goes_on(rig, 2, own), id[2]);
    assert_int_equal(goes_on(rig, 2, 4 * own),
                     0); /* that would be more than all may have, and those of 1 and 4 are young */
    assert_int_equal(rig->b->totals.fetch_sessions_evicted, 2);
    end(rig);
}

/* A parked one is answered at once, and says that there is no session. */
static void a_parked_session_makes_room(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 3);
    assert_true(rig_open(rig, 2));
    open_session(rig, 1);
    rig->now += 130 * NS_PER_S;
    rig->wall += 130000;
    assert_null(next(rig, true));
    struct fetch *f = session_of(FETCH_OPEN, 3);
    for (uint32_t i = 0; i < 3; i++) {
        f->rows[i].stream = id_of(rig, "s");
        f->rows[i].partition = i;
    }
    f->session_bytes = 10000;
    rig->b->options.fetch_sessions_bytes_max = rig->b->streams.fetch_session_bytes + f->session_bytes + 300;
    rig_clear(rig);
    send_by(rig, 2, f);
    struct effect *e = rig_nth(rig, EFF_FETCHED, 0);
    assert_true(e && e->session == 1 && e->fetch->session_id == 0);
    assert_null(rig_nth(rig, EFF_FETCH_SESSION_GONE, 0));
    assert_int_equal(rig->b->streams.fetch_sessions, 1);
    end(rig);
}

/* Somebody else looks at what has become durable in the same turn: who is parked is told all the same. */
static void two_look_at_once(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 1);
    assert_null(send(rig, fetch_of(rig, "s", 1)));
    rig->hold = true;
    put(rig, "s", "1");
    assert_null(answered(rig));
    rig->hold = false;
    rig->durable = rig->log->count;
    struct command *c = rig_command(rig, 0, CMD_FETCH, 1, 0);
    c->fetch = fetch_of(rig, "s", 0);
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_FETCHED), 2);
    end(rig);
}

/* ---- offsets and epochs ---- */

struct asked {
    enum fetch_at at;
    wall_t time;
    int64_t offset, found_at; /* -1: none */
};

static void offsets(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    wall_t t = rig->wall;
    struct asked empty[] = {
        {FETCH_AT_START, 0, 0, -1}, {FETCH_AT_END, 0, 0, -1}, {FETCH_AT_TIME, t, -1, -1}, {FETCH_AT_NEWEST, 0, -1, -1}};
    struct asked full[] = {{FETCH_AT_START, 0, 0, -1},
                           {FETCH_AT_END, 0, 4, -1},
                           {FETCH_AT_TIME, 0, 0, t},
                           {FETCH_AT_TIME, t + 1, 1, t + 1000},
                           {FETCH_AT_TIME, t + 3000, 3, t + 3000},
                           {FETCH_AT_TIME, t + 3001, -1, -1},
                           {FETCH_AT_NEWEST, 0, 3, t + 3000}};
    for (unsigned round = 0; round < 3; round++) {
        const struct asked *rows = round ? full : empty;
        uint32_t count = round ? ARRAY_LEN(full) : ARRAY_LEN(empty);
        struct fetch *f = fetch_new(FETCH_OFFSETS, count);
        for (uint32_t i = 0; i < count; i++) {
            f->rows[i].stream = id_of(rig, "s");
            f->rows[i].at = (uint8_t)rows[i].at;
            f->rows[i].time = rows[i].time;
        }
        f = send(rig, f);
        assert_non_null(f);
        for (uint32_t i = 0; i < count; i++) {
            assert_int_equal(f->rows[i].result, FETCH_OK);
            assert_true((int64_t)f->rows[i].offset == rows[i].offset);
            assert_true(f->rows[i].time == rows[i].found_at);
        }
        for (unsigned i = 0; i < 4 && !round; i++) {
            put_numbers(rig, "s", i, 1);
            rig->wall += 1000;
        }
        if (round == 1)
            restart(&rig);
    }
    struct fetch *f = fetch_new(FETCH_OFFSETS, 2);
    f->rows[0].stream = id_of(rig, "s");
    f->rows[0].at = f->rows[1].at = FETCH_AT_TIME;
    rig->log->streams->read_err = -EILSEQ;
    f = send(rig, f);
    assert_int_equal(f->rows[0].result, FETCH_DAMAGED);
    assert_int_equal(f->rows[1].result, FETCH_UNKNOWN);
    rig->log->streams->read_err = 0;
    end(rig);
}

/* What was durable when somebody asked is found, though the files are behind; but nobody waits for ever. */
static void a_time_in_what_is_not_written(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 1);
    for (unsigned fails = 1; fails < 3; fails++) {
        wall_t t = rig->wall += 1000;
        rig->log->streams->fail_writes = fails == 1 ? 1 : 3;
        put_numbers(rig, "s", fails, 1);
        struct fetch *f = fetch_new(FETCH_OFFSETS, 1);
        f->rows[0].stream = id_of(rig, "s");
        f->rows[0].at = FETCH_AT_END;
        assert_int_equal(send(rig, f)->rows[0].offset, fails + 1); /* which needs no file */
        f = fetch_new(FETCH_OFFSETS, 4);
        for (unsigned i = 0; i < 4; i++) {
            f->rows[i].stream = i == 3 ? 0 : id_of(rig, "s");
            f->rows[i].time = t;
            f->rows[i].at = i == 1 ? FETCH_AT_END : i == 2 ? FETCH_AT_NEWEST : FETCH_AT_TIME;
        }
        assert_null(send(rig, f)); /* the write is tried again in a second */
        rig_pass(rig, fails == 1 ? 1100 : 2100);
        assert_ptr_equal(answered(rig), f);
        assert_true((int64_t)f->rows[0].offset == (fails == 1 ? 1 : -1));
        assert_true(f->rows[0].time == (fails == 1 ? t : -1));
        assert_int_equal(f->rows[1].offset, fails + 1);
        assert_int_equal(f->rows[2].offset, 1); /* the newest of those that are there */
        assert_int_equal(f->rows[3].result, FETCH_UNKNOWN);
        rig_pass(rig, 5000);
    }
    end(rig);
}

static void epochs(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 4);
    static const struct {
        int32_t epoch, wanted, result, answer;
        int64_t end;
    } rows[] = {
        {-1, 0, FETCH_OK, 0, 4}, {0, 0, FETCH_OK, 0, 4}, {-1, 1, FETCH_OK, -1, -1}, {3, 0, FETCH_NEW_EPOCH, 0, 0}};
    struct fetch *f = fetch_new(FETCH_EPOCHS, ARRAY_LEN(rows));
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++) {
        f->rows[i].stream = id_of(rig, "s");
        f->rows[i].epoch = rows[i].epoch;
        f->rows[i].wanted = rows[i].wanted;
    }
    f = send(rig, f);
    for (uint32_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(f->rows[i].result, rows[i].result);
        if (rows[i].result == FETCH_OK) {
            assert_int_equal(f->rows[i].wanted, rows[i].answer);
            assert_true((int64_t)f->rows[i].offset == rows[i].end);
        }
    }
    end(rig);
}

/* ---- memory ---- */

static struct fetch *knowing(struct rig *rig, uint32_t partitions)
{
    struct fetch *f = fetch_of(rig, "s", 2);
    f->rows[0].known = partitions;
    return f;
}

/* Who says how many partitions it knows of is answered when there are more, nobody else. */
static void a_stream_that_gets_partitions(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    assert_null(send(rig, fetch_of(rig, "s", 2)));
    assert_null(send(rig, knowing(rig, 1)));
    assert_null(send(rig, knowing(rig, 3)));
    assert_true(rig_ask_full(rig, CMD_STREAM_GROW, 1, 0, "s", NULL, NULL, (struct slice){0}, 0, 3));
    assert_int_equal(rig_count(rig, EFF_FETCHED), 1);
    assert_int_equal(answered(rig)->rows[0].partitions, 3);
    assert_int_equal(answered(rig)->rows[0].result, FETCH_OK);
    assert_int_equal(answered(rig)->rows[0].known, 1);
    assert_int_equal(answered(rig)->rows[0].piece.len, 0);
    assert_int_equal(send(rig, knowing(rig, 2))->rows[0].partitions, 3); /* at once */
    assert_null(send(rig, knowing(rig, 3)));
    rig_clear(rig);
    while (stream_named(rig, "s")->stream->partitions[0]->end == 2)
        put(rig, "s", "x");
    assert_int_equal(rig_count(rig, EFF_FETCHED), 3); /* what waited for records */
    end(rig);
}

/* Also who would wait for more bytes: it is given what there is, and does not ask the store again and again. */
static void partitions_are_said_with_what_there_is(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    struct fetch *f = fetch_of(rig, "s", 0);
    f->rows[0].known = 1;
    f->bytes_min = 10000;
    assert_null(send(rig, f));
    assert_true(rig_ask_full(rig, CMD_STREAM_GROW, 1, 0, "s", NULL, NULL, (struct slice){0}, 0, 3));
    assert_int_equal(rig_count(rig, EFF_FETCHED), 1);
    assert_int_equal(answered(rig)->rows[0].partitions, 3);
    assert_string_equal(row_text(answered(rig), 0), "0 1 ");
    end(rig);
}

/* Also when its records are gone: compaction leaves nothing of them, or took them while they were looked for. */
static void partitions_where_no_records_are(void **state)
{
    (void)state;
    struct rig *rig = begin();
    declare_stream(rig, "s", 1);
    put_numbers(rig, "s", 0, 2);
    struct fetch *f = knowing(rig, 1);
    f->rows[0].offset = 0;
    rig->log->streams->blind = 100;
    assert_null(send(rig, f));
    assert_int_equal(rig->log->streams->fetches, 1);
    assert_true(rig_ask_full(rig, CMD_STREAM_GROW, 1, 0, "s", NULL, NULL, (struct slice){0}, 0, 3));
    assert_int_equal(rig_count(rig, EFF_FETCHED), 1);
    assert_int_equal(answered(rig)->rows[0].partitions, 3);
    assert_int_equal(rig->log->streams->fetches, 2); /* it was not asked again and again */
    rig->log->streams->blind = 0;
    end(rig);
}

static bool storm(struct rig *rig)
{
    struct table t;
    amqp_put_str(&table(&t)->w, "x-queue-type", slice_str("stream"));
    if (!begin_with(rig) || !rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "s", NULL, NULL, writer_slice(&t.w), ASK_DURABLE))
        return false;
    for (unsigned i = 0; i < 3; i++) {
        struct fetch *f = session_of(i ? FETCH_NEXT : FETCH_OPEN, 40);
        for (uint32_t n = 0; f && n < 40; n++)
            f->rows[n].stream = id_of(rig, "s");
        if (f)
            f->wait_ms = 0; /* the next one comes after its answer */
        if (f)
            send_by(rig, 1, f);
        if (!rig_publish(rig, 1, 1, "", "s", "x", true))
            return false;
    }
    for (unsigned i = 0; i < 4; i++) {
        struct fetch *f = fetch_of(rig, "s", i);
        if (f)
            send_by(rig, 1, f);
        if (!rig_publish(rig, 1, 1, "", "s", "x", true))
            return false;
    }
    rig_plain(rig, CMD_SESSION_CLOSE, 1, 0, 0, 0);
    return true;
}

static void without_memory(void **state)
{
    (void)state;
    each_allocation_fails(storm, NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_there_comes_at_once),
        cmocka_unit_test(a_parked_fetch_is_waked_by_a_record),
        cmocka_unit_test(time_ends_the_wait),
        cmocka_unit_test(few_bytes_wait_for_more),
        cmocka_unit_test(only_what_is_durable),
        cmocka_unit_test(what_was_there_before_a_start),
        cmocka_unit_test(durable_before_written),
        cmocka_unit_test(more_comes_while_the_store_is_asked),
        cmocka_unit_test(only_what_is_written),
        cmocka_unit_test(several_rows),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_stream_that_goes),
        cmocka_unit_test(what_is_gone_is_out_of_range),
        cmocka_unit_test(a_session_that_goes),
        cmocka_unit_test(pipelined),
        cmocka_unit_test(a_session_tells_news),
        cmocka_unit_test(a_session_waits_for_more),
        cmocka_unit_test(a_stream_of_a_session_goes),
        cmocka_unit_test(sessions_end),
        cmocka_unit_test(sessions_make_room),
        cmocka_unit_test(a_parked_session_makes_room),
        cmocka_unit_test(two_look_at_once),
        cmocka_unit_test(offsets),
        cmocka_unit_test(a_time_in_what_is_not_written),
        cmocka_unit_test(epochs),
        cmocka_unit_test(a_stream_that_gets_partitions),
        cmocka_unit_test(partitions_are_said_with_what_there_is),
        cmocka_unit_test(partitions_where_no_records_are),
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
