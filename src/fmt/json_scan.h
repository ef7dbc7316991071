/* json_scan: reads of a JSON text only what was asked for, in one pass, and checks all of it (RFC 8259, UTF-8).
 *
 *   json_scan_new ▸ json_scan_want … ▸ { json_scan_read ▸ json_view_text | json_view_double … }* ▸ json_scan_free
 *
 * What is wanted are paths (member names and array positions); together they are a trie. A read answers one view for each:
 * its kind, and where in the text it stands. Nothing is copied and no escape decoded until somebody asks for it.
 *
 * Records of one stream nearly always have the same members in the same order, so the scanner remembers which name came
 * after which, and compares with that first: a name that was guessed right is neither validated nor looked up again.
 *
 * Rules: of two members with the same name the last one counts. A lone surrogate (\ud800) is refused, \u0000 is not. Depth
 * at most JSON_SCAN_DEPTH_MAX, a number at most JSON_SCAN_NUMBER_MAX characters, a text less than 4 GiB; white space around it is fine.
 *
 * A scanner belongs to one thread at a time; it allocates in json_scan_want only, and after that never fails for memory.
 */
#ifndef MILLRACE_FMT_JSON_SCAN_H
#define MILLRACE_FMT_JSON_SCAN_H

#include "base/types.h"

#define JSON_SCAN_DEPTH_MAX 256u
#define JSON_SCAN_NUMBER_MAX 1024u
#define JSON_SCAN_STEPS_MAX 32u
#define JSON_SCAN_SLOTS_MAX 4096u

enum json_view_kind {
    JSON_VIEW_ABSENT, /* there is no such member */
    JSON_VIEW_NULL,
    JSON_VIEW_FALSE,
    JSON_VIEW_TRUE,
    JSON_VIEW_INT,    /* fits in an int64_t: `number` */
    JSON_VIEW_NUMBER, /* any other: see json_view_double, or the text */
    JSON_VIEW_STRING,
    JSON_VIEW_ARRAY,
    JSON_VIEW_OBJECT,
};

/* A value in its text, which must outlive it. */
struct json_view {
    const uint8_t *at; /* as written; of a string what is between the quotes */
    uint32_t len;
    uint8_t kind; /* enum json_view_kind */
    bool escaped; /* a string with escapes: json_view_text */
    int64_t number;
};

/* One step of a path: a member's name (without escapes), or with key.ptr NULL the position in an array. */
struct json_step {
    struct slice key;
    uint32_t index;
};

struct json_fault {
    size_t at;
    const char *why;
};

struct json_scan;

/* NULL: no memory. */
MUST_USE struct json_scan *json_scan_new(void);
/* Takes *scan and NULLs it; *scan may be NULL. */
void json_scan_free(struct json_scan **scan);
/* Adds a path (names are copied; no step: the whole text) and answers its slot, dense from 0; the same path has the same
 * slot. -1: no memory, too many steps or slots, or a name of more than 64 KiB. */
MUST_USE int json_scan_want(struct json_scan *scan, const struct json_step *steps, unsigned count);
unsigned json_scan_slots(const struct json_scan *scan);
/* Checks the text and fills a view for each slot. False: *ret_fault says where and why, and the views mean nothing. */
MUST_USE bool json_scan_read(struct json_scan *scan, struct slice text, struct json_view *ret_views,
                             struct json_fault *ret_fault);

/* Decodes a string's escapes into `out`, which has room for view->len bytes; answers how many it took. Any kind else is
 * copied as it stands. */
size_t json_view_text(const struct json_view *view, uint8_t *out);
/* Whether a string, its escapes decoded, is that text. */
MUST_USE bool json_view_is(const struct json_view *view, struct slice text);
/* The nearest double of a number. False: no number, or beyond the range of double. */
MUST_USE bool json_view_double(const struct json_view *view, double *ret);

/* Walks the members of an object or the elements of an array, in a text that a read has accepted (anything else ends the
 * walk early). `name` is a string for members, JSON_VIEW_ABSENT for elements. */
struct json_items {
    const uint8_t *at, *end;
    bool object;
};
struct json_items json_items_of(const struct json_view *container);
bool json_items_next(struct json_items *items, struct json_view *ret_name, struct json_view *ret_value);
/* The last member of that name, or the element at that position (negative: from the end). False: there is none. */
bool json_view_member(const struct json_view *object, struct slice name, struct json_view *ret);
bool json_view_element(const struct json_view *array, int64_t position, struct json_view *ret);
/* The view of a text that is one value with white space around it at most. False: it is no JSON. */
MUST_USE bool json_view_of(struct slice text, struct json_view *ret, struct json_fault *ret_fault);

#endif
