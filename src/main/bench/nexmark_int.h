/* What the files of `millrace bench nexmark` share: options, queries, events on their way into the broker, statements, CPU time.
 *
 * One thread, the caller's. Errors: functions answer false and have left a sentence in the `error` they name.
 */
#ifndef MAIN_BENCH_NEXMARK_INT_H
#define MAIN_BENCH_NEXMARK_INT_H

#include "command.h"
#include "kafka_wire.h"
#include "main/client/sql_client.h"
#include "report.h"
#include "sql/query/nexmark.h"

enum {
    BENCH_NEXMARK_QUERIES_MAX = 64,
    BENCH_NEXMARK_NAME_BYTES = 48,
    BENCH_NEXMARK_BATCH_MAX = 1500,
    BENCH_NEXMARK_STATEMENT_BYTES = 8192
};

struct bench_nexmark_options {
    struct bench_kafka_server server; /* where events go, and results come from */
    unsigned http_port;               /* of the same host, for statements */
    struct nexmark nexmark;
    uint64_t events;
    unsigned batch, window; /* records in a request, requests in flight */
    double rate;            /* events a second; 0: as fast as it goes */
    double warmup_s;        /* of the latency scenario */
    char name[BENCH_NEXMARK_NAME_BYTES];
    const struct bench_nexmark_query *queries[BENCH_NEXMARK_QUERIES_MAX];
    unsigned query_count;
    unsigned pid; /* of the broker; 0: its CPU time is not looked at */
    uint64_t state_memory;
    bool keep, json, quiet, progress;
};

/* ---- bench/nexmark_queries.c ---- */

/* What is known of a bid without asking SQL. */
struct bench_nexmark_bid {
    uint64_t auction, price;
    struct slice channel, url;
};

#define BENCH_NEXMARK_FOREVER " WITH (state_ttl = 'none')" /* behind such a query by itself */

struct bench_nexmark_query {
    const char *name, *text;
    const char *key; /* of the result, when it is a changelog of which the last row of each key counts; NULL: none */
    bool (*gives)(const struct bench_nexmark_bid *bid); /* whether that bid is a row; NULL: not so simple */
    bool forever;                                       /* nothing bounds what it keeps, and it says so */
    bool side;                                          /* it reads the table `side` */
};

extern const struct bench_nexmark_query bench_nexmark_queries[];
extern const unsigned bench_nexmark_query_count;
/* NULL: there is none. */
const struct bench_nexmark_query *bench_nexmark_query_find(struct slice name);
/* False: it is no bid. */
bool bench_nexmark_bid_read(struct slice event, struct bench_nexmark_bid *ret);
/* What queries read, in the order in which it is made. */
struct bench_nexmark_object {
    const char *name; /* as DROP has it */
    const char *text;
    const char *topic; /* behind the benchmark's name; NULL: it has none of its own */
};
extern const struct bench_nexmark_object bench_nexmark_objects[];
extern const unsigned bench_nexmark_object_count;
void bench_nexmark_statement(const struct bench_nexmark_options *o, const struct bench_nexmark_object *object,
                             char *ret, size_t room);

/* ---- bench/nexmark_load.c ---- */

struct bench_nexmark_load {
    struct bench_kafka_wire wire;
    struct writer batch; /* that is being made */
    char topic[2 * BENCH_NEXMARK_NAME_BYTES];
    unsigned in_flight;
    uint64_t *sent_ns;            /* of these, a ring of `window` */
    uint64_t requests;            /* that were sent */
    struct bench_histogram *acks; /* from a request to its answer; NULL: not wanted */
    uint64_t records, bytes;      /* that were sent: records, and their values */
    uint64_t *rows;               /* by query: how many it gives; 0 where that cannot be told */
    const struct bench_nexmark_options *options;
};

/* Connects; the topic must be there. */
bool bench_nexmark_load_open(struct bench_nexmark_load *l, const struct bench_nexmark_options *o, const char *topic);
void bench_nexmark_load_close(struct bench_nexmark_load *l);
/* One request with events `from` … `from + count - 1`, or rows of the table `side`; does not wait for its answer. */
bool bench_nexmark_load_events(struct bench_nexmark_load *l, uint64_t from, unsigned count);
bool bench_nexmark_load_side(struct bench_nexmark_load *l, unsigned from, unsigned count);
/* Reads once, and takes the answers that are there. */
bool bench_nexmark_load_take(struct bench_nexmark_load *l);
/* Waits until at most `in_flight` requests are not answered, on a blocking socket. */
bool bench_nexmark_load_settle(struct bench_nexmark_load *l, unsigned in_flight);
bool bench_nexmark_topic_delete(struct bench_kafka_wire *w, const char *topic);

/* ---- bench/nexmark_sql.c ---- */

struct bench_nexmark_sql {
    struct sql_client client;
    char error[800];
    bool refused;  /* by the broker, as SQL */
    unsigned made; /* of bench_nexmark_objects */
};

struct bench_nexmark_shown { /* of SHOW QUERIES */
    bool there;
    char state[16], reason[300];
    uint64_t lag, rows_in, rows_out, late, faults, state_bytes;
};

void bench_nexmark_sql_init(struct bench_nexmark_sql *s, const struct bench_nexmark_options *o);
void bench_nexmark_sql_fini(struct bench_nexmark_sql *s);
/* Statements that give no rows, to their end. */
bool bench_nexmark_sql_run(struct bench_nexmark_sql *s, const char *text);
bool bench_nexmark_sql_show(struct bench_nexmark_sql *s, const char *query, struct bench_nexmark_shown *ret);

/* ---- bench/nexmark_cpu.c ---- */

struct bench_nexmark_cpu {
    double sql_s, all_s; /* of the thread "sql", of all threads */
};

/* Zero when there is no such process. */
struct bench_nexmark_cpu bench_nexmark_cpu(unsigned pid);

/* ---- scenarios: each adds rows to the report and answers an exit code; a failure is already printed ---- */

int bench_nexmark_run(const struct bench_nexmark_options *o, struct bench_report *r);
int bench_nexmark_latency(const struct bench_nexmark_options *o, struct bench_report *r);
int bench_nexmark_only_load(const struct bench_nexmark_options *o, struct bench_report *r);
/* What they share: the streams and views, and without those again that were made. */
bool bench_nexmark_set_up(const struct bench_nexmark_options *o, struct bench_nexmark_sql *sql);
int bench_nexmark_tear_down(const struct bench_nexmark_options *o, struct bench_nexmark_sql *sql, int code);

#endif
