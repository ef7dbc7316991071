/* SCRAM: what a login is told of a user's keys, or of those of nobody; who has which; and their change by an administrator.
 *
 * A name that is no user's is told a salt all the same, always the same one, made of the store's secret: whoever looks again, after a
 * restart too, learns nothing. It says as many iterations as most users have. The secret is drawn once and journalled (SECRET).
 */
#include "core/credentials.h"

#include "core/core_int.h"
#include "core/records.h"
#include "fmt/password.h"

#define LIST_BYTES_MAX (64u << 20)
#define COUNTS_MAX 8u /* different numbers of iterations that are told apart */

/* ---- the secret ---- */

void secret_ready(struct broker *b)
{
    if (!b->has_secret)
        b->options.random(b->options.random_arg, b->secret, sizeof b->secret);
    /* without room in the journal it is drawn again at the next start */
    if (!b->has_secret && log_reserve(b, 64, 1))
        b->has_secret = log_secret(b) != 0;
}

bool replay_secret(struct broker *b, struct reader *r)
{
    struct slice secret = reader_take(r, sizeof b->secret);
    if (!reader_done(r))
        return false;
    memcpy(b->secret, secret.ptr, sizeof b->secret);
    b->has_secret = true;
    return true;
}

/* ---- nobody's keys ---- */

/* 0: it has no keys. A verifier is read once. */
static unsigned iterations_of(struct broker *b, struct user *user)
{
    struct scram_keys keys;
    if (user->iterations_known)
        return user->iterations;
    b->verifiers_read++;
    user->iterations_known = true;
    user->iterations = 0;
    for (enum scram_hash hash = 0; !user->iterations && hash < SCRAM_HASHES; hash++)
        if (password_scram(user->verifier, hash, &keys)) {
            user->iterations = keys.iterations;
            explicit_bzero(&keys, sizeof keys);
        }
    return user->iterations;
}

/* What most users have, looked up again when one has changed. */
static unsigned usual_iterations(struct broker *b)
{
    struct {
        unsigned iterations, count;
    } counts[COUNTS_MAX] = {{PASSWORD_ITERATIONS, 0}};
    size_t used = 1, most = 0;
    if (b->iterations && b->iterations_gen == b->users_gen)
        return b->iterations;
    MAP_EACH(&b->users, struct user, user)
    {
        unsigned iterations = iterations_of(b, user);
        size_t i = 0;
        while (i < used && counts[i].iterations != iterations)
            i++;
        if (!iterations || i == COUNTS_MAX)
            continue;
        used = i == used ? used + 1 : used;
        counts[i].iterations = iterations;
        counts[i].count++;
    }
    for (size_t i = 1; i < used; i++)
        if (counts[i].count > counts[most].count)
            most = i;
    b->iterations_gen = b->users_gen;
    return b->iterations = counts[most].iterations;
}

void nobodys_keys(struct broker *b, enum scram_hash hash, struct slice name, struct scram_keys *ret)
{
    scram_keys_fake(ret, hash, usual_iterations(b), slice_of(b->secret, sizeof b->secret), name);
}

/* ---- listing ---- */

static bool put_row(struct buffer *rows, const struct user *user)
{
    struct scram_keys keys;
    uint32_t iterations[SCRAM_HASHES] = {0};
    bool any = false;
    for (enum scram_hash hash = 0; hash < SCRAM_HASHES; hash++)
        if (password_scram(user->verifier, hash, &keys)) {
            iterations[hash] = keys.iterations;
            any = true;
        }
    explicit_bzero(&keys, sizeof keys);
    if (!any)
        return true;
    if (!buffer_reserve(rows, 4 + user->name.len + 4 * SCRAM_HASHES))
        return false;
    struct writer w = writer_of(rows->bytes + rows->len, rows->max - rows->len);
    writer_str32(&w, user->name);
    for (unsigned i = 0; i < SCRAM_HASHES; i++)
        writer_u32(&w, iterations[i]);
    CHECK(writer_ok(&w));
    rows->len += w.len;
    return true;
}

bool scram_row_next(struct reader *r, struct scram_row *ret)
{
    if (!r->left || !reader_ok(r))
        return false;
    *ret = (struct scram_row){.user = reader_str32(r)};
    for (unsigned i = 0; i < SCRAM_HASHES; i++)
        ret->iterations[i] = reader_u32(r);
    return reader_ok(r);
}

static bool put_rows(struct broker *b, struct slice names, struct buffer *rows)
{
    bool ok = true;
    if (!names.len) {
        MAP_EACH(&b->users, struct user, user)
        ok = ok && put_row(rows, user);
        return ok;
    }
    for (struct reader r = reader_of(names); ok && r.left;) {
        struct user *user = user_find(b, reader_str32(&r));
        ok = !reader_ok(&r) || !user || put_row(rows, user);
    }
    return ok;
}

static void say(struct broker *b, struct peer *peer, const struct command *c, struct answer *answer,
                enum scram_result result, lsn_t lsn)
{
    if (answer)
        answer->number = result;
    answer_give(b, peer, c->origin, answer, lsn);
}

void do_scram_list(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct buffer rows = {.limit = LIST_BYTES_MAX};
    struct slice none = {0};
    struct answer *answer = NULL;
    bool may = user_administers(peer->user);
    (void)ch;
    if (!may || put_rows(b, c->ask->other, &rows))
        answer = answer_new(none, none, slice_of(rows.bytes, rows.len));
    buffer_fini(&rows);
    say(b, peer, c, answer, may ? SCRAM_DONE : SCRAM_REFUSED, 0);
}

/* ---- change ---- */

/* All of them, or none: ret is the verifier with them. */
static enum scram_result change(struct slice verifier, struct reader changes, char ret[PASSWORD_VERIFIER_MAX])
{
    char before[PASSWORD_VERIFIER_MAX];
    enum scram_result result = SCRAM_DONE;
    struct scram_keys keys;
    CHECK(verifier.len < PASSWORD_VERIFIER_MAX);
    if (verifier.len)
        memcpy(ret, verifier.ptr, verifier.len);
    ret[verifier.len] = '\0';
    while (changes.left && result == SCRAM_DONE) {
        enum scram_hash hash = reader_u8(&changes);
        struct slice text = reader_str32(&changes);
        memcpy(before, ret, PASSWORD_VERIFIER_MAX);
        struct slice now = slice_str(before);
        if (!reader_ok(&changes) || hash >= SCRAM_HASHES ||
            (text.len && (!scram_keys_parse(text, &keys) || keys.hash != hash)))
            result = SCRAM_BAD_KEYS;
        else if (text.len)
            password_scram_put(now, &keys, ret);
        else if (password_scram(now, hash, &keys))
            password_scram_take(now, hash, ret);
        else
            result = SCRAM_NO_KEYS;
    }
    explicit_bzero(&keys, sizeof keys);
    explicit_bzero(before, sizeof before);
    return result;
}

static enum scram_result alter(struct broker *b, const struct peer *peer, const struct ask *ask, lsn_t *lsn)
{
    char verifier[PASSWORD_VERIFIER_MAX] = "";
    if (!user_administers(peer->user))
        return SCRAM_REFUSED;
    if (ask->name.len == 0 || ask->name.len > NAME_MAX_BYTES)
        return SCRAM_BAD_NAME;
    struct user *user = user_find(b, ask->name);
    struct slice tags = user ? user->tags : (struct slice){0};
    enum scram_result result = change(user ? user->verifier : (struct slice){0}, reader_of(ask->args), verifier);
    if (result == SCRAM_DONE &&
        (!log_reserve(b, 4096 + tags.len, 1) || !user_put(b, ask->name, slice_str(verifier), tags, true)))
        result = SCRAM_NO_ROOM;
    if (result == SCRAM_DONE)
        *lsn = log_object(b, &user_find(b, ask->name)->object);
    explicit_bzero(verifier, sizeof verifier);
    return result;
}

void do_scram_alter(struct broker *b, struct peer *peer, struct channel *ch, struct command *c)
{
    struct slice none = {0};
    struct answer *answer = answer_new(none, none, none);
    lsn_t lsn = 0;
    (void)ch;
    say(b, peer, c, answer, answer ? alter(b, peer, c->ask, &lsn) : SCRAM_NO_ROOM, lsn);
}
