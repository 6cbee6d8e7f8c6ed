#include "digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static EVP_MD *sha256;

/* Fetched once: OpenSSL 3 would otherwise look the implementation up under a lock on every use.
 * Never freed, as OpenSSL itself is not. */
static void fetch(void)
{
	sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
	ALWAYS(sha256 != NULL);
}

int digest_sha256(int first, const void *bytes, size_t n, unsigned char ret[DIGEST_LEN])
{
	unsigned char tag = (unsigned char)first;
	EVP_MD_CTX *ctx;
	bool ok;

	pthread_once(&once, fetch);
	ctx = EVP_MD_CTX_new();
	if (!ctx)
		return -ENOMEM;
	ok = EVP_DigestInit_ex(ctx, sha256, NULL) == 1 &&
	     (first < 0 || EVP_DigestUpdate(ctx, &tag, 1) == 1) &&
	     EVP_DigestUpdate(ctx, bytes, n) == 1 && EVP_DigestFinal_ex(ctx, ret, NULL) == 1;
	EVP_MD_CTX_free(ctx);
	return ok ? 0 : -ENOMEM;
}
