"""Check the settings: `python -m common page`, or `service`."""

import sys

from common.environment import SettingsError
from common.options import load_with_options
from common.settings import PageSettings, ServiceSettings

if __name__ == "__main__":
    try:
        load_with_options(PageSettings if sys.argv[1:] == ["page"] else ServiceSettings)
    except SettingsError as error:
        sys.exit(str(error))
