"""`make smoke`, against a running local stack."""

import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT, Stack, bare_environment


def settings_of(stack: Stack) -> dict[str, str]:
    prefixes = ("REDIS_", "QSTASH_", "OPENAI_")
    environ = stack.process_of("gunicorn").environ()
    return {name: text for name, text in environ.items() if name.startswith(prefixes)}


def smoke(
    stack: Stack, directory: Path, code: Path = ROOT, /, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run it with the settings of a running stack, some of them changed."""
    return subprocess.run(
        [sys.executable, "-m", "operations.smoke"],
        cwd=code,
        env=bare_environment(directory, **settings_of(stack) | changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
