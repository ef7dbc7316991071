/* `millrace bench kafka`: a load generator for any Kafka broker.
 *
 * Call from main() with argv[0] = "millrace bench kafka"; the calling thread runs the whole benchmark and the function
 * answers the exit code: 0 clean, 1 could not run or the server refused or closed, 2 records were lost, doubled or
 * reordered, 64 wrong usage. Of the broker it uses the tables of Kafka's messages and the record batch, nothing that runs.
 */
#ifndef MAIN_BENCH_KAFKA_H
#define MAIN_BENCH_KAFKA_H

int bench_kafka_main(int argc, char **argv);

#endif
