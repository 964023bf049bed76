"""Python imports this at its start: whoever asks for `common.task` gets the toy.

Source: https://docs.python.org/3/library/site.html#module-sitecustomize
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any


class ToyFinder(MetaPathFinder):
    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != "common.task":
            return None
        return spec_from_file_location(fullname, Path(__file__).with_name("task.py"))


sys.meta_path.insert(0, ToyFinder())
