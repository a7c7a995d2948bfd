import json

from filelock import FileLock

from rag.settings import Settings, Telemetry
from tests.api.conftest import make_pipeline, serving
from tests.fakes import FakeChat

QUESTION = "What causes the tides?"
ANSWER = 'The moon does. [1: "moon causes the tides"]'


def logging_to(path, share=1.0) -> Settings:
    return Settings(telemetry=Telemetry(query_log=path, query_log_share=share))


async def test_answers_in_one_piece_and_streamed_are_kept_with_their_texts(tmp_path):
    log = tmp_path / "log" / "queries.jsonl"
    body = {"question": QUESTION, "filter": {"type": "eq", "key": "source", "value": "docs"}, "k": 2}
    async with serving(await make_pipeline(FakeChat(ANSWER)), settings=logging_to(log)) as (client, _):
        answer = (await client.post("/v1/answer", json=body, headers={"X-Request-ID": "first"})).json()
        streamed = await client.post("/v1/answer", json={**body, "stream": True}, headers={"X-Request-ID": "second"})
    assert "event: done" in streamed.text
    # The first is written after its response, perhaps while the second is answered.
    written = map(json.loads, log.read_text("utf-8").splitlines())
    whole, pieces = sorted(written, key=lambda entry: entry["request_id"])
    assert [whole["request_id"], pieces["request_id"]] == ["first", "second"]
    assert (whole["question"], whole["filter"], whole["answer"]) == (QUESTION, body["filter"], answer["answer"])
    assert len(whole["candidates"]) <= 2
    assert whole["sources"][0]["text"] == answer["sources"][0]["text"]
    assert whole["citations"][0]["verified"] is True
    assert {**whole, "at": "", "request_id": ""} == {**pieces, "at": "", "request_id": ""}


async def test_an_answer_does_not_wait_for_the_log(tmp_path):
    log = tmp_path / "queries.jsonl"
    async with serving(await make_pipeline(FakeChat(ANSWER)), settings=logging_to(log)) as (client, _):
        with FileLock(tmp_path / "queries.jsonl.lock"):
            assert (await client.post("/v1/answer", json={"question": QUESTION})).status_code == 200
            assert not log.exists()
    assert json.loads(log.read_text("utf-8"))["question"] == QUESTION


async def test_a_client_cannot_choose_by_its_request_id_what_is_kept(tmp_path):
    log = tmp_path / "queries.jsonl"
    headers = {"X-Request-ID": "always-the-same"}
    async with serving(await make_pipeline(FakeChat(ANSWER)), settings=logging_to(log, 0.5)) as (client, _):
        for _ in range(64):
            await client.post("/v1/answer", json={"question": QUESTION}, headers=headers)
    assert 0 < len(log.read_text("utf-8").splitlines()) < 64


async def test_only_the_sampled_share_is_kept_and_nothing_without_a_file(tmp_path):
    log = tmp_path / "queries.jsonl"
    async with serving(await make_pipeline(FakeChat(ANSWER)), settings=logging_to(log, 0.0)) as (client, _):
        assert (await client.post("/v1/answer", json={"question": QUESTION})).status_code == 200
    async with serving(await make_pipeline(FakeChat(ANSWER))) as (client, _):
        assert (await client.post("/v1/answer", json={"question": QUESTION})).status_code == 200
    assert list(tmp_path.iterdir()) == []


async def test_a_log_that_cannot_be_written_fails_no_request(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    settings = logging_to(tmp_path / "file" / "queries.jsonl")
    async with serving(await make_pipeline(FakeChat(ANSWER)), settings=settings) as (client, _):
        assert (await client.post("/v1/answer", json={"question": QUESTION})).status_code == 200
    assert "query log" in caplog.text
