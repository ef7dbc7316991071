/* The scrub of a running broker, see scrubber.h. Thread: the scrub's, but for start, stop and join. */
#include "main/scrubber.h"

#include "admin/control_client.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>

#define FIRST_S 300

struct scrubber {
    const struct config *config;
    const struct log *log;
    const struct journal *journal;
    struct scrub *scrub;
};

static lsn_t durable(void *arg)
{
    return journal_durable(((struct scrubber *)arg)->journal);
}

static uint64_t number(const json_t *row, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(row, key));
}

static void text(const json_t *row, const char *key, char *ret, size_t len)
{
    const char *value = json_string_value(json_object_get(row, key));
    snprintf(ret, len, "%s", value ? value : "?");
}

static int take_rows(const json_t *rows, uint32_t segment, struct scrub_page *ret, unsigned max)
{
    unsigned count = 0;
    for (size_t i = 0; i < json_array_size(rows) && count < max; i++) {
        const json_t *row = json_array_get(rows, i);
        struct scrub_page *page = &ret[count++];
        *page = (struct scrub_page){.where = {.segment = segment,
                                              .offset = (uint32_t)number(row, "offset"),
                                              .len = (uint32_t)number(row, "bytes")},
                                    .queue_id = number(row, "queue_id"),
                                    .first = number(row, "first_position"),
                                    .last = number(row, "last_position"),
                                    .messages = number(row, "messages")};
        text(row, "queue", page->queue, sizeof page->queue);
        text(row, "vhost", page->vhost, sizeof page->vhost);
    }
    return (int)count;
}

static int pages(void *arg, uint32_t segment, struct scrub_page *ret, unsigned max)
{
    struct scrubber *scrubber = arg;
    struct control_client client;
    int err = control_client_open(&client, scrubber->config->data);
    if (err)
        return err;
    json_t *answer =
        control_client_request(&client, json_pack("{s:s, s:I}", "op", "PAGE_LIST", "number", (json_int_t)segment));
    int count = json_is_true(json_object_get(answer, "ok"))
                    ? take_rows(json_object_get(answer, "rows"), segment, ret, max)
                    : -EPIPE;
    json_decref(answer);
    control_client_close(&client);
    return count;
}

static void on_damage(void *arg, const struct scrub_damage *damage)
{
    struct scrubber *scrubber = arg;
    const struct scrub_page *page = damage->page;
    if (page)
        log_event(scrubber->log, LOG_scrub_damage, log_str("file", damage->file),
                  log_num("offset", (int64_t)damage->offset), log_num("bytes", (int64_t)damage->len),
                  log_str("vhost", page->vhost), log_str("queue", page->queue),
                  log_num("first_position", (int64_t)page->first), log_num("last_position", (int64_t)page->last),
                  log_num("messages", (int64_t)page->messages), log_str("reason", damage->what),
                  log_str("advice", damage->advice));
    else
        log_event(scrubber->log, LOG_scrub_damage, log_str("file", damage->file),
                  log_num("offset", (int64_t)damage->offset), log_str("reason", damage->what),
                  log_str("advice", damage->advice));
}

int scrubber_start(struct os *os, const struct config *config, const struct log *log, const struct journal *journal,
                   struct scrubber **ret)
{
    struct scrubber *scrubber = mem_zalloc(sizeof *scrubber);
    if (!scrubber)
        return -ENOMEM;
    *scrubber = (struct scrubber){.config = config, .log = log, .journal = journal};
    int64_t first = config->scrub_every_s < FIRST_S ? (int64_t)config->scrub_every_s : FIRST_S;
    struct scrub_options options = {.os = os,
                                    .dir = config->data,
                                    .bytes_per_second = config->scrub_rate,
                                    .first_ns = first * NS_PER_S,
                                    .every_ns = (int64_t)config->scrub_every_s * NS_PER_S,
                                    .durable = durable,
                                    .pages = pages,
                                    .on_damage = on_damage,
                                    .arg = scrubber};
    memcpy(options.uuid, journal_uuid(journal), sizeof options.uuid);
    int err = scrub_start(&options, &scrubber->scrub);
    if (err) {
        mem_free(scrubber);
        return err;
    }
    *ret = scrubber;
    return 0;
}

void scrubber_stats(const struct scrubber *scrubber, struct scrub_stats *ret)
{
    scrub_stats(scrubber->scrub, ret);
}

void scrubber_stop(struct scrubber *scrubber)
{
    scrub_stop(scrubber->scrub);
}

void scrubber_join(struct scrubber **slot)
{
    struct scrubber *scrubber = *slot;
    *slot = NULL;
    if (!scrubber)
        return;
    scrub_join(&scrubber->scrub);
    mem_free(scrubber);
}
