import asyncio
import json
import logging
import threading
from contextlib import closing

import pytest

from api.schemas import AnswerModel
from rag.context.prompt import ABSTENTION
from tests.api.conftest import SilentChat, anthropic_chat, make_pipeline, make_pipeline_over_a_table, serving
from tests.fakes import FakeChat
from tests.wire import Gate, WireServer, anthropic_reply

QUESTION = {"question": "What causes the tides?"}
ANSWER = 'The moon does. [1: "moon causes the tides"]'


async def test_an_answer_comes_with_citations_sources_and_usage():
    async with serving(await make_pipeline(FakeChat(ANSWER))) as (client, _):
        response = await client.post("/v1/answer", json=QUESTION)
    answer = response.json()
    assert response.headers["content-type"] == "application/json"
    assert answer["answer"] == "The moon does. [1]"
    [citation] = answer["citations"]
    source = answer["sources"][citation["marker"] - 1]
    assert citation["verified"]
    assert source["text"][citation["start"] : citation["end"]] == citation["quote"] == "moon causes the tides"
    assert answer["answer"][citation["answer_start"] : citation["answer_end"]] == "[1]"
    assert (answer["model"], answer["abstained"]) == ("fake:model", False)
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (20, 7)
    assert {"embed", "generate", "total"} <= answer["timings_ms"].keys()


async def test_explain_adds_every_ranking_and_the_documented_model_fits(client):
    answer = (await client.post("/v1/answer", json={**QUESTION, "explain": True})).json()
    assert list(answer["stages"]) == ["dense", "bm25", "fused"]
    assert AnswerModel.model_validate(answer, extra="forbid").model_dump(mode="json") == answer


async def test_citations_and_sources_say_which_rows_they_are_of_and_where_else_they_stand():
    async with serving(await make_pipeline_over_a_table(FakeChat(ANSWER))) as (client, _):
        answer = (await client.post("/v1/answer", json=QUESTION)).json()
    [citation] = answer["citations"]
    source = answer["sources"][citation["marker"] - 1]
    for place in (citation, source):
        assert (place["document_id"], place["rows"], place["also_in"]) == ("tides.md", [2, 17], ["copy.csv"])
    others = [place for place in answer["sources"] if place is not source]
    assert [(place["rows"], place["also_in"]) for place in others] == [(None, [])] * len(others)
    assert AnswerModel.model_validate(answer, extra="forbid").model_dump(mode="json", exclude_unset=True) == answer


async def test_what_the_filter_leaves_nothing_of_is_answered_by_abstaining():
    chat = FakeChat()
    nothing = {"type": "eq", "key": "source", "value": "elsewhere"}
    async with serving(await make_pipeline(chat)) as (client, _):
        answer = (await client.post("/v1/answer", json={**QUESTION, "filter": nothing})).json()
    assert (answer["answer"], answer["abstained"], answer["sources"]) == (ABSTENTION, True, [])
    assert chat.prompts == []


async def test_an_answer_writes_one_line_without_its_words(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "rag")
    async with serving(await make_pipeline(FakeChat(ANSWER))) as (client, _):
        await client.post("/v1/answer", json=QUESTION)
    [record] = [r for r in caplog.records if r.name == "rag"]
    line = json.loads(record.message)
    assert (line["operation"], line["status"], line["model"]) == ("answer", 200, "fake:model")
    assert (line["citations"], line["verified"], line["prompt_tokens"]) == (1, 1, 20)
    assert "disconnected" not in line
    assert "moon" not in record.message
    assert "tides" not in record.message


async def test_a_client_that_leaves_cancels_the_model_at_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    chat = SilentChat()
    async with serving(await make_pipeline(chat)) as (client, _):
        asking = asyncio.create_task(client.post("/v1/answer", json=QUESTION))
        await asyncio.wait_for(chat.asked.wait(), 30)
        asking.cancel()
        await asyncio.wait_for(chat.cancelled.wait(), 30)
    [line] = [json.loads(r.message) for r in caplog.records if r.name == "rag"]
    assert (line["status"], line["disconnected"]) == (499, True)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_client_that_leaves_closes_the_connection_to_the_provider():
    arrived = threading.Event()
    with WireServer() as provider, closing(Gate()) as gate:
        provider.script(lambda _: arrived.set() or anthropic_reply("late").held(gate))
        async with serving(await make_pipeline(anthropic_chat(provider.url))) as (client, _):
            asking = asyncio.create_task(client.post("/v1/answer", json=QUESTION))
            await asyncio.to_thread(arrived.wait, 5)
            asking.cancel()
            await asyncio.to_thread(provider.wait_for_disconnect)
