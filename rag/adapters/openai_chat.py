"""Answers by the OpenAI Chat Completions API, or by any server that speaks it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pydantic import BaseModel

from rag.adapters.provider_calls import bounded, bounded_events, completion, read
from rag.adapters.provider_errors import Endpoint, malformed, require_http_url, shown_url
from rag.context.prompt import render_question
from rag.generation.chat import Completion, StopReason, TextDelta
from rag.types import Prompt, Usage

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam

_STOP_REASONS: dict[str, StopReason] = {"stop": "complete", "length": "length", "content_filter": "refusal"}
"""The others the API documents, `tool_calls` and `function_call`, ask us to go on: they end no answer."""


class OpenAIChat:
    """A `ChatModel` over Chat Completions.

    Args:
        api_key: Never shown in a message or a repr.
        model: As the API names it.
        base_url: Of a compatible server, with its `/v1`; None is the API itself, or `OPENAI_BASE_URL`.
        max_output_tokens: The answer is cut off there.
        connect_timeout_s: For the connection alone.
        timeout_s: For a whole answer, connecting and streaming included.

    Raises:
        ConfigurationError: `base_url` is no URL.
    """

    def __init__(
        self,
        *,
        api_key: str,
        model: str,
        base_url: str | None,
        max_output_tokens: int,
        connect_timeout_s: float,
        timeout_s: float,
    ) -> None:
        require_http_url(base_url)
        import openai

        self._sdk = openai
        self._model = model
        timeout = openai.Timeout(timeout_s, connect=connect_timeout_s)
        self._client = openai.AsyncOpenAI(api_key=api_key, base_url=base_url, timeout=timeout, max_retries=0)
        # OpenAI's reasoning models refuse `max_tokens`. Ollama, DeepSeek and LM Studio know nothing else and
        # pass over `max_completion_tokens`, which would leave answers without a limit. vLLM understands both.
        original = _is_openai(str(self._client.base_url))
        self._max_completion_tokens = max_output_tokens if original else openai.omit
        self._max_tokens = openai.omit if original else max_output_tokens
        self._endpoint = Endpoint(
            name=f"openai:{model}",
            base_url=shown_url(str(self._client.base_url)),
            key_variable="OPENAI_API_KEY",
            connect_timeout_s=connect_timeout_s,
            timeout_s=timeout_s,
            api_key=api_key,
        )

    @property
    def name(self) -> str:
        """`openai:` and the model."""
        return self._endpoint.name

    async def complete(self, prompt: Prompt) -> Completion:
        """See `ChatModel.complete`; usage is zero where a compatible server reports none."""
        call = self._client.chat.completions.create(
            model=self._model,
            messages=_messages(prompt),
            max_completion_tokens=self._max_completion_tokens,
            max_tokens=self._max_tokens,
        )
        reply = read(_Reply, await bounded(call, self._sdk, self._endpoint), self._endpoint)
        if not reply.choices:
            raise malformed(self._endpoint, "holds no choice")
        choice = reply.choices[0]
        text = (choice.message.content or "") + (choice.message.refusal or "")
        stop = "content_filter" if choice.message.refusal else choice.finish_reason
        return completion(text, _usage(reply.usage), stop, _STOP_REASONS, self._endpoint)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[TextDelta | Completion, None]:
        """See `ChatModel.stream`; usage is zero where a compatible server reports none."""
        pieces: list[str] = []
        usage: _Usage | None = None
        stop: str | None = None
        refused = False
        async with aclosing(
            bounded_events(
                lambda: self._client.chat.completions.create(
                    model=self._model,
                    messages=_messages(prompt),
                    max_completion_tokens=self._max_completion_tokens,
                    max_tokens=self._max_tokens,
                    stream=True,
                    stream_options={"include_usage": True},
                ),
                self._sdk,
                self._endpoint,
            )
        ) as chunks:
            async for received in chunks:
                chunk = read(_Chunk, received, self._endpoint)
                usage = chunk.usage or usage
                if not chunk.choices:
                    continue
                choice = chunk.choices[0]
                stop = choice.finish_reason or stop
                refused = refused or bool(choice.delta.refusal)
                if piece := (choice.delta.content or "") + (choice.delta.refusal or ""):
                    pieces.append(piece)
                    yield TextDelta(piece)
        # The package hides whether `[DONE]` came; a finish reason is as good: after it only usage follows.
        if stop is None:
            raise malformed(self._endpoint, "broke off: the stream ended without a finish_reason; try again")
        stop = "content_filter" if refused else stop
        yield completion("".join(pieces), _usage(usage), stop, _STOP_REASONS, self._endpoint)

    async def close(self) -> None:
        """See `ChatModel.close`."""
        await self._client.close()


def _is_openai(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host.endswith((".openai.com", ".openai.azure.com"))


def _messages(prompt: Prompt) -> list[ChatCompletionMessageParam]:
    """The stable part first: these APIs cache by the longest common prefix, without being asked."""
    return [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": render_question(prompt)},
    ]


class _PromptDetails(BaseModel):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Text(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Text
    finish_reason: str | None


class _Reply(BaseModel):
    choices: list[_Choice]
    usage: _Usage | None = None


class _ChunkChoice(BaseModel):
    delta: _Text = _Text()
    finish_reason: str | None = None


class _Chunk(BaseModel):
    choices: list[_ChunkChoice]
    usage: _Usage | None = None


def _usage(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    details = usage.prompt_tokens_details or _PromptDetails()
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=details.cached_tokens or 0,
        cache_write_tokens=details.cache_write_tokens or 0,
    )
