/* journal_test_rig: what the journal's tests share: records that can be told apart, a model of what was appended, and a
 * reader that compares. Test code only, one thread. A record's content follows from its lsn and a salt that the model keeps,
 * because an lsn that was cut with a torn tail is given out again for something else.
 */
#ifndef MILLRACE_JOURNAL_JOURNAL_TEST_RIG_H
#define MILLRACE_JOURNAL_JOURNAL_TEST_RIG_H

#include "journal/journal.h"

#define RIG_LSN_MAX 200000

struct rig {
    struct os *os;
    struct journal *journal;
    struct journal_options options;
    char why[512];
    uint64_t dice;
    uint32_t salt[RIG_LSN_MAX]; /* of each lsn appended; its length follows from it too */
    lsn_t appended, durable;    /* durable: the highest that the journal reported */
    lsn_t start, trimmed;       /* start as recovered; trimmed: what was asked for since */
    size_t len_max;
    lsn_t read_next; /* while reading */
    uint64_t claim;
};

static inline uint64_t rig_draw(struct rig *rig)
{
    uint64_t z = (rig->dice += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline size_t rig_record(const struct rig *rig, lsn_t lsn, uint8_t *ret)
{
    uint32_t salt = rig->salt[lsn];
    size_t len = salt % 16 == 0 ? 0 : (salt >> 4) % (rig->len_max + 1);
    uint32_t x = salt ^ (uint32_t)lsn * 2654435761u;
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        ret[i] = (uint8_t)(x >> 24);
    }
    return len;
}

static inline int rig_each(void *arg, lsn_t lsn, struct slice record)
{
    struct rig *rig = arg;
    static uint8_t bytes[JOURNAL_RECORD_BYTES_MAX];
    if (lsn != rig->read_next || lsn > rig->appended)
        return 1;
    rig->read_next++;
    size_t len = rig_record(rig, lsn, bytes);
    return len != record.len || memcmp(bytes, record.ptr, len) != 0 ? 2 : 0;
}

#endif
