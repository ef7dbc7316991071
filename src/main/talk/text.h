/* talk_text: messages of `millrace pub`, `sub` and `tail` as people and programs write and read them. Main thread.
 *
 * One line of JSON holds a whole message: what sub prints with --json, pub reads with --json. payload is a text, or with
 * payload_encoding "base64" any bytes; pub also takes an object or a list there, whose JSON becomes the body.
 */
#ifndef MILLRACE_MAIN_TALK_TEXT_H
#define MILLRACE_MAIN_TALK_TEXT_H

#include "main/talk/talk.h"

#include <stdio.h>

enum talk_form { TALK_PRETTY, TALK_RAW, TALK_JSON };

/* False: it could not be written. */
MUST_USE bool talk_print(FILE *to, enum talk_form form, const struct talk_message *message);

/* A message from a line of JSON. *ret_body is memory of the caller's from now on (mem_free), into which ret->body points. False:
 * why says what is wrong with it. */
MUST_USE bool talk_parse(struct slice line, struct talk_message *ret, char **ret_body, char *why, size_t why_len);

/* NAME=VALUE (a text) or NAME:=JSON into an object. False: malformed. */
MUST_USE bool talk_pair_set(json_t *object, const char *pair);
/* The same for a property of AMQP: its name is checked and numbers become numbers. - and _ are the same in it. */
MUST_USE bool talk_property_set(json_t *properties, const char *pair);

#endif
