"""Every way to join two legs, scored on every query: pure functions of passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evals.measures import Judgements, Measure, documents_of
from evals.passes import Pass
from rag.retrieval.fusion import FusionMethod, fuse
from rag.retrieval.rerank import interpolate
from rag.types import Ranking

Values: TypeAlias = NDArray[np.float64]
"""A measure, shape (choices, queries)."""

WEIGHTS = tuple(round(0.05 * step, 2) for step in range(21))
RRF_CONSTANTS = (10, 20, 40, 60, 100)
RERANK_WEIGHTS = tuple(round(0.1 * step, 1) for step in range(1, 11))


@dataclass(frozen=True, slots=True)
class FusionChoice:
    """A way to join the legs.

    Attributes:
        weight_dense: Of the dense leg, 0 to 1; the lexical leg has the rest.
        rrf_k: The constant of reciprocal rank fusion; of no effect in another method.
    """

    method: FusionMethod
    weight_dense: float
    rrf_k: int = 60

    def __str__(self) -> str:
        constant = f", rrf_k {self.rrf_k}" if self.method == "rrf" else ""
        return f"{self.method}, weight_dense {self.weight_dense:g}{constant}"


@dataclass(frozen=True, slots=True)
class Grid:
    """Choices in families, within each of which only the weight differs.

    Attributes:
        families: Method and constant; choice number `family * len(WEIGHTS) + step` is the family with that weight.
        default: Number of the choice that is kept where no other is better; it may lie beside the grid, after its end.
    """

    families: tuple[tuple[FusionMethod, int], ...]
    choices: tuple[FusionChoice, ...]
    default: int

    def neighbours(self) -> list[list[int]]:
        """For each choice, its own number and those of the next weights up and down."""
        own = len(self.families) * len(WEIGHTS)
        return [
            [near for near in (number - 1, number, number + 1) if 0 <= near < own and _family(near) == _family(number)]
            for number in range(own)
        ] + [[number] for number in range(own, len(self.choices))]

    def distances(self) -> Values:
        """How far each choice is from the default, another method being farther than any weight."""
        default = self.choices[self.default]
        return np.array(
            [
                abs(choice.weight_dense - default.weight_dense)
                + 2 * (choice.method != default.method)
                + (choice.method == "rrf" and choice.rrf_k != default.rrf_k)
                for choice in self.choices
            ]
        )


def fusion_grid(default: FusionChoice) -> Grid:
    """All methods with all weights, reciprocal ranks with all constants, and the default if it is none of these."""
    families: list[tuple[FusionMethod, int]] = [("convex", 60), ("dbsf", 60), *(("rrf", k) for k in RRF_CONSTANTS)]
    choices = [FusionChoice(method, weight, k) for method, k in families for weight in WEIGHTS]
    if default.method != "rrf":
        default = FusionChoice(default.method, default.weight_dense)
    if default not in choices:
        choices.append(default)
    return Grid(tuple(families), tuple(choices), choices.index(default))


def fusion_values(grid: Grid, passes: Sequence[Pass], judgements: Sequence[Judgements], measure: Measure) -> Values:
    """The measure of every choice on every query."""
    columns = [_of_query(grid, each, judged, measure) for each, judged in zip(passes, judgements, strict=True)]
    return np.array(columns, dtype=np.float64).T


def fused(each: Pass, choice: FusionChoice) -> Ranking:
    """The legs of a pass as one ranking."""
    return fuse(
        each.legs,
        choice.method,
        weight_dense=choice.weight_dense,
        rrf_k=choice.rrf_k,
        completed=each.completed or None,
    )


def ranking_value(ranking: Ranking, judged: Judgements, measure: Measure) -> float:
    """The measure of one ranking of passages as it is served; a document stands where its best passage does."""
    return measure(list(documents_of(ranking)), judged)


def rerank_values(ranking: Ranking, scores: Sequence[float], judged: Judgements, measure: Measure) -> list[float]:
    """The measure of a fused ranking under each of `RERANK_WEIGHTS`.

    Args:
        scores: Of the first candidates of `ranking`, in order.
    """
    return [ranking_value(interpolate(ranking, scores, weight=weight), judged, measure) for weight in RERANK_WEIGHTS]


def _of_query(grid: Grid, each: Pass, judged: Judgements, measure: Measure) -> list[float]:
    values = [
        value for method, constant in grid.families for value in _of_family(each, method, constant, judged, measure)
    ]
    beside = grid.choices[len(values) :]
    return values + [ranking_value(fused(each, choice), judged, measure) for choice in beside]


def _of_family(each: Pass, method: FusionMethod, constant: int, judged: Judgements, measure: Measure) -> list[float]:
    """One value per weight."""
    document_of = {candidate.passage_id: candidate.document_id for leg in each.legs.values() for candidate in leg}
    if not document_of:
        return [measure([], judged)] * len(WEIGHTS)
    # In order of id, so that a stable sort breaks ties as `fuse` does.
    passages = sorted(document_of)
    documents = [document_of[passage] for passage in passages]
    order = np.argsort(-_scores(each, method, constant, passages), axis=1, kind="stable")
    return [measure(list(dict.fromkeys(documents[place] for place in row)), judged) for row in order.tolist()]


def _scores(each: Pass, method: FusionMethod, constant: int, passages: Sequence[str]) -> Values:
    """The fused scores under every weight, shape (weights, passages), to the last bit those of `fuse`.

    Every method adds up what the legs give, each times its weight; so two fusions, with all weight on one leg, tell the
    scores under any. Only reciprocal ranks divide the weight, and would be rounded otherwise: then equal ones would no
    longer tie.
    """
    weights = np.array(WEIGHTS)[:, None]
    if method == "rrf":
        ranks = {leg: {c.passage_id: rank for rank, c in enumerate(of, 1)} for leg, of in each.legs.items()}
        lexical, dense = (
            constant + np.array([ranks.get(leg, {}).get(passage, np.inf) for passage in passages])
            for leg in ("bm25", "dense")
        )
        if len(each.legs) == 1:  # it has all the weight
            weights = np.full_like(weights, "dense" in each.legs)
        return np.asarray((1 - weights) / lexical + weights / dense)
    shares = []
    for weight_dense in (0.0, 1.0):
        ranking = fused(each, FusionChoice(method, weight_dense, constant))
        share = {candidate.passage_id: candidate.score for candidate in ranking}
        shares.append(np.array([share[passage] for passage in passages]))
    return np.asarray((1 - weights) * shares[0] + weights * shares[1])


def _family(number: int) -> int:
    return number // len(WEIGHTS)
