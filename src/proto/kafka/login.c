/* Logging in, and what clients ask first, see login.h. */
#include "proto/kafka/login.h"

#include "base/check.h"
#include "base/mem.h"
#include "fmt/scram.h"

#include <ctype.h>

/* Kafka's words, which clients show. */
#define WRONG_PASSWORD "Authentication failed: Invalid username or password"
#define NO_USER "Authentication failed: username not specified"
#define NO_PASSWORD "Authentication failed: password not specified"
#define OTHER_IDENTITY "Authentication failed: Client requested an authorization id that is different from username"

static const struct mechanism {
    const char *name;
    bool scram;
    enum scram_hash hash;
    const char *malformed, *wrong; /* what is said of a token */
} mechanisms[] = {
    {"PLAIN", false, 0,
     "Authentication failed during authentication due to invalid credentials with SASL mechanism PLAIN",
     WRONG_PASSWORD},
    {"SCRAM-SHA-256", true, SCRAM_SHA256, NULL,
     "Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-256"},
    {"SCRAM-SHA-512", true, SCRAM_SHA512, NULL,
     "Authentication failed during authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512"},
};

static bool is_enabled(const struct kafka *k, size_t mechanism)
{
    return k->options->sasl_mechanisms >> mechanism & 1;
}

bool kafka_mechanisms_parse(const char *names, unsigned *ret)
{
    unsigned mask = 0;
    for (const char *at = names + strspn(names, " ,"); *at; at += strspn(at, " ,")) {
        size_t len = strcspn(at, " ,"), i = 0;
        while (i < ARRAY_LEN(mechanisms) && !slice_is(slice_of(at, len), mechanisms[i].name))
            i++;
        if (i == ARRAY_LEN(mechanisms))
            return false;
        mask |= 1u << i;
        at += len;
    }
    *ret = mask;
    return true;
}

/* ---- to the core ---- */

/* SESSION_OPEN comes first, once. False: the connection has been dropped. */
static bool send(struct kafka *k, enum command_type type, struct ask *ask, uint32_t flags)
{
    struct slice none = {0};
    struct engine *engine = &k->session.engine;
    struct ask *open = k->session.core_open ? NULL : ask_new(slice_str(engine->peer), slice_str("Kafka"), none, none);
    if (!ask || (!open && !k->session.core_open) ||
        hub_room(kafka_hub(k)) < 2) { /* the driver has made sure of slots */
        mem_free(open);
        mem_free(ask);
        kafka_drop_memory(k);
        return false;
    }
    ask->flags = (engine->peer_loopback ? ASK_LOOPBACK : 0) | (k->again ? ASK_AGAIN : 0) | flags;
    if (open) {
        open->flags = ask->flags & ASK_LOOPBACK;
        struct command *command = hub_command(kafka_hub(k), &k->session);
        command->type = CMD_SESSION_OPEN;
        command->ask = open;
        k->session.core_open = true;
    }
    struct command *command = hub_command(kafka_hub(k), &k->session);
    command->type = (uint8_t)type;
    command->ask = ask;
    k->state = KAFKA_LOGIN;
    return true;
}

static bool send_login(struct kafka *k, struct slice user, struct slice secret, const char *mechanism, uint32_t flags)
{
    return send(k, CMD_LOGIN, ask_new(user, secret, slice_str(mechanism), (struct slice){0}), flags);
}

bool kafka_login_needless(const struct kafka *k)
{
    const struct engine *engine = &k->session.engine;
    return k->state == KAFKA_NEW &&
           (engine->certified || (engine_may_be_anonymous(engine) && k->options->anonymous[0]));
}

bool kafka_login_without(struct kafka *k)
{
    const char *certified = k->session.engine.certified;
    if (!kafka_login_needless(k)) {
        engine_turn_away(&k->session.engine);
        return false;
    }
    if (certified)
        return send_login(k, slice_str(certified), (struct slice){0}, "EXTERNAL", ASK_CERTIFIED);
    return send_login(k, slice_str(k->options->anonymous), (struct slice){0}, "ANONYMOUS", ASK_TRUSTED);
}

static void enter(struct kafka *k)
{
    struct slice none = {0};
    struct ask *ask = ask_new(slice_str(k->options->vhost), none, none, none);
    struct command *command = ask ? hub_command(kafka_hub(k), &k->session) : NULL;
    if (!command) { /* a full ring here is as good as no memory: the client connects again */
        mem_free(ask);
        kafka_drop_memory(k);
        return;
    }
    command->type = CMD_ENTER;
    command->ask = ask;
    k->state = KAFKA_ENTER;
}

/* ---- tokens ---- */

/* RFC 4616: [authorisation identity] NUL user NUL secret. Another identity than the user's own is not granted. */
static const char *plain_token(struct kafka *k, struct slice token)
{
    struct slice part[3] = {{0}};
    size_t at = 0;
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *from = token.ptr + at, *nul = at < token.len ? memchr(from, 0, token.len - at) : NULL;
        if ((i < 2) != (nul != NULL))
            return mechanisms[k->mechanism].malformed;
        part[i] = slice_of(from, nul ? (size_t)(nul - from) : token.len - at);
        at += part[i].len + 1;
    }
    if (!part[1].len)
        return NO_USER;
    if (!part[2].len)
        return NO_PASSWORD;
    if (part[0].len && !slice_equal(part[0], part[1]))
        return OTHER_IDENTITY;
    (void)send_login(k, part[1], part[2], mechanisms[k->mechanism].name, 0);
    return NULL;
}

static const char *scram_token(struct kafka *k, struct slice token)
{
    const struct mechanism *m = &mechanisms[k->mechanism];
    char keys[SCRAM_TEXT_MAX];
    if (!k->scram) {
        k->scram = mem_alloc_as(MEM_CONNECTIONS, sizeof *k->scram);
        if (!k->scram) {
            kafka_drop_memory(k);
            return NULL;
        }
        scram_init(k->scram, m->hash);
        if (!scram_first(k->scram, token))
            return m->wrong;
        (void)send(k, CMD_SCRAM,
                   ask_new(scram_user(k->scram), (struct slice){0}, slice_str(m->name), (struct slice){0}), 0);
        return NULL;
    }
    size_t len = scram_keys_print(&k->scram->keys, keys);
    bool proven = scram_final(k->scram, token, &k->scram_token);
    if (proven)
        (void)send_login(k, scram_user(k->scram), slice_of(keys, len), m->name, ASK_PROVEN);
    explicit_bzero(keys, sizeof keys);
    return proven ? NULL : m->wrong;
}

/* What is wrong with it; NULL: the core has been asked, or the connection dropped. */
static const char *take_token(struct kafka *k, struct slice token)
{
    return mechanisms[k->mechanism].scram ? scram_token(k, token) : plain_token(k, token);
}

void kafka_login_fini(struct kafka *k)
{
    if (!k->scram)
        return;
    scram_clear(k->scram);
    mem_free_as(MEM_CONNECTIONS, k->scram);
    k->scram = NULL;
    k->scram_token = (struct slice){0};
}

/* ---- the core's word ---- */

static void refuse(struct kafka *k, struct kafka_request *r, const char *why)
{
    struct kafka_sasl_authenticate_response *said = r->response;
    said->error_code = KAFKA_ERR_SASL_AUTHENTICATION_FAILED;
    said->error_message = slice_str(why);
    k->leaving = true;
}

/* The client's token is answered with this one; without a request around it if its own had none. */
static void answer(struct kafka *k, struct slice token)
{
    struct kafka_request *r = k->log_in;
    k->log_in = NULL;
    if (r) {
        struct kafka_sasl_authenticate_response *said = r->response;
        if (token.len)
            said->auth_bytes = kafka_keep(k, r, token);
        if (k->state == KAFKA_READY)
            said->session_lifetime_ms = k->options->reauth_ms;
        r->pending--;
    } else if (k->raw_sasl) {
        uint8_t head[KAFKA_LENGTH_BYTES];
        struct writer w = writer_of(head, sizeof head);
        writer_u32(&w, (uint32_t)token.len);
        outq_put(&k->session.engine.out, head, sizeof head);
        outq_put(&k->session.engine.out, token.ptr, token.len);
    }
}

static void take_keys(struct kafka *k, struct effect *e)
{
    struct scram_keys keys;
    struct slice fields = e->answer ? e->answer->fields : (struct slice){0};
    bool ok = fields.len > SCRAM_NONCE &&
              scram_keys_parse(slice_of(fields.ptr + SCRAM_NONCE, fields.len - SCRAM_NONCE), &keys);
    CHECK(ok);
    k->state = KAFKA_SASL;
    answer(k, scram_reply(k->scram, &keys, fields.ptr));
    explicit_bzero(&keys, sizeof keys);
    explicit_bzero((void *)(uintptr_t)fields.ptr, fields.len);
}

static void logged_in(struct kafka *k)
{
    k->state = KAFKA_READY;
    k->again = false;
    if (k->mechanism != KAFKA_NO_MECHANISM && k->options->reauth_ms)
        k->session_ends = k->session.engine.now + k->options->reauth_ms * NS_PER_MS;
    answer(k, k->scram_token);
    kafka_login_fini(k);
}

static void refused(struct kafka *k)
{
    struct kafka_request *r = k->log_in;
    k->log_in = NULL;
    k->leaving = true;
    if (!r)
        return;
    refuse(k, r, mechanisms[k->mechanism].wrong);
    r->pending--;
}

void kafka_login_effect(struct kafka *k, struct effect *e)
{
    bool yes = e->type == EFF_ANSWER, keys = k->scram && k->scram->step == SCRAM_KEYS;
    bool enters = yes && !keys && k->state == KAFKA_LOGIN && !k->again;
    if (yes && keys)
        take_keys(k, e);
    hub_drop(kafka_hub(k), e);
    if (enters) {
        enter(k);
        return;
    }
    if (yes && !keys)
        logged_in(k);
    else if (!yes)
        refused(k);
    engine_dirty(&k->session.engine); /* what came meanwhile can be read */
    kafka_flush(k);
}

/* ---- SASL ---- */

void kafka_login_token(struct kafka *k, struct slice token)
{
    if (take_token(k, token))
        kafka_drop(k);
}

/* KIP-368: whoever logged in by SASL may do so again, as the same user by the same mechanism, but not every moment. */
static bool may_log_in_again(const struct kafka *k)
{
    return k->state == KAFKA_READY && k->mechanism != KAFKA_NO_MECHANISM &&
           (!k->again_at || k->session.engine.now - k->again_at >= NS_PER_S);
}

bool kafka_login_expired(const struct kafka *k)
{
    return k->state == KAFKA_READY && k->session_ends && k->session.engine.now >= k->session_ends;
}

static int16_t begin(struct kafka *k, uint8_t mechanism, bool raw)
{
    bool again = may_log_in_again(k);
    if (k->state != KAFKA_NEW && !again)
        return KAFKA_ERR_ILLEGAL_SASL_STATE;
    if (again) {
        if (k->mechanism != mechanism) {
            k->leaving = true;
            return KAFKA_ERR_ILLEGAL_SASL_STATE;
        }
        k->again = true;
        k->again_at = k->session.engine.now;
        k->deadline = k->again_at + k->options->handshake_ms * NS_PER_MS;
    }
    k->mechanism = mechanism;
    k->state = KAFKA_SASL;
    k->raw_sasl = raw;
    return KAFKA_ERR_NONE;
}

static enum kafka_progress handshake_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_sasl_handshake_request *asked = r->message;
    struct kafka_sasl_handshake_response *said = r->response;
    bool found = false;
    said->mechanisms.at = kafka_room(k, r, ARRAY_LEN(mechanisms), sizeof(struct slice));
    if (!said->mechanisms.at)
        return KAFKA_AGAIN;
    said->error_code = KAFKA_ERR_UNSUPPORTED_SASL_MECHANISM;
    for (uint8_t i = 0; i < ARRAY_LEN(mechanisms); i++) {
        if (!is_enabled(k, i))
            continue;
        said->mechanisms.at[said->mechanisms.count++] = slice_str(mechanisms[i].name);
        if (found || !slice_is(asked->mechanism, mechanisms[i].name))
            continue;
        said->error_code = begin(k, i, r->form.version == 0);
        found = true;
    }
    if (said->error_code == KAFKA_ERR_ILLEGAL_SASL_STATE)
        said->mechanisms.count = 0;                /* nothing can be chosen */
    k->leaving |= !found && k->state == KAFKA_NEW; /* as Kafka: the client comes again with another */
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_sasl_handshake = {.go = handshake_go};

static enum kafka_progress authenticate_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_sasl_authenticate_request *asked = r->message;
    struct kafka_sasl_authenticate_response *said = r->response;
    said->auth_bytes = slice_str("");
    if (k->state == KAFKA_NEW && !kafka_login_needless(k)) {
        kafka_drop(k); /* as Kafka does where there is something to log in for */
        return KAFKA_AGAIN;
    }
    if (k->state != KAFKA_SASL) {
        said->error_code = KAFKA_ERR_ILLEGAL_SASL_STATE;
        said->error_message = slice_str("SaslAuthenticate has to follow a SaslHandshake");
        return KAFKA_SENT;
    }
    const char *wrong = take_token(k, asked->auth_bytes);
    if (wrong) {
        refuse(k, r, wrong);
    } else {
        k->log_in = r;
        r->pending++; /* until the core has answered */
    }
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_sasl_authenticate = {.go = authenticate_go};

/* ---- ApiVersions ---- */

/* Kafka takes [a-zA-Z0-9](?:[a-zA-Z0-9\\-.]*[a-zA-Z0-9])? for names of software and their versions (KIP-511). */
static bool is_software(struct slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        bool inside = i > 0 && i + 1 < s.len && (s.ptr[i] == '-' || s.ptr[i] == '.');
        if (!isalnum(s.ptr[i]) && !inside)
            return false;
    }
    return s.len > 0;
}

/* What brokers agree on, of Kafka's features those that are built. Versions of features below 1 are kept from version 3 and below,
 * whose clients take them for damage. */
static const struct feature {
    const char *name;
    int16_t version;
    bool shares; /* only with share groups */
} features[] = {
    {"group.version", 1, false},       /* consumer groups whose broker assigns (KIP-848) */
    {"share.version", 1, true},        /* share groups (KIP-932) */
    {"transaction.version", 2, false}, /* producers join with Produce and get another epoch at each end (KIP-890) */
};

static bool say_features(struct kafka *k, struct kafka_request *r)
{
    const size_t count = sizeof features / sizeof features[0];
    struct kafka_api_versions_response *said = r->response;
    if (r->form.version < 4)
        return true;
    said->supported_features.at = kafka_room(k, r, count, sizeof *said->supported_features.at);
    said->finalized_features.at =
        said->supported_features.at ? kafka_room(k, r, count, sizeof *said->finalized_features.at) : NULL;
    if (!said->finalized_features.at)
        return false;
    int32_t n = 0;
    for (size_t i = 0; i < count; i++) {
        struct slice name = slice_str(features[i].name);
        int16_t version = features[i].version;
        if (features[i].shares && !k->options->share_groups)
            continue;
        said->supported_features.at[n] =
            (struct kafka_api_versions_response_supported_feature){.name = name, .max_version = version};
        said->finalized_features.at[n++] = (struct kafka_api_versions_response_finalized_feature){
            .name = name, .min_version_level = version, .max_version_level = version};
    }
    said->supported_features.count = said->finalized_features.count = n;
    said->finalized_features_epoch = 1;
    return true;
}

static enum kafka_progress api_versions_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_api_versions_request *asked = r->message;
    struct kafka_api_versions_response *said = r->response;
    bool named = r->form.version >= 3;
    if (named && (!is_software(asked->client_software_name) || !is_software(asked->client_software_version))) {
        said->error_code = KAFKA_ERR_INVALID_REQUEST;
        return KAFKA_SENT;
    }
    said->api_keys.at = kafka_room(k, r, kafka_api_count, sizeof *said->api_keys.at);
    if (!said->api_keys.at || !say_features(k, r))
        return KAFKA_AGAIN;
    said->error_code = r->unknown_version ? KAFKA_ERR_UNSUPPORTED_VERSION : KAFKA_ERR_NONE;
    for (size_t i = 0; i < kafka_api_count; i++) {
        const struct kafka_api *api = &kafka_apis[i];
        if (!kafka_offered(k, api->key) || (r->unknown_version && api->key != KAFKA_API_api_versions))
            continue;
        said->api_keys.at[said->api_keys.count++] = (struct kafka_api_versions_response_api_key){
            .api_key = api->key, .min_version = api->first_announced, .max_version = api->last};
    }
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_api_versions = {.go = api_versions_go};
