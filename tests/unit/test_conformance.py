"""What `make conformance` makes of what it finds: nothing is left out without a word."""

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests import http_server
from tests.conformance import __main__ as command
from tests.conformance import description, openai, suites
from tests.conformance.around import Front, serve
from tests.conformance.chosen import CHOSEN, PYTHON, TYPESCRIPT, reason_for
from tests.conformance.description import Description, FromDescription
from tests.conformance.suites import PASSED, NotRun
from tests.conformance.table import Row
from tests.processes import ROOT

REASONS = {CHOSEN: ["message: timeout"], "queues": ["queue: *"]}
GOOD = [("message: timeout", PASSED), ("queue: pause", "skipped")]


@pytest.mark.parametrize("given", [[], ["--specs", "no/such/folder"]], ids=["none", "empty"])
def test_without_specs_it_says_what_is_missing_and_where_one_gets_it(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["conformance", *given])

    assert command.main() == 2

    out, err = capsys.readouterr()
    assert out == ""
    for said in ("openai-responses.json", "openai/openai-openapi", "qstash.yaml", "upstash/docs"):
        assert said in err


def test_a_part_that_breaks_off_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    def breaks() -> Iterator[Row]:
        yield Row("before", 1, 1)
        raise FileNotFoundError("npm")

    rows = command.outcome("suite", breaks)

    assert [row.wrong for row in rows] == [0, 1]
    assert "FileNotFoundError: npm" in capsys.readouterr().out


def test_what_is_neither_held_nor_excused_is_wrong() -> None:
    row = Row("what", 5, 10, "why", excused=3)

    assert row.wrong == 2
    assert str(row) == "| what | 5 | 10 | why |"


@pytest.mark.parametrize(
    ("outcomes", "wrong"),
    [
        pytest.param(GOOD, 0, id="chosen and left out"),
        pytest.param([("message: timeout", "failure"), GOOD[1]], 1, id="chosen, and failed"),
        pytest.param([("message: timeout", "skipped"), GOOD[1]], 1, id="chosen, and not run"),
        pytest.param(
            [*GOOD, GOOD[0], ("message: timeout", "failure")], 1, id="one of two of a name"
        ),
        pytest.param([*GOOD, ("message: of_tomorrow", "skipped")], 1, id="new upstream"),
        pytest.param([*GOOD, ("message: of_tomorrow", PASSED)], 1, id="new upstream, and passes"),
        pytest.param([GOOD[1]], 1, id="chosen, and gone upstream"),
        pytest.param([], 1, id="no report"),
    ],
)
def test_each_test_of_a_suite_is_chosen_or_left_out(
    outcomes: list[tuple[str, str]], wrong: int
) -> None:
    assert suites.row("suite", REASONS, outcomes).wrong == wrong


def test_a_program_that_is_not_there_or_fails_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(NotRun, match="no-such-npm is not installed"):
        suites.run(["no-such-npm", "ci"])
    with pytest.raises(NotRun, match=r"git nonsense ended with 1"):
        suites.run(["git", "nonsense"])
    assert "nonsense" in capsys.readouterr().err


def test_the_rest_is_told_by_reason() -> None:
    assert suites.row("suite", REASONS, [*GOOD, ("queue: resume", "skipped")]).rest == "2 queues"


@pytest.mark.parametrize("reasons", [PYTHON, TYPESCRIPT], ids=["python", "typescript"])
def test_chosen_tests_are_named_one_by_one(reasons: dict[str, list[str]]) -> None:
    for name in reasons[CHOSEN]:
        assert reason_for(name, reasons) == CHOSEN
        assert "*" not in name
        others = {reason: patterns for reason, patterns in reasons.items() if reason != CHOSEN}
        assert reason_for(name, others) is None, f"{name} is left out, too"


@pytest.mark.parametrize(
    "test",
    ["tests/test_message.py::test_timeout", "tests/asyncio/test_message.py::test_timeout_async"],
)
def test_a_python_test_is_named_alike_blocking_or_not(test: str) -> None:
    assert suites.python_name(test) == "message: timeout"


def test_the_stand_in_gets_what_the_suite_sent_but_for_tidying() -> None:
    arrived = {"msg_1": "/200"}
    with http_server.serve(http_server.answer(501, {"error": "named"})) as stand_in:
        address = stand_in.url.removeprefix("http://")
        with serve(Front, stand_in=address, arrived=arrived) as front:
            passed = httpx.post(
                f"http://{front}/v2/publish/https://example.com/?a=%20b",
                content=b"{}",
                headers={"Upstash-Label": "a"},
            )
            tidied = httpx.delete(f"http://{front}/v2/dlq/1-0")
            log = f"http://{front}/v2/events?messageId=%s&state=DELIVERED"
            logged = [
                httpx.get(log % message_id).json()["events"] for message_id in ("msg_1", "msg_2")
            ]

    (request,) = stand_in.requests
    assert (passed.status_code, passed.json()) == (501, {"error": "named"})
    assert request.startswith(b"POST /v2/publish/https://example.com/?a=%20b HTTP/1.1\r\n")
    assert b"upstash-label: a\r\n" in request.lower()
    assert request.endswith(b"{}")
    assert tidied.status_code == 200
    assert [len(events) for events in logged] == [1, 0]


def describe(folder: Path, **schemas: Any) -> Description:
    """A description of two calls, with these schemas."""
    post = {
        "requestBody": {
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Asked"}}}
        }
    }
    whole = {
        "info": {"version": "1"},
        "paths": {"/responses": {"post": post}, "/models/{model}": {"get": {}}},
        "components": {"schemas": schemas},
    }
    (folder / description.FILE).write_text(json.dumps(whole))
    return Description(folder)


def test_a_request_that_does_not_fit_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fits = {"type": "object", "properties": {"model": {"type": "string"}}}
    sent = b'{"model": 7, "of_tomorrow": 1}'
    calls = [("POST", "/v1/responses", sent), ("GET", "/v1/models/a", b"")]

    row = openai.requests(describe(tmp_path, Asked=fits), calls)

    assert (row.passed, row.total, row.wrong) == (1, 2, 1)
    assert "['$.model: type', '$.of_tomorrow: unknown']" in capsys.readouterr().err


def test_a_call_that_is_not_described_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        describe(tmp_path).operation("GET", "/v1/files")


ITEMS = {
    "Message": {
        "type": "object",
        "required": ["type"],
        "properties": {
            "type": {"type": "string", "enum": ["message"]},
            "phase": {"anyOf": [{"type": "string", "enum": ["final_answer"]}, {"type": "null"}]},
        },
    },
    "Joined": {
        "allOf": [
            {"$ref": "#/components/schemas/Call"},
            {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
        ]
    },
    "Call": {
        "type": "object",
        "required": ["type", "inner"],
        "properties": {
            "type": {"type": "string", "enum": ["call"]},
            "inner": {"type": "array", "items": {"$ref": "#/components/schemas/OutputItem"}},
            "count": {"type": "integer", "minimum": 1, "maximum": 2},
        },
    },
    "OutputItem": {
        "oneOf": [
            {"$ref": "#/components/schemas/Message"},
            {"$ref": "#/components/schemas/Joined"},
        ]
    },
}


def test_what_is_made_fits_the_description_and_holds_all_of_it(tmp_path: Path) -> None:
    judge = describe(tmp_path, **ITEMS)
    maker = FromDescription(judge, random.Random(7))

    made = [maker.of(SimpleNamespace) for _ in range(200)]

    assert {
        json.dumps(item.get("phase", "absent")) for item in made if item["type"] == "message"
    } == {'"final_answer"', "null", '"absent"'}
    assert maker.kinds_of_item() == {"message", "call"} == {item["type"] for item in made}
    assert all("id" in item for item in made if item["type"] == "call")
    assert not [item for item in made if judge.problems(item, ITEMS["OutputItem"])]
    assert openai.coverage(maker, {"message", "call"}).wrong == 0


def test_what_was_never_made_is_wrong(tmp_path: Path) -> None:
    maker = FromDescription(describe(tmp_path, **ITEMS), random.Random(7))

    maker.of(SimpleNamespace)

    assert openai.coverage(maker, {"message"}).wrong > 1


@pytest.mark.parametrize("commit", [suites.PYTHON_COMMIT, suites.TYPESCRIPT_COMMIT])
def test_the_document_tells_what_came_of_the_suites_as_they_are_pinned(commit: str) -> None:
    assert commit[:7] in (ROOT / "docs" / "conformance.md").read_text()
