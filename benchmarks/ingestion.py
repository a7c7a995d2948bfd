"""What keeping a folder in the collection costs: `rag ingest` as a user runs it, in one run on one machine.

    python -m benchmarks.ingestion FOLDER [--copies 4]

The folder is copied, so nothing in it changes. Printed are the first run with its share inside the encoder, the same
run again, a run after one file changed, the peak memory beside that of a run over `--copies` times the files (each
copy differs from the others by its first line), and how long it takes to delete one document from what that run made.

Wall time is of the whole command, the start of the interpreter included. Memory is the largest resident set of any
of its processes, pages of mapped files included.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Command:
    """A command that has ended: what it printed, how long it took, how much memory its largest process held."""

    printed: dict[str, Any]
    seconds: float
    peak_megabytes: float


def main() -> None:
    """Print what the module's docstring promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--copies", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        _copy(arguments.folder, place / "once" / "docs")
        _rag(place, "ingest", str(_one_file(place)), "--json")  # so that the model is exported
        shutil.rmtree(place / "data" / "collections")
        once = _sync(place, place / "once" / "docs")
        for number in range(arguments.copies):
            _copy(arguments.folder, place / "often" / "docs" / str(number), label=f"copy {number}\n\n")
        shutil.rmtree(place / "data" / "collections")
        often = _rag(place, "ingest", str(place / "often" / "docs"), "--json")
        _say("first run over the copies", often)
        print(
            f"peak memory: {often.peak_megabytes:.0f} MB / {once.peak_megabytes:.0f} MB = "
            f"{often.peak_megabytes / once.peak_megabytes:.3f} at {arguments.copies} times the files"
        )
        listed = _rag(place, "documents", "list", "--limit", "1", "--json").printed
        document = listed["documents"][0]["document_id"]
        deleted = _rag(place, "documents", "delete", document, "--yes", "--json")
        print(
            f"one document of {often.printed['passages']} passages deleted in {deleted.seconds:.2f} s (whole command)"
        )


def _sync(place: Path, folder: Path) -> Command:
    first = _rag(place, "ingest", str(folder), "--json")
    _say("first run", first)
    share = first.printed["encoder_seconds"] / first.seconds
    print(f"  inside the encoder: {first.printed['encoder_seconds']:.1f} s of the whole command, {share:.1%}")
    again = _rag(place, "ingest", str(folder), "--json")
    _say("unchanged", again)
    print(f"  second run / first run: {again.seconds / first.seconds:.2%}")
    changed = next(file for file in sorted(folder.rglob("*.md")) if file.stat().st_size > 5000)
    changed.write_text(changed.read_text("utf-8") + "\n\nOne more paragraph.\n", encoding="utf-8")
    updated = _rag(place, "ingest", str(folder), "--json")
    _say("one file changed", updated)
    print(f"  embedded: {updated.printed['embedded']}, all of one document ({updated.printed['updated']} updated)")
    return first


def _copy(folder: Path, target: Path, *, label: str = "") -> None:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            copy = target / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(label.encode() + file.read_bytes())


def _one_file(place: Path) -> Path:
    return next(file for file in sorted((place / "once" / "docs").rglob("*.md")))


def _rag(place: Path, *arguments: str) -> Command:
    environment = {
        **os.environ,
        "RAG_DATA_DIR": str(place / "data"),
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", "from api.cli import main; main()", *arguments],
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        printed = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - started
    if process.returncode not in (0, 1):
        sys.exit(f"rag {' '.join(arguments)} ended with {process.returncode}: {printed.decode()}")
    # Of the command itself and the processes it waited for; kilobytes, on macOS bytes.
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return Command(json.loads(printed), seconds, usage.ru_maxrss / unit)


def _say(what: str, command: Command) -> None:
    counts = {name: command.printed[name] for name in ("added", "updated", "unchanged", "passages", "embedded")}
    failed = len(command.printed["failed"])
    print(f"{what}: {command.seconds:.1f} s, {counts}, {failed} failed, peak {command.peak_megabytes:.0f} MB")


if __name__ == "__main__":
    main()
