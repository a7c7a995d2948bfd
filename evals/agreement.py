"""How far a judge agrees with people, and what its verdicts say once that is known. Pure functions of verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evals.answer_measures import Estimate
from evals.significance import Interval
from rag.errors import UsageError

_Z = 1.959963984540054
"""Of the normal distribution at 97.5 %."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge's verdicts (pass or not) against people's on the same answers.

    Attributes:
        both_pass: And so on: the confusion matrix, the judge named first.
        agreement: Share of equal verdicts.
        kappa: Cohen's kappa, agreement beyond chance; None where either of them gave one verdict only.
        bias: The judge's pass rate minus people's.
    """

    both_pass: int
    judge_only: int
    person_only: int
    neither: int
    agreement: float
    kappa: float | None
    bias: float

    @property
    def labels(self) -> int:
        """How many answers both judged."""
        return self.both_pass + self.judge_only + self.person_only + self.neither


def agreement(judge: Sequence[bool], person: Sequence[bool]) -> Agreement:
    """Confusion, agreement and Cohen's kappa (1960): (observed - expected) / (1 - expected).

    Expected is the agreement of two raters with these pass rates who rate independently.

    Raises:
        UsageError: There are no verdicts, or not as many of one as of the other.
    """
    if not judge or len(judge) != len(person):
        raise UsageError(
            f"{len(judge)} verdicts of the judge and {len(person)} of people; give both on the same answers"
        )
    pairs = list(zip(judge, person, strict=True))
    both, judge_only = pairs.count((True, True)), pairs.count((True, False))
    person_only, neither = pairs.count((False, True)), pairs.count((False, False))
    total = len(pairs)
    observed = (both + neither) / total
    judge_rate, person_rate = (both + judge_only) / total, (both + person_only) / total
    expected = judge_rate * person_rate + (1 - judge_rate) * (1 - person_rate)
    constant = judge_rate in (0, 1) or person_rate in (0, 1)
    kappa = None if constant else (observed - expected) / (1 - expected)
    return Agreement(both, judge_only, person_only, neither, observed, kappa, bias=judge_rate - person_rate)


def prediction_powered(
    labelled_judge: Sequence[float], labelled_person: Sequence[float], rest: Sequence[float]
) -> Estimate:
    """The mean that people would give to all answers, from few labels and many verdicts of a judge.

    Prediction-powered inference (Angelopoulos et al., Science 2023) with the power tuning of PPI++ (Angelopoulos, Duchi
    and Zrnic 2023, https://arxiv.org/abs/2311.01453): the judge's mean over the rest, corrected by its mean error on
    the labelled answers, and weighted by how well it predicts the labels. A useless judge has weight 0, which leaves
    the mean of the labels. The interval is the normal one, 95 %, cut to 0..1; with less than about 30 labels it is too
    narrow. The labelled answers must be a random sample.

    Args:
        labelled_judge: The judge's values on the labelled answers, each from 0 to 1.
        labelled_person: People's on the same.
        rest: The judge's on all other answers; may be empty.

    Raises:
        UsageError: There are fewer than two labels, or not as many values of one as of the other.
    """
    if len(labelled_judge) != len(labelled_person) or len(labelled_person) < 2:
        raise UsageError(f"{len(labelled_person)} labels; at least two are needed to correct a judge by")
    predicted, truth, others = (np.asarray(v, dtype=np.float64) for v in (labelled_judge, labelled_person, rest))
    weight = _power(predicted, truth, others)
    errors = truth - weight * predicted
    value = float(errors.mean()) + (weight * float(others.mean()) if weight else 0.0)
    variance = float(errors.var(ddof=1)) / len(truth)
    if weight and len(others) > 1:
        variance += weight**2 * float(others.var(ddof=1)) / len(others)
    half = _Z * math.sqrt(variance)
    return Estimate(min(1.0, max(0.0, value)), Interval(max(0.0, value - half), min(1.0, value + half)))


def _power(predicted: NDArray[np.float64], truth: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """The weight of the judge, 0 to 1, that makes the variance smallest (PPI++, example 6.1)."""
    if not len(others):
        return 0.0
    spread = float(np.concatenate([predicted, others]).var(ddof=1))
    if spread == 0:
        return 0.0
    covariance = float(np.cov(truth, predicted, ddof=1)[0, 1])
    return min(1.0, max(0.0, covariance / ((1 + len(truth) / len(others)) * spread)))
