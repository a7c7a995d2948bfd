"""Linear layers of a graph to int8 by NNCF, calibrated on texts that ship with the package.

NNCF runs in a process of its own: it brings torch along, takes gigabytes for a large model, and has been seen to abort
natively. So what it took is given back, and an abort is an error that can be told, or a second try.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rag
from rag.errors import ModelRuntimeError

Inputs = dict[str, NDArray[np.int64]]
"""A padded batch: `input_ids`, `attention_mask` and `token_type_ids`, each (batch, length)."""

Calibrate = Callable[[Sequence[str]], Sequence[Inputs]]
"""Texts to the batches that a model shall see in calibration."""

_PROCESS = "rag.adapters.graph_quantization_process"
_TRIES = 2
_SHOWN_CHARACTERS = 300


def silence_telemetry() -> None:
    """Keep OpenVINO and NNCF from reporting to their makers; to be called before either is first imported."""
    # Both send events when this optional package can be imported, and run without it when it cannot.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def calibration_texts() -> list[str]:
    """Prose, queries, tables, code and mail in several languages."""
    text = files("rag.adapters").joinpath("calibration.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


def quantized(model: Any, batches: Sequence[Inputs]) -> Any:  # noqa: ANN401 - openvino.Model
    """Weights and activations of the linear layers over tokens as int8; a head's own layers stay as they are.

    Raises:
        ModelRuntimeError: NNCF failed, or died twice.
    """
    import openvino as ov

    names = {name for port in model.inputs for name in port.get_names()}
    arrays = {
        f"{number}/{name}": value
        for number, batch in enumerate(batches)
        for name, value in batch.items()
        if name in names
    }
    with tempfile.TemporaryDirectory(prefix="rag-int8-") as temporary:
        exact, calibration, rounded = (Path(temporary) / name for name in ("exact.xml", "batches.npz", "rounded.xml"))
        ov.save_model(model, exact, compress_to_fp16=False)
        np.savez(calibration, allow_pickle=False, **arrays)
        _run_process(exact, calibration, rounded)
        return ov.Core().read_model(rounded)


def _run_process(*files: Path) -> None:
    for _ in range(_TRIES):
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", _PROCESS, *map(str, files)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_import_path())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode == 0:
            return
        if done.returncode > 0:
            said = done.stderr.decode(errors="replace").strip()[-_SHOWN_CHARACTERS:]
            raise ModelRuntimeError(f"quantising to int8 failed: {said}; set precision to bf16, which needs none of it")
    raise ModelRuntimeError(
        f"quantising to int8 was ended {_TRIES} times by signal {-done.returncode}, perhaps for want of memory; "
        "try again, or set precision to bf16, which needs none of it"
    )


def _import_path() -> list[str]:
    """Where this process imports from, without the working directory, which may be a folder of anybody's files.

    Where that leaves out the package `rag` itself, its folder comes last, so that nothing beside it hides another one.
    """
    entries = [str(Path(entry).resolve()) for entry in sys.path if entry]
    own = str(Path(rag.__file__).resolve().parents[1])
    return list(dict.fromkeys([*(entry for entry in entries if entry != str(Path.cwd())), own]))
