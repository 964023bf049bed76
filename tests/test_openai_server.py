"""The OpenAI stand-in, through the real SDK and our own analyst."""

from collections.abc import Iterator

import httpx
import pytest

from common.models import Analysis
from common.time_limit import run_within
from local_stack import openai_server
from tests.conftest import make_settings
from tests.fakes import ADA, BOB
from tests.processes import start_stand_in
from webhook_service.analyst import Analyst


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with start_stand_in("openai_server") as url:
        yield url


def test_two_texts_get_two_answers_and_it_says_who_answered(server_url: str) -> None:
    analyst = Analyst(make_settings(openai_base_url=f"{server_url}/v1"))

    ada, bob = analyst.analyse(ADA, "1"), analyst.analyse(BOB, "2")
    run_within(5, analyst._client.close())

    assert ada.analysis != bob.analysis
    assert "machines" in ada.analysis.themes
    assert "glaciers" in bob.analysis.themes
    assert ada.model == openai_server.MODEL


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"input": 1}', b'{"input": "text"}'])
def test_another_request_is_400(server_url: str, body: bytes) -> None:
    assert httpx.post(f"{server_url}/v1/responses", content=body).status_code == 400


@pytest.mark.parametrize("host", ["rebound.example", "127.0.0.1.example:8081"])
def test_it_answers_to_loopback_names_alone(server_url: str, host: str) -> None:
    model = f"{server_url}/v1/models/{openai_server.MODEL}"

    assert httpx.get(model).status_code == 200
    assert httpx.get(model, headers={"Host": host}).status_code == 400


@pytest.mark.parametrize(
    "description",
    ["?!?!?!?!?!", "1234567890", "🌱" * 10, "私は機械が大好きです。", "a b c d e f g h"],
)
def test_any_text_gets_a_whole_analysis(description: str) -> None:
    input: dict[str, object] = {"name": "Ada", "age": 36, "description": description}

    found = openai_server.analyse(input, Analysis.model_json_schema())

    assert Analysis.model_validate(found)


def test_the_name_is_not_counted_as_text() -> None:
    input: dict[str, object] = {"name": "Bartholomew", "age": 36, "description": "I like machines."}

    summary = str(openai_server.analyse(input, Analysis.model_json_schema())["summary"])

    assert "you wrote 3 words" in summary
    assert "“machines”" in summary
