"""Servers other than OpenAI: LiteLLM's proxy for real, and Azure's addresses."""

import json
import re
from contextlib import closing
from subprocess import CalledProcessError

import pytest

from common.environment import SettingsError, load
from common.failures import Failure
from common.settings import ServiceSettings
from tests.conformance.servers import LITELLM, LLAMA_STACK, Server, hold, install, run
from tests.conftest import leave_out, make_settings
from tests.fakes import ADA
from tests.http_server import answer, serve
from tests.model_replies import GOOD, response
from tests.processes import ROOT
from webhook_service.analyst import Analyst
from webhook_service.answer import AnalysisFailed

GUIDE = (ROOT / "docs" / "deploy.md").read_text()


def test_litellm_passes_on_what_is_needed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")  # the tests' own, with which nobody gets out
    try:
        install(LITELLM)
    except CalledProcessError as error:
        remedy = "It is installed from PyPI once, into .local."
        leave_out("LiteLLM's proxy", because=f"it can't be installed ({error})", remedy=remedy)
    with run(LITELLM) as url:
        rows = [*hold(LITELLM, url)]

    assert len(rows) == 4
    assert not any(row.wrong for row in rows), capsys.readouterr().err


@pytest.mark.parametrize("server", [LITELLM, LLAMA_STACK], ids=lambda server: server.name)
def test_the_guide_tells_what_each_does_not_pass_on(server: Server) -> None:
    name, _, version = server.title.partition(" ")
    (row,) = re.findall(rf"(?mi)^\| {name.replace('-', ' ')}.* {re.escape(version)} .*", GUIDE)

    losses = {loss.why for route in server.routes for loss in route.losses.values()}
    assert losses
    assert not [why for why in losses if why not in row]


# https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle: the plain client, whose
# base URL ends with a slash.
AZURE = "https://our-resource.openai.azure.com/openai/v1/"


def test_azures_address_is_taken_as_documented() -> None:
    assert make_settings(openai_base_url=AZURE).openai_base_url == AZURE


def test_azures_older_addresses_are_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind the ? would be lost, or stand in the middle."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{AZURE}?api-version=preview")

    with pytest.raises(SettingsError, match=re.escape("OPENAI_BASE_URL: holds a ? or #")):
        load(ServiceSettings)


@pytest.mark.parametrize("slash", ["", "/"])
def test_azure_is_called_at_its_path_with_the_key_as_bearer(slash: str) -> None:
    with serve(answer(200, response(GOOD))) as server:
        ask(f"{server.url}/openai/v1{slash}")

    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /openai/v1/responses HTTP/1.1\r\n")
    assert b"\r\nauthorization: bearer azure-key" in head.lower()
    assert json.loads(body)["model"] == "our-deployment"


FILTERED = {
    "message": "The response was filtered due to the prompt triggering Azure OpenAI's policy.",
    "type": None,
    "param": "prompt",
    "code": "content_filter",
    "status": 400,
    "innererror": {"code": "ResponsibleAIPolicyViolation"},
}


@pytest.mark.parametrize(
    ("status", "error", "failure"),
    [
        (401, {"code": "401", "message": "Access denied"}, Failure.KEY_REFUSED),
        (401, {"code": "PermissionDenied", "message": "Access denied"}, Failure.KEY_REFUSED),
        (404, {"code": "DeploymentNotFound", "message": "none"}, Failure.MODEL_NOT_FOUND),
        (429, {"code": "429", "message": "exceeded call rate limit"}, Failure.RATE_LIMITED),
        (429, {"code": "RateLimitReached", "message": "wait"}, Failure.RATE_LIMITED),
        (400, FILTERED, Failure.CONTENT_FILTERED),
    ],
)
def test_azures_errors_are_known(status: int, error: object, failure: Failure) -> None:
    with serve(answer(status, {"error": error})) as server, pytest.raises(AnalysisFailed) as caught:
        ask(f"{server.url}/openai/v1/")

    assert caught.value.failure is failure


def ask(base_url: str) -> None:
    """Ask as with Azure's settings."""
    settings = make_settings(
        openai_base_url=base_url, openai_api_key="azure-key", openai_model="our-deployment"
    )
    with closing(Analyst(settings)) as analyst:
        analyst.analyse(ADA, "call")
