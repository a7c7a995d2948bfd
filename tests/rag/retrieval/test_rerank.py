from collections.abc import Sequence

import pytest

from rag.errors import ModelNotFoundError, ModelRuntimeError, ProviderTimeoutError, RagError
from rag.retrieval.fusion import order
from rag.retrieval.rerank import DeferredReranker, Reranking, RerankPolicy, interpolate
from rag.types import Candidate, Passage, Ranking

FUSED = order(
    Candidate(name, f"document of {name}", score) for name, score in zip("abcde", (9, 7, 5, 3, 1), strict=True)
)
PASSAGES = {
    c.passage_id: Passage(
        c.passage_id, "acme", "s", c.document_id, "v", 0, 0, 1, f" Text {c.passage_id}. ", "Title", ("A",)
    )
    for c in FUSED
}


class ScriptedReranker:
    """A `Reranker` with fixed scores, or an error."""

    identity = "scripted"

    def __init__(self, *scores: float, error: RagError | None = None) -> None:
        self.asked: list[tuple[str, list[str], float | None]] = []
        self.closed = False
        self._scores, self._error = scores, error

    async def score(self, query: str, passages: Sequence[str], *, timeout_s: float | None) -> Sequence[float]:
        self.asked.append((query, list(passages), timeout_s))
        if self._error:
            raise self._error
        return self._scores

    async def close(self) -> None:
        self.closed = True


def names(ranking: Ranking) -> str:
    return "".join(candidate.passage_id for candidate in ranking)


@pytest.mark.parametrize(("weight", "expected"), [(0.0, "abcde"), (1.0, "cbade"), (0.5, "abcde")])
def test_the_reranker_has_its_weight_in_the_order_of_what_it_scored(weight, expected):
    # Normalised, the reranker says a=0, b=.5, c=1 and fusion a=1, b=.5, c=0; at one half all are equal, ordered by id.
    ranking = interpolate(FUSED, [-4, 0, 4], weight=weight)
    assert names(ranking) == expected
    assert ranking == order(ranking)


def test_scores_are_the_formula_and_what_was_not_scored_stays_below():
    ranking = interpolate(FUSED, [2.0, 4.0], weight=0.25)
    scores = {c.passage_id: c.score for c in ranking}
    assert (scores["a"], scores["b"]) == pytest.approx((1 + 0.75, 1 + 0.25))
    assert names(ranking) == "abcde"
    assert all(score < 1 for name, score in scores.items() if name in "cde")


def test_without_scores_the_order_stays():
    assert names(interpolate(FUSED, [], weight=0.5)) == "abcde"
    assert interpolate((), [], weight=0.5) == ()


async def test_passages_are_read_with_title_and_headings_within_the_time():
    reranker = ScriptedReranker(1, 2)
    policy = RerankPolicy(rerank_k=2, weight=1, timeout_s=0.5)
    ranking, note = await Reranking(reranker, policy).apply("why?", FUSED, PASSAGES)
    assert reranker.asked == [("why?", ["Title\nA\nText a.", "Title\nA\nText b."], 0.5)]
    assert (names(ranking), note) == ("bacde", "")


async def test_what_was_not_scored_in_time_is_said():
    ranking, note = await Reranking(ScriptedReranker(1, 2), RerankPolicy(rerank_k=4, weight=1)).apply(
        "?", FUSED, PASSAGES
    )
    assert names(ranking) == "bacde"
    assert "2 of 4 candidates were scored within rerank.timeout_s, 1" in note


@pytest.mark.parametrize("error", [ModelRuntimeError("it broke"), ProviderTimeoutError("it is slow")])
async def test_a_reranker_that_fails_costs_its_order_and_not_the_search(error):
    ranking, note = await Reranking(ScriptedReranker(error=error)).apply("?", FUSED, PASSAGES)
    assert ranking == FUSED
    assert str(error) in note


@pytest.mark.parametrize(
    ("mode", "asked", "is_measured_to_help", "depth"),
    [
        ("auto", None, True, 30),
        ("auto", None, False, 0),
        ("auto", "on", False, 30),
        ("auto", "off", True, 0),
        ("on", None, False, 30),
        ("on", "auto", False, 0),
        ("off", None, True, 0),
        ("off", "on", False, 30),
    ],
)
def test_who_asks_decides_before_what_is_configured(mode, asked, is_measured_to_help, depth):
    policy = RerankPolicy(mode=mode, is_measured_to_help=is_measured_to_help, reason="it was measured not to help")
    assert Reranking(ScriptedReranker(), policy).depth(asked) == depth
    assert Reranking(None, policy).depth(asked) == 0


def test_the_reason_is_that_of_the_policy_unless_it_was_switched_off():
    reranking = Reranking(None, RerankPolicy(reason="no cross-encoder is on disk"))
    assert reranking.reason_against(None) == reranking.reason_against("on") == "no cross-encoder is on disk"
    assert "switched off" in reranking.reason_against("off")


async def test_closing_closes_the_reranker():
    reranker = ScriptedReranker()
    await Reranking(reranker).close()
    await Reranking().close()
    assert reranker.closed


async def test_a_deferred_reranker_is_loaded_once_when_it_is_needed():
    loaded = []

    def load() -> ScriptedReranker:
        loaded.append(ScriptedReranker(1, 2))
        return loaded[-1]

    deferred = DeferredReranker(load)
    await deferred.close()
    assert loaded == []
    assert await deferred.score("why?", ["a", "b"], timeout_s=1) == (1, 2)
    assert (deferred.identity, len(loaded)) == ("scripted", 1)
    await deferred.close()
    assert loaded[0].closed


async def test_a_deferred_reranker_that_cannot_be_loaded_costs_its_order_and_not_the_search():
    def load() -> ScriptedReranker:
        raise ModelNotFoundError("config.json is damaged")

    ranking, note = await Reranking(DeferredReranker(load)).apply("?", FUSED, PASSAGES)
    assert ranking == FUSED
    assert "config.json is damaged" in note


async def test_only_a_reranker_that_requests_will_use_is_warmed_up():
    used, unused = ScriptedReranker(1), ScriptedReranker(1)
    await Reranking(used, RerankPolicy(mode="on")).warm_up()
    await Reranking(unused, RerankPolicy(mode="auto")).warm_up()
    assert (len(used.asked), len(unused.asked)) == (1, 0)


async def test_only_passages_that_are_there_are_scored():
    reranker = ScriptedReranker(1, 2)
    there = {name: PASSAGES[name] for name in "ab"}
    ranking, note = await Reranking(reranker, RerankPolicy(rerank_k=4, weight=1)).apply("?", FUSED, there)
    assert (names(ranking), note, len(reranker.asked[0][1])) == ("bacde", "", 2)
