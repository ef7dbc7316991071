/* Scripts of MQTT clients, see mqtt_world.h. */
#include "mqtt_world.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>

#include "fmt/base64.h"
#include "mqtt_guest.h"

#define SESSION "comes back"

/* ---- what they say ---- */

static bool connect(struct mqtt_guest *g, const struct mqtt_connect_fields *fields)
{
    union mqtt_fields f = {.connect = *fields};
    f.connect.protocol = slice_str("MQTT");
    if (!mqtt_guest_open(g, fields->version))
        return false;
    mqtt_guest_send(g, MQTT_connect, &f);
    return true;
}

static bool connected(struct mqtt_guest *g)
{
    return mqtt_guest_await(g, &g->seen[MQTT_connack], 1) && !g->refused;
}

/* The one with a session, a will and aliases. */
static bool connect_session(struct mqtt_guest *g, const struct mqtt_props *will_props)
{
    struct mqtt_connect_fields c = {.version = MQTT_5, .client_id = slice_str(SESSION)};
    MQTT_SET(&c.props, session_expiry, 36000);
    MQTT_SET(&c.props, topic_alias_maximum, MQTT_GUEST_ALIASES);
    if (will_props) {
        c.has_will = c.will_retain = true;
        c.will_qos = 1;
        c.will_topic = slice_str("will/a");
        c.will_payload = slice_str("w");
        c.will_props = *will_props;
        snprintf(g->all->sent['w'].topic, sizeof g->all->sent['w'].topic, "will/a");
        g->all->sent['w'].qos = 1;
    }
    return connect(g, &c) && connected(g);
}

static bool connect_plain(struct mqtt_guest *g)
{
    struct mqtt_connect_fields c = {.version = MQTT_3_1_1, .clean = true, .client_id = slice_str("plain")};
    return connect(g, &c) && connected(g);
}

struct filter {
    const char *text;
    uint8_t options;
};

static bool subscribe(struct mqtt_guest *g, const struct filter *filters, size_t count)
{
    uint8_t room[400];
    struct writer w = writer_of(room, sizeof room);
    for (size_t i = 0; i < count; i++) {
        mqtt_text_put(&w, slice_str(filters[i].text));
        writer_u8(&w, filters[i].options);
    }
    union mqtt_fields f = {.list = {.id = ++g->last_id, .count = (uint32_t)count, .list = writer_slice(&w)}};
    if (g->version == MQTT_5)
        MQTT_SET(&f.list.props, subscription_id, 7);
    unsigned before = g->seen[MQTT_suback];
    mqtt_guest_send(g, MQTT_subscribe, &f);
    return mqtt_guest_await(g, &g->seen[MQTT_suback], before + 1) && !g->refused;
}

static bool unsubscribe(struct mqtt_guest *g, const char *filter)
{
    uint8_t room[100];
    struct writer w = writer_of(room, sizeof room);
    mqtt_text_put(&w, slice_str(filter));
    union mqtt_fields f = {.list = {.id = ++g->last_id, .count = 1, .list = writer_slice(&w)}};
    mqtt_guest_send(g, MQTT_unsubscribe, &f);
    return mqtt_guest_await(g, &g->seen[MQTT_unsuback], 1) && !g->refused;
}

/* A letter. short_topic: only its alias says where to. */
static void publish(struct mqtt_guest *g, char letter, const char *topic, uint8_t qos, bool retain,
                    const struct mqtt_props *props, bool short_topic)
{
    union mqtt_fields f = {.publish = {.qos = qos,
                                       .retain = retain,
                                       .topic = slice_str(short_topic ? "" : topic),
                                       .payload = slice_of((const uint8_t *)&letter, 1)}};
    if (props)
        f.publish.props = *props;
    f.publish.id = qos ? ++g->last_id : 0;
    snprintf(g->all->sent[(unsigned char)letter].topic, sizeof g->all->sent[0].topic, "%s", topic);
    g->all->sent[(unsigned char)letter].qos = qos;
    mqtt_guest_send(g, MQTT_publish, &f);
}

static bool published(struct mqtt_guest *g, char letter, const char *topic, uint8_t qos, bool retain,
                      const struct mqtt_props *props)
{
    const unsigned *answers = &g->seen[qos == 1 ? MQTT_puback : MQTT_pubcomp];
    unsigned before = *answers;
    publish(g, letter, topic, qos, retain, props, false);
    return qos == 0 || (mqtt_guest_await(g, answers, before + 1) && !g->refused);
}

static bool gets(struct mqtt_guest *g, char letter, unsigned times)
{
    return mqtt_guest_await(g, &g->got[(unsigned char)letter], times);
}

/* One user property of that many bytes. room: some more than that. */
static struct mqtt_props props_of(uint8_t *room, size_t room_len, size_t len)
{
    static uint8_t value[20000];
    struct mqtt_props props = {.present = 0};
    struct writer w = writer_of(room, room_len);
    memset(value, 'v', sizeof value);
    mqtt_property_put(
        &w, &(struct mqtt_one){.property = MQTT_P_user, .text = slice_str("name"), .value = slice_of(value, len)});
    if (!writer_ok(&w))
        abort();
    props.more = writer_slice(&w);
    return props;
}

static void disconnect(struct mqtt_guest *g)
{
    union mqtt_fields f = {.end = {.reason = 0}};
    mqtt_guest_send(g, MQTT_disconnect, &f);
    for (unsigned i = 0; i < 20 && g->engine && !g->all->w->dead; i++)
        mqtt_guests_turn(g->all);
}

/* ---- messages ---- */

static bool play_live(struct mqtt_guest *a, struct mqtt_guest *b)
{
    struct mqtt_props alias = {.present = 0};
    MQTT_SET(&alias, topic_alias, 3);
    publish(a, 'a', "live/x", 0, false, &alias, false);
    publish(a, 'b', "live/x", 0, false, &alias, true);
    return gets(a, 'a', 1) && gets(b, 'a', 1) && gets(a, 'b', 1) && gets(b, 'b', 1) && unsubscribe(a, "live/#");
}

static bool play_queued(struct mqtt_guest *a, struct mqtt_guest *b)
{
    static uint8_t room[21000];
    struct mqtt_props large = props_of(room, sizeof room, 20000);
    if (!published(b, 'c', "least/x", 1, false, NULL) || !gets(a, 'c', 1) || !gets(b, 'c', 1) ||
        !published(b, 'd', "once/x", 2, false, NULL) || !gets(a, 'd', 1))
        return false;
    if (!published(a, 'e', "least/y", 1, false, &large) || !gets(a, 'e', 1) || !gets(b, 'e', 1))
        return false;
    if (!published(b, 'h', "jobs/x", 1, false, NULL) || !published(b, 'i', "jobs/x", 2, false, NULL))
        return false;
    for (unsigned i = 0; i < 40 && a->engine && b->engine && !a->all->w->dead; i++)
        mqtt_guests_turn(a->all);
    return a->got['h'] + b->got['h'] == 1 && a->got['i'] + b->got['i'] == 1;
}

static bool play_retained(struct mqtt_guest *a, struct mqtt_guest *b)
{
    uint8_t room[700];
    struct mqtt_props middle = props_of(room, sizeof room, 600);
    if (!published(a, 'f', "keep/x", 1, true, &middle))
        return false;
    a->all->w->mqtt_retained = true;
    if (!published(b, 'g', "keep/y", 0, true, NULL) || !subscribe(b, &(struct filter){"keep/#", 0}, 1) ||
        !gets(b, 'f', 1) || !gets(b, 'g', 1))
        return false;
    return subscribe(a, &(struct filter){"keep/+", 1}, 1) && gets(a, 'f', 1) && gets(a, 'g', 1);
}

/* The session's connection is lost between PUBREL and PUBCOMP. */
static bool play_return(struct mqtt_guest *a, struct mqtt_guest *b, const struct mqtt_props *will_props)
{
    a->keeps_pubcomp = true;
    unsigned before = a->seen[MQTT_pubrel];
    if (!published(b, 'j', "once/y", 2, false, NULL) || !gets(a, 'j', 1) ||
        !mqtt_guest_await(a, &a->seen[MQTT_pubrel], before + 1))
        return false;
    mqtt_guest_lose(a);
    if (!gets(b, 'w', 1) || !published(b, 'k', "least/z", 1, false, NULL))
        return false;
    a->keeps_pubcomp = false;
    if (!connect_session(a, will_props) || !a->present || !mqtt_guest_await(a, &a->seen[MQTT_pubrel], 1) ||
        !gets(a, 'k', 1))
        return false;
    for (unsigned i = 0; i < 10 && !a->all->w->dead; i++) /* PUBCOMP is written down */
        mqtt_guests_turn(a->all);
    return a->engine != NULL;
}

static bool play_messages(struct mqtt_guests *all)
{
    static const struct filter mine[] = {{"live/#", 0}, {"least/+", 1}, {"once/+", 2}, {"$share/g/jobs/#", 2}};
    static const struct filter others[] = {{"live/#", 0}, {"least/#", 1}, {"$share/g/jobs/#", 2}, {"will/#", 1}};
    struct mqtt_guest *a = &all->guests[0], *b = &all->guests[1];
    uint8_t room[100];
    struct mqtt_props will_props = props_of(room, sizeof room, 20);
    if (!connect_session(a, &will_props))
        return false;
    all->w->mqtt_session = true;
    if (!connect_plain(b) || !subscribe(a, mine, ARRAY_LEN(mine)) || !subscribe(b, others, ARRAY_LEN(others)))
        return false;
    if (!play_live(a, b) || !play_queued(a, b) || !play_retained(a, b) || !play_return(a, b, &will_props))
        return false;
    disconnect(a);
    disconnect(b);
    return !a->engine && !b->engine;
}

/* ---- SCRAM ---- */

struct login {
    char first[100], last[600];
    char signature[100]; /* what the broker has to show */
};

/* guest's password as the salt makes it; the same salt comes again and again. */
static void salted_password(struct slice salt, uint8_t ret[32])
{
    static uint8_t of[64], kept[32];
    static size_t of_len;
    if (salt.len != of_len || memcmp(salt.ptr, of, salt.len) != 0) {
        PKCS5_PBKDF2_HMAC("guest", 5, salt.ptr, (int)salt.len, 4096, EVP_sha256(), 32, kept);
        memcpy(of, salt.ptr, salt.len);
        of_len = salt.len;
    }
    memcpy(ret, kept, 32);
}

static void hmac(const uint8_t key[32], const char *text, uint8_t ret[32])
{
    if (!HMAC(EVP_sha256(), key, 32, (const uint8_t *)text, strlen(text), ret, NULL))
        abort();
}

/* From the broker's challenge. False: it is none. */
static bool prove(struct login *l, const struct mqtt_guest *g)
{
    char said[600], bare[400], all[1200], proof[64];
    uint8_t salt[64], salted[32], key[32], stored[32], sign[32];
    snprintf(said, sizeof said, "%.*s", (int)g->token_len, (const char *)g->token);
    const char *salt_at = strstr(said, ",s="), *count_at = strstr(said, ",i=4096");
    if (!salt_at || !count_at || strncmp(said, "r=", 2) != 0)
        return false;
    int64_t salt_len =
        base64_decode(slice_of((const uint8_t *)salt_at + 3, (size_t)(count_at - salt_at - 3)), salt, sizeof salt);
    if (salt_len < 0)
        return false;
    salted_password(slice_of(salt, (size_t)salt_len), salted);
    snprintf(bare, sizeof bare, "c=biws,%.*s", (int)(salt_at - said), said);
    snprintf(all, sizeof all, "%s,%s,%s", l->first + 3, said, bare);
    hmac(salted, "Client Key", key);
    EVP_Digest(key, 32, stored, NULL, EVP_sha256(), NULL);
    hmac(stored, all, sign);
    for (unsigned i = 0; i < 32; i++)
        key[i] ^= sign[i];
    base64_encode(slice_of(key, 32), proof);
    snprintf(l->last, sizeof l->last, "%s,p=%s", bare, proof);
    hmac(salted, "Server Key", key);
    hmac(key, all, sign);
    base64_encode(slice_of(sign, 32), proof);
    snprintf(l->signature, sizeof l->signature, "v=%s", proof);
    return true;
}

static void send_auth(struct mqtt_guest *g, uint8_t reason, const char *text)
{
    union mqtt_fields f = {.end = {.reason = reason}};
    MQTT_SET(&f.end.props, auth_method, slice_str("SCRAM-SHA-256"));
    MQTT_SET(&f.end.props, auth_data, slice_str(text));
    mqtt_guest_send(g, MQTT_auth, &f);
}

/* The challenge is answered; the broker has to show that it knows the password too, when *done has moved. */
static bool finish(struct mqtt_guest *g, struct login *l, const unsigned *done, unsigned least)
{
    if (!prove(l, g)) {
        model_fault(g->all->w->model, "a challenge of SCRAM that is none");
        return false;
    }
    send_auth(g, MQTT_R_continue_authentication, l->last);
    if (!mqtt_guest_await(g, done, least) || g->refused)
        return false;
    if (!slice_is(slice_of(g->token, g->token_len), l->signature))
        model_fault(g->all->w->model, "the broker's signature of SCRAM is wrong");
    return true;
}

static bool play_scram(struct mqtt_guest *g)
{
    struct login l = {.first = "n,,n=guest,r=abcdefgh"};
    struct mqtt_connect_fields c = {.version = MQTT_5, .clean = true, .client_id = slice_str("scram")};
    MQTT_SET(&c.props, auth_method, slice_str("SCRAM-SHA-256"));
    MQTT_SET(&c.props, auth_data, slice_str(l.first));
    if (!connect(g, &c) || !mqtt_guest_await(g, &g->seen[MQTT_auth], 1) || !finish(g, &l, &g->seen[MQTT_connack], 1))
        return false;
    snprintf(l.first, sizeof l.first, "n,,n=guest,r=ijklmnop");
    send_auth(g, MQTT_R_reauthenticate, l.first);
    return mqtt_guest_await(g, &g->seen[MQTT_auth], 2) && finish(g, &l, &g->seen[MQTT_auth], 3) &&
           published(g, 's', "after/it", 1, false, NULL);
}

/* ---- $SYS ---- */

static bool play_sys(struct mqtt_guests *all, struct mqtt_guest *g)
{
    struct world *w = all->w;
    struct mqtt_sys_options options = {&all->options, "guest", "millrace version sim", 1};
    all->sys = mqtt_sys_new(&options, w->hub, w->os->now_mono(w->os));
    return all->sys && connect_plain(g) && subscribe(g, &(struct filter){"$SYS/broker/+", 0}, 1) &&
           mqtt_guest_await(g, &g->sys, 2);
}

static bool play_logins(struct mqtt_guests *all)
{
    return play_scram(&all->guests[0]) && play_sys(all, &all->guests[1]);
}

void world_mqtt_play(struct world *w, enum mqtt_script script, bool (*faultless)(const struct world *w))
{
    static struct mqtt_guests all;
    mqtt_guests_begin(&all, w);
    bool good = script == MQTT_SCRIPT_LOGINS ? play_logins(&all) : play_messages(&all);
    mqtt_guests_end(&all);
    if (!good && !w->model->wrong[0] && faultless(w))
        model_fault(w->model, "an MQTT client does not see everything");
}

void world_mqtt_check(struct world *w)
{
    static struct mqtt_guests all;
    mqtt_guests_begin(&all, w);
    struct mqtt_guest *a = &all.guests[0], *b = &all.guests[1];
    snprintf(all.sent['f'].topic, sizeof all.sent['f'].topic, "keep/x");
    snprintf(all.sent['g'].topic, sizeof all.sent['g'].topic, "keep/y");
    if (w->mqtt_retained && !(connect_plain(b) && subscribe(b, &(struct filter){"keep/+", 0}, 1) && gets(b, 'f', 1)))
        model_fault(w->model, "a retained value is gone");
    for (unsigned letter = 'a'; letter <= 'z'; letter++) /* what its session has kept */
        all.sent[letter].qos = 2;
    snprintf(all.sent['k'].topic, sizeof all.sent['k'].topic, "least/z");
    snprintf(all.sent['c'].topic, sizeof all.sent['c'].topic, "least/x");
    snprintf(all.sent['e'].topic, sizeof all.sent['e'].topic, "least/y");
    snprintf(all.sent['d'].topic, sizeof all.sent['d'].topic, "once/x");
    snprintf(all.sent['j'].topic, sizeof all.sent['j'].topic, "once/y");
    snprintf(all.sent['h'].topic, sizeof all.sent['h'].topic, "jobs/x");
    snprintf(all.sent['i'].topic, sizeof all.sent['i'].topic, "jobs/x");
    if (w->mqtt_session && !(connect_session(a, NULL) && a->present))
        model_fault(w->model, "a session is gone");
    mqtt_guests_end(&all);
}
