"""Draw what `compare` has measured: one panel a figure, one bar a system.

python -m benchmarks.plot .local/compare.json docs/reports/performance.svg
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from matplotlib import pyplot as plt

from benchmarks.compare import STEADY, Case, Run, median_of
from benchmarks.systems import OURS

BURST = Case(1.0, 200, 1000)
OURS_COLOUR, OTHERS_COLOUR = "#4338ca", "#a1a1aa"


def read(path: Path) -> dict[str, dict[str, Run]]:
    """The medians, by case and system."""
    runs: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for values in json.loads(path.read_text()):
        runs[values["case"]][values["system"]].append(Run(**values))
    return {
        case: {system: median_of(some) for system, some in by_system.items()}
        for case, by_system in runs.items()
    }


def draw(source: Path, target: Path) -> None:
    """Write the picture."""
    medians = read(source)
    burst, steady = medians[BURST.name], medians[STEADY.name]
    panels = {
        f"1,000 at once, {BURST.in_flight} in flight,\ncalls of 1 s: makespan ÷ ideal": {
            name: run.makespan / BURST.ideal for name, run in burst.items()
        },
        "the same: processor seconds\nof the workers per 1,000": {
            name: run.cpu_per_1000 for name, run in burst.items()
        },
        "100 a second, calls of 1 s:\nms over the call, 95th percentile": {
            name: run.overhead_p95 * 1000 for name, run in steady.items()
        },
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 4), layout="constrained")
    for axis, (title, values) in zip(axes, panels.items(), strict=True):
        names = sorted(values, key=lambda name: values[name], reverse=True)
        colours = [OURS_COLOUR if name == OURS.name else OTHERS_COLOUR for name in names]
        bars = axis.barh(names, [values[name] for name in names], color=colours)
        axis.bar_label(bars, fmt="%.3g", padding=3)
        axis.set_title(title, fontsize=10)
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xscale("log" if max(values.values()) > 50 * min(values.values()) else "linear")
    figure.savefig(target)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))
