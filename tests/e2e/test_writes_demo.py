"""The course platform's endpoints that write: what they change, answer, record and refuse, also at once."""
import concurrent.futures
import re
import subprocess
import threading

import pytest

from harness import BINARY, Server, patience, wait_until

SUBJECT = "user-of-the-tests"


class Api:
    """Requests of an administrator; bodies are JSON."""

    def __init__(self, server, token):
        self.server, self.token = server, token

    def __call__(self, method, path, body=None):
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.server.request(method, "/api/admin" + path, headers, body, seconds=30)

    def get(self, path):
        answer = self("GET", path)
        assert answer.status == 200, answer
        return answer.json()

    def done(self, method, path, body=None, status=200):
        answer = self(method, path, body)
        assert answer.status == status, answer
        return answer.json() if status != 204 else answer.body

    def refused(self, method, path, body, status):
        answer = self(method, path, body)
        assert answer.status == status, answer
        assert answer.header("Content-Type") == "application/problem+json"
        return answer.json()


@pytest.fixture(scope="module")
def server(cluster, database):
    """Served with the rights that `provost grants print` names, and no others."""
    server = Server(cluster, database, token=True, config={"workers": {"threads": 8}, "database": {"pool_max": 8}})

    def provost(*words):
        env = {**server.environment(), "PROVOST_DATABASE_URL": cluster.dsn(database)}
        return subprocess.run([BINARY, *words], check=True, text=True, capture_output=True, env=env, timeout=patience(30)).stdout

    provost("schema", "install")
    cluster.sql(database, "DROP OWNED BY provost_app")
    cluster.sql(database, provost("grants", "print", "--config", server.ini, "--role", "provost_app").replace("%", "%%"))
    server.key = provost("key", "new", "--subject", SUBJECT, "--roles", "admin").split()[-1]
    server.enrolment = cluster.sql(database, """SELECT id, "courseId" FROM student_course_enrollments WHERE status = 'ENROLLED'
                                                ORDER BY "createdAt" DESC LIMIT 1""")[0]
    with server:
        yield server


@pytest.fixture
def api(server):
    return Api(server, server.key)


@pytest.fixture
def sql(cluster, database):
    return lambda text, *args: cluster.sql(database, text, *args)


@pytest.fixture
def one(sql):
    return lambda text, *args: sql(text, *args)[0][0]


@pytest.fixture
def recorded(sql):
    """recorded(id): what audit_logs says of it, oldest first."""

    def recorded(of):
        rows = sql('SELECT "userId", resource, action, details, severity, category FROM audit_logs WHERE "resourceId" = %s'
                   ' ORDER BY "timestamp"', of)
        assert all(user == SUBJECT and category == "ADMIN" and severity in ("INFO", "WARNING")
                   for user, _, _, _, severity, category in rows), rows
        return [(resource, action, details) for _, resource, action, details, _, _ in rows]
    return recorded


@pytest.fixture
def unchanged(sql):
    """A block that may change nothing: in no table is a row more, less or other."""
    tables = ("institution", "category", "course", "tag", "coursetag", "course_weekly_prices", '"user"', "student_course_enrollments",
              "payments", "booking", "notification_logs", "audit_logs", "table_counts", "tag_course_counts", "payment_totals", "course_search",
              "provost.outbox")

    def state():
        return sql("SELECT " + ", ".join(f"(SELECT (count(*), sum(hashtextextended(t::text, 0))) FROM {t} t)::text" for t in tables))

    class Block:
        def __enter__(self):
            self.before = state()

        def __exit__(self, failure, *_):
            assert failure or state() == self.before
    return Block()


@pytest.fixture
def some(sql):
    """Ids of rows of the demo."""
    institutions = [i for (i,) in sql("SELECT id FROM institution ORDER BY id")]
    return {"category": sql("SELECT id FROM category ORDER BY id LIMIT 1")[0][0], "institutions": institutions,
            "tags": [i for (i,) in sql("SELECT id FROM tag ORDER BY id LIMIT 8")]}


COUNTER = iter(range(1, 1 << 30))


@pytest.fixture
def course(api, some):
    """Creates a course of a title of its own."""

    def course(**members):
        body = {"title": f"Made for a test {next(COUNTER)}", "categoryId": some["category"], "base_price": 100, **members}
        return api.done("POST", "/courses", body, 201)
    return course


def at_once(*calls):
    """Calls all of them together; their results in order."""
    start = threading.Barrier(len(calls))

    def run(call):
        start.wait(timeout=patience(30))
        return call()
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return [f.result(timeout=patience(60)) for f in [pool.submit(run, call) for call in calls]]


# ---- courses -------------------------------------------------------------------------------------

EVERYTHING = {
    "title": "Français d'été – Überall", "base_price": 99.5, "description": "Tout\nle monde", "duration": 12, "level": "B1",
    "status": "published", "startDate": "2026-03-01T00:00:00Z", "endDate": "2026-04-01T12:30:00.250+02:00", "maxStudents": 0,
    "pricingPeriod": "monthly", "framework": "cefr", "isFeatured": True, "isSponsored": False, "priority": 7, "hasLiveClasses": True,
    "liveClassType": "GROUP", "liveClassFrequency": "WEEKLY", "liveClassSchedule": {"day": "Tuesday", "times": ["18:30", None]},
    "isPlatformCourse": False, "requiresSubscription": True, "subscriptionTier": "BASIC", "marketingType": "blended",
    "marketingDescription": "Now",
}


def test_a_course_with_everything(api, some, recorded, one):
    body = {**EVERYTHING, "categoryId": some["category"], "institutionId": some["institutions"][0],
            "tags": [{"id": t} for t in some["tags"][:3]],
            "weeklyPrices": [{"weekNumber": w, "year": 2026, "price": 10.25 * w} for w in (2, 1, 53)]}
    made = api.done("POST", "/courses", body, 201)
    assert made == api.get(f"/courses/{made['id']}")
    assert made["slug"] == "francais-dete-uberall"
    given = {k: made[k] for k in EVERYTHING}
    assert given == {**EVERYTHING, "status": "PUBLISHED", "pricingPeriod": "MONTHLY", "framework": "CEFR", "marketingType": "BLENDED",
                     "startDate": "2026-03-01T00:00:00+00:00", "endDate": "2026-04-01T10:30:00.25+00:00"}
    assert made["institution"]["id"] == some["institutions"][0] and made["category"]["id"] == some["category"]
    assert {t["tag"]["id"] for t in made["courseTags"]} == set(some["tags"][:3])
    assert [(p["weekNumber"], p["price"]) for p in made["courseWeeklyPrices"]] == [(1, 10.25), (2, 20.5), (53, 543.25)]
    assert made["_count"] == {"studentCourseEnrollments": 0, "studentCourseCompletions": 0, "courseTags": 3, "courseWeeklyPrices": 3,
                              "coursePricingRules": 0}
    [(resource, action, details)] = recorded(made["id"])
    assert (resource, action) == ("course", "CREATE") and details["title"] == EVERYTHING["title"] and len(details["tags"]) == 3
    assert one("SELECT text FROM course_search WHERE \"courseId\" = %s", made["id"]).startswith("français d'été")


def test_a_course_with_no_more_than_it_needs(api, course):
    made = course(description=None, institutionId=None, maxStudents=None, tags=[], base_price=0)
    assert made == api.get(f"/courses/{made['id']}")
    assert (made["status"], made["maxStudents"], made["pricingPeriod"], made["institution"], made["courseTags"]) == (
        "DRAFT", 15, "WEEKLY", None, [])
    assert made["createdAt"] == made["updatedAt"]


def test_a_sponsored_course_is_not_featured(api, course):
    made = course(isSponsored=True, isFeatured=True)
    assert (made["isSponsored"], made["isFeatured"]) == (True, False)
    path = f"/courses/{made['id']}"
    assert api.done("PATCH", path, {"isFeatured": True})["isFeatured"] is False
    changed = api.done("PATCH", path, {"isSponsored": False, "isFeatured": True})
    assert (changed["isSponsored"], changed["isFeatured"]) == (False, True)
    assert api.done("PATCH", path, {"isSponsored": True})["isFeatured"] is False
    assert api.get(path)["isFeatured"] is False


def test_slugs_are_numbered(course, some):
    one_of = some["institutions"]
    assert [course(title="Slugs! Slugs", institutionId=i)["slug"] for i in (None, None, one_of[0], one_of[1])] == [
        "slugs-slugs", "slugs-slugs-1", "slugs-slugs-2", "slugs-slugs-3"]
    assert [course(title="ßlugs  ßlugs")["slug"], course(title="Slugs-slugs-1")["slug"]] == ["sslugs-sslugs", "slugs-slugs-1-1"]
    long = ["Xy" * 50, "xy" * 49 + "x!"]
    assert [course(title=t)["slug"] for t in (long[0], long[0], long[1])] == ["xy" * 50, "xy" * 49 + "-1", "xy" * 49 + "x"]
    assert re.fullmatch(r"course(-\d+)?", course(title="日本語 !")["slug"])


def test_what_conflicts_leaves_nothing(api, course, some, unchanged):
    made = course(institutionId=some["institutions"][0])
    body = {"title": made["title"], "categoryId": some["category"], "base_price": 1, "institutionId": some["institutions"][0]}
    other = course(institutionId=some["institutions"][0])
    with unchanged:
        api.refused("POST", "/courses", body, 409)
        api.refused("POST", "/courses", {**body, "title": "Other", "categoryId": "nowhere"}, 409)
        api.refused("POST", "/courses", {**body, "title": "Other", "institutionId": "nowhere"}, 409)
        api.refused("POST", "/courses", {**body, "title": "Other", "tags": [{"id": some["tags"][0]}, {"id": "nowhere"}]}, 409)
        api.refused("PATCH", f"/courses/{other['id']}", {"title": made["title"]}, 409)
        api.refused("PUT", f"/courses/{other['id']}", {"title": "Other", "categoryId": "nowhere"}, 409)
        api.refused("PATCH", f"/courses/{other['id']}", {"tags": [{"id": "nowhere"}]}, 409)


@pytest.mark.parametrize("wrong, name", [
    ({"title": None}, "title"), ({"title": "  "}, "title"), ({"title": "x" * 101}, "title"), ({"base_price": None}, "base_price"),
    ({"base_price": -1}, "base_price"), ({"base_price": "much"}, "base_price"), ({"categoryId": None}, "categoryId"),
    ({"status": "LOST"}, "status"), ({"duration": -1}, "duration"), ({"duration": 1.5}, "duration"), ({"pricingPeriod": "DAILY"}, "pricingPeriod"),
    ({"startDate": "tomorrow"}, "startDate"), ({"isFeatured": "maybe"}, "isFeatured"), ({"level": "x" * 21}, "level"),
    ({"tags": ["x"]}, "tags"), ({"tags": [{}]}, "tags"), ({"slug": "x"}, "slug"), ({"id": "x"}, "id"),
    ({"weeklyPrices": [{"weekNumber": 54, "year": 2026, "price": 1}]}, "weeklyPrices"),
])
def test_what_is_not_a_course(api, some, unchanged, wrong, name):
    with unchanged:
        problem = api.refused("POST", "/courses", {"title": "A", "categoryId": some["category"], "base_price": 1, **wrong}, 422)
    assert any(e["name"].startswith(name) for e in problem["errors"]), problem


def test_put_replaces_what_is_given(api, course, some, recorded):
    t = some["tags"]
    made = course(description="old", duration=4, isFeatured=True, liveClassSchedule={"a": 1}, tags=[{"id": x} for x in t[:3]])
    path = f"/courses/{made['id']}"
    before = {ct["tag"]["id"]: ct["id"] for ct in made["courseTags"]}
    changed = api.done("PUT", path, {"title": "Put anew", "categoryId": some["category"], "description": None,
                                     "tags": [{"id": x} for x in (t[1], t[2], t[3], t[1])]})
    assert changed == api.get(path)
    kept = {k for k in made if k not in ("title", "description", "courseTags", "updatedAt", "_count")}
    assert {k: changed[k] for k in kept} == {k: made[k] for k in kept}, "the slug, too"
    assert (changed["title"], changed["description"]) == ("Put anew", None) and changed["updatedAt"] > made["updatedAt"]
    after = {ct["tag"]["id"]: ct["id"] for ct in changed["courseTags"]}
    assert set(after) == set(t[1:4]) and all(after[x] == before[x] for x in t[1:3])
    assert [action for _, action, _ in recorded(made["id"])] == ["CREATE", "UPDATE"]

    assert api.done("PUT", path, {"title": "Put anew", "categoryId": some["category"]})["courseTags"] == changed["courseTags"]
    assert api.done("PUT", path, {"title": "Put anew", "categoryId": some["category"], "tags": []})["courseTags"] == []
    assert api.get(path)["_count"]["courseTags"] == 0


def test_patch_changes_what_is_given(api, course, some, recorded):
    made = course(description="old", subscriptionTier="BASIC", institutionId=some["institutions"][0], liveClassSchedule={"a": 1},
                  tags=[{"id": some["tags"][0]}])
    path = f"/courses/{made['id']}"
    changed = api.done("PATCH", path, {"status": "archived", "description": None, "liveClassSchedule": None, "institutionId": None})
    assert changed == api.get(path)
    assert changed == {**made, "status": "ARCHIVED", "description": None, "liveClassSchedule": None, "institutionId": None,
                       "institution": None, "updatedAt": changed["updatedAt"]}
    assert recorded(made["id"])[1:] == [("course", "UPDATE", {"status": "ARCHIVED", "description": None, "liveClassSchedule": None,
                                                              "institutionId": None})]
    assert api.done("PATCH", path, {"tags": None})["courseTags"] == []
    assert api.done("PATCH", path, {"weeklyPrices": [{"weekNumber": 1, "year": 2026, "price": 5}]})["_count"]["courseWeeklyPrices"] == 1


def test_what_a_course_cannot_become(api, course, unchanged):
    path = f"/courses/{course()['id']}"
    with unchanged:
        api.refused("PATCH", path, {"title": None}, 422)
        api.refused("PATCH", path, {"maxStudents": None}, 422)
        api.refused("PATCH", path, {"isFeatured": None}, 422)
        api.refused("PATCH", path, {"slug": "mine"}, 422)
        problem = api.refused("PUT", path, {"description": "x"}, 422)
        assert {e["name"] for e in problem["errors"]} == {"title", "categoryId"}
        api.refused("PUT", "/courses/nowhere", {"title": "x", "categoryId": "x"}, 404)
        api.refused("PATCH", "/courses/nowhere", {"title": "x", "tags": [{"id": "x"}]}, 404)
        api.refused("DELETE", "/courses/nowhere", None, 404)


def test_a_deleted_course_is_gone(api, course, some, recorded, one):
    made = course(tags=[{"id": some["tags"][0]}], weeklyPrices=[{"weekNumber": 1, "year": 2026, "price": 5}])
    path = f"/courses/{made['id']}"
    assert api.done("DELETE", path) == {"success": True}
    api.refused("GET", path, None, 404)
    api.refused("DELETE", path, None, 404)
    assert [action for _, action, _ in recorded(made["id"])] == ["CREATE", "DELETE"]
    assert one('SELECT count(*) FROM coursetag WHERE "courseId" = %s', made["id"]) == 0


def test_a_completed_course_stays(api, one, unchanged):
    with unchanged:
        api.refused("DELETE", f"/courses/{one('SELECT %s FROM student_course_completions LIMIT 1' % chr(34).join(['', 'courseId', '']))}",
                    None, 409)


def test_weekly_prices_are_replaced(api, course, recorded):
    def week(number, price, year=2026):
        return {"weekNumber": number, "year": year, "price": price}
    made = course(weeklyPrices=[week(1, 10), week(2, 20), week(1, 30, 2027)])
    path = f"/courses/{made['id']}"
    before = {(p["year"], p["weekNumber"]): p for p in made["courseWeeklyPrices"]}
    answer = api.done("POST", path + "/weekly-prices", {"prices": [week(3, 33.5), week(1, 10), week(2, 22)]})
    detail = api.get(path)
    assert answer == detail["courseWeeklyPrices"] and detail["updatedAt"] > made["updatedAt"]
    after = {(p["year"], p["weekNumber"]): p for p in answer}
    assert {k: p["price"] for k, p in after.items()} == {(2026, 1): 10, (2026, 2): 22, (2026, 3): 33.5}
    assert after[2026, 1] == before[2026, 1], "what stays is not touched"
    assert after[2026, 2] == {**before[2026, 2], "price": 22, "updatedAt": after[2026, 2]["updatedAt"]}
    assert after[2026, 2]["updatedAt"] > before[2026, 2]["updatedAt"]
    assert len(recorded(made["id"])) == 2
    assert api.done("POST", path + "/weekly-prices", {"prices": []}) == []


def test_what_are_not_weekly_prices(api, course, unchanged):
    path = f"/courses/{course()['id']}/weekly-prices"
    good = {"weekNumber": 1, "year": 2026, "price": 1}
    with unchanged:
        for body in ({}, {"prices": None}, {"prices": [{**good, "price": -1}]}, {"prices": [{**good, "weekNumber": 0}]},
                     {"prices": [{**good, "price": None}]}, {"prices": [good, {**good, "price": 2}]}):
            api.refused("POST", path, body, 422)
        api.refused("POST", "/courses/nowhere/weekly-prices", {"prices": [good]}, 404)


def test_an_enrolment(api, sql, recorded, unchanged):
    enrolment, of = sql('SELECT e.id, e."courseId" FROM student_course_enrollments e JOIN payments p ON p."enrollmentId" = e.id'
                        " WHERE e.status = 'ACTIVE' ORDER BY e.id LIMIT 1")[0]
    path = f"/courses/{of}/enrollments"
    before = next(e for e in listed(api, path) if e["id"] == enrolment)
    changed = api.done("PATCH", path, {"enrollmentId": enrolment, "status": "dropped", "notes": " left "})
    after = next(e for e in listed(api, path) if e["id"] == enrolment)
    assert changed == after
    assert after == {**before, "status": "DROPPED", "version": before["version"] + 1, "updatedAt": after["updatedAt"]}
    assert recorded(enrolment) == [("enrollment", "UPDATE", {"courseId": of, "status": "DROPPED", "notes": "left"})]
    changed = api.done("PATCH", path, {"enrollmentId": enrolment, "paymentStatus": "REFUNDED"})
    assert (changed["status"], changed["paymentStatus"]) == ("DROPPED", "REFUNDED")
    with unchanged:
        other = sql("SELECT id FROM course WHERE id <> %s LIMIT 1", of)[0][0]
        api.refused("PATCH", f"/courses/{other}/enrollments", {"enrollmentId": enrolment, "status": "ACTIVE"}, 404)
        api.refused("PATCH", path, {"enrollmentId": "nobody", "status": "ACTIVE"}, 404)
        api.refused("PATCH", path, {"status": "ACTIVE"}, 422)
        api.refused("PATCH", path, {"enrollmentId": enrolment, "status": "ASLEEP"}, 422)
        api.refused("PATCH", path, {"enrollmentId": enrolment, "status": None}, 422)


def listed(api, path):
    page = 1
    while answer := api.get(f"{path}?limit=100&page={page}")["enrollments"]:
        yield from answer
        page += 1


# ---- institutions, users, categories, tags -------------------------------------------------------

INSTITUTION = {"name": "Göteborgs språkskola", "city": "Göteborg", "country": "Sweden", "email": "a@school.example"}


def test_an_institution(api, recorded, course, one):
    made = api.done("POST", "/institutions", {**INSTITUTION, "commissionRate": 12.5, "currency": "sek", "socialMedia": {"x": "@g"}}, 201)
    path = f"/institutions/{made['id']}"
    assert made == api.get(path)
    assert (made["slug"], made["currency"], made["status"], made["isApproved"], made["commissionRate"]) == (
        "goteborgs-sprakskola", "SEK", "PENDING", False, 12.5)
    assert made["_count"] == {"users": 0, "courses": 0}
    assert api.done("POST", "/institutions", INSTITUTION, 201)["slug"] == "goteborgs-sprakskola-1"

    of_it = course(institutionId=made["id"])
    changed = api.done("PATCH", path, {"status": "active", "isApproved": True, "socialMedia": None, "name": "New"})
    assert changed == api.get(path)
    assert changed == {**made, "status": "ACTIVE", "isApproved": True, "socialMedia": None, "name": "New", "updatedAt": changed["updatedAt"],
                       "_count": {"users": 0, "courses": 1}}
    assert api.done("DELETE", path) == {"success": True}
    api.refused("GET", path, None, 404)
    assert api.get(f"/courses/{of_it['id']}")["institution"] is None
    assert [(r, a) for r, a, _ in recorded(made["id"])] == [("institution", a) for a in ("CREATE", "UPDATE", "DELETE")]
    assert one("SELECT sum(n) FROM institution_counts WHERE name = 'courses' AND \"institutionId\" = %s", made["id"]) == 0


def test_what_an_institution_cannot_be(api, one, some, unchanged):
    subscribed = one('SELECT "institutionId" FROM institution_subscriptions LIMIT 1')
    with unchanged:
        problem = api.refused("POST", "/institutions", {"name": "x"}, 422)
        assert {e["name"] for e in problem["errors"]} == {"city", "country", "email"}
        api.refused("POST", "/institutions", {**INSTITUTION, "commissionRate": 101}, 422)
        api.refused("POST", "/institutions", {**INSTITUTION, "email": "x" * 51}, 422)
        api.refused("PATCH", f"/institutions/{some['institutions'][0]}", {"name": None}, 422)
        api.refused("PATCH", "/institutions/nowhere", {"name": "x"}, 404)
        api.refused("DELETE", "/institutions/nowhere", None, 404)
        api.refused("DELETE", f"/institutions/{subscribed}", None, 409)


def test_a_user(api, sql, some, recorded, unchanged):
    user = sql('SELECT "userId" FROM booking LIMIT 1')[0][0]
    path = f"/users/{user}"
    before = api.get(path)
    changed = api.done("PATCH", path, {"name": "Ada", "role": "instructor", "institutionId": some["institutions"][1], "image": None})
    assert changed == api.get(path) and "password" not in changed and changed["bookingsCount"] >= 1
    assert changed == {**before, "name": "Ada", "role": "INSTRUCTOR", "institutionId": some["institutions"][1], "image": None,
                       "institution": {**changed["institution"], "id": some["institutions"][1]}, "updatedAt": changed["updatedAt"]}
    suspended = api.done("PATCH", path + "/status", {"status": "suspended"})
    assert suspended == {**changed, "status": "SUSPENDED", "updatedAt": suspended["updatedAt"]} == api.get(path)
    assert [(r, a, d.get("status")) for r, a, d in recorded(user)] == [("user", "UPDATE", None), ("user", "UPDATE", "SUSPENDED")]
    assert api.done("PATCH", path, {"institutionId": None})["institution"] is None
    with unchanged:
        api.refused("PATCH", path, {"role": "KING"}, 422)
        api.refused("PATCH", path, {"name": None}, 422)
        api.refused("PATCH", path, {"password": "x"}, 422)
        api.refused("PATCH", path, {"institutionId": "nowhere"}, 409)
        api.refused("PATCH", path + "/status", {}, 422)
        api.refused("PATCH", path + "/status", {"status": "AWAY"}, 422)
        api.refused("PATCH", "/users/nobody", {"name": "x"}, 404)
        api.refused("PATCH", "/users/nobody/status", {"status": "ACTIVE"}, 404)


def test_a_category(api, course, recorded, unchanged):
    made = api.done("POST", "/categories", {"name": "Ärzte & Pflege", "description": "For them"}, 201)
    assert made["slug"] == "arzte-pflege" and made in api.get("/categories")
    assert api.done("POST", "/categories", {"name": "Ärzte & Pflege"}, 201)["slug"] == "arzte-pflege-1"
    path = f"/categories/{made['id']}"
    changed = api.done("PUT", path, {"name": "Pflege"})
    assert changed == {**made, "name": "Pflege", "updatedAt": changed["updatedAt"]} and changed in api.get("/categories")
    assert api.done("PUT", path, {"name": "Pflege", "description": None})["description"] is None
    inside = course(categoryId=made["id"])
    with unchanged:
        api.refused("DELETE", path, None, 409)
        api.refused("POST", "/categories", {"name": "x" * 51}, 422)
        api.refused("POST", "/categories", {}, 422)
        api.refused("PUT", path, {"description": "x"}, 422)
        api.refused("PUT", "/categories/nowhere", {"name": "x"}, 404)
        api.refused("DELETE", "/categories/nowhere", None, 404)
    api.done("DELETE", f"/courses/{inside['id']}")
    assert api.done("DELETE", path, None, 204) == b""
    assert made["id"] not in {c["id"] for c in api.get("/categories")}
    assert [a for _, a, _ in recorded(made["id"])] == ["CREATE", "UPDATE", "UPDATE", "DELETE"]


def test_a_tag(api, course, some, recorded, unchanged):
    made = api.done("POST", "/tags", {"name": "Für Anfänger", "color": "#a0b0c0", "categoryId": some["category"], "featured": True}, 201)
    assert made["slug"] == "fur-anfanger" and made["_count"] == {"courses": 0, "children": 0} and made in api.get("/tags")
    child = api.done("POST", "/tags", {"name": "Für Anfänger", "parentId": made["id"]}, 201)
    assert child["slug"] == "fur-anfanger-1"
    carrier = course(tags=[{"id": made["id"]}])
    path = f"/tags/{made['id']}"
    changed = api.done("PUT", path, {"name": "Leicht", "color": None, "priority": 3})
    assert changed == {**made, "name": "Leicht", "color": None, "priority": 3, "_count": {"courses": 1, "children": 1},
                       "updatedAt": changed["updatedAt"]}
    assert changed in api.get("/tags")
    with unchanged:
        api.refused("POST", "/tags", {"name": "x", "color": "#12345678"}, 422)
        api.refused("PUT", path, {"color": "#000000"}, 422)
        api.refused("PUT", path, {"name": "x", "featured": None}, 422)
        api.refused("PUT", "/tags/nowhere", {"name": "x"}, 404)
        api.refused("DELETE", "/tags/nowhere", None, 404)
    assert api.done("DELETE", path, None, 204) == b""
    assert made["id"] not in {t["id"] for t in api.get("/tags")}
    assert api.get(f"/courses/{carrier['id']}")["courseTags"] == []
    assert [a for _, a, _ in recorded(made["id"])] == ["CREATE", "UPDATE", "DELETE"]


# ---- payments ------------------------------------------------------------------------------------

OPEN = ("PENDING", "PROCESSING", "INITIATED")


@pytest.fixture
def payment(sql):
    """Adds a payment, of an enrolment of its own unless told otherwise; its id, its enrolment's and its booking's."""

    def payment(status="PENDING", institution=None, platform=False, orphan=False, amount=333.33, metadata="{}"):
        course, of = sql('SELECT id, "institutionId" FROM course WHERE ("institutionId" IS NULL) = %s ORDER BY id LIMIT 1', platform)[0]
        enrolment = "gone" if orphan else sql('INSERT INTO student_course_enrollments ("studentId", "courseId") SELECT id, %s FROM students'
                                              " ORDER BY id LIMIT 1 RETURNING id", course)[0][0]
        booking = sql('INSERT INTO booking ("courseId", "institutionId", "studentId", "userId") VALUES (%s, \'x\', \'x\', \'x\') RETURNING id',
                      course)[0][0]
        made = sql('INSERT INTO payments (amount, status, "institutionId", "enrollmentId", metadata) VALUES (%s, %s, %s, %s,'
                   " %s || jsonb_build_object('bookingId', %s::text)) RETURNING id", amount, status, institution or of or "platform", enrolment,
                   metadata, booking)[0][0]
        return made, enrolment, booking
    return payment


@pytest.mark.parametrize("status", OPEN)
def test_an_approved_payment(api, sql, payment, recorded, status):
    of = sql("SELECT i.id FROM course c JOIN institution i ON i.id = c.\"institutionId\" ORDER BY c.id LIMIT 1")[0][0]
    sql('UPDATE institution SET "commissionRate" = 12.5 WHERE id = %s', of)
    made, enrolment, booking = payment(status, of)
    answer = api.done("POST", f"/payments/approve/{made}")
    assert answer["success"] is True
    paid = answer["payment"]
    assert paid == next(p for p in api.get("/payments?limit=100") if p["id"] == made)
    assert (paid["status"], paid["commissionAmount"], paid["institutionAmount"]) == ("COMPLETED", 41.67, 291.66)
    assert (paid["enrollment"]["status"], paid["enrollment"]["paymentStatus"]) == ("ENROLLED", "PAID")
    assert sql('SELECT "paidAt" = "updatedAt" AND now() - "paidAt" < interval \'1 minute\' FROM payments WHERE id = %s', made) == [(True,)]
    assert sql('SELECT "paymentDate" IS NOT NULL, version FROM student_course_enrollments WHERE id = %s', enrolment) == [(True, 2)]
    assert sql("SELECT status FROM booking WHERE id = %s", booking) == [("COMPLETED",)]
    assert api.get("/payments/pending-count")["count"] == sql("SELECT count(*) FROM payments WHERE status = ANY (%s)", list(OPEN))[0][0]
    [(resource, action, details)] = recorded(made)
    assert (resource, action, details["commissionAmount"], details["bookingId"]) == ("payment", "APPROVE", 41.67, booking)


@pytest.mark.parametrize("kind", [{"platform": True}, {"institution": "gone"}, {"orphan": True, "institution": "gone"},
                                  {"orphan": True, "metadata": '{"a": 1}'}])
def test_payments_of_the_platform_and_orphans(api, sql, payment, kind):
    made, enrolment, _ = payment(**kind)
    paid = api.done("POST", f"/payments/approve/{made}")["payment"]
    assert paid["status"] == "COMPLETED" and (paid["enrollment"] is None) == (enrolment == "gone")
    assert paid == next(p for p in api.get("/payments?limit=100") if p["id"] == made)
    rate = sql('SELECT "commissionRate" FROM institution i JOIN payments p ON p."institutionId" = i.id WHERE p.id = %s', made)
    if rate:
        assert paid["commissionAmount"] == pytest.approx(333.33 * rate[0][0] / 100, abs=0.005)
    else:
        assert (paid["commissionAmount"], paid["institutionAmount"]) == (0, 333.33)


@pytest.mark.parametrize("metadata", ["null", "[1]", '"text"'])
def test_metadata_that_are_no_object_are_in_nobodys_way(api, sql, payment, metadata):
    first, second = payment()[0], payment()[0]
    sql("UPDATE payments SET metadata = %s WHERE id IN (%s, %s)", metadata, first, second)
    api.done("POST", f"/payments/approve/{first}")
    api.done("POST", f"/payments/disapprove/{second}", {"reason": "no"})
    assert sql("SELECT metadata FROM payments WHERE id = %s", second) == [({"reason": "no"},)]


def test_a_refused_payment(api, sql, payment, recorded):
    made, enrolment, booking = payment(metadata='{"source": "web"}')
    answer = api.done("POST", f"/payments/disapprove/{made}", {"reason": " No money came "})
    assert answer["success"] is True
    assert answer["payment"] == next(p for p in api.get("/payments?limit=100") if p["id"] == made)
    assert answer["payment"]["status"] == "FAILED" and answer["payment"]["paidAt"] is None
    assert sql("SELECT metadata FROM payments WHERE id = %s", made) == [({"source": "web", "bookingId": booking, "reason": "No money came"},)]
    assert sql("SELECT status FROM student_course_enrollments WHERE id = %s", enrolment) == [("PENDING_PAYMENT",)]
    assert [(r, a, d["reason"]) for r, a, d in recorded(made)] == [("payment", "DISAPPROVE", "No money came")]


@pytest.mark.parametrize("status", ["COMPLETED", "PAID", "FAILED", "REFUNDED"])
def test_what_was_decided_stays(api, payment, unchanged, status):
    made = payment(status)[0]
    with unchanged:
        api.refused("POST", f"/payments/approve/{made}", None, 409)
        api.refused("POST", f"/payments/disapprove/{made}", {"reason": "x"}, 409)


def test_payments_that_are_not_there(api, unchanged):
    with unchanged:
        api.refused("POST", "/payments/approve/nowhere", None, 404)
        api.refused("POST", "/payments/disapprove/nowhere", {"reason": "x"}, 404)


# ---- all or nothing ------------------------------------------------------------------------------

def test_without_its_record_nothing_is_changed(api, sql, course, payment, some, unchanged):
    made, category = course(), api.done("POST", "/categories", {"name": "Kept"}, 201)
    waiting = payment()[0]
    sql("""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''not now''; END';
           CREATE TRIGGER refuse BEFORE INSERT ON audit_logs EXECUTE FUNCTION refuse()""")
    try:
        with unchanged:
            for method, path, body in [
                    ("POST", "/courses", {"title": "Unrecorded", "categoryId": some["category"], "base_price": 1, "tags": [{"id": some["tags"][0]}]}),
                    ("PUT", f"/courses/{made['id']}", {"title": "x", "categoryId": some["category"], "tags": [{"id": some["tags"][0]}]}),
                    ("PATCH", f"/courses/{made['id']}", {"title": "x"}), ("DELETE", f"/courses/{made['id']}", None),
                    ("POST", f"/courses/{made['id']}/weekly-prices", {"prices": [{"weekNumber": 1, "year": 2026, "price": 1}]}),
                    ("POST", "/institutions", INSTITUTION), ("PATCH", f"/institutions/{some['institutions'][0]}", {"name": "x"}),
                    ("DELETE", f"/categories/{category['id']}", None), ("PUT", f"/categories/{category['id']}", {"name": "x"}),
                    ("DELETE", f"/tags/{some['tags'][0]}", None), ("POST", "/tags", {"name": "x"}),
                    ("POST", "/notifications", {"role": "ADMIN", "type": "SYSTEM", "title": "x", "content": "x"}),
                    ("POST", f"/payments/approve/{waiting}", None), ("POST", f"/payments/disapprove/{waiting}", {"reason": "x"})]:
                api.refused(method, path, body, 422)
    finally:
        sql("DROP TRIGGER refuse ON audit_logs; DROP FUNCTION refuse()")


# ---- what was stored -----------------------------------------------------------------------------

def test_what_was_stored_is_not_answered_after_a_write(api, course, some, payment):
    """Each write, with the reads that show what it changes: they were hits, and are then what a new read says."""
    made, waiting, refused = course(tags=[{"id": some["tags"][0]}]), payment()[0], payment()[0]
    category, tag = api.done("POST", "/categories", {"name": "Stored"}, 201), api.done("POST", "/tags", {"name": "Stored"}, 201)
    institution = api.done("POST", "/institutions", {**INSTITUTION, "name": "Stored"}, 201)
    user = api.get("/users?limit=1")["users"][0]["id"]
    enrolment, of = api.server.enrolment
    detail, courses = f"/courses/{made['id']}", "/courses?limit=5"
    body = {"title": "Stored", "categoryId": some["category"], "base_price": 1}
    writes = [
        ("POST", "/courses", body, 201, [courses, "/stats", "/courses?search=stored"]),
        ("PUT", detail, {"title": "Stored anew", "categoryId": category["id"], "tags": [{"id": tag["id"]}]}, 200, [detail, courses, "/tags"]),
        ("PATCH", detail, {"institutionId": institution["id"], "status": "PUBLISHED"}, 200,
         [detail, "/stats", f"/institutions/{institution['id']}", f"/institutions/{institution['id']}/courses", "/institutions"]),
        ("POST", detail + "/weekly-prices", {"prices": [{"weekNumber": 1, "year": 2026, "price": 1}]}, 200, [detail, courses]),
        ("PATCH", f"/courses/{of}/enrollments", {"enrollmentId": enrolment, "status": "CANCELLED"}, 200, [f"/courses/{of}/enrollments", "/stats"]),
        ("PATCH", f"/institutions/{institution['id']}", {"name": "Stored elsewhere"}, 200, [detail, f"/institutions/{institution['id']}"]),
        ("PATCH", f"/users/{user}", {"name": "Stored"}, 200, ["/users?limit=1", f"/users/{user}"]),
        ("PATCH", f"/users/{user}/status", {"status": "SUSPENDED"}, 200, ["/users?limit=1", f"/users/{user}", "/stats"]),
        ("PUT", f"/categories/{category['id']}", {"name": "Stored anew"}, 200, ["/categories", detail]),
        ("PUT", f"/tags/{tag['id']}", {"name": "Stored anew"}, 200, ["/tags", "/tags?include=hierarchy", detail]),
        ("POST", f"/payments/approve/{waiting}", None, 200, ["/payments", "/payments/pending-count", "/stats"]),
        ("POST", f"/payments/disapprove/{refused}", {"reason": "x"}, 200, ["/payments", "/payments/pending-count"]),
        ("POST", "/notifications", {"recipientIds": [user], "type": "SYSTEM", "title": "x", "content": "x"}, 202,
         ["/notifications", f"/notifications?userId={user}"]),
        ("DELETE", f"/tags/{tag['id']}", None, 204, ["/tags", detail, courses]),
        ("DELETE", f"/institutions/{institution['id']}", None, 200, ["/institutions", detail]),
        ("DELETE", detail, None, 200, [courses, "/stats"]),
        ("DELETE", f"/categories/{category['id']}", None, 204, ["/categories"]),
    ]
    for method, path, sent, status, reads in writes:
        stored = {}
        for read in reads:
            wait_until(lambda read=read: "; hit" in api("GET", read).header("Cache-Status"), 5, f"{read} is stored")
            stored[read] = api.get(read)
        api.done(method, path, sent, status)
        for read in reads:
            answer = api("GET", read)
            assert "; hit" not in answer.header("Cache-Status"), (method, path, read)
            assert answer.json() != stored[read], (method, path, read)


# ---- at once -------------------------------------------------------------------------------------

@pytest.mark.threads
def test_of_two_decisions_one_counts(api, sql, payment, recorded):
    for turn in range(50):
        made, enrolment, _ = payment(OPEN[turn % 3])
        second = "approve" if turn % 2 else "disapprove"
        answers = at_once(lambda: api("POST", f"/payments/approve/{made}"),
                          lambda: api("POST", f"/payments/{second}/{made}", {"reason": "x"} if second == "disapprove" else None))
        assert sorted(a.status for a in answers) == [200, 409], answers
        assert len(recorded(made)) == 1
        approved = second == "approve" or answers[0].status == 200
        assert sql("SELECT status FROM payments WHERE id = %s", made) == [("COMPLETED" if approved else "FAILED",)]
        assert sql("SELECT version FROM student_course_enrollments WHERE id = %s", enrolment) == [(2 if approved else 1,)]


@pytest.mark.threads
def test_of_two_equal_titles_one_is_taken(api, some, sql):
    for turn in range(10):
        body = {"title": f"The same {turn}", "categoryId": some["category"], "base_price": 1, "institutionId": some["institutions"][0]}
        answers = at_once(*[lambda: api("POST", "/courses", body)] * 2)
        assert sorted(a.status for a in answers) == [201, 409], answers
    assert sql("SELECT count(*) FROM course WHERE title LIKE 'The same %%'") == [(10,)]
    assert sql("SELECT count(*) FROM audit_logs WHERE details ->> 'title' LIKE 'The same %%'") == [(10,)]


@pytest.mark.threads
@pytest.mark.parametrize("path, body", [("/courses", {"title": "Racing", "base_price": 1}), ("/institutions", {**INSTITUTION, "name": "Racing"}),
                                        ("/categories", {"name": "Racing"}), ("/tags", {"name": "Racing"})])
def test_eight_who_want_one_slug(api, some, path, body):
    body = {**body, "categoryId": some["category"]} if path == "/courses" else body
    answers = at_once(*[lambda: api("POST", path, body)] * 8)
    assert [a.status for a in answers] == [201] * 8, answers
    assert {a.json()["slug"] for a in answers} == {"racing"} | {f"racing-{n}" for n in range(1, 8)}


@pytest.mark.threads
def test_tags_replaced_at_once_are_those_of_one(api, course, some):
    path = f"/courses/{course(tags=[{'id': t} for t in some['tags'][:2]])['id']}"
    sets = [set(some["tags"][2 * n:2 * n + 3]) for n in range(3)]
    for _ in range(15):
        answers = at_once(*[lambda s=s: api("PATCH", path, {"tags": [{"id": t} for t in sorted(s)]}) for s in sets])
        assert [a.status for a in answers] == [200] * 3, answers
        assert [{ct["tag"]["id"] for ct in a.json()["courseTags"]} for a in answers] == sets
        assert {ct["tag"]["id"] for ct in api.get(path)["courseTags"]} in sets


@pytest.mark.threads
def test_weekly_prices_replaced_at_once_are_those_of_one(api, course):
    path = f"/courses/{course()['id']}"
    lists = [[{"weekNumber": w, "year": 2026, "price": p} for w in weeks] for p, weeks in ((1, range(1, 9)), (2, range(5, 15)), (3, ()))]
    for _ in range(15):
        answers = at_once(*[lambda p=p: api("POST", path + "/weekly-prices", {"prices": p}) for p in lists])
        assert [a.status for a in answers] == [200] * 3, answers
        left = [{k: p[k] for k in ("weekNumber", "year", "price")} for p in api.get(path)["courseWeeklyPrices"]]
        assert left in lists


@pytest.mark.threads
def test_changes_of_different_columns_are_all_kept(api, course, recorded):
    path = f"/courses/{(made := course())['id']}"
    for turn in range(15):
        changes = {"title": f"Turn {turn}", "description": f"{turn}", "duration": turn, "priority": turn, "level": f"L{turn}"}
        answers = at_once(*[lambda k=k, v=v: api("PATCH", path, {k: v}) for k, v in changes.items()])
        assert [a.status for a in answers] == [200] * 5, answers
        now = api.get(path)
        assert {k: now[k] for k in changes} == changes
    assert len(recorded(made["id"])) == 1 + 15 * 5
