/*
 * The codec, by a table after RFC 6455, ordered as Autobahn's testsuite orders its categories (1-7
 * and 10). Each case is fed whole, byte by byte, and in two pieces split at every place.
 */
#include <check.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "provost/ws.h"

enum {
	FIN = 0x80,
	T = FIN | WS_TEXT,
	B = FIN | WS_BINARY,
	CLOSE = FIN | WS_CLOSE,
	PING = FIN | WS_PING,
	PONG = FIN | WS_PONG,
	T_ = WS_TEXT, /* not the end of its message */
	B_ = WS_BINARY,
	_C = FIN | WS_CONTINUATION,
	_C_ = WS_CONTINUATION,
	MAX_MESSAGE = 1 << 16,
	FRAMES = 10,
	SPLIT_ALL = 1 << 9, /* bytes up to which every split is tried */
};

enum how { SHORTEST, UNMASKED, LONG16, LONG64, HIGH_BIT, HEADER_ONLY };

struct frame {
	unsigned first;
	const char *payload; /* NULL: `len` times 'x' */
	size_t len;          /* 0: strlen */
	enum how how;
};

#define F(first, text)                                                                             \
	{                                                                                          \
		first, text, sizeof(text) - 1                                                      \
	}
#define X(first, n)                                                                                \
	{                                                                                          \
		first, NULL, n                                                                     \
	}
/* 6.4: valid so far */
#define KOSME "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
#define X40   "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define H(first, text, as)                                                                         \
	{                                                                                          \
		first, text, sizeof(text) - 1, as                                                  \
	}

struct row {
	const char *name;
	struct frame frame[FRAMES];
	const char *expect; /* events; `*N` stands for N bytes of x */
};

/* What comes of it: t:text b:binary p:ping o:pong c1000:reason, or !1002 for a failure. */
static const struct row rows[] = {
    /* 1: framing */
    {"1.1.1", {F(T, "")}, "t:"},
    {"1.1.2", {X(T, 125)}, "t:*125"},
    {"1.1.3", {X(T, 126)}, "t:*126"},
    {"1.1.4", {X(T, 127)}, "t:*127"},
    {"1.1.5", {X(T, 128)}, "t:*128"},
    {"1.1.6", {X(T, 65535)}, "t:*65535"},
    {"1.1.7 1.1.8", {X(T, 65536)}, "t:*65536"},
    {"1.1 two in a row", {F(T, "a"), F(T, "b")}, "t:a t:b"},
    {"1.2.1", {F(B, "")}, "b:"},
    {"1.2.2", {X(B, 125)}, "b:*125"},
    {"1.2.3", {X(B, 126)}, "b:*126"},
    {"1.2.4", {X(B, 127)}, "b:*127"},
    {"1.2.5", {X(B, 128)}, "b:*128"},
    {"1.2.6", {X(B, 65535)}, "b:*65535"},
    {"1.2.7 1.2.8", {X(B, 65536)}, "b:*65536"},
    {"1.2 not text", {F(B, "\xff\x00\xfe")}, "b:\xff?\xfe"},
    /* 2: pings and pongs */
    {"2.1", {F(PING, "")}, "p:"},
    {"2.2", {F(PING, "Hello")}, "p:Hello"},
    {"2.3", {F(PING, "\xff\xfe")}, "p:\xff\xfe"},
    {"2.4 2.6", {X(PING, 125)}, "p:*125"},
    {"2 length of two bytes", {H(PING, "", LONG16), X(T, 1)}, "!1002"},
    {"2.5", {X(PING, 126)}, "!1002"},
    {"2.7", {F(PONG, "")}, "o:"},
    {"2.8", {F(PONG, "unsolicited")}, "o:unsolicited"},
    {"2.9", {F(PONG, "a"), F(PING, "b")}, "o:a p:b"},
    {"2.10 2.11",
     {F(PING, "0"), F(PING, "1"), F(PING, "2"), F(PING, "3"), F(PING, "4"), F(PING, "5"),
      F(PING, "6"), F(PING, "7"), F(PING, "8"), F(PING, "9")},
     "p:0 p:1 p:2 p:3 p:4 p:5 p:6 p:7 p:8 p:9"},
    {"2 pong of 126 bytes", {X(PONG, 126)}, "!1002"},
    /* 3: reserved bits */
    {"3.1", {F(T | 0x10, "a")}, "!1002"},
    {"3.2", {F(T, "a"), F(T | 0x20, "b"), F(PING, "")}, "t:a !1002"},
    {"3.3", {F(T, "a"), F(T | 0x30, "b")}, "t:a !1002"},
    {"3.4", {F(T, "a"), F(B | 0x40, "b")}, "t:a !1002"},
    {"3.5", {F(B | 0x50, "a")}, "!1002"},
    {"3.6", {F(PING | 0x60, "")}, "!1002"},
    {"3.7", {F(CLOSE | 0x70, "")}, "!1002"},
    {"3 in a continuation", {F(T_, "a"), F(_C | 0x40, "b")}, "!1002"},
    /* 4: opcodes */
    {"4.1.1", {F(FIN | 3, "")}, "!1002"},
    {"4.1.2", {F(FIN | 4, "x")}, "!1002"},
    {"4.1.3", {F(T, "a"), F(FIN | 5, "")}, "t:a !1002"},
    {"4.1.4", {F(T, "a"), F(FIN | 6, "x")}, "t:a !1002"},
    {"4.1.5", {F(T, "a"), F(FIN | 7, "")}, "t:a !1002"},
    {"4.2.1", {F(FIN | 11, "")}, "!1002"},
    {"4.2.2", {F(FIN | 12, "x")}, "!1002"},
    {"4.2.3", {F(T, "a"), F(FIN | 13, "")}, "t:a !1002"},
    {"4.2.4", {F(T, "a"), F(FIN | 14, "x")}, "t:a !1002"},
    {"4.2.5", {F(T, "a"), F(FIN | 15, "")}, "t:a !1002"},
    /* 5: fragments */
    {"5.1", {F(WS_PING, "a"), F(_C, "b")}, "!1002"},
    {"5.2", {F(WS_PONG, "a"), F(_C, "b")}, "!1002"},
    {"5.2 close", {F(WS_CLOSE, ""), F(_C, "b")}, "!1002"},
    {"5.3 5.4 5.5", {F(T_, "a"), F(_C, "b")}, "t:ab"},
    {"5.6 5.7 5.8", {F(T_, "a"), F(PING, "p"), F(_C, "b")}, "p:p t:ab"},
    {"5.9 5.10 5.11", {F(_C, "a"), F(T, "b")}, "!1002"},
    {"5 after a message", {F(T, "a"), F(_C, "b")}, "t:a !1002"},
    {"5.12 5.13 5.14", {F(_C_, "a"), F(T, "b")}, "!1002"},
    {"5.15", {F(T_, "a"), F(_C, "b"), F(_C_, "c"), F(T, "d")}, "t:ab !1002"},
    {"5.16", {F(_C_, "a"), F(T_, "b"), F(_C, "c"), F(_C_, "a"), F(T_, "b"), F(_C, "c")}, "!1002"},
    {"5.17", {F(_C, "a"), F(T_, "b"), F(_C, "c"), F(_C, "a"), F(T_, "b"), F(_C, "c")}, "!1002"},
    {"5.18", {F(T_, "a"), F(T, "b")}, "!1002"},
    {"5.18 binary", {F(T_, "a"), F(B, "b")}, "!1002"},
    {"5.19 5.20",
     {F(T_, "a"), F(_C_, "b"), F(PING, "1"), F(_C_, "c"), F(_C_, "d"), F(PING, "2"), F(_C, "e")},
     "p:1 p:2 t:abcde"},
    {"5 binary", {F(B_, "\xff"), F(PONG, "o"), F(_C_, ""), F(_C, "\xfe")}, "o:o b:\xff\xfe"},
    {"6.1.2", {F(T_, ""), F(_C_, ""), F(_C, "")}, "t:"},
    {"5 empty ends", {F(T_, ""), F(_C_, "a"), F(_C, "")}, "t:a"},
    {"5 twice", {F(T_, "a"), F(_C, "b"), F(T_, "c"), F(_C, "d")}, "t:ab t:cd"},
    {"7.1.5", {F(T_, "a"), F(CLOSE, "\x03\xe8"), F(_C, "b")}, "c1000: t:ab"},
    {"5 a large one", {X(T_, 300), F(PING, "p"), X(_C, 300)}, "p:p t:*600"},
    /* 6: UTF-8 */
    {"6.1.1", {F(T, "")}, "t:"},
    {"6.1.3", {F(T_, ""), F(_C_, "x"), F(_C, "")}, "t:x"},
    {"6.2.2",
     {F(T_, "Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4"), F(_C, "\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!")},
     "t:Hello-\xc2\xb5@\xc3\x9f\xc3\xb6\xc3\xa4\xc3\xbc\xc3\xa0\xc3\xa1-UTF-8!!"},
    {"6 split in a character",
     {F(T_, "\xce"), F(_C_, "\xba\xe1\xbd"), F(_C, "\xb9")},
     "t:\xce\xba\xe1\xbd\xb9"},
    {"6 in the second fragment",
     {F(T_, "\xce\xba"), F(_C, "\xed\xa0\x80"
                               "edited")},
     "!1007"},
    {"6.4.1", {F(T_, KOSME), H(_C_, "\xf4\x90\x80\x80", HEADER_ONLY)}, "!1007"},
    {"6.4.2", {F(T_, KOSME "\xf4"), H(_C_, "\x90", HEADER_ONLY)}, "!1007"},
    {"6.4.3", {H(T, KOSME "\xf4\x90\x80\x80", HEADER_ONLY)}, "!1007"},
    {"6.4.4", {H(T, KOSME "\xf4\x90", HEADER_ONLY)}, "!1007"},
    {"6 cut short, empty end", {F(T_, "\xe1\xbd"), F(_C, "")}, "!1007"},
    {"6 cut short, a control frame between",
     {F(T_, "\xe1"), F(PING, "\xe1"), F(_C, "\xbd\xb9")},
     "p:\xe1 t:\xe1\xbd\xb9"},
    {"6 the next one begins anew", {F(B, "\xe1"), F(T, "a")}, "b:\xe1 t:a"},
    {"6 NUL", {F(T, "\0")}, "t:?"},
    {"6 greatest of two",
     {F(T, "\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf")},
     "t:\xdf\xbf\xef\xbf\xbf\xf4\x8f\xbf\xbf"},
    {"6 before and after", {F(T, "\xed\x9f\xbf\xee\x80\x80")}, "t:\xed\x9f\xbf\xee\x80\x80"},
    {"6 long enough for words",
     {F(T, "\xef\xbf\xbd long enough for words \xf0\x90\x80\x80 and more words")},
     "t:\xef\xbf\xbd long enough for words \xf0\x90\x80\x80 and more words"},
    {"6 behind ASCII of many words", {F(T, "0123456789abcdef0123456789abcdef\xff")}, "!1007"},
    /* 7: closing */
    {"7.1.1", {F(T, "a"), F(CLOSE, "\x03\xe8")}, "t:a c1000:"},
    /* The codec goes on; that nothing is heard behind a close is the hub's to see to. */
    {"7.1.2", {F(CLOSE, "\x03\xe8"), F(CLOSE, "")}, "c1000: c1005:"},
    {"7.1.3", {F(CLOSE, "\x03\xe8"), F(PING, "")}, "c1000: p:"},
    {"7.1.4", {F(CLOSE, "\x03\xe8"), F(T, "b")}, "c1000: t:b"},
    {"7.1.6",
     {X(T, 65536), F(T, "Hello"), F(CLOSE, "\x03\xe8"), F(PING, "")},
     "t:*65536 t:Hello c1000: p:"},
    {"7.3.1", {F(CLOSE, "")}, "c1005:"},
    {"7.3.2", {F(CLOSE, "\x03")}, "!1002"},
    {"7.3.3", {F(CLOSE, "\x03\xe8")}, "c1000:"},
    {"7.3.4", {F(CLOSE, "\x03\xe8Hello")}, "c1000:Hello"},
    {"7.3.5", {F(CLOSE, "\x03\xe8" X40 X40 X40 "xxx")}, "c1000:*123"},
    {"7.3.6", {X(CLOSE, 126)}, "!1002"},
    {"7.5.1", {F(CLOSE, "\x03\xe8\xce\xba\xed\xa0\x80")}, "!1007"},
    {"7.5 cut short", {F(CLOSE, "\x03\xe8\xce")}, "!1007"},
    {"7.7.1",
     {F(CLOSE, "\x03"
               "\xe8")},
     "c1000:"},
    {"7.7.2",
     {F(CLOSE, "\x03"
               "\xe9")},
     "c1001:"},
    {"7.7.3",
     {F(CLOSE, "\x03"
               "\xea")},
     "c1002:"},
    {"7.7.4",
     {F(CLOSE, "\x03"
               "\xeb")},
     "c1003:"},
    {"7.7.5",
     {F(CLOSE, "\x03"
               "\xef")},
     "c1007:"},
    {"7.7.6",
     {F(CLOSE, "\x03"
               "\xf0")},
     "c1008:"},
    {"7.7.7",
     {F(CLOSE, "\x03"
               "\xf1")},
     "c1009:"},
    {"7.7.8",
     {F(CLOSE, "\x03"
               "\xf2")},
     "c1010:"},
    {"7.7.9",
     {F(CLOSE, "\x03"
               "\xf3")},
     "c1011:"},
    {"7.7.10",
     {F(CLOSE, "\x0b"
               "\xb8")},
     "c3000:"},
    {"7.7.11",
     {F(CLOSE, "\x0f"
               "\x9f")},
     "c3999:"},
    {"7.7.12",
     {F(CLOSE, "\x0f"
               "\xa0")},
     "c4000:"},
    {"7.7.13",
     {F(CLOSE, "\x13"
               "\x87")},
     "c4999:"},
    {"7.7 1012",
     {F(CLOSE, "\x03"
               "\xf4")},
     "c1012:"},
    {"7.7 1013",
     {F(CLOSE, "\x03"
               "\xf5")},
     "c1013:"},
    {"7.7 1014",
     {F(CLOSE, "\x03"
               "\xf6")},
     "c1014:"},
    {"7.9.1", {F(CLOSE, "\0\0")}, "!1002"},
    {"7.9.2", {F(CLOSE, "\x03\xe7")}, "!1002"},
    {"7.9.3", {F(CLOSE, "\x03\xec")}, "!1002"},
    {"7.9.4", {F(CLOSE, "\x03\xed")}, "!1002"},
    {"7.9.5", {F(CLOSE, "\x03\xee")}, "!1002"},
    {"7.9 1015", {F(CLOSE, "\x03\xf7")}, "!1002"},
    {"7.9.6", {F(CLOSE, "\x03\xf8")}, "!1002"},
    {"7.9.7", {F(CLOSE, "\x04\x4c")}, "!1002"},
    {"7.9.8", {F(CLOSE, "\x07\xd0")}, "!1002"},
    {"7.9.9", {F(CLOSE, "\x0b\xb7")}, "!1002"},
    {"7.13.1", {F(CLOSE, "\x13\x88")}, "!1002"},
    {"7.13.2", {F(CLOSE, "\xff\xff")}, "!1002"},
    /* 10: many fragments of one size are below; and what Autobahn, a client, does not try */
    {"unmasked", {H(T, "a", UNMASKED)}, "!1002"},
    {"unmasked and empty", {H(PING, "", UNMASKED)}, "!1002"},
    {"length of two bytes where one will do", {H(T, "abc", LONG16)}, "!1002"},
    {"length of eight bytes where one will do", {H(T, "abc", LONG64)}, "!1002"},
    {"length of eight bytes where two will do", {{T, NULL, 65535, LONG64}}, "!1002"},
    {"length past 63 bits", {H(B, "abc", HIGH_BIT)}, "!1002"},
    {"too large", {{T, NULL, MAX_MESSAGE + 1, HEADER_ONLY}}, "!1009"},
    {"too large together", {X(T_, 65536), {_C, NULL, 1, HEADER_ONLY}}, "!1009"},
    {"just not too large together", {X(T_, 65535), F(PING, "p"), X(_C, 1)}, "p:p t:*65536"},
};

/* ---- bytes --------------------------------------------------------------------------- */

static const uint8_t MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

static void add_length(struct buf *b, const struct frame *f, size_t n, unsigned masked)
{
	uint16_t n16 = htobe16((uint16_t)n);
	uint64_t n64 = htobe64(f->how == HIGH_BIT ? UINT64_C(1) << 63 | n : n);
	bool wide = n > UINT16_MAX || f->how == LONG64 || f->how == HIGH_BIT;
	if (n <= 125 && !wide && f->how != LONG16) {
		buf_addc(b, (char)(masked | n));
	} else if (!wide) {
		buf_addc(b, (char)(masked | 126));
		buf_add(b, &n16, sizeof n16);
	} else {
		buf_addc(b, (char)(masked | 127));
		buf_add(b, &n64, sizeof n64);
	}
}

static void add_frame(struct buf *b, const struct frame *f)
{
	bool cut = f->how == HEADER_ONLY;
	/* What is cut short promises a little more than what comes. */
	size_t n = f->len, promised = cut && f->payload ? n + 10 : n;
	buf_addc(b, (char)f->first);
	add_length(b, f, promised, f->how == UNMASKED ? 0 : 0x80);
	if (f->how != UNMASKED)
		buf_add(b, MASK, sizeof MASK);
	for (size_t i = 0; i < n && (!cut || f->payload); i++) {
		char c = f->payload ? f->payload[i] : 'x';
		buf_addc(b, f->how == UNMASKED ? c : (char)(c ^ MASK[i & 3]));
	}
}

static bool is_frame(const struct frame *f)
{
	return f->first || f->payload || f->len;
}

static void bytes_of(const struct row *row, struct buf *b)
{
	for (size_t i = 0; i < FRAMES && is_frame(&row->frame[i]); i++)
		add_frame(b, &row->frame[i]);
	ck_assert(!b->failed);
}

/* ---- what comes of them -------------------------------------------------------------- */

static void say(struct buf *log, const struct ws_event *e)
{
	static const char letters[] = {
	    [WS_TEXT] = 't', [WS_BINARY] = 'b', [WS_CLOSE] = 'c', [WS_PING] = 'p', [WS_PONG] = 'o'};
	size_t x = 0;
	if (log->len)
		buf_addc(log, ' ');
	buf_addc(log, letters[e->opcode]);
	if (e->opcode == WS_CLOSE)
		buf_addf(log, "%u", e->code);
	buf_addc(log, ':');
	while (x < e->len && e->data[x] == 'x')
		x++;
	if (x == e->len && x > 1) {
		buf_addf(log, "*%zu", x);
		return;
	}
	for (size_t i = 0; i < e->len; i++)
		buf_addc(log, e->data[i] ? e->data[i] : '?');
}

/* Each piece is in memory of its own, so that what reads past it is found. */
static int feed(struct ws_decoder *d, const char *p, size_t n, struct buf *log)
{
	_cleanup_free_ char *copy = xcalloc(n ? n : 1, 1);
	char *data = copy;
	struct ws_event e;
	int r;
	memcpy(copy, p, n);
	while ((r = ws_decode(d, &data, &n, &e)) > 0)
		say(log, &e);
	ck_assert(r < 0 || n == 0);
	if (r == 0)
		return 0;
	buf_addf(log, "%s!%u", log->len ? " " : "", ws_code_of_error(r));
	ck_assert_int_lt(ws_decode(d, &data, &n, &e), 0); /* for good */
	return r;
}

static void expect(const struct row *row, struct buf *log, const char *how, size_t at)
{
	buf_addc(log, '\0');
	ck_assert_msg(!strcmp(log->data, row->expect), "%s, %s %zu: %s instead of %s", row->name,
	              how, at, log->data, row->expect);
}

static void run_split(const struct row *row, const struct buf *b, size_t at)
{
	_cleanup_buf_ struct buf log = {0};
	struct ws_decoder d;
	ws_decoder_init(&d, MAX_MESSAGE);
	if (feed(&d, b->data, at, &log) == 0)
		(void)feed(&d, b->data + at, b->len - at, &log);
	expect(row, &log, "split at", at);
	ws_decoder_done(&d);
}

static void try_whole_and_split(const struct row *row)
{
	_cleanup_buf_ struct buf b = {0};
	bytes_of(row, &b);
	for (size_t at = 0; at <= b.len;
	     at += b.len > SPLIT_ALL && at > 40 && at + 41 < b.len ? 4999 : 1)
		run_split(row, &b, MIN(at, b.len));
}

START_TEST(whole_and_split)
{
	try_whole_and_split(&rows[_i]);
}
END_TEST

static void try_byte_by_byte(const struct row *row)
{
	_cleanup_buf_ struct buf b = {0}, log = {0};
	struct ws_decoder d;
	int r = 0;
	bytes_of(row, &b);
	ws_decoder_init(&d, MAX_MESSAGE);
	for (size_t i = 0; i < b.len && r == 0; i++)
		r = feed(&d, b.data + i, 1, &log);
	expect(row, &log, "bytes", b.len);
	ws_decoder_done(&d);
}

START_TEST(byte_by_byte)
{
	try_byte_by_byte(&rows[_i]);
}
END_TEST

/* Nothing that is cut short is an event, or a failure that the whole is not. */
START_TEST(every_prefix)
{
	const struct row *row = &rows[_i];
	_cleanup_buf_ struct buf b = {0};
	bytes_of(row, &b);
	for (size_t n = 0; n < MIN(b.len, (size_t)SPLIT_ALL); n++) {
		_cleanup_buf_ struct buf log = {0};
		struct ws_decoder d;
		ws_decoder_init(&d, MAX_MESSAGE);
		(void)feed(&d, b.data, n, &log);
		ck_assert_msg(log.len <= strlen(row->expect) &&
		                  !memcmp(log.len ? log.data : "", row->expect, log.len),
		              "%s, %zu bytes", row->name, n);
		ws_decoder_done(&d);
	}
}
END_TEST

/* ---- texts: categories 6.2, 6.3, 6.5 to 6.23 ------------------------------------------- */

enum { TEXTS = 135, TEXT_MAX = 80, EXPECT_MAX = TEXT_MAX + 10 };

static struct text {
	char name[12], bytes[TEXT_MAX], expect[EXPECT_MAX];
	size_t len;
} texts[TEXTS];

static void take_text(struct text *t, const char *line)
{
	char verdict[10], hex[2 * TEXT_MAX + 1];
	ck_assert_int_eq(sscanf(line, "%11s %9s %160s", t->name, verdict, hex), 3);
	for (const char *p = hex; *p; p += 2) {
		unsigned byte;
		ck_assert_int_eq(sscanf(p, "%2x", &byte), 1);
		t->bytes[t->len++] = (char)byte;
	}
	char *to = stpcpy(t->expect, strcmp(verdict, "valid") ? "!1007" : "t:");
	for (size_t i = 0; i < t->len && !strcmp(verdict, "valid"); i++)
		*to++ = t->bytes[i] ? t->bytes[i] : '?';
}

static void read_texts(void)
{
	const char *root = getenv("SOURCE_ROOT");
	_cleanup_free_ char *path = xasprintf("%s/tests/unit/utf8_cases.txt", root ? root : ".");
	char line[300];
	size_t n = 0;
	FILE *f = fopen(path, "r");
	ck_assert_msg(f, "%s", path);
	for (; fgets(line, sizeof line, f); n++) {
		ck_assert_uint_lt(n, TEXTS);
		take_text(&texts[n], line);
	}
	fclose(f);
	ck_assert_uint_eq(n, TEXTS);
}

static struct row row_of(const struct text *t)
{
	return (struct row){t->name, {{T, t->bytes, t->len, SHORTEST}}, t->expect};
}

START_TEST(texts_whole_and_split)
{
	const struct row row = row_of(&texts[_i]);
	try_whole_and_split(&row);
}
END_TEST

START_TEST(texts_byte_by_byte)
{
	const struct row row = row_of(&texts[_i]);
	try_byte_by_byte(&row);
}
END_TEST

/* Each byte a fragment, an empty one at the end. */
START_TEST(texts_in_fragments)
{
	const struct text *t = &texts[_i];
	const struct row row = row_of(t);
	_cleanup_buf_ struct buf b = {0}, log = {0};
	struct ws_decoder d;
	for (size_t i = 0; i <= t->len; i++) {
		const struct frame f = {i ? i < t->len ? _C_ : _C : T_, t->bytes + i, i < t->len,
		                        SHORTEST};
		add_frame(&b, &f);
	}
	ws_decoder_init(&d, MAX_MESSAGE);
	(void)feed(&d, b.data, b.len, &log);
	expect(&row, &log, "fragments", t->len);
	ws_decoder_done(&d);
}
END_TEST

/* Category 10: a message in fragments of one size; here with what else may come between. */
START_TEST(many_fragments)
{
	_cleanup_buf_ struct buf b = {0}, log = {0};
	struct ws_decoder d;
	enum { SIZE = 1300, COUNT = 50 };
	for (size_t i = 0; i < COUNT; i++) {
		struct frame f = X(i ? (i + 1 < COUNT ? _C_ : _C) : B_, SIZE);
		struct frame ping = F(PING, "");
		add_frame(&b, &f);
		if (i + 1 < COUNT && i % 10 == 0)
			add_frame(&b, &ping);
	}
	ws_decoder_init(&d, MAX_MESSAGE);
	ck_assert_int_eq(feed(&d, b.data, b.len, &log), 0);
	buf_addc(&log, '\0');
	ck_assert_str_eq(log.data, "p: p: p: p: p: b:*65000");
	ck_assert(ws_decoder_is_idle(&d));
	ws_decoder_done(&d);
}
END_TEST

START_TEST(autobahns_fragments)
{
	_cleanup_buf_ struct buf b = {0};
	enum { SIZE = 1300, ALL = 65536 };
	for (size_t at = 0; at < ALL; at += SIZE) {
		bool last = at + SIZE >= ALL;
		struct frame f = X(at ? last ? _C : _C_ : T_, last ? ALL - at : SIZE);
		add_frame(&b, &f);
	}
	const struct row row = {.name = "10.1.1", .expect = "t:*65536"};
	for (size_t at = 0; at <= b.len; at += SIZE / 3)
		run_split(&row, &b, at);
}
END_TEST

/* A header that promises much takes no memory. */
START_TEST(promises_take_no_memory)
{
	struct ws_decoder d;
	struct ws_event e;
	char header[] = "\x82\xff\0\0\0\0\0\xf0\0\0\x01\x02\x03\x04z", *data = header;
	size_t n = sizeof header - 1;
	ws_decoder_init(&d, 16 << 20);
	ck_assert_int_eq(ws_decode(&d, &data, &n, &e), 0);
	ck_assert_uint_lt(d.gathered.cap, 1024);
	ws_decoder_done(&d);
}
END_TEST

/* ---- the smaller ones ---------------------------------------------------------------- */

START_TEST(masks)
{
	const uint8_t key[4] = {1, 2, 4, 8};
	uint32_t mask;
	memcpy(&mask, key, 4);
	for (size_t at = 0; at < 8; at++)
		for (size_t n = 0; n < 40; n++)
			for (size_t offset = 0; offset < 9; offset++) {
				char data[64] = {0};
				ws_mask(data + at, n, mask, offset);
				for (size_t i = 0; i < sizeof data; i++) {
					bool in = i >= at && i < at + n;
					ck_assert_int_eq(data[i],
					                 in ? key[(i - at + offset) & 3] : 0);
				}
			}
}
END_TEST

START_TEST(headers)
{
	static const struct {
		uint64_t payload;
		const char *bytes;
		size_t n;
	} table[] = {
	    {0, "\x81\x00", 2},
	    {125, "\x81\x7d", 2},
	    {126, "\x81\x7e\x00\x7e", 4},
	    {65535, "\x81\x7e\xff\xff", 4},
	    {65536, "\x81\x7f\0\0\0\0\0\x01\0\0", 10},
	};
	for (size_t i = 0; i < ELEMENTSOF(table); i++) {
		uint8_t out[WS_SERVER_HEADER_MAX];
		ck_assert_uint_eq(ws_header(out, WS_TEXT, table[i].payload), table[i].n);
		ck_assert_int_eq(memcmp(out, table[i].bytes, table[i].n), 0);
	}
}
END_TEST

START_TEST(codes)
{
	unsigned valid = 0;
	for (unsigned code = 0; code <= UINT16_MAX; code++)
		valid += ws_code_is_valid(code);
	ck_assert_uint_eq(valid, 4 + 8 + 2000);
}
END_TEST

/* All code points, and nothing else. */
START_TEST(every_character)
{
	for (uint32_t c = 0; c < 0x112000; c++) {
		char s[4];
		size_t n;
		if (c < 0x80) {
			s[0] = (char)c;
			n = 1;
		} else if (c < 0x800) {
			s[0] = (char)(0xC0 | c >> 6);
			s[1] = (char)(0x80 | (c & 63));
			n = 2;
		} else if (c < 0x10000) {
			s[0] = (char)(0xE0 | c >> 12);
			s[1] = (char)(0x80 | (c >> 6 & 63));
			s[2] = (char)(0x80 | (c & 63));
			n = 3;
		} else {
			s[0] = (char)(0xF0 | c >> 18);
			s[1] = (char)(0x80 | (c >> 12 & 63));
			s[2] = (char)(0x80 | (c >> 6 & 63));
			s[3] = (char)(0x80 | (c & 63));
			n = 4;
		}
		struct ws_utf8 u = {0};
		bool valid = c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF);
		ck_assert(((ws_utf8_feed(&u, s, n) && ws_utf8_whole(&u)) ? 1 : 0) == valid);
	}
}
END_TEST

START_TEST(handshake)
{
	char out[WS_ACCEPT_LEN + 1];
	/* The RFC's own example, section 1.3. */
	ck_assert_int_eq(ws_accept("dGhlIHNhbXBsZSBub25jZQ==", out), 0);
	ck_assert_str_eq(out, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
	static const struct {
		const char *key;
		bool valid;
	} keys[] = {
	    {"dGhlIHNhbXBsZSBub25jZQ==", true},  {"AAAAAAAAAAAAAAAAAAAAAA==", true},
	    {"+/+/+/+/+/+/+/+/+/+/+w==", true},  {"dGhlIHNhbXBsZSBub25jZR==", false},
	    {"dGhlIHNhbXBsZSBub25jZQ=", false},  {"dGhlIHNhbXBsZSBub25jZQ===", false},
	    {"dGhlIHNhbXBsZSBub25jZQAA", false}, {"", false},
	    {"dGhlIHNhbXBs ZSBub25jZQ=", false}, {"dGhlIHNhbXBsZSBub25jZ_==", false},
	    {"dGhlIHNhbXBsZSBub25jZ===", false},
	};
	for (size_t i = 0; i < ELEMENTSOF(keys); i++)
		ck_assert_msg(ws_key_is_valid(keys[i].key, strlen(keys[i].key)) == keys[i].valid,
		              "%s", keys[i].key);
}
END_TEST

START_TEST(tokens)
{
	static const struct {
		const char *list;
		bool has;
	} lists[] = {
	    {"upgrade", true},
	    {"Upgrade", true},
	    {"keep-alive, Upgrade", true},
	    {"\tUPGRADE , keep-alive", true},
	    {",, upgrade,", true},
	    {"", false},
	    {"upgrades", false},
	    {"not upgrade", false},
	    {"\"upgrade\"", false},
	    {"up,grade", false},
	};
	for (size_t i = 0; i < ELEMENTSOF(lists); i++)
		ck_assert_msg(ws_has_token(lists[i].list, strlen(lists[i].list), "upgrade") ==
		                  lists[i].has,
		              "%s", lists[i].list);
}
END_TEST

/* A reload may lower it while a message is on its way: the frame that was let pass is taken, what
 * follows is judged anew. */
START_TEST(the_bound_falls_within_a_message)
{
	enum { FIRST = 8 + 200, SEEN = 8 + 100, LAST = 6 + 1 };
	char bytes[FIRST + LAST] = {0};
	struct ws_decoder d;
	struct ws_event e;
	char *p = bytes;
	size_t n = SEEN;
	memcpy(bytes, "\x01\xfe\x00\xc8", 4);
	memcpy(bytes + FIRST, "\x80\x81", 2);
	ws_decoder_init(&d, 1000);
	ck_assert_int_eq(ws_decode(&d, &p, &n, &e), 0);
	d.max = 2;
	n = FIRST - SEEN;
	ck_assert_int_eq(ws_decode(&d, &p, &n, &e), 0);
	n = LAST;
	ck_assert_int_eq(ws_decode(&d, &p, &n, &e), -EMSGSIZE);
	ws_decoder_done(&d);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ws");
	TCase *t = tcase_create("ws");
	SRunner *runner;
	int failed;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, whole_and_split, 0, ELEMENTSOF(rows));
	tcase_add_loop_test(t, byte_by_byte, 0, ELEMENTSOF(rows));
	tcase_add_loop_test(t, every_prefix, 0, ELEMENTSOF(rows));
	tcase_add_unchecked_fixture(t, read_texts, NULL);
	tcase_add_loop_test(t, texts_whole_and_split, 0, TEXTS);
	tcase_add_loop_test(t, texts_byte_by_byte, 0, TEXTS);
	tcase_add_loop_test(t, texts_in_fragments, 0, TEXTS);
	tcase_add_test(t, autobahns_fragments);
	tcase_add_test(t, many_fragments);
	tcase_add_test(t, promises_take_no_memory);
	tcase_add_test(t, masks);
	tcase_add_test(t, headers);
	tcase_add_test(t, codes);
	tcase_add_test(t, every_character);
	tcase_add_test(t, handshake);
	tcase_add_test(t, the_bound_falls_within_a_message);
	tcase_add_test(t, tokens);
	suite_add_tcase(s, t);
	runner = srunner_create(s);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
