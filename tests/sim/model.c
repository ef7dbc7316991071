/* The reference model, see model.h.
 *
 * What must hold after a crash, for every queue and message:
 *   M1  what is found was published to that queue, whole (CRC and id), and is not GONE (I2, I6)
 *   M2  what is SURE and not LEAVING is found (I1); SURE comes from a confirm, a commit-ok, a delivery or an earlier find
 *   M3  a transient message is not found, but for the quorum queue
 *   M4  a message that moves (dead letter, delay) is found in exactly one of its two places, never in both (I7 of a MOVE)
 *   M5  an unanswered commit is found whole or not at all: its publishes and its acks (I7)
 *   M7  a key whose message was accepted lets no other in, one whose message was lost or was transient lets the next one in (D1)
 *   M8  streams: model_log.c
 *   M6  messages of one queue stand in the order in which the commands were sent (I3)
 * What is found is SURE from then on; what is not found is GONE for ever.
 */
#include "model.h"

#include <stdarg.h>
#include <stdio.h>

void model_init(struct model *m)
{
    memset(m, 0, sizeof *m);
}

void model_fault(struct model *m, const char *format, ...)
{
    va_list args;
    if (m->wrong[0])
        return;
    va_start(args, format);
    vsnprintf(m->wrong, sizeof m->wrong, format, args);
    va_end(args);
}

/* CRC-32, eight bytes at a time: neither the code nor the polynomial that the journal uses. */
static void crc32_tables(uint32_t table[8][256])
{
    for (uint32_t i = 0; i < 256; i++) {
        table[0][i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[0][i] = table[0][i] >> 1 ^ (table[0][i] & 1 ? 0xedb88320u : 0);
    }
    for (int t = 1; t < 8; t++)
        for (uint32_t i = 0; i < 256; i++)
            table[t][i] = table[t - 1][i] >> 8 ^ table[0][table[t - 1][i] & 255];
}

static uint32_t crc32_of(uint32_t crc, const uint8_t *bytes, size_t len)
{
    static uint32_t table[8][256];
    if (!table[0][1])
        crc32_tables(table);
    crc = ~crc;
    for (; len >= 8; bytes += 8, len -= 8) {
        uint32_t low, high;
        memcpy(&low, bytes, 4);
        memcpy(&high, bytes + 4, 4);
        low ^= crc;
        crc = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^ table[4][low >> 24] ^
              table[3][high & 255] ^ table[2][high >> 8 & 255] ^ table[1][high >> 16 & 255] ^ table[0][high >> 24];
    }
    while (len--)
        crc = crc >> 8 ^ table[0][(crc ^ *bytes++) & 255];
    return ~crc;
}

static uint32_t body_crc(const uint8_t *body, size_t len)
{
    return crc32_of(crc32_of(0, body, 8), body + 12, len - 12);
}

size_t model_body(uint64_t id, uint32_t len, uint8_t *ret)
{
    memcpy(ret, &id, 8);
    for (uint32_t i = 12; i < len; i++)
        ret[i] = (uint8_t)(id * 31 + i * (i >> 7 | 1));
    uint32_t crc = body_crc(ret, len);
    memcpy(ret + 8, &crc, 4);
    return len;
}

uint64_t model_identify(struct model *m, struct slice body)
{
    uint64_t id;
    uint32_t crc;
    if (body.len < 12)
        return 0;
    memcpy(&id, body.ptr, 8);
    memcpy(&crc, body.ptr + 8, 4);
    if (id == 0 || id > m->count || body.len != m->messages[id].len || crc != body_crc(body.ptr, body.len))
        return 0;
    return id;
}

/* ---- what the client does and is told ---- */

static bool lasts(const struct message *msg, enum place place)
{
    return msg->persistent || place == PLACE_QUORUM || place == PLACE_FED || place >= PLACE_LOG;
}

/* The message is on its way to the place. */
static void sent(struct message *msg, enum place p)
{
    msg->known[p] = KNOWN_SENT;
    if (p == PLACE_SHORT || p == PLACE_TTL) { /* may be dropped or expire at any time: into the dead letter queue */
        msg->known[p] |= KNOWN_LEAVING;
        msg->known[PLACE_DEAD] = KNOWN_SENT | KNOWN_LEAVING;
    }
    if (p == PLACE_DELAYED) {
        msg->known[p] |= KNOWN_LEAVING;
        msg->known[PLACE_WAITING] = KNOWN_SENT | KNOWN_LEAVING;
    }
}

uint64_t model_published(struct model *m, unsigned places, bool persistent, uint32_t len, bool in_tx)
{
    uint64_t id = ++m->count;
    struct message *msg = &m->messages[id];
    *msg = (struct message){.len = len, .persistent = persistent};
    for (int p = 0; p < PLACE_COUNT; p++) {
        if (!(places & 1u << p))
            continue;
        if (in_tx) {
            m->open.published[m->open.published_count] = id;
            m->open.where[m->open.published_count++] = (enum place)p;
            continue;
        }
        sent(msg, (enum place)p);
    }
    if (!in_tx)
        msg->order = ++m->order;
    return id;
}

uint64_t model_published_once(struct model *m, unsigned slot, bool persistent, uint32_t len, uint32_t *ret_key)
{
    struct model_key *key = &m->keys[slot];
    bool fresh = key->owner == 0;
    uint64_t id = model_published(m, fresh ? 1u << PLACE_ONCE : 0, persistent, len, false);
    if (fresh)
        key->owner = id;
    else
        m->duplicates++;
    *ret_key = key->number * MODEL_KEYS + slot;
    return id;
}

/* What a key is worth after a restart. Found, or sure once: it counts. A transient message takes its key along. What was not
 * sure and is not there is lost with its key, but if something else may have taken it away nobody can tell. */
static void settle_keys(struct model *m)
{
    for (unsigned i = 0; i < MODEL_KEYS; i++) {
        struct model_key *key = &m->keys[i];
        const struct message *msg = &m->messages[key->owner];
        uint8_t known = msg->known[PLACE_ONCE];
        if (!key->owner || (msg->persistent && (known & (KNOWN_FOUND | KNOWN_SURE))))
            continue;
        if (msg->persistent && ((known & KNOWN_LEAVING) || m->one_may_lack[PLACE_ONCE]))
            key->number++;
        key->owner = 0;
    }
}

void model_confirmed(struct model *m, uint64_t id)
{
    for (int p = 0; p < PLACE_COUNT; p++)
        if ((m->messages[id].known[p] & KNOWN_SENT) && lasts(&m->messages[id], (enum place)p))
            m->messages[id].known[p] |= KNOWN_SURE;
}

/* The place that shares a moving message with this one; PLACE_COUNT: none. */
static enum place partner(const struct message *msg, enum place place)
{
    switch (place) {
    case PLACE_SHORT:
    case PLACE_TTL: return PLACE_DEAD;
    case PLACE_DELAYED: return PLACE_WAITING;
    case PLACE_WAITING: return PLACE_DELAYED;
    case PLACE_DEAD: return msg->known[PLACE_SHORT] ? PLACE_SHORT : msg->known[PLACE_TTL] ? PLACE_TTL : PLACE_COUNT;
    default: return PLACE_COUNT;
    }
}

void model_gone(struct model *m, enum place place, uint64_t id)
{
    struct message *msg = &m->messages[id];
    enum place other = partner(msg, place);
    msg->known[place] |= KNOWN_GONE;
    msg->gone_life[place] = m->life;
    if (other != PLACE_COUNT) {
        msg->known[other] |= KNOWN_GONE;
        msg->gone_life[other] = m->life;
    }
}

void model_leaving(struct model *m, enum place place, uint64_t id)
{
    struct message *msg = &m->messages[id];
    msg->known[place] |= KNOWN_LEAVING;
    enum place other = partner(msg, place);
    if (other != PLACE_COUNT) { /* the pair is no longer sure to be anywhere */
        msg->known[place] |= KNOWN_TAKEN;
        msg->known[other] |= KNOWN_TAKEN;
    }
}

void model_delivered(struct model *m, enum place place, struct slice body, bool redelivered, uint64_t *ret_id)
{
    uint64_t id = model_identify(m, body);
    *ret_id = id;
    if (!id) {
        model_fault(m, "delivered from place %d: a body of %zu bytes that nobody published", place, body.len);
        return;
    }
    struct message *msg = &m->messages[id];
    uint8_t *known = &msg->known[place];
    if (!(*known & KNOWN_SENT))
        model_fault(m, "message %llu delivered from place %d, where it was never sent", (unsigned long long)id, place);
    if ((*known & KNOWN_GONE) && msg->gone_life[place] < m->life)
        model_fault(m, "message %llu delivered from place %d, from where it was gone", (unsigned long long)id, place);
    if ((*known & KNOWN_DELIVERED) && !redelivered)
        model_fault(m, "message %llu delivered again from place %d without redelivered", (unsigned long long)id, place);
    *known |= KNOWN_DELIVERED;
    if (lasts(msg, place) && partner(msg, place) == PLACE_COUNT)
        *known |= KNOWN_SURE;
}

void model_all_leaving(struct model *m, enum place place)
{
    for (uint64_t id = 1; id <= m->count; id++)
        if (m->messages[id].known[place] & KNOWN_SENT)
            model_leaving(m, place, id);
}

void model_all_gone(struct model *m, enum place place)
{
    for (uint64_t id = 1; id <= m->count; id++)
        if (m->messages[id].known[place] & KNOWN_SENT) {
            m->messages[id].known[place] |= KNOWN_GONE;
            m->messages[id].gone_life[place] = m->life;
        }
}

/* ---- transactions ---- */

void model_tx_acked(struct model *m, enum place place, uint64_t id)
{
    m->open.acked[m->open.acked_count] = id;
    m->open.acked_where[m->open.acked_count++] = place;
}

void model_commit(struct model *m)
{
    m->committing = m->open;
    m->open = (struct model_tx){0};
    m->commit_sent = true;
    for (unsigned i = 0; i < m->committing.published_count; i++) {
        struct message *msg = &m->messages[m->committing.published[i]];
        sent(msg, m->committing.where[i]);
        msg->order = ++m->order;
    }
}

void model_committed(struct model *m)
{
    for (unsigned i = 0; i < m->committing.published_count; i++)
        model_confirmed(m, m->committing.published[i]);
    for (unsigned i = 0; i < m->committing.acked_count; i++)
        model_gone(m, m->committing.acked_where[i], m->committing.acked[i]);
    m->commit_sent = false;
}

void model_rolled_back(struct model *m)
{
    m->open = (struct model_tx){0};
}

/* ---- the comparison ---- */

void model_compare(struct model *m)
{
    for (uint64_t id = 1; id <= m->count; id++)
        for (int p = 0; p < PLACE_COUNT; p++)
            m->messages[id].known[p] &= (uint8_t)~KNOWN_FOUND;
    memset(m->found_order, 0, sizeof m->found_order);
}

void model_found(struct model *m, enum place place, struct slice body)
{
    uint64_t id = model_identify(m, body);
    if (!id) {
        model_fault(m, "found in place %d: a body of %zu bytes that nobody published", place, body.len);
        return;
    }
    struct message *msg = &m->messages[id];
    if (msg->known[place] & KNOWN_FOUND)
        model_fault(m, "message %llu is twice in place %d", (unsigned long long)id, place);
    if (!(msg->known[place] & KNOWN_SENT))
        model_fault(m, "message %llu is in place %d, where it was never sent", (unsigned long long)id, place);
    if (msg->known[place] & KNOWN_GONE)
        model_fault(m, "message %llu is back in place %d, from where it was gone", (unsigned long long)id, place);
    if (!lasts(msg, place))
        model_fault(m, "transient message %llu survived in place %d", (unsigned long long)id, place);
    if (place == PLACE_PLAIN || place == PLACE_FAN || place == PLACE_QUORUM || place == PLACE_ONCE ||
        place == PLACE_RETRY) {
        if (msg->order < m->found_order[place])
            model_fault(m, "message %llu stands out of order in place %d", (unsigned long long)id, place);
        m->found_order[place] = msg->order;
    }
    msg->known[place] |= KNOWN_FOUND;
}

static void check_pair(struct model *m, uint64_t id, enum place a, enum place b)
{
    const struct message *msg = &m->messages[id];
    unsigned found = ((msg->known[a] & KNOWN_FOUND) != 0) + ((msg->known[b] & KNOWN_FOUND) != 0);
    bool sure = (msg->known[a] & KNOWN_SURE) && !((msg->known[a] | msg->known[b]) & (KNOWN_GONE | KNOWN_TAKEN));
    m->groups_checked++;
    if (found > 1)
        model_fault(m, "message %llu is in both places %d and %d", (unsigned long long)id, a, b);
    if (sure && found == 0)
        model_fault(m, "message %llu was sure and is in neither place %d nor %d", (unsigned long long)id, a, b);
}

static void check_message(struct model *m, uint64_t id, const bool exists[PLACE_COUNT], unsigned *lacking)
{
    const struct message *msg = &m->messages[id];
    for (int p = 0; p < PLACE_COUNT; p++) {
        m->compared++;
        m->gone_checked += (msg->known[p] & KNOWN_GONE) != 0;
        if ((msg->known[p] & (KNOWN_SURE | KNOWN_LEAVING | KNOWN_GONE)) != KNOWN_SURE || !exists[p])
            continue;
        m->sure_checked++;
        if (!(msg->known[p] & KNOWN_FOUND) && ++lacking[p] > (m->one_may_lack[p] ? 1u : 0u))
            model_fault(m, "message %llu was sure in place %d and is lost", (unsigned long long)id, p);
    }
    if (msg->known[PLACE_SHORT])
        check_pair(m, id, PLACE_SHORT, PLACE_DEAD);
    if (msg->known[PLACE_TTL])
        check_pair(m, id, PLACE_TTL, PLACE_DEAD);
    if (msg->known[PLACE_WAITING])
        check_pair(m, id, PLACE_WAITING, PLACE_DELAYED);
}

/* M5. What a consumer took meanwhile, or a queue that went, says nothing; live: transient messages are there too. */
static void check_commit(struct model *m, const bool exists[PLACE_COUNT], bool live)
{
    const struct model_tx *tx = &m->committing;
    unsigned there = 0, not_there = 0;
    for (unsigned i = 0; i < tx->published_count; i++) {
        const struct message *msg = &m->messages[tx->published[i]];
        uint8_t known = msg->known[tx->where[i]];
        if (tx->where[i] == PLACE_DELAYED) { /* on its way, or there: it leaves only for the other */
            known = (known | msg->known[PLACE_WAITING]) & (uint8_t)~KNOWN_LEAVING;
            if (known & KNOWN_TAKEN)
                continue;
        }
        if ((known & (KNOWN_LEAVING | KNOWN_GONE)) || !exists[tx->where[i]] || (!live && !lasts(msg, tx->where[i])))
            continue;
        *(known & KNOWN_FOUND ? &there : &not_there) += 1;
    }
    for (unsigned i = 0; i < tx->acked_count; i++) {
        uint8_t known = m->messages[tx->acked[i]].known[tx->acked_where[i]];
        if (!(known & KNOWN_SURE) || (known & KNOWN_GONE) || !exists[tx->acked_where[i]])
            continue;
        *(known & KNOWN_FOUND ? &not_there : &there) += 1;
    }
    m->tx_checked++;
    if (there && not_there)
        model_fault(m, "a transaction of %u publishes and %u acks took effect in part", tx->published_count,
                    tx->acked_count);
}

void model_settle(struct model *m, const bool exists[PLACE_COUNT])
{
    unsigned lacking[PLACE_COUNT] = {0};
    for (int p = 0; p < PLACE_COUNT; p++)
        if (p != PLACE_WAITING && !m->doubtful[p] && exists[p] != m->exists[p])
            model_fault(m, "queue of place %d %s", p, exists[p] ? "is back" : "is lost");
    if (m->commit_sent) {
        check_commit(m, exists, false);
        for (unsigned i = 0; i < m->committing.acked_count; i++)
            m->messages[m->committing.acked[i]].known[m->committing.acked_where[i]] |= KNOWN_LEAVING;
    }
    for (uint64_t id = 1; id <= m->count; id++)
        check_message(m, id, exists, lacking);
    settle_keys(m);
    m->life++;
    for (uint64_t id = 1; id <= m->count; id++)
        for (int p = 0; p < PLACE_COUNT; p++) {
            uint8_t *known = &m->messages[id].known[p];
            enum place other = partner(&m->messages[id], (enum place)p);
            bool paired_found = other != PLACE_COUNT && (m->messages[id].known[other] & KNOWN_FOUND);
            if (*known & KNOWN_FOUND)
                *known = (uint8_t)((*known & (KNOWN_DELIVERED | KNOWN_FOUND)) | KNOWN_SENT | KNOWN_SURE |
                                   (other != PLACE_COUNT ? KNOWN_LEAVING : 0));
            else if (paired_found && (p == PLACE_DEAD || p == PLACE_DELAYED)) /* it may still come here */
                *known = (*known & KNOWN_FOUND) | KNOWN_SENT | KNOWN_SURE | KNOWN_LEAVING;
            else if (*known)
                *known |= KNOWN_GONE;
        }
    for (int p = 0; p < PLACE_COUNT; p++) {
        m->exists[p] = exists[p];
        m->doubtful[p] = m->one_may_lack[p] = false;
    }
    m->open = (struct model_tx){0};
    m->commit_sent = false;
}

void model_seen(struct model *m, enum place place, struct slice body)
{
    uint64_t id = model_identify(m, body);
    if (id)
        m->messages[id].known[place] |= KNOWN_FOUND;
}

void model_commit_is_whole(struct model *m, const bool exists[PLACE_COUNT])
{
    if (m->commit_sent)
        check_commit(m, exists, true);
}
