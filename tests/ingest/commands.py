"""The program's commands in this process, over a `Workplace`, whose small embedder stands in for the model."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from api.cli import main
from tests.ingest.workplace import Workplace


@dataclass(frozen=True)
class Said:
    """What a command that is over said."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Of the one object on standard output."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"not one JSON object: {self.out}\n{self.err}"
        return json.loads(lines[0])

    @property
    def error(self) -> tuple[int, str, str]:
        """Exit code, code and message of a command that failed."""
        assert self.json.keys() == {"error"}
        assert self.json["error"]["message"] in self.err
        return self.status, self.json["error"]["code"], self.json["error"]["message"]


class Terminal(io.StringIO):
    """Standard input that a person types into."""

    def isatty(self) -> bool:
        return True


def rag(*arguments: str, typed: str | None = None, lines: bytes = b"") -> Said:
    """Run a command.

    Args:
        typed: By a person at a terminal; None where there is no terminal.
        lines: Of a standard input that is no terminal.
    """
    out, err = io.StringIO(), io.StringIO()
    stdin = io.TextIOWrapper(io.BytesIO(lines)) if typed is None else Terminal(typed)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["rag", *arguments])
        patch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit) as stopped:
            main()
    assert isinstance(stopped.value.code, int)
    return Said(stopped.value.code, out.getvalue(), err.getvalue())


def settled_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A workplace that commands take their settings from."""
    workplace = Workplace(folder, monkeypatch)
    monkeypatch.chdir(folder)
    chunking = workplace.settings.chunking
    variables = {
        "RAG_DATA_DIR": str(workplace.settings.data.dir),
        "RAG_CHUNKING__SENTENCES": str(chunking.sentences),
        "RAG_CHUNKING__MAX_TOKENS": str(chunking.max_tokens),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return workplace


def refused(what: str) -> Callable[..., Any]:
    """Stands in for what a command has no business calling."""

    def call(*_: object, **__: object) -> Any:
        raise AssertionError(what)

    return call
