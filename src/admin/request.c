/* Requests, see request.h; their form is described in control.h. Any thread. */
#include "admin/request.h"

#include "admin/table_json.h"
#include "base/mem.h"

#define ARGS_MAX (64u << 10)

static struct slice operand(const json_t *json, const char *key)
{
    const json_t *value = json_object_get(json, key);
    return json_is_string(value) ? slice_of(json_string_value(value), json_string_length(value)) : (struct slice){0};
}

static uint32_t flags_of(const json_t *json)
{
    static const struct {
        const char *name;
        uint32_t flag;
    } rows[] = {{"durable", ASK_DURABLE},   {"auto_delete", ASK_AUTO_DELETE}, {"internal", ASK_INTERNAL},
                {"if_empty", ASK_IF_EMPTY}, {"if_unused", ASK_IF_UNUSED},     {"exclusive", ASK_EXCLUSIVE}};
    uint32_t flags = ASK_INTERNAL_ADMIN;
    const json_t *list = json_object_get(json, "flags");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        for (size_t j = 0; name && j < ARRAY_LEN(rows); j++)
            if (strcmp(rows[j].name, name) == 0)
                flags |= rows[j].flag;
    }
    return flags;
}

bool request_parse(const json_t *json, struct request *ret, const char **why)
{
    const char *op_name = json_string_value(json_object_get(json, "op"));
    enum admin_op op = op_name ? admin_op_find(op_name) : ADMIN_COUNT;
    if (op == ADMIN_COUNT) {
        *why = "there is no such operation";
        return false;
    }
    uint8_t *room = mem_alloc(ARGS_MAX);
    struct writer w = writer_of(room, room ? ARGS_MAX : 0);
    struct ask *ask = NULL;
    if (!table_from_json(&w, json_object_get(json, "args")))
        *why = "args is not an object, too large or too deep";
    else if (!(ask = ask_new(operand(json, "name"), operand(json, "other"), operand(json, "key"), writer_slice(&w))))
        *why = "out of memory";
    mem_free(room);
    if (!ask)
        return false;
    ask->number = (uint64_t)json_integer_value(json_object_get(json, "number"));
    ask->flags = flags_of(json);
    *ret = (struct request){.ask = ask, .op = op, .wait_durable = !json_is_true(json_object_get(json, "lazy"))};
    return true;
}
