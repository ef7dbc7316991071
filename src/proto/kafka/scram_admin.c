/* DescribeUserScramCredentials and AlterUserScramCredentials (KIP-554): who has keys of SCRAM, and new ones.
 *
 * The client has salted the password already; the two keys that are kept are made of that here, and what it sent is wiped. Of one
 * user all is altered, or nothing.
 */
#include "base/mem.h"
#include "core/credentials.h"
#include "proto/kafka/errands.h"
#include "proto/kafka/rows.h"

#include <stdlib.h>

#define ITERATIONS_MAX 16384 /* of a new credential, as Kafka has it */
#define NOT_AUTHORIZED "Cluster authorization failed."

static size_t count_of(int32_t count)
{
    return count > 0 ? (size_t)count : 0;
}

/* Kafka's numbers of mechanisms. SCRAM_HASHES: none. */
static enum scram_hash hash_of(int8_t mechanism)
{
    return mechanism == 1 ? SCRAM_SHA256 : mechanism == 2 ? SCRAM_SHA512 : SCRAM_HASHES;
}

static int8_t mechanism_of(enum scram_hash hash)
{
    return hash == SCRAM_SHA256 ? 1 : 2;
}

/* ---- DescribeUserScramCredentials ---- */

struct described {
    struct slice *names; /* as they were asked for; NULL: all */
    size_t count;
    uint8_t *doubles;
};

static bool describe_begin(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_describe_user_scram_credentials_request *asked = r->message;
    struct described *d = kafka_room(k, r, 1, sizeof *d);
    size_t count = count_of(asked->users.count);
    struct slice *names = d ? kafka_more_room(k, r, count, sizeof *names) : NULL;
    for (size_t i = 0; names && i < count; i++)
        names[i] = asked->users.at[i].name;
    uint8_t *doubles = names ? kafka_doubles(k, r, names, count) : NULL;
    if (!doubles)
        return false;
    *d = (struct described){.names = count ? names : NULL, .count = count, .doubles = doubles};
    r->state = d;
    return true;
}

static struct ask *names_ask(const struct described *d)
{
    struct slice none = {0};
    size_t len = 0;
    for (size_t i = 0; i < d->count; i++)
        len += 4 + d->names[i].len;
    uint8_t *room = mem_alloc(len + 1);
    if (!room)
        return NULL;
    struct writer w = writer_of(room, len);
    for (size_t i = 0; i < d->count; i++)
        writer_str32(&w, d->names[i]);
    struct ask *ask = ask_new(none, writer_slice(&w), none, none);
    mem_free(room);
    return ask;
}

static enum kafka_progress describe_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !describe_begin(k, r))
        return KAFKA_AGAIN;
    if (hub_room(kafka_hub(k)) == 0) {
        hub_wait_room(kafka_hub(k), &k->session);
        return KAFKA_AGAIN;
    }
    struct ask *ask = names_ask(r->state);
    if (!ask) {
        kafka_drop_memory(k);
        return KAFKA_AGAIN;
    }
    kafka_command(k, r, CMD_SCRAM_LIST)->ask = ask;
    return KAFKA_SENT;
}

/* False: the connection has been dropped. */
static bool say_user(struct kafka *k, struct kafka_request *r, const struct scram_row *row,
                     struct kafka_describe_user_scram_credentials_response_result *said)
{
    said->user = kafka_keep(k, r, row->user);
    said->credential_infos.at = kafka_more_room(k, r, SCRAM_HASHES, sizeof *said->credential_infos.at);
    for (enum scram_hash hash = 0; said->credential_infos.at && hash < SCRAM_HASHES; hash++)
        if (row->iterations[hash])
            said->credential_infos.at[said->credential_infos.count++] =
                (struct kafka_describe_user_scram_credentials_response_credential_info){
                    .mechanism = mechanism_of(hash), .iterations = (int32_t)row->iterations[hash]};
    return kafka_live(k);
}

/* The core has told those that there are, in the order of the names. */
static void say_named(struct kafka *k, struct kafka_request *r, struct reader fields)
{
    const struct described *d = r->state;
    struct kafka_describe_user_scram_credentials_response *said = r->response;
    struct scram_row row;
    bool more = scram_row_next(&fields, &row);
    for (size_t i = 0; i < d->count; i++) {
        bool found = more && slice_equal(row.user, d->names[i]);
        struct kafka_describe_user_scram_credentials_response_result *one = &said->results.at[said->results.count];
        if (d->doubles[i] != KAFKA_LATER) {
            said->results.count++;
            one->user = d->names[i];
            if (d->doubles[i] == KAFKA_FIRST_OF_SEVERAL) {
                one->error_code = KAFKA_ERR_DUPLICATE_RESOURCE;
                one->error_message = kafka_text(
                    k, r, "Cannot describe SCRAM credentials for the same user twice in a single request: %.*s",
                    SLICE_ARG(one->user));
            } else if (!found) {
                one->error_code = KAFKA_ERR_RESOURCE_NOT_FOUND;
                one->error_message = kafka_text(k, r, "Attempt to describe a user credential that does not exist: %.*s",
                                                SLICE_ARG(one->user));
            } else if (!say_user(k, r, &row, one)) {
                return;
            }
        }
        if (found)
            more = scram_row_next(&fields, &row);
    }
}

static void describe_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    const struct described *d = r->state;
    struct kafka_describe_user_scram_credentials_response *said = r->response;
    bool ok = e->type == EFF_ANSWER && e->answer;
    bool refused = ok && e->answer->number == SCRAM_REFUSED;
    struct reader fields = reader_of(ok ? e->answer->fields : (struct slice){0});
    struct scram_row row;
    size_t count = d->names ? d->count : fields.left / (4 + 4 * SCRAM_HASHES); /* at most */
    said->results.at = ok ? kafka_more_room(k, r, count, sizeof *said->results.at) : NULL;
    if (!said->results.at) {
        kafka_drop_memory(k);
    } else if (refused) {
        said->error_code = KAFKA_ERR_CLUSTER_AUTHORIZATION_FAILED;
        said->error_message = slice_str(NOT_AUTHORIZED);
    } else if (d->names) {
        say_named(k, r, fields);
    } else {
        while (scram_row_next(&fields, &row))
            if (!say_user(k, r, &row, &said->results.at[said->results.count++]))
                break;
    }
    hub_drop(kafka_hub(k), e);
}

const struct kafka_handler kafka_on_describe_user_scram_credentials = {.go = describe_go, .effect = describe_effect};

/* ---- AlterUserScramCredentials ---- */

struct alteration {
    struct slice user;
    size_t at; /* in the request: deletions first */
    int8_t mechanism;
    const struct kafka_alter_user_scram_credentials_request_upsertion *upsertion; /* NULL: a deletion */
};

struct altered {
    struct kafka_errands errands; /* one a user */
    struct alteration *list;      /* by user */
    size_t *first;                /* of each user's, in list; one more for the end */
    size_t users;
};

static int by_user(const void *a, const void *b)
{
    const struct alteration *x = a, *y = b;
    if (x->user.len != y->user.len)
        return x->user.len < y->user.len ? -1 : 1;
    int order = x->user.len ? memcmp(x->user.ptr, y->user.ptr, x->user.len) : 0;
    return order ? order : x->at < y->at ? -1 : 1;
}

struct wrong {
    int16_t error;
    const char *why;
};

static struct wrong upsertion_wrong(const struct kafka_alter_user_scram_credentials_request_upsertion *u)
{
    if (u->iterations < (int32_t)SCRAM_ITERATIONS_MIN)
        return (struct wrong){KAFKA_ERR_UNACCEPTABLE_CREDENTIAL, "Too few iterations"};
    if (u->iterations > ITERATIONS_MAX)
        return (struct wrong){KAFKA_ERR_UNACCEPTABLE_CREDENTIAL, "Too many iterations"};
    if (u->salt.len == 0 || u->salt.len > SCRAM_SALT_MAX)
        return (struct wrong){KAFKA_ERR_UNACCEPTABLE_CREDENTIAL, "A salt has 1 to 64 bytes"};
    if (u->salted_password.len != scram_key_len(hash_of(u->mechanism)))
        return (struct wrong){KAFKA_ERR_UNACCEPTABLE_CREDENTIAL, "The salted password is not as long as the hash"};
    return (struct wrong){0};
}

/* Of all that is wanted of one user, in the order of the request. */
static struct wrong user_wrong(const struct alteration *list, size_t count)
{
    unsigned seen = 0;
    for (size_t i = 0; i < count; i++) {
        enum scram_hash hash = hash_of(list[i].mechanism);
        struct wrong wrong = {0};
        if (list[i].user.len == 0)
            wrong = (struct wrong){KAFKA_ERR_UNACCEPTABLE_CREDENTIAL, "Username must not be empty"};
        else if (hash == SCRAM_HASHES)
            wrong = (struct wrong){KAFKA_ERR_UNSUPPORTED_SASL_MECHANISM, "Unknown SCRAM mechanism"};
        else if (seen & 1u << hash)
            wrong = (struct wrong){KAFKA_ERR_DUPLICATE_RESOURCE,
                                   "A user credential cannot be altered twice in the same request"};
        else if (list[i].upsertion)
            wrong = upsertion_wrong(list[i].upsertion);
        if (wrong.error)
            return wrong;
        seen |= 1u << hash;
    }
    return (struct wrong){0};
}

/* The new keys as text; nothing is left of what they were made of. Empty: OpenSSL failed. */
static struct slice new_keys(const struct kafka_alter_user_scram_credentials_request_upsertion *u,
                             char room[SCRAM_TEXT_MAX])
{
    struct scram_keys keys = {.hash = hash_of(u->mechanism), .iterations = (unsigned)u->iterations};
    keys.salt_len = u->salt.len;
    memcpy(keys.salt, u->salt.ptr, u->salt.len);
    bool made = scram_keys_salted(&keys, u->salted_password);
    size_t len = made ? scram_keys_print(&keys, room) : 0;
    explicit_bzero((void *)(uintptr_t)u->salted_password.ptr, u->salted_password.len);
    explicit_bzero(&keys, sizeof keys);
    return slice_of(room, len);
}

static struct ask *alter_ask(struct kafka *k, struct kafka_request *r, size_t i, uint16_t *ret_channel)
{
    const struct altered *all = r->state;
    uint8_t changes[SCRAM_HASHES * (5 + SCRAM_TEXT_MAX)];
    char text[SCRAM_TEXT_MAX];
    struct writer w = writer_of(changes, sizeof changes);
    struct slice none = {0};
    (void)k;
    (void)ret_channel;
    for (size_t n = all->first[i]; n < all->first[i + 1]; n++) {
        const struct alteration *a = &all->list[n];
        struct slice keys = a->upsertion ? new_keys(a->upsertion, text) : none;
        writer_u8(&w, a->upsertion && !keys.len ? UINT8_MAX : (uint8_t)hash_of(a->mechanism));
        writer_str32(&w, keys);
    }
    struct ask *ask = ask_new(all->list[all->first[i]].user, none, none, writer_slice(&w));
    explicit_bzero(changes, sizeof changes);
    explicit_bzero(text, sizeof text);
    return ask;
}

static void alter_done(struct kafka *k, struct kafka_request *r, size_t i, const struct answer *answer)
{
    static const struct wrong results[] = {
        [SCRAM_DONE] = {KAFKA_ERR_NONE, NULL},
        [SCRAM_REFUSED] = {KAFKA_ERR_CLUSTER_AUTHORIZATION_FAILED, NOT_AUTHORIZED},
        [SCRAM_NO_KEYS] = {KAFKA_ERR_RESOURCE_NOT_FOUND, "Attempt to delete a user credential that does not exist"},
        [SCRAM_BAD_NAME] = {KAFKA_ERR_UNACCEPTABLE_CREDENTIAL, "A name has 1 to 255 bytes"},
        [SCRAM_BAD_KEYS] = {KAFKA_ERR_UNACCEPTABLE_CREDENTIAL, "The keys could not be made"},
        [SCRAM_NO_ROOM] = {KAFKA_ERR_KAFKA_STORAGE_ERROR, NULL},
    };
    struct kafka_alter_user_scram_credentials_response *said = r->response;
    (void)k;
    said->results.at[i].error_code = results[answer->number].error;
    if (results[answer->number].why)
        said->results.at[i].error_message = slice_str(results[answer->number].why);
}

static const struct kafka_errand_kind alter_errand = {CMD_SCRAM_ALTER, alter_ask, alter_done};

static struct altered *alterations(struct kafka *k, struct kafka_request *r, size_t *ret_count)
{
    const struct kafka_alter_user_scram_credentials_request *asked = r->message;
    size_t deletions = count_of(asked->deletions.count), upsertions = count_of(asked->upsertions.count);
    size_t count = deletions + upsertions;
    struct altered *all = kafka_room(k, r, 1, sizeof *all);
    struct alteration *list = all ? kafka_more_room(k, r, count, sizeof *list) : NULL;
    size_t *first = list ? kafka_more_room(k, r, count + 1, sizeof *first) : NULL;
    if (!first)
        return NULL;
    for (size_t i = 0; i < deletions; i++)
        list[i] = (struct alteration){asked->deletions.at[i].name, i, asked->deletions.at[i].mechanism, NULL};
    for (size_t i = 0; i < upsertions; i++)
        list[deletions + i] = (struct alteration){asked->upsertions.at[i].name, deletions + i,
                                                  asked->upsertions.at[i].mechanism, &asked->upsertions.at[i]};
    if (count)
        qsort(list, count, sizeof *list, by_user);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || !slice_equal(list[i].user, list[i - 1].user))
            first[all->users++] = i;
    first[all->users] = count;
    all->list = list;
    all->first = first;
    *ret_count = count;
    return all;
}

static bool alter_begin(struct kafka *k, struct kafka_request *r)
{
    struct kafka_alter_user_scram_credentials_response *said = r->response;
    size_t count;
    struct altered *all = alterations(k, r, &count);
    said->results.at = all ? kafka_more_room(k, r, all->users, sizeof *said->results.at) : NULL;
    if (!said->results.at || !kafka_errands_init(k, r, &alter_errand, all->users, &all->errands))
        return false;
    said->results.count = (int32_t)all->users;
    for (size_t i = 0; i < all->users; i++) {
        const struct alteration *of_user = &all->list[all->first[i]];
        struct wrong wrong = user_wrong(of_user, all->first[i + 1] - all->first[i]);
        said->results.at[i].user = of_user->user;
        said->results.at[i].error_code = wrong.error;
        if (wrong.error)
            said->results.at[i].error_message = slice_str(wrong.why);
        else
            kafka_errand_want(&all->errands, i);
    }
    r->state = all;
    return true;
}

static enum kafka_progress alter_go(struct kafka *k, struct kafka_request *r)
{
    if (!r->state && !alter_begin(k, r))
        return KAFKA_AGAIN;
    return kafka_errands(k, r, &((struct altered *)r->state)->errands);
}

static void alter_effect(struct kafka *k, struct kafka_request *r, struct effect *e)
{
    kafka_errands_effect(k, r, &((struct altered *)r->state)->errands, e);
}

const struct kafka_handler kafka_on_alter_user_scram_credentials = {.go = alter_go, .effect = alter_effect};
