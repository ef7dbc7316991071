/* os_file: makes a descriptor of the table of os.h a counted handle (base/file_piece.h). Any thread. */
#ifndef MILLRACE_OS_FILE_H
#define MILLRACE_OS_FILE_H

#include "base/file_piece.h"
#include "os/os.h"

/* Takes fd, open for reading, with one reference; os must outlive it. NULL: no memory, and fd is still the caller's. */
MUST_USE struct counted_file *os_file_new(struct os *os, int fd);

#endif
