"""`kill -HUP`: traces go where the new settings say."""

from pathlib import Path

from tests.operations.tracing.test_tracing import collect
from tests.processes import wait_for
from tests.reloads import start_service
from tests.tokens import CURRENT
from tests.zygote import Zygote

NEVER = "600000"  # milliseconds until spans are sent, unless their process ends before


def test_traces_go_where_the_new_settings_say_and_those_of_the_old_workers_arrive(
    valkey: str, tmp_path: Path, zygote: Zygote
) -> None:
    with (
        start_service(valkey, tmp_path, {"OTEL_BSP_SCHEDULE_DELAY": NEVER}, zygote) as service,
        collect() as first,
        collect() as second,
    ):
        for collector in (first, second):
            service.write(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
            service.wait_until_replaced(service.hang_up())
            assert service.deliver(CURRENT) == 200
        service.wait_until_replaced(service.hang_up())

        for collector in (first, second):
            wait_for(lambda collector=collector: len(collector.named("deliver")) == 1)  # type: ignore[misc]
            assert collector.named("ask the model")
