#include <errno.h>
#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#include "provost/ws.h"

bool ws_key_is_valid(const char *key, size_t n)
{
	static const char digits[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	if (n != WS_KEY_LEN || key[n - 1] != '=' || key[n - 2] != '=')
		return false;
	for (size_t i = 0; i < n - 2; i++)
		if (!key[i] || !strchr(digits, key[i]))
			return false;
	/* 16 bytes leave four bits of the last digit unused: zero, or it is another spelling. */
	return ((strchr(digits, key[n - 3]) - digits) & 15) == 0;
}

int ws_accept(const char key[WS_KEY_LEN], char out[WS_ACCEPT_LEN + 1])
{
	static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; /* section 1.3 */
	char text[WS_KEY_LEN + sizeof guid];
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned len;
	memcpy(text, key, WS_KEY_LEN);
	memcpy(text + WS_KEY_LEN, guid, sizeof guid);
	if (EVP_Digest(text, strlen(guid) + WS_KEY_LEN, digest, &len, EVP_sha1(), NULL) != 1 ||
	    len != 20)
		return -EIO;
	ALWAYS(EVP_EncodeBlock((unsigned char *)out, digest, (int)len) == WS_ACCEPT_LEN);
	return 0;
}

bool ws_has_token(const char *list, size_t n, const char *token)
{
	const char *end = list + n;
	size_t len = strlen(token);
	while (list < end) {
		const char *comma = memchr(list, ',', (size_t)(end - list));
		const char *stop = comma ? comma : end;
		const char *next = comma ? comma + 1 : end;
		while (list < stop && (*list == ' ' || *list == '\t'))
			list++;
		while (stop > list && (stop[-1] == ' ' || stop[-1] == '\t'))
			stop--;
		if ((size_t)(stop - list) == len && !strncasecmp(list, token, len))
			return true;
		list = next;
	}
	return false;
}
