"""The real recordings that are measured on."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from audiotorch.audio import AUDIO_SUFFIXES, load
from audiotorch.audio.demuxer import SUFFIXES
from audiotorch.errors import DecodeError, ParameterError

__all__ = ["CORPORA", "Clip", "Corpus", "data_root", "find_clips", "five_seconds"]

Array = npt.NDArray[np.floating]

_SPEED_RATE = 22050


@dataclass(frozen=True)
class Corpus:
    """A folder of recordings.

    Attributes:
        name: the folder's.
        listing: a table in it whose column `file` names the recordings; without it, or where it is
            missing, the folder is searched.
        count: so many of them are taken, evenly spread; 0 = all.
        suffixes: only files that end so.
        first_channel: take the first channel; otherwise channels are averaged.
    """

    name: str
    listing: str = ""
    count: int = 0
    # librosa reads no others.
    suffixes: tuple[str, ...] = tuple(suffix for suffix in AUDIO_SUFFIXES if suffix not in SUFFIXES)
    first_channel: bool = False


CORPORA = (
    Corpus("esc10", "labels.csv"),
    Corpus("music_examples", "files.csv"),
    Corpus("music_beats"),
    Corpus("speech", "transcripts.csv", suffixes=(".wav", ".flac")),
    Corpus("machine_sounds", "labels.csv", suffixes=(".wav", ".flac"), first_channel=True),
    Corpus("fsdd", "labels.csv", count=200),
    Corpus("arabic_commands", "labels.csv", count=200),
)


@dataclass(frozen=True)
class Clip:
    """One recording.

    Attributes:
        path: the file.
        corpus: name of the folder it was found in.
        first_channel: take the first channel; otherwise channels are averaged.
    """

    path: Path
    corpus: str
    first_channel: bool = False

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.path.stem}, {self.corpus}"

    def read(self, sample_rate: int | None) -> tuple[Array, int]:
        """Decode it.

        Args:
            sample_rate: Hz; `None` keeps the file's.

        Returns:
            `(time,)` float32, and its sample rate.
        """
        waveform, rate = load(self.path, sample_rate=sample_rate, mono=not self.first_channel)
        if waveform.shape[1] == 0:
            raise DecodeError(f"{self.path}: holds no samples")
        return waveform[0].numpy(), rate


def data_root() -> Path:
    """Return the folder that holds the corpora, `$AUDIOTORCH_DATA`.

    Raises:
        ParameterError: it is not set, or no folder.
    """
    root = os.environ.get("AUDIOTORCH_DATA", "")
    if not root or not Path(root).is_dir():
        names = " ".join(corpus.name for corpus in CORPORA)
        raise ParameterError(
            f"AUDIOTORCH_DATA={root!r}: set it to the folder that holds {names}, or some of them"
        )
    return Path(root)


def find_clips(
    root: Path, limit: int | None = None, corpora: Sequence[Corpus] = CORPORA
) -> list[Clip]:
    """List recordings; corpora that are not there are left out.

    Args:
        root: the folder that holds the corpora.
        limit: take so many of each, evenly spread; `None` = all.
        corpora: where to look.

    Raises:
        ParameterError: there is nothing.
    """
    clips = []
    for corpus in corpora:
        paths = _recordings(root / corpus.name, corpus)
        n = len(paths)
        wanted = min(n, corpus.count or n, limit or n)
        for place in np.linspace(0, n - 1, wanted).round().astype(int):
            clips.append(Clip(paths[place], corpus.name, corpus.first_channel))
    if not clips:
        names = " ".join(corpus.name for corpus in corpora)
        raise ParameterError(f"{os.fspath(root)!r}: no recordings in any of {names} there")
    return clips


def five_seconds(root: Path, count: int) -> list[Array]:
    """Read clips of `esc10`, cut or padded to 5 s at 22,050 Hz.

    Args:
        root: the folder that holds the corpora.
        count: so many, or as many as there are.

    Returns:
        Waveforms `(110250,)`.
    """
    clips = find_clips(root, count, CORPORA[:1])
    waveforms = [clip.read(_SPEED_RATE)[0][: 5 * _SPEED_RATE] for clip in clips]
    return [np.pad(each, (0, 5 * _SPEED_RATE - len(each))) for each in waveforms]


def _recordings(folder: Path, corpus: Corpus) -> list[Path]:
    listing = folder / corpus.listing
    if corpus.listing and listing.is_file():
        with listing.open(newline="", encoding="utf-8") as file:
            paths = [folder / row["file"] for row in csv.DictReader(file)]
    else:
        paths = sorted(path for path in folder.rglob("*") if not path.name.startswith("."))
    return [path for path in paths if path.suffix.lower() in corpus.suffixes]
