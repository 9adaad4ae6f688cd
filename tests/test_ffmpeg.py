import io
import tempfile
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from audiotorch.audio import info, load, stream
from audiotorch.audio.ffmpeg import FFmpegReader
from audiotorch.errors import DecodeError, TruncationWarning

RATE = 48000
# container, codec, sample format, lossless, error of the decoded noise's level
KINDS = [
    ("ipod", "aac", "fltp", False),
    ("adts", "aac", "fltp", False),
    ("ipod", "alac", "s16p", True),
    ("ipod", "alac", "s32p", True),
    ("matroska", "flac", "s16", True),
    ("webm", "libopus", "flt", False),
    ("matroska", "pcm_s24le", "s32", True),
    ("mov", "pcm_s24be", "s32", True),
    ("asf", "wmav2", "fltp", False),
    ("ac3", "ac3", "fltp", False),
    ("wv", "wavpack", "s16p", True),
    ("tta", "tta", "s16", True),
    ("avi", "pcm_s16le", "s16", True),
    ("mpegts", "aac", "fltp", False),
    ("ogg", "flac", "s16", True),
]


def music(seconds=3.0, n_channels=2):
    """Sounds that every codec keeps: slow chirps, another in each channel, `(channel, time)`."""
    time = np.arange(round(seconds * RATE)) / RATE
    return np.stack(
        [0.4 * np.sin(2 * np.pi * (300 * (k + 1) + 40 * time) * time) for k in range(n_channels)]
    ).astype(np.float32)


def encode(samples, container, codec, sample_format, video=False, **options):
    """A file of one sound track, written by FFmpeg."""
    layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[len(samples)]
    # To a named file: moving an MP4's index to the front takes a second reading.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        with av.open(str(path), "w", format=container, options=options) as output:
            track = output.add_stream(codec, rate=RATE, layout=layout)
            track.codec_context.format = sample_format
            track.bit_rate = 192_000
            if video:
                _write_video(output)
            _write_sound(output, track, samples)
        return path.read_bytes()


def _write_sound(output, track, samples):
    context = track.codec_context
    context.open(strict=False)
    layout = context.layout.name
    size = context.frame_size or 1024
    resampler = av.AudioResampler(context.format.name, layout, RATE, frame_size=size)
    # Packed, since PyAV reads past the end of frames of eight planes.
    packed = np.ascontiguousarray(samples.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, "flt", layout)
    frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
    for part in [*resampler.resample(frame), *resampler.resample(None), None]:
        output.mux(track.encode(part))


def _write_video(output):
    track = output.add_stream("mpeg4", rate=25)
    track.width, track.height, track.pix_fmt = 64, 64, "yuv420p"
    for index in range(25):
        frame = av.VideoFrame(64, 64, "yuv420p")
        frame.pts, frame.time_base = index, Fraction(1, 25)
        output.mux(track.encode(frame))
    output.mux(track.encode(None))


@pytest.mark.parametrize(("container", "codec", "sample_format", "lossless"), KINDS)
def test_every_kind_comes_back(container, codec, sample_format, lossless, tmp_path):
    original = music()
    content = encode(original, container, codec, sample_format)
    path = tmp_path / "clip.any"
    path.write_bytes(content)
    waveform, rate = load(path, None, mono=False)
    assert rate == RATE
    assert waveform.shape[0] == 2
    if lossless:
        step = 2**-15 if sample_format.startswith("s16") or codec == "pcm_s16le" else 2**-23
        np.testing.assert_allclose(waveform.numpy(), original, atol=step)
    else:
        # A container that states the encoder's delay gives the original's length.
        assert abs(waveform.shape[1] - original.shape[1]) <= 4096
        shift = best_shift(waveform[0].numpy(), original[0])
        assert abs(shift) <= (64 if container in ("ipod", "webm") else 4096)
        assert_alike(waveform.numpy(), original, shift)
    with path.open("rb") as handle:
        for source in (content, io.BytesIO(content), handle):
            assert torch.equal(load(source, None, mono=False)[0], waveform)
    header = info(content)
    assert (header.sample_rate, header.n_channels) == (RATE, 2)
    # One codec frame, and the millisecond that ASF counts in.
    assert abs(header.n_frames - waveform.shape[1]) <= (0 if lossless else 2048 + 48)
    assert torch.equal(torch.cat(list(stream(content, 0.7)), 1), waveform)


def best_shift(decoded, original):
    """By how many samples the decoded sound stands later."""
    size = 1 << 19
    product = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(original, size))
    lag = int(np.argmax(np.fft.irfft(product, size)))
    return lag if lag < size // 2 else lag - size


def assert_alike(decoded, original, shift):
    """Each channel correlates with its own original, away from the ends."""
    window = np.arange(RATE // 2, 2 * RATE)
    for channel, expected in zip(decoded, original, strict=True):
        assert np.corrcoef(channel[window + shift], expected[window])[0, 1] > 0.98


@pytest.mark.parametrize(("container", "codec", "sample_format", "lossless"), KINDS)
def test_parts_are_slices_of_the_whole(container, codec, sample_format, lossless):
    content = encode(music(8.0), container, codec, sample_format)
    whole, _ = load(content, None, mono=False)
    for offset, duration in [(0.0, 1.0), (0.5, 0.25), (3.21, 1.5), (6.5, None), (7.9, 5.0)]:
        part, _ = load(content, None, mono=False, offset=offset, duration=duration)
        start = int(offset * RATE)
        expected = whole[:, start : None if duration is None else start + int(duration * RATE)]
        assert part.shape == expected.shape
        np.testing.assert_allclose(part.numpy(), expected.numpy(), atol=0 if lossless else 1e-3)


def test_a_far_part_of_a_long_file_is_sought():
    content = encode(np.tile(music(10.0), (1, 30)), "ipod", "alac", "s16p")
    whole, _ = load(content, None, mono=False)
    reader = FFmpegReader(io.BytesIO(content), "clip")
    reader.skip_to(280 * RATE)
    # A few packets are read before it, not 280 s of them.
    assert reader._n_packets < 10
    part = np.concatenate(list(reader.blocks(RATE))).T
    assert np.array_equal(part, whole[:, 280 * RATE : 281 * RATE].numpy())


def test_six_channels_keep_their_order():
    original = music(n_channels=6)
    for container, codec, sample_format in [
        ("matroska", "flac", "s16"),
        ("ipod", "alac", "s16p"),
        ("ipod", "aac", "fltp"),
        ("ac3", "ac3", "fltp"),
        ("matroska", "libopus", "flt"),
    ]:
        options = {"mapping_family": "1"} if codec == "libopus" else {}
        waveform, _ = load(
            encode(original, container, codec, sample_format, **options), None, False
        )
        assert waveform.shape[0] == 6
        decoded = torch.fft.rfft(waveform[:, RATE : 2 * RATE]).abs()
        expected = torch.fft.rfft(torch.from_numpy(original[:, RATE : 2 * RATE])).abs()
        for k in (0, 1, 2, 4, 5):  # the fourth is the low-frequency channel, which codecs filter
            assert int((expected - decoded[k]).square().sum(1).argmin()) == k, (codec, k)


@pytest.mark.parametrize(
    ("container", "codec", "sample_format", "tolerance"),
    [
        ("wv", "wavpack", "s16p", 2**-15),
        ("wv", "wavpack", "s32p", 2**-23),
        ("matroska", "flac", "s16", 2**-15),
        ("matroska", "libopus", "flt", None),
        ("ipod", "aac", "fltp", None),
    ],
)
def test_eight_channels(container, codec, sample_format, tolerance):
    original = music(n_channels=8)
    options = {"mapping_family": "1"} if codec == "libopus" else {}
    waveform, _ = load(encode(original, container, codec, sample_format, **options), None, False)
    assert waveform.shape[0] == 8
    if tolerance is not None:
        np.testing.assert_allclose(waveform.numpy(), original, atol=tolerance)
    assert waveform.abs().amax(1).min() > 0.01


@pytest.mark.parametrize(("container", "codec", "sample_format", "lossless"), KINDS)
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_what_is_cut_is_told(container, codec, sample_format, lossless, share):
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 20 * RATE)).astype(np.float32)
    content = encode(noise, container, codec, sample_format)
    cut = content[: int(share * len(content))]
    if container in ("adts", "ac3", "mpegts"):
        pytest.skip("a stream of packets states no length")
    if container in ("ipod", "mov"):
        # Its index stood at the end.
        with pytest.raises(DecodeError, match="not a readable audio file"):
            load(cut, None, mono=False)
        return
    with pytest.warns(TruncationWarning) as caught:
        left, _ = load(cut, None, mono=False)
    assert len(caught) == 1
    assert left.shape[1] <= (share + 0.05) * noise.shape[1]


@pytest.mark.parametrize(
    ("container", "codec", "sample_format"),
    [
        ("matroska", "pcm_s24le", "s32"),
        ("webm", "libopus", "flt"),
        ("ogg", "flac", "s16"),
        ("ipod", "alac", "s16p"),
        ("matroska", "flac", "s16"),
    ],
)
def test_a_hole_in_the_middle_is_told(container, codec, sample_format):
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 20 * RATE)).astype(np.float32)
    content = bytearray(encode(noise, container, codec, sample_format))
    middle, size = len(content) // 2, len(content) // 10
    content[middle : middle + size] = bytes(size)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncationWarning)
        with pytest.raises(DecodeError, match=r"truncated or damaged|corrupt after"):
            load(bytes(content), None, mono=False)


def test_a_cut_mp4_gives_what_is_left_and_a_warning():
    content = encode(music(8.0), "ipod", "aac", "fltp", movflags="faststart")
    whole, _ = load(content, None, mono=False)
    with pytest.warns(TruncationWarning, match=r"\d+ of its packets lie past the file's end"):
        left, _ = load(content[: len(content) // 2], None, mono=False)
    assert 0.3 * whole.shape[1] < left.shape[1] < 0.7 * whole.shape[1]
    np.testing.assert_allclose(left[:, :RATE].numpy(), whole[:, :RATE].numpy(), atol=1e-6)
    with pytest.raises(DecodeError, match=r"not a readable audio file|truncated"):
        load(content[:4000], None)


def test_a_video_without_sound_and_strange_streams_are_refused(tmp_path):
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        _write_video(output)
    with pytest.raises(DecodeError, match="it holds no sound"):
        load(file.getvalue())
    noise = np.random.default_rng(0).integers(0, 256, 200_000, dtype=np.uint8).tobytes()
    for content in (noise, bytes(100_000), b"RIFF" + noise, b"some text\n" * 9000):
        for name in ("a.wav", "a.mp3", "a.flac", "a.m4a", "a.raw", "a.aac"):
            (tmp_path / name).write_bytes(content)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pytest.raises(DecodeError, match=name):
                    load(tmp_path / name)


def test_the_sound_of_a_video_is_read():
    original = music(1.0)
    content = encode(original, "mp4", "alac", "s16p", video=True)
    waveform, _ = load(content, None, mono=False)
    np.testing.assert_allclose(waveform.numpy(), original, atol=2**-15)
    assert info(content).codec == "alac"
