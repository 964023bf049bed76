"""`kill -HUP`: what was counted stays."""

from pathlib import Path

import httpx

from tests.operations.metrics.test_metrics import BEARER, TOKEN, read
from tests.reloads import Service, start_service
from tests.tokens import CURRENT
from tests.zygote import Zygote


def attempts(service: Service) -> float:
    text = httpx.get(f"{service.server.url}/metrics", headers=BEARER, timeout=20).text
    return read(text)["analysis_attempts_total"]


def test_what_was_counted_before_a_reload_and_during_it_stays(
    valkey: str, tmp_path: Path, zygote: Zygote
) -> None:
    with start_service(
        *(valkey, tmp_path, {}, zygote),
        METRICS_TOKEN=TOKEN,
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path),
    ) as service:
        before = service.deliver(CURRENT)
        during = service.reload_during_a_call()
        after = service.deliver(CURRENT)

        assert [before, during, after] == [200] * 3
        assert attempts(service) == 3
