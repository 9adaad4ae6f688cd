"""How near to librosa each quantity must be, and whether it is: the one table of rules."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from audiotorch.bench import measures
from audiotorch.bench.measures import Comparison
from audiotorch.bench.quantities import QUANTITIES

__all__ = ["RULES", "Measured", "Outcome", "Rule", "batch_rule", "judge", "measure"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rule:
    """What must hold of a quantity.

    Attributes:
        quantity: its name.
        error: gives the errors of one clip, one for each value, frame or row, or one alone; none
            if the clip does not count.
        limit: no error may be larger.
        unit: what errors are told in.
        share: instead, so many of all errors over all clips may not be larger; 0 = none may.
        of: what the errors are of, in the plural.
        limit_double: the limit in float64, where it is another.
        spread: the errors are those of columns, and are taken in units of each column's standard
            deviation over the corpus.
    """

    quantity: str
    error: Callable[[Comparison], Array]
    limit: float
    unit: str = ""
    share: float = 0.0
    of: str = "values"
    limit_double: float | None = None
    spread: bool = False

    @property
    def text(self) -> str:
        """The rule in words."""
        near = f"within {self.limit:g}{self.unit}" if self.limit else "equal"
        return f"{100 * self.share:g} % of {self.of} {near}" if self.share else near

    def told(self, outcome: "Outcome") -> str:
        """Return what was found, in the words of the rule.

        Args:
            outcome: what `judge` said.
        """
        if not self.share:
            return outcome.figure + self.unit
        near = f"within {self.limit:g}{self.unit}" if self.limit else "equal"
        return f"{outcome.figure} of {self.of} {near}"


class Measured(NamedTuple):
    """What a rule says of one clip.

    Attributes:
        clip: its name.
        worst: the largest error; NaN answers count as infinitely wrong.
        n_within: errors up to the limit.
        n: errors.
        columns: for rules of spread, differences and the reference's numbers.
    """

    clip: str
    worst: float
    n_within: int
    n: int
    columns: tuple[Array, Array] | None = None


class Outcome(NamedTuple):
    """What a rule says of all clips.

    Attributes:
        figure: worst error, or share.
        where: the clip it is of, if any.
        holds: whether the rule does.
        use: part of what is allowed that was used up; above 1, the rule is broken.
    """

    figure: str
    where: str
    holds: bool
    use: float


def measure(rule: Rule, comparison: Comparison, clip: str) -> Measured:
    """Apply a rule to one clip.

    Args:
        rule: the rule.
        comparison: the clip's answer and reference.
        clip: its name.

    Raises:
        ValueError: the shapes differ.
    """
    ours, expected = comparison.ours, comparison.expected
    if ours.shape != expected.shape:
        raise ValueError(f"{rule.quantity}: shape {ours.shape}, must be {expected.shape}")
    errors = np.nan_to_num(rule.error(comparison), nan=np.inf, posinf=np.inf)
    columns = (errors, expected.astype(np.float64)) if rule.spread else None
    worst = float(errors.max(initial=0.0))
    return Measured(clip, worst, int((errors <= rule.limit).sum()), errors.size, columns)


def judge(rule: Rule, measured: Sequence[Measured]) -> Outcome:
    """Sum up what a rule says of clips.

    Args:
        rule: the rule.
        measured: of each clip.
    """
    if rule.spread:
        measured = _in_units_of_spread(measured)
    counted = [each for each in measured if each.n]
    if not counted:
        return Outcome("no clip counts", "", False, np.inf)
    return _judge_share(rule, counted) if rule.share else _judge_worst(rule, counted)


def _judge_worst(rule: Rule, measured: Sequence[Measured]) -> Outcome:
    worst = max(measured, key=lambda each: each.worst)
    if worst.worst == 0:
        return Outcome("0", "", True, 0.0)
    # Whatever is not 0 breaks a rule of equality.
    use = worst.worst / rule.limit if rule.limit else np.inf
    return Outcome(f"{worst.worst:.2g}", worst.clip, use <= 1.0, use)


def _judge_share(rule: Rule, measured: Sequence[Measured]) -> Outcome:
    n = sum(each.n for each in measured)
    n_beyond = n - sum(each.n_within for each in measured)
    use = n_beyond / (n * (1 - rule.share))
    figure = f"{_percent(1 - n_beyond / n)}"
    poorest = min(measured, key=lambda each: each.n_within / each.n)
    return Outcome(figure, poorest.clip if n_beyond else "", use <= 1.0, use)


def _percent(share: float) -> str:
    """Never 100 % for what is less."""
    return f"{np.floor(1e6 * share) / 1e4:g} %"


def _in_units_of_spread(measured: Sequence[Measured]) -> list[Measured]:
    found = []
    rows = [each.columns for each in measured if each.columns is not None]
    if not rows:
        return []
    spread = np.stack([expected for _, expected in rows]).std(axis=0)
    for each in measured:
        if each.columns is not None:
            differences = each.columns[0]
            # A column that never varies must be the same.
            error = differences / np.where(spread > 0, spread, np.finfo(np.float64).tiny)
            found.append(each._replace(worst=float(error.max()), columns=None))
    return found


def batch_rule(quantity: str) -> Rule:
    """Return what a clip's answer in a padded batch must be of that it gets alone.

    Args:
        quantity: a key of `QUANTITIES`.
    """
    share = 0.0 if QUANTITIES[quantity].continuous else 0.999
    return Rule(quantity, measures.of_peak, 1e-6, " of the clip's maximum", share)


_PEAK = " of the clip's maximum"
_RATE = " of the value"
_DETERMINED = "values that librosa gives alike in float32 and float64"

RULES: Sequence[Rule] = (
    Rule("spectrogram", measures.of_peak, 1e-5, _PEAK, limit_double=1e-7),
    Rule("mel_spectrogram", measures.of_peak, 1e-5, _PEAK, limit_double=1e-7),
    Rule("power_to_db", measures.absolute, 2e-3, " dB"),
    Rule("mfcc", measures.absolute, 2e-3, " dB"),
    Rule("delta_mfcc", measures.of_range, 1e-5, " of the row's range"),
    Rule("delta2_mfcc", measures.of_range, 1e-5, " of the row's range"),
    Rule("spectral_centroid", measures.hertz, 1e-5, _RATE + " (+ 0.01 Hz)"),
    Rule("spectral_bandwidth", measures.hertz, 1e-5, _RATE + " (+ 0.01 Hz)"),
    Rule("spectral_rolloff", measures.bins_off, 0, share=0.999, of="frames"),
    Rule("spectral_rolloff", measures.bins_off, 1, " bin"),
    Rule("spectral_contrast", measures.absolute, 1e-3, " dB"),
    Rule("spectral_flatness", measures.relative, 1e-4, _RATE),
    Rule("poly_features", measures.line, 1e-5, " of the clip's largest"),
    Rule("zero_crossing_rate", measures.absolute, 0),
    Rule("rms", measures.relative, 1e-6, _RATE),
    Rule("tuning", measures.n_unequal, 0, share=0.995, of="clips"),
    Rule("chroma_stft", measures.chroma_tuning, 0, share=0.995, of="clips' tunings"),
    Rule("chroma_stft", measures.chroma, 1e-4, " where the tuning is equal"),
    Rule("cqt", measures.of_peak, 1e-3, _PEAK),
    Rule("vqt", measures.of_peak, 1e-3, _PEAK),
    Rule("chroma_cqt", measures.absolute, 1e-2, share=0.999),
    Rule("chroma_cens", measures.absolute, 1e-2, share=0.99),
    Rule("waveform_tonnetz", measures.absolute, 1e-2, share=0.999),
    Rule("tonnetz", measures.absolute, 1e-2, share=0.999),
    Rule("tonnetz", measures.tonnetz_determined, 1e-2, share=0.999, of=_DETERMINED),
    Rule("hpss", measures.of_peak, 1e-5, _PEAK),
    Rule("hpss_medians", measures.absolute, 0),
    Rule("harmonic_ratio", measures.relative, 1e-4, _RATE),
    Rule("onset_strength", measures.absolute, 1e-3),
    Rule("tempogram", measures.absolute, 1e-3),
    Rule("tempo", measures.n_unequal, 0, share=0.98, of="clips"),
    Rule("beats", measures.n_unequal, 0, share=0.98, of="clips"),
    Rule("summary_vector", measures.summary, 5e-5, " of the column's spread", spread=True),
    Rule(
        "summary_vector",
        measures.summary_rolloff,
        1e-3,
        " of the column's spread, rolloff",
        spread=True,
    ),
    Rule("resample", measures.of_peak, 1e-4, _PEAK),
    Rule("load", measures.of_peak, 1e-4, _PEAK),
)
"""What must hold on every real recording, at librosa's defaults."""
