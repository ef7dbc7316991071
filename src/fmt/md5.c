/* MD5 through libcrypto, see md5.h. */
#include "fmt/md5.h"

#include <openssl/evp.h>

bool md5(struct slice bytes, uint8_t ret[MD5_LEN])
{
    unsigned len;
    return EVP_Digest(bytes.ptr, bytes.len, ret, &len, EVP_md5(), NULL) == 1 && len == MD5_LEN;
}
