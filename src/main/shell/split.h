/* sql_split: where a statement ends in a text that holds several, or that is still being typed. By the rules of sql/lex, but without an
 * opinion on what is wrong: that is said by the broker, with the place. Pure functions, any thread.
 */
#ifndef MILLRACE_MAIN_SHELL_SPLIT_H
#define MILLRACE_MAIN_SHELL_SPLIT_H

#include "base/types.h"

/* Bytes up to the first semicolon that ends a statement, it included; 0: there is none yet. *ret_blank: up to there, or in all of the
 * text, there is nothing but space and comments. */
size_t sql_split(struct slice text, bool *ret_blank);

/* Line ends in it. */
unsigned sql_lines_in(struct slice text);
/* Without the space in front of it, whose lines are added to *line. */
struct slice sql_without_space(struct slice text, unsigned *line);

#endif
