"""Which tests are tried once more, and what the last lines say."""

from collections.abc import Iterator

import pytest

LEFT_OUT = "Left out:"
# Files whose tests ask for `stack`. The files of a group run in one process, one after the other,
# so that there are two stacks and not one for each process: each costs five seconds of processor.
STACK_GROUPS = (
    ("test_deploy.py", "test_end_to_end.py", "test_local_stack.py"),
    (
        *("test_smoke.py", "test_forged_messages.py", "test_history.py"),
        *("test_page_server.py", "test_proxy.py"),
    ),
)
# The same for those that ask for `product` and a browser.
BROWSER_GROUPS = (
    ("browser/test_every_state.py", "browser/test_list.py", "browser/test_tell.py"),
    (
        *("browser/test_journey.py", "browser/test_waiting.py", "browser/test_strangers.py"),
        "browser/test_first_visit.py",
    ),
    ("browser/test_result.py", "browser/test_form.py", "browser/test_actions.py"),
    ("browser/test_down.py", "browser/test_layout_shift.py", "other_browsers/test_journey.py"),
)
# And for those that ask for `zygote`, or `postgres`: a second of processor for each process.
SERVER_GROUPS = (
    (
        *("operations/test_deletion.py", "metrics/test_processes.py", "metrics/test_reload.py"),
        *("tracing/test_tracing.py", "tracing/test_reload.py"),
    ),
    (
        *("history/test_backup.py", "history/test_connections.py", "history/test_database.py"),
        *("history/test_deliveries.py", "history/test_migrations.py", "history/test_other_task.py"),
        *("history/test_outage.py", "history/test_passwords.py", "history/test_reports.py"),
        *("history/test_several_hosts.py", "history/test_sweeper.py", "history/test_versions.py"),
        *("history/test_writer.py", "history/test_settings.py"),
    ),
    (
        *("operator/test_at_size.py", "operator/test_database_faults.py"),
        *("operator/test_doctor.py", "operator/test_neighbours.py", "operator/test_operator.py"),
        *("operator/test_other_task.py", "operator/test_start.py", "operator/test_versions.py"),
    ),
)
TRIED_AGAIN = "Tried again:"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest first, and try browser tests, and no others, once more when they fail."""
    longest = (
        *("test_chaos.py", "test_rotation.py", "test_servers.py"),
        *(name for group in BROWSER_GROUPS for name in group),
        "test_examples.py",
    )
    first = (*longest, *(name for group in STACK_GROUPS + SERVER_GROUPS for name in group))
    order = {name: number for number, name in enumerate(first)}

    def place(item: pytest.Item) -> int:
        ends = "/".join(item.path.parts[-2:]), item.path.name
        return min(order.get(end, len(order)) for end in ends)

    items.sort(key=place)
    for item in items:
        if item.get_closest_marker("browser"):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Say in the last lines what tests have to say, what was tried again, and what was left out."""
    yield
    for report in terminalreporter.stats.get("passed", []):
        for name, said in report.user_properties:
            if name == "said" and said:
                terminalreporter.line(str(said))
    for report in terminalreporter.stats.get("rerun", []):
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message.splitlines()[0] if crash else "no reason is known"
        terminalreporter.line(f"{TRIED_AGAIN} {report.nodeid}: {reason}")
    skipped = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    for reason in sorted({text.partition(LEFT_OUT)[2].rstrip("')") for text in skipped}):
        terminalreporter.line(f"{LEFT_OUT}{reason}")
