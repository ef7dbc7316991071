/* The settings, see config.h. One thread.
 *
 * One row of config.def is everything a setting needs: a field of the struct, a parser by type, bounds, a line of the
 * reference. Values are parsed into a fresh struct with its defaults; only when every source has been read without
 * complaint is the struct handed out, so a wrong line can never leave half a configuration behind.
 * libinih splits lines; it does not tell line numbers, but it asks for each line, so we count what we gave it. */
#include "main/config.h"

#include "base/check.h"
#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdlib.h>
#include <strings.h>

#define FILE_BYTES_MAX (1u << 20)
#define KEY_LEN_MAX 64

enum setting_type { TYPE_TEXT, TYPE_NUMBER, TYPE_BYTES, TYPE_FLAG, TYPE_CHOICE, TYPE_LEVEL, TYPE_ADDRESSES };

struct setting {
    enum setting_type type;
    const char *key, *preset, *unit, *variable, *text;
    size_t at;
    uint64_t min, max;
};

static const struct setting settings[] = {
#define SETTING(type, field, key, preset, min, max, unit, variable, text)                                              \
    {TYPE_##type, key, preset, unit, variable, text, offsetof(struct config, field), min, max},
#include "main/config.def"
#undef SETTING
};

/* Where a value came from, for the sentence that complains about it. */
struct origin {
    const char *what; /* the file's name, the variable's name, or "--set" */
    unsigned line;    /* 0: no line */
};

struct load {
    struct config config;
    char *why;
    size_t why_len;
    int err;
    struct origin origin;
};

__attribute__((format(printf, 2, 3))) static int complain(struct load *load, const char *format, ...)
{
    char where[300] = "";
    if (load->origin.line)
        snprintf(where, sizeof where, "%.250s:%u: ", load->origin.what, load->origin.line);
    else if (load->origin.what)
        snprintf(where, sizeof where, "%.250s: ", load->origin.what);
    char text[600];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (load->err == 0) /* the first complaint counts */
        snprintf(load->why, load->why_len, "%s%s", where, text);
    load->err = load->err ? load->err : -EINVAL;
    return load->err;
}

static const struct setting *setting_find(const char *key)
{
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        if (strcmp(settings[i].key, key) == 0)
            return &settings[i];
    return NULL;
}

/* Edits (insert, remove, change one character) from a to b. */
static unsigned distance(const char *a, const char *b)
{
    unsigned row[KEY_LEN_MAX + 1];
    size_t b_len = strnlen(b, KEY_LEN_MAX);
    for (size_t j = 0; j <= b_len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 0; a[i] && i < KEY_LEN_MAX; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i + 1;
        for (size_t j = 0; j < b_len; j++) {
            unsigned change = diagonal + (tolower((unsigned char)a[i]) != b[j]);
            unsigned other = (row[j] < row[j + 1] ? row[j] : row[j + 1]) + 1;
            diagonal = row[j + 1];
            row[j + 1] = change < other ? change : other;
        }
    }
    return row[b_len];
}

const char *config_nearest(const char *key)
{
    const char *best = NULL;
    unsigned best_distance = (unsigned)strlen(key) / 2 + 1; /* what is further away has nothing to do with it */
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        unsigned d = distance(key, settings[i].key);
        if (d < best_distance) {
            best_distance = d;
            best = settings[i].key;
        }
    }
    return best;
}

/* ---- values ---- */

/* A whole number with an optional unit: 64k, 16M, 1GiB. False: not a number, or too large. */
static bool parse_number(const char *text, bool units, uint64_t *ret)
{
    if (!isdigit((unsigned char)*text))
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno)
        return false;
    static const struct {
        const char *name;
        unsigned shift;
    } rows[] = {{"", 0},     {"k", 10},   {"m", 20},  {"g", 30},  {"t", 40},  {"kib", 10}, {"mib", 20},
                {"gib", 30}, {"tib", 40}, {"kb", 10}, {"mb", 20}, {"gb", 30}, {"b", 0}};
    for (size_t i = 0; i < ARRAY_LEN(rows) && (units || i == 0); i++) {
        if (strcasecmp(end, rows[i].name) != 0)
            continue;
        *ret = (uint64_t)v << rows[i].shift;
        return *ret >> rows[i].shift == v;
    }
    return false;
}

static int set_number(struct load *load, const struct setting *s, const char *text, uint64_t *ret)
{
    uint64_t v;
    if (!parse_number(text, s->type == TYPE_BYTES, &v))
        return complain(load, "%s = %s is not a whole number%s", s->key, text,
                        s->type == TYPE_BYTES ? " (units: K, M, G)" : "");
    if (v < s->min || v > s->max)
        return complain(load, "%s = %s is outside %llu to %llu", s->key, text, (unsigned long long)s->min,
                        (unsigned long long)s->max);
    *ret = v;
    return 0;
}

static int set_flag(struct load *load, const struct setting *s, const char *text, bool *ret)
{
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++)
        if (strcasecmp(text, yes[i]) == 0 || strcasecmp(text, no[i]) == 0) {
            *ret = strcasecmp(text, yes[i]) == 0;
            return 0;
        }
    return complain(load, "%s = %s is neither true nor false", s->key, text);
}

static int set_choice(struct load *load, const struct setting *s, const char *text, unsigned *ret)
{
    unsigned index = 0;
    for (const char *at = s->unit; *at; index++) {
        size_t len = strcspn(at, "|");
        if (strlen(text) == len && strncasecmp(text, at, len) == 0) {
            *ret = index;
            return 0;
        }
        at += len + (at[len] == '|');
    }
    return complain(load, "%s = %s is none of %s", s->key, text, s->unit);
}

static int set_level(struct load *load, const struct setting *s, const char *text, double *ret)
{
    char *end;
    double share = strtod(text, &end);
    uint64_t bytes;
    if (*text && *end == '\0' && share >= 0 && share <= 1)
        *ret = share;
    else if (parse_number(text, true, &bytes) && bytes <= s->max)
        *ret = (double)bytes;
    else
        return complain(load, "%s = %s is neither a share from 0 to 1 nor a number of bytes", s->key, text);
    return 0;
}

static bool is_separator(char c)
{
    return c == ' ' || c == ',' || c == '\t';
}

bool config_address_next(const char **list, char *ret_host, size_t host_len, uint16_t *ret_port)
{
    const char *at = *list;
    while (is_separator(*at))
        at++;
    size_t len = strcspn(at, " ,\t");
    const char *colon = len ? memrchr(at, ':', len) : NULL;
    if (!colon)
        return false;
    *list = at + len;
    const char *host = at, *host_end = colon;
    if (*host == '[' && host_end > host && host_end[-1] == ']') {
        host++;
        host_end--;
    }
    char port[8] = "";
    size_t port_len = len - (size_t)(colon - at) - 1;
    uint64_t number;
    if (host_end <= host || (size_t)(host_end - host) >= host_len || port_len == 0 || port_len >= sizeof port)
        return false;
    memcpy(port, colon + 1, port_len);
    if (!parse_number(port, false, &number) || number > UINT16_MAX)
        return false;
    memcpy(ret_host, host, (size_t)(host_end - host));
    ret_host[host_end - host] = '\0';
    *ret_port = (uint16_t)number;
    return true;
}

static int set_text(struct load *load, const struct setting *s, const char *text, char **ret)
{
    size_t len = strlen(text);
    if (len < s->min || len > s->max)
        return complain(load, "%s has %zu characters, %llu to %llu are allowed", s->key, len,
                        (unsigned long long)s->min, (unsigned long long)s->max);
    if (s->type == TYPE_ADDRESSES) {
        const char *rest = text;
        char host[256];
        uint16_t port;
        while (config_address_next(&rest, host, sizeof host, &port))
            ;
        if (rest[strspn(rest, " ,\t")] != '\0')
            return complain(load, "%s: %s is not of the form host:port", s->key, rest + strspn(rest, " ,\t"));
    }
    char *copy = mem_strdup(text);
    if (!copy) {
        load->err = -ENOMEM;
        snprintf(load->why, load->why_len, "out of memory");
        return load->err;
    }
    mem_free(*ret);
    *ret = copy;
    return 0;
}

static int set_value(struct load *load, const struct setting *s, const char *text)
{
    void *at = (char *)&load->config + s->at;
    switch (s->type) {
    case TYPE_TEXT:
    case TYPE_ADDRESSES: return set_text(load, s, text, at);
    case TYPE_NUMBER:
    case TYPE_BYTES: return set_number(load, s, text, at);
    case TYPE_FLAG: return set_flag(load, s, text, at);
    case TYPE_CHOICE: return set_choice(load, s, text, at);
    case TYPE_LEVEL: return set_level(load, s, text, at);
    }
    CHECK(!"a setting without a type");
    return -EINVAL;
}

static int complain_unknown(struct load *load, const char *key)
{
    const char *nearest = config_nearest(key);
    return nearest ? complain(load, "there is no setting %s; did you mean %s?", key, nearest)
                   : complain(load, "there is no setting %s; millrace reference lists them", key);
}

static int set_key(struct load *load, const char *key, const char *value)
{
    const struct setting *s = setting_find(key);
    if (!s)
        return complain_unknown(load, key);
    return set_value(load, s, value);
}

/* ---- sources ---- */

static void take_presets(struct load *load)
{
    load->origin = (struct origin){.what = "default"};
    for (size_t i = 0; i < ARRAY_LEN(settings); i++)
        set_value(load, &settings[i], settings[i].preset);
}

struct lines {
    struct load *load;
    const char *at, *end;
};

static char *give_line(char *ret, int max, void *stream)
{
    struct lines *lines = stream;
    if (lines->at == lines->end)
        return NULL;
    const char *newline = memchr(lines->at, '\n', (size_t)(lines->end - lines->at));
    size_t len = (size_t)((newline ? newline + 1 : lines->end) - lines->at);
    lines->load->origin.line++;
    if (len >= (size_t)max) {
        complain(lines->load, "the line is longer than %d characters", max - 2);
        return NULL;
    }
    memcpy(ret, lines->at, len);
    ret[len] = '\0';
    lines->at += len;
    return ret;
}

static int on_pair(void *arg, const char *section, const char *name, const char *value)
{
    struct load *load = arg;
    char key[KEY_LEN_MAX * 2];
    snprintf(key, sizeof key, "%s%s%s", section, *section ? "." : "", name);
    set_key(load, key, value ? value : "");
    return load->err == 0;
}

static int parse_lines(struct load *load, const char *name, const char *text, size_t len)
{
    struct lines lines = {.load = load, .at = text, .end = text + len};
    load->origin = (struct origin){.what = name};
    if (memchr(text, '\0', len))
        return complain(load, "this is not a text file");
    int line = ini_parse_stream(give_line, &lines, on_pair, load);
    if (line != 0 && load->err == 0) {
        load->origin.line = line > 0 ? (unsigned)line : 0;
        complain(load, "this is neither [section] nor key = value");
    }
    return load->err;
}

static int take_file(struct load *load, struct os *os, const char *name)
{
    int fd, err = os->open(os, name, OS_READ, &fd);
    if (err < 0) {
        snprintf(load->why, load->why_len, "cannot read the configuration %s: %s", name, strerror(-err));
        return load->err = err;
    }
    char *text = mem_alloc(FILE_BYTES_MAX);
    int64_t len = text ? os->pread(os, fd, text, FILE_BYTES_MAX, 0) : -ENOMEM;
    os->close(os, fd);
    if (len < 0 || len == FILE_BYTES_MAX) {
        snprintf(load->why, load->why_len, "cannot read the configuration %s: %s", name,
                 len < 0 ? strerror((int)-len) : "it is larger than 1 MiB");
        load->err = len < 0 ? (int)len : -EFBIG;
    } else {
        parse_lines(load, name, text, (size_t)len);
    }
    mem_free(text);
    return load->err;
}

static void variable_name(const char *key, char ret[KEY_LEN_MAX + 10])
{
    int len = snprintf(ret, KEY_LEN_MAX + 10, "MILLRACE_%s", key);
    for (int i = 9; i < len; i++)
        ret[i] = ret[i] == '.' ? '_' : (char)toupper((unsigned char)ret[i]);
}

static int take_variables(struct load *load, const char *(*variable)(const char *name))
{
    for (size_t i = 0; i < ARRAY_LEN(settings) && load->err == 0; i++) {
        char own[KEY_LEN_MAX + 10];
        variable_name(settings[i].key, own);
        const char *names[] = {settings[i].variable, own};
        for (size_t j = 0; j < ARRAY_LEN(names); j++) {
            const char *value = names[j] ? variable(names[j]) : NULL;
            if (!value)
                continue;
            load->origin = (struct origin){.what = names[j]};
            set_value(load, &settings[i], value);
        }
    }
    return load->err;
}

static int take_set(struct load *load, const char *set)
{
    load->origin = (struct origin){.what = "--set"};
    const char *equals = strchr(set, '=');
    if (!equals)
        return complain(load, "%s is not of the form key=value", set);
    char key[KEY_LEN_MAX * 2];
    snprintf(key, sizeof key, "%.*s", (int)(equals - set), set);
    return set_key(load, key, equals + 1);
}

int config_load(struct config *ret, const struct config_sources *sources, char *why, size_t why_len)
{
    struct load load = {.why = why, .why_len = why_len};
    take_presets(&load);
    if (load.err == 0 && sources->file)
        take_file(&load, sources->os, sources->file);
    if (load.err == 0 && sources->variable)
        take_variables(&load, sources->variable);
    for (size_t i = 0; i < sources->set_count && load.err == 0; i++)
        take_set(&load, sources->sets[i]);
    if (load.err < 0) {
        config_free(&load.config);
        return load.err;
    }
    *ret = load.config;
    return 0;
}

bool config_is_preset(const struct config *config, const char *key)
{
    const struct setting *s = setting_find(key);
    CHECK(s && (s->type == TYPE_TEXT || s->type == TYPE_ADDRESSES));
    return strcmp(*(char *const *)(const void *)((const char *)config + s->at), s->preset) == 0;
}

void config_free(struct config *config)
{
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        if (settings[i].type != TYPE_TEXT && settings[i].type != TYPE_ADDRESSES)
            continue;
        char **text = (char **)(void *)((char *)config + settings[i].at);
        if (*text && strcmp(settings[i].key, "default_pass") == 0)
            explicit_bzero(*text, strlen(*text));
        mem_free(*text);
        *text = NULL;
    }
}

/* ---- reference ---- */

static void print_bounds(FILE *to, const struct setting *s)
{
    if (s->type == TYPE_NUMBER || s->type == TYPE_BYTES)
        fprintf(to, "%llu to %llu", (unsigned long long)s->min, (unsigned long long)s->max);
    else if (s->type == TYPE_FLAG)
        fputs("true or false", to);
    else if (s->type == TYPE_CHOICE)
        for (const char *at = s->unit; *at; at++)
            fputs(*at == '|' ? ", " : (char[]){*at, '\0'}, to);
    else if (s->type == TYPE_TEXT)
        fprintf(to, "%llu to %llu characters", (unsigned long long)s->min, (unsigned long long)s->max);
}

void config_print_reference(FILE *to)
{
    fputs("| setting | default | unit | allowed | meaning |\n|---|---|---|---|---|\n", to);
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        const struct setting *s = &settings[i];
        fprintf(to, "| `%s` | %s%s%s | %s | ", s->key, *s->preset ? "`" : "", s->preset, *s->preset ? "`" : "",
                s->type == TYPE_CHOICE ? "" : s->unit);
        print_bounds(to, s);
        fprintf(to, " | %s", s->text);
        if (s->variable)
            fprintf(to, " (also: `%s`)", s->variable);
        fputs(" |\n", to);
    }
}
