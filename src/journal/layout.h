/* layout: the bytes of the journal's files: encoding and checking of superblock, file header, group header, record header.
 *
 * Pure functions over bytes; any thread. Format: docs/formats/journal.md section 1. Decoders answer with a verdict and
 * never believe a length before it is checked.
 */
#ifndef MILLRACE_JOURNAL_LAYOUT_H
#define MILLRACE_JOURNAL_LAYOUT_H

#include "base/reader.h"
#include "base/types.h"
#include "base/writer.h"

#define LAYOUT_VERSION 1
#define LAYOUT_BLOCK 4096u
#define LAYOUT_UUID_LEN 16
#define LAYOUT_GROUP_HEADER 64u
#define LAYOUT_RECORD_HEADER 8u
#define LAYOUT_GROUP_BODY_MAX (4u * 1024 * 1024)

enum layout_verdict {
    LAYOUT_GOOD,
    LAYOUT_NOT_OURS, /* no magic: never written, or something else's bytes */
    LAYOUT_NEWER,    /* intact, but of a later format version */
    LAYOUT_DAMAGED,
};

struct layout_super {
    uint8_t uuid[LAYOUT_UUID_LEN];
    bool clean;
    uint64_t generation;
    uint32_t epoch;
    lsn_t start_lsn;
    uint64_t start_seq;
    lsn_t durable;
    uint64_t tail_seq, tail_offset; /* only when clean */
    wall_t wall_ms;
};

struct layout_file {
    uint8_t uuid[LAYOUT_UUID_LEN];
    uint64_t seq;
    uint32_t epoch;
    uint32_t chain; /* last group header's CRC before this file */
    lsn_t start_lsn;
    wall_t wall_ms;
    uint32_t crc; /* out: chain of the first group */
};

struct layout_group {
    bool note;
    lsn_t lsn;
    uint32_t len, nrec;
    lsn_t durable;
    wall_t wall_ms;
    uint32_t epoch;
    uint32_t chain;
    uint32_t body_crc;
    uint64_t seq;
    uint32_t crc; /* out: chain of the next group */
};

/* CRC-32C of bytes, going on from an earlier answer (0 to begin). */
uint32_t layout_crc(uint32_t crc, const void *bytes, size_t len);

/* Where the CRCs of a group start. */
uint32_t layout_seed(const uint8_t uuid[LAYOUT_UUID_LEN], uint64_t seq, uint32_t epoch);

static inline uint64_t layout_blocks(uint64_t len)
{
    return (len + LAYOUT_BLOCK - 1) / LAYOUT_BLOCK * LAYOUT_BLOCK;
}

/* Length of a group on disk. */
static inline uint64_t layout_group_bytes(uint32_t body_len)
{
    return layout_blocks((uint64_t)LAYOUT_GROUP_HEADER + body_len);
}

/* A block that stands for itself begins with magic, format version, flags and uuid and ends with its own CRC: fields are
 * put between begin and end, and read after open (GOOD). The CRC is the answer of end and in ret_crc. Also for other
 * folders' files in the data folder. */
struct writer layout_block_begin(uint8_t block[LAYOUT_BLOCK], uint32_t magic, uint16_t flags,
                                 const uint8_t uuid[LAYOUT_UUID_LEN]);
uint32_t layout_block_end(uint8_t block[LAYOUT_BLOCK], const struct writer *fields);
enum layout_verdict layout_block_open(const uint8_t block[LAYOUT_BLOCK], uint32_t magic, struct reader *ret,
                                      uint16_t *ret_flags, uint8_t ret_uuid[LAYOUT_UUID_LEN], uint32_t *ret_crc);

/* Each fills one whole block. */
void layout_super_put(uint8_t block[LAYOUT_BLOCK], const struct layout_super *super);
void layout_file_put(uint8_t block[LAYOUT_BLOCK], struct layout_file *file);
enum layout_verdict layout_super_get(const uint8_t block[LAYOUT_BLOCK], struct layout_super *ret);
enum layout_verdict layout_file_get(const uint8_t block[LAYOUT_BLOCK], struct layout_file *ret);

/* bytes: the whole group, layout_group_bytes(group->len) long, body and zero padding in place. Fills the header. */
void layout_group_put(uint8_t *bytes, const uint8_t uuid[LAYOUT_UUID_LEN], struct layout_group *group);
/* Checks the 64 bytes only: GOOD means that every field is what this journal once wrote. */
enum layout_verdict layout_group_get(const uint8_t *bytes, const uint8_t uuid[LAYOUT_UUID_LEN],
                                     struct layout_group *ret);
/* Checks the body and padding of a group with a good header, and that its records fill it exactly. */
bool layout_body_check(const uint8_t *bytes, const uint8_t uuid[LAYOUT_UUID_LEN], const struct layout_group *group);

void layout_record_put(uint8_t *at, uint32_t len);
/* Takes the next record off a body that was checked. False at its end. */
bool layout_record_next(struct slice *body, struct slice *ret);

#endif
