/* The one place that knows the journal's bytes by offset; docs/formats/journal.md is its text, layout_test.c holds both
 * to a golden file. Any thread.
 *
 * A block (superblock, file header) ends with its own CRC. A group has two CRCs, both going on from a seed of journal,
 * file and claim, so that old bytes in a recycled file fail before any field is looked at. The header has its own, so that
 * its durable claim can be believed even when the body is torn.
 */
#include "journal/layout.h"

#include "base/check.h"
#include "fmt/crc32c.h"
#include "journal/journal.h"

#define MAGIC_SUPER 0x4d525342u /* MRSB */
#define MAGIC_FILE 0x4d525746u  /* MRWF */
#define MAGIC_GROUP 0x4d524750u /* MRGP */

#define SUPER_CLEAN 1u
#define GROUP_NOTE 1u

uint32_t layout_crc(uint32_t crc, const void *bytes, size_t len)
{
    return crc32c(crc, bytes, len);
}

uint32_t layout_seed(const uint8_t uuid[LAYOUT_UUID_LEN], uint64_t seq, uint32_t epoch)
{
    uint8_t bytes[LAYOUT_UUID_LEN + 12];
    struct writer w = writer_of(bytes, sizeof bytes);
    writer_put(&w, uuid, LAYOUT_UUID_LEN);
    writer_u64(&w, seq);
    writer_u32(&w, epoch);
    CHECK(writer_ok(&w) && w.len == sizeof bytes);
    return layout_crc(0, bytes, sizeof bytes);
}

/* ------------------------------------------------------------------------------------------------------- whole blocks */

struct writer layout_block_begin(uint8_t block[LAYOUT_BLOCK], uint32_t magic, uint16_t flags,
                                 const uint8_t uuid[LAYOUT_UUID_LEN])
{
    memset(block, 0, LAYOUT_BLOCK);
    struct writer w = writer_of(block, LAYOUT_BLOCK - 4);
    writer_u32(&w, magic);
    writer_u16(&w, LAYOUT_VERSION);
    writer_u16(&w, flags);
    writer_put(&w, uuid, LAYOUT_UUID_LEN);
    return w;
}

uint32_t layout_block_end(uint8_t block[LAYOUT_BLOCK], const struct writer *fields)
{
    CHECK(writer_ok(fields));
    uint32_t crc = layout_crc(0, block, LAYOUT_BLOCK - 4);
    struct writer w = writer_of(block + LAYOUT_BLOCK - 4, 4);
    writer_u32(&w, crc);
    return crc;
}

enum layout_verdict layout_block_open(const uint8_t block[LAYOUT_BLOCK], uint32_t magic, struct reader *ret,
                                      uint16_t *ret_flags, uint8_t ret_uuid[LAYOUT_UUID_LEN], uint32_t *ret_crc)
{
    struct reader end = reader_of(slice_of(block + LAYOUT_BLOCK - 4, 4));
    struct reader r = reader_of(slice_of(block, LAYOUT_BLOCK - 4));
    if (reader_u32(&r) != magic)
        return LAYOUT_NOT_OURS;
    *ret_crc = reader_u32(&end);
    if (layout_crc(0, block, LAYOUT_BLOCK - 4) != *ret_crc)
        return LAYOUT_DAMAGED;
    uint16_t version = reader_u16(&r);
    if (version != LAYOUT_VERSION)
        return version > LAYOUT_VERSION ? LAYOUT_NEWER : LAYOUT_DAMAGED;
    *ret_flags = reader_u16(&r);
    memcpy(ret_uuid, reader_take(&r, LAYOUT_UUID_LEN).ptr, LAYOUT_UUID_LEN);
    *ret = r;
    return LAYOUT_GOOD;
}

void layout_super_put(uint8_t block[LAYOUT_BLOCK], const struct layout_super *super)
{
    struct writer w = layout_block_begin(block, MAGIC_SUPER, super->clean ? SUPER_CLEAN : 0, super->uuid);
    writer_u64(&w, super->generation);
    writer_u32(&w, super->epoch);
    writer_u32(&w, 0);
    writer_u64(&w, super->start_lsn);
    writer_u64(&w, super->start_seq);
    writer_u64(&w, super->durable);
    writer_u64(&w, super->clean ? super->tail_seq : 0);
    writer_u64(&w, super->clean ? super->tail_offset : 0);
    writer_u64(&w, (uint64_t)super->wall_ms);
    CHECK(w.len == 88);
    layout_block_end(block, &w);
}

enum layout_verdict layout_super_get(const uint8_t block[LAYOUT_BLOCK], struct layout_super *ret)
{
    struct reader r;
    uint16_t flags;
    uint32_t crc;
    struct layout_super super = {0};
    enum layout_verdict verdict = layout_block_open(block, MAGIC_SUPER, &r, &flags, super.uuid, &crc);
    if (verdict != LAYOUT_GOOD)
        return verdict;
    super.clean = flags & SUPER_CLEAN;
    super.generation = reader_u64(&r);
    super.epoch = reader_u32(&r);
    (void)reader_u32(&r);
    super.start_lsn = reader_u64(&r);
    super.start_seq = reader_u64(&r);
    super.durable = reader_u64(&r);
    super.tail_seq = reader_u64(&r);
    super.tail_offset = reader_u64(&r);
    super.wall_ms = (wall_t)reader_u64(&r);
    if (!reader_ok(&r) || !super.start_lsn || !super.start_seq || !super.epoch)
        return LAYOUT_DAMAGED;
    *ret = super;
    return LAYOUT_GOOD;
}

void layout_file_put(uint8_t block[LAYOUT_BLOCK], struct layout_file *file)
{
    struct writer w = layout_block_begin(block, MAGIC_FILE, 0, file->uuid);
    writer_u64(&w, file->seq);
    writer_u32(&w, file->epoch);
    writer_u32(&w, file->chain);
    writer_u64(&w, file->start_lsn);
    writer_u64(&w, file->start_lsn - 1);
    writer_u64(&w, (uint64_t)file->wall_ms);
    CHECK(w.len == 64);
    file->crc = layout_block_end(block, &w);
}

enum layout_verdict layout_file_get(const uint8_t block[LAYOUT_BLOCK], struct layout_file *ret)
{
    struct reader r;
    uint16_t flags;
    struct layout_file file = {0};
    enum layout_verdict verdict = layout_block_open(block, MAGIC_FILE, &r, &flags, file.uuid, &file.crc);
    if (verdict != LAYOUT_GOOD)
        return verdict;
    file.seq = reader_u64(&r);
    file.epoch = reader_u32(&r);
    file.chain = reader_u32(&r);
    file.start_lsn = reader_u64(&r);
    uint64_t before = reader_u64(&r);
    file.wall_ms = (wall_t)reader_u64(&r);
    if (!reader_ok(&r) || flags || !file.start_lsn || before != file.start_lsn - 1)
        return LAYOUT_DAMAGED;
    *ret = file;
    return LAYOUT_GOOD;
}

/* ------------------------------------------------------------------------------------------------------------- groups */

void layout_group_put(uint8_t *bytes, const uint8_t uuid[LAYOUT_UUID_LEN], struct layout_group *group)
{
    CHECK(group->len <= LAYOUT_GROUP_BODY_MAX && group->durable < group->lsn);
    uint32_t seed = layout_seed(uuid, group->seq, group->epoch);
    size_t all = layout_group_bytes(group->len);
    group->body_crc = layout_crc(seed, bytes + LAYOUT_GROUP_HEADER, all - LAYOUT_GROUP_HEADER);
    struct writer w = writer_of(bytes, LAYOUT_GROUP_HEADER);
    writer_u32(&w, MAGIC_GROUP);
    writer_u16(&w, LAYOUT_VERSION);
    writer_u16(&w, group->note ? GROUP_NOTE : 0);
    writer_u64(&w, group->lsn);
    writer_u32(&w, group->len);
    writer_u32(&w, group->nrec);
    writer_u64(&w, group->durable);
    writer_u64(&w, (uint64_t)group->wall_ms);
    writer_u32(&w, group->epoch);
    writer_u32(&w, group->chain);
    writer_u32(&w, group->body_crc);
    writer_u64(&w, group->seq);
    group->crc = layout_crc(seed, bytes, w.len);
    writer_u32(&w, group->crc);
    CHECK(writer_ok(&w) && w.len == LAYOUT_GROUP_HEADER);
}

enum layout_verdict layout_group_get(const uint8_t *bytes, const uint8_t uuid[LAYOUT_UUID_LEN],
                                     struct layout_group *ret)
{
    struct layout_group group = {0};
    struct reader r = reader_of(slice_of(bytes, LAYOUT_GROUP_HEADER));
    if (reader_u32(&r) != MAGIC_GROUP)
        return LAYOUT_NOT_OURS;
    uint16_t version = reader_u16(&r), flags = reader_u16(&r);
    group.note = flags & GROUP_NOTE;
    group.lsn = reader_u64(&r);
    group.len = reader_u32(&r);
    group.nrec = reader_u32(&r);
    group.durable = reader_u64(&r);
    group.wall_ms = (wall_t)reader_u64(&r);
    group.epoch = reader_u32(&r);
    group.chain = reader_u32(&r);
    group.body_crc = reader_u32(&r);
    group.seq = reader_u64(&r);
    group.crc = reader_u32(&r);
    CHECK(reader_done(&r));
    if (layout_crc(layout_seed(uuid, group.seq, group.epoch), bytes, LAYOUT_GROUP_HEADER - 4) != group.crc)
        return LAYOUT_DAMAGED;
    if (version != LAYOUT_VERSION)
        return version > LAYOUT_VERSION ? LAYOUT_NEWER : LAYOUT_DAMAGED;
    bool empty = group.len == 0 && group.nrec == 0;
    if (group.len > LAYOUT_GROUP_BODY_MAX || group.durable >= group.lsn || group.note != empty)
        return LAYOUT_DAMAGED;
    *ret = group;
    return LAYOUT_GOOD;
}

bool layout_body_check(const uint8_t *bytes, const uint8_t uuid[LAYOUT_UUID_LEN], const struct layout_group *group)
{
    size_t all = layout_group_bytes(group->len);
    uint32_t seed = layout_seed(uuid, group->seq, group->epoch);
    if (layout_crc(seed, bytes + LAYOUT_GROUP_HEADER, all - LAYOUT_GROUP_HEADER) != group->body_crc)
        return false;
    struct reader r = reader_of(slice_of(bytes + LAYOUT_GROUP_HEADER, group->len));
    uint32_t count = 0;
    while (r.left && reader_ok(&r)) {
        uint32_t len = reader_u32(&r), zero = reader_u32(&r);
        if (zero || len > JOURNAL_RECORD_BYTES_MAX)
            reader_fail(&r);
        reader_take(&r, len);
        count++;
    }
    return reader_ok(&r) && count == group->nrec;
}

void layout_record_put(uint8_t *at, uint32_t len)
{
    uint32_t head[2] = {htobe32(len), 0};
    memcpy(at, head, sizeof head);
}

bool layout_record_next(struct slice *body, struct slice *ret)
{
    if (body->len < LAYOUT_RECORD_HEADER)
        return false;
    struct reader r = reader_of(*body);
    uint32_t len = reader_u32(&r);
    (void)reader_u32(&r);
    *ret = reader_take(&r, len);
    CHECK(reader_ok(&r));
    *body = slice_of(r.at, r.left);
    return true;
}
