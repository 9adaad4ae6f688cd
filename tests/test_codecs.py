"""Sound of known content through many codecs: its scale, its channels, its start and its length."""

import resource
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from decoders import by_ffmpeg, encode

from audiotorch.audio.io import info, load, save, stream

RATE = 48000


def whole(path: Path) -> np.ndarray:
    waveform, rate = load(path, None, mono=False)
    assert rate == RATE
    return waveform.numpy()


# --- scale and precision --------------------------------------------------------------------------


def integers(bits: int, n: int = 4800) -> np.ndarray:
    """Stereo of all sizes, both ends of the range among them, as int64."""
    generator = np.random.default_rng(bits)
    top = 1 << (bits - 1)
    loudness = 2.0 ** generator.uniform(-bits + 1, 0, (2, n))
    values = np.rint(generator.uniform(-1, 1, (2, n)) * loudness * (top - 1)).astype(np.int64)
    values[:, :6] = [-top, top - 1, 1, -1, 0, top // 2]
    return values


@pytest.mark.parametrize("container", ["WAV", "AIFF", "CAF", "W64", "RF64", "FLAC", "AU"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32"])
def test_integers_by_libsndfile_are_scaled_exactly(container, subtype, tmp_path):
    if not soundfile.check_format(container, subtype):
        pytest.skip(f"{container} holds no {subtype}")
    bits = int(subtype.lstrip("PCM_SU"))
    values = integers(bits)
    path = tmp_path / "sound"
    soundfile.write(
        path, (values << (32 - bits)).astype(np.int32).T, RATE, subtype, format=container
    )
    expected = (values * 2.0 ** -(bits - 1)).astype(np.float32)
    assert np.array_equal(whole(path), expected)
    assert info(path).bit_depth == bits


@pytest.mark.parametrize(
    ("name", "codec", "sample_format", "bits"),
    [
        ("a.m4a", "alac", "s16p", 16),
        ("a.m4a", "alac", "s32p", 24),
        ("a.mov", "pcm_s16be", None, 16),
        ("a.mov", "pcm_s24be", None, 24),
        ("a.mov", "pcm_s24le", None, 24),
        ("a.mov", "pcm_s32be", None, 32),
        ("a.wv", "wavpack", "u8p", 8),
        ("a.wv", "wavpack", "s16p", 16),
        ("a.wv", "wavpack", "s32p", 32),
        ("a.tta", "tta", "s16", 16),
        ("a.tta", "tta", "s32", 24),
        ("a.mka", "flac", "s16", 16),
        ("a.mka", "flac", "s32", 24),
        ("a.mka", "pcm_u8", None, 8),
        ("a.mka", "pcm_s24le", None, 24),
        ("a.avi", "pcm_s16le", None, 16),
        ("a.nut", "pcm_s32le", None, 32),
        ("a.oga", "flac", "s16", 16),
    ],
)
def test_integers_by_ffmpeg_are_scaled_exactly(name, codec, sample_format, bits, tmp_path):
    values = integers(bits)
    samples = (values << (32 - bits)).astype(np.int32)
    path = encode(tmp_path / name, samples, RATE, codec, sample_format=sample_format)
    expected = (values * 2.0 ** -(bits - 1)).astype(np.float32)
    assert np.array_equal(by_ffmpeg(path).samples.astype(np.float32), expected)
    assert np.array_equal(whole(path), expected)
    header = info(path)
    assert header.n_frames == expected.shape[1]
    # PyAV does not tell what WavPack and TTA hold, only as what they decode.
    assert header.bit_depth == bits or codec in ("wavpack", "tta")


@pytest.mark.parametrize(
    ("name", "codec", "bits"),
    [
        ("a.wav", "pcm_f32le", 32),
        ("a.wav", "pcm_f64le", 64),
        ("a.mka", "pcm_f32le", 32),
        ("a.mka", "pcm_f64le", 64),
        ("a.mov", "pcm_f32be", 32),
        ("a.nut", "pcm_f64be", 64),
        ("a.wv", "wavpack", 32),
    ],
)
def test_floats_come_as_float32_also_beyond_one(name, codec, bits, tmp_path):
    generator = np.random.default_rng(bits)
    samples = generator.standard_normal((2, 4800)) * 10.0 ** generator.uniform(-9, 1, (2, 4800))
    samples = samples if bits == 64 else samples.astype(np.float32)
    sample_format = "fltp" if codec == "wavpack" else None
    path = encode(tmp_path / name, samples, RATE, codec, sample_format=sample_format)
    assert np.array_equal(whole(path), samples.astype(np.float32))
    assert info(path).bit_depth == bits or codec == "wavpack"


# --- channels -------------------------------------------------------------------------------------

# Left, right, centre, low, left and right behind.
TONES = {"3.0": [300, 500, 700], "5.1": [300, 500, 700, 60, 900, 1100]}
TONES["6.1"] = [*TONES["5.1"], 1300]
# As Ogg's own specification puts the channels of 5.1: left, centre, right, behind, low.
OGG_ORDER = [0, 2, 1, 4, 5, 3]


def tones(layout: str) -> np.ndarray:
    time_axis = np.arange(RATE) / RATE
    return np.array([0.1 * np.sin(2 * np.pi * f * time_axis) for f in TONES[layout]], np.float32)


def found(waveform: np.ndarray) -> list[int]:
    """The loudest frequency of each channel, to 20 Hz."""
    middle = waveform[:, 8000:32000]
    peaks = np.abs(np.fft.rfft(middle, axis=1)).argmax(axis=1) * RATE / middle.shape[1]
    return [round(peak / 20) * 20 for peak in peaks]


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("a.wav", "pcm_s24le", "5.1"),
        ("a.flac", "flac", "5.1"),
        ("a.m4a", "alac", "5.1"),
        ("a.mp4", "aac", "5.1"),
        ("a.aac", "aac", "5.1"),
        ("a.ac3", "ac3", "5.1"),
        ("a.eac3", "eac3", "5.1"),
        ("a.mkv", "libopus", "5.1"),
        ("a.opus", "libopus", "5.1"),
        ("a.wv", "wavpack", "5.1"),
        ("a.mov", "pcm_s16le", "5.1"),
        ("a.aiff", "pcm_s24be", "5.1"),
        ("a.mp4", "aac", "3.0"),
        ("a.opus", "libopus", "3.0"),
        ("a.mp4", "aac", "6.1"),
    ],
)
def test_channels_come_in_the_order_of_wav(name, codec, layout, tmp_path):
    sample_format = "s16p" if codec == "wavpack" else None
    path = encode(
        tmp_path / name, tones(layout), RATE, codec, layout=layout, sample_format=sample_format
    )
    assert found(by_ffmpeg(path).samples) == TONES[layout]
    assert found(whole(path)) == TONES[layout]


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_channels_of_ogg_come_in_the_order_of_wav(subtype, tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, tones("5.1")[OGG_ORDER].T, RATE, subtype, format="OGG")
    assert found(by_ffmpeg(path).samples) == TONES["5.1"]
    assert found(whole(path)) == TONES["5.1"]
    assert found(torch.cat(list(stream(path, 0.3)), dim=1).numpy()) == TONES["5.1"]


@pytest.mark.parametrize("name", ["a.ogg", "a.opus", "a.wav", "a.flac"])
def test_saved_channels_come_back_in_their_places(name, tmp_path):
    save(tmp_path / name, torch.from_numpy(tones("5.1")), RATE)
    assert found(whole(tmp_path / name)) == TONES["5.1"]
    assert found(by_ffmpeg(tmp_path / name).samples) == TONES["5.1"]


# --- start and length -----------------------------------------------------------------------------

CLICKS = [4001, 20011, 37003, 49991]
N_CLICKS = 50023  # frames of the recording; a whole number of frames in no codec


def clicks() -> np.ndarray:
    """Bursts of noise a millisecond long, in a band that every codec keeps."""
    generator = np.random.default_rng(3)
    sound = np.zeros(N_CLICKS)
    window = np.hanning(48)
    for start in CLICKS:
        room = min(48, N_CLICKS - start)
        sound[start : start + room] += (window * generator.uniform(0.5, 0.9))[:room]
    return np.stack([sound, sound]).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "codec", "room"),
    [
        ("a.opus", "libopus", 0),
        ("a.webm", "libopus", 0),
        ("a.mka", "libopus", 0),
        ("a.mp3", "mp3", 0),  # LAME's tag states delay and padding
        # An edit list states the end in milliseconds, and FFmpeg leaves the last frame whole.
        ("a.m4a", "aac", 1024),
        ("a.mov", "aac", 1024),
        ("a.mp4", "libopus", 960),
    ],
)
def test_a_stated_delay_is_left_out(name, codec, room, tmp_path):
    sound = clicks()
    path = encode(tmp_path / name, sound, RATE, codec, b="192000")
    waveform = whole(path)
    assert 0 <= waveform.shape[1] - N_CLICKS <= room
    # To a frame: Matroska states milliseconds.
    assert abs(info(path).n_frames - waveform.shape[1]) <= 1152
    for start in CLICKS[:3]:
        near = waveform[0, start - 2000 : start + 2048]
        likeness = np.correlate(near, sound[0, start : start + 48], mode="valid")
        assert abs(int(likeness.argmax()) - 2000) <= 2
    # The parts lie where they lie in the whole.
    part, _ = load(path, None, mono=False, offset=20000.25 / RATE, duration=2000.25 / RATE)
    assert part.shape == (2, 2000)
    np.testing.assert_allclose(part.numpy(), waveform[:, 20000:22000], atol=1e-3)


# --- gigabytes ------------------------------------------------------------------------------------

GIGABYTE = 1 << 30


def sparse(path: Path, kind: str, n_bytes: int) -> tuple[np.ndarray, int]:
    """A 16-bit stereo file of zeros that takes no room, but for a second of noise near its end.

    Returns:
        The noise `(channel, time)` and its first frame.
    """
    n_bytes -= n_bytes % 4
    fmt = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, RATE, RATE * 4, 4, 16)
    if kind == "RF64":
        ds64 = struct.pack("<IQQQI", 28, 72 + n_bytes, n_bytes, n_bytes // 4, 0)
        size = 0xFFFFFFFF
        header = b"RF64" + struct.pack("<I", size) + b"WAVEds64" + ds64 + fmt
    else:
        size = n_bytes
        header = b"RIFF" + struct.pack("<I", 36 + n_bytes) + b"WAVE" + fmt
    header += b"data" + struct.pack("<I", size)
    start = n_bytes // 4 - 3 * RATE
    noise = np.random.default_rng(0).integers(-32768, 32768, (RATE, 2)).astype("<i2")
    with path.open("wb") as file:
        file.write(header)
        file.seek(len(header) + 4 * start)
        file.write(noise.tobytes())
        file.truncate(len(header) + n_bytes)
    return noise.T * np.float32(2.0**-15), start


def peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system with holes")
@pytest.mark.parametrize(
    ("kind", "n_bytes"), [("RF64", 5 * GIGABYTE), ("WAV", 3 * GIGABYTE), ("WAV", 2 * GIGABYTE + 8)]
)
def test_the_far_end_of_gigabytes_is_read_at_once(kind, n_bytes, tmp_path):
    path = tmp_path / "long.wav"
    noise, start = sparse(path, kind, n_bytes)
    load(path, None, mono=False, duration=0.1)
    before, clock = peak_megabytes(), time.monotonic()
    header = info(path)
    assert header.n_frames == n_bytes // 4
    part, rate = load(path, None, mono=False, offset=(start + 0.25) / RATE, duration=1.0)
    assert rate == RATE
    assert np.array_equal(part.numpy(), noise)
    rest, _ = load(path, None, mono=False, offset=(start + 0.25) / RATE)
    assert rest.shape == (2, 3 * RATE)
    assert torch.equal(rest[:, :RATE], part)
    first = next(stream(path, 1.0))
    assert first.shape == (2, RATE)
    assert not first.any()
    assert time.monotonic() - clock < 1.0
    assert peak_megabytes() - before < 100
