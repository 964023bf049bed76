"""Python imports this at its start: whoever asks for `common.task` gets the toy.

Source: https://docs.python.org/3/library/site.html#module-sitecustomize
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


class ToyLoader(SourceFileLoader):
    """Makes the module known by its other name too, so that its classes exist once."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        sys.modules["tests.toy.task"] = module


class ToyFinder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != "common.task":
            return None
        file = str(Path(__file__).with_name("task.py"))
        return spec_from_file_location(fullname, loader=ToyLoader(fullname, file))


sys.meta_path.insert(0, ToyFinder())
# No deployment has it; structlog would load it, in a twentieth of a second of each process.
sys.modules["rich"] = None  # type: ignore[assignment]
