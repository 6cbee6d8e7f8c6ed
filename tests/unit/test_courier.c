/*
 * What was published, on its way to the hub: each interleaving of the listener's thread and the
 * courier's as it is wanted, hence without the courier's, whose turns the test takes.
 */
#include <openssl/hmac.h>

#include "../../src/courier/courier_impl.h"
#include "hub_fixture.h"

#include "provost/change.h"

static const struct hub_options OPTIONS = {.max_clients = 100,
                                           .tick_ms = 1,
                                           .backlog = 64 << 10,
                                           .max_message = 1 << 16,
                                           .stall_timeout_ms = 60000,
                                           .ping_interval_ms = 60000,
                                           .auth_timeout_ms = 60000,
                                           .resume_window_ms = 60000,
                                           .refresh_interval_ms = 1000};
static const unsigned char KEY[EVENT_KEY_LEN] = "a key";
static struct hub *hub;
static struct courier *courier;
static int client;

/* Somebody is there, so that what is published goes somewhere. */
static void setup(void)
{
	setup_auth();
	hub = hub_new(&OPTIONS, auth, NULL);
	courier = courier_new(
	    &(struct courier_options){.url = (char[]){""}, .outbox_age_ms = 60000}, hub);
	ck_assert_int_eq(hub_start(hub), 0);
	client = adopt(hub);
	WAIT_UNTIL(hub_has_audience(hub));
}

static void teardown(void)
{
	hub_stop(hub, 10);
	close(client);
	courier_free(&courier);
	hub_free(&hub);
	teardown_auth();
}

/* As the listener hears it. */
static void publish(const char *text)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	char payload[512];
	_cleanup_change_ struct change c = {0};
	int at = snprintf(payload, sizeof payload, "event ");
	unsigned n;

	ck_assert(HMAC(EVP_sha256(), KEY, sizeof KEY, (const unsigned char *)text, strlen(text),
	               digest, &n) != NULL);
	for (unsigned i = 0; i < n; i++)
		at += snprintf(payload + at, 3, "%02x", digest[i]);
	snprintf(payload + at, sizeof payload - (size_t)at, " %s", text);
	ck_assert_int_eq(change_parse(payload, &c), 0);
	courier_event(courier, &c);
}

static const char EVENT[] = "{\"id\":7,\"room\":\"news\",\"name\":\"n\",\"data\":1}";

/* It has just looked whether a key is needed, when the first event comes. */
START_TEST(what_comes_before_the_key_is_read_waits_for_it)
{
	struct courier_stats s;

	ck_assert_int_eq(parcels_serve_key(courier), 0);
	publish(EVENT);
	ck_assert_int_eq(parcels_serve(courier), 0);
	courier_stats(courier, &s);
	ck_assert_uint_eq(s.forged, 0);
	ck_assert_uint_eq(s.waiting, 1);
	ck_assert_uint_eq(parcels_key_due_us_locked(courier), 0);

	memcpy(courier->key, KEY, sizeof KEY);
	courier->key_state = KEY_THERE;
	publish(EVENT);
	ck_assert_int_eq(parcels_serve(courier), 0);
	courier_stats(courier, &s);
	ck_assert_uint_eq(s.events, 2);
	ck_assert_uint_eq(s.forged, 0);
	ck_assert_uint_eq(s.waiting, 0);
}
END_TEST

START_TEST(what_cannot_be_checked_is_dropped)
{
	struct courier_stats s;

	publish(EVENT);
	courier->key_state = KEY_ABSENT;
	ck_assert_int_eq(parcels_serve(courier), 0);
	publish(EVENT);
	courier_stats(courier, &s);
	ck_assert_uint_eq(s.events, 0);
	ck_assert_uint_eq(s.forged, 2);
	ck_assert_uint_eq(s.waiting, 0);
}
END_TEST

/* The database does not answer: nobody is to grow for it. */
START_TEST(what_waits_is_bounded)
{
	struct courier_stats s;

	for (int i = 0; i < COURIER_EVENTS_MAX; i++)
		publish(EVENT);
	courier_stats(courier, &s);
	ck_assert_uint_eq(s.waiting, COURIER_EVENTS_MAX);
	ck_assert_uint_eq(s.lost, 0);
	publish(EVENT);
	courier_stats(courier, &s);
	ck_assert_uint_eq(s.waiting, 0);
	ck_assert_uint_eq(s.lost, COURIER_EVENTS_MAX + 1);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("courier");
	TCase *c = tcase_create("courier");
	tcase_set_timeout(c, 60);
	tcase_add_checked_fixture(c, setup, teardown);
	tcase_add_test(c, what_comes_before_the_key_is_read_waits_for_it);
	tcase_add_test(c, what_cannot_be_checked_is_dropped);
	tcase_add_test(c, what_waits_is_bounded);
	suite_add_tcase(s, c);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
