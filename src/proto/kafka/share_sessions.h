/* share_sessions: which partitions a member of a share group reads, so that it need not say it in each request. A session is known on
 * the connection where it was begun, and ends with it; the core gives back then what the member has acquired.
 *
 * share_session_begin ▸ share_session_find, share_session_add, share_session_remove … ▸ share_session_end. Thread: the loop's.
 */
#ifndef MILLRACE_PROTO_KAFKA_SHARE_SESSIONS_H
#define MILLRACE_PROTO_KAFKA_SHARE_SESSIONS_H

#include "proto/kafka/kafka_int.h"

#define SHARE_SESSIONS_MAX 64u /* of a connection */
#define SHARE_ROWS_MAX 4096u   /* of a session */

struct share_place {
    struct kafka_uuid topic;
    int32_t partition;
};

struct share_session {
    struct list link;
    int32_t epoch; /* that the next request has */
    uint32_t count, max, turn;
    struct share_place *rows;
    struct slice group, member; /* in bytes */
    uint8_t bytes[];
};

/* NULL: there are too many. No memory is that, too. */
MUST_USE struct share_session *share_session_begin(struct kafka *k, struct slice group, struct slice member);
struct share_session *share_session_find(const struct kafka *k, struct slice group, struct slice member); /* NULL */
void share_session_end(struct kafka *k, struct share_session *s);
/* Once only. False: too many, or no memory. */
MUST_USE bool share_session_add(struct share_session *s, const struct kafka_uuid *topic, int32_t partition);
void share_session_remove(struct share_session *s, const struct kafka_uuid *topic, int32_t partition);
void share_sessions_init(struct kafka *k);
void share_sessions_fini(struct kafka *k);

#endif
