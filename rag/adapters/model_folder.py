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
        name: As configured; its last part decides about family prompts.
        max_tokens: Longest input the model accepts, special tokens included.
        pooling: How token vectors become one.
    """

    path: Path
    name: str
    config: dict[str, Any]
    max_tokens: int
    pooling: Pooling
    query_prompt: str
    passage_prompt: str

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


def read_model_folder(path: Path, name: str) -> ModelFolder:
    """Read the configuration files of a sentence-transformers (or plain transformers) folder.

    Raises:
        ModelNotFoundError: The folder is not a model.
        ConfigurationError: It needs a module or pooling that is not supported here.
    """
    config = _read_json(path / "config.json")
    if config is None or not (path / "tokenizer.json").is_file():
        raise ModelNotFoundError(f"{path} is not a model folder: config.json or tokenizer.json is missing")
    modules = _read_json(path / "modules.json") or []
    for module in modules:
        if str(module["type"]).rsplit(".", 1)[-1] not in ("Transformer", "Pooling", "Normalize"):
            raise ConfigurationError(
                f"{name} needs the module {module['type']}, which the graph runtime does not have; "
                'set embedding.runtime = "torch"'
            )
    query_prompt, passage_prompt = read_prompts(path, name)
    return ModelFolder(
        path=path,
        name=name,
        config=config,
        max_tokens=_max_tokens(path, config),
        pooling=_pooling(path, modules, name),
        query_prompt=query_prompt,
        passage_prompt=passage_prompt,
    )


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
