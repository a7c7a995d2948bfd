"""Checked against `CrossEncoder.predict` on torch, which is how the models' makers run them."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from rag.adapters.graph_embedder import GraphEmbedder
from rag.adapters.graph_export import Precision
from rag.adapters.graph_reranker import GraphReranker
from rag.adapters.graph_runtime import GraphRuntime
from rag.adapters.model_folder import read_classifier_folder, read_model_folder
from rag.errors import ConfigurationError, ModelNotFoundError, ModelRuntimeError
from tests.rag.adapters import tiny_models, tiny_rerankers
from tests.rag.adapters.tiny_rerankers import PASSAGES, QUERY, with_config

REPOSITORY = Path(__file__).parents[3]
SHAPES: dict[str, Callable[[Path], Path]] = {
    "bert": tiny_rerankers.bert,
    "xlm-roberta": tiny_rerankers.xlm_roberta,
    "electra": tiny_rerankers.electra,
    "distilbert": tiny_rerankers.distilbert,
}
IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = SHAPES[request.param](tmp_path_factory.mktemp("models") / request.param)
    return with_config(folder, sentence_transformers=IDENTITY)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_config(tiny_rerankers.bert(tmp_path_factory.mktemp("models") / "bert"), sentence_transformers=IDENTITY)


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bert, tmp_path / "model")


def load(
    folder: Path,
    cache_dir: Path,
    *,
    precision: Precision = "fp32",
    batch_tokens: int = 64,
    max_tokens: int = 512,
    clock: Callable[[], float] = lambda: 0.0,
    expected_sha256: str | None = None,
    on_export: Callable[[str], None] = lambda _: None,
) -> GraphReranker:
    return GraphReranker(
        read_classifier_folder(folder, "tiny"),
        precision=precision,
        cache_dir=cache_dir,
        batch_tokens=batch_tokens,
        max_tokens=max_tokens,
        threads=2,
        expected_sha256=expected_sha256,
        on_export=on_export,
        clock=clock,
    )


def predict(folder: Path, query: str, passages: Sequence[str], max_tokens: int = tiny_models.MAX_TOKENS) -> list[float]:
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), max_length=max_tokens, device="cpu", local_files_only=True)
    return model.predict([(query, passage) for passage in passages], show_progress_bar=False).tolist()


async def scores(reranker: GraphReranker, query: str = QUERY, passages: Sequence[str] = PASSAGES) -> Sequence[float]:
    return await reranker.score(query, passages, timeout_s=None)


@pytest.mark.parametrize(("precision", "difference"), [("fp32", 1e-4), ("bf16", 0.015)])
async def test_scores_are_those_of_a_cross_encoder(
    model: Path, tmp_path: Path, precision: Precision, difference: float
):
    ours = await scores(load(model, tmp_path, precision=precision))
    theirs = predict(model, QUERY, PASSAGES)

    assert np.ptp(theirs) > 10 * difference, "else equal scores would prove nothing"
    assert ours == pytest.approx(theirs, abs=difference)


@pytest.mark.parametrize("max_tokens", [16, 20, 24])
async def test_a_shorter_limit_cuts_the_passage(model: Path, tmp_path: Path, max_tokens: int):
    reranker = load(model, tmp_path, max_tokens=max_tokens)
    query = "the moon ?"

    assert reranker.max_tokens == max_tokens
    assert await scores(reranker, query) == pytest.approx(predict(model, query, PASSAGES, max_tokens), abs=1e-4)


async def test_a_limit_above_the_models_own_is_the_models_own(bert: Path, tmp_path: Path):
    assert load(bert, tmp_path, max_tokens=8192).max_tokens == tiny_models.MAX_TOKENS


async def test_a_query_that_would_leave_no_room_is_cut_to_half(bert: Path, tmp_path: Path):
    reranker = load(bert, tmp_path)
    words = "moon sun tides wine oak steel tanks later helps little what how long do you keep".split()
    half = tiny_models.MAX_TOKENS // 2

    whole, cut, shorter = [await scores(reranker, " ".join(words[:n])) for n in (len(words), half, half - 1)]

    assert whole == cut
    assert whole != shorter


@pytest.mark.parametrize(
    "stated",
    [
        {},
        {"sentence_transformers": IDENTITY},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"}},
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"sbert_ce_default_activation_function": None},
        {"sentence_transformers": {"activation_fn": "somebodys.package.Softplus"}},
    ],
    ids=str,
)
async def test_the_activation_is_the_one_that_a_cross_encoder_applies(tmp_path: Path, stated: dict[str, object]):
    folder = with_config(tiny_rerankers.bert(tmp_path / "model"), **stated)
    assert await scores(load(folder, tmp_path / "cache")) == pytest.approx(predict(folder, QUERY, PASSAGES), abs=1e-4)


async def test_the_activation_of_a_folder_that_sentence_transformers_saved_is_applied(bert: Path, tmp_path: Path):
    from sentence_transformers import CrossEncoder

    CrossEncoder(str(bert), device="cpu", local_files_only=True).save_pretrained(str(tmp_path / "saved"))
    folder = tmp_path / "saved"
    saved = json.loads((folder / "config_sentence_transformers.json").read_text(encoding="utf-8"))

    assert saved["activation_fn"].endswith("Identity")
    assert await scores(load(folder, tmp_path / "cache")) == pytest.approx(predict(bert, QUERY, PASSAGES), abs=1e-4)


def test_an_activation_that_is_not_known_is_refused_with_the_remedy(copy: Path, tmp_path: Path):
    with_config(copy, sentence_transformers={"activation_fn": "torch.nn.modules.activation.Tanh"})
    with pytest.raises(ConfigurationError, match=r'tiny .*activation\.Tanh.*rerank\.runtime = "torch"'):
        load(copy, tmp_path / "cache")


def test_a_model_of_several_labels_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"tiny tells 3 labels apart.*another rerank\.model"):
        load(tiny_rerankers.bert(tmp_path / "model", labels=3), tmp_path / "cache")


def test_an_encoder_without_a_classifier_is_refused(tmp_path: Path):
    folder = with_config(tiny_models.bert(tmp_path / "model"), num_labels=1)
    (folder / "modules.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"lacks the weight '(pooler|classifier).*pull the model again"):
        load(folder, tmp_path / "cache")


def test_a_model_of_sentence_embeddings_is_refused(tmp_path: Path):
    with pytest.raises(ConfigurationError, match=r"tiny needs the module .*Pooling"):
        load(tiny_models.bert(tmp_path / "model"), tmp_path / "cache")


def test_a_generative_model_is_refused(copy: Path, tmp_path: Path):
    with_config(copy, architectures=["Qwen3ForCausalLM"])
    with pytest.raises(ConfigurationError, match=r"tiny is a generative model \(Qwen3ForCausalLM\)"):
        load(copy, tmp_path / "cache")


def test_unexpected_weights_are_refused(bert: Path, tmp_path: Path):
    with pytest.raises(ModelNotFoundError, match=r"expected 0{64}"):
        load(bert, tmp_path, expected_sha256="0" * 64)


def test_the_second_start_reads_the_cache(bert: Path, tmp_path: Path):
    notices: list[str] = []
    first, second = (load(bert, tmp_path, on_export=notices.append) for _ in range(2))
    assert notices == ["exporting tiny to an fp32 graph (once)"]
    assert first.identity == second.identity


def test_an_embedder_of_the_same_weights_has_a_graph_of_its_own(tmp_path: Path):
    folder = tiny_rerankers.bert(tmp_path / "model")
    reranker = load(folder, tmp_path / "cache")
    embedder = GraphEmbedder(
        read_model_folder(folder, "tiny"), precision="fp32", cache_dir=tmp_path / "cache", batch_tokens=64
    )
    assert embedder.dimension == 32
    assert reranker.identity.split(":")[1] != embedder.identity.split(":")[1]


async def test_int8_keeps_the_order(bert: Path, tmp_path: Path):
    from scipy.stats import spearmanr

    exact = await scores(load(bert, tmp_path))
    rounded = await scores(load(bert, tmp_path, precision="int8"))

    # Random weights round worse than trained ones, so this asks for less than of a real model.
    assert exact != rounded
    assert spearmanr(exact, rounded).statistic > 0.85


@pytest.mark.parametrize("timeout_s", [None, 5.0])
async def test_the_score_of_a_passage_does_not_depend_on_the_others(
    model: Path, tmp_path: Path, timeout_s: float | None
):
    reranker = load(model, tmp_path)
    passages = PASSAGES * 5
    together = await reranker.score(QUERY, passages, timeout_s=timeout_s)
    alone = [(await scores(reranker, QUERY, [passage]))[0] for passage in PASSAGES]
    assert together == pytest.approx(alone * 5, abs=1e-5)


async def test_nothing_to_score_gives_no_scores(bert: Path, tmp_path: Path):
    reranker = load(bert, tmp_path)
    assert await reranker.score(QUERY, [], timeout_s=None) == await reranker.score(QUERY, [], timeout_s=1) == []


class SlowModel:
    """A clock that every batch moves on, by a time that its tokens take."""

    def __init__(self, patch: pytest.MonkeyPatch, *, seconds_per_row: float) -> None:
        self.now = 100.0
        self.rows: list[int] = []
        infer = GraphRuntime._infer

        def slow(runtime, inputs):
            self.rows.append(len(inputs["input_ids"]))
            self.now += len(inputs["input_ids"]) * seconds_per_row
            return infer(runtime, inputs)

        patch.setattr(GraphRuntime, "_infer", slow)

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("timeout_s", "scored"),
    [
        pytest.param(0.0, 4, id="the first group is scored whatever it takes"),
        pytest.param(3.9, 4, id="and nothing after it when it took all the time"),
        pytest.param(7.5, 7, id="a part of a group, as far as the speed so far allows"),
        pytest.param(20.0, 20, id="a whole second group"),
        pytest.param(35.0, 35, id="the third begins as well"),
        pytest.param(1000.0, 40, id="time for all"),
    ],
)
async def test_as_many_are_scored_as_there_is_time_for(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, timeout_s: float, scored: int
):
    passages = [f"the moon causes {word}" for word in "tides wine steel oak tanks sun days they".split()] * 5
    everything = await scores(load(bert, tmp_path), QUERY, passages)
    clock = SlowModel(monkeypatch, seconds_per_row=1.0)
    # One row per batch, so that rows are passages.
    reranker = load(bert, tmp_path, batch_tokens=1, clock=clock)

    some = await reranker.score(QUERY, passages, timeout_s=timeout_s)

    assert len(some) == scored
    assert sum(clock.rows) == scored
    assert some == pytest.approx(everything[:scored], abs=1e-5)


async def test_a_model_that_slows_down_is_stopped_when_time_is_up(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After a first group at a second each, twelve more seem to fit; but each of those takes ten seconds."""
    clock = SlowModel(monkeypatch, seconds_per_row=0.0)
    slow = GraphRuntime._infer

    def slower(runtime, inputs):
        clock.now += 1 if len(clock.rows) < 4 else 10
        return slow(runtime, inputs)

    monkeypatch.setattr(GraphRuntime, "_infer", slower)
    reranker = load(bert, tmp_path, batch_tokens=1, clock=clock)

    some = await reranker.score(QUERY, ["the moon"] * 40, timeout_s=16.0)

    assert len(some) < 16
    assert len(clock.rows) <= 4 + 2 + reranker._runtime.streams


async def test_passages_of_similar_length_are_scored_together(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shapes: list[tuple[int, ...]] = []
    infer = GraphRuntime._infer
    monkeypatch.setattr(
        GraphRuntime, "_infer", lambda self, inputs: (shapes.append(inputs["input_ids"].shape), infer(self, inputs))[1]
    )
    long, short = "the moon causes the tides and the sun helps a little later " * 2, "wine"
    reranker = load(bert, tmp_path, batch_tokens=10_000)

    await reranker.score("wine", [long, short] * 64, timeout_s=None)

    assert {length for _, length in shapes} == {16, tiny_models.MAX_TOKENS}
    assert sum(rows * length for rows, length in shapes) < 1.1 * (64 * 16 + 64 * tiny_models.MAX_TOKENS)


async def test_a_call_that_is_given_up_stops_and_harms_no_other(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reranker = load(bert, tmp_path, batch_tokens=1)
    expected = await scores(reranker)
    loop, entered, released = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    batches: list[int] = []
    infer = GraphRuntime._infer

    def held(runtime, inputs):
        batches.append(1)
        loop.call_soon_threadsafe(entered.set)
        asyncio.run_coroutine_threadsafe(released.wait(), loop).result(timeout=10)
        return infer(runtime, inputs)

    with monkeypatch.context() as patch:
        patch.setattr(GraphRuntime, "_infer", held)
        task = asyncio.create_task(reranker.score(QUERY, PASSAGES * 20, timeout_s=None))
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        released.set()
        # The same threads serve this call, after what is left of the other.
        assert await scores(reranker) == pytest.approx(expected, abs=1e-5)
    assert len(batches) <= reranker._runtime.streams + len(PASSAGES)


def test_many_threads_get_the_scores_that_one_gets(bert: Path, tmp_path: Path):
    reranker = load(bert, tmp_path, batch_tokens=48)
    tasks = [list(PASSAGES[n % 9 :] + PASSAGES[: n % 5]) for n in range(120)]
    alone = [asyncio.run(scores(reranker, QUERY, passages)) for passages in tasks[:45]]

    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda passages: asyncio.run(scores(reranker, QUERY, passages)), tasks, timeout=60))

    for number, found in enumerate(at_once):
        assert found == pytest.approx(alone[number % 45], abs=1e-5)


async def test_a_score_that_is_not_finite_is_an_error(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reranker = load(bert, tmp_path)
    monkeypatch.setattr(GraphRuntime, "_infer", lambda self, inputs: np.full((len(inputs["input_ids"]), 1), np.nan))
    with pytest.raises(ModelRuntimeError, match=r"the reranking model tiny failed: .* not finite"):
        await scores(reranker)


def test_no_training_library_is_imported(bert: Path, tmp_path: Path):
    script = """
import asyncio, sys
from pathlib import Path
from rag.adapters.graph_reranker import GraphReranker
from rag.adapters.model_folder import read_classifier_folder

folder, cache = map(Path, sys.argv[1:])
reranker = GraphReranker(
    read_classifier_folder(folder, "tiny"), precision="fp32", cache_dir=cache, batch_tokens=64, max_tokens=24
)
assert len(asyncio.run(reranker.score("the moon", ["the sun"], timeout_s=1))) == 1
print(*sys.modules)
"""
    served = subprocess.run(
        [sys.executable, "-c", script, str(bert), str(tmp_path)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    assert {"torch", "transformers", "sentence_transformers", "nncf"} & set(served.stdout.split()) == set()
