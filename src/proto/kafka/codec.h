/* codec: one decoder and one encoder for every message and version of Kafka's protocol; they walk the tables of messages.h.
 *
 * Decoding  arena_init ▸ { kafka_decode ▸ use ▸ arena_reset }* ▸ arena_fini
 * Encoding  kafka_defaults ▸ fill in ▸ kafka_encode; kafka_encode_size says beforehand how long it will be
 *
 * Decoded strings, bytes and records are slices of the message, arrays and structs lie in the arena: both must outlive what
 * was decoded. Text is not looked at (UTF-8, names), and neither are records. Pure functions, any thread.
 */
#ifndef MILLRACE_PROTO_KAFKA_CODEC_H
#define MILLRACE_PROTO_KAFKA_CODEC_H

#include "base/arena.h"
#include "base/writer.h"
#include "proto/kafka/messages.h"

enum kafka_verdict {
    KAFKA_OK,
    KAFKA_SHORT,      /* it ends too soon, or a length or count promises more than there is */
    KAFKA_BAD_LENGTH, /* a length that cannot be: negative, null where null is not known, not that of its tagged field */
    KAFKA_NO_MEMORY,  /* the arena's limit, or the heap's */
    KAFKA_TRAILING,   /* bytes left over; all else was right, and is decoded */
};

/* The form in which a message is on the wire: compact lengths and tagged fields come with flexible versions (KIP-482). */
struct kafka_form {
    uint8_t version;
    bool flexible;
};

/* ret: the struct of the table; written only partly when it fails. Fields that the version has not get their defaults.
 * Unknown tagged fields are passed over. */
MUST_USE enum kafka_verdict kafka_decode(const struct kafka_table *table, struct kafka_form form, struct slice bytes,
                                         struct arena *arena, void *ret);

/* Records that are not in memory, but will be sent from a file: a slice with ptr NULL and their length. The encoder writes
 * the length and notes here where they belong: after `at` bytes of the writer come len bytes from elsewhere. */
struct kafka_cut {
    size_t at, len;
};

struct kafka_cuts {
    struct kafka_cut *list; /* in the order of the message */
    size_t count, max;
    size_t bytes; /* of all of them */
};

/* Fields that the version has not are left out, whatever they hold. The writer fails when there is no room, a string is
 * longer than its version can say, or records are elsewhere and cuts is NULL or full. */
void kafka_encode(struct writer *w, const struct kafka_table *table, struct kafka_form form, const void *message,
                  struct kafka_cuts *cuts);
/* The exact number of bytes, records from elsewhere included; SIZE_MAX where kafka_encode would fail in any room. */
size_t kafka_encode_size(const struct kafka_table *table, struct kafka_form form, const void *message);

/* Everything zero, empty, or what its DEFAULT says. */
void kafka_defaults(const struct kafka_table *table, void *ret);

/* The fewest bytes that one such struct takes; tests hold it against what the encoder writes. */
size_t kafka_least_size(const struct kafka_table *table, struct kafka_form form);

static inline bool kafka_field_in(const struct kafka_field *f, uint8_t version)
{
    return version >= f->from && version <= f->to;
}

static inline bool kafka_field_nullable(const struct kafka_field *f, uint8_t version)
{
    return f->null_from && version >= f->null_from - 1;
}

#endif
