"""The seam to a model that writes answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal, Protocol

from rag.types import Prompt, Usage

StopReason = Literal["complete", "length", "refusal"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Completion:
    """The whole answer as the model wrote it, citations still in their raw form.

    Attributes:
        stop_reason: `length` when the answer was cut off at the token limit, `refusal` when the model or its
            provider declined.
    """

    text: str
    usage: Usage
    stop_reason: StopReason
    model: str


class ChatModel(Protocol):
    """Answers a prompt. Does not retry: one layer above decides about that."""

    @property
    def name(self) -> str:
        """`provider:model`, or `extractive`."""
        ...

    async def complete(self, prompt: Prompt) -> Completion:
        """The answer in one piece.

        Raises:
            ProviderError: One of its kinds; an empty answer is a `ProviderResponseError`.
        """
        ...

    def stream(self, prompt: Prompt) -> AsyncGenerator[TextDelta | Completion, None]:
        """The answer in pieces, then the `Completion`, exactly once and last.

        Closing the generator cancels the request. A stream that breaks raises; it never just ends.

        Raises:
            ProviderError: As `complete`, also in the middle of the stream.
        """
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
