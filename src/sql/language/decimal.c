/* Scaled integers, see decimal.h. */
#include "sql/language/decimal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

decimal_t decimal_power(unsigned n)
{
    static const uint64_t small[] = {1u,
                                     10u,
                                     100u,
                                     1000u,
                                     10000u,
                                     100000u,
                                     1000000u,
                                     10000000u,
                                     100000000u,
                                     1000000000u,
                                     10000000000u,
                                     100000000000u,
                                     1000000000000u,
                                     10000000000000u,
                                     100000000000000u,
                                     1000000000000000u,
                                     10000000000000000u,
                                     100000000000000000u,
                                     1000000000000000000u,
                                     10000000000000000000u};
    return n < ARRAY_LEN(small) ? (decimal_t)small[n] : (decimal_t)small[19] * (decimal_t)small[n - 19];
}

static decimal_t magnitude(decimal_t value)
{
    return value < 0 ? -value : value;
}

bool decimal_fits(decimal_t value, unsigned digits)
{
    return magnitude(value) < decimal_power(digits);
}

static decimal_t divide_rounded(decimal_t a, decimal_t b)
{
    decimal_t quotient = a / b, rest = magnitude(a % b), whole = magnitude(b);
    if (rest >= whole - rest)
        quotient += (a < 0) == (b < 0) ? 1 : -1;
    return quotient;
}

bool decimal_rescale(decimal_t value, unsigned from, unsigned to, decimal_t *ret)
{
    if (to >= from)
        return !__builtin_mul_overflow(value, decimal_power(to - from), ret) && decimal_fits(*ret, DECIMAL_DIGITS_MAX);
    *ret = divide_rounded(value, decimal_power(from - to));
    return true;
}

bool decimal_divide(decimal_t a, unsigned a_scale, decimal_t b, unsigned b_scale, unsigned scale, decimal_t *ret)
{
    int up = (int)scale + (int)b_scale - (int)a_scale;
    if (up < 0) {
        if (__builtin_mul_overflow(b, decimal_power((unsigned)-up), &b))
            return false;
        up = 0;
    }
    /* a larger number of zeroes than fits at once is appended digit by digit, with the rest of each step */
    decimal_t quotient = a / b, rest = a % b;
    for (; up > 0; up--) {
        decimal_t digit;
        if (__builtin_mul_overflow(quotient, (decimal_t)10, &quotient) ||
            __builtin_mul_overflow(rest, (decimal_t)10, &rest))
            return false;
        digit = rest / b;
        rest = rest % b;
        if (__builtin_add_overflow(quotient, digit, &quotient))
            return false;
    }
    if (magnitude(rest) >= magnitude(b) - magnitude(rest))
        quotient += (a < 0) == (b < 0) ? 1 : -1;
    *ret = quotient;
    return decimal_fits(quotient, DECIMAL_DIGITS_MAX);
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static struct slice trimmed(struct slice text)
{
    while (text.len && (*text.ptr == ' ' || (*text.ptr >= '\t' && *text.ptr <= '\r')))
        text = slice_of(text.ptr + 1, text.len - 1);
    while (text.len &&
           (text.ptr[text.len - 1] == ' ' || (text.ptr[text.len - 1] >= '\t' && text.ptr[text.len - 1] <= '\r')))
        text.len--;
    return text;
}

/* The parts of a number's text. */
struct written {
    bool minus;
    struct slice digits; /* with a point among them, perhaps */
    long exponent;
};

static bool split(struct slice text, struct written *ret)
{
    const uint8_t *p = text.ptr, *end = p + text.len;
    *ret = (struct written){.minus = p < end && *p == '-'};
    p += p < end && (*p == '-' || *p == '+');
    const uint8_t *start = p;
    size_t digits = 0, points = 0;
    for (; p < end && (is_digit(*p) || (*p == '.' && !points)); p++) {
        points += *p == '.';
        digits += *p != '.';
    }
    ret->digits = slice_of(start, (size_t)(p - start));
    if (p < end && (*p | 0x20) == 'e') {
        bool minus = ++p < end && *p == '-';
        p += p < end && (*p == '-' || *p == '+');
        if (p == end || !is_digit(*p))
            return false;
        for (; p < end && is_digit(*p); p++)
            ret->exponent = ret->exponent < 100000 ? ret->exponent * 10 + (*p - '0') : ret->exponent;
        ret->exponent = minus ? -ret->exponent : ret->exponent;
    }
    return digits > 0 && p == end;
}

bool decimal_parse(struct slice text, unsigned scale, decimal_t *ret, bool *ret_syntax)
{
    struct written w;
    text = trimmed(text);
    *ret_syntax = split(text, &w);
    if (!*ret_syntax)
        return false;
    decimal_t value = 0;
    long behind = 0; /* digits behind the point that are taken */
    bool point = false, up = false;
    long wanted = (long)scale + w.exponent;
    for (size_t i = 0; i < w.digits.len; i++) {
        uint8_t c = w.digits.ptr[i];
        if (c == '.') {
            point = true;
            continue;
        }
        if (point && behind >= wanted) { /* the first digit that is cut off rounds */
            up = behind == wanted && c >= '5';
            break;
        }
        if (__builtin_mul_overflow(value, (decimal_t)10, &value) || !decimal_fits(value, DECIMAL_DIGITS_MAX))
            return false;
        value += c - '0';
        behind += point;
    }
    for (; behind < wanted && value; behind++)
        if (__builtin_mul_overflow(value, (decimal_t)10, &value))
            return false;
    if (behind > wanted) { /* a large negative exponent reaches in front of the point */
        value = behind - wanted > (long)DECIMAL_DIGITS_MAX
                    ? 0
                    : divide_rounded(value, decimal_power((unsigned)(behind - wanted)));
        up = false;
    }
    value += up;
    *ret = w.minus ? -value : value;
    return decimal_fits(value, DECIMAL_DIGITS_MAX);
}

bool decimal_measure(struct slice text, unsigned *ret_digits, unsigned *ret_scale)
{
    const uint8_t *point = memchr(text.ptr, '.', text.len);
    size_t scale = point ? text.len - (size_t)(point - text.ptr) - 1 : 0, digits = text.len - (point != NULL);
    for (size_t i = 0; i < text.len && text.ptr[i] == '0' && digits > scale; i++)
        digits--;
    *ret_digits = digits ? (unsigned)digits : 1;
    *ret_scale = (unsigned)scale;
    return digits <= DECIMAL_DIGITS_MAX && scale <= DECIMAL_DIGITS_MAX;
}

bool decimal_from_double(double value, unsigned scale, decimal_t *ret)
{
    char text[64];
    bool syntax;
    if (!isfinite(value))
        return false;
    /* 15 digits are those a double is sure of; PostgreSQL takes as many */
    int len = snprintf(text, sizeof text, "%.15g", value);
    return decimal_parse(slice_of(text, (size_t)len), scale, ret, &syntax);
}

double decimal_to_double(decimal_t value, unsigned scale)
{
    if (magnitude(value) < ((decimal_t)1 << 53) && scale <= 22)
        return (double)value / (double)decimal_power(scale);
    char text[DECIMAL_TEXT_MAX + 1];
    text[decimal_print(value, scale, text)] = 0;
    return strtod(text, NULL);
}

size_t decimal_print(decimal_t value, unsigned scale, char *out)
{
    char digits[DECIMAL_TEXT_MAX];
    size_t count = 0, len = 0;
    decimal_t rest = magnitude(value);
    do {
        digits[count++] = (char)('0' + (int)(rest % 10));
        rest /= 10;
    } while (rest || count <= scale);
    if (value < 0)
        out[len++] = '-';
    while (count > 0) {
        if (count == scale)
            out[len++] = '.';
        out[len++] = digits[--count];
    }
    return len;
}
