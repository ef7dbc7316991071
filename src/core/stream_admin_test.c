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
    rig_clear(rig);
    rig_free(rig);
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
        cmocka_unit_test(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
