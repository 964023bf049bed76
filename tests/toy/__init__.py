"""The task of the tests, which stands in for `common/task.py` in them and in what they start.

So they say nothing about the task in use, and pass with any. `sitecustomize.py` is found by each
Python process that has this folder in PYTHONPATH.
"""

import os
import sys
from pathlib import Path


def use_in_this_process_and_its_children() -> None:
    """Put the toy in place, unless a task is there already: a benchmark's is the one in use."""
    if "common.task" in sys.modules:
        return
    from tests.toy import task

    sys.modules["common.task"] = task
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
