/* Runs, see spill_run.h. A run is one row of bytes over its blocks; an entry may begin in one and end in another. */
#include "sql/query/spill_run.h"

#include "base/check.h"
#include "base/mem.h"
#include "sql/query/table.h"

#define PAGE 4096u

static uint16_t mark_of(uint64_t hash)
{
    return (uint16_t)hash ? (uint16_t)hash : 1;
}

/* Of all that is written of an entry: a hash or an end that has changed would lose it without a word. */
static uint32_t sum_of(const struct run_entry *head, struct slice key, struct slice bytes)
{
    struct run_entry own = *head;
    own.sum = 0;
    return (uint32_t)key_hash(bytes, key_hash(key, key_hash(slice_of(&own, sizeof own), 0)));
}

/* ------------------------------------------------------------------------------------------------------------ memory */

/* Another array of twice as many. False: no memory. */
static bool grow(struct spill_run *run, void *array, uint32_t *room, size_t size)
{
    void *old, *more;
    uint32_t wanted = *room ? 2 * *room : 16;
    memcpy(&old, array, sizeof old);
    more = wanted > *room ? account_take(run->account, wanted * size) : NULL;
    if (!more)
        return scratch_fail(run->scratch, SQL_FAULT_MEMORY);
    if (old)
        memcpy(more, old, *room * size);
    account_give(run->account, old, *room * size);
    memcpy(array, &more, sizeof more);
    *room = wanted;
    return true;
}

size_t run_memory(const struct spill_run *run)
{
    return sizeof *run + run->room * sizeof *run->marks + run->block_room * sizeof *run->blocks +
           run->page_room * sizeof *run->pages;
}

void run_free(struct spill_run **ret)
{
    struct spill_run *run = *ret;
    *ret = NULL;
    if (!run)
        return;
    for (uint32_t i = run->given; i < run->block_count; i++)
        scratch_give(run->scratch, run->blocks[i]);
    account_give(run->account, run->marks, run->room * sizeof *run->marks);
    account_give(run->account, run->blocks, run->block_room * sizeof *run->blocks);
    account_give(run->account, run->pages, run->page_room * sizeof *run->pages);
    account_give(run->account, run, sizeof *run);
}

/* Room for an entry of so many bytes; twice what there was, so that it seldom grows. */
static uint8_t *room_for(struct run_room *room, size_t len)
{
    if (len > room->len || !room->bytes) {
        size_t wanted = len > 2 * room->len ? len : 2 * room->len;
        wanted = wanted < PAGE ? PAGE : wanted;
        mem_free(room->bytes);
        room->len = 0;
        room->bytes = mem_alloc(wanted);
        if (!room->bytes)
            return NULL;
        room->len = wanted;
    }
    return room->bytes;
}

void run_room_fini(struct run_room *room)
{
    mem_free(room->bytes);
    *room = (struct run_room){0};
}

/* ----------------------------------------------------------------------------------------------------------- writing */

bool run_begin(struct run_writer *w, struct account *account, struct scratch_file *scratch, uint32_t entries_max)
{
    *w = (struct run_writer){.block = mem_alloc(SCRATCH_BLOCK)};
    struct spill_run *run = w->block ? account_take(account, sizeof *run) : NULL;
    if (run) {
        *run = (struct spill_run){
            .account = account, .scratch = scratch, .until = {INT64_MIN, INT64_MIN}, .room = entries_max};
        run->marks = account_take(account, entries_max * sizeof *run->marks);
        if (!run->marks)
            run->room = 0;
    }
    w->run = run;
    if (run && run->marks)
        return true;
    run_abort(w);
    return scratch_fail(scratch, SQL_FAULT_MEMORY);
}

void run_abort(struct run_writer *w)
{
    run_free(&w->run);
    mem_free(w->block);
    w->block = NULL;
}

static bool write_block(struct run_writer *w)
{
    struct spill_run *run = w->run;
    if (run->block_count == run->block_room && !grow(run, &run->blocks, &run->block_room, sizeof *run->blocks))
        return false;
    if (!scratch_put(run->scratch, w->block, &run->blocks[run->block_count]))
        return false;
    run->block_count++;
    w->used = 0;
    return true;
}

static bool put(struct run_writer *w, const void *bytes, size_t len)
{
    const uint8_t *from = bytes;
    w->run->len += len;
    while (len) {
        size_t some = len < SCRATCH_BLOCK - w->used ? len : SCRATCH_BLOCK - w->used;
        memcpy(w->block + w->used, from, some);
        w->used += some;
        from += some;
        len -= some;
        if (w->used == SCRATCH_BLOCK && !write_block(w))
            return false;
    }
    return true;
}

static bool begin_page(struct run_writer *w, uint64_t hash)
{
    struct spill_run *run = w->run;
    if (run->page_count && run->len - run->pages[run->page_count - 1].at < PAGE)
        return true;
    if (run->page_count == run->page_room && !grow(run, &run->pages, &run->page_room, sizeof *run->pages))
        return false;
    run->pages[run->page_count++] = (struct run_page){.hash = hash, .at = run->len, .first = run->count};
    return true;
}

bool run_add(struct run_writer *w, struct run_entry *head, struct slice key, struct slice bytes)
{
    struct spill_run *run = w->run;
    CHECK(run->count < run->room);
    if (key.len + bytes.len > UINT32_MAX - sizeof *head)
        return scratch_fail(run->scratch, SQL_FAULT_LIMIT);
    head->key_len = (uint32_t)key.len;
    head->len = (uint32_t)bytes.len;
    head->sum = sum_of(head, key, bytes);
    if (!begin_page(w, head->hash) || !put(w, head, sizeof *head) || !put(w, key.ptr, key.len) ||
        !put(w, bytes.ptr, bytes.len))
        return false;
    run->marks[run->count++] = mark_of(head->hash);
    run->live++;
    for (unsigned i = 0; i < RUN_UNTIL; i++)
        run->until[i] = head->until[i] > run->until[i] ? head->until[i] : run->until[i];
    return true;
}

struct spill_run *run_end(struct run_writer *w)
{
    struct spill_run *run = w->run;
    memset(w->block + w->used, 0, SCRATCH_BLOCK - w->used);
    bool ok = run->count && run->scratch->fault == SQL_FAULT_NONE && (!w->used || write_block(w));
    w->run = NULL;
    run_abort(w);
    if (!ok)
        run_free(&run);
    return run;
}

/* ----------------------------------------------------------------------------------------------------------- finding */

static bool read_bytes(struct spill_run *run, uint64_t at, uint8_t *ret, size_t len)
{
    while (len) {
        uint32_t in = (uint32_t)(at % SCRATCH_BLOCK);
        size_t some = len < SCRATCH_BLOCK - in ? len : SCRATCH_BLOCK - in;
        if (!scratch_read(run->scratch, run->blocks[at / SCRATCH_BLOCK], in, ret, some))
            return false;
        at += some;
        ret += some;
        len -= some;
    }
    return true;
}

static uint64_t page_end(const struct spill_run *run, uint32_t page)
{
    return page + 1 < run->page_count ? run->pages[page + 1].at : run->len;
}

static uint32_t page_last(const struct spill_run *run, uint32_t page)
{
    return page + 1 < run->page_count ? run->pages[page + 1].first : run->count;
}

/* The entry's parts, when they lie within `left` and are what was written. A mark that is not its own: a length before it was damaged. */
static bool parts_of(const struct run_entry *head, uint16_t mark, const uint8_t *at, size_t left, struct slice *ret_key,
                     struct slice *ret_bytes)
{
    if (head->key_len > left || head->len > left - head->key_len || mark != mark_of(head->hash))
        return false;
    *ret_key = slice_of(at, head->key_len);
    *ret_bytes = slice_of(at + head->key_len, head->len);
    return head->sum == sum_of(head, *ret_key, *ret_bytes);
}

/* The page is in memory: goes to its n-th entry, which has that mark. False: it is damaged. */
static bool entry_at(const uint8_t *page, size_t len, uint32_t n, uint16_t mark, struct run_entry *ret,
                     struct slice *ret_key, struct slice *ret_bytes)
{
    for (size_t at = 0; len - at >= sizeof *ret; n--) {
        memcpy(ret, page + at, sizeof *ret);
        at += sizeof *ret;
        if (n == 0)
            return parts_of(ret, mark, page + at, len - at, ret_key, ret_bytes);
        if ((uint64_t)ret->key_len + ret->len > len - at)
            return false;
        at += (size_t)ret->key_len + ret->len;
    }
    return false;
}

/* The first page in which the hash may be: the last one that begins below it, else the first. */
static uint32_t page_of(const struct spill_run *run, uint64_t hash)
{
    uint32_t low = 0, high = run->page_count;
    while (high - low > 1) {
        uint32_t mid = low + (high - low) / 2;
        if (run->pages[mid].hash < hash)
            low = mid;
        else
            high = mid;
    }
    return low;
}

bool run_find(struct spill_run *run, struct slice key, uint64_t hash, struct run_room *room, struct slice *ret_bytes,
              uint32_t *ret_number)
{
    uint16_t mark = mark_of(hash);
    for (uint32_t p = page_of(run, hash); p < run->page_count && run->pages[p].hash <= hash; p++) {
        bool there = false; /* the page is in the room */
        size_t len = (size_t)(page_end(run, p) - run->pages[p].at);
        for (uint32_t i = run->pages[p].first; i < page_last(run, p); i++) {
            struct run_entry head;
            struct slice own;
            if (run->marks[i] != mark)
                continue;
            if (!there && !room_for(room, len))
                return scratch_fail(run->scratch, SQL_FAULT_MEMORY);
            if (!there && !read_bytes(run, run->pages[p].at, room->bytes, len))
                return false;
            there = true;
            if (!entry_at(room->bytes, len, i - run->pages[p].first, mark, &head, &own, ret_bytes))
                return scratch_fail(run->scratch, SQL_FAULT_SCRATCH_LOST);
            if (head.hash == hash && slice_equal(own, key)) {
                *ret_number = i;
                return true;
            }
        }
    }
    return false;
}

void run_drop(struct spill_run *run, uint32_t number)
{
    CHECK(run->marks[number] && run->live);
    run->marks[number] = 0;
    run->live--;
}

/* ----------------------------------------------------------------------------------------------------- going through */

bool cursor_init(struct run_cursor *c, struct spill_run *run, bool eats)
{
    *c = (struct run_cursor){.run = run, .eats = eats, .block = mem_alloc(SCRATCH_BLOCK), .block_idx = UINT32_MAX};
    c->no_memory = !c->block;
    return c->block;
}

void cursor_fini(struct run_cursor *c)
{
    mem_free(c->block);
    c->block = NULL;
    run_room_fini(&c->room);
}

static bool cursor_read(struct run_cursor *c, void *ret, size_t len)
{
    uint8_t *to = ret;
    if (len > c->run->len - c->at)
        return scratch_fail(c->run->scratch, SQL_FAULT_SCRATCH_LOST);
    while (len) {
        uint32_t idx = (uint32_t)(c->at / SCRATCH_BLOCK), in = (uint32_t)(c->at % SCRATCH_BLOCK);
        size_t some = len < SCRATCH_BLOCK - in ? len : SCRATCH_BLOCK - in;
        if (idx != c->block_idx && !scratch_read(c->run->scratch, c->run->blocks[idx], 0, c->block, SCRATCH_BLOCK))
            return false;
        c->block_idx = idx;
        while (c->eats && c->run->given < idx)
            scratch_give(c->run->scratch, c->run->blocks[c->run->given++]);
        memcpy(to, c->block + in, some);
        c->at += some;
        to += some;
        len -= some;
    }
    return true;
}

bool cursor_next(struct run_cursor *c)
{
    while (c->number < c->run->count) {
        uint16_t mark = c->run->marks[c->number++];
        if (!cursor_read(c, &c->head, sizeof c->head))
            return false;
        size_t len = (size_t)c->head.key_len + c->head.len;
        if (len > c->run->len - c->at)
            return scratch_fail(c->run->scratch, SQL_FAULT_SCRATCH_LOST);
        if (!mark) {
            c->at += len;
            continue;
        }
        uint8_t *bytes = room_for(&c->room, len);
        c->no_memory = !bytes;
        if (!bytes || !cursor_read(c, bytes, len))
            return false;
        return parts_of(&c->head, mark, bytes, len, &c->key, &c->bytes) ||
               scratch_fail(c->run->scratch, SQL_FAULT_SCRATCH_LOST);
    }
    return false;
}
