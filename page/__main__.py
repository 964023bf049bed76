"""Serve the page: `python -m page`; with `--local`, on this machine and for it alone."""

import sys
from argparse import ArgumentParser

from common.environment import SettingsError
from common.logs import end, start_logging
from common.open_files import raise_open_files
from common.settings import PageSettings
from common.tasks import load_task


def main() -> None:
    """Check the settings, then serve until a signal comes."""
    parser = ArgumentParser(prog="python -m page", description="Serve the page on PORT.")
    parser.add_argument("--local", action="store_true", help="on loopback, for this machine alone")
    is_local = parser.parse_args().local
    start_logging()
    try:
        load_task()

        from common.options import load_with_options  # imports the task, which can work

        settings, _ = load_with_options(PageSettings)
    except SettingsError as error:
        end(error)
    from page.server import SCRIPT, make_app  # import the task, which is known to work now

    start_logging(settings, anew=True)  # takes Streamlit's loggers over, which are there now
    raise_open_files()

    # Streamlit looks for modules in its folder first: those of `page` would hide `requests`, say.
    sys.argv = [str(SCRIPT)]
    config: dict[str, object] = {"server.port": settings.port, "logger.hideWelcomeMessage": True}
    if is_local:
        config["server.address"] = "127.0.0.1"
    make_app(loopback_names_only=is_local).run(config=config)


if __name__ == "__main__":
    main()
