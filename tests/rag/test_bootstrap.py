"""Where this machine keeps what belongs to a collection."""

from pathlib import Path

import pytest

from rag.bootstrap import collection_dir
from rag.settings import Data, Settings, Store


def folder_of(url: str | None) -> Path:
    return collection_dir(Settings(data=Data(dir=Path("data")), store=Store(url=url)))


@pytest.mark.parametrize(
    "spelled",
    ["http://localhost:6333", "http://localhost:6333/", "http://localhost", "HTTP://LocalHost:6333//"],
)
def test_one_server_has_one_folder_however_its_address_is_spelled(spelled: str):
    assert folder_of(spelled) == folder_of("http://localhost:6333")


@pytest.mark.parametrize(
    "other",
    [
        "http://127.0.0.1:6333",
        "https://localhost:6333",
        "http://localhost:6334",
        "http://localhost:6333/prefix",
        "http://localhost:6333/Prefix",
        "http://[::1]:6333",
        None,
    ],
)
def test_what_may_be_another_server_has_another_folder(other: str | None):
    assert folder_of(other) != folder_of("http://localhost:6333")


def test_the_port_that_is_left_out_is_the_one_the_client_takes():
    from qdrant_client import AsyncQdrantClient

    for scheme in ("http", "https"):
        client = AsyncQdrantClient(url=f"{scheme}://localhost", check_compatibility=False)
        taken = client._client.rest_uri  # type: ignore[attr-defined]
        assert taken == f"{scheme}://localhost:6333"
        assert folder_of(taken) == folder_of(f"{scheme}://localhost")
