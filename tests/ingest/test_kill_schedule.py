from pathlib import Path

from tests.ingest.kill_schedule import run_schedule


def test_no_kill_loses_doubles_or_tears_a_document(tmp_path: Path) -> None:
    said: list[str] = []
    verdict = run_schedule(tmp_path / "kills", kills=20, seed=20, tell=said.append)
    assert verdict.is_clean, said
