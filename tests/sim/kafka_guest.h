/* kafka_guest: a Kafka client of a world, beside its AMQP client: it asks in any version and takes the answers in order. One thread.
 *
 * Life cycle: guest_connect → { guest_ask, guest_answer }* → guest_end.
 */
#ifndef MILLRACE_TESTS_SIM_KAFKA_GUEST_H
#define MILLRACE_TESTS_SIM_KAFKA_GUEST_H

#include "proto/kafka/api.h"
#include "proto/kafka/kafka_int.h"
#include "world.h"

struct guest {
    struct world *w;
    struct kafka_options options;
    struct engine *engine; /* NULL: lost */
    uint8_t *in, *out;
    size_t in_len, out_len;
    struct arena arena; /* of answers */
    int32_t asked, answered;
    const struct kafka_api *api[64]; /* of what was asked, by correlation id */
    struct kafka_form form[64];
};

/* False: no memory for a connection; guest_end all the same. */
bool guest_connect(struct guest *g, struct world *w);
void guest_end(struct guest *g);
/* One round of everything, with its connection. */
void guest_turn(struct guest *g);
void guest_ask(struct guest *g, int16_t key, uint8_t version, const void *message);
/* The answer to the oldest question, until the next call; NULL: the connection or the world is lost, or there is no memory to read it. */
const void *guest_answer(struct guest *g);

#define ANSWER(g, name, version, ...)                                                                                  \
    (guest_ask(g, KAFKA_API_##name, version, &(struct kafka_##name##_request){__VA_ARGS__}),                           \
     (const struct kafka_##name##_response *)guest_answer(g))

#endif
