"""Writes docs/settings.md from the settings classes: `make settings`."""

import inspect
from datetime import timedelta
from importlib.util import find_spec

from pydantic.fields import FieldInfo

from common import settings
from common.environment import Part, SecretsSettings

INTRODUCTION = """\
# Settings

All environment variables. Each may also stand in `.env`, or in a [file](#secrets-in-files). An
empty value counts as unset. When a process starts, it names everything that is missing or wrong;
`python -m common page` (or `service`) does so without starting anything.

`make settings` writes this page from the classes in `common/settings.py` and `operations/`.
"""
CORE = (
    settings.RedisSettings,
    settings.QStashSettings,
    settings.SigningSettings,
    settings.ModelSettings,
    settings.AnalystSettings,
    settings.ApiSettings,
    settings.ServiceSettings,
    settings.PageSettings,
    settings.LogSettings,
    SecretsSettings,
)
READERS = {"page": settings.PageSettings, "service": settings.ServiceSettings}


def page() -> str:
    """The whole page: a section for each part, the options' last."""
    return "\n".join([INTRODUCTION, *map(section, (*CORE, *options()))])


def options() -> tuple[type, ...]:
    """The parts that the options bring, where there are any."""
    found = find_spec("operations")
    if not (
        found and found.origin
    ):  # a folder without a module is what git leaves of a deleted one
        return ()
    from operations.settings import OperationsSettings

    bases: tuple[type, ...] = OperationsSettings.__bases__
    return bases


def section(kind: type[Part]) -> str:
    title, _, text = inspect.cleandoc(kind.__doc__ or "").partition("\n\n")
    found = [f"the {name}" for name, process in READERS.items() if issubclass(process, kind)]
    reader = f"Read by {' and '.join(found)}." if found else "Optional."
    rows = [
        f"| `{name.upper()}` | {default(field)} | {field.description} |"
        for name, field in own_fields(kind).items()
    ]
    return "\n".join(
        [
            f"## {title.rstrip('.')}",
            "",
            f"{reader} {' '.join(text.split())}".rstrip(),
            "",
            "| variable | default | meaning |",
            "|---|---|---|",
            *rows,
            "",
        ]
    )


def own_fields(kind: type[Part]) -> dict[str, FieldInfo]:
    inherited = {name for base in kind.__bases__ for name in getattr(base, "model_fields", ())}
    return {name: field for name, field in kind.model_fields.items() if name not in inherited}


def default(field: FieldInfo) -> str:
    """A default as one would write it into `.env`."""
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, timedelta):
        value = f"{value.total_seconds():.0f}s"
    return f"`{value}`" if value or value in (0, False) else "empty"


if __name__ == "__main__":
    print(page(), end="")
