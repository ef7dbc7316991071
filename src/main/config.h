/* config: the settings: config.def made into a struct, an INI file, --set, the environment and a printed reference.
 *
 * Life cycle: config_load (everything is parsed before anything is taken over) → config_free. One thread.
 * Precedence, the later wins: default, file, environment, --set. `[journal]` + `direct_io = on` and
 * `journal.direct_io = on` are the same.
 */
#ifndef MILLRACE_MAIN_CONFIG_H
#define MILLRACE_MAIN_CONFIG_H

#include "base/types.h"
#include "os/os.h"

#include <stdio.h>

#define CONFIG_TEXT char *
#define CONFIG_ADDRESSES char *
#define CONFIG_NUMBER uint64_t
#define CONFIG_BYTES uint64_t
#define CONFIG_FLAG bool
#define CONFIG_CHOICE unsigned
#define CONFIG_LEVEL double

struct config {
#define SETTING(type, field, key, preset, min, max, unit, variable, text) CONFIG_##type field;
#include "main/config.def"
#undef SETTING
};

struct config_sources {
    struct os *os;
    const char *file;        /* NULL: none */
    const char *const *sets; /* key=value */
    size_t set_count;
    const char *(*variable)(const char *name); /* looks up the environment; NULL: there is none */
};

/* 0, or -EINVAL, -ENOMEM, or what reading the file answered; why then names file and line, variable or argument. */
MUST_USE int config_load(struct config *ret, const struct config_sources *sources, char *why, size_t why_len);
void config_free(struct config *config);

/* Splits one entry off a list of addresses. False: there is none left. The port is as written, without any offset.
 * The list was checked when it was loaded. */
bool config_address_next(const char **list, char *ret_host, size_t host_len, uint16_t *ret_port);

/* Is a text what it is when nobody has said anything? */
bool config_is_preset(const struct config *config, const char *key);

/* The key that is the least edits away from what was written; NULL: none is near. */
const char *config_nearest(const char *key);
/* A table in Markdown. */
void config_print_reference(FILE *to);

#endif
