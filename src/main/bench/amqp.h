/* `millrace bench amqp`: a load generator for any AMQP 0-9-1 server.
 *
 * Call from main() with argv[0] = "millrace bench amqp"; the calling thread runs the whole benchmark and the function
 * answers the exit code: 0 clean, 1 could not run or the server closed on us, 2 messages were lost, doubled or reordered,
 * 64 wrong usage. Uses nothing of the broker.
 */
#ifndef MAIN_BENCH_AMQP_H
#define MAIN_BENCH_AMQP_H

int bench_amqp_main(int argc, char **argv);

#endif
