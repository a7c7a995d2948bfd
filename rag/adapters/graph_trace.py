"""Models of any architecture as OpenVINO graphs, by tracing them in torch. Needed once, at export.

The code that defines an architecture is that of the installed transformers; none is taken from the folder.
"""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any


def trace_encoder(folder: Path) -> Any:  # noqa: ANN401 - an openvino.Model
    """The graph (input_ids, attention_mask), int64 (batch, length) -> last hidden state (batch, length, hidden)."""
    from transformers import AutoModel

    return _traced(AutoModel, folder, "last_hidden_state", segments=False)


def trace_classifier(folder: Path, *, per_token: bool) -> Any:  # noqa: ANN401 - an openvino.Model
    """The graph -> logits: (batch, length, labels) per token; (batch, labels) for a whole text, or pair of texts.

    That of whole texts also takes token_type_ids where the architecture tells segments apart.
    """
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    architecture = AutoModelForTokenClassification if per_token else AutoModelForSequenceClassification
    return _traced(architecture, folder, "logits", segments=not per_token)


def _traced(architecture: Any, folder: Path, output: str, *, segments: bool) -> Any:  # noqa: ANN401
    import openvino as ov
    import torch

    # "eager", because its additive mask keeps batch and length dynamic in every architecture.
    model = architecture.from_pretrained(folder, attn_implementation="eager", local_files_only=True).eval()
    told_apart = (
        segments
        and getattr(model.config, "type_vocab_size", 0) > 1
        and "token_type_ids" in inspect.signature(model.forward).parameters
    )

    names = ["input_ids", "attention_mask", *(["token_type_ids"] if told_apart else [])]

    class OneOutput(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:  # noqa: ANN401
            return getattr(self.model(**dict(zip(names, inputs, strict=True))), output)

    # Tracing sets off warnings inside torch and transformers that nobody who ingests can act on.
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        graph = ov.convert_model(OneOutput(), example_input=tuple(torch.ones((2, 8), dtype=torch.int64) for _ in names))
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    return graph
