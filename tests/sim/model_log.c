/* Streams in the reference model, see model.h.
 *
 * What must hold after a crash, for every partition of a stream, beside M1 and M2:
 *   L1  offsets are dense from the start to the end, and what was seen at an offset stands there for ever
 *   L2  records of a partition stand in the order in which the commands were sent
 *   L3  the start never goes back, and only a stream with retention has one above 0; then it is not empty
 *   L4  what was delivered from an offset is never taken back: the end is behind it
 *   L5  a queue that is fed holds, with the records that its cursor has before it, each record once that was published while
 *       it was bound, less what was taken from it, or may have been by a commit without an answer
 */
#include "model.h"

static struct model_log *log_of(struct model *m, enum place place, unsigned partition)
{
    return &m->logs[place - PLACE_LOG][partition];
}

static void gone(struct model *m, enum place place, uint64_t id)
{
    struct message *msg = &m->messages[id];
    if (!(msg->known[place] & KNOWN_GONE))
        m->records_trimmed++;
    msg->known[place] |= KNOWN_GONE;
    msg->gone_life[place] = m->life;
}

void model_log_range(struct model *m, enum place place, unsigned partition, uint64_t start, uint64_t end)
{
    struct model_log *log = log_of(m, place, partition);
    unsigned long long from = start, to = end;
    if (start > end || end >= MODEL_MESSAGES || (start && (place != PLACE_KEPT || start == end)))
        model_fault(m, "place %d, partition %u: from %llu to %llu", place, partition, from, to);
    if (start < log->start)
        model_fault(m, "place %d, partition %u: begins at %llu, after %llu before", place, partition, from,
                    (unsigned long long)log->start);
    if (end < log->end)
        model_fault(m, "place %d, partition %u: ends at %llu, records up to %llu were seen", place, partition, to,
                    (unsigned long long)log->end);
    if (m->wrong[0])
        return;
    for (uint64_t at = log->start; at < start; at++)
        if (log->ids[at])
            gone(m, place, log->ids[at]);
    log->start = log->next = start;
    log->end = end;
    log->found_order = 0;
}

void model_log_found(struct model *m, enum place place, unsigned partition, uint64_t offset, struct slice body)
{
    struct model_log *log = log_of(m, place, partition);
    uint64_t id = model_identify(m, body);
    unsigned long long at = offset, whose = id;
    if (m->wrong[0])
        return;
    if (!id || offset != log->next || offset >= log->end) {
        model_fault(m, "place %d, partition %u: found %llu at offset %llu, where %llu was to come", place, partition,
                    whose, at, (unsigned long long)log->next);
        return;
    }
    log->next++;
    struct message *msg = &m->messages[id];
    uint8_t *known = &msg->known[place];
    if (*known & KNOWN_FOUND)
        model_fault(m, "message %llu is twice in place %d", whose, place);
    if (!(*known & KNOWN_SENT))
        model_fault(m, "message %llu is in place %d, where it was never sent", whose, place);
    if (*known & KNOWN_GONE)
        model_fault(m, "message %llu is back in place %d, from where it was gone", whose, place);
    if (log->ids[offset] && log->ids[offset] != id)
        model_fault(m, "place %d, partition %u: message %llu at offset %llu, where %llu was", place, partition, whose,
                    at, (unsigned long long)log->ids[offset]);
    if (msg->order < log->found_order)
        model_fault(m, "message %llu stands out of order in place %d, partition %u", whose, place, partition);
    log->found_order = msg->order;
    log->ids[offset] = id;
    *known |= KNOWN_FOUND;
    m->records_found++;
}

/* What retention took before anybody saw its offset: older than what is first now. Its place has one partition. */
static void trimmed_unseen(struct model *m, enum place place)
{
    const struct model_log *log = log_of(m, place, 0);
    uint64_t first = log->start ? m->messages[log->ids[log->start]].order : 0;
    for (uint64_t id = 1; id <= m->count; id++) {
        const struct message *msg = &m->messages[id];
        if ((msg->known[place] & (KNOWN_SENT | KNOWN_FOUND | KNOWN_GONE)) == KNOWN_SENT && msg->order < first)
            gone(m, place, id);
    }
}

/* It was acknowledged in a commit that got no answer: M5 says whether it may be gone. */
static bool may_be_taken(const struct model *m, enum place place, uint64_t id)
{
    for (unsigned i = 0; m->commit_sent && i < m->committing.acked_count; i++)
        if (m->committing.acked[i] == id && m->committing.acked_where[i] == place)
            return true;
    return false;
}

static void check_fed(struct model *m)
{
    unsigned lacking = 0;
    for (uint64_t id = 1; id <= m->count; id++) {
        const uint8_t *known = m->messages[id].known;
        bool there = (known[PLACE_LOG] | known[PLACE_KEPT]) & KNOWN_FOUND;
        if (!there || (known[PLACE_FED] & (KNOWN_SENT | KNOWN_LEAVING | KNOWN_GONE)) != KNOWN_SENT ||
            may_be_taken(m, PLACE_FED, id))
            continue;
        m->feeds_checked++;
        if (!(known[PLACE_FED] & KNOWN_FOUND) && ++lacking > (m->one_may_lack[PLACE_FED] ? 1u : 0u))
            model_fault(m, "message %llu is in its stream, but was not fed and will not be", (unsigned long long)id);
    }
}

void model_log_settle(struct model *m, const bool exists[PLACE_COUNT])
{
    for (int p = PLACE_LOG; p < PLACE_COUNT; p++)
        for (unsigned i = 0; i < MODEL_PARTITIONS; i++) {
            struct model_log *log = log_of(m, (enum place)p, i);
            if (!exists[p])
                memset(log, 0, sizeof *log);
            if (exists[p] && log->next != log->end)
                model_fault(m, "place %d, partition %u: nothing at offset %llu, below the end %llu", p, i,
                            (unsigned long long)log->next, (unsigned long long)log->end);
        }
    if (m->wrong[0])
        return;
    trimmed_unseen(m, PLACE_KEPT);
    if (exists[PLACE_FED])
        check_fed(m);
}

uint64_t model_log_delivered(struct model *m, enum place place, unsigned partition, uint64_t offset, struct slice body)
{
    uint64_t id = model_identify(m, body);
    unsigned long long at = offset, whose = id;
    if (!id || partition >= MODEL_PARTITIONS || offset >= MODEL_MESSAGES) {
        model_fault(m, "delivered from place %d, partition %u, offset %llu: %zu bytes that nobody published", place,
                    partition, at, body.len);
        return 0;
    }
    struct model_log *log = log_of(m, place, partition);
    struct message *msg = &m->messages[id];
    if (!(msg->known[place] & KNOWN_SENT))
        model_fault(m, "message %llu delivered from place %d, where it was never sent", whose, place);
    if ((msg->known[place] & KNOWN_GONE) && msg->gone_life[place] < m->life)
        model_fault(m, "message %llu delivered from place %d, from where it was gone", whose, place);
    if (log->ids[offset] && log->ids[offset] != id)
        model_fault(m, "place %d, partition %u: message %llu delivered from offset %llu, where %llu was", place,
                    partition, whose, at, (unsigned long long)log->ids[offset]);
    log->ids[offset] = id;
    if (log->end <= offset)
        log->end = offset + 1;
    msg->known[place] |= KNOWN_SURE;
    if (msg->known[PLACE_FED] & KNOWN_SENT)
        msg->known[PLACE_FED] |= KNOWN_SURE;
    return id;
}

void model_log_deleting(struct model *m, enum place place)
{
    m->doubtful[place] = m->unbound[place] = true;
    model_all_leaving(m, place);
    for (uint64_t id = 1; id <= m->count; id++) /* what was not fed yet never will be */
        if (m->messages[id].known[place] & KNOWN_SENT)
            m->messages[id].known[PLACE_FED] |= m->messages[id].known[PLACE_FED] ? KNOWN_LEAVING : 0;
}

void model_log_deleted(struct model *m, enum place place)
{
    m->exists[place] = m->doubtful[place] = false;
    model_all_gone(m, place);
    memset(m->logs[place - PLACE_LOG], 0, sizeof m->logs[0]);
}

void model_fed(struct model *m)
{
    for (uint64_t id = 1; m->exists[PLACE_FED] && id <= m->count; id++)
        if ((m->messages[id].known[PLACE_FED] & (KNOWN_SURE | KNOWN_LEAVING | KNOWN_GONE)) == KNOWN_SURE)
            model_fault(m, "message %llu was never fed", (unsigned long long)id);
}
