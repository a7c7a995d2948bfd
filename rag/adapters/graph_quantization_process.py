"""The process that quantises a graph to int8 for `graph_quantization`: EXACT.xml BATCHES.npz ROUNDED.xml."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from rag.adapters.graph_quantization import silence_telemetry


def main(exact: Path, batches: Path, rounded: Path) -> None:
    """Write the quantised graph.

    Attention's own products stay in floating point (their inputs have no fixed range); symmetric activations, since
    the zero points of asymmetric ones cost 8 % of the speed and gained nothing in the benchmark.
    """
    silence_telemetry()
    import logging

    import nncf
    import openvino as ov
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters

    logging.getLogger("nncf").setLevel(logging.ERROR)
    model = ov.Core().read_model(exact)
    calibration = _read_batches(batches)
    quantized = nncf.quantize(
        model,
        nncf.Dataset(calibration),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(names=_kept_products(model)),
        advanced_parameters=AdvancedQuantizationParameters(),
    )
    ov.save_model(quantized, rounded, compress_to_fp16=False)


def _read_batches(file: Path) -> list[dict[str, Any]]:
    """One dictionary per batch, of arrays that are named `number/input`."""
    with np.load(file, allow_pickle=False) as arrays:
        named = [(*name.split("/"), arrays[name]) for name in arrays]
    return [{name: value for _, name, value in group} for _, group in groupby(named, key=lambda entry: entry[0])]


def _kept_products(model: Any) -> list[str]:  # noqa: ANN401 - openvino.Model
    """Attention's products, and those of a head: over one vector per text, or to a handful of labels."""
    names = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        over_tokens = node.get_output_partial_shape(0).rank.get_length() > 2
        if not (over_tokens and _is_constant(node.input_value(1).get_node()) and not _is_last_product(node)):
            names.append(node.get_friendly_name())
    return names


def _is_last_product(node: Any) -> bool:  # noqa: ANN401 - an openvino node
    """Whether nothing but a bias comes after it: the classifier of each token."""
    while True:
        after = [port.get_node() for port in node.output(0).get_target_inputs()]
        if len(after) != 1 or after[0].get_type_name() not in ("Add", "Result"):
            return False
        node = after[0]
        if node.get_type_name() == "Result":
            return True


def _is_constant(node: Any) -> bool:  # noqa: ANN401 - an openvino node
    """Constants, also behind the conversions a traced graph puts after its weights."""
    while node.get_type_name() in ("Convert", "Multiply", "Transpose", "Reshape") and node.get_input_size():
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
