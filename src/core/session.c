/* Sessions as the core sees them ("peers"): open, log in, enter a vhost, credit, alarms, close.
 *
 * A login is answered by the worker: the core knows only verifiers and sends (secret, verifier) out as EFF_VERIFY. A
 * login that succeeded is remembered as an HMAC under a key of this process, so that the next login with the same secret
 * costs a hash and no worker. Unknown users are verified against a decoy, so that they take as long as known ones.
 * SCRAM needs no worker: the engine is given the user's keys, or false ones, sees the proof itself, and then logs in with
 * the keys that were proven, which must still be the user's.
 *
 * Alarms: while one holds, peers that publish are blocked (what they had sent before still counts). While a hard one holds
 * publishes are refused (publish.c), and for want of memory nobody enters a vhost; deliveries, acks and all else go on.
 */
#include "core/core_int.h"

#include "fmt/password.h"

#define VERIFIED_MAX 512u
#define PEERS_MAX (1u << 20)
#define LEAVE_WORK 256u /* of queue_work, a turn */

static const char decoy_verifier[] =
    "SCRAM-SHA-256$32768:AAAAAAAAAAAAAAAAAAAAAA==$"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

struct pending { /* a login that the worker is checking */
    struct list link;
    uint64_t ticket;
    struct port_side *side;
    uint32_t session, origin;
    bool known, digest_valid, again;
    uint8_t digest[32];
    size_t name_len;
    uint8_t name[];
};

struct login {
    uint8_t key[32];
    struct list pending;
    uint8_t verified[VERIFIED_MAX][32]; /* ring of digests of logins that were right */
    uint32_t verified_count, verified_next;
};

bool login_init(struct broker *b)
{
    b->login = mem_zalloc(sizeof *b->login);
    if (!b->login)
        return false;
    list_init(&b->login->pending);
    b->options.random(b->options.random_arg, b->login->key, sizeof b->login->key);
    return true;
}

void login_fini(struct broker *b)
{
    if (!b->login)
        return;
    LIST_EACH(&b->login->pending, node, after)
    mem_free(CONTAINER_OF(node, struct pending, link));
    mem_free(b->login);
    b->login = NULL;
}

static bool digest_known(const struct login *login, const uint8_t digest[32])
{
    for (uint32_t i = 0; i < login->verified_count; i++)
        if (memcmp(login->verified[i], digest, 32) == 0)
            return true;
    return false;
}

static void digest_remember(struct login *login, const uint8_t digest[32])
{
    if (digest_known(login, digest))
        return;
    memcpy(login->verified[login->verified_next], digest, 32);
    login->verified_next = (login->verified_next + 1) % VERIFIED_MAX;
    if (login->verified_count < VERIFIED_MAX)
        login->verified_count++;
}

/* ---- open and close ---- */

static bool peer_slot(struct port_side *side, uint32_t number)
{
    if (number < side->peer_max)
        return true;
    if (number >= PEERS_MAX)
        return false;
    uint32_t max = side->peer_max ? side->peer_max : 16;
    while (max <= number)
        max *= 2;
    struct peer **grown = mem_realloc(side->peers, max * sizeof *grown);
    if (!grown)
        return false;
    memset(grown + side->peer_max, 0, (max - side->peer_max) * sizeof *grown);
    side->peers = grown;
    side->peer_max = max;
    return true;
}

static void refuse_session(struct port_side *side, uint32_t number)
{
    struct peer nobody = {.side = side, .number = number};
    struct effect *e = effect_push(side->broker, &nobody, EFF_SESSION_KICK, 0);
    e->answer = NULL;
}

/* c->number is the port's index, set by the dispatcher. */
void do_session_open(struct broker *b, struct peer *old, struct channel *ch, struct command *c)
{
    (void)ch;
    CHECK(!old);
    struct port_side *side = &b->sides[c->number];
    struct peer *peer = peer_slot(side, c->session) ? mem_zalloc_as(MEM_CONNECTIONS, sizeof *peer) : NULL;
    if (!peer ||
        (c->ask && (!slice_keep(&peer->address, c->ask->name) || !slice_keep(&peer->protocol, c->ask->other)))) {
        if (peer)
            slice_drop(&peer->address);
        mem_free_as(MEM_CONNECTIONS, peer);
        refuse_session(side, c->session);
        return;
    }
    peer->side = side;
    peer->number = c->session;
    peer->flags = c->ask ? c->ask->flags : c->flags;
    peer->credit = SESSION_CREDIT_BYTES;
    list_init(&peer->owned);
    list_init(&peer->fetches);
    list_init(&peer->held);
    list_init(&peer->sharers);
    list_init(&peer->relays);
    list_init(&peer->vhost_link);
    list_insert(&b->peers, &peer->link);
    side->peers[c->session] = peer;
    b->totals.sessions++;
    b->totals.connections += !peer_is_own(peer);
}

/* Of everything but the queues that it owns. */
static void let_go(struct broker *b, struct peer *peer)
{
    if (peer->mqtt)
        mqtt_peer_gone(b, peer);
    for (uint32_t i = 0; i < peer->channel_max; i++)
        if (peer->channels[i])
            channel_free(b, peer->channels[i]);
    fetches_release(b, peer);
    relays_release(b, peer);
    vhosts_forget_peer(b, peer);
    txn_listings_forget_peer(b, peer);
    LIST_EACH(&b->login->pending, node, after)
    {
        struct pending *p = CONTAINER_OF(node, struct pending, link);
        if (p->side == peer->side && p->session == peer->number)
            p->side = NULL;
    }
    if (peer->user)
        peer->user->peers--;
    peer->user = NULL;
}

/* Channels go first, in order, so that their messages are back before exclusive queues die. */
void peer_release(struct broker *b, struct peer *peer)
{
    let_go(b, peer);
    while (!list_empty(&peer->owned))
        queue_delete(b, CONTAINER_OF(peer->owned.next, struct busy, owner_link)->queue);
}

void peer_expel(struct broker *b, struct peer *peer)
{
    let_go(b, peer);
    peer->vhost = NULL;
    list_remove(&peer->vhost_link);
}

/* Some of the queues that it owned, and then the peer. True: it has gone. */
static bool leave(struct broker *b, struct peer *peer, unsigned *budget)
{
    while (*budget && !list_empty(&peer->owned)) {
        struct queue *q = CONTAINER_OF(peer->owned.next, struct busy, owner_link)->queue;
        budget_spend(budget, queue_work(q));
        queue_delete(b, q);
    }
    if (!list_empty(&peer->owned))
        return false;
    list_remove(&peer->link);
    peer->side->peers[peer->number] = NULL;
    effect_push(b, peer, EFF_SESSION_CLOSED, 0);
    b->totals.connections -= !peer_is_own(peer);
    slice_drop(&peer->address);
    slice_drop(&peer->protocol);
    mem_free(peer->channels);
    mem_free_as(MEM_CONNECTIONS, peer);
    b->totals.sessions--;
    return true;
}

/* Whoever closes its connection hears of it when its queues have gone, so who has many waits, and nobody else. */
void do_session_close(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    (void)c;
    let_go(b, peer);
    groups_forget_peer(b, peer);
    shares_forget_peer(b, peer);
    peer->state = PEER_FAILED;
    peer->kicked = true;
    list_remove(&peer->vhost_link);
    peer->vhost = NULL;
    list_remove(&peer->link);
    list_insert(&b->leaving, &peer->link);
    unsigned budget = LEAVE_WORK;
    (void)leave(b, peer, &budget);
}

bool peers_turn(struct broker *b)
{
    unsigned budget = LEAVE_WORK;
    while (budget && !list_empty(&b->leaving))
        if (!leave(b, CONTAINER_OF(b->leaving.next, struct peer, link), &budget))
            break;
    return !list_empty(&b->leaving);
}

void do_credit(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    bool was_out = peer->credit <= 0;
    peer->credit += (int64_t)c->number;
    if (peer->credit > SESSION_CREDIT_BYTES)
        peer->credit = SESSION_CREDIT_BYTES;
    if (!was_out || peer->credit <= 0)
        return;
    if (peer->mqtt)
        mqtt_may_go_on(b, peer->mqtt);
    for (uint32_t i = 0; i < peer->channel_max; i++)
        if (peer->channels[i])
            consumers_unpark(b, peer->channels[i]);
}

/* ---- login ---- */

static void login_refused(struct broker *b, struct peer *peer, uint32_t origin)
{
    fail(b, peer, 0, origin, ERR_ACCESS_REFUSED, "%s", ""); /* the engine knows what to call it */
}

/* A first login, or the same user once more. */
static bool may_log_in(const struct peer *peer, bool again)
{
    return again ? peer->user != NULL && peer->state != PEER_FAILED : peer->state == PEER_NEW;
}

static void login_granted(struct broker *b, struct peer *peer, struct user *user, uint32_t origin)
{
    if (peer->state == PEER_NEW) {
        peer->user = user;
        peer->state = PEER_LOGGED_IN;
        user->peers++;
    }
    struct command c = {.origin = origin};
    answer_ok(b, peer, &c, 0, (struct slice){0}, 0, 0);
}

static void send_to_worker(struct broker *b, struct peer *peer, const struct command *c, struct user *user,
                           const uint8_t *digest)
{
    uint8_t raw[8192];
    struct writer w = writer_of(raw, sizeof raw);
    writer_str32(&w, c->ask->other);
    writer_str32(&w, user ? user->verifier : slice_str(decoy_verifier));
    struct pending *p = mem_zalloc(sizeof *p + c->ask->name.len);
    struct answer *answer = writer_ok(&w) ? answer_new((struct slice){0}, (struct slice){0}, writer_slice(&w)) : NULL;
    explicit_bzero(raw, sizeof raw);
    if (!p || !answer) {
        mem_free(p);
        mem_free(answer);
        login_refused(b, peer, c->origin);
        return;
    }
    p->ticket = b->next_ticket++;
    p->side = peer->side;
    p->session = peer->number;
    p->origin = c->origin;
    p->known = user != NULL;
    p->again = c->ask->flags & ASK_AGAIN;
    p->digest_valid = digest != NULL;
    if (digest)
        memcpy(p->digest, digest, 32);
    p->name_len = c->ask->name.len;
    if (p->name_len)
        memcpy(p->name, c->ask->name.ptr, p->name_len);
    list_insert(&b->login->pending, &p->link);
    struct peer worker = {.side = &b->sides[b->options.ports]};
    struct effect *e = effect_push(b, &worker, EFF_VERIFY, 0);
    e->number = p->ticket;
    e->answer = answer;
}

/* guest is for the loopback: from elsewhere it is as if there were none. */
static bool is_far_guest(struct broker *b, const struct peer *peer, struct slice name)
{
    return b->options.guest_loopback_only && slice_is(name, "guest") && !(peer->flags & ASK_LOOPBACK);
}

static bool keys_are_users(const struct user *user, const struct ask *ask)
{
    enum scram_hash hash;
    struct scram_keys keys;
    char text[SCRAM_TEXT_MAX];
    if (!user || !scram_named(ask->key, &hash) || !password_scram(user->verifier, hash, &keys))
        return false;
    struct slice kept = slice_of(text, scram_keys_print(&keys, text));
    bool same = slice_equal(kept, ask->other);
    explicit_bzero(&keys, sizeof keys);
    explicit_bzero(text, sizeof text);
    return same;
}

/* Without a secret: 1: granted, 0: refused, -1: there is one to be looked at. */
static int login_without(struct broker *b, struct peer *peer, const struct command *c, struct user *user)
{
    bool again = c->ask->flags & ASK_AGAIN;
    if (!may_log_in(peer, again) || (again && user != peer->user))
        return 0;
    if (user && c->ask->flags & ASK_TRUSTED && peer->flags & ASK_LOOPBACK)
        return 1;
    if (c->ask->flags & ASK_CERTIFIED)
        return user && !is_far_guest(b, peer, c->ask->name);
    if (c->ask->other.len == 0 || is_far_guest(b, peer, c->ask->name))
        return 0;
    return c->ask->flags & ASK_PROVEN ? keys_are_users(user, c->ask) : -1;
}

void do_login(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    uint8_t digest[32];
    struct user *user = user_find(b, c->ask->name);
    int granted = login_without(b, peer, c, user);
    if (granted < 0 && user) {
        password_digest(b->login->key, c->ask->name, c->ask->other, user->verifier, digest);
        if (digest_known(b->login, digest))
            granted = 1;
    }
    if (granted > 0)
        login_granted(b, peer, user, c->origin);
    else if (granted == 0)
        login_refused(b, peer, c->origin);
    else
        send_to_worker(b, peer, c, user, user ? digest : NULL);
}

/* Who is not there has a salt all the same, always the same one, and is refused only when its proof is seen to be wrong. */
void do_scram(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    enum scram_hash hash;
    struct scram_keys keys;
    uint8_t raw[SCRAM_NONCE + SCRAM_TEXT_MAX];
    if (!scram_named(c->ask->key, &hash) || !may_log_in(peer, c->ask->flags & ASK_AGAIN)) {
        login_refused(b, peer, c->origin);
        return;
    }
    struct user *user = is_far_guest(b, peer, c->ask->name) ? NULL : user_find(b, c->ask->name);
    if (!user || !password_scram(user->verifier, hash, &keys))
        nobodys_keys(b, hash, c->ask->name, &keys);
    b->options.random(b->options.random_arg, raw, SCRAM_NONCE);
    size_t len = SCRAM_NONCE + scram_keys_print(&keys, (char *)raw + SCRAM_NONCE);
    struct answer *answer = answer_new((struct slice){0}, (struct slice){0}, slice_of(raw, len));
    explicit_bzero(&keys, sizeof keys);
    explicit_bzero(raw, sizeof raw);
    if (!answer) {
        login_refused(b, peer, c->origin);
        return;
    }
    answer_give(b, peer, c->origin, answer, 0);
}

void do_verified(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct pending *p = NULL;
    LIST_EACH(&b->login->pending, node, after)
    if (CONTAINER_OF(node, struct pending, link)->ticket == c->number)
        p = CONTAINER_OF(node, struct pending, link);
    if (!p)
        return;
    list_remove(&p->link);
    bool ok = (c->flags & ASK_VERIFY_OK) && p->known;
    if (ok && p->digest_valid)
        digest_remember(b->login, p->digest);
    peer = p->side ? peer_of(b, p->side, p->session) : NULL;
    if (peer && may_log_in(peer, p->again)) {
        struct user *user = ok ? user_find(b, slice_of(p->name, p->name_len)) : NULL;
        if (user && (!p->again || user == peer->user))
            login_granted(b, peer, user, p->origin);
        else
            login_refused(b, peer, p->origin);
    }
    mem_free(p);
}

void do_enter(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct vhost *vhost = vhost_find(b, c->ask->name);
    if (!peer->user) {
        fail(b, peer, 0, c->origin, ERR_NOT_ALLOWED, "not logged in");
        return;
    }
    if (!vhost) {
        fail(b, peer, 0, c->origin, ERR_NOT_ALLOWED, "vhost %.*s not found", SLICE_ARG(c->ask->name));
        return;
    }
    if (!may_enter(peer->user, vhost)) {
        fail(b, peer, 0, c->origin, ERR_NOT_ALLOWED, "access to vhost '%.*s' refused for user '%.*s'",
             SLICE_ARG(c->ask->name), SLICE_ARG(peer->user->name));
        return;
    }
    if (b->alarms & ALARM_MEMORY_HARD) {
        fail(b, peer, 0, c->origin, ERR_RESOURCE_ERROR, "the broker is out of memory: no new connections for now");
        return;
    }
    peer->vhost = vhost;
    list_remove(&peer->vhost_link);
    list_insert(&vhost->peers, &peer->vhost_link);
    peer->state = PEER_ENTERED;
    answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}

void do_update_secret(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    if (!peer->user || !peer->vhost || !may_enter(peer->user, peer->vhost)) {
        fail(b, peer, 0, c->origin, ERR_NOT_ALLOWED, "New secret was refused by one of the backends");
        return;
    }
    answer_ok(b, peer, c, 0, (struct slice){0}, 0, 0);
}

/* ---- alarms ---- */

void alarms_apply(struct broker *b, struct peer *peer)
{
    bool should = b->alarms && peer->publisher;
    if (should == peer->blocked || peer->state == PEER_FAILED)
        return;
    peer->blocked = should;
    struct effect *e = effect_push(b, peer, should ? EFF_BLOCKED : EFF_UNBLOCKED, 0);
    if (!should)
        return;
    bool memory = b->alarms & (ALARM_MEMORY | ALARM_MEMORY_HARD), disk = b->alarms & (ALARM_DISK | ALARM_DISK_HARD);
    const char *text = memory && disk ? "low on memory & low on disk" : memory ? "low on memory" : "low on disk";
    e->answer = answer_new(slice_str(text), (struct slice){0}, (struct slice){0}); /* NULL: blocked without a reason */
}

void do_alarm(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)peer;
    (void)ch;
    bool disk = !(b->alarms & ALARM_DISK) && (c->number & ALARM_DISK);
    b->alarms = (unsigned)c->number;
    if (disk)
        paging_disk_full(b);
    LIST_EACH(&b->peers, node, after)
    alarms_apply(b, CONTAINER_OF(node, struct peer, link));
}

/* Below it all may have been delivered. What was selected and came back has a RETURN; there is more than that only with who asks
 * for the stop. */
static uint64_t exact_mark(const struct queue *q)
{
    uint64_t mark = q->delivered_upto;
    LIST_EACH(&q->busy->unacked, node, after)
    {
        uint64_t position = CONTAINER_OF(node, struct entry, link)->position;
        mark = position >= mark ? position + 1 : mark;
    }
    return mark;
}

/* After this the marks in the journal are exact, so that a clean restart redelivers as it should. */
void do_drain(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    b->stopping = true;
    LIST_EACH(&b->peers, node, after)
    if (CONTAINER_OF(node, struct peer, link) != peer)
        peer_release(b, CONTAINER_OF(node, struct peer, link));
    (void)dead_letter_run(b, UINT32_MAX);
    backlog_flush_removals(b);
    LIST_EACH(&b->catalogue, node, after)
    {
        struct object *object = CONTAINER_OF(node, struct object, link);
        struct queue *q = CONTAINER_OF(object, struct queue, object);
        if (object->kind != OBJ_QUEUE || !object->journalled)
            continue;
        uint64_t mark = exact_mark(q);
        if (q->mark != mark && log_reserve(b, 64, 1)) {
            q->mark = mark;
            lsn_t lsn = log_mark(b, q, q->mark);
            if (queue_is_busy(q))
                q->busy->mark_lsn = lsn;
        }
    }
    b->drain = (struct drain){.side = peer->side, .session = peer->number, .origin = c->origin};
    if (!compact_before_stop(b))
        drain_answer(b);
}

/* Everything is in the journal, and the journal is as short as it will be. */
void drain_answer(struct broker *b)
{
    struct drain drain = b->drain;
    struct peer *peer = drain.side ? peer_of(b, drain.side, drain.session) : NULL;
    b->drain = (struct drain){0};
    if (peer)
        answer_ok(b, peer, &(struct command){.type = CMD_DRAIN, .origin = drain.origin}, b->appended, (struct slice){0},
                  0, 0);
}
