/* The block of a fetch, see fetch.h. Any thread. */
#include "core/fetch.h"

#include "base/check.h"
#include "base/mem.h"

struct fetch *fetch_new(enum fetch_kind kind, uint32_t count)
{
    CHECK(count <= FETCH_ROWS_MAX);
    size_t rows = count * sizeof(struct fetch_row);
    struct fetch *fetch = mem_zalloc(sizeof *fetch + rows + sizeof *fetch->job);
    if (!fetch)
        return NULL;
    fetch->kind = kind;
    fetch->count = count;
    fetch->job = (struct stream_job *)(void *)&fetch->rows[count];
    fetch->job->type = STREAM_FETCH;
    fetch->job->fetch = fetch;
    for (uint32_t i = 0; i < count; i++)
        fetch->rows[i].epoch = fetch->rows[i].wanted = -1;
    return fetch;
}

void fetch_free(struct fetch **fetch)
{
    struct fetch *f = *fetch;
    *fetch = NULL;
    if (!f)
        return;
    for (uint32_t i = 0; i < f->count; i++) {
        file_piece_fini(&f->rows[i].piece);
        mem_free(f->rows[i].aborted);
        mem_free(f->rows[i].runs);
    }
    mem_free(f->sharer);
    mem_free(f);
}
