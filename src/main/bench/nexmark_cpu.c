/* CPU time of the broker's threads, from /proc: who measures knows its process, a broker elsewhere has none to look at. */
#include "nexmark_int.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool line_read(unsigned pid, const char *thread, const char *file, char *ret, int room)
{
    char path[300];
    snprintf(path, sizeof(path), "/proc/%u/task/%s/%s", pid, thread, file);
    FILE *in = fopen(path, "r");
    if (in == NULL)
        return false;
    bool got = fgets(ret, room, in) != NULL;
    fclose(in);
    return got;
}

/* schedstat's first number is nanoseconds on a processor; stat counts ticks of 10 ms. */
struct bench_nexmark_cpu bench_nexmark_cpu(unsigned pid)
{
    struct bench_nexmark_cpu cpu = {0};
    char path[64], name[32], ran[128];
    const struct dirent *entry;
    snprintf(path, sizeof(path), "/proc/%u/task", pid);
    DIR *threads = pid != 0 ? opendir(path) : NULL;
    while (threads != NULL && (entry = readdir(threads)) != NULL) {
        if (entry->d_name[0] == '.' || !line_read(pid, entry->d_name, "comm", name, sizeof(name)) ||
            !line_read(pid, entry->d_name, "schedstat", ran, sizeof(ran)))
            continue;
        uint64_t ns = strtoull(ran, NULL, 10);
        cpu.all_s += (double)ns / 1e9;
        if (strcmp(name, "sql\n") == 0)
            cpu.sql_s += (double)ns / 1e9;
    }
    if (threads != NULL)
        closedir(threads);
    return cpu;
}
