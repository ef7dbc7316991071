/* protocols: which protocols clients may speak, how each is set, and where they are accepted: one table, a row for each.
 *
 * Life cycle: protocols_listen once everything older has been read (clients come from then on) → protocols_turn … → protocols_close when
 * no new ones are wanted → protocols_leave → protocols_free when the loops are gone. Thread: the main one, which is loop 0's.
 *
 * To add a protocol: its settings in config.def, its matcher in net/sniff.h, a function that makes its factory, and a row.
 */
#ifndef MILLRACE_MAIN_PROTOCOLS_H
#define MILLRACE_MAIN_PROTOCOLS_H

#include "main/config.h"
#include "main/exit_codes.h"
#include "net/loop.h"

#include <stdio.h>

#define PROTOCOLS_LISTENERS_MAX 64u /* each takes two descriptors: its own and a spare one */

struct protocols;
struct worker;
struct hub;

struct protocols_options {
    const struct config *config; /* a loan, like the rest */
    struct os *os;
    const struct log *log;
    const uint8_t *uuid;       /* the store's */
    struct loop *const *loops; /* who gets the connections; the first accepts them */
    unsigned loop_count;
    uint32_t conns_max;
    struct worker *worker; /* which knows the disk */
    bool tls;              /* the loops have a tls_server */
};

/* END_OK, or how the process ends; why then says what is wrong. */
MUST_USE enum exit_code protocols_listen(const struct protocols_options *options, struct protocols **ret, char *why,
                                         size_t why_len);
/* What protocols do by themselves, in each turn of loop 0, whose hub it is: MQTT's $SYS. Returns when it is due again. */
mono_t protocols_turn(struct protocols *p, struct hub *hub, mono_t now);
/* Ends that. NULL is nothing; may be called again. */
void protocols_leave(struct protocols *p);
/* Accepts nobody any more. NULL is nothing. */
void protocols_close(struct protocols *p);
void protocols_free(struct protocols **p);

/* What listens where, and lines to paste. NULL, or nothing that listens: nothing. */
void protocols_banner(const struct protocols *p, FILE *to);

#endif
