/* Users, permissions, and the one authorise() of the broker.
 *
 * Permissions are RabbitMQ's: per user and vhost three regular expressions (configure, write, read), searched, not
 * anchored; an empty one denies everything. PCRE2 runs with match limits, so a hostile pattern or name costs a bounded
 * amount and counts as "no match". The default exchange is called "amq.default" here, as in RabbitMQ.
 */
#include "core/core_int.h"

#include <stdio.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MATCH_LIMIT 20000u
#define QUICK_LIMIT 1000u /* a name costs some µs */
#define DEPTH_LIMIT 500u
#define HEAP_LIMIT_KIB 256u

static bool compile(struct pattern *ret, struct slice text, uint32_t options, char *error, size_t error_len)
{
    struct pattern p = {0};
    if (!slice_keep(&p.text, text)) {
        snprintf(error, error_len, "out of memory");
        return false;
    }
    if (text.len) {
        int code = 0;
        PCRE2_SIZE offset = 0;
        p.code = pcre2_compile(p.text.ptr, p.text.len, options, &code, &offset, NULL);
        if (!p.code) {
            PCRE2_UCHAR message[128];
            pcre2_get_error_message(code, message, sizeof message);
            snprintf(error, error_len, "invalid regular expression '%.*s': %s at offset %zu", SLICE_ARG(text),
                     (char *)message, (size_t)offset);
            slice_drop(&p.text);
            return false;
        }
    }
    *ret = p;
    return true;
}

bool pattern_make(struct pattern *ret, struct slice text, char *error, size_t error_len)
{
    return compile(ret, text, 0, error, error_len);
}

bool pattern_make_whole(struct pattern *ret, struct slice text)
{
    char why[200]; /* Kafka's clients have no place for it */
    return compile(ret, text, PCRE2_ANCHORED | PCRE2_ENDANCHORED, why, sizeof why);
}

void pattern_drop(struct pattern *pattern)
{
    pcre2_code_free(pattern->code);
    pattern->code = NULL;
    slice_drop(&pattern->text);
}

static bool decides(const struct pattern *pattern, struct slice subject, uint32_t limit, bool *ret_matches)
{
    *ret_matches = false;
    if (!pattern->code)
        return true;
    if (slice_is(pattern->text, ".*")) {
        *ret_matches = true; /* what most users have; listings ask for each of ten thousand names */
        return true;
    }
    pcre2_match_data *match = pcre2_match_data_create(1, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    int code = PCRE2_ERROR_NOMEMORY;
    if (match && limits) {
        pcre2_set_match_limit(limits, limit);
        pcre2_set_depth_limit(limits, DEPTH_LIMIT);
        pcre2_set_heap_limit(limits, HEAP_LIMIT_KIB);
        code =
            pcre2_match(pattern->code, subject.ptr ? subject.ptr : (PCRE2_SPTR) "", subject.len, 0, 0, match, limits);
    }
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    *ret_matches = code >= 0;
    return code >= 0 || code == PCRE2_ERROR_NOMATCH;
}

bool pattern_decides(const struct pattern *pattern, struct slice subject, bool *ret_matches)
{
    return decides(pattern, subject, MATCH_LIMIT, ret_matches);
}

bool pattern_decides_within(const struct pattern *pattern, struct slice subject, unsigned *patience, bool *ret_matches)
{
    if (decides(pattern, subject, QUICK_LIMIT, ret_matches))
        return true;
    if (!*patience)
        return false;
    --*patience;
    return pattern_decides(pattern, subject, ret_matches);
}

bool pattern_matches(const struct pattern *pattern, struct slice subject)
{
    bool matches;
    return pattern_decides(pattern, subject, &matches) && matches;
}

struct user *user_find(struct broker *b, struct slice name)
{
    return map_get(&b->users, name);
}

struct permission *permission_find(struct user *user, struct vhost *vhost, const struct slice *topic_exchange)
{
    LIST_EACH(&user->permissions, node, after)
    {
        struct permission *p = CONTAINER_OF(node, struct permission, user_link);
        if (p->vhost == vhost && p->topic == (topic_exchange != NULL) &&
            (!topic_exchange || slice_equal(p->exchange, *topic_exchange)))
            return p;
    }
    return NULL;
}

bool may_enter(struct user *user, struct vhost *vhost)
{
    return permission_find(user, vhost, NULL) != NULL;
}

bool authorise(struct broker *b, struct user *user, struct vhost *vhost, enum verb verb, struct slice name)
{
    (void)b;
    struct permission *p = user ? permission_find(user, vhost, NULL) : NULL;
    return p && pattern_matches(&p->patterns[verb], name.len ? name : slice_str("amq.default"));
}

bool peer_may(struct broker *b, const struct peer *peer, enum verb verb, struct slice name)
{
    return !peer->user || sql_owns(b, peer, name) || authorise(b, peer->user, peer->vhost, verb, name);
}

/* Tags are told apart by commas. */
bool user_administers(const struct user *user)
{
    struct slice left = user ? user->tags : (struct slice){0};
    while (left.len) {
        const uint8_t *comma = memchr(left.ptr, ',', left.len);
        size_t len = comma ? (size_t)(comma - left.ptr) : left.len;
        if (slice_is(slice_of(left.ptr, len), "administrator"))
            return true;
        left = comma ? slice_of(comma + 1, left.len - len - 1) : (struct slice){0};
    }
    return false;
}

/* Without a topic permission for the exchange everything is allowed that authorise allows. */
bool authorise_topic(struct broker *b, struct user *user, struct exchange *x, enum verb verb, struct slice key)
{
    (void)b;
    struct permission *p = permission_find(user, x->vhost, &x->name);
    return !p || pattern_matches(&p->patterns[verb], key);
}

bool allowed(struct broker *b, struct peer *peer, const struct command *c, enum verb verb, const char *kind,
             struct slice name)
{
    static const char *const verbs[] = {[VERB_CONFIGURE] = "configure", [VERB_WRITE] = "write", [VERB_READ] = "read"};
    if (authorise(b, peer->user, peer->vhost, verb, name))
        return true;
    fail(b, peer, c->channel, c->origin, ERR_ACCESS_REFUSED,
         "%s access to %s '%.*s' in vhost '%.*s' refused for user '%.*s'", verbs[verb], kind,
         SLICE_ARG(name.len ? name : slice_str("amq.default")), SLICE_ARG(peer->vhost->name),
         SLICE_ARG(peer->user ? peer->user->name : slice_str("")));
    return false;
}

bool user_put(struct broker *b, struct slice name, struct slice verifier, struct slice tags, bool journalled)
{
    struct user *user = user_find(b, name);
    struct slice kept_verifier = {0}, kept_tags = {0};
    if (!slice_keep(&kept_verifier, verifier) || !slice_keep(&kept_tags, tags))
        goto failed;
    if (!user) {
        user = mem_zalloc(sizeof *user);
        if (!user || !slice_keep(&user->name, name) || !map_put(&b->users, user->name, user)) {
            if (user)
                slice_drop(&user->name);
            mem_free(user);
            goto failed;
        }
        list_init(&user->permissions);
        object_add(b, &user->object, OBJ_USER, journalled);
        b->totals.users++;
    }
    slice_drop(&user->verifier);
    slice_drop(&user->tags);
    user->verifier = kept_verifier;
    user->iterations_known = false;
    user->tags = kept_tags;
    b->users_gen++;
    b->topology_gen++;
    return true;
failed:
    slice_drop(&kept_verifier);
    slice_drop(&kept_tags);
    return false;
}

void user_delete(struct broker *b, struct user *user)
{
    while (!list_empty(&user->permissions))
        permission_delete(b, CONTAINER_OF(user->permissions.next, struct permission, user_link));
    LIST_EACH(&b->peers, node, after)
    {
        struct peer *peer = CONTAINER_OF(node, struct peer, link);
        if (peer->user != user)
            continue;
        kick(b, peer, "user was deleted");
        peer->user = NULL;
    }
    map_take(&b->users, user->name);
    object_remove(b, &user->object);
    slice_drop(&user->name);
    slice_drop(&user->verifier);
    slice_drop(&user->tags);
    mem_free(user);
    b->users_gen++;
    b->totals.users--;
}

static bool put(struct broker *b, struct user *user, struct vhost *vhost, const struct slice *exchange,
                const struct slice texts[VERB_COUNT], char *text, size_t text_len)
{
    struct pattern patterns[VERB_COUNT] = {0};
    struct slice kept = {0};
    struct permission *p = permission_find(user, vhost, exchange);
    snprintf(text, text_len, "out of memory");
    for (int v = 0; v < VERB_COUNT; v++)
        if (!pattern_make(&patterns[v], texts[v], text, text_len))
            goto failed;
    if (!p) {
        p = mem_zalloc(sizeof *p);
        if (!p || (exchange && !slice_keep(&kept, *exchange))) {
            mem_free(p);
            goto failed;
        }
        p->user = user;
        p->vhost = vhost;
        p->topic = exchange != NULL;
        p->exchange = kept;
        list_insert(&user->permissions, &p->user_link);
        list_insert(&vhost->permissions, &p->vhost_link);
        object_add(b, &p->object, exchange ? OBJ_TOPIC_PERMISSION : OBJ_PERMISSION, true);
    }
    for (int v = 0; v < VERB_COUNT; v++) {
        pattern_drop(&p->patterns[v]);
        p->patterns[v] = patterns[v];
    }
    b->topology_gen++;
    return true;
failed:
    for (int v = 0; v < VERB_COUNT; v++)
        pattern_drop(&patterns[v]);
    return false;
}

bool permission_put(struct broker *b, struct user *user, struct vhost *vhost, struct slice configure,
                    struct slice write, struct slice read, char *text, size_t text_len)
{
    const struct slice texts[VERB_COUNT] = {[VERB_CONFIGURE] = configure, [VERB_WRITE] = write, [VERB_READ] = read};
    return put(b, user, vhost, NULL, texts, text, text_len);
}

bool topic_permission_put(struct broker *b, struct user *user, struct vhost *vhost, struct slice exchange,
                          struct slice write, struct slice read, char *text, size_t text_len)
{
    const struct slice texts[VERB_COUNT] = {[VERB_WRITE] = write, [VERB_READ] = read};
    return put(b, user, vhost, &exchange, texts, text, text_len);
}

void permission_delete(struct broker *b, struct permission *p)
{
    list_remove(&p->user_link);
    list_remove(&p->vhost_link);
    object_remove(b, &p->object);
    for (int v = 0; v < VERB_COUNT; v++)
        pattern_drop(&p->patterns[v]);
    slice_drop(&p->exchange);
    mem_free(p);
}
