import json
import logging
import time

import pytest

from rag.telemetry import Stopwatch, log_request


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when told to, in seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_stages_are_charged_in_milliseconds_in_the_order_they_ran(clock):
    watch = Stopwatch()
    with watch.stage("embed"):
        clock(0.0125)
    clock(1)
    with watch.stage("retrieve"):
        clock(0.25)
    timings = watch.timings_ms()
    assert timings == {"embed": 12.5, "retrieve": 250, "total": 1262.5}
    assert list(timings) == ["embed", "retrieve", "total"]


def test_a_stage_that_runs_twice_adds_up(clock):
    watch = Stopwatch()
    for seconds in (0.1, 0.2):
        with watch.stage("fetch"):
            clock(seconds)
    assert watch.timings_ms() == {"fetch": 300, "total": 300}


def test_a_stage_that_fails_is_charged_too(clock):
    watch = Stopwatch()

    def fail() -> None:
        with watch.stage("generate"):
            clock(0.5)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert watch.timings_ms()["generate"] == 500


def test_total_goes_on_while_stages_stand_still(clock):
    watch = Stopwatch()
    with watch.stage("fuse"):
        clock(0.001)
    first = watch.timings_ms()
    clock(2)
    assert (first["total"], watch.timings_ms()) == (1, {"fuse": 1, "total": 2001})


def test_a_request_is_one_line_of_json(caplog):
    with caplog.at_level(logging.INFO, logger="rag"):
        log_request("search", "r-1", candidates=10, timings_ms={"embed": 1.5}, degraded=False, tenant="a\nb")
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("rag", "INFO")
    assert "\n" not in record.getMessage()
    assert json.loads(record.getMessage()) == {
        "operation": "search",
        "request_id": "r-1",
        "candidates": 10,
        "timings_ms": {"embed": 1.5},
        "degraded": False,
        "tenant": "a\nb",
    }
