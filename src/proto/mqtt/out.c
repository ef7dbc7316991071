/* Packets that leave, but for PUBLISH (deliver.c). The commonest, an acknowledgement, is written without the general encoder.
 * Thread: the loop's. */
#include "proto/mqtt/mqtt_int.h"

static void count_out(struct mqtt *m, size_t len)
{
    mqtt_count(&m->options->totals->packets_out, 1);
    mqtt_count(&m->options->totals->bytes_out, len);
    engine_dirty(&m->session.engine);
}

void mqtt_out(struct mqtt *m, enum mqtt_type type, const union mqtt_fields *fields)
{
    uint8_t version = m->version ? m->version : MQTT_3_1_1;
    size_t len = mqtt_encoded_len(type, version, fields);
    if (len > OUTQ_CHUNK_LEN) { /* a list of reasons that is longer than a chunk */
        m->session.engine.out.failed = true;
        engine_dirty(&m->session.engine);
        return;
    }
    uint8_t *to = outq_room(&m->session.engine.out, len);
    if (!to) {
        engine_dirty(&m->session.engine);
        return;
    }
    struct writer w = writer_of(to, len);
    mqtt_encode(&w, type, version, fields);
    outq_commit(&m->session.engine.out, w.len);
    count_out(m, w.len);
}

void mqtt_out_ack(struct mqtt *m, enum mqtt_type type, uint16_t id, uint8_t reason)
{
    bool says = reason && m->version == MQTT_5;
    uint8_t bytes[] = {(uint8_t)(type << 4 | mqtt_rows[type].flags), (uint8_t)(2 + says), (uint8_t)(id >> 8),
                       (uint8_t)id, reason};
    size_t len = 4u + says;
    outq_put(&m->session.engine.out, bytes, len);
    count_out(m, len);
}
