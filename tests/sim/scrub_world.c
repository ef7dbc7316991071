/* The scrub of the simulator's broker, see scrub_world.h. */
#include "scrub_world.h"

#include <stdio.h>

static lsn_t durable(void *arg)
{
    return journal_durable(((struct world *)arg)->journal);
}

struct asked {
    uint32_t segment;
    unsigned count, max;
    struct scrub_page *ret;
};

static int on_page(void *arg, const struct broker_page *page)
{
    struct asked *asked = arg;
    if (page->where.segment != asked->segment || page->live == 0 || asked->count == asked->max)
        return 0;
    struct scrub_page *row = &asked->ret[asked->count++];
    *row = (struct scrub_page){.where = page->where,
                               .queue_id = page->queue_id,
                               .first = page->first,
                               .last = page->last,
                               .messages = page->live};
    snprintf(row->queue, sizeof row->queue, "%.*s", SLICE_ARG(page->queue));
    snprintf(row->vhost, sizeof row->vhost, "%.*s", SLICE_ARG(page->vhost));
    return 0;
}

static int pages(void *arg, uint32_t segment, struct scrub_page *ret, unsigned max)
{
    struct world *w = arg;
    struct asked asked = {segment, 0, max, ret};
    int err = broker_pages(w->broker, on_page, &asked);
    return err ? err : (int)asked.count;
}

static void on_damage(void *arg, const struct scrub_damage *damage)
{
    struct world *w = arg;
    if (!damage->file[0] || !damage->what[0] || !damage->advice[0])
        model_fault(w->model, "the scrub tells of damage and does not say of what");
}

struct scrub_report world_scrub(struct world *w)
{
    struct scrub_report ret = {0};
    struct scrub *idle;
    struct scrub_options options = {
        .os = w->os, .dir = "/data", .durable = durable, .pages = pages, .on_damage = on_damage, .arg = w};
    memcpy(options.uuid, journal_uuid(w->journal), sizeof options.uuid);
    ret.err = scrub_start(&options, &idle);
    if (ret.err)
        return ret;
    scrub_join(&idle);
    ret.err = scrub_round(&options, &ret.stats);
    return ret;
}
