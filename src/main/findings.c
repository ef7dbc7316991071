/* Findings on paper, see findings.h. Main thread. */
#include "main/findings.h"

#include "os/os_process.h"

#include <inttypes.h>

static const char *const weight_words[] = {
    [AUDIT_NOTE] = "note", [AUDIT_FLAW] = "flaw", [AUDIT_DAMAGE] = "DAMAGE", [AUDIT_UNREADABLE] = "UNREADABLE"};
static const char *const weight_names[] = {
    [AUDIT_NOTE] = "note", [AUDIT_FLAW] = "flaw", [AUDIT_DAMAGE] = "damage", [AUDIT_UNREADABLE] = "unreadable"};

void findings_init(struct findings *findings, struct os *os, bool json)
{
    *findings = (struct findings){.json = json, .list = json ? json_array() : NULL};
    progress_init(&findings->progress, os, json && !os_is_terminal(2));
}

void findings_end(struct findings *findings)
{
    progress_end(&findings->progress);
    json_decref(findings->list);
    findings->list = NULL;
}

void findings_progress(void *arg, const char *part, uint64_t done, uint64_t total)
{
    progress_show(&((struct findings *)arg)->progress, part, done, total);
}

static void set_number(json_t *object, const char *key, uint64_t value)
{
    json_object_set_new(object, key, json_integer((json_int_t)value));
}

/* Names are bytes; what is no UTF-8 is shown with question marks. */
static json_t *text_json(struct slice text)
{
    json_t *json = json_stringn(text.len ? (const char *)text.ptr : "", text.len);
    if (json)
        return json;
    char plain[256];
    size_t len = text.len < sizeof plain ? text.len : sizeof plain;
    for (size_t i = 0; i < len; i++)
        plain[i] = text.ptr[i] < 0x80 ? (char)text.ptr[i] : '?';
    return json_stringn(plain, len);
}

static void add_json(struct findings *findings, const struct audit_finding *f)
{
    json_t *object = json_pack("{s:s, s:s}", "weight", weight_names[f->weight], "file", f->file);
    if (f->at)
        set_number(object, "offset", f->offset);
    if (f->at && f->len)
        set_number(object, "bytes", f->len);
    if (f->first_lsn) {
        set_number(object, "first_lsn", f->first_lsn);
        set_number(object, "last_lsn", f->last_lsn);
    }
    if (f->vhost.len) {
        json_object_set_new(object, "vhost", text_json(f->vhost));
        json_object_set_new(object, "queue", text_json(f->queue));
        set_number(object, "first_position", f->first);
        set_number(object, "last_position", f->last);
        set_number(object, "messages", f->messages);
    }
    json_object_set_new(object, "what", json_string(f->what));
    json_object_set_new(object, "advice", json_string(f->advice));
    json_array_append_new(findings->list, object);
}

static void print(const struct audit_finding *f)
{
    printf("%-10s  %s", weight_words[f->weight], f->file);
    if (f->at)
        printf(" at offset %" PRIu64, f->offset);
    if (f->at && f->len)
        printf(" (%" PRIu64 " bytes)", f->len);
    printf(": %s\n", f->what);
    if (f->first_lsn)
        printf("%12slost: journal records %" PRIu64 " to %" PRIu64 "\n", "", f->first_lsn, f->last_lsn);
    if (f->vhost.len)
        printf("%12squeue '%.*s' in vhost '%.*s', positions %" PRIu64 " to %" PRIu64 ": %" PRIu64 " messages\n", "",
               SLICE_ARG(f->queue), SLICE_ARG(f->vhost), f->first, f->last, f->messages);
    printf("%12s%s\n", "", f->advice);
}

void findings_add(void *arg, const struct audit_finding *finding)
{
    struct findings *findings = arg;
    progress_clear(&findings->progress);
    if (findings->json)
        add_json(findings, finding);
    else
        print(finding);
}

json_t *findings_json(struct findings *findings, const struct audit_totals *t)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {{"journal_files", t->journal_files},
                {"groups", t->groups},
                {"records", t->records},
                {"journal_bytes", t->journal_bytes},
                {"segments", t->segments},
                {"pages", t->pages},
                {"page_messages", t->page_messages},
                {"page_bytes", t->page_bytes},
                {"stream_files", t->stream_files},
                {"stream_records", t->stream_records},
                {"stream_bytes", t->stream_bytes},
                {"queues", t->queues},
                {"messages", t->messages},
                {"notes", t->notes},
                {"flaws", t->flaws},
                {"damages", t->damages},
                {"unreadable", t->unreadable},
                {"lost_records", t->lost_records},
                {"lost_pages", t->lost_pages},
                {"lost_page_messages", t->lost_page_messages}};
    json_t *totals = json_object();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        set_number(totals, rows[i].name, rows[i].value);
    json_t *list = findings->list;
    findings->list = NULL;
    return json_pack("{s:o, s:o}", "findings", list, "totals", totals);
}

void findings_print_totals(const struct audit_totals *t)
{
    char journal[32], pages[32], streams[32];
    progress_bytes(t->stream_bytes, streams, sizeof streams);
    progress_bytes(t->journal_bytes, journal, sizeof journal);
    progress_bytes(t->page_bytes, pages, sizeof pages);
    printf("journal:   %" PRIu64 " files, %" PRIu64 " groups, %" PRIu64 " records, %s\n", t->journal_files, t->groups,
           t->records, journal);
    printf("segments:  %" PRIu64 " files, %" PRIu64 " pages in use with %" PRIu64 " messages, %s\n", t->segments,
           t->pages, t->page_messages, pages);
    printf("streams:   %" PRIu64 " files, %" PRIu64 " records, %s\n", t->stream_files, t->stream_records, streams);
    printf("holds:     %" PRIu64 " queues, %" PRIu64 " messages\n", t->queues, t->messages);
}
