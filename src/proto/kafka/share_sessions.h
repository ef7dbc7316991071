/* share_sessions: which partitions a member of a share group reads, so that it need not say it in each request. A session is known on
 * the connection where it was begun, and ends with it; the core gives back then what the member has acquired.
 *
 * share_session_begin ▸ share_session_find, share_places_sort ▸ share_session_update … ▸ share_session_end. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_SHARE_SESSIONS_H
#define MILLRACE_PROTO_KAFKA_SHARE_SESSIONS_H

#include "core/fetch.h"
#include "proto/kafka/kafka_int.h"

#define SHARE_SESSIONS_MAX 64u        /* of a connection */
#define SHARE_ROWS_MAX FETCH_ROWS_MAX /* of all its sessions, and of a request */

struct share_place {
    struct kafka_uuid topic;
    int32_t partition;
};

struct share_session {
    struct list link;
    int32_t epoch; /* that the next request has */
    uint32_t count, turn;
    struct share_place *rows;   /* ascending, each once */
    struct slice group, member; /* in bytes */
    uint8_t bytes[];
};

/* NULL: there are too many. No memory is that, too. */
MUST_USE struct share_session *share_session_begin(struct kafka *k, struct slice group, struct slice member);
struct share_session *share_session_find(const struct kafka *k, struct slice group, struct slice member); /* NULL */
void share_session_end(struct kafka *k, struct share_session *s);

int share_place_order(const struct share_place *a, const struct share_place *b);
/* Ascending, each once: so many they are then. */
size_t share_places_sort(struct share_place *places, size_t count);
/* It has those that are added, and does without those that are gone, which may be among them; both as share_places_sort leaves them.
 * False: too many, or no memory; then it has what it had. */
MUST_USE bool share_session_update(struct kafka *k, struct share_session *s, const struct share_place *added,
                                   size_t added_count, const struct share_place *gone, size_t gone_count);
void share_sessions_init(struct kafka *k);
void share_sessions_fini(struct kafka *k);

#endif
