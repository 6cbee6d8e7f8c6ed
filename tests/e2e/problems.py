"""What every answer that is not a success must look like: RFC 9457, with the members dashboards read."""
from http import HTTPStatus

MEMBERS = {"type", "title", "status", "detail", "instance", "message"}


def problem(response, status, extra=()):
    """Checks the problem document of an answer with that status and returns it."""
    assert response.status == status, response
    assert response.header("Content-Type") == "application/problem+json", response
    assert response.header("X-Content-Type-Options") == "nosniff", response
    assert response.header("Cache-Control") == "private, no-cache", response
    assert response.header("ETag") is None, response
    document = response.json()
    assert set(document) == MEMBERS | set(extra), document
    assert document["type"] == "about:blank"
    assert document["title"] and document["title"] == response.reason
    assert document["status"] == status
    assert document["detail"] and document["detail"] == document["message"]
    assert document["instance"] == response.header("X-Request-Id")
    assert (response.header("Retry-After") is not None) == (status == HTTPStatus.SERVICE_UNAVAILABLE), response
    return document


def bad_parameters(response):
    """The errors of a 400 about parameters, as {(in, name): reason}."""
    document = problem(response, 400, ["errors"])
    assert document["errors"]
    found = {}
    for error in document["errors"]:
        assert set(error) == {"name", "in", "reason"}, error
        assert error["reason"]
        assert (error["in"], error["name"]) not in found, f"reported twice: {error}"
        found[error["in"], error["name"]] = error["reason"]
    return found
