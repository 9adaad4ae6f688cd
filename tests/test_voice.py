import concurrent.futures
import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.signal
import torch
from conftest import table
from torch import Tensor, nn

import audiotorch as at
from audiotorch.errors import DecodeError, MissingDependencyError, ParameterError
from audiotorch.transcribe import silero
from audiotorch.transcribe.voice import (
    FRAME,
    GATES,
    EnergyGate,
    SileroGate,
    has_speech,
    open_gate,
    speech_regions,
    speech_seconds,
)

RATE = 16000
WINDOW = 30 * RATE // FRAME
HAS_SILERO = importlib.util.find_spec("silero_vad") is not None
needs_silero = pytest.mark.skipif(not HAS_SILERO, reason="silero-vad is not installed")
BOTH = [pytest.param("silero", marks=needs_silero), "energy"]
# Of float32: the package is up to 1.2e-5 off its own network in float64, ours 3e-6.
ROUNDING = 2e-5


def listen(name: str, samples: Tensor, block: int | None = None) -> Tensor:
    gate = open_gate(name)
    assert gate is not None
    blocks = samples.split(block or max(1, len(samples)))
    return torch.cat([*(gate.feed(part) for part in blocks), gate.finish()])


def windows_with_speech(name: str, samples: Tensor) -> list[bool]:
    return [has_speech(window) for window in listen(name, samples).split(WINDOW)]


def read(path: Path) -> Tensor:
    if path.suffix == ".raw":
        return torch.from_numpy(np.fromfile(path, "<i2").astype(np.float32) / 32768)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", at.TruncationWarning)
        return at.load(path, RATE)[0][0]


@pytest.fixture(scope="module")
def jfk(data_root) -> Tensor:
    return read(data_root / "speech/en/jfk_16k.wav")


@pytest.fixture(scope="module")
def speech(data_root) -> dict[str, Tensor]:
    rows = table(data_root / "speech/transcripts.csv")
    return {
        r["file"]: read(data_root / "speech" / r["file"]) for r in rows if r["language"] != "none"
    }


def steady_sounds(seconds: int = 30) -> dict[str, Tensor]:
    generator = np.random.default_rng(0)
    n_samples = seconds * RATE
    time = np.arange(n_samples) / RATE
    white = generator.standard_normal(n_samples)
    spectrum = np.fft.rfft(white)
    falling = np.maximum(np.fft.rfftfreq(n_samples, 1 / RATE), 20.0)
    sounds = {
        "white": white,
        "pink": np.fft.irfft(spectrum / np.sqrt(falling), n_samples),
        "brown": np.fft.irfft(spectrum / falling, n_samples),
        "square": scipy.signal.square(2 * np.pi * 200 * time),
        "sine": np.sin(2 * np.pi * 440 * time),
    }
    for hertz in (50, 60):
        for slope in (1, 2):
            waves = [np.sin(2 * np.pi * hertz * k * time + k) / k**slope for k in range(1, 21)]
            sounds[f"hum of {hertz} Hz, slope {slope}"] = sum(waves)
    levels = {"full scale": 1.0, "-6 dB": 0.5, "-30 dB": 10**-1.5, "-60 dB": 1e-3}
    found = {
        f"{name}, {level}": torch.from_numpy(factor * sound / np.abs(sound).max()).float()
        for name, sound in sounds.items()
        for level, factor in levels.items()
    }
    return found | {"silence": torch.zeros(n_samples), "constant": torch.full((n_samples,), 0.3)}


def music() -> dict[str, Tensor]:
    """Chords, a tune with overtones, drums and sweeps: 30 seconds each."""
    generator = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    second = {"chords": [], "tune": [], "drums": []}
    for beat in range(30):
        root = 110 * 2 ** (beat * 5 % 12 / 12)
        ringing = np.exp(-3 * time)
        second["chords"].append(
            sum(np.sin(2 * np.pi * root * k * time) for k in (1, 1.25, 1.5, 2)) * ringing
        )
        second["tune"].append(
            sum(np.sin(2 * np.pi * 2 * root * k * time) / k for k in range(1, 13)) * ringing
        )
        hits = np.sin(2 * np.pi * 60 * time) * np.exp(-15 * time)
        hits += np.roll(generator.standard_normal(RATE) * np.exp(-25 * time), RATE // 2)
        second["drums"].append(hits)
    sounds = {name: np.concatenate(parts) for name, parts in second.items()}
    sounds["sweep"] = np.tile(scipy.signal.chirp(10 * time, 100, 10, 6000), 30)
    return {n: torch.from_numpy(0.3 * s / np.abs(s).max()).float() for n, s in sounds.items()}


# --- against silero's own program -----------------------------------------------------------------

# In another process: importing the package sets the number of torch's threads.
ORACLE = """
import sys
import numpy as np
import torch
import silero_vad
samples = np.load(sys.argv[1])
model = silero_vad.load_silero_vad()
answers = {}
for name in samples.files:
    waveform = torch.from_numpy(samples[name])
    answers["p " + name] = model.audio_forward(waveform[None], 16000)[0].numpy()
    for least in (0, 250):
        found = silero_vad.get_speech_timestamps(waveform, model, min_speech_duration_ms=least)
        edges = [(f["start"], f["end"]) for f in found]
        answers[f"{least} {name}"] = np.array(edges).reshape(-1, 2)
np.savez(sys.argv[2], **answers)
"""


def whole_frames(samples: Tensor) -> Tensor:
    # silero lets the last stretch end with the recording, ours with the frame.
    return samples[: len(samples) // FRAME * FRAME]


@needs_silero
def test_silero_equals_the_package(speech, data_root, tmp_path):
    clips = {name: whole_frames(clip) for name, clip in list(speech.items())[::5]}
    for name in ("esc10/006 - Person sneeze/2-93030-A.ogg", "speech/none/leopard_empty.wav"):
        clips[name] = whole_frames(read(data_root / name))
    vibraphone = data_root / "music_examples/audio/Kevin_MacLeod_-_Vibe_Ace.ogg"
    clips["vibraphone"] = whole_frames(read(vibraphone)[: 15 * RATE])
    clips["odd length"] = clips["vibraphone"][:33333]
    # An archive's names may not hold folders.
    keys = {name: f"clip{i}" for i, name in enumerate(clips)}
    np.savez(tmp_path / "in.npz", **{keys[name]: clip.numpy() for name, clip in clips.items()})
    command = [sys.executable, "-W", "ignore", "-c", ORACLE, "in.npz", "out.npz"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    expected = np.load(tmp_path / "out.npz")
    assert sum(len(expected[f"250 {key}"]) for key in keys.values()) > 10
    for name, key in keys.items():
        probabilities = listen("silero", clips[name])
        torch.testing.assert_close(
            probabilities, torch.from_numpy(expected[f"p {key}"]), atol=ROUNDING, rtol=0.0, msg=name
        )
        if name != "odd length":
            for least in (0, 250):
                found = speech_regions(probabilities, min_speech_seconds=least / 1000)
                assert found == [tuple(row) for row in expected[f"{least} {key}"].tolist()], name


@pytest.mark.parametrize(
    ("frames", "regions"),
    [
        ("", []),
        ("....", []),
        ("########", [(0, 8 * FRAME)]),
        # A gap of four frames may be one of less than 100 ms, five are an end.
        ("..####...###....", [(2 * FRAME - 480, 16 * FRAME)]),
        ("..####....###.....", [(2 * FRAME - 480, 13 * FRAME + 480)]),
        (
            "..####.....###.....",
            [(2 * FRAME - 480, 6 * FRAME + 480), (11 * FRAME - 480, 14 * FRAME + 480)],
        ),
        # Between the thresholds speech neither begins nor ends.
        ("oo####oooooo###.....", [(2 * FRAME - 480, 15 * FRAME + 480)]),
        ("..##......", []),
        ("..###......", [(2 * FRAME - 480, 5 * FRAME + 480)]),
    ],
)
def test_regions_by_hand(frames, regions):
    values = {".": 0.1, "o": 0.4, "#": 0.9}
    probabilities = torch.tensor([values[frame] for frame in frames])
    assert speech_regions(probabilities) == regions
    assert speech_seconds(probabilities) == sum(b - a for a, b in regions) / RATE


def test_padding_takes_at_most_half_a_gap():
    probabilities = torch.tensor([0.9] * 4 + [0.0] * 6 + [0.9] * 4)
    assert speech_regions(probabilities, pad_seconds=1.0) == [
        (0, 7 * FRAME),
        (7 * FRAME, 14 * FRAME),
    ]


# --- streaming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("block", [1, 511, 512, 4321])
def test_blocks_do_not_matter(jfk, name, block):
    samples = jfk[: (3 * RATE + 77) if block > 1 else 5 * FRAME + 7]
    whole = listen(name, samples)
    assert whole.shape == (-(-len(samples) // FRAME),)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(listen(name, samples, block), whole, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("name", BOTH)
def test_a_block_longer_than_is_computed_at_once(jfk, name):
    samples = torch.cat([jfk, jfk, jfk, jfk])
    torch.testing.assert_close(
        listen(name, samples), listen(name, samples, 10 * RATE), atol=1e-5, rtol=0.0
    )


@pytest.mark.parametrize("name", BOTH)
def test_feed_gives_all_complete_frames(name):
    gate = open_gate(name)
    lengths = [len(gate.feed(torch.zeros(n))) for n in (0, 1, 511, 512, 1500, 0)]
    assert lengths == [0, 0, 1, 1, 2, 0]
    assert len(gate.finish()) == 1
    with pytest.raises(ParameterError, match="finished: open another gate"):
        gate.feed(torch.zeros(10))


@pytest.mark.parametrize("name", BOTH)
def test_what_is_kept_does_not_grow(name):
    gate = open_gate(name)
    noise = 0.1 * torch.randn(60 * RATE + 100)
    for _ in range(3):
        gate.feed(noise)
        kept = [value for value in vars(gate).values() if isinstance(value, Tensor)]
        assert sum(value.untyped_storage().nbytes() for value in kept) < 40_000


@pytest.mark.parametrize("name", BOTH)
def test_gates_in_threads_do_not_mix(speech, name):
    clips = list(speech.values())[:8]
    alone = [listen(name, clip, 3000) for clip in clips]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda clip: listen(name, clip, 3000), clips))
    for expected, answer in zip(alone, together, strict=True):
        torch.testing.assert_close(answer, expected, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("name", BOTH)
def test_odd_input(name):
    assert len(listen(name, torch.zeros(0))) == 0
    assert len(listen(name, torch.ones(1))) == 1
    tone = 0.1 * torch.sin(torch.arange(2000) * 0.3).double()
    answer = listen(name, tone)
    assert answer.dtype == torch.float32
    assert torch.equal(answer, listen(name, tone.float()))
    assert torch.equal(answer, listen(name, tone.requires_grad_()))
    assert not answer.requires_grad
    with pytest.raises(ParameterError, match=r"block is \(1, 9\) torch.float32, expected \(n,\)"):
        open_gate(name).feed(torch.zeros(1, 9))
    with pytest.raises(ParameterError, match=r"torch\.int16, expected"):
        open_gate(name).feed(torch.zeros(9, dtype=torch.int16))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", BOTH)
def test_blocks_on_a_gpu(jfk, name):
    assert torch.equal(listen(name, jfk.cuda()), listen(name, jfk))


# --- what is speech -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
def test_speech_in_every_language_is_kept(speech, name):
    refused = [file for file, clip in speech.items() if not all(windows_with_speech(name, clip))]
    assert refused == []


@pytest.mark.parametrize("name", BOTH)
def test_single_words_are_kept(data_root, name):
    words = table(data_root / "arabic_commands/labels.csv")
    clips = [data_root / "arabic_commands" / row["file"] for row in words if row["keyword"]][::20]
    assert all(has_speech(listen(name, read(clip))) for clip in clips)


@pytest.mark.parametrize(
    ("name", "least"), [pytest.param("silero", 0.8, marks=needs_silero), ("energy", 0.88)]
)
def test_most_digits_cut_to_the_sample_are_kept(data_root, name, least):
    # 0.2 to 0.6 s at 8 kHz with nothing around them: 0.85 and 0.92 of all 2,500.
    clips = [data_root / "fsdd" / row["file"] for row in table(data_root / "fsdd/labels.csv")][::20]
    kept = [has_speech(listen(name, read(clip))) for clip in clips]
    assert sum(kept) >= least * len(kept)


@pytest.mark.parametrize("name", BOTH)
def test_a_word_in_half_a_minute_of_silence_is_kept(data_root, name):
    samples = torch.zeros(30 * RATE)
    word = read(data_root / "speech/en/cards_001.wav")
    samples[20 * RATE : 20 * RATE + len(word)] = word
    probabilities = listen(name, samples)
    assert has_speech(probabilities)
    regions = speech_regions(probabilities)
    start, end = regions[0][0], regions[-1][1]
    assert 20 * RATE <= start < end <= 20 * RATE + len(word) + RATE // 2


@pytest.mark.parametrize("name", BOTH)
def test_steady_sounds_are_refused(name):
    heard = [what for what, clip in steady_sounds().items() if any(windows_with_speech(name, clip))]
    assert heard == []


@needs_silero
def test_music_and_noises_without_voice_are_refused(data_root):
    clips = {
        row["file"]: data_root / "music_examples" / row["file"]
        for row in table(data_root / "music_examples/files.csv")
        if "speech" not in row["content"]
    }
    clips["empty"] = data_root / "speech/none/leopard_empty.wav"
    sounds = table(data_root / "esc10/labels.csv")
    clips |= {
        r["file"]: data_root / "esc10" / r["file"] for r in sounds[::7] if "sneeze" not in r["file"]
    }
    machines = table(data_root / "machine_sounds/labels.csv")
    clips |= {r["file"]: data_root / "machine_sounds" / r["file"] for r in machines[::7]}
    found = {name: read(path) for name, path in clips.items()} | music()
    heard = [name for name, clip in found.items() if any(windows_with_speech("silero", clip))]
    assert heard == []


@needs_silero
def test_a_hit_on_music_does_not_make_a_window(data_root):
    path = data_root / "music_examples/audio/Kevin_MacLeod_-_Vibe_Ace.ogg"
    probabilities = listen("silero", read(path))[:WINDOW]
    assert speech_seconds(probabilities) > 1.5  # as much as a short sentence
    assert float(probabilities.max()) > 0.99
    for seconds in (5, 10, 30):
        for window in probabilities.unfold(0, seconds * RATE // FRAME, 16):
            assert not has_speech(window)


def test_machines_are_mostly_steady(data_root):
    rows = table(data_root / "machine_sounds/labels.csv")[::5]
    clips = [read(data_root / "machine_sounds" / row["file"]) for row in rows]
    assert sum(has_speech(listen("energy", clip)) for clip in clips) <= 2


# --- choosing -------------------------------------------------------------------------------------


def test_gates_by_name(monkeypatch):
    assert GATES == ("auto", "silero", "energy", "none")
    assert open_gate("none") is None
    assert isinstance(open_gate("energy"), EnergyGate)
    with pytest.raises(ParameterError, match="gate is 'webrtc', expected one of 'auto', 'silero'"):
        open_gate("webrtc")
    if HAS_SILERO:
        assert isinstance(open_gate(), SileroGate)
        assert isinstance(open_gate("silero"), SileroGate)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert isinstance(open_gate(), EnergyGate)
    with pytest.raises(MissingDependencyError, match=r"pip install 'audiotorch\[vad\]'"):
        open_gate("silero")


@needs_silero
def test_the_package_is_not_imported_and_nothing_changes():
    code = """
import sys
import torch
torch.set_num_threads(2)
state = torch.get_rng_state()
from audiotorch.transcribe.voice import open_gate
open_gate("silero").feed(torch.zeros(1000))
assert torch.equal(torch.get_rng_state(), state)
print("silero_vad" in sys.modules, torch.get_num_threads(), torch._C._get_graph_executor_optimize())
"""
    command = [sys.executable, "-W", "error", "-c", code]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert result.stdout == "False 2 True\n"
    assert result.stderr == ""


class Other(nn.Module):
    """A script that is called as silero is, and answers otherwise."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._model = nn.Module()
        for name, value in weights.items():
            *parents, leaf = name.split(".")
            module = self._model
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, nn.Module())
                module = getattr(module, parent)
            module.register_buffer(leaf, value)

    def forward(self, x: Tensor, rate: int) -> Tensor:
        return x.mean(dim=1) + 0.5


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """The file of weights of a silero-vad that is another than the installed one."""
    (tmp_path / "data").mkdir()
    spec = SimpleNamespace(submodule_search_locations=[os.fspath(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return tmp_path / "data" / "silero_vad.jit"


def save(path: Path, weights: dict[str, Tensor]) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.(script|save)` is deprecated", Warning)
        torch.jit.save(torch.jit.script(Other(weights)), path)


def test_weights_that_are_not_there(package):
    with pytest.raises(MissingDependencyError, match=r"has no silero_vad\.jit.*audiotorch\[vad\]"):
        open_gate("auto")


def test_damaged_weights(package):
    package.write_bytes(b"not an archive")
    with pytest.raises(DecodeError, match=r"does not load .*install version 6\.2"):
        open_gate("silero")


def test_weights_of_another_network(package):
    save(package, {"stft.forward_basis_buffer": torch.zeros(258, 1, 256)})
    with pytest.raises(DecodeError, match=r"holds another network than silero-vad 6\.2's"):
        open_gate("silero")


def test_weights_that_are_used_otherwise(package):
    save(package, {name: torch.zeros(shape) for name, shape in silero.SHAPES.items()})
    with pytest.raises(DecodeError, match=r"computes something else than silero-vad 6\.2"):
        open_gate("silero")
