"""How fast and how near to librosa other packages are, those of them that are installed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor, nn

import audiotorch as at
from audiotorch.bench.references import REFERENCES, Sound
from audiotorch.bench.speed import Batch, Deviation, Timing, alternate, batches_of, spread
from audiotorch.bench.threads import threads
from audiotorch.bench.works import SAMPLE_RATE

__all__ = ["PEERS", "Peer", "PeerRow", "run_peers"]

Array = npt.NDArray[Any]

# Some take a second for a clip.
_MAX_CLIPS = 40
_REPEATS = 5


@dataclass(frozen=True)
class Peer:
    """The same quantity by another package.

    Attributes:
        package: what is imported.
        title: what is done, in words.
        quantity: what both give; none if their numbers are others.
        ours: gives audiotorch's module.
        theirs: gives what does it for `(batch, time)`, or, without a quantity, for one clip.
        whole: for all clips in one batch.
    """

    package: str
    title: str
    quantity: str
    ours: Callable[[], nn.Module]
    theirs: Callable[[], Callable[[Any], Any]]
    whole: bool = False


class PeerRow(NamedTuple):
    """A peer that was timed.

    Attributes:
        package: the peer.
        title: what was done.
        timing: how long it took.
        ours: audiotorch's deviation from librosa, in words.
        theirs: the peer's.
    """

    package: str
    title: str
    timing: Timing
    ours: str
    theirs: str


def run_peers(
    clips: Sequence[Array],
    peers: Sequence[Peer],
    n_threads: int = 1,
    advance: Callable[[int], None] | None = None,
) -> list[PeerRow]:
    """Time audiotorch against packages that are installed.

    Args:
        clips: each `(time,)`, equally long, at 22,050 Hz.
        peers: of `PEERS`.
        n_threads: threads of either side.
        advance: is told when another is done.
    """
    rows = []
    for peer in peers:
        if find_spec(peer.package) is not None:
            with threads(n_threads):
                rows.append(_row(peer, clips, n_threads))
        if advance is not None:
            advance(1)
    return rows


def _row(peer: Peer, clips: Sequence[Array], n_threads: int) -> PeerRow:
    ours, theirs = _on_batches(peer.ours().eval()), peer.theirs()
    if peer.quantity:
        theirs = _on_batches(theirs)
    else:
        theirs = spread(theirs, n_threads)
    # The whole batch again and again, or a part of it each round.
    several = batches_of(clips[:_MAX_CLIPS])
    batches = [_joined(clips)] * _REPEATS if peer.whole else several
    deviations = Deviation(), Deviation()

    def look(batch: Batch, *answers: Any) -> None:
        if peer.quantity and batch is batches[-1] and not deviations[0].measured:
            for place, clip in enumerate(batch.clips[: len(several[0].clips)]):
                expected = {peer.quantity: REFERENCES[peer.quantity](Sound(clip, SAMPLE_RATE))}
                for deviation, answer in zip(deviations, answers, strict=True):
                    own = {peer.quantity: answer[place].numpy()}
                    deviation.add(own, expected, clip)

    timing = alternate(ours, theirs, batches, look)
    told = [each.told() if each.measured else "other numbers" for each in deviations]
    return PeerRow(peer.package, peer.title, timing, *told)


def _joined(clips: Sequence[Array]) -> Batch:
    return Batch(clips, torch.stack([torch.from_numpy(clip) for clip in clips]))


def _on_batches(module: Callable[[Tensor], Any]) -> Callable[[Batch], Any]:
    def run(batch: Batch) -> Any:
        with torch.no_grad():
            return module(batch.waveform)

    return run


_STFT: dict[str, Any] = {"n_fft": 2048, "hop_length": 512, "pad_mode": "constant"}


def _torchaudio_mel() -> nn.Module:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(SAMPLE_RATE, n_mels=128, mel_scale="slaney", norm="slaney", **_STFT)


def _torchaudio_mfcc() -> nn.Module:
    from torchaudio.transforms import MFCC

    mel = {"n_mels": 128, "mel_scale": "slaney", "norm": "slaney", **_STFT}
    return MFCC(SAMPLE_RATE, n_mfcc=13, melkwargs=mel)


def _torchaudio_spectrogram() -> nn.Module:
    from torchaudio.transforms import Spectrogram

    return Spectrogram(**_STFT)


def _nnaudio_spectrogram() -> Callable[[Tensor], Tensor]:
    from nnAudio.features import STFT

    stft = STFT(sr=SAMPLE_RATE, output_format="Magnitude", verbose=False, **_STFT)
    return lambda waveform: stft(waveform) ** 2


def _nnaudio_mel() -> nn.Module:
    from nnAudio.features import MelSpectrogram

    return MelSpectrogram(SAMPLE_RATE, n_mels=128, verbose=False, **_STFT)


def _nnaudio_mfcc() -> nn.Module:
    from nnAudio.features import MFCC

    return MFCC(SAMPLE_RATE, n_mfcc=13, verbose=False, n_mels=128, **_STFT)


def _nnaudio_cqt() -> nn.Module:
    from nnAudio.features import CQT1992v2

    settings: dict[str, Any] = {"n_bins": 84, "pad_mode": "constant", "verbose": False}
    return CQT1992v2(SAMPLE_RATE, 512, **settings)


def _torchlibrosa_spectrogram() -> Callable[[Tensor], Tensor]:
    from torchlibrosa.stft import Spectrogram

    spectrogram = Spectrogram(**_STFT)
    return lambda waveform: spectrogram(waveform)[:, 0].transpose(1, 2)


def _torchlibrosa_mel() -> Callable[[Tensor], Tensor]:
    from torchlibrosa.stft import LogmelFilterBank, Spectrogram

    spectrogram = Spectrogram(**_STFT)
    bank = LogmelFilterBank(SAMPLE_RATE, 2048, 128, fmin=0.0, fmax=None, is_log=False)
    return lambda waveform: bank(spectrogram(waveform))[:, 0].transpose(1, 2)


def _opensmile() -> Callable[[Array], Any]:
    import opensmile

    smile = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    )
    return lambda clip: smile.process_signal(clip, SAMPLE_RATE)


def _mel() -> nn.Module:
    return at.features.MelSpectrogram(SAMPLE_RATE)


def _mfcc() -> nn.Module:
    return at.features.MFCC(SAMPLE_RATE, n_mfcc=13)


def _spectrogram() -> nn.Module:
    return at.features.Spectrogram(SAMPLE_RATE)


PEERS = (
    Peer("torchaudio", "mel, whole batch", "mel_spectrogram", _mel, _torchaudio_mel, whole=True),
    Peer("torchaudio", "mel", "mel_spectrogram", _mel, _torchaudio_mel),
    Peer("torchaudio", "13 MFCC", "mfcc", _mfcc, _torchaudio_mfcc),
    Peer("torchaudio", "spectrogram", "spectrogram", _spectrogram, _torchaudio_spectrogram),
    Peer("nnAudio", "mel", "mel_spectrogram", _mel, _nnaudio_mel),
    Peer("nnAudio", "13 MFCC", "mfcc", _mfcc, _nnaudio_mfcc),
    Peer("nnAudio", "spectrogram", "spectrogram", _spectrogram, _nnaudio_spectrogram),
    Peer("nnAudio", "CQT", "cqt", lambda: at.features.CQT(SAMPLE_RATE), _nnaudio_cqt),
    Peer("torchlibrosa", "mel", "mel_spectrogram", _mel, _torchlibrosa_mel),
    Peer("torchlibrosa", "spectrogram", "spectrogram", _spectrogram, _torchlibrosa_spectrogram),
    Peer(
        "opensmile",
        "eGeMAPS, 88 numbers, beside `SummaryVector`",
        "",
        lambda: at.SummaryVector(SAMPLE_RATE),
        _opensmile,
    ),
)
"""Each package's way to a quantity, set to be as librosa as it can be."""
