"""`kill -HUP` on a real gunicorn."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from local_stack.qstash_courier import sign
from tests.processes import ROOT, bare_environment, free_port, wait_for

WEBHOOK_URL = "https://service.example/webhook"
OLD, NEW = "sig_old_key_of_this_test_12345678", "sig_new_key_of_this_test_12345678"


def test_a_reload_takes_new_settings_or_keeps_all_old_ones(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def write(key: str, port: int = port) -> None:
        (tmp_path / ".env").write_text(
            f"PORT={port}\nREDIS_URL=redis://127.0.0.1:1/0\nQSTASH_TOKEN=token\n"
            f"QSTASH_WEBHOOK_URL={WEBHOOK_URL}\nOPENAI_API_KEY=key\n"
            f"QSTASH_CURRENT_SIGNING_KEY={key}\nQSTASH_NEXT_SIGNING_KEY=sig_next_of_this_test\n"
        )

    def status(key: str) -> int:
        """489: signed, but not a message of ours."""
        headers = {"Upstash-Signature": sign(WEBHOOK_URL, b"{}", key)}
        return httpx.post(f"{url}/webhook", content=b"{}", headers=headers).status_code

    write(OLD)
    log_path = tmp_path / "log.txt"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "-w", "1"),
                *("-c", str(ROOT / "webhook_service/gunicorn.conf.py")),
                "webhook_service:create_app()",
            ],
            cwd=tmp_path,
            env=bare_environment(tmp_path, PYTHONPATH=str(ROOT)),
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: status(OLD) == 489)
        assert status(NEW) == 401

        write(NEW, port=free_port())  # the port counts from the next start
        os.kill(process.pid, signal.SIGHUP)
        wait_for(lambda: status(NEW) == 489 and status(OLD) == 401)

        (tmp_path / ".env").write_text("QSTASH_TOKEN=token\n")
        os.kill(process.pid, signal.SIGHUP)
        wait_for(lambda: "all old ones kept" in log_path.read_text())
        wait_for(lambda: status(NEW) == 489)
        (line,) = [line for line in log_path.read_text().splitlines() if "old ones kept" in line]
        assert "OPENAI_API_KEY: missing" in line
        assert process.poll() is None

        write(OLD)
        os.kill(process.pid, signal.SIGHUP)
        wait_for(lambda: status(OLD) == 489 and status(NEW) == 401)
    finally:
        process.terminate()
        process.wait(timeout=40)
