"""What is written to standard error, and how."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.failures import Failure
from common.store import Store
from common.submission import Submissions
from tests.conftest import WEBHOOK_URL, make_settings
from tests.fakes import ADA, ANALYSIS, ID, TOKENS, FakeAnalyst, FakeQueue, with_fields
from tests.processes import ROOT, bare_environment
from tests.product import COMMANDS
from tests.tokens import token
from webhook_service import create_app
from webhook_service.answer import AnalysisFailed, Answer

LOG_ONE_OF_EACH = """
import logging
from common.logs import bound, get_logger, start_logging
from common.settings import LogSettings
start_logging(LogSettings())
ours, theirs = get_logger("common.store"), logging.getLogger("openai")
with bound(message_id="msg_1"):
    ours.info("settled", request_id="abc", attempt=2, code=None, seconds=1.5)
ours.debug("a detail of ours")
theirs.debug("what a person wrote")
try:
    raise RuntimeError("a\\nb")
except RuntimeError:
    theirs.exception("broken %s", "pipe")
try:
    import no_such
except ImportError as error:
    ours.error("broken", exc_info=error)
    ours.exception("broken")
"""
ON_A_TERMINAL = f"import sys; sys.stderr.isatty = lambda: True\n{LOG_ONE_OF_EACH}"


def log(tmp_path: Path, code: str = LOG_ONE_OF_EACH, **settings: str) -> list[str]:
    """Run a process that logs, and return its lines."""
    command = [sys.executable, "-c", code]
    environment = bare_environment(tmp_path, **settings)
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return ended.stderr.splitlines()


TIMES = ("seconds", "seconds_after_due")
LEFT_OUT = {"time", "level", "logger", "pid", "call_id", *TIMES}


def test_the_lines_of_one_analysis_tell_all_of_it(
    caplog: pytest.LogCaptureFixture, store: Store, queue: FakeQueue
) -> None:
    """A submission, an attempt that fails, and one that is answered, as a deployment writes it."""
    caplog.set_level("INFO")
    settings = make_settings(qstash_delay="0s")
    answers = AnalysisFailed(Failure.RATE_LIMITED, "429"), Answer(ANALYSIS, "fake", TOKENS)
    app = create_app(settings, store=store, queue=queue, analyst=FakeAnalyst(*answers))
    message = json.dumps({"requestId": ID, "round": 1}).encode()
    headers = {
        "Upstash-Signature": token(WEBHOOK_URL, message),
        "Upstash-Message-Id": "msg_1",
    }

    Submissions(store, queue, settings).submit(ADA, request_id=ID)
    for _ in range(2):
        app.test_client().post("/webhook", data=message, headers=headers)
        store.update(ID, lambda r, now: with_fields(r, next_attempt_at=now))

    lines = [json.loads(line) for line in caplog.text.splitlines()]
    for line in lines:
        assert line.pop("request_id") == ID
        assert {"time", "level", "logger", "pid"} <= set(line)
        assert all(line.get(name, 0) >= 0 for name in TIMES)
    told = [{k: v for k, v in line.items() if k not in LEFT_OUT} for line in lines]
    first = {"message_id": "msg_1", "round": 1, "attempt": 1}
    second = first | {"attempt": 2}
    limited = {"code": "rate_limited"}
    cost = {"input_tokens": 300, "output_tokens": 200}
    assert told == [
        {"event": "submitted", "round": 1, "attempt": 0},
        {"event": "published", "message_id": f"msg-{ID}-1", "round": 1, "attempt": 0},
        {"event": "claimed", **first},
        {"event": "attempt failed", **first, **limited, "cause": "429"},
        {"event": "claimed", **second},
        {"event": "answered", **second, **cost},
        {"event": "settled", **second, "status": "completed"},
    ]
    with_times = ["seconds_after_due", "seconds"] * 2
    assert [name for line in lines for name in TIMES if name in line] == with_times
    assert lines[2]["call_id"] != lines[4]["call_id"]


def test_where_there_is_no_terminal_each_line_is_json(tmp_path: Path) -> None:
    ours, theirs, *missing = (json.loads(line) for line in log(tmp_path))

    assert list(ours)[:3] == ["time", "level", "event"]
    assert ours["time"].endswith("Z")
    del ours["time"], ours["pid"]
    assert ours == {
        "level": "info",
        "event": "settled",
        "request_id": "abc",
        "message_id": "msg_1",
        "attempt": 2,
        "seconds": 1.5,
        "logger": "common.store",
    }
    assert (theirs["level"], theirs["event"]) == ("error", "broken pipe")
    assert (theirs["cause"], theirs["at"]) == ("RuntimeError", "<string>:12")
    named = "ModuleNotFoundError: No module named 'no_such'"
    assert [line["cause"] for line in missing] == [named] * 2


def test_the_console_has_coloured_readable_lines(tmp_path: Path) -> None:
    first, *others = log(tmp_path, LOG_FORMAT="Console")

    assert "\x1b[" in first
    assert "settled" in first
    assert "abc" in first
    assert len(others) == 3, "an exception is told on one line"


def test_a_terminal_has_them_by_itself_and_the_level_is_for_our_own_details_alone(
    tmp_path: Path,
) -> None:
    """openai's own debug lines quote what it is sent."""
    debug = "\n".join(log(tmp_path, ON_A_TERMINAL, LOG_LEVEL="debug"))
    errors = [
        json.loads(line)["level"]
        for line in log(tmp_path, ON_A_TERMINAL, LOG_FORMAT="json", LOG_LEVEL="ERROR")
    ]

    assert "\x1b[" in debug
    assert "a detail of ours" in debug
    assert "what a person wrote" not in debug
    assert errors == ["error"] * 3


LOG_LATE = """
import streamlit.logger
from common.logs import start_logging
from common.settings import LogSettings
streamlit.logger.get_logger("streamlit.early")
start_logging(LogSettings())
for name in ("early", "later"):
    streamlit.logger.get_logger(f"streamlit.{name}").error("%s", "a" * 10_000)
streamlit.logger.update_formatter()  # as Streamlit does when it reads its settings again
streamlit.logger.get_logger("streamlit.early").error("again")
"""


def test_streamlits_loggers_write_as_ours_do_whenever_they_are_made(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in log(tmp_path, LOG_LATE)]

    assert [line["event"] for line in lines] == ["a" * 1000, "a" * 1000, "again"]


RAISE_EVERYWHERE = """
import asyncio, gc, logging, threading, traceback, warnings
from common.logs import start_logging
start_logging()
def fail():
    raise ValueError("Ada")
class FailsAtItsEnd:
    __del__ = lambda self: fail()
async def forget():
    task = asyncio.ensure_future(asyncio.to_thread(fail))
    await asyncio.wait([task])
warnings.warn("Ada", UserWarning)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
del thread
FailsAtItsEnd()
asyncio.run(forget())
gc.collect()
try:
    fail()
except ValueError:
    logging.getLogger("theirs").error(traceback.format_exc())
fail()
"""


def raise_everywhere(tmp_path: Path, **settings: str) -> str:
    command = [sys.executable, "-c", RAISE_EVERYWHERE]
    environment = bare_environment(tmp_path, **settings)
    ended = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    return ended.stderr


def test_what_nobody_catches_is_a_line_too_and_does_not_tell_what_it_says(tmp_path: Path) -> None:
    written = raise_everywhere(tmp_path)

    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["event"].partition(" <")[0], line.get("cause")) for line in lines] == [
        ("warning", "UserWarning"),
        ("uncaught exception", "ValueError"),  # of a thread
        ("uncaught exception", "ValueError"),  # of a destructor
        ("Task exception was never retrieved", "ValueError"),
        ("ValueError", None),  # a traceback as a text
        ("uncaught exception", "ValueError"),
    ]
    assert all("<string>" in line.get("at", line["event"]) for line in lines)
    assert "Ada" not in written


def test_on_a_console_python_tells_it_by_itself(tmp_path: Path) -> None:
    assert "ValueError: Ada" in raise_everywhere(tmp_path, LOG_FORMAT="console")


def end_at_start(tmp_path: Path, *command: str, **settings: str) -> str:
    """Start a process that has no settings but wrong ones; return what it says."""
    wrong = {"QSTASH_DELAY": "never", "PORT": "none", **settings}
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=bare_environment(tmp_path, **wrong),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    return ended.stderr


def assert_settings_are_named(said: str) -> None:
    assert "\n  QSTASH_TOKEN: missing\n" in said
    assert "\n  QSTASH_DELAY: write a number" in said
    assert "\n  PORT: " in said


def test_a_process_that_can_not_start_says_so_on_one_line(tmp_path: Path) -> None:
    told = json.loads(end_at_start(tmp_path, *COMMANDS["service"]))

    assert (told["level"], told["event"]) == ("critical", "not set up")
    assert_settings_are_named(told["cause"])


def test_on_a_console_it_says_so_to_a_person(tmp_path: Path) -> None:
    said = end_at_start(tmp_path, "page", LOG_FORMAT="console")

    assert_settings_are_named(said)
    assert "Traceback" not in said
