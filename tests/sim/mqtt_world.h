/* mqtt_world: scripts of two MQTT clients beside the world's AMQP client: all QoS, aliases, wills, retained values, a shared
 * subscription and a session that comes back; and a login by SCRAM, done again while it runs, and $SYS. One thread.
 */
#ifndef MILLRACE_TESTS_SIM_MQTT_WORLD_H
#define MILLRACE_TESTS_SIM_MQTT_WORLD_H

#include "world.h"

enum mqtt_script { MQTT_SCRIPT_MESSAGES, MQTT_SCRIPT_LOGINS };

/* On a connected world; ends early when the world dies or something does not come. What comes must be right, whatever has failed;
 * without faults (faultless) everything must come. */
void world_mqtt_play(struct world *w, enum mqtt_script script, bool (*faultless)(const struct world *w));
/* After a start and world_connect: a session and a retained value that were promised are there. */
void world_mqtt_check(struct world *w);

#endif
