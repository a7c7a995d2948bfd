"""Sentence-transformers folders with small random weights: the shapes of real models, made in a moment.

The weights are drawn with a fixed seed and far larger than an untrained model's, biases and norms included, so that a
weight left out, a wrong position or a wrong pooling moves the vectors visibly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

MAX_TOKENS = 24
_WORDS = (
    "the a of to in is and backups are kept for thirty days then they deleted moon sun causes tides wine ferments "
    "steel oak tanks later helps little what how long do you keep ? . ,"
).split()
_LETTERS = "abcdefghijklmnopqrstuvwxyzé0123456789"
_WIDTHS = {"vocab_size": 0, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}

TEXTS = (
    "the moon causes the tides",
    "",
    "backups are kept for thirty days, then they are deleted.",
    "wine",
    "how long do you keep the backups ?",
    "wine ferments in steel tanks and oak tanks. " * 20,
    "zebra 42 café",
    "the sun helps a little",
)
"""Of mixed length: one is empty, one is longer than any of the models accepts, one has words that no vocabulary has."""


def bert(
    folder: Path,
    *,
    pooling: Literal["cls", "mean"] = "cls",
    prompts: Mapping[str, str] | None = None,
    weights: Literal["safetensors", "bin"] = "safetensors",
) -> Path:
    """BERT; with CLS pooling the shape of BGE-small, with mean pooling that of MiniLM."""
    from transformers import BertConfig, BertModel

    pieces = _word_pieces()
    config = BertConfig(
        **{**_WIDTHS, "vocab_size": len(pieces)}, intermediate_size=64, max_position_embeddings=MAX_TOKENS
    )
    _write_model(folder, config, BertModel, weights=weights)
    _write_word_piece_tokenizer(folder, pieces, tokenizer_class="BertTokenizer")
    _write_sentence_transformer(folder, pooling=pooling, dimension=config.hidden_size, prompts=prompts)
    return folder


def xlm_roberta(folder: Path) -> Path:
    """XLM-RoBERTa with CLS pooling, the shape of BGE-M3: padding has id 1, so positions count from 2."""
    from transformers import XLMRobertaConfig, XLMRobertaModel

    pieces = _unigram_pieces()
    config = XLMRobertaConfig(
        **{**_WIDTHS, "vocab_size": len(pieces)},
        intermediate_size=64,
        max_position_embeddings=MAX_TOKENS + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    _write_model(folder, config, XLMRobertaModel)
    _write_unigram_tokenizer(folder, pieces)
    _write_sentence_transformer(folder, pooling="cls", dimension=config.hidden_size)
    return folder


def distilbert(folder: Path) -> Path:
    """DistilBERT with mean pooling: an architecture that is traced, not written down."""
    from transformers import DistilBertConfig, DistilBertModel

    pieces = _word_pieces()
    config = DistilBertConfig(
        vocab_size=len(pieces), dim=32, n_heads=4, n_layers=2, hidden_dim=64, max_position_embeddings=MAX_TOKENS
    )
    _write_model(folder, config, DistilBertModel)
    _write_word_piece_tokenizer(folder, pieces, tokenizer_class="DistilBertTokenizer")
    _write_sentence_transformer(folder, pooling="mean", dimension=config.dim)
    return folder


def _write_model(
    folder: Path,
    config: PretrainedConfig,
    architecture: type[PreTrainedModel],
    *,
    weights: Literal["safetensors", "bin"] = "safetensors",
) -> None:
    import torch

    model = architecture(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, values in model.named_parameters():
            norm = name.endswith(("LayerNorm.weight", "layer_norm.weight"))
            spread = 0.8 if "embeddings" in name else 0.2
            values.copy_(torch.randn(values.shape, generator=generator) * spread + norm)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    if weights == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")


def _word_pieces() -> list[str]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *_WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]


def _write_word_piece_tokenizer(folder: Path, pieces: list[str], *, tokenizer_class: str) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    # Real folders carry such leftovers of their training; they must not reach the model.
    tokenizer.enable_padding(length=MAX_TOKENS)
    tokenizer.enable_truncation(MAX_TOKENS // 2)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    tokens = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    _write_tokenizer_config(folder, tokenizer_class, tokens, do_lower_case=True)


def _unigram_pieces() -> list[tuple[str, float]]:
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -3.0 - 0.01 * number) for number, word in enumerate(_WORDS)]
    parts = [(piece, -8.0 - 0.01 * number) for number, piece in enumerate(("▁", *_LETTERS, "?", ".", ","))]
    return [*special, *words, *parts, ("<mask>", 0.0)]


def _write_unigram_tokenizer(folder: Path, pieces: list[tuple[str, float]]) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>"}
    _write_tokenizer_config(folder, "XLMRobertaTokenizer", {**tokens, "mask": "<mask>"})


def _write_tokenizer_config(folder: Path, tokenizer_class: str, tokens: Mapping[str, str], **more: bool) -> None:
    special = {f"{name}_token": token for name, token in tokens.items()}
    settings = {"tokenizer_class": tokenizer_class, "model_max_length": MAX_TOKENS, **special, **more}
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", special)


def _write_sentence_transformer(
    folder: Path, *, pooling: str, dimension: int, prompts: Mapping[str, str] | None = None
) -> None:
    """The files around the model, in the layout that the published models have."""
    names = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    write_json(folder / "modules.json", modules)
    modes = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "mean_sqrt_len_tokens": "root"}
    stated = {f"pooling_mode_{key}": mode == pooling for key, mode in modes.items()}
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dimension, **stated})
    (folder / "2_Normalize").mkdir()
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": MAX_TOKENS, "do_lower_case": False})
    if prompts is not None:
        stated_prompts = {"prompts": dict(prompts), "default_prompt_name": None}
        write_json(folder / "config_sentence_transformers.json", stated_prompts)


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2), encoding="utf-8")
