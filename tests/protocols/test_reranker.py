"""One suite for every `Reranker`: the fake that other tests rely on must be told apart from no real one."""

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from rag.adapters.graph_reranker import GraphReranker
from rag.adapters.model_folder import read_classifier_folder
from rag.adapters.remote_reranker import RemoteReranker
from rag.adapters.torch_reranker import TorchReranker
from rag.retrieval.rerank import Reranker
from tests.fake_reranker import FakeReranker, overlap
from tests.rag.adapters import tiny_rerankers
from tests.rag.adapters.tiny_rerankers import PASSAGES, QUERY
from tests.wire import Reply, Request, WireServer, json_reply


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rerankers.bert(tmp_path_factory.mktemp("models") / "bert")


def by_overlap(request: Request) -> Reply:
    said = request.json
    results = [
        {"index": index, "relevance_score": overlap(said["query"], text)}
        for index, text in enumerate(said["documents"])
    ]
    return json_reply({"results": results[::-1]})


@pytest.fixture(params=["fake", "graph", "torch", "remote"])
async def make(request, folder: Path, tmp_path: Path):
    """Makes a reranker; all that one test makes are equal."""
    made: list[Reranker] = []
    server = WireServer()
    server.always(by_overlap)
    makers: dict[str, Callable[[], Reranker]] = {
        "fake": FakeReranker,
        "graph": lambda: GraphReranker(
            read_classifier_folder(folder, "tiny"),
            precision="fp32",
            cache_dir=tmp_path,
            batch_tokens=128,
            max_tokens=512,
        ),
        "torch": lambda: TorchReranker(folder, "tiny", max_tokens=512, batch_size=4),
        "remote": lambda: RemoteReranker(url=f"{server.url}/rerank", model="tiny"),
    }

    def maker() -> Reranker:
        made.append(makers[request.param]())
        return made[-1]

    with server:
        yield maker
        for reranker in made:
            await reranker.close()


@pytest.mark.parametrize("timeout_s", [None, 60.0])
async def test_every_passage_has_a_score_that_is_its_own(make, timeout_s: float | None):
    reranker: Reranker = make()
    scores = await reranker.score(QUERY, PASSAGES, timeout_s=timeout_s)
    backwards = await reranker.score(QUERY, PASSAGES[::-1], timeout_s=timeout_s)

    assert len(scores) == len(PASSAGES)
    assert all(isinstance(score, float) and math.isfinite(score) for score in scores)
    assert len(set(scores)) > 2
    assert backwards == pytest.approx(scores[::-1], abs=1e-5)


async def test_the_scores_of_many_are_those_of_each(make):
    reranker: Reranker = make()
    passages = [f"{passage[:40]} {number}" for number, passage in enumerate(PASSAGES * 14)]
    scores = await reranker.score(QUERY, passages, timeout_s=60)
    alone = [(await reranker.score(QUERY, [passage], timeout_s=None))[0] for passage in passages[-4:]]
    assert scores[-4:] == pytest.approx(alone, abs=1e-5)


async def test_nothing_gives_no_scores(make):
    reranker: Reranker = make()
    assert list(await reranker.score(QUERY, [], timeout_s=None)) == []
    assert list(await reranker.score(QUERY, (), timeout_s=1)) == []


async def test_empty_texts_have_scores(make):
    assert len(await make().score("", ["", "the moon", ""], timeout_s=None)) == 3


async def test_without_time_there_are_scores_of_the_first_passages_at_most(make):
    reranker: Reranker = make()
    everything = await reranker.score(QUERY, PASSAGES * 20, timeout_s=None)
    some = await reranker.score(QUERY, PASSAGES * 20, timeout_s=1e-9)
    assert some == pytest.approx(everything[: len(some)], abs=1e-5)


async def test_calls_at_once_have_their_own_answers(make):
    reranker: Reranker = make()
    queries = [" ".join(passage.split()[:4]) for passage in PASSAGES]
    alone = [await reranker.score(query, PASSAGES, timeout_s=None) for query in queries]
    at_once = await asyncio.gather(*(reranker.score(query, PASSAGES, timeout_s=None) for query in queries))
    for expected, found in zip(alone, at_once, strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


async def test_a_call_that_is_given_up_leaves_the_reranker_as_it_was(make):
    reranker: Reranker = make()
    expected = await reranker.score(QUERY, PASSAGES, timeout_s=None)
    task = asyncio.create_task(reranker.score(QUERY, PASSAGES * 10, timeout_s=None))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await reranker.score(QUERY, PASSAGES, timeout_s=None) == pytest.approx(expected, abs=1e-5)


async def test_the_identity_is_stable(make):
    first, second = make(), make()
    assert first.identity == second.identity != ""
