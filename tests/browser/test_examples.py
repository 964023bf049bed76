"""Any task works as it is: from a form that nobody has seen before to its result, in a browser.

Each of `examples/` in turn takes the place of `common/task.py`, in a copy that runs as a whole.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from playwright.sync_api import Browser, ViewportSize, expect

from common.form import questions
from common.questions import in_words
from common.tasks import Task
from tests.chromium import DESKTOP, PATIENCE, Visit, open_context
from tests.fakes import ID
from tests.journey import (
    TASK_FILE,
    TEXT,
    copy_with,
    enter,
    example_files,
    expect_fields,
    fill,
    in_json,
    leaves,
    load,
    sentences,
    too_much,
    untouched,
    words_of_others,
    written,
)
from tests.processes import ROOT, Stack, start_stack, wait_for
from tests.smoke import settings_of, smoke
from tests.tries import LEFT_OUT
from tests.walk import HEADINGS

TASK_FILES = [ROOT / TASK_FILE, *example_files()]
# What the smoke test sends and prints of a task, the API does too: here it tries the one in place.
FOR_SMOKE = TASK_FILES if os.environ.get("EXAMPLES") == "all" else TASK_FILES[:1]
NARROW: ViewportSize = {"width": 375, "height": 812}
SUBMITTED = '"event": "submitted"'
# The tests' own task must reach no process that is started here.
WITHOUT_TOY = {"PYTHONPATH": ""}


@dataclass
class Tried:
    """One task, and the product that was started with it."""

    task: Task
    code: Path
    directory: Path
    stack: Stack


def name_of(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module", params=TASK_FILES, ids=name_of)
def tried(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Tried]:
    path: Path = request.param
    directory = tmp_path_factory.mktemp(path.stem)
    code = copy_with(path, directory / "copy")
    with start_stack(directory, code, **WITHOUT_TOY, QSTASH_DELAY="2s") as stack:
        yield Tried(load(path), code, directory, stack)


@pytest.mark.skipif(
    not (ROOT / "operations" / "smoke.py").exists(),
    reason=f"{LEFT_OUT} the smoke test of the examples: it was deleted",
)
@pytest.mark.parametrize("tried", FOR_SMOKE, ids=name_of, indirect=True)
def test_the_smoke_test_brings_a_result(tried: Tried) -> None:
    ended = smoke(tried.stack, tried.directory, tried.code, **WITHOUT_TOY)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "local-stand-in wrote: " in ended.stdout
    assert words_of_others(tried.task, ended.stdout) == set()


def test_the_api_names_the_fields_and_answers_with_the_result(tried: Tried) -> None:
    form, url = tried.task.form, f"{tried.stack.service_url}/analyze"
    example = in_json(tried.task.example)

    refused = httpx.post(url, json={})
    unknown = httpx.get(f"{url}/{ID}")
    sent = httpx.post(url, json=example)
    answer = wait_for_end(f"{tried.stack.service_url}{sent.headers['Location']}")

    texts = (refused.text, unknown.text, sent.text, json.dumps(answer))
    named = {error["field"]: error["problem"] for error in refused.json()["errors"]}
    assert (refused.status_code, named) == (422, sentences(form, {}))
    assert sent.status_code == 202
    assert tried.task.result.model_validate(answer["result"])
    assert words_of_others(tried.task, *texts) == set()


def wait_for_end(url: str) -> Any:
    deadline = time.monotonic() + PATIENCE / 1000
    while (answer := httpx.get(url).json())["status"] in ("pending", "processing"):
        assert time.monotonic() < deadline, answer
        time.sleep(0.2)
    return answer


# ── In the browser ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tab(browser: Browser, tried: Tried) -> Iterator[Visit]:
    """The form. In the end it has asked nobody else, and the browser has nothing to complain of."""
    context = open_context(browser, permissions=["clipboard-read", "clipboard-write"])
    complaints: list[str] = []

    def note(message: Any) -> None:
        if message.type in ("error", "warning"):
            complaints.append(message.text)

    context.on("console", note)
    visit = Visit(context, tried.stack.page_url, viewport=DESKTOP)
    expect_fields(visit.page, tried.task.form)
    yield visit
    context.close()
    assert visit.foreign_requests == []
    assert visit.trouble == complaints == []


@pytest.mark.browser
def test_from_wrong_values_to_the_result_and_back(tried: Tried, tab: Visit) -> None:
    fits_a_phone(tab)
    name_what_is_wrong(tried, tab)
    bring_the_result_and_go_back(tried, tab)


def name_what_is_wrong(tried: Tried, tab: Visit) -> None:
    """Each wrong value is named, and nothing is sent."""
    form = tried.task.form
    submitted = tried.stack.output.count(SUBMITTED)
    nothing = {question.key: untouched(question) for question in questions(form)}
    example = in_json(tried.task.example)
    wrong = {question.key: too_much(question) for question in questions(form)}
    too_large = example | {key: value for key, value in wrong.items() if value is not None}

    send_in_vain(tab, sentences(form, nothing))
    fill(tab.page, form, too_large)
    send_in_vain(tab, sentences(form, too_large))

    assert written(tab.page, form) == too_large, "it stays, to be mended"
    assert tab.request_id == ""
    assert tried.stack.output.count(SUBMITTED) == submitted
    assert words_of_others(tried.task, str(tab.page.evaluate(TEXT))) == set()


def send_in_vain(tab: Visit, said: dict[str, str]) -> None:
    """Send what can't be sent; each wrong field gets its sentence, and nothing else gets one."""
    assert said, "all of it is right"
    tab.send.click()
    fields = "One field needs" if len(said) == 1 else f"{len(said)} fields need"
    tab.expect_text(f"Not sent yet. {fields} a look.")
    tab.rest()
    for sentence in said.values():
        tab.expect_shown(sentence, sum(sentence in other for other in said.values()))


def bring_the_result_and_go_back(tried: Tried, tab: Visit) -> None:
    """What the form sends comes back as its result, and when refused, as what was written."""
    task, noun = tried.task, tried.task.noun
    example, seen = in_json(task.example), [str(tab.page.evaluate(TEXT))]
    tab.expect_heading(task.headline)
    tab.page.locator("summary").click()
    tab.expect_text(task.description)

    fill(tab.page, task.form, example)
    assert written(tab.page, task.form) == example
    tab.send.click()
    expect(tab.page).to_have_url(re.compile(r"\?request="))
    seen.append(str(tab.page.evaluate(TEXT)))
    tab.expect_heading(f"Your {noun}")
    tab.settle()
    expect(tab.page).to_have_title(f"✓ Ready · {task.name}")

    as_json = download(tab, "JSON", noun)
    result = json.loads(as_json)
    assert task.result.model_validate(result)
    shown = str(tab.page.evaluate(TEXT))
    as_markdown = download(tab, "Markdown", noun)
    tab.button("Copy text").click()
    tab.expect_text("Copied")
    as_text = str(tab.page.evaluate("navigator.clipboard.readText()"))
    for leaf in leaves(result):
        for text in (shown, as_text, as_markdown.replace("\\", "")):
            assert any(way in one_line(text) for way in ways(leaf)), (leaf, text)
    fits_a_phone(tab)

    refuse(tried, tab.request_id, example)
    tab.page.reload()
    tab.expect_heading(HEADINGS["failed"])
    tab.settle()
    seen.append(str(tab.page.evaluate(TEXT)))
    tab.button("Change the text").click()
    tab.expect_heading(task.headline)
    expect_fields(tab.page, task.form)
    tab.rest()
    wait_for(lambda: written(tab.page, task.form) == example, PATIENCE / 1000)
    for question in questions(task.form):
        if question.kind.is_number and not question.is_required:
            enter(tab.page, question, None)
            tab.page.keyboard.press("Tab")
            assert written(tab.page, task.form) == example | {question.key: None}

    log = tried.stack.output
    assert words_of_others(tried.task, *seen, shown, as_json, as_markdown, as_text, log) == set()


def fits_a_phone(tab: Visit) -> None:
    tab.page.set_viewport_size(NARROW)
    tab.rest()
    tab.expect_fits()
    tab.page.set_viewport_size(DESKTOP)


def download(tab: Visit, kind: str, noun: str) -> str:
    """What a button gives; the file is called what the person gets."""
    tab.button("More").click()
    with tab.page.expect_download() as coming:
        tab.button(f"Download {kind}").click()
    tab.page.keyboard.press("Escape")
    name = coming.value.suggested_filename.rpartition(".")[0]
    assert re.findall(r"\w+", name) == re.findall(r"\w+", noun.lower())
    return coming.value.path().read_text()


def ways(leaf: object) -> list[str]:
    """How a value from JSON may be shown."""
    if isinstance(leaf, bool):
        return ["Yes" if leaf else "No"]
    if isinstance(leaf, int | float):
        return [f"{leaf:g}", f"{leaf:,}"]
    return [one_line(str(leaf)), one_line(in_words(str(leaf)))]


def one_line(text: str) -> str:
    return " ".join(text.split())


def refuse(tried: Tried, request_id: str, given: dict[str, Any]) -> None:
    """Let the analysis look as if the model had declined to work on what was given."""
    client = redis.Redis.from_url(settings_of(tried.stack)["REDIS_URL"], decode_responses=True)
    key = f"analysis:{{{request_id}}}"
    record = json.loads(str(client.get(key)))
    record |= {"status": "failed", "failure": "refused_by_model", "input": given, "result": None}
    client.set(key, json.dumps(record), keepttl=True)
    client.close()
