"""What goes into a transcriber and what must not: arguments, waveforms, checkpoints, threads."""

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import audiotorch as at
from audiotorch.errors import DecodeError, ParameterError
from audiotorch.transcribe.backends import Options
from audiotorch.transcribe.result import Segment, Word

# Whisper leaves the file of its tokens open.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*tiktoken:ResourceWarning")

RATE = 16000


class Hearing:
    """A backend that writes how loud what it hears is."""

    model = "hearing"
    languages = ("en", "de")

    def detect_languages(
        self, samples: torch.Tensor, parts: list[tuple[int, int]]
    ) -> list[dict[str, float]]:
        return [{"en": 0.9, "de": 0.1} for _ in parts]

    def transcribe(self, samples: torch.Tensor, options: Options) -> list[Segment]:
        drawn = float(torch.rand(())) if options.temperature[0] else 0.0
        text = f" {float(samples.square().mean().sqrt()):.4f} {drawn:.6f}"
        return [Segment(0.0, len(samples) / RATE, text, options.language)]


def spoken(transcript: at.Transcript) -> list[tuple[str, float, float]]:
    # Probabilities differ in the last digit with where their memory lies.
    return [(word.word, word.start, word.end) for word in transcript.words]


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("language", 5),
        ("language", "english"),
        ("temperature", "x"),
        ("temperature", None),
        ("temperature", (0, "a")),
        ("temperature", float("nan")),
        ("beam_size", 2.5),
        ("beam_size", "5"),
        ("beam_size", True),
        ("initial_prompt", 5),
        ("initial_prompt", b"x"),
        ("model", 5),
        ("model", None),
        ("model", b"base"),
    ],
)
def test_an_argument_of_a_wrong_kind_is_named(name: str, value: object) -> None:
    arguments = {"model": Hearing(), name: value}
    with pytest.raises(ParameterError, match=f"^{name}="):
        at.Transcriber(**arguments)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ((noise(1, RATE),), "source: is a tuple"),
        ((noise(1, RATE), RATE, 1), "source: is a tuple"),
        ((RATE, noise(1, RATE)), "source: is a tuple"),
        (("a.wav", RATE), "source: is a tuple"),
        ((np.array(["a"]), RATE), "waveform: is <U1"),
        ((np.zeros(RATE, dtype=np.int16), RATE), "waveform: is int16"),
        ((noise(RATE, 1), RATE), "give its transpose"),
        ((32768 * noise(1, RATE), RATE), "divide 16-bit samples by 32768"),
    ],
)
def test_what_is_no_waveform_is_refused(source: object, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        at.transcribe(source, Hearing())


def test_a_waveform_without_channels_holds_no_samples() -> None:
    with pytest.raises(DecodeError, match="holds no samples"):
        at.transcribe((torch.zeros(0, RATE), RATE), Hearing())


def test_arrays_that_torch_does_not_take_are_heard() -> None:
    samples = noise(RATE).numpy()
    expected = at.transcribe((samples, RATE), Hearing(), gate="none").text
    frozen = samples.copy()
    frozen.flags.writeable = False
    for same in (
        samples[::-1].copy()[::-1],
        samples.astype(">f4"),
        samples.astype(np.longdouble),
        frozen,
    ):
        assert at.transcribe((same, RATE), Hearing(), gate="none").text == expected


def test_a_channel_upside_down_does_not_silence_the_other() -> None:
    samples = noise(3 * RATE)
    expected = at.transcribe((samples, RATE), Hearing(), gate="none").text
    both = torch.stack([samples, -samples])
    for channels in ("auto", "mix"):
        found = at.transcribe((both, RATE), Hearing(), gate="none", channels=channels)
        assert found.text == expected
        assert found.segments[0].channel is None


class Wandering(Hearing):
    """Gives a word times outside its segment, and that one an end after the recording's."""

    def transcribe(self, samples: torch.Tensor, options: Options) -> list[Segment]:
        words = (Word(" a", 0.2, 0.4, 0.9), Word(" b", 0.4, 99.0, 0.9))
        return [Segment(0.3, 98.0, " a b", options.language, words=words)]


def test_words_lie_within_their_segment_and_segments_within_the_recording() -> None:
    # 1.9876875 s, which three decimals would round up.
    found = at.transcribe((noise(31803), RATE), Wandering(), gate="none")
    (segment,) = found.segments
    assert segment.end == found.duration_seconds == 31803 / RATE
    assert [(word.start, word.end) for word in segment.words] == [(0.2, 0.4), (0.4, segment.end)]
    assert segment.start == 0.2


def test_a_single_temperature_draws_the_same_each_time_and_leaves_torch_alone() -> None:
    transcriber = at.Transcriber(Hearing(), gate="none", temperature=0.7)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = transcriber((noise(RATE), RATE)).text
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert transcriber((noise(RATE), RATE)).text == first


@pytest.mark.parametrize(
    "content",
    [b"RIFF" + bytes(40), b"G" * 40, b"M" * 40, b"q" * 40, b"\x80\x02" + b"t" * 9, b"hello\n"],
)
def test_what_is_no_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    pytest.importorskip("whisper")
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=r"model\.pt: cannot be read as a Whisper checkpoint"):
        at.Transcriber(path)


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"dims": None}])
def test_what_torch_saved_and_is_no_checkpoint_is_named(content: object, tmp_path: Path) -> None:
    pytest.importorskip("whisper")
    path = tmp_path / "model.pt"
    torch.save(content, path)
    with pytest.raises(DecodeError, match=r"model\.pt: cannot be read as a Whisper checkpoint"):
        at.Transcriber(path)


def test_a_pickle_is_no_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("whisper")
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": Hearing()}))
    with pytest.raises(DecodeError, match=r"model\.pkl: cannot be read as a Whisper checkpoint"):
        at.Transcriber(path)


@pytest.mark.parametrize("device", ["mps", "meta", "cuda:99", "nowhere"])
def test_a_device_that_is_not_there_is_named(device: str, tmp_path: Path) -> None:
    pytest.importorskip("whisper")
    path = tmp_path / "model.pt"
    torch.save({}, path)
    with pytest.raises(ParameterError, match=f"device='{device}'"):
        at.Transcriber(path, device=device)


def test_threads_share_a_transcriber(whisper_weights: Path, data_root: Path) -> None:
    folder = data_root / "speech" / "en"
    files = [folder / "cards_002.wav", folder / "LJ002-0020.wav"]
    transcriber = at.Transcriber(whisper_weights / "tiny.en.pt", word_timestamps=True)
    n_threads = torch.get_num_threads()
    expected = [spoken(transcriber(file)) for file in files]
    found: dict[int, object] = {}

    def hear(number: int) -> None:
        found[number] = spoken(transcriber(files[number % 2]))

    threads = [threading.Thread(target=hear, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == 2 * expected
    assert torch.get_num_threads() == n_threads
