/* What all protocols of `millrace pub`, `sub` and `tail` share, see talk.h. */
#include "main/talk/talk.h"

#include "main/client/socket.h"
#include "net/tls_server.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int talk_fail(struct talk *t, const char *format, ...)
{
    va_list args;
    if (t->error[0])
        return -1; /* the first reason is the one that counts */
    va_start(args, format);
    vsnprintf(t->error, sizeof t->error, format, args);
    va_end(args);
    return -1;
}

void talk_held(struct talk *t, const char *why)
{
    char sentence[200];
    unsigned told = why ? 2 : 1;
    if (t->held_told >= told)
        return;
    t->held_told = told;
    if (why)
        snprintf(sentence, sizeof sentence,
                 "the broker holds publishers back (%.60s); this goes on by itself when that is over", why);
    else
        snprintf(sentence, sizeof sentence,
                 "nothing was confirmed for %d s: the broker may hold publishers back, for want of memory or disk "
                 "(millrace status tells); this goes on by itself",
                 TALK_HELD_MS / 1000);
    t->options->say(sentence);
}

int talk_connect(struct client_socket *s, const struct talk_options *o)
{
    if (client_socket_connect(s, o->host, o->port) != 0)
        return -1;
    return o->tls ? client_socket_tls(s, o->host, o->tls) : 0;
}

bool talk_is_certified(const struct talk_options *o)
{
    return o->tls && o->tls->own.certificate.name && !o->user;
}

static bool interval_parse(const char *text, wall_t now, wall_t *ret)
{
    static const struct {
        char unit;
        int64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'D', 86400}, {'d', 86400}};
    char *end;
    unsigned long long number = strtoull(text, &end, 10);
    if (end == text || *text == '-' || number > 100000000u)
        return false;
    for (size_t i = 0; i < ARRAY_LEN(units); i++)
        if (end[0] == units[i].unit && end[1] == '\0') {
            *ret = now - (wall_t)number * units[i].seconds * 1000;
            return true;
        }
    return false;
}

bool talk_time_parse(const char *text, wall_t now, wall_t *ret)
{
    static const char *const forms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"};
    if (interval_parse(text, now, ret))
        return true;
    for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
        struct tm parts = {.tm_mday = 1};
        const char *end = strptime(text, forms[i], &parts);
        if (!end || (*end && strcmp(end, "Z") != 0))
            continue;
        *ret = (wall_t)timegm(&parts) * 1000;
        return true;
    }
    return false;
}
