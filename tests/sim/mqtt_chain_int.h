/* What mqtt_chain.c and mqtt_chain_check.c share; nobody else includes it. One thread. */
#ifndef MILLRACE_TESTS_SIM_MQTT_CHAIN_INT_H
#define MILLRACE_TESTS_SIM_MQTT_CHAIN_INT_H

#include "mqtt_chain.h"

enum out_state { OUT_SENT, OUT_RECEIVED, OUT_RELEASED };
enum link_state { LINK_DOWN, LINK_CONNECTING, LINK_UP, LINK_PARTING };
enum chain_place { PLACE_NONE, PLACE_SESSION, PLACE_GROUP };

/* What one client publishes to one topic with one QoS. */
struct chain_stream {
    const char *topic;
    uint8_t qos, place;
    bool retained;
};
enum {
    STREAM_LEAST_A,
    STREAM_ONCE_A,
    STREAM_LEAST_B,
    STREAM_ONCE_B,
    STREAM_MOST,
    STREAM_JOB_LEAST,
    STREAM_JOB_ONCE,
    STREAM_KEPT_0,
    STREAM_KEPT_1,
    STREAM_KEPT_2,
    STREAM_KEPT_3,
    STREAM_WILL,
    STREAM_BEAT,
    STREAM_END,
    STREAM_JOB_END,
    STREAM_A_END,
    STREAM_B_END,
    STREAM_ANCHOR,
};
extern const struct chain_stream chain_streams[MQTT_CHAIN_STREAMS];

/* ---- mqtt_chain_check.c: what is known ---- */

static inline const struct chain_stream *chain_stream_of(const struct mqtt_chain *k, uint32_t letter)
{
    return &chain_streams[k->letters[letter].stream];
}
uint32_t chain_letter(struct mqtt_chain *k, unsigned stream); /* a new one, sent once; 0: there are no more */
size_t chain_body(uint32_t letter, uint8_t ret[512]);
/* Which letter it is; 0: none that anybody sent there, which is a fault. */
uint32_t chain_identify(struct mqtt_life *l, struct slice topic, struct slice body);
void chain_resent(struct mqtt_chain *k, uint32_t letter);
void chain_taken(struct mqtt_chain *k, uint32_t letter); /* PUBACK, PUBREC */
void chain_got(struct mqtt_life *l, unsigned client, uint32_t letter, bool dup);
void chain_acking(struct mqtt_chain *k, uint32_t letter);
void chain_sealed(struct mqtt_chain *k, uint32_t letter);
/* PUBACKs that client sent after one time and before another. */
void chain_sealed_between(struct mqtt_chain *k, unsigned client, uint32_t since, uint32_t until);
/* Whether that packet id is held; *ret_letter for which. */
bool chain_holds(const struct mqtt_chain *k, unsigned client, uint16_t id, uint32_t *ret_letter);
void chain_hold(struct mqtt_chain *k, unsigned client, uint16_t id, uint32_t letter);
void chain_drop(struct mqtt_chain *k, unsigned client, uint16_t id);
void chain_will_cut(struct mqtt_chain *k); /* its connection is lost, or the broker */
bool chain_will_missing(const struct mqtt_chain *k);
void chain_compare_begin(struct mqtt_chain *k);
void chain_compare(struct mqtt_life *l);
void chain_compare_values(struct mqtt_life *l);

#endif
