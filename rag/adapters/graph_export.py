"""Exporting an embedding model to an OpenVINO graph, once; later starts read the cached graph.

A cached graph is keyed by the hash of the weights, the pooling and the precision, and appears in one rename: a
killed export leaves nothing that could be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rag.adapters import graph_bert, graph_trace
from rag.adapters.model_folder import ModelFolder, Pooling
from rag.errors import ModelNotFoundError

Precision = Literal["int8", "bf16", "fp32"]
Inputs = dict[str, NDArray[np.int64]]
_GRAPH_VERSION = "2"  # part of the key: raised when the export itself changes
_GRAPH_FILE = "graph.xml"


def silence_telemetry() -> None:
    """Keep OpenVINO and NNCF from reporting to their makers; to be called before either is first imported."""
    # Both send events when this optional package can be imported, and run without it when it cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def exported_graph(
    folder: ModelFolder,
    precision: Precision,
    *,
    cache_dir: Path,
    expected_sha256: str | None,
    tokenize: Callable[[Sequence[str]], Inputs],
    on_export: Callable[[str], None],
) -> Path:
    """The cached graph of a model, exported now if it is not there yet.

    Args:
        expected_sha256: What the weights must hash to; None where no published hash is known.
        tokenize: Texts to a padded batch, for calibration.
        on_export: Told what is being done when that takes seconds.

    Raises:
        ModelNotFoundError: The weights do not have the expected hash, or do not fit their configuration.
    """
    silence_telemetry()
    sha256 = _known_hash(folder, cache_dir)
    if expected_sha256 and sha256 != expected_sha256:
        raise ModelNotFoundError(
            f"{folder.weights} is damaged or not the published model: its SHA-256 is {sha256}, "
            f"expected {expected_sha256}. Install it again."
        )
    stored = "int8" if precision == "int8" else "fp32"  # bf16 is how the fp32 graph is run, not another graph
    key = hashlib.sha256(f"{_GRAPH_VERSION}:{sha256}:{folder.pooling}".encode()).hexdigest()[:16]
    target = cache_dir / f"{folder.path.name}-{key}-{stored}"
    if not (target / _GRAPH_FILE).is_file():
        on_export(f"exporting {folder.name} to an {stored} graph (once)")
        _export(folder, stored, target, tokenize)
    return target / _GRAPH_FILE


def _known_hash(folder: ModelFolder, cache_dir: Path) -> str:
    """The weights' hash, from a record as long as the file's size and time are those it was computed for."""
    status = folder.weights.stat()
    record = cache_dir / f"{hashlib.sha256(str(folder.weights.resolve()).encode()).hexdigest()[:16]}.hash.json"
    stamp = [status.st_size, status.st_mtime_ns]
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError):
        pass  # no record yet, or half of one: hash the file
    sha256 = folder.sha256()
    cache_dir.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"stamp": stamp, "sha256": sha256}), encoding="utf-8")
    return sha256


def _export(folder: ModelFolder, stored: str, target: Path, tokenize: Callable[[Sequence[str]], Inputs]) -> None:
    import openvino as ov

    if graph_bert.supports(folder.config):
        try:
            encoder = graph_bert.build_encoder(folder.config, _load_weights(folder.weights))
        except KeyError as error:
            raise ModelNotFoundError(f"{folder.weights} lacks the weight {error}; pull the model again") from error
    else:
        encoder = graph_trace.trace_encoder(folder.path)
    if stored == "int8":
        # Before pooling: rounding the pooled vector too would cost more than all the layers together.
        encoder = _quantize(encoder, tokenize)
    graph = _with_pooling(encoder, folder.pooling)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as unfinished:
        ov.save_model(graph, Path(unfinished) / "graph" / _GRAPH_FILE, compress_to_fp16=False)
        try:
            (Path(unfinished) / "graph").replace(target)
        except OSError:
            # Another process exported the same model meanwhile; what appeared is whole, and may be in use.
            if not (target / _GRAPH_FILE).is_file():
                raise


def _load_weights(file: Path) -> graph_bert.Weights:
    if file.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {name: value.astype(np.float32) for name, value in load_file(file).items()}
    import torch

    weights = torch.load(file, map_location="cpu", weights_only=True)
    return {name: value.to(torch.float32).numpy() for name, value in weights.items()}


def _with_pooling(encoder: Any, pooling: Pooling) -> Any:  # noqa: ANN401 - openvino.Model
    """Token vectors to one unit vector per text."""
    import openvino as ov
    from openvino import opset13 as op

    state = encoder.output(0).get_node().input_value(0)
    mask = next(p for p in encoder.get_parameters() if "attention_mask" in p.output(0).get_names())

    def shape(*sizes: int) -> Any:  # noqa: ANN401
        return op.constant(np.array(sizes, dtype=np.int64))

    if pooling == "cls":
        pooled = op.gather(state, op.constant(0), op.constant(1))
    else:
        weight = op.unsqueeze(op.convert(mask, "f32"), shape(2))
        pooled = op.divide(op.reduce_sum(op.multiply(state, weight), shape(1)), op.reduce_sum(weight, shape(1)))
    unit = op.normalize_l2(pooled, shape(1), 1e-12, "max")
    return ov.Model([unit], encoder.get_parameters(), "embedder")


def _quantize(encoder: Any, tokenize: Callable[[Sequence[str]], Inputs]) -> Any:  # noqa: ANN401 - openvino.Model
    """Weights and activations of the linear layers to int8, calibrated on texts that ship with the package.

    Attention's own products stay in floating point (their inputs have no fixed range); symmetric activations, since
    the zero points of asymmetric ones cost 8 % of the speed and gained nothing in the benchmark.
    """
    with _quiet():
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters

        texts = files("rag.adapters").joinpath("calibration.txt").read_text(encoding="utf-8").splitlines()
        products = [
            node.get_friendly_name()
            for node in encoder.get_ordered_ops()
            if node.get_type_name() == "MatMul" and not _is_constant(node.input_value(1).get_node())
        ]
        return nncf.quantize(
            encoder,
            nncf.Dataset([tokenize([text]) for text in texts if text.strip()]),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(texts),
            ignored_scope=nncf.IgnoredScope(names=products),
            advanced_parameters=AdvancedQuantizationParameters(),
        )


def _is_constant(node: Any) -> bool:  # noqa: ANN401 - an openvino node
    """Constants, also behind the conversions a traced graph puts after its weights."""
    while node.get_type_name() in ("Convert", "Multiply", "Transpose", "Reshape") and node.get_input_size():
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws progress bars on standard output, which belongs to our callers."""
    import logging

    logging.getLogger("nncf").setLevel(logging.ERROR)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
