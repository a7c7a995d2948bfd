"""The packaged model as an int8 graph, exported once per test session: that takes a quarter of a minute."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.adapters.graph_embedder import GraphEmbedder
from rag.adapters.graph_export import Precision
from rag.adapters.model_folder import read_model_folder
from rag.adapters.model_locations import PACKAGED_SHA256, locate
from rag.settings import PACKAGED_MODEL


def minilm(cache_dir: Path, *, precision: Precision = "int8") -> GraphEmbedder:
    """The embedder of the default settings over graphs in `cache_dir`."""
    return GraphEmbedder(
        read_model_folder(locate(PACKAGED_MODEL, cache_dir), PACKAGED_MODEL),
        precision=precision,
        cache_dir=cache_dir,
        batch_tokens=2048,
        expected_sha256=PACKAGED_SHA256,
    )


def exported_minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the exported graph, for `data.dir/cache/graphs`; the same in the whole session."""
    folder = tmp_path_factory.getbasetemp() / "minilm-graphs"
    minilm(folder)  # reads the cache from the second time on
    return folder
