/* Logging in, and what clients ask first, see login.h. */
#include "proto/kafka/login.h"

#include "base/mem.h"

#include <ctype.h>

struct credentials {
    struct slice user, secret;
};

/* RFC 4616: [authorisation identity] NUL user NUL secret. Another identity than the user's own is not granted. */
static bool plain_parse(struct slice token, struct credentials *ret)
{
    struct slice part[3] = {{0}};
    size_t at = 0;
    for (unsigned i = 0; i < 3; i++) {
        const uint8_t *from = token.ptr + at, *nul = at < token.len ? memchr(from, 0, token.len - at) : NULL;
        if ((i < 2) != (nul != NULL))
            return false;
        part[i] = slice_of(from, nul ? (size_t)(nul - from) : token.len - at);
        at += part[i].len + 1;
    }
    *ret = (struct credentials){.user = part[1], .secret = part[2]};
    return part[1].len && part[2].len && (part[0].len == 0 || slice_equal(part[0], part[1]));
}

static const struct mechanism {
    const char *name;
    bool (*parse)(struct slice token, struct credentials *ret);
} mechanisms[] = {{"PLAIN", plain_parse}};

/* ---- to the core ---- */

static bool send_login(struct kafka *k, const struct credentials *who, const char *mechanism, uint32_t flags)
{
    struct slice none = {0};
    struct engine *engine = &k->session.engine;
    struct ask *open = ask_new(slice_str(engine->peer), slice_str("Kafka"), none, none);
    struct ask *login = open ? ask_new(who->user, who->secret, slice_str(mechanism), none) : NULL;
    if (!login || hub_room(kafka_hub(k)) < 2) { /* the driver has made sure of the slots */
        mem_free(open);
        mem_free(login);
        kafka_drop_memory(k);
        return false;
    }
    open->flags = engine->peer_loopback ? ASK_LOOPBACK : 0;
    login->flags = open->flags | flags;
    if (!k->session.core_open) {
        struct command *command = hub_command(kafka_hub(k), &k->session);
        command->type = CMD_SESSION_OPEN;
        command->ask = open;
        k->session.core_open = true;
    } else {
        mem_free(open);
    }
    struct command *command = hub_command(kafka_hub(k), &k->session);
    command->type = CMD_LOGIN;
    command->ask = login;
    k->state = KAFKA_LOGIN;
    return true;
}

bool kafka_login_needless(const struct kafka *k)
{
    return k->session.engine.peer_loopback && k->options->anonymous[0] && k->state == KAFKA_NEW;
}

bool kafka_login_anonymous(struct kafka *k)
{
    struct credentials who = {.user = slice_str(k->options->anonymous)};
    return kafka_login_needless(k) && send_login(k, &who, "ANONYMOUS", ASK_TRUSTED);
}

/* ---- the core's word ---- */

static void refuse(struct kafka_request *r)
{
    struct kafka_sasl_authenticate_response *said = r->response;
    said->error_code = KAFKA_ERR_SASL_AUTHENTICATION_FAILED;
    said->error_message = slice_str("Authentication failed: invalid credentials");
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

/* To the client; a bare token is answered with an empty one, or the end of the connection. */
static void answer(struct kafka *k, bool yes)
{
    static const uint8_t empty_token[KAFKA_LENGTH_BYTES];
    struct kafka_request *r = k->log_in;
    k->log_in = NULL;
    k->leaving = !yes;
    if (r && !yes)
        refuse(r);
    if (r)
        r->pending--;
    else if (yes && k->raw_sasl)
        outq_put(&k->session.engine.out, empty_token, sizeof empty_token);
    engine_dirty(&k->session.engine); /* what came meanwhile can be read */
    kafka_flush(k);
}

void kafka_login_effect(struct kafka *k, struct effect *e)
{
    bool yes = e->type == EFF_ANSWER;
    hub_drop(kafka_hub(k), e);
    if (yes && k->state == KAFKA_LOGIN) {
        enter(k);
        return;
    }
    if (yes)
        k->state = KAFKA_READY;
    answer(k, yes);
}

/* ---- SASL ---- */

static bool take_token(struct kafka *k, struct slice token)
{
    struct credentials who;
    const struct mechanism *m = &mechanisms[k->mechanism];
    return m->parse(token, &who) && send_login(k, &who, m->name, 0);
}

void kafka_login_token(struct kafka *k, struct slice token)
{
    if (!take_token(k, token))
        kafka_drop(k);
}

static enum kafka_progress handshake_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_sasl_handshake_request *asked = r->message;
    struct kafka_sasl_handshake_response *said = r->response;
    said->mechanisms.at = kafka_room(k, r, ARRAY_LEN(mechanisms), sizeof(struct slice));
    if (!said->mechanisms.at)
        return KAFKA_AGAIN;
    said->mechanisms.count = ARRAY_LEN(mechanisms);
    said->error_code = KAFKA_ERR_UNSUPPORTED_SASL_MECHANISM;
    for (uint8_t i = 0; i < ARRAY_LEN(mechanisms); i++) {
        said->mechanisms.at[i] = slice_str(mechanisms[i].name);
        if (!slice_is(asked->mechanism, mechanisms[i].name))
            continue;
        said->error_code = k->state == KAFKA_NEW ? KAFKA_ERR_NONE : KAFKA_ERR_ILLEGAL_SASL_STATE;
        if (k->state != KAFKA_NEW)
            continue;
        k->mechanism = i;
        k->state = KAFKA_SASL;
        k->raw_sasl = r->form.version == 0;
    }
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_sasl_handshake = {.go = handshake_go};

static enum kafka_progress authenticate_go(struct kafka *k, struct kafka_request *r)
{
    const struct kafka_sasl_authenticate_request *asked = r->message;
    struct kafka_sasl_authenticate_response *said = r->response;
    said->auth_bytes = slice_str("");
    if (k->state != KAFKA_SASL) {
        said->error_code = KAFKA_ERR_ILLEGAL_SASL_STATE;
        said->error_message = slice_str("SaslAuthenticate has to follow a SaslHandshake");
        return KAFKA_SENT;
    }
    if (take_token(k, asked->auth_bytes)) {
        k->log_in = r;
        r->pending++; /* until the core has answered */
    } else {
        refuse(r);
        k->leaving = true;
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
static const struct {
    const char *name;
    int16_t version;
} features[] = {
    {"group.version", 1},       /* consumer groups whose broker assigns (KIP-848) */
    {"transaction.version", 2}, /* producers join with Produce and get another epoch at each end (KIP-890) */
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
    for (size_t i = 0; i < count; i++) {
        struct slice name = slice_str(features[i].name);
        int16_t version = features[i].version;
        said->supported_features.at[i] =
            (struct kafka_api_versions_response_supported_feature){.name = name, .max_version = version};
        said->finalized_features.at[i] = (struct kafka_api_versions_response_finalized_feature){
            .name = name, .min_version_level = version, .max_version_level = version};
    }
    said->supported_features.count = said->finalized_features.count = (int32_t)count;
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
        if (!kafka_handler_find(api->key) || (r->unknown_version && api->key != KAFKA_API_api_versions))
            continue;
        said->api_keys.at[said->api_keys.count++] = (struct kafka_api_versions_response_api_key){
            .api_key = api->key, .min_version = api->first_announced, .max_version = api->last};
    }
    return KAFKA_SENT;
}

const struct kafka_handler kafka_on_api_versions = {.go = api_versions_go};
