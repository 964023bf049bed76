"""The OpenAI stand-in, through the real SDK and our own analyst."""

from collections.abc import Iterator

import httpx
import pytest
from openai.types import Model
from openai.types.responses import Response

from common.settings import DEVELOPMENT_TOKEN
from local_stack import openai_server
from tests.conftest import make_settings
from tests.fakes import ADA, BOB
from tests.processes import start_stand_in
from tests.toy.task import Analysis
from webhook_service.analyst import Analyst


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


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"input": 1}', b'{"input": "text"}'])
def test_another_request_is_400(server_url: str, body: bytes) -> None:
    assert httpx.post(f"{server_url}/v1/responses", content=body).status_code == 400


@pytest.mark.parametrize(
    "description",
    ["?!?!?!?!?!", "1234567890", "🌱" * 10, "私は機械が大好きです。", "a b c d e f g h"],
)
def test_any_text_gets_a_whole_analysis(description: str) -> None:
    given: dict[str, object] = {"name": "Ada", "age": 36, "description": description}

    found = openai_server.analyse(given, Analysis.model_json_schema())

    assert Analysis.model_validate(found)


def test_the_name_is_not_counted_as_text() -> None:
    given: dict[str, object] = {"name": "Bartholomew", "age": 36, "description": "I like machines."}

    summary = str(openai_server.analyse(given, Analysis.model_json_schema())["summary"])

    assert "you wrote 3 words" in summary
    assert "“machines”" in summary


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
