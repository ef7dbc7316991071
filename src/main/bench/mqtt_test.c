/* The MQTT load generator: what it encodes is what a broker reads, what a broker sends it reads at any cut, and run as a user would
 * against a broker that makes mistakes it finds every kind of them. */
#include "mqtt.h"

#include "command.h"
#include "mqtt_flight.h"
#include "mqtt_wire.h"
#include "proto/mqtt/packet.h"
#include "stamp.h"

#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

enum { WORDS_MAX = 40, CLIENTS_MAX = 8, IN_BYTES = 1 << 16 };

/* ---- packets ---- */

static void decoded(const uint8_t *bytes, size_t len, uint8_t version, enum mqtt_type type, union mqtt_fields *ret)
{
    struct mqtt_frame frame;
    assert_int_equal(mqtt_cut(slice_of(bytes, len), MQTT_REMAINING_MAX, &frame), MQTT_CUT_OK);
    assert_int_equal(frame.len, len);
    assert_int_equal(frame.type, type);
    assert_int_equal(mqtt_decode(&frame, version, MQTT_CLIENT, ret), 0);
}

static void template_is(uint8_t version, uint8_t qos, size_t payload_bytes)
{
    struct bench_mqtt_template t;
    struct bench_mqtt_shape shape = {.topic = "a/b",
                                     .version = version,
                                     .qos = qos,
                                     .retain = qos == 1,
                                     .payload_bytes = payload_bytes,
                                     .run_id = 7,
                                     .publisher = 3};
    union mqtt_fields f;
    struct bench_stamp stamp;
    assert_int_equal(bench_mqtt_template_init(&t, &shape), 0);
    uint8_t *bytes = malloc(t.len);
    bench_mqtt_template_put(&t, bytes, 0x1234, 5, 6);
    decoded(bytes, t.len, version, MQTT_publish, &f);
    assert_int_equal(f.publish.qos, qos);
    assert_int_equal(f.publish.retain, qos == 1);
    assert_int_equal(f.publish.id, qos > 0 ? 0x1234 : 0);
    assert_memory_equal(f.publish.topic.ptr, "a/b", 3);
    assert_int_equal(f.publish.payload.len, payload_bytes);
    if (payload_bytes >= sizeof(stamp)) {
        memcpy(&stamp, f.publish.payload.ptr, sizeof(stamp));
        assert_int_equal(stamp.run_id, 7);
        assert_int_equal(stamp.producer, 3);
        assert_int_equal(stamp.seq, 5);
        assert_int_equal(stamp.sent_ns, 6);
    }
    free(bytes);
    bench_mqtt_template_fini(&t);
}

static void publishes_are_what_a_broker_reads(void **state)
{
    (void)state;
    static const size_t SIZES[] = {0, 23, 24, 100, 127, 128, 20000};
    for (uint8_t version = 4; version <= 5; version++)
        for (uint8_t qos = 0; qos <= 2; qos++)
            for (size_t i = 0; i < ARRAY_LEN(SIZES); i++)
                template_is(version, qos, SIZES[i]);
}

static void subscriptions_are_what_a_broker_reads(void **state)
{
    (void)state;
    uint8_t bytes[100], options;
    union mqtt_fields f;
    struct slice filter;
    for (uint8_t version = 4; version <= 5; version++) {
        size_t len = bench_mqtt_subscribe_put(bytes, sizeof(bytes), version, "a/#", 2);
        decoded(bytes, len, version, MQTT_subscribe, &f);
        struct reader list = reader_of(f.list.list);
        assert_true(mqtt_filter_next(&list, &filter, &options));
        assert_int_equal(filter.len, 3);
        assert_int_equal(options, 2);
    }
    assert_int_equal(bench_mqtt_subscribe_put(bytes, 5, 5, "a/#", 2), 0);
}

static void acks_are_what_a_broker_reads(void **state)
{
    (void)state;
    static const enum bench_mqtt_type TYPES[] = {BENCH_MQTT_PUBACK, BENCH_MQTT_PUBREC, BENCH_MQTT_PUBREL,
                                                 BENCH_MQTT_PUBCOMP};
    for (size_t i = 0; i < ARRAY_LEN(TYPES); i++) {
        uint8_t bytes[BENCH_MQTT_ACK_BYTES];
        union mqtt_fields f;
        bench_mqtt_ack_put(bytes, TYPES[i], 0x102);
        decoded(bytes, sizeof(bytes), 5, (enum mqtt_type)TYPES[i], &f);
        assert_int_equal(f.ack.id, 0x102);
        assert_int_equal(f.ack.reason, 0);
    }
}

/* A connection whose next input is these bytes. */
static struct bench_mqtt_wire wire_of(const void *bytes, size_t len, uint8_t version)
{
    struct bench_mqtt_wire w = {.version = version,
                                .socket = {.fd = -1, .in = malloc(len), .in_end = len, .in_cap = len}};
    memcpy(w.socket.in, bytes, len);
    return w;
}

static void packet_is_taken_only_when_complete(void **state)
{
    (void)state;
    struct bench_mqtt_template t;
    struct bench_mqtt_shape shape = {.topic = "topic", .version = 5, .qos = 1, .payload_bytes = 200};
    assert_int_equal(bench_mqtt_template_init(&t, &shape), 0);
    for (size_t have = 0; have <= t.len; have++) {
        struct bench_mqtt_wire w = wire_of(t.bytes, t.len, 5);
        struct bench_mqtt_packet p;
        struct bench_mqtt_message m;
        w.socket.in_end = have;
        assert_int_equal(bench_mqtt_next(&w, &p), have == t.len);
        assert_int_equal(w.socket.in_at, have == t.len ? have : 0);
        if (have == t.len) {
            assert_int_equal(bench_mqtt_message_read(&w, &p, &m), 0);
            assert_int_equal(m.id, 1);
            assert_int_equal(m.payload.len, 200);
        }
        free(w.socket.in);
    }
    bench_mqtt_template_fini(&t);
}

/* What is read of one packet: 1 a message with one byte of payload, 0 a packet that is none, -1 nothing. */
static int verdict(const char *bytes, size_t len, uint8_t version)
{
    struct bench_mqtt_wire w = wire_of(bytes, len, version);
    struct bench_mqtt_packet p;
    struct bench_mqtt_message m;
    int got = bench_mqtt_next(&w, &p);
    if (got > 0)
        got = bench_mqtt_message_read(&w, &p, &m) == 0 ? m.payload.len == 1 : -2;
    assert_int_equal(got < 0, w.socket.error[0] != '\0');
    free(w.socket.in);
    return got;
}

#define VERDICT(text, version) verdict(text, sizeof(text) - 1, version)

static void malformed_packets_are_refused(void **state)
{
    (void)state;
    assert_int_equal(VERDICT("\x30\x04\0\1tx", 4), 1);
    assert_int_equal(VERDICT("\x30\x05\0\1t\0x", 5), 1);
    assert_int_equal(VERDICT("\x30\x0a\0\1t\5\2\0\0\0\7x", 5), 1); /* message expiry */
    assert_int_equal(VERDICT("\x32\x06\0\1t\0\1x", 4), 1);
    assert_int_equal(VERDICT("\x30\xff\xff\xff\xff\1", 4), -1); /* a length of five bytes */
    assert_int_equal(VERDICT("\x30\x03\0\7t", 4), -2);          /* the topic is longer than the packet */
    assert_int_equal(VERDICT("\x30\x05\0\1t\7x", 5), -2);       /* so are the properties */
    assert_int_equal(VERDICT("\x30\x07\0\1t\x80\x80\x80\x80", 5), -2);
    assert_int_equal(VERDICT("\x32\x06\0\1t\0\0x", 4), -2); /* id 0 */
    assert_int_equal(VERDICT("\x36\x06\0\1t\0\1x", 4), -2); /* QoS 3 */
    assert_int_equal(VERDICT("\xe0\x01\x8e", 5), -1);       /* goodbye */
}

/* ---- what is on its way ---- */

static void ids_come_round(void **state)
{
    (void)state;
    struct bench_mqtt_flight f;
    uint64_t sent_ns;
    bench_mqtt_flight_init(&f, 1, 3);
    assert_int_equal(bench_mqtt_flight_id(1), 1);
    assert_int_equal(bench_mqtt_flight_id(65535), 65535);
    assert_int_equal(bench_mqtt_flight_id(65536), 1);
    for (uint64_t i = 1; i <= 70000; i++) {
        assert_true(bench_mqtt_flight_room(&f) > 0);
        assert_int_equal(bench_mqtt_flight_send(&f, i), i);
        if (i > 2) {
            assert_int_equal(bench_mqtt_flight_room(&f), 0);
            assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBACK, bench_mqtt_flight_id(i - 2), 0, &sent_ns),
                             BENCH_MQTT_STEP_SETTLED);
            assert_int_equal(sent_ns, i - 2);
        }
    }
    assert_int_equal(f.settled, 69998);
    bench_mqtt_flight_fini(&f);
}

static void acks_may_pass_each_other(void **state)
{
    (void)state;
    struct bench_mqtt_flight f;
    uint64_t sent_ns;
    bench_mqtt_flight_init(&f, 1, 4);
    for (uint64_t i = 1; i <= 4; i++)
        bench_mqtt_flight_send(&f, i);
    for (uint16_t id = 4; id >= 2; id--)
        assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBACK, id, 0, &sent_ns), BENCH_MQTT_STEP_SETTLED);
    assert_int_equal(f.lowest, 1);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBACK, 4, 0, &sent_ns), BENCH_MQTT_STEP_WRONG);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBREC, 1, 0, &sent_ns), BENCH_MQTT_STEP_WRONG);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBACK, 5, 0, &sent_ns), BENCH_MQTT_STEP_WRONG);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBACK, 0, 0, &sent_ns), BENCH_MQTT_STEP_WRONG);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBACK, 1, 0x97, &sent_ns), BENCH_MQTT_STEP_REFUSED);
    assert_int_equal(f.lowest, 5);
    assert_int_equal(f.refused, 1);
    bench_mqtt_flight_fini(&f);
}

static void qos_2_goes_in_steps(void **state)
{
    (void)state;
    struct bench_mqtt_flight f;
    uint64_t sent_ns;
    bench_mqtt_flight_init(&f, 2, 10);
    bench_mqtt_flight_send(&f, 11);
    bench_mqtt_flight_send(&f, 12);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBCOMP, 1, 0, &sent_ns), BENCH_MQTT_STEP_WRONG);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBREC, 1, 0, &sent_ns), BENCH_MQTT_STEP_RELEASE);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBREC, 1, 0, &sent_ns), BENCH_MQTT_STEP_WRONG);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBACK, 1, 0, &sent_ns), BENCH_MQTT_STEP_WRONG);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBREC, 2, 0x87, &sent_ns), BENCH_MQTT_STEP_REFUSED);
    assert_int_equal(f.settled, 1);
    assert_int_equal(bench_mqtt_flight_on_ack(&f, BENCH_MQTT_PUBCOMP, 1, 0, &sent_ns), BENCH_MQTT_STEP_SETTLED);
    assert_int_equal(sent_ns, 11);
    assert_int_equal(f.settled, 2);
    bench_mqtt_flight_fini(&f);
}

/* ---- a broker with one topic, which makes one mistake ---- */

enum fault { FAULT_NONE, FAULT_LOSE, FAULT_DOUBLE, FAULT_SWAP, FAULT_NO_ACK, FAULT_DOWNGRADE };
enum { FAULTY = 50, PUBLISHED = 100 }; /* the message that it makes it with */

struct client {
    struct bench_mqtt_wire wire;
    bool subscribed;
    uint16_t next_id;
};

struct rig {
    int listener, stop[2];
    pthread_t thread;
    enum fault fault;
    unsigned count, published;
    struct client clients[CLIENTS_MAX];
    uint8_t held[1024]; /* body of the message that the next one passes */
    size_t held_len;
};

static void say(struct client *c, const void *bytes, size_t len)
{
    (void)client_socket_send(&c->wire.socket, bytes, len); /* who has left hears nothing */
}

static void forward_to(struct client *c, uint8_t qos, const uint8_t *body, size_t len)
{
    uint8_t bytes[1100];
    size_t at = 0, topic_len = 2u + body[1];
    size_t left = qos == 0 ? len - 2 : len;
    bytes[at++] = (uint8_t)(0x30 | qos << 1);
    if (left >= 128)
        bytes[at++] = (uint8_t)(left | 0x80);
    bytes[at++] = (uint8_t)(left >= 128 ? left >> 7 : left);
    memcpy(bytes + at, body, topic_len);
    at += topic_len;
    if (qos > 0) {
        c->next_id++;
        bytes[at++] = (uint8_t)(c->next_id >> 8);
        bytes[at++] = (uint8_t)c->next_id;
    }
    memcpy(bytes + at, body + topic_len + 2, len - topic_len - 2);
    say(c, bytes, at + len - topic_len - 2);
}

static void forward(struct rig *r, uint8_t qos, const uint8_t *body, size_t len)
{
    for (unsigned i = 0; i < r->count; i++)
        if (r->clients[i].subscribed && r->clients[i].wire.socket.fd >= 0)
            forward_to(&r->clients[i], qos, body, len);
}

/* Only publishes of QoS 1 and 2: with QoS 0 there is no id to be left out. */
static void on_publish(struct rig *r, struct client *c, const struct bench_mqtt_packet *p)
{
    uint8_t qos = p->first >> 1 & 3, ack[BENCH_MQTT_ACK_BYTES];
    const uint8_t *id = p->body + 2 + p->body[1];
    bool faulty = ++r->published == FAULTY;
    bench_mqtt_ack_put(ack, qos == 1 ? BENCH_MQTT_PUBACK : BENCH_MQTT_PUBREC, (uint16_t)(id[0] << 8 | id[1]));
    if (!faulty || r->fault != FAULT_NO_ACK)
        say(c, ack, sizeof(ack));
    if (faulty && r->fault == FAULT_LOSE)
        return;
    if (faulty && r->fault == FAULT_SWAP) {
        memcpy(r->held, p->body, p->len);
        r->held_len = p->len;
        return;
    }
    forward(r, faulty && r->fault == FAULT_DOWNGRADE ? 0 : qos, p->body, p->len);
    if (faulty && r->fault == FAULT_DOUBLE)
        forward(r, qos, p->body, p->len);
    if (r->held_len > 0)
        forward(r, qos, r->held, r->held_len);
    r->held_len = 0;
}

static void on_packet(struct rig *r, struct client *c, const struct bench_mqtt_packet *p)
{
    uint8_t ack[BENCH_MQTT_ACK_BYTES];
    switch (p->first >> 4) {
    case MQTT_connect: say(c, "\x20\x02\0\0", 4); break;
    case MQTT_subscribe:
        c->subscribed = true;
        ack[0] = p->body[p->len - 1];
        say(c, "\x90\x03\0\1", 4);
        say(c, ack, 1);
        break;
    case MQTT_publish: on_publish(r, c, p); break;
    case MQTT_pubrec:
        bench_mqtt_ack_put(ack, BENCH_MQTT_PUBREL, (uint16_t)(p->body[0] << 8 | p->body[1]));
        say(c, ack, sizeof(ack));
        break;
    case MQTT_pubrel:
        bench_mqtt_ack_put(ack, BENCH_MQTT_PUBCOMP, (uint16_t)(p->body[0] << 8 | p->body[1]));
        say(c, ack, sizeof(ack));
        break;
    default: break;
    }
}

static void client_read(struct rig *r, struct client *c)
{
    struct bench_mqtt_packet p;
    int got = -1;
    if (client_socket_fill(&c->wire.socket) > 0)
        while ((got = bench_mqtt_next(&c->wire, &p)) > 0)
            on_packet(r, c, &p);
    if (got < 0)
        client_socket_close(&c->wire.socket);
}

static void *rig_thread(void *arg)
{
    struct rig *r = arg;
    for (;;) {
        struct pollfd fds[CLIENTS_MAX + 2] = {{.fd = r->stop[0], .events = POLLIN},
                                              {.fd = r->listener, .events = POLLIN}};
        unsigned count = r->count;
        for (unsigned i = 0; i < count; i++)
            fds[i + 2] = (struct pollfd){.fd = r->clients[i].wire.socket.fd, .events = POLLIN};
        poll(fds, count + 2, -1);
        if (fds[0].revents != 0)
            return NULL;
        if (fds[1].revents != 0 && count < CLIENTS_MAX) {
            struct client *c = &r->clients[r->count++];
            *c = (struct client){.wire = {.version = 4, .socket = {.fd = accept(r->listener, NULL, NULL)}}};
            (void)client_socket_reserve(&c->wire.socket, IN_BYTES);
        }
        for (unsigned i = 0; i < count; i++)
            if (fds[i + 2].revents != 0 && fds[i + 2].fd >= 0)
                client_read(r, &r->clients[i]);
    }
}

static int bench(unsigned port, const char *words)
{
    char text[600], *argv[WORDS_MAX] = {(char *)"millrace bench mqtt"}, *rest = text;
    int argc = 1;
    snprintf(text, sizeof(text), "--server 127.0.0.1:%u --quiet --json --drain 0.3 %s", port, words);
    for (char *word; argc < WORDS_MAX - 1 && (word = strsep(&rest, " ")) != NULL;)
        argv[argc++] = word;
    return bench_mqtt_main(argc, argv);
}

/* One run against a broker with that fault; answers the exit code. */
static int run_with(enum fault fault, const char *words)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    r->fault = fault;
    r->listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(r->listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(r->listener, 8), 0);
    assert_int_equal(getsockname(r->listener, (struct sockaddr *)&address, &len), 0);
    assert_int_equal(pipe(r->stop), 0);
    assert_int_equal(pthread_create(&r->thread, NULL, rig_thread, r), 0);
    int code = bench(ntohs(address.sin_port), words);
    assert_int_equal(write(r->stop[1], "", 1), 1);
    pthread_join(r->thread, NULL);
    for (unsigned i = 0; i < r->count; i++)
        client_socket_close(&r->clients[i].wire.socket);
    close(r->listener);
    close(r->stop[0]);
    close(r->stop[1]);
    free(r);
    return code;
}

static void right_brokers_are_clean(void **state)
{
    (void)state;
    assert_int_equal(run_with(FAULT_NONE, "--messages 100 --qos 1"), BENCH_EXIT_OK);
    assert_int_equal(run_with(FAULT_NONE, "--messages 100 --qos 2 --subscribers 3 --window 1"), BENCH_EXIT_OK);
    assert_int_equal(run_with(FAULT_NONE, "--messages 100 --qos 1 --publishers 2 --size 10"), BENCH_EXIT_OK);
}

static void mistakes_are_found(void **state)
{
    (void)state;
    for (int qos = 1; qos <= 2; qos++) {
        char words[60];
        snprintf(words, sizeof(words), "--messages %d --qos %d", PUBLISHED, qos);
        assert_int_equal(run_with(FAULT_LOSE, words), BENCH_EXIT_VIOLATION);
        assert_int_equal(run_with(FAULT_SWAP, words), BENCH_EXIT_VIOLATION);
        assert_int_equal(run_with(FAULT_NO_ACK, words), BENCH_EXIT_VIOLATION);
        assert_int_equal(run_with(FAULT_DOWNGRADE, words), BENCH_EXIT_VIOLATION);
        assert_int_equal(run_with(FAULT_DOUBLE, words), qos == 2 ? BENCH_EXIT_VIOLATION : BENCH_EXIT_OK);
    }
}

static void contradictions_are_wrong_usage(void **state)
{
    (void)state;
    assert_int_equal(bench(1, "--qos 1 --window 0"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(1, "--durable"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(1, "--scenario retained --size 0"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(1, "--scenario offline --qos 1 --subscribers 0"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(65000, "--port-offset 3900"), BENCH_EXIT_USAGE);
    assert_int_equal(bench(1, "--messages 1"), BENCH_EXIT_FAILED); /* nobody listens there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(publishes_are_what_a_broker_reads), cmocka_unit_test(subscriptions_are_what_a_broker_reads),
        cmocka_unit_test(acks_are_what_a_broker_reads),      cmocka_unit_test(packet_is_taken_only_when_complete),
        cmocka_unit_test(malformed_packets_are_refused),     cmocka_unit_test(ids_come_round),
        cmocka_unit_test(acks_may_pass_each_other),          cmocka_unit_test(qos_2_goes_in_steps),
        cmocka_unit_test(right_brokers_are_clean),           cmocka_unit_test(mistakes_are_found),
        cmocka_unit_test(contradictions_are_wrong_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
