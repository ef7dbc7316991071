/* group_int: consumer groups as the files group*.c share them. Core thread.
 *
 *   broker ─ group ─ member ─ held ─▶ peer            group ─ committed ─▶ stream
 *
 * What is allocated here is MEM_GROUPS and counted in b->group_bytes, which options.groups_bytes_max limits.
 */
#ifndef MILLRACE_CORE_GROUP_INT_H
#define MILLRACE_CORE_GROUP_INT_H

#include "core/core_int.h"
#include "core/group.h"
#include "core/group_config.h"
#include "core/group_portions.h"
#include "core/records.h"

struct held {          /* a JOIN or SYNC that waits for the group */
    struct list link;  /* peer->held */
    struct peer *peer; /* NULL: nothing is held */
    uint32_t origin;
    uint64_t number;
    uint16_t channel;
    bool is_join; /* member->join; else member->sync */
};

struct member {
    struct list link; /* group->members, or ->pending: it was given an id and has not come with it yet */
    struct group *group;
    struct slice id, instance, client, host; /* in bytes */
    struct slice protocols, assignment;      /* owned; protocols: s8 name, s32 metadata … */
    uint32_t session_ms, rebalance_ms;
    struct timer session;
    struct held join, sync;
    enum { MEMBER_LOOSE, MEMBER_PENDING, MEMBER_LISTED } place;
    bool joined;   /* in the round that is being prepared */
    bool unsynced; /* has not sent SYNC in this generation */
    bool untold;   /* nobody knows its id yet: if the session that waits for it goes, so does the member */
    uint8_t bytes[];
};

/* A member of a group in which the broker assigns (group_consumer.c). */
struct assignee {
    struct list link; /* group->assignees, by id */
    struct group *group;
    struct slice id, instance, client, host; /* in bytes */
    struct slice named, topics; /* owned: s8 name …: as they were named, and with those that the pattern matches now */
    struct pattern pattern;     /* no code: none */
    enum group_assignor assignor;
    uint32_t rebalance_ms;
    uint32_t epoch, epoch_before;
    enum assignee_state { ASSIGNEE_SETTLED, ASSIGNEE_WAITING, ASSIGNEE_REVOKING } state;
    bool away; /* a static member that will come back */
    struct timer session, revocation;
    struct portions assigned, leaving, target;
    uint8_t bytes[];
};

struct committed {
    struct list link, stream_link; /* group->offset_list, stream->offsets */
    struct group *group;
    uint64_t key[2]; /* stream, partition */
    uint64_t offset;
    wall_t at;
    uint32_t epoch;
    uint32_t len;
    uint8_t metadata[];
};

struct group {
    struct list link; /* b->group_list */
    struct list vhost_link;
    struct vhost *vhost;
    struct slice key;  /* owned: u8 length, vhost, name */
    struct slice name; /* in it */
    enum group_state state;
    uint32_t generation;
    struct slice type, protocol; /* owned; no type: only offsets were ever committed */
    struct member *leader;
    struct list members, pending;
    uint32_t member_count, pending_count, unsynced_count;
    size_t bytes;        /* of the members */
    struct timer timer;  /* the round's end: initial delay, absent members, missing SYNCs */
    bool initial, grown; /* the initial delay runs; somebody came during it */
    mono_t initial_end;
    struct list assignees; /* of GROUP_CONSUMERS: struct assignee, by id; the generation is then the group's epoch */
    uint32_t assignee_count, target_epoch;
    uint64_t topics_gen,
        topics_hash; /* b->streams.topics_gen when the topics were looked at last, and what they were */
    enum group_assignor assignor;
    struct list shares;                /* struct share: share_int.h */
    struct map share_map;              /* the same by stream and partition */
    struct map sharers, holds;         /* struct sharer by member, struct share_hold by both */
    const struct group_config *config; /* NULL: nothing is set */
    bool sharing;                      /* a share group, for ever */
    bool revived;                      /* it had assignees when the broker went */
    bool journalled;                   /* the journal knows of it */
    lsn_t lsn;                         /* of its last GROUP record … */
    lsn_t offset_lsn;                  /* … and OFFSETS record */
    struct map offsets;
    struct list offset_list; /* struct committed: the oldest first */
    wall_t empty_since;
    struct timer retention;
};

struct group_rules { /* what is set of a group's name */
    struct object object;
    struct list link; /* b->group_rules_list */
    struct list vhost_link;
    struct vhost *vhost;
    struct slice key, name; /* as struct group's */
    struct slice rows;      /* owned: u8 enum group_setting, u64 number, s8 text …; never none but while it is made */
    struct group_config config;
};

struct join { /* operands of JOIN */
    struct slice client, type, protocols;
    uint32_t session_ms, rebalance_ms;
};

/* ---- group.c ---- */
struct slice group_key(uint8_t room[2 * NAME_MAX_BYTES + 1], const struct vhost *vhost, struct slice name);
struct group *group_find(struct broker *b, const struct vhost *vhost, struct slice name);
MUST_USE struct group *group_make(struct broker *b, struct vhost *vhost,
                                  struct slice name); /* NULL: no memory, or too many */
void group_free(struct broker *b, struct group *g);
void group_move(struct group *g, enum group_state next);
void group_rest(struct broker *b, struct group *g); /* when empty: until when it is kept is found again */
/* Owned copies, counted; *ret is what it was if there is no memory. */
MUST_USE bool group_keep(struct broker *b, struct slice *ret, struct slice from);
void group_drop(struct broker *b, struct slice *owned);
bool group_has_room(const struct broker *b, size_t bytes);

/* ---- group_answer.c ---- */
enum group_error group_asked(struct broker *b, const struct peer *peer, const struct command *c, enum verb verb);
enum group_error member_check(const struct group *g, const struct command *c, struct member **ret);
void group_say(struct broker *b, struct peer *peer, const struct command *c, enum group_error error,
               struct answer *answer, lsn_t lsn);
void group_say_or(struct broker *b, struct peer *peer, const struct command *c, enum group_error error,
                  struct answer *answer, lsn_t lsn);                 /* no answer: no memory */
MUST_USE struct answer *group_block(size_t bytes, struct writer *w); /* w writes its fields; then group_block_end */
struct answer *group_block_end(struct answer *answer, const struct writer *w);
void held_set(struct held *h, struct peer *peer, const struct command *c);
void held_answer(struct broker *b, struct held *h, enum group_error error, struct answer *answer, lsn_t lsn);
struct answer *group_joined(const struct group *g, const struct member *m, struct slice leader, bool all, bool skip);
struct answer *group_synced(const struct group *g, const struct member *m);

/* ---- group_member.c ---- */
struct member *member_find(const struct list *list, struct slice id);
struct member *member_of_instance(const struct group *g, struct slice instance); /* NULL: none, or no instance */
MUST_USE struct member *member_make(struct broker *b, struct group *g, struct slice id, struct slice instance,
                                    struct slice client, struct slice host);
void member_free(struct broker *b, struct member *m);  /* wherever it stands; who waits is told UNKNOWN_MEMBER */
void member_enlist(struct group *g, struct member *m); /* it is one from now on */
void member_await(struct group *g, struct member *m);  /* it is pending */
void member_alive(struct broker *b, struct member *m);
MUST_USE bool member_update(struct broker *b, struct member *m, const struct join *j);
size_t member_bytes(const struct member *m);
bool protocols_valid(struct slice protocols);
struct slice protocol_metadata(const struct member *m, struct slice name);
/* Whether a member, an old one perhaps, may come with these: something of them is offered by all others. */
bool protocols_fit(const struct group *g, const struct join *j, const struct member *self);
struct slice protocol_elected(const struct group *g); /* lent of a member; empty: none is offered by all */

/* ---- group_round.c ---- */
void round_begin(struct broker *b, struct group *g);   /* nothing when one is being prepared */
void round_try_end(struct broker *b, struct group *g); /* all have joined? */
void round_late(void *arg, struct timer *timer);
void member_late(void *arg, struct timer *timer);
void round_left(struct broker *b, struct group *g); /* members have gone */
void member_synced(struct broker *b, struct member *m);
int64_t round_ms(const struct group *g); /* of the member that asks for most time */

/* ---- group_assign.c ---- */
MUST_USE bool group_assign(struct broker *b, struct group *g); /* new targets; false: no memory, the old ones stay */

/* ---- group_topics.c ---- */
bool topics_valid(struct slice names);
bool topics_next(struct reader *r, struct slice *ret);
uint64_t topics_hash(const struct group *g); /* of what the group subscribes to, as it is */
/* Takes over what the assignee subscribes to. INVALID: the pattern is none; then, and without memory, nothing has changed. */
MUST_USE enum group_error topics_subscribe(struct broker *b, struct assignee *c, const struct slice *names,
                                           const struct slice *pattern, bool *ret_changed);
MUST_USE bool topics_match_again(struct broker *b,
                                 struct group *g); /* patterns, with what there is now; false: no memory */
void topics_drop(struct broker *b, struct assignee *c);

/* ---- group_consumer.c ---- */
struct consume { /* what a member says */
    struct slice client, topics, pattern;
    struct reader owned;
    uint32_t epoch, rebalance_ms;
    unsigned has; /* enum consume_has */
    enum group_assignor assignor;
};
void assignee_free(struct broker *b, struct assignee *c);
enum group_error assignee_remove(struct broker *b, struct group *g, struct slice id, struct slice instance);
struct assignee *assignee_find(const struct group *g, struct slice id);
MUST_USE struct assignee *assignee_make(struct broker *b, struct group *g, const struct peer *peer, struct slice id,
                                        struct slice instance, const struct consume *q);
void assignee_gone(struct broker *b, struct assignee *c); /* it leaves, or is not heard of any more */
void assignee_alive(struct broker *b, struct assignee *c);
struct answer *assignee_told(const struct broker *b, const struct assignee *c, bool whole); /* NULL: no memory */
MUST_USE bool group_look_around(struct broker *b,
                                struct group *g); /* targets are what they should be; false: no memory */
size_t assignee_bytes(const struct assignee *c);
/* Who says to be one: unknown, fenced because another process has its instance's name, or this one. */
enum group_error assignee_check(const struct group *g, const struct command *c, struct assignee **ret);
enum group_kind group_kind(const struct group *g);
enum group_state group_shown(const struct group *g); /* its state as it is told */
void assignees_check(const struct broker *b, const struct group *g);

/* ---- group_offsets.c ---- */
void committed_free(struct broker *b, struct committed *o);
MUST_USE struct committed *committed_make(struct broker *b, struct group *g, const struct group_offset *row, wall_t at);
void committed_put(struct broker *b, struct group *g, struct stream *s, struct committed *o); /* room is reserved */
struct stream *stream_of(struct broker *b, const struct vhost *vhost, uint64_t id, uint32_t partition);
enum group_error group_may_commit(struct broker *b, const struct group *g, const struct command *c);
/* allowed: the stream that was last found to be readable, 0 at first. */
enum group_error group_row_check(struct broker *b, const struct peer *peer, const struct group_offset *row,
                                 uint64_t *allowed);

/* ---- share.c ---- */
void shares_init(struct broker *b, struct group *g);
void shares_fini(struct broker *b, struct group *g);
void groups_shares_wake(struct broker *b, struct group *g);              /* what it may do has changed */
void sharer_release(struct broker *b, struct group *g, struct slice id); /* what the member holds is available again */
uint64_t shares_check(const struct broker *b, const struct group *g);    /* bytes */

/* ---- group_config.c ---- */
const struct group_config *group_config_of(const struct group *g);
void groups_rules_init(struct broker *b);
void groups_rules_fini(struct broker *b);
bool groups_rules_vhost_gone(struct broker *b, struct vhost *vhost, unsigned *budget);
const struct group_config *group_config_for(const struct broker *b, struct slice key); /* NULL: nothing is set */
uint64_t groups_rules_check(const struct broker *b);                                   /* bytes */
void group_rules_put(struct writer *w, const struct group_rules *rules);               /* into a record */
size_t group_rules_record_bytes(const struct group_rules *rules);

/* ---- group_journal.c ---- */
MUST_USE bool group_record_begin(struct broker *b, const struct group *g, enum record_type type, size_t bytes,
                                 struct writer *w); /* false: no memory */
lsn_t group_record_end(struct broker *b, const struct writer *w);
MUST_USE bool group_log(struct broker *b, struct group *g); /* as it is now; false: no memory */
MUST_USE bool group_log_gone(struct broker *b, struct group *g);
MUST_USE bool offsets_log_begin(struct broker *b, const struct group *g, size_t rows, size_t text, struct writer *w);
void offsets_log_row(struct writer *w, const struct group_offset *row, wall_t at); /* offset UINT64_MAX: deleted */
void offsets_log_end(struct broker *b, struct group *g, const struct writer *w);

#endif
