"""The operator's commands: `python -m operations --help`."""

from common.environment import SettingsError
from common.logs import end, start_logging
from common.tasks import load_task

if __name__ == "__main__":
    start_logging()
    try:
        load_task()

        from operations.cli import commands  # imports the task, which is known to work now

        commands(prog_name="python -m operations")
    except SettingsError as error:
        end(error)
