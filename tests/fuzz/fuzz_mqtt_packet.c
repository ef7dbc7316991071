/* Fuzz target of MQTT's codec: what is decoded is encoded, and decoded again the same.
 * fuzz: -max_len=4096
 * covers: src/proto/mqtt/packet.c
 *
 * Input: a byte: bits 0-1 the version (3, 4, 5, 5), bit 2 a server has sent it; then packets. */
#include "base/check.h"
#include "proto/mqtt/packet.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static struct mqtt_props *props_of(union mqtt_fields *f, enum mqtt_type type)
{
    switch (type) {
    case MQTT_connect: return &f->connect.props;
    case MQTT_connack: return &f->connack.props;
    case MQTT_publish: return &f->publish.props;
    case MQTT_puback:
    case MQTT_pubrec:
    case MQTT_pubrel:
    case MQTT_pubcomp: return &f->ack.props;
    case MQTT_subscribe:
    case MQTT_suback:
    case MQTT_unsubscribe:
    case MQTT_unsuback: return &f->list.props;
    case MQTT_disconnect:
    case MQTT_auth: return &f->end.props;
    default: return NULL;
    }
}

/* As it stands: the list is written as it came. */
static void verbatim(struct mqtt_props *props)
{
    struct reader r = reader_of(props->all);
    struct mqtt_one one;
    while (mqtt_property_next(&r, &one))
        CHECK(one.property < MQTT_PROPERTIES);
    CHECK(reader_done(&r));
    props->present = 0;
    props->more = props->all;
}

static void there_and_back(const struct mqtt_frame *frame, uint8_t version, enum mqtt_sender by)
{
    union mqtt_fields f, g;
    struct mqtt_frame again;
    if (mqtt_decode(frame, version, by, &f) != 0)
        return;
    enum mqtt_type type = (enum mqtt_type)frame->type;
    if (type == MQTT_connect)
        version = f.connect.version;
    struct mqtt_props *props = props_of(&f, type);
    if (props && version == MQTT_5)
        verbatim(props);
    if (type == MQTT_connect && f.connect.has_will && version == MQTT_5)
        verbatim(&f.connect.will_props);
    size_t len = mqtt_encoded_len(type, version, &f);
    CHECK(len <= frame->len + 4); /* what may be left out is left out */
    uint8_t *room = malloc(len);
    struct writer w = writer_of(room, len);
    mqtt_encode(&w, type, version, &f);
    CHECK(writer_ok(&w) && w.len == len);
    CHECK(mqtt_cut(writer_slice(&w), SIZE_MAX, &again) == MQTT_CUT_OK && again.len == len);
    CHECK(mqtt_decode(&again, version, by, &g) == 0);
    free(room);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    if (len == 0)
        return 0;
    uint8_t version = (uint8_t)(bytes[0] % 4 == 3 ? MQTT_5 : MQTT_3_1 + bytes[0] % 4);
    struct slice rest = slice_of(bytes + 1, len - 1);
    struct mqtt_frame frame;
    while (mqtt_cut(rest, SIZE_MAX, &frame) == MQTT_CUT_OK) {
        there_and_back(&frame, version, bytes[0] & 4 ? MQTT_SERVER : MQTT_CLIENT);
        rest = slice_of(rest.ptr + frame.len, rest.len - frame.len);
    }
    return 0;
}
