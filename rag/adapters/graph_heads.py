"""What stands on an encoder's token vectors: pooling to an embedding, or a classifier with its own weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from rag.adapters.graph_bert import Weights
from rag.adapters.model_folder import Pooling

Head = Literal["mean", "cls", "sequence-classification", "token-classification"]
"""`mean` and `cls` pool to a unit vector per text; the others end in logits, per text or per token."""


def add_pooling(encoder: Any, pooling: Pooling) -> Any:  # noqa: ANN401 - openvino.Model
    """Token vectors to one unit vector per text, (batch, hidden)."""
    from openvino import opset13 as op

    state = _last_state(encoder)
    mask = next(p for p in encoder.get_parameters() if "attention_mask" in p.output(0).get_names())
    if pooling == "cls":
        pooled = op.gather(state, op.constant(0), op.constant(1))
    else:
        weight = op.unsqueeze(op.convert(mask, "f32"), _shape(2))
        pooled = op.divide(op.reduce_sum(op.multiply(state, weight), _shape(1)), op.reduce_sum(weight, _shape(1)))
    unit = op.normalize_l2(pooled, _shape(1), 1e-12, "max")
    return _with_output(encoder, unit, "embedder")


def add_classifier(encoder: Any, head: Head, config: Mapping[str, Any], weights: Weights) -> Any:  # noqa: ANN401 - openvino.Model
    """Token vectors to logits as the family's classifiers in transformers compute them.

    Args:
        head: `sequence-classification`: (batch, labels) of the first token, through a layer with tanh;
            `token-classification`: (batch, length, labels).
        config: The model's config.json.
        weights: By name, without the family's prefix.
    """
    from openvino import opset13 as op

    def linear(state: Any, name: str) -> Any:  # noqa: ANN401
        product = op.matmul(state, op.constant(weights[name + ".weight"]), transpose_a=False, transpose_b=True)
        return op.add(product, op.constant(weights[name + ".bias"]))

    state = _last_state(encoder)
    if head == "token-classification":
        return _with_output(encoder, linear(state, "classifier"), "token-classifier")
    names = {"bert": ("pooler.dense", "classifier")}
    dense, out = names.get(config["model_type"], ("classifier.dense", "classifier.out_proj"))
    first = op.gather(state, op.constant(0), op.constant(1))
    return _with_output(encoder, linear(op.tanh(linear(first, dense)), out), "classifier")


def _last_state(encoder: Any) -> Any:  # noqa: ANN401 - openvino.Output
    return encoder.output(0).get_node().input_value(0)


def _with_output(encoder: Any, output: Any, name: str) -> Any:  # noqa: ANN401 - openvino.Model
    import openvino as ov

    return ov.Model([output], encoder.get_parameters(), name)


def _shape(*sizes: int) -> Any:  # noqa: ANN401
    from openvino import opset13 as op

    return op.constant(np.array(sizes, dtype=np.int64))
