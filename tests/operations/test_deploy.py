"""What the containers of a deployment are told of the options."""

from common.settings import PageSettings, ServiceSettings
from operations.settings import OperationsSettings
from tests.integration.test_deploy import COMPOSE, variables


def test_each_container_gets_the_options_of_its_process_and_nothing_that_nobody_reads() -> None:
    hosts_own = {"FORWARDED_ALLOW_IPS"}  # uvicorn's
    the_others = {
        "page": {"METRICS_TOKEN", "PROMETHEUS_MULTIPROC_DIR"},
        "service": {"METRICS_PORT"},
    }

    for name, kind in (("page", PageSettings), ("service", ServiceSettings)):
        given = set(COMPOSE["services"][name]["environment"]) - hosts_own
        assert given - variables(kind) == variables(OperationsSettings) - the_others[name]
