/* GROUP_SET, GROUP_CONFIGS and GROUP_CONFIG_LIST: what is set of groups, as objects of the catalogue. A group points at what is set of its
 * name; what is set later acts from then on, on locks and sessions that begin. */
#include "core/group_config.h"

#include "core/share_int.h"

#define RULES_MAX 100000u
#define LIST_ONCE 1000u /* looked at in one command */

static const struct group_config defaults = {
    .lock_ms = SHARE_LOCK_MS, .deliveries_max = SHARE_DELIVERIES_MAX, .locks_max = SHARE_LOCKS_MAX};

const struct group_config *group_config_of(const struct group *g)
{
    return g->config ? g->config : &defaults;
}

/* ---- rows ---- */

struct setting {
    bool set;
    uint64_t number;
    struct slice text;
};

/* u8 setting, u64 number, s8 text …, which take the place of those that are there. False: that is no such block. */
static bool read_rows(struct slice rows, struct setting all[GROUP_SETTINGS])
{
    struct reader r = reader_of(rows);
    while (r.left) {
        uint8_t which = reader_u8(&r);
        struct setting one = {.set = true, .number = reader_u64(&r)};
        one.text = reader_str8(&r);
        if (!reader_ok(&r) || which == 0 || which >= GROUP_SETTINGS)
            return false;
        all[which] = one;
    }
    return true;
}

static size_t put_rows(const struct setting all[GROUP_SETTINGS], struct writer *w)
{
    for (unsigned i = 1; i < GROUP_SETTINGS; i++) {
        if (!all[i].set)
            continue;
        writer_u8(w, (uint8_t)i);
        writer_u64(w, all[i].number);
        writer_str8(w, all[i].text);
    }
    return w->len;
}

static uint32_t limited(uint64_t number)
{
    return number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
}

static struct group_config config_of(const struct setting all[GROUP_SETTINGS])
{
    struct group_config c = defaults;
    uint32_t *numbers[GROUP_SETTINGS] = {
        [GROUP_SET_SHARE_LOCK_MS] = &c.lock_ms,
        [GROUP_SET_SHARE_LOCKS] = &c.locks_max,
        [GROUP_SET_SHARE_DELIVERIES] = &c.deliveries_max,
        [GROUP_SET_SHARE_SESSION_MS] = &c.session_ms,
        [GROUP_SET_SHARE_BEAT_MS] = &c.beat_ms,
        [GROUP_SET_CONSUMER_SESSION_MS] = &c.consumer_session_ms,
        [GROUP_SET_CONSUMER_BEAT_MS] = &c.consumer_beat_ms,
    };
    for (unsigned i = 1; i < GROUP_SETTINGS; i++)
        if (all[i].set && numbers[i])
            *numbers[i] = limited(all[i].number);
    uint64_t reset = all[GROUP_SET_SHARE_RESET].set ? all[GROUP_SET_SHARE_RESET].number : GROUP_FROM_END;
    c.earliest = reset == GROUP_FROM_START;
    c.since_ms = reset < GROUP_FROM_START ? (int64_t)(reset < INT64_MAX ? reset + !reset : INT64_MAX) : 0;
    c.committed = all[GROUP_SET_SHARE_COMMITTED].set && all[GROUP_SET_SHARE_COMMITTED].number;
    c.no_renewal = all[GROUP_SET_SHARE_RENEWS].set && !all[GROUP_SET_SHARE_RENEWS].number;
    return c;
}

/* ---- objects ---- */

static struct slice key_of(const void *value)
{
    return ((const struct group_rules *)value)->key;
}

void groups_rules_init(struct broker *b)
{
    map_init_keyed(&b->group_rules, b->seed + 19, key_of);
    list_init(&b->group_rules_list);
}

static size_t rules_bytes(const struct group_rules *rules)
{
    return sizeof *rules + rules->key.len + rules->rows.len;
}

static void rules_free(struct broker *b, struct group_rules *rules)
{
    struct group *g = map_get(&b->groups, rules->key);
    if (g)
        g->config = NULL;
    (void)map_take(&b->group_rules, rules->key);
    list_remove(&rules->link);
    list_remove(&rules->vhost_link);
    object_remove(b, &rules->object);
    b->group_bytes -= sizeof *rules;
    group_drop(b, &rules->rows);
    group_drop(b, &rules->key);
    mem_free_as(MEM_GROUPS, rules);
}

void groups_rules_fini(struct broker *b)
{
    LIST_EACH(&b->group_rules_list, node, after)
    rules_free(b, CONTAINER_OF(node, struct group_rules, link));
    map_fini(&b->group_rules);
}

bool groups_rules_vhost_gone(struct broker *b, struct vhost *vhost, unsigned *budget)
{
    for (; *budget && !list_empty(&vhost->group_rules); budget_spend(budget, 1))
        rules_free(b, CONTAINER_OF(vhost->group_rules.next, struct group_rules, vhost_link));
    return list_empty(&vhost->group_rules);
}

const struct group_config *group_config_for(const struct broker *b, struct slice key)
{
    const struct group_rules *rules = map_get(&b->group_rules, key);
    return rules ? &rules->config : NULL;
}

/* NULL: no memory, or too many. */
static struct group_rules *rules_make(struct broker *b, struct vhost *vhost, struct slice name)
{
    uint8_t room[2 * NAME_MAX_BYTES + 1];
    struct slice key = group_key(room, vhost, name);
    if (!key.len || b->group_rules.count >= RULES_MAX || !group_has_room(b, sizeof(struct group_rules) + key.len))
        return NULL;
    struct group_rules *rules = mem_zalloc_as(MEM_GROUPS, sizeof *rules);
    if (!rules)
        return NULL;
    if (!group_keep(b, &rules->key, key) || !map_put(&b->group_rules, rules->key, rules)) {
        group_drop(b, &rules->key);
        mem_free_as(MEM_GROUPS, rules);
        return NULL;
    }
    rules->vhost = vhost;
    rules->name = slice_of(rules->key.ptr + 1 + vhost->name.len, name.len);
    list_insert(&b->group_rules_list, &rules->link);
    list_insert(&vhost->group_rules, &rules->vhost_link);
    object_add(b, &rules->object, OBJ_GROUP_RULES, true);
    b->group_bytes += sizeof *rules;
    return rules;
}

void group_rules_put(struct writer *w, const struct group_rules *rules)
{
    writer_str8(w, rules->vhost->name);
    writer_str8(w, rules->name);
    writer_slice_put(w, rules->rows);
}

size_t group_rules_record_bytes(const struct group_rules *rules)
{
    return 2 * NAME_MAX_BYTES + rules->rows.len;
}

/* What is set from now on is the rows; none: nothing is. False: no memory, and nothing has changed. */
static bool rules_set(struct broker *b, struct vhost *vhost, struct slice name,
                      const struct setting all[GROUP_SETTINGS], lsn_t *ret_lsn)
{
    uint8_t room[2 * NAME_MAX_BYTES + 1], raw[GROUP_SETTINGS * (10 + NAME_MAX_BYTES)];
    struct writer w = writer_of(raw, sizeof raw);
    size_t len = put_rows(all, &w);
    struct group_rules *rules = map_get(&b->group_rules, group_key(room, vhost, name));
    struct slice rows = {0}, before;
    bool made = !rules;
    if (made && !len)
        return true;
    if (!group_has_room(b, len) || !group_keep(b, &rows, slice_of(raw, len)))
        return false;
    if (made && !(rules = rules_make(b, vhost, name))) {
        group_drop(b, &rows);
        return false;
    }
    before = rules->rows;
    rules->rows = rows;
    if (!b->recovering) {
        *ret_lsn = log_object(b, &rules->object);
        if (!*ret_lsn) { /* as before */
            rules->rows = before;
            group_drop(b, &rows);
            if (made)
                rules_free(b, rules);
            return false;
        }
    }
    group_drop(b, &before);
    rules->config = config_of(all);
    struct group *g = map_get(&b->groups, rules->key);
    if (g)
        g->config = len ? &rules->config : NULL;
    if (!len)
        rules_free(b, rules);
    if (g && !b->recovering)
        groups_shares_wake(b, g); /* there may be more for those that wait */
    return true;
}

uint64_t groups_rules_check(const struct broker *b)
{
    uint64_t bytes = 0;
    uint32_t count = 0;
    for (const struct list *node = b->group_rules_list.next; node != &b->group_rules_list; node = node->next, count++) {
        const struct group_rules *rules = CONTAINER_OF(node, struct group_rules, link);
        CHECK(map_get(&b->group_rules, rules->key) == rules && rules->rows.len);
        bytes += rules_bytes(rules);
    }
    CHECK(count == b->group_rules.count);
    return bytes;
}

bool replay_group_config(struct broker *b, struct reader *r)
{
    struct setting all[GROUP_SETTINGS] = {{0}};
    struct vhost *vhost = vhost_find(b, reader_str8(r));
    struct slice name = reader_str8(r);
    lsn_t lsn;
    if (!reader_ok(r) || !read_rows(reader_rest(r), all))
        return false;
    return !vhost || rules_set(b, vhost, name, all, &lsn);
}

/* ---- commands ---- */

static struct group_rules *rules_find(const struct broker *b, const struct vhost *vhost, struct slice name)
{
    uint8_t room[2 * NAME_MAX_BYTES + 1];
    return map_get(&b->group_rules, group_key(room, vhost, name));
}

void do_group_set(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct setting all[GROUP_SETTINGS] = {{0}};
    lsn_t lsn = 0;
    enum group_error error = group_asked(b, peer, c, VERB_CONFIGURE);
    const struct group_rules *rules = error ? NULL : rules_find(b, peer->vhost, c->ask->name);
    uint8_t raw[GROUP_SETTINGS * (10 + NAME_MAX_BYTES)]; /* the old texts, which go when the new ones come */
    struct slice old = rules ? rules->rows : (struct slice){0};
    if (old.len)
        memcpy(raw, old.ptr, old.len);
    if (!error && !(c->ask->flags & ASK_MULTIPLE))
        CHECK(read_rows(slice_of(raw, old.len), all));
    for (size_t i = 0; i < c->ask->other.len; i++)
        if (c->ask->other.ptr[i] < GROUP_SETTINGS)
            all[c->ask->other.ptr[i]].set = false;
    if (!error && !read_rows(c->ask->args, all))
        error = GROUP_ERR_INVALID;
    if (!error && !(c->ask->flags & ASK_CHECK_ONLY) && !rules_set(b, peer->vhost, c->ask->name, all, &lsn))
        error = GROUP_ERR_NO_MEMORY;
    group_say(b, peer, c, error, NULL, lsn);
}

void do_group_configs(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct writer w;
    enum group_error error = group_asked(b, peer, c, VERB_READ);
    const struct group_rules *rules = error ? NULL : rules_find(b, peer->vhost, c->ask->name);
    struct answer *answer = error ? NULL : group_block(rules ? rules->rows.len : 0, &w);
    if (answer && rules)
        writer_slice_put(&w, rules->rows);
    group_say_or(b, peer, c, error, answer ? group_block_end(answer, &w) : NULL, 0);
}

static bool is_of(const struct list *node, const struct vhost *vhost)
{
    return CONTAINER_OF(node, struct group_rules, link)->vhost == vhost;
}

/* A list in parts, as GROUP_LIST's: who comes for the next one names the last of the part before, which is one of its vhost. */
void do_group_config_list(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    (void)ch;
    struct writer w;
    enum group_error error = peer->state != PEER_ENTERED ? GROUP_ERR_REFUSED : GROUP_OK;
    const struct group_rules *behind = error || !c->ask->name.len ? NULL : rules_find(b, peer->vhost, c->ask->name);
    if (!error && c->ask->name.len && !behind)
        error = GROUP_ERR_NO_GROUP;
    const struct list *from = behind ? &behind->link : &b->group_rules_list, *end = from->next;
    size_t bytes = 1 + NAME_MAX_BYTES;
    for (unsigned n = 0; end != &b->group_rules_list && (n < LIST_ONCE || !is_of(end->prev, peer->vhost));
         end = end->next, n++)
        bytes += is_of(end, peer->vhost) ? 1 + CONTAINER_OF(end, struct group_rules, link)->name.len : 0;
    struct answer *answer = error ? NULL : group_block(bytes, &w);
    if (answer)
        writer_str8(&w, end == &b->group_rules_list ? (struct slice){0}
                                                    : CONTAINER_OF(end->prev, struct group_rules, link)->name);
    for (const struct list *at = from->next; answer && at != end; at = at->next) {
        const struct group_rules *rules = CONTAINER_OF(at, struct group_rules, link);
        if (rules->vhost == peer->vhost && authorise(b, peer->user, peer->vhost, VERB_READ, rules->name))
            writer_str8(&w, rules->name);
    }
    group_say_or(b, peer, c, error, answer ? group_block_end(answer, &w) : NULL, 0);
}
