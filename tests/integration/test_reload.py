"""`kill -HUP`: the service takes all new settings, or keeps all old ones and says why."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from tests.conftest import make_settings
from tests.log_lines import logged
from tests.processes import ROOT, bare_environment
from tests.product import COMMANDS
from tests.reloads import FRESH, FRESH_KEYS, FRESH_NEXT, Service, start_service
from tests.tokens import CURRENT
from webhook_service import reloading


@pytest.fixture(scope="module")
def started(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Started once; each test begins with the settings of its start."""
    with start_service(valkey, tmp_path_factory.mktemp("reload")) as service:
        yield service


@pytest.fixture
def service(started: Service) -> Iterator[Service]:
    yield started
    started.may_answer.set()
    started.write()
    started.wait_until_replaced(started.hang_up())


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        pytest.param({"QSTASH_TOKEN": ""}, "QSTASH_TOKEN: missing", id="missing"),
        pytest.param({"PORT": "3999"}, "PORT: changed; restart the service", id="port"),
    ],
)
def test_a_reload_that_is_not_possible_keeps_all_settings_and_says_why(
    service: Service, changes: dict[str, str], cause: str
) -> None:
    said_before = len(service.said("settings not reloaded"))
    service.write(**FRESH_KEYS, **changes)

    service.wait_until_replaced(service.hang_up())

    assert [service.deliver(key) for key in (CURRENT, FRESH)] == [200, 401]
    (line,) = service.said("settings not reloaded")[said_before:]
    assert cause in line["cause"]


def test_a_reload_takes_new_settings_and_answers_the_calls_in_flight(service: Service) -> None:
    claimed = len(service.said("claimed"))

    answer = service.reload_during_a_call(**FRESH_KEYS, LOG_LEVEL="WARNING")
    answers = [service.deliver(key) for key in (FRESH, FRESH_NEXT, CURRENT)]

    assert answer == 200
    assert answers == [200, 200, 401]
    assert len(service.said("claimed")) == claimed + 1, "the level of the log is new, too"


def test_gunicorn_tells_before_a_reload_whether_its_configuration_can_be_read(
    started: Service, tmp_path: Path
) -> None:
    def check(file: Path) -> int:
        check = ["-m", "gunicorn", "--check-config", "-c", str(file), COMMANDS["service"][-1]]
        environment = bare_environment(tmp_path, **started.settings)
        return subprocess.run([sys.executable, *check], cwd=ROOT, env=environment).returncode

    ours, changed = ROOT / "webhook_service" / "gunicorn.conf.py", tmp_path / "gunicorn.conf.py"
    changed.write_text(f"workers = = 4\n{ours.read_text()}")

    assert check(ours) == 0
    assert check(changed) == 1


def test_an_application_that_can_not_be_made_leaves_the_old_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Application(SimpleNamespace):
        def load(self) -> object:
            raise ValueError("hunter2 is no such parameter")

    old = reloading.Loaded(make_settings(), None)
    new = reloading.Loaded(make_settings(port=3002), None)
    configuration = Config()
    monkeypatch.setattr(reloading, "_in_use", reloading.InUse(old, configuration))
    monkeypatch.setattr(reloading, "_read", new)
    app = Application(callable="the old one", cfg=Config())
    served: list[Config] = []
    server = SimpleNamespace(app=app, cfg=app.cfg, setup=lambda app: served.append(app.cfg))

    reloading.make_application_anew(server)

    assert app.callable == "the old one"
    assert served == [configuration]
    assert reloading.current_settings() is old
    (told,) = logged(caplog.text, "settings not reloaded")
    assert told["cause"] == "ValueError"
    assert "hunter2" not in caplog.text
