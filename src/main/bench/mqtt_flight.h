/* What one publisher has on its way with QoS 1 and 2: packet ids, how far each message has come, when it was sent.
 *
 * Life cycle: bench_mqtt_flight_init → { while bench_mqtt_flight_room: bench_mqtt_flight_send; bench_mqtt_flight_on_ack for
 * each acknowledgement }* → _fini. Messages count from 1 and take the ids 1 … 65535 in turn. Thread: one owner.
 */
#ifndef MAIN_BENCH_MQTT_FLIGHT_H
#define MAIN_BENCH_MQTT_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

enum { BENCH_MQTT_WINDOW_MAX = 32000 }; /* of ids there are twice as many: some stay behind when acks pass each other */

struct bench_mqtt_flight {
    uint8_t qos;
    uint32_t window;
    uint64_t published, settled, refused; /* settled: acknowledged to the end, or refused */
    uint64_t lowest;                      /* smallest number that is not settled */
    uint64_t *sent_ns;                    /* by number; 0: settled */
    bool *received;                       /* by number: PUBREC was there, PUBCOMP not yet */
    uint64_t mask;
};

enum bench_mqtt_step {
    BENCH_MQTT_STEP_WRONG,   /* no message waits for this acknowledgement */
    BENCH_MQTT_STEP_RELEASE, /* answer PUBREL with the same id */
    BENCH_MQTT_STEP_SETTLED,
    BENCH_MQTT_STEP_REFUSED,
};

void bench_mqtt_flight_init(struct bench_mqtt_flight *f, uint8_t qos, uint32_t window);
void bench_mqtt_flight_fini(struct bench_mqtt_flight *f);
static inline uint16_t bench_mqtt_flight_id(uint64_t seq)
{
    return (uint16_t)((seq - 1) % UINT16_MAX + 1);
}
uint64_t bench_mqtt_flight_room(const struct bench_mqtt_flight *f);
/* The next message; there must be room. */
static inline uint64_t bench_mqtt_flight_send(struct bench_mqtt_flight *f, uint64_t sent_ns)
{
    uint64_t seq = ++f->published;
    if (f->qos > 0)
        f->sent_ns[seq & f->mask] = sent_ns;
    return seq;
}
/* type: of enum bench_mqtt_type. ret_sent_ns: when it was sent, with SETTLED and REFUSED. */
enum bench_mqtt_step bench_mqtt_flight_on_ack(struct bench_mqtt_flight *f, unsigned type, uint16_t id, uint8_t reason,
                                              uint64_t *ret_sent_ns);

#endif
