/* config: precedence, units, bounds, and complaints that say where and what was meant. */
#include "main/config.h"

#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static char why[800];

static int load_sets(struct config *ret, const char *const *sets, size_t count)
{
    struct config_sources sources = {.os = os_posix(), .sets = sets, .set_count = count};
    return config_load(ret, &sources, why, sizeof why);
}

#define LOAD(ret, ...)                                                                                                 \
    load_sets(ret, (const char *const[]){__VA_ARGS__},                                                                 \
              sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static int load_file(struct config *ret, const char *text)
{
    char name[] = "config_test.XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    struct config_sources sources = {.os = os_posix(), .file = name};
    int err = config_load(ret, &sources, why, sizeof why);
    unlink(name);
    return err;
}

static const char *no_variable(const char *name)
{
    if (strcmp(name, "RABBITMQ_DEFAULT_USER") == 0)
        return "alice";
    if (strcmp(name, "MILLRACE_JOURNAL_DIRECT_IO") == 0)
        return "off";
    return strcmp(name, "MILLRACE_LOOPS") == 0 ? "7" : NULL;
}

static void presets_hold(void **state)
{
    (void)state;
    struct config c;
    struct config_sources sources = {.os = os_posix()};
    assert_int_equal(config_load(&c, &sources, why, sizeof why), 0);
    assert_string_equal(c.data, "millrace-data");
    assert_string_equal(c.default_user, "guest");
    assert_int_equal(c.message_bytes_max, 16 << 20);
    assert_true(c.guest_loopback_only);
    assert_true(c.memory_high_watermark > 0.59 && c.memory_high_watermark < 0.61);
    config_free(&c);
}

static void values_are_understood(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(LOAD(&c, "message.bytes_max=2M", "journal.file_bytes=32MiB", "guest.loopback_only=no",
                          "journal.direct_io=on", "memory.high_watermark=1GiB", "log.format=json"),
                     0);
    assert_int_equal(c.message_bytes_max, 2 << 20);
    assert_int_equal(c.journal_file_bytes, 32 << 20);
    assert_false(c.guest_loopback_only);
    assert_int_equal(c.direct_io, 1);
    assert_int_equal((uint64_t)c.memory_high_watermark, 1 << 30);
    assert_int_equal(c.log_format, 1);
    config_free(&c);
}

static void complaints_say_what_is_wrong(void **state)
{
    (void)state;
    struct config c;
    assert_int_not_equal(LOAD(&c, "journal.direct_oi=on"), 0);
    assert_string_equal(why, "--set: there is no setting journal.direct_oi; did you mean journal.direct_io?");
    assert_int_not_equal(LOAD(&c, "amqp.frame_max=100"), 0);
    assert_non_null(strstr(why, "outside 4096 to 1048576"));
    assert_int_not_equal(LOAD(&c, "amqp.frame_max=-1"), 0);
    assert_int_not_equal(LOAD(&c, "amqp.frame_max=99999999999999999999999"), 0);
    assert_int_not_equal(LOAD(&c, "message.bytes_max=99999999999999G"), 0);
    assert_int_not_equal(LOAD(&c, "guest.loopback_only=maybe"), 0);
    assert_int_not_equal(LOAD(&c, "journal.direct_io=o"), 0);
    assert_non_null(strstr(why, "auto|on|off"));
    assert_int_not_equal(LOAD(&c, "loops"), 0);
    assert_int_not_equal(LOAD(&c, "listen.amqp=127.0.0.1:1 nonsense"), 0);
    assert_non_null(strstr(why, "nonsense"));
    assert_int_not_equal(LOAD(&c, "memory.high_watermark=-0.5"), 0);
    assert_int_not_equal(LOAD(&c, "memory.high_watermark="), 0);
}

static void files_name_their_lines(void **state)
{
    (void)state;
    struct config c;
    assert_int_equal(
        load_file(&c, "# comment\nloops = 2\n\n[journal]\ndirect_io = off ; why\n[amqp]\nframe_max=8192\n"), 0);
    assert_int_equal(c.loops, 2);
    assert_int_equal(c.direct_io, 2);
    assert_int_equal(c.frame_max, 8192);
    config_free(&c);
    assert_int_not_equal(load_file(&c, "loops = 2\n\n[amqp]\nframemax = 8192\n"), 0);
    assert_non_null(strstr(why, ":4: there is no setting amqp.framemax; did you mean amqp.frame_max?"));
    assert_int_not_equal(load_file(&c, "loops = 2\nwhat is this\n"), 0);
    assert_non_null(strstr(why, ":2: "));
    assert_int_equal(load_file(&c, "journal.direct_io = on"), 0); /* RabbitMQ's way to write it */
    assert_int_equal(c.direct_io, 1);
    config_free(&c);
    struct config_sources absent = {.os = os_posix(), .file = "no/such/file.ini"};
    assert_int_not_equal(config_load(&c, &absent, why, sizeof why), 0);
    assert_string_equal(why, "cannot read the configuration no/such/file.ini: No such file or directory");
}

static void later_sources_win(void **state)
{
    (void)state;
    struct config c;
    static const char *const sets[] = {"loops=3"};
    struct config_sources sources = {.os = os_posix(), .sets = sets, .set_count = 1, .variable = no_variable};
    assert_int_equal(config_load(&c, &sources, why, sizeof why), 0);
    assert_int_equal(c.loops, 3);
    assert_int_equal(c.direct_io, 2);
    assert_string_equal(c.default_user, "alice");
    config_free(&c);
}

static void addresses_are_split(void **state)
{
    (void)state;
    const char *list = " 127.0.0.1:5672, [::1]:5673 localhost:1";
    char host[32];
    uint16_t port;
    assert_true(config_address_next(&list, host, sizeof host, &port));
    assert_string_equal(host, "127.0.0.1");
    assert_int_equal(port, 5672);
    assert_true(config_address_next(&list, host, sizeof host, &port));
    assert_string_equal(host, "::1");
    assert_true(config_address_next(&list, host, sizeof host, &port));
    assert_string_equal(host, "localhost");
    assert_int_equal(port, 1);
    assert_false(config_address_next(&list, host, sizeof host, &port));
}

/* Random lines never crash it, and a refusal leaves nothing behind. */
static void nonsense_is_refused(void **state)
{
    (void)state;
    size_t before = mem_in_use();
    uint32_t seed = 1;
    for (int i = 0; i < 3000; i++) {
        char text[200];
        size_t len = 0;
        for (; len < (seed >> 8) % 180; len++) {
            seed = seed * 1664525 + 1013904223;
            text[len] = "=[].;#\n abcdefloops0123456789data:"[(seed >> 16) % 35];
        }
        seed = seed * 1664525 + 1013904223;
        text[len] = '\0';
        struct config c;
        if (load_file(&c, text) == 0)
            config_free(&c);
        assert_int_equal(mem_in_use(), before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets_hold),
        cmocka_unit_test(values_are_understood),
        cmocka_unit_test(complaints_say_what_is_wrong),
        cmocka_unit_test(files_name_their_lines),
        cmocka_unit_test(later_sources_win),
        cmocka_unit_test(addresses_are_split),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
