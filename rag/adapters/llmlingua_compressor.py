"""Compression by the `llmlingua` package: LLMLingua, LongLLMLingua and LLMLingua-2, from local weights, on torch."""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rag.adapters.kept_spans import compressed, kept_spans, shown_tokens
from rag.adapters.llmlingua_package import load_package
from rag.errors import ModelRuntimeError
from rag.tokens import count_tokens
from rag.types import Source

Method = Literal["llmlingua", "longllmlingua", "llmlingua-2"]
Kept: TypeAlias = "list[NDArray[np.bool_]]"

_ROUNDS = 4  # the package misses a target by whatever its thresholds and tokenizers make of it
_TOLERANCE = 0.05
_WORD_SEPARATOR = "\t\t|\t\t"  # white space, which no tokenizer leaves in a word
_ALIGNMENT_WINDOW = 200

_OPTIONS: dict[str, dict[str, Any]] = {
    # Without a question there is no reason to drop a retrieved source, so each is compressed at the same rate.
    "llmlingua": {"rank_method": "llmlingua", "use_context_level_filter": False},
    # As the package's authors recommend it, but for the order of the contexts.
    "longllmlingua": {
        "rank_method": "longllmlingua",
        "condition_in_question": "after",
        "condition_compare": True,
        "context_budget": "+100",
        "dynamic_context_compression_ratio": 0.3,
        "reorder_context": "original",
    },
}


class LLMLinguaCompressor:
    """A `Compressor` that shows what the package leaves.

    What a source shows is the package's output for it up to white space: the characters that the tokens it left cover,
    single spaces where something is missing. A character of which only some bytes are left is shown whole, and what a
    tokenizer rewrote (compatibility forms of Unicode, invisible characters) is shown as the document has it.

    The package is asked again, at most three times, at a corrected rate, as long as it is more than 5 % off.

    - `llmlingua` drops tokens that a causal language model finds predictable, at the same rate everywhere.
    - `longllmlingua` does so too, but weighs them by what the question says of them, drops whole sources that tell
      little of it, and keeps more of those that tell much.
    - `llmlingua-2` drops words that a token classifier would not keep; it does not read the question.

    Args:
        path: The model folder: a token classifier for `llmlingua-2`, a causal language model for the others.
        name: As configured.

    Raises:
        ConfigurationError: The folder is not a model that the method can use.
    """

    def __init__(self, path: Path, name: str, *, method: Method) -> None:
        self.name = f"{method}:{name}"
        self._method = method
        architecture: Literal["ForTokenClassification", "ForCausalLM"] = (
            "ForTokenClassification" if method == "llmlingua-2" else "ForCausalLM"
        )
        self._package = load_package(path, name, architecture)
        # One thread, because the package keeps what it is doing in its own attributes.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="llmlingua")

    async def compress(self, question: str, sources: Sequence[Source], *, target_tokens: int) -> Sequence[Source]:
        """See `Compressor`. Sources in which the model knows no token at all are shown only if nothing else is."""
        texts = [source.text for source in sources]
        total = sum(map(count_tokens, texts))
        if total <= target_tokens:
            return sources
        wanted = target_tokens / total
        rate = wanted
        outcomes = [(0.0, 0.0), (1.0, 1.0)]
        best: tuple[Source, ...] = ()
        for _ in range(_ROUNDS):
            kept = await asyncio.get_running_loop().run_in_executor(self._worker, self._kept, question, texts, rate)
            attempt = compressed(sources, map(kept_spans, texts, kept))
            shown = shown_tokens(attempt)
            if not best or abs(shown - target_tokens) < abs(shown_tokens(best) - target_tokens):
                best = attempt
            if abs(shown - target_tokens) <= _TOLERANCE * target_tokens:
                break
            outcomes.append((rate, shown / total))
            rate = _corrected(outcomes, wanted)
        return best or sources

    async def close(self) -> None:
        """See `Compressor`."""
        self._worker.shutdown(wait=False)

    def _kept(self, question: str, texts: Sequence[str], rate: float) -> Kept:
        """One flag per character of each text.

        Args:
            rate: Which share of the tokens to keep.
        """
        try:
            if self._method == "llmlingua-2":
                return [self._classified(text, rate) for text in texts]
            return self._weighed(question, texts, rate)
        except Exception as error:
            # The package raises whatever its assertions, its indexing and torch raise.
            raise ModelRuntimeError(f"the compression model {self.name} failed: {error!r}") from error

    def _weighed(self, question: str, texts: Sequence[str], rate: float) -> Kept:
        kept = [np.zeros(len(text), dtype=np.bool_) for text in texts]
        usable = [i for i, text in enumerate(texts) if text.strip()]
        self._package.compress_prompt(
            [texts[i] for i in usable],
            question=question if self._method == "longllmlingua" else "",
            target_token=rate * sum(self._package.get_token_length(texts[i], add_special_tokens=False) for i in usable),
            concate_question=False,
            **_OPTIONS[self._method],
        )
        for i, flags in zip(self._package.used, self._package.left, strict=True):
            kept[usable[i]] = flags
        return kept

    def _classified(self, text: str, rate: float) -> NDArray[np.bool_]:
        tokenizer = self._package.tokenizer
        if set(tokenizer(text, add_special_tokens=False)["input_ids"]) <= set(tokenizer.all_special_ids):
            return np.zeros(len(text), dtype=np.bool_)
        result = self._package.compress_prompt_llmlingua2(
            [text],
            # The package rounds the share that goes to whole percent, upwards; so it is rounded to the nearest.
            rate=min(0.99, rate + 0.005),
            return_word_label=True,
            word_sep=_WORD_SEPARATOR,
        )
        return _aligned(text, _labelled_words(result["fn_labeled_original_prompt"]))


def _corrected(outcomes: Sequence[tuple[float, float]], wanted: float) -> float:
    """The rate at which the line through the two outcomes nearest to the wanted one meets it.

    Args:
        outcomes: Pairs of a rate that was asked for and the rate that was shown, (0, 0) and (1, 1) among them.
    """
    (asked, shown), (other_asked, other_shown) = sorted(outcomes, key=lambda outcome: abs(outcome[1] - wanted))[:2]
    below = max(asked for asked, shown in outcomes if shown <= wanted)
    above = min(asked for asked, shown in outcomes if shown >= wanted)
    if shown != other_shown:
        rate = asked + (wanted - shown) * (other_asked - asked) / (other_shown - shown)
        if below < rate < above:
            return rate
    return (below + above) / 2


def _labelled_words(labelled: str) -> Iterator[tuple[str, bool]]:
    """Every word that the classifier saw, in order, and whether it is kept."""
    for item in labelled.split(_WORD_SEPARATOR):
        word, label = item.rsplit(" ", 1)
        yield word, label == "1"


def _aligned(text: str, words: Iterator[tuple[str, bool]]) -> NDArray[np.bool_]:
    """One flag per character of `text`: whether it belongs to a word that is kept.

    The words come in the order of the text and, but for unknown ones, without gaps, so that the next occurrence is
    the right one. A word that does not occur close by is none of the text's, and passed over.
    """
    starts: list[int] = []
    ends: list[int] = []
    normal: list[str] = []
    for start, end in _clusters(text):
        form = _normal(text[start:end])
        normal.append(form)
        starts += [start] * len(form)
        ends += [end] * len(form)
    solid = "".join(normal)
    kept = np.zeros(len(text), dtype=np.bool_)
    cursor = 0
    for word, keep in words:
        form = _normal(word)
        found = solid.find(form, cursor, cursor + len(form) + _ALIGNMENT_WINDOW) if form else -1
        if found < 0:
            continue
        cursor = found + len(form)
        kept[starts[found] : ends[cursor - 1]] |= keep
    return kept


def _normal(text: str) -> str:
    """Text as tokenizers may rewrite it: compatibility forms resolved, white space and invisible characters gone."""
    return "".join(
        character
        for character in unicodedata.normalize("NFKC", text)
        if not character.isspace() and unicodedata.category(character) not in ("Cc", "Cf")
    )


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Offsets of each character together with the marks that combine with it, which tokenizers write as one."""
    start = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or not unicodedata.combining(text[i]):
            yield start, i
            start = i
