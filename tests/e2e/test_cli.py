"""The real program, as a subprocess, with the real packaged model."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.cli import _exit_code
from rag import errors
from rag.adapters.qdrant_edge import QdrantEdgeStore
from tests.models_cache import exported_minilm
from tests.wire import WireServer, anthropic_error, anthropic_reply, openai_stream

PROGRAM = Path(sys.executable).with_name("rag")
TIDES = "# Tides\n\nThe moon causes the tides. Its gravity raises two bulges of water. The sun helps a little.\n"
DOCUMENTS = {
    "tides.md": TIDES,
    "rules/backups.md": "---\nyear: 2024\n---\n# Backups\n\nBackups are kept for thirty days. Then they are deleted.\n",
    "wine.html": "<html><head><title>Wine</title></head><body><p>Wine ferments in steel tanks.</p></body></html>",
    "notes.txt": "The parking garage closes at ten in the evening.",
}
QUESTION = "What causes the tides?"


@dataclass(frozen=True)
class Finished:
    """A run of the program that is over."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        lines = self.out.splitlines()
        assert len(lines) == 1, f"not one JSON object: {self.out}\n{self.err}"
        return json.loads(lines[0])


def environment(folder: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of this machine's configuration, and no way to any host but this one."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LD_LIBRARY_PATH")}
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return {**kept, **nowhere, "NO_PROXY": "127.0.0.1", "HOME": str(folder), **(variables or {})}


def rag(folder: Path, *arguments: str, **variables: str) -> Finished:
    done = subprocess.run(
        [PROGRAM, *arguments],
        cwd=folder,
        env=environment(folder, variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_minilm(tmp_path_factory)


def workplace(folder: Path, graphs: Path) -> Path:
    """An empty place to work, with the model exported already."""
    shutil.copytree(graphs, folder / ".rag" / "cache" / "graphs")
    return folder


@dataclass(frozen=True)
class Ingested:
    """A place with `DOCUMENTS` in its collection, and what ingesting them said."""

    folder: Path
    first: Finished


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, graphs: Path) -> Ingested:
    folder = workplace(tmp_path_factory.mktemp("cli"), graphs)
    for name, text in DOCUMENTS.items():
        file = folder / "docs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    (folder / "docs" / "broken.md").write_bytes(b"\0\1\2")
    return Ingested(folder, rag(folder, "ingest", "docs", "--json"))


@pytest.fixture
def place(ingested: Ingested) -> Path:
    return ingested.folder


def test_ingest_reports_what_it_did_and_names_what_failed(ingested: Ingested):
    said = ingested.first.json
    assert ingested.first.status == 1
    assert {key: said[key] for key in ("added", "updated", "unchanged", "deleted", "passages")} == {
        "added": 4,
        "updated": 0,
        "unchanged": 0,
        "deleted": 0,
        "passages": 4,
    }
    assert [Path(failure["path"]).name for failure in said["failed"]] == ["broken.md"]
    assert "binary" in said["failed"][0]["reason"]
    assert said["seconds"] > said["encoder_seconds"] > 0
    assert (said["warnings"], said["embedded"], said["interrupted"]) == ([], 4, False)
    assert said.keys() == {
        *("added", "updated", "unchanged", "deleted", "failed", "warnings"),
        *("passages", "embedded", "seconds", "encoder_seconds", "interrupted"),
    }


def test_ingest_tells_its_progress_in_json_lines_on_standard_error(ingested: Ingested):
    events = [json.loads(line) for line in ingested.first.err.splitlines()]
    assert {event["event"] for event in events} == {"progress"}
    assert events[0] == {"event": "progress", "documents": 0, "total": 5, "passages": 0, "failed": 0}
    assert events[-1] == {"event": "progress", "documents": 5, "total": 5, "passages": 4, "failed": 1}


def test_a_second_ingest_finds_everything_unchanged(place: Path):
    again = rag(place, "ingest", *(f"docs/{name}" for name in ("tides.md", "wine.html")), "--source", "docs")
    assert again.status == 0
    assert "0 added, 0 updated, 2 unchanged, 0 deleted, 0 failed" in again.out


def test_search_finds_by_meaning_and_explains_itself(place: Path):
    found = rag(place, "search", "how long do you store copies of my data", "--k", "2", "--explain", "--json")
    assert (found.status, found.err) == (0, "")
    said = found.json
    assert said.keys() == {"query", "candidates", "timings_ms", "degraded", "skipped", "stages"}
    assert len(said["candidates"]) == 2
    best = said["candidates"][0]
    assert best.keys() == {
        *("rank", "score", "passage_id", "document_id", "title"),
        *("headings", "page", "rows", "start", "end", "text", "metadata", "also_in"),
    }
    assert (best["rank"], best["document_id"], best["title"]) == (1, "docs/rules/backups.md", "Backups")
    assert best["metadata"] == {"year": 2024, "media_type": "text/markdown"}
    assert said["stages"].keys() == {"dense", "bm25", "fused"}
    assert said["stages"]["dense"][0]["document_id"] == "docs/rules/backups.md"
    assert said["timings_ms"].keys() == {"embed", "retrieve", "complete", "fuse", "fetch", "total"}


def test_search_keeps_to_a_filter(place: Path):
    found = rag(place, "search", "wine", "--filter", "year=2024", "--json")
    assert found.status == 0
    assert [candidate["document_id"] for candidate in found.json["candidates"]] == ["docs/rules/backups.md"]


def test_search_is_readable_for_people(place: Path):
    found = rag(place, "search", "tides", "--explain")
    assert found.status == 0
    assert found.out.startswith("1. Tides")
    assert "Rankings by stage" in found.out


def test_ask_answers_with_citations_that_are_in_the_document(place: Path):
    asked = rag(place, "ask", QUESTION, "--json")
    assert (asked.status, asked.err) == (0, "")
    said = asked.json
    assert {"answer", "abstained", "citations", "model", "usage", "timings_ms", "degraded"} <= said.keys()
    assert (said["abstained"], said["model"]) == (False, "extractive")
    assert said["usage"].keys() >= {"prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd"}
    assert said["citations"]
    for citation in said["citations"]:
        assert citation["verified"]
        assert said["answer"][citation["answer_start"] : citation["answer_end"]] == f"[{citation['marker']}]"
        assert citation["document_id"] == "docs/tides.md"
        assert TIDES[citation["start"] : citation["end"]] == citation["quote"] == "The moon causes the tides."


def test_ask_abstains_when_the_documents_do_not_answer(place: Path):
    said = rag(place, "ask", "Who won the football championship in 1998?", "--json").json
    assert (said["abstained"], said["citations"]) == (True, [])
    assert said["answer"] == "The sources do not answer this question."


def test_ask_has_an_answer_written_by_anthropic(place: Path):
    with WireServer() as server:
        server.script(anthropic_reply('The moon does. [1: "The moon causes the tides."]'))
        asked = rag(
            place,
            *("ask", QUESTION, "--json"),
            ANTHROPIC_API_KEY="sk-ant-secret",
            RAG_LLM__PROVIDERS__ANTHROPIC__BASE_URL=server.url,
        )
    assert (asked.status, asked.err) == (0, "")
    assert asked.json["answer"] == "The moon does. [1]"
    assert [citation["verified"] for citation in asked.json["citations"]] == [True]
    assert asked.json["usage"]["prompt_tokens"] == 20
    (request,) = server.requests
    assert "sk-ant-secret" in (request.headers.get("x-api-key", "") + request.headers.get("authorization", ""))
    assert "The moon causes the tides." in json.dumps(request.json)


def test_ask_streams_an_answer_written_by_openai(place: Path):
    with WireServer() as server:
        server.script(openai_stream("The moon does. ", '[1: "The moon ', 'caused the tides."]'))
        asked = rag(
            place,
            *("ask", QUESTION),
            OPENAI_API_KEY="sk-secret",
            RAG_LLM__PROVIDERS__OPENAI__BASE_URL=f"{server.url}/v1",
        )
    assert asked.status == 0, asked.err
    assert asked.out.startswith("The moon does. [1]\n")
    assert 'docs/tides.md: unverified "The moon caused the tides."' in asked.out
    assert server.requests[0].headers["authorization"] == "Bearer sk-secret"


def test_a_key_that_is_refused_is_never_shown(place: Path):
    with WireServer() as server:
        server.always(anthropic_error("authentication_error", "invalid x-api-key: sk-ant-secret", status=401))
        asked = rag(
            place,
            *("ask", QUESTION, "--json"),
            ANTHROPIC_API_KEY="sk-ant-secret",
            RAG_LLM__PROVIDERS__ANTHROPIC__BASE_URL=server.url,
        )
    assert asked.status == 3
    assert asked.json["error"]["code"] == "provider_auth"
    assert "ANTHROPIC_API_KEY" in asked.err
    assert "sk-ant-secret" not in asked.out + asked.err


def test_doctor_finds_nothing_broken(place: Path):
    examined = rag(place, "doctor", "--json")
    checks = {check["name"]: check for check in examined.json["checks"]}
    assert examined.status == 0
    assert {name: checks[name]["status"] for name in ("data", "embedding", "store", "answers")} == {
        "data": "ok",
        "embedding": "ok",
        "store": "ok",
        "answers": "missing",
    }
    assert "4 passages" in checks["store"]["found"]


def test_models_are_listed_with_those_that_are_here(place: Path):
    models = rag(place, "models", "list", "--json").json["models"]
    assert {model["name"]: model["present"] for model in models} == {
        "all-MiniLM-L6-v2": True,
        **{model["name"]: False for model in models[1:]},
    }


FAILING = {
    "an unknown setting": (
        ["search", "tides"],
        {"RAG_RETRIEVAL__KK": "3"},
        "configuration_error",
        "RAG_RETRIEVAL__KK",
    ),
    "a path that does not exist": (["ingest", "nowhere"], {}, "invalid_request", "nowhere does not exist"),
    "nothing ingested yet": (
        ["search", "tides"],
        {"RAG_STORE__COLLECTION": "another"},
        "configuration_error",
        "Run: rag ingest PATH",
    ),
    "other settings than the collection's": (
        ["ingest", "docs", "--chunker", "recursive"],
        {},
        "collection_mismatch",
        "chunker: built with 'sentence-window",
    ),
    "a filter that cannot be read": (["search", "tides", "--filter", "year"], {}, "invalid_filter", "key=value"),
    "an unknown option": (["search", "tides", "--colour"], {}, "invalid_usage", "--colour"),
}


@pytest.mark.parametrize(("arguments", "variables", "code", "message"), FAILING.values(), ids=FAILING)
def test_wrong_usage_is_one_line_for_people_and_one_object_for_programs(
    place: Path, arguments: list[str], variables: dict[str, str], code: str, message: str
):
    failed = rag(place, *arguments, "--json", **variables)
    assert failed.status == 2
    assert failed.json.keys() == {"error"}
    assert failed.json["error"]["code"] == code
    assert message in failed.json["error"]["message"]
    assert failed.err == f"rag: {failed.json['error']['message']}\n"


def test_a_store_that_another_process_holds_is_named(place: Path):
    collection = place / ".rag" / "collections" / "embedded" / "passages"
    store = QdrantEdgeStore.open(collection / (collection / "live").read_text("utf-8"))
    try:
        asked = rag(place, "search", "tides", "--json")
    finally:
        asyncio.run(store.close())
    assert asked.status == 3
    assert asked.json["error"]["code"] == "store_busy"
    assert "in use by another process" in asked.err


@pytest.mark.parametrize("arguments", [["--json"], ["--explain"]], ids=["for programs", "for people"])
def test_a_reader_that_has_gone_away_is_no_crash(place: Path, arguments: list[str]):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [PROGRAM, "search", "tides", *arguments],
        cwd=place,
        env=environment(place),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_interrupted_ingest_is_completed_by_the_next(tmp_path: Path, graphs: Path):
    workplace(tmp_path, graphs)
    (tmp_path / "docs").mkdir()
    for number in range(300):
        text = " ".join(f"Sentence {n} of text {number} says nothing that is new." for n in range(6))
        (tmp_path / "docs" / f"{number}.txt").write_text(text, encoding="utf-8")
    running = subprocess.Popen(
        [PROGRAM, "ingest", "docs", "--json"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    assert json.loads(running.stderr.readline())["documents"] == 0
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)

    assert running.returncode == 130
    assert json.loads(out)["interrupted"] is True
    notices = [event["message"] for event in map(json.loads, err.splitlines()) if event["event"] == "notice"]
    assert notices == ["stopping after the batch in flight; once more ends at once"]

    completed = rag(tmp_path, "ingest", "docs", "--json")
    assert completed.status == 0
    assert completed.json["added"] + completed.json["unchanged"] == 300
    checks = {check["name"]: check for check in rag(tmp_path, "doctor", "--json").json["checks"]}
    assert "300 passages" in checks["store"]["found"]


def test_eval_run_measures_every_stage_on_judged_questions(place: Path, tmp_path: Path):
    texts = {"d1": TIDES, "d2": "Backups are kept for thirty days.", "d3": "Wine ferments in steel tanks."}
    corpus = [json.dumps({"_id": name, "title": "", "text": text}) for name, text in texts.items()]
    queries = [json.dumps({"_id": "q1", "text": QUESTION}), json.dumps({"_id": "q2", "text": "how is wine made"})]
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text("\n".join(corpus), encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text("\n".join(queries), encoding="utf-8")
    judgements = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td3\t1\n"
    (tmp_path / "qrels" / "test.tsv").write_text(judgements, encoding="utf-8")

    evaluated = rag(place, "eval", "run", str(tmp_path), "--out", "runs", "--json")

    assert evaluated.status == 0, evaluated.err
    said = evaluated.json
    assert said.keys() == {"collection", "split", "queries", "default_fusion", "stages", "latency_ms"}
    assert (said["collection"], said["split"], said["queries"]) == (tmp_path.name, "test", 2)
    assert said["default_fusion"] == "convex"
    assert said["stages"].keys() >= {"bm25", "dense", "rrf", "convex"}
    for measures in said["stages"].values():
        assert measures.keys() == {"ndcg@10", "recall@20", "recall@100", "mrr@10", "success@5", "map"}
    assert said["stages"]["convex"]["ndcg@10"] == 1.0
    assert all(latency.keys() == {"p50", "p95"} for latency in said["latency_ms"].values())
    assert {file.name for file in (place / "runs").iterdir()} >= {"report.json", "convex.trec", "bm25.trec"}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.FilterError(""), 2),
        (errors.ModelNotFoundError(""), 2),
        (errors.CollectionMismatchError(""), 2),
        (errors.DocumentError(""), 1),
        (errors.StoreBusyError(""), 3),
        (errors.ModelRuntimeError(""), 3),
        (errors.ProviderTimeoutError(""), 3),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_exit_codes_are_those_drawn_in_the_error_tree(error: errors.RagError, status: int):
    assert _exit_code(error) == status
