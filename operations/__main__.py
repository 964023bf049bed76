"""The operator's commands: `python -m operations --help`."""

from operations.cli import commands

if __name__ == "__main__":
    commands(prog_name="python -m operations")
