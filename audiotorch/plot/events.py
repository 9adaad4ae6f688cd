"""The curves that a run wrote for TensorBoard."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from audiotorch.errors import ParameterError

__all__ = ["RunCurves", "read_curves"]

# One event of each other kind is kept: pictures and sounds of a long run would fill the memory.
_KEPT = {
    **dict.fromkeys(("images", "audio", "tensors", "histograms", "compressedHistograms"), 1),
    "scalars": 0,
}


class RunCurves(NamedTuple):
    """What a run logged.

    Args:
        scalars: by name, steps and values, `(n,)` each.
        facts: of `metrics.json`; empty where there is none.
    """

    scalars: dict[str, tuple[np.ndarray, np.ndarray]]
    facts: dict[str, Any]

    def epochs(self, steps: np.ndarray) -> np.ndarray | None:
        """Return how many epochs were done after each step; None where the run logged none.

        Args:
            steps: counted from 0, as logged.
        """
        if "epoch" not in self.scalars:
            return None
        # The last step of an epoch has the number of the epoch, counted from 0.
        logged, numbers = self.scalars["epoch"]
        ends = np.array([logged[numbers == number].max() for number in np.unique(numbers)]) + 1.0
        done = np.concatenate([[0.0], np.unique(numbers) + 1.0])
        return np.interp(steps + 1.0, np.concatenate([[0.0], ends]), done)


def read_curves(run_dir: Path) -> RunCurves:
    """Read the scalars of all event files below a run's `tb/`.

    Where a later file begins before an earlier one ends, the run was resumed or started anew: what
    the earlier one holds from there on is left out, as TensorBoard does.

    Args:
        run_dir: the run's directory.

    Raises:
        ParameterError: no event file.
    """
    files = sorted((run_dir / "tb").rglob("events.out.tfevents.*"), key=lambda path: path.name)
    if not files:
        raise ParameterError(
            f"{run_dir}: holds no tb/events*; name the directory of a training run"
        )
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars: dict[str, list[tuple[int, float]]] = {}
    for path in files:
        events = EventAccumulator(str(path), size_guidance=_KEPT, purge_orphaned_data=False)
        events.Reload()
        for name in events.Tags()["scalars"]:
            points = [(event.step, event.value) for event in events.Scalars(name)]
            first = min(step for step, _ in points)
            earlier = [point for point in scalars.get(name, []) if point[0] < first]
            scalars[name] = earlier + points
    arrays = {name: np.array(points, dtype=np.float64).T for name, points in scalars.items()}
    return RunCurves(
        {name: (steps, values) for name, (steps, values) in arrays.items()}, _facts(run_dir)
    )


def _facts(run_dir: Path) -> dict[str, Any]:
    try:
        facts = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # The run goes on, or was stopped.
    return facts if isinstance(facts, dict) else {}
