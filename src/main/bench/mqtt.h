/* `millrace bench mqtt`: a load generator for any MQTT 3.1.1 or 5.0 broker.
 *
 * Call from main() with argv[0] = "millrace bench mqtt"; the calling thread runs the whole benchmark and the function
 * answers the exit code: 0 clean, 1 could not run or the server refused or closed, 2 messages were lost, doubled or
 * reordered, 64 wrong usage. Of the broker it uses the table of packets for logins and subscriptions, nothing that runs.
 */
#ifndef MAIN_BENCH_MQTT_H
#define MAIN_BENCH_MQTT_H

int bench_mqtt_main(int argc, char **argv);

#endif
