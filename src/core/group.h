/* group: what is asked of consumer groups and what comes back, one description for the core and for the engine that speaks Kafka.
 *
 * Operands stand in struct ask: name group, other member id, key instance id, number generation (int32; JOIN: session timeout << 32
 * | rebalance timeout, ms), args a block of the rows below. The answer is EFF_GROUP: flags enum group_error, number that of the
 * command, answer->fields a block (none with an error, but for JOIN's NEED_MEMBER_ID: s8 member). JOIN and SYNC may be answered
 * much later. Which state answers what is the table in group.c.
 *
 *   command        args                                                          fields
 *   JOIN           s8 client id, s8 type, protocols: s8 name, s32 metadata       u32 generation, s8 type, s8 protocol, s8 leader, s8 member,
 *                                                                                u8 skip assignment, members: s8 id, s8 instance, s32 metadata
 *   SYNC           s8 type, s8 protocol (empty: any), s8 member, s32 assignment… s8 type, s8 protocol, s32 assignment
 *   BEAT           -                                                             -
 *   LEAVE          s8 member, s8 instance …                                      u8 error …
 *   CONSUME        s8 client id, u8 enum consume_has, u8 enum group_assignor,    s8 member, u32 epoch, u32 beat within ms, u8 has assignment,
 *                  s32 topics: s8 name…, s32 pattern, u64 stream, u32 partition… u64 stream, u32 partition …
 *   SHARE_BEAT     s8 client id, u8 1: topics are named, s8 name …                as CONSUME
 *   SHARE_ACK      u64 stream, u32 partition, u32 batches: u64 first, u64 last,  u8 error …
 *                  s32 words: one for all, or one each, as enum share_ack …
 *   GROUP_SET      u8 setting, u64 number, s8 text … to be set                    -
 *   GROUP_CONFIGS  -                                                             u8 setting, u64 number, s8 text …
 *   GROUP_CONFIG_LIST  -                                                         s8 group to go on behind, empty: that was all; s8 group …
 *   SHARE_OFFSETS  u64 stream, u32 partition … (flag MULTIPLE: all)              u64 stream, u32 partition, u64 start + 1 (0: nothing was read
 *                                                                                yet), u64 records to be done with (signed) …
 *   SHARE_ALTER    u64 stream, u32 partition, u64 offset (negative: none) …      u8 error …
 *   SHARE_FORGET   u64 stream …                                                  u8 error …
 *   COMMIT         u64 stream, u32 partition, u64 offset, u32 epoch, s32 text …  u8 error …
 *   OFFSETS        u64 stream, u32 partition … (flag MULTIPLE: all)              u64 stream, u32 partition, u64 offset, u32 epoch, s32 text …
 *   LIST           s8 group: go on behind it; empty: from the first. number:     s8 group to go on behind, empty: that was all;
 *                  bits of the states, 0: all                                    s8 group, s8 type, u8 state, u8 enum group_kind …
 *   DESCRIBE       -                                                             u8 state, u32 generation, s8 type, s8 protocol, members: s8 id,
 *                                                                                s8 instance, s8 client id, s8 host, s32 metadata, s32 assignment
 *   DESCRIBE_CONSUMERS  -                                                        u8 state, u32 epoch, u32 target's epoch, u8 assignor,
 *                                                                                members: s8 id, s8 instance, s8 client id, s8 host, u32 epoch,
 *                                                                                s32 topics, s32 pattern, s32 and s32 of u64 stream, u32
 *                                                                                partition…: has, shall
 *   DELETE         -                                                             -
 *   OFFSET_DELETE  u64 stream, u32 partition …                                   u8 error …
 *
 * DESCRIBE_CONSUMERS: number is 1 for a share group, 0 for one whose members do not share. SHARE_BEAT: number is the epoch.
 * SHARE_ACK: other is the member; flag MULTIPLE: its session is over, and what else it has is available again.
 * SHARE_ALTER makes the group if there is none. It and SHARE_FORGET want one without members.
 * GROUP_SET: other is u8 settings to go; flags MULTIPLE: all others go, too, CHECK_ONLY. GROUP_CONFIG_LIST: name is the group to go on
 * behind, empty: from the first; those of which something is set. See group_config.h.
 * CONSUME: number is rebalance time-out, ms, 0: as it was << 32 | epoch. COMMIT and OFFSETS of a group in which the broker assigns:
 * number is the member's epoch. OFFSET_DELETE of a group with members is allowed to who has looked at their subscriptions: number is the generation he saw.
 */
#ifndef MILLRACE_CORE_GROUP_H
#define MILLRACE_CORE_GROUP_H

#include "base/reader.h"
#include "base/writer.h"

enum group_error {
    GROUP_OK,
    GROUP_ERR_REFUSED,         /* GROUP_AUTHORIZATION_FAILED */
    GROUP_ERR_INVALID_ID,      /* INVALID_GROUP_ID */
    GROUP_ERR_NO_GROUP,        /* GROUP_ID_NOT_FOUND */
    GROUP_ERR_UNKNOWN_MEMBER,  /* UNKNOWN_MEMBER_ID */
    GROUP_ERR_NEED_MEMBER_ID,  /* MEMBER_ID_REQUIRED */
    GROUP_ERR_FENCED,          /* FENCED_INSTANCE_ID */
    GROUP_ERR_GENERATION,      /* ILLEGAL_GENERATION */
    GROUP_ERR_REBALANCE,       /* REBALANCE_IN_PROGRESS */
    GROUP_ERR_PROTOCOL,        /* INCONSISTENT_GROUP_PROTOCOL */
    GROUP_ERR_SESSION_TIMEOUT, /* INVALID_SESSION_TIMEOUT */
    GROUP_ERR_FULL,            /* GROUP_MAX_SIZE_REACHED */
    GROUP_ERR_NOT_EMPTY,       /* NON_EMPTY_GROUP */
    GROUP_ERR_METADATA,        /* OFFSET_METADATA_TOO_LARGE */
    GROUP_ERR_NO_STREAM,       /* UNKNOWN_TOPIC_OR_PARTITION */
    GROUP_ERR_STREAM_REFUSED,  /* TOPIC_AUTHORIZATION_FAILED */
    GROUP_ERR_INVALID,         /* INVALID_REQUEST */
    GROUP_ERR_TOO_LARGE,       /* UNKNOWN_SERVER_ERROR, as Kafka says of assignments that do not fit into its log */
    GROUP_ERR_FENCED_EPOCH,    /* FENCED_MEMBER_EPOCH */
    GROUP_ERR_STALE_EPOCH,     /* STALE_MEMBER_EPOCH */
    GROUP_ERR_INSTANCE_HELD,   /* UNRELEASED_INSTANCE_ID */
    GROUP_ERR_NO_MEMORY, /* COORDINATOR_NOT_AVAILABLE, which is tried again: no memory, or a limit of the broker's */
    GROUP_ERR_PRODUCER,  /* INVALID_PRODUCER_ID_MAPPING */
    GROUP_ERR_PRODUCER_EPOCH, /* INVALID_PRODUCER_EPOCH */
    GROUP_ERR_TXN_STATE,      /* INVALID_TXN_STATE */
    GROUP_ERR_UNSTABLE,       /* UNSTABLE_OFFSET_COMMIT, which is tried again */
    GROUP_ERR_RECORD_STATE,   /* INVALID_RECORD_STATE */
    GROUP_ERR_COMMIT_SIZE,    /* INVALID_COMMIT_OFFSET_SIZE: more than one transaction may hold */
    GROUP_ERR_COUNT
};

enum group_state {
    GROUP_EMPTY,
    GROUP_PREPARING,
    GROUP_COMPLETING,
    GROUP_STABLE,
    GROUP_DEAD,
    GROUP_SHARERS,     /* a share group that has members: share_group.c */
    GROUP_CONSUMERS,   /* the broker assigns; what is told of it is stable or one of these two */
    GROUP_ASSIGNING,   /* the newest epoch has no target yet */
    GROUP_RECONCILING, /* not every member has what it shall have */
};

enum group_kind { GROUP_CLASSIC, GROUP_CONSUMER, GROUP_SHARE };

/* How the broker assigns. */
enum group_assignor { GROUP_UNIFORM, GROUP_RANGE, GROUP_ASSIGNORS };

#define GROUP_EPOCH_JOIN 0u
#define GROUP_EPOCH_LEAVE UINT32_MAX      /* -1 */
#define GROUP_EPOCH_AWAY (UINT32_MAX - 1) /* -2: a static member that will come back */
enum consume_has { CONSUME_TOPICS = 1, CONSUME_OWNED = 2, CONSUME_ASSIGNOR = 4, CONSUME_PATTERN = 8 };

/* What the options are when they are 0. */
#define GROUP_DELAY_MS 200
#define GROUP_CONSUMER_SESSION_MS 45000
#define GROUP_CONSUMER_BEAT_MS 5000
#define GROUP_SESSION_MIN_MS 6000
#define GROUP_SESSION_MAX_MS 1800000
#define GROUP_MEMBERS_MAX 1000u
#define SHARE_MEMBERS_MAX 200u
#define GROUP_RETENTION_MS (7 * 24 * 3600 * (int64_t)1000)
#define GROUPS_BYTES_MAX (256u << 20)

#define GROUP_BYTES_MAX (4u << 20)            /* what the members of a group have said of themselves, or are given */
#define GROUP_TEXT_MAX 4096u                  /* of a committed offset */
#define GROUP_PROTOCOLS_MAX 32u               /* that a member may offer */
#define GROUP_UNUSED_MS (600 * INT64_C(1000)) /* so long an empty group without offsets is kept */

/* A row of COMMIT, and of the answer to OFFSETS. */
struct group_offset {
    uint64_t stream; /* id of its queue */
    uint32_t partition, epoch;
    uint64_t offset; /* UINT64_MAX: none */
    struct slice metadata;
};
#define GROUP_OFFSET_BYTES 28u /* of a row without its text */
#define GROUP_PLACE_BYTES 12u  /* stream and partition */
#define SHARE_OFFSET_BYTES 28u /* of a row of SHARE_OFFSETS' answer … */
#define SHARE_ALTER_BYTES 20u  /* … and of SHARE_ALTER */

static inline void group_offset_put(struct writer *w, const struct group_offset *o)
{
    writer_u64(w, o->stream);
    writer_u32(w, o->partition);
    writer_u64(w, o->offset);
    writer_u32(w, o->epoch);
    writer_str32(w, o->metadata);
}

static inline struct group_offset group_offset_read(struct reader *r)
{
    struct group_offset o = {.stream = reader_u64(r)};
    o.partition = reader_u32(r);
    o.offset = reader_u64(r);
    o.epoch = reader_u32(r);
    o.metadata = reader_str32(r);
    return o;
}

#endif
