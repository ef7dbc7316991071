/* The catalogue of continuous SQL, and the blocks and rows of query.h. */
#include "core/query_int.h"

/* ---- blocks ---- */

struct query_step *query_step_new(uint64_t query, uint64_t number, struct slice trail, uint32_t count)
{
    struct query_step *step;
    size_t outputs = count * sizeof step->outputs[0];
    if (count > QUERY_OUTPUTS_MAX || trail.len > SQL_TRAIL_MAX)
        return NULL;
    step = mem_alloc(sizeof *step + outputs + trail.len);
    if (!step)
        return NULL;
    memset(step, 0, sizeof *step + outputs);
    step->query = query;
    step->number = number;
    step->count = count;
    uint8_t *at = (uint8_t *)step->outputs + outputs;
    if (trail.len)
        memcpy(at, trail.ptr, trail.len);
    step->trail = slice_of(at, trail.len);
    return step;
}

void query_step_free(struct slab_heap *mine, struct query_step **step)
{
    for (uint32_t i = 0; *step && i < (*step)->count; i++)
        if ((*step)->outputs[i].msg)
            msg_unref(mine, (*step)->outputs[i].msg);
    mem_free(*step);
    *step = NULL;
}

size_t query_step_bytes(const struct query_step *step)
{
    size_t bytes = step->trail.len;
    for (uint32_t i = 0; i < step->count; i++)
        bytes += step->outputs[i].msg ? msg_size(step->outputs[i].msg) : 0;
    return bytes;
}

/* ---- rows ---- */

bool sql_object_row_next(struct reader *r, struct sql_object_row *ret)
{
    if (!r->left || !reader_ok(r))
        return false;
    *ret = (struct sql_object_row){.id = reader_u64(r)};
    ret->vhost = reader_str8(r);
    ret->name = reader_str8(r);
    ret->owner = reader_str8(r);
    ret->kind = reader_u8(r);
    ret->state = reader_u8(r);
    ret->step = reader_u64(r);
    struct slice *texts[] = {&ret->text, &ret->settings, &ret->reason, &ret->trail};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        *texts[i] = reader_str32(r);
    return reader_ok(r);
}

/* ---- the broker's ---- */

void sql_init(struct broker *b)
{
    map_init(&b->sql.objects, b->seed + 20);
    list_init(&b->sql.by_id);
    relays_init(b);
}

void sql_fini(struct broker *b)
{
    relays_fini(b);
    map_fini(&b->sql.objects);
}

static void say(struct broker *b, struct peer *peer, const struct command *c, enum query_result result)
{
    struct slice none = {0};
    struct effect *e = effect_push(b, peer, EFF_ANSWER, 0);
    e->origin = c->origin;
    e->answer = answer_new(none, none, none);
    if (e->answer)
        e->answer->number = result;
}

void do_sql_list(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    say(b, peer, c, 0);
}

void do_sql_put(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    say(b, peer, c, QUERY_NO_ROOM);
}

void do_sql_drop(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    say(b, peer, c, QUERY_UNKNOWN);
}

void do_sql_state(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    say(b, peer, c, QUERY_UNKNOWN);
}

void do_query_step(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    c->query_step->result = QUERY_UNKNOWN;
    struct effect *e = effect_push(b, peer, EFF_QUERY_STEPPED, 0);
    e->origin = c->origin;
    e->query_step = c->query_step;
}
