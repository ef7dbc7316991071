/* The key of a record, see record_key.h. */
#include "core/record_key.h"

#include "fmt/amqp_props.h"
#include "fmt/amqp_table.h"

bool record_key(const struct msg *msg, struct slice *ret)
{
    struct amqp_props props;
    struct amqp_value v;
    if ((msg->flags & MSG_HAS_HEADERS) && amqp_props_parse(msg_props(msg), &props) &&
        amqp_table_find(props.headers, "x-stream-key", &v) && amqp_value_is_str(&v)) {
        *ret = v.s;
        return true;
    }
    *ret = msg_key(msg);
    return msg->exchange_len > 0;
}
