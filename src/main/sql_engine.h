/* sql_engine: the thread of continuous SQL (sql/server/server.h), as the core's helper on the SQL port.
 *
 * Life cycle: sql_engine_open → (replay) → sql_engine_wake whenever the core has sent something to the port, and once at the start when there are
 * statements in the catalogue → sql_engine_stop → (the broker is freed) → sql_engine_close. The thread is there from the first wake on.
 */
#ifndef MILLRACE_MAIN_SQL_ENGINE_H
#define MILLRACE_MAIN_SQL_ENGINE_H

#include "core/broker.h"
#include "journal/journal.h"
#include "os/log.h"
#include "os/os.h"

struct sql_engine_options {
    struct os *os;
    const struct log *log;
    struct port *port;
    struct journal *journal;
    uint64_t snapshot_rows; /* of struct sql_server_options */
    const char *dir;        /* where queries have their scratch files; a loan */
    uint64_t scratch_bytes; /* each, at most; 0: none */
    uint64_t disk_free_min; /* nothing more is written below it; 0: as watch.h works it out */
    void (*wake_core)(void *arg);
    void *arg;
};

struct sql_engine;

/* NULL: no memory. Boot. */
MUST_USE struct sql_engine *sql_engine_open(const struct sql_engine_options *options);
/* The port has effects. The core's thread, and the main thread at the boot, which may come at once: it is started once. */
void sql_engine_wake(struct sql_engine *engine);
/* Something became durable. Any thread. */
void sql_engine_durable(struct sql_engine *engine);
/* The thread is gone; it sends nothing any more. The thread that starts and stops. */
void sql_engine_stop(struct sql_engine *engine);
/* NULL is nothing. */
void sql_engine_close(struct sql_engine **engine);

#endif
