"""What a sentence-transformers folder says about its model, read without importing any model library.

Pooling, normalisation, maximum length and prompts come from the folder's own configuration files. Some families
document their prompts only in a model card; `FAMILY_PROMPTS` holds those.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rag.errors import ConfigurationError, ModelNotFoundError

Pooling = Literal["mean", "cls"]

FAMILY_PROMPTS: tuple[tuple[str, str, str], ...] = (
    (r"bge-(small|base|large)-en(-v1\.5)?$", "Represent this sentence for searching relevant passages: ", ""),
    (r"(multilingual-)?e5-(small|base|large)(-v2)?$", "query: ", "passage: "),
    (r"nomic-embed-text-v1(\.5)?$", "search_query: ", "search_document: "),
    (r"snowflake-arctic-embed-.*", "Represent this sentence for searching relevant passages: ", ""),
)
"""(pattern of the model's name, query prompt, passage prompt), from the model cards."""

_PROMPT_NAMES = {"query": ("query",), "passage": ("document", "passage", "corpus")}


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk.

    Attributes:
        name: As configured.
        max_tokens: Longest input the model accepts, special tokens included.
    """

    path: Path
    name: str
    config: dict[str, Any]
    max_tokens: int

    @cached_property
    def weights(self) -> Path:
        """The file that holds the weights.

        Raises:
            ModelNotFoundError: Neither of the two formats is there.
        """
        for file in ("model.safetensors", "pytorch_model.bin"):
            if (self.path / file).is_file():
                return self.path / file
        raise ModelNotFoundError(f"{self.path} holds no model.safetensors and no pytorch_model.bin; pull it again")

    def sha256(self) -> str:
        """SHA-256 of the weights, in hexadecimal."""
        return _file_sha256(self.weights)


@dataclass(frozen=True)
class EmbeddingFolder(ModelFolder):
    """A model of sentence embeddings; the last part of its name decides about family prompts.

    Attributes:
        pooling: How token vectors become one.
    """

    pooling: Pooling
    query_prompt: str
    passage_prompt: str


@dataclass(frozen=True)
class ClassifierFolder(ModelFolder):
    """A model with a classifier, of texts or of tokens.

    Attributes:
        labels: Their names, in the order of the logits.
        activation: Dotted name of what sentence-transformers applies to the logits; None where the folder names none.
    """

    labels: tuple[str, ...]
    activation: str | None


def read_model_folder(path: Path, name: str) -> EmbeddingFolder:
    """Read the configuration files of a sentence-transformers (or plain transformers) folder.

    Raises:
        ModelNotFoundError: The folder is not a model.
        ConfigurationError: It needs a module or pooling that is not supported here.
    """
    config = _read_config(path)
    modules = _read_json(path / "modules.json") or []
    for module in modules:
        if str(module["type"]).rsplit(".", 1)[-1] not in ("Transformer", "Pooling", "Normalize"):
            raise ConfigurationError(
                f"{name} needs the module {module['type']}, which the graph runtime does not have; "
                'set embedding.runtime = "torch"'
            )
    query_prompt, passage_prompt = read_prompts(path, name)
    return EmbeddingFolder(
        path=path,
        name=name,
        config=config,
        max_tokens=_max_tokens(path, config),
        pooling=_pooling(path, modules, name),
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
    )


def read_classifier_folder(path: Path, name: str) -> ClassifierFolder:
    """Read the configuration files of a cross-encoder, or of a classifier in transformers.

    Raises:
        ModelNotFoundError: The folder is not a model.
        ConfigurationError: Its scores come from more than a transformer with a classifier.
    """
    config = _read_config(path)
    for module in _read_json(path / "modules.json") or []:
        if str(module["type"]).rsplit(".", 1)[-1] != "Transformer":
            raise ConfigurationError(
                f"{name} needs the module {module['type']}, which the graph runtime does not have; "
                'set its runtime to "torch", or choose another model'
            )
    # As transformers counts where nothing is said: two.
    count = int(config.get("num_labels") or len(config.get("id2label") or ()) or 2)
    names = config.get("id2label") or {}
    return ClassifierFolder(
        path=path,
        name=name,
        config=config,
        max_tokens=_max_tokens(path, config),
        labels=tuple(str(names.get(str(number), f"LABEL_{number}")) for number in range(count)),
        activation=_activation(path, config),
    )


def longest_input(path: Path) -> int:
    """Tokens that the model in a folder reads at most, special ones included."""
    return _max_tokens(path, _read_json(path / "config.json") or {})


def weights_sha256(path: Path) -> str:
    """SHA-256 over all weight files of a folder, in whatever layout, in hexadecimal."""
    files = sorted(file for pattern in ("*.safetensors", "*.bin") for file in path.rglob(pattern))
    return hashlib.sha256("".join(map(_file_sha256, files)).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> Any:  # noqa: ANN401 - a configuration file of a vendor
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelNotFoundError(f"{path} is damaged: {error}; pull the model again") from error


def _read_config(path: Path) -> dict[str, Any]:
    config: dict[str, Any] | None = _read_json(path / "config.json")
    if config is None or not (path / "tokenizer.json").is_file():
        raise ModelNotFoundError(f"{path} is not a model folder: config.json or tokenizer.json is missing")
    return config


def _activation(path: Path, config: dict[str, Any]) -> str | None:
    """In the order in which `CrossEncoder` of sentence-transformers 6 looks for it."""
    has_modules = (path / "modules.json").is_file()
    saved = (_read_json(path / "config_sentence_transformers.json") or {}).get("activation_fn") if has_modules else None
    stated = config.get("sentence_transformers") or {}
    name = saved or stated.get("activation_fn", config.get("sbert_ce_default_activation_function"))
    return None if name is None else str(name)


def _max_tokens(path: Path, config: dict[str, Any]) -> int:
    stated = (_read_json(path / "sentence_bert_config.json") or {}).get("max_seq_length")
    if stated:
        return int(stated)
    tokenizer = (_read_json(path / "tokenizer_config.json") or {}).get("model_max_length") or 512
    positions = config.get("max_position_embeddings", 512)
    if config.get("model_type") in ("roberta", "xlm-roberta"):
        positions -= int(config.get("pad_token_id", 1)) + 1  # the first positions stand for padding
    return int(min(tokenizer, positions))


def _pooling(path: Path, modules: list[dict[str, Any]], name: str) -> Pooling:
    folder = next((module["path"] for module in modules if module["type"].endswith("Pooling")), None)
    if folder is None:
        return "mean"
    stated = _read_json(path / folder / "config.json") or {}
    chosen = stated.get("pooling_mode")
    modes = (
        [chosen]
        if isinstance(chosen, str)
        else [
            key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
            for key, value in stated.items()
            if key.startswith("pooling_mode_") and value
        ]
    )
    if modes == ["mean"]:
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise ConfigurationError(
        f"{name} pools by {' and '.join(map(str, modes)) or 'nothing'}; the graph runtime knows mean and cls. "
        'Set embedding.runtime = "torch"'
    )


def read_prompts(path: Path, name: str) -> tuple[str, str]:
    """What is put before queries and before passages: from the model's own files, else by its family."""
    stated = (_read_json(path / "config_sentence_transformers.json") or {}).get("prompts") or {}
    query, passage = (next((stated[key] for key in keys if stated.get(key)), "") for keys in _PROMPT_NAMES.values())
    if query or passage:
        return query, passage
    last = name.rstrip("/").rsplit("/", 1)[-1]
    for pattern, family_query, family_passage in FAMILY_PROMPTS:
        if re.fullmatch(pattern, last, re.IGNORECASE):
            return family_query, family_passage
    return "", ""
