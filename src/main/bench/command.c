/* See bench/command.h. Nothing here knows a protocol. */
#include "command.h"

#include "os/os_process.h"
#include "report.h"

#include <argp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PROGRESS_EVERY = 100 };

static const char *command_name = "millrace bench";

/* In signal context. Whoever waits hears at once what he waits for. */
static void on_interrupt(void *arg)
{
    static const char text[] = "\nending in order; once more ends at once, and leaves behind what was made\n";
    (void)arg;
    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
}

void bench_command_begin(const char *name)
{
    struct rlimit limit;
    command_name = name;
    argp_err_exit_status = BENCH_EXIT_USAGE;
    os_signals_catch(on_interrupt, NULL);
    signal(SIGHUP, SIG_DFL); /* nobody is there to read a report */
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

bool bench_interrupted(void)
{
    return os_signal_caught() != 0;
}

int bench_fail(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", command_name, what, why);
    return BENCH_EXIT_FAILED;
}

int bench_refuse(const char *contradiction)
{
    bench_fail("options", contradiction);
    return BENCH_EXIT_USAGE;
}

int bench_command_end(struct bench_report *r, int code, bool json, const char *violation)
{
    if (bench_interrupted()) {
        bench_report_text(r, "run", "cut_short", "by a signal; these are the figures until then");
        code = code == BENCH_EXIT_OK ? BENCH_EXIT_CUT : code;
    }
    if (code != BENCH_EXIT_FAILED)
        bench_report_print(r, json, stdout);
    if (code == BENCH_EXIT_VIOLATION && violation != NULL)
        bench_fail("checks", violation);
    bench_report_free(r);
    return code;
}

uint32_t bench_run_id(void)
{
    return ((uint32_t)client_clock_ns() ^ (uint32_t)getpid() << 12) | 1;
}

bool bench_progress_wanted(bool asked, bool quiet)
{
    return asked || (!quiet && isatty(STDERR_FILENO));
}

void *bench_zeroed(size_t count, size_t size)
{
    void *p = calloc(count > 0 ? count : 1, size);
    if (p == NULL) {
        fputs("millrace bench: out of memory\n", stderr);
        abort();
    }
    return p;
}

void bench_progress(bool wanted, const char *what, uint64_t done, uint64_t all)
{
    if (wanted && (done % PROGRESS_EVERY == 0 || done == all))
        fprintf(stderr, "\r%s %llu of %llu%s", what, (unsigned long long)done, (unsigned long long)all,
                done == all ? "\r\033[K" : " ");
}

int bench_address_parse(const char *text, char *host, size_t host_cap, unsigned *port)
{
    const char *colon = strrchr(text, ':'), *end;
    size_t host_len = colon != NULL ? (size_t)(colon - text) : strlen(text);
    if (text[0] == '[') {
        end = strchr(text, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':'))
            return -1;
        colon = end[1] == ':' ? end + 1 : NULL;
        text++;
        host_len = (size_t)(end - text);
    }
    if (host_len >= host_cap)
        return -1;
    if (colon != NULL) {
        char *after;
        unsigned long number = strtoul(colon + 1, &after, 10);
        if (after == colon + 1 || *after != '\0' || colon[1] == '-' || number == 0 || number > 65535)
            return -1;
        *port = (unsigned)number;
    }
    if (host_len > 0)
        snprintf(host, host_cap, "%.*s", (int)host_len, text);
    return 0;
}
