/* nearest: which name may have been meant by a mistyped one.
 *
 *   nearest_of ▸ nearest_try … ▸ nearest_found
 *
 * Any one thread; nothing is allocated, and names are loans until the last call.
 */
#ifndef MILLRACE_BASE_NEAREST_H
#define MILLRACE_BASE_NEAREST_H

#include "base/types.h"

/* The name nearest to a mistyped one, regardless of case, among those that are tried. */
struct nearest {
    struct slice wanted, best;
    unsigned distance; /* of best; what is further away is no help */
};
struct nearest nearest_of(struct slice wanted);
void nearest_try(struct nearest *nearest, struct slice name);
/* False: nothing is near. */
bool nearest_found(const struct nearest *nearest);

#endif
