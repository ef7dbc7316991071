/* A JSON object on a line, see json_line.h. */
#include "fmt/json_line.h"

#include <inttypes.h>

static void put_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const char *at = text; *at; at++) {
        unsigned char c = (unsigned char)*at;
        if (c == '"' || c == '\\')
            fputc('\\', out);
        if (c < 0x20 || c > 0x7e)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void put_key(FILE *out, const char *key)
{
    fputs(", ", out);
    put_text(out, key);
    fputs(": ", out);
}

void json_line_begin(FILE *out, const char *kind)
{
    fputs("{\"kind\": ", out);
    put_text(out, kind);
}

void json_line_number(FILE *out, const char *key, uint64_t value)
{
    put_key(out, key);
    fprintf(out, "%" PRIu64, value);
}

void json_line_signed(FILE *out, const char *key, int64_t value)
{
    put_key(out, key);
    fprintf(out, "%" PRId64, value);
}

void json_line_hex(FILE *out, const char *key, const uint8_t *bytes, size_t len)
{
    put_key(out, key);
    fputc('"', out);
    for (size_t i = 0; i < len; i++)
        fprintf(out, "%02x", bytes[i]);
    fputc('"', out);
}

void json_line_text(FILE *out, const char *key, const char *text)
{
    put_key(out, key);
    put_text(out, text);
}

void json_line_flag(FILE *out, const char *key, bool value)
{
    put_key(out, key);
    fputs(value ? "true" : "false", out);
}

void json_line_end(FILE *out)
{
    fputs("}\n", out);
}
