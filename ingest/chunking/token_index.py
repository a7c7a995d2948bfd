"""The tokens of one text by offset: how many a span holds, and where one that holds too many is cut."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from itertools import chain, pairwise

from rag.tokens import token_spans

_LONGEST_WORD = 40
"""Characters. What is longer is data such as base64, and counts as several tokens so that it is cut."""

_HANGUL = r"\u1100-\u11ff\ua960-\ua97c\uac00-\ud7fb"
_INSEPARABLE = re.compile(
    "(?s)"
    r"\S\u200d|\u200d[^\w\s]"  # the zero-width joiner, also between emoji
    r"|\S[\u200c\u0e33\u0eb3]"  # the non-joiner, and the vowel am of Thai and Lao: not marks, yet used as such
    r"|\S[\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]"  # the colours of skin, and tags
    # Signs that enclose or precede the character after them.
    r"|[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\u0d4e\u1cf5\u1cf6\U000110bd\U000110cd\U000111c2\U000111c3]\S"
    rf"|[\u1100-\u115f\ua960-\ua97c][{_HANGUL}]|[{_HANGUL}][\u1160-\u11ff\ud7b0-\ud7fb]"  # parts of a syllable
    r"|[\ud800-\udbff][\udc00-\udfff]"  # a surrogate pair
)
"""Two characters that are seen as one."""

_VIRAMA = 9
"""Canonical combining class of the signs that join two consonants to one letter in the scripts of India."""


class TokenIndex:
    """The tokens of `text`.

    Counts equal those of `rag.tokens.count_tokens`, except that a word of more than 40 characters
    counts as several.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: list[int] = []
        self._ends: list[int] = []
        for start, end in token_spans(text):
            for part in range(start, end, _LONGEST_WORD):
                self._starts.append(part)
                self._ends.append(min(part + _LONGEST_WORD, end))

    def __len__(self) -> int:
        return len(self._starts)

    def start_of(self, index: int) -> int:
        """Where a token begins; the end of the text for the index after the last."""
        return self._starts[index] if index < len(self._starts) else len(self._text)

    def count(self, start: int, end: int) -> int:
        """How many tokens lie in the span, wholly or in part."""
        return bisect_left(self._starts, end) - bisect_right(self._ends, start)

    def cut(self, start: int, end: int, max_tokens: int) -> list[tuple[int, int]]:
        """The span in as few pieces of at most `max_tokens` tokens as possible, of about the same size.

        Pieces end at token boundaries, near the even division where white space is, and do not divide what
        readers see as one character unless it alone is longer than `max_tokens`. No piece has white space at
        its ends; together they hold every other character.
        """
        position = bisect_right(self._ends, start)
        last = bisect_left(self._starts, end)
        offsets = [start]
        while last - position > max_tokens:
            pieces = -(-(last - position) // max_tokens)
            target = position - (-(last - position) // pieces)
            # Between these two the rest still fits into the other pieces.
            earliest = max(position + 1, last - (pieces - 1) * max_tokens)
            position = self._best_cut(position, earliest, target, min(position + max_tokens, last - 1))
            offsets.append(self._starts[position])
        offsets.append(end)
        spans = []
        for first, following in pairwise(offsets):
            piece = self._text[first:following]
            if piece.strip():
                spans.append((following - len(piece.lstrip()), first + len(piece.rstrip())))
        return spans

    def tail(self, start: int, end: int, max_tokens: int) -> int:
        """Where the last `max_tokens` tokens of the span begin, or somewhat fewer to begin after white space.

        `end` where there is no such place.
        """
        last = bisect_left(self._starts, end)
        first = max(last - max_tokens, bisect_right(self._ends, start) + 1)
        candidates = range(first, last)
        best = chain(filter(self._follows_space, candidates), filter(self.divides_nothing, candidates))
        position = next(best, None)
        return end if position is None else self._starts[position]

    def _best_cut(self, position: int, earliest: int, target: int, latest: int) -> int:
        """The index of the token that begins the next piece."""
        by_distance = sorted(range(earliest, latest + 1), key=lambda index: abs(index - target))
        slack = (target - position) // 4
        near = [index for index in by_distance if abs(index - target) <= slack]
        best = chain(
            filter(self._follows_space, near),
            filter(self.divides_nothing, by_distance),
            filter(self.divides_nothing, range(target, position, -1)),
        )
        return next(best, target)

    def _follows_space(self, index: int) -> bool:
        return self._text[self._starts[index] - 1].isspace() and self.divides_nothing(index)

    def divides_nothing(self, index: int) -> bool:
        """Whether a cut before this token leaves what readers see as one character whole."""
        offset = self._starts[index]
        return not (self._text[offset].isspace() or _inside_grapheme(self._text, offset))


def _inside_grapheme(text: str, offset: int) -> bool:
    """Whether the characters around `offset` are seen as one.

    A rule of thumb for the grapheme clusters of Unicode Standard Annex 29: marks, joiners, emoji modifiers,
    tags, conjuncts, Korean letters, pairs of regional indicators (flags) and halves of a surrogate pair.
    """
    before, after = text[offset - 1], text[offset]
    if after.isascii() and before.isascii():
        return False
    if _INSEPARABLE.match(text, offset - 1):
        return True
    if unicodedata.category(after).startswith("M") and not before.isspace():
        return True
    sign = text[offset - 2] if before == "\u200d" and offset > 1 else before
    if unicodedata.combining(sign) == _VIRAMA and after.isalpha():
        return True
    return _is_regional(after) and _regional_run_before(text, offset) % 2 == 1


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regional_run_before(text: str, offset: int) -> int:
    run = 0
    # No reader meets more flags in a row; without a bound, text of nothing else would take quadratic time.
    while run < min(offset, 256) and _is_regional(text[offset - run - 1]):
        run += 1
    return run
