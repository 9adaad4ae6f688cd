"""Independent decoders to hold `load` against, and an encoder for what no test set holds."""

import os
import warnings
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soundfile

av.logging.set_level(av.logging.PANIC)

# FFmpeg's sample formats: the value of silence, and the step from one level to the next.
_SCALES = {
    "u8": (128, 2.0**-7),
    "s16": (0, 2.0**-15),
    "s32": (0, 2.0**-31),
    "s64": (0, 2.0**-63),
    "flt": (0, 1.0),
    "dbl": (0, 1.0),
}


class Decoded(NamedTuple):
    samples: np.ndarray  # (channel, time) float64
    sample_rate: int
    codec: str

    @property
    def n_frames(self) -> int:
        return self.samples.shape[1]


def by_libsndfile(path: Path) -> Decoded | None:
    """What libsndfile makes of a file, read until nothing comes; None if it refuses."""
    try:
        with soundfile.SoundFile(os.fspath(path)) as file:
            # A block at a time, without seeking: stated lengths lie, and some files end seeking.
            file.seekable = lambda: False
            blocks = [np.zeros((0, file.channels))]
            while len(block := file.read(1 << 16, dtype="float64", always_2d=True)):
                blocks.append(block)
            return Decoded(np.concatenate(blocks).T, file.samplerate, file.subtype)
    except soundfile.LibsndfileError:
        return None


def by_ffmpeg(path: Path) -> Decoded | None:
    """What FFmpeg makes of a file's first audio stream; None if it finds none.

    As its command does it: packets that do not decode are left out, and what changes its
    channels on the way is brought to those of the first frame.
    """
    blocks: list[np.ndarray] = []
    first: av.AudioFrame | None = None
    try:
        with av.open(os.fspath(path), metadata_errors="replace") as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            packets = container.demux(stream)
            while (packet := next(packets, None)) is not None:
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    continue
                for frame in frames:
                    first = first or frame
                    blocks.extend(_as_first(frame, first))
            shape = (stream.channels, 0)
            rate, codec = stream.rate, stream.codec_context.name
    except av.FFmpegError:
        if not blocks:
            return None
    if first is not None:
        rate, shape = first.sample_rate, (blocks[0].shape[0], 0)
    return Decoded(np.concatenate([np.zeros(shape), *blocks], axis=1), rate, codec)


def _as_first(frame: av.AudioFrame, first: av.AudioFrame) -> list[np.ndarray]:
    same = (frame.layout.nb_channels, frame.sample_rate) == (
        first.layout.nb_channels,
        first.sample_rate,
    )
    if same:
        return [_samples(frame)]
    # Times would make the resampler fill what it takes for a gap.
    frame.pts = None
    resampler = av.AudioResampler("dblp", first.layout.name, first.sample_rate)
    return [_samples(part) for part in (*resampler.resample(frame), *resampler.resample(None))]


def _samples(frame: av.AudioFrame) -> np.ndarray:
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    silence, step = _SCALES[frame.format.name.removesuffix("p")]
    return (array.astype(np.float64) - silence) * step


def encode(
    path: Path,
    samples: np.ndarray,
    sample_rate: int,
    codec: str,
    *,
    layout: str | None = None,
    sample_format: str | None = None,
    container: str | None = None,
    **options: str,
) -> Path:
    """Write `(channel, time)` samples by an encoder of FFmpeg's; the suffix chooses the container.

    Integer samples must be int16, or int32 of which the encoder takes the upper bits.
    """
    layout = layout or {1: "mono", 2: "stereo"}[len(samples)]
    kinds = {"float64": "dblp", "float32": "fltp", "int32": "s32p", "int16": "s16p"}
    with av.open(os.fspath(path), "w", format=container) as file, warnings.catch_warnings():
        # PyAV's own: some muxers ask for an encoder setting that is made all the same.
        warnings.simplefilter("ignore")
        stream = file.add_stream(codec, rate=sample_rate, layout=layout, options=options)
        if sample_format is not None:
            stream.codec_context.format = sample_format
        for start in range(0, samples.shape[1], 1 << 15):
            block = np.ascontiguousarray(samples[:, start : start + (1 << 15)])
            frame = av.AudioFrame.from_ndarray(block, kinds[samples.dtype.name], layout)
            frame.sample_rate, frame.pts = sample_rate, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path
