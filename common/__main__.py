"""Check the task: `python -m common task`; and with it the settings: `page`, or `service`."""

import sys

from common.environment import SettingsError
from common.tasks import load_task

if __name__ == "__main__":
    try:
        load_task()

        # These import the task, which is known to work now.
        from common.options import load_with_options
        from common.settings import PageSettings, ServiceSettings

        if sys.argv[1:] != ["task"]:
            load_with_options(PageSettings if sys.argv[1:] == ["page"] else ServiceSettings)
    except SettingsError as error:
        sys.exit(str(error))
