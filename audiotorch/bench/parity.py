"""Whether audiotorch's numbers are librosa's, clip by clip, and those of a batch a clip's own."""

import multiprocessing
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from audiotorch.bench.clips import Clip
from audiotorch.bench.measures import Comparison
from audiotorch.bench.quantities import QUANTITIES, as_tensor, build, padded
from audiotorch.bench.references import REFERENCES, Sound
from audiotorch.bench.rules import RULES, Measured, Rule, batch_rule, measure
from audiotorch.bench.threads import use_one_thread
from audiotorch.errors import ParameterError

__all__ = ["Failure", "Report", "Task", "compare_group", "run_parity"]

Array = npt.NDArray[Any]

# As a Pipeline does; deltas need 9 frames.
_MIN_SECONDS = 0.5
_BATCH = 16


class Failure(NamedTuple):
    """A clip on which a quantity could not be compared.

    Attributes:
        quantity: its name, or "decoding".
        clip: the clip's.
        error: why.
    """

    quantity: str
    clip: str
    error: str


@dataclass(frozen=True)
class Task:
    """What to compare.

    Attributes:
        rules: what must hold, several for a quantity or none.
        sample_rate: Hz that clips are brought to; `None` keeps each its own.
        double: in float64.
    """

    rules: tuple[Rule, ...]
    sample_rate: int | None = 22050
    double: bool = False

    @classmethod
    def of(
        cls, names: Sequence[str] | None = None, *, native: bool = False, double: bool = False
    ) -> "Task":
        """Choose the rules of quantities.

        Args:
            names: keys of `QUANTITIES`; `None` = all.
            native: keep each clip's sample rate.
            double: in float64.

        Raises:
            ParameterError: an unknown name.
        """
        known = list(dict.fromkeys(rule.quantity for rule in RULES))
        if unknown := [name for name in names or () if name not in known]:
            raise ParameterError(f"features={unknown}: unknown; known are {' '.join(known)}")
        rules = [rule for rule in RULES if names is None or rule.quantity in names]
        if double:
            rules = [
                replace(rule, limit=rule.limit_double) if rule.limit_double else rule
                for rule in rules
            ]
        return cls(tuple(rules), None if native else 22050, double)

    @property
    def quantities(self) -> list[str]:
        """Names of what is compared, each once."""
        return list(dict.fromkeys(rule.quantity for rule in self.rules))


@dataclass
class Report:
    """What was found.

    Attributes:
        parity: what each rule says of each clip.
        batches: of each quantity, how near a clip's answer in a padded batch is to its own.
        failures: what could not be compared.
        refused: clips of too low a sample rate, or the like, that both refuse, by quantity.
        n_clips: clips that could be decoded.
    """

    parity: dict[Rule, list[Measured]] = field(default_factory=dict)
    batches: dict[Rule, list[Measured]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    n_clips: int = 0

    def add(self, other: "Report") -> None:
        """Take in what was found of other clips.

        Args:
            other: not changed.
        """
        for mine, theirs in ((self.parity, other.parity), (self.batches, other.batches)):
            for rule, measured in theirs.items():
                mine.setdefault(rule, []).extend(measured)
        self.failures += other.failures
        self.refused += other.refused
        self.n_clips += other.n_clips


def run_parity(
    clips: Sequence[Clip], task: Task, jobs: int = 1, advance: Callable[[int], None] | None = None
) -> Report:
    """Compare clips, in batches of 16 of mixed lengths.

    Args:
        clips: recordings.
        task: what to compare.
        jobs: processes.
        advance: is told how many more clips are done.
    """
    n_groups = max(-(-len(clips) // _BATCH), min(jobs, len(clips)))
    # Dealt out like cards: corpora, and so lengths, are mixed in each group.
    groups = [clips[start::n_groups] for start in range(n_groups)]
    report = Report()
    for group, found in _compared(groups, task, jobs):
        report.add(found)
        if advance is not None:
            advance(len(group))
    return report


def _compared(
    groups: Sequence[Sequence[Clip]], task: Task, jobs: int
) -> Iterator[tuple[Sequence[Clip], Report]]:
    # librosa's functions are compiled at their first call, into one cache for all processes: two
    # that fill it at the same time can load what the other compiled for other types, and crash.
    alone = len(groups) if jobs == 1 else 1
    for group in groups[:alone]:
        yield group, compare_group(group, task)
    if alone == len(groups):
        return
    # Forked, torch's threads would hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=use_one_thread)
    try:
        running = {pool.submit(compare_group, group, task): group for group in groups[alone:]}
        for done in as_completed(running):
            yield running[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def compare_group(clips: Sequence[Clip], task: Task) -> Report:
    """Compare some clips, alone and together in a padded batch.

    Args:
        clips: recordings.
        task: what to compare.
    """
    report = Report()
    by_rate: dict[int, list[tuple[Clip, Sound]]] = {}
    for clip in clips:
        sound = _attempt(_read, clip, task)
        if isinstance(sound, Exception):
            report.failures.append(Failure("decoding", clip.name, _told(sound)))
        else:
            report.n_clips += 1
            by_rate.setdefault(sound.sample_rate, []).append((clip, sound))
    for pairs in by_rate.values():
        for name in task.quantities:
            rules = [rule for rule in task.rules if rule.quantity == name]
            answers = [(clip, sound, _attempt(_ours, name, sound)) for clip, sound in pairs]
            for clip, sound, ours in answers:
                _compare(report, rules, clip, sound, ours)
            sound_answers = [each for each in answers if not isinstance(each[2], Exception)]
            if QUANTITIES[name].make is not None and len(sound_answers) > 1:
                _compare_batch(report, name, sound_answers)
    return report


def _read(clip: Clip, task: Task) -> Sound:
    waveform, rate = clip.read(task.sample_rate)
    short = int(np.ceil(_MIN_SECONDS * rate)) - len(waveform)
    waveform = np.pad(waveform, (0, max(0, short)))
    return Sound(waveform.astype(np.float64) if task.double else waveform, rate, clip.path)


def _ours(name: str, sound: Sound) -> Array:
    measured_by = QUANTITIES[name].measure
    if measured_by is not None:
        return measured_by(sound)
    with torch.no_grad():
        output = build(name, sound.sample_rate)(torch.from_numpy(sound.waveform)[None])
    answer: Array = as_tensor(output)[0].numpy()
    return answer


def _compare(
    report: Report, rules: Sequence[Rule], clip: Clip, sound: Sound, ours: Array | Exception
) -> None:
    """Measure one quantity of one clip by all its rules."""
    name = rules[0].quantity
    expected = _attempt(REFERENCES[name], sound)
    if isinstance(ours, Exception) and isinstance(expected, Exception):
        report.refused[name] += 1
        return
    if isinstance(ours, Exception) or isinstance(expected, Exception):
        error = ours if isinstance(ours, Exception) else expected
        report.failures.append(Failure(name, clip.name, _told(error)))
        return
    for rule in rules:
        found = _attempt(measure, rule, Comparison(ours, expected, sound), clip.name)
        if isinstance(found, Exception):
            report.failures.append(Failure(name, clip.name, _told(found)))
        else:
            report.parity.setdefault(rule, []).append(found)


def _compare_batch(report: Report, name: str, answers: Sequence[tuple[Clip, Sound, Array]]) -> None:
    """Measure how near each clip's answer among others is to its own."""
    rule = batch_rule(name)
    waveform, lengths = padded([sound.waveform for _, sound, _ in answers])
    module = build(name, answers[0][1].sample_rate)
    with torch.no_grad():
        together = _attempt(lambda: as_tensor(module(waveform, lengths)).numpy())
    if isinstance(together, Exception):
        report.failures.append(Failure(name, f"a batch of {len(answers)}", _told(together)))
        return
    for (clip, sound, alone), ours in zip(answers, together, strict=True):
        # What lies past a clip's own frames must be 0.
        n_past = ours.shape[-1] - alone.shape[-1]
        expected = np.pad(alone, [(0, 0)] * (alone.ndim - 1) + [(0, n_past)])
        found = measure(rule, Comparison(ours, expected, sound), clip.name)
        report.batches.setdefault(rule, []).append(found)


def _attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function returns, or raises: one bad clip must not end the run."""
    with warnings.catch_warnings():
        # librosa's notices, such as that a clip is shorter than a window.
        warnings.simplefilter("ignore")
        try:
            return function(*arguments)
        except Exception as error:
            return error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
