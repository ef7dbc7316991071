/* Topics and brokers as resources, see resources.h. */
#include "proto/kafka/resources.h"

#include "proto/kafka/errands.h"
#include "proto/kafka/topic_rules.h"

int16_t kafka_row_error(const struct stream_row *row, struct slice name)
{
    if (row->result == STREAM_UNKNOWN && !kafka_topic_name_good(name))
        return KAFKA_ERR_INVALID_TOPIC_EXCEPTION;
    return kafka_stream_error(row->result);
}

static bool is_number(struct slice s)
{
    size_t i = s.len > 1 && s.ptr[0] == '-';
    if (i == s.len || s.len > 11)
        return false;
    for (; i < s.len; i++)
        if (s.ptr[i] < '0' || s.ptr[i] > '9')
            return false;
    return true;
}

int16_t kafka_broker_fault(struct kafka *k, struct kafka_request *r, struct slice name, struct slice *ret_text)
{
    int shown = (int)(name.len < 200 ? name.len : 200);
    if (name.len == 0)
        return KAFKA_ERR_NONE;
    if (!is_number(name))
        *ret_text = kafka_text(k, r, "Broker id must be an integer, but it is: %.*s", shown, name.ptr);
    else {
        struct slice ours = kafka_text(k, r, "%d", k->options->node_id);
        if (slice_equal(ours, name))
            return KAFKA_ERR_NONE;
        *ret_text = kafka_text(k, r, "Unexpected broker id, expected %d or empty string, but received %.*s",
                               k->options->node_id, shown, name.ptr);
    }
    return KAFKA_ERR_INVALID_REQUEST;
}
