/* `millrace bench nexmark`: Nexmark's queries as continuous SQL in a running broker, from JSON events in a stream.
 *
 * Call from main() with argv[0] = "millrace bench nexmark"; the calling thread runs the whole benchmark and the function answers
 * the exit code: 0 clean, 1 could not run, 2 a query failed or gave another number of rows than it should, 64 wrong usage.
 * Of the broker it uses the generator of events (sql/nexmark) and, as all of `millrace bench`, Kafka's tables: nothing that runs.
 */
#ifndef MAIN_BENCH_NEXMARK_H
#define MAIN_BENCH_NEXMARK_H

int bench_nexmark_main(int argc, char **argv);

#endif
