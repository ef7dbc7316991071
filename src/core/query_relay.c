/* Requests to SQL, handed on: a client's ASK goes to the SQL port under a ticket, what is said there comes back to the client.
 *
 *   client  SQL_ASK ──▶ ticket ──▶ SQL_ASK   engine
 *           SQL_MORE ─▶ granted ─▶ SQL_MORE
 *           SQL_STOP ─▶ end ─────▶ SQL_STOP
 *           SQL_SAID ◀──────────── SQL_SAY
 *
 *   A1  a client hears exactly one LAST for each ASK, whoever ends it: the engine, the client, or the core for want of memory.
 *   A2  the engine hears exactly one end of each ticket: its own LAST, or SQL_STOP.
 *   A3  what the engine is to hear never waits in its port's overflow: an ASK is refused when the port is full, what was granted is
 *       added up, and an end waits in the relay until there is room. So a slow engine costs no memory.
 * Bytes that are said are not counted here: the engine says what was granted, and the client grants what it has room for.
 */
#include "core/query_int.h"

#include <stdio.h>

static struct slice ticket_of(const void *value)
{
    return map_key_u64(&((const struct relay *)value)->ticket);
}

void relays_init(struct broker *b)
{
    map_init_keyed(&b->sql.relays, b->seed + 21, ticket_of);
    list_init(&b->sql.untold);
}

static void relay_free(struct broker *b, struct relay *relay)
{
    (void)map_take(&b->sql.relays, ticket_of(relay));
    if (relay->peer)
        relay->peer->relay_count--;
    list_remove(&relay->link);
    list_remove(&relay->untold_link);
    mem_free_as(MEM_CONNECTIONS, relay);
}

void relays_fini(struct broker *b)
{
    while (!list_empty(&b->sql.untold))
        relay_free(b, CONTAINER_OF(b->sql.untold.next, struct relay, untold_link));
    CHECK(b->sql.relays.count == 0); /* the others went with their peers */
    map_fini(&b->sql.relays);
}

/* ---- to the engine ---- */

static struct effect *to_engine(struct broker *b, enum effect_type type, uint64_t ticket)
{
    struct peer engine = {.side = sql_side(b)};
    struct effect *e = effect_push(b, &engine, type, 0);
    e->number = ticket;
    return e;
}

static bool engine_has_room(struct broker *b)
{
    return port_has_room(sql_side(b));
}

/* Whatever the relay has for the engine. False: no room. */
static bool tell(struct broker *b, struct relay *relay)
{
    if (!engine_has_room(b))
        return false;
    if (relay->peer) {
        to_engine(b, EFF_SQL_MORE, relay->ticket)->count = relay->granted;
        relay->granted = 0;
        list_remove(&relay->untold_link);
    } else {
        (void)to_engine(b, EFF_SQL_STOP, relay->ticket);
        relay_free(b, relay);
    }
    return true;
}

void sql_turn(struct broker *b)
{
    uint64_t id;
    while (engine_has_room(b) && sql_next_gone(b, &id))
        (void)to_engine(b, EFF_SQL_GONE, id);
    while (!list_empty(&b->sql.untold) && tell(b, CONTAINER_OF(b->sql.untold.next, struct relay, untold_link)))
        ;
}

static void to_be_told(struct broker *b, struct relay *relay)
{
    if (list_empty(&relay->untold_link))
        list_insert(&b->sql.untold, &relay->untold_link);
}

/* Its client hears no more of it, the engine will. */
static void stop(struct broker *b, struct relay *relay)
{
    relay->peer->relay_count--;
    relay->peer = NULL;
    list_remove(&relay->link);
    to_be_told(b, relay);
}

void relays_release(struct broker *b, struct peer *peer)
{
    while (!list_empty(&peer->relays))
        stop(b, CONTAINER_OF(peer->relays.next, struct relay, link));
}

/* ---- from the client ---- */

static struct relay *relay_from(const struct peer *peer, uint32_t origin)
{
    LIST_EACH(&peer->relays, node, after)
    {
        struct relay *relay = CONTAINER_OF(node, struct relay, link);
        if (relay->origin == origin)
            return relay;
    }
    return NULL;
}

/* The core's last word; without memory it has no answer, which says just that. */
static void refuse(struct broker *b, struct peer *peer, uint32_t origin, enum error_code code, const char *why)
{
    struct slice none = {0};
    struct answer *answer = answer_new(slice_str(why), none, none);
    if (answer)
        answer->code = code;
    struct effect *e = effect_push(b, peer, EFF_SQL_SAID, 0);
    e->flags = EFFECT_SQL_LAST;
    e->origin = origin;
    e->answer = answer;
}

/* NULL: nothing speaks against it. */
static const char *why_not(struct broker *b, const struct peer *peer, const struct command *c, enum error_code *ret)
{
    *ret = ERR_PRECONDITION_FAILED;
    if (c->ask->name.len > SQL_TEXT_MAX)
        return "the text is longer than 1 MiB";
    if (c->ask->args.len > SQL_OPTIONS_MAX)
        return "the options are too long";
    if (peer->relay_count >= SQL_ASKS_MAX || relay_from(peer, c->origin))
        return "too many requests at a time";
    *ret = ERR_NOT_IMPLEMENTED;
    if (!b->options.sql)
        return "SQL is switched off";
    *ret = ERR_NOT_ALLOWED;
    if (peer->state != PEER_ENTERED || !peer->user)
        return "not logged in";
    *ret = ERR_RESOURCE_ERROR;
    return engine_has_room(b) ? NULL : "SQL is busy: try again later";
}

bool sql_asked_read(struct slice fields, struct sql_asked *ret)
{
    struct reader r = reader_of(fields);
    struct sql_asked asked = {.vhost = reader_str8(&r)};
    asked.text = reader_str32(&r);
    asked.options = reader_str32(&r);
    asked.loopback = reader_u8(&r);
    asked.administers = reader_u8(&r);
    if (!reader_done(&r))
        return false;
    *ret = asked;
    return true;
}

/* What the engine is told. NULL: no memory. */
static struct answer *asked_new(const struct peer *peer, const struct ask *ask)
{
    size_t len = 256 + 4 + ask->name.len + 4 + ask->args.len + 2;
    uint8_t *raw = mem_alloc(len);
    if (!raw)
        return NULL;
    struct writer w = writer_of(raw, len);
    writer_str8(&w, peer->vhost->name);
    writer_str32(&w, ask->name);
    writer_str32(&w, ask->args);
    writer_u8(&w, (peer->flags & ASK_LOOPBACK) != 0);
    writer_u8(&w, user_administers(peer->user));
    CHECK(writer_ok(&w));
    struct answer *answer = answer_new(peer->address, peer->user->name, writer_slice(&w));
    mem_free(raw);
    if (answer)
        answer->number = ask->number ? ask->number : SQL_GRANTED_BYTES;
    return answer;
}

void do_sql_ask(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    enum error_code code;
    const char *why = why_not(b, peer, c, &code);
    (void)ch;
    if (why) {
        refuse(b, peer, c->origin, code, why);
        return;
    }
    struct answer *asked = asked_new(peer, c->ask);
    struct relay *relay = asked ? mem_zalloc_as(MEM_CONNECTIONS, sizeof *relay) : NULL;
    if (!relay || !map_reserve(&b->sql.relays)) {
        mem_free(asked);
        mem_free_as(MEM_CONNECTIONS, relay);
        refuse(b, peer, c->origin, ERR_RESOURCE_ERROR, "out of memory");
        return;
    }
    *relay = (struct relay){.ticket = b->next_ticket++, .peer = peer, .origin = c->origin};
    list_init(&relay->untold_link);
    list_insert(&peer->relays, &relay->link);
    peer->relay_count++;
    (void)map_put(&b->sql.relays, ticket_of(relay), relay);
    to_engine(b, EFF_SQL_ASK, relay->ticket)->answer = asked;
}

void do_sql_more(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct relay *relay = c->number ? relay_from(peer, c->origin) : NULL;
    (void)ch;
    if (!relay)
        return;
    relay->granted = c->number < UINT64_MAX - relay->granted ? relay->granted + c->number : UINT64_MAX;
    to_be_told(b, relay);
}

void do_sql_stop(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct relay *relay = relay_from(peer, c->origin);
    (void)ch;
    if (!relay)
        return;
    stop(b, relay);
    refuse(b, peer, c->origin, ERR_NONE, "");
}

/* ---- from the engine ---- */

void do_sql_say(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct slice none = {0};
    struct relay *relay = sql_is_engine(b, peer) ? map_get(&b->sql.relays, map_key_u64(&c->number)) : NULL;
    (void)ch;
    if (!relay || !relay->peer)
        return;
    CHECK(c->ask->name.len <= SQL_SAY_MAX);
    struct peer *client = relay->peer;
    struct answer *answer = answer_new(none, none, c->ask->name);
    bool last = c->ask->flags & ASK_LAST;
    struct effect *e = effect_push(b, client, EFF_SQL_SAID, 0);
    e->flags = last || !answer ? EFFECT_SQL_LAST : 0;
    e->origin = relay->origin;
    e->answer = answer;
    if (last)
        relay_free(b, relay);
    else if (!answer)
        stop(b, relay); /* with a piece missing the rest is worth nothing */
}
