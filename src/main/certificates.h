/* certificates: the files behind TLS: read at boot and whenever somebody asks, and made where they are for trying out only.
 *
 * Life cycle: certificates_open → certificates_server for the loops → certificates_ask and certificates_asked any time (loop
 * 0), certificates_reload on the worker's thread after that → certificates_close when the loops are gone.
 */
#ifndef MILLRACE_MAIN_CERTIFICATES_H
#define MILLRACE_MAIN_CERTIFICATES_H

#include "main/config.h"
#include "main/exit_codes.h"
#include "os/log.h"

#define DEV_TLS_FOLDER "dev-tls" /* in the data folder */

struct certificates;
struct tls_server;

/* END_OK, or how the process ends; why then says what is wrong. The data folder is ours. */
MUST_USE enum exit_code certificates_open(const struct config *config, struct os *os, const struct log *log,
                                          struct certificates **ret, char *why, size_t why_len);
/* NULL: TLS is not set up. */
struct tls_server *certificates_server(const struct certificates *c);
/* They are to be read again: a ticket; then certificates_reload has to run. */
uint64_t certificates_ask(struct certificates *c);
void certificates_reload(struct certificates *c);
/* Has that been done? *ret_why is empty when it went well. Any thread. */
bool certificates_asked(struct certificates *c, uint64_t ticket, char *ret_why, size_t why_len);
void certificates_close(struct certificates **c);

#endif
