import json
import logging
from dataclasses import replace

import httpx
import pytest
import pytest_asyncio

from api.schemas import ProblemDetails
from rag.errors import (
    ConfigurationError,
    ModelRuntimeError,
    ProviderAuthError,
    ProviderError,
    ProviderRateLimitError,
    ProviderResponseError,
    ProviderTimeoutError,
    StoreBusyError,
    StoreError,
    UsageError,
)
from rag.settings import Settings
from tests.api.conftest import make_pipeline, serving
from tests.fake_store import HashEmbedder
from tests.fakes import Failure, FakeChat

pytestmark = pytest.mark.asyncio(loop_scope="module")
JSON = {"Content-Type": "application/json"}
NO_UNICODE = "input should be a valid string, unable to parse raw data as a unicode string"


class FailingEmbedder(HashEmbedder):
    """Fails with what it is told, once it is told."""

    error: Exception | None = None

    async def embed_queries(self, texts):
        if self.error:
            raise self.error
        return await super().embed_queries(texts)


@pytest.fixture(scope="module")
def embedder() -> FailingEmbedder:
    return FailingEmbedder()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(embedder: FailingEmbedder):
    settings = Settings(api={"max_body_bytes": 2000})
    async with serving(replace(await make_pipeline(), embedder=embedder), settings=settings) as (client, _):
        yield client


@pytest.fixture
def failing(embedder: FailingEmbedder):
    yield lambda error: setattr(embedder, "error", error)
    embedder.error = None


def problem_in(response: httpx.Response, status: int) -> dict:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    ProblemDetails.model_validate(problem, extra="forbid")
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UsageError("m"), 422, "invalid_request"),
        (StoreError("m"), 503, "store_unavailable"),
        (StoreBusyError("m"), 503, "store_busy"),
        (ModelRuntimeError("m"), 503, "model_failed"),
        (ProviderError("m"), 502, "provider_error"),
        (ProviderAuthError("m"), 502, "provider_auth"),
        (ProviderResponseError("m"), 502, "provider_response"),
        (ProviderRateLimitError("m"), 503, "provider_rate_limited"),
        (ProviderTimeoutError("m"), 504, "provider_timeout"),
    ],
)
async def test_every_error_has_its_status_and_code(client, failing, error, status, code):
    failing(error)
    problem = problem_in(await client.post("/v1/search", json={"query": "moon"}), status)
    assert (problem["code"], problem["detail"], problem["instance"]) == (code, "m", "/v1/search")
    assert problem["type"] == "about:blank"


@pytest.mark.parametrize(("seconds", "header"), [(2.1, "3"), (0, "0"), (None, None)])
async def test_a_provider_that_asks_to_wait_is_passed_on(client, failing, seconds, header):
    failing(ProviderRateLimitError("slow down", retry_after_s=seconds))
    response = await client.post("/v1/search", json={"query": "moon"})
    assert response.headers.get("retry-after") == header


@pytest.mark.parametrize("error", [ZeroDivisionError("path /secret"), ConfigurationError("path /secret")])
async def test_an_error_that_is_not_for_callers_is_logged_and_not_told(client, failing, error, caplog):
    failing(error)
    response = await client.post("/v1/search", json={"query": "moon"}, headers={"X-Request-ID": "find-me"})
    problem = problem_in(response, 500)
    assert problem["code"] == "internal_error"
    assert "secret" not in response.text
    [record] = [r for r in caplog.records if r.exc_info]
    assert record.exc_info[1] is error
    assert "find-me" in record.getMessage()


async def test_a_failure_of_a_part_is_told_to_the_operator_too(client, failing, caplog):
    failing(StoreError("the store at host:1 cannot be reached"))
    await client.post("/v1/search", json={"query": "moon"}, headers={"X-Request-ID": "find-me"})
    [record] = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert record.getMessage() == "request find-me: the store at host:1 cannot be reached"


@pytest.mark.parametrize(
    ("path", "body", "field", "message"),
    [
        ("search", {}, "query", "missing"),
        ("answer", {}, "question", "missing"),
        ("answer", {"question": "x", "query": "x"}, "query", "unknown field"),
        ("search", {"query": "x", "limit": 3}, "limit", "unknown field"),
        ("search", {"query": "x", "k": 0}, "k", "input should be greater than or equal to 1"),
        ("search", {"query": "x", "k": "5"}, "k", "input should be a valid integer"),
        ("search", {"query": "x", "fusion": "sum"}, "fusion", "input should be 'rrf', 'convex' or 'dbsf'"),
        ("search", {"query": ""}, "query", "string should have at least 1 character"),
        ("search", {"query": "secret \ud800"}, "query", NO_UNICODE),
        ("search", {"query": "x", "\ud800": 1}, "body", NO_UNICODE),
        ("search", {"query": "x", "y" * 1000: 1}, "y" * 100, "unknown field"),
        ("search", [], "body", "input should be a valid dictionary or object to extract fields from"),
    ],
)
async def test_a_wrong_field_is_named_and_its_value_is_not_repeated(client, path, body, field, message):
    response = await client.post(f"/v1/{path}", content=json.dumps(body), headers=JSON)
    problem = problem_in(response, 422)
    assert problem["code"] == "invalid_request"
    assert "secret" not in response.text
    assert problem["errors"] == [{"field": field, "message": message}]
    assert problem["detail"] == f"{field}: {message}"


async def test_every_wrong_field_is_named(client):
    body = {"query": "x", "k": 0, "weight_dense": 2, "explain": 1}
    problem = problem_in(await client.post("/v1/search", json=body), 422)
    assert [error["field"] for error in problem["errors"]] == ["k", "weight_dense", "explain"]


async def test_numbers_that_json_does_not_know_are_refused(client):
    for number in ("NaN", "Infinity"):
        content = f'{{"query": "x", "weight_dense": {number}}}'
        problem_in(await client.post("/v1/search", content=content, headers=JSON), 422)


def nested(depth: int) -> dict:
    inner = {"type": "eq", "key": "source", "value": "docs"}
    for _ in range(depth):
        inner = {"type": "and", "filters": [inner]}
    return inner


@pytest.mark.parametrize(
    ("chosen", "code", "part"),
    [
        ({"type": "like"}, "invalid_filter", "unknown filter type 'like'"),
        (nested(40), "invalid_request", "levels deep"),
        ({"type": "eq", "key": "source", "value": "\udfff"}, "invalid_request", "surrogate"),
        ("source=docs", "invalid_request", "valid dictionary"),
    ],
)
async def test_a_filter_that_cannot_be_read_is_refused(client, chosen, code, part):
    body = json.dumps({"query": "x", "filter": chosen})
    problem = problem_in(await client.post("/v1/search", content=body, headers=JSON), 422)
    assert problem["code"] == code
    assert part in problem["detail"]


async def test_a_filter_of_ordinary_depth_is_accepted(client):
    response = await client.post("/v1/search", json={"query": "moon", "filter": nested(5)})
    assert response.status_code == 200


async def test_a_blank_question_is_refused_by_the_pipeline(client):
    problem = problem_in(await client.post("/v1/answer", json={"question": "  "}), 422)
    assert problem["detail"] == "the query is empty; ask for something"


@pytest.mark.parametrize("body", [b'{"query": ', b"\xff\xfe{", b"[" * 1500])
async def test_a_body_that_is_not_json_is_malformed(client, body):
    problem = problem_in(await client.post("/v1/search", content=body, headers=JSON), 400)
    assert problem["code"] in ("malformed_json", "malformed_request")


async def test_json_that_is_not_declared_as_such_is_refused_with_the_remedy(client):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    problem = problem_in(await client.post("/v1/search", content=b'{"query": "x"}', headers=form), 415)
    assert "Content-Type: application/json" in problem["detail"]


async def in_pieces(size: int):
    for start in range(0, size, 500):
        yield b" " * min(500, size - start)


@pytest.mark.parametrize("content", [b" " * 2001, in_pieces], ids=["declared", "chunked"])
async def test_a_body_over_the_limit_is_refused(client, content):
    content = content if isinstance(content, bytes) else content(2001)
    problem = problem_in(await client.post("/v1/search", content=content, headers=JSON), 413)
    assert problem["code"] == "body_too_large"
    assert "2000 bytes" in problem["detail"]


async def test_a_body_of_just_the_limit_is_read(client):
    body = b'{"query": "moon"}'
    response = await client.post("/v1/search", content=body + b" " * (2000 - len(body)), headers=JSON)
    assert response.status_code == 200


async def test_unknown_routes_and_methods_are_problems(client):
    assert problem_in(await client.get("/v2/ä b"), 404)["instance"] == "/v2/%C3%A4%20b"
    assert problem_in(await client.post("/v1/search/", json={"query": "x"}), 404)["code"] == "not_found"
    response = await client.get("/v1/search")
    assert problem_in(response, 405)["code"] == "method_not_allowed"
    assert response.headers["allow"] == "POST"


async def test_a_request_id_is_echoed(client):
    for given in ("abc-1", "x" * 128, "!~"):
        response = await client.get("/health/live", headers={"X-Request-ID": given})
        assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b"\xe4", b"a\tb"])
async def test_a_request_id_that_logs_could_not_hold_is_replaced(client, given):
    response = await client.get("/nowhere", headers={b"X-Request-ID": given})
    own = problem_in(response, 404)["request_id"]
    assert own.encode() != given
    assert len(own) == 32


@pytest.mark.parametrize("text", ["", "Half an answer"])
async def test_a_model_that_fails_is_a_bad_gateway(text):
    pipeline = await make_pipeline(FakeChat(Failure(ProviderResponseError("it broke off"), text, after=1)))
    async with serving(pipeline) as (client, _):
        problem = problem_in(await client.post("/v1/answer", json={"question": "moon"}), 502)
    assert problem["detail"] == "it broke off"
