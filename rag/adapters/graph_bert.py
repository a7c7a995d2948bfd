"""BERT, RoBERTa and XLM-RoBERTa encoders as OpenVINO graphs, written down directly from the weights.

Directly, because a traced graph materialises a mask of shape (batch, 1, length, length) that this family does not
need, and because torch is then not even needed to export. Other architectures are traced (`graph_trace`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[np.float32]]
FAMILY = ("bert", "roberta", "xlm-roberta")
_MASKED = -10_000.0  # finite, so that it survives bf16 and leaves no NaN where a whole row is padding


def supports(config: Mapping[str, Any]) -> bool:
    """Whether a transformers configuration describes an encoder that `build_encoder` can write down."""
    return (
        config.get("model_type") in FAMILY
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") in (None, "absolute")
        and not config.get("is_decoder", False)
    )


def build_encoder(config: Mapping[str, Any], weights: Weights, *, segments: bool = False) -> Any:  # noqa: ANN401 - an openvino.Model
    """The graph (input_ids, attention_mask), both int64 (batch, length) -> last hidden state (batch, length, hidden).

    Padding must be on the right.

    Args:
        config: The model's config.json.
        weights: By name, without the family's prefix.
        segments: Whether the graph also takes token_type_ids, if its family tells segments apart, which BERT alone
            does; else every token is of segment 0.
    """
    import openvino as ov

    told_apart = segments and config["model_type"] == "bert" and config.get("type_vocab_size", 2) > 1
    return ov.Model(*_Encoder(config, weights, segments=told_apart).build(), "encoder")


class _Encoder:
    """The graph while it is written down."""

    def __init__(self, config: Mapping[str, Any], weights: Weights, *, segments: bool) -> None:
        from openvino import opset13

        self._op = opset13
        self._config = config
        self._weights = weights
        self._segments = segments
        self._heads = int(config["num_attention_heads"])
        self._hidden = int(config["hidden_size"])

    def build(self) -> tuple[list[Any], list[Any]]:
        op = self._op
        ids = op.parameter([-1, -1], np.int64, name="input_ids")
        mask = op.parameter([-1, -1], np.int64, name="attention_mask")
        types = op.parameter([-1, -1], np.int64, name="token_type_ids")
        for parameter in (ids, mask, types):
            parameter.output(0).set_names({parameter.friendly_name})
        bias = op.multiply(op.subtract(self._constant(1.0), op.convert(mask, "f32")), self._constant(_MASKED))
        bias = op.reshape(bias, self._shape(0, 1, 1, -1), special_zero=True)
        state = self._embed(ids, types if self._segments else None)
        for layer in range(int(self._config["num_hidden_layers"])):
            state = self._layer(state, bias, f"encoder.layer.{layer}.")
        return [state], [ids, mask, types] if self._segments else [ids, mask]

    def _embed(self, ids: Any, types: Any | None) -> Any:  # noqa: ANN401 - graph nodes have no public type
        op = self._op
        # RoBERTa counts positions from the padding id + 1; with padding on the right that is a fixed offset.
        first = 0 if self._config["model_type"] == "bert" else int(self._config.get("pad_token_id", 1)) + 1
        positions = self._weights["embeddings.position_embeddings.weight"][first:]
        segments = self._weights["embeddings.token_type_embeddings.weight"]
        if types is None:
            positions = positions + segments[0]  # once and for all, since every token is of segment 0
        length = op.gather(op.shape_of(ids, "i64"), self._shape(1), op.constant(0))
        positions = op.slice(self._constant(positions), self._shape(0), length, self._shape(1), self._shape(0))
        words = self._constant(self._weights["embeddings.word_embeddings.weight"])
        embedded = op.add(op.gather(words, op.convert(ids, "i32"), op.constant(0)), positions)
        if types is not None:
            added = op.gather(self._constant(segments), op.convert(types, "i32"), op.constant(0))
            embedded = op.add(embedded, added)
        return self._layer_norm(embedded, "embeddings.LayerNorm")

    def _layer(self, state: Any, bias: Any, prefix: str) -> Any:  # noqa: ANN401
        op = self._op
        attended = self._attention(state, bias, prefix + "attention.self.")
        attended = self._linear(attended, prefix + "attention.output.dense")
        state = self._layer_norm(op.add(attended, state), prefix + "attention.output.LayerNorm")
        wide = op.gelu(self._linear(state, prefix + "intermediate.dense"), "erf")
        return self._layer_norm(op.add(self._linear(wide, prefix + "output.dense"), state), prefix + "output.LayerNorm")

    def _attention(self, state: Any, bias: Any, prefix: str) -> Any:  # noqa: ANN401
        op = self._op
        scale = 1 / math.sqrt(self._hidden / self._heads)
        # The scale is folded into the query weights, which saves a pass over the scores.
        query = self._per_head(self._linear(state, prefix + "query", scale))
        key, value = (self._per_head(self._linear(state, prefix + name)) for name in ("key", "value"))
        scores = op.add(op.matmul(query, key, transpose_a=False, transpose_b=True), bias)
        mixed = op.matmul(op.softmax(scores, 3), value, transpose_a=False, transpose_b=False)
        mixed = op.transpose(mixed, self._shape(0, 2, 1, 3))
        return op.reshape(mixed, self._shape(0, 0, self._hidden), special_zero=True)

    def _per_head(self, state: Any) -> Any:  # noqa: ANN401
        split = self._shape(0, 0, self._heads, self._hidden // self._heads)
        return self._op.transpose(self._op.reshape(state, split, special_zero=True), self._shape(0, 2, 1, 3))

    def _linear(self, state: Any, name: str, scale: float = 1.0) -> Any:  # noqa: ANN401
        op = self._op
        weight = self._constant(self._weights[name + ".weight"] * np.float32(scale))
        bias = self._constant(self._weights[name + ".bias"] * np.float32(scale))
        return op.add(op.matmul(state, weight, transpose_a=False, transpose_b=True), bias)

    def _layer_norm(self, state: Any, name: str) -> Any:  # noqa: ANN401
        op = self._op
        epsilon = float(self._config.get("layer_norm_eps", 1e-12))
        normal = op.mvn(state, self._shape(-1), normalize_variance=True, eps=epsilon, eps_mode="inside_sqrt")
        scaled = op.multiply(normal, self._constant(self._weights[name + ".weight"]))
        return op.add(scaled, self._constant(self._weights[name + ".bias"]))

    def _constant(self, value: float | NDArray[np.float32]) -> Any:  # noqa: ANN401
        return self._op.constant(np.asarray(value, dtype=np.float32))

    def _shape(self, *sizes: int) -> Any:  # noqa: ANN401
        return self._op.constant(np.array(sizes, dtype=np.int64))
