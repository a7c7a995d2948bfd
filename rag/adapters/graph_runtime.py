"""Running an exported graph: token sequences in, one row of numbers for each out. Shared by all graph models."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rag.adapters.graph_export import Inputs, Precision
from rag.errors import ModelRuntimeError

_LENGTH_STEP = 16


class TokenSequence(NamedTuple):
    """One input of a model, special tokens included.

    Attributes:
        types: The segment of each token, 0 or 1; empty where all are of segment 0.
    """

    ids: Sequence[int]
    types: Sequence[int] = ()


class GraphRuntime:
    """A compiled graph with as many concurrent requests as suit the processor; safe to use from many threads.

    Args:
        graph: Of `exported_graph`.
        precision: As the graph was exported.
        name: Of the model, as errors are to say it: `the embedding model X`.
        max_tokens: No sequence is longer.
        threads: Processor cores to use; 0 for all that this process may use.

    Attributes:
        streams: Batches that run at once.
        output_size: Length of the graph's last axis.
    """

    def __init__(self, graph: Path, precision: Precision, *, name: str, max_tokens: int, threads: int = 0) -> None:
        model = _compile(graph, precision, threads or len(os.sched_getaffinity(0)))
        self._name = name
        self._max_tokens = max_tokens
        self._input_names = {name for port in model.inputs for name in port.get_names()}
        self.output_size = int(model.output(0).get_partial_shape()[-1].get_length())
        # One request per stream; a request is taken for one batch and given back, so that a query waits for one
        # batch of a running ingestion at most.
        self.streams = int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._starting = Lock()
        for _ in range(self.streams):
            self._requests.put(model.create_infer_request())
        self._workers = ThreadPoolExecutor(self.streams, thread_name_prefix="graph")

    def run(self, sequences: Sequence[TokenSequence], *, batch_tokens: int) -> list[NDArray[np.float32]]:
        """What the graph's first output says of each sequence, in order.

        Where the output has an axis of tokens, it ends with the sequence: nothing is said of padding.

        Args:
            batch_tokens: A batch holds at most so many tokens, padding included (at least one sequence).

        Raises:
            ModelRuntimeError: The runtime failed.
        """
        outputs = self.run_while(lambda: True, sequences, batch_tokens=batch_tokens)
        return [output for output in outputs if output is not None]

    def run_while(
        self, may_begin: Callable[[], bool], sequences: Sequence[TokenSequence], *, batch_tokens: int
    ) -> list[NDArray[np.float32] | None]:
        """As `run`, with None for the sequences of batches that may not begin.

        Args:
            may_begin: Asked before each batch, in several threads.
        """
        outputs: list[NDArray[np.float32] | None] = [None] * len(sequences)
        lengths = [padded_length(len(sequence.ids), self._max_tokens) for sequence in sequences]

        def run_batch(batch: NDArray[np.intp]) -> None:
            if not may_begin():
                return
            chosen = [sequences[i] for i in batch]
            rows = self._infer(pad(chosen, max_tokens=self._max_tokens, rows=_rounded_rows(len(batch))))
            for i, row in zip(batch, rows, strict=False):
                outputs[i] = row if row.ndim == 1 else row[: len(sequences[i].ids)]

        batches = _batches(lengths, batch_tokens)
        if len(batches) == 1:
            run_batch(batches[0])
        else:
            list(self._workers.map(run_batch, batches))
        return outputs

    def close(self) -> None:
        """Let the threads end."""
        self._workers.shutdown(wait=False)

    def _infer(self, inputs: Inputs) -> NDArray[np.float32]:
        request = self._requests.get()
        try:
            # The runtime's Python layer can deadlock when two threads change the shapes of inputs at once.
            with self._starting:
                request.start_async({name: value for name, value in inputs.items() if name in self._input_names})
            request.wait()
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        except RuntimeError as error:
            raise ModelRuntimeError(f"{self._name} failed: {error}") from error
        finally:
            self._requests.put(request)


def padded_length(length: int, max_tokens: int) -> int:
    """Rounded up: the runtime compiles kernels anew, some 20 ms, for every shape it has not met."""
    return min(-(-max(1, length) // _LENGTH_STEP) * _LENGTH_STEP, max_tokens)


def pad(sequences: Sequence[TokenSequence], *, max_tokens: int, rows: int | None = None) -> Inputs:
    """Sequences as one batch, padded on the right, and with rows below; what stands in padding does not matter.

    Args:
        max_tokens: The longest that any sequence may be.
        rows: Of the batch; None for one per sequence.
    """
    length = padded_length(max(len(sequence.ids) for sequence in sequences), max_tokens)
    ids = np.zeros((rows or len(sequences), length), dtype=np.int64)
    mask, types = np.zeros_like(ids), np.zeros_like(ids)
    mask[len(sequences) :, 0] = 1  # a row of nothing has no mean
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence.ids)] = sequence.ids
        types[row, : len(sequence.types)] = sequence.types
        mask[row, : len(sequence.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


def _rounded_rows(count: int) -> int:
    """Rounded up, at most by an eighth: every number of rows is a shape of its own, which costs time and memory."""
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


def _batches(lengths: Sequence[int], batch_tokens: int) -> list[NDArray[np.intp]]:
    """Sequences of similar length together, longest first, so that little is padding and no core idles at the end.

    Args:
        lengths: Of each sequence, as it is padded alone.
    """
    longest_first = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches = []
    start = 0
    while start < len(longest_first):
        size = max(1, batch_tokens // lengths[longest_first[start]])
        batches.append(longest_first[start : start + size])
        start += size
    return batches


def _compile(graph: Path, precision: Precision, cores: int) -> Any:  # noqa: ANN401 - an openvino.CompiledModel
    import openvino as ov

    settings: dict[str, Any] = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": cores}
    if precision == "fp32":
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    return ov.Core().compile_model(graph, "CPU", settings)
