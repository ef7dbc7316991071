/* The process and its limits, see os_process.h.
 *
 * The words at the top are the second exception to "no globals" (the first is the heap's account): a signal handler
 * is given nothing but a number. */
#include "os/os_process.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SAME_SIGNAL_NS (20 * NS_PER_MS)

static _Atomic int caught;
static _Atomic int64_t caught_at = INT64_MAX;
static _Atomic bool hung_up, interrupted;
static void (*on_first)(void *arg);
static void *on_first_arg;

uint64_t os_descriptors_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1024;
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return before;
    return limit.rlim_cur == RLIM_INFINITY ? 1u << 20 : limit.rlim_cur;
}

bool os_is_special(const char *path)
{
    struct stat there;
    return stat(path, &there) == 0 && !S_ISREG(there.st_mode);
}

bool os_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

unsigned os_terminal_columns(int fd)
{
    struct winsize size;
    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

/* The first line of a small file; an empty text when there is none. */
static void read_line(const char *path, char *ret, size_t len)
{
    ret[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, ret, len - 1);
    close(fd);
    ret[n > 0 ? n : 0] = '\0';
    ret[strcspn(ret, "\n")] = '\0';
}

static uint64_t read_limit(const char *path)
{
    char line[64];
    read_line(path, line, sizeof line);
    uint64_t v = strtoull(line, NULL, 10); /* "max" and an absent file: 0 */
    return v ? v : UINT64_MAX;
}

/* The least of what file says in folder and in all folders above it, up to root: each binds those below. */
static uint64_t limit_upwards(const char *root, const char *folder, const char *file)
{
    char path[1200];
    uint64_t least = UINT64_MAX;
    for (size_t len = strlen(folder);; len--) {
        if (len && folder[len] != '/' && folder[len] != '\0')
            continue;
        snprintf(path, sizeof path, "%s%.*s/%s", root, (int)len, folder, file);
        uint64_t limit = read_limit(path);
        least = limit < least ? limit : least;
        if (len == 0)
            return least;
    }
}

/* A line of /proc/self/cgroup is number:controllers:folder; v2 is number 0 without controllers. In a container the folder
 * may not exist below the mount, whose top is then the group itself. */
static uint64_t cgroup_limit(void)
{
    char line[1024];
    uint64_t least = UINT64_MAX;
    FILE *groups = fopen("/proc/self/cgroup", "re");
    while (groups && fgets(line, sizeof line, groups)) {
        line[strcspn(line, "\n")] = '\0';
        char *controllers = strchr(line, ':'), *folder = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!folder)
            continue;
        *folder++ = '\0';
        uint64_t limit = UINT64_MAX;
        if (strcmp(controllers + 1, "memory") == 0)
            limit = limit_upwards("/sys/fs/cgroup/memory", folder, "memory.limit_in_bytes");
        else if (controllers[1] == '\0')
            limit = limit_upwards("/sys/fs/cgroup", folder, "memory.max");
        least = limit < least ? limit : least;
    }
    if (groups)
        fclose(groups);
    return least;
}

uint64_t os_memory_total(void)
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t group = cgroup_limit();
    return group < machine ? group : machine;
}

uint64_t os_memory_resident(void)
{
    char line[128], *at;
    read_line("/proc/self/statm", line, sizeof line);
    strtoull(line, &at, 10);
    return strtoull(at, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

void os_memory_figures(struct os_memory *ret)
{
    char line[128], *at;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    read_line("/proc/self/statm", line, sizeof line);
    strtoull(line, &at, 10);
    ret->resident = strtoull(at, &at, 10) * page;
    ret->files = strtoull(at, NULL, 10) * page;
    struct mallinfo2 heap = mallinfo2();
    ret->heap = heap.uordblks + heap.hblkhd;
}

unsigned os_processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? (unsigned)n : 1;
}

/* The sanitizers look at the process from a tracer of their own. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ALWAYS_DUMPABLE true
#endif
#endif
#ifndef ALWAYS_DUMPABLE
#define ALWAYS_DUMPABLE false
#endif

void os_dumpable_set(bool dumpable)
{
    dumpable = dumpable || ALWAYS_DUMPABLE;
    prctl(PR_SET_DUMPABLE, dumpable ? 1 : 0, 0, 0, 0);
}

/* The thresholds are fixed because by default one big free makes glibc keep every later one on the heap; large message
 * bodies go to mmap and come back at once. */
void os_allocator_tune(unsigned arenas)
{
    mallopt(M_ARENA_MAX, (int)arenas);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    mallopt(M_TRIM_THRESHOLD,
            32 << 20); /* what is on its way comes and goes: to fault it in again costs 6 % of a load of 1 KB */
    mallopt(M_TOP_PAD, 64 << 10);
}

void os_allocator_trim(void)
{
    malloc_trim(0);
}

static int64_t signal_time(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

/* timeout(1) and some supervisors send each signal twice, to the process and to its group: that is one signal. */
static void on_signal(int number)
{
    int saved = errno;
    int none = 0;
    if (atomic_compare_exchange_strong(&caught, &none, number)) {
        atomic_store(&caught_at, signal_time());
        on_first(on_first_arg);
    } else if (signal_time() - atomic_load(&caught_at) > SAME_SIGNAL_NS) {
        _exit(128 + number);
    }
    errno = saved;
}

static void on_hang_up(int number)
{
    int saved = errno;
    (void)number;
    atomic_store(&hung_up, true);
    on_first(on_first_arg);
    errno = saved;
}

void os_signals_catch(void (*first)(void *arg), void *arg)
{
    on_first = first;
    on_first_arg = arg;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    action.sa_handler = on_hang_up;
    sigaction(SIGHUP, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

bool os_signal_hung_up(void)
{
    return atomic_load_explicit(&hung_up, memory_order_relaxed) && atomic_exchange(&hung_up, false);
}

/* One that comes a moment before the wait begins ends nothing: so it is said again every second, until somebody has heard of it. */
static void on_interrupt(int number)
{
    if (number == SIGINT)
        atomic_store(&interrupted, true);
    if (atomic_load(&interrupted))
        alarm(1);
}

void os_interrupts_keep(void)
{
    struct sigaction action = {.sa_handler = on_interrupt}; /* no SA_RESTART: who waits is to hear of it */
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGALRM, &action, NULL);
}

bool os_interrupt_taken(void)
{
    bool taken = atomic_exchange(&interrupted, false);
    if (taken)
        alarm(0);
    return taken;
}

int os_signal_caught(void)
{
    return atomic_load(&caught);
}
