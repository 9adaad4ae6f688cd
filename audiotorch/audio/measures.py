"""What `quality.py` measures, accumulated from consecutive pieces of a recording."""

import numpy as np
import numpy.typing as npt
import torch

from audiotorch.audio.cliff import spectrum_size
from audiotorch.audio.io import LOUDEST
from audiotorch.audio.runs import FlatTops, find_dropouts, find_flat_tops, find_runs

__all__ = ["PIECE_FRAMES", "Measures"]

Samples = npt.NDArray[np.float32]

PIECE_FRAMES = 64  # frames of 32 ms in a piece
_SEGMENT_FRAMES = 8  # frames that share a clipping level
_BEND_FRAMES = 16  # frames of a piece whose second differences are looked at: a fair sample
_N_TIMES = 5  # how many places of a fault are told
_LEVELS = np.arange(-140.0, 20.0, 0.25)  # dB, lower edges of the classes of frame levels
_NEAR_FULL = 0.9  # what lies from here to the clipping level, a smooth wave passes through
_STEP = 1 / 32768


class Measures:
    """Sums and counts over a recording.

    Args:
        sample_rate: Hz.
        n_channels: number of channels.
        clip_level: magnitude from which on a sample counts as clipped.
        silence_db: level in dBFS below which a frame counts as silent.
    """

    def __init__(
        self, sample_rate: int, n_channels: int, clip_level: float, silence_db: float
    ) -> None:
        self.sample_rate = sample_rate
        self.clip_level = clip_level
        self.silent_power = 10 ** (silence_db / 10)
        self.frame = spectrum_size(sample_rate)
        self.window = np.hanning(self.frame + 1)[:-1].astype(np.float32)
        self.n_frames = 0
        self.n_finite = np.zeros(n_channels, np.int64)
        self.sums = np.zeros(n_channels)
        self.products = np.zeros((n_channels, n_channels))
        self.peak = 0.0
        self.n_clipped = self.n_clipped_pairs = self.n_near_full = self.n_non_finite = 0
        self.n_flat_tops = self.longest_flat_top = self.n_dropouts = 0
        self.first_non_finite = self.first_flat_top = self.first_clipped = -1
        self.dropouts: list[int] = []
        self.levels = np.zeros(len(_LEVELS), np.int64)
        self.n_levels = self.n_silent = self.n_digital_silence = 0
        self.n_spectra = 0
        self.spectrum = np.zeros(self.frame // 2 + 1)
        self.n_steep, self.n_straight = [0, 0], [0, 0]

    def add(self, piece: Samples, before: Samples, after: Samples) -> None:
        """Take in the next piece `(channel, time)`, with what lies around it.

        Args:
            piece: `PIECE_FRAMES` frames; only the last may be shorter.
            before: the samples ahead of it, as far as they are needed for runs.
            after: those that follow.
        """
        around = np.concatenate([before, piece, after], axis=1)
        finite = np.abs(around) <= LOUDEST
        if not finite.all():
            around = np.where(finite, around, np.float32(np.nan))
        finite = finite[:, before.shape[1] : before.shape[1] + piece.shape[1]]
        n_bad = piece.size - int(finite.sum())
        if n_bad:
            if self.n_non_finite == 0:
                self.first_non_finite = self.n_frames + int(np.argmin(finite.all(axis=0)))
            self.n_non_finite += n_bad
            piece = np.where(finite, piece, np.float32(0))
        self.n_finite += finite.sum(axis=1)
        self._add_samples(piece)
        self._add_runs(around, before.shape[1], before.shape[1] + piece.shape[1])
        self._add_frames(piece)
        self.n_frames += piece.shape[1]

    def _add_samples(self, piece: Samples) -> None:
        wide = piece.astype(np.float64)
        self.sums += wide.sum(axis=1)
        self.products += wide @ wide.T
        magnitude = np.abs(piece)
        highest = float(magnitude.max(initial=0))
        self.peak = max(self.peak, highest)
        if highest >= self.clip_level * _NEAR_FULL:
            clipped = magnitude >= self.clip_level
            n_clipped = int(clipped.sum())
            if n_clipped and self.n_clipped == 0:
                self.first_clipped = self.n_frames + int(np.argmax(clipped.any(axis=0)))
            self.n_clipped += n_clipped
            self.n_clipped_pairs += int((clipped[:, 1:] & clipped[:, :-1]).sum())
            near = magnitude >= self.clip_level * _NEAR_FULL
            self.n_near_full += int(near.sum()) - n_clipped

    def _add_runs(self, around: Samples, first: int, last: int) -> None:
        holes: set[int] = set()
        for samples in around:
            runs = find_runs(samples)
            if len(runs.starts) == 0:
                continue
            tops = find_flat_tops(samples, runs, first, last, _SEGMENT_FRAMES * self.frame)
            self._add_flat_tops(tops, self.n_frames - first)
            holes.update(find_dropouts(samples, runs, first, last, self.sample_rate))
        self.n_dropouts += len(holes)
        places = [self.n_frames + hole - first for hole in sorted(holes)]
        self.dropouts = (self.dropouts + places)[:_N_TIMES]
        self._add_bends(around[:, first : min(last, first + _BEND_FRAMES * self.frame)])

    def _add_flat_tops(self, tops: FlatTops, offset: int) -> None:
        self.n_flat_tops += tops.count
        self.longest_flat_top = max(self.longest_flat_top, tops.longest)
        if tops.count:
            at = tops.first + offset
            self.first_flat_top = at if self.first_flat_top < 0 else min(self.first_flat_top, at)

    def _add_bends(self, samples: Samples) -> None:
        """Count, on slopes, where three samples lie on a line; even and odd places apart.

        Linear interpolation to twice the rate, or four times, puts every odd sample on a line.
        """
        left, middle, right = samples[:, :-2], samples[:, 1:-1], samples[:, 2:]
        # Not at zero, which a tone of a few samples' period passes on a straight line.
        steep = (np.abs(right - left) >= 32 * _STEP) & (np.abs(middle) >= 32 * _STEP)
        straight = steep & (np.abs(left + right - 2 * middle) < 2.5 * _STEP)
        for parity in (0, 1):
            self.n_steep[parity] += int(steep[:, parity::2].sum())
            self.n_straight[parity] += int(straight[:, parity::2].sum())

    def _add_frames(self, piece: Samples) -> None:
        whole = piece.shape[1] // self.frame * self.frame
        frames = piece[:, :whole].reshape(len(piece), -1, self.frame)
        powers = (
            np.einsum("cfn,cfn->cf", frames, frames).mean(axis=0, dtype=np.float64) / self.frame
        )
        rest = piece[:, whole:]
        # A rest counts if it is a fair part of a frame, or all there is.
        if rest.shape[1] >= self.frame // 4 or (rest.size and self.n_levels + len(powers) == 0):
            powers = np.append(powers, np.square(rest).mean(dtype=np.float64))
        self.n_levels += len(powers)
        self.n_silent += int((powers < self.silent_power).sum())
        self.n_digital_silence += int((powers == 0).sum())
        sounding = 10 * np.log10(powers[powers > 0])
        classes = np.clip(np.searchsorted(_LEVELS, sounding, "right") - 1, 0, None)
        self.levels += np.bincount(classes, minlength=len(_LEVELS))
        if whole:
            spectra = torch.fft.rfft(torch.from_numpy(frames * self.window)).numpy()
            parts = spectra.view(np.float32)  # real and imaginary in turns
            power = np.einsum("cfn,cfn->n", parts, parts).astype(np.float64)
            self.spectrum += power.reshape(-1, 2).sum(axis=1) / self.frame**2
            self.n_spectra += frames.shape[0] * frames.shape[1]

    def level_below(self, share: float) -> float:
        """Return the level in dB below which this share of the frames that are not zero lies."""
        counts = np.cumsum(self.levels)
        return float(_LEVELS[np.searchsorted(counts, share * counts[-1])] + 0.125)
