"""The prompt and the model call. The only importer of openai, and of aiohttp and httpx2 below it.

The answer is read by `answer.py`: of the SDK's typed models nothing would be believed, and
building them, and the typed request, takes as long as all the rest of the call.
Source: https://platform.openai.com/docs/guides/structured-outputs?api-mode=responses
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
import httpx2
import openai

from common.answer_size import UNCOMPRESSED, AnswerTooLarge, read_limited
from common.deadline import PerLoop, run_within
from common.failures import Failure
from common.form import Form
from common.settings import ServiceSettings
from common.task import TASK
from common.tracing import headers, span
from common.unreachable import reason
from webhook_service.answer import (
    AnalysisFailed,
    Answer,
    check_response,
    is_model,
    model_ids,
    read_answer,
    refused,
)

MIN_OUTPUT_TOKENS = 16  # https://platform.openai.com/docs/api-reference/responses/create
FORMAT = {
    "type": "json_schema",
    "name": "result",
    "strict": True,
    "schema": openai.pydantic_function_tool(TASK.result)["function"]["parameters"],
}
# What `GET /models` is answered where it, or this key's right to it, is missing.
NOT_TOLD = (
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.NOT_IMPLEMENTED,
)


class Analyst:
    """One client for the whole process: building one costs far more than a call."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._seconds = settings.openai_timeout_seconds
        self._model = settings.openai_model
        self._request: dict[str, Any] = {
            "model": self._model,
            "instructions": TASK.instructions,
            "text": {"format": FORMAT},
            "max_output_tokens": settings.openai_max_output_tokens,
            "store": False,
        }
        if settings.openai_reasoning_effort:
            self._request["reasoning"] = {"effort": settings.openai_reasoning_effort}
        # QStash is the only retry loop: max_retries would multiply the calls that are paid.
        # `run_within` limits the whole call: a timeout of each read says nothing more.
        self._clients = PerLoop(
            lambda: openai.AsyncOpenAI(
                api_key=settings.openai_api_key.get_secret_value(),
                base_url=settings.openai_base_url,
                max_retries=0,
                timeout=None,
                default_headers=UNCOMPRESSED,
                http_client=openai.DefaultAioHttpClient(
                    timeout=None, event_hooks={"response": [read_limited(httpx2.ByteStream)]}
                ),
            )
        )

    @span("ask the model")
    def analyse(self, form: Form, call_id: str) -> Answer:
        """Ask the model once, for at most `OPENAI_TIMEOUT_SECONDS`. Raises: AnalysisFailed.

        `call_id` names this one call to OpenAI's support (ASCII, at most 512 characters).
        """
        with _failures(self._seconds):
            response = run_within(self._seconds, self._ask(form, call_id))
        found = read_answer(response.content, _content_type(response))
        return found if found.model else found._replace(model=self._model)

    def knows_model(self) -> bool:
        """Ask whether there is such a model for this key; costs nothing.

        False when the server doesn't tell: many have no such route, and work.
        Raises: AnalysisFailed.
        """
        with _failures(self._seconds):
            return run_within(self._seconds, self._find_model())

    def check_answer(self) -> None:
        """Ask for the shortest answer there is, which costs some tokens. Raises: AnalysisFailed."""
        with _failures(self._seconds):
            response = run_within(
                self._seconds, self._ask(TASK.example, "check", max_output_tokens=MIN_OUTPUT_TOKENS)
            )
        check_response(response.content, _content_type(response))

    def close(self) -> None:
        """Close the connections: for a command that ends, where aiohttp else logs an error."""
        run_within(self._seconds, self._close())

    async def _close(self) -> None:
        await self._clients.get().close()

    async def _ask(self, form: Form, call_id: str, **changes: int) -> httpx2.Response:
        try:
            return await self._clients.get().post(
                "/responses",
                cast_to=httpx2.Response,
                body={**self._request, "input": form.model_dump_json(), **changes},
                # https://platform.openai.com/docs/api-reference/debugging-requests
                options={"headers": {"X-Client-Request-Id": call_id, **headers()}},
            )
        except openai.NotFoundError as error:
            names_model = error.code == "model_not_found" or self._model in error.response.text
            if not names_model and await self._list_models() is not None:
                cause = "HTTP 404: this server has no Responses API"
                raise AnalysisFailed(Failure.NO_RESPONSES_API, cause) from error
            raise

    async def _find_model(self) -> bool:
        path = f"/models/{quote(self._model, safe='')}"
        try:
            response = await self._clients.get().get(path, cast_to=httpx2.Response)
            if is_model(response.content):
                return True
        except openai.APIStatusError as error:
            if error.status_code not in NOT_TOLD or error.code == "model_not_found":
                raise
        return self._model in (await self._list_models() or ())

    async def _list_models(self) -> list[str] | None:
        """The ids of the server's models; None where it doesn't tell them."""
        try:
            response = await self._clients.get().get("/models", cast_to=httpx2.Response)
        except (openai.OpenAIError, aiohttp.ClientError):
            return None
        return model_ids(response.content)


@contextmanager
def _failures(seconds: float) -> Iterator[None]:
    """Turn every error of the SDK into AnalysisFailed."""
    try:
        yield
    except TimeoutError:
        raise AnalysisFailed(Failure.MODEL_TIMEOUT, f"over {seconds} s") from None
    except AnswerTooLarge as error:
        raise AnalysisFailed(Failure.UNREADABLE_ANSWER, str(error)) from None
    except openai.APIStatusError as error:
        raise refused(
            error.status_code,
            error.body,
            _content_type(error.response),
            _retry_after(error.response.headers),
        ) from error
    except (openai.APIConnectionError, aiohttp.ClientError) as error:
        # The SDK calls a cut connection a timeout, and lets through what isn't HTTP at all.
        cause = reason(error) or type(error.__context__ or error).__name__
        raise AnalysisFailed(Failure.MODEL_UNAVAILABLE, cause) from error
    except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
        # Not "from error": such an error's text may hold what the server wrote.
        raise AnalysisFailed(Failure.UNREADABLE_ANSWER, type(error).__name__) from None


def _content_type(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "")


def _retry_after(headers: Mapping[str, str]) -> timedelta:
    """How long the server asks to wait: in milliseconds, in seconds, or until a date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(timedelta(0), timedelta(seconds=unit * float(headers.get(name, ""))))
        except (ValueError, OverflowError):
            continue
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
        return max(timedelta(0), until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC))
    except (ValueError, OverflowError):
        return timedelta(0)
