"""Servers other than OpenAI that speak the Responses API, run for real with faked models behind.

Each is installed under .local/servers, from pinned versions, and asked through our own analyst.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import httpx

from common.failures import Failure
from local_stack.filler import fill
from tests.conformance.backends import MODEL, TOKENS, serve_backends
from tests.conformance.table import Row
from tests.conftest import make_settings
from tests.fakes import ADA
from tests.processes import ROOT, bare_environment, free_port, start_stack, wait_for
from tests.smoke import smoke
from tests.toy.task import Analysis
from webhook_service.analyst import Analyst
from webhook_service.answer import AnalysisFailed, Answer

HERE = Path(__file__).parent
INSTALLED = ROOT / ".local" / "servers"
START_SECONDS = 180
CALL_SECONDS = 60
KEY = "sk-0123456789abcdef0123456789abcdef"
OURS = Analysis.model_validate(fill(ADA.model_dump(), Analysis.model_json_schema()))

# What befalls a call behind the server, and what should come of it: the analysis, or a failure.
CASES: dict[str, Failure | None] = {
    "good": None,
    "fence": None,
    "think": None,
    "reasoning": None,
    "key": Failure.KEY_REFUSED,
    "no-model": Failure.MODEL_NOT_FOUND,
    "rate": Failure.RATE_LIMITED,
    "quota": Failure.QUOTA_EXCEEDED,
    "credit": Failure.QUOTA_EXCEEDED,
    "overloaded": Failure.RATE_LIMITED,
    "refusal": Failure.REFUSED_BY_MODEL,
    "filter": Failure.CONTENT_FILTERED,
    "truncated": Failure.ANSWER_TRUNCATED,
    "only-reasoning": Failure.ONLY_REASONING,
}
CLAUDE_CASES = CASES.keys() - {"fence", "think", "quota", "filter"}


class Loss(NamedTuple):
    """What comes instead where a server passes too little on, and what it leaves out."""

    failure: Failure
    why: str


@dataclass(frozen=True)
class Route:
    """A way through a server to one kind of model."""

    what: str
    model: str  # what OPENAI_MODEL is, with {case} in it
    cases: Sequence[str]
    losses: dict[str, Loss] = field(default_factory=dict)


@dataclass(frozen=True)
class Server:
    """One that is installed from a lock file and run by a command."""

    name: str
    python: tuple[int, int]  # the least
    start: Callable[[Path, int, str], tuple[list[str], dict[str, str]]]
    ready: str
    routes: Sequence[Route]
    has_keys: bool  # whether it looks at OPENAI_API_KEY

    @property
    def title(self) -> str:
        """Its name and the version that the lock file pins."""
        (version,) = re.findall(
            rf"^{self.name}(?:\[.*?\])?==([\w.]+)", self.lock.read_text(), re.MULTILINE
        )
        return f"{self.name} {version}"

    @property
    def lock(self) -> Path:
        return HERE / f"{self.name}.txt"

    @property
    def interpreter(self) -> Path | None:
        """A Python that is new enough for it."""
        known = [Path(sys.executable), *Path.home().glob(".pyenv/versions/*/bin/python")]
        named = [shutil.which(f"python3.{minor}") for minor in range(self.python[1], 20)]
        is_new = f"import sys; sys.exit(sys.version_info < {self.python})"
        for path in [*known, *(Path(name) for name in named if name)]:
            if (
                subprocess.run([path, "-c", is_new], capture_output=True, check=False).returncode
                == 0
            ):
                return path
        return None


def install(server: Server) -> Path:
    """Install what the lock file pins, unless it is there already, and tell where."""
    home = INSTALLED / server.name
    mark = home / sha256(server.lock.read_bytes()).hexdigest()
    if not mark.exists():
        shutil.rmtree(home, ignore_errors=True)
        uv = shutil.which(
            "uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        )
        assert uv, "uv is installed with requirements-dev.txt"
        for arguments in (
            ["venv", "--python", str(server.interpreter), str(home)],
            ["pip", "install", "--require-hashes", "--python", str(home), "-r", str(server.lock)],
        ):
            subprocess.run([uv, "--quiet", "--system-certs", *arguments], check=True)
        mark.touch()
    return home / "bin"


@contextmanager
def run(server: Server) -> Iterator[str]:
    """Run a server with the faked models behind it, and tell its base URL."""
    python = install(server)
    with tempfile.TemporaryDirectory(prefix=server.name) as home, serve_backends() as models_url:
        directory, port = Path(home), free_port()
        command, environment = server.start(directory, port, models_url)
        with (directory / "output.txt").open("w") as output:
            process = subprocess.Popen(
                [python / command[0], *command[1:]],
                cwd=directory,
                env=bare_environment(directory, **environment),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        url = f"http://127.0.0.1:{port}"
        try:
            wait_for(lambda: httpx.get(url + server.ready).status_code == 200, START_SECONDS)
            yield f"{url}/v1"
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _litellm(directory: Path, port: int, models_url: str) -> tuple[list[str], dict[str, str]]:
    kinds: dict[str, dict[str, object]] = {
        # Else LiteLLM passes a request to /responses on as it is.
        "chat": {"model": f"openai/{MODEL}", "use_chat_completions_api": True},
        "deepseek": {"model": f"deepseek/{MODEL}"},
        "claude": {"model": "anthropic/claude-sonnet-4-5-20250929"},
    }
    models = [
        {
            "model_name": f"{kind}-{case}",
            "litellm_params": parameters
            | {
                "api_base": f"{models_url}/{case}" + ("" if kind == "claude" else "/v1"),
                "api_key": "sk-backend",
            },
        }
        for kind, parameters in kinds.items()
        for case in CASES
    ]
    config = {
        "model_list": models,
        "general_settings": {"master_key": KEY},
        "router_settings": {"num_retries": 0},  # QStash is the only retry loop
    }
    path = directory / "config.yaml"
    path.write_text(json.dumps(config))
    command = ["litellm", "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    return command, {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it asks the internet


def _llama_stack(directory: Path, port: int, models_url: str) -> tuple[list[str], dict[str, str]]:
    key_value, tables = "key_value", "tables"
    config = {
        "version": 2,
        "distro_name": "conformance",
        "apis": ["inference", "responses", "files", "tool_runtime", "vector_io"],
        "providers": {
            "inference": [
                {
                    "provider_id": case,
                    "provider_type": "remote::vllm",
                    "config": {"base_url": f"{models_url}/{case}/v1", "api_token": "sk-backend"},
                }
                for case in CASES
            ],
            "responses": [
                {
                    "provider_id": "builtin",
                    "provider_type": "inline::builtin",
                    "config": {
                        "persistence": {
                            "agent_state": {"namespace": "agents", "backend": key_value},
                            "responses": {"table_name": "responses", "backend": tables},
                        }
                    },
                }
            ],
            "files": [
                {
                    "provider_id": "localfs",
                    "provider_type": "inline::localfs",
                    "config": {
                        "storage_dir": str(directory / "files"),
                        "metadata_store": {"table_name": "files", "backend": tables},
                    },
                }
            ],
        },
        "storage": {
            "backends": {
                key_value: {"type": "kv_sqlite", "db_path": str(directory / "key_value.db")},
                tables: {"type": "sql_sqlite", "db_path": str(directory / "tables.db")},
            },
            "stores": {
                "metadata": {"namespace": "registry", "backend": key_value},
                "inference": {"table_name": "inference_store", "backend": tables},
                "conversations": {"table_name": "conversations", "backend": tables},
                "prompts": {"namespace": "prompts", "backend": key_value},
                "connectors": {"namespace": "connectors", "backend": key_value},
            },
        },
        "server": {"host": "127.0.0.1", "port": port},
    }
    path = directory / "config.yaml"
    path.write_text(json.dumps(config))
    return ["llama", "stack", "run", str(path), "--port", str(port)], {}


NO_CODE = "a provider's codes are not passed on"
LITELLM_LOSSES = {
    "quota": Loss(Failure.RATE_LIMITED, NO_CODE),
    "refusal": Loss(Failure.UNREADABLE_ANSWER, "a refusal comes as an answer without output"),
}
NO_REASON = Loss(Failure.UNREADABLE_ANSWER, "a refusal or filter comes as an empty text")
ONE_STATUS = Loss(Failure.MODEL_ERROR, "whatever a provider refuses comes as a bare HTTP 500")
LITELLM = Server(
    name="litellm",
    python=(3, 11),
    start=_litellm,
    ready="/health/liveliness",
    has_keys=True,
    routes=[
        Route(
            "a chat-only model",
            "chat-{case}",
            [*CASES],
            LITELLM_LOSSES,
        ),
        Route(
            "DeepSeek, which reasons",
            "deepseek-{case}",
            [*CASES],
            LITELLM_LOSSES,
        ),
        Route(
            "Anthropic",
            "claude-{case}",
            sorted(CLAUDE_CASES),
            {
                "refusal": Loss(Failure.CONTENT_FILTERED, "a refusal comes as a filter's"),
                "overloaded": Loss(Failure.MODEL_ERROR, "overload (529) comes as HTTP 500"),
            },
        ),
    ],
)
LLAMA_STACK = Server(
    name="llama-stack",
    python=(3, 12),
    start=_llama_stack,
    ready="/v1/health",
    has_keys=False,
    routes=[
        Route(
            "a chat-only model",
            f"{{case}}/{MODEL}",
            [*CASES],
            {
                **dict.fromkeys(("refusal", "filter"), NO_REASON),
                **dict.fromkeys(
                    ("key", "no-model", "rate", "quota", "credit", "overloaded"), ONE_STATUS
                ),
            },
        )
    ],
)


def complain(of: str) -> None:
    print(of, file=sys.stderr)


def check() -> Iterator[Row]:
    """Run each, hold it against `CASES`, and let `make smoke` judge it."""
    for server in (LITELLM, LLAMA_STACK):
        if server.interpreter is None:
            cases = sum(len(route.cases) for route in server.routes)
            why = f"not run: it needs Python {'.'.join(map(str, server.python))}"
            yield Row(server.title, 0, cases, why)
            continue
        with run(server) as url:
            yield from hold(server, url)
            if (ROOT / "operations" / "__init__.py").exists():
                yield _smoke(server, url)


def hold(server: Server, url: str) -> Iterator[Row]:
    """Hold every route of a running server against `CASES`, and what the doctor says of it."""
    for route in server.routes:
        yield _hold(server, route, url)
    yield _doctor(server, url)


def _hold(server: Server, route: Route, url: str) -> Row:
    passed, whys = 0, []
    for case in route.cases:
        wished, loss = CASES[case], route.losses.get(case)
        found = _analyse(url, route.model.format(case=case))
        if found is wished:
            passed += 1
        elif loss and found is loss.failure:
            whys.append(loss.why)
        else:
            complain(f"{server.name}, {route.what}, {case}: {found}, not {wished}")
    return Row(
        f"{server.title}, {route.what} behind it: a call",
        passed,
        len(route.cases),
        "; ".join(dict.fromkeys(whys)),
        len(whys),
    )


def _analyse(url: str, model: str) -> object:
    """None when exactly our analysis came back, with what it took; else what came."""
    found = _ask(url, model, lambda analyst: analyst.analyse(ADA, "conformance"))
    is_right = isinstance(found, Answer) and (found.analysis, found.tokens) == (OURS, TOKENS)
    return None if is_right else found


def _ask(url: str, model: str, ask: Callable[[Analyst], object], key: str = KEY) -> object:
    """What one question to the server gives, or the failure."""
    settings = make_settings(
        openai_base_url=url,
        openai_api_key=key,
        openai_model=model,
        openai_timeout_seconds=CALL_SECONDS,
    )
    with closing(Analyst(settings)) as analyst:
        try:
            return ask(analyst)
        except AnalysisFailed as failed:
            return failed.failure


def _doctor(server: Server, url: str) -> Row:
    """It knows the models there are and no other, and condemns none that is cut off at once."""
    knows, answers = Analyst.knows_model, Analyst.check_answer
    questions: list[tuple[str, str, Callable[[Analyst], object], object]] = [
        (route.model.format(case=case), KEY, ask, wished)
        for route in server.routes
        for case, ask, wished in (
            ("good", knows, True),
            ("good", answers, None),
            ("truncated", answers, None),
            ("only-reasoning", answers, None),
            ("no-such-model", knows, False),
        )
    ]
    if server.has_keys:
        good = server.routes[0].model.format(case="good")
        questions.append((good, "another-key", knows, Failure.KEY_REFUSED))
    passed = 0
    for model, key, ask, wished in questions:
        found = _ask(url, model, ask, key)
        if found is wished:
            passed += 1
        else:
            complain(f"{server.name}, {model}, {ask.__name__}: {found}, not {wished}")
    return Row(f"{server.title}: `doctor`", passed, len(questions))


def _smoke(server: Server, url: str) -> Row:
    settings = {
        "OPENAI_BASE_URL": url,
        "OPENAI_API_KEY": KEY,
        "OPENAI_MODEL": server.routes[0].model.format(case="good"),
        "OPENAI_TIMEOUT_SECONDS": str(CALL_SECONDS),
        "QSTASH_DELAY": "1s",
    }
    with tempfile.TemporaryDirectory() as home, start_stack(Path(home), **settings) as stack:
        ended = smoke(stack, Path(home))
    if ended.returncode:
        complain(f"{server.name}, make smoke: {ended.stderr}")
    return Row(f"{server.title}: `make smoke`", int(ended.returncode == 0), 1)
