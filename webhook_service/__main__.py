"""The operator's commands: `python -m webhook_service --help`."""

from webhook_service.operator import commands

if __name__ == "__main__":
    commands(prog_name="python -m webhook_service")
