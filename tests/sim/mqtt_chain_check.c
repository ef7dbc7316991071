/* What MQTT's clients know, and what they find against it; see mqtt_chain.h.
 *
 * With QoS 1 a letter may lie in its queue as often as it was sent, with QoS 2 once. It is sure when its publisher has his answer or it was
 * delivered, until somebody acknowledges it. */
#include <stdio.h>
#include <stdlib.h>

#include "mqtt_chain_int.h"

const struct chain_stream chain_streams[MQTT_CHAIN_STREAMS] = {
    [STREAM_LEAST_A] = {"t/a", 1, PLACE_SESSION, false}, [STREAM_ONCE_A] = {"t/a", 2, PLACE_SESSION, false},
    [STREAM_LEAST_B] = {"t/b", 1, PLACE_SESSION, false}, [STREAM_ONCE_B] = {"t/b", 2, PLACE_SESSION, false},
    [STREAM_MOST] = {"t/b", 0, PLACE_SESSION, false},    [STREAM_JOB_LEAST] = {"j/a", 1, PLACE_GROUP, false},
    [STREAM_JOB_ONCE] = {"j/a", 2, PLACE_GROUP, false},  [STREAM_KEPT_0] = {"r/0", 1, PLACE_NONE, true},
    [STREAM_KEPT_1] = {"r/1", 2, PLACE_NONE, true},      [STREAM_KEPT_2] = {"r/2", 1, PLACE_NONE, true},
    [STREAM_KEPT_3] = {"r/3", 2, PLACE_NONE, true},      [STREAM_WILL] = {"w/w", 1, PLACE_SESSION, true},
    [STREAM_BEAT] = {"t/beat", 1, PLACE_SESSION, false}, [STREAM_END] = {"t/end", 1, PLACE_SESSION, false},
    [STREAM_JOB_END] = {"j/end", 1, PLACE_GROUP, false}, [STREAM_A_END] = {"e/a", 1, PLACE_GROUP, false},
    [STREAM_B_END] = {"e/b", 1, PLACE_GROUP, false},     [STREAM_ANCHOR] = {"r/anchor", 1, PLACE_NONE, true},
};

#define WRONG(l, ...) model_fault((l)->w->model, __VA_ARGS__)

/* ---- letters ---- */

uint32_t chain_letter(struct mqtt_chain *k, unsigned stream)
{
    if (k->count + 1 >= MQTT_CHAIN_LETTERS)
        return 0;
    k->letters[++k->count] = (struct mqtt_letter){.stream = (uint8_t)stream, .sends = 1, .copies = 1};
    k->published++;
    return k->count;
}

size_t chain_body(uint32_t letter, uint8_t ret[512])
{
    struct writer w = writer_of(ret, 512);
    writer_u32(&w, letter);
    size_t len = 4 + letter * 37 % 390;
    memset(ret + 4, (int)letter & 127, len - 4);
    return len;
}

uint32_t chain_identify(struct mqtt_life *l, struct slice topic, struct slice body)
{
    uint8_t room[512];
    struct reader r = reader_of(body);
    uint32_t letter = reader_u32(&r);
    const struct mqtt_chain *k = l->chain;
    if (!reader_ok(&r) || !letter || letter > k->count || !slice_is(topic, chain_stream_of(k, letter)->topic) ||
        !slice_equal(body, slice_of(room, chain_body(letter, room)))) {
        WRONG(l, "nobody sent what comes from %.*s: %zu bytes", SLICE_ARG(topic), body.len);
        return 0;
    }
    return letter;
}

void chain_resent(struct mqtt_chain *k, uint32_t letter)
{
    struct mqtt_letter *one = &k->letters[letter];
    k->resent++;
    if (chain_streams[one->stream].qos == 2) {
        one->copies = 1;
        return;
    }
    if (one->done)
        *one = (struct mqtt_letter){.stream = one->stream, .again = true, .seen = true, .gone = one->gone};
    one->copies++;
    one->sends++;
}

void chain_taken(struct mqtt_chain *k, uint32_t letter)
{
    struct mqtt_letter *one = &k->letters[letter];
    one->sure = !one->again;
    if (chain_streams[one->stream].retained && letter > k->kept[one->stream])
        k->kept[one->stream] = letter;
}

static bool is_second(const struct mqtt_letter *one)
{
    return one->done || (chain_streams[one->stream].qos == 0 && one->fresh);
}

void chain_got(struct mqtt_life *l, unsigned client, uint32_t letter, bool dup)
{
    struct mqtt_chain *k = l->chain;
    struct mqtt_letter *one = &k->letters[letter];
    unsigned place = chain_streams[one->stream].place;
    k->got++;
    if (place != (client == CHAIN_SUB ? PLACE_SESSION : PLACE_GROUP))
        WRONG(l, "letter %u comes to client %u", letter, client);
    if (is_second(one))
        WRONG(l, "letter %u of QoS %u comes to client %u again", letter, chain_streams[one->stream].qos, client);
    if (!dup && ++one->fresh > one->sends)
        WRONG(l, "letter %u comes %u times without DUP", letter, one->fresh);
    if (place == PLACE_SESSION && !one->seen) {
        if (letter < k->top[one->stream])
            WRONG(l, "letter %u comes behind %u", letter, k->top[one->stream]);
        k->top[one->stream] = letter;
    }
    one->seen = true;
    one->sure = !one->again && chain_streams[one->stream].qos;
}

void chain_acking(struct mqtt_chain *k, uint32_t letter)
{
    struct mqtt_letter *one = &k->letters[letter];
    one->acking = true;
    one->acked_at = ++k->clock;
    one->once |= one->copies > 1;
}

/* Another member of the group has done it: who holds a packet id of it forgets that. */
static void over(struct mqtt_chain *k, uint32_t letter)
{
    k->letters[letter].done = true;
    for (unsigned client = CHAIN_A; client <= CHAIN_B; client++)
        for (uint32_t i = k->minds[client].rec_count; i-- > 0;)
            if (k->minds[client].recs[i].letter == letter)
                chain_drop(k, client, k->minds[client].recs[i].id);
}

void chain_sealed(struct mqtt_chain *k, uint32_t letter)
{
    struct mqtt_letter *one = &k->letters[letter];
    if (one->done)
        return;
    one->acking = false;
    one->once = true;
    if (one->copies)
        one->copies--;
    if (!one->copies)
        over(k, letter);
}

void chain_sealed_between(struct mqtt_chain *k, unsigned client, uint32_t since, uint32_t until)
{
    unsigned place = client == CHAIN_SUB ? PLACE_SESSION : PLACE_GROUP;
    for (uint32_t letter = 1; letter <= k->count; letter++) {
        const struct mqtt_letter *one = &k->letters[letter];
        if (one->acking && one->acked_at > since && one->acked_at < until &&
            chain_streams[one->stream].place == place && chain_streams[one->stream].qos == 1)
            chain_sealed(k, letter);
    }
}

/* ---- packet ids of QoS 2 ---- */

bool chain_holds(const struct mqtt_chain *k, unsigned client, uint16_t id, uint32_t *ret_letter)
{
    const struct mqtt_mind *mind = &k->minds[client];
    for (uint32_t i = 0; i < mind->rec_count; i++)
        if (mind->recs[i].id == id) {
            *ret_letter = mind->recs[i].letter;
            return true;
        }
    return false;
}

void chain_hold(struct mqtt_chain *k, unsigned client, uint16_t id, uint32_t letter)
{
    struct mqtt_mind *mind = &k->minds[client];
    if (mind->rec_count == MQTT_CHAIN_RECS)
        abort();
    mind->recs[mind->rec_count].letter = letter;
    mind->recs[mind->rec_count].back = false;
    mind->recs[mind->rec_count++].id = id;
}

void chain_drop(struct mqtt_chain *k, unsigned client, uint16_t id)
{
    struct mqtt_mind *mind = &k->minds[client];
    for (uint32_t i = 0; i < mind->rec_count; i++)
        if (mind->recs[i].id == id) {
            mind->recs[i] = mind->recs[--mind->rec_count];
            return;
        }
}

/* ---- wills ---- */

void chain_will_cut(struct mqtt_chain *k)
{
    if (k->will && k->will_armed)
        chain_taken(k, k->will);
    k->will = 0;
    k->will_armed = false;
}

static bool is_owed(const struct mqtt_letter *one)
{
    return one->sure && !one->acking && !one->once && !one->done && !one->found;
}

bool chain_will_missing(const struct mqtt_chain *k)
{
    for (uint32_t letter = 1; letter <= k->count; letter++)
        if (k->letters[letter].stream == STREAM_WILL && is_owed(&k->letters[letter]))
            return true;
    return false;
}

/* ---- the comparison ---- */

void chain_compare_begin(struct mqtt_chain *k)
{
    for (uint32_t letter = 1; letter <= k->count; letter++)
        k->letters[letter].found = 0;
    for (unsigned client = 0; client < CHAIN_CLIENTS; client++)
        for (uint32_t i = 0; i < k->minds[client].rec_count; i++)
            k->minds[client].recs[i].back = false;
}

/* What a client holds without a PUBREL is on its way to it again, by that, or by the message; also what came from a group (4.8.2). */
static void compare_ids(struct mqtt_life *l, unsigned client)
{
    struct mqtt_chain *k = l->chain;
    struct mqtt_mind *mind = &k->minds[client];
    for (uint32_t i = 0; i < mind->rec_count; i++)
        if (!mind->recs[i].back)
            WRONG(l, "client %u holds packet id %u of letter %u, and neither PUBREL nor PUBLISH comes", client,
                  mind->recs[i].id, mind->recs[i].letter);
}

static void compare_letter(struct mqtt_life *l, uint32_t letter)
{
    struct mqtt_letter *one = &l->chain->letters[letter];
    if (chain_streams[one->stream].place == PLACE_NONE || one->done)
        return;
    if (one->found > one->copies)
        WRONG(l, "letter %u is there %u times and was sent %u times", letter, one->found, one->sends);
    if (is_owed(one))
        WRONG(l, "letter %u was %s and is lost", letter, one->seen ? "delivered" : "acknowledged");
    if (one->found)
        one->copies = one->found;
    else if (one->acking || one->once)
        over(l->chain, letter);
    else if (one->stream == STREAM_WILL)
        return; /* it comes by itself, now or later, or never */
    else if (one->final || chain_streams[one->stream].qos == 0)
        one->done = true;
    else
        one->copies = 0;
}

void chain_compare(struct mqtt_life *l)
{
    struct mqtt_chain *k = l->chain;
    for (unsigned client = CHAIN_SUB; client <= CHAIN_B; client++)
        compare_ids(l, client);
    for (uint32_t letter = 1; letter <= k->count; letter++)
        compare_letter(l, letter);
    k->compared += k->count;
}

static bool may_be_none(const struct mqtt_chain *k, unsigned stream)
{
    if (!k->kept[stream])
        return true;
    for (uint32_t letter = k->kept[stream]; letter <= k->count; letter++)
        if (k->letters[letter].stream == stream && k->letters[letter].gone)
            return true;
    return false;
}

void chain_compare_values(struct mqtt_life *l)
{
    struct mqtt_chain *k = l->chain;
    for (unsigned stream = 0; stream < MQTT_CHAIN_STREAMS; stream++) {
        uint32_t value = l->values[stream];
        if (!chain_streams[stream].retained)
            continue;
        k->values++;
        if (!value && !may_be_none(k, stream))
            WRONG(l, "%s has no retained value; letter %u was acknowledged", chain_streams[stream].topic,
                  k->kept[stream]);
        else if (value && (k->letters[value].gone || value < k->kept[stream]))
            WRONG(l, "%s has letter %u as its retained value; %u was acknowledged", chain_streams[stream].topic, value,
                  k->kept[stream]);
        else if (value &&
                 chain_streams[stream].qos == 2) /* with QoS 1 it may be sent again, and be older for a while */
            k->kept[stream] = value;
    }
}
