import json
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from evals.cli import app
from evals.compression import (
    CompressionEvaluation,
    Evidence,
    dataset_of_spans,
    evaluate_compression,
    fewer_passages,
    shown_evidence,
)
from evals.compression_report import as_json, render, report_of
from evals.datasets import load_dataset
from evals.gold import ingested_texts, read_gold
from evals.index import open_indexed
from evals.significance import bootstrap_interval
from evals.spans import SpanQuestion, SpanSet
from rag.configuration import load_settings
from rag.context.compression import Compression, CompressionPolicy
from rag.errors import UsageError
from rag.tokens import count_tokens
from rag.types import Document, Source
from tests.evals.conftest import ANIMALS


def source(text: str, *, document_id: str = "d", start: int = 0, kept: tuple[tuple[int, int], ...] = ()) -> Source:
    return Source(1, document_id, "v", "T", (), start, start + len(text), text, 1.0, ("p",), kept=kept)


def evidence(start: int, end: int, *, document_id: str = "d") -> Evidence:
    return Evidence(document_id, tuple(range(start, end)))


class FirstSentence:
    """Keeps the first sentence of every source, whatever it is asked for."""

    name = "first"

    def __init__(self) -> None:
        self.targets: list[int] = []

    async def compress(self, question: str, sources: Sequence[Source], *, target_tokens: int) -> Sequence[Source]:
        self.targets.append(target_tokens)
        return [replace(s, kept=((s.start, s.start + s.text.index(".") + 1),), gap=" ") for s in sources]

    async def close(self) -> None:
        pass


@pytest.fixture
def labelled(zoo: Path) -> Path:
    """The zoo with gold sentences: the first of a document answers, and for the whale the last, too."""
    lines = (zoo / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line) for line in lines]
    for document in documents:
        document["metadata"] = {"sentences": [document["text"], "It sleeps."]}
        document["text"] += " It sleeps."
    queries = [json.loads(line) for line in (zoo / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    for query, animal in zip(queries, ANIMALS, strict=True):
        facts = [[animal, 0], [animal, 1]] if animal == "whale" else [[animal, 0]]
        query["metadata"] = {"supporting_facts": facts}
    queries[-1]["metadata"]["supporting_facts"] = [["ibex", 7]]
    (zoo / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    (zoo / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), encoding="utf-8")
    return zoo


async def evaluated(folder: Path, compressor: FirstSentence, **options) -> CompressionEvaluation:
    settings, dataset = load_settings(), load_dataset(folder)
    async with open_indexed(settings, dataset, corpus=None) as (pipeline, _):
        # The pipeline's own compression must not be measured upon.
        configured = replace(pipeline, compression=Compression(FirstSentence(), CompressionPolicy(mode="on")))
        return await evaluate_compression(
            configured,
            dataset,
            {"first": compressor},
            tenant=settings.data.tenant,
            texts=ingested_texts(settings, dataset, None),
            **options,
        )


async def test_the_evidence_of_the_whole_context_is_what_counts(labelled, in_zoo):
    calls = []
    evaluation = await evaluated(
        labelled, FirstSentence(), rates=(0.4, 0.5), on_query=lambda done, total: calls.append((done, total))
    )
    assert (evaluation.questions, evaluation.gold, evaluation.unlocated) == (12, 12, 1)
    assert len(evaluation.contexts) == 11  # the ibex has no evidence
    assert [result.rate for result in evaluation.results] == [0.4, 0.5]
    assert calls == [(done, 22) for done in range(1, 23)]
    recalls = {score.query_id: score.recall for score in evaluation.results[0].scores}
    assert recalls.pop("q-whale") == 0.5
    assert set(recalls.values()) == {1.0}


async def test_fewer_passages_have_as_many_tokens_as_the_compressor_shows(labelled, in_zoo):
    compressor = FirstSentence()
    evaluation = await evaluated(labelled, compressor, rates=(0.4,))
    for score, context in zip(evaluation.results[0].scores, evaluation.contexts, strict=True):
        assert score.tokens == sum(count_tokens(each.text[: each.text.index(".") + 1]) for each in context.sources)
        fewer = fewer_passages(context.sources, score.tokens)
        assert sum(count_tokens(each.shown) for each in fewer) == score.tokens
        assert score.fewer_kept == len(shown_evidence(fewer, context.evidence))
        assert not any(each.kept for each in context.sources)
    # The first call is not timed.
    assert compressor.targets[0] == compressor.targets[1] == round(0.4 * evaluation.contexts[0].tokens)
    assert len(compressor.targets) == 12


async def test_the_report_compares_by_question(labelled, in_zoo):
    evaluation = await evaluated(labelled, FirstSentence(), rates=(0.5,))
    report = report_of(evaluation)
    (row,) = report.rows
    recalls, fewer = ([getattr(s, name) for s in evaluation.results[0].scores] for name in ("recall", "fewer_recall"))
    assert row.recall == pytest.approx(sum(recalls) / 11)
    assert row.gain.mean == pytest.approx(sum(recalls) / 11 - sum(fewer) / 11)
    assert row.gain.interval == bootstrap_interval(fewer, recalls)
    shown = [score.tokens for score in evaluation.results[0].scores]
    assert row.evidence_per_1000_tokens == pytest.approx(1000 * 11 / sum(shown))
    assert report.evidence_per_1000_tokens == pytest.approx(1000 * 12 / sum(c.tokens for c in evaluation.contexts))
    assert row.tokens_out < row.tokens_in == report.tokens
    record = as_json(report)
    assert record["methods"][0]["fewer_passages"]["difference"] == round(row.gain.mean, 4)
    console = Console(width=120, record=True, file=StringIO())
    render(report, console)
    assert f"{row.recall:.3f}" in console.export_text()


async def test_a_dataset_without_evidence_is_refused(zoo, in_zoo):
    with pytest.raises(UsageError, match="zoo names no evidence; its queries need answers with offsets"):
        await evaluated(zoo, FirstSentence())


@pytest.mark.parametrize("rate", [0, 1, 1.5, -0.1])
async def test_a_rate_that_keeps_all_or_nothing_is_refused(labelled, in_zoo, rate):
    with pytest.raises(UsageError, match="is not between 0 and 1"):
        await evaluated(labelled, FirstSentence(), rates=(rate,))


def test_evidence_is_shown_from_95_percent_of_its_characters_on():
    text = "x" * 200
    assert shown_evidence([source(text, kept=((0, 95),))], [evidence(0, 100)])
    assert not shown_evidence([source(text, kept=((0, 94),))], [evidence(0, 100)])
    assert shown_evidence([source(text, kept=((0, 40), (45, 100)))], [evidence(0, 100)])
    assert not shown_evidence([source(text, kept=((0, 40), (46, 100)))], [evidence(0, 100)])


def test_evidence_may_be_shown_by_two_sources_of_its_document_and_by_no_other():
    sources = [source("x" * 60), source("x" * 60, start=50), source("x" * 300, document_id="e")]
    assert shown_evidence(sources, [evidence(10, 110)])
    assert not shown_evidence(sources, [evidence(10, 160)])
    assert not shown_evidence([sources[0], sources[0]], [evidence(0, 120)])  # a character counts once
    assert shown_evidence(sources, [evidence(200, 210), evidence(200, 210, document_id="e")]) == (
        evidence(200, 210, document_id="e"),
    )


@pytest.mark.parametrize(
    ("tokens", "shown"),
    [(0, []), (2, ["One two"]), (4, ["One two three."]), (6, ["One two three.", "Four five"])],
)
def test_fewer_passages_are_the_first_with_the_last_cut_off(tokens, shown):
    sources = [source("One two three."), source("Four five six.", document_id="e", start=30)]
    assert [each.shown for each in fewer_passages(sources, tokens)] == shown


def test_gold_spans_become_a_dataset():
    document = Document("doc", "v", "set", "Doc", "The moon. The sun. The sea.")
    span_set = SpanSet("set", (document,), (SpanQuestion("q", "What?", "doc", ((10, 18), (0, 9))),))
    dataset = dataset_of_spans(span_set)
    gold = read_gold(dataset, {"doc": document.text})["q"]
    assert gold.spans == (("doc", 10, 18), ("doc", 0, 9))
    assert dataset.qrels == {"q": {"doc": 1}}


def test_the_command_prints_one_object(labelled, in_zoo):
    result = CliRunner().invoke(app, ["compression", str(labelled), "--rate", "0.5", "--json"])
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    (method,) = record["methods"]
    assert (record["collection"], method["method"], method["rate"]) == ("zoo", "extractive", 0.5)
    assert method["recall"] == 1
    assert record["retrieved"] == record["gold"] == 12
    assert method["tokens_out"] <= 0.5 * method["tokens_in"]
    assert "1 pieces of evidence are not in the documents" in result.stderr


def test_the_command_takes_gold_spans_too(tmp_path, in_zoo):
    folder = tmp_path / "spans"
    (folder / "docs").mkdir(parents=True)
    texts = {animal: f"The {animal} eats weed. Nobody knows why. It sleeps at night." for animal in ANIMALS}
    for animal, text in texts.items():
        (folder / "docs" / f"{animal}.txt").write_text(text, encoding="utf-8")
    questions = [
        {"_id": animal, "text": f"What does the {animal} eat?", "doc": animal, "spans": [{"start": 0, "end": 15}]}
        for animal in ANIMALS
    ]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)), encoding="utf-8")
    result = CliRunner().invoke(app, ["compression", str(folder), "--rate", "0.5"])
    assert result.exit_code == 0, result.stderr
    assert "12 of 12 questions have evidence" in result.stdout


@pytest.mark.parametrize(
    ("method", "message"),
    [("none", "compresses nothing; name another"), ("sorcery", "there is no compression method sorcery")],
)
def test_a_method_that_cannot_be_measured_is_refused(labelled, in_zoo, method, message):
    result = CliRunner().invoke(app, ["compression", str(labelled), "--method", method])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
