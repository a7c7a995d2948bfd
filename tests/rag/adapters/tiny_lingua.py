"""Model folders of the kinds LLMLingua loads, small and random: token classifiers and a causal language model.

The package tells a classifier's family by its name, so the folders of classifiers carry the published names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rag.types import Source

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig, PreTrainedModel

BERT = "microsoft--llmlingua-2-bert-base-multilingual-cased-meetingbank"
XLM_ROBERTA = "microsoft--llmlingua-2-xlm-roberta-large-meetingbank"
CAUSAL = "tiny-causal"

_WORDS = (
    "the a of to in is and backups are kept for thirty days then they deleted moon sun causes tides wine ferment steel "
    "oak tank later help little what how long do you keep The Backups Moon Das Weingut München naïve"
).split()
_ENDINGS = ("s", "ed", "ing", "er", "ly", "en")
_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789éüäö東京"
_MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~–…"

_TRAINING = (
    "The backups are kept for thirty days, then they are deleted.",
    "How long do you keep the backups? The moon causes the tides; the sun helps a little.",
    "Wine ferments in steel tanks and is moved to oak barrels later: 12 months at 14.5 degrees.",
)

BACKUPS = "The backups are kept for thirty days, then they are deleted. "
WINE = "Wine ferments in steel tanks and is moved to oak barrels later: 12 months at 14.5 degrees.\n"
TIDES = "How long do you keep the backups? The moon causes the tides; the sun helps a little. "
TEXTS = (BACKUPS + WINE + TIDES, WINE * 3 + TIDES, (BACKUPS + TIDES + WINE) * 3, TIDES)
QUESTION = "How long are backups kept?"


def all_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parent of a folder of each kind; the same in the whole session."""
    parent = tmp_path_factory.getbasetemp() / "lingua-models"
    if not parent.exists():
        for make in (bert, xlm_roberta, causal):
            make(parent)
    return parent


def sources(*texts: str) -> list[Source]:
    """Numbered from 1, each somewhere inside a document of its own."""
    return [
        Source(n, f"d{n}", "v", "t", (), 100 * n, 100 * n + len(text), text, 1 / n, (f"p{n}",))
        for n, text in enumerate(texts, 1)
    ]


def bert(parent: Path) -> Path:
    """A BERT token classifier under the published name."""
    from transformers import BertConfig, BertForTokenClassification

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    parts = [*_CHARACTERS, *_ENDINGS]
    pieces = [*special, *_WORDS, *_CHARACTERS, *_MARKS, *(f"##{part}" for part in parts)]
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_attention_heads=4,
        num_hidden_layers=2,
        intermediate_size=64,
        architectures=["BertForTokenClassification"],
    )
    folder = parent / BERT
    _write_model(folder, config, BertForTokenClassification)
    _word_piece_tokenizer(pieces).save(str(folder / "tokenizer.json"))
    tokens = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "cls": "[CLS]", "mask": "[MASK]"}
    _write_tokenizer_config(folder, "BertTokenizer", tokens, do_lower_case=False)
    return folder


def xlm_roberta(parent: Path) -> Path:
    """An XLM-RoBERTa token classifier under the published name."""
    from transformers import XLMRobertaConfig, XLMRobertaForTokenClassification

    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -3.0 - 0.01 * number) for number, word in enumerate(_WORDS)]
    endings = [(ending, -5.0 - 0.01 * number) for number, ending in enumerate(_ENDINGS)]
    parts = [(piece, -8.0 - 0.01 * number) for number, piece in enumerate(("▁", *_CHARACTERS, *_MARKS))]
    pieces = [*special, *words, *endings, *parts, ("<mask>", 0.0)]
    config = XLMRobertaConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_attention_heads=4,
        num_hidden_layers=2,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        architectures=["XLMRobertaForTokenClassification"],
    )
    folder = parent / XLM_ROBERTA
    _write_model(folder, config, XLMRobertaForTokenClassification)
    _unigram_tokenizer(pieces).save(str(folder / "tokenizer.json"))
    tokens = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>"}
    _write_tokenizer_config(folder, "XLMRobertaTokenizer", {**tokens, "mask": "<mask>"})
    return folder


def causal(parent: Path, *, positions: int = 2048) -> Path:
    """A Llama with a byte-level tokenizer; `positions` is the longest input it accepts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _byte_level_tokenizer()
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        bos_token_id=0,
        eos_token_id=1,
        architectures=["LlamaForCausalLM"],
    )
    folder = parent / CAUSAL
    _write_model(folder, config, LlamaForCausalLM)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_tokenizer_config(folder, "PreTrainedTokenizerFast", {"bos": "<s>", "eos": "</s>"})
    return folder


def _write_model(folder: Path, config: PretrainedConfig, architecture: type[PreTrainedModel]) -> None:
    """Weights larger than an untrained model's, so that every token gets a probability of its own."""
    import torch

    model = architecture(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, values in model.named_parameters():
            norm = name.endswith(("LayerNorm.weight", "layernorm.weight", "norm.weight"))
            spread = 0.8 if "embed" in name else 0.2
            values.copy_(torch.randn(values.shape, generator=generator) * spread + norm)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)


def _word_piece_tokenizer(pieces: list[str]) -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    # A published folder carries such leftovers of its training; they must not reach the model.
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding(length=64)
    return tokenizer


def _unigram_tokenizer(pieces: list[tuple[str, float]]) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)])
    return tokenizer


def _byte_level_tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING, trainer)
    return tokenizer


def _write_tokenizer_config(folder: Path, tokenizer_class: str, tokens: dict[str, str], **more: bool) -> None:
    special = {f"{name}_token": token for name, token in tokens.items()}
    settings = {"tokenizer_class": tokenizer_class, "model_max_length": 512, **special, **more}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
