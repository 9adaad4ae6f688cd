"""Pictures of sounds: the numbers in them are read back and held against librosa and scipy."""

import io
import warnings

import librosa
import matplotlib.image
import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from matplotlib.collections import QuadMesh

import audiotorch as at
from audiotorch.errors import DecodeError, ParameterError, TruncationWarning
from audiotorch.features.extractor import FEATURES
from audiotorch.plot import (
    chroma,
    compare,
    feature_over_time,
    mel_spectrogram,
    mfcc,
    new_figure,
    overview,
    pixels,
    power_spectral_density,
    save_figure,
    spectrogram,
    waveform,
)
from audiotorch.plot.density import spectral_peaks
from audiotorch.plot.measures import COLUMNS, Density, Envelope, Power, gather
from audiotorch.plot.recording import Recording
from audiotorch.plot.scales import mark_seconds, note_name
from audiotorch.plot.tracks import UNITS

ONE_AXES = (waveform, spectrogram, mel_spectrogram, mfcc, chroma, power_spectral_density)
ONE_AXES += (feature_over_time,)
ALL = (*ONE_AXES, overview)


def tone(frequency, rate=22050, seconds=2.0, amplitude=0.5):
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def noise(rate=22050, seconds=2.0, channels=None):
    shape = round(rate * seconds) if channels is None else (channels, round(rate * seconds))
    return (0.1 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)


def wav(samples, rate=22050, kind="WAV"):
    file = io.BytesIO()
    soundfile.write(file, samples.T, rate, format=kind, subtype=None if kind != "WAV" else "FLOAT")
    return file.getvalue()


def rows_of(axes):
    """Values, and edges in Hz and seconds, of a picture whatever matplotlib made it of."""
    if axes.images:
        values = np.asarray(axes.images[0].get_array())
        left, right, low, high = axes.images[0].get_extent()
        n_rows, n_columns = values.shape
        return values, np.linspace(low, high, n_rows + 1), np.linspace(left, right, n_columns + 1)
    (mesh,) = (each for each in axes.collections if isinstance(each, QuadMesh))
    corners = mesh.get_coordinates()
    return np.asarray(mesh.get_array()), corners[:, 0, 1], corners[0, :, 0]


def labels_of(axes, along="y"):
    axes.figure.canvas.draw()
    axis = axes.yaxis if along == "y" else axes.xaxis
    low, high = axis.get_view_interval()
    ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return {label.get_text(): place for place, label in ticks if low <= place <= high}


# --- oracles --------------------------------------------------------------------------------------


def test_linear_spectrogram_is_librosas(recordings):
    for recording in recordings[::4]:
        samples, rate = recording.samples.astype(np.float32), recording.sample_rate
        axes = spectrogram(samples, rate)
        values, hz, seconds = rows_of(axes)
        expected = librosa.amplitude_to_db(np.abs(librosa.stft(samples)), ref=np.max, top_db=80)
        np.testing.assert_allclose(values, expected, atol=2e-3)
        assert values.max() == 0
        assert axes.images[0].get_clim() == (-80, 0)
        np.testing.assert_allclose((hz[:-1] + hz[1:]) / 2, librosa.fft_frequencies(sr=rate))
        centres = librosa.frames_to_time(np.arange(values.shape[1]), sr=rate)
        np.testing.assert_allclose((seconds[:-1] + seconds[1:]) / 2, centres, atol=1e-9)
        assert axes.get_xlim() == pytest.approx((0, len(samples) / rate))
        assert axes.get_ylim() == (0, rate / 2)


@pytest.mark.parametrize("scale", ["log", "mel", "note"])
def test_rows_of_other_scales_are_librosas_bins_or_the_largest_of_some(scale, recordings):
    samples, rate = recordings[-1].samples.astype(np.float32), recordings[-1].sample_rate
    values, hz, _ = rows_of(spectrogram(samples, rate, scale=scale))
    expected = librosa.amplitude_to_db(np.abs(librosa.stft(samples)), ref=np.max, top_db=80)
    bins = librosa.fft_frequencies(sr=rate)
    of_row = np.searchsorted(hz, bins, side="right") - 1
    # Bin 0 has no place on a logarithmic axis but below all others.
    of_row = np.clip(of_row, 0, len(values) - 1)
    counts = np.bincount(of_row, minlength=len(values))
    assert (counts >= 1).all()
    assert counts[1] == 1 < counts[-1]
    for row, drawn in enumerate(values):
        np.testing.assert_allclose(drawn, expected[of_row == row].max(axis=0), atol=2e-3)


def test_mel_mfcc_and_chroma_are_librosas(recordings):
    for recording in recordings[1::5]:
        samples, rate = recording.samples.astype(np.float32), recording.sample_rate
        mel = librosa.feature.melspectrogram(y=samples, sr=rate)
        values, hz, _ = rows_of(mel_spectrogram(samples, rate))
        np.testing.assert_allclose(values, librosa.power_to_db(mel, ref=np.max), atol=2e-3)
        centres = librosa.mel_frequencies(130, fmax=rate / 2)[1:-1]
        assert ((hz[:-1] < centres) & (centres < hz[1:])).all()
        axes = mfcc(samples, rate)
        np.testing.assert_allclose(
            rows_of(axes)[0], librosa.feature.mfcc(y=samples, sr=rate), atol=0.02
        )
        axes = chroma(samples, rate)
        np.testing.assert_allclose(
            rows_of(axes)[0], librosa.feature.chroma_stft(y=samples, sr=rate), atol=2e-3
        )
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names == "C C\u266f D D\u266f E F F\u266f G G\u266f A A\u266f B".split()


@pytest.mark.parametrize("n_fft", [None, 256, 1000, 1001])
def test_density_is_scipys(n_fft, recordings):
    for recording in recordings[::5]:
        density = Density(Recording(recording.samples, recording.sample_rate), n_fft)
        gather(Recording(recording.samples, recording.sample_rate), [density])
        hz, expected = scipy.signal.welch(
            recording.samples, recording.sample_rate, nperseg=density.n_fft
        )
        np.testing.assert_allclose(density.frequencies, hz)
        np.testing.assert_allclose(density.density, expected, rtol=1e-9, atol=1e-30)


def test_density_of_the_picture_is_in_decibels_of_full_scale():
    samples, rate = noise(seconds=3), 22050
    axes = power_spectral_density(samples, rate, n_fft=1024)
    hz, expected = scipy.signal.welch(samples.astype(float), rate, nperseg=1024)
    line = axes.lines[0]
    np.testing.assert_allclose(line.get_xdata(), hz[1:])
    np.testing.assert_allclose(line.get_ydata(), 10 * np.log10(expected[1:]), atol=1e-3)
    assert axes.get_ylabel() == "dBFS per Hz"
    assert axes.get_xlabel() == "Hz"
    assert axes.get_xscale() == "log"


def test_features_over_time_are_librosas(recordings):
    samples, rate = recordings[-1].samples.astype(np.float32), recordings[-1].sample_rate
    for name, expected, unit in (
        ("rms", librosa.feature.rms(y=samples), "full scale"),
        ("spectral_centroid", librosa.feature.spectral_centroid(y=samples, sr=rate), "Hz"),
        ("zero_crossing_rate", librosa.feature.zero_crossing_rate(samples), "per sample"),
    ):
        axes = feature_over_time(samples, rate, name)
        line = axes.lines[0]
        np.testing.assert_allclose(line.get_ydata(), expected[0], rtol=1e-4)
        np.testing.assert_allclose(
            line.get_xdata(), librosa.frames_to_time(np.arange(expected.shape[1]), sr=rate)
        )
        assert unit in axes.get_ylabel()
        assert axes.get_title() == name.replace("_", " ")


@pytest.mark.parametrize("name", sorted(FEATURES))
def test_every_feature_can_be_drawn(name):
    axes = feature_over_time(noise() + tone(440), 22050, name)
    assert UNITS[name]
    drawn = [line.get_ydata() for line in axes.lines] or [rows_of(axes)[0]]
    assert all(np.isfinite(each).all() for each in drawn)
    assert pixels(axes.figure).std() > 5
    assert {*UNITS} == {*FEATURES}


# --- axes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["linear", "log", "mel", "note"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_tone_is_brightest_at_its_frequency(scale, rate):
    axes = spectrogram(tone(440, rate), rate, scale=scale)
    values, hz, _ = rows_of(axes)
    row = int(values.mean(axis=1).argmax())
    assert hz[row] < 440 < hz[row + 1]
    labels = labels_of(axes)
    assert axes.get_ylabel() == ("note" if scale == "note" else "Hz")
    if scale == "note":
        assert labels["C4"] == pytest.approx(261.6256, abs=1e-3)
        assert all(note_name(place) == label for label, place in labels.items())
    else:
        assert labels["1k" if scale != "linear" else "2k" if rate == 8000 else "5k"] in (
            1000, 2000, 5000,
        )  # fmt: skip
        for label, place in labels.items():
            assert float(label.replace("k", "")) * (1000 if "k" in label else 1) == place
    # Where a tick is drawn on the picture is where the frequency lies in it.
    height = axes.transData.transform([(0, 440)])[0, 1]
    low, high = axes.transData.transform([(0, hz[row]), (0, hz[row + 1])])[:, 1]
    assert low < height < high


def test_notes_have_their_names_where_they_are_few():
    labels = labels_of(spectrogram(tone(440), 22050, scale="note", fmin=200, fmax=900))
    assert labels["A4"] == pytest.approx(440)
    assert {"C4", "E4"} <= {*labels}
    assert [note_name(f) for f in (27.5, 110, 261.63, 466.16)] == ["A0", "A2", "C4", "A\u266f4"]


def test_the_bar_is_in_decibels_and_the_maps_are_uniform():
    for draw in (spectrogram, mel_spectrogram):
        axes = draw(noise(), 22050, top_db=60)
        bar = axes.figure.axes[1]
        assert bar.get_ylabel() == "dB (maximum = 0)"
        assert bar.get_ylim() == (-60, 0)
        values = rows_of(axes)[0]
        assert values.max() == 0
        assert values.min() >= -60
        (image,) = [*axes.images, *axes.collections]
        assert image.get_cmap().name in ("magma", "viridis", "cividis")
        assert len(draw(noise(), 22050, colorbar=False).figure.axes) == 1


@pytest.mark.parametrize(
    ("start", "end", "label", "ticks"),
    [
        (0, 11, "seconds", {"2": 2, "10": 10}),
        (0, 300, "minutes:seconds", {"0:00": 0, "1:00": 60, "5:00": 300}),
        (0, 3600, "minutes:seconds", {"10:00": 600, "60:00": 3600}),
        (3590, 3650, "minutes:seconds", {"60:00": 3600, "60:10": 3610}),
        (0, 36000, "hours:minutes", {"1:00": 3600, "10:00": 36000}),
        (3600, 3601, "seconds", {"3600.0": 3600}),
    ],
)
def test_times_are_written_as_the_axis_says(start, end, label, ticks):
    axes = new_figure(10, 3).add_subplot()
    mark_seconds(axes, start, end)
    assert axes.get_xlabel() == label
    found = labels_of(axes, "x")
    assert {text: place for text, place in found.items() if text in ticks} == ticks
    assert 3 <= len(found) <= 20


def test_offset_and_duration_choose_a_part_and_name_its_times(recordings):
    samples, rate = recordings[-1].samples.astype(np.float32), recordings[-1].sample_rate
    whole, part = noise(8000, 4.0), slice(8000, 24000)
    for source, options in ((whole, {"sample_rate": 8000}), (wav(whole, 8000), {})):
        values, _, seconds = rows_of(spectrogram(source, **options, offset=1.0, duration=2.0))
        expected = np.abs(librosa.stft(whole[part]))
        expected = librosa.amplitude_to_db(expected, ref=np.max, top_db=80)
        np.testing.assert_allclose(values, expected, atol=2e-3)
        assert (seconds[0] + seconds[1]) / 2 == pytest.approx(1.0)
        with pytest.raises(ParameterError, match="offset=9"):
            waveform(source, **options, offset=9.0)
    axes = waveform(samples, rate, offset=1.0, duration=0.5)
    assert axes.get_xlim() == pytest.approx((1.0, 1.5))


def test_given_axes_are_drawn_on():
    for draw in ONE_AXES:
        axes = new_figure(6, 3).add_subplot()
        assert draw(noise(seconds=0.5), 22050, ax=axes, title="$x$ \x1b<b>") is axes
        assert axes.get_title() == r"\$x\$ \x1b<b>"
        assert pixels(axes.figure).std() > 5


# --- waveform -------------------------------------------------------------------------------------


def test_few_samples_are_drawn_as_they_are():
    samples = noise(8000, 0.1)
    line = waveform(samples, 8000).lines[0]
    np.testing.assert_array_equal(line.get_ydata(), samples)
    np.testing.assert_allclose(line.get_xdata(), np.arange(800) / 8000)


@pytest.mark.parametrize("place", [0, 123_457, 1_999_999])
def test_no_click_is_lost(place):
    samples = np.zeros(2_000_000, np.float32)
    samples[place] = -0.9
    bands = waveform(samples, 44100).collections
    points = np.concatenate([path.vertices for band in bands for path in band.get_paths()])
    deepest = points[points[:, 1].argmin()]
    assert deepest[1] == pytest.approx(-0.9)
    assert abs(deepest[0] - place / 44100) <= 1000 / 44100


def test_channels_have_lanes():
    samples = np.stack([tone(5, amplitude=0.5), np.zeros(44100, np.float32)])
    axes = waveform(samples, 22050)
    assert [text.get_text() for text in axes.texts] == ["left", "right"]
    assert {"0.3", "0", "\u22120.3"} <= {*labels_of(axes)}
    first, _, second, _ = axes.collections
    assert np.ptp(first.get_paths()[0].vertices[:, 1]) == pytest.approx(1.0, abs=0.01)
    assert np.ptp(second.get_paths()[0].vertices[:, 1]) == 0
    many = waveform(noise(channels=10, seconds=0.5), 22050)
    assert many.get_ylabel() == "amplitude, 10 channels"
    assert not many.texts


# --- peaks ----------------------------------------------------------------------------------------


def peaks_of(samples, rate, n_fft=None):
    density = Density(Recording(samples, rate), n_fft)
    gather(Recording(samples, rate), [density])
    return spectral_peaks(density), density


def test_a_tones_peak_has_its_frequency_and_note():
    axes = power_spectral_density(tone(440) + 0.01 * noise(), 22050)
    assert [text.get_text().strip() for text in axes.texts] == ["440 Hz A4"]
    assert axes.texts[0].xy[0] == pytest.approx(440, abs=0.5)


@pytest.mark.parametrize("frequency", [221.7, 440.0, 987.6, 3333.3])
def test_peaks_are_found_between_bins(frequency):
    found, density = peaks_of(tone(frequency, 16000) + 0.01 * noise(16000), 16000)
    assert found[0].frequency == pytest.approx(frequency, abs=0.1 * density.frequencies[1])
    assert found[0].is_tonal


def test_the_strongest_tones_come_first_and_quiet_ones_count():
    mix = tone(300, amplitude=0.1) + tone(1000, amplitude=0.4) + tone(1060, amplitude=0.2)
    found, _ = peaks_of(mix + 1e-3 * noise(), 22050)
    assert [round(peak.frequency) for peak in found] == [1000, 1060, 300]


def test_noise_has_no_peaks_and_a_hump_no_note():
    assert peaks_of(noise(seconds=5), 22050)[0] == []
    assert peaks_of(np.zeros(22050, np.float32), 22050)[0] == []
    b, a = scipy.signal.iirpeak(1000, 3, 22050)
    found, _ = peaks_of(scipy.signal.lfilter(b, a, noise(seconds=30)), 22050, 1024)
    assert len(found) == 1
    assert found[0].frequency == pytest.approx(1000, rel=0.1)
    assert found[0].name.endswith("Hz")


# --- overview and comparison ----------------------------------------------------------------------


def test_overview_has_four_panels_and_says_what_is_shown(data_root, tmp_path):
    file = data_root / "speech/en/jfk.flac"
    figure = overview(file, out=tmp_path / "jfk.png")
    assert (tmp_path / "jfk.png").read_bytes().startswith(b"\x89PNG")
    assert figure.get_suptitle() == "jfk.flac \u00b7 11 s \u00b7 44.1 kHz \u00b7 stereo \u00b7 FLAC"
    wave, linear, mel = figure.axes[:3]
    density = figure.axes[4]
    samples, rate = at.load(file, None)
    mono = samples[0].numpy()
    expected = librosa.amplitude_to_db(np.abs(librosa.stft(mono)), ref=np.max, top_db=80)
    np.testing.assert_allclose(rows_of(linear)[0], expected, atol=2e-3)
    expected = librosa.power_to_db(librosa.feature.melspectrogram(y=mono, sr=rate), ref=np.max)
    np.testing.assert_allclose(rows_of(mel)[0], expected, atol=5e-3)
    assert wave.get_xlim() == linear.get_xlim() == mel.get_xlim()
    assert mel.get_xlabel() == "seconds"
    assert density.get_ylabel() == "dBFS per Hz"
    assert len(density.texts) >= 3
    left = {round(axes.get_window_extent().x0) for axes in (wave, linear, mel)}
    right = {round(axes.get_window_extent().x1) for axes in (wave, linear, mel)}
    pixels(figure)
    assert len(left) == len(right) == 1


def test_comparison_has_one_scale():
    loud, quiet = tone(440, 22050, 2.0), tone(880, 44100, 1.5, 0.05)
    figure = compare(wav(loud), wav(quiet, 44100), titles=("loud", "quiet"))
    waves, linears = (figure.axes[0], figure.axes[3]), (figure.axes[1], figure.axes[4])
    assert waves[0].get_ylim() == waves[1].get_ylim()
    assert waves[0].get_xlim() == waves[1].get_xlim() == pytest.approx((0, 2.0))
    assert linears[0].get_ylim() == linears[1].get_ylim() == (0, 22050)
    assert rows_of(linears[0])[0].max() == 0
    assert rows_of(linears[1])[0].max() == pytest.approx(-20, abs=0.5)
    density = figure.axes[-1]
    assert [text.get_text() for text in density.get_legend().get_texts()] == ["loud", "quiet"]
    assert {text.get_text().strip() for text in density.texts} == {"440 Hz A4", "880 Hz A5"}


# --- what may be given ----------------------------------------------------------------------------


@pytest.mark.parametrize("draw", ALL)
def test_any_source_gives_the_same_picture(draw, tmp_path):
    samples = noise(seconds=0.3)
    path = tmp_path / "\U0001f600 <script>'$\".wav"
    path.write_bytes(wav(samples))

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

    pictures = [
        pixels(getattr(drawn, "figure", drawn))
        for drawn in (
            draw(samples, 22050, title="x"),
            draw(torch.from_numpy(samples)[None], 22050, title="x"),
            draw(Pipe(wav(samples)), title="x"),
            draw(path, title="x"),
        )
    ]
    rest = pictures[0][60:]  # overviews name the container above
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture[60:], rest)
    assert pixels(getattr(drawn := draw(path), "figure", drawn)).std() > 5


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (np.zeros(1, np.float32), 22050),
        (np.full(3, 0.5, np.float32), 8000),
        (np.zeros(30000, np.float32), 22050),
        (noise(8000, 0.3), 8000),
        (noise(192000, 0.3), 192000),
        (noise(channels=2, seconds=0.4), 22050),
        (noise(8000, 0.3).astype(float), 8000),
    ],
    ids=["one", "three", "silence", "8k", "192k", "stereo", "double"],
)
def test_odd_sounds_are_drawn(draw, samples, rate):
    if draw is feature_over_time and rate == 192000:
        with pytest.raises(ParameterError, match="n_fft") as caught:
            draw(samples, rate, "mfcc")
        assert "\n" not in str(caught.value)
    drawn = draw(samples, rate)
    figure = getattr(drawn, "figure", drawn)
    assert pixels(figure).std() > 5


@pytest.mark.parametrize("draw", ALL)
@pytest.mark.parametrize(
    ("samples", "rate", "match"),
    [
        (np.zeros(0, np.float32), 22050, "no samples"),
        (np.array([0.0, np.nan], np.float32), 22050, "NaN"),
        (np.array([0.0, np.inf], np.float32), 22050, "infinite"),
        (np.zeros(10, np.int16), 22050, "float"),
        (np.zeros((1, 1, 10), np.float32), 22050, "axes"),
        (np.zeros(10, np.float32), None, "sample_rate"),
        (np.zeros(10, np.float32), 0, "sample_rate"),
    ],
)
def test_what_is_no_sound_is_refused(draw, samples, rate, match):
    with pytest.raises(ParameterError, match=match):
        draw(samples, rate)


def test_broken_files_are_refused_and_cut_ones_drawn(tmp_path):
    for content in (b"", b"not audio at all" * 100, wav(np.zeros(0, np.float32))):
        for draw in (waveform, overview):
            with pytest.raises(DecodeError) as caught:
                draw(content)
            assert "\n" not in str(caught.value)
    spoilt = noise()
    spoilt[1000] = np.nan
    with pytest.raises(DecodeError, match="NaN"):
        overview(wav(spoilt))
    whole = wav(noise(), kind="FLAC")
    with pytest.warns(TruncationWarning):
        axes = waveform(whole[: len(whole) // 2])
    assert 0.5 < axes.get_xlim()[1] < 1.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        waveform(whole)


def test_wrong_settings_are_refused():
    for options in ({"scale": "bark"}, {"top_db": 0}, {"fmin": 9000, "fmax": 200}, {"fmax": 1e6}):
        with pytest.raises(ParameterError):
            spectrogram(noise(), 22050, **options)
    with pytest.raises(ParameterError, match="hum"):
        feature_over_time(noise(), 22050, "hum")
    with pytest.raises(ParameterError, match="scale"):
        power_spectral_density(noise(), 22050, scale="bark")


def test_silence_is_dark():
    values, _, _ = rows_of(spectrogram(np.zeros(22050, np.float32), 22050))
    assert (values == -80).all()


# --- long recordings ------------------------------------------------------------------------------


class Spy:
    """A measure that notes the largest block that passes by."""

    def __init__(self):
        self.sizes = []

    def add(self, block):
        self.sizes.append(block.numel())

    def finish(self):
        pass


def test_nothing_as_long_as_the_recording_is_held(tmp_path):
    seconds, rate = 90, 44100
    path = tmp_path / "long.wav"
    soundfile.write(path, noise(rate, seconds, 2).T, rate)
    recording = Recording(path)
    spy = Spy()
    power, envelope = Power(recording), Envelope(recording.n_samples)
    density = Density(recording)
    held = []

    def note(measure):
        def add(block):
            type(measure).add(measure, block)
            tensors = [each for each in vars(measure).values() if isinstance(each, torch.Tensor)]
            held.append(sum(each.untyped_storage().nbytes() for each in tensors))

        measure.add = add

    for measure in (power, envelope, density):
        note(measure)
    gather(recording, [spy, power, envelope, density])
    assert sum(spy.sizes) == 2 * seconds * rate
    assert max(spy.sizes) <= 1 << 20
    assert max(held) < 1 << 21  # bytes; the recording's samples have 32 MB
    assert power.columns.shape[1] <= COLUMNS
    assert envelope.columns.shape[2] <= 2 * COLUMNS


def test_blocks_give_what_the_whole_gives(monkeypatch):
    from audiotorch.plot import recording as module

    samples = noise(22050, 30.0, 2) + tone(440, seconds=30.0)
    found = []
    for size in (1 << 20, 5000):
        monkeypatch.setattr(module, "_BLOCK", size)
        recording = Recording(wav(samples))
        measures = [Power(recording), Envelope(recording.n_samples), Density(recording)]
        gather(recording, measures)
        found.append([measures[0].columns, measures[1].columns, measures[2].density])
    power = np.abs(librosa.stft(samples.mean(axis=0).astype(np.float32))) ** 2
    pooled = [power[:, k : k + 2].mean(axis=1) for k in range(0, power.shape[1], 2)]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6 * one.max())
    np.testing.assert_allclose(found[0][0], np.stack(pooled, axis=1), rtol=1e-3, atol=1e-6)


def test_long_recordings_are_pooled_alike_in_single_precision(monkeypatch):
    """As if it were an hour long: every other frame, float32, pieces of half a minute."""
    from audiotorch.plot import measures, tracks

    samples = np.tile(tone(440, seconds=10.0) + noise(seconds=10.0), 30)
    exact = Recording(samples, 22050)
    before = [Power(exact, hop_length=512), Density(exact)]
    gather(exact, before)
    frames = tracks._frames(exact, at.features.MFCC(22050), 512)
    monkeypatch.setattr(measures, "EXACT", 1000)
    monkeypatch.setattr(tracks, "EXACT", 1000)
    after = [Power(exact, hop_length=512), Density(exact)]
    gather(exact, after)
    assert after[0].hop_length == 1024
    db = [10 * np.log10(each.columns) for each in (before[0], after[0])]
    np.testing.assert_allclose(*db, atol=1e-3)
    np.testing.assert_allclose(before[1].density, after[1].density, rtol=1e-4)
    pieces = tracks._frames(exact, at.features.MFCC(22050), 512)
    assert pieces.mean.shape == frames.mean.shape
    # The ends of pieces have their neighbours' samples around them.
    np.testing.assert_allclose(pieces.mean, frames.mean, atol=0.05)


def test_hops_longer_than_frames_leave_samples_out():
    samples = noise()
    power = Power(Recording(samples, 22050), n_fft=256, hop_length=1000)
    for block in torch.from_numpy(samples)[None].split(777, dim=-1):
        power.add(block)
    power.finish()
    expected = np.abs(librosa.stft(samples, n_fft=256, hop_length=1000)) ** 2
    np.testing.assert_allclose(power.columns, expected, rtol=1e-3, atol=1e-6)


# --- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_pictures_are_the_same_each_time_in_each_format(suffix, start, tmp_path):
    contents = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{suffix}"
        save_figure(spectrogram(noise(), 22050, scale="log").figure, path)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]
    assert contents[0].startswith(start)
    with pytest.raises(ParameterError, match=r"\.svg"):
        save_figure(new_figure(1, 1), tmp_path / "a.jpeg")
    assert len([*tmp_path.iterdir()]) == 2


def test_parts_sizes_and_colours_that_cannot_be_are_named(tmp_path):
    """Text, NaN and fractions are told apart from what goes wrong further down."""
    tone = torch.zeros(4000)
    path = tmp_path / "tone.wav"
    at.save(path, tone[None], 8000)
    for source, rate in ((path, None), (tone, 8000)):
        for part in (
            {"offset": float("nan")}, {"offset": "1"}, {"duration": "1"},
            {"duration": float("inf")}, {"offset": -1},
        ):  # fmt: skip
            with pytest.raises(ParameterError, match=next(iter(part))):
                at.plot.waveform(source, rate, **part)
    for name, value in (("hop_length", 0), ("hop_length", 2.5), ("n_fft", 2.5), ("cmap", "nope")):
        for draw in (at.plot.spectrogram, at.plot.mel_spectrogram):
            with pytest.raises(ParameterError, match=f"{name}="):
                draw(tone, 8000, **{name: value})
    with pytest.raises(ParameterError, match="infinite"):
        at.plot.power_spectral_density(tone.double() + 1e300, 8000)
    with pytest.raises(ParameterError) as refused:
        at.plot.waveform(tone.tolist())
    assert len(str(refused.value)) < 200


def test_axes_of_a_part_of_a_figure_are_drawn_on_and_saved_whole(tmp_path):
    figure = at.plot.new_figure(6, 3)
    left, right = figure.subfigures(1, 2)
    axes = at.plot.waveform(torch.zeros(4000), 8000, ax=right.subplots())
    at.plot.power_spectral_density(torch.randn(4000), 8000, ax=left.subplots())
    assert axes.figure is right
    assert at.plot.pixels(axes.figure).shape == (300, 600, 3)
    at.plot.save_figure(axes.figure, tmp_path / "whole.png", dpi=100)
    assert matplotlib.image.imread(tmp_path / "whole.png").shape[:2] == (300, 600)
    for several in (figure, figure.subplots(1, 2)):
        with pytest.raises(ParameterError, match="ax: must be one Axes"):
            at.plot.waveform(torch.zeros(4000), 8000, ax=several)
