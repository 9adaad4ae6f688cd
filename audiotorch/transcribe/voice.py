"""Which stretches of a recording hold speech: a gate in front of Whisper, one frame at a time."""

import itertools
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from audiotorch.errors import ParameterError
from audiotorch.transcribe.backends import SAMPLE_RATE
from audiotorch.transcribe.silero import CONTEXT, FRAME, has_silero, load_silero

__all__ = [
    "FRAME",
    "GATES",
    "MIN_SPEECH_SECONDS",
    "THRESHOLD",
    "EnergyGate",
    "Gate",
    "SileroGate",
    "has_speech",
    "open_gate",
    "speech_regions",
    "speech_seconds",
]

GATES = ("auto", "silero", "energy", "none")
CHUNK = 1024  # frames computed at once: a few megabytes, however long the block is

THRESHOLD = 0.5
"""From this probability on a frame counts as speech, as it does for silero."""
NEGATIVE_THRESHOLD = 0.35
MIN_SPEECH_SECONDS = 3 * FRAME / SAMPLE_RATE
"""A window with less speech than this is never given to Whisper."""
SURE, DOUBTFUL = 0.7, 0.1
ENOUGH_SECONDS = 3.0


class Gate(ABC):
    """Tells how probable speech is in each frame of one recording, given block by block.

    The probabilities do not depend on how the recording is cut into blocks. What is kept between
    blocks is less than a frame of samples and a fixed state; a gate runs on the CPU. Gates of
    several recordings may run in several threads, one gate may not.
    """

    _context: int  # samples before a frame that it is judged with

    def __init__(self) -> None:
        self._held = torch.zeros(self._context)  # the context, and what is no whole frame yet
        self._finished = False

    @torch.no_grad()
    def feed(self, block: Tensor) -> Tensor:
        """Return the speech probability of every frame that the block completes.

        Args:
            block: `(n,)` floating point, at 16 kHz, what follows the blocks before; `n` may be 0.

        Returns:
            `(frames,)` float32 in [0, 1]; a frame is `FRAME` samples.

        Raises:
            ParameterError: the block has channels or whole numbers, or the recording is finished.
        """
        if block.ndim != 1 or not block.is_floating_point():
            raise ParameterError(
                f"block is {tuple(block.shape)} {block.dtype}, expected (n,) floating point: "
                "average the channels, or give them to a gate each"
            )
        if self._finished:
            raise ParameterError("this gate's recording is finished: open another gate")
        held = torch.cat([self._held, block.to("cpu", torch.float32)])
        n_frames = (len(held) - self._context) // FRAME
        # A copy, for a slice would keep the whole block.
        self._held = held[n_frames * FRAME :].clone()
        answers = []
        for first in range(0, n_frames, CHUNK):
            last = min(first + CHUNK, n_frames)
            answers.append(self._judge(held[first * FRAME : self._context + last * FRAME]))
        return torch.cat(answers) if answers else torch.zeros(0)

    def finish(self) -> Tensor:
        """Return the probability of the last frame, filled up with zeros; empty if none is left."""
        rest = len(self._held) - self._context
        answer = self.feed(torch.zeros(-rest % FRAME))
        self._finished = True
        return answer

    @abstractmethod
    def _judge(self, samples: Tensor) -> Tensor:
        """The probabilities of the next frames, given behind the context of the first one."""


def open_gate(name: str = "auto") -> Gate | None:
    """Make a gate for one recording; the weights are read once in a process.

    Args:
        name: `"silero"`, the neural detector whose weights the package silero-vad brings;
            `"energy"`, which needs no package; `"auto"`, silero where it is installed and else
            energy; `"none"` for no gate.

    Returns:
        The gate; `None` for `"none"`.

    Raises:
        ParameterError: no such gate.
        MissingDependencyError: silero is asked for and its weights are not there.
        DecodeError: the weights are there, and are damaged or those of another network.
    """
    if name not in GATES:
        raise ParameterError(f"gate is {name!r}, expected one of {', '.join(map(repr, GATES))}")
    if name == "none":
        return None
    if name == "energy" or (name == "auto" and not has_silero()):
        return EnergyGate()
    return SileroGate()


# --- what the probabilities say -------------------------------------------------------------------


def speech_regions(
    probabilities: Tensor,
    threshold: float = THRESHOLD,
    negative_threshold: float = NEGATIVE_THRESHOLD,
    min_speech_seconds: float = MIN_SPEECH_SECONDS,
    min_silence_seconds: float = 0.1,
    pad_seconds: float = 0.03,
) -> list[tuple[int, int]]:
    """Return the stretches of speech, by silero's own rule.

    Speech begins with a frame at `threshold` or above; it ends with the first one below
    `negative_threshold` from which on, for `min_silence_seconds`, none reaches `threshold`.
    `silero_vad.get_speech_timestamps` gives the same stretches but for those between 0.1 and
    0.25 seconds, which it drops: short words.

    Args:
        probabilities: `(frames,)`, as a gate gives them.
        threshold: probability that speech begins at.
        negative_threshold: probability below which it ends.
        min_speech_seconds: shorter stretches are left out, before padding.
        min_silence_seconds: shorter gaps are part of the speech.
        pad_seconds: added on both sides, at most half the gap between two stretches.

    Returns:
        Samples `(start, end)` from the first frame on, `end` not included, in order.
    """
    found: list[tuple[int, int]] = []
    start = silence = -1
    for frame, probability in enumerate(probabilities.tolist()):
        now = frame * FRAME
        if probability >= threshold:
            silence = -1
            start = now if start < 0 else start
        elif probability < negative_threshold and start >= 0:
            silence = now if silence < 0 else silence
            if now - silence >= min_silence_seconds * SAMPLE_RATE:
                found.append((start, silence))
                start = silence = -1
    length = len(probabilities) * FRAME
    if start >= 0:
        found.append((start, length))
    shortest = min_speech_seconds * SAMPLE_RATE
    kept = [(start, end) for start, end in found if end - start >= shortest]
    return _padded(kept, int(pad_seconds * SAMPLE_RATE), length)


def _padded(regions: list[tuple[int, int]], pad: int, length: int) -> list[tuple[int, int]]:
    gaps = [after - before for (_, before), (after, _) in itertools.pairwise(regions)]
    # Twice the pad, so that the ends of the recording take all of it.
    shares = [min(pad, gap // 2) for gap in [2 * pad, *gaps, 2 * pad]]
    return [
        (max(0, start - left), min(length, end + right))
        for (start, end), (left, right) in zip(regions, itertools.pairwise(shares), strict=False)
    ]


def speech_seconds(probabilities: Tensor) -> float:
    """Return how much of a recording is speech: the length of all its `speech_regions`.

    Args:
        probabilities: `(frames,)`, as a gate gives them.
    """
    return sum(end - start for start, end in speech_regions(probabilities)) / SAMPLE_RATE


def has_speech(probabilities: Tensor) -> bool:
    """Return whether a window, 30 seconds at most, holds enough speech for Whisper.

    The detector is sure of speech and rarely so of anything else, but a vibraphone or a cry can
    sound like a word for half a second. What tells them apart is the rest of the window: around
    a word it holds silence, the music goes on and leaves the detector in doubt. So the frames it
    is sure of (0.7 or above) must amount to `MIN_SPEECH_SECONDS` and to half as much as those
    that it doubts (0.1 to 0.7); 3 seconds of them are enough in any case.

    With silero this refuses all windows of music, animals, machines and weather that it was
    measured on, one of which has 1.8 seconds at 0.5 or above, and 24 of 32 sneezes. It keeps all
    sentences, 719 of 720 keywords, and 85 of 100 digits at 8 kHz that are cut to 0.2 to 0.6
    seconds with nothing around them; with the energy gate all, all and 92.

    Args:
        probabilities: `(frames,)` of the window, as a gate gives them.
    """
    sure = int((probabilities >= SURE).sum())
    doubted = int((probabilities >= DOUBTFUL).sum()) - sure
    enough = ENOUGH_SECONDS * SAMPLE_RATE / FRAME
    least = MIN_SPEECH_SECONDS * SAMPLE_RATE / FRAME
    return sure >= min(enough, max(least, doubted / 2))


# --- silero ---------------------------------------------------------------------------------------


class SileroGate(Gate):
    """The neural detector of silero-vad (6.2), on its weights, all frames of a block at once.

    The package's own program takes a frame at a time, twenty times as long for the same
    probabilities (within 2e-5, most of which is the package's own rounding).

    Raises:
        MissingDependencyError: silero-vad or its file of weights is not there.
        DecodeError: the file is damaged, or holds something else than the network of 6.2.

    Reference:
        Silero Team, silero-vad, https://github.com/snakers4/silero-vad.
    """

    _context = CONTEXT

    def __init__(self) -> None:
        super().__init__()
        self._network = load_silero()
        self._state: tuple[Tensor, Tensor] | None = None

    def _judge(self, samples: Tensor) -> Tensor:
        probabilities, self._state = self._network(samples, self._state)
        return probabilities


# --- energy ---------------------------------------------------------------------------------------

EDGES = (200, 500, 1000, 2000, 4000)  # Hz, of the bands that speech moves in
PAST = 32  # frames, a second: a syllable and the pause before it
FLOOR_DB = -70.0  # full scale is 0; what is below counts as silence
QUIET_DB = -60.0  # no speech below this
DECAY_DB = 25.0  # nor this far below the loudest frame of the past second
STEADY_DB, MOVING_DB = 5.0, 12.0


class EnergyGate(Gate):
    """How much the level moves: speech rises and falls within a second, steady sounds do not.

    Four bands from 200 to 4000 Hz are measured over two frames; what counts is the range that
    their levels had in the past second, averaged over the bands: 5 dB or less, as in silence,
    noise of any colour and level and hum, is probability 0, and 12 dB or more, as in speech, is 1.
    Frames below -60 dB of full scale, or 25 dB below the loudest of the past second, are 0.

    Loudness alone cannot tell speech from anything else that moves: music, barking, clicks,
    typing and waves pass, and so does the first second of a noise that is switched on. Speech
    in steady noise passes as far as it stands out by some 9 dB.
    """

    _context = FRAME

    def __init__(self) -> None:
        super().__init__()
        self._past = torch.zeros(0, len(EDGES))  # levels of the past second: the bands, their sum
        self._unheard = 1  # the first frame has no frame before it to be measured with
        self._window = torch.hann_window(2 * FRAME)
        frequencies = torch.fft.rfftfreq(2 * FRAME, 1 / SAMPLE_RATE)[:, None]
        edges = torch.tensor(EDGES)
        bank = ((frequencies >= edges[:-1]) & (frequencies < edges[1:])).float()
        # So that the sum over the bins is the mean square of the samples.
        self._bank = bank / (FRAME * self._window.square().sum())

    def _judge(self, samples: Tensor) -> Tensor:
        frames = samples.unfold(0, 2 * FRAME, FRAME) * self._window
        power = torch.fft.rfft(frames).abs().square() @ self._bank
        power = torch.cat([power, power.sum(dim=1, keepdim=True)], dim=1)
        levels = 10.0 * torch.log10(power + 10.0 ** (FLOOR_DB / 10.0))
        unheard, self._unheard = self._unheard, 0
        return functional.pad(self._movement(levels[unheard:]), (unheard, 0))

    def _movement(self, levels: Tensor) -> Tensor:
        """Probabilities from the levels `(frames, bands and their sum)` and those before them."""
        if not len(levels):
            return levels.new_zeros(0)
        if not len(self._past):
            self._past = levels[:1].expand(PAST - 1, -1)
        past = torch.cat([self._past, levels])
        self._past = past[len(levels) :].clone()
        seconds = past.unfold(0, PAST, 1)  # (frames, bands and their sum, PAST)
        loudest = seconds.amax(dim=2)
        span = (loudest - seconds.amin(dim=2))[:, :-1].mean(dim=1)
        moving = ((span - STEADY_DB) / (MOVING_DB - STEADY_DB)).clamp(0.0, 1.0)
        total = levels[:, -1]
        audible = (total >= QUIET_DB) & (total >= loudest[:, -1] - DECAY_DB)
        return torch.where(audible, moving, 0.0)
