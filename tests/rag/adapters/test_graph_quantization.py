"""What a quantising process that dies leaves; the scores and vectors of quantised graphs are asked for elsewhere."""

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import rag
from rag.adapters import graph_quantization
from rag.adapters.graph_quantization import quantized, silence_telemetry
from rag.errors import ModelRuntimeError

VOCABULARY, WIDTH = 20, 16
BATCHES = [{"input_ids": np.arange(8, dtype=np.int64)[None] + shift, "unknown": np.zeros(3)} for shift in range(4)]


def small_graph():
    """Embedding, linear layer, sum, and a head over one vector per text."""
    silence_telemetry()
    import openvino as ov
    from openvino import opset13 as op

    random = np.random.default_rng(3)

    def weights(*shape: int) -> NDArray[np.float32]:
        return random.normal(size=shape).astype(np.float32)

    ids = op.parameter([-1, -1], np.int64, name="input_ids")
    ids.output(0).set_names({"input_ids"})
    state = op.gather(op.constant(weights(VOCABULARY, WIDTH)), ids, op.constant(0))
    for _ in range(2):
        state = op.relu(op.matmul(state, op.constant(weights(WIDTH, WIDTH)), transpose_a=False, transpose_b=True))
    pooled = op.reduce_sum(state, op.constant(np.array([1])))
    logits = op.matmul(pooled, op.constant(weights(1, WIDTH)), transpose_a=False, transpose_b=True)
    return ov.Model([logits], [ids], "small")


def outcome(model) -> NDArray[np.float32]:
    import openvino as ov

    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.concatenate([compiled([batch["input_ids"]])[0] for batch in BATCHES])[:, 0]


def replace_process(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> Path:
    """Have another module run as the process, which has a folder for notes."""
    folder.mkdir(exist_ok=True)
    (folder / "standin.py").write_text(f"from pathlib import Path\nnotes = Path({str(folder)!r})\n{code}")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(graph_quantization, "_PROCESS", "standin")
    return folder


DIE = "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"


def test_a_process_that_aborts_is_started_once_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    notes = replace_process(
        monkeypatch,
        tmp_path,
        f"""
import runpy
if not (notes / "died").exists():
    (notes / "died").touch()
    {DIE}
runpy.run_module("rag.adapters.graph_quantization_process", run_name="__main__")
""",
    )
    model = small_graph()

    rounded = quantized(model, BATCHES)

    assert (notes / "died").exists()
    exact, found = outcome(model), outcome(rounded)
    assert not np.array_equal(exact, found)
    assert np.corrcoef(exact, found)[0, 1] > 0.99
    # The table and both layers over tokens have their weights rounded; the head, over one vector per text, has not.
    constants = [node for node in rounded.get_ordered_ops() if node.get_type_name() == "Constant"]
    rounded_weights = [list(node.shape) for node in constants if node.get_element_type().get_type_name() == "i8"]
    assert rounded_weights == [[VOCABULARY, WIDTH], [WIDTH, WIDTH], [WIDTH, WIDTH]]


def test_a_process_that_aborts_twice_is_an_error_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    notes = replace_process(monkeypatch, tmp_path, f'with (notes / "tries").open("a") as file: file.write("x")\n{DIE}')
    with pytest.raises(ModelRuntimeError, match=r"ended 2 times by signal 6, .* set precision to bf16"):
        quantized(small_graph(), BATCHES)
    assert (notes / "tries").read_text() == "xx"


def test_what_lies_in_the_working_directory_is_not_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("nncf", "numpy", "json", "openvino"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')\nraise SystemExit('hijacked')")
    model = small_graph()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path, "."])

    rounded = quantized(model, BATCHES)

    assert not (tmp_path / "executed").exists()
    assert np.corrcoef(outcome(model), outcome(rounded))[0, 1] > 0.99


def test_a_source_checkout_is_found_where_it_is_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    replace_process(monkeypatch, tmp_path / "standin", "import sys, rag\nraise SystemExit(rag.__file__)")
    checkout = tmp_path / "checkout"
    (checkout / "rag").mkdir(parents=True)
    (checkout / "rag" / "__init__.py").touch()
    monkeypatch.chdir(checkout)
    installed = str(Path(rag.__file__).parents[1])
    monkeypatch.setattr(rag, "__file__", str(checkout / "rag" / "__init__.py"))
    monkeypatch.setattr(sys, "path", ["", *(entry for entry in sys.path if entry != installed)])
    with pytest.raises(ModelRuntimeError, match=str(checkout)):
        quantized(small_graph(), BATCHES)


def test_what_a_process_says_when_it_fails_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    replace_process(monkeypatch, tmp_path, 'raise SystemExit("no such operation")')
    with pytest.raises(ModelRuntimeError, match=r"quantising to int8 failed: no such operation; set precision to bf16"):
        quantized(small_graph(), BATCHES)
