"""Answers of the Responses API that are legal, and the SDK's own reading of them.

The SDK's types are made from OpenAI's description, and its `parse` is how OpenAI reads an answer:
together they say what is legal and what it means, without any of our code.
"""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import openai
from openai.types.responses import Response, ResponseOutputItem
from pydantic import BaseModel, ValidationError

from tests.conftest import make_settings
from tests.fakes import ADA, ANALYSIS
from tests.http_server import HttpServer, answer, serve
from tests.toy.task import Analysis
from webhook_service.analyst import Analyst
from webhook_service.answer import AnalysisFailed, Answer

Json = Any
# Where we are stricter than the SDK: an answer's status, and why its text is not taken.
STRICTER = {
    "failed": "OpenAI says that there is no answer",
    "cancelled": "somebody stopped it; what there is may be half of it",
    "queued": "it has not begun",
    "in_progress": "it has not ended",
    "incomplete": "unless it was only cut off, a filter or a person stopped it",
}


class Readers:
    """The SDK and we, who are told the same answer."""

    def __init__(self, server: HttpServer, told: list[Json]) -> None:
        self._told = told
        self._server = server
        self._sdk = openai.OpenAI(
            api_key="sk-test", base_url=f"{server.url}/v1", max_retries=0, timeout=20
        )
        self._analyst = Analyst(make_settings(openai_base_url=f"{server.url}/v1"))

    def sdk(self, body: Json) -> Analysis | None:
        """What the SDK takes for our answer; None when it finds none or can't read it."""
        self._told[:] = [body]
        try:
            with warnings.catch_warnings(action="ignore"):  # of what it reads all the same
                reply = self._sdk.responses.parse(model="m", input="x", text_format=Analysis)
            return reply.output_parsed
        except (AttributeError, TypeError, ValidationError, ValueError):
            return None

    def ours(self, body: Json) -> Answer | AnalysisFailed:
        """What the product takes for our answer, or why it finds none, after one call."""
        self._told[:] = [body]
        self._server.requests.clear()
        try:
            return self._analyst.analyse(ADA, "call")
        except AnalysisFailed as failed:
            return failed
        finally:
            assert len(self._server.requests) == 1, "a second call is a second bill"

    def close(self) -> None:
        self._sdk.close()
        self._analyst.close()


@contextmanager
def open_readers() -> Iterator[Readers]:
    """Serve whatever is told, as JSON unless it is bytes."""
    told: list[Json] = [{}]
    with serve(lambda connection: answer(200, told[0])(connection)) as server:
        readers = Readers(server, told)
        try:
            yield readers
        finally:
            readers.close()


def is_stricter(body: Json) -> bool:
    """Whether this is one of the answers that we don't take though the SDK does."""
    status = body.get("status")
    details = body.get("incomplete_details")
    cut_off = isinstance(details, dict) and details.get("reason") == "max_output_tokens"
    return status in STRICTER and not (status == "incomplete" and cut_off)


def message(*texts: str, **changes: Json) -> dict[str, Json]:
    """A message of the model, a part for each text."""
    parts = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": parts,
    } | changes


def legal_answer(chance: random.Random, maker: "Maker | None" = None) -> dict[str, Json]:
    """Make up an answer that holds ANALYSIS, in one of the ways that the description allows."""
    maker = maker or Maker(chance)
    body = maker.of(Response)
    if chance.random() < 0.8:
        body["status"] = "completed"
    text = ANALYSIS.model_dump_json(indent=chance.choice([None, 2]))
    phase: Json = chance.choice([{}, {"phase": None}, {"phase": "final_answer"}])
    others = [_other_item(chance, maker) for _ in range(chance.randrange(4))]
    answers = [message(text, **phase)] * chance.choice([1, 1, 1, 2])
    body["output"] = others + answers if chance.random() < 0.5 else answers + others
    return _with_surprises(chance, body)


def _other_item(chance: random.Random, maker: "Maker") -> Json:
    kind = chance.randrange(4)
    if kind == 0:
        return message(chance.choice(["One moment.", "{}", "[1]"]), phase="commentary")
    if kind == 1:
        return {"type": "of_tomorrow", "content": chance.choice(["text", None, 7, [None], {}])}
    item = maker.of(ResponseOutputItem)
    return item | {"phase": "commentary"} if item.get("type") == "message" else item


def _with_surprises(chance: random.Random, body: dict[str, Json]) -> dict[str, Json]:
    """Take away what nobody needs, or make it null, and add what nobody knows."""
    for name in [name for name in body if name not in ("output", "status")]:
        luck = chance.random()
        if luck < 0.1:
            del body[name]
        elif luck < 0.2:
            body[name] = None
    if chance.random() < 0.2:
        body.pop("status", None)
    if chance.random() < 0.3:
        body["of_tomorrow"] = {"deep": [1, None, "text"]}
    for item in body["output"]:
        if item.get("type") != "message":
            for name in [name for name in item if name != "type" and chance.random() < 0.1]:
                item[name] = None
        elif chance.random() < 0.3:
            item.pop(chance.choice(["id", "role", "status"]), None)
    return body


class Maker:
    """Makes up a value of any type that the SDK's models are made of."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._depth = 0

    def of(self, kind: Any) -> Json:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Annotated:
            return self.of(arguments[0])
        if origin is Literal:
            return self._chance.choice(arguments)
        if origin in (Union, UnionType):
            return self.of(self._chance.choice(self._shallow(arguments)))
        if origin is list:
            return [self.of(arguments[0]) for _ in range(self._number())]
        if origin is dict:
            return {f"key_{number}": self.of(arguments[1]) for number in range(self._number())}
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return self._model(kind)
        plain: dict[Any, list[Json]] = {
            str: ["", "text", "{}", "é\n\u2028"],
            int: [0, 1, 2048],
            float: [0, 0.5, 1.7e9],
            bool: [False, True],
            NoneType: [None],
        }
        return self._chance.choice(plain.get(kind, [{}]))

    def _model(self, kind: type[BaseModel]) -> Json:
        self._depth += 1
        made = {
            field.alias or name: self.of(field.annotation)
            for name, field in kind.model_fields.items()
            if field.is_required() or self._chance.random() < 0.5
        }
        self._depth -= 1
        return made

    def _number(self) -> int:
        return 0 if self._depth > 3 else self._chance.randrange(3)

    def _shallow(self, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
        if self._depth > 3:
            plain = [kind for kind in kinds if kind in (NoneType, str, int, float, bool)]
            return tuple(plain) or kinds
        return kinds
