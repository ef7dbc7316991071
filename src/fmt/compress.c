/* Four libraries behind one bound, see compress.h. One thread at a time per struct compress.
 *
 * Unpacking always goes straight into the output, whole, so no library needs a window of its own: inflate with Z_FINISH and
 * one-shot zstd read back from what they have written, and liblz4 is told that it stays there. Whoever claims a huge window
 * or a huge size in 20 bytes therefore gets nothing but a comparison with the bound. Only liblz4 takes two buffers of the
 * frame's block size (4 MiB at most); a state that has seen blocks above 256 KiB is not kept.
 *
 * Sizes that a stream claims are hints for the first size of the buffer and are never believed beyond what the codec can
 * make of that many bytes. Where a hint was too small the buffer doubles and the work begins anew, which costs less than
 * twice the last round.
 *
 * Raw snappy and snappy-java's blocks are told apart by the magic number, as all clients do: as a raw stream these bytes
 * would claim 10,626 bytes and begin with a copy from before the beginning, so none can be mistaken.
 */
#include "fmt/compress.h"

#include "base/check.h"
#include "base/mem.h"

#include <endian.h>

#define LZ4F_STATIC_LINKING_ONLY /* for allocators of our own */
#include <lz4frame.h>
#include <snappy-c.h>
#include <zlib.h>
#define ZSTD_STATIC_LINKING_ONLY /* the same, and frame headers */
#include <zstd.h>
#include <zstd_errors.h>

#define FIRST_BYTES (64u << 10)
#define GZIP_BITS (15 + 16) /* window of 32 KiB, gzip wrapper only */
#define GZIP_RATIO_MAX 1032u
#define SMALL_RATIO 4u
#define LZ4_BLOCKS_KEPT LZ4F_max256KB
#define ZSTD_WINDOW_MAX (128u << 20) /* what streaming readers take by default (ZSTD_WINDOWLOG_LIMIT_DEFAULT) */

/* What states hold that cannot be asked: windows and tables of zlib as zconf.h has them, two blocks of 256 KiB, and a table. */
#define INFLATE_BYTES (44u << 10)
#define DEFLATE_BYTES (268u << 10)
#define LZ4_READER_BYTES (576u << 10)
#define LZ4_WRITER_BYTES (400u << 10)

#define XERIAL_HEADER 16u
#define XERIAL_BLOCK (32u << 10)

static const uint8_t xerial_magic[8] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0};
static const uint8_t xerial_version[8] = {0, 0, 0, 1, 0, 0, 0, 1}; /* of the writer; the oldest that can read it */

struct compress {
    uint8_t *buffer;
    size_t buffer_len;
    uint64_t cost_ns;
    z_stream inflate, deflate;
    bool inflate_ready, deflate_ready;
    int deflate_level;
    LZ4F_dctx *lz4_reader;
    LZ4F_cctx *lz4_writer;
    ZSTD_DCtx *zstd_reader;
    ZSTD_CCtx *zstd_writer;
};

/* Where a codec writes: never beyond max. */
struct output {
    uint8_t *base;
    size_t len, max;
};

static const char *const names[COMPRESS_KINDS] = {
    [COMPRESS_NONE] = "none", [COMPRESS_GZIP] = "gzip", [COMPRESS_SNAPPY] = "snappy",
    [COMPRESS_LZ4] = "lz4",   [COMPRESS_ZSTD] = "zstd",
};

const char *compress_name(unsigned kind)
{
    return kind < COMPRESS_KINDS ? names[kind] : NULL;
}

enum compress_kind compress_find(struct slice name)
{
    if (slice_is(name, "uncompressed"))
        return COMPRESS_NONE;
    unsigned kind = 0;
    while (kind < COMPRESS_KINDS && !slice_is(name, names[kind]))
        kind++;
    return (enum compress_kind)kind;
}

/* ---------------------------------------------------------------------------------------------------------- life cycle */

struct compress *compress_new(void)
{
    return mem_zalloc(sizeof(struct compress));
}

void compress_trim(struct compress *z)
{
    if (z->inflate_ready)
        (void)inflateEnd(&z->inflate);
    if (z->deflate_ready)
        (void)deflateEnd(&z->deflate); /* its result says only whether there was work in it */
    LZ4F_freeDecompressionContext(z->lz4_reader);
    LZ4F_freeCompressionContext(z->lz4_writer);
    ZSTD_freeDCtx(z->zstd_reader);
    ZSTD_freeCCtx(z->zstd_writer);
    mem_free(z->buffer);
    *z = (struct compress){.cost_ns = z->cost_ns};
}

void compress_free(struct compress **z)
{
    if (*z)
        compress_trim(*z);
    mem_free(*z);
    *z = NULL;
}

size_t compress_kept_bytes(const struct compress *z)
{
    return z->buffer_len;
}

size_t compress_held_bytes(const struct compress *z)
{
    return z->buffer_len + (z->inflate_ready ? INFLATE_BYTES : 0) + (z->deflate_ready ? DEFLATE_BYTES : 0) +
           (z->lz4_reader ? LZ4_READER_BYTES : 0) + (z->lz4_writer ? LZ4_WRITER_BYTES : 0) +
           (z->zstd_reader ? ZSTD_sizeof_DCtx(z->zstd_reader) : 0) +
           (z->zstd_writer ? ZSTD_sizeof_CCtx(z->zstd_writer) : 0);
}

uint64_t compress_cost_ns(const struct compress *z)
{
    return z->cost_ns;
}

static void *zlib_alloc(void *opaque, unsigned count, unsigned len)
{
    (void)opaque;
    return mem_alloc((size_t)count * len);
}

static void *state_alloc(void *opaque, size_t len)
{
    (void)opaque;
    return mem_alloc(len);
}

static void *state_zalloc(void *opaque, size_t len)
{
    (void)opaque;
    return mem_zalloc(len);
}

static void state_free(void *opaque, void *ptr)
{
    (void)opaque;
    mem_free(ptr);
}

/* --------------------------------------------------------------------------------------------------------------- gzip */

static enum compress_verdict unpack_gzip(struct compress *z, struct slice in, struct output *out)
{
    z_stream *s = &z->inflate;
    if (!z->inflate_ready) {
        *s = (z_stream){.zalloc = zlib_alloc, .zfree = state_free};
        if (inflateInit2(s, GZIP_BITS) != Z_OK)
            return COMPRESS_NO_MEMORY;
        z->inflate_ready = true;
    }
    s->next_in = (Bytef *)in.ptr;
    s->avail_in = (uInt)in.len;
    s->next_out = out->base;
    s->avail_out = out->max < UINT32_MAX ? (uInt)out->max : UINT32_MAX;
    int result = Z_STREAM_END;
    while (result == Z_STREAM_END && s->avail_in > 0) { /* once per member */
        (void)inflateReset(s);
        result = inflate(s, Z_FINISH);
    }
    out->len = (size_t)(s->next_out - out->base);
    if (result == Z_STREAM_END)
        return COMPRESS_OK;
    if (result == Z_MEM_ERROR)
        return COMPRESS_NO_MEMORY;
    return result == Z_BUF_ERROR && s->avail_out == 0 ? COMPRESS_TOO_LARGE : COMPRESS_DAMAGED;
}

static enum compress_verdict pack_gzip(struct compress *z, int32_t level, struct slice in, struct output *out)
{
    z_stream *s = &z->deflate;
    int wanted = level < 0 ? Z_DEFAULT_COMPRESSION : level > 9 ? 9 : level;
    if (in.len > UINT32_MAX)
        return COMPRESS_TOO_LARGE;
    if (z->deflate_ready && z->deflate_level != wanted) {
        (void)deflateEnd(s);
        z->deflate_ready = false;
    }
    if (!z->deflate_ready) {
        *s = (z_stream){.zalloc = zlib_alloc, .zfree = state_free};
        if (deflateInit2(s, wanted, Z_DEFLATED, GZIP_BITS, 8, Z_DEFAULT_STRATEGY) != Z_OK)
            return COMPRESS_NO_MEMORY;
        z->deflate_ready = true;
        z->deflate_level = wanted;
    }
    (void)deflateReset(s);
    s->next_in = (Bytef *)in.ptr;
    s->avail_in = (uInt)in.len;
    s->next_out = out->base;
    s->avail_out = out->max < UINT32_MAX ? (uInt)out->max : UINT32_MAX;
    if (deflate(s, Z_FINISH) != Z_STREAM_END)
        return COMPRESS_TOO_LARGE;
    out->len = (size_t)(s->next_out - out->base);
    return COMPRESS_OK;
}

/* ------------------------------------------------------------------------------------------------------------- snappy */

static enum compress_verdict unpack_snappy_raw(struct slice in, struct output *out)
{
    size_t len;
    if (snappy_uncompressed_length((const char *)in.ptr, in.len, &len) != SNAPPY_OK)
        return COMPRESS_DAMAGED;
    if (len > out->max - out->len)
        return COMPRESS_TOO_LARGE;
    if (snappy_uncompress((const char *)in.ptr, in.len, (char *)out->base + out->len, &len) != SNAPPY_OK)
        return COMPRESS_DAMAGED;
    out->len += len;
    return COMPRESS_OK;
}

static bool is_xerial(struct slice in)
{
    return in.len >= XERIAL_HEADER && memcmp(in.ptr, xerial_magic, sizeof xerial_magic) == 0;
}

/* The next block of snappy-java's stream, or nothing (damage, or the end: then *at is the length). Streams that were joined
 * have a header between blocks; its first four bytes cannot be a length, since that has no sign. */
static struct slice xerial_next(struct slice in, size_t *at)
{
    struct slice rest = slice_of(in.ptr + *at, in.len - *at);
    if (is_xerial(rest)) {
        *at += XERIAL_HEADER;
        rest = slice_of(in.ptr + *at, in.len - *at);
    }
    uint32_t len;
    if (rest.len < sizeof len)
        return (struct slice){0};
    memcpy(&len, rest.ptr, sizeof len);
    len = be32toh(len);
    if (len == 0 || len > rest.len - sizeof len)
        return (struct slice){0};
    *at += sizeof len + len;
    return slice_of(rest.ptr + sizeof len, len);
}

static enum compress_verdict unpack_snappy(struct slice in, struct output *out)
{
    if (!is_xerial(in))
        return unpack_snappy_raw(in, out);
    size_t at = 0;
    struct slice block;
    while ((block = xerial_next(in, &at)).len > 0) {
        enum compress_verdict verdict = unpack_snappy_raw(block, out);
        if (verdict != COMPRESS_OK)
            return verdict;
    }
    return at == in.len ? COMPRESS_OK : COMPRESS_DAMAGED;
}

static enum compress_verdict pack_snappy(struct slice in, struct output *out)
{
    if (out->max < compress_pack_max(COMPRESS_SNAPPY, in.len))
        return COMPRESS_TOO_LARGE;
    memcpy(out->base, xerial_magic, sizeof xerial_magic);
    memcpy(out->base + sizeof xerial_magic, xerial_version, sizeof xerial_version);
    out->len = XERIAL_HEADER;
    for (size_t at = 0; at < in.len; at += XERIAL_BLOCK) {
        size_t n = in.len - at < XERIAL_BLOCK ? in.len - at : XERIAL_BLOCK;
        size_t made = out->max - out->len - 4;
        snappy_status status = snappy_compress((const char *)in.ptr + at, n, (char *)out->base + out->len + 4, &made);
        CHECK(status == SNAPPY_OK);
        uint32_t len = htobe32((uint32_t)made);
        memcpy(out->base + out->len, &len, sizeof len);
        out->len += sizeof len + made;
    }
    return COMPRESS_OK;
}

/* ---------------------------------------------------------------------------------------------------------------- lz4 */

#define LZ4_MAGIC_LEN 4u
#define LZ4_FLAGS_AT 4u
#define LZ4_BLOCKS_AT 5u
#define LZ4_INDEPENDENT 0x20u
#define LZ4_DICTIONARY 0x01u
#define LZ4_SHORTEST 11u /* magic, flags, block size, header checksum, end mark */

static const LZ4F_CustomMem lz4_memory = {
    .customAlloc = state_alloc, .customCalloc = state_zalloc, .customFree = state_free};

static enum compress_verdict unpack_lz4(struct compress *z, struct slice in, struct output *out)
{
    static const uint8_t magic[LZ4_MAGIC_LEN] = {0x04, 0x22, 0x4d, 0x18};
    if (in.len < LZ4_SHORTEST || memcmp(in.ptr, magic, sizeof magic) != 0)
        return COMPRESS_DAMAGED;
    if ((in.ptr[LZ4_FLAGS_AT] & (LZ4_INDEPENDENT | LZ4_DICTIONARY)) != LZ4_INDEPENDENT)
        return COMPRESS_DAMAGED;
    if (!z->lz4_reader)
        z->lz4_reader = LZ4F_createDecompressionContext_advanced(lz4_memory, LZ4F_VERSION);
    if (!z->lz4_reader)
        return COMPRESS_NO_MEMORY;
    LZ4F_resetDecompressionContext(z->lz4_reader);
    LZ4F_decompressOptions_t options = {.stableDst = 1};
    size_t used = 0, more, made, taken;
    do {
        made = out->max - out->len;
        taken = in.len - used;
        more = LZ4F_decompress(z->lz4_reader, out->base + out->len, &made, in.ptr + used, &taken, &options);
        if (LZ4F_isError(more))
            break;
        out->len += made;
        used += taken;
    } while (more != 0 && (made > 0 || taken > 0));
    if (in.ptr[LZ4_BLOCKS_AT] >> 4 > LZ4_BLOCKS_KEPT) {
        LZ4F_freeDecompressionContext(z->lz4_reader);
        z->lz4_reader = NULL;
    }
    if (LZ4F_isError(more))
        return LZ4F_getErrorCode(more) == LZ4F_ERROR_allocation_failed ? COMPRESS_NO_MEMORY : COMPRESS_DAMAGED;
    if (more == 0)
        return used == in.len ? COMPRESS_OK : COMPRESS_DAMAGED;
    return out->len == out->max ? COMPRESS_TOO_LARGE : COMPRESS_DAMAGED;
}

static const LZ4F_preferences_t lz4_plain = {
    .frameInfo = {.blockSizeID = LZ4F_max64KB, .blockMode = LZ4F_blockIndependent}};

static enum compress_verdict pack_lz4(struct compress *z, int32_t level, struct slice in, struct output *out)
{
    LZ4F_preferences_t prefs = lz4_plain;
    prefs.compressionLevel = level == COMPRESS_LEVEL_DEFAULT ? 0 : level;
    if (out->max < LZ4F_compressFrameBound(in.len, &prefs))
        return COMPRESS_TOO_LARGE;
    if (!z->lz4_writer)
        z->lz4_writer = LZ4F_createCompressionContext_advanced(lz4_memory, LZ4F_VERSION);
    if (!z->lz4_writer)
        return COMPRESS_NO_MEMORY;
    size_t made = LZ4F_compressFrame_usingCDict(z->lz4_writer, out->base, out->max, in.ptr, in.len, NULL, &prefs);
    if (LZ4F_isError(made)) {
        CHECK(LZ4F_getErrorCode(made) == LZ4F_ERROR_allocation_failed);
        return COMPRESS_NO_MEMORY;
    }
    out->len = made;
    return COMPRESS_OK;
}

/* --------------------------------------------------------------------------------------------------------------- zstd */

static const ZSTD_customMem zstd_memory = {.customAlloc = state_alloc, .customFree = state_free};

static enum compress_verdict zstd_verdict(size_t result)
{
    ZSTD_ErrorCode code = ZSTD_getErrorCode(result);
    return code == ZSTD_error_no_error            ? COMPRESS_OK
           : code == ZSTD_error_dstSize_tooSmall  ? COMPRESS_TOO_LARGE
           : code == ZSTD_error_memory_allocation ? COMPRESS_NO_MEMORY
                                                  : COMPRESS_DAMAGED;
}

static enum compress_verdict unpack_zstd(struct compress *z, struct slice in, struct output *out)
{
    if (!z->zstd_reader)
        z->zstd_reader = ZSTD_createDCtx_advanced(zstd_memory);
    if (!z->zstd_reader)
        return COMPRESS_NO_MEMORY;
    for (size_t at = 0, n; at < in.len; at += n) { /* once per frame */
        ZSTD_frameHeader header;
        n = ZSTD_findFrameCompressedSize(in.ptr + at, in.len - at);
        if (ZSTD_isError(n) || ZSTD_getFrameHeader(&header, in.ptr + at, n) != 0)
            return COMPRESS_DAMAGED;
        bool sized = header.frameType == ZSTD_frame && header.frameContentSize != ZSTD_CONTENTSIZE_UNKNOWN;
        if (sized && header.frameContentSize > out->max - out->len)
            return COMPRESS_TOO_LARGE;
        if (header.frameType == ZSTD_frame && header.windowSize > ZSTD_WINDOW_MAX)
            return COMPRESS_DAMAGED;
        size_t made = ZSTD_decompressDCtx(z->zstd_reader, out->base + out->len, out->max - out->len, in.ptr + at, n);
        if (ZSTD_isError(made)) {
            out->len = out->max; /* how far it came is not said: the cost is that of all */
            return zstd_verdict(made);
        }
        out->len += made;
    }
    return COMPRESS_OK;
}

static enum compress_verdict pack_zstd(struct compress *z, int32_t level, struct slice in, struct output *out)
{
    if (!z->zstd_writer)
        z->zstd_writer = ZSTD_createCCtx_advanced(zstd_memory);
    if (!z->zstd_writer)
        return COMPRESS_NO_MEMORY;
    int wanted = level == COMPRESS_LEVEL_DEFAULT ? ZSTD_CLEVEL_DEFAULT : level;
    size_t made = ZSTD_compressCCtx(z->zstd_writer, out->base, out->max, in.ptr, in.len, wanted);
    if (!ZSTD_isError(made))
        out->len = made;
    return zstd_verdict(made);
}

/* ---------------------------------------------------------------------------------------------------------- all kinds */

static enum compress_verdict unpack(struct compress *z, enum compress_kind kind, struct slice in, struct output *out)
{
    uint8_t nowhere; /* libraries want an address even for nothing */
    if (!out->base) {
        CHECK(out->max == 0);
        out->base = &nowhere;
    }
    if (in.len == 0 || in.len > UINT32_MAX)
        return COMPRESS_DAMAGED;
    enum compress_verdict verdict = COMPRESS_DAMAGED;
    switch (kind) {
    case COMPRESS_GZIP: verdict = unpack_gzip(z, in, out); break;
    case COMPRESS_SNAPPY: verdict = unpack_snappy(in, out); break;
    case COMPRESS_LZ4: verdict = unpack_lz4(z, in, out); break;
    case COMPRESS_ZSTD: verdict = unpack_zstd(z, in, out); break;
    default: break;
    }
    z->cost_ns += (in.len + out->len) * (kind == COMPRESS_GZIP ? 3 : 1);
    return verdict;
}

enum compress_verdict compress_unpack_into(struct compress *z, enum compress_kind kind, struct slice in,
                                           struct writer *w)
{
    if (w->failed)
        return COMPRESS_TOO_LARGE;
    if (kind == COMPRESS_NONE) {
        if (in.len > w->max - w->len)
            return COMPRESS_TOO_LARGE;
        writer_slice_put(w, in);
        return COMPRESS_OK;
    }
    struct output out = {.base = w->base ? w->base + w->len : NULL, .max = w->max - w->len};
    enum compress_verdict verdict = unpack(z, kind, in, &out);
    if (verdict == COMPRESS_OK)
        w->len += out.len;
    return verdict;
}

static size_t snappy_claim(struct slice in)
{
    size_t sum = 0, len = 0, at = 0;
    if (!is_xerial(in))
        return snappy_uncompressed_length((const char *)in.ptr, in.len, &len) == SNAPPY_OK ? len : 0;
    for (struct slice block; (block = xerial_next(in, &at)).len > 0; sum += len)
        if (snappy_uncompressed_length((const char *)block.ptr, block.len, &len) != SNAPPY_OK)
            return 0;
    return sum;
}

/* How long the stream says it will be, or a guess; nobody believes it before it was seen. *ret_least: it will be as long, or is
 * damaged. */
static size_t claimed_len(enum compress_kind kind, struct slice in, bool *ret_least)
{
    size_t claim = in.len * SMALL_RATIO;
    *ret_least = kind == COMPRESS_SNAPPY;
    if (kind == COMPRESS_SNAPPY) {
        claim = snappy_claim(in);
    } else if (kind == COMPRESS_ZSTD && in.len > 0) {
        unsigned long long len = ZSTD_getFrameContentSize(in.ptr, in.len);
        *ret_least = len != ZSTD_CONTENTSIZE_UNKNOWN && len != ZSTD_CONTENTSIZE_ERROR;
        if (*ret_least)
            claim = (size_t)len;
    } else if (kind == COMPRESS_GZIP && in.len > 4) {
        uint32_t len; /* ISIZE: of the last member, modulo 2^32 */
        memcpy(&len, in.ptr + in.len - 4, sizeof len);
        len = le32toh(len);
        *ret_least = len / GZIP_RATIO_MAX <= in.len;
        if (*ret_least)
            claim = len;
    }
    return claim;
}

static bool buffer_reserve(struct compress *z, size_t len)
{
    if (z->buffer_len >= len)
        return true;
    mem_free(z->buffer); /* nothing in it is needed any more */
    z->buffer_len = 0;
    z->buffer = mem_alloc(len);
    if (!z->buffer)
        return false;
    z->buffer_len = len;
    return true;
}

enum compress_verdict compress_unpack(struct compress *z, enum compress_kind kind, struct slice in, size_t max,
                                      struct slice *ret)
{
    if (kind == COMPRESS_NONE) {
        if (in.len > max)
            return COMPRESS_TOO_LARGE;
        *ret = in;
        return COMPRESS_OK;
    }
    bool least;
    size_t room = claimed_len(kind, in, &least);
    if (least && room > max)
        return COMPRESS_TOO_LARGE; /* for which nothing need be unpacked */
    room = room < FIRST_BYTES ? FIRST_BYTES : room;
    for (;;) {
        room = room < max ? room : max;
        if (!buffer_reserve(z, room))
            return COMPRESS_NO_MEMORY;
        size_t usable = z->buffer_len < max ? z->buffer_len : max;
        struct output out = {.base = z->buffer, .max = usable};
        enum compress_verdict verdict = unpack(z, kind, in, &out);
        if (verdict == COMPRESS_OK)
            *ret = slice_of(z->buffer, out.len);
        if (verdict != COMPRESS_TOO_LARGE || usable == max)
            return verdict;
        room = usable > max / 2 ? max : usable * 2;
    }
}

enum compress_verdict compress_pack(struct compress *z, enum compress_kind kind, int32_t level, struct slice in,
                                    struct writer *w)
{
    if (w->failed || w->max == w->len)
        return in.len == 0 && kind == COMPRESS_NONE && !w->failed ? COMPRESS_OK : COMPRESS_TOO_LARGE;
    struct output out = {.base = w->base + w->len, .max = w->max - w->len};
    enum compress_verdict verdict = COMPRESS_OK;
    z->cost_ns += kind == COMPRESS_NONE ? 0 : compress_pack_cost_ns(kind, level, in.len);
    switch (kind) {
    case COMPRESS_NONE: return compress_unpack_into(z, kind, in, w);
    case COMPRESS_GZIP: verdict = pack_gzip(z, level, in, &out); break;
    case COMPRESS_SNAPPY: verdict = pack_snappy(in, &out); break;
    case COMPRESS_LZ4: verdict = pack_lz4(z, level, in, &out); break;
    case COMPRESS_ZSTD: verdict = pack_zstd(z, level, in, &out); break;
    default: CHECK(kind < COMPRESS_KINDS);
    }
    if (verdict == COMPRESS_OK)
        w->len += out.len;
    return verdict;
}

size_t compress_pack_max(enum compress_kind kind, size_t len)
{
    size_t blocks = len / XERIAL_BLOCK, tail = len % XERIAL_BLOCK;
    switch (kind) {
    case COMPRESS_GZIP:
        return compressBound((uLong)len) + 12; /* which reckons with zlib's 6 bytes of wrapper; gzip's are 18 */
    case COMPRESS_SNAPPY:
        return XERIAL_HEADER + blocks * (4 + snappy_max_compressed_length(XERIAL_BLOCK)) +
               (tail ? 4 + snappy_max_compressed_length(tail) : 0);
    case COMPRESS_LZ4: return LZ4F_compressFrameBound(len, &lz4_plain);
    case COMPRESS_ZSTD: return ZSTD_compressBound(len);
    default: return len;
    }
}

/* Of a byte of text, about; what is in between has the cost of the one above. */
struct price {
    uint8_t kind;
    int32_t level; /* up to this one; COMPRESS_LEVEL_DEFAULT is below all */
    uint32_t ns;
};

static const struct price prices[] = {
    {COMPRESS_GZIP, 1, 12},  {COMPRESS_GZIP, 5, 25},   {COMPRESS_GZIP, 6, 40},   {COMPRESS_GZIP, 9, 100},
    {COMPRESS_SNAPPY, 0, 3}, {COMPRESS_LZ4, 2, 3},     {COMPRESS_LZ4, 17, 60},   {COMPRESS_ZSTD, 3, 5},
    {COMPRESS_ZSTD, 9, 30},  {COMPRESS_ZSTD, 15, 120}, {COMPRESS_ZSTD, 22, 800},
};

/* The row of that level; among the last ones of its kind where it is beyond all. NULL: the kind has none. */
static const struct price *price_of(enum compress_kind kind, int32_t level)
{
    const struct price *found = NULL;
    if (kind == COMPRESS_GZIP && level < 0)
        level = 6;
    for (size_t i = 0; i < ARRAY_LEN(prices) && (!found || found->level < level); i++)
        if (prices[i].kind == kind)
            found = &prices[i];
    return found;
}

uint64_t compress_pack_cost_ns(enum compress_kind kind, int32_t level, size_t len)
{
    const struct price *price = price_of(kind, level);
    return len * (price ? price->ns : 1ull);
}

int32_t compress_level_within(enum compress_kind kind, int32_t level, size_t len, uint64_t cost_max_ns)
{
    const struct price *asked = price_of(kind, level), *price = asked;
    while (price && price > prices && price[-1].kind == kind && len * (uint64_t)price->ns > cost_max_ns)
        price--;
    return price == asked ? level : price->level; /* nothing is cheaper than what is at the bottom */
}
