/* trial_broker: a broker for trials of SQL: the real core, files of streams and SQL server in one thread, with a disk in memory and a clock that
 * stands still until it is moved. Nothing of it outlives the process, so there is no journal: what was appended is durable.
 *
 *   trial_broker_open ▸ { trial_broker_ask ▸ [ trial_broker_stop ] | trial_broker_pass }* ▸ trial_broker_close
 *
 * After every call the broker has come to rest: all that follows from what was done has happened, in an order that depends on nothing but
 * that. One thread.
 */
#ifndef MILLRACE_MAIN_SHELL_TRIAL_BROKER_H
#define MILLRACE_MAIN_SHELL_TRIAL_BROKER_H

#include "sql/language/lines.h"

#define TRIAL_BEGIN_MS 1767225600000 /* 2026-01-01 00:00:00 UTC, when its clock begins */

struct trial_broker;

/* 0, or a negative errno with a sentence in why. */
MUST_USE int trial_broker_open(struct trial_broker **ret, char *why, size_t why_len);
void trial_broker_close(struct trial_broker **broker);
/* Runs statements as guest in the vhost /, and adds what they are answered to `ret`: lines as sql/server/server.h says. *ret_ended: they have ended;
 * else trial_broker_stop comes next. False: no rest was found, or no memory; nothing more can be done with it. */
MUST_USE bool trial_broker_ask(struct trial_broker *broker, struct slice text, struct lines *ret, bool *ret_ended);
MUST_USE bool trial_broker_stop(struct trial_broker *broker);
/* So much time goes by, and whatever it brings about happens in its moment. False: as above. */
MUST_USE bool trial_broker_pass(struct trial_broker *broker, int64_t us);
wall_t trial_broker_now(const struct trial_broker *broker);

#endif
