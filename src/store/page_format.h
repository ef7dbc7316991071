/* page_format: the bytes of segment files: header block of a file, and pages with their messages.
 *
 * Pure functions over bytes and jobs; any thread, decoding on the owner of the slab heap. Format: docs/formats/segments.md
 * section 1. Nothing that was read is believed before its CRC, and no count before the bytes could hold it.
 */
#ifndef MILLRACE_STORE_PAGE_FORMAT_H
#define MILLRACE_STORE_PAGE_FORMAT_H

#include "core/page.h"
#include "journal/layout.h"

#define PAGE_HEADER 48u
#define PAGE_HEAD_MAX (PAGE_HEADER + 96u) /* with what stands in front of the first message's bytes */
#define PAGE_LEN_MAX (1u << 30)           /* of one page; the largest message is far below it */

struct segment_head {
    uint8_t uuid[LAYOUT_UUID_LEN];
    uint32_t segment;
    wall_t wall_ms;
};

void segment_head_put(uint8_t block[LAYOUT_BLOCK], const struct segment_head *head);
enum layout_verdict segment_head_get(const uint8_t block[LAYOUT_BLOCK], struct segment_head *ret);

/* Where the CRCs of a page start: what is read from another place, file or store fails. */
uint32_t page_seed(const uint8_t uuid[LAYOUT_UUID_LEN], uint32_t segment, uint32_t offset);

/* How messages are written: those of older stores in full, others without what the message before has said; those that wait for
 * their retry also with when that is and where they belong. */
enum page_form { PAGE_FULL, PAGE_SHORT, PAGE_RETRY };

struct page_head {
    uint8_t form; /* enum page_form */
    uint32_t body_len;
    uint64_t queue;
    uint8_t lane;
    uint32_t count;
    uint64_t first, last; /* positions */
    uint32_t body_crc;
};

/* Encoded length of the job's items, header included. */
uint64_t page_len(const struct page_job *job);
/* Of a page of one message: what stands in front of its bytes (msg->bytes, the rest of the page). Returns the length. */
size_t page_encode_head(const struct page_job *job, uint32_t seed, uint8_t ret[PAGE_HEAD_MAX]);
/* As page_decode for a page of one message: the message takes over *block (of kind MEM_STORE), which holds the page, and is
 * NULL then. */
MUST_USE int page_decode_one(uint8_t **block, size_t len, uint32_t seed, struct page_job *job, const char **ret_what);
/* Fills exactly page_len bytes, at most PAGE_LEN_MAX. The job has items, in ascending order of their positions. */
void page_encode(const struct page_job *job, uint32_t seed, uint8_t *ret, size_t len);

/* bytes: PAGE_HEADER of them. GOOD: every field is what was once written to this place. */
enum layout_verdict page_head_get(const uint8_t *bytes, uint32_t seed, struct page_head *ret);

/* Fills the items of a job (queue, lane and count say what is expected, the items are zero, but for the first and last
 * position where these are known) with fresh messages of the heap. bytes: the whole page. 0; -EILSEQ and in ret_what a
 * phrase that says what is wrong; -ENOMEM. After an error the items are as they were. */
MUST_USE int page_decode(struct slice bytes, uint32_t seed, struct slab_heap *mine, struct page_job *job,
                         const char **ret_what);

#endif
