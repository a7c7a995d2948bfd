import os
import socket
from pathlib import Path

import pytest

from ingest.discover import IGNORE_FILE, Discovery, Unlisted, discover
from ingest.report import Failure
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


def ids(paths: list[Path], source: str | None = None, **patterns: list[str]) -> list[str]:
    return [file.item_id for file in discover(paths, source, **patterns).files]


def test_a_folder_gives_its_supported_files_in_a_stable_order(docs: Path):
    discovery = discover([docs], None)
    found, passed_over = list(discovery.files), list(discovery.passed_over)
    assert [file.item_id for file in found] == [
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
    assert found[0].item_id == "handbook/a.TXT"
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

    assert {"docs/file.md", "docs/folder/key.md"}.isdisjoint(file.item_id for file in found)
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
    assert discover([tmp_path], None) == Discovery((), (), (), (tmp_path.name,), (tmp_path,))


def test_every_given_path_stands_for_a_source_also_an_empty_one(docs: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert discover([docs, tmp_path / "empty", docs / "b.md"], None).sources == ("docs", "empty")
    assert discover([docs, tmp_path / "empty"], "handbook").sources == ("handbook",)


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder of this name can be listed; permissions would not keep root out."""
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_cannot_be_listed_is_named_with_the_reason_and_what_it_hides(docs: Path, locked: None):
    (docs / "guide" / "locked").mkdir()
    discovery = discover([docs], "handbook")
    assert discovery.unlisted == (
        Unlisted(docs / "guide/locked", "handbook", "handbook/guide/locked/", "cannot be listed: Permission denied"),
    )
    assert len(discovery.files) == 4


def test_a_whole_source_that_cannot_be_listed_hides_all_of_it(tmp_path: Path, locked: None):
    (tmp_path / "locked").mkdir()
    (unlisted,) = discover([tmp_path / "locked"], None).unlisted
    assert (unlisted.source, unlisted.prefix) == ("locked", "locked/")


def test_only_what_is_included_and_not_excluded_is_taken(docs: Path):
    assert ids([docs], include=["*.html", "/b.md"]) == ["docs/b.md", "docs/guide/z.html"]
    assert ids([docs], exclude=["guide/deep/", "*.TXT"]) == ["docs/b.md", "docs/guide/z.html"]
    assert ids([docs], include=["*.md", "*.pdf"], exclude=["deep"]) == ["docs/b.md"]
    assert ids([docs], exclude=["*", "!b.md"]) == ["docs/b.md"]


def test_what_is_left_out_is_not_even_named(docs: Path):
    assert discover([docs], None, exclude=["*.png"]).passed_over == (docs / "guide/README",)


def test_an_ignore_file_leaves_out_as_options_do_and_with_them(docs: Path):
    (docs / IGNORE_FILE).write_text("\ufeff# Drafts\n\nguide/*\n!guide/z.html\n", encoding="utf-8")
    assert ids([docs]) == ["docs/a.TXT", "docs/b.md", "docs/guide/z.html"]
    assert ids([docs], exclude=["*.md"]) == ["docs/a.TXT", "docs/guide/z.html"]


def test_a_folder_that_is_left_out_is_not_listed(docs: Path, locked: None):
    (docs / "locked").mkdir()
    assert discover([docs], None, exclude=["locked/"]).unlisted == ()


def test_patterns_are_of_folders_and_not_of_files_named_outright(docs: Path):
    assert ids([docs / "b.md"], exclude=["*.md"]) == ["docs/b.md"]


def test_a_pattern_that_cannot_be_read_is_refused_with_the_remedy(docs: Path):
    with pytest.raises(UsageError, match=r"a pattern cannot be read.*as in a \.gitignore"):
        discover([docs], None, exclude=["!"])


def test_an_ignore_file_that_cannot_be_read_is_named(docs: Path):
    (docs / IGNORE_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"\.ragignore cannot be read"):
        discover([docs], None)


def undecodable(folder: Path, name: bytes = b"caf\xe9.md") -> Path:
    path = folder / os.fsdecode(name)
    path.write_text("Text.", encoding="utf-8")
    return path


def test_a_file_whose_name_is_no_utf_8_is_a_failure_that_can_be_printed(docs: Path):
    undecodable(docs)
    (docs / os.fsdecode(b"\xff")).mkdir()
    undecodable(docs / os.fsdecode(b"\xff"), b"inside.md")
    found = discover([docs], None)
    assert len(found.files) == 4
    reason = "its name is not valid UTF-8; rename it"
    assert found.unnameable == (
        Failure(f"{docs}/caf\\udce9.md", reason),
        Failure(f"{docs}/\\udcff/inside.md", reason),
    )
    assert found.failures == list(found.unnameable)


def test_a_file_with_such_a_name_that_is_named_outright_fails_too(docs: Path):
    found = discover([undecodable(docs)], None)
    assert (found.files, len(found.unnameable)) == ((), 1)


def test_a_folder_with_such_a_name_needs_a_name_for_its_source(tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "a.md").write_text("Text.", encoding="utf-8")
    with pytest.raises(UsageError, match=r"cannot name a source.*--source NAME") as caught:
        discover([folder], None)
    str(caught.value).encode()
    assert ids([folder], "cafe") == ["cafe/a.md"]


def test_a_path_that_is_no_utf_8_and_does_not_exist_is_named_so_that_it_can_be_printed(tmp_path: Path):
    with pytest.raises(UsageError, match=r"caf\\udce9\.md does not exist"):
        discover([tmp_path / os.fsdecode(b"caf\xe9.md")], None)


def test_a_folder_that_cannot_be_listed_fails_by_a_name_that_can_be_printed():
    unlisted = Unlisted(Path(os.fsdecode(b"/docs/caf\xe9")), "docs", "docs/", "cannot be listed")
    assert Discovery((), (), (unlisted,), ("docs",)).failures == [Failure("/docs/caf\\udce9", "cannot be listed")]


def test_only_regular_files_are_taken(docs: Path):
    os.mkfifo(docs / "pipe.md")
    (docs / "link.md").symlink_to(docs / "pipe.md")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(docs / "s.md"))
        found = discover([docs], None)
    assert {docs / "pipe.md", docs / "link.md", docs / "s.md"} <= set(found.passed_over)
    assert len(found.files) == 4


def test_a_pipe_that_is_named_outright_stands_for_itself_and_not_for_its_folder(docs: Path):
    os.mkfifo(docs / "pipe.md")
    found = discover([docs / "pipe.md"], None)
    assert [file.item_id for file in found.files] == ["docs/pipe.md"]
    assert found.sources == ()


def test_a_pipe_of_the_shell_is_named_as_it_was_given():
    reading, writing = os.pipe()
    try:
        found = discover([Path(f"/dev/fd/{reading}")], None)
    finally:
        os.close(reading)
        os.close(writing)
    assert [file.location for file in found.files] == [f"/dev/fd/{reading}"]


def test_a_folder_inside_another_is_refused_when_its_files_would_be_of_two_sources(docs: Path):
    for paths, inner in (([docs, docs / "guide"], "guide"), ([docs / "guide" / "deep", docs], "deep")):
        with pytest.raises(UsageError, match=rf"source '{inner}'\) lies inside .*source 'docs'\)"):
            discover(paths, None)
    assert len(ids([docs, docs / "guide"], "handbook")) == 4
    assert len(ids([docs, docs])) == 4


def test_a_folder_whose_name_begins_like_that_of_another_is_not_inside_it(docs: Path, tmp_path: Path):
    (tmp_path / "docs-old").mkdir()
    assert discover([docs, tmp_path / "docs-old"], None).sources == ("docs", "docs-old")


def test_a_file_in_a_folder_that_is_given_too_is_the_folders_in_any_order(docs: Path):
    assert ids([docs / "guide/z.html", docs]) == ids([docs])
