import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.adapters.graph_embedder import GraphEmbedder
from rag.adapters.model_folder import read_classifier_folder, read_model_folder
from rag.adapters.model_locations import PACKAGED_SHA256, locate
from rag.errors import ConfigurationError, ModelNotFoundError
from rag.settings import PACKAGED_MODEL
from tests.rag.adapters import tiny_models
from tests.rag.adapters.tiny_models import TEXTS, write_json

QUERY_INSTRUCTION = "Represent this sentence for searching relevant passages: "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The least that a model folder holds."""
    write_json(tmp_path / "config.json", {"model_type": "bert", "max_position_embeddings": 512})
    write_json(tmp_path / "tokenizer.json", {})
    return tmp_path


def with_modules(folder: Path, *types: str, pooling: dict[str, Any] | None = None) -> Path:
    modules = [
        {"path": "" if n == 0 else f"{n}_{type_.rsplit('.', 1)[-1]}", "type": type_} for n, type_ in enumerate(types)
    ]
    write_json(folder / "modules.json", modules)
    if pooling is not None:
        write_json(folder / "1_Pooling" / "config.json", pooling)
    return folder


def test_the_packaged_model_is_read_as_its_makers_describe_it(tmp_path: Path):
    model = read_model_folder(locate(PACKAGED_MODEL, tmp_path), PACKAGED_MODEL)
    assert (model.pooling, model.max_tokens) == ("mean", 256)
    assert (model.query_prompt, model.passage_prompt) == ("", "")
    assert model.sha256() == PACKAGED_SHA256


@pytest.mark.parametrize("prefix", ["sentence_transformers.models", "sentence_transformers.base.modules"])
@pytest.mark.parametrize(
    ("stated", "pooling"),
    [
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
    ],
)
def test_pooling_is_read_in_both_spellings(folder: Path, prefix: str, stated: dict[str, Any], pooling: str):
    with_modules(folder, f"{prefix}.Transformer", f"{prefix}.Pooling", f"{prefix}.Normalize", pooling=stated)
    assert read_model_folder(folder, "m").pooling == pooling


@pytest.mark.parametrize("pooling", ["cls", "mean"])
async def test_a_folder_that_the_installed_sentence_transformers_saved_is_read(tmp_path: Path, pooling: str):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    tiny = tiny_models.bert(tmp_path / "tiny")
    transformer = Transformer(str(tiny))
    original = SentenceTransformer(
        modules=[transformer, Pooling(32, pooling_mode=pooling), Normalize()],
        prompts={"query": "what is ", "document": ""},
        device="cpu",
    )
    original.save(str(tmp_path / "saved"))

    model = read_model_folder(tmp_path / "saved", "saved")
    embedder = GraphEmbedder(model, precision="fp32", cache_dir=tmp_path / "cache", batch_tokens=64)

    assert (model.pooling, model.max_tokens, model.query_prompt) == (pooling, tiny_models.MAX_TOKENS, "what is ")
    reference = original.encode(list(TEXTS), prompt_name="query", show_progress_bar=False)
    assert (np.asarray(reference) * await embedder.embed_queries(TEXTS)).sum(axis=1).min() > 0.9999


def test_a_folder_without_modules_pools_by_the_mean(folder: Path):
    assert read_model_folder(folder, "m").pooling == "mean"


@pytest.mark.parametrize(
    ("stated", "named"),
    [
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls and mean"),
        ({}, "nothing"),
    ],
)
def test_other_pooling_is_refused_with_the_remedy(folder: Path, stated: dict[str, Any], named: str):
    with_modules(
        folder, "sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling", pooling=stated
    )
    with pytest.raises(ConfigurationError, match=rf'm pools by {named};.*embedding.runtime = "torch"'):
        read_model_folder(folder, "m")


def test_an_unknown_module_is_refused_with_the_remedy(folder: Path):
    with_modules(folder, "sentence_transformers.models.Transformer", "sentence_transformers.models.Dense")
    with pytest.raises(ConfigurationError, match=r'models\.Dense.*embedding.runtime = "torch"'):
        read_model_folder(folder, "m")


@pytest.mark.parametrize(
    ("config", "stated", "tokenizer", "expected"),
    [
        pytest.param({"max_position_embeddings": 512}, 128, 512, 128, id="stated for sentences"),
        pytest.param({"max_position_embeddings": 512}, None, 384, 384, id="of the tokenizer"),
        pytest.param({"max_position_embeddings": 512}, None, 10**30, 512, id="tokenizer without limit"),
        pytest.param({"max_position_embeddings": 512}, None, None, 512, id="of the model alone"),
        pytest.param(
            {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            None,
            10**30,
            512,
            id="positions kept for padding do not count",
        ),
    ],
)
def test_the_longest_input_is_known(
    folder: Path, config: dict[str, Any], stated: int | None, tokenizer: int | None, expected: int
):
    write_json(folder / "config.json", {"model_type": "bert", **config})
    if stated is not None:
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": stated})
    if tokenizer is not None:
        write_json(folder / "tokenizer_config.json", {"model_max_length": tokenizer})
    assert read_model_folder(folder, "m").max_tokens == expected


async def test_a_roberta_without_a_stated_length_embeds_a_text_that_fills_it(tmp_path: Path):
    folder = tiny_models.xlm_roberta(tmp_path / "model")
    (folder / "sentence_bert_config.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    model = read_model_folder(folder, "m")
    embedder = GraphEmbedder(model, precision="fp32", cache_dir=tmp_path / "cache", batch_tokens=64)
    assert (await embedder.embed_passages([max(TEXTS, key=len)])).shape == (1, 32)


@pytest.mark.parametrize(
    ("name", "query", "passage"),
    [
        ("BAAI/bge-small-en-v1.5", QUERY_INSTRUCTION, ""),
        ("/models/BGE-Large-EN/", QUERY_INSTRUCTION, ""),
        ("BAAI/bge-m3", "", ""),
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("intfloat/e5-base-v2", "query: ", "passage: "),
        ("nomic-ai/nomic-embed-text-v1.5", "search_query: ", "search_document: "),
        ("Snowflake/snowflake-arctic-embed-m", QUERY_INSTRUCTION, ""),
        ("acme/not-bge-small-en-v1.5-at-all", "", ""),
    ],
)
def test_a_family_documents_its_prompts_in_its_model_card(folder: Path, name: str, query: str, passage: str):
    model = read_model_folder(folder, name)
    assert (model.query_prompt, model.passage_prompt) == (query, passage)


@pytest.mark.parametrize("key", ["document", "passage", "corpus"])
def test_the_files_prompts_win_over_the_family(folder: Path, key: str):
    write_json(folder / "config_sentence_transformers.json", {"prompts": {"query": "Q: ", key: "P: "}})
    model = read_model_folder(folder, "intfloat/e5-small-v2")
    assert (model.query_prompt, model.passage_prompt) == ("Q: ", "P: ")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_no_model(folder: Path, missing: str):
    (folder / missing).unlink()
    with pytest.raises(ModelNotFoundError, match="is not a model folder"):
        read_model_folder(folder, "m")


def test_a_damaged_file_is_named(folder: Path):
    (folder / "modules.json").write_text(json.dumps([{"path": ""}])[:-2], encoding="utf-8")
    with pytest.raises(ModelNotFoundError, match=r"modules\.json is damaged.*pull the model again"):
        read_model_folder(folder, "m")


def test_safetensors_are_taken_before_a_torch_file(folder: Path):
    model = read_model_folder(folder, "m")
    with pytest.raises(ModelNotFoundError, match="pull it again"):
        _ = model.weights
    (folder / "pytorch_model.bin").touch()
    assert read_model_folder(folder, "m").weights.name == "pytorch_model.bin"
    shutil.copy(folder / "pytorch_model.bin", folder / "model.safetensors")
    assert read_model_folder(folder, "m").weights.name == "model.safetensors"


@pytest.mark.parametrize(
    ("stated", "labels"),
    [
        ({"id2label": {"0": "LABEL_0"}}, ("LABEL_0",)),
        ({"id2label": {"0": "drop", "1": "keep"}}, ("drop", "keep")),
        ({"num_labels": 1}, ("LABEL_0",)),
        ({}, ("LABEL_0", "LABEL_1")),
    ],
)
def test_the_labels_of_a_classifier_are_those_that_transformers_counts(
    folder: Path, stated: dict[str, Any], labels: tuple[str, ...]
):
    from transformers import AutoConfig

    write_json(folder / "config.json", {"model_type": "bert", "max_position_embeddings": 512, **stated})
    assert read_classifier_folder(folder, "m").labels == labels
    assert AutoConfig.from_pretrained(folder, local_files_only=True).num_labels == len(labels)


def test_a_classifier_with_layers_of_its_own_is_refused_with_the_remedy(folder: Path):
    with_modules(folder, "sentence_transformers.models.Transformer", "sentence_transformers.models.Dense")
    with pytest.raises(ConfigurationError, match=r'm needs the module .*Dense.* set its runtime to "torch"'):
        read_classifier_folder(folder, "m")


def test_a_folder_without_a_tokenizer_is_no_classifier(folder: Path):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"config\.json or tokenizer\.json is missing"):
        read_classifier_folder(folder, "m")
