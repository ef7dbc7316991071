/* Definitions at boot, see import.h. The hub's thread. */
#include "admin/import.h"

#include "admin/request.h"
#include "base/mem.h"

#include <stdio.h>

struct import {
    struct caller caller; /* first */
    struct definitions *definitions;
    struct request request; /* its ask is ours until it is sent */
    bool done;
    char failure[600];
};

static struct import *of_caller(struct caller *caller)
{
    return CONTAINER_OF(caller, struct import, caller);
}

static void send(struct import *import)
{
    struct request *request = &import->request;
    if (request->ask && caller_call(&import->caller, CMD_ADMIN, request->op, request->ask, request->wait_durable))
        request->ask = NULL;
}

static void fail(struct import *import, struct slice text)
{
    snprintf(import->failure, sizeof import->failure, "definitions: %s: %.*s", definitions_what(import->definitions),
             SLICE_ARG(text));
    import->done = true;
}

static void advance(struct import *import)
{
    const json_t *json = definitions_next(import->definitions);
    const char *why = NULL;
    if (!json)
        import->done = true;
    else if (!request_parse(json, &import->request, &why))
        fail(import, slice_str(why));
    else
        send(import);
}

static void on_done(struct caller *caller, const struct call_result *result)
{
    struct import *import = of_caller(caller);
    if (result->code == ERR_NONE)
        advance(import);
    else
        fail(import, result->answer ? result->answer->text : slice_str("refused"));
}

static void on_freed(struct caller *caller)
{
    struct import *import = of_caller(caller);
    mem_free(import->request.ask);
    definitions_free(&import->definitions);
    mem_free(import);
}

struct import *import_start(struct definitions **definitions, struct hub *hub)
{
    struct import *import = mem_zalloc(sizeof *import);
    if (!import || !caller_init(&import->caller, hub)) {
        mem_free(import);
        definitions_free(definitions);
        return NULL;
    }
    import->caller.on_done = on_done;
    import->caller.on_freed = on_freed;
    import->definitions = *definitions;
    *definitions = NULL;
    advance(import);
    return import;
}

bool import_done(struct import *import)
{
    if (!import->done && import->request.ask)
        send(import);
    return import->done;
}

const char *import_failure(const struct import *import)
{
    return import->failure[0] ? import->failure : NULL;
}

void import_free(struct import **import)
{
    struct caller *caller = *import ? &(*import)->caller : NULL;
    *import = NULL;
    if (caller)
        caller_close(caller);
}
