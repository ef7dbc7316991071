/* inspect_streams: dumps the files of streams in a data folder for people: each file's header, a line per batch, its index.
 * Reads only, takes no lock; the folder may be that of a running broker.
 */
#ifndef MILLRACE_STORE_INSPECT_STREAMS_H
#define MILLRACE_STORE_INSPECT_STREAMS_H

#include "os/os.h"

#include <stdio.h>

/* json: an object per line. batches: with a line per batch. As store_inspect. */
MUST_USE int streams_inspect(struct os *os, const char *dir, bool batches, bool json, FILE *out);

#endif
