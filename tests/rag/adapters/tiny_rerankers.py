"""Cross-encoders with small random weights, made as `tiny_models` makes encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.rag.adapters.tiny_models import (
    _WIDTHS,
    MAX_TOKENS,
    _unigram_pieces,
    _word_pieces,
    _write_model,
    _write_unigram_tokenizer,
    _write_word_piece_tokenizer,
    write_json,
)

QUERY = "how long do you keep the backups ?"
PASSAGES = (
    "backups are kept for thirty days, then they are deleted.",
    "",
    "the moon causes the tides",
    "wine",
    "wine ferments in steel tanks and oak tanks. " * 20,
    "how long do you keep the backups ?",
    "zebra 42 café",
    "the sun helps a little in the tanks",
    "they keep the backups for thirty days in oak tanks later",
)
"""Of mixed length: one is empty, one is longer than any of the models accepts, one has words that no vocabulary has."""


def bert(folder: Path, *, labels: int = 1) -> Path:
    """BERT, the shape of ms-marco-MiniLM-L6-v2: the second text has another segment than the first."""
    from transformers import BertConfig, BertForSequenceClassification

    pieces = _word_pieces()
    widths = {**_WIDTHS, "vocab_size": len(pieces)}
    config = BertConfig(**widths, intermediate_size=64, max_position_embeddings=MAX_TOKENS, num_labels=labels)
    _write_model(folder, config, BertForSequenceClassification)
    _write_word_piece_tokenizer(folder, pieces, tokenizer_class="BertTokenizer")
    return folder


def xlm_roberta(folder: Path) -> Path:
    """XLM-RoBERTa, the shape of the BGE rerankers."""
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

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
        num_labels=1,
    )
    _write_model(folder, config, XLMRobertaForSequenceClassification)
    _write_unigram_tokenizer(folder, pieces)
    return folder


def electra(folder: Path) -> Path:
    """ELECTRA: traced, with segments."""
    from transformers import ElectraConfig, ElectraForSequenceClassification

    pieces = _word_pieces()
    widths = {**_WIDTHS, "vocab_size": len(pieces), "embedding_size": 32}
    config = ElectraConfig(**widths, intermediate_size=64, max_position_embeddings=MAX_TOKENS, num_labels=1)
    _write_model(folder, config, ElectraForSequenceClassification)
    _write_word_piece_tokenizer(folder, pieces, tokenizer_class="BertTokenizer")
    return folder


def distilbert(folder: Path) -> Path:
    """DistilBERT: traced, without segments."""
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    pieces = _word_pieces()
    config = DistilBertConfig(
        vocab_size=len(pieces),
        dim=32,
        n_heads=4,
        n_layers=2,
        hidden_dim=64,
        max_position_embeddings=MAX_TOKENS,
        num_labels=1,
    )
    _write_model(folder, config, DistilBertForSequenceClassification)
    _write_word_piece_tokenizer(folder, pieces, tokenizer_class="DistilBertTokenizer")
    return folder


def with_config(folder: Path, **changes: Any) -> Path:
    """The same folder with other entries in its config.json."""
    file = folder / "config.json"
    write_json(file, {**json.loads(file.read_text(encoding="utf-8")), **changes})
    return folder
