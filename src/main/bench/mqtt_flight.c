/* See bench/mqtt_flight.h. An id is turned into the number of its message by its distance from the id of the lowest one that is
 * not settled, which is right as long as fewer than 65,535 lie between the two ends. */
#include "mqtt_flight.h"

#include "command.h"
#include "mqtt_wire.h"

#include <stdlib.h>

enum { REFUSED = 0x80 };

void bench_mqtt_flight_init(struct bench_mqtt_flight *f, uint8_t qos, uint32_t window)
{
    *f = (struct bench_mqtt_flight){.qos = qos, .window = window, .lowest = 1};
    if (qos == 0)
        return;
    uint64_t ring = 2;
    while (ring < 2 * (uint64_t)window && ring < UINT16_MAX / 2)
        ring *= 2;
    f->mask = ring - 1;
    f->sent_ns = bench_zeroed(ring, sizeof(*f->sent_ns));
    f->received = bench_zeroed(ring, sizeof(*f->received));
}

void bench_mqtt_flight_fini(struct bench_mqtt_flight *f)
{
    free(f->sent_ns);
    free(f->received);
    f->sent_ns = NULL;
    f->received = NULL;
}

uint64_t bench_mqtt_flight_room(const struct bench_mqtt_flight *f)
{
    if (f->qos == 0)
        return UINT64_MAX;
    uint64_t in_flight = f->published - f->settled, span = f->published + 1 - f->lowest;
    if (in_flight >= f->window || span > f->mask)
        return 0;
    uint64_t room = f->window - in_flight, ring_room = f->mask + 1 - span;
    return room < ring_room ? room : ring_room;
}

static enum bench_mqtt_step settle(struct bench_mqtt_flight *f, uint64_t seq, uint8_t reason, uint64_t *ret_sent_ns)
{
    *ret_sent_ns = f->sent_ns[seq & f->mask];
    f->sent_ns[seq & f->mask] = 0;
    f->received[seq & f->mask] = false;
    f->settled++;
    while (f->lowest <= f->published && f->sent_ns[f->lowest & f->mask] == 0)
        f->lowest++;
    if (reason < REFUSED)
        return BENCH_MQTT_STEP_SETTLED;
    f->refused++;
    return BENCH_MQTT_STEP_REFUSED;
}

enum bench_mqtt_step bench_mqtt_flight_on_ack(struct bench_mqtt_flight *f, unsigned type, uint16_t id, uint8_t reason,
                                              uint64_t *ret_sent_ns)
{
    if (id == 0 || f->qos == 0)
        return BENCH_MQTT_STEP_WRONG;
    uint64_t ahead = ((uint64_t)id + UINT16_MAX - bench_mqtt_flight_id(f->lowest)) % UINT16_MAX;
    uint64_t seq = f->lowest + ahead;
    if (seq > f->published || f->sent_ns[seq & f->mask] == 0)
        return BENCH_MQTT_STEP_WRONG;
    bool *received = &f->received[seq & f->mask];
    if (f->qos == 1)
        return type == BENCH_MQTT_PUBACK ? settle(f, seq, reason, ret_sent_ns) : BENCH_MQTT_STEP_WRONG;
    if (type == BENCH_MQTT_PUBREC && !*received) {
        if (reason >= REFUSED)
            return settle(f, seq, reason, ret_sent_ns);
        *received = true;
        return BENCH_MQTT_STEP_RELEASE;
    }
    return type == BENCH_MQTT_PUBCOMP && *received ? settle(f, seq, reason, ret_sent_ns) : BENCH_MQTT_STEP_WRONG;
}
