/* A folder that is whole or not there, see new_folder.h. Any one thread. */
#include "store/new_folder.h"

#include "base/check.h"
#include "store/audit.h"

#include <errno.h>
#include <stdio.h>

struct cleaning {
    struct new_folder *folder;
    const char *below; /* "", "wal", … */
    bool stranger;
};

static int failed(int err, char *why, size_t why_len, const char *what, const char *path)
{
    snprintf(why, why_len, "cannot %s %s: %s", what, path, strerror(-err));
    return err;
}

static int no_name(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return -ENOTEMPTY;
}

/* Removes what is ours. The data folder itself comes last, when the folders in it are empty. */
static int clean_name(void *arg, const char *name)
{
    struct cleaning *cleaning = arg;
    struct os *os = cleaning->folder->os;
    char path[2 * WAL_PATH_MAX];
    if (!audit_knows(cleaning->below, name)) {
        cleaning->stranger = true;
        return 0;
    }
    int n = snprintf(path, sizeof path, "%s/%s%s%s", cleaning->folder->partial, cleaning->below,
                     *cleaning->below ? "/" : "", name);
    CHECK(n > 0 && (size_t)n < sizeof path);
    int err = os->unlink(os, path);
    return err == -ENOENT ? 0 : err;
}

static int clean(struct new_folder *folder, char *why, size_t why_len)
{
    static const char *const below[] = {"wal", "seg", "str", ""};
    char path[WAL_PATH_MAX + 8];
    for (size_t i = 0; i < ARRAY_LEN(below); i++) {
        struct cleaning cleaning = {folder, below[i], false};
        snprintf(path, sizeof path, "%s%s%s", folder->partial, *below[i] ? "/" : "", below[i]);
        int err = folder->os->list(folder->os, path, clean_name, &cleaning);
        if (cleaning.stranger) {
            snprintf(why, why_len, "%s is in the way, and holds more than an interrupted attempt leaves: remove it",
                     path);
            return -ENOTEMPTY;
        }
        if (err && err != -ENOENT)
            return failed(err, why, why_len, "clean", path);
    }
    return 0;
}

int new_folder_begin(struct new_folder *folder, struct os *os, const char *name, char *why, size_t why_len)
{
    *folder = (struct new_folder){.os = os};
    size_t len = strlen(name);
    while (len > 1 && name[len - 1] == '/')
        len--;
    int n = snprintf(folder->name, sizeof folder->name, "%.*s", (int)len, name);
    int m = snprintf(folder->partial, sizeof folder->partial, "%.*s.partial", (int)len, name);
    if (n <= 0 || m <= 0 || (size_t)m + 64 > sizeof folder->partial)
        return failed(-ENAMETOOLONG, why, why_len, "make", name);
    int err = os->list(os, folder->name, no_name, NULL);
    if (err && err != -ENOENT)
        return failed(err, why, why_len, "use", folder->name);
    err = os->mkdir(os, folder->partial);
    if (err == -EEXIST)
        return clean(folder, why, why_len);
    return err ? failed(err, why, why_len, "make", folder->partial) : 0;
}

static int sync_parent(struct os *os, const char *name)
{
    char parent[WAL_PATH_MAX];
    size_t n = strlen(name);
    while (n && name[n - 1] != '/')
        n--;
    while (n > 1 && name[n - 1] == '/')
        n--;
    memcpy(parent, name, n);
    parent[n] = '\0';
    return os->sync_dir(os, n ? parent : ".");
}

int new_folder_finish(struct new_folder *folder, char *why, size_t why_len)
{
    struct os *os = folder->os;
    int err = os->sync_dir(os, folder->partial);
    if (!err)
        err = os->rename(os, folder->partial, folder->name);
    if (!err)
        err = sync_parent(os, folder->name);
    return err ? failed(err, why, why_len, "finish", folder->name) : 0;
}
