"""What we send to OpenAI, and what it may answer, against OpenAI's own description of both."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai

from local_stack import openai_server
from tests.conformance.description import SCHEMAS, Description, FromDescription
from tests.conformance.table import Row, wrong
from tests.conftest import make_settings
from tests.fakes import ADA, ANALYSIS
from tests.http_server import answer, serve
from tests.openai_answers import STRICTER, Json, is_stricter, legal_answer, open_readers
from tests.processes import start_stand_in
from webhook_service.analyst import Analyst
from webhook_service.answer import AnalysisFailed, Answer

RESPONSE = {"$ref": f"{SCHEMAS}Response"}
ANSWERS = 4_000
SETTINGS: list[dict[str, Any]] = [
    {},
    {"openai_reasoning_effort": "low", "openai_max_output_tokens": 8000},
]
Call = tuple[str, str, bytes]  # method, path, body


def check(specs: Path, seed: int) -> Iterator[Row]:
    """Hold requests, the stand-in and the reading of answers against the description."""
    description = Description(specs)
    calls = calls_made()
    yield requests(description, calls)
    yield stand_in(description, calls)
    yield examples(description)
    yield from read_alike(description, seed)


def calls_made() -> list[Call]:
    """All that the product asks OpenAI for, as it really goes over the wire."""
    calls = []
    for settings in SETTINGS:
        with serve(answer(200, {})) as server:
            analyst = Analyst(make_settings(openai_base_url=f"{server.url}/v1", **settings))
            for ask in (partial(analyst.analyse, ADA, "call"), analyst.check_answer):
                with suppress(AnalysisFailed):
                    ask()
            analyst.knows_model()
            analyst.close()
        for request in server.requests:
            head, _, body = request.partition(b"\r\n\r\n")
            method, path, _ = head.decode().split(" ", 2)
            calls.append((method, path, body))
    return calls


def requests(description: Description, calls: list[Call]) -> Row:
    held = 0
    for method, path, body in calls:
        operation = description.operation(method, path)
        problems = []
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            sent = json.loads(body)
            known = description.joined({"allOf": [schema]})["properties"]
            problems = description.problems(sent, schema)
            problems += [f"$.{name}: unknown" for name in sent if name not in known]
        held += not problems
        if problems:
            wrong(f"{method} {path}", problems)
    return Row("requests to OpenAI, against its description", held, len(calls))


def stand_in(description: Description, calls: list[Call]) -> Row:
    more = [("GET", f"/v1/models/{openai_server.MODEL}", b""), ("POST", "/v1/responses", b"{}")]
    asked = [*calls, *more]
    held = 0
    with start_stand_in("openai_server") as url:
        for method, path, body in asked:
            reply = httpx.request(method, url + path, content=body)
            if reply.is_success:
                told = description.operation(method, path)["responses"]["200"]
                schema = told["content"]["application/json"]["schema"]
                problems = description.problems(reply.json(), schema)
            else:
                problems = description.problems(reply.json()["error"], description.schemas["Error"])
            held += not problems
            if problems:
                wrong(f"the stand-in's answer to {method} {path}", problems)
    return Row("the stand-in for OpenAI's answers, errors included", held, len(asked))


def examples(description: Description) -> Row:
    """Judge the judge, by OpenAI's own examples of answers."""
    found = [description.problems(body, RESPONSE) for body in examples_of(description)]
    held = found.count([])
    where = sorted({problem for problems in found for problem in problems})
    return Row(
        "OpenAI's own examples of answers, against it: it says more than OpenAI keeps to",
        held,
        len(found),
        f"{', '.join(f'`{place}`' for place in where)}",
        excused=len(found) - held,
    )


def examples_of(description: Description) -> list[Json]:
    """The description's answers, those that come in one piece."""
    told = description.operation("POST", "/v1/responses")["x-oaiMeta"]["examples"]
    whole = [json.loads(each["response"]) for each in told if each["response"].startswith("{")]
    return [*whole, description.schemas["Response"]["example"]]


def answers(
    description: Description, maker: FromDescription, chance: random.Random
) -> Iterator[Json]:
    """The examples, with our answer as their text; and made up ones."""
    for body in examples_of(description):
        for item in body["output"]:
            for part in item.get("content", ()):
                part["text"] = ANALYSIS.model_dump_json()
        yield body
    for _ in range(ANSWERS):
        yield legal_answer(chance, maker)


def read_alike(description: Description, seed: int) -> Iterator[Row]:
    """Let the SDK and us read the same answers."""
    chance = random.Random(seed)
    maker = FromDescription(description, chance)
    same = read = 0
    stricter: Counter[str] = Counter()
    kinds: set[str] = set()
    with open_readers() as readers:
        for body in answers(description, maker, chance):
            kinds |= {item["type"] for item in body["output"]}
            theirs, ours = readers.sdk(body), readers.ours(body)
            if theirs is None:
                continue
            read += 1
            if is_stricter(body) and isinstance(ours, AnalysisFailed):
                stricter[body["status"]] += 1
            elif isinstance(ours, Answer) and ours.analysis == theirs and not is_stricter(body):
                same += 1
            else:
                wrong("read otherwise", f"{ours!r}: {json.dumps(body)}")
    yield Row(
        f"answers made from it (and its examples) that {sdk_version()} reads as ours: "
        "read as the same, in one call",
        same,
        read,
        "; ".join(f"{n} `{status}`: {STRICTER[status]}" for status, n in stricter.most_common()),
        excused=stricter.total(),
    )
    yield coverage(maker, kinds)


def coverage(maker: FromDescription, kinds: set[str]) -> Row:
    """Whether the answers held everything: a search that makes nothing finds nothing."""
    described = maker.kinds_of_item()
    wanted = described | maker.allowed
    if missing := wanted - kinds - maker.seen:
        wrong("never made", sorted(missing))
    return Row(
        f"among them: {len(described)} kinds of item, and every field given, absent and null "
        "where it may be",
        len(wanted) - len(missing),
        len(wanted),
    )


def sdk_version() -> str:
    return f"`openai` {openai.__version__}"
