"""Measures of an answer that need no model: pure functions of texts, spans and counts."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evals.significance import Interval, bootstrap_interval

DocumentSpan: TypeAlias = tuple[str, int, int]
"""Document id, start and end (exclusive) of a span of its text."""

_Counts: TypeAlias = NDArray[np.float64]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_EAST_ASIAN = r"⺀-\u2fff\u3001-鿿가-힯豈-﫿"
_SPACE_BESIDE_EAST_ASIAN = re.compile(rf"(?<=[{_EAST_ASIAN}]) | (?=[{_EAST_ASIAN}])")
_WORD_CHARACTER = rf"[^\W{_EAST_ASIAN}]"
_HITS_AT = 0.5
"""Share of a gold unit's characters that must be covered for it to count as found."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class SpanShares:
    """How cited spans and gold spans overlap, by characters, each character counted once.

    Attributes:
        recall: Share of the gold characters that are cited.
        precision: Share of the cited characters that are gold; 0 where nothing is cited.
        units: Share of the gold units of which at least half is cited.
        hits: Share of the cited spans that overlap gold; 0 where nothing is cited.
    """

    recall: float
    precision: float
    units: float
    hits: float


def normalise(text: str) -> str:
    """Lower case, without punctuation and English articles, words joined by one space, East Asian characters by none.

    The normalisation of SQuAD's evaluation script (Rajpurkar et al. 2016), with two additions: punctuation is that of
    Unicode, not of ASCII alone, and compatibility forms (full-width digits) are folded.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = "".join("" if _is_punctuation(character) else character for character in text)
    return _SPACE_BESIDE_EAST_ASIAN.sub("", " ".join(_ARTICLES.sub(" ", text).split()))


def contains_answer(text: str, gold: Sequence[str]) -> bool:
    """Whether any gold answer stands in `text`, both normalised, at word boundaries where the answer has them."""
    haystack = normalise(text)
    return any(_holds(haystack, normalise(answer)) for answer in gold)


def score_citations(cited: Sequence[DocumentSpan], gold: Sequence[DocumentSpan]) -> SpanShares:
    """The overlap of cited with gold spans; there is at least one gold span."""
    covered = merge(cited)
    overlaps = [_covered(span, covered) for span in gold]
    merged_gold = merge(gold)
    common = sum(_covered(span, covered) for span in merged_gold)
    total_cited, total_gold = _length(covered), _length(merged_gold)
    found = sum(overlap >= _HITS_AT * (end - start) for overlap, (_, start, end) in zip(overlaps, gold, strict=True))
    hits = sum(_covered(span, merged_gold) > 0 for span in cited)
    return SpanShares(
        recall=common / total_gold,
        precision=common / total_cited if total_cited else 0.0,
        units=found / len(gold),
        hits=hits / len(cited) if cited else 0.0,
    )


def merge(spans: Sequence[DocumentSpan]) -> list[DocumentSpan]:
    """The same characters in spans that do not overlap, by document and start."""
    merged: list[DocumentSpan] = []
    for document, start, end in sorted(spans):
        if merged and merged[-1][0] == document and start <= merged[-1][2]:
            merged[-1] = (document, merged[-1][1], max(end, merged[-1][2]))
        else:
            merged.append((document, start, end))
    return merged


def mean_estimate(values: Sequence[float]) -> Estimate | None:
    """The mean of one value per question, questions drawn with replacement; None without values."""
    if not values:
        return None
    return Estimate(float(np.mean(values)), bootstrap_interval([0.0] * len(values), values))


@dataclass(frozen=True, slots=True)
class Detection:
    """How well "is flagged" tells the positive questions from the others.

    Attributes:
        precision: None where nothing is flagged.
        f1: 2 TP / (2 TP + FP + FN).
        constant_f1: F1 of flagging every question: what a detector has to beat.
        gain: `f1` minus `constant_f1`.
    """

    precision: Estimate | None
    recall: Estimate
    f1: Estimate
    constant_f1: float
    gain: Estimate


def detection(
    *, flagged_positives: int, positives: int, flagged_negatives: int, negatives: int, seed: int = 0
) -> Detection | None:
    """Precision, recall and F1 with bootstrap intervals; None where there are no positives.

    Questions are drawn with replacement within positives and within negatives, since a set fixes how many of each it
    has. That leaves the F1 of the constant answer as it is, so that intervals compare with it.
    """
    if not positives:
        return None
    random = np.random.default_rng(seed)
    hits = _drawn(random, flagged_positives, positives)
    alarms = _drawn(random, flagged_negatives, negatives)

    def estimate(statistic: Callable[[_Counts, _Counts], _Counts]) -> Estimate:
        value = statistic(np.array([float(flagged_positives)]), np.array([float(flagged_negatives)]))[0]
        return Estimate(float(value), _interval(statistic(hits, alarms)))

    def f1(true: _Counts, false: _Counts) -> _Counts:
        return 2 * true / (true + false + positives)

    constant = 2 * positives / (2 * positives + negatives)
    return Detection(
        precision=estimate(_precision) if flagged_positives + flagged_negatives else None,
        recall=estimate(lambda true, _: true / positives),
        f1=estimate(f1),
        constant_f1=constant,
        gain=estimate(lambda true, false: f1(true, false) - constant),
    )


def _precision(true: _Counts, false: _Counts) -> _Counts:
    flagged = true + false
    return np.divide(true, flagged, out=np.zeros_like(true), where=flagged > 0)


def _drawn(random: np.random.Generator, flagged: int, total: int, resamples: int = 10_000) -> _Counts:
    """How many are flagged in each resample: drawing `total` of them with replacement is a binomial draw."""
    if not total:
        return np.zeros(resamples)
    return random.binomial(total, flagged / total, size=resamples).astype(np.float64)


def _interval(values: _Counts) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(low), float(high))


def _is_punctuation(character: str) -> bool:
    return character in string.punctuation or unicodedata.category(character).startswith("P")


def _holds(haystack: str, needle: str) -> bool:
    if not needle:
        return False
    # A number must not be found inside a longer one, nor a name inside a word; East Asian text has no such boundaries.
    left = rf"(?<!{_WORD_CHARACTER})" if re.match(_WORD_CHARACTER, needle) else ""
    right = rf"(?!{_WORD_CHARACTER})" if re.match(_WORD_CHARACTER, needle[-1]) else ""
    return re.search(left + re.escape(needle) + right, haystack) is not None


def _covered(span: DocumentSpan, merged: Sequence[DocumentSpan]) -> int:
    document, start, end = span
    return sum(max(0, min(end, b) - max(start, a)) for name, a, b in merged if name == document)


def _length(merged: Sequence[DocumentSpan]) -> int:
    return sum(end - start for _, start, end in merged)
