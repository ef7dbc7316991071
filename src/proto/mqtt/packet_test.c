/* Packets: every packet of every version with every property it may have, there and back, cut at every byte; and every fault that a
 * packet shows by itself. */
#include "proto/mqtt/packet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const uint8_t versions[] = {MQTT_3_1, MQTT_3_1_1, MQTT_5};

/* ---- there and back ---- */

/* Everything that the packet may have. `more` gets two pairs, and what else may come again; room is lent. */
static void fill_props(struct mqtt_props *props, enum mqtt_type packet, enum mqtt_sender by, uint8_t *room, size_t len)
{
    struct writer w = writer_of(room, len);
    *props = (struct mqtt_props){.present = 0};
    for (unsigned i = 0; i < MQTT_PROPERTIES; i++) {
        const struct mqtt_property_row *row = &mqtt_property_rows[i];
        uint8_t *at = (uint8_t *)props + row->at;
        if (!(row->packets >> packet & 1) ||
            (row->again == MQTT_SERVER_AGAIN && packet == MQTT_publish && by == MQTT_CLIENT))
            continue;
        struct mqtt_one again = {.property = (enum mqtt_property)i,
                                 .number = 300 + i,
                                 .text = slice_str("name"),
                                 .value = slice_str(i & 1 ? "" : "v\xc3\xa4lue")};
        bool repeats = row->again == MQTT_AGAIN || (row->again == MQTT_SERVER_AGAIN && by == MQTT_SERVER);
        if (repeats) {
            mqtt_property_put(&w, &again);
            again.number = 1;
            mqtt_property_put(&w, &again);
            continue;
        }
        props->present |= 1u << i;
        switch ((enum mqtt_property_type)row->type) {
        case MQTT_T_flag: *at = 1; break;
        case MQTT_T_two: *(uint16_t *)(void *)at = (uint16_t)(0xff00 + i); break;
        case MQTT_T_four: *(uint32_t *)(void *)at = UINT32_MAX - i; break;
        case MQTT_T_varint: *(uint32_t *)(void *)at = 268435455 - i; break;
        default: *(struct slice *)(void *)at = slice_of("some text", i % 10); break;
        }
    }
    assert_true(writer_ok(&w));
    props->more = writer_slice(&w);
}

static void fill(union mqtt_fields *f, enum mqtt_type type, uint8_t version, enum mqtt_sender by, uint8_t room[2][1024])
{
    memset(f, 0, sizeof *f);
    struct mqtt_props props = {.present = 0};
    if (version == MQTT_5)
        fill_props(&props, type, by, room[0], 1024);
    switch (type) {
    case MQTT_connect:
        f->connect = (struct mqtt_connect_fields){.protocol = slice_str(version == MQTT_3_1 ? "MQIsdp" : "MQTT"),
                                                  .version = version,
                                                  .clean = true,
                                                  .has_will = true,
                                                  .will_retain = true,
                                                  .will_qos = 2,
                                                  .has_user = true,
                                                  .has_password = true,
                                                  .keep_alive_s = 61,
                                                  .client_id = slice_str("client"),
                                                  .will_topic = slice_str("a/will"),
                                                  .will_payload = slice_of("\0gone", 5),
                                                  .user = slice_str("us\xc3\xa9r"),
                                                  .password = slice_of("p\0\xff", 3),
                                                  .props = props};
        if (version == MQTT_5)
            fill_props(&f->connect.will_props, MQTT_will, by, room[1], 1024);
        break;
    case MQTT_connack:
        f->connack = (struct mqtt_connack_fields){
            .session_present = true, .reason = version == MQTT_5 ? MQTT_R_quota : 5, .props = props};
        break;
    case MQTT_publish:
        f->publish = (struct mqtt_publish_fields){.qos = 2,
                                                  .dup = true,
                                                  .retain = true,
                                                  .id = 65535,
                                                  .topic = slice_str("a/b"),
                                                  .payload = slice_of("\0\1\2", 3),
                                                  .props = props};
        break;
    case MQTT_puback:
    case MQTT_pubrec:
        f->ack = (struct mqtt_ack_fields){.id = 258, .reason = version == MQTT_5 ? MQTT_R_quota : 0, .props = props};
        break;
    case MQTT_pubrel:
    case MQTT_pubcomp:
        f->ack =
            (struct mqtt_ack_fields){.id = 258, .reason = version == MQTT_5 ? MQTT_R_id_not_found : 0, .props = props};
        break;
    case MQTT_subscribe:
        f->list = (struct mqtt_list_fields){
            .id = 1,
            .count = 2,
            .list = slice_of(version == MQTT_5 ? "\0\1#\x2e\0\3a/b\0" : "\0\1#\2\0\3a/b\0", 10),
            .props = props};
        break;
    case MQTT_unsubscribe:
        f->list = (struct mqtt_list_fields){.id = 1, .count = 2, .list = slice_of("\0\1#\0\3a/b", 8), .props = props};
        break;
    case MQTT_suback:
        f->list = (struct mqtt_list_fields){.id = 1, .count = 4, .list = slice_of("\0\1\2\x80", 4), .props = props};
        break;
    case MQTT_unsuback:
        f->list = (struct mqtt_list_fields){.id = 1, .props = props};
        if (version == MQTT_5)
            f->list.list = slice_of("\0\x11\x87", f->list.count = 3);
        break;
    case MQTT_disconnect:
        f->end = (struct mqtt_end_fields){.reason = version == MQTT_5 ? MQTT_R_quota : 0, .props = props};
        break;
    case MQTT_auth: f->end = (struct mqtt_end_fields){.reason = MQTT_R_continue_authentication, .props = props}; break;
    default: break;
    }
}

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
    case MQTT_disconnect:
    case MQTT_auth: return &f->end.props;
    default: return &f->list.props;
    }
}

/* What was decoded in the form in which it is encoded: what came again goes to `more`. */
static void turn_props(struct mqtt_props *props, uint8_t *room, size_t len)
{
    struct writer w = writer_of(room, len);
    struct reader r = reader_of(props->all);
    struct mqtt_one one;
    unsigned seen[MQTT_PROPERTIES] = {0};
    while (mqtt_property_next(&r, &one))
        seen[one.property]++;
    for (r = reader_of(props->all); mqtt_property_next(&r, &one);) {
        if (seen[one.property] < 2)
            continue;
        mqtt_property_put(&w, &one);
        props->present &= ~(1u << one.property);
    }
    assert_true(reader_ok(&r) && writer_ok(&w));
    props->more = writer_slice(&w);
}

static size_t encode(uint8_t *to, size_t len, enum mqtt_type type, uint8_t version, const union mqtt_fields *f)
{
    struct writer w = writer_of(to, len);
    mqtt_encode(&w, type, version, f);
    assert_true(writer_ok(&w));
    assert_int_equal(w.len, mqtt_encoded_len(type, version, f));
    return w.len;
}

static void there_and_back(enum mqtt_type type, uint8_t version, enum mqtt_sender by)
{
    uint8_t room[2][1024], turned[2][1024], bytes[4096], again[4096];
    union mqtt_fields f, g;
    struct mqtt_frame frame;
    fill(&f, type, version, by, room);
    size_t len = encode(bytes, sizeof bytes, type, version, &f);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(mqtt_cut(slice_of(bytes, cut), SIZE_MAX, &frame), MQTT_CUT_MORE);
    assert_int_equal(mqtt_cut(slice_of(bytes, len), SIZE_MAX, &frame), MQTT_CUT_OK);
    assert_int_equal(frame.len, len);
    assert_int_equal(mqtt_decode(&frame, version, by, &g), 0);
    if (version == MQTT_5 && type != MQTT_pingreq && type != MQTT_pingresp) {
        turn_props(props_of(&g, type), turned[0], 1024);
        if (type == MQTT_connect)
            turn_props(&g.connect.will_props, turned[1], 1024);
    }
    assert_int_equal(encode(again, sizeof again, type, version, &g), len);
    assert_memory_equal(bytes, again, len);
    /* cut: refused, or a shorter packet that may be as it is */
    struct slice body = frame.body;
    for (size_t cut = 0; cut < body.len; cut++) {
        frame.body = slice_of(body.ptr, cut);
        uint8_t fault = mqtt_decode(&frame, version, by, &g);
        bool may_be_short = type == MQTT_publish || type == MQTT_suback || type == MQTT_unsuback ||
                            type == MQTT_subscribe || type == MQTT_unsubscribe;
        bool ending =
            version == MQTT_5 && ((type >= MQTT_puback && type <= MQTT_pubcomp && cut <= 3) || type >= MQTT_disconnect);
        if (fault == 0)
            assert_true(may_be_short || ending);
    }
    /* longer: only where the end is payload */
    static uint8_t longer[4096];
    memcpy(longer, body.ptr, body.len);
    longer[body.len] = 0;
    frame.body = slice_of(longer, body.len + 1);
    bool takes = type == MQTT_publish || type == MQTT_suback || (type == MQTT_unsuback && version == MQTT_5);
    assert_int_equal(mqtt_decode(&frame, version, by, &g) == 0, takes);
}

static void test_every_packet(void **state)
{
    (void)state;
    for (size_t v = 0; v < ARRAY_LEN(versions); v++)
        for (unsigned type = 1; type < MQTT_TYPES; type++)
            for (unsigned by = MQTT_CLIENT; by <= MQTT_SERVER; by++)
                if (mqtt_rows[type].who & by && versions[v] >= mqtt_rows[type].first)
                    there_and_back((enum mqtt_type)type, versions[v], (enum mqtt_sender)by);
}

/* ---- faults ---- */

static uint8_t decode_bytes(uint8_t version, const void *bytes, size_t len)
{
    struct mqtt_frame frame;
    union mqtt_fields f;
    assert_int_equal(mqtt_cut(slice_of(bytes, len), SIZE_MAX, &frame), MQTT_CUT_OK);
    assert_int_equal(frame.len, len);
    return mqtt_decode(&frame, version, MQTT_CLIENT, &f);
}
#define DECODE(version, bytes) decode_bytes(version, bytes, sizeof(bytes) - 1)

static void test_flags_and_types(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        uint8_t bytes[] = {(uint8_t)first, 0};
        struct mqtt_frame frame;
        union mqtt_fields f;
        const struct mqtt_row *row = &mqtt_rows[first >> 4];
        assert_int_equal(mqtt_cut(slice_of(bytes, 2), 100, &frame), MQTT_CUT_OK);
        for (size_t v = 0; v < ARRAY_LEN(versions); v++) {
            uint8_t fault = mqtt_decode(&frame, versions[v], MQTT_CLIENT, &f);
            if (!row->name || !(row->who & MQTT_CLIENT) || (versions[v] < row->first && first >> 4 != MQTT_connect))
                assert_int_equal(fault, MQTT_R_protocol_error);
            else if (row->flags != MQTT_FLAGS_ANY && (first & 15) != row->flags)
                assert_int_equal(fault, MQTT_R_malformed);
            else if (first >> 4 == MQTT_pingreq || first >> 4 == MQTT_disconnect || first >> 4 == MQTT_auth)
                assert_int_equal(fault, 0);
            else
                assert_int_equal(fault, MQTT_R_malformed);
        }
    }
}

static void test_cutting(void **state)
{
    (void)state;
    struct mqtt_frame frame;
    assert_int_equal(mqtt_cut(slice_of("\x30\xff\xff\xff\xff", 5), SIZE_MAX, &frame), MQTT_CUT_BAD);
    assert_int_equal(mqtt_cut(slice_of("\x30\xff\xff\xff\xff\x01", 6), SIZE_MAX, &frame), MQTT_CUT_BAD);
    assert_int_equal(mqtt_cut(slice_of("\x30\xff\xff\xff", 4), SIZE_MAX, &frame), MQTT_CUT_MORE);
    assert_int_equal(frame.len, 0);
    assert_int_equal(frame.type, MQTT_publish);
    assert_int_equal(mqtt_cut(slice_of("\x30\xff\xff\xff\x7f", 5), SIZE_MAX, &frame), MQTT_CUT_MORE);
    assert_int_equal(frame.len, 5 + (size_t)MQTT_REMAINING_MAX);
    assert_int_equal(mqtt_cut(slice_of("\x30\xff\xff\xff\x7f", 5), 1000, &frame), MQTT_CUT_LARGE);
    assert_int_equal(mqtt_cut(slice_of("\x30\x03", 2), 5, &frame), MQTT_CUT_MORE);
    assert_int_equal(mqtt_cut(slice_of("\x30\x03", 2), 4, &frame), MQTT_CUT_LARGE);
}

#define MQTT4 "\0\4MQTT\4"
#define MQTT5 "\0\4MQTT\5"

static void test_connect_faults(void **state)
{
    (void)state;
    assert_int_equal(DECODE(0, "\x10\x0d" MQTT4 "\2\0\x3c\0\1a"), 0);
    assert_int_equal(DECODE(0, "\x10\x0e" MQTT5 "\2\0\x3c\0\0\1a"), 0);
    assert_int_equal(DECODE(0, "\x10\x0f\0\6MQIsdp\3\2\0\x3c\0\1a"), 0);
    assert_int_equal(DECODE(0, "\x10\x0d\0\4MQTT\x84\2\0\x3c\0\1a"), 0); /* a bridge */
    assert_int_equal(DECODE(0, "\x10\x0d\0\4MQTt\4\2\0\x3c\0\1a"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(0, "\x10\x0d\0\4MQTT\3\2\0\x3c\0\1a"), MQTT_R_unsupported_version);
    assert_int_equal(DECODE(0, "\x10\x0d\0\4MQTT\6\2\0\x3c\0\1a"), MQTT_R_unsupported_version);
    assert_int_equal(DECODE(0, "\x10\x0d\0\4MQTT\x85\2\0\x3c\0\1a"), MQTT_R_unsupported_version);
    assert_int_equal(DECODE(0, "\x10\x0f\0\6MQIsdp\4\2\0\x3c\0\1a"), MQTT_R_unsupported_version);
    static const uint8_t bad_flags[] = {0x03, 0x0a, 0x12, 0x22, 0x1e, 0x42};
    for (size_t i = 0; i < sizeof bad_flags; i++) {
        uint8_t bytes[] = "\x10\x19" MQTT4 "\2\0\x3c\0\1a\0\1w\0\1p\0\1u\0\1p";
        bytes[9] = bad_flags[i];
        assert_int_equal(DECODE(0, bytes), MQTT_R_malformed);
    }
    assert_int_equal(DECODE(0, "\x10\x0f\0\6MQIsdp\3\3\0\x3c\0\1a"), 0);       /* 3.1 says nothing of the lowest bit */
    assert_int_equal(DECODE(0, "\x10\x11" MQTT5 "\x42\0\x3c\0\0\1a\0\1p"), 0); /* a password alone */
    assert_int_equal(DECODE(0, "\x10\x0e" MQTT4 "\2\0\x3c\0\1a!"), MQTT_R_malformed);           /* bytes left over */
    assert_int_equal(DECODE(0, "\x10\x0d" MQTT4 "\2\0\x3c\0\1\0"), MQTT_R_malformed);           /* U+0000 */
    assert_int_equal(DECODE(0, "\x10\x0f" MQTT4 "\2\0\x3c\0\3\xed\xa0\x80"), MQTT_R_malformed); /* a surrogate */
    assert_int_equal(DECODE(0, "\x10\x0f" MQTT4 "\2\0\x3c\0\3\xef\xbf\xbf"), 0); /* U+FFFF is none of our business */
    assert_int_equal(DECODE(0, "\x10\x1d" MQTT5 "\2\0\x3c\x0f\x11\0\0\0\1\x11\0\0\0\1\x11\0\0\0\1\0\1a"),
                     MQTT_R_protocol_error);
    assert_int_equal(DECODE(0, "\x10\x11" MQTT5 "\2\0\x3c\3\x21\0\0\0\1a"),
                     MQTT_R_protocol_error); /* receive maximum 0 */
    assert_int_equal(DECODE(0, "\x10\x13" MQTT5 "\2\0\x3c\5\x27\0\0\0\0\0\1a"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(0, "\x10\x10" MQTT5 "\2\0\x3c\2\x17\2\0\1a"), MQTT_R_protocol_error); /* a flag of 2 */
    assert_int_equal(DECODE(0, "\x10\x10" MQTT5 "\2\0\x3c\2\x7d\2\0\1a"), MQTT_R_malformed);      /* no such property */
    assert_int_equal(DECODE(0, "\x10\x10" MQTT5 "\2\0\x3c\2\x01\1\0\1a"), MQTT_R_malformed);      /* not here */
    assert_int_equal(DECODE(0, "\x10\x0f" MQTT5 "\2\0\x3c\x80\0\0\1a"),
                     MQTT_R_malformed); /* a length of 0 in two bytes */
    assert_int_equal(DECODE(0, "\x10\x0e" MQTT5 "\2\0\x3c\1\0\1a"), MQTT_R_malformed);
}

static void test_publish_faults(void **state)
{
    (void)state;
    assert_int_equal(DECODE(4, "\x30\x05\0\1abc"), 0);
    assert_int_equal(DECODE(5, "\x30\x06\0\1a\0bc"), 0);
    assert_int_equal(DECODE(4, "\x36\x07\0\1a\0\1bc"), MQTT_R_malformed); /* QoS 3 */
    assert_int_equal(DECODE(4, "\x32\x07\0\1a\0\0bc"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(4, "\x38\x05\0\1abc"), MQTT_R_malformed); /* DUP with QoS 0 */
    assert_int_equal(DECODE(4, "\x30\x01\0"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\x30\x05\0\4abc"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\x32\x04\0\1a\0"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\x30\x05\0\3a\0b"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\x30\x05\0\3\xed\xbf\xbf"), MQTT_R_malformed);
    assert_int_equal(DECODE(5, "\x30\x06\0\1a\2\x0b\1"), MQTT_R_protocol_error); /* only a server says so */
    assert_int_equal(DECODE(5, "\x30\x06\0\1a\2\x0b\0"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(5, "\x30\x08\0\1a\4\1\1\1\0"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(5, "\x30\x04\0\1a\x80"), MQTT_R_malformed);
}

static void test_subscribe_faults(void **state)
{
    (void)state;
    assert_int_equal(DECODE(4, "\x82\x06\0\1\0\1a\2"), 0);
    assert_int_equal(DECODE(4, "\x82\x06\0\1\0\1a\3"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\x82\x06\0\1\0\1a\4"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\x82\x06\0\0\0\1a\2"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\x82\x02\0\1"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\x82\x05\0\1\0\1a"), MQTT_R_malformed);
    assert_int_equal(DECODE(5, "\x82\x07\0\1\0\0\1a\x2e"), 0);
    assert_int_equal(DECODE(5, "\x82\x07\0\1\0\0\1a\x03"), MQTT_R_malformed);
    assert_int_equal(DECODE(5, "\x82\x07\0\1\0\0\1a\x30"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(5, "\x82\x07\0\1\0\0\1a\x40"), MQTT_R_malformed);
    assert_int_equal(DECODE(5, "\x82\x07\0\1\0\0\1a\x80"), MQTT_R_malformed);
    assert_int_equal(DECODE(5, "\x82\x09\0\1\2\x0b\0\0\1a\2"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(5, "\x82\x0b\0\1\4\x0b\1\x0b\1\0\1a\2"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(5, "\x82\x0c\0\1\5\x0b\xff\xff\xff\x7f\0\1a\2"), 0);
    assert_int_equal(DECODE(5, "\x82\x0d\0\1\6\x0b\xff\xff\xff\xff\1\0\1a\2"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\xa2\x02\0\1"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\xa2\x05\0\1\0\1a"), 0);
}

static void test_ack_faults(void **state)
{
    (void)state;
    assert_int_equal(DECODE(4, "\x40\x02\0\1"), 0);
    assert_int_equal(DECODE(4, "\x40\x02\0\0"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(4, "\x40\x03\0\1\0"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\x40\x01\0"), MQTT_R_malformed);
    assert_int_equal(DECODE(5, "\x40\x03\0\1\x10"), 0);
    assert_int_equal(DECODE(5, "\x40\x03\0\1\x92"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(5, "\x62\x03\0\1\x92"), 0);
    assert_int_equal(DECODE(5, "\x40\x04\0\1\0\0"), 0);
    assert_int_equal(DECODE(5, "\x40\x05\0\1\0\0!"), MQTT_R_malformed);
    assert_int_equal(DECODE(4, "\xe0\x00"), 0);
    assert_int_equal(DECODE(4, "\xe0\x01\0"), MQTT_R_malformed);
    assert_int_equal(DECODE(5, "\xe0\x01\4"), 0);
    assert_int_equal(DECODE(5, "\xe0\x01\1"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(5, "\xe0\x07\0\5\x11\0\0\0\5"), 0);
    assert_int_equal(DECODE(4, "\xf0\x00"), MQTT_R_protocol_error);
    assert_int_equal(DECODE(4, "\xc0\x01!"), MQTT_R_malformed);
}

static void test_tables(void **state)
{
    (void)state;
    unsigned count = 0;
    for (unsigned i = 0; i < MQTT_PROPERTIES; i++)
        assert_true(mqtt_property_rows[i].id && mqtt_property_rows[i].packets);
    for (unsigned code = 0; code < 256; code++)
        count += mqtt_reason_text((uint8_t)code) != NULL;
    assert_int_equal(count, 43);
    assert_int_equal(mqtt_reason_connack(MQTT_R_not_authorized), 5);
    assert_int_equal(mqtt_reason_connack(MQTT_R_malformed), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_packet),   cmocka_unit_test(test_flags_and_types),
        cmocka_unit_test(test_cutting),        cmocka_unit_test(test_connect_faults),
        cmocka_unit_test(test_publish_faults), cmocka_unit_test(test_subscribe_faults),
        cmocka_unit_test(test_ack_faults),     cmocka_unit_test(test_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
