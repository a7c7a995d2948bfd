import pytest


@pytest.fixture
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches and slices so small that a few sentences make many."""
    for name, size in (("change.SLICE_PASSAGES", 2), ("embed.SLICE_PASSAGES", 2), ("embed.SAMPLE_PASSAGES", 4)):
        monkeypatch.setattr(f"ingest.{name}", size)
