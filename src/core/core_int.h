/* core_int: the functions that the files of core/ share, by the file that has them. Nobody outside core/ includes this.
 *
 * Everything here belongs to the core thread; what it works on is in core_state.h.
 */
#ifndef MILLRACE_CORE_CORE_INT_H
#define MILLRACE_CORE_CORE_INT_H

#include "core/core_state.h"

/* broker.c */
uint64_t random_u64(struct broker *b);
void random_name(struct broker *b, const char *prefix, char *ret, size_t len); /* prefix + 22 characters */
MUST_USE bool buffer_reserve(struct buffer *buffer, size_t more);
void buffer_put(struct buffer *buffer, const void *bytes, size_t len); /* room is reserved */
void buffer_fini(struct buffer *buffer);
void object_add(struct broker *b, struct object *object, enum object_kind kind, bool journalled);
void object_remove(struct broker *b, struct object *object);
static inline void budget_spend(unsigned *budget, uint64_t cost) /* of a slice of work */
{
    *budget -= cost < *budget ? (unsigned)cost : *budget;
}
MUST_USE bool slice_keep(struct slice *ret, struct slice from); /* owned copy; empty needs no memory */
void slice_drop(struct slice *owned);
struct peer *peer_of(struct broker *b, struct port_side *side, uint32_t number);
struct channel *channel_of(struct peer *peer, uint16_t number);

/* effects.c */
struct effect *effect_push(struct broker *b, struct peer *peer, enum effect_type type, uint16_t channel);
struct effect *effect_slot(struct port_side *side, bool *ret_overflow); /* for the port itself; NULL: no memory */
void effect_drop(struct broker *b, struct effect *e);                   /* frees what belongs to it */
void effect_flush(struct port_side *side);
bool port_has_room(struct port_side *side); /* for deliveries */
MUST_USE struct answer *answer_new(struct slice text, struct slice name, struct slice fields);
/* To a command of the session's, not of a channel's; takes the answer. NULL: there was no memory for one. */
void answer_give(struct broker *b, struct peer *peer, uint32_t origin, struct answer *answer, lsn_t lsn);
void answer_ok(struct broker *b, struct peer *peer, const struct command *c, lsn_t lsn, struct slice name,
               uint64_t number, uint64_t number2);
/* Reports and fails the channel (soft codes) or the peer (hard codes). */
void fail(struct broker *b, struct peer *peer, uint16_t channel, uint32_t origin, enum error_code code,
          const char *format, ...) __attribute__((format(printf, 6, 7)));
void kick(struct broker *b, struct peer *peer, const char *text);
void kick_with(struct broker *b, struct peer *peer, enum error_code code, const char *text);
void no_memory(struct broker *b, struct peer *peer, uint16_t channel, uint32_t origin);

/* access.c */
bool authorise(struct broker *b, struct user *user, struct vhost *vhost, enum verb verb, struct slice name);
bool peer_may(struct broker *b, const struct peer *peer, enum verb verb, struct slice name); /* in its vhost */
bool user_administers(const struct user *user); /* it has the tag "administrator" */
bool authorise_topic(struct broker *b, struct user *user, struct exchange *x, enum verb verb, struct slice key);
/* authorise, and the refusal when it says no. kind: "queue", "exchange". */
bool allowed(struct broker *b, struct peer *peer, const struct command *c, enum verb verb, const char *kind,
             struct slice name);
bool may_enter(struct user *user, struct vhost *vhost);
struct user *user_find(struct broker *b, struct slice name);
MUST_USE bool user_put(struct broker *b, struct slice name, struct slice verifier, struct slice tags, bool journalled);
void user_delete(struct broker *b, struct user *user);
MUST_USE bool permission_put(struct broker *b, struct user *user, struct vhost *vhost, struct slice configure,
                             struct slice write, struct slice read, char *text, size_t text_len);
MUST_USE bool topic_permission_put(struct broker *b, struct user *user, struct vhost *vhost, struct slice exchange,
                                   struct slice write, struct slice read, char *text, size_t text_len);
struct permission *permission_find(struct user *user, struct vhost *vhost, const struct slice *topic_exchange);
void permission_delete(struct broker *b, struct permission *permission);
MUST_USE bool pattern_make(struct pattern *ret, struct slice text, char *error, size_t error_len);
MUST_USE bool pattern_make_whole(struct pattern *ret, struct slice text); /* one that has to match the whole subject */
void pattern_drop(struct pattern *pattern);
bool pattern_matches(const struct pattern *pattern, struct slice subject);
/* The same for who must know. False: nobody knows, it would take too long or too much memory. */
MUST_USE bool pattern_decides(const struct pattern *pattern, struct slice subject, bool *ret_matches);
/* The same for many subjects: one that takes long (up to 0.3 ms) costs one of *patience; without it nobody knows. */
MUST_USE bool pattern_decides_within(const struct pattern *pattern, struct slice subject, unsigned *patience,
                                     bool *ret_matches);

/* vhost.c (with policies) */
struct vhost *vhost_find(struct broker *b, struct slice name);
MUST_USE struct vhost *vhost_put(struct broker *b, struct slice name, struct slice default_queue_type);
MUST_USE bool policy_put(struct broker *b, struct vhost *vhost, struct slice name, struct slice pattern,
                         enum apply_to apply_to, int64_t priority, struct slice definition, bool operator_policy,
                         char *text, size_t text_len);
struct policy *policy_find(struct vhost *vhost, struct slice name, bool operator_policy);
void policy_delete(struct broker *b, struct policy *policy);
void policy_find_queue(struct queue *q); /* which policies it has; its rules are as they were */
void policy_apply_queue(struct broker *b, struct queue *q);
void policy_apply_exchange(struct broker *b, struct exchange *x);
bool apply_to_parse(struct slice text, enum apply_to *ret);
const char *apply_to_name(enum apply_to apply_to);

/* vhost_end.c */
/* Nobody finds it any more, and its end is in the journal; the rest goes in slices. by hears of the end of that; NULL: nobody. */
void vhost_delete_begin(struct broker *b, struct vhost *vhost, struct peer *by, uint32_t origin, lsn_t lsn);
void vhost_delete(struct broker *b, struct vhost *vhost); /* all of it now, and unsaid */
bool vhosts_turn(struct broker *b);                       /* once a tick; true: more to do */
bool vhost_is_dying(const struct broker *b, struct slice name);
void vhosts_forget_peer(struct broker *b, const struct peer *peer);
void vhosts_end(struct broker *b); /* those that are dying: at once */
/* It goes with its vhost, and the journal says no more of it. */
bool object_is_dying(const struct object *object);

/* args.c */
bool queue_type_has(enum queue_type type, const char *key); /* an argument that it takes */
const char *queue_type_module(enum queue_type type);        /* what RabbitMQ calls it in error texts */
MUST_USE bool queue_args_check(struct slice args, struct slice queue, struct slice vhost, struct queue_rules *ret,
                               char *text, size_t text_len);
/* Whether policies have settings of these names. False: `text` says which one they have not, and what was meant. */
bool policy_keys_check(struct slice definition, char *text, size_t text_len);
void queue_rules_resolve(const struct queue *q, struct queue_rules *ret); /* lends of its arguments and policies */
MUST_USE bool args_equivalent(const char *what, struct slice name, struct slice vhost, struct slice asked,
                              struct slice current, const char *const *keys, char *text, size_t text_len);
extern const char *const queue_arg_keys[];
extern const char *const exchange_arg_keys[];

/* rules.c: shared rules */
void rules_init(struct broker *b);
void rules_fini(struct broker *b);
MUST_USE const struct queue_rules *rules_share(struct broker *b, const struct queue_rules *rules); /* NULL: no memory */
void rules_drop(struct broker *b, const struct queue_rules **rules);                               /* NULL is nothing */

/* exchange.c */
struct exchange *exchange_find(struct vhost *vhost, struct slice name);
const struct exchange_type *exchange_type_find(struct slice name);
const struct exchange_type *exchange_type_for_clients(struct slice name); /* that somebody may declare; NULL */
MUST_USE struct exchange *exchange_make(struct broker *b, struct vhost *vhost, struct slice name,
                                        const struct exchange_type *type, bool delayed, bool durable, bool auto_delete,
                                        bool internal, struct slice args);
/* exchange_end.c */
void exchange_delete_begin(struct broker *b,
                           struct exchange *x);              /* its end is in the journal; the rest goes in slices */
void exchange_delete(struct broker *b, struct exchange *x);  /* all of it, or what is left, now */
void exchange_unbound(struct broker *b, struct exchange *x); /* it lost its last binding, and goes with it */
bool exchanges_turn(struct broker *b);                       /* once a tick; true: more to do */

/* exchange.c again */
MUST_USE bool binding_make(struct broker *b, struct exchange *source, struct queue *queue, struct exchange *exchange,
                           struct slice key, struct slice args, struct binding **ret_new); /* NULL: it was there */
lsn_t binding_log(struct broker *b, struct binding *fresh); /* and where its stream's cursor stands */
/* False: no memory to look for it. NULL: it is not there. */
MUST_USE bool binding_find(struct vhost *vhost, struct exchange *source, struct queue *queue, struct exchange *exchange,
                           struct slice key, struct slice args, struct binding **ret);
/* may_delete: an auto-delete source that lost its last binding goes too. */
void binding_delete(struct broker *b, struct binding *binding, bool may_delete);
bool exchange_make_defaults(struct broker *b, struct vhost *vhost);

/* route.c */
MUST_USE bool route_message(struct broker *b, struct exchange *x, const struct msg *msg, struct slice headers,
                            struct route *route);
bool route_add(struct broker *b, struct route *route, struct queue *q);
void route_target(struct broker *b, struct route *route, struct binding *binding);
void route_fini(struct route *route);

/* queue.c */
struct queue *queue_find(struct vhost *vhost, struct slice name);
MUST_USE struct queue *queue_make(struct broker *b, struct vhost *vhost, struct slice name, bool durable,
                                  bool exclusive, bool auto_delete, struct slice args, struct peer *owner, uint64_t id);
/* The same with its record in the journal: nobody has its name. owner: it is exclusive. NULL: no memory, or no room. */
MUST_USE struct queue *queue_create(struct broker *b, struct vhost *vhost, struct slice name, uint32_t flags,
                                    struct slice args, struct peer *owner, lsn_t *ret_lsn);
void queue_delete(struct broker *b, struct queue *q);
uint64_t queue_work(const struct queue *q); /* about how many µs that takes */
/* The same in two halves, for an answer between them. log_object_reserve has said yes. */
lsn_t queue_end_begin(struct broker *b, struct queue *q);
void queue_end_finish(struct broker *b, struct queue *q);
uint64_t queue_purge(struct broker *b, struct queue *q);
/* It is durable from now on, with its bindings; what waits in it is not. False: no memory. */
bool queue_outlive(struct broker *b, struct queue *q, lsn_t *ret_lsn);
void queue_used(struct broker *b, struct queue *q);
void queue_expires(void *arg, struct timer *timer); /* fires in a queue's expires_timer */
void queue_rules_changed(struct broker *b, struct queue *q);
MUST_USE bool queue_rules_retry(struct broker *b); /* those for which there was no memory */
bool queue_locked(const struct queue *q, const struct peer *peer);
/* Other arguments from now on; the block passes to the queue. They were checked, and are in the journal. */
void queue_args_replace(struct broker *b, struct queue *q, struct slice *owned);
MUST_USE bool queue_extra_make(struct queue *q); /* if it is not there. False: no memory */
void fail_locked(struct broker *b, struct peer *peer, const struct command *c, struct slice queue);

/* busy.c */
void busy_init(struct broker *b);
void busy_recovered(struct broker *b);
/* The queue is busy afterwards, until a timer finds that it rests: what a command rouses is busy to its end. */
MUST_USE bool queue_rouse_now(struct broker *b, struct queue *q);
static inline bool queue_rouse(struct broker *b, struct queue *q)
{
    return queue_is_busy(q) || queue_rouse_now(b, q);
}
static inline bool queues_rouse(struct broker *b, const struct route *route)
{
    for (uint32_t i = 0; i < route->count; i++)
        if (!queue_rouse(b, route->queues[i]))
            return false;
    return true;
}
void queue_calmed_now(struct broker *b, struct queue *q);
static inline uint64_t queue_delayed(const struct queue *q) /* messages that wait for their retry */
{
    return q->extra ? q->extra->retry.count : 0;
}
static inline void queue_calmed(struct broker *b, struct queue *q) /* something ended: perhaps nothing is left to do */
{
    const struct busy *w = q->busy;
    if ((w->ready_count | w->unacked_count | w->consumer_count | queue_delayed(q)) == 0)
        queue_calmed_now(b, q);
}
void queue_busy_end(struct broker *b, struct queue *q);
void busy_check(const struct queue *q);

/* backlog.c: entries in a queue */
void backlog_init(struct busy *busy);
struct entry *backlog_append(struct broker *b, struct queue *q, struct msg *msg, uint64_t position, lsn_t lsn,
                             wall_t deadline, bool journalled);
struct entry *backlog_head(struct queue *q);
void backlog_take(struct broker *b, struct entry *entry);    /* lane → unacked list */
void backlog_requeue(struct broker *b, struct entry *entry); /* unacked or delayed → lane, in its place */
void backlog_leave(struct broker *b, struct entry *entry);   /* whatever list it is in */
/* The entry leaves the queue for good: its removal is journalled (not for REASON_MOVED) and it is freed. */
void backlog_remove(struct broker *b, struct entry *entry, enum reason reason);
void backlog_free(struct broker *b, struct entry *entry);
void backlog_removed(struct broker *b, struct queue *q, uint64_t first, uint64_t last);
void backlog_flush_removals(struct broker *b);
void backlog_limit(struct broker *b, struct queue *q);               /* drop-head */
bool backlog_would_overflow(struct queue *q, const struct msg *msg); /* behind what is planned */
void backlog_expire(struct broker *b, struct queue *q);
void backlog_arm(struct broker *b, struct queue *q);
wall_t backlog_deadline(const struct broker *b, const struct queue *q, const struct msg *msg);
static inline bool backlog_journals(const struct queue *q, const struct msg *msg)
{
    return q->object.journalled && ((msg->flags & MSG_PERSISTENT) || q->rules->type == QUEUE_QUORUM);
}

/* The first waiting message of a lane, when it is in memory. */
struct entry *lane_first(const struct lane *lane);
unsigned lane_count(const struct queue *q);
uint8_t lane_of_msg(const struct queue *q, const struct msg *msg);
struct list *lane_list_of(struct lane *lane, const struct entry *e); /* front or entries */
/* An entry joins or leaves the memory that paging may free. */
void backlog_memory(struct broker *b, struct entry *e, bool joins);
void backlog_want(struct broker *b, struct queue *q); /* the head is on disk: read it */

/* select.c */
#define SELECTOR_ARG "x-selector"
#define SELECTING_MAX 256u /* consumers of one queue, or bindings of one exchange, that have a selector */
struct selector;
enum selector_found { SELECTOR_NONE, SELECTOR_OK, SELECTOR_WRONG, SELECTOR_NO_MEMORY };
enum selector_found selector_of(struct slice args, struct selector **ret, char *why, size_t why_len);
void selector_free(struct selector **s);
bool selector_equal(const struct selector *a, const struct selector *b);
bool selector_takes(const struct selector *s, const struct msg *msg, unsigned *ret_steps); /* that it took */

/* sieve.c */
MUST_USE bool sieve_join(struct queue *q, struct consumer *consumer,
                         struct selector **s); /* takes it; false: no memory */
void sieve_leave(struct broker *b, struct consumer *consumer);
/* The next message that such consumers may have; NULL: there is none in memory, or *looks has run out. */
struct entry *sieve_next(struct broker *b, struct queue *q, struct sieve *sieve, unsigned *looks);
/* The entry leaves the memory of its lane: nobody may point at it any more. */
static inline void lane_forgets(struct queue *q, const struct entry *e)
{
    if (q->busy->requeue_hint == e)
        q->busy->requeue_hint = NULL;
    if (!list_empty(&q->busy->scans))
        scans_forget(q, e);
}

/* paging.c */
void paging_init(struct broker *b);
void paging_fini(struct broker *b);
bool paging_turn(struct broker *b); /* once a tick: writes pages, drops segments. True: work is left */
void paging_disk_full(struct broker *b);
bool paging_overloaded(const struct broker *b);        /* publishers are faster than the disk: take no commands */
void paging_listed(struct broker *b, struct queue *q); /* into the list where it belongs by what it holds */
void paging_want(struct broker *b, struct queue *q, struct lane *lane); /* read ahead, when the front is short */
void paging_left(struct broker *b, struct lane *lane, struct entry *e); /* before an entry leaves a lane with pages */
void paging_entry_gone(struct broker *b, struct entry *e);         /* the message of a page dies, or leaves the page */
void paging_drop(struct broker *b, struct queue *q, bool journal); /* all pages and what waits in memory behind them */
bool paging_is_damaged(const struct queue *q);                     /* its next message cannot be read */
wall_t paging_deadline(const struct lane *lane); /* of the first message, when that is not in memory; WALL_NEVER */
struct page *page_new(struct queue *q, unsigned lane); /* replay.c makes them too */
void page_free(struct broker *b, struct page *page);
void page_dropped(struct broker *b, struct page *page);          /* one on disk, or being read: its messages are gone */
void page_removed(struct broker *b, struct page *page);          /* and this says so in the journal */
static inline uint64_t *page_body_bytes(const struct page *page) /* the sum of which its messages' bodies are part */
{
    return page->retry ? &page->queue->extra->retry.bytes : &page->queue->busy->ready_bytes;
}
bool paging_front_is_full(const struct broker *b, const struct lane *lane); /* nothing more should come back to it */
/* Is this the page that the journal tells of? Its holes are unpacked, its checksum was right. */
bool page_fits(const struct page *page, const struct page_job *job);
MUST_USE struct page_job *page_job_to_read(const struct page *page); /* without its ticket; NULL: no memory */
size_t page_job_memory(const struct page_job *job);                  /* what its messages take */
struct entry *entry_of_item(struct broker *b, struct page *page, struct page_item *item); /* takes its message */
void paging_end(struct broker *b, struct queue *q, struct lane *lane); /* if nothing is in front or pages any more */

#define RETRY_LANE 256u /* where the journal has pages of retries: behind all priorities */
static inline unsigned page_lane(const struct page *page)
{
    return page->retry ? RETRY_LANE : page->lane;
}

/* holes.c */
/* Sorted runs that do not touch. The positions are in none yet; false: no memory. */
MUST_USE bool ranges_put(struct ranges *r, uint64_t position, uint64_t count);
MUST_USE bool ranges_room(struct ranges *r, uint32_t more);      /* runs */
uint64_t ranges_past(const struct ranges *r, uint64_t position); /* the first from there on that is in none */
uint64_t ranges_next(const struct ranges *r, uint64_t position); /* … that is in one; UINT64_MAX */
MUST_USE bool page_hole(struct page *page, uint64_t position, uint64_t count);
bool page_has(const struct page *page, uint64_t position);
void page_pack(struct page *page);            /* its holes take little memory from now on */
MUST_USE bool page_unpack(struct page *page); /* and are quickly found and changed */
void page_holes_put(struct writer *w, const struct page *page);
/* The next run of positions that are alive, from *position on. False: there is none. */
bool page_alive_from(const struct page *page, uint64_t *position, uint64_t *ret_last);
void paging_settle_entry(struct broker *b, struct lane *lane, struct entry *e);
MUST_USE bool page_settle(struct broker *b,
                          struct page *page); /* a page of the replay takes its place; last come highest */

/* between paging.c and thin.c */
void front_grows(struct broker *b, struct lane *lane, struct entry *e);   /* the entry stands in the front */
void front_shrinks(struct broker *b, struct lane *lane, struct entry *e); /* it leaves */
struct list *entry_place(struct list *list, uint64_t position);          /* of entries: before which a new one stands */
void front_insert(struct broker *b, struct lane *lane, struct entry *e); /* in its place */
bool paging_may_write(struct broker *b);                                 /* there is too much in memory, and … */
bool paging_can_write(struct broker *b);                                 /* … room for a job that writes */
bool paging_may_read(struct broker *b);                                  /* for one that reads */
bool paging_has_room(struct broker *b);                                  /* for a job */
bool paging_send(struct broker *b, struct page_job *job); /* false: no room, the job stays the caller's */
void paging_pause(struct broker *b, bool *what);          /* a job failed: b->reading_paused or writing_paused */
size_t paging_page_bytes(const struct broker *b);
bool page_is_hole(const struct page *page, uint64_t position);
MUST_USE bool page_reserve(struct page *page); /* holes have room, whatever goes */
uint32_t page_returns_of(const struct page *page, const struct page_item *item);
/* The ticket of a page job: who waits for the answer, and in the lower bits what he is. */
enum ticket_kind { TICKET_PAGE, TICKET_MOVE, TICKET_DELAY, TICKET_LOOK };
static inline uint64_t page_ticket(enum ticket_kind kind, const void *whose)
{
    return (uint64_t)(uintptr_t)whose | kind;
}
static inline enum ticket_kind page_ticket_kind(uint64_t ticket)
{
    return (enum ticket_kind)(ticket & 3);
}
static inline void *page_ticket_whose(uint64_t ticket)
{
    return (void *)(uintptr_t)(ticket & ~(uint64_t)3);
}
#define PAGE_JOBS_MAX 432u /* on their way: writes, reads, moves, looks */

/* segment.c */
void segment_lists_init(struct broker *b);
void segment_lists_fini(struct broker *b);
MUST_USE bool segment_join(struct broker *b, struct page *page); /* page->where is set */
void segment_leave(struct broker *b, struct page *page);
void segment_weighs(struct broker *b, const struct page *page, uint64_t before); /* its page_weight has changed */
void segment_unused(struct broker *b, const struct page_where *where);
void segment_reconsider(struct broker *b, uint64_t number);
void dead_segments_drop(
    struct broker *b); /* S3: files that nobody needs go when the removal of their last message is durable */

/* move.c */
void moves_init(struct broker *b);
void moves_fini(struct broker *b);
void moves_turn(struct broker *b);
void moves_merge(struct broker *b, const struct lane *lane, struct page *page); /* the page has just been written */
void moves_forget(struct broker *b, struct page *page);                         /* it goes */
void move_answered(struct broker *b, struct page_job *job);
bool page_write(struct broker *b, struct queue *q, unsigned lane,
                bool thin);                /* false: nothing to write, or no memory */
size_t thin_least(const struct broker *b); /* memory that a page is worth */
bool thin_turn(struct broker *b);
bool queue_is_awaited(const struct queue *q); /* somebody would take its next message now */

bool get_later(struct broker *b, struct channel *ch, struct queue *q, uint32_t origin, bool no_ack);
void getters_forget(struct broker *b, struct channel *ch);
void getters_end(struct broker *b, struct queue *q);

/* stream.c, stream_read.c, stream_feed.c */
void streams_init(struct broker *b);
void streams_fini(struct broker *b);
/* After a replay, before anything is appended: what came from the journal is durable, whatever is appended with it in a tick. */
void streams_recovered(struct broker *b);
bool streams_turn(struct broker *b); /* once a tick: records to chunks, chunks to the store; true: more to do */
bool streams_overloaded(const struct broker *b); /* publishers are faster than the files: take no commands */
MUST_USE bool stream_make(struct broker *b, struct queue *q); /* its rules are known */
void stream_free(struct broker *b, struct queue *q);
MUST_USE bool age_parse(struct slice text, int64_t *ret_ms); /* "7D", "12h": a number and Y, M, D, h, m or s */
void stream_recovered(struct broker *b, struct queue *q);
void stream_rules_changed(struct broker *b, struct queue *q);
void streams_changed(struct broker *b); /* tells the loops: port.streams_changed */
void stream_target(struct broker *b, struct queue *q, const struct msg *msg, struct target *ret); /* its next offset */
void stream_append(struct broker *b, const struct target *t, struct msg *msg); /* room in b->entries is reserved */
uint64_t stream_count(const struct queue *q);                                  /* records that it keeps */
uint64_t stream_bytes(const struct queue *q);                                  /* of its files */
void streams_sync_begin(struct broker *b);                                     /* everything appended so far … */
bool streams_synced(struct broker *b); /* … is in files that survive a power cut */
MUST_USE bool stream_snapshot(struct broker *b, struct queue *q);
MUST_USE bool stream_hold(struct broker *b, struct queue *q, const struct target *t, struct msg *msg); /* replay.c */
MUST_USE bool stream_settle(struct broker *b, struct queue *q, char *why, size_t why_len);
MUST_USE bool replay_stream(struct broker *b, struct reader *r);
MUST_USE bool replay_stream_trim(struct broker *b, struct reader *r);
MUST_USE bool replay_rewritten(struct broker *b, struct reader *r);
MUST_USE bool replay_cursor(struct broker *b, struct reader *r);
MUST_USE bool replay_batch(struct broker *b, struct reader *r);
MUST_USE bool replay_producers(struct broker *b, struct reader *r);
MUST_USE bool replay_isolation(struct broker *b, struct reader *r);
MUST_USE bool producer_ids_reserve(struct broker *b); /* there is one to give out, and the journal knows it */

/* txn.c */
void txns_vhost_init(struct broker *b, struct vhost *vhost); /* its allowances: txn_room.c */
void txns_init(struct broker *b);
void txns_fini(struct broker *b);
void txns_check(const struct broker *b);
bool txn_listings_turn(struct broker *b); /* once a tick; true: more to do */
void txn_listings_forget_peer(struct broker *b, const struct peer *peer);
bool txn_expired(const struct broker *b, const struct object *object); /* nobody has used it for a week */
void txn_forget(struct broker *b, struct object *object);
MUST_USE bool replay_queue_args(struct broker *b, struct reader *r);
void stream_pump(struct broker *b, struct queue *q, unsigned *budget);
bool stream_consume_allowed(struct broker *b, struct channel *ch, struct queue *q, struct command *c);
MUST_USE bool stream_consume(struct broker *b, struct consumer *consumer);
void stream_consumer_gone(struct broker *b, struct consumer *consumer);
/* May this be bound to a source? why: what is wrong. */
MUST_USE bool stream_bind_allowed(struct broker *b, const struct exchange *source, struct slice args,
                                  const struct queue *q, char *why, size_t why_len);
MUST_USE bool stream_bound(struct broker *b, struct binding *binding); /* before it is in any list; false: no memory */
void stream_source_gone(struct exchange *x);
void stream_unbound(struct broker *b, struct binding *binding);
unsigned stream_cursor_records(const struct exchange *source); /* that stream_log_cursor writes */
lsn_t stream_log_cursor(struct broker *b, const struct binding *binding);
void fetches_release(struct broker *b, struct peer *peer); /* nobody waits for them any more */
void feed_hungry_queue(struct broker *b, struct queue *q); /* it has room again */

/* group.c, group_journal.c */
void groups_init(struct broker *b);
void groups_fini(struct broker *b);
void groups_recovered(struct broker *b);
void groups_forget_peer(struct broker *b, struct peer *peer); /* its members stay until their sessions are over */
void shares_forget_peer(struct broker *b, struct peer *peer); /* what it has acquired is available again */
void shares_stream_gone(struct broker *b, struct stream *s);
MUST_USE bool replay_share(struct broker *b, struct reader *r);
MUST_USE bool replay_group_config(struct broker *b, struct reader *r);
bool groups_vhost_gone(struct broker *b, struct vhost *vhost, unsigned *budget); /* true: none is left */
void groups_stream_gone(struct broker *b, struct stream *s);                     /* nobody's offsets are left in it */
MUST_USE bool groups_snapshot(struct broker *b, size_t *bytes, bool *ret_done);  /* a slice; false: no memory */
void groups_check(struct broker *b);
MUST_USE bool replay_group(struct broker *b, struct reader *r);
MUST_USE bool replay_offsets(struct broker *b, struct reader *r);

/* query.c, query_relay.c, query_step.c */
struct sql_object;
void sql_init(struct broker *b);
void sql_fini(struct broker *b);
static inline struct port_side *sql_side(const struct broker *b)
{
    return &b->sides[b->options.ports + 3];
}
void sql_turn(struct broker *b);                          /* tells the engine what there was no room for */
void relays_release(struct broker *b, struct peer *peer); /* nobody listens any more */
size_t query_step_bytes(const struct query_step *step);   /* of its messages and its trail */
void sql_vhost_init(struct broker *b, struct vhost *vhost);
bool sql_vhost_gone(struct broker *b, struct vhost *vhost,
                    unsigned *budget);                              /* its objects go with it; true: all have */
lsn_t log_sql_object(struct broker *b, const struct sql_object *o); /* all of it; 0: no memory, or no room */
lsn_t log_sql_snapshot(struct broker *b, const struct object *object);
void sql_check(struct broker *b);
/* A name that only SQL's engine makes and changes; and whether that is who asks. */
bool sql_is_internal(struct slice name);
bool sql_owns(const struct broker *b, const struct peer *peer, struct slice name);
MUST_USE bool replay_sql_object(struct broker *b, struct reader *r);
MUST_USE bool replay_sql_object_gone(struct broker *b, struct reader *r);
MUST_USE bool replay_sql_state(struct broker *b, struct reader *r);
MUST_USE bool replay_query_step(struct broker *b, struct reader *r);

/* publish.c */
enum enqueue_result { ENQUEUE_OK, ENQUEUE_REJECTED, ENQUEUE_NO_MEMORY };
/* Journals msg for the routed queues (removing `from` in the same record when given) and enqueues it. */
enum enqueue_result enqueue_routed(struct broker *b, struct msg *msg, const struct route *route, struct entry *from,
                                   lsn_t *ret_lsn);
/* What that needs, and more room in the journal for what goes with it. False: no memory. */
MUST_USE bool enqueue_reserve(struct broker *b, struct msg *msg, const struct route *route, size_t more,
                              unsigned records);
void publish_refused(struct broker *b, struct channel *ch, uint64_t seq, uint64_t bytes, enum nack_why why);
void publish_confirmed(struct broker *b, struct channel *ch, uint64_t seq, uint64_t bytes, lsn_t lsn);
struct slice msg_headers(const struct msg *msg); /* content of the header table, or empty */
/* What those get who get it: a copy without the header BCC, yours, or NULL: it has none. False: no memory. */
MUST_USE bool msg_hide_bcc(struct broker *b, const struct msg *msg, struct msg **ret_copy);
/* The same message with other properties; refs 1. NULL: no memory. */
MUST_USE struct msg *msg_with_props(struct broker *b, const struct msg *msg, const struct amqp_props *props);
MUST_USE struct answer *return_answer(void);
void return_msg(struct broker *b, struct channel *ch, struct msg *msg, uint32_t origin, struct answer **answer);
MUST_USE bool targets_reserve(struct broker *b, uint32_t count); /* for enqueue_routed, as pool_reserve_many is */

/* deadletter.c */
/* The entry is in a lane or unacked. False: no memory, nothing has changed. */
bool dead_letter(struct broker *b, struct entry *entry, enum reason reason);
void dead_letter_msg(struct broker *b, struct queue *q, struct msg *msg,
                     enum reason reason);             /* never was in the queue */
bool dead_letter_run(struct broker *b, unsigned max); /* true: more is left */
/* It died in that queue before, and nobody rejected it: that is a cycle. */
bool dead_letter_came_round(const struct msg *msg, const struct queue *q);
void dead_letters_give_lsn(struct broker *b, lsn_t lsn);
/* For a transaction: makes everything that dead-lettering this unacknowledged entry needs, or adds it to needs. False: no
 * memory. NULL in ret: it has nowhere to go. */
MUST_USE bool dead_letter_prepare(struct broker *b, struct entry *entry, enum reason reason, struct tx_needs *needs,
                                  size_t *ret_need, struct dead_letter **ret);
void dead_letter_prepared(struct broker *b, struct dead_letter **d); /* needs are reserved; it cannot fail */
void dead_letter_discard(struct broker *b, struct dead_letter **d);

/* delay.c */
bool delay_publish(struct broker *b, struct exchange *x, struct msg *msg, int64_t delay_ms, lsn_t *ret_lsn);
/* The same in steps, for a transaction. Prepared: the vhost's hidden queue is there and has room for so many. */
MUST_USE bool delay_prepare(struct broker *b, struct vhost *vhost, uint32_t count);
struct entry *delay_prepared(struct broker *b, struct exchange *x, struct msg *msg, int64_t delay_ms);
bool delay_of(const struct exchange *x, const struct msg *msg, int64_t *ret_ms); /* it waits first, so long */
bool delay_queue_make(struct broker *b, struct vhost *vhost, uint64_t id);
struct queue *delay_queue(const struct vhost *vhost); /* the hidden queue; NULL: none yet */
const struct list *delay_loaded(
    const struct queue *q);            /* its entries that were read from pages; NULL: it is not hidden */
void delays_durable(struct broker *b); /* the durable lsn may have moved */
MUST_USE bool delay_entry_recovered(struct broker *b, struct entry *entry);
void delay_drop_all(struct broker *b, struct queue *q);
void delay_free(struct vhost *vhost); /* with the hidden queue */

/* delay_page.c */
bool delays_write(struct broker *b);                         /* to pages, when there is too much; true: work is left */
void delay_answered(struct broker *b, struct page_job *job); /* the job stays the caller's */
MUST_USE bool delay_page_recovered(struct broker *b, struct page *page);
void delay_page_begins(struct page *page, const struct page_item *first); /* when that is due, if it is delayed */
void delays_fini(struct broker *b);
uint64_t delay_check(const struct delay *d, uint64_t *ret_bytes, uint64_t *ret_memory); /* how many messages; sums */

/* deliver.c */
void queue_schedule(struct broker *b, struct queue *q);
void pump_all(struct broker *b, unsigned budget);
void durable_advanced(struct broker *b);
void get_now(struct broker *b, struct channel *ch, struct queue *q, uint32_t origin, bool no_ack);
void consumer_remove(struct broker *b, struct consumer *consumer);
void consumers_unpark(struct broker *b, struct channel *ch);
void consumer_gone(struct broker *b, struct consumer *consumer); /* tell the client and remove */
bool queue_has_ready_consumer(struct broker *b, struct queue *q);
/* A consumer without a tag, which begins at once. NULL: no memory. */
MUST_USE struct consumer *consumer_start(struct broker *b, struct channel *ch, struct queue *q, uint32_t id,
                                         bool no_ack);
struct consumer *queue_next_ready(struct queue *q);  /* that can take a message; those that cannot are parked */
void queue_await(struct broker *b, struct queue *q); /* scheduled again when the durable lsn has moved */
bool consumer_can_take(const struct consumer *consumer);
void consumer_enlist(struct broker *b, struct consumer *consumer); /* ready, behind its equals */
uint64_t queue_appetite(struct queue *q, uint64_t most); /* messages that its consumers can take now, up to so many */
struct msg *msg_for_delivery(struct broker *b, struct queue *q, struct entry *entry); /* a reference; NULL: no memory */

/* channel.c */
void channel_release(struct broker *b, struct channel *ch); /* consumers, unacked, transaction; the channel stays */
void channel_free(struct broker *b, struct channel *ch);
MUST_USE bool unacked_reserve(struct unacked_list *list);
void unacked_push(struct unacked_list *list, struct unacked item);
struct unacked *unacked_find(struct unacked_list *list, uint64_t tag);
void unacked_drop(struct unacked_list *list, struct unacked *item);
void unacked_settled(struct channel *ch, const struct unacked *item); /* it counts against no prefetch any more */
void settle(struct broker *b, struct channel *ch, struct unacked item, bool ack, enum back back);

/* tx.c */
void tx_publish(struct broker *b, struct channel *ch, struct msg *msg, const struct route *route, int64_t delay_ms,
                uint32_t origin);
MUST_USE bool tx_ack(struct channel *ch, struct unacked item, bool ack, enum back back);
#define REMOVAL_BYTES 92u /* of one position in a capture, even when it is a record of its own */
void tx_need(struct tx_needs *needs, const struct msg *msg, uint32_t targets, size_t *ret_need);
void tx_drop(struct broker *b, struct channel *ch, bool restore);

/* session.c */
/* credentials.c */
void secret_ready(struct broker *b); /* at the end of a start: there is one */
MUST_USE bool replay_secret(struct broker *b, struct reader *r);
void nobodys_keys(struct broker *b, enum scram_hash hash, struct slice name, struct scram_keys *ret);

MUST_USE bool login_init(struct broker *b);
void login_fini(struct broker *b);
void peer_release(struct broker *b, struct peer *peer); /* channels, owned queues; the peer stays */
bool peers_turn(struct broker *b);                      /* once a tick, those that leave; true: more to do */
void peer_expel(struct broker *b, struct peer *peer);   /* its vhost goes, and takes its owned queues: out of it */
void alarms_apply(struct broker *b, struct peer *peer);
void drain_answer(struct broker *b); /* to the CMD_DRAIN that waits for the last compaction, if any */

/* reply.c: direct reply-to */
#define REPLY_TO "amq.rabbitmq.reply-to"
bool reply_is_name(struct slice name);
bool reply_alive(struct broker *b, struct slice name);
/* Somebody listens there; he gets it when that lsn is durable. */
bool reply_publish(struct broker *b, struct msg *msg, lsn_t lsn);
struct msg *reply_rewrite(struct broker *b, struct channel *ch, struct msg *msg); /* NULL: failed and reported */
void reply_consume(struct broker *b, struct channel *ch, const struct command *c);
void reply_forget(struct broker *b, struct channel *ch);

/* replay.c */
void replay_queue_drop(struct broker *b, struct queue *q);
void replay_fini(struct broker *b); /* at its end, or when it failed */

/* records.c: writing the journal */
MUST_USE bool log_reserve(struct broker *b, size_t bytes, unsigned records);
MUST_USE bool log_scratch_reserve(
    struct broker *b); /* so that log_reserve of one record takes no memory of the core's */
lsn_t log_record(struct broker *b, const struct slice *parts, unsigned count); /* cuts oversize records into pieces */
MUST_USE bool log_capture_begin(struct broker *b, size_t bytes, unsigned records);
size_t log_captured_bytes(size_t bytes, unsigned records); /* what log_reserve of these takes of a capture */
lsn_t log_capture_end(struct broker *b);
lsn_t log_producer_ids(struct broker *b, uint64_t end);
lsn_t log_secret(struct broker *b);
lsn_t log_queue_ids(struct broker *b, uint64_t end);
lsn_t log_queue_args(struct broker *b, const struct queue *q, struct slice args); /* 0: no memory, or no room */
lsn_t log_object(struct broker *b, const struct object *object); /* *_PUT of any catalogue object; 0: not journalled */
lsn_t log_object_gone(struct broker *b, const struct object *object);
MUST_USE bool log_object_reserve(struct broker *b, const struct object *object);
size_t log_enqueue_bytes(const struct msg *msg, uint32_t targets);
lsn_t log_enqueue(struct broker *b, const struct msg *msg, const struct target *targets, uint32_t count,
                  const struct entry *from, bool snapshot, bool body);
lsn_t log_remove(struct broker *b, const struct queue *q, const struct ranges *ranges);
lsn_t log_page(struct broker *b, const struct page *page);
size_t log_remove_bytes(const struct ranges *ranges); /* what these reserve */
size_t log_page_bytes(const struct page *page);
lsn_t log_stream_trim(struct broker *b, const struct queue *q, uint32_t partition, uint64_t start);
lsn_t log_return(struct broker *b, const struct queue *q, uint64_t position, uint32_t returns);
lsn_t log_retry(struct broker *b, const struct queue *q, uint64_t position, uint32_t returns, wall_t due);
void mark_cover(struct broker *b, struct queue *q, uint64_t position); /* journals a new mark when position needs one */
lsn_t log_mark(struct broker *b, const struct queue *q, uint64_t mark);
/* Some of the queue's keys from *at on, which becomes where to go on, or NULL. False: no memory, or no room. */
MUST_USE bool log_window(struct broker *b, const struct queue *q, struct list **at, size_t *ret_bytes);
lsn_t log_checkpoint(struct broker *b, lsn_t first);

/* compact.c */
void compact_init(struct broker *b);
bool compact_turn(struct broker *b); /* true: work is left */
void compact_start(struct broker *b);
bool compact_before_stop(struct broker *b); /* begun, because the next start would read a long journal for little */
void compact_moving(struct broker *b, struct entry *entry); /* before an entry changes lists */
void compact_object_removed(struct broker *b, struct object *object);
void compact_entry_removed(struct broker *b, struct entry *entry);
void compact_queue_removed(struct broker *b, struct queue *q);
void compact_queue_roused(struct broker *b, struct queue *q);
void compact_page_removed(struct broker *b, struct page *page);
void compact_share_removed(struct broker *b, struct list *share_link);
void compact_group_removed(struct broker *b, struct list *group_link);
void compact_offset_removed(struct broker *b, struct list *offset_link);
void compact_key_removed(struct broker *b, struct key *key);
void compact_client_removed(struct broker *b, struct list *client_link);
void compact_window_dropped(struct broker *b, struct queue *q);
void compact_lists_changed(struct broker *b, struct queue *q); /* a lane gets, or loses, its front */

/* admin.c */
void do_admin_op(struct broker *b, struct peer *peer, const struct command *c);

/* commands: one handler per row of commands.def */
#define COMMAND(name, handler, needs_channel, carries)                                                                 \
    void do_##handler(struct broker *b, struct peer *peer, struct channel *ch, struct command *c);
#include "core/commands.def"
#undef COMMAND

#endif
