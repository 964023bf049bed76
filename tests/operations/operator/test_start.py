"""A command whose settings are wrong ends with a sentence, and no traceback."""

from pathlib import Path

import pytest

from tests.integration.test_start import assert_names_the_unreadable_env_file


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "operations", "doctor"], id="operator"),
        pytest.param(["-m", "operations.smoke"], id="smoke"),
    ],
)
def test_an_env_file_that_is_unreadable_is_named(command: list[str], tmp_path: Path) -> None:
    assert_names_the_unreadable_env_file(command, tmp_path)
