"""The OpenAI stand-in, through the real SDK and our own analyst."""

from collections.abc import Iterator

import httpx
import pytest
from openai.types import Model
from openai.types.responses import Response

from common.failures import Failure
from common.settings import DEVELOPMENT_TOKEN
from common.strict_schema import Schema
from local_stack import openai_server
from tests.conftest import make_settings
from tests.fakes import ADA, BOB
from tests.processes import start_stand_in
from tests.toy.task import Analysis
from webhook_service.analyst import FORMAT, Analyst
from webhook_service.answer import AnalysisFailed


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with start_stand_in("openai_server") as url:
        yield url


@pytest.fixture(scope="module")
def qstash_url() -> Iterator[str]:
    with start_stand_in("qstash_server") as url:
        yield url


def test_two_texts_get_two_answers_and_it_says_who_answered(server_url: str) -> None:
    analyst = Analyst(make_settings(openai_base_url=f"{server_url}/v1"))

    ada, bob = analyst.analyse(ADA, "1"), analyst.analyse(BOB, "2")
    analyst.close()

    assert isinstance(ada.analysis, Analysis)
    assert isinstance(bob.analysis, Analysis)
    assert ada.analysis != bob.analysis
    assert "machines" in ada.analysis.themes
    assert "glaciers" in bob.analysis.themes
    assert ada.model == openai_server.MODEL


def test_its_answer_is_one_that_the_sdk_has_types_for(server_url: str) -> None:
    schema = {"format": {"schema": Analysis.model_json_schema()}}
    body = {"input": ADA.model_dump_json(), "text": schema}
    answer = httpx.post(f"{server_url}/v1/responses", json=body)
    model = httpx.get(f"{server_url}/v1/models/{openai_server.MODEL}")

    assert Response.model_validate_json(answer.content)
    assert Model.model_validate_json(model.content)


NO_FORM = b'{"input": "[]", "text": {"format": {"schema": {"type": "null"}}}}'


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"input": 1}', b'{"input": "text"}', NO_FORM])
def test_another_request_is_400(server_url: str, body: bytes) -> None:
    assert httpx.post(f"{server_url}/v1/responses", content=body).status_code == 400


def ask(server_url: str, schema: Schema, **wanted: object) -> httpx.Response:
    wanted = {"type": "json_schema", "name": "analysis", "schema": schema, **wanted}
    body = {"input": ADA.model_dump_json(), "text": {"format": wanted}}
    return httpx.post(f"{server_url}/v1/responses", json=body)


ILLEGAL: Schema = {
    "type": "object",
    "properties": {"title": {"type": "string", "minLength": 1}},
    "required": ["title"],
    "additionalProperties": False,
}


def test_an_illegal_schema_is_refused_as_openai_does(server_url: str) -> None:
    answer = ask(server_url, ILLEGAL, strict=True)

    assert answer.status_code == 400
    assert answer.json()["error"] == {
        "message": "Invalid schema for response_format 'analysis': "
        "In context=('properties', 'title'), 'minLength' is not permitted.",
        "type": "invalid_request_error",
        "param": "text.format.schema",
        "code": "invalid_json_schema",
    }


def test_a_schema_that_is_too_large_is_refused_without_a_place(server_url: str) -> None:
    fields = {f"f{number}": {"type": "string"} for number in range(5001)}

    error = ask(
        server_url, {**ILLEGAL, "properties": fields, "required": list(fields)}, strict=True
    ).json()["error"]

    assert error["message"] == (
        "Invalid schema for response_format 'analysis': 5001 parameters exceeds limit of 5000."
    )


def test_without_strict_mode_the_same_schema_is_filled(server_url: str) -> None:
    assert ask(server_url, ILLEGAL, strict=False).status_code == 200
    assert ask(server_url, ILLEGAL).status_code == 200


def test_what_it_cannot_fill_it_says(server_url: str) -> None:
    code = {"type": "string", "pattern": "^(?!)"}

    answer = ask(server_url, {**ILLEGAL, "properties": {"title": code}}, strict=True)

    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        "this stand-in finds no text for the pattern of 'title': ^(?!)"
    )


@pytest.mark.parametrize(
    ("title", "cause"),
    [
        (
            {"type": "string", "minLength": 1},
            "HTTP 400 invalid_json_schema at text.format.schema",
        ),
        ({"type": "string", "pattern": "^(?!)"}, "HTTP 400 unsupported_by_stand_in"),
    ],
)
def test_a_refused_schema_is_our_own_fault_and_no_text_is_in_the_cause(
    server_url: str, monkeypatch: pytest.MonkeyPatch, title: Schema, cause: str
) -> None:
    monkeypatch.setitem(FORMAT, "schema", {**ILLEGAL, "properties": {"title": title}})
    analyst = Analyst(make_settings(openai_base_url=f"{server_url}/v1"))

    with pytest.raises(AnalysisFailed) as failed:
        analyst.analyse(ADA, "1")
    analyst.close()

    assert failed.value.failure is Failure.REQUEST_REFUSED
    assert failed.value.cause == cause


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.example:8081"}, 421),
        ({"Host": "127.evil.example"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "[::1]:8081"}, 200),
        ({"Host": "localhost", "Origin": "http://localhost:8501"}, 200),
    ],
)
@pytest.mark.parametrize("name", ["openai", "qstash"])
def test_a_stand_in_is_out_of_a_web_pages_reach(
    server_url: str, qstash_url: str, name: str, headers: dict[str, str], status: int
) -> None:
    url = {
        "openai": f"{server_url}/v1/models/{openai_server.MODEL}",
        "qstash": f"{qstash_url}/v2/keys",
    }[name]
    headers = {"Authorization": f"Bearer {DEVELOPMENT_TOKEN}", **headers}

    assert httpx.get(url, headers=headers).status_code == status
