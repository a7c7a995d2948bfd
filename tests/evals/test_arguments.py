from __future__ import annotations

import pytest
from typer.testing import CliRunner

from evals.arguments import refuse_unwritable_file, refuse_unwritable_folder, split_names
from evals.cli import app
from rag.errors import UsageError


def test_names_are_split_and_stripped_once_each():
    assert split_names(None, "--stages") is None
    assert split_names(" bm25, dense,,bm25 ", "--stages") == ["bm25", "dense"]


def test_a_folder_that_is_a_file_and_a_file_that_is_a_folder_are_refused(tmp_path):
    (tmp_path / "file").touch()
    for folder in ("file", "file/below"):
        with pytest.raises(UsageError, match=r"cannot be written: .*; choose another folder with --out"):
            refuse_unwritable_folder(tmp_path / folder, "--out")
    with pytest.raises(UsageError, match="is a folder; name a file with --out"):
        refuse_unwritable_file(tmp_path, "--out")
    refuse_unwritable_file(tmp_path / "new" / "file", "--out")
    assert (tmp_path / "new").is_dir()


@pytest.mark.parametrize(
    "command",
    [
        ["run", "zoo", "--out", "file"],
        ["run", "zoo", "--stages", "colbert"],
        ["answers", "zoo", "--out", "file"],
        ["ablate", "zoo", "--out", "file"],
        ["compression", "zoo"],
        ["compare", "zoo", "zoo", "--stages", ","],
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_indexed(in_zoo, zoo, command):
    (in_zoo / "file").touch()
    ran = CliRunner().invoke(app, command)
    assert isinstance(ran.exception, UsageError)
    assert not (in_zoo / ".rag").exists()
