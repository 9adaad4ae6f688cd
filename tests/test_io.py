import codecs
import io
import os
import warnings
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from audiotorch.audio import AUDIO_SUFFIXES, info, load, save, stream
from audiotorch.errors import DecodeError, ParameterError, TruncationWarning

RATE = 16000
FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("FLAC", "PCM_24"),
    ("MP3", "MPEG_LAYER_III"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("AIFF", "PCM_16"),
]


def tone(n=RATE, channels=2):
    time = np.arange(n) / RATE
    return np.stack([0.5 * np.sin(2 * np.pi * 440 * (k + 1) * time) for k in range(channels)], 1)


def encode(samples, container="WAV", subtype="PCM_16", rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def recordings():
    """A few real clips of each set, by a glob under AUDIOTORCH_DATA."""
    root = os.environ.get("AUDIOTORCH_DATA")
    if not root:
        pytest.skip("AUDIOTORCH_DATA is unset: no recordings to compare on")
    patterns = ("fsdd/**/*.wav", "esc10/**/*.ogg", "speech/**/*.*", "music_examples/**/*.ogg")
    files = [f for p in patterns for f in sorted(Path(root).glob(p)) if f.suffix in AUDIO_SUFFIXES]
    return files[::90]


# librosa imports audioread, which imports what Python 3.13 drops.
@pytest.mark.filterwarnings("ignore:.*slated for removal:DeprecationWarning")
@pytest.mark.parametrize(
    ("sample_rate", "mono", "part"),
    [
        (22050, True, {}),
        (None, False, {}),
        (16000, False, {"offset": 0.1}),
        (11025, True, {"offset": 0.05, "duration": 0.2}),
    ],
)
def test_load_equals_librosa_on_recordings(sample_rate, mono, part):
    for file in recordings():
        actual, rate = load(file, sample_rate, mono, **part)
        expected, expected_rate = librosa.load(
            file, sr=sample_rate, mono=mono, res_type="soxr_hq", **part
        )
        assert rate == expected_rate
        assert actual.dtype == torch.float32
        np.testing.assert_allclose(actual.numpy(), np.atleast_2d(expected), atol=1e-6)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_load_equals_soundfile(container, subtype, tmp_path):
    content = encode(tone(), container, subtype)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    path = tmp_path / "clip.any"
    path.write_bytes(content)
    with open(path, "rb") as handle:
        for source in (content, str(path), path, io.BytesIO(content), handle):
            waveform, rate = load(source, sample_rate=None, mono=False)
            assert rate == RATE
            # The MP3 decoder picks its code by chance of memory alignment: equal to rounding.
            np.testing.assert_allclose(waveform.numpy(), expected.T, atol=1e-6)
        assert not handle.closed
    part, _ = load(path, None, mono=False, offset=0.25, duration=0.5)
    start, n = RATE // 4, RATE // 2
    # A lossy decoder that starts inside the stream settles to float rounding, not to the bit.
    np.testing.assert_allclose(part.numpy(), expected.T[:, start : start + n], atol=1e-3)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_info_reads_the_header(container, subtype):
    header = info(encode(tone(), container, subtype))
    expected = soundfile.info(io.BytesIO(encode(tone(), container, subtype)))
    assert header.file == "<bytes>"
    assert (header.sample_rate, header.n_channels) == (RATE, 2)
    assert header.n_frames == expected.frames
    assert header.duration_seconds == pytest.approx(expected.duration)
    assert header.container == container
    assert header.codec == ("FLAC" if container == "FLAC" else subtype)
    depth = {"PCM_16": 16, "FLOAT": 32, "PCM_24": 24}
    assert header.bit_depth == depth.get(subtype)


def test_load_mixes_before_resampling_and_follows_the_length_rule():
    samples = tone(n=1001)
    waveform, rate = load(encode(samples), sample_rate=7000)
    expected = librosa.resample(
        librosa.to_mono(soundfile.read(io.BytesIO(encode(samples)), dtype="float32")[0].T),
        orig_sr=RATE,
        target_sr=7000,
        res_type="soxr_hq",
    )
    assert rate == 7000
    assert waveform.shape == (1, 438)
    np.testing.assert_allclose(waveform.numpy()[0], expected, atol=1e-7)


def test_load_of_an_empty_recording_is_empty():
    assert load(encode(np.zeros((0, 2))), mono=False)[0].shape == (2, 0)
    assert load(encode(np.zeros((0, 2))))[0].shape == (1, 0)


def test_a_flac_without_stated_length_is_read_whole():
    content = bytearray(encode(tone(), "FLAC"))
    # The 36 bits before STREAMINFO's 16-byte checksum are the frame count; 0 is "not known".
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    whole, _ = load(bytes(content), None, mono=False)
    assert whole.shape == (2, RATE)
    assert info(bytes(content)).n_frames == RATE
    part, _ = load(bytes(content), None, mono=False, offset=0.5, duration=0.1)
    assert torch.equal(part, whole[:, RATE // 2 : RATE // 2 + RATE // 10])
    assert torch.equal(torch.cat(list(stream(bytes(content), 0.3)), 1), whole)
    with pytest.raises(ParameterError, match=r"lasts 1\.000 s"):
        load(bytes(content), offset=2.0)


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64"])
@pytest.mark.parametrize("share", [0.3, 0.99])
def test_a_cut_container_gives_what_is_left_and_a_warning(container, share):
    content = encode(tone(), container)
    cut = content[: int(share * len(content))]
    whole, _ = load(content, None, mono=False)
    with pytest.warns(TruncationWarning, match="<bytes>: truncated or damaged: .* (declares|malf)"):
        left, _ = load(cut, None, mono=False)
    with pytest.warns(TruncationWarning, match="<bytes>: truncated or damaged"):
        assert info(cut).n_frames == left.shape[1]
    assert 0.25 * RATE < left.shape[1] < RATE
    assert torch.equal(left, whole[:, : left.shape[1]])


@pytest.mark.parametrize(
    ("container", "subtype", "message"),
    [
        ("FLAC", "PCM_16", "frames promised, .* decoded|last 1 packet"),
        ("OGG", "VORBIS", "its last Ogg page is cut"),
        ("OGG", "OPUS", "its last Ogg page is cut"),
        ("MP3", "MPEG_LAYER_III", "frames promised, .* decoded"),
    ],
)
def test_a_cut_stream_gives_what_is_left_and_a_warning(container, subtype, message):
    noise = np.random.default_rng(0).normal(0, 0.1, (8 * RATE, 2))
    content = encode(noise, container, subtype)
    whole, _ = load(content, None, mono=False)
    with pytest.warns(TruncationWarning, match=message) as caught:
        left, _ = load(content[: len(content) * 6 // 10], None, mono=False)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert 0.3 * whole.shape[1] < left.shape[1] < 0.8 * whole.shape[1]
    # Decoders fade at a cut.
    n = left.shape[1] - 4000
    np.testing.assert_allclose(left[:, :n].numpy(), whole[:, :n].numpy(), atol=1e-3)


def test_a_damaged_middle_is_refused():
    content = bytearray(encode(np.random.default_rng(0).normal(0, 0.1, (8 * RATE, 1)), "FLAC"))
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    with pytest.raises(DecodeError, match=r"<bytes>: corrupt after .* s of audio"):
        load(bytes(content), None)


def test_truncation_can_be_made_an_error():
    cut = encode(tone())[:-400]
    with warnings.catch_warnings():
        warnings.simplefilter("error", TruncationWarning)
        with pytest.raises(DecodeError, match="truncated or damaged"):
            load(cut)


def test_a_streamed_wav_of_unknown_size_is_read():
    content = bytearray(encode(tone()))
    content[40:44] = b"\xff\xff\xff\xff"
    assert load(bytes(content), None)[0].shape == (1, RATE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30, -1e13])
def test_non_finite_samples_are_refused(bad):
    samples = tone()
    samples[RATE // 2 + 16, 1] = bad
    with pytest.raises(DecodeError, match=r"1 frame\(s\) hold NaN .* the first at 0.501 s"):
        load(encode(samples, "WAV", "FLOAT"), offset=0.25)


def test_unreadable_sources_are_named(tmp_path):
    for name, content, message in [
        ("gone.wav", None, "gone.wav: no such file; check the path"),
        ("empty.wav", b"", "empty.wav: the file is empty"),
        ("text.mp3", b"not audio at all" * 100, "text.mp3: not a readable audio file"),
        ("cut.wav", encode(tone())[:30], "cut.wav: not a readable audio file"),
        ("lies.wav", bytes(4000), "lies.wav: not a readable audio file"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        for read in (load, info):
            with pytest.raises(DecodeError, match=message):
                read(tmp_path / name)
    with pytest.raises(DecodeError, match="is a folder; name one audio file"):
        load(tmp_path)
    with pytest.raises(DecodeError, match="cannot be opened"):
        load("a\0b.wav")
    with pytest.raises(ParameterError, match="must be a path, bytes or a file object"):
        load(io.StringIO("text"))


def test_real_broken_files_end_in_audio_or_in_one_error():
    root = os.environ.get("AUDIOTORCH_DATA")
    if not root:
        pytest.skip("AUDIOTORCH_DATA is unset: no broken files to try")
    outcomes = {"read": 0, "refused": 0}
    for file in sorted(Path(root).glob("format_zoo/**/*.*")):
        error = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", TruncationWarning)
                waveform, _ = load(file, None)
        except DecodeError as caught:
            error = caught
        if error is None:
            assert bool(torch.isfinite(waveform).all())
        else:
            assert str(error).startswith(f"{file}: ")
        outcomes["read" if error is None else "refused"] += 1
    assert min(outcomes.values()) > 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_rate": 0}, "sample_rate=0: must be a positive whole number"),
        ({"sample_rate": 8000.5}, "sample_rate=8000.5: must be a positive whole number"),
        ({"offset": -0.1}, "offset=-0.1: must be 0 or more seconds"),
        ({"offset": float("nan")}, "offset=nan: must be 0 or more"),
        ({"offset": 1.0}, "offset=1.0: must lie inside the recording; <bytes> lasts 1.000 s"),
        ({"duration": 0.0}, "duration=0.0: must be above 0 seconds"),
        ({"duration": float("inf")}, "duration=inf: must be above 0 seconds"),
    ],
)
def test_load_refuses(arguments, message):
    with pytest.raises(ParameterError, match=message):
        load(encode(tone()), **arguments)


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", None, 1e-4),
        ("a.WAV", "PCM_24", 1e-6),
        ("a.wav", "DOUBLE", 0),
        ("a.flac", None, 1e-4),
        ("a.aiff", None, 1e-4),
        ("a.mp3", None, 0.1),
        ("a.ogg", None, 0.1),
        ("a.opus", None, 0.1),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_save_comes_back(name, subtype, tolerance, channels, tmp_path):
    waveform = torch.from_numpy(tone(channels=channels).T.copy()).float()
    save(tmp_path / name, waveform, RATE, subtype)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    samples, rate = soundfile.read(tmp_path / name, dtype="float32", always_2d=True)
    assert rate == RATE
    # libsndfile's Opus encoder loses the last few milliseconds.
    n = RATE * 9 // 10 if name.endswith("opus") else RATE
    np.testing.assert_allclose(samples.T[:, :n], waveform.numpy()[:, :n], atol=tolerance)
    assert len(samples) == RATE


def test_save_takes_one_channel_gradients_and_long_vorbis(tmp_path):
    waveform = torch.rand(40 * RATE).requires_grad_()
    save(tmp_path / "a.ogg", waveform, RATE)
    assert info(tmp_path / "a.ogg").n_frames == 40 * RATE
    save(tmp_path / "loud.wav", 3 * waveform[:5], RATE, subtype="float")
    np.testing.assert_array_equal(
        load(tmp_path / "loud.wav", None)[0][0].numpy(), 3 * waveform[:5].detach().numpy()
    )


@pytest.mark.parametrize(
    ("name", "waveform", "rate", "subtype", "message"),
    [
        ("a.xyz", torch.zeros(9), RATE, None, r"suffix must be one of \.wav, \.flac"),
        ("no/a.wav", torch.zeros(9), RATE, None, "its folder does not exist; create it"),
        ("a.wav", torch.zeros(9), 0, None, "sample_rate=0: must be a positive"),
        ("a.wav", torch.zeros(9), RATE, "MP4", "subtype='MP4': must be, in WAV, one of .*PCM_16"),
        ("a.wav", torch.zeros(1, 1, 9), RATE, None, r"must be a float tensor \(time,\) or"),
        ("a.wav", torch.zeros(9, dtype=torch.int16), RATE, None, "must be a float tensor"),
        ("a.wav", torch.tensor([0.0, torch.nan]), RATE, "FLOAT", "holds NaN or infinite"),
        ("a.wav", torch.tensor([0.0, -1.25]), RATE, None, r"peaks at 1.25 .* would clip .*Normal"),
        ("a.ogg", torch.tensor([0.0, 1.25]), RATE, None, "would clip in VORBIS"),
        ("a.opus", torch.zeros(9), 44100, None, "sample_rate=44100 with 1 channel.* cannot be"),
        ("a.mp3", torch.zeros(5, 9), RATE, None, r"5 channel\(s\): a.mp3 .* cannot be written"),
    ],
)
def test_save_refuses_and_leaves_nothing(name, waveform, rate, subtype, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        save(tmp_path / name, waveform, rate, subtype)
    assert not list(tmp_path.iterdir())


def test_save_takes_an_empty_recording(tmp_path):
    save(tmp_path / "a.wav", torch.zeros(0), RATE)
    assert info(tmp_path / "a.wav").n_frames == 0


def test_save_tells_what_the_system_refuses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.joinpath("a.wav").mkdir()
    with pytest.raises(OSError, match="directory"):
        save("a.wav", torch.zeros(9), RATE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]
    if Path("/proc/self").is_dir():  # A folder in which nobody can write, not even root.
        with pytest.raises(OSError, match="cannot be written; check rights and room on disk"):
            save("/proc/self/a.wav", torch.zeros(9), RATE)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
@pytest.mark.parametrize("rate", [None, 8000, 22050])
def test_stream_equals_load(container, subtype, rate):
    content = encode(np.tile(tone(), (6, 1)), container, subtype)
    whole, file_rate = load(content, rate, mono=False)
    for seconds in (0.013, 1.0, 2.5, 100.0):
        blocks = list(stream(content, seconds, rate))
        size = round(seconds * file_rate)
        assert {block.shape[1] for block in blocks[:-1]} <= {size}
        assert 0 < blocks[-1].shape[1] <= size
        # The MP3 decoder picks its code by chance of memory alignment: equal to rounding.
        np.testing.assert_allclose(torch.cat(blocks, 1).numpy(), whole.numpy(), atol=1e-6)
    mixed = torch.cat(list(stream(content, 1.0, rate, mono=True)), 1)
    np.testing.assert_allclose(mixed.numpy(), load(content, rate)[0].numpy(), atol=1e-6)


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
@pytest.mark.parametrize("rate", [None, 8000])
def test_a_part_of_a_stream_equals_load(container, subtype, rate):
    content = encode(np.tile(tone(), (6, 1)), container, subtype)
    for offset, duration in ((0.5, None), (0.0, 1.25), (1.1, 0.7), (2.0, 1e3), (1.0, 1e-9)):
        whole, _ = load(content, rate, mono=False, offset=offset, duration=duration)
        blocks = list(stream(content, 0.3, rate, offset=offset, duration=duration))
        np.testing.assert_allclose(torch.cat(blocks, 1).numpy(), whole.numpy(), atol=1e-6)
    with pytest.raises(ParameterError, match=r"offset=100\.0: must lie inside the recording"):
        list(stream(content, 0.3, rate, offset=100.0))


def test_a_streamed_part_names_bad_samples_by_their_place_in_the_file():
    samples = np.tile(tone(), (6, 1))
    samples[3 * RATE, 0] = np.nan
    with pytest.raises(DecodeError, match=r"the first at 3\.000 s"):
        list(stream(encode(samples, "WAV", "FLOAT"), 1.0, offset=2.5))
    assert len(list(stream(encode(samples, "WAV", "FLOAT"), 1.0, duration=2.9))) == 3


@pytest.mark.parametrize("n", [1, 999, 1000, 1001, 1749, 1750, 1751, 100_000])
def test_stream_overlaps(n):
    content = encode(np.linspace(-0.5, 0.5, n)[:, None])
    whole, _ = load(content, None)
    blocks = list(stream(content, 1000 / RATE, overlap_seconds=250 / RATE))
    starts = [0, *range(750, n - 250, 750)]
    assert len(blocks) == len(starts)
    for start, block in zip(starts, blocks, strict=True):
        assert torch.equal(block, whole[:, start : start + 1000])


def test_stream_of_an_empty_recording_is_one_empty_block():
    assert [block.shape for block in stream(encode(np.zeros((0, 2))), 1.0, 8000)] == [(2, 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block_seconds": 0.0}, "block_seconds=0.0: must be above 0"),
        ({"block_seconds": float("nan")}, "block_seconds=nan: must be above 0"),
        ({"block_seconds": 1.0, "overlap_seconds": 1.0}, "overlap_seconds=1.0: must be at least"),
        ({"block_seconds": 1.0, "overlap_seconds": -0.1}, "overlap_seconds=-0.1: must be at least"),
        ({"block_seconds": 1.0, "sample_rate": 0}, "sample_rate=0: must be a positive"),
        ({"block_seconds": 1.0, "offset": -1.0}, "offset=-1.0: must be 0 or more"),
        ({"block_seconds": 1.0, "duration": 0.0}, "duration=0.0: must be above 0"),
    ],
)
def test_stream_refuses_at_the_call(arguments, message):
    with pytest.raises(ParameterError, match=message):
        stream(encode(tone()), **arguments)


def test_stream_refuses_bad_samples_where_they_are():
    samples = np.tile(tone(), (20, 1))
    samples[-5, 0] = np.nan
    blocks = stream(encode(samples, "WAV", "FLOAT"), 1.0)
    assert next(blocks).shape == (2, RATE)
    with pytest.raises(DecodeError, match=r"the first at 20\.000 s|the first at 19\.999 s"):
        list(blocks)


def test_a_rate_that_cannot_be_is_refused():
    content = encode(tone(), rate=80)
    assert load(content, None)[0].shape == (1, RATE)
    with pytest.raises(DecodeError, match="<bytes>: its header says 80 Hz, which is too low for"):
        load(content)
    with pytest.raises(DecodeError, match="its header says 80 Hz"):
        list(stream(content, 1.0, 22050))


def test_stream_gives_what_is_sound_before_it_raises():
    content = bytearray(encode(np.random.default_rng(0).normal(0, 0.1, (8 * RATE, 1)), "FLAC"))
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    blocks = stream(bytes(content), 1.0)
    assert [next(blocks).shape for _ in range(3)] == [(1, RATE)] * 3
    with pytest.raises(DecodeError, match="corrupt after"):
        list(blocks)


def test_more_than_the_header_states_is_told():
    vorbis = encode(tone(), "OGG", "VORBIS")
    with pytest.warns(TruncationWarning, match="a chain of recordings, of which only the first"):
        assert load(vorbis + encode(tone(3 * RATE), "OGG", "VORBIS"), None)[0].shape == (1, RATE)
    noise = np.random.default_rng(0).normal(0, 0.1, (20 * RATE, 1))
    for container in ("FLAC", "MP3"):
        subtype = "PCM_16" if container == "FLAC" else "MPEG_LAYER_III"
        content = encode(noise, container, subtype)
        with pytest.warns(TruncationWarning, match="but more follow"):
            load(content + content, None)
    # A tag behind is no more sound.
    load(encode(noise, "MP3", "MPEG_LAYER_III") + bytes(200_000) + b"APETAGEX" + bytes(24), None)


def test_a_wav_whose_recorder_was_killed_is_read():
    content = bytearray(encode(tone()))
    content[4:8] = content[40:44] = bytes(4)
    assert load(bytes(content), None, mono=False)[0].shape == (2, RATE)


def test_a_flac_that_states_too_much_fills_no_memory():
    content = bytearray(encode(np.random.default_rng(0).normal(0, 0.1, (30 * RATE, 1)), "FLAC"))
    content[21] = content[21] & 0xF0 | 0x1
    with pytest.warns(TruncationWarning, match="promised"):
        assert load(bytes(content), None)[0].shape == (1, 30 * RATE)


@pytest.mark.parametrize("n", [15, 29, 1000, 6285])
def test_an_offset_of_whole_samples_is_that_sample(n):
    content = encode(tone(), rate=44100)
    whole, _ = load(content, None)
    part, _ = load(content, None, offset=n / 44100, duration=n / 44100)
    assert torch.equal(part, whole[:, n : 2 * n])


def test_times_beyond_all_bounds():
    content = encode(tone())
    for offset in (1e18, 1e305):
        with pytest.raises(ParameterError, match="must lie inside the recording"):
            load(content, offset=offset)
    assert load(content, None, duration=1e305)[0].shape == (1, RATE)
    assert load(content, None, offset=0.5, duration=1e-9)[0].shape == (1, 0)
    assert len(list(stream(content, 1e305))) == 1


class ShortReads(io.RawIOBase):
    """A file that gives a thousand bytes at a time."""

    def __init__(self, content):
        self.file = io.BytesIO(content)

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=0):
        return self.file.seek(offset, whence)

    def tell(self):
        return self.file.tell()

    def readinto(self, buffer):
        return self.file.readinto(memoryview(buffer)[:1000])


def test_odd_sources(tmp_path):
    content = encode(tone(4 * RATE), "OGG", "VORBIS")
    whole, _ = load(content, None)
    assert torch.equal(load(ShortReads(content), None)[0], whole)
    doubled = np.repeat(np.frombuffer(content, np.uint8), 2)
    assert torch.equal(load(memoryview(doubled)[::2], None)[0], whole)
    closed = io.BytesIO(content)
    closed.close()
    (tmp_path / "text").write_text("text")
    with codecs.open(str(tmp_path / "text"), encoding="utf-8") as text:
        for source in (closed, text, object()):
            with pytest.raises(ParameterError, match="opened in binary mode"):
                load(source)
