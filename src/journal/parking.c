/* Files on their way out, see parking.h. */
#include "journal/parking.h"

#include "base/mem.h"

int parking_unlink(struct parking *parking, const char *path)
{
    if (!parking->held)
        return parking->os->unlink(parking->os, path);
    if (parking->len == parking->cap) {
        size_t cap = parking->cap ? parking->cap * 2 : 16;
        char **paths = mem_realloc(parking->paths, cap * sizeof(char *));
        if (!paths)
            return 0; /* it stays, and the next start removes it */
        parking->paths = paths;
        parking->cap = cap;
    }
    char *copy = mem_strdup(path);
    if (copy)
        parking->paths[parking->len++] = copy;
    return 0;
}

bool parking_step(struct parking *parking)
{
    if (parking->held || !parking->len)
        return false;
    char *path = parking->paths[--parking->len];
    (void)parking->os->unlink(parking->os, path); /* if not now, then at the next start */
    mem_free(path);
    if (!parking->len)
        parking_fini(parking);
    return true;
}

void parking_fini(struct parking *parking)
{
    while (parking->len)
        mem_free(parking->paths[--parking->len]);
    mem_free(parking->paths);
    parking->paths = NULL;
    parking->cap = 0;
}
