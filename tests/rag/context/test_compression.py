from collections.abc import Sequence
from dataclasses import replace

import pytest

from rag.context.compression import Compression, CompressionPolicy
from rag.errors import ProviderRateLimitError
from rag.types import Source

SOURCE = Source(1, "doc", "v1", "", (), 100, 100 + 5 * 400 - 1, " ".join(["word"] * 400), 1.0, ())
POLICY = CompressionPolicy(mode="auto", rate=0.5, min_tokens=100, usd_per_hour=2, usd_per_million_tokens=3)


class Halving:
    """A `Compressor` that keeps the first half of everything; a clock that a test moves says how long it took."""

    name = "halving"

    def __init__(self, clock: list[float], seconds: float = 0.0) -> None:
        self.targets: list[int] = []
        self.closed = False
        self.seconds = seconds
        self._clock = clock

    async def compress(self, question: str, sources: Sequence[Source], *, target_tokens: int) -> Sequence[Source]:
        self._clock[0] += self.seconds
        self.targets.append(target_tokens)
        return [replace(s, kept=((s.start, s.start + len(s.text) // 2),)) for s in sources]

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("rag.context.compression.time.perf_counter", lambda: now[0])
    return now


async def test_what_was_done_is_told_in_tokens_and_milliseconds(clock):
    compressor = Halving(clock, seconds=0.02)
    compressed = await Compression(compressor, POLICY).apply("why?", [SOURCE])
    assert compressed.report.method == "halving"
    assert (compressed.report.tokens_in, compressed.report.tokens_out) == (400, 200)
    assert compressed.report.milliseconds == pytest.approx(20)
    assert compressed.skipped == ""
    assert compressor.targets == [200]
    assert compressed.sources[0].text == SOURCE.text
    assert compressed.sources[0].shown == SOURCE.text[: len(SOURCE.text) // 2]


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        (replace(POLICY, mode="off"), "mode is off"),
        (replace(POLICY, min_tokens=401), "400 tokens are fewer than compression.min_tokens, 401"),
        (replace(POLICY, usd_per_million_tokens=0), "reads for nothing"),
    ],
)
async def test_a_context_that_is_not_compressed_says_why(clock, policy, reason):
    compressor = Halving(clock)
    compressed = await Compression(compressor, policy).apply("why?", [SOURCE])
    assert (compressed.sources, compressed.report) == ((SOURCE,), None)
    assert reason in compressed.skipped
    assert compressor.targets == []


async def test_on_compresses_whatever_it_costs(clock):
    policy = replace(POLICY, mode="on", min_tokens=10_000, usd_per_million_tokens=0)
    assert (await Compression(Halving(clock, seconds=60), policy).apply("why?", [SOURCE])).report is not None


async def test_without_a_compressor_that_is_the_reason():
    assert "no compressor" in (await Compression(None, POLICY).apply("why?", [SOURCE])).skipped


async def test_it_stops_where_waiting_costs_more_than_the_tokens_and_tries_again_later(clock):
    # 200 saved tokens are worth 0.0006 USD, which is 1.08 s of waiting.
    compressor = Halving(clock, seconds=2)
    compression = Compression(compressor, POLICY)
    assert (await compression.apply("why?", [SOURCE])).report is not None  # its speed is not known yet
    assert "0.000600 USD of tokens and cost 0.001111 USD of waiting" in (await compression.apply("?", [SOURCE])).skipped
    compressor.seconds = 0.01
    reports = [(await compression.apply("why?", [SOURCE])).report for _ in range(60)]
    assert sum(report is not None for report in reports) >= 10
    assert reports[-1] is not None


async def test_one_slow_start_does_not_decide(clock):
    compressor = Halving(clock, seconds=1)
    compression = Compression(compressor, POLICY)
    await compression.apply("why?", [SOURCE])
    assert (await compression.apply("why?", [SOURCE])).report is not None


async def test_closing_closes_the_compressor(clock):
    compressor = Halving(clock)
    await Compression(compressor, POLICY).close()
    await Compression().close()
    assert compressor.closed


async def test_a_compressor_that_fails_costs_tokens_and_no_answer(clock):
    class Broken(Halving):
        async def compress(self, question: str, sources: Sequence[Source], *, target_tokens: int) -> Sequence[Source]:
            raise ProviderRateLimitError("the embedding provider asks to slow down")

    compressed = await Compression(Broken(clock), POLICY).apply("why?", [SOURCE])
    assert (compressed.sources, compressed.report, compressed.skipped) == ((SOURCE,), None, "")
    assert "slow down" in compressed.degraded
