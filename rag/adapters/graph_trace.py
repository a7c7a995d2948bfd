"""Encoders of any architecture as OpenVINO graphs, by tracing the model in torch. Needed once, at export."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any


def trace_encoder(folder: Path) -> Any:  # noqa: ANN401 - an openvino.Model
    """The graph (input_ids, attention_mask), both int64 (batch, length) -> last hidden state (batch, length, hidden).

    The code that defines the architecture is that of the installed transformers; none is taken from the folder.
    """
    import openvino as ov
    import torch
    from transformers import AutoModel

    # "eager", because its additive mask keeps batch and length dynamic in every architecture.
    model = AutoModel.from_pretrained(folder, attn_implementation="eager", local_files_only=True).eval()

    class LastHiddenState(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:  # noqa: ANN401
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    example = torch.ones((2, 8), dtype=torch.int64)
    # Tracing sets off warnings inside torch and transformers that nobody who ingests can act on.
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        return ov.convert_model(LastHiddenState(), example_input={"input_ids": example, "attention_mask": example})
