"""From text to the terms that BM25 counts.

A word is case folded, stemmed and stripped of accents. Identifiers, paths and numbers are terms as a whole and
by their parts, so that either finds them. Scripts written without spaces are cut into n-grams of characters.

A text is analysed chunk by chunk between white space, so that a caller can remember the terms of a chunk.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

ANALYSIS_VERSION = 1
"""To be raised whenever a text gives other terms than before: collections made before must be made anew."""

_LONGEST_WORD = 64
"""A longer run of letters and digits is encoded data: it is neither stemmed nor divided."""
_MOST_PIECES = 6
"""A word that falls into more pieces is a hash or a key, whose pieces mean nothing."""

_MOST_ABBREVIATIONS = 3
"""Words of a query in capitals up to which they are taken for abbreviations; more are a sentence that is shouted."""

_PUNCTUATION = ".,;:!?()[]\"'"
_IDEOGRAPHIC = (
    "\u1100-\u11ff\u3005-\u3007\u3040-\u30ff\u3100-\u318f\u31a0-\u31ff\u3400-\u9fff\ua960-\ua97f\uac00-\ud7ff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Han, Hiragana, Katakana, Bopomofo and Hangul, where a character is a syllable or a word."""
_UNSPACED_LETTERS = "\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u1049\u1050-\u109f\u1780-\u17d3"
"""Thai, Lao, Burmese and Khmer, where a character is a sound."""
_MARKS = (
    "\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u065f\u0670"
    "\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0900-\u0963\u0966-\u0d7f\u0f71-\u0fbc"
)
"""Written within words, and not letters to `re`: accents, vowel points and vowel signs."""

_UNSPACED = re.compile(f"([{_IDEOGRAPHIC}]++|[{_UNSPACED_LETTERS}]++)")
_IS_LETTER_RUN = re.compile(f"[{_UNSPACED_LETTERS}]")
_KANA = re.compile("[\u3040-\u30ff\u31f0-\u31ff]")
_LINE_BREAK_IN_RUN = re.compile(rf"\n(?<=[{_IDEOGRAPHIC}]\n)(?=[{_IDEOGRAPHIC}])")

_LETTERS = rf"(?:[^\W_]|[{_MARKS}])++"
_WORD = rf"{_LETTERS}(?:'{_LETTERS})*+"
_COMPOUND = rf"{_WORD}(?:(?:[._\-]++|(?<=\d),(?=\d)){_WORD})*+"
_WORDS = re.compile(_WORD)
_COMPOUNDS = re.compile(_COMPOUND)
_PATH_JOINTS = frozenset("/\\@:")
_THOUSANDS = re.compile(r"([1-9]\d{0,2}+(?:,\d{3})++)(?:\.(\d+))?|([1-9]\d{0,2}+(?:\.\d{3})++)(?:,(\d+))?")
_VERSION = re.compile(r"[vV]\d+")
_MARKED_LETTER = re.compile(r"(?<!\w)[A-Za-z](?:\+\+|#)(?!\w)")
_BOUNDARY = re.compile("[a-z][A-Z]|[A-Z][A-Z][a-z]|[A-Za-z][0-9]|[0-9][A-Za-z]")
_PIECE = re.compile("[A-Z]{2,}s(?![a-z])|[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_PLURAL = re.compile("[A-Z]{2,}s")

# Soft hyphens, joiners, marks of direction and byte order, and the Arabic stretching sign are not read.
_CLEANED: dict[int, str | None] = {
    **dict.fromkeys([0xAD, 0x640, *range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF]),
    **dict.fromkeys(map(ord, "\u2019\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u2010\u2011"), "-"),
}
_UNDECOMPOSED = str.maketrans(
    {"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i", "ё": "е"}
)

_QUOTED = re.compile(
    r'(?<![A-Za-z0-9])"([^"]+)"(?![A-Za-z0-9])|[“„]([^“”„]+)[“”]|«([^«»]+)»|»([^«»]+)«|「([^「」]+)」|『([^『』]+)』'
)


class Term(NamedTuple):
    """One occurrence of a term.

    Attributes:
        weight: In a query. A word weighs 1, the whole of n words that are joined by marks 1/n; the n pieces inside a
            word share 1/2, and so do the two characters of a pair. So a compound does not outweigh the rest.
        is_stop_word: Indexed for the queries that hold nothing else, and left out of the length of a passage. The text
            of such a term ends in an apostrophe, as no other does: the stop word `can` is not the stem of `cans`.
    """

    text: str
    weight: float = 1.0
    is_stop_word: bool = False


class Analyzer:
    """Text to terms.

    Args:
        stem: A case-folded word to its stem.
        stop_words: Case folded, with straight apostrophes.
        language: English lower-case name or `none`; decides on letters that languages treat differently.
    """

    def __init__(self, *, stem: Callable[[str], str], stop_words: Collection[str], language: str) -> None:
        self._stem = stem
        self._stop_words = frozenset(stop_words)
        self._is_turkish = language == "turkish"
        # In English an accent is a borrowed word's, which is as often written without it.
        self._folds_first = language == "english"

    def terms(self, text: str) -> list[Term]:
        """The terms of a text as they occur."""
        return [term for chunk in chunks(text) for term in self.terms_of_chunk(chunk)]

    def query_terms(self, query: str, *, phrase_weight: float) -> dict[str, float]:
        """The distinct terms of a query with their weights.

        Stop words are left out, except where the query, or a part of it in quotation marks, holds nothing else. A
        term that occurs several times takes its largest weight. In a query of few words, all in capitals, WHO is both
        the abbreviation and the stop word.

        Args:
            phrase_weight: Multiplies the weights of terms in paired double quotation marks.
        """
        is_shouted = query.isupper()
        if is_shouted and len(query.split()) > _MOST_ABBREVIATIONS:
            query = self._case_folded(query)  # where a whole sentence is in capitals, they tell nothing

        def holds_nothing_else(text: str) -> bool:
            return all(term.is_stop_word for term in self.terms(self._case_folded(text) if is_shouted else text))

        rest, phrases = _phrases(query)
        weights: dict[str, float] = {}
        for phrase in phrases:
            for text, weight in _weights(self.terms(phrase), keep_stop_words=holds_nothing_else(phrase)).items():
                weights[text] = max(weights.get(text, 0.0), weight * phrase_weight)
        keep_stop_words = not weights and holds_nothing_else(rest)
        for text, weight in _weights(self.terms(rest), keep_stop_words=keep_stop_words).items():
            weights[text] = max(weights.get(text, 0.0), weight)
        return weights

    def terms_of_chunk(self, chunk: str) -> list[Term]:
        """The terms of a text without white space."""
        bare = chunk.strip(_PUNCTUATION)
        if bare.isascii() and bare.isalpha():
            return self._word(bare)
        if not chunk.isascii():
            chunk = unicodedata.normalize("NFKC", chunk.translate(_CLEANED))
        terms: list[Term] = []
        for position, piece in enumerate(_UNSPACED.split(chunk)):
            if position % 2:
                terms += _grams(piece)
            elif piece:
                terms += self._spaced(piece)
        return terms

    def _spaced(self, text: str) -> list[Term]:
        terms: list[Term] = []
        path: list[str] = []
        end = 0
        for match in _COMPOUNDS.finditer(text):
            terms += self._compound(match[0])
            if not _PATH_JOINTS.issuperset(text[end : match.start()]):
                terms += _path(path)
                path = []
            path.append(_joined(_components(match[0])))
            end = match.end()
        terms += _path(path)
        if "#" in text or "++" in text:
            terms += (Term(marked.casefold()) for marked in _MARKED_LETTER.findall(text))
        return terms

    def _compound(self, compound: str) -> list[Term]:
        components = _components(compound)
        terms = [term for component in components for term in self._component(component)]
        if len(components) > 1:
            if _VERSION.fullmatch(components[0]) and all(map(str.isdecimal, components[1:])):
                components[0] = components[0][1:]
            terms.append(Term(self._normal(_joined(components)), 1 / len(components)))
        return terms

    def _component(self, component: str) -> list[Term]:
        words = [component]
        if "'" in component and component.casefold() not in self._stop_words:
            words = _without_elisions(component)
        return [term for word in words for term in self._word(word)]

    def _word(self, word: str) -> list[Term]:
        terms = []
        folded = self._case_folded(word)
        if folded in self._stop_words:
            terms.append(Term(f"{folded}'", is_stop_word=True))
            if len(word) == 1 or not word.isupper():
                return terms
        if _PLURAL.fullmatch(word):
            word = word[:-1]  # LLMs, which a stemmer takes for a word without a vowel
        # A stop word in capitals is an abbreviation as well: IT, WHO.
        terms.append(Term(self._normal(word)))
        if len(word) <= _LONGEST_WORD and word.isascii() and _BOUNDARY.search(word):
            pieces = [piece for piece in _PIECE.findall(word) if len(piece) > 1 or piece.isdecimal()]
            if len(pieces) <= _MOST_PIECES:
                spoken = (piece for piece in pieces if piece.casefold() not in self._stop_words)
                terms += (Term(self._normal(piece), 1 / 2 / len(pieces)) for piece in spoken)
        return terms

    def _case_folded(self, word: str) -> str:
        if self._is_turkish:
            word = word.replace("I", "ı").replace("İ", "i")
        return word.casefold()

    def _normal(self, word: str) -> str:
        folded = self._case_folded(word)
        if len(folded) > _LONGEST_WORD:
            return folded
        return _without_accents(self._stem(_without_accents(folded) if self._folds_first else folded))


def chunks(text: str) -> list[str]:
    """The text between white space. A line break inside text that is written without spaces is none."""
    return (text if text.isascii() else _LINE_BREAK_IN_RUN.sub("", text)).split()


def _phrases(query: str) -> tuple[str, list[str]]:
    """What stands outside paired quotation marks, and what inside each pair."""
    phrases = [next(filter(None, match.groups())) for match in _QUOTED.finditer(query)]
    return _QUOTED.sub(" ", query), phrases


def _weights(terms: Iterable[Term], *, keep_stop_words: bool) -> dict[str, float]:
    weights: dict[str, float] = {}
    for term in terms:
        if keep_stop_words or not term.is_stop_word:
            weights[term.text] = max(weights.get(term.text, 0.0), term.weight)
    return weights


def _grams(run: str) -> list[Term]:
    if _IS_LETTER_RUN.match(run):
        return [Term(run[start : start + 3]) for start in range(max(1, len(run) - 2))]
    if len(run) == 1:
        return [Term(run)]
    pairs = [Term(first + second) for first, second in pairwise(run)]
    # A single kana is a sound or a particle; other characters can be words.
    return pairs + [Term(character, 1 / 2) for character in run if not _KANA.match(character)]


def _components(compound: str) -> list[str]:
    """What joints separate; separators of thousands are removed."""
    if number := _THOUSANDS.fullmatch(compound):
        return [re.sub("[.,]", "", digits) for digits in number.groups() if digits]
    return _WORDS.findall(compound)


def _joined(components: Sequence[str]) -> str:
    """One word; a dot stays between digits, where 1.11 and 11.1 are different."""
    parts = [components[0]]
    for before, component in pairwise(components):
        if before[-1].isdecimal() and component[0].isdecimal():
            parts.append(".")
        parts.append(component)
    return "".join(parts)


def _path(compounds: Sequence[str]) -> list[Term]:
    return [Term(_joined(compounds).casefold(), 1 / len(compounds))] if len(compounds) > 1 else []


def _without_elisions(component: str) -> list[str]:
    """The words around apostrophes, without the letters that stand for a word: tide's, l'eau, qu'il."""
    words = component.split("'")
    kept = [word for word in words if len(word) > 1 and word.casefold() not in ("ll", "re", "ve", "qu")]
    return kept or words[:1]


def _without_accents(word: str) -> str:
    if word.isascii():
        return word
    letters = unicodedata.normalize("NFD", word)
    # In other scripts a mark can make another letter.
    if unicodedata.name(letters[0], "").startswith(("LATIN", "GREEK")):
        letters = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return unicodedata.normalize("NFC", letters).translate(_UNDECOMPOSED)
