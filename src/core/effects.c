/* What the core says: effects into the ports' rings, answers, and the one way a channel or a peer fails.
 *
 * A ring that is full sends effects to the port's overflow list, in order; while that list is not empty the core takes
 * no command from this port and decides no delivery to it, so the list is bounded by what one command can cause.
 * When memory for an effect is refused, its peer is lost: it is kicked as soon as there is room to say so.
 */
#include "core/core_int.h"

#include <stdarg.h>
#include <stdio.h>

static struct effect *overflow_slot(struct port_side *side)
{
    if (side->overflow_first == side->overflow_count)
        side->overflow_first = side->overflow_count = 0;
    if (side->overflow_count == side->overflow_max) {
        uint32_t max = side->overflow_max ? side->overflow_max * 2 : 64;
        struct effect *grown = mem_realloc(side->overflow, max * sizeof *grown);
        if (!grown)
            return NULL;
        side->overflow = grown;
        side->overflow_max = max;
    }
    return &side->overflow[side->overflow_count++];
}

void effect_drop(struct broker *b, struct effect *e)
{
    if (e->msg)
        msg_unref(&b->heap, e->msg);
    if (e->type == EFF_PAGE)
        page_job_free(&b->heap, &e->job);
    else if (e->type == EFF_STREAM)
        stream_job_free(&b->heap, &e->stream_job);
    else if (e->type == EFF_FETCHED)
        fetch_free(&e->fetch);
    else if (e->type == EFF_FANOUT)
        audience_unref(e->audience);
    else if (e->type == EFF_QUERY_STEPPED)
        query_step_free(&b->heap, &e->query_step);
    else if (e->type != EFF_DELIVER && e->type != EFF_CONFIRM && e->type != EFF_NACK && e->type != EFF_GET_OK &&
             e->type != EFF_PRODUCED && e->type != EFF_SQL_MORE)
        mem_free(e->answer);
}

struct effect *effect_slot(struct port_side *side, bool *ret_overflow)
{
    struct effect *e = side->overflow_first == side->overflow_count ? ring_push(&side->port.effects) : NULL;
    *ret_overflow = !e;
    return e ? e : overflow_slot(side);
}

/* Never NULL: without memory the effect goes nowhere and the peer is marked lost. */
struct effect *effect_push(struct broker *b, struct peer *peer, enum effect_type type, uint16_t channel)
{
    struct port_side *side = peer->side;
    bool overflow;
    struct effect *e = effect_slot(side, &overflow);
    if (!e) {
        peer->lost = side->lost = true;
        e = &b->unsaid;
        effect_drop(b, e); /* what the caller wrote into it the last time */
    }
    *e = (struct effect){.type = (uint8_t)type, .channel = channel, .session = peer->number};
    return e;
}

static void kick_lost(struct port_side *side)
{
    side->lost = false;
    for (uint32_t i = 0; i < side->peer_max; i++)
        if (side->peers[i] && side->peers[i]->lost && !side->peers[i]->kicked)
            kick(side->broker, side->peers[i], "out of memory");
}

void effect_flush(struct port_side *side)
{
    if (side->overflow_first == side->overflow_count) {
        if (side->lost && ring_room(&side->port.effects) > 0)
            kick_lost(side);
        return;
    }
    while (side->overflow_first < side->overflow_count) {
        struct effect *slot = ring_push(&side->port.effects);
        if (!slot)
            return;
        *slot = side->overflow[side->overflow_first++];
    }
    mem_free(side->overflow);
    side->overflow = NULL;
    side->overflow_first = side->overflow_count = side->overflow_max = 0;
    kick_lost(side);
    durable_advanced(side->broker); /* deliveries to this port may go on */
}

bool port_has_room(struct port_side *side)
{
    return side->overflow_first == side->overflow_count && ring_room(&side->port.effects) > 0;
}

struct answer *answer_new(struct slice text, struct slice name, struct slice fields)
{
    struct slice *parts[] = {&text, &name, &fields};
    struct answer *answer = mem_alloc(sizeof *answer + text.len + name.len + fields.len);
    if (!answer)
        return NULL;
    *answer = (struct answer){0};
    uint8_t *at = answer->bytes;
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i]->len)
            memcpy(at, parts[i]->ptr, parts[i]->len);
        parts[i]->ptr = at;
        at += parts[i]->len;
    }
    answer->text = text;
    answer->name = name;
    answer->fields = fields;
    return answer;
}

void answer_give(struct broker *b, struct peer *peer, uint32_t origin, struct answer *answer, lsn_t lsn)
{
    struct effect *e = effect_push(b, peer, EFF_ANSWER, 0);
    e->origin = origin;
    e->lsn = lsn;
    e->answer = answer;
}

void answer_ok(struct broker *b, struct peer *peer, const struct command *c, lsn_t lsn, struct slice name,
               uint64_t number, uint64_t number2)
{
    struct answer *answer = NULL;
    if (name.len || number || number2) {
        answer = answer_new((struct slice){0}, name, (struct slice){0});
        if (!answer) {
            no_memory(b, peer, c->channel, c->origin);
            return;
        }
        answer->number = number;
        answer->number2 = number2;
    }
    struct effect *e = effect_push(b, peer, EFF_ANSWER, c->channel);
    e->origin = c->origin;
    e->lsn = lsn;
    e->answer = answer;
}

static void push_error(struct broker *b, struct peer *peer, enum effect_type type, uint16_t channel, uint32_t origin,
                       enum error_code code, const char *text)
{
    struct answer *answer = answer_new(slice_str(text), (struct slice){0}, (struct slice){0});
    if (answer)
        answer->code = code;
    struct effect *e = effect_push(b, peer, answer ? type : EFF_SESSION_KICK, answer ? channel : 0);
    e->origin = origin;
    e->answer = answer;
    if (!answer) {
        peer->kicked = true;
        peer->state = PEER_FAILED;
    }
}

void fail(struct broker *b, struct peer *peer, uint16_t channel, uint32_t origin, enum error_code code,
          const char *format, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    struct channel *ch = channel ? channel_of(peer, channel) : NULL;
    push_error(b, peer, EFF_ERROR, channel, origin, code, text);
    if (error_row(code)->hard || !ch) {
        if (error_row(code)->hard)
            peer->state = PEER_FAILED;
        return;
    }
    ch->failed = true;
    channel_release(b, ch);
}

void kick(struct broker *b, struct peer *peer, const char *text)
{
    kick_with(b, peer, ERR_CONNECTION_FORCED, text);
}

void kick_with(struct broker *b, struct peer *peer, enum error_code code, const char *text)
{
    if (peer->kicked)
        return;
    peer->kicked = true;
    peer->state = PEER_FAILED;
    push_error(b, peer, EFF_SESSION_KICK, 0, 0, code, text);
}

void no_memory(struct broker *b, struct peer *peer, uint16_t channel, uint32_t origin)
{
    fail(b, peer, channel, origin, ERR_RESOURCE_ERROR, "out of memory");
}
