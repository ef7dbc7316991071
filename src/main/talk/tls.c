/* See talk/tls.h. */
#include "main/talk/tls.h"

#include "base/mem.h"
#include "os/os.h"

#include <errno.h>
#include <stdio.h>

#define FILE_BYTES_MAX (1u << 20)

/* As the broker reads its own: all of it, and no more than a certificate with its authorities can have. */
static int read_file(const char *name, uint8_t **ret_bytes, struct tls_file *ret, char *why, size_t why_len)
{
    struct os *os = os_posix();
    uint8_t *bytes = mem_alloc(FILE_BYTES_MAX);
    int fd, err = bytes ? os->open(os, name, OS_READ, &fd) : -ENOMEM;
    int64_t n = err;
    if (err >= 0) {
        n = os->pread(os, fd, bytes, FILE_BYTES_MAX, 0);
        os->close(os, fd);
    }
    *ret_bytes = bytes;
    if (n == FILE_BYTES_MAX)
        n = -EFBIG;
    if (n < 0) {
        snprintf(why, why_len, "%s cannot be read: %s", name, strerror((int)-n));
        return -1;
    }
    *ret = (struct tls_file){.name = name, .bytes = slice_of(bytes, (size_t)n)};
    return 0;
}

int talk_tls_read(struct talk_tls *t, char *why, size_t why_len)
{
    struct tls_client_options *o = &t->options;
    o->trust = t->insecure ? TLS_TRUST_ANYBODY : t->ca ? TLS_TRUST_CA : TLS_TRUST_SYSTEM;
    if (t->key && !t->certificate) {
        snprintf(why, why_len, "--key is that of a certificate: --cert says which");
        return -1;
    }
    if (t->ca && read_file(t->ca, &t->bytes[0], &o->ca, why, why_len) != 0)
        return -1;
    if (t->certificate && read_file(t->certificate, &t->bytes[1], &o->own.certificate, why, why_len) != 0)
        return -1;
    o->own.key = o->own.certificate;
    return t->key ? read_file(t->key, &t->bytes[2], &o->own.key, why, why_len) : 0;
}

void talk_tls_fini(struct talk_tls *t)
{
    for (size_t i = 0; i < ARRAY_LEN(t->bytes); i++) {
        mem_free(t->bytes[i]);
        t->bytes[i] = NULL;
    }
}
