"""A task's file that can't work ends whatever is started with a sentence, and no traceback."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
from pathlib import Path

import httpx
import pytest

import common
from common.tasks import TaskError, load_task
from tests.conftest import NEIGHBOURS
from tests.processes import ROOT, bare_environment, wait_for
from tests.product import COMMANDS, Server

PARTS = ("common", "local_stack", "operations", "page", "webhook_service", ".streamlit")
TOY = (ROOT / "tests" / "toy" / "task.py").read_text()
SETTINGS = {
    **NEIGHBOURS,
    "PYTHONDONTWRITEBYTECODE": "1",  # else a file of the same size and second counts as the same
}
NAME = 'name: Annotated[str, Field(max_length=80), Autocomplete("name")]'
BROKEN = TOY.replace(NAME, "name: str").replace('noun="analysis"', 'noun=""')
SAID = (
    "common/task.py can't work yet:\n"
    "  noun: needs a text\n"
    "  AnalysisInput.name: give this text a limit, as in Field(max_length=200)"
)
LOOK_AT_THE_PAGE = """
from streamlit.testing.v1 import AppTest
page = AppTest.from_file("streamlit_app.py", default_timeout=20).run()
assert not page.exception
print(page.title[0].value)
"""
SUBMIT_THE_LARGEST = """
import json
from datetime import timedelta
import fakeredis
from common.qstash import Queue
from common.store import Store
from common.task import TASK
from webhook_service import create_app

class Accepting(Queue):
    def __init__(self):
        pass
    def publish(self, *_, **__):
        return "msg_1"

store = Store(fakeredis.FakeStrictRedis(decode_responses=True), ttl=timedelta(hours=1))
client = create_app(store=store, queue=Accepting(), open_api=True).test_client()
largest = TASK.example.model_dump(mode="json", by_alias=True) | {"description": "🌱" * 8_000}
for indent in (None, 8):
    body = json.dumps(largest, indent=indent)
    sent = client.post("/analyze", data=body, content_type="application/json")
    looked_up = client.get(sent.headers.get("Location", "/"))
    print(len(body), sent.status_code, looked_up.status_code)
"""


def own_task(home: Path) -> dict[str, str]:
    """An environment in which a process has the task of its own file, and not the tests'."""
    environment = bare_environment(home, **SETTINGS)
    environment.pop("PYTHONPATH", None)
    return environment


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The product without its tests, in a path that is named like a task's file."""
    copy = tmp_path_factory.mktemp("product") / "task.py"
    ignored = shutil.ignore_patterns("task.*.pyc", "*.pyc.*")  # the latter are being written
    for part in PARTS:
        if (ROOT / part).exists():
            shutil.copytree(ROOT / part, copy / part, ignore=ignored)
    shutil.copy(ROOT / "streamlit_app.py", copy)
    return copy


@pytest.fixture
def run(copy: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(source: str | None, *command: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the copy with this file of the task, or with none."""
        file = copy / "common" / "task.py"
        file.unlink(missing_ok=True)
        if source is not None:
            file.write_text(source)
        return subprocess.run(
            [sys.executable, *command],
            cwd=copy,
            env=own_task(tmp_path),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    return run


def line_of(source: str, text: str) -> int:
    return source[: source.index(text)].count("\n") + 1


def changed(old: str, new: str) -> str:
    assert old in TOY
    return TOY.replace(old, new)


CLASS = "class AnalysisInput(Form):"
RESULT = "class Analysis(Result):"


@pytest.mark.parametrize(
    ("source", "at", "said"),
    [
        pytest.param(None, "", "No module named 'common.task'", id="no file"),
        pytest.param("", "", "TASK must be a Task", id="empty"),
        pytest.param(f"{TOY}\nTASK = 3\n", "", "TASK must be a Task", id="another TASK"),
        pytest.param(changed(CLASS, "class AnalysisInput(Form:"), CLASS[:20], "", id="syntax"),
        pytest.param(
            changed(CLASS, f"import missing\n\n{CLASS}"),
            "import missing",
            "No module named 'missing'",
            id="import",
        ),
        pytest.param(
            changed("max_length=80", "max_length=LIMIT"),
            "    name: ",
            "name 'LIMIT' is not defined",
            id="name",
        ),
        pytest.param(
            changed('    noun="analysis",\n', ""),
            "TASK = Task(",
            "Task.__init__() missing 1 required positional argument: 'noun'",
            id="a word is missing",
        ),
        pytest.param(
            changed("age=36", "age=0"),
            '        AnalysisInput(\n            name="Ada"',
            "AnalysisInput.age: Input should be greater than or equal to 1",
            id="example",
        ),
        pytest.param(
            changed('tone="curious"', 'tone=" "'),
            "example_result=Analysis(",
            "Analysis.tone: Value error, empty",
            id="example of the result",
        ),
        pytest.param(
            changed(RESULT, f"class Own:\n    pass\n\n\n{RESULT}\n    own: Own"),
            RESULT,
            "Unable to generate pydantic-core schema for <class 'common.task.Own'>",
            id="a class that pydantic doesn't know",
        ),
        pytest.param(
            changed("class Analysis(Result):", "class Analysis(Result):\n    model_config: str"),
            "class Analysis(Result)",
            "`model_config` cannot be used as a model field name",
            id="a name that pydantic refuses",
        ),
        pytest.param(
            changed("age: A", "json: A").replace(" age=", " json="),
            "",
            "AnalysisInput.json: hides an attribute of Form; rename it",
            id="a name that pydantic warns of",
        ),
        pytest.param(
            changed(NAME, "name: datetime = datetime(2026, 1, 1)")
            .replace('name="Ada",', "")
            .replace('name="Sam",', "")
            .replace("from typing", "from datetime import datetime\nfrom typing"),
            "",
            "AnalysisInput.name: the page can't ask for datetime",
            id="a field that can't be asked",
        ),
    ],
)
def test_the_check_says_what_is_wrong_and_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str | None, at: str, said: str
) -> None:
    """In this process, where a warning would be an error."""
    use_file(monkeypatch, tmp_path, source)

    with pytest.raises(TaskError) as raised:
        load_task()

    place = f", line {line_of(source or '', at)}," if at else ""
    told = str(raised.value)
    assert told.startswith("common/task.py")
    assert f"common/task.py{place} can't work yet:" in told
    assert said in told


def use_file(monkeypatch: pytest.MonkeyPatch, directory: Path, source: str | None) -> None:
    """Let the next who imports `common.task` find this file, or none, and not the toy."""
    folder = directory / "common"
    folder.mkdir()
    if source is not None:
        (folder / "task.py").write_text(source)
    monkeypatch.setattr(sys, "meta_path", [BuiltinImporter, FrozenImporter, PathFinder])
    monkeypatch.setattr(common, "__path__", [str(folder)])
    monkeypatch.setattr(common, "task", None, raising=False)
    monkeypatch.delitem(sys.modules, "common.task")


def test_the_check_is_silent_about_a_task_that_can_work(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = run((ROOT / "common" / "task.py").read_text(), "-m", "common", "task")

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def sentence_in(written: str) -> str:
    """A command says it, a server writes it into its log."""
    return str(json.loads(written)["cause"]) if written.startswith("{") else written.strip()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "common"], id="check"),
        pytest.param(["-m", "page"], id="page"),
        pytest.param(["-m", "local_stack"], id="local stack"),
        pytest.param(["-m", *COMMANDS["service"]], id="service"),
        pytest.param(
            ["-m", "operations", "failed"],
            id="commands",
            marks=pytest.mark.skipif(
                not (ROOT / "operations" / "__main__.py").exists(), reason="they are optional"
            ),
        ),
    ],
)
def test_whatever_is_started_ends_with_the_sentence(
    run: Callable[..., subprocess.CompletedProcess[str]], command: list[str]
) -> None:
    ended = run(BROKEN, *(word.format(port=1) for word in command))

    assert ended.returncode == 1
    assert sentence_in(ended.stderr) == SAID
    assert "Traceback" not in ended.stdout


def test_a_page_that_is_served_by_streamlit_itself_logs_the_sentence(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = run(BROKEN, "-c", LOOK_AT_THE_PAGE)

    assert ended.stdout.splitlines()[-1] == "Not ready yet", ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    logged = [
        json.loads(line) for line in (ended.stdout + ended.stderr).splitlines() if line[0] == "{"
    ]
    assert [line["cause"] for line in logged if line["event"] == "not set up"] == [SAID]


def test_make_check_begins_with_the_task() -> None:
    told = subprocess.check_output(
        ["make", "--no-print-directory", "-n", "-o", ".venv/installed", "check"],
        cwd=ROOT,
        text=True,
    )

    assert told.splitlines()[0].endswith("/python -m common task")


def test_a_task_broken_while_the_service_runs_does_not_end_it_on_reload(
    copy: Path, tmp_path: Path
) -> None:
    """The application in memory goes on; a changed task needs a restart."""
    file = copy / "common" / "task.py"
    file.write_text(TOY)
    environment = own_task(tmp_path)
    server = Server(COMMANDS["service"], environment, tmp_path / "log.txt", copy)
    server.start()
    master = server.processes()[0]
    old = {child.pid for child in master.children()}

    file.write_text("class")
    os.kill(master.pid, signal.SIGHUP)
    wait_for(lambda: {child.pid for child in master.children()} - old)
    wait_for(lambda: not old & {child.pid for child in master.children()})
    health = httpx.get(f"{server.url}/health")
    server.stop()

    assert health.json() == {"status": "ok"}
    assert "Traceback" not in server.output


def test_the_api_takes_the_largest_input_however_it_is_written(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = run(changed("max_length=2000", "max_length=8000"), "-c", SUBMIT_THE_LARGEST)

    sent = [line.split() for line in ended.stdout.splitlines() if line[0].isdigit()]
    assert [status for _, *status in sent] == [["202", "200"]] * 2, ended.stderr
    assert int(sent[0][0]) > 96_000, "more than a body of a webhook may have"
