/* log: one line per event, with a stable id from log.def, as text or JSON, on standard error.
 *
 * Life cycle: log_init → log_event … Any thread; a line is one write of at most 2 KiB, longer ones are cut.
 *   log_event(log, LOG_listening, log_str("address", a), log_num("port", 5672));
 */
#ifndef MILLRACE_OS_LOG_H
#define MILLRACE_OS_LOG_H

#include "base/types.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARNING, LOG_LEVEL_ERROR };

enum log_id {
#define LOG(id, level, text) LOG_##id,
#include "os/log.def"
#undef LOG
    LOG_COUNT
};

struct log_row {
    const char *id, *text;
    enum log_level level;
};

struct log {
    int fd; /* 2; tests write elsewhere */
    bool json;
    enum log_level level; /* events below it are not written */
};

struct log_field {
    const char *key;
    const char *text; /* NULL: number counts */
    int64_t number;
};

static inline struct log_field log_str(const char *key, const char *text)
{
    return (struct log_field){.key = key, .text = text ? text : ""};
}

static inline struct log_field log_num(const char *key, int64_t number)
{
    return (struct log_field){.key = key, .number = number};
}

const struct log_row *log_row(enum log_id id);
const char *log_level_name(enum log_level level);
void log_init(struct log *log, bool json);
/* log may be NULL: nothing is written. */
void log_line(const struct log *log, enum log_id id, const struct log_field *fields, size_t count);

#define log_event(log, id, ...)                                                                                        \
    log_line(log, id, (const struct log_field[]){__VA_ARGS__},                                                         \
             sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field))

#endif
