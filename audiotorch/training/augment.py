"""Augmentation of training batches: waveforms first, then what the features make of them.

Every clip draws its own numbers, reads only valid parts (its own, and mixup's partner's) and never
depends on how far it was padded. Random numbers are drawn on the CPU and moved to the batch's
device: a CPU and a CUDA run draw the same ones, and the device is never waited for.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch
import torchaudio
from torch import Tensor, nn

from audiotorch.audio.frames import length_mask
from audiotorch.errors import ParameterError
from audiotorch.training.mixup import blend, draw_pairs
from audiotorch.training.noise import NoiseSource
from audiotorch.training.settings import check_count, check_fractions, check_interval, check_number
from audiotorch.training.warp import anchor_frames, end_frames, formant_rows, interpolate_axis

__all__ = ["Augment"]


class Augment(nn.Module):
    """Random changes to a training batch that leave its labels true; all of them off by default.

    `waveform` applies, in this order, speed, time shift, noise and gain; then `image` the formant
    warp, the mel shift, the time warp, the shift of the ends and the masks of SpecAugment; last
    `mix` applies mixup. In evaluation mode all return their input. Lists from a YAML file serve as
    tuples. There is no `forward`: the first stands before the feature extraction, the others
    behind it.

    What is mixed is the model's inputs: of waveforms the louder would outweigh its share. Behind
    the shorter image of a pair lie zeros, the mean of an image normalised by clip or band.

    Args:
        sample_rate: rate of the waveforms, in Hz.
        gain_db: largest change of level, in dB; drawn uniformly from -gain_db to gain_db.
        noise_snr_db: lowest and highest signal-to-noise ratio, in dB, or None for no noise. The
            ratio is that of mean powers over the clip's valid samples; silent clips stay silent.
        noise_probability: probability that a clip receives noise, 0 to 1.
        noise_root: folder of background recordings (searched recursively, kept in memory) that are
            mixed in from a random place, repeated where too short. None: coloured noise instead, a
            mix of white and pink in shares drawn for each clip.
        time_shift: largest shift, in seconds, in either direction.
        circular: rotate within the valid samples, so that no event is lost: right for environmental
            sounds, which have no fixed beginning. False fills with zeros, and what moves out is
            lost: right for words with silence around them.
        speed: playing-speed factors, 0.25 to 4, one drawn for each clip; a factor listed twice is
            drawn twice as often. Tempo and pitch rise together. Factors are rounded to a fraction
            with a denominator up to 100, for a short resampling filter.
        mixup: parameter alpha of the Beta(alpha, alpha) distribution of mixing weights; 0 is off.
        mixup_probability: probability that a clip is mixed with another of its batch, 0 to 1.
        formant: largest relative change of vocal-tract length, 0 to 0.5: frequencies are scaled by
            a factor drawn from 1 - formant to 1 + formant, with the image's top edge kept.
        mel_shift: largest shift of the whole image along the mel axis, in bins; the edge row is
            repeated.
        time_warp: largest displacement of a random anchor, as share of the valid frames, below 0.5.
        end_shift: largest displacement of a clip's beginning and of its end, each on its own, as
            share of the valid frames, below 0.5: where a word was cut out differs from microphone
            to microphone. What moves in repeats the edge frame.
        n_freq_masks: number of masks along the mel axis.
        freq_mask: largest width of such a mask, in mel bins.
        n_time_masks: number of masks along the time axis.
        time_mask: largest width of such a mask, as share of the clip's valid frames, 0 to 1.
        fmin: lowest edge of the image's mel axis, in Hz; only the formant warp reads it.
        fmax: highest edge of the mel axis, in Hz; None is half the sample rate.
        htk: whether the mel axis follows HTK's scale instead of Slaney's.

    Raises:
        ParameterError: if a setting lies outside its range or `noise_root` holds no recordings.

    Reference:
        Jaitly & Hinton (2013), Vocal tract length perturbation; Park et al. (2019), SpecAugment
        (masks here take the clip's mean); Zhang et al. (2018), mixup; Ko et al. (2015), speed
        perturbation.

    Example:
        >>> augment = Augment(16000, gain_db=6.0, speed=(0.9, 1.0, 1.1))
        >>> generator = Augment.generator(seed=42, epoch=0, step=0)
        >>> clips = torch.randn(2, 900)
        >>> waveform, lengths = augment.waveform(clips, torch.tensor([900, 450]), generator)
        >>> waveform.shape[0], bool((lengths <= 1000).all())
        (2, True)
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        *,
        gain_db: float = 0.0,
        noise_snr_db: Sequence[float] | None = None,
        noise_probability: float = 0.5,
        noise_root: str | Path | None = None,
        time_shift: float = 0.0,
        circular: bool = True,
        speed: Sequence[float] = (1.0,),
        mixup: float = 0.0,
        mixup_probability: float = 1.0,
        formant: float = 0.0,
        mel_shift: int = 0,
        time_warp: float = 0.0,
        end_shift: float = 0.0,
        n_freq_masks: int = 0,
        freq_mask: int = 0,
        n_time_masks: int = 0,
        time_mask: float = 0.0,
        fmin: float = 0.0,
        fmax: float | None = None,
        htk: bool = False,
    ) -> None:
        super().__init__()
        self.sample_rate = check_count("sample_rate", sample_rate, 1, 10_000_000)
        self.gain_db = check_number("gain_db", gain_db, 0, 120)
        self.noise_snr_db = check_interval("noise_snr_db", noise_snr_db, -100, 100)
        self.noise_probability = check_number("noise_probability", noise_probability, 0, 1)
        self.time_shift = check_number("time_shift", time_shift, 0, 3600)
        self.circular = circular
        self.speed = check_fractions("speed", speed, 0.25, 4)
        self.mixup = check_number("mixup", mixup, 0, 100)
        self.mixup_probability = check_number("mixup_probability", mixup_probability, 0, 1)
        self.formant = check_number("formant", formant, 0, 0.5)
        self.mel_shift = check_count("mel_shift", mel_shift, 0, 10_000)
        self.time_warp = check_number("time_warp", time_warp, 0, 0.49)
        self.end_shift = check_number("end_shift", end_shift, 0, 0.49)
        self.n_freq_masks = check_count("n_freq_masks", n_freq_masks, 0, 100)
        self.freq_mask = check_count("freq_mask", freq_mask, 0, 10_000)
        self.n_time_masks = check_count("n_time_masks", n_time_masks, 0, 100)
        self.time_mask = check_number("time_mask", time_mask, 0, 1)
        nyquist = self.sample_rate / 2
        self.fmax = nyquist if fmax is None else check_number("fmax", fmax, 1, nyquist)
        self.fmin = check_number("fmin", fmin, 0, self.fmax - 1)
        self.htk = htk
        self.resample = nn.ModuleList(_resample(factor) for factor in self.speed)
        if self.noise_snr_db is not None:
            self.noise = NoiseSource(self.sample_rate, noise_root)

    @staticmethod
    def generator(seed: int, epoch: int, step: int) -> torch.Generator:
        """Return the generator of one step, a function of the three numbers alone.

        Nothing has to be stored to resume a run: the same step draws the same numbers.

        Args:
            seed: the run's seed; distributed runs add their rank.
            epoch: number of the epoch.
            step: number of the batch.
        """
        digest = hashlib.blake2b(f"{seed}/{epoch}/{step}".encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)

    def waveform(
        self, waveform: Tensor, lengths: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Change the clips of a batch; what lies beyond a clip's length is zero afterwards.

        Args:
            waveform: the clips, zero-padded.
            lengths: valid samples of each clip.
            generator: a CPU generator, see `generator`.

        Shape:
            - waveform: `(batch, time)`; the output's `time` differs when speed changes it
            - lengths: `(batch,)`

        Raises:
            ParameterError: if the shapes do not fit one another or the values are not floating.
        """
        _check_clips(waveform, lengths)
        if not self.training:
            return waveform, lengths
        # Row by row: speed, shift, noise yes or no, its ratio, kind and places, gain.
        draws = torch.rand(8, waveform.shape[0], generator=generator, dtype=torch.float64)
        waveform = _zero_beyond(waveform, lengths)
        if any(factor != 1 for factor in self.speed):
            waveform, lengths = self._change_speed(waveform, lengths, draws[0])
        if self.time_shift > 0:
            waveform = self._shift(waveform, lengths, draws[1])
        if self.noise_snr_db is not None:
            waveform = self._add_noise(waveform, lengths, draws[2:7])
        if self.gain_db > 0:
            factor = 10 ** ((2 * draws[7] - 1) * self.gain_db / 20)
            waveform = waveform * _move(factor, waveform)[:, None]
        return waveform, lengths

    def image(self, image: Tensor, frame_counts: Tensor, generator: torch.Generator) -> Tensor:
        """Change the images of a batch; frames beyond an image's count are zero afterwards.

        Args:
            image: log-mel images; more channels (deltas) are warped and masked alike.
            frame_counts: valid frames of each image.
            generator: a CPU generator, see `generator`.

        Shape:
            - image: `(batch, channel, mel, frames)`, also the output's
            - frame_counts: `(batch,)`

        Raises:
            ParameterError: if the shapes do not fit one another.
        """
        if image.ndim != 4 or frame_counts.shape != image.shape[:1]:
            raise ParameterError(
                f"image={tuple(image.shape)}, frame_counts={tuple(frame_counts.shape)}: must be "
                "(batch, channel, mel, frames) and (batch,); add or drop axes"
            )
        if not self.training:
            return image
        n_draws = 6 + 2 * (self.n_freq_masks + self.n_time_masks)
        draws = torch.rand(n_draws, image.shape[0], generator=generator, dtype=torch.float64)
        image = _zero_beyond(image, frame_counts)
        if self.formant > 0 or self.mel_shift > 0:
            image = self._warp_mel(image, draws[:2])
        if self.time_warp > 0 or self.end_shift > 0:
            image = self._warp_time(image, frame_counts, draws[2:6])
        if self.n_freq_masks + self.n_time_masks > 0:
            image = self._mask(image, frame_counts, draws[6:])
        return image

    def mix(
        self, x: Tensor, frame_counts: Tensor, target: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mix the model's inputs and their targets, each with one of another clip of the batch.

        Args:
            x: images or vectors; frames beyond an image's count are zero afterwards.
            frame_counts: valid frames of each clip; a mixed clip has those of the longer one.
            target: probability of each class, mixed by the weights of the inputs.
            generator: a CPU generator, see `generator`.

        Shape:
            - x: `(batch, channel, mel, frames)` or `(batch, n_features)`, also the output's
            - frame_counts: `(batch,)`
            - target: `(batch, n_classes)`

        Raises:
            ParameterError: if mixup is on and shapes do not fit or values are not floating.
        """
        if not self.training or self.mixup == 0:
            return x, frame_counts, target
        _check_inputs(x, frame_counts, target)
        partner, weight = draw_pairs(x.shape[0], self.mixup, self.mixup_probability, generator)
        partner, share = partner.to(x.device, non_blocking=True), _move(weight, x)
        longer = torch.maximum(frame_counts, frame_counts[partner])
        counts = torch.where(share == 1, frame_counts, longer)
        x = _zero_beyond(x, frame_counts) if x.ndim == 4 else x
        return blend(x, partner, share), counts, blend(target, partner, share)

    def _change_speed(
        self, waveform: Tensor, lengths: Tensor, draw: Tensor
    ) -> tuple[Tensor, Tensor]:
        choice = (draw * len(self.speed)).long().clamp(max=len(self.speed) - 1)
        used = sorted(set(choice.tolist()))
        width = max(_stretched(waveform.shape[1], self.speed[k]) for k in used)
        out = waveform.new_zeros(waveform.shape[0], width)
        for k in used:
            # `choice` lies on the CPU: finding the rows does not wait for the device.
            rows = (choice == k).nonzero()[:, 0].to(waveform.device, non_blocking=True)
            part = self.resample[k](waveform.index_select(0, rows))
            out = out.index_copy(0, rows, nn.functional.pad(part, (0, width - part.shape[1])))
            changed = -(-lengths * self.speed[k].denominator // self.speed[k].numerator)
            lengths = lengths.index_copy(0, rows, changed.index_select(0, rows))
        return _zero_beyond(out, lengths), lengths

    def _shift(self, waveform: Tensor, lengths: Tensor, draw: Tensor) -> Tensor:
        shift = ((2 * draw - 1) * self.time_shift * self.sample_rate).round().long()
        shift = shift.to(waveform.device, non_blocking=True)[:, None]
        position = torch.arange(waveform.shape[1], device=waveform.device) - shift
        end = lengths[:, None]
        if self.circular:
            shifted = waveform.gather(1, position.remainder(end.clamp(min=1)))
        else:
            shifted = waveform.gather(1, position.clamp(0, max(waveform.shape[1] - 1, 0)))
            shifted = shifted.where((position >= 0) & (position < end), 0)
        return _zero_beyond(shifted, lengths)

    def _add_noise(self, waveform: Tensor, lengths: Tensor, draws: Tensor) -> Tensor:
        assert self.noise_snr_db is not None
        chosen, ratio = draws[:2]
        noise = _zero_beyond(self.noise(draws[2:], waveform), lengths)
        low, high = self.noise_snr_db
        wanted = _move(10 ** (-(low + (high - low) * ratio) / 10), waveform)
        # Both sums run over the clip's valid samples, so their ratio is that of mean powers.
        # Detached, since the root has no finite gradient at a silent clip.
        energy = noise.square().sum(1).clamp(min=torch.finfo(noise.dtype).tiny)
        scale = (waveform.detach().square().sum(1) * wanted / energy).sqrt()
        scale = scale.where(_move(chosen, waveform) < self.noise_probability, 0)
        return waveform + scale[:, None] * noise

    def _warp_mel(self, image: Tensor, draws: Tensor) -> Tensor:
        # Every whole number from -mel_shift to mel_shift is as likely.
        bins = ((2 * self.mel_shift + 1) * draws[1]).floor() - self.mel_shift
        rows = torch.arange(image.shape[2], dtype=draws.dtype)
        if self.formant > 0:
            factor = 1 + (2 * draws[0] - 1) * self.formant
            rows = formant_rows(factor, image.shape[2], self.fmin, self.fmax, htk=self.htk)
        return interpolate_axis(image, _move(rows + bins[:, None], image), 2)

    def _warp_time(self, image: Tensor, frame_counts: Tensor, draws: Tensor) -> Tensor:
        source = self.time_warp + (1 - 2 * self.time_warp) * draws[0]
        # The anchor may approach the ends but never reach them.
        target = (source + (2 * draws[1] - 1) * self.time_warp).clamp(0.01, 0.99)
        start, change = (2 * draws[2:] - 1) * self.end_shift
        source, target, start, end = _move(torch.stack((source, target, start, 1 + change)), image)
        if self.time_warp > 0:
            read = anchor_frames(source, target, frame_counts, image.shape[3])
            image = interpolate_axis(image, read, 3)
        if self.end_shift > 0:
            read = end_frames(start, end, frame_counts, image.shape[3])
            image = interpolate_axis(image, read, 3)
        return _zero_beyond(image, frame_counts)

    def _mask(self, image: Tensor, frame_counts: Tensor, draws: Tensor) -> Tensor:
        _, _, n_mels, n_frames = image.shape
        mean = image.sum((2, 3)) / (frame_counts[:, None] * n_mels).clamp(min=1)
        drawn = _move(draws, image)
        counts = frame_counts.to(drawn.dtype)
        n_freq = 2 * self.n_freq_masks
        widest = torch.full_like(counts, min(self.freq_mask, n_mels))
        rows = _spans(drawn[:n_freq], widest, torch.full_like(counts, n_mels), n_mels)
        frames = _spans(drawn[n_freq:], (self.time_mask * counts).floor(), counts, n_frames)
        masked = rows[:, None, :, None] | frames[:, None, None, :]
        return _zero_beyond(torch.where(masked, mean[:, :, None, None], image), frame_counts)


def _spans(draws: Tensor, widest: Tensor, size: Tensor, n: int) -> Tensor:
    """Union of spans within 0 to size, their widths and starts drawn: bool `(batch, n)`."""
    width_draw, start_draw = draws.unflatten(0, (2, -1))
    width = (width_draw * (widest + 1)).floor().minimum(widest)
    start = (start_draw * (size - width + 1)).floor().minimum(size - width)
    position = torch.arange(n, device=draws.device)
    start, width = start[:, :, None], width[:, :, None]
    return ((position >= start) & (position < start + width)).any(0)


def _move(draws: Tensor, like: Tensor) -> Tensor:
    dtype = like.dtype if like.dtype == torch.float64 else torch.float32
    return draws.to(dtype).to(like.device, non_blocking=True)


def _zero_beyond(x: Tensor, lengths: Tensor) -> Tensor:
    valid = length_mask(lengths, x.shape[-1])
    return x.where(valid.view(valid.shape[0], *[1] * (x.ndim - 2), -1), 0)


def _stretched(length: int, factor: Fraction) -> int:
    return -(-length * factor.denominator // factor.numerator)


def _resample(factor: Fraction) -> nn.Module:
    """Resample so that the result, played at the old rate, is `factor` times as fast.

    As `torchaudio.transforms.Speed`, but on the reduced fraction: Speed truncates `factor * rate`
    to whole Hz, so that at 22050 Hz a factor of 0.95 would need a filter of gigabytes.
    """
    if factor == 1:
        return nn.Identity()
    resample = torchaudio.transforms.Resample(factor.numerator, factor.denominator)
    # Not persistent: a checkpoint must load whatever the augmentation of the next run is.
    resample.register_buffer("kernel", resample.kernel, persistent=False)
    return resample


def _check_clips(waveform: Tensor, lengths: Tensor) -> None:
    if waveform.ndim != 2 or lengths.shape != waveform.shape[:1]:
        raise ParameterError(
            f"waveform={tuple(waveform.shape)}, lengths={tuple(lengths.shape)}: must be "
            "(batch, time) and (batch,); give one row for each clip"
        )
    if not waveform.is_floating_point():
        raise ParameterError(f"waveform={waveform.dtype}: must be floating; use waveform.float()")


def _check_inputs(x: Tensor, frame_counts: Tensor, target: Tensor) -> None:
    rows_fit = x.shape[:1] == frame_counts.shape == target.shape[:1]
    if x.ndim not in (2, 4) or target.ndim != 2 or not rows_fit:
        raise ParameterError(
            f"x={tuple(x.shape)}, frame_counts={tuple(frame_counts.shape)}, "
            f"target={tuple(target.shape)}: must be (batch, channel, mel, frames) or "
            "(batch, n_features), (batch,) and (batch, n_classes); give one row for each clip"
        )
    if not x.is_floating_point() or not target.is_floating_point():
        raise ParameterError(
            f"x={x.dtype}, target={target.dtype}: must be floating; use one_hot(target).float()"
        )
