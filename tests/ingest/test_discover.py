import os
from pathlib import Path

import pytest

from ingest.discover import Discovery, discover
from rag.errors import UsageError


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with what folders hold."""
    folder = tmp_path / "docs"
    for name in (
        "b.md",
        "a.TXT",
        "photo.png",
        ".hidden.md",
        ".git/notes.md",
        "guide/z.html",
        "guide/deep/report.pdf",
        "guide/README",
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("Text.", encoding="utf-8")
    return folder


def ids(paths: list[Path], source: str | None = None) -> list[str]:
    return [file.document_id for file in discover(paths, source).files]


def test_a_folder_gives_its_supported_files_in_a_stable_order(docs: Path):
    discovery = discover([docs], None)
    found, passed_over = list(discovery.files), list(discovery.passed_over)
    assert [file.document_id for file in found] == [
        "docs/a.TXT",
        "docs/b.md",
        "docs/guide/z.html",
        "docs/guide/deep/report.pdf",
    ]
    assert [file.path for file in found] == [
        docs / "a.TXT",
        docs / "b.md",
        docs / "guide/z.html",
        docs / "guide/deep/report.pdf",
    ]
    assert {file.source for file in found} == {"docs"}
    assert passed_over == [docs / "photo.png", docs / "guide/README"]


def test_a_source_that_is_given_stands_before_every_id(docs: Path):
    found = discover([docs], "handbook").files
    assert found[0].document_id == "handbook/a.TXT"
    assert {file.source for file in found} == {"handbook"}


def test_a_file_named_outright_is_taken_whatever_it_is(docs: Path):
    assert ids([docs / "photo.png", docs / ".hidden.md"]) == ["docs/photo.png", "docs/.hidden.md"]


def test_a_file_given_twice_is_found_once(docs: Path):
    assert ids([docs, docs / "b.md", docs]) == ids([docs])


def test_a_folder_has_the_same_ids_from_wherever_it_is_named(docs: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(docs / "guide")
    assert ids([Path("..")]) == ids([docs])
    assert ids([Path()]) == ["guide/z.html", "guide/deep/report.pdf"]


def test_links_inside_the_folder_are_files_like_others(docs: Path):
    (docs / "c.md").symlink_to(docs / "b.md")
    assert "docs/c.md" in ids([docs])


def test_links_out_of_the_folder_are_passed_over(docs: Path, tmp_path: Path):
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "key.md").write_text("Secret.", encoding="utf-8")
    (docs / "file.md").symlink_to(outside / "key.md")
    (docs / "folder").symlink_to(outside)

    discovery = discover([docs], None)
    found, passed_over = list(discovery.files), list(discovery.passed_over)

    assert {"docs/file.md", "docs/folder/key.md"}.isdisjoint(file.document_id for file in found)
    assert docs / "file.md" in passed_over


def test_a_link_to_a_folder_that_is_named_outright_is_followed(docs: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(docs)
    assert ids([tmp_path / "link"]) == ids([docs])


def test_links_in_a_circle_end(docs: Path):
    (docs / "guide" / "up").symlink_to(docs)
    assert len(ids([docs])) == 4


def test_a_path_that_does_not_exist_is_named(docs: Path):
    with pytest.raises(UsageError, match=r"nowhere\.md does not exist"):
        discover([docs, docs / "nowhere.md"], None)


def test_an_empty_folder_gives_nothing(tmp_path: Path):
    assert discover([tmp_path], None) == Discovery((), (), ())


def test_a_folder_that_cannot_be_listed_is_named_with_the_reason(docs, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    (docs / "locked").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    discovery = discover([docs], None)
    assert discovery.unreadable == ((docs / "locked", "cannot be listed: Permission denied"),)
    assert discovery.files
