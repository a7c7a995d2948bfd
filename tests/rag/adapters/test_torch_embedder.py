from pathlib import Path

import numpy as np
import pytest

from rag.adapters.graph_embedder import GraphEmbedder
from rag.adapters.model_folder import read_model_folder
from rag.adapters.torch_embedder import TorchEmbedder
from rag.errors import ModelRuntimeError
from tests.rag.adapters import tiny_models
from tests.rag.adapters.tiny_models import TEXTS, write_json

PROMPTS = {
    "stated": {"query": "how long do you ", "document": "the little "},
    "for queries only": {"query": "how long do you "},
    "none": None,
}


@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
async def test_vectors_are_those_of_the_graph(tmp_path: Path, prompts: dict[str, str] | None):
    folder = tiny_models.bert(tmp_path / "model", prompts=prompts)
    torch = TorchEmbedder(folder, "tiny", batch_size=3)
    graph = GraphEmbedder(
        read_model_folder(folder, "tiny"), precision="fp32", cache_dir=tmp_path / "cache", batch_tokens=64
    )

    assert (torch.dimension, torch.max_tokens) == (graph.dimension, graph.max_tokens)
    for theirs, ours in (
        (await torch.embed_queries(TEXTS), await graph.embed_queries(TEXTS)),
        (await torch.embed_passages(TEXTS), await graph.embed_passages(TEXTS)),
    ):
        assert theirs.dtype == np.float32
        assert (theirs * ours).sum(axis=1).min() > 0.9999


async def test_a_prompt_that_the_model_uses_by_default_is_not_added_to_passages(tmp_path: Path):
    prompts = {"query": "how long do you ", "document": ""}
    plain = TorchEmbedder(tiny_models.bert(tmp_path / "plain"), "tiny")
    folder = tiny_models.bert(tmp_path / "model")
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": "query"})

    vectors = await TorchEmbedder(folder, "tiny").embed_passages(TEXTS)

    assert np.allclose(vectors, await plain.embed_passages(TEXTS), atol=1e-6)


async def test_a_family_prompt_stands_before_queries_only(tmp_path: Path):
    folder = tiny_models.bert(tmp_path / "model")
    named, plain = TorchEmbedder(folder, "BAAI/bge-small-en-v1.5"), TorchEmbedder(folder, "tiny")
    prompted = [f"Represent this sentence for searching relevant passages: {text}" for text in TEXTS]

    assert np.allclose(await named.embed_queries(TEXTS), await plain.embed_queries(prompted), atol=1e-6)
    assert np.allclose(await named.embed_passages(TEXTS), await plain.embed_passages(TEXTS), atol=1e-6)


async def test_nothing_to_embed_gives_no_rows(tmp_path: Path):
    embedder = TorchEmbedder(tiny_models.bert(tmp_path / "model"), "tiny")
    assert (await embedder.embed_queries([])).shape == (await embedder.embed_passages([])).shape == (0, 32)


async def test_a_model_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    embedder = TorchEmbedder(tiny_models.bert(tmp_path / "model"), "tiny")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("sentence_transformers.SentenceTransformer.encode", fail)
    with pytest.raises(ModelRuntimeError, match="the embedding model tiny failed: out of memory"):
        await embedder.embed_passages(["the sun"])
