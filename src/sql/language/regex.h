/* regex: compiled regular expressions that outlive a batch.
 *
 *   regex_cache_new ▸ eval.regexes of every batch ▸ regex_cache_free
 *
 * One cache for each operator; one thread at a time.
 */
#ifndef MILLRACE_SQL_LANGUAGE_REGEX_H
#define MILLRACE_SQL_LANGUAGE_REGEX_H

#include "base/types.h"

#define REGEX_CACHE_MAX 16u

struct regex_cache;

/* NULL: no memory. */
MUST_USE struct regex_cache *regex_cache_new(void);
/* Takes *cache and NULLs it; *cache may be NULL. */
void regex_cache_free(struct regex_cache **cache);

#endif
