"""Odd, old, broken and lying files: what `load`, `info` and `stream` make of each.

The oracles are libsndfile and FFmpeg, each asked by itself (tests/decoders.py); the set's
manifest says which of them, as other people ran them, could read a file.
"""

import io
import os
import random
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.signal
import torch
from conftest import table
from decoders import Decoded, by_ffmpeg, by_libsndfile

from audiotorch.audio.io import info, load, stream
from audiotorch.errors import DecodeError, ParameterError, TruncationWarning

ROOT = Path(os.environ["AUDIOTORCH_DATA"]) if os.environ.get("AUDIOTORCH_DATA") else None
ZOO = ROOT / "format_zoo" if ROOT else None
SECONDS = 10  # a file may take
LOSSY = 1e-3

# Samples of a codec's frame at its usual rates: what two decoders may differ by at the ends.
CODEC_FRAME = {
    "mp3": 1152,
    "mp3float": 1152,
    "MPEG_LAYER_III": 1152,
    "aac": 2048,  # of HE-AAC; plain AAC has 1024
    "ac3": 1536,
    "eac3": 1536,
    "OPUS": 960,  # 20 ms; at 48 kHz
    "opus": 960,
    "VORBIS": 2048,  # the usual long block
    "vorbis": 2048,
    "wmav2": 2048,
    "wmapro": 2048,
    "speex": 640,
}


class Entry(NamedTuple):
    path: Path
    decoded: tuple[Decoded, ...]  # by libsndfile, by FFmpeg: those of the two that read it


def slack(decoded: Decoded) -> int:
    """Samples that a decoding's length may be off by."""
    return CODEC_FRAME.get(decoded.codec, 0)


def step(decoded: Decoded) -> float:
    """The difference allowed between two decodings: a step of its levels, or float32's own."""
    if slack(decoded):
        return LOSSY
    if decoded.codec in ("PCM_S8", "PCM_U8", "pcm_u8", "pcm_s8"):
        return 2.0**-7
    sixteen = decoded.codec in ("PCM_16", "ULAW", "MS_ADPCM", "pcm_s16le", "alac", "tta")
    return 2.0**-15 if sixteen else 2.0**-23


def is_read(row: dict[str, str]) -> bool:
    """Whether one of two decoders reads it, for who made the manifest."""
    return row["sndfile_reads"] == "yes" or ffmpeg_reads(row)


def ffmpeg_reads(row: dict[str, str]) -> bool:
    # Of a few bytes FFmpeg guessed telephone speech without any mark of it.
    return row["ffmpeg_decodes"] in ("yes", "partly") and row["ffmpeg_container"] != "bit"


def make_entry(row: dict[str, str]) -> Entry:
    path = ZOO / row["file"]
    decoded = []
    if row["sndfile_reads"] == "yes":
        decoded.append(by_libsndfile(path))
    if ffmpeg_reads(row):
        decoded.append(by_ffmpeg(path))
    assert None not in decoded, "the manifest says that it reads"
    return Entry(path, tuple(decoded))


ROWS = table(ZOO / "manifest.csv") if ZOO else []
NO_DATA = [pytest.param(None, marks=pytest.mark.skip("AUDIOTORCH_DATA is not set"))]


def file_name(row: dict[str, str] | None) -> str:
    return row["file"].replace("/", "-") if row else "no data"


@pytest.fixture(
    scope="module", params=[row for row in ROWS if is_read(row)] or NO_DATA, ids=file_name
)
def entry(request) -> Entry:
    return make_entry(request.param)


@pytest.fixture(params=[row for row in ROWS if not is_read(row)] or NO_DATA, ids=file_name)
def unreadable(request) -> Path:
    return ZOO / request.param["file"]


def quietly(read, *arguments, **keywords):
    """A call's result and its warnings: of one kind, one at most."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = read(*arguments, **keywords)
    assert [w.category for w in caught] in ([], [TruncationWarning]), [
        str(w.message) for w in caught
    ]
    return result, caught


def whole(source) -> tuple[np.ndarray, int, list]:
    (waveform, rate), caught = quietly(load, source, None, mono=False)
    assert waveform.dtype == torch.float32
    assert waveform.isfinite().all()
    return waveform.numpy(), rate, caught


@pytest.fixture(scope="module")
def loaded(entry) -> tuple[np.ndarray, int, list]:
    return whole(entry.path)


def agrees(decoded: Decoded, waveform: np.ndarray, rate: int) -> bool:
    """Whether rate, channels and length are this decoder's."""
    same = (len(decoded.samples), decoded.sample_rate) == (len(waveform), rate)
    return same and abs(decoded.n_frames - waveform.shape[1]) <= slack(decoded)


def assert_near(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    n = min(actual.shape[1], expected.shape[1])
    if n:
        error = np.abs(actual[:, :n] - expected[:, :n]).max()
        assert error <= tolerance, f"samples differ by {error:.3g}"


# --- each file ------------------------------------------------------------------------------------


def test_a_file_loads_as_one_of_two_decoders_reads_it(entry):
    start = time.monotonic()
    waveform, rate, caught = whole(entry.path)
    assert time.monotonic() - start < SECONDS
    for warning in caught:
        assert str(warning.message).startswith(f"{entry.path}: ")
    found = [(d.sample_rate, d.samples.shape) for d in entry.decoded]
    matching = [d for d in entry.decoded if agrees(d, waveform, rate)]
    assert matching, f"{rate}, {waveform.shape}: must be one of {found}"
    # The first is libsndfile, if it gave as much as was loaded.
    assert_near(waveform, matching[0].samples, step(matching[0]))
    longest = max(entry.decoded, key=lambda d: d.n_frames / d.sample_rate)
    missing = longest.n_frames / longest.sample_rate - waveform.shape[1] / rate
    # An MP3's delay and padding, more than a frame, are left out by some decoders.
    assert missing * rate <= 2 * slack(longest) or caught, (
        f"{missing:.3f} s left out without a word"
    )


def test_a_file_that_neither_decoder_reads_is_refused_by_name(unreadable):
    start = time.monotonic()
    for read in (load, info):
        try:
            quietly(read, unreadable)
        except DecodeError as error:
            text = str(error)
            assert text.startswith(f"{unreadable}: ")
            assert len(text) > len(f"{unreadable}: ") + 10, "no reason"
        else:
            # A header may be right where no sample follows.
            assert read is info, "loaded"
    assert time.monotonic() - start < SECONDS
    content = unreadable.read_bytes()
    for source in (content, io.BytesIO(content)):
        with pytest.raises(DecodeError):
            quietly(load, source, None, mono=False)


def test_bytes_and_file_objects_give_what_the_path_gives(entry, loaded):
    expected, rate, warned = loaded
    content = entry.path.read_bytes()
    with entry.path.open("rb") as handle:
        for source in (content, io.BytesIO(content), handle):
            actual, actual_rate, caught = whole(source)
            assert (actual.shape, actual_rate) == (expected.shape, rate)
            assert len(caught) == len(warned)
            # The MP3 decoder picks its code by chance of memory alignment: equal to rounding.
            assert_near(actual, expected, 1e-6 if slack(entry.decoded[0]) else 0.0)
        assert not handle.closed


def test_info_says_what_load_gives(entry, loaded):
    waveform, rate, warned = loaded
    header, _ = quietly(info, entry.path)
    assert (header.sample_rate, header.n_channels) == (rate, len(waveform))
    # A header does not know what was cut off behind it.
    missing = 0 if warned else header.n_frames - waveform.shape[1]
    assert abs(missing) <= max(map(slack, entry.decoded))
    assert header.duration_seconds == pytest.approx(header.n_frames / rate)
    assert header.container
    assert header.codec


def test_a_part_is_the_slice_of_the_whole(entry, loaded):
    expected, rate, warned = loaded
    n = expected.shape[1]
    tolerance = LOSSY if slack(entry.decoded[0]) else 0.0
    if entry.decoded[0].codec == "OPUS":
        # Its decoder keeps a memory of seconds; measured 0.0018 after lead-ins up to 2 s.
        tolerance = 5e-3
    if warned and tolerance:
        # Behind damage a lossy decoder is in another state than when it starts there.
        tolerance = 2.0
    generator = random.Random(entry.path.name)
    for _ in range(4 if n else 0):
        start = generator.randrange(n)
        length = generator.randrange(1, 2 * rate)
        # A quarter of a sample on, floor and rounding agree.
        part = {"offset": (start + 0.25) / rate, "duration": (length + 0.25) / rate}
        (actual, _), _ = quietly(load, entry.path, None, mono=False, **part)
        assert actual.shape == expected[:, start : start + length].shape, part
        assert_near(actual.numpy(), expected[:, start : start + length], tolerance)
    if n:
        with pytest.raises(ParameterError, match="offset"):
            quietly(load, entry.path, offset=n / rate + 1.0)


@pytest.mark.parametrize("sample_rate", [None, 16000])
def test_a_stream_is_the_whole_in_blocks(entry, sample_rate):
    generator = random.Random(entry.path.name)
    block_seconds = generator.choice([0.05, 0.31, 1.0, 20.0])
    overlap_seconds = generator.choice([0.0, 0.02, 0.4 * block_seconds])
    (expected, rate), _ = quietly(load, entry.path, sample_rate, mono=False)
    read = stream(entry.path, block_seconds, sample_rate, overlap_seconds)
    blocks, _ = quietly(list, read)
    n, n_block = expected.shape[1], round(block_seconds * rate)
    hop = n_block - round(overlap_seconds * rate)
    starts = range(0, max(n - n_block, 0) + hop, hop) if n else ()
    assert sum(block.shape[1] > 0 for block in blocks) == len(starts)
    # MP3 decoding as above; a lossless file comes back to the bit at its own rate.
    exact = sample_rate is None and not slack(entry.decoded[0])
    for start, block in zip(starts, blocks, strict=False):
        assert block.dtype == torch.float32
        wanted = expected[:, start : start + n_block]
        assert block.shape == wanted.shape
        assert_near(block.numpy(), wanted.numpy(), 0.0 if exact else 1e-6)


# --- one recording in several encodings -----------------------------------------------------------


def read(path: str) -> tuple[np.ndarray, int]:
    if ROOT is None:
        pytest.skip("AUDIOTORCH_DATA is not set")
    waveform, rate, caught = whole(ROOT / path)
    assert not caught
    return waveform, rate


# The set's files were made from its 32-bit ones by a sound editor, which dithers: its noise,
# moved to high frequencies, reaches 14 steps. To 8 bits it rounded down. Measured.
@pytest.mark.parametrize(
    ("name", "reference", "tolerance"),
    [
        ("stereo-24-bit-44100Hz.wav", "stereo-32", 0.0),
        ("stereo-24-bit-44100Hz.flac", "stereo-32", 10 * 2.0**-23),
        ("stereo-16-bit-44100Hz.flac", "stereo-32", 10 * 2.0**-15),
        ("mono-16-bit-44100Hz.wav", "mono-32", 10 * 2.0**-15),
        ("mono-16-bit-44100Hz.aiff", "mono-32", 14 * 2.0**-15),
        ("mono-16-bit-44100Hz.flac", "mono-32", 14 * 2.0**-15),
        ("mono-8-bit-44100Hz.wav", "mono-32", 1.1 * 2.0**-7),
    ],
)
def test_bit_depths_agree_to_their_quantisation(name, reference, tolerance):
    actual, rate = read(f"format_zoo/bit_depths/audio-{name}")
    expected, expected_rate = read(f"format_zoo/bit_depths/audio-{reference}-bit-44100Hz.wav")
    assert (actual.shape, rate) == (expected.shape, expected_rate)
    assert np.abs(actual - expected).max() <= tolerance


def delay_and_likeness(a: np.ndarray, b: np.ndarray) -> tuple[int, float]:
    """By how many samples `b` comes before `a`, and their correlation when laid together."""
    both = scipy.signal.correlate(a, b, mode="full", method="fft")
    lag = int(np.argmax(np.abs(both))) - (len(b) - 1)
    a, b = a[max(lag, 0) :], b[max(-lag, 0) :]
    n = min(len(a), len(b))
    return lag, float(np.corrcoef(a[:n], b[:n])[0, 1])


def test_music_is_the_same_from_wav_flac_and_m4a():
    wav, rate = read("music_beats/audio/stereo_sample.wav")
    flac, flac_rate = read("music_beats/audio/stereo_sample.flac")
    m4a, m4a_rate = read("music_beats/audio/stereo_sample.m4a")
    assert rate == flac_rate == m4a_rate
    assert np.array_equal(wav, flac)
    # The file states where its sound starts, not where it ends: a last frame more.
    assert 0 <= m4a.shape[1] - wav.shape[1] <= 1024
    for channel, reference in zip(m4a, wav, strict=True):
        lag, likeness = delay_and_likeness(channel, reference)
        assert lag == 0
        assert likeness > 0.9999


def test_speech_is_the_same_from_flac_mp3_and_wav():
    if ROOT is None:
        pytest.skip("AUDIOTORCH_DATA is not set")
    folder = ROOT / "speech" / "en"
    wav, flac, mp3 = (
        load(folder / name, 16000)[0][0].numpy() for name in ("jfk_16k.wav", "jfk.flac", "jfk.mp3")
    )
    for other in (flac, mp3):
        lag, likeness = delay_and_likeness(other, wav)
        assert abs(lag) <= 1
        assert likeness > 0.99


def test_one_recording_in_three_codecs_is_as_libsndfile_reads_it():
    # The folder's name promises one recording, but the three share no sound (correlation below
    # 0.1 at every lag): each is held against its decoder, and they must not come out alike.
    clips = {}
    for name in ("test.wav", "test.mp3", "test.opus"):
        samples, rate = read(f"format_zoo/three_codecs/{name}")
        reference = by_libsndfile(ZOO / "three_codecs" / name)
        assert (samples.shape, rate) == (reference.samples.shape, reference.sample_rate)
        assert_near(samples, reference.samples, 1e-6)
        clips[name] = load(ZOO / "three_codecs" / name, 16000)[0][0].numpy()
    assert abs(delay_and_likeness(clips["test.wav"], clips["test.opus"])[1]) < 0.1
