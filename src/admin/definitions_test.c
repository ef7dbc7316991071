/* definitions: the order of import, what is left out and said so, complaints that name the entry, and what the requests
 * look like to the control socket. */
#include "admin/definitions.h"

#include "admin/request.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static char why[600], noted[1000];
static int notes;

static void note(void *arg, const char *text)
{
    (void)arg;
    size_t len = strlen(noted);
    snprintf(noted + len, sizeof noted - len, "%s\n", text);
    notes++;
}

static struct definitions *parse(const char *text)
{
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    notes = 0;
    noted[0] = '\0';
    struct definitions *definitions = definitions_new(json, note, NULL, why, sizeof why);
    json_decref(json);
    return definitions;
}

static const char whole[] =
    "{\"bindings\": [{\"source\": \"dlx\", \"vhost\": \"/\", \"destination\": \"q\", \"destination_type\": \"queue\","
    "                 \"routing_key\": \"\", \"arguments\": {\"n\": 1}},"
    "                {\"source\": \"\", \"vhost\": \"/\", \"destination\": \"q\", \"destination_type\": \"queue\","
    "                 \"routing_key\": \"q\", \"arguments\": {}}],"
    " \"queues\": [{\"name\": \"q\", \"vhost\": \"/\", \"durable\": true, \"auto_delete\": false,"
    "               \"arguments\": {\"x-max-length\": 10}}],"
    " \"exchanges\": [{\"name\": \"dlx\", \"vhost\": \"/\", \"type\": \"fanout\", \"durable\": true, \"internal\": "
    "true},"
    "                 {\"name\": \"amq.topic\", \"vhost\": \"/\", \"type\": \"topic\", \"durable\": true}],"
    " \"parameters\": [{\"component\": \"operator_policy\", \"name\": \"op\", \"vhost\": \"/\","
    "                   \"value\": {\"pattern\": \"^q\", \"definition\": {\"max-length\": 5}, \"priority\": 2}},"
    "                  {\"component\": \"shovel\", \"name\": \"s\", \"vhost\": \"/\", \"value\": {}}],"
    " \"policies\": [{\"vhost\": \"/\", \"name\": \"p\", \"pattern\": \".*\", \"apply-to\": \"queues\","
    "                 \"definition\": {\"message-ttl\": 100}, \"priority\": 1}],"
    " \"permissions\": [{\"user\": \"u\", \"vhost\": \"/\", \"configure\": \"\", \"write\": \".*\", \"read\": \".*\"}],"
    " \"vhosts\": [{\"name\": \"/\", \"metadata\": {\"default_queue_type\": \"quorum\"}}],"
    " \"users\": [{\"name\": \"u\", \"password_hash\": \"LsAjOLc7W5VXMU4jkzJOqa6PjC6WVoyjpyFyKJlz0aGpTUtJ\","
    "              \"hashing_algorithm\": \"rabbit_password_hashing_sha256\", \"tags\": [\"administrator\", "
    "\"monitoring\"]}]}";

static void order_and_requests(void **state)
{
    (void)state;
    static const char *const order[] = {"USER_PUT",   "VHOST_PUT",  "PERMISSION_PUT", "EXCHANGE_PUT",
                                        "POLICY_PUT", "POLICY_PUT", "QUEUE_PUT",      "BINDING_PUT"};
    struct definitions *definitions = parse(whole);
    assert_non_null(definitions);
    assert_int_equal(definitions_count(definitions), ARRAY_LEN(order));
    assert_int_equal(notes, 1); /* the shovel */
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        const json_t *json = definitions_next(definitions);
        const char *problem = NULL;
        struct request request;
        assert_string_equal(json_string_value(json_object_get(json, "op")), order[i]);
        assert_true(request_parse(json, &request, &problem));
        assert_int_equal(request.wait_durable, i + 1 == ARRAY_LEN(order));
        if (i == 0) {
            assert_true(slice_is(request.ask->key, "administrator,monitoring"));
            assert_true(slice_starts(request.ask->other, "rabbit_password_hashing_sha256$"));
        }
        if (i == 3)
            assert_int_equal(request.ask->flags & (ASK_DURABLE | ASK_AUTO_DELETE | ASK_INTERNAL),
                             ASK_DURABLE | ASK_INTERNAL);
        if (i == 5)
            assert_true(request.ask->flags & ASK_INTERNAL);
        mem_free(request.ask);
    }
    assert_null(definitions_next(definitions));
    definitions_free(&definitions);
}

/* Policies of a RabbitMQ come as they are, and what they do not do here is said. */
static void settings_without_meaning(void **state)
{
    (void)state;
    struct definitions *definitions =
        parse("{\"rabbit_version\": \"3.12.13\","
              " \"policies\": [{\"vhost\": \"/\", \"name\": \"ha\", \"pattern\": \".*\", \"apply-to\": \"queues\","
              "                 \"definition\": {\"ha-mode\": \"all\", \"max-length\": 5, \"queue-mode\": \"lazy\"}}],"
              " \"parameters\": [{\"component\": \"operator_policy\", \"name\": \"op\", \"vhost\": \"/\","
              "                   \"value\": {\"pattern\": \"^q\", \"definition\": {\"max-in-memory-length\": 5}}}]}");
    assert_non_null(definitions);
    assert_int_equal(definitions_count(definitions), 2);
    assert_string_equal(noted, "policies[0] ha: its setting 'ha-mode' has no meaning here\n"
                               "policies[0] ha: its setting 'queue-mode' has no meaning here\n"
                               "parameters[0] op: its setting 'max-in-memory-length' has no meaning here\n");
    definitions_free(&definitions);
}

static void complaints_name_the_entry(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"{\"users\": 1}", "definitions: users is not a list"},
        {"{\"users\": [1]}", "definitions: users[0]: not an object"},
        {"{\"users\": [{\"name\": \"a\", \"password_hash\": \"!\"}]}",
         "definitions: users[0] (a): password_hash is damaged, or its hashing_algorithm is unknown"},
        {"{\"queues\": [{\"name\": \"a\"}, {\"vhost\": \"/\"}]}", "definitions: queues[1]: name is missing or no text"},
        {"{\"bindings\": [{\"source\": \"a\", \"destination\": \"b\", \"destination_type\": \"x\", \"routing_key\": "
         "\"\"}]}",
         "definitions: bindings[0]: destination_type x is neither queue nor exchange"},
        {"{\"policies\": [{\"name\": \"p\", \"pattern\": \".*\"}]}",
         "definitions: policies[0] (p): pattern or definition is missing"},
        {"{\"policies\": [{\"name\": \"p\", \"pattern\": \".*\", \"definition\": {\"max-lenght\": 1}}]}",
         "definitions: policies[0] (p): 'max-lenght' is not a recognised policy setting; did you mean 'max-length'?"},
    };
    size_t before = mem_in_use();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(parse(rows[i].text));
        assert_string_equal(why, rows[i].why);
        assert_int_equal(mem_in_use(), before);
    }
}

static json_t *refuse_queues(void *arg, json_t *request)
{
    ++*(int *)arg;
    bool ok = strcmp(json_string_value(json_object_get(request, "op")), "QUEUE_PUT") != 0;
    json_decref(request);
    return json_pack("{s:b, s:s}", "ok", ok, "text", "no");
}

static void a_refusal_stops_the_import(void **state)
{
    (void)state;
    int asked = 0;
    struct definitions *definitions = parse(whole);
    assert_int_not_equal(definitions_apply(definitions, refuse_queues, &asked, why, sizeof why), 0);
    assert_string_equal(why, "definitions: queues[0] q: no");
    assert_int_equal(asked, 7);
    definitions_free(&definitions);
}

static json_t *answer_lists(void *arg, json_t *request)
{
    (void)arg;
    const char *op = json_string_value(json_object_get(request, "op"));
    json_t *rows = json_array();
    if (strcmp(op, "USER_LIST") == 0) {
        json_array_append_new(rows, json_pack("{s:s, s:s, s:s}", "name", "u", "tags", "", "verifier",
                                              "rabbit_password_hashing_sha512$AAAA"));
        json_array_append_new(rows,
                              json_pack("{s:s, s:s, s:s}", "name", "v", "tags", "a", "verifier", "SCRAM-SHA-256$x"));
    }
    if (strcmp(op, "EXCHANGE_LIST") == 0)
        json_array_append_new(rows, json_pack("{s:s}", "name", "amq.direct"));
    if (strcmp(op, "QUEUE_LIST") == 0)
        json_array_append_new(rows, json_pack("{s:s, s:s, s:b, s:b, s:{s:i}}", "name", "q", "vhost", "/", "durable", 1,
                                              "exclusive", 0, "arguments", "x-expires", 5));
    json_decref(request);
    return json_pack("{s:b, s:o}", "ok", 1, "rows", rows);
}

static void export_is_rabbits(void **state)
{
    (void)state;
    json_t *json = definitions_export(answer_lists, NULL, why, sizeof why);
    assert_non_null(json);
    const json_t *users = json_object_get(json, "users");
    const json_t *first = json_array_get(users, 0);
    assert_string_equal(json_string_value(json_object_get(first, "password_hash")), "AAAA");
    assert_string_equal(json_string_value(json_object_get(first, "hashing_algorithm")),
                        "rabbit_password_hashing_sha512");
    assert_string_equal(json_string_value(json_object_get(json_array_get(users, 1), "password_hash")),
                        "SCRAM-SHA-256$x");
    assert_int_equal(json_array_size(json_object_get(json, "exchanges")), 0);
    const json_t *queue = json_array_get(json_object_get(json, "queues"), 0);
    assert_true(json_is_true(json_object_get(queue, "durable")));
    assert_int_equal(json_integer_value(json_object_get(json_object_get(queue, "arguments"), "x-expires")), 5);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(order_and_requests), cmocka_unit_test(settings_without_meaning),
                                       cmocka_unit_test(complaints_name_the_entry),
                                       cmocka_unit_test(a_refusal_stops_the_import),
                                       cmocka_unit_test(export_is_rabbits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
