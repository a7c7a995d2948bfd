from pathlib import Path

import pytest

from tests.models_cache import exported_minilm


@pytest.fixture(scope="session")
def minilm_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs of the packaged model."""
    return exported_minilm(tmp_path_factory)
