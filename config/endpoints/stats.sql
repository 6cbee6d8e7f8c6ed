-- The dashboard's totals and the newest enrolments and users.
-- Totals are read from maintained tables; revenue, commission and the institutions' part are those of
-- COMPLETED payments. Active are users whose status says so and institutions with isActive.
-- @route GET /api/admin/stats
-- @cache ttl=30m tags=stats
SELECT json_build_object(
    'statistics', (
        SELECT json_build_object(
            'totalUsers',             t.users,
            'totalInstitutions',      i.n,
            'totalCourses',           t.courses,
            'totalEnrollments',       t.enrollments,
            'totalCompletions',       t.completions,
            'totalRevenue',           p.amount,
            'totalCommission',        p.commission,
            'totalInstitutionRevenue', p.institution,
            'activeUsers',            t.active_users,
            'activeInstitutions',     i.active,
            'activeCourses',          t.published)
        FROM (SELECT coalesce(sum(n) FILTER (WHERE name = 'user'), 0) AS users,
                     coalesce(sum(n) FILTER (WHERE name = 'user' AND status = 'ACTIVE'), 0) AS active_users,
                     coalesce(sum(n) FILTER (WHERE name = 'course'), 0) AS courses,
                     coalesce(sum(n) FILTER (WHERE name = 'course' AND status = 'PUBLISHED'), 0) AS published,
                     coalesce(sum(n) FILTER (WHERE name = 'student_course_enrollments'), 0) AS enrollments,
                     coalesce(sum(n) FILTER (WHERE name = 'student_course_completions'), 0) AS completions
              FROM table_counts) t,
             (SELECT count(*) AS n, count(*) FILTER (WHERE "isActive") AS active FROM institution) i,
             (SELECT coalesce(sum(amount), 0) AS amount, coalesce(sum("commissionAmount"), 0) AS commission,
                     coalesce(sum("institutionAmount"), 0) AS institution
              FROM payment_totals WHERE status = 'COMPLETED') p),
    'recentEnrollments', (
        SELECT coalesce(json_agg(json_build_object(
            'id', e.id, 'status', e.status, 'paymentStatus', e."paymentStatus", 'progress', e.progress, 'createdAt', e."createdAt",
            'student', (SELECT json_build_object('id', s.id, 'name', s.name, 'email', s.email)
                          FROM students s WHERE s.id = e."studentId"),
            'course', (SELECT json_build_object('id', c.id, 'title', c.title) FROM course c WHERE c.id = e."courseId"))
            ORDER BY e."createdAt" DESC, e.id DESC), '[]')
        FROM (SELECT * FROM student_course_enrollments ORDER BY "createdAt" DESC, id DESC LIMIT 5) e),
    'recentUsers', (
        SELECT coalesce(json_agg(json_build_object(
            'id', u.id, 'name', u.name, 'email', u.email, 'role', u.role, 'status', u.status, 'image', u.image,
            'createdAt', u."createdAt") ORDER BY u."createdAt" DESC, u.id DESC), '[]')
        FROM (SELECT * FROM "user" ORDER BY "createdAt" DESC, id DESC LIMIT 5) u),
    'timestamp', now())
