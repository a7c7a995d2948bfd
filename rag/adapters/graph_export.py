"""Exporting a model to an OpenVINO graph, once; later starts read the cached graph.

A cached graph is keyed by the hash of the weights, the head and the precision, and appears in one rename: a
killed export leaves nothing that could be read.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rag.adapters import graph_bert, graph_trace
from rag.adapters.graph_heads import Head, add_classifier, add_pooling
from rag.adapters.graph_quantization import Calibrate, Inputs, calibration_texts, quantized, silence_telemetry
from rag.adapters.model_folder import ModelFolder
from rag.errors import ModelNotFoundError

__all__ = ["Calibrate", "Head", "Inputs", "Precision", "exported_graph"]

Precision = Literal["int8", "bf16", "fp32"]
_GRAPH_VERSION = "2"  # part of the key: raised when the export itself changes
_GRAPH_FILE = "graph.xml"


def exported_graph(
    folder: ModelFolder,
    precision: Precision,
    *,
    head: Head,
    cache_dir: Path,
    expected_sha256: str | None,
    calibrate: Calibrate,
    on_export: Callable[[str], None],
) -> Path:
    """The cached graph of a model, exported now if it is not there yet.

    The graph takes `input_ids` and `attention_mask`, and `token_type_ids` where it reads pairs of texts and the
    architecture tells their segments apart; all int64, (batch, length), padded on the right.

    Args:
        head: What the graph puts out.
        expected_sha256: What the weights must hash to; None where no published hash is known.
        calibrate: Called for int8 alone.
        on_export: Told what is being done when that takes seconds.

    Raises:
        ModelNotFoundError: The weights do not have the expected hash, or do not fit their configuration.
        ModelRuntimeError: Quantising failed.
    """
    silence_telemetry()
    sha256 = _known_hash(folder, cache_dir)
    if expected_sha256 and sha256 != expected_sha256:
        raise ModelNotFoundError(
            f"{folder.weights} is damaged or not the published model: its SHA-256 is {sha256}, "
            f"expected {expected_sha256}. Install it again."
        )
    stored = "int8" if precision == "int8" else "fp32"  # bf16 is how the fp32 graph is run, not another graph
    key = hashlib.sha256(f"{_GRAPH_VERSION}:{sha256}:{head}".encode()).hexdigest()[:16]
    target = cache_dir / f"{folder.path.name}-{key}-{stored}"
    if not (target / _GRAPH_FILE).is_file():
        on_export(f"exporting {folder.name} to an {stored} graph (once)")
        _save(_graph(folder, head, calibrate if stored == "int8" else None), target)
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


def _graph(folder: ModelFolder, head: Head, calibrate: Calibrate | None) -> Any:  # noqa: ANN401 - openvino.Model
    if not graph_bert.supports(folder.config):
        if head in ("mean", "cls"):
            return add_pooling(_rounded(graph_trace.trace_encoder(folder.path), calibrate), head)
        return _rounded(graph_trace.trace_classifier(folder.path, per_token=head == "token-classification"), calibrate)
    weights = _load_weights(folder.weights)
    encoder = graph_bert.build_encoder(folder.config, weights, segments=head == "sequence-classification")
    # Before the head: rounding what it works on would cost more than all the layers together.
    encoder = _rounded(encoder, calibrate)
    if head in ("mean", "cls"):
        return add_pooling(encoder, head)
    return add_classifier(encoder, head, folder.config, weights)


def _rounded(model: Any, calibrate: Calibrate | None) -> Any:  # noqa: ANN401 - openvino.Model
    return model if calibrate is None else quantized(model, calibrate(calibration_texts()))


def _save(graph: Any, target: Path) -> None:  # noqa: ANN401 - openvino.Model
    import openvino as ov

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as unfinished:
        ov.save_model(graph, Path(unfinished) / "graph" / _GRAPH_FILE, compress_to_fp16=False)
        try:
            (Path(unfinished) / "graph").replace(target)
        except OSError:
            # Another process exported the same model meanwhile; what appeared is whole, and may be in use.
            if not (target / _GRAPH_FILE).is_file():
                raise


class _Weights(dict[str, NDArray[np.float32]]):
    """Weights of one file, by the names they have inside the encoder, whatever it was saved as a part of."""

    def __init__(self, file: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
        super().__init__((name.removeprefix("bert.").removeprefix("roberta."), w) for name, w in weights.items())
        self._file = file

    def __missing__(self, name: str) -> NDArray[np.float32]:
        raise ModelNotFoundError(f"{self._file} lacks the weight {name!r}; pull the model again")


def _load_weights(file: Path) -> graph_bert.Weights:
    if file.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return _Weights(file, {name: value.astype(np.float32) for name, value in load_file(file).items()})
    import torch

    weights = torch.load(file, map_location="cpu", weights_only=True)
    return _Weights(file, {name: value.to(torch.float32).numpy() for name, value in weights.items()})
