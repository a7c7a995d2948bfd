"""`rag ingest` over the real embedded store."""

import os
from pathlib import Path

import pytest

from ingest import sync
from ingest.discover import Discovery, discover
from ingest.manifest import Manifest
from ingest.sync import Pruning, PruningRefused
from rag.errors import UsageError
from tests.ingest.bench import counts, numbered
from tests.ingest.commands import rag, settled_in
from tests.ingest.workplace import Workplace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    return Workplace(tmp_path, monkeypatch)


def write_many(place: Workplace, count: int, words: str = "file") -> None:
    for number in range(count):
        place.write(f"f{number:02}.txt", numbered(f"{words} {number} sentence", range(3)))


async def test_the_collection_holds_what_the_files_hold(place: Workplace):
    write_many(place, 3)
    assert counts(await place.sync()) == (3, 0, 0, 0)
    place.write("f01.txt", "Changed.")
    place.write("below/new.txt", "New.")
    assert counts(await place.sync()) == (1, 1, 2, 0)
    assert (await place.judged()).is_clean
    assert (await place.see()).passages == 2 + 1 + 2 + 1


async def test_a_file_that_vanished_stays_until_pruning_is_asked_for(place: Workplace):
    write_many(place, 6)
    await place.sync()
    (place.docs / "f03.txt").unlink()
    assert (await place.sync()).deleted == 0
    assert len(await place.texts()) == 6
    report = await place.sync(prune=True)
    assert (report.deleted, report.unchanged) == (1, 5)
    assert (await place.judged()).is_clean


async def test_pruning_deletes_in_the_sources_that_were_named_and_nowhere_else(place: Workplace, tmp_path: Path):
    write_many(place, 2)
    wiki = tmp_path / "wiki"
    wiki.mkdir()
    for number in range(6):
        (wiki / f"w{number}.txt").write_text(f"Wiki {number}.", encoding="utf-8")
    await place.sync(found=discover([place.docs, wiki], None))
    (place.docs / "f00.txt").unlink()
    (wiki / "w0.txt").unlink()
    assert (await place.sync(found=discover([wiki], None), prune=True)).deleted == 1
    remaining = [record.document_id for record in await place.documents()]
    assert remaining == ["docs/f00.txt", "docs/f01.txt", *(f"wiki/w{number}.txt" for number in range(1, 6))]


async def test_a_source_that_is_empty_now_is_pruned_when_that_is_said_twice(place: Workplace):
    write_many(place, 2)
    await place.sync()
    for file in place.docs.iterdir():
        file.unlink()
    with pytest.raises(UsageError, match="would delete 2 of the 2"):
        await place.sync(prune=True)
    assert (await place.sync(prune=True, force=True)).deleted == 2
    assert await place.texts() == {}


@pytest.mark.parametrize(("known", "vanished"), [(10, 3), (1, 1)], ids=["more than a fifth", "all"])
async def test_pruning_much_is_refused_and_then_nothing_is_changed(place: Workplace, known: int, vanished: int):
    write_many(place, known)
    await place.sync()
    before = await place.state()
    for number in range(vanished):
        (place.docs / f"f{number:02}.txt").unlink()
    place.write("new.txt", "New.") if known > 1 else None
    with pytest.raises(UsageError) as caught:
        await place.sync(prune=True)
    assert f"would delete {vanished} of the {known} items of source 'docs'" in str(caught.value)
    assert "docs/f00.txt" in str(caught.value)
    assert "--force" in str(caught.value)
    assert await place.state() == before

    assert (await place.sync(prune=True, force=True)).deleted == vanished
    assert (await place.judged()).is_clean


async def test_a_fifth_is_pruned_without_being_told_twice(place: Workplace):
    write_many(place, 10)
    await place.sync()
    for number in range(2):
        (place.docs / f"f{number:02}.txt").unlink()
    assert (await place.sync(prune=True)).deleted == 2


async def test_files_of_a_folder_that_cannot_be_listed_are_not_pruned(place: Workplace, monkeypatch):
    write_many(place, 10)
    place.write("locked/a.txt", "Inside.")
    place.write("locked/deep/b.txt", "Deeper.")
    await place.sync()
    (place.docs / "f00.txt").unlink()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    report = await place.sync(prune=True)
    assert report.deleted == 1
    (failure,) = report.failed
    assert (failure.path, failure.reason) == (str(place.docs / "locked"), "cannot be listed: Permission denied")
    assert {"docs/locked/a.txt", "docs/locked/deep/b.txt"} <= (await place.texts()).keys()


async def test_items_of_another_folder_of_the_same_name_are_not_pruned_while_they_are_there(place, tmp_path: Path):
    write_many(place, 2)
    await place.sync()
    other = tmp_path / "other" / "docs"
    other.mkdir(parents=True)
    for number in range(8):
        (other / f"o{number}.txt").write_text(f"Other {number}.", encoding="utf-8")
    found = discover([other], None)
    assert (await place.sync(found=found, prune=True)).deleted == 0
    assert (await sync.plan_files(place.settings, found, Pruning(wanted=True))).delete == []
    assert {"docs/f00.txt", "docs/f01.txt", "docs/o0.txt"} <= (await place.texts()).keys()

    (other / "o0.txt").unlink()
    (place.docs / "f00.txt").unlink()
    assert (await place.sync(found=found, prune=True)).deleted == 1, "o0 is no longer in its own folder's listing"
    assert (await place.sync(found=discover([other], None), prune=True)).deleted == 1
    assert {"docs/f00.txt", "docs/o0.txt"}.isdisjoint(await place.texts())


async def test_a_name_that_is_no_utf_8_is_reported_by_every_kind_of_run(place: Workplace):
    write_many(place, 6)
    (place.docs / os.fsdecode(b"caf\xe9.txt")).write_text("Text.", encoding="utf-8")
    for prune in (False, True):
        reports = await place.plan(prune=prune), await place.sync(prune=prune)
        for report in reports:
            assert [failure.path for failure in report.failed] == [f"{place.docs}/caf\\udce9.txt"]
    assert len(await place.texts()) == 6


def test_names_that_are_no_utf_8_are_printed_and_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / os.fsdecode(b"place\xe9")
    folder.mkdir()
    place = settled_in(folder, monkeypatch)
    place.write("a.txt", "Wine ferments in steel tanks.")
    for name in (b"caf\xe9.txt", b"caf\xe9.png"):
        (place.docs / os.fsdecode(name)).write_bytes(b"Text.")
    said = rag("ingest", str(place.docs))
    assert said.status == 1
    assert "1 added" in said.out
    assert "no regular files): caf\\udce9.png" in said.out
    assert "caf\\udce9.txt: its name is not valid UTF-8; rename it" in said.out
    assert "place\\udce9" in rag("jobs", "show", "1").out
    for arguments in ([os.fsdecode(b"gone\xe9")], ["docs", "--source", os.fsdecode(b"\xe9")]):
        said = rag("ingest", *arguments, "--json")
        assert said.error[0] == 2
        said.out.encode()


def test_a_pipe_that_is_named_outright_fails_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = settled_in(tmp_path, monkeypatch)
    os.mkfifo(place.docs / "x.md")
    said = rag("ingest", str(place.docs / "x.md"), "--json")
    (failure,) = said.json["failed"]
    assert (said.status, failure["path"]) == (1, str(place.docs / "x.md"))
    assert "not a regular file" in failure["reason"]
    assert rag("ingest", "docs", "--json").json["failed"] == []


def test_a_stream_whose_pruning_is_refused_is_reported_and_then_fails(tmp_path, monkeypatch):
    settled_in(tmp_path, monkeypatch)
    feed = b"".join(b'{"id": %d, "text": "Record %d."}\n' % (number, number) for number in range(6))
    assert rag("ingest", "-", "--source", "feed", lines=feed).status == 0
    arguments = ("ingest", "-", "--source", "feed", "--prune")
    said = rag(*arguments, "--json", lines=b'{"id": "new", "text": "New."}\n')
    assert said.status == 2
    assert (said.json["added"], said.json["deleted"]) == (1, 0)
    assert said.json["error"]["code"] == "invalid_request"
    assert "would delete 6 of the 7" in said.json["error"]["message"]
    assert f"rag: {said.json['error']['message']}" in said.err

    said = rag(*arguments, lines=b"{broken")
    assert said.status == 2
    assert "1 failed" in said.out
    assert "standard input, line 1" in said.out
    assert "rag: nothing is pruned: 1 lines could not be read" in said.err


async def test_a_file_that_cannot_be_read_keeps_its_old_version_and_is_tried_again(place: Workplace):
    write_many(place, 6)
    await place.sync()
    wanted = await place.texts()
    place.write("f00.txt", "")
    for _ in range(2):
        report = await place.sync(prune=True)
        assert [failure.path for failure in report.failed] == [str(place.docs / "f00.txt")]
        assert await place.texts() == wanted
    place.write("f00.txt", "Readable again.")
    assert counts(await place.sync()) == (0, 1, 5, 0)
    assert (await place.judged()).is_clean


async def test_a_file_that_moved_is_found_in_its_new_place_and_embeds_nothing(place: Workplace):
    write_many(place, 6)
    await place.sync()
    target = place.docs / "moved" / "renamed.txt"
    target.parent.mkdir()
    (place.docs / "f00.txt").rename(target)
    place.embedder.texts.clear()
    report = await place.sync(prune=True)
    assert (report.added, report.deleted, report.embedded) == (1, 1, 0)
    assert place.embedder.texts == []
    assert (await place.judged()).is_clean
    assert "docs/moved/renamed.txt" in await place.texts()


async def test_a_dry_run_says_what_would_be_done_and_changes_nothing(place: Workplace):
    write_many(place, 10)
    await place.sync()
    place.write("f00.txt", "Changed.")
    place.write("new.txt", "New.")
    (place.docs / "f01.txt").unlink()
    (place.docs / "gone.txt").symlink_to(place.docs / "nowhere.txt")
    before = await place.state()

    plan = await place.plan(prune=True)
    assert (plan.add, plan.update, plan.delete, plan.unchanged) == (
        ["docs/new.txt"],
        ["docs/f00.txt"],
        ["docs/f01.txt"],
        8,
    )
    assert [failure.path for failure in plan.failed] == [str(place.docs / "gone.txt")]
    assert (await place.plan()).delete == []
    assert await place.state() == before

    (place.docs / "gone.txt").unlink()
    report = await place.sync(prune=True)
    assert (report.added, report.updated, report.deleted, report.unchanged) == (1, 1, 1, 8)


async def test_a_dry_run_refuses_what_the_run_would_refuse(place: Workplace):
    write_many(place, 2)
    await place.sync()
    (place.docs / "f00.txt").unlink()
    with pytest.raises(UsageError, match="would delete 1 of the 2"):
        await place.plan(prune=True)
    assert (await place.plan(prune=True, force=True)).delete == ["docs/f00.txt"]


async def test_a_dry_run_before_anything_was_ingested_plans_all_of_it_and_leaves_nothing(place: Workplace):
    write_many(place, 2)
    plan = await place.plan(prune=True)
    assert plan.add == ["docs/f00.txt", "docs/f01.txt"]
    assert not place.settings.data.dir.exists()
    assert [path.name for path in place.folder.iterdir()] == ["docs"]


async def test_a_dry_run_names_what_has_an_id_that_is_taken(place: Workplace, tmp_path: Path):
    write_many(place, 2)
    await place.sync()
    other = tmp_path / "other" / "docs"
    other.mkdir(parents=True)
    (other / "f00.txt").write_text("Another.", encoding="utf-8")
    for paths in ([other], [place.docs, other]):
        found = discover(paths, None)
        plan = await sync.plan_files(place.settings, found, Pruning())
        assert (plan.add, plan.update) == ([], [])
        assert [failure.path for failure in plan.failed] == [str(other / "f00.txt")]
        assert plan.failed == (await place.sync(found=found)).failed


async def test_a_manifest_that_was_lost_does_not_keep_what_was_deleted_meanwhile(place: Workplace):
    write_many(place, 6)
    place.write("records.jsonl", "".join(f'{{"text": "Record {number}."}}\n' for number in range(20)))
    await place.sync()
    wanted = await place.texts()
    for file in place.manifest_file.parent.glob("manifest.sqlite*"):
        file.unlink()
    (place.docs / "f00.txt").unlink()
    report = await place.sync(prune=True)
    assert (report.deleted, report.embedded, report.failed) == (1, 0, [])
    del wanted["docs/f00.txt"]
    assert await place.texts() == wanted
    assert (await place.see()).hidden == 0


async def test_records_of_a_stream_are_documents_by_their_ids(place: Workplace):
    first = await place.stream({"id": "a", "text": "One."}, b"", {"id": "b", "text": "Two.", "title": "T"})
    assert counts(first) == (2, 0, 0, 0)
    second = await place.stream({"id": "b", "text": "Two.", "title": "T"}, {"id": "a", "text": "Changed."})
    assert counts(second) == (0, 1, 1, 0), "the order of lines says nothing"
    assert [(r.document_id, r.source) for r in await place.documents()] == [("feed/a", "feed"), ("feed/b", "feed")]


async def test_a_stream_is_pruned_in_its_source(place: Workplace):
    write_many(place, 2)
    await place.sync()
    records = [{"id": number, "text": f"Record {number}."} for number in range(6)]
    await place.stream(*records)
    report = await place.stream(*records[1:], prune=True)
    assert (report.deleted, report.unchanged) == (1, 5)
    assert [record.document_id for record in await place.documents()] == [
        "docs/f00.txt",
        "docs/f01.txt",
        *(f"feed/{number}" for number in range(1, 6)),
    ]


async def test_a_stream_that_would_prune_much_is_ingested_whole_and_then_refused(place: Workplace, monkeypatch):
    from ingest.pipeline import Ingestion
    from ingest.runs import RunLog

    finish, finished = Ingestion.finish, 0

    async def counted(ingestion: Ingestion) -> None:
        nonlocal finished
        finished += 1
        await finish(ingestion)

    monkeypatch.setattr(Ingestion, "finish", counted)

    await place.stream(*({"id": number, "text": f"Record {number}."} for number in range(6)))
    await place.stream({"id": 0, "text": "Record 0 changed."})
    with pytest.raises(PruningRefused, match="would delete 6 of the 7") as caught:
        await place.stream({"id": "new", "text": "New."}, prune=True)
    assert counts(caught.value.report) == (1, 0, 0, 0)
    assert finished == 3, "each of the runs was finished once"
    assert len(await place.documents()) == 7
    assert (await place.see()).hidden == 0
    manifest = Manifest(place.manifest_file)
    run = RunLog(manifest.connection).all(1)[0]
    manifest.close()
    assert (run.state, run.report["added"]) == ("failed", 1)
    assert "would delete 6 of the 7" in run.error
    assert (await place.stream({"id": "new", "text": "New."}, prune=True, force=True)).deleted == 6


async def test_a_line_that_cannot_be_read_fails_alone_and_nothing_is_pruned(place: Workplace):
    await place.stream(*({"id": number, "text": f"Record {number}."} for number in range(6)))
    lines = [{"id": 0, "text": "Changed."}, b"{broken", b"\xff\xfe", {"id": 1, "text": ""}]
    report = await place.stream(*lines)
    assert counts(report) == (0, 1, 0, 3)
    assert [failure.path for failure in report.failed] == [f"standard input, line {n}" for n in (2, 3, 4)]
    with pytest.raises(UsageError, match="nothing is pruned: 3 lines could not be read"):
        await place.stream(*lines, prune=True, force=True)
    assert len(await place.documents()) == 6


async def test_of_two_records_with_one_id_the_second_is_named(place: Workplace):
    report = await place.stream({"id": "a", "text": "One."}, {"id": "a", "text": "Two."})
    assert counts(report) == (1, 0, 0, 1)
    assert report.failed[0].path == "standard input, line 2"
    assert "document id 'feed/a'" in report.failed[0].reason
    assert counts(await place.stream({"id": "a", "text": "One."})) == (0, 0, 1, 0)


async def test_what_the_log_says_is_what_was_reported(place: Workplace):
    from ingest.runs import RunLog

    write_many(place, 2)
    place.write("empty.txt", "")
    await place.sync()
    manifest = Manifest(place.manifest_file)
    (run,) = RunLog(manifest.connection).all(10)
    assert (run.state, run.command) == ("done", "rag ingest")
    assert (run.report["added"], run.report["failed"]) == (2, 1)
    assert [failure.path for failure in RunLog(manifest.connection).failures(run.id)] == [str(place.docs / "empty.txt")]
    manifest.close()


async def test_nothing_found_is_no_error_and_makes_no_collection(place: Workplace):
    report = await place.sync(found=Discovery((), (), (), ("docs",)), prune=True)
    assert counts(report) == (0, 0, 0, 0)
    assert await place.see() is None
