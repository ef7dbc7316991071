/* Steps of queries: all or nothing, whatever is in them, whatever allocation fails, and wherever the journal ends. */
#include "core/query_words_test.h"

#define LARGE (300u * 1024) /* several make a record in pieces */

/* ---- one after the other ---- */

static void numbers_and_trails(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    declare(rig, "out", ARGS(0));
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    assert_int_equal(step_one(rig, id, 2, "no", "", "out", "no"), QUERY_STALE);
    assert_int_equal(step_one(rig, id, 1, "ab", "", "out", "1"), QUERY_DONE);
    assert_int_equal(step_one(rig, id, 1, "ab", "", "out", "1"), QUERY_STALE); /* told twice */
    assert_true(rig_nth(rig, EFF_QUERY_STEPPED, 0)->query_step->outputs[0].msg != NULL);
    assert_int_equal(step_one(rig, id, 2, "cd", "", "out", "2"), QUERY_DONE);
    assert_null(rig_nth(rig, EFF_QUERY_STEPPED, 0)->query_step->outputs[0].msg);
    assert_string_equal(trail_of(rig, id), "abcd");
    for (int again = 0; again < 2; again++) {
        assert_int_equal(step_one(rig, id, 2, "cd", "", "out", "2"), QUERY_STALE);
        assert_string_equal(trail_of(rig, id), "abcd");
        restart_sql(&rig);
        assert_int_equal(rig_ready(rig, "out"), 2);
    }
    struct query_step *step = step_of(rig, id, 3, "Z", 0);
    step->restart = true;
    assert_int_equal(step_now(rig, step), QUERY_DONE);
    assert_string_equal(trail_of(rig, id), "Z");
    restart_sql(&rig);
    assert_string_equal(trail_of(rig, id), "Z");
    assert_int_equal(step_one(rig, id, 4, "Y", "", "out", "4"), QUERY_DONE);
    compact(rig);
    restart_sql(&rig);
    assert_string_equal(trail_of(rig, id), "ZY");
    assert_int_equal(step_one(rig, id, 5, "", "", "out", "5"), QUERY_DONE); /* no trail */
    assert_int_equal(step_one(rig, 4711, 1, "", "", "out", "5"), QUERY_UNKNOWN);
    end_sql(rig);
}

static void limits(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    declare(rig, "out", ARGS(0));
    char *trail = calloc(1, SQL_TRAIL_MAX + 1);
    memset(trail, 't', SQL_TRAIL_MAX);
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    assert_int_equal(step_now(rig, step_of(rig, id, 1, trail, 0)), QUERY_DONE);
    assert_int_equal(step_one(rig, id, 2, "u", "", "out", "x"), QUERY_TOO_MANY);
    assert_int_equal(rig_nth(rig, EFF_QUERY_STEPPED, 0)->query_step->failed, 1); /* not for the output */
    struct query_step *step = step_of(rig, id, 2, trail, 0);
    step->restart = true;
    assert_int_equal(step_now(rig, step), QUERY_DONE);
    assert_null(query_step_new(id, 3, slice_of(trail, SQL_TRAIL_MAX + 1), 0));
    assert_null(query_step_new(id, 3, (struct slice){0}, QUERY_OUTPUTS_MAX + 1));
    free(trail);
    restart_sql(&rig);
    step = step_of(rig, id, 3, "", 2); /* bytes of several */
    step->restart = true;
    struct amqp_props props = {0};
    for (int i = 0; i < 2; i++)
        step->outputs[i].msg = row_with(rig, "", "out", "x", QUERY_STEP_BYTES_MAX / 2, &props);
    assert_int_equal(step_now(rig, step), QUERY_TOO_MANY);
    for (int over = 0; over < 2; over++) { /* one alone may have what a message may */
        step = step_of(rig, id, 3, "", 1);
        step->restart = true;
        step->outputs[0].msg = row_with(rig, "", "out", "x", (16u << 20) + (size_t)over, &props);
        assert_int_equal(step_now(rig, step), over ? QUERY_TOO_MANY : QUERY_DONE);
        id = over ? id : (uint64_t)put_statement(rig, "p", "x");
        if (!over)
            assert_int_equal(step_now(rig, step_of(rig, id, 1, "", 0)), QUERY_DONE);
        if (!over)
            assert_int_equal(step_now(rig, step_of(rig, id, 2, "", 0)), QUERY_DONE);
    }
    restart_sql(&rig);
    assert_int_equal(rig_ready(rig, "out"), 1);
    end_sql(rig);
}

/* ---- everything in one step ---- */

static void bind(struct rig *rig, const char *queue, const char *exchange, const char *key)
{
    assert_true(ASK(QUEUE_BIND, queue, exchange, key, 0));
    assert_string_equal(rig_error(rig), "");
}

static void furnish(struct rig *rig)
{
    struct table t;
    declare(rig, "a", ARGS(0));
    declare(rig, "b", ARGS(0));
    declare(rig, "dead", ARGS(0));
    amqp_put_long(&table(&t)->w, "x-max-length", 1);
    amqp_put_str(&t.w, "x-dead-letter-exchange", (struct slice){0});
    amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("dead"));
    declare(rig, "short", writer_slice(&t.w));
    amqp_put_bool(&table(&t)->w, "x-message-deduplication", true);
    declare(rig, "once", writer_slice(&t.w));
    declare_stream(rig, "s", 2);
    amqp_put_str(&table(&t)->w, "x-delayed-type", slice_str("direct"));
    assert_true(
        rig_ask(rig, CMD_EXCHANGE_DECLARE, 1, 1, "late", "x-delayed-message", NULL, writer_slice(&t.w), ASK_DURABLE));
    bind(rig, "a", "late", "a");
    bind(rig, "a", "amq.topic", "news.#");
    bind(rig, "b", "amq.topic", "news.de");
    bind(rig, "s", "amq.topic", "news.de");
    rig_clear(rig);
}

static struct msg *keyed(struct rig *rig, const char *key, const char *body)
{
    struct table t;
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2};
    amqp_put_str(&table(&t)->w, "x-deduplication-header", slice_str(key));
    props.headers = writer_slice(&t.w);
    return row_with(rig, "", "once", body, strlen(body), &props);
}

static struct msg *later(struct rig *rig, size_t len)
{
    struct table t;
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2};
    amqp_put_long(&table(&t)->w, "x-delay", 1000);
    props.headers = writer_slice(&t.w);
    return row_with(rig, "late", "a", "later", len, &props);
}

/* With another place to go to, which nobody shall see. */
static struct msg *secretly(struct rig *rig, const char *exchange, const char *key, const char *bcc)
{
    struct table t;
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2};
    amqp_put_str(&table(&t)->w, "seen", slice_str("yes"));
    size_t mark = amqp_open(&t.w, "BCC", 'A');
    amqp_put_element_str(&t.w, slice_str(bcc));
    amqp_close(&t.w, mark);
    props.headers = writer_slice(&t.w);
    return row_with(rig, exchange, key, "secret", 6, &props);
}

#define EVERYTHING 10u

/* The trail's last byte says that it is there. */
static struct query_step *everything(struct rig *rig, uint64_t id, uint64_t number, size_t len)
{
    struct query_step *step = step_of(rig, id, number, "t", EVERYTHING);
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE, .delivery_mode = 2};
    static const char *const two[] = {"s0", "s1"}, *const one[] = {"s2"};
    struct query_output outputs[EVERYTHING] = {
        {.msg = row_with(rig, "", "a", "1", len, &props)},
        {.msg = row_with(rig, "amq.topic", "news.de", "2", len, &props)}, /* two queues and a stream */
        {.queue = queue_id(rig, "b"), .msg = row_with(rig, "", "ignored", "3", len, &props)},
        {.queue = queue_id(rig, "s"), .partition = 1, .msg = batch(rig, two, 2)},
        {.msg = keyed(rig, "k", "4")},
        {.msg = keyed(rig, "k", "twice")},
        {.queue = queue_id(rig, "s"), .partition = 1, .msg = batch(rig, one, 1)},
        {.msg = row(rig, "", "short", "5")},
        {.msg = later(rig, 10)},
        {.msg = secretly(rig, "amq.topic", "nobody", "nobody-else")},
    };
    memcpy(step->outputs, outputs, sizeof outputs);
    return step;
}

static uint64_t end_of(struct rig *rig, const char *stream, unsigned partition)
{
    return queue_find(vhost_find(rig->b, slice_str("/")), slice_str(stream))->stream->partitions[partition]->end;
}

/* Whether all of it is there after so many steps; less, or half of it, is wrong. */
static void assert_whole(struct rig *rig, uint64_t id, uint64_t steps, const char *when)
{
    struct queue *delays = delay_queue(vhost_find(rig->b, slice_str("/")));
    const struct sql_object *o = sql_object_find(rig->b, id);
    uint64_t in_short = steps ? 1 : 0, dead = steps ? steps - 1 : 0;
    const struct {
        const char *what;
        uint64_t is, should;
    } parts[] = {
        {"a", rig_ready(rig, "a"), 2 * steps},
        {"b", rig_ready(rig, "b"), 2 * steps},
        {"once", rig_ready(rig, "once"), steps > 0},
        {"short and dead", rig_ready(rig, "short") + rig_ready(rig, "dead"), in_short + dead},
        {"s/0 and s/1", end_of(rig, "s", 0) + end_of(rig, "s", 1), 4 * steps},
        {"delays", delays ? delays->busy->ready_count : 0, steps},
        {"steps", o->step, steps},
        {"trail", o->trail.len, steps},
    };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (parts[i].is != parts[i].should)
            rig_fail("%s, %llu steps: %s is %llu\n", when, (unsigned long long)steps, parts[i].what,
                     (unsigned long long)parts[i].is);
}

static uint64_t steps_of(struct rig *rig, uint64_t id)
{
    const struct sql_object *o = sql_object_find(rig->b, id);
    return o ? o->step : UINT64_MAX;
}

/* Wherever the journal ends behind its first `from` records, a restart finds whole steps. */
static void assert_whole_wherever_it_ends(struct rig *rig, uint64_t id, size_t from)
{
    uint64_t last = 0;
    for (size_t n = from; n <= rig->log->count; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        struct rig *other = rig_new(copy, &rig->options, rig->wall);
        uint64_t steps = steps_of(other, id);
        assert_true(steps >= last);
        assert_whole(other, id, steps, "replayed");
        last = steps;
        rig_free(other);
        rig_log_free(copy);
    }
    assert_int_equal(last, steps_of(rig, id));
}

static void all_or_nothing(void **state)
{
    (void)state;
    for (size_t len = 20; len <= LARGE; len += LARGE - 20) {
        struct rig *rig = begin_sql();
        furnish(rig);
        uint64_t id = (uint64_t)put_statement(rig, "q", "x");
        size_t before = rig->log->count;
        for (uint64_t n = 1; n <= 3; n++) {
            size_t records = rig->log->count;
            assert_int_equal(step_now(rig, everything(rig, id, n, len)), QUERY_DONE);
            assert_true(len == 20 || rig->log->count > records + 1); /* pieces */
            assert_whole(rig, id, n, "stepped");
        }
        assert_whole_wherever_it_ends(rig, id, before);
        compact(rig);
        assert_int_equal(step_now(rig, everything(rig, id, 4, len)), QUERY_DONE);
        restart_sql(&rig);
        assert_whole(rig, id, 4, "restarted");
        end_sql(rig);
    }
}

/* What it wrote is seen when it is durable, by all who read. */
static void visible_when_durable(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    furnish(rig);
    consume(rig, "a", "c", 0);
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    rig->hold = true;
    assert_int_equal(step_now(rig, everything(rig, id, 1, 20)), QUERY_DONE);
    assert_string_equal(rig_delivered(rig), "");
    assert_true(rig_nth(rig, EFF_QUERY_STEPPED, 0)->lsn > rig->durable);
    rig->hold = false;
    rig_step(rig);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 2);
    rig_pass(rig, 1100);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 3);
    struct table t;
    amqp_put_str(&table(&t)->w, "x-stream-offset", slice_str("first"));
    rig_plain(rig, CMD_QOS, 1, 1, 100, 0);
    rig_clear(rig);
    assert_true(rig_ask(rig, CMD_CONSUME, 1, 1, "s", "d", NULL, writer_slice(&t.w), 0));
    assert_int_equal(rig_count(rig, EFF_DELIVER), 4);
    assert_non_null(strstr(rig_delivered(rig), "s0 s1 s2"));
    end_sql(rig);
}

/* ---- as publishes do it ---- */

/* Who gets a message does not see who else does, also when the step was refused before. */
static void without_bcc(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    struct table t;
    amqp_put_long(&table(&t)->w, "x-max-length", 1);
    amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
    declare(rig, "full", writer_slice(&t.w));
    declare(rig, "shown", ARGS(0));
    declare(rig, "hidden", ARGS(0));
    put(rig, "full", "m");
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    struct query_step *step = step_of(rig, id, 1, "t", 2);
    step->outputs[0].msg = secretly(rig, "", "shown", "hidden");
    step->outputs[1].msg = row(rig, "", "full", "m");
    assert_int_equal(step_now(rig, step), QUERY_FULL);
    step = rig_nth(rig, EFF_QUERY_STEPPED, 0)->query_step;
    rig_nth(rig, EFF_QUERY_STEPPED, 0)->query_step = NULL;
    assert_true(rig_ask(rig, CMD_QUEUE_PURGE, 1, 1, "full", NULL, NULL, (struct slice){0}, 0));
    assert_int_equal(step_now(rig, step), QUERY_DONE);
    static const char *const queues[] = {"shown", "hidden"};
    for (size_t i = 0; i < ARRAY_LEN(queues); i++) {
        struct amqp_value v;
        rig_clear(rig);
        ASK(GET, queues[i], NULL, NULL, ASK_NO_ACK);
        const struct effect *got = rig_nth(rig, EFF_GET_OK, 0);
        assert_non_null(got);
        assert_true(amqp_table_find(msg_headers(got->msg), "seen", &v));
        assert_false(amqp_table_find(msg_headers(got->msg), "BCC", &v));
        assert_int_equal(rig_ready(rig, queues[i]), 0);
    }
    end_sql(rig);
}

/* Nor when it comes later. */
static void without_bcc_when_due(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    furnish(rig);
    bind(rig, "b", "late", "b");
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    struct query_step *step = step_of(rig, id, 1, "t", 1);
    struct table t;
    struct amqp_props props = {.present = AMQP_DELIVERY_MODE | AMQP_HEADERS, .delivery_mode = 2};
    amqp_put_long(&table(&t)->w, "x-delay", 1000);
    size_t mark = amqp_open(&t.w, "BCC", 'A');
    amqp_put_element_str(&t.w, slice_str("b"));
    amqp_close(&t.w, mark);
    props.headers = writer_slice(&t.w);
    step->outputs[0].msg = row_with(rig, "late", "a", "later", 5, &props);
    assert_int_equal(step_now(rig, step), QUERY_DONE);
    restart_sql(&rig);
    rig_pass(rig, 1100);
    for (size_t i = 0; i < 2; i++) {
        struct amqp_value v;
        rig_clear(rig);
        ASK(GET, i ? "b" : "a", NULL, NULL, ASK_NO_ACK);
        assert_int_equal(rig_count(rig, EFF_GET_OK), 1);
        assert_false(amqp_table_find(msg_headers(rig_nth(rig, EFF_GET_OK, 0)->msg), "BCC", &v));
    }
    end_sql(rig);
}

/* To who waits for it, once, and not before the step is durable. */
static void replies(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    struct amqp_props props = {.present = AMQP_REPLY_TO, .reply_to = slice_str("amq.rabbitmq.reply-to")};
    char address[128];
    declare(rig, "rpc", ARGS(0));
    consume(rig, "amq.rabbitmq.reply-to", "r", ASK_NO_ACK);
    rig_publish_with(rig, 1, 1, "", "rpc", slice_str("ask"), &props, 0);
    ASK(GET, "rpc", NULL, NULL, ASK_NO_ACK);
    assert_true(amqp_props_parse(msg_props(rig_nth(rig, EFF_GET_OK, 0)->msg), &props));
    snprintf(address, sizeof address, "%.*s", SLICE_ARG(props.reply_to));
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    rig->hold = true;
    assert_int_equal(step_one(rig, id, 1, "t", "", address, "answer"), QUERY_DONE);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 1);
    assert_string_equal(rig_body(rig_nth(rig, EFF_DELIVER, 0)), "answer");
    assert_true(rig_nth(rig, EFF_DELIVER, 0)->lsn > rig->durable);
    assert_true(rig_nth(rig, EFF_DELIVER, 0)->lsn == rig_nth(rig, EFF_QUERY_STEPPED, 0)->lsn);
    rig->hold = false;
    assert_int_equal(step_one(rig, id, 1, "t", "", address, "answer"), QUERY_STALE);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 0);
    assert_int_equal(step_one(rig, id, 2, "t", "", "amq.rabbitmq.reply-to.nobody", "answer"), QUERY_DONE);
    assert_int_equal(rig_count(rig, EFF_DELIVER), 0);
    end_sql(rig);
}

/* ---- refused as a whole ---- */

static void nothing_when_one_has_nowhere_to_go(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    furnish(rig);
    uint64_t id = (uint64_t)put_statement(rig, "q", "x"), gone = queue_id(rig, "b");
    static const char *const one[] = {"x"};
    ASK(QUEUE_DELETE, "b", NULL, NULL, 0);
    assert_true(
        rig_ask(rig, CMD_EXCHANGE_DECLARE, 1, 1, "inside", "fanout", NULL, ARGS(0), ASK_DURABLE | ASK_INTERNAL));
    rig_clear(rig);
    const struct {
        struct query_output output;
        enum query_result result;
    } rows[] = {
        {{.queue = gone, .msg = row(rig, "", "", "x")}, QUERY_NO_TARGET},
        {{.msg = row(rig, "no such", "k", "x")}, QUERY_NO_TARGET},
        {{.msg = row(rig, "inside", "k", "x")}, QUERY_NO_RIGHT},
        {{.queue = queue_id(rig, "s"), .partition = 2, .msg = batch(rig, one, 1)}, QUERY_NO_TARGET},
        {{.queue = queue_id(rig, "s"), .msg = row(rig, "", "", "x")}, QUERY_NO_TARGET},
        {{.queue = queue_id(rig, "a"), .msg = batch(rig, one, 1)}, QUERY_NO_TARGET},
        {{.queue = 0, .msg = NULL}, QUERY_NO_TARGET},
    };
    size_t before = rig->log->count;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct query_step *step = step_of(rig, id, 1, "t", 3);
        step->outputs[0].msg = row(rig, "", "a", "1");
        step->outputs[1] = rows[i].output;
        step->outputs[2].msg = later(rig, 10);
        assert_int_equal(step_now(rig, step), rows[i].result);
        assert_int_equal(stepped(rig)->failed, 1);
    }
    assert_int_equal(rig_ready(rig, "a"), 0);
    assert_int_equal(rig->log->count, before);
    assert_int_equal(steps_of(rig, id), 0);
    end_sql(rig);
}

static void nothing_when_the_user_may_not(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    furnish(rig);
    char text[300];
    struct vhost *vhost = vhost_find(rig->b, slice_str("/"));
    struct slice every = slice_str(".*"), name = slice_str("eve");
    assert_true(user_put(rig->b, name, slice_str(""), slice_str(""), true));
    struct user *eve = user_find(rig->b, name);
    assert_true(log_object(rig->b, &eve->object) &&
                permission_put(rig->b, eve, vhost, every, slice_str("^(a$|amq.topic)"), every, text, sizeof text) &&
                topic_permission_put(rig->b, eve, vhost, slice_str("amq.topic"), slice_str("^news.en"), every, text,
                                     sizeof text));
    LIST_EACH(&eve->permissions, node, after)
    assert_true(log_object(rig->b, &CONTAINER_OF(node, struct permission, user_link)->object));
    assert_true(engine_enter(rig, 3, "eve", "/"));
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    struct amqp_props forged = {.present = AMQP_USER_ID, .user_id = slice_str("guest")};
    struct amqp_props own = {.present = AMQP_USER_ID, .user_id = name};
    const struct {
        struct query_output output;
        bool may;
    } rows[] = {
        {{.msg = row(rig, "", "a", "x")}, false}, /* the default exchange */
        {{.queue = queue_id(rig, "a"), .msg = row(rig, "", "", "x")}, true},
        {{.queue = queue_id(rig, "b"), .msg = row(rig, "", "", "x")}, false},
        {{.queue = queue_id(rig, "s"), .msg = batch(rig, (const char *const[]){"x"}, 1)}, false},
        {{.msg = row(rig, "amq.topic", "news.de", "x")}, false},
        {{.msg = row(rig, "amq.topic", "news.en", "x")}, true},
        {{.msg = row_with(rig, "amq.topic", "news.en", "x", 1, &forged)}, false},
        {{.msg = row_with(rig, "amq.topic", "news.en", "x", 1, &own)}, true},
    };
    uint64_t number = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct query_step *step = step_of(rig, id, number + 1, "t", 2);
        step->outputs[0].msg = row(rig, "amq.topic", "news.en", "1");
        step->outputs[1] = rows[i].output;
        assert_int_equal(step_as(rig, step, 3), rows[i].may ? QUERY_DONE : QUERY_NO_RIGHT);
        number += rows[i].may;
        assert_int_equal(stepped(rig)->failed, rows[i].may ? 0 : 1);
    }
    assert_int_equal(rig_ready(rig, "a"), 2 * number);
    end_sql(rig);
}

/* Of somebody else's exclusive queue. */
static void nothing_into_a_locked_queue(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    assert_true(rig_ask(rig, CMD_QUEUE_DECLARE, 1, 1, "mine", NULL, NULL, ARGS(0), ASK_EXCLUSIVE));
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    struct query_step *step = step_of(rig, id, 1, "t", 1);
    step->outputs[0] = (struct query_output){.queue = queue_id(rig, "mine"), .msg = row(rig, "", "", "x")};
    assert_int_equal(step_now(rig, step), QUERY_NO_RIGHT);
    end_sql(rig);
}

static struct query_step *rows_for(struct rig *rig, uint64_t id, uint64_t number, const char *queue, unsigned count)
{
    struct query_step *step = step_of(rig, id, number, "t", count + 1);
    step->outputs[0].msg = row(rig, "", "a", "1");
    for (unsigned i = 1; i <= count; i++)
        step->outputs[i].msg = row(rig, "", queue, "12345");
    return step;
}

/* Outputs to one queue are counted together; what consumers will take leaves room, as for a publish. */
static void nothing_into_a_full_queue(void **state)
{
    (void)state;
    for (int dlx = 0; dlx < 2; dlx++) {
        struct rig *rig = begin_sql();
        struct table t;
        declare(rig, "a", ARGS(0));
        amqp_put_long(&table(&t)->w, "x-max-length", 3);
        amqp_put_str(&t.w, "x-overflow", slice_str(dlx ? "reject-publish-dlx" : "reject-publish"));
        amqp_put_str(&t.w, "x-dead-letter-exchange", slice_str(""));
        amqp_put_str(&t.w, "x-dead-letter-routing-key", slice_str("a"));
        declare(rig, "full", writer_slice(&t.w));
        amqp_put_long(&table(&t)->w, "x-max-length-bytes", 11);
        amqp_put_str(&t.w, "x-overflow", slice_str("reject-publish"));
        declare(rig, "bytes", writer_slice(&t.w));
        rig_clear(rig);
        uint64_t id = (uint64_t)put_statement(rig, "q", "x");
        size_t before = rig->log->count;
        assert_int_equal(step_now(rig, rows_for(rig, id, 1, "full", 4)), QUERY_FULL);
        assert_int_equal(stepped(rig)->failed, 4);
        assert_int_equal(step_now(rig, rows_for(rig, id, 1, "bytes", 3)), QUERY_FULL);
        assert_int_equal(stepped(rig)->failed, 3);
        assert_int_equal(rig->log->count, before);
        assert_int_equal(rig_ready(rig, "a"), 0);
        assert_int_equal(step_now(rig, rows_for(rig, id, 1, "full", 2)), QUERY_DONE);
        assert_int_equal(step_now(rig, rows_for(rig, id, 2, "full", 2)), QUERY_FULL);
        assert_int_equal(stepped(rig)->failed, 2);
        assert_int_equal(step_now(rig, rows_for(rig, id, 2, "full", 1)), QUERY_DONE);
        assert_int_equal(step_now(rig, rows_for(rig, id, 3, "bytes", 2)), QUERY_DONE);
        assert_int_equal(rig_ready(rig, "full"), 3);
        assert_int_equal(rig_ready(rig, "bytes"), 2);
        assert_int_equal(rig_ready(rig, "a"), 3);
        rig_clear(rig);
        ASK(GET, "full", NULL, NULL, ASK_NO_ACK);
        struct query_step *step = rows_for(rig, id, 4, "full", 1);
        assert_int_equal(step_now(rig, step), QUERY_DONE);
        restart_sql(&rig);
        assert_int_equal(rig_ready(rig, "full"), 3);
        end_sql(rig);
    }
}

static void nothing_while_an_alarm_holds(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    declare(rig, "a", ARGS(0));
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    rig_alarm(rig, ALARM_DISK); /* a soft one asks for less; what comes all the same is taken */
    assert_int_equal(step_one(rig, id, 1, "t", "", "a", "1"), QUERY_DONE);
    assert_int_equal(rig_count(rig, EFF_BLOCKED), 1);
    assert_int_equal(rig_nth(rig, EFF_BLOCKED, 0)->session, ENGINE);
    rig_alarm(rig, ALARM_DISK | ALARM_DISK_HARD);
    assert_int_equal(step_one(rig, id, 2, "t", "", "a", "2"), QUERY_NO_ROOM);
    rig_alarm(rig, 0);
    assert_int_equal(rig_count(rig, EFF_UNBLOCKED), 1);
    assert_int_equal(step_one(rig, id, 2, "t", "", "a", "2"), QUERY_DONE);
    assert_int_equal(rig_ready(rig, "a"), 2);
    end_sql(rig);
}

/* Who stops the broker has waited for everything: nothing comes behind it. */
static void nothing_behind_a_drain(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    declare(rig, "a", ARGS(0));
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    rig_plain(rig, CMD_DRAIN, 7, 0, 0, 0);
    size_t before = rig->log->count;
    assert_int_equal(step_one(rig, id, 1, "t", "", "a", "1"), QUERY_NO_ROOM);
    assert_int_equal(rig->log->count, before);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
}

/* ---- what comes from a queue ---- */

static void engine_consumes(struct rig *rig, const char *queue)
{
    rig_command(rig, SQL_PORT, CMD_CHANNEL_OPEN, ENGINE, 1);
    rig_step(rig);
    struct command *c = rig_command(rig, SQL_PORT, CMD_QOS, ENGINE, 1);
    c->number = 4;
    rig_step(rig);
    c = rig_command(rig, SQL_PORT, CMD_CONSUME, ENGINE, 1);
    c->ask = ask_new(slice_str(queue), slice_str("t"), (struct slice){0}, (struct slice){0});
    rig_step(rig);
    assert_string_equal(rig_error(rig), "");
    rig_clear(rig);
}

/* Six messages wait in "in", of which the engine has four. */
static struct rig *begin_with_source(uint64_t *ret_query)
{
    struct rig *rig = begin_sql();
    declare(rig, "in", ARGS(0));
    declare(rig, "out", ARGS(0));
    *ret_query = (uint64_t)put_statement(rig, "q", "x");
    engine_consumes(rig, "in");
    for (char body[2] = "1"; *body <= '6'; ++*body)
        put(rig, "in", body);
    assert_string_equal(rig_delivered(rig), "1 2 3 4");
    return rig;
}

static struct query_step *used(struct rig *rig, uint64_t id, uint64_t number, const uint64_t *tags, uint32_t count)
{
    struct query_step *step = step_of(rig, id, number, "t", 1);
    step->outputs[0].msg = row(rig, "", "out", "sum");
    assert_true(query_step_acks(step, 1, tags, count));
    return step;
}

static uint64_t left_in(struct rig *rig)
{
    const struct queue *q = queue_find(vhost_find(rig->b, slice_str("/")), slice_str("in"));
    return q->busy->ready_count + q->busy->unacked_count;
}

static void acknowledged_with_the_step(void **state)
{
    (void)state;
    uint64_t id;
    struct rig *rig = begin_with_source(&id);
    size_t before = rig->log->count;
    assert_int_equal(step_now(rig, used(rig, id, 1, (const uint64_t[]){1, 3}, 2)), QUERY_DONE);
    assert_string_equal(rig_delivered(rig), "5 6"); /* there is room for more */
    assert_int_equal(left_in(rig), 4);
    for (size_t n = before; n <= rig->log->count; n++) {
        struct rig_log *copy = rig_log_copy(rig->log, n);
        struct rig *other = rig_new(copy, &rig->options, rig->wall);
        assert_int_equal(left_in(other), steps_of(other, id) ? 4 : 6);
        assert_int_equal(rig_ready(other, "out"), steps_of(other, id));
        rig_free(other);
        rig_log_free(copy);
    }
    assert_int_equal(step_now(rig, used(rig, id, 2, (const uint64_t[]){2, 4, 5, 6}, 4)), QUERY_DONE);
    restart_sql(&rig);
    assert_int_equal(left_in(rig), 0);
    assert_int_equal(rig_ready(rig, "out"), 2);
    end_sql(rig);
}

static void nothing_for_a_wrong_acknowledgement(void **state)
{
    (void)state;
    uint64_t id;
    struct rig *rig = begin_with_source(&id);
    size_t before = rig->log->count;
    const uint64_t unknown[] = {1, 9}, backwards[] = {2, 1}, twice[] = {1, 1}, good[] = {1, 2};
    assert_int_equal(step_now(rig, used(rig, id, 1, unknown, 2)), QUERY_NO_ACK);
    assert_int_equal(stepped(rig)->failed, 1);
    assert_int_equal(step_now(rig, used(rig, id, 1, backwards, 2)), QUERY_NO_ACK);
    assert_int_equal(step_now(rig, used(rig, id, 1, twice, 2)), QUERY_NO_ACK);
    struct query_step *step = used(rig, id, 1, good, 2);
    step->channel = 2; /* there is none */
    assert_int_equal(step_now(rig, step), QUERY_NO_ACK);
    step = used(rig, id, 1, good, 2);
    msg_unref(broker_heap(rig->b), step->outputs[0].msg);
    step->outputs[0].msg = row(rig, "no such", "", "x");
    assert_int_equal(step_now(rig, step), QUERY_NO_TARGET);
    assert_int_equal(left_in(rig), 6);
    assert_int_equal(rig->log->count, before);
    assert_int_equal(step_now(rig, used(rig, id, 1, good, 2)), QUERY_DONE);
    assert_int_equal(step_now(rig, used(rig, id, 2, good, 2)), QUERY_NO_ACK); /* they are acknowledged */
    step = step_of(rig, id, 2, "t", 0);
    assert_false(query_step_acks(step, 1, good, QUERY_ACKS_MAX + 1));
    query_step_free(broker_heap(rig->b), &step);
    assert_int_equal(left_in(rig), 4);
    end_sql(rig);
}

static uint64_t acks_starved(uint64_t n, bool for_ever)
{
    uint64_t id;
    struct rig *rig = begin_with_source(&id);
    step_send(rig, used(rig, id, 1, (const uint64_t[]){1, 3, 4}, 3), ENGINE);
    rig->hold = true;
    mem_fail_at(n, for_ever);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    uint64_t hit = mem_failures_hit();
    mem_fail_at(0, false);
    rig_take(rig, SQL_PORT);
    bool done = stepped(rig)->result == QUERY_DONE;
    assert_true(done || (stepped(rig)->result == QUERY_NO_ROOM && hit));
    assert_int_equal(left_in(rig), done ? 3 : 6);
    rig->hold = false;
    rig_step(rig);
    broker_check(rig->b);
    restart_sql(&rig);
    assert_int_equal(left_in(rig), done ? 3 : 6);
    assert_int_equal(rig_ready(rig, "out"), done);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
    return hit;
}

/* ---- without memory ---- */

static uint64_t step_starved(uint64_t n, bool for_ever, size_t len)
{
    struct rig *rig = begin_sql();
    furnish(rig);
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    struct query_step *step = everything(rig, id, 1, len);
    size_t before = rig->log->count;
    step_send(rig, step, ENGINE);
    mem_fail_at(n, for_ever);
    (void)broker_step(rig->b, rig->now, rig->wall, rig->durable);
    uint64_t hit = mem_failures_hit();
    mem_fail_at(0, false);
    rig_take(rig, SQL_PORT);
    bool done = stepped(rig)->result == QUERY_DONE;
    assert_true(done || stepped(rig)->result == QUERY_NO_ROOM);
    assert_true(done || hit);
    assert_whole(rig, id, done, "starved");
    for (uint32_t i = 0; i < EVERYTHING; i++)
        assert_true((stepped(rig)->outputs[i].msg == NULL) == done);
    if (!done) { /* as it is, once more */
        step = rig_nth(rig, EFF_QUERY_STEPPED, 0)->query_step;
        rig_nth(rig, EFF_QUERY_STEPPED, 0)->query_step = NULL;
        assert_int_equal(step_now(rig, step), QUERY_DONE);
    }
    rig_step(rig);
    broker_check(rig->b);
    assert_whole(rig, id, 1, "then");
    assert_whole_wherever_it_ends(rig, id, before);
    struct rig_log *log = rig->log;
    rig_free(rig);
    rig_log_free(log);
    return hit;
}

static void every_allocation_of_a_step_fails(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++)
        for (uint64_t n = 1; step_starved(n, kind & 1, kind & 2 ? LARGE : 20); n++)
            continue;
    for (int for_ever = 0; for_ever < 2; for_ever++)
        for (uint64_t n = 1; acks_starved(n, for_ever); n++)
            continue;
}

/* Statements come and go, and steps; a client asks. */
static bool storm(struct rig *rig)
{
    struct query_step *step;
    if (!begin_with(rig) || !engine_enter(rig, ENGINE, "guest", "/"))
        return false;
    (void)engine_ask(rig, CMD_SQL_PUT, ENGINE, "q", "text", "{}", 0, 1, 0);
    (void)engine_ask(rig, CMD_SQL_PUT, ENGINE, "p", "text", "{}", 0, 1, 0);
    const struct sql_object *o = LIST_FIRST(&rig->b->sql.by_id, struct sql_object, link);
    uint64_t id = o ? o->id : 0;
    for (uint64_t n = 1; n < 4; n++)
        if ((step = query_step_new(id, n, slice_str("trail"), 1))) {
            step->outputs[0].msg = row(rig, "amq.topic", "k", "x");
            step_send(rig, step, ENGINE);
            rig_step(rig);
        }
    (void)engine_ask(rig, CMD_SQL_STATE, ENGINE, "why", NULL, NULL, id, SQL_PAUSED, 0);
    (void)engine_ask(rig, CMD_SQL_PUT, ENGINE, NULL, "other", "{}", id, 2, 0);
    engine_plain(rig, CMD_SQL_LIST, 0);
    rig_clear(rig);
    (void)rig_ask(rig, CMD_SQL_ASK, 1, 0, "SELECT 1", NULL, NULL, (struct slice){0}, 0);
    struct effect *asked = rig_nth(rig, EFF_SQL_ASK, 0);
    uint64_t ticket = asked ? asked->number : 0;
    (void)engine_ask(rig, CMD_SQL_SAY, ENGINE, "one", NULL, NULL, ticket, 0, 0);
    (void)engine_ask(rig, CMD_SQL_SAY, ENGINE, "two", NULL, NULL, ticket, 0, ASK_LAST);
    compact_start(rig->b);
    rig_step(rig);
    engine_plain(rig, CMD_SQL_DROP, id);
    return true;
}

static void no_memory_for_statements(void **state)
{
    (void)state;
    each_allocation_fails(storm, NULL, NULL);
}

/* The last record of that type. */
static const char *printed(struct rig *rig, uint8_t type)
{
    static char text[400];
    size_t n = rig->log->count;
    while (n && rig->log->records[n - 1].bytes[0] != type)
        n--;
    assert_true(n > 0);
    record_print(slice_of(rig->log->records[n - 1].bytes, rig->log->records[n - 1].len), text, sizeof text);
    return text;
}

static void records_are_printed(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    assert_non_null(strstr(printed(rig, REC_SQL_OBJECT), "'q' of 'guest' in '/'"));
    rig_clear(rig);
    assert_true(engine_ask(rig, CMD_SQL_STATE, ENGINE, "why", NULL, NULL, id, SQL_PAUSED, 0));
    assert_non_null(strstr(printed(rig, REC_SQL_STATE), ": 1 why"));
    assert_string_equal(printed(rig, REC_USER_PUT), "USER_PUT 'guest'");
    assert_string_equal(printed(rig, REC_VHOST_PUT), "VHOST_PUT '/'");
    end_sql(rig);
}

/* What cannot be stops the start. */
static void damaged_records(void **state)
{
    (void)state;
    struct rig *rig = begin_sql();
    uint64_t id = (uint64_t)put_statement(rig, "q", "x");
    assert_true(id < 100);
    const uint8_t again[] = {REC_QUERY_STEP, (uint8_t)id, 0, 0, 't'}, gap[] = {REC_QUERY_STEP, (uint8_t)id, 2, 0, 't'},
                  odd[] = {REC_QUERY_STEP, (uint8_t)id, 1, 2}, bad_state[] = {REC_SQL_STATE, (uint8_t)id, 9},
                  cut[] = {REC_SQL_OBJECT, 3, 1}, unknown[] = {REC_QUERY_STEP, 99, 7, 0, 't'},
                  gone[] = {REC_SQL_OBJECT_GONE, 99};
    const struct {
        struct slice record;
        bool ok;
    } rows[] = {{slice_of(again, sizeof again), true}, {slice_of(gap, sizeof gap), false},
                {slice_of(odd, sizeof odd), false},    {slice_of(bad_state, sizeof bad_state), false},
                {slice_of(cut, sizeof cut), false},    {slice_of(unknown, sizeof unknown), true},
                {slice_of(gone, sizeof gone), true}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *why;
        struct rig_log *copy = rig_log_copy(rig->log, rig->log->count);
        rig_log_append(copy, &rows[i].record, 1);
        struct rig *other = rig_try(copy, &rig->options, rig->wall, &why);
        assert_true((why == NULL) == rows[i].ok);
        rig_free(other);
        rig_log_free(copy);
    }
    end_sql(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_and_trails),
        cmocka_unit_test(limits),
        cmocka_unit_test(all_or_nothing),
        cmocka_unit_test(visible_when_durable),
        cmocka_unit_test(without_bcc),
        cmocka_unit_test(without_bcc_when_due),
        cmocka_unit_test(replies),
        cmocka_unit_test(nothing_when_one_has_nowhere_to_go),
        cmocka_unit_test(nothing_when_the_user_may_not),
        cmocka_unit_test(nothing_into_a_locked_queue),
        cmocka_unit_test(nothing_into_a_full_queue),
        cmocka_unit_test(nothing_while_an_alarm_holds),
        cmocka_unit_test(nothing_behind_a_drain),
        cmocka_unit_test(acknowledged_with_the_step),
        cmocka_unit_test(nothing_for_a_wrong_acknowledgement),
        cmocka_unit_test(every_allocation_of_a_step_fails),
        cmocka_unit_test(no_memory_for_statements),
        cmocka_unit_test(records_are_printed),
        cmocka_unit_test(damaged_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
