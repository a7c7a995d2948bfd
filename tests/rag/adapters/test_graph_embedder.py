"""Checked against `SentenceTransformer.encode` on torch, which is how the models' makers run them."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rag.adapters.graph_embedder import GraphEmbedder
from rag.adapters.graph_export import Precision
from rag.adapters.model_folder import read_model_folder
from rag.adapters.model_locations import locate
from rag.errors import ModelNotFoundError
from rag.sentences import sentence_spans
from rag.settings import PACKAGED_MODEL
from rag.types import Vectors
from tests.models_cache import minilm
from tests.rag.adapters import tiny_models
from tests.rag.adapters.tiny_models import TEXTS

REPOSITORY = Path(__file__).parents[3]
SHAPES: dict[str, Callable[[Path], Path]] = {
    "bert-cls": tiny_models.bert,
    "bert-mean": partial(tiny_models.bert, pooling="mean"),
    "bert-from-a-torch-file": partial(tiny_models.bert, weights="bin"),
    "xlm-roberta": tiny_models.xlm_roberta,
    "distilbert": tiny_models.distilbert,
}
SENTENCES = (
    "How long are backups kept?",
    "reset a forgotten password",
    "Carbon monoxide binds to haemoglobin more tightly than oxygen does.",
    "The committee met on 3 March 2021 and adjourned without a vote, because two of its nine members were absent.",
    "def area(radius): return math.pi * radius ** 2",
    "Die Bahn verkehrt sonntags nur alle zwei Stunden.",
    "Le vin fermente dans des cuves en acier.",
    "Sell.",
    "Water boils at 100 °C at sea level; on a mountain of 4,000 m it boils at about 87 °C.",
    "She had never liked the sea, and yet every house she had ever lived in looked out on it.",
    "Error 0x80070057: the parameter is incorrect.",
    "Interest is charged daily on the outstanding balance at an annual rate of 19.9 %.",
    "Preheat the oven, grease the tin, and whisk the eggs with the sugar until pale.",
    "The mitral valve prolapses when its leaflets bulge into the left atrium during systole.",
    "symptoms of vitamin d deficiency in adults",
    "GET /v1/search?q=tides HTTP/1.1",
    "In 1492 the three ships left Palos de la Frontera.",
    "The moon's gravity raises two bulges of water, one on the near side and one on the far side of the earth.",
    "Tenants must give three months' notice in writing.",
    "which planet has the most moons",
)


@dataclass(frozen=True)
class Model:
    """A folder with the vectors that sentence-transformers computes of `TEXTS`."""

    folder: Path
    reference: Vectors


def encode(folder: Path, texts: tuple[str, ...], prompt: str | None = None) -> Vectors:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return np.asarray(model.encode(list(texts), prompt=prompt, normalize_embeddings=True, show_progress_bar=False))


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = SHAPES[request.param](tmp_path_factory.mktemp("models") / request.param)
    return Model(folder, encode(folder, TEXTS))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.bert(tmp_path_factory.mktemp("models") / "bert")


def load(
    folder: Path,
    cache_dir: Path,
    *,
    name: str = "tiny",
    precision: Precision = "fp32",
    batch_tokens: int = 64,
    expected_sha256: str | None = None,
    on_export: Callable[[str], None] = lambda _: None,
) -> GraphEmbedder:
    return GraphEmbedder(
        read_model_folder(folder, name),
        precision=precision,
        cache_dir=cache_dir,
        batch_tokens=batch_tokens,
        threads=2,
        expected_sha256=expected_sha256,
        on_export=on_export,
    )


def cosines(left: Vectors, right: Vectors) -> Vectors:
    return (left * right).sum(axis=1)


@pytest.mark.parametrize(("precision", "cosine"), [("fp32", 0.9999), ("bf16", 0.999)])
async def test_vectors_are_those_of_sentence_transformers(
    model: Model, tmp_path: Path, precision: Precision, cosine: float
):
    vectors = await load(model.folder, tmp_path, precision=precision).embed_passages(TEXTS)

    assert vectors.shape == model.reference.shape
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
    assert cosines(vectors, model.reference).min() >= cosine


def test_the_tiny_models_tell_texts_apart(model: Model):
    """Else equal vectors would prove nothing."""
    alike = model.reference @ model.reference.T
    np.fill_diagonal(alike, 0)
    assert alike.max() < 0.99


async def test_the_vector_of_a_text_does_not_depend_on_its_batch(model: Model, tmp_path: Path):
    one_by_one = await load(model.folder, tmp_path, batch_tokens=1).embed_passages(TEXTS)
    together = await load(model.folder, tmp_path, batch_tokens=9999).embed_passages(TEXTS)
    assert np.abs(one_by_one - together).max() < 1e-5


@pytest.fixture(scope="module")
def prose() -> tuple[str, ...]:
    """Sixty texts, of which none is among those that the calibration uses."""
    licence = " ".join((REPOSITORY / "LICENSE").read_text(encoding="utf-8").split())
    sentences = (licence[start:end] for start, end in sentence_spans(licence))
    return (*SENTENCES, *sorted(sentences, key=len, reverse=True)[:40])


@pytest.fixture(scope="module")
def prose_reference(prose: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    return encode(locate(PACKAGED_MODEL, tmp_path_factory.getbasetemp()), prose)


@pytest.mark.parametrize(("precision", "cosine"), [("fp32", 0.9999), ("int8", 0.99)])
async def test_the_packaged_model_keeps_its_vectors(
    minilm_cache: Path, prose: tuple[str, ...], prose_reference: Vectors, precision: Precision, cosine: float
):
    vectors = await minilm(minilm_cache, precision=precision).embed_passages(prose)

    assert len(vectors) == 60
    assert cosines(vectors, prose_reference).min() >= cosine


async def test_a_traced_model_is_quantised_too(tmp_path: Path):
    folder = tiny_models.distilbert(tmp_path / "distilbert")
    exact = await load(folder, tmp_path / "cache").embed_passages(TEXTS)
    rounded = await load(folder, tmp_path / "cache", precision="int8").embed_passages(TEXTS)

    # Random weights round worse than trained ones, so this asks for less than of a real model.
    assert 0.95 < cosines(exact, rounded).min() < 0.9999


async def test_stated_prompts_stand_before_queries_and_passages(tmp_path: Path):
    prompts = {"query": "what is the ", "document": "the little "}
    folder = tiny_models.bert(tmp_path / "prompted", prompts=prompts)
    embedder = load(folder, tmp_path / "cache")

    assert cosines(await embedder.embed_queries(TEXTS), encode(folder, TEXTS, prompts["query"])).min() > 0.9999
    assert cosines(await embedder.embed_passages(TEXTS), encode(folder, TEXTS, prompts["document"])).min() > 0.9999


async def test_a_family_that_states_no_prompt_gets_its_own_before_queries_only(bert: Path, tmp_path: Path):
    embedder = load(bert, tmp_path, name="BAAI/bge-small-en-v1.5")
    prompt = "Represent this sentence for searching relevant passages: "

    assert cosines(await embedder.embed_queries(TEXTS), encode(bert, TEXTS, prompt)).min() > 0.9999
    assert cosines(await embedder.embed_passages(TEXTS), encode(bert, TEXTS)).min() > 0.9999


async def test_a_model_without_prompts_treats_queries_as_passages(bert: Path, tmp_path: Path):
    embedder = load(bert, tmp_path)
    assert np.array_equal(await embedder.embed_queries(TEXTS), await embedder.embed_passages(TEXTS))


async def test_nothing_to_embed_gives_no_rows(bert: Path, tmp_path: Path):
    embedder = load(bert, tmp_path)
    for vectors in (await embedder.embed_queries([]), await embedder.embed_passages([])):
        assert vectors.shape == (0, embedder.dimension) == (0, 32)
        assert vectors.dtype == np.float32


def test_an_embedder_states_its_limits(bert: Path, tmp_path: Path):
    assert load(bert, tmp_path).max_tokens == tiny_models.MAX_TOKENS


def test_the_second_start_reads_the_cache_whatever_the_floating_point_precision(bert: Path, tmp_path: Path):
    notices: list[str] = []
    for precision in ("fp32", "fp32", "bf16"):
        load(bert, tmp_path, precision=precision, on_export=notices.append)
    assert notices == ["exporting tiny to an fp32 graph (once)"]


async def test_other_weights_in_the_same_place_are_exported_anew(bert: Path, tmp_path: Path):
    import torch
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(bert, tmp_path / "model")
    before = load(folder, tmp_path / "cache")
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = torch.flip(weights["embeddings.word_embeddings.weight"], (0,))
    save_file(weights, folder / "model.safetensors")
    after = load(folder, tmp_path / "cache")

    assert after.identity != before.identity
    assert cosines(await after.embed_passages(TEXTS), encode(folder, TEXTS)).min() > 0.9999


def test_models_of_equal_weights_that_pool_differently_have_different_identities(tmp_path: Path):
    folders = (tiny_models.bert(tmp_path / pooling, pooling=pooling) for pooling in ("cls", "mean"))
    first, second = (load(folder, tmp_path / "cache") for folder in folders)
    assert first.identity != second.identity


def test_unexpected_weights_are_refused_before_anything_is_exported(bert: Path, tmp_path: Path):
    notices: list[str] = []
    with pytest.raises(ModelNotFoundError, match=r"SHA-256 is [0-9a-f]{64}, expected 0{64}.*Install it again"):
        load(bert, tmp_path, expected_sha256="0" * 64, on_export=notices.append)
    assert notices == []


def test_weights_without_a_layer_are_refused_by_name(bert: Path, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(bert, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.bias"]
    save_file(weights, folder / "model.safetensors")

    with pytest.raises(ModelNotFoundError, match=r"encoder\.layer\.1\.output\.dense\.bias.*pull the model again"):
        load(folder, tmp_path / "cache")


def test_a_killed_export_leaves_nothing_that_is_read(bert: Path, tmp_path: Path):
    """Killed while the graph is half on disk; the next start exports again."""
    script = """
import os, signal, sys
from pathlib import Path
import openvino
from rag.adapters.graph_embedder import GraphEmbedder
from rag.adapters.model_folder import read_model_folder

def save_half(graph, path, **options):
    Path(path).parent.mkdir(parents=True)
    Path(path).write_text("<net")
    os.kill(os.getpid(), signal.SIGKILL)

openvino.save_model = save_half
folder, cache = map(Path, sys.argv[1:])
GraphEmbedder(read_model_folder(folder, "tiny"), precision="fp32", cache_dir=cache, batch_tokens=64)
"""
    died = subprocess.run([sys.executable, "-c", script, str(bert), str(tmp_path)], cwd=REPOSITORY, check=False)
    assert died.returncode == -signal.SIGKILL
    assert [file.read_text() for file in tmp_path.rglob("graph.xml")] == ["<net"]

    notices: list[str] = []
    vectors = asyncio.run(load(bert, tmp_path, on_export=notices.append).embed_passages(TEXTS))

    assert len(notices) == 1
    assert cosines(vectors, encode(bert, TEXTS)).min() > 0.9999


def test_many_threads_get_the_vectors_that_one_gets(bert: Path, tmp_path: Path):
    embedder = load(bert, tmp_path, batch_tokens=48)
    # Every task has its own number of texts and its own longest one, so that shapes change all the time.
    tasks = [list(TEXTS[n % 8 :] + TEXTS[: n % 5]) for n in range(400)]
    alone = [asyncio.run(embedder.embed_passages(texts)) for texts in tasks[:40]]

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(lambda texts=texts: asyncio.run(embedder.embed_passages(texts))) for texts in tasks]
        at_once = [future.result(timeout=60) for future in running]

    for number, vectors in enumerate(at_once):
        assert np.abs(vectors - alone[number % 40]).max() < 1e-5


SERVE = """
import asyncio, json, sys
from pathlib import Path
from rag.adapters.graph_embedder import GraphEmbedder
from rag.adapters.model_folder import read_model_folder

name, folder, precision, cache = sys.argv[1:]
embedder = GraphEmbedder(
    read_model_folder(Path(folder), name), precision=precision, cache_dir=Path(cache), batch_tokens=64
)
vectors = asyncio.run(embedder.embed_queries(["the moon causes the tides"]))
loaded = {name.partition(".")[0] for name, module in sys.modules.items() if module is not None}
print(json.dumps({"dimension": vectors.shape[1], "loaded": sorted(loaded)}))
"""


@pytest.mark.parametrize("case", ["exporting BERT", "serving the packaged model at int8"])
def test_no_training_library_and_no_telemetry_is_imported(case: str, bert: Path, minilm_cache: Path, tmp_path: Path):
    arguments = ["tiny", str(bert), "fp32", str(tmp_path)]
    if case != "exporting BERT":
        arguments = [PACKAGED_MODEL, str(locate(PACKAGED_MODEL, tmp_path)), "int8", str(minilm_cache)]

    served = subprocess.run(
        [sys.executable, "-c", SERVE, *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True
    )

    said = json.loads(served.stdout)
    assert said["dimension"] == (32 if case == "exporting BERT" else 384)
    assert "openvino" in said["loaded"]
    unwanted = {"torch", "transformers", "sentence_transformers", "nncf", "openvino_telemetry"}
    assert unwanted & set(said["loaded"]) == set()
