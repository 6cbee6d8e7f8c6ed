"""The platform's endpoints that read, on demo data: their shapes, one statement each, and never a password."""
import re

import pytest

from harness import Server, reset_statements, statements, wait_until
from problems import bad_parameters, problem

# ---- shapes --------------------------------------------------------------------------------------

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)")


def text(v):
    return isinstance(v, str)


def number(v):
    return isinstance(v, (int, float)) and not isinstance(v, bool)


def integer(v):
    return isinstance(v, int) and not isinstance(v, bool)


def boolean(v):
    return isinstance(v, bool)


def moment(v):
    return isinstance(v, str) and MOMENT.fullmatch(v)


def anything(_):
    return True


def optional(shape):
    return ("optional", shape)


def some(shape):
    """An array, which may be empty."""
    return ("some", shape)


def fits(value, shape, where="$"):
    """Fails where a value is not of the shape: a dict has exactly these keys, a list has items of that shape."""
    if isinstance(shape, tuple) and shape[0] == "optional":
        if value is not None:
            fits(value, shape[1], where)
    elif isinstance(shape, tuple) or isinstance(shape, list):
        assert isinstance(value, list), f"{where}: {value!r} is no array"
        assert value or isinstance(shape, tuple), f"{where} is empty"
        for i, item in enumerate(value):
            fits(item, shape[-1], f"{where}[{i}]")
    elif isinstance(shape, dict):
        assert isinstance(value, dict), f"{where}: {value!r} is no object"
        assert set(value) == set(shape), f"{where}: missing {set(shape) - set(value)}, unknown {set(value) - set(shape)}"
        for key in shape:
            fits(value[key], shape[key], f"{where}.{key}")
    else:
        assert shape(value), f"{where}: {value!r} is not {shape.__name__}"


TIMES = {"createdAt": moment, "updatedAt": moment}
COURSE_COLUMNS = {
    "id": text, "title": text, "slug": text, "description": optional(text), "duration": integer, "level": text, "status": text,
    "institutionId": optional(text), "categoryId": text, "startDate": moment, "endDate": moment, "maxStudents": integer,
    "base_price": number, "pricingPeriod": text, "framework": text, "isFeatured": boolean, "isSponsored": boolean,
    "priority": integer, "hasLiveClasses": boolean, "liveClassType": optional(text), "liveClassFrequency": optional(text),
    "liveClassSchedule": optional(anything), "isPlatformCourse": boolean, "requiresSubscription": boolean,
    "subscriptionTier": optional(text), "marketingType": text, "marketingDescription": optional(text), **TIMES,
}
COURSE_COUNTS = {"studentCourseEnrollments": integer, "studentCourseCompletions": integer, "courseTags": integer,
                 "courseWeeklyPrices": integer, "coursePricingRules": integer}
CATEGORY = {"id": text, "name": text, "description": optional(text)}
COURSE = {
    **COURSE_COLUMNS,
    "institution": optional({"id": text, "name": text, "country": text, "city": text, "commissionRate": number}),
    "category": CATEGORY,
    "courseTags": some({"id": text, "tag": {"id": text, "name": text, "color": optional(text), "icon": optional(text)}}),
    "courseWeeklyPrices": some({"id": text, "courseId": text, "weekNumber": integer, "year": integer, "price": number, **TIMES}),
    "coursePricingRules": some({"id": text, "courseId": text, "ruleType": text, "ruleValue": anything, **TIMES}),
    "_count": COURSE_COUNTS,
}
INSTITUTION = {
    **{name: text for name in ("id", "name", "slug", "city", "country", "email", "status", "currency", "subscriptionPlan")},
    **{name: optional(text) for name in (
        "description", "address", "state", "postcode", "website", "institutionEmail", "telephone", "contactName", "contactJobTitle",
        "contactPhone", "contactEmail", "logoUrl", "mainImageUrl", "stripeCustomerId")},
    **{name: optional(anything) for name in ("facilities", "discountSettings", "metadata", "socialMedia")},
    **{name: boolean for name in ("isApproved", "isFeatured", "isActive")},
    "commissionRate": number, "defaultMaxStudents": integer, **TIMES, "_count": {"users": integer, "courses": integer},
}
PAYMENT_COLUMNS = {
    "id": text, "amount": number, "status": text, "paidAt": optional(moment), "metadata": optional(anything), "institutionId": optional(text),
    "enrollmentId": optional(text), "commissionAmount": number, "institutionAmount": number, "paymentMethod": optional(text),
    "referenceNumber": optional(text), "notes": optional(text), "idempotencyKey": optional(text), "currency": text,
    "refundAmount": optional(number), "refundedAt": optional(moment), **TIMES,
}
ENROLLMENT = {
    "id": text, "studentId": text, "courseId": text, "status": text, "progress": number, "startDate": moment,
    "endDate": optional(moment), "paymentStatus": text, "paymentDate": optional(moment), "version": integer, "accessMethod": text,
    "enrollmentType": text, "isActive": boolean, "isPlatformCourse": boolean, **TIMES,
    "student": optional({"id": text, "name": text, "email": text, "phone": optional(text), "status": text, "created_at": moment,
                         "last_active": optional(moment)}),
    "payments": some(PAYMENT_COLUMNS), "totalPaid": number, "latestPayment": optional(PAYMENT_COLUMNS),
    "daysSinceEnrollment": integer,
}
PAGINATION = {"total": integer, "page": integer, "limit": integer, "totalPages": integer}
USER = {
    "id": text, "name": text, "email": text, "role": text, "institutionId": optional(text), "status": text,
    "image": optional(text), "emailVerified": optional(moment), "lastLoginAt": optional(moment), **TIMES,
    "institution": optional({"id": text, "name": text}),
}
TAG = {
    "id": text, "name": text, "slug": text, "description": optional(text), "categoryId": optional(text), "parentId": optional(text),
    "usageCount": integer, "color": optional(text), "icon": optional(text), "featured": boolean, "priority": integer, **TIMES,
    "_count": {"courses": integer, "children": integer},
}
PAYMENT = {
    **{name: PAYMENT_COLUMNS[name] for name in ("id", "amount", "status", "paymentMethod", "referenceNumber", "paidAt", "createdAt",
                                                "commissionAmount", "institutionAmount")},
    "student": optional({"id": text, "name": text, "email": text}),
    "course": optional(anything), "institution": optional(anything), "enrollment": optional(anything),
}
NOTIFICATION = {
    "id": text, "recipientId": text, "type": text, "subject": optional(text), "title": text, "content": text, "status": text,
    "errorMessage": optional(text), "sentAt": optional(moment), "readAt": optional(moment), "metadata": optional(anything), "createdAt": moment,
}
STATS = {
    "statistics": {name: number for name in (
        "totalUsers", "totalInstitutions", "totalCourses", "totalEnrollments", "totalCompletions", "totalRevenue",
        "totalCommission", "totalInstitutionRevenue", "activeUsers", "activeInstitutions", "activeCourses")},
    "recentEnrollments": [anything], "recentUsers": [anything], "timestamp": moment,
}
SUBSCRIPTION = {
    "id": text, "institutionId": text, "commissionTierId": text, "status": text, "startDate": moment,
    "endDate": optional(moment), "autoRenew": boolean,
    "institution": {"id": text, "name": text},
    "commissionTier": {"planType": text, "name": text, "price": number, "commissionRate": number},
    "revenueGenerated": number, "activeStudents": integer, "totalCourses": integer,
}

DAYS = "startDate=2025-01-01&endDate=2026-12-31"
# name of the case: (endpoint, path, shape); {course} and its like are filled from the data.
READS = {
    "courses": ("courses/list", "/api/admin/courses", {"courses": [COURSE], "pagination": PAGINATION}),
    "courses, a large page": ("courses/list", "/api/admin/courses?limit=100&page=1", {"courses": [COURSE], "pagination": PAGINATION}),
    "courses of an institution": ("courses/list", "/api/admin/courses?institutionId={institution}",
                                  {"courses": [COURSE], "pagination": PAGINATION}),
    "courses by search": ("courses/list", "/api/admin/courses?search=english&sort=-base_price",
                          {"courses": [COURSE], "pagination": PAGINATION}),
    "courses by a short search": ("courses/list", "/api/admin/courses?search=a&sort=title",
                                  {"courses": [COURSE], "pagination": PAGINATION}),
    "courses by all filters": ("courses/list", "/api/admin/courses?categoryId={category}&status=published&level={level}&sort=priority",
                               {"courses": some(COURSE), "pagination": PAGINATION}),
    "courses past the end": ("courses/list", "/api/admin/courses?page=100000", {"courses": some(COURSE), "pagination": PAGINATION}),
    "course": ("courses/get", "/api/admin/courses/{course}", COURSE),
    "course of the platform": ("courses/get", "/api/admin/courses/{platform_course}", COURSE),
    "enrolments": ("courses/enrollments", "/api/admin/courses/{popular}/enrollments",
                   {"enrollments": [ENROLLMENT], "course": anything, "pagination": PAGINATION}),
    "enrolments by filters": ("courses/enrollments", "/api/admin/courses/{popular}/enrollments?status=completed&paymentStatus=paid&search=a",
                              {"enrollments": some(ENROLLMENT), "course": anything, "pagination": PAGINATION}),
    "institutions": ("institutions/list", "/api/admin/institutions", [INSTITUTION]),
    "institutions by search": ("institutions/list", "/api/admin/institutions?search=a&status=approved&page=1&limit=500", some(INSTITUTION)),
    "institution": ("institutions/get", "/api/admin/institutions/{institution}", INSTITUTION),
    "courses of one institution": ("institutions/courses", "/api/admin/institutions/{institution}/courses",
                                   [{**COURSE_COLUMNS, "category": CATEGORY, "_count": COURSE_COUNTS}]),
    "users": ("users/list", "/api/admin/users", {"users": [USER]}),
    "users by role": ("users/list", "/api/admin/users?role=admin", {"users": [USER]}),
    "users by search": ("users/list", "/api/admin/users?search=an&role=STUDENT", {"users": some(USER)}),
    "users of an institution": ("users/list", "/api/admin/users?institutionId={institution}", {"users": some(USER)}),
    "user": ("users/get", "/api/admin/users/{user}", {**USER, "bookingsCount": integer}),
    "categories": ("categories/list", "/api/admin/categories", [{**CATEGORY, "slug": text, **TIMES}]),
    "tags": ("tags/list", "/api/admin/tags", [TAG]),
    "tags of a category": ("tags/list", "/api/admin/tags?categoryId={category}", some(TAG)),
    "tags, nested": ("tags/list", "/api/admin/tags?include=hierarchy", [{**TAG, "children": some(anything)}]),
    "payments": ("payments/list", "/api/admin/payments", [PAYMENT]),
    "payments by filters": ("payments/list", "/api/admin/payments?status=completed&institutionId={institution}&limit=100", some(PAYMENT)),
    "pending payments": ("payments/pending-count", "/api/admin/payments/pending-count", {"count": integer}),
    "notifications": ("notifications/list", "/api/admin/notifications?limit=100", {"notifications": [NOTIFICATION], "pagination": PAGINATION}),
    "notifications by filters": ("notifications/list", "/api/admin/notifications?userId={user}&status=read&page=1",
                                 {"notifications": some(NOTIFICATION), "pagination": PAGINATION}),
    "stats": ("stats", "/api/admin/stats", STATS),
    "revenue, metrics": ("revenue", f"/api/admin/revenue?{DAYS}",
                         {"totalRevenue": number, "commissionRevenue": number, "growthRate": number, "topRevenueSources": [anything]}),
    "revenue, breakdown": ("revenue", f"/api/admin/revenue?{DAYS}&type=breakdown",
                           {"byInstitution": [anything], "byPlan": [anything], "byTimeframe": [anything]}),
    "revenue, projection": ("revenue", f"/api/admin/revenue?{DAYS}&type=projection",
                            {"nextMonth": number, "nextQuarter": number, "basis": anything}),
    "subscriptions": ("subscriptions/list", "/api/admin/subscriptions", [SUBSCRIPTION]),
    "subscriptions by status": ("subscriptions/list", "/api/admin/subscriptions?status=active", some(SUBSCRIPTION)),
    "totals of subscriptions": ("subscriptions/stats", "/api/admin/subscriptions/stats", {
        "totalSubscriptions": integer, "activeSubscriptions": integer, "monthlyRevenue": number, "annualRevenue": number,
        "averageCommissionRate": number, "topPerformingInstitutions": [anything]}),
}
UNKNOWN = {
    "course": "/api/admin/courses/nobody", "enrolments": "/api/admin/courses/nobody/enrollments",
    "institution": "/api/admin/institutions/nobody", "courses of one institution": "/api/admin/institutions/nobody/courses",
    "user": "/api/admin/users/nobody",
}


@pytest.fixture(scope="module")
def ids(cluster, database):
    def one(query):
        return cluster.sql(database, query)[0][0]
    return {
        "course": one('SELECT id FROM course WHERE "institutionId" IS NOT NULL ORDER BY id LIMIT 1'),
        "platform_course": one('SELECT id FROM course WHERE "institutionId" IS NULL ORDER BY id LIMIT 1'),
        "popular": one('SELECT "courseId" FROM student_course_enrollments GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1'),
        "institution": one('SELECT "institutionId" FROM course WHERE "institutionId" IS NOT NULL'
                           ' GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1'),
        "category": one("SELECT id FROM category ORDER BY id LIMIT 1"),
        "level": one("SELECT level FROM course ORDER BY level LIMIT 1"),
        "user": one('SELECT id FROM "user" ORDER BY id LIMIT 1'),
    }


@pytest.fixture(scope="module")
def server(cluster, database, ids):
    with Server(cluster, database) as server:
        yield server


def test_every_endpoint_is_tried(server):
    served = {e["name"] for e in server.get("/").json()["endpoints"] if e["method"] == "GET"}
    assert served == {endpoint for endpoint, _, _ in READS.values()}


@pytest.mark.parametrize("case", READS)
def test_shape(server, ids, case):
    _, path, shape = READS[case]
    answer = server.get(path.format(**ids))
    assert answer.status == 200, answer
    fits(answer.json(), shape)
    assert b"password" not in answer.body.lower() and b"$2" not in answer.body, "a password leaves the database"


def one_statement(dsn, path):
    sent = {"of": path}

    def one():
        sent.update(statements=statements(dsn, own=True))
        return list(sent["statements"].values()) == [1]
    wait_until(one, what=sent)


@pytest.mark.parametrize("case", READS)
def test_one_statement(cluster, database, server, ids, case):
    dsn = cluster.dsn(database)
    path = READS[case][1].format(**ids)
    for _ in range(2):  # prepared anew, and prepared already
        assert server.request("DELETE", "/api/admin/cache?all").status == 200
        reset_statements(dsn)
        assert server.get(path).status == 200
        one_statement(dsn, path)


@pytest.mark.parametrize("config", [{"pool_min": 0}, {"pool_min": 0, "prepare": "no"}], ids=["prepared", "for a pooler"])
def test_one_statement_on_a_fresh_connection(cluster, database, config, ids):
    dsn = cluster.dsn(database)
    with Server(cluster, database, config={"database": {**config, "pool_max": 1}}) as server:
        for _, path, _ in READS.values():
            cluster.kill_backends(database)
            reset_statements(dsn)
            assert server.get(path.format(**ids)).status == 200
            one_statement(dsn, path)


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_id(server, case):
    problem(server.get(UNKNOWN[case]), 404)


@pytest.mark.parametrize("path", ["/api/admin/courses/{}", "/api/admin/institutions/{}", "/api/admin/users/{}",
                                  "/api/admin/courses/{}/enrollments", "/api/admin/institutions/{}/courses"])
def test_an_id_that_is_too_long(server, path):
    assert list(bad_parameters(server.get(path.format("x" * 37)))) == [("path", "id")]


def test_no_table_of_passwords_is_readable_by_name(server):
    for path in ("/api/admin/users?search=%242", "/api/admin/users?limit=100"):
        assert b"password" not in server.get(path).body.lower()


# ---- filters and pages ---------------------------------------------------------------------------

def listed(server, path):
    return server.get(path).json()


def test_pages_of_courses_are_the_whole(cluster, database, server):
    total = cluster.sql(database, "SELECT count(*) FROM course")[0][0]
    seen, page = [], 1
    while True:
        answer = listed(server, f"/api/admin/courses?limit=30&page={page}")
        assert answer["pagination"] == {"total": total, "page": page, "limit": 30, "totalPages": -(-total // 30)}
        if not answer["courses"]:
            break
        seen += [c["id"] for c in answer["courses"]]
        page += 1
    assert len(seen) == len(set(seen)) == total
    newest = cluster.sql(database, 'SELECT id FROM course ORDER BY "createdAt" DESC, id DESC')
    assert seen == [row[0] for row in newest]


@pytest.mark.parametrize("sort", ["createdAt", "-createdAt", "title", "-title", "base_price", "-base_price", "priority", "-priority"])
def test_sorting_of_courses(cluster, database, server, sort):
    column, order = sort.lstrip("-"), "DESC" if sort.startswith("-") else "ASC"
    got = [c["id"] for c in listed(server, f"/api/admin/courses?sort={sort}&limit=100")["courses"]]
    rank = {row[0]: row[1] for row in cluster.sql(
        database, f'SELECT id, dense_rank() OVER (ORDER BY "{column}" {order}) FROM course')}
    ranks = [rank[i] for i in got]
    assert ranks == sorted(ranks) and min(ranks) == 1


@pytest.mark.parametrize("query, condition", [
    ("status=draft", "status = 'DRAFT'"),
    ("status=+Published+", "status = 'PUBLISHED'"),
    ("institutionId={institution}", "\"institutionId\" = '{institution}'"),
    ("categoryId={category}", "\"categoryId\" = '{category}'"),
    ("search=BUSINESS", "title ILIKE '%business%' OR description ILIKE '%business%'"),
    ("search=in", "title ILIKE '%in%' OR description ILIKE '%in%'"),
    ("search=100%25", "title LIKE '%100\\%%' OR description LIKE '%100\\%%'"),
    ("search=_", "title LIKE '%\\_%' OR description LIKE '%\\_%'"),
    ("search=zzzzzz", "false"),
    ("search=english&status=PUBLISHED", "(title ILIKE '%english%' OR description ILIKE '%english%') AND status = 'PUBLISHED'"),
])
def test_filters_of_courses(cluster, database, server, ids, query, condition):
    expected = cluster.sql(database, f"SELECT count(*) FROM course WHERE {condition.format(**ids)}")[0][0]
    assert listed(server, f"/api/admin/courses?{query.format(**ids)}")["pagination"]["total"] == expected


def test_stats_agree_with_the_tables(cluster, database, server):
    statistics = listed(server, "/api/admin/stats")["statistics"]
    for name, query in {
        "totalUsers": 'SELECT count(*) FROM "user"', "totalInstitutions": "SELECT count(*) FROM institution",
        "totalCourses": "SELECT count(*) FROM course", "activeCourses": "SELECT count(*) FROM course WHERE status = 'PUBLISHED'",
        "totalEnrollments": "SELECT count(*) FROM student_course_enrollments",
        "totalCompletions": "SELECT count(*) FROM student_course_completions",
        "totalRevenue": "SELECT sum(amount)::float8 FROM payments WHERE status = 'COMPLETED'",
    }.items():
        assert statistics[name] == pytest.approx(cluster.sql(database, query)[0][0], abs=0.01), name


def test_pending_count_agrees_with_the_table(cluster, database, server):
    pending = cluster.sql(database, "SELECT count(*) FROM payments WHERE status IN ('PENDING', 'PROCESSING', 'INITIATED')")
    assert listed(server, "/api/admin/payments/pending-count") == {"count": pending[0][0]}


def test_revenue_agrees_with_the_table(cluster, database, server):
    for first, last in (("2025-01-01", "2026-12-31"), ("2026-03-15", "2026-03-15"), ("2026-02-10", "2026-05-03")):
        paid = cluster.sql(database, "SELECT coalesce(sum(amount), 0) FROM payments WHERE status = 'COMPLETED'"
                                     " AND (coalesce(\"paidAt\", \"createdAt\") AT TIME ZONE 'UTC')::date BETWEEN %s AND %s", first, last)
        got = listed(server, f"/api/admin/revenue?startDate={first}&endDate={last}")["totalRevenue"]
        assert got == pytest.approx(paid[0][0], abs=0.01)


def test_revenue_needs_both_days(server):
    assert set(bad_parameters(server.get("/api/admin/revenue?type=nothing"))) == {
        ("query", "startDate"), ("query", "endDate"), ("query", "type")}


# DOMAIN: (path, largest limit, default limit, where the list is)
LIMITS = [("/api/admin/courses", 100, 10, "courses"), ("/api/admin/users", 100, 50, "users"),
          ("/api/admin/payments", 100, 50, None), ("/api/admin/institutions", 500, 200, None)]


@pytest.mark.parametrize("path, largest, default, member", LIMITS)
def test_limits(server, path, largest, default, member):
    def count(query):
        answer = listed(server, path + query)
        return len(answer[member] if member else answer)
    everything = count(f"?limit={largest}")
    assert count("") == min(default, everything) and count("?limit=1") == 1
    for query in (f"?limit={largest + 1}", "?limit=0", "?limit=-1"):
        assert list(bad_parameters(server.get(path + query))) == [("query", "limit")]
    for query in ("?page=0", "?page=x"):
        assert list(bad_parameters(server.get(path + query))) == [("query", "page")]
    assert count("?page=2147483647") == 0
