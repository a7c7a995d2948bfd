import asyncio

import pytest

from ingest import run as running
from rag.bootstrap import live_generation
from tests.ingest.commands import rag, refused, settled_in
from tests.ingest.workplace import Workplace


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Workplace:
    return settled_in(tmp_path, monkeypatch)


@pytest.fixture
def workplace(empty) -> Workplace:
    """A run in which two files of three failed."""
    empty.write("good.txt", "Wine ferments in steel tanks.")
    for name in ("bad.txt", "worse.txt"):
        (empty.docs / name).write_bytes(b"\0\1\2")
    assert rag("ingest", "docs", "--source", "manual", "--json").status == 1
    return empty


def ids() -> list[str]:
    return [document["document_id"] for document in rag("documents", "list", "--json").json["documents"]]


def failed_paths(said) -> list[str]:
    return [failure["path"].rpartition("/")[2] for failure in said.json["failed"]]


def test_runs_are_listed_the_latest_first(workplace):
    rag("documents", "delete", "manual/good.txt", "--yes")
    said = rag("jobs", "list", "--json")
    assert (said.status, said.json.keys()) == (0, {"jobs"})
    latest, first = said.json["jobs"]
    assert latest.keys() == {"id", "started", "ended", "state", "command", "report", "error"}
    assert (latest["command"], latest["report"]["deleted"]) == ("rag documents delete manual/good.txt --yes", 1)
    assert (first["id"], first["command"]) == (latest["id"] - 1, "rag ingest docs --source manual --json")
    assert (first["state"], first["error"]) == ("done", None)
    assert (first["report"]["added"], first["report"]["failed"]) == (1, 2)
    assert first["started"] <= first["ended"] <= latest["ended"]
    assert len(rag("jobs", "list", "--limit", "1", "--json").json["jobs"]) == 1
    assert "1 added, 2 failed  rag ingest docs" in rag("jobs", "list").out


def test_a_run_is_shown_with_what_failed_and_why(workplace):
    (number,) = (job["id"] for job in rag("jobs", "list", "--json").json["jobs"])
    said = rag("jobs", "show", str(number), "--json")
    assert failed_paths(said) == ["bad.txt", "worse.txt"]
    assert all("binary" in failure["reason"] for failure in said.json["failed"])
    out = rag("jobs", "show", str(number)).out
    assert out.startswith("rag ingest docs --source manual --json\ndone: began ")
    assert f"failed: {workplace.docs / 'bad.txt'}: " in out


def test_a_run_that_ended_early_is_shown_with_its_error(workplace):
    workplace.embedder.fails_at = 0
    workplace.write("more.txt", "Oak comes later.")
    assert rag("ingest", "docs", "--source", "manual", "--json").error[:2] == (3, "model_failed")
    (latest, _) = rag("jobs", "list", "--json").json["jobs"]
    assert (latest["state"], latest["error"]) == ("failed", "the model failed")
    assert "error: the model failed\n" in rag("jobs", "show", str(latest["id"])).out


def test_a_run_that_is_not_known_is_refused(workplace):
    for command in (["show", "999"], ["retry", "999"]):
        status, code, message = rag("jobs", *command, "--json").error
        assert (status, code) == (2, "invalid_request")
        assert message.startswith("there is no run 999; `rag jobs list` shows")


def test_what_failed_is_read_again_into_its_source(workplace):
    workplace.write("bad.txt", "Now it is text about copper.")
    said = rag("jobs", "retry", "--json")
    assert (said.status, said.json["added"], said.json["unchanged"]) == (1, 1, 0)
    assert failed_paths(said) == ["worse.txt"]
    assert ids() == ["manual/bad.txt", "manual/good.txt"]
    # As `rag ingest` would have left it.
    workplace.write("worse.txt", "And this is text too.")
    said = rag("ingest", "docs", "--source", "manual", "--json").json
    assert (said["added"], said["unchanged"], said["failed"]) == (1, 2, [])


def test_the_last_run_in_which_something_failed_is_retried(workplace):
    workplace.write("other.txt", "Another one.")
    rag("ingest", "docs/other.txt", "--source", "others")
    workplace.write("bad.txt", "Now it is text about copper.")
    workplace.write("worse.txt", "And this is text too.")
    said = rag("jobs", "retry", "--json")
    assert (said.status, said.json["added"]) == (0, 2)
    assert rag("jobs", "list", "--json").json["jobs"][0]["command"] == "rag jobs retry --json"


def test_a_version_that_was_searchable_stays_when_the_retry_fails(workplace):
    workplace.write("good.txt", "Wine ferments in oak.")
    rag("ingest", "docs", "--source", "manual")
    (workplace.docs / "good.txt").write_bytes(b"\0\1\2")
    rag("ingest", "docs", "--source", "manual")
    said = rag("jobs", "retry", "--json")
    assert failed_paths(said) == ["bad.txt", "good.txt", "worse.txt"]
    assert ids() == ["manual/good.txt"]


def test_a_file_that_is_gone_is_named(workplace):
    (workplace.docs / "bad.txt").unlink()
    workplace.write("worse.txt", "And this is text too.")
    said = rag("jobs", "retry", "--json")
    assert (said.status, said.json["added"]) == (1, 1)
    assert [failure["reason"] for failure in said.json["failed"]] == ["cannot be read: No such file or directory"]


def test_what_was_read_since_is_not_read_again(workplace, monkeypatch):
    (number,) = (job["id"] for job in rag("jobs", "list", "--json").json["jobs"])
    for name in ("bad.txt", "worse.txt"):
        workplace.write(name, f"Now {name} is text.")
    rag("ingest", "docs", "--source", "manual")
    monkeypatch.setattr(running, "build_embedder", refused("the model was loaded"))
    said = rag("jobs", "retry", str(number), "--json")
    assert (said.status, said.json["added"], said.json["failed"]) == (0, 0, [])


def test_a_line_of_a_stream_cannot_be_retried_and_says_what_to_run(empty):
    rag("ingest", "-", "--source", "feed", "--json", lines=b'{"id": 1, "text": "Copper."}\n{broken\n')
    said = rag("jobs", "retry", "--json")
    assert said.status == 1
    (failure,) = said.json["failed"]
    assert failure == {
        "path": "standard input, line 2",
        "reason": "cannot be retried by itself; run again: rag ingest - --source feed --json",
    }


def test_where_nothing_failed_there_is_nothing_to_retry(empty):
    empty.write("good.txt", "Wine ferments in steel tanks.")
    rag("ingest", "docs")
    assert rag("jobs", "retry", "--json").error[2].startswith("nothing failed in any run")
    (number,) = (job["id"] for job in rag("jobs", "list", "--json").json["jobs"])
    assert rag("jobs", "retry", str(number), "--json").error[2].startswith(f"nothing failed in run {number}")


def test_where_everything_failed_the_log_is_there_all_the_same(empty):
    (empty.docs / "bad.txt").write_bytes(b"\0\1\2")
    rag("ingest", "docs")
    assert asyncio.run(live_generation(empty.settings)) is None
    assert rag("jobs", "list", "--json").json["jobs"][0]["report"]["failed"] == 1
    empty.write("bad.txt", "Now it is text.")
    assert rag("jobs", "retry", "--json").json["added"] == 1
    assert ids() == ["docs/bad.txt"]


def test_where_nothing_was_ingested_there_is_no_log(empty):
    for command in (["list"], ["show", "1"], ["retry"]):
        status, code, message = rag("jobs", *command, "--json").error
        assert (status, code) == (2, "configuration_error")
        assert message.startswith("nothing is ingested yet")
