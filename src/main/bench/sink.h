/* The load generator's own ceiling: an AMQP server thread inside the process that accepts everything, confirms at once,
 * keeps nothing, and feeds consumers with made-up messages as fast as their credit allows.
 *
 * Life cycle: bench_sink_start → clients connect to 127.0.0.1 at the returned port → bench_sink_stop.
 * Thread: starts one of its own; both calls from the same caller thread. Errors: start answers NULL and fills error.
 */
#ifndef MAIN_BENCH_SINK_H
#define MAIN_BENCH_SINK_H

#include <stddef.h>
#include <stdint.h>

struct bench_sink;

struct bench_sink *bench_sink_start(size_t body_bytes, uint32_t run_id, unsigned *ret_port, char *error,
                                    size_t error_cap);
/* Closes what is still connected. Writes the thread's CPU time when asked. */
void bench_sink_stop(struct bench_sink *sink, uint64_t *ret_cpu_ns);

#endif
