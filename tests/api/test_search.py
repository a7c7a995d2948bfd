import json
import logging

import httpx
import pytest

from api.rendering import search_to_json
from api.schemas import SearchModel
from rag.request import SearchRequest
from rag.settings import Settings
from tests.api.conftest import make_pipeline, make_pipeline_over_a_table, serving


async def test_a_search_returns_what_the_pipeline_finds():
    pipeline = await make_pipeline()
    async with serving(pipeline) as (client, _):
        found = (await client.post("/v1/search", json={"query": "What causes the tides?", "k": 2})).json()
    request = SearchRequest("What causes the tides?", "default", k=2)
    expected = search_to_json(await pipeline.search(request), explain=False)
    assert found["candidates"] == json.loads(json.dumps(expected["candidates"]))
    assert found["query"] == "What causes the tides?"
    assert [c["rank"] for c in found["candidates"]] == [1, 2]
    best = found["candidates"][0]
    assert (best["document_id"], best["title"], best["headings"]) == ("tides.md", "Tides", ["Facts"])
    assert best["text"][best["start"] : best["end"]] == best["text"]
    assert best["metadata"] == {"length": 50, "tags": ["a", "b"]}
    assert {"embed", "retrieve", "total"} <= found["timings_ms"].keys()
    assert "stages" not in found


async def test_explain_adds_every_ranking_and_the_documented_model_fits(client: httpx.AsyncClient):
    found = (await client.post("/v1/search", json={"query": "oak tanks", "explain": True})).json()
    assert list(found["stages"]) == ["dense", "bm25", "fused"]
    assert found["stages"]["bm25"][0]["document_id"] == "wine.md"
    assert SearchModel.model_validate(found, extra="forbid").model_dump(mode="json") == found


async def test_a_candidate_says_which_rows_it_holds_and_where_else_it_stands():
    async with serving(await make_pipeline_over_a_table()) as (client, _):
        found = (await client.post("/v1/search", json={"query": "moon tides"})).json()
    places = {c["document_id"]: (c["page"], c["rows"], c["also_in"]) for c in found["candidates"]}
    assert places["tides.md"] == (None, [2, 17], ["copy.csv"])
    assert places["wine.md"] == (None, None, [])
    assert SearchModel.model_validate(found, extra="forbid").model_dump(mode="json", exclude_unset=True) == found


async def test_a_filter_narrows_every_leg(client: httpx.AsyncClient):
    chosen = {"type": "or", "filters": [{"type": "eq", "key": "document_id", "value": "wine.md"}]}
    found = (await client.post("/v1/search", json={"query": "tides", "filter": chosen, "explain": True})).json()
    assert {c["document_id"] for leg in found["stages"].values() for c in leg} == {"wine.md"}


@pytest.mark.parametrize("fusion", ["rrf", "convex"])
async def test_fusion_weight_and_depth_reach_the_pipeline(client: httpx.AsyncClient, fusion: str):
    body = {"query": "moon", "fusion": fusion, "weight_dense": 0, "retrieve_k": 1, "k": 1, "explain": True}
    stages = (await client.post("/v1/search", json=body)).json()["stages"]
    assert [len(ranking) for ranking in stages.values()] == [1, 1, 1]
    assert stages["fused"][0]["score"] == pytest.approx(1 / 61 if fusion == "rrf" else 1, abs=1e-5)


async def test_only_the_configured_tenant_is_searched():
    settings = Settings(data={"tenant": "someone-else"})
    async with serving(await make_pipeline(), settings=settings) as (client, _):
        assert (await client.post("/v1/search", json={"query": "moon"})).json()["candidates"] == []


async def test_a_search_writes_one_line_without_what_was_asked(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    await client.post("/v1/search", json={"query": "moon secret"}, headers={"X-Request-ID": "r-1"})
    [line] = [json.loads(r.message) for r in caplog.records if r.name == "rag"]
    assert line["operation"] == "search"
    assert (line["request_id"], line["status"], line["candidates"]) == ("r-1", 200, 3)
    assert line["duration_ms"] >= line["timings_ms"]["total"]
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith("httpx")]
    assert not any("secret" in message for message in ours)
    assert not [r for r in caplog.records if r.name == "uvicorn.access"]
