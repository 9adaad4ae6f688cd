import dataclasses
import io
import json
import math
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import soxr
import torch

import audiotorch as at
from audiotorch.audio import measures
from audiotorch.audio.quality import QualityMeter, check
from audiotorch.audio.runs import find_runs
from audiotorch.errors import ParameterError

RATE = 16000


def names(waveform, sample_rate=RATE, **thresholds):
    return [finding.name for finding in check(waveform, sample_rate, **thresholds).findings]


def noise(*shape, seed=0, level=0.1):
    return level * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tone(frequency=440.0, seconds=1.0, rate=RATE, level=1.0):
    return level * torch.sin(2 * math.pi * frequency * torch.arange(round(seconds * rate)) / rate)


def to_16_bits(samples):
    return (np.round(np.clip(samples, -1, 1 - 2**-15) * 32768) / 32768).astype(np.float32)


def recordings(*patterns, n=25):
    """Up to n clips of each pattern, evenly spread, as numpy `(channel, time)` and rate."""
    root = os.environ.get("AUDIOTORCH_DATA")
    if not root:
        pytest.skip("AUDIOTORCH_DATA is unset: no recordings to check")
    for pattern in patterns:
        paths = sorted(Path(root).glob(pattern))
        assert paths, pattern
        for index in np.unique(np.linspace(0, len(paths) - 1, n).astype(int)):
            samples, rate = soundfile.read(paths[index], dtype="float32", always_2d=True)
            yield paths[index].relative_to(root).as_posix(), np.ascontiguousarray(samples.T), rate


def share(hits):
    hits = list(hits)
    return sum(hits) / len(hits)


# --- numbers --------------------------------------------------------------------------------------


def test_numbers_equal_plain_numpy_in_float64():
    waveform = noise(2, 40000, seed=1, level=0.3)
    quality = check(waveform, RATE)
    samples = waveform.double().numpy()
    frames = (samples[:, :39936].reshape(2, -1, 512) ** 2).mean(axis=(0, 2))
    assert quality.n_frames == 40000
    assert quality.duration_seconds == 2.5
    assert quality.peak == np.abs(samples).max()
    assert quality.peak_db == pytest.approx(20 * np.log10(np.abs(samples).max()))
    assert quality.rms_db == pytest.approx(10 * np.log10((samples**2).mean()), abs=1e-9)
    assert quality.clipped_share == (np.abs(samples) >= np.float32(0.99)).mean()
    assert quality.dc_offset == pytest.approx(max(samples.mean(axis=1), key=abs), abs=1e-12)
    assert quality.silence_share == (frames < 1e-6).mean()


def test_runs_equal_a_loop():
    generator = np.random.default_rng(0)
    for _ in range(200):
        samples = generator.integers(0, 2, generator.integers(0, 40)).astype(np.float32)
        expected, start = [], 0
        for stop in range(1, len(samples) + 1):
            if stop == len(samples) or samples[stop] != samples[start]:
                expected += [(start, stop)] if stop - start >= 3 else []
                start = stop
        runs = find_runs(samples)
        assert list(zip(runs.starts.tolist(), runs.stops.tolist(), strict=True)) == expected


def test_bandwidth_is_that_of_filtered_noise():
    samples = noise(5 * 44100, seed=2).numpy()
    for cutoff in (3000, 8000, 16000):
        filtered = scipy.signal.sosfiltfilt(
            scipy.signal.butter(24, cutoff, fs=44100, output="sos"), samples
        )
        quality = check(to_16_bits(filtered), 44100)
        # 24th order there and back falls by 60 dB within 8 %.
        assert cutoff < quality.bandwidth_hz < 1.1 * cutoff
    assert check(samples, 44100).bandwidth_hz == pytest.approx(22050, rel=0.01)


@pytest.mark.parametrize("snr_db", [0, 5, 10, 15])
def test_snr_of_speech_in_noise(snr_db):
    """Within 1.5 dB for nine in ten, of speech whose own background lies 15 dB lower still."""
    errors = []
    for _, samples, rate in recordings("speech/en/*.wav", "arabic_commands/audio/*/*.flac"):
        if not check(samples, rate).snr_db > snr_db + 15:
            continue
        hiss = np.random.default_rng(len(errors)).standard_normal(samples.shape)
        hiss *= np.sqrt((samples**2).mean() / (hiss**2).mean()) * 10 ** (-snr_db / 20)
        errors.append(check((samples + hiss) / 2, rate).snr_db - snr_db)
    assert len(errors) >= 20
    assert np.percentile(np.abs(errors), 90) < 1.5


# --- blocks ---------------------------------------------------------------------------------------


def broken_recording():
    """Eight seconds in two channels with every fault in it."""
    waveform = noise(2, 8 * RATE, seed=3, level=0.2)
    waveform[0] = waveform[0].clamp(-0.4, 0.35)
    waveform[:, 50000:52000] = 0
    waveform[1, 90000:90100] = waveform[1, 90000]
    waveform[0, 7] = math.nan
    waveform[1, 100000:100003] = math.inf
    waveform[0, 32760:32800] = math.inf  # around the end of a piece, in the sight of two
    return waveform


@pytest.mark.parametrize("seed", range(4))
def test_blocks_give_what_the_whole_gives(seed):
    waveform = broken_recording()
    whole = check(waveform, RATE)
    assert {"clipping", "non_finite", "dropouts"} <= {f.name for f in whole.findings}
    generator = np.random.default_rng(seed)
    longest = (3, 500, 20000, 120000)[seed]
    meter, at_sample = QualityMeter(RATE, 2), 0
    while at_sample < waveform.shape[1]:
        size = int(generator.integers(0, longest))
        block = waveform[:, at_sample : at_sample + size].clone()
        meter.update(block)
        block.fill_(1.0)  # the block is the caller's again
        at_sample += size
    assert meter.result() == whole
    assert meter.result() == whole


def test_pieces_do_not_show(monkeypatch):
    """The fixed pieces of the measurement itself: a recording of one piece against many."""
    waveform = broken_recording()
    many = check(waveform, RATE)
    monkeypatch.setattr(measures, "PIECE_FRAMES", 256)
    monkeypatch.setattr("audiotorch.audio.quality.PIECE_FRAMES", 256)
    one = check(waveform, RATE)
    assert one.findings == many.findings
    for field in dataclasses.fields(one)[:-1]:
        value = getattr(one, field.name)
        assert getattr(many, field.name) == pytest.approx(value, rel=1e-6), field.name


def test_memory_is_bounded():
    meter = QualityMeter(RATE, 2)
    block = noise(2, 5 * RATE)

    def grow(n):
        tracemalloc.start()
        for _ in range(n):
            meter.update(block)
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return held, peak

    grow(4)
    held, peak = grow(120)
    assert held < 2e6
    assert peak < 3e7
    assert meter.result().duration_seconds == 620


def test_result_can_be_asked_in_between():
    waveform = broken_recording()
    meter = QualityMeter(RATE, 2)
    meter.update(waveform[:, :33333])
    assert meter.result() == check(waveform[:, :33333], RATE)
    meter.update(waveform[:, 33333:])
    assert meter.result() == check(waveform, RATE)


# --- planted faults -------------------------------------------------------------------------------

SPEECH = ("speech/*/*.wav", "arabic_commands/audio/*/*.flac")
ALL = (
    *SPEECH,
    "fsdd/recordings/*.wav",
    "esc10/*/*.ogg",
    "machine_sounds/*/*/*.flac",
    "music_examples/audio/*.ogg",
)


@pytest.mark.parametrize(("level", "at_least"), [(0.3, 0.95), (0.5, 0.9), (0.7, 0.75)])
@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_clipped_copies_are_found(level, at_least, gain):
    """Clipped at a share of the peak, turned down, rounded to 16 bits, written as FLAC."""

    def clipped(samples, rate):
        limit = level * np.abs(samples).max()
        file = io.BytesIO()
        soundfile.write(file, gain * np.clip(samples, -limit, limit).T, rate, format="FLAC")
        file.seek(0)
        return soundfile.read(file, dtype="float32", always_2d=True)[0].T

    found = ["clipping" in names(clipped(x, rate), rate) for _, x, rate in recordings(*ALL)]
    assert share(found) >= at_least


def test_two_plateaus_of_a_recording_turned_up_midway():
    for _, samples, rate in recordings("speech/en/*.wav", n=4):
        limit = 0.3 * np.abs(samples).max()
        copy = np.clip(samples, -limit, limit)
        copy[:, copy.shape[1] // 2 :] *= 0.4
        assert "clipping" in names(to_16_bits(copy), rate)


def test_clipping_is_told_in_place_and_size():
    waveform = noise(RATE, level=0.01)
    waveform[8000:9000] = tone(seconds=1000 / RATE).clamp(-0.6, 0.6)
    (finding,) = check(waveform, RATE).findings
    assert finding.name == "clipping"
    assert "0.50" in finding.message
    n_halves = 2 * 1000 * 440 / RATE
    assert check(waveform, RATE).n_flat_tops == pytest.approx(n_halves, abs=1)


@pytest.mark.parametrize("method", ["soxr", "polyphase"])
@pytest.mark.parametrize(
    ("old", "new"), [(8000, 16000), (8000, 22050), (8000, 44100), (16000, 44100), (22050, 44100)]
)
def test_upsampled_copies_are_found(method, old, new):
    found = []
    for _, samples, rate in recordings(*ALL, n=8):
        if rate < old:
            continue
        low = soxr.resample(samples.T, rate, old, quality="HQ").reshape(-1, len(samples))
        if method == "soxr":
            copy = soxr.resample(low, old, new, quality="HQ").T
        else:
            copy = scipy.signal.resample_poly(low, new, old, axis=0).T
        quality = check(to_16_bits(copy.reshape(len(samples), -1)), new)
        hit = "low_bandwidth" in [finding.name for finding in quality.findings]
        found.append(hit)
        if hit:
            assert quality.bandwidth_hz < 1.2 * old / 2
    # What falls through is dull already below half the old rate.
    assert share(found) >= (0.9 if method == "soxr" else 0.7)


@pytest.mark.parametrize(("old", "new"), [(8000, 16000), (8000, 32000), (11025, 22050)])
def test_linear_interpolation_is_found(old, new):
    """By the factors two and four; odd and broken ones leave no such trace."""
    found = []
    for _, samples, rate in recordings(*SPEECH, n=15):
        low = soxr.resample(samples[0], rate, old, quality="HQ") if rate != old else samples[0]
        times = np.arange(int(len(low) * new / old)) * old / new
        if rate >= old:
            found.append(
                "low_bandwidth" in names(to_16_bits(np.interp(times, range(len(low)), low)), new)
            )
    assert share(found) >= 0.9


@pytest.mark.parametrize("milliseconds", [5, 20, 100, 400])
def test_gaps_are_found(milliseconds):
    found = []
    for _, samples, rate in recordings(*SPEECH, "machine_sounds/*/*/*.flac", n=30):
        length = rate * milliseconds // 1000
        energy = np.convolve(samples[0].astype(np.float64) ** 2, np.ones(400), "same")
        loud = np.flatnonzero(energy > energy.mean())
        loud = loud[(loud > 1000) & (loud < samples.shape[1] - length - 1000)]
        if len(loud) == 0:
            continue
        start = int(np.random.default_rng(len(found)).choice(loud))
        after = energy[start + length + 200]
        if after < 0.1 * energy.mean():
            continue  # the gap runs into a pause
        copy = samples.copy()
        copy[:, start : start + length] = 0
        quality = check(copy, rate)
        found.append(any(abs(t - start / rate) < 0.002 for t in quality.dropout_seconds))
    assert len(found) > 40
    assert share(found) >= 0.85


def test_a_held_value_is_a_gap():
    waveform = noise(RATE, level=0.2)
    waveform[5000:5200] = waveform[5000] = 0.05
    quality = check(waveform, RATE)
    assert [finding.name for finding in quality.findings] == ["dropouts"]
    assert quality.dropout_seconds == (5000 / RATE,)


def test_silence_around_and_between_fades_is_no_gap():
    waveform = noise(3 * RATE, level=0.2)
    waveform[: RATE // 2] = 0
    waveform[-RATE // 2 :] = 0
    assert names(waveform) == []
    fade = torch.linspace(1, 0, 400)
    waveform[RATE : RATE + 400] *= fade
    waveform[RATE + 400 : RATE + 2000] = 0
    waveform[RATE + 2000 : RATE + 2400] *= fade.flip(0)
    assert names(waveform) == []


def test_offset_channels_and_levels():
    mono = noise(RATE, seed=5)
    other = noise(RATE, seed=6)
    assert names(mono + 0.02) == ["dc_offset"]
    assert check(mono - 0.02, RATE).dc_offset == pytest.approx(-0.02, abs=2e-3)
    assert names(torch.stack([mono, 0 * mono])) == ["dead_channel"]
    assert check(torch.stack([mono * 5e-4, mono, other]), RATE).dead_channels == (0,)
    assert check(torch.stack([mono, other, mono]), RATE).identical_channels == ((0, 2),)
    rounded = torch.from_numpy(to_16_bits(mono.numpy()))
    assert names(torch.stack([mono, rounded])) == ["identical_channels"]
    inverted = check(torch.stack([rounded, -mono]), RATE)
    assert inverted.inverted_channels == ((0, 1),)
    assert "cancels" in inverted.findings[0].message
    assert names(torch.stack([mono, mono + 1e-3 * other])) == []
    assert names(mono * 0.005) == ["low_level"]
    assert names(torch.zeros(2, RATE)) == ["silence"]
    assert names(torch.cat([mono, torch.zeros(99 * RATE)])) == ["silence"]
    assert names(mono[: RATE // 3]) == ["too_short"]
    assert names(mono, min_snr_db=10) == ["noisy"]


def test_non_finite_samples_leave_the_rest_as_it_is():
    waveform = noise(2, RATE, seed=7)
    sound = check(waveform, RATE)
    waveform[1, 8000:8003] = torch.tensor([math.nan, math.inf, -math.inf])
    quality = check(waveform, RATE)
    assert [finding.name for finding in quality.findings] == ["non_finite"]
    assert quality.n_non_finite == 3
    assert "0.500 s" in quality.findings[0].message
    assert quality.rms_db == pytest.approx(sound.rms_db, abs=1e-3)
    assert quality.peak == sound.peak


# --- clean recordings -----------------------------------------------------------------------------

# What fires on the originals is true of them: words shorter than half a second, heart sounds that
# stand at full scale for ten samples, clips that somebody upsampled before.
TRUE = {
    "fsdd": {"too_short"},
    "heart_pascal_b": {"clipping"},
    "heart_yaseen": {"clipping"},
    "esc10": {"low_bandwidth"},
    "music_examples": {"low_bandwidth"},
}
HEARTS = ("heart_pascal_b/audio/*/*.flac", "heart_yaseen/audio/*/*.flac")


def test_nothing_is_invented_on_originals():
    n_low = n_esc10 = 0
    for name, samples, rate in recordings(*ALL, *HEARTS, "music_beats/audio/*.wav", n=60):
        found = set(names(samples, rate))
        assert found <= TRUE.get(name.split("/")[0], set()), (name, found)
        if name.startswith("esc10"):
            n_esc10 += 1
            n_low += "low_bandwidth" in found
    assert n_low <= 0.06 * n_esc10  # 10 of 320: cliffs at 5.5, 7.4, 8.5, 10 to 12 kHz


@pytest.mark.parametrize("kind", ["8-bit", "turned down", "8-bit, turned down"])
def test_coarse_and_quiet_copies_are_clean(kind):
    for name, samples, rate in recordings(*ALL, n=20):
        known = set(names(samples, rate))
        copy = samples / np.abs(samples).max()
        if "8-bit" in kind:
            copy = np.round(copy * 120) / 128
        if "down" in kind:
            copy = to_16_bits(0.1 * copy)
        found = set(names(copy, rate)) - known
        # Turned up to full scale, an offset grows; at a tenth, much of a dynamic clip is silent.
        assert found <= {"dc_offset", "silence", "low_level"}, (name, found)


@pytest.mark.parametrize("rate", [8000, 44100, 192000])
@pytest.mark.parametrize("frequency", [30.0, 440.0, 997.3, 3000.0])
@pytest.mark.parametrize("bits", [None, 16, 8])
def test_clean_tones_have_no_fault(rate, frequency, bits):
    waveform = tone(frequency, 2.0, rate)
    if bits:
        waveform = torch.round(waveform * (2 ** (bits - 1) - 1)) / 2 ** (bits - 1)
    assert names(waveform, rate) == []


# --- attacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 1000, 8000, 192000])
@pytest.mark.parametrize(
    "waveform",
    [
        torch.zeros(0),
        torch.zeros(3, 0),
        torch.ones(1),
        torch.ones(2, 3),
        torch.zeros(8, 5000),
        torch.full((5000,), math.nan),
        torch.full((2, 5000), -math.inf),
        torch.full((5000,), 0.3),
        torch.full((5000,), 1e38),
        torch.tensor([1e38, -1e11, 1e-40] * 1000),
        torch.sign(torch.sin(torch.arange(20000.0) / 30)),
        noise(8, 4000),
        noise(1, 3000).double(),
        noise(1, 3000).half(),
        noise(1, 3000).bfloat16(),
        torch.eye(1, 9000)[0],
    ],
    ids=lambda w: f"{list(w.shape)}{w.dtype}",
)
def test_anything_gives_json(waveform, rate):
    quality = check(waveform, rate)
    text = json.dumps(quality.as_dict(), allow_nan=False)
    assert json.loads(text)["n_frames"] == waveform.shape[-1]
    assert quality.ok == (quality.findings == ())
    if waveform.numel() == 0:
        assert [finding.name for finding in quality.findings] == ["empty"]


def test_the_input_is_left_alone():
    waveform = broken_recording().requires_grad_()
    before = waveform.detach().clone()
    assert check(waveform, RATE) == check(before.numpy(), RATE)
    assert torch.equal(waveform.detach().nan_to_num(), before.nan_to_num())


def test_wrong_use_is_refused():
    wrong = [
        (lambda: check(torch.zeros(5, dtype=torch.int16), RATE), "int16: must be a float tensor"),
        (lambda: check(torch.zeros(1, 2, 3), RATE), r"shape \(1, 2, 3\)"),
        (lambda: check(torch.zeros(0, 3), RATE), "must have a channel"),
        (lambda: check(torch.zeros(3), 0), "sample_rate=0"),
        (lambda: check(torch.zeros(3), RATE, loudness=3), "loudness: no such threshold; known: "),
        (lambda: check(torch.zeros(3), RATE, min_duration="1"), "min_duration='1'"),
        (lambda: check(torch.zeros(3), RATE, max_dc_offset=math.nan), "max_dc_offset=nan"),
        (lambda: QualityMeter(RATE, 0), "n_channels=0"),
        (lambda: QualityMeter(RATE, 2).update(torch.zeros(3, 5)), r"3 channel\(s\)"),
    ]
    for call, message in wrong:
        with pytest.raises(ParameterError, match=message):
            call()


def test_thresholds_move_the_findings():
    waveform = noise(RATE)
    assert names(waveform, min_duration=2) == ["too_short"]
    assert names(waveform, min_peak_db=0) == ["low_level"]
    assert names(waveform + 0.02, max_dc_offset=0.05) == []
    assert names(tone(), max_clipped_share=0, clip_level=0.5) == ["clipping"]


def test_public_names():
    assert at.check is check
    assert {at.Quality, at.Finding} == {
        type(check(noise(9), 9)),
        type(check(noise(9), 99).findings[0]),
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        check(noise(9), 9).peak = 1.0


def test_import_loads_no_scipy():
    code = "import sys, audiotorch; audiotorch.check; print('scipy' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "False\n"
