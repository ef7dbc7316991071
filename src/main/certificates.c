/* Files for TLS, see certificates.h. Main thread, but for certificates_reload: the worker's. */
#include "main/certificates.h"

#include "base/mem.h"
#include "net/tls_server.h"
#include "net/tls_throwaway.h"
#include "os/thread.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FILE_BYTES_MAX (1u << 20)
#define FILES_MAX 32u /* of certificates; and as many keys */
#define PATH_LEN_MAX 4200u

struct certificates {
    const struct config *config;
    struct os *os;
    const struct log *log;
    struct tls_server *server;
    char *dev_certificate, *dev_ca; /* paths, with tls.dev */
    _Atomic uint64_t tickets;
    struct os_lock lock; /* of what follows */
    uint64_t served;
    char why[600];
};

/* What has been read for one tls_options. */
struct files {
    struct certificates *certificates;
    char *names[2 * FILES_MAX + 1], *bytes[2 * FILES_MAX + 1];
    size_t lens[2 * FILES_MAX + 1], count;
    struct tls_pair pairs[FILES_MAX];
    struct tls_options options;
    char *why;
    size_t why_len;
};

static void files_free(struct files *f)
{
    for (size_t i = 0; i < f->count; i++) {
        if (f->bytes[i])
            explicit_bzero(f->bytes[i], f->lens[i]);
        mem_free(f->bytes[i]);
        mem_free(f->names[i]);
    }
    f->count = 0;
}

static int read_whole(struct os *os, const char *name, char *ret, size_t max, size_t *ret_len)
{
    int fd, err = os->open(os, name, OS_READ, &fd);
    if (err < 0)
        return err;
    int64_t n = os->pread(os, fd, ret, max, 0);
    os->close(os, fd);
    if (n < 0)
        return (int)n;
    *ret_len = (size_t)n;
    return (size_t)n == max ? -EFBIG : 0;
}

static const char *advice_for(int err)
{
    switch (err) {
    case -EACCES: return " (the broker's user must be able to read it)";
    case -ENOENT: return " (paths are those of the folder that the broker was started in)";
    default: return "";
    }
}

/* One file of the setting; the name is copied. */
static int take_file(struct files *f, const char *setting, struct slice name, struct tls_file *ret)
{
    size_t i = f->count;
    f->names[i] = mem_slicedup(name);
    f->bytes[i] = mem_zalloc(FILE_BYTES_MAX + 1);
    f->count++;
    int err = f->names[i] && f->bytes[i] ? 0 : -ENOMEM;
    if (err == 0)
        err = read_whole(f->certificates->os, f->names[i], f->bytes[i], FILE_BYTES_MAX, &f->lens[i]);
    if (err < 0) {
        snprintf(f->why, f->why_len, "%s: the file %.*s cannot be read: %s%s", setting, SLICE_ARG(name), strerror(-err),
                 advice_for(err));
        return err;
    }
    *ret = (struct tls_file){.name = f->names[i], .bytes = slice_of(f->bytes[i], f->lens[i])};
    return 0;
}

/* The next file of a list. */
static bool next_name(const char **list, struct slice *ret)
{
    const char *at = *list + strspn(*list, " ,\t");
    size_t len = strcspn(at, " ,\t");
    *list = at + len;
    *ret = slice_of(at, len);
    return len > 0;
}

static int take_pairs(struct files *f, const char *certificates, const char *keys)
{
    struct slice name;
    bool has_keys = keys[strspn(keys, " ,\t")] != '\0';
    size_t n = 0;
    int err = 0;
    while (err == 0 && next_name(&certificates, &name)) {
        if (n == FILES_MAX) {
            snprintf(f->why, f->why_len, "tls.certificate: more than %u files", FILES_MAX);
            return -EINVAL;
        }
        struct tls_pair *pair = &f->pairs[n++];
        err = take_file(f, "tls.certificate", name, &pair->certificate);
        pair->key = pair->certificate;
        if (err < 0 || !has_keys)
            continue;
        if (!next_name(&keys, &name)) {
            snprintf(f->why, f->why_len,
                     "tls.key has fewer files than tls.certificate: they belong together one by one");
            return -EINVAL;
        }
        err = take_file(f, "tls.key", name, &pair->key);
    }
    if (err == 0 && has_keys && next_name(&keys, &name)) {
        snprintf(f->why, f->why_len, "tls.key has more files than tls.certificate: they belong together one by one");
        err = -EINVAL;
    }
    f->options.pairs = f->pairs;
    f->options.pair_count = n;
    return err;
}

static void on_note(void *arg, const char *text)
{
    const struct certificates *c = arg;
    log_event(c->log, LOG_tls_note, log_str("note", text));
}

/* Reads everything that the settings name. 0, or a negative errno: why has been said. */
static int files_read(struct certificates *c, struct files *f, char *why, size_t why_len)
{
    const struct config *config = c->config;
    *f = (struct files){.certificates = c, .why = why, .why_len = why_len};
    f->options = (struct tls_options){.client = (enum tls_client)config->tls_client,
                                      .user_from = (enum tls_user_from)config->tls_user_from,
                                      .min_version = (enum tls_version)config->tls_min_version,
                                      .ciphers = config->tls_ciphers,
                                      .handshake_ms = (uint32_t)config->handshake_timeout_ms,
                                      .note = on_note,
                                      .arg = c};
    const char *ca = config->tls_client_ca;
    int err;
    if (c->dev_certificate) {
        err = take_pairs(f, c->dev_certificate, "");
        if (f->options.client == TLS_CLIENT_NONE && *ca)
            f->options.client = TLS_CLIENT_REQUEST;
        else if (!*ca) /* nobody is asked then, unless it is wished: a browser that is asked has nobody to choose one */
            ca = c->dev_ca;
    } else {
        err = take_pairs(f, config->tls_certificate, config->tls_key);
    }
    if (err == 0 && *ca)
        err = take_file(f, "tls.client_ca", slice_str(ca), &f->options.client_ca);
    return err;
}

/* ---- for trying out ---- */

static int write_whole(struct os *os, const char *name, const char *text)
{
    int fd, err = os->open(os, name, OS_WRITE | OS_CREATE | OS_TRUNCATE, &fd);
    if (err < 0)
        return err;
    err = os->pwrite(os, fd, text, strlen(text), 0);
    os->close(os, fd);
    return err;
}

static bool is_good_still(struct certificates *c)
{
    struct files f = {.certificates = c, .why = c->why, .why_len = sizeof c->why};
    struct tls_file certificate, ca;
    bool good = take_file(&f, "", slice_str(c->dev_certificate), &certificate) == 0 &&
                take_file(&f, "", slice_str(c->dev_ca), &ca) == 0 && tls_throwaway_is_good(certificate.bytes, ca.bytes);
    files_free(&f);
    c->why[0] = '\0';
    return good;
}

static char *path_of(const struct certificates *c, const char *name)
{
    char path[PATH_LEN_MAX];
    snprintf(path, sizeof path, "%s/" DEV_TLS_FOLDER "/%s", c->config->data, name);
    return mem_strdup(path);
}

static int write_dev(struct certificates *c)
{
    struct tls_throwaway made;
    int err = tls_throwaway_make(&made);
    const struct {
        const char *name, *text;
    } rows[] = {{"ca.pem", made.ca}, {"server.pem", made.server}, {"client.pem", made.client}};
    for (size_t i = 0; i < ARRAY_LEN(rows) && err == 0; i++) {
        char *path = path_of(c, rows[i].name);
        err = path ? write_whole(c->os, path, rows[i].text) : -ENOMEM;
        mem_free(path);
    }
    tls_throwaway_free(&made);
    return err;
}

static enum exit_code make_dev(struct certificates *c, char *why, size_t why_len)
{
    char folder[PATH_LEN_MAX];
    snprintf(folder, sizeof folder, "%s/" DEV_TLS_FOLDER, c->config->data);
    if (*c->config->tls_certificate) {
        snprintf(why, why_len,
                 "tls.dev (--dev-tls) makes certificates, and tls.certificate names some: use one of both");
        return END_CONFIG;
    }
    c->dev_certificate = path_of(c, "server.pem");
    c->dev_ca = path_of(c, "ca.pem");
    int err = c->os->mkdir(c->os, folder);
    err = err == -EEXIST ? 0 : err;
    if (!c->dev_certificate || !c->dev_ca)
        err = -ENOMEM;
    if (err == 0 && !is_good_still(c))
        err = write_dev(c);
    if (err == 0)
        return END_OK;
    snprintf(why, why_len, "no certificates can be made in %s: %s", folder, strerror(-err));
    return err == -ENOMEM ? END_SYSTEM : END_DATA_FOLDER;
}

/* ---- life ---- */

static bool is_set_up(const struct certificates *c)
{
    return c->dev_certificate || c->config->tls_certificate[strspn(c->config->tls_certificate, " ,\t")];
}

static enum exit_code make_server(struct certificates *c, char *why, size_t why_len)
{
    struct files f;
    int err = files_read(c, &f, why, why_len);
    if (err == 0)
        err = tls_server_new(&f.options, &c->server, why, why_len);
    if (err == 0)
        log_event(c->log, LOG_tls_ready, log_num("certificates", (int64_t)f.options.pair_count),
                  log_str("first", f.pairs[0].certificate.name));
    files_free(&f);
    return err == 0 ? END_OK : err == -ENOMEM ? END_SYSTEM : END_CONFIG;
}

enum exit_code certificates_open(const struct config *config, struct os *os, const struct log *log,
                                 struct certificates **ret, char *why, size_t why_len)
{
    struct certificates *c = mem_zalloc(sizeof *c);
    if (!c) {
        snprintf(why, why_len, "out of memory");
        return END_SYSTEM;
    }
    c->config = config;
    c->os = os;
    c->log = log;
    os_lock_init(&c->lock);
    *ret = c;
    enum exit_code code = config->tls_dev ? make_dev(c, why, why_len) : END_OK;
    if (code == END_OK && is_set_up(c))
        return make_server(c, why, why_len);
    if (code == END_OK && (*config->tls_key || *config->tls_client_ca || config->tls_client != TLS_CLIENT_NONE)) {
        snprintf(why, why_len, "there are settings for TLS, and tls.certificate is empty: without one there is no TLS");
        return END_CONFIG;
    }
    if (code == END_OK)
        tls_server_none();
    return code;
}

struct tls_server *certificates_server(const struct certificates *c)
{
    return c->server;
}

uint64_t certificates_ask(struct certificates *c)
{
    return atomic_fetch_add(&c->tickets, 1) + 1;
}

void certificates_reload(struct certificates *c)
{
    uint64_t ticket = atomic_load(&c->tickets);
    char why[sizeof c->why] = "";
    struct files f = {0};
    int err = c->server ? files_read(c, &f, why, sizeof why) : -EINVAL;
    if (!c->server)
        snprintf(why, sizeof why, "TLS is not set up: there is no tls.certificate to be read again");
    else if (err == 0)
        err = tls_server_reload(c->server, &f.options, why, sizeof why);
    if (err == 0)
        log_event(c->log, LOG_tls_reloaded, log_num("certificates", (int64_t)f.options.pair_count));
    else
        log_event(c->log, LOG_tls_kept, log_str("reason", why));
    files_free(&f);
    os_lock_take(&c->lock);
    c->served = ticket;
    memcpy(c->why, why, sizeof why);
    os_lock_give(&c->lock);
}

bool certificates_asked(struct certificates *c, uint64_t ticket, char *ret_why, size_t why_len)
{
    os_lock_take(&c->lock);
    bool served = c->served >= ticket;
    if (served)
        snprintf(ret_why, why_len, "%s", c->why);
    os_lock_give(&c->lock);
    return served;
}

void certificates_close(struct certificates **c)
{
    if (!*c)
        return;
    tls_server_free(&(*c)->server);
    mem_free((*c)->dev_certificate);
    mem_free((*c)->dev_ca);
    os_lock_fini(&(*c)->lock);
    mem_free(*c);
    *c = NULL;
}
