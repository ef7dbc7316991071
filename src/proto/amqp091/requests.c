/* The handlers of channel methods, see requests.h: each says only what the method means as a command; rules, decoding and
 * room for the command were the driver's business.
 *
 * Tickets are ignored, as everywhere. Names on declare and delete lose their CR and LF, as in RabbitMQ. What is refused
 * here is what the broker does not do in any state (prefetch_size, recover without requeue, channel.flow off); all
 * other judgement is the core's. Thread: the loop's. */
#include "proto/amqp091/requests.h"

#include "proto/amqp091/channel.h"

typedef void (*request_handler)(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                                const union amqp091_fields *f);

/* ---- commands ---- */

static struct command *command_on(struct amqp091 *a, const struct amqp091_channel *ch, enum command_type type,
                                  uint32_t origin)
{
    struct command *command = hub_command(amqp091_hub(a), &a->session);
    command->type = (uint8_t)type;
    command->channel = ch->number;
    command->origin = origin;
    return command;
}

struct operands {
    struct slice name, other, key, args;
    uint32_t flags;
};

static void ask_on(struct amqp091 *a, const struct amqp091_channel *ch, enum command_type type, uint32_t origin,
                   const struct operands *o)
{
    struct ask *ask = ask_new(o->name, o->other, o->key, o->args);
    if (!ask) {
        amqp091_fail_memory(a);
        return;
    }
    ask->flags = o->flags;
    command_on(a, ch, type, origin)->ask = ask;
}

static inline uint32_t flag(bool set, uint32_t bit)
{
    return set ? bit : 0;
}

static inline uint32_t no_wait(uint32_t origin, bool set)
{
    return origin | flag(set, ORIGIN_NO_WAIT);
}

/* RabbitMQ's strip_cr_lf; room for 255 bytes. */
static struct slice stripped(struct slice name, uint8_t room[255])
{
    size_t len = 0;
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] != '\r' && name.ptr[i] != '\n')
            room[len++] = name.ptr[i];
    return slice_of(room, len);
}

/* ---- channel, access ---- */

/* A reply that needs nothing of the core but its turn: the fence's answer is the reply's cue. */
static void reply_in_turn(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin)
{
    ask_on(a, ch, CMD_CANCEL, origin, &(struct operands){0});
}

static void on_channel_flow(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                            const union amqp091_fields *f)
{
    if (f->channel_flow.active)
        reply_in_turn(a, ch, origin);
    else
        amqp091_fault(a, ch, ERR_NOT_IMPLEMENTED, 20, 20, "active=false");
}

static void on_channel_close(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                             const union amqp091_fields *f)
{
    (void)origin, (void)f;
    amqp091_channel_leave(a, ch);
}

static void on_access_request(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                              const union amqp091_fields *f)
{
    (void)f;
    reply_in_turn(a, ch, origin);
}

static void on_nothing(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin, const union amqp091_fields *f)
{
    (void)a, (void)ch, (void)origin, (void)f; /* an answer to something of ours that waits for none */
}

/* ---- exchange ---- */

static void on_exchange_declare(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                                const union amqp091_fields *f)
{
    const struct amqp091_exchange_declare *m = &f->exchange_declare;
    uint8_t room[255];
    ask_on(a, ch, CMD_EXCHANGE_DECLARE, no_wait(origin, m->no_wait),
           &(struct operands){.name = stripped(m->exchange, room),
                              .other = m->type,
                              .args = m->arguments,
                              .flags = flag(m->passive, ASK_PASSIVE) | flag(m->durable, ASK_DURABLE) |
                                       flag(m->auto_delete, ASK_AUTO_DELETE) | flag(m->internal, ASK_INTERNAL) |
                                       flag(m->no_wait, ASK_NO_WAIT)});
}

static void on_exchange_delete(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                               const union amqp091_fields *f)
{
    const struct amqp091_exchange_delete *m = &f->exchange_delete;
    uint8_t room[255];
    ask_on(a, ch, CMD_EXCHANGE_DELETE, no_wait(origin, m->no_wait),
           &(struct operands){.name = stripped(m->exchange, room),
                              .flags = flag(m->if_unused, ASK_IF_UNUSED) | flag(m->no_wait, ASK_NO_WAIT)});
}

static void on_exchange_bind(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                             const union amqp091_fields *f)
{
    const struct amqp091_exchange_bind *m = &f->exchange_bind;
    ask_on(a, ch, CMD_EXCHANGE_BIND, no_wait(origin, m->no_wait),
           &(struct operands){m->destination, m->source, m->routing_key, m->arguments, flag(m->no_wait, ASK_NO_WAIT)});
}

static void on_exchange_unbind(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                               const union amqp091_fields *f)
{
    const struct amqp091_exchange_unbind *m = &f->exchange_unbind;
    ask_on(a, ch, CMD_EXCHANGE_UNBIND, no_wait(origin, m->no_wait),
           &(struct operands){m->destination, m->source, m->routing_key, m->arguments, flag(m->no_wait, ASK_NO_WAIT)});
}

/* ---- queue ---- */

static void on_queue_declare(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                             const union amqp091_fields *f)
{
    const struct amqp091_queue_declare *m = &f->queue_declare;
    uint8_t room[255];
    ask_on(a, ch, CMD_QUEUE_DECLARE, no_wait(origin, m->no_wait),
           &(struct operands){.name = stripped(m->queue, room),
                              .args = m->arguments,
                              .flags = flag(m->passive, ASK_PASSIVE) | flag(m->durable, ASK_DURABLE) |
                                       flag(m->exclusive, ASK_EXCLUSIVE) | flag(m->auto_delete, ASK_AUTO_DELETE) |
                                       flag(m->no_wait, ASK_NO_WAIT)});
}

static void on_queue_bind(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin, const union amqp091_fields *f)
{
    const struct amqp091_queue_bind *m = &f->queue_bind;
    ask_on(a, ch, CMD_QUEUE_BIND, no_wait(origin, m->no_wait),
           &(struct operands){m->queue, m->exchange, m->routing_key, m->arguments, flag(m->no_wait, ASK_NO_WAIT)});
}

static void on_queue_unbind(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                            const union amqp091_fields *f)
{
    const struct amqp091_queue_unbind *m = &f->queue_unbind;
    ask_on(a, ch, CMD_QUEUE_UNBIND, origin, &(struct operands){m->queue, m->exchange, m->routing_key, m->arguments, 0});
}

static void on_queue_purge(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                           const union amqp091_fields *f)
{
    const struct amqp091_queue_purge *m = &f->queue_purge;
    ask_on(a, ch, CMD_QUEUE_PURGE, no_wait(origin, m->no_wait),
           &(struct operands){.name = m->queue, .flags = flag(m->no_wait, ASK_NO_WAIT)});
}

static void on_queue_delete(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                            const union amqp091_fields *f)
{
    const struct amqp091_queue_delete *m = &f->queue_delete;
    uint8_t room[255];
    ask_on(a, ch, CMD_QUEUE_DELETE, no_wait(origin, m->no_wait),
           &(struct operands){.name = stripped(m->queue, room),
                              .flags = flag(m->if_unused, ASK_IF_UNUSED) | flag(m->if_empty, ASK_IF_EMPTY) |
                                       flag(m->no_wait, ASK_NO_WAIT)});
}

/* ---- basic ---- */

static void on_basic_qos(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin, const union amqp091_fields *f)
{
    const struct amqp091_basic_qos *m = &f->basic_qos;
    if (m->prefetch_size != 0) {
        amqp091_fault(a, ch, ERR_NOT_IMPLEMENTED, 60, 10, "prefetch_size!=0 (%u)", m->prefetch_size);
        return;
    }
    struct command *command = command_on(a, ch, CMD_QOS, origin);
    command->number = m->prefetch_count;
    command->flags = flag(m->global, ASK_GLOBAL);
}

static void on_basic_consume(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                             const union amqp091_fields *f)
{
    const struct amqp091_basic_consume *m = &f->basic_consume;
    ask_on(a, ch, CMD_CONSUME, no_wait(origin, m->no_wait),
           &(struct operands){.name = m->queue,
                              .other = m->consumer_tag,
                              .args = m->arguments,
                              .flags = flag(m->no_local, ASK_NO_LOCAL) | flag(m->no_ack, ASK_NO_ACK) |
                                       flag(m->exclusive, ASK_EXCLUSIVE) | flag(m->no_wait, ASK_NO_WAIT)});
}

static void on_basic_cancel(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                            const union amqp091_fields *f)
{
    const struct amqp091_basic_cancel *m = &f->basic_cancel;
    ask_on(a, ch, CMD_CANCEL, no_wait(origin, m->no_wait),
           &(struct operands){.name = m->consumer_tag, .flags = flag(m->no_wait, ASK_NO_WAIT)});
}

static void on_basic_get(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin, const union amqp091_fields *f)
{
    ask_on(a, ch, CMD_GET, origin,
           &(struct operands){.name = f->basic_get.queue, .flags = flag(f->basic_get.no_ack, ASK_NO_ACK)});
}

static void on_basic_ack(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin, const union amqp091_fields *f)
{
    struct command *command = command_on(a, ch, CMD_ACK, origin);
    command->number = f->basic_ack.delivery_tag;
    command->flags = flag(f->basic_ack.multiple, ASK_MULTIPLE);
}

static void on_basic_reject(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                            const union amqp091_fields *f)
{
    struct command *command = command_on(a, ch, CMD_NACK, origin);
    command->number = f->basic_reject.delivery_tag;
    command->flags = ASK_REJECT | flag(f->basic_reject.requeue, ASK_REQUEUE);
}

static void on_basic_nack(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin, const union amqp091_fields *f)
{
    struct command *command = command_on(a, ch, CMD_NACK, origin);
    command->number = f->basic_nack.delivery_tag;
    command->flags = flag(f->basic_nack.multiple, ASK_MULTIPLE) | flag(f->basic_nack.requeue, ASK_REQUEUE);
}

/* recover and recover-async carry the same one bit. */
static void on_basic_recover(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                             const union amqp091_fields *f)
{
    if (f->basic_recover.requeue)
        command_on(a, ch, CMD_RECOVER, origin)->flags = ASK_REQUEUE;
    else
        amqp091_fault(a, ch, ERR_NOT_IMPLEMENTED, 60, (uint16_t)origin, "requeue=false");
}

/* ---- confirm, tx ---- */

static void on_confirm_select(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                              const union amqp091_fields *f)
{
    if (!ch->confirms_on) {
        ch->confirms_on = true;
        ch->confirm_base = ch->confirmed = ch->published; /* the next publish is the client's number 1 */
    }
    command_on(a, ch, CMD_CONFIRM_SELECT, no_wait(origin, f->confirm_select.no_wait));
}

static void on_tx_select(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin, const union amqp091_fields *f)
{
    (void)f;
    ch->tx = true;
    command_on(a, ch, CMD_TX_SELECT, origin);
}

static void on_tx_commit(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin, const union amqp091_fields *f)
{
    (void)f;
    command_on(a, ch, CMD_TX_COMMIT, origin);
}

static void on_tx_rollback(struct amqp091 *a, struct amqp091_channel *ch, uint32_t origin,
                           const union amqp091_fields *f)
{
    (void)f;
    command_on(a, ch, CMD_TX_ROLLBACK, origin);
}

/* ---- the table ---- */

/* basic.publish has its own way (channel.c); a row that a client may send on an open channel and that is not here is a
 * bug which the table test finds. */
static const request_handler handlers[AMQP091_METHOD_COUNT] = {
    [AMQP091_channel_flow] = on_channel_flow,
    [AMQP091_channel_flow_ok] = on_nothing,
    [AMQP091_channel_close] = on_channel_close,
    [AMQP091_access_request] = on_access_request,
    [AMQP091_exchange_declare] = on_exchange_declare,
    [AMQP091_exchange_delete] = on_exchange_delete,
    [AMQP091_exchange_bind] = on_exchange_bind,
    [AMQP091_exchange_unbind] = on_exchange_unbind,
    [AMQP091_queue_declare] = on_queue_declare,
    [AMQP091_queue_bind] = on_queue_bind,
    [AMQP091_queue_unbind] = on_queue_unbind,
    [AMQP091_queue_purge] = on_queue_purge,
    [AMQP091_queue_delete] = on_queue_delete,
    [AMQP091_basic_qos] = on_basic_qos,
    [AMQP091_basic_consume] = on_basic_consume,
    [AMQP091_basic_cancel] = on_basic_cancel,
    [AMQP091_basic_cancel_ok] = on_nothing,
    [AMQP091_basic_get] = on_basic_get,
    [AMQP091_basic_ack] = on_basic_ack,
    [AMQP091_basic_reject] = on_basic_reject,
    [AMQP091_basic_recover_async] = on_basic_recover,
    [AMQP091_basic_recover] = on_basic_recover,
    [AMQP091_basic_nack] = on_basic_nack,
    [AMQP091_confirm_select] = on_confirm_select,
    [AMQP091_tx_select] = on_tx_select,
    [AMQP091_tx_commit] = on_tx_commit,
    [AMQP091_tx_rollback] = on_tx_rollback,
};

void amqp091_request(struct amqp091 *a, struct amqp091_channel *ch, const struct amqp091_row *row,
                     const union amqp091_fields *f)
{
    handlers[row - amqp091_rows](a, ch, amqp091_origin(row), f);
}
