"""Writes docs/cli.md from the `--help` of every command, so that the page cannot drift from the program.

With `--check` nothing is written: exits 1 if the page is not what it would write.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Plain help of a fixed width, whatever terminal the page is built in: boxes would be noise to its readers, some of
# which are search indexes. Typer reads these when it is imported.
os.environ.update(TYPER_USE_RICH="0", COLUMNS="100", TERMINAL_WIDTH="100", NO_COLOR="1")

import typer
from typer.testing import CliRunner

from api.cli import app

PAGE = Path(__file__).parent / "cli.md"
INTRODUCTION = """\
# Command line

Everything is done with one program, `rag`. This page is the output of `--help` for each command.

`--json` prints exactly one JSON object on standard output; progress and notices go to standard error. If a command
fails, `--json` prints one object with the key `error`, and standard error gets a readable line.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | done, but something that is named failed |
| 2 | wrong usage or configuration |
| 3 | a dependency is unavailable: the store or a provider |
| 130 | interrupted |
"""


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, a group before its members."""
    yield words
    for name, member in getattr(command, "commands", {}).items():
        yield from commands(member, (*words, name))


def render() -> str:
    """The page."""
    sections = [INTRODUCTION]
    for words in commands(typer.main.get_command(app)):
        result = CliRunner().invoke(app, [*words, "--help"], prog_name="rag")
        if result.exit_code:
            raise SystemExit(f"rag {' '.join(words)} --help failed: {result.output}")
        lines = [line.rstrip() for line in result.output.strip("\n").splitlines()]
        shown = "\n".join(lines).strip("\n")
        sections.append(f"## {' '.join(('rag', *words))}\n\n```text\n{shown}\n```\n")
    return "\n".join(sections)


def main() -> None:
    """Write the page, or compare it."""
    page = render()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page, encoding="utf-8")
        return
    written = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if written != page:
        difference = difflib.unified_diff(written.splitlines(), page.splitlines(), "docs/cli.md", "--help", lineterm="")
        print("\n".join(difference))
        raise SystemExit("docs/cli.md is not what the commands say; run: make docs")


if __name__ == "__main__":
    main()
