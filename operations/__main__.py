"""The operator's commands: `python -m operations --help`."""

import sys

from common.environment import SettingsError
from common.logs import start_logging
from common.tasks import load_task

if __name__ == "__main__":
    start_logging()
    try:
        load_task()
    except SettingsError as error:
        sys.exit(str(error))  # a command answers whoever has called it in sentences

    from operations.cli import commands  # imports the task, which is known to work now

    commands(prog_name="python -m operations")
