import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from rag.adapters.graph_reranker import GraphReranker
from rag.adapters.model_folder import read_classifier_folder
from rag.adapters.torch_reranker import TorchReranker
from rag.errors import ConfigurationError, ModelRuntimeError
from tests.rag.adapters import tiny_models, tiny_rerankers
from tests.rag.adapters.tiny_rerankers import PASSAGES, QUERY, with_config

PREDICT = "sentence_transformers.CrossEncoder.predict"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_rerankers.bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.mark.parametrize("model", [tiny_rerankers.bert, tiny_rerankers.xlm_roberta])
@pytest.mark.parametrize("max_tokens", [16, 512])
async def test_scores_are_those_of_the_graph(tmp_path: Path, model: Callable[[Path], Path], max_tokens: int):
    folder = model(tmp_path / "model")
    torch = TorchReranker(folder, "tiny", max_tokens=max_tokens, batch_size=3)
    graph = GraphReranker(
        read_classifier_folder(folder, "tiny"),
        precision="fp32",
        cache_dir=tmp_path / "cache",
        batch_tokens=64,
        max_tokens=max_tokens,
    )
    query = "the moon ?"

    assert torch.max_tokens == graph.max_tokens == min(max_tokens, tiny_models.MAX_TOKENS)
    theirs, ours = [await reranker.score(query, PASSAGES, timeout_s=None) for reranker in (torch, graph)]
    assert theirs == pytest.approx(ours, abs=1e-4)


async def test_the_identity_is_that_of_name_and_weights(folder: Path, tmp_path: Path):
    first, same = (TorchReranker(folder, "tiny", max_tokens=24) for _ in range(2))
    other = TorchReranker(tiny_rerankers.electra(tmp_path / "model"), "tiny", max_tokens=24)
    assert first.identity == same.identity
    assert first.identity != other.identity


def test_a_model_of_several_labels_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"tiny tells 3 labels apart.*another rerank\.model"):
        TorchReranker(tiny_rerankers.bert(tmp_path / "model", labels=3), "tiny", max_tokens=24)


@pytest.mark.parametrize(
    ("file", "content"), [("config.json", b"{}"), ("tokenizer.json", b"{}"), ("model.safetensors", b"\x08")]
)
def test_a_damaged_folder_is_an_error_with_the_remedy(tmp_path: Path, file: str, content: bytes):
    folder = tiny_rerankers.bert(tmp_path / "model")
    (folder / file).write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"tiny cannot be loaded from .*model: .*\. Pull the model again"):
        TorchReranker(folder, "tiny", max_tokens=24)


@pytest.mark.parametrize(
    ("timeout_s", "scored"), [(None, 40), (0.0, 4), (4.9, 4), (20.0, 20), (27.0, 27), (1000.0, 40)]
)
async def test_as_many_are_scored_as_there_is_time_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float | None, scored: int
):
    now = [100.0]
    passages = [f"passage {number:02}" for number in range(40)]

    def predict(_: object, pairs: Sequence[tuple[str, str]], **__: object) -> object:
        now[0] += len(pairs)
        return np.array([float(passage[-2:]) for _, passage in pairs])

    monkeypatch.setattr(PREDICT, predict)
    reranker = TorchReranker(folder, "tiny", max_tokens=24, batch_size=1, clock=lambda: now[0])

    assert await reranker.score("the moon", passages, timeout_s=timeout_s) == list(range(scored))


async def test_a_call_that_is_given_up_stops(folder: Path, monkeypatch: pytest.MonkeyPatch):
    loop, entered, released = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    left = asyncio.Event()
    batches: list[int] = []

    def predict(_: object, pairs: Sequence[object], **__: object) -> object:
        batches.append(len(pairs))
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result(timeout=10)
        loop.call_soon_threadsafe(left.set)
        return np.zeros(len(pairs))

    monkeypatch.setattr(PREDICT, predict)
    reranker = TorchReranker(folder, "tiny", max_tokens=24, batch_size=2)
    task = asyncio.create_task(reranker.score("the moon", ["the sun"] * 40, timeout_s=None))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    released.set()
    await left.wait()
    await loop.shutdown_default_executor()
    assert batches == [2]


@pytest.mark.parametrize(
    ("predict", "words"),
    [
        (lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")), "out of memory"),
        (lambda *_, **__: np.array([np.nan]), "not finite"),
    ],
)
async def test_a_model_that_fails_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, predict: Callable[..., object], words: str
):
    monkeypatch.setattr(PREDICT, predict)
    with pytest.raises(ModelRuntimeError, match=f"the reranking model tiny failed: .*{words}"):
        await TorchReranker(folder, "tiny", max_tokens=24).score(QUERY, ["the sun"], timeout_s=None)


async def test_the_activation_is_the_folders_own(tmp_path: Path):
    folder = tiny_rerankers.bert(tmp_path / "model")
    squashed = await TorchReranker(folder, "tiny", max_tokens=24).score(QUERY, PASSAGES, timeout_s=None)
    with_config(folder, sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})
    logits = await TorchReranker(folder, "tiny", max_tokens=24).score(QUERY, PASSAGES, timeout_s=None)
    assert squashed == pytest.approx(1 / (1 + np.exp(-np.asarray(logits))), abs=1e-6)
