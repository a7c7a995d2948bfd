"""The `llmlingua` package made fit to serve: it loads from a folder alone, says nothing, and tells what it kept.

Left to itself it fetches a vocabulary from the network when constructed, seeds every random generator of the process,
takes a classifier's family from its folder's name, and reads key-value caches in a form that transformers no longer
hands out.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rag.errors import ConfigurationError
from rag.tokens import token_spans

Architecture = Literal["ForTokenClassification", "ForCausalLM"]
_FAMILIES = {"bert": "bert-base-multilingual-cased", "xlm-roberta": "xlm-roberta-large"}
"""By model_type, the part of a name by which the package knows how words begin."""
_ITERATION_TOKENS = 200  # the package's default; see `_even_iterations`


def load_package(path: Path, name: str, architecture: Architecture) -> Any:  # noqa: ANN401 - a PromptCompressor
    """A `PromptCompressor` over a local model folder, on a GPU where there is one.

    Raises:
        ConfigurationError: The folder is not a model of this architecture, or cannot be read.
    """
    family = _checked_family(path, name, architecture)
    classifies = architecture == "ForTokenClassification"
    with _silent_and_local() as package:
        import torch

        try:
            compressor = _compressor_class(package)(
                str(path),
                device_map="cuda" if torch.cuda.is_available() else "cpu",
                model_config={"trust_remote_code": False, "local_files_only": True},
                use_llmlingua2=classifies,
            )
        except Exception as error:
            # transformers has no common root for what a damaged folder makes it raise.
            raise ConfigurationError(f"{name} cannot be loaded from {path}: {error}. Pull the model again") from error
    if not compressor.tokenizer.is_fast:
        raise ConfigurationError(f"{path} holds no tokenizer.json, so nothing says where its tokens stand in a text")
    compressor.model.eval()
    compressor.tokenizer.model_max_length = 10**9  # longer inputs are cut into windows; a warning helps nobody
    if classifies:
        compressor.model_name = family
    return compressor


class TokenCounter:
    """Stands in for the tokenizer of a chat model by which the package counts; counts as this project does."""

    def encode(self, text: str) -> list[tuple[int, int]]:
        """One item for each token; at least one, as a word of no weight would break the package."""
        return token_spans(text.replace("▁", "")) or [(0, 0)]


def _checked_family(path: Path, name: str, architecture: Architecture) -> str:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} is not a model folder: config.json cannot be read ({error})") from error
    kind = config.get("model_type")
    if not any(architecture in str(stated) for stated in config.get("architectures") or ()):
        wanted = "a causal language model" if architecture == "ForCausalLM" else "a LLMLingua-2 token classifier"
        raise ConfigurationError(f"{name} is not {wanted} but a {kind} model; set compression.model to one")
    if architecture == "ForTokenClassification" and kind not in _FAMILIES:
        raise ConfigurationError(f"{name} is a {kind} model; LLMLingua-2 knows {' and '.join(_FAMILIES)}")
    return _FAMILIES.get(str(kind), "")


@contextmanager
def _silent_and_local() -> Iterator[Any]:
    """The package's module with its hands tied, for the time of a construction."""
    from transformers.utils import logging

    verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings(action="ignore"):
        import llmlingua.prompt_compressor as package

        vocabulary, seed = package.tiktoken, package.seed_everything
        package.tiktoken = SimpleNamespace(encoding_for_model=lambda _: TokenCounter())
        package.seed_everything = lambda _: None
        try:
            yield package
        finally:
            package.tiktoken, package.seed_everything = vocabulary, seed
            logging.set_verbosity(verbosity)
            if progress:
                logging.enable_progress_bar()


def _compressor_class(package: Any) -> Any:  # noqa: ANN401 - a module, a class
    import torch
    from transformers import DynamicCache

    class PairsCache(DynamicCache):  # type: ignore[misc]
        """A cache that is also what it was when the package was written: a sequence of (keys, values)."""

        def __getitem__(self, layer: int) -> tuple[Any, Any]:
            return self.layers[layer].keys, self.layers[layer].values

    class Compressor(package.PromptCompressor):  # type: ignore[misc]
        """Tells which characters of each context are left, and takes the caches of today.

        Attributes:
            used: Which of the contexts passed the filter of contexts.
            left: For each of those, one flag per character: whether a token that is left covers it.
        """

        used: list[int]
        left: list[NDArray[np.bool_]]
        _positions: Any
        _settled: list[Any]
        _token_ids: Any

        def compress_prompt(self, context: list[str], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            self.used = list(range(len(context)))
            self.context_idxs: list[list[int]] = []  # the package notes the order of every call here, for good
            return super().compress_prompt(context, *arguments, **options)

        def control_context_budget(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            chosen = super().control_context_budget(*arguments, **options)
            self.used = list(chosen[2])
            return chosen

        def get_prefix_length(self, prefix: str, text: str) -> int:
            encoding = self.tokenizer(prefix + text[:100], add_special_tokens=False, return_offsets_mapping=True)
            return sum(start < len(prefix) for start, _ in encoding["offset_mapping"])

        def get_ppl(self, *arguments: Any, past_key_values: Any = None, **options: Any) -> Any:  # noqa: ANN401
            if past_key_values is not None:
                options["past_key_values"] = PairsCache([(keys, values) for keys, values in past_key_values])
            result = super().get_ppl(*arguments, **options)
            if not options.get("return_kv"):
                return result
            loss, cache = result
            return loss, [(layer.keys, layer.values) for layer in cache.layers]

        def iterative_compress_prompt(self, context: list[str], *arguments: Any, start: int = 0, **options: Any) -> Any:  # noqa: ANN401
            text = "\n\n".join(context)
            encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            self._token_ids = torch.tensor(encoding["input_ids"], device=self.device)
            self._positions = torch.arange(len(self._token_ids), device=self.device)
            self._settled = []
            options["iterative_size"] = _even_iterations(len(self._token_ids) - start)
            result = super().iterative_compress_prompt(context, *arguments, start=start, **options)
            positions = torch.cat([*self._settled, self._positions])[start:].tolist()
            flags = np.zeros(len(text), dtype=np.bool_)
            for position in positions:
                flags[slice(*encoding["offset_mapping"][position])] = True
            self.left = _by_context(flags, context[1:] if start else context)
            return result

        def get_compressed_input(
            self,
            loss: Any,  # noqa: ANN401
            input_ids: Any,  # noqa: ANN401
            *arguments: Any,  # noqa: ANN401
            **options: Any,  # noqa: ANN401
        ) -> Any:  # noqa: ANN401
            # Positions take the place of the ids: what is left of them is what is left of the text, to the token.
            settled = len(self._positions) - input_ids.shape[1]
            self._settled.append(self._positions[:settled])
            positions, *rest = super().get_compressed_input(
                loss, self._positions[None, settled:], *arguments, **options
            )
            self._positions = positions[0]
            return self._token_ids[positions], *rest

    return Compressor


def _even_iterations(tokens: int) -> int:
    """About as long as the package's default, but dividing the text: what is left over is never compressed."""
    return max(1, tokens // max(1, round(tokens / _ITERATION_TOKENS)))


def _by_context(flags: NDArray[np.bool_], contexts: list[str]) -> list[NDArray[np.bool_]]:
    """Flags of each context, the last of which ends with the text; two line ends stand between them."""
    parts: list[NDArray[np.bool_]] = []
    end = len(flags)
    for context in reversed(contexts):
        parts.append(flags[end - len(context) : end])
        end -= len(context) + 2
    return parts[::-1]
