/* inspect_segments: dumps the segment files of a data folder for people: each file's header, then a line per page. Reads
 * only, takes no lock; the folder may be that of a running broker.
 */
#ifndef MILLRACE_STORE_INSPECT_SEGMENTS_H
#define MILLRACE_STORE_INSPECT_SEGMENTS_H

#include "journal/layout.h"
#include "os/os.h"

#include <stdio.h>

/* json: an object per line. pages: with a line per page. 0, also when there is no segment file, or something in one that is no whole page: only the
 * journal knows whether anybody needs it. A negative errno: not readable. Any one thread. */
MUST_USE int store_inspect(struct os *os, const char *dir, bool pages, bool json, FILE *out);

/* The journal's uuid. False: no superblock says it. */
bool store_inspect_uuid(struct os *os, const char *dir, uint8_t ret[LAYOUT_UUID_LEN]);

#endif
