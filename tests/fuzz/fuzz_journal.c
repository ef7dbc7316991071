/* Fuzzes what a start believes of the journal's files: edits of a good data folder, then recovery, reading, inspection,
 * work, and a second start.
 *
 * The input is a list of five-byte edits: what (1), where (2), value (2). Checksums are repaired after most edits, or no
 * edit would get past them. Whatever the edits: no crash, nothing read outside a buffer; and a journal that opened without
 * a fault of the disk takes records and opens again with them.
 *
 * covers: src/journal/recover.c src/journal/walk.c src/journal/layout.c src/journal/inspect.c
 * fuzz: -max_len=100
 */
#include "journal/inspect.h"
#include "journal/journal.h"
#include "journal/layout.h"
#include "os/os_sim.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define FILES 5
#define FILE_SIZE (32u * 1024)
#define EDIT 5

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len);

static const char *const paths[FILES] = {"d/superblock.a", "d/superblock.b", "d/wal/w-0000000000000001",
                                         "d/wal/w-0000000000000002", "d/wal/w-0000000000000003"};

enum edit {
    EDIT_XOR,
    EDIT_XOR_REPAIR,
    EDIT_SET_REPAIR,
    EDIT_ADD_REPAIR,
    EDIT_CUT,
    EDIT_REMOVE,
    EDIT_COPY,
    EDIT_FAULT,
    EDIT_SPACE,
    EDIT_COUNT
};

static void must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "violated: %s\n", what);
    abort();
}

static struct journal *open_journal(struct os_sim *sim, char why[512])
{
    struct journal_options options = {
        .os = os_sim_os(sim), .dir = "d", .file_bytes = FILE_SIZE, .group_bytes_max = 8192};
    struct journal *journal = NULL;
    int err = journal_open(&options, &journal, why, 512);
    must((err == 0) == (journal != NULL), "an open journal or an error");
    must(err == 0 || why[0], "a refusal says why");
    return journal;
}

static bool append(struct journal *journal, unsigned groups)
{
    static const uint8_t record[3000] = {1, 2, 3};
    for (unsigned i = 0; i < groups; i++) {
        struct slice part = slice_of(record, i * 97 % sizeof record);
        if (!journal_reserve(journal, 2 * part.len, 2))
            return false;
        journal_append(journal, &part, 1);
        journal_append(journal, &part, 1);
        journal_kick(journal);
        if (journal_step(journal) < 0)
            return false;
    }
    return true;
}

/* A folder as a running broker leaves it: three files, trimmed once, a note, not closed. */
static struct os_sim *good_folder(void)
{
    char why[512] = "";
    struct os_sim *sim = os_sim_new(1);
    struct journal *journal = open_journal(sim, why);
    must(append(journal, 12), "appending");
    journal_trim(journal, 5);
    must(append(journal, 6), "appending");
    os_sim_clock_advance(sim, 2 * NS_PER_S);
    while (journal_step(journal) > 0)
        continue;
    os_sim_stop(sim);
    journal_close(&journal);
    os_sim_kill(sim);
    return sim;
}

static void put32(uint8_t *at, uint32_t value)
{
    value = htobe32(value);
    memcpy(at, &value, sizeof value);
}

/* Makes the checksums of the block (and the group that begins in it) right again. */
static void repair(uint8_t *file, size_t len, size_t block)
{
    uint8_t *at = file + block * LAYOUT_BLOCK, uuid[LAYOUT_UUID_LEN];
    uint32_t magic, epoch, body_len;
    uint64_t seq;
    if (len < (block + 1) * LAYOUT_BLOCK)
        return;
    memcpy(&magic, at, 4);
    if (be32toh(magic) != 0x4d524750) {
        put32(at + LAYOUT_BLOCK - 4, layout_crc(0, at, LAYOUT_BLOCK - 4));
        return;
    }
    memcpy(uuid, file + 8, sizeof uuid);
    memcpy(&body_len, at + 16, 4);
    memcpy(&epoch, at + 40, 4);
    memcpy(&seq, at + 52, 8);
    uint32_t seed = layout_seed(uuid, be64toh(seq), be32toh(epoch));
    uint64_t all = layout_group_bytes(be32toh(body_len));
    if (all <= len - block * LAYOUT_BLOCK)
        put32(at + 48, layout_crc(seed, at + LAYOUT_GROUP_HEADER, all - LAYOUT_GROUP_HEADER));
    put32(at + 60, layout_crc(seed, at, 60));
}

static void edit_file(struct os_sim *sim, const char *path, enum edit what, uint16_t where, uint16_t value)
{
    static uint8_t file[16 * FILE_SIZE];
    struct slice old = os_sim_peek(sim, path);
    size_t len = old.len < sizeof file ? old.len : sizeof file;
    if (!len)
        return;
    memcpy(file, old.ptr, len);
    size_t at = where % len, block = at / LAYOUT_BLOCK;
    if (what == EDIT_SET_REPAIR && at % LAYOUT_BLOCK > 128)
        at = block * LAYOUT_BLOCK + at % 128; /* where the fields are */
    switch (what) {
    case EDIT_XOR: file[at] ^= (uint8_t)value; break;
    case EDIT_XOR_REPAIR: file[at] ^= (uint8_t)(1u << value % 8); break;
    case EDIT_SET_REPAIR: file[at] = (uint8_t)value; break;
    case EDIT_ADD_REPAIR: file[at] = (uint8_t)(file[at] + value); break;
    case EDIT_CUT: len = at; break;
    case EDIT_COPY:
        if ((value % (len / LAYOUT_BLOCK + 1) + 1) * LAYOUT_BLOCK <= len && (block + 1) * LAYOUT_BLOCK <= len)
            memmove(file + block * LAYOUT_BLOCK, file + value % (len / LAYOUT_BLOCK + 1) * LAYOUT_BLOCK, LAYOUT_BLOCK);
        break;
    default: break;
    }
    if (what >= EDIT_XOR_REPAIR && what <= EDIT_ADD_REPAIR)
        repair(file, len, block);
    os_sim_put(sim, path, slice_of(file, len));
}

/* True: the disk will fail at some time, so that refusals prove nothing. */
static bool edit(struct os_sim *sim, const uint8_t *bytes)
{
    enum edit what = (enum edit)(bytes[0] % EDIT_COUNT);
    const char *path = paths[bytes[0] / EDIT_COUNT % FILES];
    uint16_t where = (uint16_t)(bytes[1] << 8 | bytes[2]), value = (uint16_t)(bytes[3] << 8 | bytes[4]);
    if (what == EDIT_REMOVE) {
        os_sim_remove(sim, path);
    } else if (what == EDIT_FAULT) {
        os_sim_fail(sim, value % OS_SIM_ALL, where % 64 + 1, EIO, value & 1);
        return true;
    } else if (what == EDIT_SPACE) {
        os_sim_capacity(sim, (uint64_t)where * 16 + 1);
        return true;
    } else {
        edit_file(sim, path, what, where, value);
    }
    return false;
}

static int count_records(void *arg, lsn_t lsn, struct slice record)
{
    (void)record;
    must(lsn == ++*(lsn_t *)arg, "records come in lsn order");
    return 0;
}

static void read_all(struct os_sim *sim, struct journal *journal, bool faulty)
{
    char why[512] = "";
    struct journal_stats stats;
    journal_stats(journal, &stats);
    lsn_t last = stats.start - 1;
    int r = journal_read(journal, count_records, &last, why, sizeof why);
    must(faulty || (r == 0 && last == journal_durable(journal)), "what was recovered can be read");
    (void)sim;
}

static void live(struct os_sim *sim, bool faulty)
{
    char why[512] = "";
    struct journal *journal = open_journal(sim, why);
    if (!journal)
        return;
    read_all(sim, journal, faulty);
    lsn_t before = journal_durable(journal);
    bool worked = append(journal, 9);
    must(faulty || worked, "an open journal takes records");
    must(!worked || journal_durable(journal) == before + 18, "what was committed is durable");
    before = journal_durable(journal);
    if (journal_stop(journal) != 0)
        must(faulty, "an open journal stops in order");
    journal_close(&journal);
    os_sim_fail(sim, 0, 0, 0, false);
    os_sim_capacity(sim, 0);
    journal = open_journal(sim, why);
    must(journal != NULL, why);
    must(journal_durable(journal) >= before, "nothing durable is lost");
    read_all(sim, journal, false);
    journal_close(&journal);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    static struct os_sim *good; /* made once: a fuzz target has no better place for it */
    static FILE *sink;
    if (!good) {
        good = good_folder();
        sink = fopen("/dev/null", "w");
    }
    struct os_sim *sim = os_sim_clone(good);
    bool faulty = false;
    for (; len >= EDIT; bytes += EDIT, len -= EDIT)
        faulty = edit(sim, bytes) || faulty;
    struct inspect_options options = {0};
    int verdict = journal_inspect(os_sim_os(sim), "d", &options, sink);
    (void)verdict;
    live(sim, faulty);
    os_sim_free(&sim);
    return 0;
}
