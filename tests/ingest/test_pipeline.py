"""The write path over an in-memory store."""

import asyncio
import json
from pathlib import Path

import pytest

from ingest.discover import discover
from ingest.items import FileItem
from ingest.manifest import Manifest
from ingest.report import Progress, Report
from rag.errors import ModelRuntimeError
from rag.settings import Chunking
from rag.types import Document
from tests.ingest.bench import Bench, FragileEmbedder, counts, numbered

THREE_SENTENCES = "The moon causes the tides. The sun helps a little. Wind does not."


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_run_counts_what_is_added_updated_and_unchanged(bench: Bench):
    bench.write(a_md=THREE_SENTENCES, b_txt="Wine ferments.", c_md="Backups are kept.")
    first = await bench.ingest()
    assert counts(first) == (3, 0, 0, 0)
    assert first.passages == first.embedded == 4 == len(bench.passages)
    assert first.seconds >= first.encoder_seconds > 0

    bench.write(b_txt="Wine ferments in steel.", d_md="A new one.")
    second = await bench.ingest()
    assert counts(second) == (1, 1, 2, 0)
    assert second.passages == second.embedded == 2

    third = await bench.ingest()
    assert counts(third) == (0, 0, 4, 0)
    assert (third.passages, third.embedded, third.encoder_seconds) == (0, 0, 0)


async def test_the_collection_is_made_once_from_what_is_indexed(bench: Bench):
    bench.write(a_md="# Tides\n\nThe moon causes them.")
    await bench.ingest()
    bench.write(b_md="More.")
    await bench.ingest()
    assert bench.created == [["Tides\n# Tides\n\nThe moon causes them."]]


async def test_an_updated_file_leaves_no_passage_of_its_old_version(bench: Bench):
    bench.write(a_md=THREE_SENTENCES + " It never did. Nor will it.", b_md="Wine ferments.")
    await bench.ingest()
    bench.write(a_md="Only this is left.")
    await bench.ingest()
    assert bench.texts == {"docs/a.md": ["Only this is left."], "docs/b.md": ["Wine ferments."]}
    assert bench.hidden == frozenset()


async def test_a_file_that_turns_back_to_an_older_version_is_that_version_again(bench: Bench):
    for text in ("First.", "Second.", "First."):
        bench.write(a_md=text)
        assert (await bench.ingest()).embedded == 1
    assert bench.texts == {"docs/a.md": ["First."]}


async def test_bytes_that_changed_without_the_text_are_read_and_not_written(bench: Bench):
    bench.write(a_md="Wine ferments.")
    await bench.ingest()
    bench.store.calls.clear()
    bench.write(a_md=b"\xef\xbb\xbfWine ferments.")
    assert counts(await bench.ingest()) == (0, 0, 1, 0)
    assert counts(await bench.ingest()) == (0, 0, 1, 0)
    assert bench.store.calls == []


async def test_a_document_is_divided_by_meaning_where_that_is_configured(bench: Bench):
    text = "The moon causes tides. The moon causes ebb. Wine ferments in oak. Wine ferments in steel."
    bench.write(a_md=text)
    semantic = Chunking(strategy="semantic", buffer_sentences=0, min_tokens=1, breakpoint_percentile=60)
    found = discover([bench.docs], None).files
    await bench.run(lambda ingestion: ingestion.run(found), chunking=semantic)
    assert "".join(bench.texts["docs/a.md"]) == text
    assert [part.strip() for part in bench.texts["docs/a.md"]] == [text[:43], text[44:]]


async def test_passages_say_exactly_where_they_stand(bench: Bench):
    text = "# Tides\n\nDer Mond – ein Trabant – bewirkt sie. 🌊 Ja.\n\n## Sun\n\nIt helps. A little. Only so.\n"
    bench.write(a_md=b"\xef\xbb\xbf---\ntitle: On tides\ntags: [sea, moon]\n---\n" + text.encode())
    await bench.ingest()

    passages = bench.passages
    assert "".join(passage.text for passage in passages) in text
    whole = text[text.index(passages[0].text) :]
    for passage in passages:
        start = passage.start - passages[0].start
        assert whole[start : start + len(passage.text)] == passage.text
        assert passage.end - passage.start == len(passage.text)
        assert (passage.title, passage.source, passage.document_id) == ("On tides", "docs", "docs/a.md")
        assert passage.metadata == {"tags": ["sea", "moon"], "media_type": "text/markdown"}
    assert [passage.headings[-1] for passage in passages] == ["Tides", "Sun", "Sun"]
    assert len({passage.version for passage in passages}) == 1


async def test_files_that_cannot_be_read_are_named_and_stop_nothing(bench: Bench):
    bench.write(binary_md=bytes(range(256)) * 20, empty_md="", good_md="Wine ferments.", locked_pdf=_locked_pdf())
    (bench.docs / "gone.md").symlink_to(bench.docs / "nowhere.md")

    report = await bench.ingest()

    assert counts(report) == (1, 0, 0, 4)
    reasons = {Path(failure.path).name: failure.reason for failure in report.failed}
    assert Path(report.failed[0].path).is_absolute()
    assert "binary" in reasons["binary.md"]
    assert "empty" in reasons["empty.md"]
    assert reasons["gone.md"] == "cannot be read: No such file or directory"
    assert "password" in reasons["locked.pdf"]
    assert list(bench.texts) == ["docs/good.md"]

    bench.write(empty_md="No longer.")
    assert counts(await bench.ingest()) == (1, 0, 1, 3)


async def test_a_file_that_has_become_unreadable_keeps_its_last_version_and_is_tried_again(bench: Bench):
    bench.write(a_md="Wine ferments.")
    await bench.ingest()
    bench.write(a_md="")
    assert counts(await bench.ingest()) == (0, 0, 0, 1)
    assert bench.texts == {"docs/a.md": ["Wine ferments."]}
    assert counts(await bench.ingest()) == (0, 0, 0, 1)
    bench.write(a_md="Wine ferments.")
    assert counts(await bench.ingest()) == (0, 0, 1, 0)


async def test_nothing_is_created_when_no_file_can_be_read(bench: Bench):
    bench.write(a_md="")
    assert counts(await bench.ingest()) == (0, 0, 0, 1)
    assert bench.created == []


async def test_an_item_that_never_was_readable_can_be_removed_although_there_is_no_collection(bench: Bench):
    bench.write(a_md="")
    await bench.ingest()
    await bench.remove("docs/a.md")
    manifest = Manifest(bench.manifest_file)
    assert list(manifest.items("default")) == []
    manifest.close()


async def test_removed_items_take_their_documents_along_and_a_copy_elsewhere_stays(bench: Bench):
    bench.write(a_md="Wine ferments.", b_md="Wine ferments.", records_jsonl='{"text": "One."}\n{"text": "Two."}\n')
    await bench.ingest()
    assert list(bench.texts) == ["docs/a.md", "docs/b.md", "docs/records.jsonl#1", "docs/records.jsonl#2"]
    report = await bench.remove("docs/a.md", "docs/records.jsonl")
    assert (report.deleted, report.embedded) == (3, 0)
    assert bench.texts == {"docs/b.md": ["Wine ferments."]}


async def test_a_record_that_left_its_file_is_deleted_and_the_others_are_kept(bench: Bench):
    bench.write(records_jsonl='{"id": "x", "text": "One."}\n{"id": "y", "text": "Two."}\n')
    await bench.ingest()
    bench.write(records_jsonl='{"id": "y", "text": "Two."}\n{"id": "z", "text": "Three."}\n')
    report = await bench.ingest()
    assert (report.added, report.updated, report.unchanged, report.deleted, report.embedded) == (1, 0, 1, 1, 1)
    assert bench.texts == {"docs/records.jsonl#y": ["Two."], "docs/records.jsonl#z": ["Three."]}


async def test_the_same_content_in_many_files_is_embedded_once_and_found_under_each(bench: Bench):
    bench.write(**{f"f{number:02}_md": THREE_SENTENCES for number in range(30)})
    report = await bench.ingest()
    assert (report.added, report.embedded, len(bench.passages)) == (30, 2, 2)
    assert len(bench.texts) == 30


async def test_the_same_content_in_files_of_many_batches_is_embedded_once(bench: Bench, in_small_steps: None):
    bench.write(**{f"f{number:02}_md": THREE_SENTENCES for number in range(12)}, z_md="Other. Words. Here.")
    report = await bench.ingest()
    assert (report.added, report.embedded, len(bench.passages)) == (13, 4, 4)
    bench.write(**{f"g{number:02}_md": "New. Words. Here." for number in range(12)})
    report = await bench.ingest()
    assert (report.added, report.embedded, len(bench.passages)) == (12, 2, 6)


@pytest.mark.parametrize("at_once", [True, False], ids=["in one run", "in two runs"])
async def test_the_same_path_in_another_folder_is_refused_with_the_remedy(bench: Bench, tmp_path: Path, at_once: bool):
    bench.write(a_md="Wine ferments.")
    other = tmp_path / "elsewhere" / "docs"
    other.mkdir(parents=True)
    (other / "a.md").write_text("Something else.", encoding="utf-8")

    if not at_once:
        await bench.ingest()
    report = await bench.ingest(*([bench.docs, other] if at_once else [other]))

    (failure,) = report.failed
    assert failure.path == str(other / "a.md")
    assert "its document id 'docs/a.md'" in failure.reason
    assert "--source" in failure.reason
    assert bench.texts == {"docs/a.md": ["Wine ferments."]}

    assert counts(await bench.ingest()) == (0, 0, 1, 0), "the file that has the id keeps it"
    assert counts(await bench.ingest(other, source="other")) == (1, 0, 0, 0)
    assert bench.texts == {"docs/a.md": ["Wine ferments."], "other/a.md": ["Something else."]}


async def test_a_folder_that_was_moved_keeps_its_documents(bench: Bench, tmp_path: Path):
    bench.write(a_md="Wine ferments.")
    await bench.ingest()
    (tmp_path / "new").mkdir()
    moved = bench.docs.rename(tmp_path / "new" / "docs")
    assert counts(await bench.ingest(moved)) == (0, 0, 1, 0)


async def test_progress_never_falls_back_and_ends_at_the_total(bench: Bench, in_small_steps: None):
    bench.write(a_md="One. Two. Three.", b_md="", c_md="Four.", d_md="Five.", e_md="Six.")
    await bench.ingest()
    assert bench.progress[0] == Progress(0, 5, 0)
    assert bench.progress[-1] == Progress(5, 5, 5, failed=1)
    steps = [(progress.documents, progress.passages) for progress in bench.progress]
    assert steps == sorted(steps)
    assert len(set(steps)) > 4

    bench.progress.clear()
    await bench.ingest()
    assert (bench.progress[0], bench.progress[-1]) == (Progress(0, 5, 0), Progress(5, 5, 0, failed=1))


async def test_every_run_ends_by_optimising_the_store_since_an_earlier_one_may_not_have_come_to_it(bench: Bench):
    bench.write(a_md="Wine ferments.")
    await bench.ingest()
    assert bench.store.optimized == 1
    await bench.ingest()
    assert bench.store.optimized == 2


async def test_documents_that_are_text_already_replace_their_older_versions(bench: Bench):
    def document(name: str, version: str) -> Document:
        return Document(id=name, version=version, source="set", title=name.title(), text=f"{name} {version}.")

    assert counts(await bench.ingest_documents(document("tides", "v1"), document("wine", "v1"))) == (2, 0, 0, 0)
    assert counts(await bench.ingest_documents(document("tides", "v1"), document("wine", "v2"))) == (0, 1, 1, 0)
    assert bench.texts == {"tides": ["tides v1."], "wine": ["wine v2."]}


async def test_documents_of_the_same_text_keep_a_passage_each_where_every_id_is_judged(bench: Bench):
    twins = [Document(id=name, version="", source="set", title="Same", text="Same text.") for name in ("one", "two")]
    await bench.ingest_documents(*twins)
    assert sorted(passage.document_id for passage in bench.passages) == ["one", "two"]
    assert all(passage.also_in == () for passage in bench.passages)


async def test_the_report_is_what_the_command_prints(bench: Bench):
    bench.write(a_md="Wine ferments.")
    report = await bench.ingest()
    assert json.loads(json.dumps(vars(report))).keys() == {
        "added",
        "updated",
        "unchanged",
        "deleted",
        "failed",
        "warnings",
        "passages",
        "embedded",
        "seconds",
        "encoder_seconds",
        "interrupted",
    }


async def test_what_could_not_be_read_of_a_file_that_was_ingested_is_a_warning(bench: Bench):
    bench.write(records_jsonl='{"text": "One."}\nno json\n')
    report = await bench.ingest()
    assert counts(report) == (1, 0, 0, 0)
    (warning,) = report.warnings
    assert warning.path == str(bench.docs / "records.jsonl")
    assert "line 2" in warning.reason


async def test_a_name_that_is_not_utf8_fails_alone(bench: Bench):
    bench.write(a_md="Text.")
    name = b"caf\xe9.md".decode("utf-8", "surrogateescape")
    (bench.docs / name).write_text("Text.", encoding="utf-8")
    items = [FileItem(bench.docs / file, "docs", f"docs/{file}") for file in ("a.md", name)]
    report = await bench.run(lambda ingestion: ingestion.run(items))
    assert report.added == 1
    (failure,) = report.failed
    assert failure.reason == "its name is not valid UTF-8; rename it"
    failure.path.encode()


async def test_a_model_that_fails_leaves_no_collection_behind(bench: Bench):
    bench.write(a_md="Text.")
    bench.embedder.fails_at = 0
    with pytest.raises(ModelRuntimeError):
        await bench.ingest()
    assert bench.is_new
    assert bench.texts == {}

    bench.embedder.fails_at = None
    assert counts(await bench.ingest()) == (1, 0, 0, 0)
    assert bench.texts == {"docs/a.md": ["Text."]}


async def test_a_collection_that_another_manifest_filled_keeps_no_old_version(bench: Bench):
    bench.write(a_md="The first text.")
    await bench.ingest()
    bench.manifest_file.unlink()
    bench.write(a_md="The second text.")
    await bench.ingest()
    assert bench.texts == {"docs/a.md": ["The second text."]}


async def test_a_run_that_is_stopped_says_so_shows_no_half_document_and_is_continued(
    bench: Bench, in_small_steps: None
):
    bench.write(**{f"f{number:02}_md": numbered(f"file {number} sentence", range(24)) for number in range(4)})
    found = discover([bench.docs], None).files

    async def stopped_while_it_embeds(ingestion) -> Report:
        class Stopping(FragileEmbedder):
            async def embed_passages(self, texts):
                if self.calls == 3:
                    ingestion.stop()
                return await super().embed_passages(texts)

        ingestion._stage = type(ingestion._stage)(
            ingestion.state, Stopping(), ingestion.preparation.chunking, ingestion.create
        )
        return await ingestion.run(found, total=len(found))

    report = await bench.run(stopped_while_it_embeds)
    assert report.interrupted
    assert 0 < report.passages < 48
    shown = [passage for passage in bench.passages if passage.version not in bench.hidden]
    assert len(shown) % 12 == 0
    written = len(bench.passages)
    assert written > 0

    again = await bench.ingest()
    assert not again.interrupted
    assert again.embedded == 48 - written
    assert len(bench.passages) == 48
    assert bench.hidden == frozenset()


async def test_as_many_items_are_prepared_at_once_as_asked_and_no_more(bench: Bench):
    running = most = 0
    four = asyncio.Barrier(4)

    async def met_by_three_others(ingestion) -> Report:
        prepare = ingestion.prepare

        async def counted(item):
            nonlocal running, most
            running += 1
            most = max(most, running)
            async with asyncio.timeout(10):
                await four.wait()
            running -= 1
            return await prepare(item)

        ingestion.prepare = counted
        return await ingestion.run(discover([bench.docs], None).files)

    bench.write(**{f"f{number:02}_md": f"Text {number}." for number in range(20)})
    assert (await bench.run(met_by_three_others)).added == 20
    assert most == 4


def _locked_pdf() -> bytes:
    from io import BytesIO

    from reportlab.pdfgen.canvas import Canvas

    file = BytesIO()
    canvas = Canvas(file, encrypt="secret")
    canvas.drawString(100, 700, "Locked words.")
    canvas.save()
    return file.getvalue()
