/* The protocols that clients speak, see protocols.h. Main thread.
 *
 * Every port has its usual protocol, and by listen.any_protocol takes all others too (net/sniff). A protocol whose addresses
 * are all empty is spoken nowhere, not even on another's port: its row then has no factory. TLS is a row without an engine:
 * where it is set up it is recognised on plain ports as well, and the ports for TLS begin with it. */
#include "main/protocols.h"

#include "base/check.h"
#include "base/mem.h"
#include "fmt/base64.h"
#include "main/certificates.h"
#include "main/worker.h"
#include "net/listener.h"
#include "net/sniff.h"
#include "proto/amqp091/engine.h"
#include "proto/http/engine.h"
#include "proto/kafka/engine.h"
#include "proto/mqtt/sys.h"
#include "proto/stomp/engine.h"

#include <errno.h>
#include <stdarg.h>

#define ASSEMBLY_MORE (16u << 20) /* beside the largest message, for those of other channels */
#define WEBSOCKET_MORE (1u << 20) /* beside the largest message, for what is around it */
#define WEBSOCKET_CLOSE_MS 5000u
#define HTTP_IDLE_MS 60000u

/* What HTTP is around comes before it. */
enum {
    PROTOCOL_AMQP091,
    PROTOCOL_KAFKA,
    PROTOCOL_MQTT,
    PROTOCOL_STOMP,
    PROTOCOL_STOMP_ACTIVEMQ,
    PROTOCOL_HTTP,
    PROTOCOL_WEB_STOMP,
    PROTOCOL_WEB_MQTT,
    PROTOCOL_COUNT
};

enum { WEB_AMQP, WEB_MQTT, WEB_MQTT_31, WEB_STOMP_10, WEB_STOMP_11, WEB_STOMP_12, WEB_COUNT };

struct protocols {
    struct protocols_options options;
    struct amqp091_options amqp;
    struct kafka_options kafka;
    struct mqtt_options mqtt;
    struct mqtt_totals mqtt_totals;
    struct mqtt_sys *mqtt_sys;
    bool mqtt_sys_begun;
    struct stomp_options stomp, stomp_activemq;
    char kafka_host[256], cluster_id[32];
    struct http_protocol web[WEB_COUNT]; /* what may be within a WebSocket */
    struct http_options http, web_stomp, web_mqtt;
    struct engine_factory factories[PROTOCOL_COUNT];
    struct sniff_row rows[PROTOCOL_COUNT + 1]; /* and TLS */
    struct sniff_port ports[PROTOCOL_COUNT];
    struct engine_factory sniffers[PROTOCOL_COUNT], tls_sniffers[PROTOCOL_COUNT];
    uint16_t port[PROTOCOL_COUNT], tls_port[PROTOCOL_COUNT]; /* of the first address; 0: it listens nowhere */
    struct listener *listeners[PROTOCOLS_LISTENERS_MAX];
    unsigned listener_count;
    char *why;
    size_t why_len;
};

__attribute__((format(printf, 3, 4))) static enum exit_code fail(struct protocols *p, enum exit_code code,
                                                                 const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->why, p->why_len, format, args);
    va_end(args);
    return code;
}

/* ---- AMQP 0-9-1 ---- */

static struct engine *make_amqp(void *loop_owner, void *arg, const struct os_peer *peer, mono_t now)
{
    return amqp091_new(arg, loop_owner, peer->text, peer->loopback, now);
}

static enum exit_code set_amqp(struct protocols *p, struct engine_factory *ret)
{
    const struct config *c = p->options.config;
    p->amqp = amqp091_options_default();
    p->amqp.version = c->compat_version;
    p->amqp.message_bytes_max = c->message_bytes_max;
    if (p->amqp.assembly_bytes_max < c->message_bytes_max + ASSEMBLY_MORE)
        p->amqp.assembly_bytes_max = c->message_bytes_max + ASSEMBLY_MORE;
    p->amqp.frame_max = (uint32_t)c->frame_max;
    p->amqp.channel_max = (uint16_t)c->channel_max;
    p->amqp.heartbeat_s = (uint16_t)c->heartbeat_s;
    p->amqp.handshake_ms = (uint32_t)c->handshake_timeout_ms;
    *ret = (struct engine_factory){.make = make_amqp, .arg = &p->amqp};
    return END_OK;
}

/* The program is called as it was called, since it need not be on the PATH. */
static void lines_amqp(const struct protocols *p, FILE *to)
{
    char port[32] = "", offset[32] = "";
    unsigned number = p->port[PROTOCOL_AMQP091];
    if (number != 5672)
        snprintf(port, sizeof port, " --port=%u", number);
    if (p->options.config->port_offset)
        snprintf(offset, sizeof offset, " --port-offset %u", (unsigned)p->options.config->port_offset);
    fprintf(to,
            "  /usr/bin/python3 -c \"import pika; c = pika.BlockingConnection(pika.ConnectionParameters('localhost', "
            "%u)).channel(); c.queue_declare('hello'); c.basic_publish('', 'hello', 'Hello World!')\"\n"
            "  amqp-consume%s -q hello -c 1 cat\n  %s bench amqp%s\n",
            number, port, program_invocation_name, offset);
}

/* ---- Kafka ---- */

static struct engine *make_kafka(void *loop_owner, void *arg, const struct os_peer *peer, mono_t now)
{
    struct kafka_peer from = {
        .address = peer->text, .local_host = peer->local, .local_port = peer->local_port, .loopback = peer->loopback};
    return kafka_new(arg, loop_owner, &from, now);
}

static wall_t wall_of(void *os)
{
    return ((struct os *)os)->now_wall(os);
}

static void disk_of(void *worker, uint64_t *ret_total, uint64_t *ret_free)
{
    struct worker_figures figures;
    worker_figures(worker, &figures);
    *ret_total = figures.disk_total ? figures.disk_total : UINT64_MAX;
    *ret_free = figures.disk_total ? figures.disk_free : UINT64_MAX;
}

static enum exit_code set_kafka(struct protocols *p, struct engine_factory *ret)
{
    const struct config *c = p->options.config;
    const char *rest = c->kafka_advertised;
    p->kafka = kafka_options_default();
    p->kafka.uuid = p->options.uuid;
    base64_url_encode(slice_of(p->kafka.uuid, 16), p->cluster_id);
    p->kafka.cluster_id = p->cluster_id;
    if (config_address_next(&rest, p->kafka_host, sizeof p->kafka_host, &p->kafka.advertised_port))
        p->kafka.advertised_host = p->kafka_host;
    p->kafka.node_id = (int32_t)c->kafka_node_id;
    p->kafka.log_dir = c->data;
    p->kafka.vhost = c->kafka_vhost;
    p->kafka.anonymous = c->kafka_anonymous;
    p->kafka.request_bytes_max = (uint32_t)c->kafka_request_bytes_max;
    p->kafka.batch_bytes_max = (uint32_t)c->kafka_batch_bytes_max;
    p->kafka.handshake_ms = (uint32_t)c->handshake_timeout_ms;
    p->kafka.idle_ms = (uint32_t)c->kafka_idle_ms;
    p->kafka.partitions = (uint32_t)c->kafka_partitions;
    p->kafka.auto_create = c->kafka_auto_create;
    p->kafka.share_groups = c->kafka_share_groups;
    p->kafka.wall = wall_of;
    p->kafka.wall_arg = p->options.os;
    p->kafka.disk = disk_of;
    p->kafka.disk_arg = p->options.worker;
    p->kafka.reauth_ms = (uint32_t)c->kafka_reauth_ms;
    *ret = (struct engine_factory){.make = make_kafka, .arg = &p->kafka};
    if (!kafka_mechanisms_parse(c->kafka_sasl, &p->kafka.sasl_mechanisms))
        return fail(p, END_CONFIG, "kafka.sasl_mechanisms: %s is not a list of PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512",
                    c->kafka_sasl);
    return END_OK;
}

static void lines_kafka(const struct protocols *p, FILE *to)
{
    unsigned number = p->port[PROTOCOL_KAFKA];
    fprintf(to,
            "  echo 'Hello World!' | kcat -b localhost:%u -P -t greetings\n"
            "  kcat -b localhost:%u -C -t greetings -o beginning -e\n",
            number, number);
}

/* ---- MQTT ---- */

static struct engine *make_mqtt(void *loop_owner, void *arg, const struct os_peer *peer, mono_t now)
{
    return mqtt_new(arg, loop_owner, peer->text, peer->loopback, now);
}

static enum exit_code set_mqtt(struct protocols *p, struct engine_factory *ret)
{
    const struct config *c = p->options.config;
    p->mqtt = mqtt_options_default();
    p->mqtt.totals = &p->mqtt_totals;
    p->mqtt.vhost = c->mqtt_vhost;
    p->mqtt.exchange = c->mqtt_exchange;
    p->mqtt.anonymous = c->mqtt_anonymous;
    p->mqtt.response_information = c->mqtt_response_information;
    p->mqtt.refused_filters = c->mqtt_refused_filters;
    p->mqtt.message_bytes_max = (uint32_t)c->message_bytes_max;
    p->mqtt.handshake_ms = (uint32_t)c->handshake_timeout_ms;
    p->mqtt.session_expiry_max_s = (uint32_t)c->mqtt_session_expiry_max_s;
    p->mqtt.subscriptions_max = (uint32_t)c->mqtt_subscriptions_max;
    p->mqtt.out_bytes_max = (uint32_t)c->mqtt_out_bytes_max;
    p->mqtt.keep_alive_max_s = (uint16_t)c->mqtt_keep_alive_max_s;
    p->mqtt.receive_max = (uint16_t)c->mqtt_receive_max;
    p->mqtt.inflight_max = (uint16_t)c->mqtt_inflight_max;
    p->mqtt.topic_alias_max = (uint16_t)c->mqtt_alias_max;
    *ret = (struct engine_factory){.make = make_mqtt, .arg = &p->mqtt};
    if (!mqtt_mechanisms_parse(c->mqtt_sasl, &p->mqtt.mechanisms))
        return fail(p, END_CONFIG, "mqtt.auth_methods: %s is not a list of SCRAM-SHA-256 and SCRAM-SHA-512",
                    c->mqtt_sasl);
    return END_OK;
}

/* Whoever may do everything, if it is there under its name. */
static void begin_sys(struct protocols *p, struct hub *hub, mono_t now)
{
    const struct config *c = p->options.config;
    struct mqtt_sys_options options = {.mqtt = &p->mqtt,
                                       .user = c->mqtt_anonymous[0] ? c->mqtt_anonymous : c->default_user,
                                       .version = "millrace version " MILLRACE_VERSION,
                                       .interval_s = (uint32_t)c->mqtt_sys_interval_s};
    p->mqtt_sys_begun = true;
    if (options.interval_s && p->rows[PROTOCOL_MQTT].factory)
        p->mqtt_sys = mqtt_sys_new(&options, hub, now);
}

mono_t protocols_turn(struct protocols *p, struct hub *hub, mono_t now)
{
    if (!p->mqtt_sys_begun)
        begin_sys(p, hub, now);
    return p->mqtt_sys ? mqtt_sys_turn(p->mqtt_sys, now) : MONO_NEVER;
}

void protocols_leave(struct protocols *p)
{
    if (p)
        mqtt_sys_close(&p->mqtt_sys);
}

static void lines_mqtt(const struct protocols *p, FILE *to)
{
    unsigned number = p->port[PROTOCOL_MQTT];
    fprintf(to,
            "  mosquitto_sub -p %u -t 'home/#' -v\n"
            "  mosquitto_pub -p %u -t home/kitchen/temperature -m 21.5 -r\n",
            number, number);
}

/* ---- STOMP ---- */

static struct engine *make_stomp(void *loop_owner, void *arg, const struct os_peer *peer, mono_t now)
{
    return stomp_new(arg, loop_owner, peer->text, peer->loopback, now);
}

static void draw(void *os, void *ret, size_t len)
{
    ((struct os *)os)->random(os, ret, len);
}

static struct engine_factory factory_stomp(struct protocols *p, struct stomp_options *options,
                                           enum stomp_dialect dialect)
{
    const struct config *c = p->options.config;
    *options = stomp_options_default();
    options->vhost = c->stomp_vhost;
    options->anonymous = c->stomp_anonymous;
    options->topic_exchange = c->stomp_topic_exchange;
    options->frame_bytes_max = (uint32_t)c->stomp_frame_bytes_max;
    options->stays_open = c->stomp_stays_open;
    options->handshake_ms = (uint32_t)c->handshake_timeout_ms;
    options->tx_bytes_max = c->tx_bytes_max;
    options->random = draw;
    options->random_arg = p->options.os;
    options->wall = wall_of;
    options->wall_arg = p->options.os;
    options->dialect = dialect;
    return (struct engine_factory){.make = make_stomp, .arg = options};
}

static enum exit_code set_stomp(struct protocols *p, struct engine_factory *ret)
{
    *ret = factory_stomp(p, &p->stomp, STOMP_AS_RABBITMQ);
    return END_OK;
}

static enum exit_code set_stomp_activemq(struct protocols *p, struct engine_factory *ret)
{
    *ret = factory_stomp(p, &p->stomp_activemq, STOMP_AS_ACTIVEMQ);
    return END_OK;
}

/* ---- HTTP, and what is within WebSockets ---- */

static const struct engine_factory *spoken(const struct protocols *p, unsigned i)
{
    return p->factories[i].make ? &p->factories[i] : NULL;
}

static struct engine *make_http(void *loop_owner, void *arg, const struct os_peer *peer, mono_t now)
{
    return http_new(arg, loop_owner, peer, now);
}

/* otherwise: what a client speaks that does not say it. */
static enum exit_code set_http_around(struct protocols *p, struct http_options *options, const char *otherwise,
                                      struct engine_factory *ret)
{
    const struct config *c = p->options.config;
    *options = (struct http_options){.protocols = p->web,
                                     .protocol_count = WEB_COUNT,
                                     .protocol = otherwise,
                                     .trusts_visitors = c->listen_visitors_anonymous,
                                     .origins = c->websocket_origins,
                                     .sql = true,
                                     .anonymous = c->http_anonymous,
                                     .handshake_ms = (uint32_t)c->handshake_timeout_ms,
                                     .idle_ms = HTTP_IDLE_MS,
                                     .wall = wall_of,
                                     .wall_arg = p->options.os,
                                     .websocket = {.message_bytes_max = c->message_bytes_max + WEBSOCKET_MORE,
                                                   .ping_ms = (uint32_t)c->websocket_ping_ms,
                                                   .packs = (enum websocket_packs)c->websocket_compression,
                                                   .close_ms = WEBSOCKET_CLOSE_MS}};
    *ret = (struct engine_factory){.make = make_http, .arg = options};
    return END_OK;
}

static enum exit_code set_http(struct protocols *p, struct engine_factory *ret)
{
    return set_http_around(p, &p->http, "amqp", ret);
}

/* Whose own protocol is within WebSockets: who sends SQL there has come to the wrong door, and logs in. */
static enum exit_code set_web_only(struct protocols *p, struct http_options *options, const char *otherwise,
                                   struct engine_factory *ret)
{
    enum exit_code code = set_http_around(p, options, otherwise, ret);
    if (!options->trusts_visitors)
        options->anonymous = "";
    return code;
}

static enum exit_code set_web_stomp(struct protocols *p, struct engine_factory *ret)
{
    return set_web_only(p, &p->web_stomp, "v12.stomp", ret);
}

static enum exit_code set_web_mqtt(struct protocols *p, struct engine_factory *ret)
{
    return set_web_only(p, &p->web_mqtt, "mqtt", ret);
}

static void lines_http(const struct protocols *p, FILE *to)
{
    unsigned number = p->port[PROTOCOL_HTTP];
    if (number == 15672)
        fprintf(to, "  %s sql\n", program_invocation_name);
    else
        fprintf(to, "  %s sql --host localhost:%u\n", program_invocation_name, number);
}

/* Once it is known what is spoken at all. */
static void set_web(struct protocols *p)
{
    static const struct {
        const char *name;
        unsigned protocol;
        bool text;
    } rows[WEB_COUNT] = {
        [WEB_AMQP] = {"amqp", PROTOCOL_AMQP091, false},       [WEB_MQTT] = {"mqtt", PROTOCOL_MQTT, false},
        [WEB_MQTT_31] = {"mqttv3.1", PROTOCOL_MQTT, false},   [WEB_STOMP_10] = {"v10.stomp", PROTOCOL_STOMP, true},
        [WEB_STOMP_11] = {"v11.stomp", PROTOCOL_STOMP, true}, [WEB_STOMP_12] = {"v12.stomp", PROTOCOL_STOMP, true},
    };
    for (unsigned i = 0; i < WEB_COUNT; i++)
        p->web[i] =
            (struct http_protocol){.name = rows[i].name, .factory = spoken(p, rows[i].protocol), .text = rows[i].text};
}

/* ---- the table ---- */

#define ADDRESSES(field) offsetof(struct config, field)
#define NOWHERE SIZE_MAX

/* Where a protocol is listened for: the setting's name, and where in struct config it is. */
struct place {
    const char *setting;
    size_t at; /* NOWHERE: it cannot be set */
};

static const struct protocol {
    const char *name, *said; /* in logs, and to people */
    struct place plain, tls;
    enum sniff_verdict (*match)(struct slice first);
    enum exit_code (*set)(struct protocols *p, struct engine_factory *ret); /* NULL: it is not spoken yet */
    void (*lines)(const struct protocols *p, FILE *to);                     /* to paste; may be NULL */
} protocols[PROTOCOL_COUNT] = {
    [PROTOCOL_AMQP091] = {"amqp091",
                          "AMQP 0-9-1",
                          {"listen.amqp", ADDRESSES(listen_amqp)},
                          {"listen.amqp_tls", ADDRESSES(listen_amqp_tls)},
                          sniff_is_amqp,
                          set_amqp,
                          lines_amqp},
    [PROTOCOL_KAFKA] = {"kafka",
                        "Kafka",
                        {"listen.kafka", ADDRESSES(listen_kafka)},
                        {"listen.kafka_tls", ADDRESSES(listen_kafka_tls)},
                        sniff_is_kafka,
                        set_kafka,
                        lines_kafka},
    [PROTOCOL_MQTT] = {"mqtt",
                       "MQTT",
                       {"listen.mqtt", ADDRESSES(listen_mqtt)},
                       {"listen.mqtt_tls", ADDRESSES(listen_mqtt_tls)},
                       sniff_is_mqtt,
                       set_mqtt,
                       lines_mqtt},
    [PROTOCOL_STOMP] = {"stomp",
                        "STOMP",
                        {"listen.stomp", ADDRESSES(listen_stomp)},
                        {"listen.stomp_tls", ADDRESSES(listen_stomp_tls)},
                        sniff_is_stomp,
                        set_stomp,
                        NULL},
    [PROTOCOL_STOMP_ACTIVEMQ] = {"stomp_activemq",
                                 "STOMP as in ActiveMQ",
                                 {"listen.stomp_activemq", ADDRESSES(listen_stomp_activemq)},
                                 {"listen.stomp_activemq_tls", ADDRESSES(listen_stomp_activemq_tls)},
                                 sniff_is_stomp,
                                 set_stomp_activemq,
                                 NULL},
    [PROTOCOL_HTTP] = {"http",
                       "HTTP",
                       {"listen.http", ADDRESSES(listen_http)},
                       {"listen.http_tls", ADDRESSES(listen_http_tls)},
                       sniff_is_http,
                       set_http,
                       lines_http},
    [PROTOCOL_WEB_STOMP] = {"web-stomp",
                            "STOMP over WebSocket",
                            {"listen.web_stomp", ADDRESSES(listen_web_stomp)},
                            {"listen.web_stomp_tls", ADDRESSES(listen_web_stomp_tls)},
                            sniff_is_http,
                            set_web_stomp,
                            NULL},
    [PROTOCOL_WEB_MQTT] = {"web-mqtt",
                           "MQTT over WebSocket",
                           {"listen.web_mqtt", ADDRESSES(listen_web_mqtt)},
                           {"listen.web_mqtt_tls", ADDRESSES(listen_web_mqtt_tls)},
                           sniff_is_http,
                           set_web_mqtt,
                           NULL},
};

static const char *addresses_at(const struct protocols *p, const struct place *place)
{
    return place->at == NOWHERE ? "" : *(char *const *)(const void *)((const char *)p->options.config + place->at);
}

static bool has_address(const struct protocols *p, const struct place *place)
{
    const char *rest = addresses_at(p, place);
    char host[256];
    uint16_t port;
    return config_address_next(&rest, host, sizeof host, &port);
}

/* Ports that are there only for one protocol within another are not opened without it. */
static bool has_inner(const struct protocols *p, const struct protocol *protocol)
{
    return (protocol != &protocols[PROTOCOL_WEB_STOMP] || spoken(p, PROTOCOL_STOMP)) &&
           (protocol != &protocols[PROTOCOL_WEB_MQTT] || spoken(p, PROTOCOL_MQTT));
}

static bool is_spoken(const struct protocols *p, const struct protocol *protocol)
{
    return protocol->set && has_inner(p, protocol) &&
           (has_address(p, &protocol->plain) || (p->options.tls && has_address(p, &protocol->tls)));
}

static enum exit_code set_rows(struct protocols *p)
{
    enum exit_code code = END_OK;
    p->rows[PROTOCOL_COUNT] = (struct sniff_row){.name = "TLS", .match = sniff_is_tls, .begins_tls = p->options.tls};
    for (unsigned i = 0; i < PROTOCOL_COUNT && code == END_OK; i++) {
        p->rows[i] = (struct sniff_row){.name = protocols[i].said, .match = protocols[i].match};
        if (!is_spoken(p, &protocols[i]))
            continue;
        code = protocols[i].set(p, &p->factories[i]);
        p->rows[i].factory = &p->factories[i];
        p->ports[i].rows = p->rows;
        p->ports[i].row_count = ARRAY_LEN(p->rows);
        p->ports[i].usual = &p->factories[i];
        p->ports[i].usual_only = !p->options.config->listen_any;
        p->ports[i].trusts_visitors = p->options.config->listen_visitors_anonymous;
        p->ports[i].wait_ms = (uint32_t)p->options.config->handshake_timeout_ms;
        p->ports[i].log = p->options.log;
        p->sniffers[i] = p->tls_sniffers[i] = sniff_factory(&p->ports[i]);
        p->tls_sniffers[i].tls = true;
    }
    set_web(p);
    return code;
}

/* ---- listening ---- */

/* Where something is listened for, and what it is. */
struct spot {
    const struct protocol *protocol;
    const struct place *place;
    const struct engine_factory *factory;
    uint16_t *port; /* of the first one that is open */
};

static enum exit_code listen_at(struct protocols *p, const struct spot *spot, const char *host, unsigned port)
{
    const char *setting = spot->place->setting;
    struct listener_options options = {.loop = p->options.loops[0],
                                       .loops = p->options.loops,
                                       .loop_count = p->options.loop_count,
                                       .conns_max = p->options.conns_max,
                                       .factory = spot->factory};
    if (p->listener_count == PROTOCOLS_LISTENERS_MAX || port > UINT16_MAX)
        return fail(p, END_CONFIG, "%s: port %u is too large, or there are too many addresses", setting, port);
    struct listener **listener = &p->listeners[p->listener_count];
    int err = listener_open_tcp(&options, host, (uint16_t)port, listener);
    if ((err == -EADDRNOTAVAIL || err == -EAFNOSUPPORT) && strcmp(host, "::1") == 0)
        return END_OK; /* a machine without IPv6 */
    if (err == -EADDRINUSE)
        return fail(p, END_PORT,
                    "port %u on %s is in use: stop what listens there, or use --port-offset, or --set %s=...", port,
                    host, setting);
    if (err < 0)
        return fail(p, END_PORT, "%s port %u cannot be listened on: %s", host, port, strerror(-err));
    log_event(p->options.log, LOG_listening, log_str("protocol", spot->protocol->name), log_str("address", host),
              log_num("port", listener_port(*listener)), log_str("tls", spot->factory->tls ? "yes" : "no"));
    if (*spot->port == 0)
        *spot->port = listener_port(*listener);
    p->listener_count++;
    return END_OK;
}

static enum exit_code listen_for(struct protocols *p, const struct spot *spot)
{
    const char *rest = addresses_at(p, spot->place);
    char host[256];
    uint16_t port;
    enum exit_code code = END_OK;
    while (code == END_OK && config_address_next(&rest, host, sizeof host, &port))
        code = listen_at(p, spot, host, port + (unsigned)(port ? p->options.config->port_offset : 0));
    return code;
}

static enum exit_code listen_all(struct protocols *p, unsigned i)
{
    struct spot plain = {&protocols[i], &protocols[i].plain, &p->sniffers[i], &p->port[i]};
    struct spot tls = {&protocols[i], &protocols[i].tls, &p->tls_sniffers[i], &p->tls_port[i]};
    enum exit_code code = listen_for(p, &plain);
    if (code != END_OK || !p->options.tls)
        return code;
    return listen_for(p, &tls);
}

/* Whoever says where TLS is to be spoken wants it. */
static enum exit_code check_tls(struct protocols *p)
{
    for (unsigned i = 0; i < PROTOCOL_COUNT && !p->options.tls; i++) {
        const char *setting = protocols[i].tls.setting;
        if (setting && !config_is_preset(p->options.config, setting) && has_address(p, &protocols[i].tls))
            return fail(p, END_CONFIG, "%s is set, and tls.certificate is empty: without a certificate there is no TLS",
                        setting);
    }
    return END_OK;
}

enum exit_code protocols_listen(const struct protocols_options *options, struct protocols **ret, char *why,
                                size_t why_len)
{
    struct protocols *p = mem_zalloc(sizeof *p);
    if (!p) {
        snprintf(why, why_len, "out of memory");
        return END_SYSTEM;
    }
    p->options = *options;
    p->why = why;
    p->why_len = why_len;
    enum exit_code code = check_tls(p);
    if (code == END_OK)
        code = set_rows(p);
    for (unsigned i = 0; i < PROTOCOL_COUNT && code == END_OK; i++)
        if (p->rows[i].factory)
            code = listen_all(p, i);
    *ret = p; /* also when it has failed: connections that came meanwhile hold on to it until the loops are gone */
    return code;
}

void protocols_close(struct protocols *p)
{
    for (unsigned i = 0; p && i < p->listener_count; i++)
        listener_close(&p->listeners[i]);
}

void protocols_free(struct protocols **p)
{
    mem_free(*p);
    *p = NULL;
}

static void lines_dev_tls(const struct protocols *p, FILE *to)
{
    const char *data = p->options.config->data;
    bool asked = p->options.config->tls_client && !*p->options.config->tls_client_ca;
    fprintf(to, "\nTLS with certificates for trying out, in %s/" DEV_TLS_FOLDER ": clients need ca.pem, %s:\n\n", data,
            asked
                ? "and may log in with client.pem (the user guest)"
                : "and log in as ever; with --set tls.client_certificates=request also by client.pem (the user guest)");
    if (p->tls_port[PROTOCOL_AMQP091] && !asked)
        fprintf(to,
                "  openssl s_client -connect localhost:%u -CAfile %s/" DEV_TLS_FOLDER
                "/ca.pem -verify_return_error -brief\n"
                "  /usr/bin/python3 -c \"import pika, ssl; t = ssl.create_default_context(cafile='%s/" DEV_TLS_FOLDER
                "/ca.pem'); "
                "pika.BlockingConnection(pika.ConnectionParameters('localhost', %u, ssl_options=pika.SSLOptions(t)))"
                ".channel().queue_declare('hello')\"\n",
                p->tls_port[PROTOCOL_AMQP091], data, data, p->tls_port[PROTOCOL_AMQP091]);
    else if (p->tls_port[PROTOCOL_AMQP091])
        fprintf(to,
                "  openssl s_client -connect localhost:%u -CAfile %s/" DEV_TLS_FOLDER
                "/ca.pem -verify_return_error -brief\n"
                "  /usr/bin/python3 -c \"import pika, ssl; t = ssl.create_default_context(cafile='%s/" DEV_TLS_FOLDER
                "/ca.pem'); t.load_cert_chain('%s/" DEV_TLS_FOLDER "/client.pem'); "
                "pika.BlockingConnection(pika.ConnectionParameters('localhost', %u, ssl_options=pika.SSLOptions(t), "
                "credentials=pika.credentials.ExternalCredentials())).channel().queue_declare('hello')\"\n",
                p->tls_port[PROTOCOL_AMQP091], data, data, data, p->tls_port[PROTOCOL_AMQP091]);
    if (p->tls_port[PROTOCOL_KAFKA])
        fprintf(to,
                "  kcat -b localhost:%u -X security.protocol=ssl -X ssl.ca.location=%s/" DEV_TLS_FOLDER "/ca.pem -L\n",
                p->tls_port[PROTOCOL_KAFKA], data);
}

void protocols_banner(const struct protocols *p, FILE *to)
{
    unsigned spoken = 0;
    for (unsigned i = 0; p && i < PROTOCOL_COUNT; i++)
        spoken += p->port[i] || p->tls_port[i];
    if (!spoken)
        return;
    fprintf(to, "\nMillrace " MILLRACE_VERSION " is ready:");
    for (unsigned i = 0; i < PROTOCOL_COUNT; i++) {
        if (p->port[i])
            fprintf(to, " %s on port %u,", protocols[i].said, p->port[i]);
        if (p->tls_port[i])
            fprintf(to, " %s with TLS on port %u,", protocols[i].said, p->tls_port[i]);
    }
    fprintf(to, " data in %s. Lines to try:\n\n", p->options.config->data);
    for (unsigned i = 0; i < PROTOCOL_COUNT; i++)
        if (p->port[i] && protocols[i].lines)
            protocols[i].lines(p, to);
    if (p->options.config->tls_dev)
        lines_dev_tls(p, to);
    fprintf(to, "\nCtrl-C stops it.\n\n");
    fflush(to);
}
