"""What a deployment is made of: images, compose files, proxy, Procfile, and units of systemd."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml
from honcho.environ import parse_procfile

from common.environment import Part
from common.open_files import OPEN_FILES_NEEDED
from common.settings import ModelSettings, PageSettings, ServiceSettings
from common.times import TimeLadder
from local_stack import qstash_queue
from local_stack.redis_server import PERSISTENCE
from tests.conftest import leave_out
from tests.fakes import ID
from tests.processes import ROOT, Stack, bare_environment, free_port, wait_for
from tests.proxy import NGINX_CONF, nginx

BIN = Path(sys.executable).parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SYSTEMD = ROOT / "deploy" / "systemd"
# Root may write everywhere; the images' user may not.
AS_ANYBODY = ("setpriv", "--bounding-set", "-dac_override") if os.geteuid() == 0 else ()
HALF_OPEN = 200  # more than the threads that `stack` has


def test_the_dockerfile_is_clean() -> None:
    linted = subprocess.run(
        [BIN / "hadolint", "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (linted.returncode, linted.stdout) == (0, "")


def target(name: str) -> str:
    """One stage of the Dockerfile, and the base it builds on."""
    stages = re.split(r"(?m)^(?=FROM )", DOCKERFILE)
    return next(stage for stage in stages if f" AS {name}\n" in stage)


def test_a_build_is_sent_exactly_what_the_dockerfile_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    sent = {line[1:].partition("/")[0] for line in lines if line.startswith("!")}

    assert lines[0] == "*"
    copied = re.findall(r"(?m)^COPY (\S+) ", DOCKERFILE)
    assert sent == {source.replace("[s]", "s") for source in copied}


def variables(kind: type[Part]) -> set[str]:
    return {name.upper() for name in kind.model_fields}


def test_each_container_gets_the_settings_of_its_process_and_no_other() -> None:
    """So the page holds neither the OpenAI key nor the signing keys."""
    only_by_address = {"UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"}  # Redis is here
    both = {*variables(PageSettings), *variables(ServiceSettings)}

    for name, kind in (("page", PageSettings), ("service", ServiceSettings)):
        given = set(COMPOSE["services"][name]["environment"])
        assert given & both == variables(kind) - only_by_address
        assert "env_file" not in COMPOSE["services"][name]


def test_the_containers_may_open_enough_files() -> None:
    for name in ("proxy", "page", "service"):
        assert COMPOSE["services"][name]["ulimits"]["nofile"] > OPEN_FILES_NEEDED


def test_every_foreign_image_is_pinned() -> None:
    images = [each["image"] for each in COMPOSE["services"].values() if "image" in each]
    bases = re.findall(r"(?m)^FROM (\S+:\S+)", DOCKERFILE)

    assert len(images + bases) == 4
    for image in images + bases:
        assert re.fullmatch(r"[\w/]+:\d[\w.-]*@sha256:[0-9a-f]{64}", image)


CONNECT = """
from common import options, settings, store
found, chosen = options.load_with_options(settings.Settings)
options.plug_in("page", found, chosen, store.open_store(found))
"""


def unpack(name: str, app: Path) -> Path:
    """No container engine: copy what an image holds. As in a container, nobody may write there."""
    app.mkdir()
    for source, copy in re.findall(r"(?m)^COPY (\S+) (\S+)$", target("base") + target(name)):
        for found in ROOT.glob(source):
            if found.is_dir():
                shutil.copytree(found, app / copy)
            else:
                shutil.copy(found, app / copy)
    for path in (app, *app.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    return app


def environment_of_a_container(stack: Stack, tmp_path: Path, **settings: str) -> dict[str, str]:
    """The neighbours of the stack, and no home."""
    neighbours = {
        key: value
        for key, value in stack.process_of("gunicorn").environ().items()
        if key.startswith(("REDIS_", "QSTASH_", "OPENAI_"))
    }
    path = {"PATH": f"{BIN}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    return bare_environment(tmp_path / "no-home", **neighbours | path | settings)


def command_of(name: str) -> list[str]:
    """What a container of this image runs."""
    return list(json.loads(re.findall(r"(?m)^CMD (\[.*\])$", target(name))[-1]))


@pytest.mark.parametrize("name", ["service", "page"])
def test_each_image_holds_what_its_command_needs(name: str, stack: Stack, tmp_path: Path) -> None:
    """The files it would copy, its command and its health check, by hand.

    From the first line to the last it writes nothing but JSON.
    """
    app = unpack(name, tmp_path / "app")
    health = json.loads(re.findall(r"(?m)^ +CMD (\[.*\])$", target(name))[0])
    port = free_port()
    environment = environment_of_a_container(
        stack,
        tmp_path,
        PORT=str(port),
        HTTP_PROXY="http://127.0.0.1:1",  # nobody: the health check asks the container itself
        http_proxy="http://127.0.0.1:1",
    )

    if name == "page":  # it does so at the first visit, the service at its start
        connect = [*AS_ANYBODY, sys.executable, "-c", CONNECT]
        subprocess.run(connect, cwd=app, env=environment, check=True)
    with (tmp_path / "log").open("w") as log:
        command = [*AS_ANYBODY, *command_of(name)]
        process = subprocess.Popen(command, cwd=app, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}"))
        subprocess.run(health, env=environment, check=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=40)

    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines
    assert all({"time", "level", "event", "logger", "pid"} <= set(line) for line in lines)


def test_a_container_of_ours_can_write_to_tmp_and_data_alone() -> None:
    for name in ("page", "service"):
        container = COMPOSE["services"][name]
        assert container["read_only"]
        assert container["tmpfs"] == "/tmp"
        assert container["volumes"] == ["history:/data"]
        assert container["cap_drop"] == ["ALL"]
        assert "\nUSER 10001\n" in target(name)
    assert "install --directory --owner=10001 /data" in target("base")


def test_no_container_takes_all_of_the_machine() -> None:
    for container in COMPOSE["services"].values():
        assert re.fullmatch(r"\d+[mg]", container["mem_limit"])
        assert set(container["logging"]["options"]) == {"max-size", "max-file"}
        assert container["security_opt"] == ["no-new-privileges:true"]


def test_every_call_in_flight_may_have_its_thread() -> None:
    configured = (ROOT / "webhook_service" / "gunicorn.conf.py").read_text()
    workers, threads = (
        int(re.findall(rf"(?m)^{name} = (\d+)$", configured)[0]) for name in ("workers", "threads")
    )
    unit = (SYSTEMD / "ask-later-service.service").read_text()

    for most in (
        COMPOSE["services"]["service"]["pids_limit"],
        *re.findall(r"TasksMax=(\d+)", unit),
    ):
        assert int(most) > 1.5 * workers * threads


def test_a_full_redis_refuses_before_it_is_killed() -> None:
    redis = COMPOSE["services"]["redis"]
    most = redis["command"][redis["command"].index("--maxmemory") + 1]

    # Twice: what changes while the append-only file is rewritten is there a second time.
    assert 2 * int(most.removesuffix("mb")) < int(redis["mem_limit"].removesuffix("m"))


def slowest() -> TimeLadder:
    """The time limits at the largest OPENAI_TIMEOUT_SECONDS that is taken."""
    limits = ModelSettings.model_fields["openai_timeout_seconds"].metadata
    return TimeLadder(next(each.le for each in limits if hasattr(each, "le")))


def test_nothing_cuts_a_call_short_however_long_it_may_take() -> None:
    unit = (SYSTEMD / "ask-later-service.service").read_text()
    patience = {
        "compose": COMPOSE["services"]["service"]["stop_grace_period"].removesuffix("s"),
        "systemd": re.findall(r"(?m)^TimeoutStopSec=(\d+)$", unit)[0],
    }
    for seconds in patience.values():
        assert int(seconds) > slowest().graceful_stop.total_seconds() + 5

    webhook = NGINX_CONF.partition("listen 8081")[2]
    (seconds,) = re.findall(r"proxy_read_timeout (\d+)s;", webhook)
    assert int(seconds) > slowest().delivery_timeout.total_seconds()


def test_the_guides_variables_of_libraries_reach_a_container() -> None:
    """Those that are no settings of ours, so that no other test knows them."""
    guides = "".join((ROOT / "docs" / name).read_text() for name in ("deploy.md", "operating.md"))
    named = set(re.findall(r"\b(?:STREAMLIT|GUNICORN|OTEL)_[A-Z_]+\b", guides))
    named -= {"STREAMLIT_SERVER_ADDRESS"}
    passed_on = {
        name for each in COMPOSE["services"].values() for name in each.get("environment", {})
    }

    assert {"STREAMLIT_SERVER_COOKIE_SECRET", "GUNICORN_CMD_ARGS"} <= named <= passed_on
    for each in COMPOSE["services"].values():
        for name, value in each.get("environment", {}).items():
            assert name not in named or value in (None, f"${{{name}:-}}"), name


class Loader(yaml.SafeLoader):
    """Knows the one tag of Compose that is used: what is there before gives way."""


Loader.add_constructor(
    "!override",
    lambda loader, node: loader.construct_sequence(node),  # type: ignore[arg-type]
)


def test_the_tls_file_fits_the_proxy() -> None:
    override = yaml.load((ROOT / "compose.tls.yaml").read_text(), Loader)["services"]
    added = "".join(path.read_text() for path in (ROOT / "deploy" / "tls").iterdir())
    mounted = {volume.split(":")[-2] for volume in override["proxy"]["volumes"]}
    named = {Path(path).parent for path in re.findall(r"ssl_certificate\S* (\S+);", added)}
    included = {Path(path).parent for path in re.findall(r"include (\S+);", NGINX_CONF)}

    assert set(override) == {"proxy"}
    listening = [*re.findall(r"listen (\d+)", NGINX_CONF + added)]
    inside = [port.partition(":")[2] for port in override["proxy"]["ports"]]
    assert sorted(inside) == sorted({*listening} - {"8081"})  # without TLS QStash has no way in
    assert {str(path) for path in named | included} == mounted


def test_the_procfile_and_the_units_of_systemd_start_what_the_images_start() -> None:
    procfile = dict(parse_procfile((ROOT / "Procfile").read_text()).processes)
    started = {}
    for unit in SYSTEMD.glob("*.service"):
        (command,) = re.findall(r"(?m)^ExecStart=/opt/ask-later/.venv/bin/(.*)$", unit.read_text())
        started[unit.stem] = command

    assert {name: shlex.split(command) for name, command in procfile.items()} == {
        "web": command_of("service"),
        "page": command_of("page"),
    }
    assert started["ask-later-service"] == procfile["web"]
    assert started["ask-later-page"] == procfile["page"]


def test_systemd_takes_its_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        leave_out("systemd's units", because="there is no systemd", remedy="apt install systemd")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    for unit in SYSTEMD.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/ask-later", str(tmp_path)))

    checked = subprocess.run(
        ["systemd-analyze", "verify", *(tmp_path / unit.name for unit in SYSTEMD.iterdir())],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_compose_file_fits_the_images_and_the_proxy() -> None:
    services = COMPOSE["services"]
    upstreams = dict(re.findall(r"(?m)^ *(?:set \$\w+|\*) http://(\w+):(\d+);", NGINX_CONF))

    assert set(services) == {"proxy", "page", "service", "redis", "postgres"}
    assert {services[name]["build"]["target"] for name in ("page", "service")} == {
        "page",
        "service",
    }
    assert upstreams == {
        name: services[name]["environment"]["PORT"] for name in ("page", "service")
    }
    assert services["proxy"]["ports"] == ["80:8080", "3001:8081"]
    assert re.findall(r"listen (\d+);", NGINX_CONF) == ["8080", "8081"]
    command = services["redis"]["command"]
    for name, value in PERSISTENCE.items():
        if name != "appendfsync":  # it is what the server does by itself
            assert command[command.index(f"--{name}") + 1] == value
    assert services["redis"]["volumes"] == ["redis:/data"]
    assert set(COMPOSE["volumes"]) == {"history", "postgres", "redis"}


def open_halfway(url: str, stack: ExitStack) -> None:
    """Open connections that promise a body and never send it."""
    address = ("127.0.0.1", int(url.rpartition(":")[2]))
    for _ in range(HALF_OPEN):
        connection = stack.enter_context(socket.create_connection(address))
        connection.sendall(b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")


def post_ten_times(url: str) -> None:
    for _ in range(10):
        httpx.post(f"{url}/webhook", content=b"{}", timeout=3)


def deliver(url: str, signed_url: str) -> None:
    """Deliver a message for an unknown id; whoever is blocked does not answer within 30 s."""
    body = json.dumps({"requestId": ID, "round": 1}).encode()
    token = qstash_queue.sign(signed_url, body, qstash_queue.CURRENT_SIGNING_KEY)
    answered = httpx.post(
        f"{url}/webhook", content=body, headers={"Upstash-Signature": token}, timeout=30
    )
    assert answered.status_code == 200


def test_half_open_connections_stop_a_delivery_without_the_proxy_and_not_with_it(
    stack: Stack, tmp_path: Path
) -> None:
    with nginx(tmp_path, stack.service_url, stack.page_url) as proxy, ExitStack() as held:
        open_halfway(proxy.webhook_url, held)

        deliver(proxy.webhook_url, f"{stack.service_url}/webhook")

    with ExitStack() as held:
        open_halfway(stack.service_url, held)

        with pytest.raises(httpx.ReadTimeout):
            post_ten_times(stack.service_url)  # the first may still find a thread free


def test_every_requirement_is_pinned_with_the_hashes_of_its_files() -> None:
    for path in (*ROOT.glob("requirements*.txt"), *(ROOT / "benchmarks").glob("**/require*.txt")):
        lines = path.read_text().replace("\\\n", "").splitlines()
        packages = [line for line in lines if not line.lstrip().startswith("#")]

        assert len(packages) > 5
        assert all("==" in line and " --hash=sha256:" in line for line in packages), path
