/* decimal: numbers of up to 38 digits as scaled integers: 12.50 with scale 2 is 1250. What is cut off is rounded half away from
 * zero, as PostgreSQL does. False always means: it does not fit. Any thread.
 */
#ifndef MILLRACE_SQL_LANGUAGE_DECIMAL_H
#define MILLRACE_SQL_LANGUAGE_DECIMAL_H

#include "base/writer.h"
#include "sql/language/type.h"

#define DECIMAL_TEXT_MAX 44u

/* 10^n, n up to 38. */
decimal_t decimal_power(unsigned n);
/* Whether it has no more than so many digits. */
bool decimal_fits(decimal_t value, unsigned digits);
MUST_USE bool decimal_rescale(decimal_t value, unsigned from, unsigned to, decimal_t *ret);
/* a / b with the scale `scale`; b is not 0. */
MUST_USE bool decimal_divide(decimal_t a, unsigned a_scale, decimal_t b, unsigned b_scale, unsigned scale,
                             decimal_t *ret);
/* Digits, point, exponent, blanks around them. *ret_syntax: whether it is a number at all. */
MUST_USE bool decimal_parse(struct slice text, unsigned scale, decimal_t *ret, bool *ret_syntax);
MUST_USE bool decimal_from_double(double value, unsigned scale, decimal_t *ret);
double decimal_to_double(decimal_t value, unsigned scale);
/* At most DECIMAL_TEXT_MAX bytes; answers how many. */
size_t decimal_print(decimal_t value, unsigned scale, char *out);
/* Digits and scale of a literal as written; false: more than 38. */
MUST_USE bool decimal_measure(struct slice text, unsigned *ret_digits, unsigned *ret_scale);

#endif
