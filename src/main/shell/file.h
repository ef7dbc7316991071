/* sql_file: a file of statements, read as a whole. Any thread. */
#ifndef MILLRACE_MAIN_SHELL_FILE_H
#define MILLRACE_MAIN_SHELL_FILE_H

#include "base/types.h"

#define SQL_FILE_MAX (256u << 20)

/* 0, and its bytes, which are the caller's; or a negative errno: -EFBIG when it has more than SQL_FILE_MAX. */
MUST_USE int sql_file_read(const char *path, uint8_t **ret, size_t *ret_len);

#endif
