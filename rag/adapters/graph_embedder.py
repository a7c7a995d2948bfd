"""Sentence embeddings on OpenVINO: the default embedder. Torch is never imported to serve."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rag.adapters.graph_export import Inputs, Precision, exported_graph
from rag.adapters.model_folder import ModelFolder
from rag.errors import ModelRuntimeError
from rag.types import Vectors

_LENGTH_STEP = 16


class GraphEmbedder:
    """An `Embedder` over a sentence-transformers folder.

    Args:
        folder: The model on disk.
        precision: `fp32` is exact; `bf16` lets the runtime compute in bf16 where the processor has it; `int8` also
            quantises the linear layers.
        cache_dir: Where exported graphs are kept.
        batch_tokens: A batch holds at most so many tokens, padding included (at least one text).
        threads: Processor cores to use; 0 for all that this process may use.
        expected_sha256: Published hash of the weights, where known.
        on_export: Told when an export starts, which takes seconds.

    Raises:
        ModelNotFoundError: The weights are missing or not the expected ones.
    """

    def __init__(
        self,
        folder: ModelFolder,
        *,
        precision: Precision,
        cache_dir: Path,
        batch_tokens: int,
        threads: int = 0,
        expected_sha256: str | None = None,
        on_export: Callable[[str], None] = lambda _: None,
    ) -> None:
        from tokenizers import Tokenizer

        self._folder = folder
        self._batch_tokens = batch_tokens
        self._tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(folder.max_tokens)
        graph = exported_graph(
            folder,
            precision,
            cache_dir=cache_dir,
            expected_sha256=expected_sha256,
            tokenize=lambda texts: self._pad(self._token_ids(texts)),
            on_export=on_export,
        )
        self.identity = f"{folder.name}:{graph.parent.name.rsplit('-', 2)[1]}"
        self.max_tokens = folder.max_tokens
        cores = threads or len(os.sched_getaffinity(0))
        model = _compile(graph, precision, cores)
        self.dimension = int(model.output(0).get_partial_shape()[1].get_length())
        # One request per stream; a request is taken for one batch and given back, so that a query waits for one
        # batch of a running ingestion at most.
        streams = int(model.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._starting = Lock()
        for _ in range(streams):
            self._requests.put(model.create_infer_request())
        self._workers = ThreadPoolExecutor(streams, thread_name_prefix="embed")

    async def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return await asyncio.to_thread(self._embed, [self._folder.query_prompt + text for text in texts])

    async def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        return await asyncio.to_thread(self._embed, [self._folder.passage_prompt + text for text in texts])

    async def close(self) -> None:
        """See `Embedder`."""
        self._workers.shutdown(wait=False)

    def _embed(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        token_ids = self._token_ids(texts)
        batches = _batches([self._padded_length(ids) for ids in token_ids], self._batch_tokens)

        def run(batch: NDArray[np.intp]) -> None:
            inputs = self._pad([token_ids[i] for i in batch], rows=_rounded_rows(len(batch)))
            vectors[batch] = self._infer(inputs)[: len(batch)]

        if len(batches) == 1:
            run(batches[0])
        else:
            list(self._workers.map(run, batches))
        return vectors

    def _infer(self, inputs: Inputs) -> Vectors:
        request = self._requests.get()
        try:
            # The runtime's Python layer can deadlock when two threads change the shapes of inputs at once.
            with self._starting:
                request.start_async(inputs)
            request.wait()
            return np.array(request.get_output_tensor(0).data, dtype=np.float32)
        except RuntimeError as error:
            raise ModelRuntimeError(f"the embedding model {self._folder.name} failed: {error}") from error
        finally:
            self._requests.put(request)

    def _padded_length(self, token_ids: Sequence[int]) -> int:
        """Rounded up: the runtime compiles kernels anew, some 20 ms, for every shape it has not met."""
        rounded = -(-max(1, len(token_ids)) // _LENGTH_STEP) * _LENGTH_STEP
        return min(rounded, self._folder.max_tokens)

    def _pad(self, token_ids: Sequence[Sequence[int]], rows: int | None = None) -> Inputs:
        """Ids padded on the right, and with rows below; what stands in padding does not matter."""
        length = self._padded_length(max(token_ids, key=len))
        ids = np.zeros((rows or len(token_ids), length), dtype=np.int64)
        mask = np.zeros_like(ids)
        mask[len(token_ids) :, 0] = 1  # a row of nothing has no mean
        for row, tokens in enumerate(token_ids):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]


def _rounded_rows(count: int) -> int:
    """Rounded up, at most by an eighth: every number of rows is a shape of its own, which costs time and memory."""
    step = 1 << max(0, count.bit_length() - 4)
    return -(-count // step) * step


def _batches(lengths: Sequence[int], batch_tokens: int) -> list[NDArray[np.intp]]:
    """Texts of similar length together, longest first, so that little is padding and no core idles at the end.

    Args:
        lengths: Of each text, as it is padded alone.
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
