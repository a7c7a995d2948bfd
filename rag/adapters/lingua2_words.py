"""Texts as LLMLingua-2 classifiers read them, and words as the `llmlingua` package (0.2.2) makes them of tokens.

It follows the package in everything that decides which words are kept, its peculiarities included; each is named
where it stands.
"""

from __future__ import annotations

import string
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag.adapters.graph_runtime import TokenSequence
from rag.adapters.model_folder import ClassifierFolder
from rag.errors import ConfigurationError, ModelNotFoundError
from rag.tokens import token_spans

if TYPE_CHECKING:
    from tokenizers import Encoding

Flags: TypeAlias = NDArray[np.bool_]
Integers: TypeAlias = NDArray[np.int64]

MAX_TOKENS = 512
"""Of a window, special tokens included: what the published classifiers were trained on."""

_WINDOW_END = "."
_WORD_MARK = "▁"  # of XLM-RoBERTa, where a word begins
_BERT_MARKERS = ("[CLS]", "[SEP]")
_NOTHING = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Window:
    """One input of the classifier.

    Attributes:
        text: Index of the text it is part of.
        sequence: Special tokens included.
        starts: Of each token, in the text; 0 where it stands for nothing there.
        ends: As `starts`.
    """

    text: int
    sequence: TokenSequence
    starts: Integers
    ends: Integers


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one window, unknown ones left out.

    Attributes:
        text: Index of the text they are part of.
        starts: Of each token, in the text.
        ends: As `starts`.
        word_of: To which word each token belongs.
        probabilities: Of each word that it is to be kept: the mean over its tokens.
        weights: Of each word, in tokens as `count_tokens` counts, at least 1.
    """

    text: int
    starts: Integers
    ends: Integers
    word_of: Integers
    probabilities: NDArray[np.float32]
    weights: Integers

    def kept(self, percentile: float) -> Flags:
        """Of each word, whether it is above this percentile of the window's words, counted by their weights."""
        if not len(self.weights):
            return np.zeros(0, dtype=np.bool_)
        threshold = np.percentile(np.repeat(self.probabilities, self.weights), percentile)
        # A certain word stays even where so many are certain that this is the threshold.
        flags: Flags = (self.probabilities > threshold) | ((threshold == 1) & (self.probabilities == 1))
        return flags


class WordReader:
    """The tokenizer of a classifier.

    Raises:
        ModelNotFoundError: The tokenizer cannot be read.
        ConfigurationError: The model is neither a BERT nor an XLM-RoBERTa, whose ways of marking words differ.
    """

    def __init__(self, folder: ClassifierFolder) -> None:
        from tokenizers import Tokenizer

        family = folder.config.get("model_type")
        if family not in ("bert", "xlm-roberta"):
            raise ConfigurationError(f"{folder.name} is a {family} model; LLMLingua-2 knows bert and xlm-roberta")
        self._is_bert = family == "bert"
        try:
            self._tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
        except Exception as error:
            # The library raises plain Exception.
            raise ModelNotFoundError(f"the tokenizer in {folder.path} is damaged: {error}; pull it again") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        ids = self._tokenizer.get_vocab()
        pieces = [""] * (max(ids.values()) + 1)
        for piece, number in ids.items():
            pieces[number] = piece
        self._begins = np.array([self._begins_word(piece) for piece in pieces])
        self._written = [piece.lstrip("#") if piece.startswith("##") else piece.strip(_WORD_MARK) for piece in pieces]
        self._stands_for_text = np.array([piece != _WORD_MARK for piece in pieces])
        self._is_special = np.zeros(len(pieces), dtype=np.bool_)
        for number, token in self._tokenizer.get_added_tokens_decoder().items():
            self._is_special[number] = token.special
        # The package writes BERT's markers whatever the family, which to XLM-RoBERTa are unknown tokens.
        self._first, self._last = (ids[marker] if marker in ids else ids["<unk>"] for marker in _BERT_MARKERS)

    def windows(self, texts: Sequence[str]) -> list[Window]:
        """All windows of all texts, in order; a text without tokens has none."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            self._window(i, text, encoding, first, last)
            for i, (text, encoding) in enumerate(zip(texts, encodings, strict=True))
            for first, last in _cuts(encoding.tokens)
        ]

    def words(self, window: Window, probabilities: NDArray[np.float32]) -> Words:
        """Tokens merged to words.

        Args:
            probabilities: Of each token of the window.
        """
        ids = np.asarray(window.sequence.ids)
        known = np.flatnonzero(~self._is_special[ids])
        if not len(known):
            nothing = np.zeros(0, dtype=np.float32)
            return Words(window.text, _NOTHING, _NOTHING, _NOTHING, nothing, _NOTHING)
        ids = ids[known]
        begins = self._begins[ids]
        begins[0] = True
        firsts = np.flatnonzero(begins)
        lengths = np.diff(firsts, append=len(ids))
        bounds = [*firsts.tolist(), len(ids)]
        written = [self._written[number] for number in ids.tolist()]
        return Words(
            text=window.text,
            starts=window.starts[known],
            ends=window.ends[known],
            word_of=np.cumsum(begins) - 1,
            probabilities=np.divide(np.add.reduceat(probabilities[known], firsts), lengths, dtype=np.float32),
            weights=_weights(["".join(written[first:end]) for first, end in pairwise(bounds)]),
        )

    def _begins_word(self, piece: str) -> bool:
        if self._is_bert:
            return not piece.startswith("##")
        # `in` finds runs of marks too, as long as they stand in the same order as there.
        return piece.startswith(_WORD_MARK) or piece in string.punctuation

    def _window(self, number: int, text: str, encoding: Encoding, first: int, last: int) -> Window:
        """The window of these tokens.

        What the package shows the model is their text, tokenized anew. That makes a difference where the text ends
        with the mark of a word that does not follow, and where it begins inside a word.
        """
        if encoding.tokens[last] == _WORD_MARK:
            last -= 1
        ids, offsets = encoding.ids[first : last + 1], encoding.offsets[first : last + 1]
        if first and ids and not self._begins[ids[0]]:
            # Of a word that BERT's tokenizer cut, the package keeps the mark, which then is two number signs.
            mark = "##" if self._is_bert else ""
            start = offsets[0][0]
            anew = self._tokenizer.encode(mark + text[start : offsets[-1][1]], add_special_tokens=False)
            ids = anew.ids
            moved = start - len(mark)
            offsets = [(max(start, moved + begin), max(start, moved + end)) for begin, end in anew.offsets]
        return self._with_markers(number, ids, offsets)

    def _with_markers(self, number: int, ids: list[int], offsets: list[tuple[int, int]]) -> Window:
        ids = [self._first, *ids, self._last][:MAX_TOKENS]
        spans = np.array([(0, 0), *offsets, (0, 0)], dtype=np.int64)[: len(ids)]
        # What is put before a word has the offsets of the word's first character.
        spans[~self._stands_for_text[ids]] = 0
        return Window(number, TokenSequence(ids), spans[:, 0], spans[:, 1])


def _cuts(tokens: Sequence[str]) -> Iterator[tuple[int, int]]:
    """First and last token of each window: up to the last full stop that fits, else as many as fit.

    That is one token more than fits between the markers; a full window loses the marker at its end.
    """
    stops = [i for i, token in enumerate(tokens) if token == _WINDOW_END]
    first, end = 0, len(tokens) - 1
    while first <= end:
        last = first + MAX_TOKENS - 2
        if last > end:
            last = end
        else:
            stop = bisect_right(stops, last) - 1
            if stop >= 0 and stops[stop] > first:
                last = stops[stop]
        yield first, last
        first = last + 1


def _weights(words: Sequence[str]) -> Integers:
    """Tokens of each word, at least 1, counted in one pass; a word has no white space."""
    places = np.cumsum([0, *(len(word) + 1 for word in words[:-1])])
    tokens = np.array([start for start, _ in token_spans(" ".join(words))], dtype=np.int64)
    of_word = np.searchsorted(places, tokens, side="right") - 1
    return np.maximum(np.bincount(of_word, minlength=len(words)), 1)
