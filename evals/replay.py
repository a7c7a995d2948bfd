"""Asks logged questions again and says what became different since."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias

from pydantic import BaseModel, ConfigDict, ValidationError

from evals.answer_measures import Estimate, mean_estimate
from evals.query_log import LoggedRequest, is_query_log, read_query_log
from evals.rank_overlap import kendall_tau, overlap, rank_biased_overlap
from evals.trec import numbered_lines
from rag.errors import UsageError
from rag.types import Candidate, Ranking

_QUESTION_KEYS = ("question", "query", "text")
_FILE = "replay.jsonl"


class ReplayedCandidate(BaseModel):
    """A passage at its rank; its text where it is known."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    passage_id: str
    document_id: str
    score: float
    text: str | None = None


class ReplayedQuery(BaseModel):
    """What one question found at one time.

    Attributes:
        filter: In JSON.
        k: Of the request that was logged; None where it is not known or there was none.
        kept: How many candidates were kept at most; None where it is not known.
        answer: None where it was not asked for.
        failure: Why nothing was found; None where the search ran.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    question: str
    filter: dict[str, object] | None = None
    k: int | None = None
    kept: int | None = None
    candidates: tuple[ReplayedCandidate, ...] = ()
    answer: str | None = None
    abstained: bool | None = None
    failure: str | None = None

    @property
    def key(self) -> str:
        """What is asked: the same question with another filter is another."""
        return json.dumps([self.question, self.filter], sort_keys=True)

    def documents(self) -> list[str]:
        """In the order of their best passages."""
        return list(dict.fromkeys(candidate.document_id for candidate in self.candidates))

    def depth(self, k: int) -> int:
        """How many documents of at most `k` can be compared: what stood below the kept candidates is not known."""
        is_whole = not self.candidates or (self.kept is not None and len(self.candidates) < self.kept)
        return k if is_whole else min(k, len(self.documents()))


Asker: TypeAlias = Callable[[ReplayedQuery], Awaitable[ReplayedQuery]]
"""Asks the question of a query again; a question that cannot be asked comes back with its `failure`."""


@dataclass(frozen=True, slots=True)
class QueryChange:
    """One question before and now.

    Attributes:
        depth: How many documents were compared at most: k, or fewer where a log does not hold as many.
        overlap: Of the documents among the first `depth`, see `rank_overlap.overlap`.
        rbo: Rank-biased overlap of the documents.
        tau: Of the documents found both times; None with fewer than two.
        new: Documents among the first `depth` now and not before, best first.
        lost: The other way round.
        is_top_changed: Whether another document comes first.
        answer_change: `abstains now`, `answers now` or `other words`; None where the answer is the same or was not
            asked for both times.
    """

    before: ReplayedQuery
    now: ReplayedQuery
    depth: int
    overlap: float
    rbo: float
    tau: float | None
    new: tuple[str, ...]
    lost: tuple[str, ...]
    is_top_changed: bool
    answer_change: str | None


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What changed over all questions.

    Attributes:
        questions: That were asked now.
        compared: That were also asked before.
        failures: Question -> why it could not be asked.
        k: How many documents were compared at most, see `QueryChange.depth`.
        same: Share of the compared questions whose compared documents are the same in the same order.
        changes: Those of the other questions, and those whose answer changed; the largest change of ranking first.
    """

    questions: int
    compared: int
    k: int
    failures: Mapping[str, str]
    overlap: Estimate | None
    rbo: Estimate | None
    tau: Estimate | None
    same: Estimate | None
    top_changed: Estimate | None
    answers_compared: int
    answers_changed: Mapping[str, int]
    changes: tuple[QueryChange, ...]


def read_questions(path: Path) -> list[ReplayedQuery]:
    """The questions of a query log with what they found then, or those of a file that holds nothing else.

    Such a file has one question per line, or JSON lines with `question`, `query` or `text`. A question that was asked
    often is asked once, and compared with its latest result.

    Raises:
        UsageError: The file cannot be read, holds no question, or a line of JSON has none.
    """
    if is_query_log(path):
        found = [_from_log(request) for request in read_query_log(path).requests]
    else:
        found = [_from_line(line, f"{path}, line {number}") for number, line in numbered_lines(path)]
    if not found:
        raise UsageError(f"{path} holds no question")
    return list({query.key: query for query in found}.values())


def read_replay(folder: Path) -> list[ReplayedQuery]:
    """What an earlier replay found.

    Raises:
        UsageError: The folder holds no replay, or a damaged one.
    """
    path = folder / _FILE
    try:
        return [ReplayedQuery.model_validate_json(line) for _, line in numbered_lines(path)]
    except ValidationError as error:
        raise UsageError(
            f"{path} is no replay of this release ({error.error_count()} problems); write it anew"
        ) from error


def best_of_documents(ranking: Ranking, *, k: int) -> Ranking:
    """Of a ranking of passages the best passage of each of the first `k` documents."""
    best: dict[str, Candidate] = {}
    for candidate in ranking:
        best.setdefault(candidate.document_id, candidate)
    return tuple(best.values())[:k]


def write_replay(folder: Path, queries: Sequence[ReplayedQuery]) -> None:
    """Keep a replay, to compare a later one with."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(query.model_dump(mode="json")) + "\n" for query in queries]
    (folder / _FILE).write_text("".join(lines), encoding="ascii")


async def replay(
    questions: Sequence[ReplayedQuery], ask: Asker, *, on_query: Callable[[int, int], None] | None = None
) -> list[ReplayedQuery]:
    """Asks every question again, one after another."""
    found = []
    for done, question in enumerate(questions, 1):
        found.append(await ask(question))
        if on_query is not None:
            on_query(done, len(questions))
    return found


def compare_replays(before: Sequence[ReplayedQuery], now: Sequence[ReplayedQuery], *, k: int) -> ReplayReport:
    """What changed in the first `k` documents, and in the answers, of the questions asked both times."""
    earlier = {query.key: query for query in before if query.failure is None}
    changes = [_change(earlier[query.key], query, k) for query in now if query.failure is None and query.key in earlier]
    changed = [change for change in changes if not _is_same(change) or change.answer_change]
    answered = [change for change in changes if change.before.answer is not None and change.now.answer is not None]
    kinds = [change.answer_change for change in answered if change.answer_change]
    return ReplayReport(
        questions=len(now),
        compared=len(changes),
        k=k,
        failures={query.question: query.failure for query in now if query.failure is not None},
        overlap=mean_estimate([change.overlap for change in changes]),
        rbo=mean_estimate([change.rbo for change in changes]),
        tau=mean_estimate([change.tau for change in changes if change.tau is not None]),
        same=mean_estimate([float(_is_same(change)) for change in changes]),
        top_changed=mean_estimate([float(change.is_top_changed) for change in changes]),
        answers_compared=len(answered),
        answers_changed={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        changes=tuple(sorted(changed, key=lambda change: change.rbo)),
    )


def _change(before: ReplayedQuery, now: ReplayedQuery, k: int) -> QueryChange:
    depth = min(before.depth(k), now.depth(k))
    first, second = before.documents()[:depth], now.documents()[:depth]
    return QueryChange(
        before=before,
        now=now,
        depth=depth,
        overlap=overlap(first, second, depth),
        rbo=rank_biased_overlap(first, second),
        tau=kendall_tau(first, second),
        new=tuple(document for document in second if document not in first),
        lost=tuple(document for document in first if document not in second),
        is_top_changed=first[:1] != second[:1],
        answer_change=_answer_change(before, now),
    )


def _is_same(change: QueryChange) -> bool:
    return change.before.documents()[: change.depth] == change.now.documents()[: change.depth]


def _answer_change(before: ReplayedQuery, now: ReplayedQuery) -> str | None:
    if before.answer is None or now.answer is None:
        return None
    if before.abstained != now.abstained:
        return "abstains now" if now.abstained else "answers now"
    return None if before.answer.split() == now.answer.split() else "other words"


def _from_log(request: LoggedRequest) -> ReplayedQuery:
    text_of = {passage: source.shown for source in request.sources for passage in source.passage_ids}
    return ReplayedQuery(
        question=request.question,
        filter=request.filter,
        k=request.k,
        kept=request.k,
        candidates=tuple(
            ReplayedCandidate(**candidate.model_dump(), text=text_of.get(candidate.passage_id))
            for candidate in request.candidates
        ),
        answer=request.answer,
        abstained=request.abstained,
    )


def _from_line(line: str, where: str) -> ReplayedQuery:
    if not line.lstrip().startswith("{"):
        return ReplayedQuery(question=line.strip())
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON: {error.msg} at character {error.colno}") from error
    for key in _QUESTION_KEYS:
        if isinstance(record.get(key), str) and record[key].strip():
            own = record.get("filter")
            return ReplayedQuery(question=record[key].strip(), filter=own if isinstance(own, dict) else None)
    raise UsageError(f"{where}: none of {', '.join(_QUESTION_KEYS)} is a text; name the question so")
