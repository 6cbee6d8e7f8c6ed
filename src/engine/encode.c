#include "encode.h"

#include <brotli/encode.h>
#include <errno.h>
#include <zlib.h>

enum {
	GZIP_LEVEL = 6,
	GZIP_WINDOW = 15 + 16, /* 16: a gzip header rather than zlib's */
	GZIP_MEMORY = 8,
	GZIP_OS_UNKNOWN = 255, /* RFC 1952, section 2.3.1: not the machine's own */
	BROTLI_QUALITY = 5,
	BROTLI_WINDOW_MIN = 16, /* bits */
};

/* Each writes at most `max` bytes, and says -ENODATA when they do not do. */
typedef int encode_fn(const void *body, size_t len, void *out, size_t max, size_t *ret_len);

static int encode_gzip(const void *body, size_t len, void *out, size_t max, size_t *ret_len)
{
	gz_header header = {.os = GZIP_OS_UNKNOWN};
	z_stream z = {0};
	int r =
	    deflateInit2(&z, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW, GZIP_MEMORY, Z_DEFAULT_STRATEGY);

	if (r == Z_MEM_ERROR)
		return -ENOMEM;
	ALWAYS(r == Z_OK);
	r = deflateSetHeader(&z, &header);
	ALWAYS(r == Z_OK);
	z.next_in = (Bytef *)(uintptr_t)body;
	z.avail_in = (uInt)len;
	z.next_out = out;
	z.avail_out = (uInt)max;
	r = deflate(&z, Z_FINISH);
	*ret_len = z.total_out;
	deflateEnd(&z);
	return r == Z_STREAM_END ? 0 : -ENODATA;
}

/* The smallest that spans the body (RFC 7932, section 9.1), up to the usual one. */
static uint32_t brotli_window(size_t len)
{
	uint32_t bits = BROTLI_WINDOW_MIN;

	while (bits < BROTLI_DEFAULT_WINDOW && (1u << bits) - 16 < len)
		bits++;
	return bits;
}

static int encode_br(const void *body, size_t len, void *out, size_t max, size_t *ret_len)
{
	BrotliEncoderState *b = BrotliEncoderCreateInstance(NULL, NULL, NULL);
	const uint8_t *in = body;
	uint8_t *to = out;
	size_t room = max;
	bool finished, ok;

	if (!b)
		return -ENOMEM;
	BrotliEncoderSetParameter(b, BROTLI_PARAM_QUALITY, BROTLI_QUALITY);
	BrotliEncoderSetParameter(b, BROTLI_PARAM_LGWIN, brotli_window(len));
	BrotliEncoderSetParameter(b, BROTLI_PARAM_SIZE_HINT, (uint32_t)len);
	/* Not BrotliEncoderCompress, which does not tell a full buffer from a lack of memory. */
	ok = BrotliEncoderCompressStream(b, BROTLI_OPERATION_FINISH, &len, &in, &room, &to, NULL);
	finished = BrotliEncoderIsFinished(b);
	BrotliEncoderDestroyInstance(b);
	if (!ok)
		return -ENOMEM;
	*ret_len = max - room;
	return finished ? 0 : -ENODATA;
}

static encode_fn *const encoders[CODING_COUNT] = {
    [CODING_GZIP] = encode_gzip,
    [CODING_BR] = encode_br,
};

int encode_body(enum entry_coding coding, const void *body, size_t len, void **ret, size_t *ret_len)
{
	_cleanup_free_ void *out = NULL;
	size_t max, n;
	void *exact;
	int r;

	ALWAYS((size_t)coding < CODING_COUNT);
	if (len > ENCODE_MAX)
		return -EFBIG;
	max = len - (len * ENCODE_SAVING_MIN + 99) / 100;
	if (max == 0)
		return -ENODATA;
	out = malloc(max);
	if (!out)
		return -ENOMEM;
	r = encoders[coding](body, len, out, max, &n);
	if (r < 0)
		return r;
	exact = realloc(out, n);
	*ret = exact ? exact : out;
	*ret_len = n;
	out = NULL;
	return 0;
}
