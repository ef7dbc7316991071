/* Feeds: what queries of one user read of the same stream, fetched once and scanned once, see server/run.h and README.md, "The shared scan".
 *
 * A block is what one fetch brought, of one partition. Whoever stands where it begins, or within it, takes it instead of fetching; it goes with the last
 * one that needs it.
 *
 * A block that several have is read by a *reading*: its own input, and the run that was read last, with the columns that any of the feed's queries wants
 * of it. In a turn of the server each query takes that run, evaluates what is its own, and writes its own trail; the first that has taken it
 * before makes the reading go on, so only one run is there at a time. Who stands before that run (it waited for its outputs, say) reads alone up to it;
 * who stands between two places, or wants what cannot be shared (a replay, a bounded SELECT, a table), reads all of the block alone.
 *
 * What is shared changes nothing that a query gives: values and faults are those of its own scan (scan_pick), runs may end anywhere. What fails for want of
 * memory here is done alone.
 *
 * Bounds: READINGS_MAX readings, each with one run; one of them may keep a batch that unpacks to more than READING_KEPT_MAX. */
#include "sql/server/run.h"

#include "base/check.h"
#include "base/mem.h"

#define READINGS_MAX 16u
#define READING_KEPT_MAX ((size_t)4 << 20)
#define RUN_COLUMNS_BYTES (16u << 20) /* of the columns of one run */

struct shared_reading {
    struct list link; /* server->readings, while nobody uses it */
    struct compress *z;
    struct input *input;
    struct arena arena;       /* of the run's columns */
    uint64_t from, until;     /* places before and behind what was read last … */
    enum input_verdict found; /* … and what that was: a run, or why there is none */
    struct query_input in;
    struct scan_columns columns;
    uint32_t generation; /* of the feed's scan that made them; 0: there are none */
};

/* ---- feeds ---- */

bool feed_join(struct run_source *s)
{
    struct server_run *run = s->run;
    struct server_feed *feed = NULL;
    LIST_EACH(&run->server->feeds, node, after)
    {
        struct server_feed *f = CONTAINER_OF(node, struct server_feed, link);
        feed = f->session == run->session && f->stream == s->stream ? f : feed;
    }
    if (!feed) {
        feed = mem_zalloc(sizeof *feed);
        if (!feed)
            return false;
        feed->session = run->session;
        feed->stream = s->stream;
        list_init(&feed->sources);
        list_init(&feed->blocks);
        list_insert(&run->server->feeds, &feed->link);
    }
    list_insert(&feed->sources, &s->fellow);
    feed->source_count++;
    feed->stale = true;
    s->feed = feed;
    return true;
}

void feed_leave(struct run_source *s)
{
    struct server_feed *feed = s->feed;
    if (!feed)
        return;
    s->feed = NULL;
    list_remove(&s->fellow);
    mem_free(s->picks);
    s->picks = NULL;
    feed->stale = true;
    if (--feed->source_count)
        return;
    CHECK(list_empty(&feed->blocks)); /* they were the partitions' of its sources */
    scan_free(&feed->scan);
    list_remove(&feed->link);
    mem_free(feed);
}

/* ---- blocks ---- */

static void reading_give_back(struct sql_server *server, struct shared_reading **at);

struct run_block *feed_find(struct server_feed *feed, uint32_t partition, uint64_t from)
{
    LIST_EACH(&feed->blocks, node, after)
    {
        struct run_block *b = CONTAINER_OF(node, struct run_block, link);
        bool has =
            b->bytes ? b->until != UINT64_MAX && b->from <= from && from < b->until : b->call.number && b->from == from;
        if (has && b->partition == partition)
            return b;
    }
    return NULL;
}

struct run_block *feed_block_new(struct server_feed *feed, uint32_t partition, uint64_t from)
{
    struct run_block *b = mem_zalloc(sizeof *b);
    if (!b)
        return NULL;
    b->feed = feed;
    b->partition = partition;
    b->number = ++feed->session->server->block_number;
    b->from = from;
    list_init(&b->waiting);
    list_insert(&feed->blocks, &b->link);
    return b;
}

void feed_block_ref(struct run_block **at, struct run_block *block)
{
    *at = block;
    block->refs++;
}

void feed_block_unref(struct run_block **at)
{
    struct run_block *b = *at;
    *at = NULL;
    if (!b || --b->refs)
        return;
    struct sql_server *server = b->feed->session->server;
    server_call_forget(server, &b->call);
    if (b->reading)
        reading_give_back(server, &b->reading);
    list_remove(&b->link);
    server->block_bytes -= b->len;
    file_piece_fini(&b->piece);
    mem_free(b->bytes);
    mem_free(b->aborted);
    mem_free(b);
}

/* ---- the scan of what all of them want ---- */

static bool same_column(const struct scan_column *a, const struct scan_column *b)
{
    if (a->steps != b->steps || a->not_null != b->not_null || !type_equal(&a->type, &b->type))
        return false;
    for (uint32_t i = 0; i < a->steps; i++)
        if (!a->path[i].key.ptr != !b->path[i].key.ptr || a->path[i].index != b->path[i].index ||
            !slice_equal(a->path[i].key, b->path[i].key))
            return false;
    return true;
}

/* JSON is checked whole whatever is wanted of it; other formats up to the last field that is. Records of a table may be changed before they are read. A
 * query of little memory takes shorter runs. */
static const struct source *shareable(const struct run_source *s)
{
    const struct query *query = s->run->query;
    const struct source *source = query ? &query_plan(query)->sources[s->number] : NULL;
    bool ok = source && !s->pieces && source->rule.format == SCAN_JSON && !source->deletes;
    return ok && query_rows(query, RUN_ROWS) == RUN_ROWS ? source : NULL;
}

/* Adds what it wants. False: it will scan by itself. */
static bool add_source(struct run_source *s, const struct source *source, struct scan_column *all, uint32_t *count)
{
    uint32_t before = *count, picked = 0;
    s->picks = mem_alloc((source->count + 1) * sizeof *s->picks);
    for (uint32_t i = 0; s->picks && i < source->count; i++) {
        uint32_t at = 0;
        if (source->columns[i].pseudo >= 0)
            continue;
        while (at < *count && !same_column(&all[at], &source->columns[i].path))
            at++;
        if (at == SCAN_COLUMNS_MAX) {
            mem_free(s->picks);
            s->picks = NULL;
            break;
        }
        if (at == *count)
            all[(*count)++] = source->columns[i].path;
        s->picks[picked++] = (uint16_t)at;
    }
    if (!s->picks)
        *count = before;
    return s->picks;
}

static void make_scan(struct server_feed *feed)
{
    struct scan_column *all = mem_alloc(SCAN_COLUMNS_MAX * sizeof *all);
    uint32_t count = 0, sharers = 0;
    scan_free(&feed->scan);
    LIST_EACH(&feed->sources, node, after)
    {
        struct run_source *s = CONTAINER_OF(node, struct run_source, fellow);
        const struct source *source = shareable(s);
        mem_free(s->picks);
        s->picks = NULL;
        sharers += all && source && add_source(s, source, all, &count);
    }
    if (sharers > 1)
        feed->scan = scan_new(all, count);
    mem_free(all);
    feed->stale = false;
    feed->generation += feed->generation != UINT32_MAX ? 1 : 2; /* never 0 */
}

/* ---- readings ---- */

static void reading_free(struct sql_server *server, struct shared_reading **at)
{
    struct shared_reading *r = *at;
    *at = NULL;
    input_free(&r->input);
    compress_free(&r->z);
    arena_fini(&r->arena);
    list_remove(&r->link);
    mem_free(r);
    server->reading_count--;
}

/* NULL: as many as there may be are in use, or no memory. */
static struct shared_reading *reading_take(struct sql_server *server)
{
    struct shared_reading *r = LIST_FIRST(&server->readings, struct shared_reading, link);
    if (r) {
        list_remove(&r->link);
        return r;
    }
    r = server->reading_count < READINGS_MAX ? mem_zalloc(sizeof *r) : NULL;
    if (!r)
        return NULL;
    server->reading_count++;
    list_init(&r->link);
    arena_init(&r->arena, RUN_COLUMNS_BYTES);
    r->z = compress_new();
    r->input = r->z ? input_new(r->z, INPUT_UNPACKED_MAX) : NULL;
    if (!r->input)
        reading_free(server, &r);
    return r;
}

static void reading_give_back(struct sql_server *server, struct shared_reading **at)
{
    struct shared_reading *r = *at;
    *at = NULL;
    if (compress_kept_bytes(r->z) > READING_KEPT_MAX)
        compress_trim(r->z);
    server->large = server->large == r ? NULL : server->large;
    arena_recycle(&r->arena);
    if (r->arena.spare_len > READING_KEPT_MAX)
        arena_fini(&r->arena);
    list_insert(&server->readings, &r->link);
}

/* Goes on by a run, or finds why there is none. */
static void go_on(struct server_feed *feed, struct shared_reading *r)
{
    r->from = r->until;
    r->generation = 0;
    arena_recycle(&r->arena);
    r->found = input_next(r->input, RUN_ROWS, &r->in);
    r->until = input_place(r->input);
    if (r->found != INPUT_ROWS)
        return;
    if (feed->stale)
        make_scan(feed);
    if (feed->scan && scan_apart(feed->scan, r->in.records, r->in.rows, &r->arena, &r->columns))
        r->generation = feed->generation;
}

/* Two large batches at a time may be unpacked, this one and another's that is read alone. False: it is read alone from now on. */
static bool may_keep(struct sql_server *server, struct run_block *b)
{
    if (compress_kept_bytes(b->reading->z) <= READING_KEPT_MAX)
        return true;
    server->large = server->large ? server->large : b->reading;
    b->alone = server->large != b->reading;
    return !b->alone;
}

bool feed_open(struct run_partition *p, uint64_t *ret_meet)
{
    struct run_block *b = p->got;
    struct sql_server *server = p->source->run->server;
    if (b->alone || !shareable(p->source))
        return false;
    if (!b->reading) {
        b->reading = b->refs > 1 ? reading_take(server) : NULL;
        if (!b->reading)
            return false;
        struct input_piece piece = {.bytes = slice_of(b->bytes, b->len),
                                    .from = p->place,
                                    .until = b->stable,
                                    .aborted = b->aborted,
                                    .aborted_count = b->aborted_count};
        input_begin(b->reading->input, &piece);
        b->reading->from = b->reading->until = p->place;
        b->reading->found = INPUT_NO_MEMORY; /* nothing yet */
    }
    struct shared_reading *r = b->reading;
    if (p->place == r->until && (r->found == INPUT_ROWS || r->found == INPUT_NO_MEMORY)) {
        if (b->refs > 1)
            go_on(b->feed, r);
        if (b->refs == 1 || !may_keep(server, b)) {
            reading_give_back(server, &b->reading);
            return false;
        }
    }
    *ret_meet = r->from;
    return p->place <= r->from;
}

enum input_verdict feed_next(struct run_partition *p, struct query_input *ret, uint64_t *ret_place)
{
    const struct shared_reading *r = p->got->reading;
    CHECK(p->place == r->from);
    *ret_place = r->until;
    if (r->found != INPUT_ROWS)
        return r->found;
    *ret = r->in;
    if (r->generation == p->source->feed->generation && p->source->picks) {
        ret->scanned = &r->columns;
        ret->picks = p->source->picks;
    }
    return INPUT_ROWS;
}

void feeds_fini(struct sql_server *server)
{
    CHECK(list_empty(&server->feeds));
    LIST_EACH(&server->readings, node, after)
    {
        struct shared_reading *r = CONTAINER_OF(node, struct shared_reading, link);
        reading_free(server, &r);
    }
}
