/* What the files of `millrace bench mqtt` share: the options and the scenarios. One thread, the caller's. */
#ifndef MAIN_BENCH_MQTT_INT_H
#define MAIN_BENCH_MQTT_INT_H

#include "command.h"
#include "mqtt_wire.h"
#include "report.h"

enum { BENCH_MQTT_TOPIC_BYTES = 250, BENCH_MQTT_ID_BYTES = 64 };

struct bench_mqtt_options {
    struct bench_mqtt_server server;
    unsigned publishers, subscribers, topics, connections, at_once;
    uint8_t qos;
    char topic[BENCH_MQTT_TOPIC_BYTES - 24];
    size_t payload_bytes;
    uint32_t window; /* messages of a publisher not confirmed or not delivered; 0: no limit, with QoS 0 only */
    double rate;     /* messages per second over all publishers; 0: as fast as it goes */
    double duration_s, warmup_s, drain_s, hold_s;
    uint64_t messages; /* over all publishers; 0: run for duration_s */
    bool durable;      /* sessions of subscribers outlive connections */
    bool offline;      /* subscribers are away while messages are published */
    bool keep;         /* leave sessions and retained messages where they are */
    uint32_t run_id;
    bool json, quiet, progress;
};

/* Every scenario adds rows to the report and answers an exit code; a failure is already printed on stderr. */
int bench_mqtt_run(const struct bench_mqtt_options *o, struct bench_report *r);
int bench_mqtt_connect(const struct bench_mqtt_options *o, struct bench_report *r);
int bench_mqtt_retained(const struct bench_mqtt_options *o, struct bench_report *r);

/* The topic idx, into a buffer of BENCH_MQTT_TOPIC_BYTES. */
void bench_mqtt_topic(const struct bench_mqtt_options *o, unsigned idx, char *ret);
/* A client id of this run, into a buffer of BENCH_MQTT_ID_BYTES. */
void bench_mqtt_client_id(const struct bench_mqtt_options *o, const char *kind, unsigned idx, char *ret);

#endif
