/* Files of statements, see shell/file.h. */
#include "main/shell/file.h"

#include "base/mem.h"
#include "os/os.h"

#include <errno.h>

int sql_file_read(const char *path, uint8_t **ret, size_t *ret_len)
{
    struct os *os = os_posix();
    int fd = -1, err = os->open(os, path, OS_READ, &fd);
    uint64_t size = 0;
    if (err < 0)
        return err;
    err = os->size(os, fd, &size);
    uint8_t *bytes = err == 0 && size <= SQL_FILE_MAX ? mem_alloc(size + 1) : NULL;
    int64_t len = bytes ? os->pread(os, fd, bytes, size, 0) : err < 0 ? err : size > SQL_FILE_MAX ? -EFBIG : -ENOMEM;
    os->close(os, fd);
    if (len < 0) {
        mem_free(bytes);
        return (int)len;
    }
    *ret = bytes;
    *ret_len = (size_t)len;
    return 0;
}
