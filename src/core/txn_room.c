/* How much memory transactions take, and who may have how much of it (allowance.h): the broker's limit, below it vhosts, below
 * each of these its transactional ids, its open transactions, and what each of its streams keeps of aborted ones.
 *
 * The limit is looked at where an id or a transaction begins, never where one ends, and never in a replay. A transaction
 * that begins in a partition may have to be kept there as an aborted one for as long as its records are, which without retention
 * and compaction is for ever: so it begins only when there is room for that. It has paid for this while it is open: with an end
 * the memory of all never grows.
 */
#include "core/stream_int.h"
#include "core/txn_int.h"

#define BYTES_MAX (256ull << 20)
#define TELL_NS (60 * NS_PER_S) /* so often at most */

size_t txn_id_bytes(struct slice name)
{
    return sizeof(struct txn) + name.len;
}

void txns_vhost_init(struct broker *b, struct vhost *vhost)
{
    vhost->txn_memory.of = &b->txn_memory;
    vhost->txn_ids.of = vhost->txn_open.of = &vhost->txn_memory;
}

static uint64_t limit_of(const struct broker *b)
{
    return b->options.txns_bytes_max ? b->options.txns_bytes_max : BYTES_MAX;
}

/* An operator finds it in the log, since clients tell theirs only that something is wrong. Without memory he finds the figure. */
static void refused(struct broker *b, const struct vhost *vhost, const struct stream *stream)
{
    struct slice none = {0};
    b->totals.transactions_refused++;
    if (b->txns_told_at && b->now - b->txns_told_at < TELL_NS)
        return;
    struct answer *answer = answer_new(none, vhost->name, stream ? stream->queue->name : none);
    if (!answer)
        return;
    answer->number = stream ? stream->txn_aborted.bytes : vhost->txn_memory.bytes;
    answer->number2 = limit_of(b);
    b->txns_told_at = b->now;
    struct peer worker = {.side = &b->sides[b->options.ports]};
    effect_push(b, &worker, EFF_TXNS_FULL, 0)->answer = answer;
}

bool txn_has_room(struct broker *b, const struct vhost *vhost, const struct allowance *allowance, size_t bytes)
{
    if (b->recovering || bytes <= allowance_left(allowance, limit_of(b)))
        return true;
    refused(b, vhost, NULL);
    return false;
}

enum txn_result txn_room_for_end(struct broker *b, const struct partition *p)
{
    const struct stream *s = p->stream;
    const struct vhost *vhost = s->queue->vhost;
    if (ABORTED_BYTES <= allowance_left(&s->txn_aborted, limit_of(b)))
        return TXN_DONE;
    if (!txn_has_room(b, vhost, &vhost->txn_memory, ABORTED_BYTES))
        return TXN_NO_ROOM; /* whoever has it may give it back soon */
    refused(b, vhost, s);
    return TXN_ABORTED_FULL;
}

/* ---- for broker_check ---- */

static uint64_t check_vhost(const struct vhost *vhost)
{
    uint64_t ids = 0, open = 0, aborted = 0;
    LIST_EACH(&vhost->txn_list, node, after)
    {
        const struct txn *t = CONTAINER_OF(node, struct txn, vhost_link);
        ids += txn_id_bytes(t->name);
        open += t->part_max * TXN_PART_BYTES;
    }
    LIST_EACH(&vhost->streams, node, after)
    {
        const struct stream *s = CONTAINER_OF(node, struct stream, vhost_link);
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < s->partition_count; i++)
            bytes += isolation_bytes(&s->partitions[i]->isolation);
        CHECK(bytes == s->txn_aborted.bytes);
        aborted += bytes;
    }
    CHECK(ids == vhost->txn_ids.bytes && open == vhost->txn_open.bytes);
    CHECK(ids + open + aborted == vhost->txn_memory.bytes);
    return vhost->txn_memory.bytes;
}

void txn_accounts_check(const struct broker *b)
{
    uint64_t bytes = 0;
    MAP_EACH(&b->vhosts, struct vhost, vhost)
    bytes += check_vhost(vhost);
    LIST_EACH(&b->dying, node, after)
    bytes += check_vhost(CONTAINER_OF(node, struct vhost, dying_link));
    CHECK(bytes == b->txn_memory.bytes);
}
