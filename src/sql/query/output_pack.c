/* Record batches, messages and groups of them, see output_int.h. */
#include "sql/query/output_int.h"

#include "base/check.h"
#include "base/mem.h"
#include "core/stream_job.h"

#define RECORD_OVERHEAD 64u /* more than a record has beside its key and its value */
#define BUFFER_LEAST (16u * 1024)
#define BUFFERS_MAX (8u << 20) /* what more there is in them is given back with each batch */
#define GROUP_LEAST 16u
#define GROUP_SPARE 64u /* batches that tombstones may begin when a group is cut, beside one for each partition */

bool packer_init(struct packer *p, struct slab_heap *heap, const struct output_target *target, size_t bytes_max)
{
    *p = (struct packer){.heap = heap, .target = target, .bytes_max = bytes_max};
    CHECK(target->partitions <= STREAM_PARTITIONS_MAX);
    p->parts = mem_zalloc((target->partitions ? target->partitions : 1) * sizeof *p->parts);
    return p->parts != NULL;
}

void packer_fini(struct packer *p)
{
    for (uint32_t i = 0; p->parts && i < p->target->partitions; i++)
        mem_free(p->parts[i].bytes);
    mem_free(p->parts);
    output_group_free(p->heap, &p->growing);
    for (struct output_group *g; (g = packer_take(p)) != NULL;)
        output_group_free(p->heap, &g);
}

void output_group_free(struct slab_heap *heap, struct output_group **group)
{
    for (uint32_t i = 0; *group && i < (*group)->count; i++)
        if ((*group)->outputs[i].msg)
            msg_unref(heap, (*group)->outputs[i].msg);
    if (*group) {
        mem_free((*group)->marks);
        mem_free((*group)->acks);
    }
    mem_free(*group);
    *group = NULL;
}

bool output_group_split(struct output_group *group, uint32_t count)
{
    uint32_t rest = group->count - count;
    CHECK(count && count < group->count);
    struct output_group *next = group->marks ? mem_alloc(sizeof *next + rest * sizeof next->outputs[0]) : NULL;
    struct output_mark *marks = next ? mem_alloc(rest * sizeof *marks) : NULL;
    if (!marks) {
        mem_free(next);
        return false;
    }
    *next = (struct output_group){
        .next = group->next, .place = group->place, .until = group->until, .count = rest, .marks = marks};
    memcpy(marks, group->marks + count, rest * sizeof *marks);
    memcpy(next->outputs, group->outputs + count, rest * sizeof next->outputs[0]);
    for (uint32_t i = 0; i < rest; i++)
        next->bytes += msg_size(next->outputs[i].msg);
    group->next = next;
    group->bytes -= next->bytes;
    group->count = count;
    group->place = group->marks[count - 1].place;
    group->until = marks[0].until;
    return true;
}

size_t packer_bytes(const struct packer *p)
{
    return p->waiting + p->open_bytes + (p->growing ? p->growing->bytes : 0);
}

bool packer_full(const struct packer *p, size_t more, size_t gone)
{
    size_t bytes =
        packer_bytes(p) - p->waiting + more + gone + RECORD_OVERHEAD + RECORD_BATCH_HEADER + sizeof(struct msg);
    uint32_t count = (p->growing ? p->growing->count : 0) + p->open;
    return count &&
           (bytes > QUERY_STEP_BYTES_MAX || count + 1 > QUERY_OUTPUTS_MAX - p->target->partitions - GROUP_SPARE);
}

static bool group_grow(struct packer *p)
{
    uint32_t room = p->growing ? 2 * p->growing_room : GROUP_LEAST;
    struct output_group *more = mem_realloc(p->growing, sizeof *more + room * sizeof more->outputs[0]);
    if (!more)
        return false;
    if (!p->growing)
        *more = (struct output_group){.next = NULL};
    p->growing = more;
    struct output_mark *marks = p->target->partitions ? NULL : mem_realloc(more->marks, room * sizeof *marks);
    if (!marks && !p->target->partitions)
        return false;
    more->marks = marks;
    p->growing_room = room;
    return true;
}

/* mark: a message's; NULL: it is a batch of records. */
static bool add_output(struct packer *p, uint32_t partition, const struct output_mark *mark, struct msg *msg)
{
    if ((!p->growing || p->growing->count == p->growing_room) && !group_grow(p)) {
        msg_unref(p->heap, msg);
        return false;
    }
    struct output_group *g = p->growing;
    if (g->marks)
        g->marks[g->count] = *mark;
    g->outputs[g->count++] = (struct query_output){.queue = p->target->queue, .partition = partition, .msg = msg};
    g->bytes += msg_size(msg);
    return packer_bytes(p) <= p->bytes_max;
}

static bool part_finish(struct packer *p, uint32_t partition)
{
    struct part *part = &p->parts[partition];
    struct slice nothing = {0}, bytes = record_batch_finish(&part->batch, -1);
    struct msg *msg = msg_new(p->heap, nothing, nothing, nothing, bytes.len);
    CHECK(writer_ok(&part->w));
    p->open_bytes -= bytes.len;
    p->open--;
    part->rows = 0;
    if (!msg)
        return false;
    msg->flags = MSG_BATCH | MSG_PERSISTENT;
    memcpy(msg_body_room(msg), bytes.ptr, bytes.len);
    if (p->room > BUFFERS_MAX) {
        p->room -= part->room;
        mem_free(part->bytes);
        part->bytes = NULL;
        part->room = 0;
    }
    return add_output(p, partition, NULL, msg);
}

static bool part_room(struct packer *p, struct part *part, size_t len)
{
    if (len <= part->room)
        return true;
    size_t room = part->room ? part->room : BUFFER_LEAST;
    while (room < len)
        room *= 2;
    uint8_t *bytes = mem_realloc(part->bytes, room);
    if (!bytes)
        return false;
    p->room += room - part->room;
    part->bytes = part->w.base = bytes;
    part->room = part->w.max = room;
    return true;
}

bool packer_record(struct packer *p, uint32_t partition, int64_t ms, const struct slice *key, const struct slice *value)
{
    struct part *part = &p->parts[partition];
    size_t len = (key ? key->len : 0) + (value ? value->len : 0) + RECORD_OVERHEAD;
    if (part->rows && (part->w.len + len > OUTPUT_BATCH_BYTES || part->rows == OUTPUT_BATCH_ROWS) &&
        !part_finish(p, partition))
        return false;
    if (!part->rows) {
        struct record_batch head = record_batch_head(0, ms);
        if (!part_room(p, part, RECORD_BATCH_HEADER + len))
            return false;
        part->w = writer_of(part->bytes, part->room);
        record_batch_begin(&part->batch, &part->w, &head);
        p->open++;
        p->open_bytes += part->w.len;
    }
    size_t before = part->w.len;
    if (!part_room(p, part, before + len))
        return false;
    CHECK(record_batch_put(&part->batch, ms, key, value, NULL, 0));
    part->rows++;
    p->open_bytes += part->w.len - before;
    return true;
}

bool packer_message(struct packer *p, const struct output_mark *mark, struct slice routing_key, struct slice body)
{
    /* content type and delivery mode 2, as fmt/amqp_props.h writes them */
    static const uint8_t props[] = "\x90\x00\x10"
                                   "application/json\x02";
    struct msg *msg = msg_new(p->heap, p->target->exchange, routing_key, slice_of(props, sizeof props - 1), body.len);
    if (!msg)
        return false;
    msg->flags = MSG_PERSISTENT;
    memcpy(msg_body_room(msg), body.ptr, body.len);
    return add_output(p, 0, mark, msg);
}

bool packer_cut(struct packer *p, uint64_t place, uint64_t until)
{
    for (uint32_t i = 0; p->open && i < p->target->partitions; i++)
        if (p->parts[i].rows && !part_finish(p, i))
            return false;
    struct output_group *end = p->growing ? p->growing : p->last; /* rows that gave nothing belong to what is there */
    if (end) {
        end->place = place;
        end->until = until;
    }
    if (!p->growing)
        return true;
    p->waiting += p->growing->bytes;
    *(p->last ? &p->last->next : &p->first) = p->growing;
    p->last = p->growing;
    p->growing = NULL;
    return true;
}

struct output_group *packer_take(struct packer *p)
{
    struct output_group *g = p->first;
    if (!g)
        return NULL;
    p->first = g->next;
    p->last = p->first ? p->last : NULL;
    p->waiting -= g->bytes;
    g->next = NULL;
    return g;
}
