import itertools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import audiotorch as at
from audiotorch.errors import MissingDependencyError, ParameterError
from audiotorch.transcribe.backends import SAMPLE_RATE, Options, open_backend
from audiotorch.transcribe.faster import FasterWhisper

JFK = (
    "and so my fellow americans ask not what your country can do for you ask what you can do for "
    "your country"
)
# The recording's speech starts here: nothing before is above a hundredth of the peak.
JFK_ONSET = 0.3


@pytest.fixture(scope="session")
def folders(whisper_weights) -> dict[str, Path]:
    """Name -> folder with a CTranslate2 model."""
    pytest.importorskip("faster_whisper")
    pytest.importorskip("whisper")
    from ctranslate2_weights import ctranslate2_folder

    names = ("tiny.en", "base")
    return {name: ctranslate2_folder(whisper_weights / f"{name}.pt") for name in names}


@pytest.fixture(scope="session")
def faster(folders) -> dict[str, FasterWhisper]:
    return {name: FasterWhisper(str(folder)) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def openai(whisper_weights) -> dict:
    whisper = pytest.importorskip("whisper")
    found = {}
    for name in ("tiny.en", "base"):
        found[name] = whisper.load_model(str(whisper_weights / f"{name}.pt"), device="cpu")
        found[name].set_alignment_heads(whisper._ALIGNMENT_HEADS[name])
    return found


def samples_of(path: Path) -> torch.Tensor:
    return at.load(path, sample_rate=SAMPLE_RATE)[0][0]


def words_of(text: str) -> str:
    return " ".join("".join(x for x in text.lower() if x.isalnum() or x.isspace()).split())


# --- what is said ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_jfk_is_right_to_the_word_and_words_follow_each_other(data_root, faster, model):
    samples = samples_of(data_root / "speech/en/jfk.flac")
    segments = faster[model].transcribe(samples, Options("en", word_timestamps=True))
    assert words_of("".join(segment.text for segment in segments)) == JFK
    words = [word for segment in segments for word in segment.words]
    assert len(words) == 22
    assert "".join(word.word for word in words) == "".join(segment.text for segment in segments)
    assert all(0 <= word.start <= word.end <= 11 for word in words)
    assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(words))
    assert all(0 < word.probability <= 1 for word in words)
    assert abs(words[0].start - JFK_ONSET) < 0.5
    for segment in segments:
        assert segment.language == "en"
        assert all(segment.start <= word.start <= word.end <= segment.end for word in segment.words)


@pytest.mark.parametrize(
    ("model", "file", "language"),
    [
        ("tiny.en", "en/jfk.mp3", "en"),
        ("tiny.en", "en/librispeech_2412-153948-0000.flac", "en"),
        ("tiny.en", "en/librivox_austen_0880.wav", "en"),
        ("base", "de/leopard_test_de.wav", "de"),
        ("base", "ja/leopard_test_ja.wav", "ja"),
    ],
)
def test_it_says_what_openai_whisper_says(data_root, faster, openai, model, file, language):
    samples = samples_of(data_root / "speech" / file)
    ours = faster[model].transcribe(samples, Options(language))
    theirs = openai[model].transcribe(samples.numpy(), language=language, fp16=False)
    assert "".join(segment.text for segment in ours) == theirs["text"]
    # Sums in another order, and faster-whisper's last frame mirrors another second.
    for a, b in zip(ours, theirs["segments"], strict=True):
        assert (a.start, a.end) == pytest.approx((b["start"], b["end"]), abs=0.021)
        assert a.avg_logprob == pytest.approx(b["avg_logprob"], abs=2e-3)
        assert a.no_speech_prob == pytest.approx(b["no_speech_prob"], abs=2e-3)
        assert a.compression_ratio == pytest.approx(b["compression_ratio"], abs=1e-6)
        assert a.temperature == b["temperature"]


def test_words_are_said_when_openai_whisper_hears_them(data_root, faster, openai):
    samples = samples_of(data_root / "speech/en/jfk_16k.wav")
    (ours,) = [faster["tiny.en"].transcribe(samples, Options("en", word_timestamps=True))]
    theirs = openai["tiny.en"].transcribe(samples.numpy(), word_timestamps=True, fp16=False)
    expected = [word for segment in theirs["segments"] for word in segment["words"]]
    found = [word for segment in ours for word in segment.words]
    assert [word.word for word in found] == [word["word"] for word in expected]
    for a, b in zip(found, expected, strict=True):
        assert (a.start, a.end) == pytest.approx((b["start"], b["end"]), abs=0.1)


@pytest.mark.parametrize(
    "file", ["en/cards_003.wav", "fr/sr_french.aiff", "zh/aishell_BAC009S0724W0121.wav"]
)
def test_languages_are_as_probable_as_for_openai_whisper(data_root, faster, openai, file):
    import whisper

    samples = samples_of(data_root / "speech" / file)
    (found,) = faster["base"].detect_languages(samples, [(0, len(samples))])
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(samples, 30 * SAMPLE_RATE))
    _, expected = openai["base"].detect_language(mel)
    assert next(iter(found)) == file[:2]
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert set(found) == set(expected) == set(faster["base"].languages)
    # Measured on 26 recordings: 1.2e-6 at most.
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("model", ["faster", "openai"])
def test_languages_of_parts_are_those_of_the_parts(data_root, faster, whisper_weights, model):
    backend = faster["base"]
    if model == "openai":
        backend = open_backend(str(whisper_weights / "base.pt"), device="cpu")
    files = ["de/leopard_test_de.wav", "fr/leopard_test_fr.wav"]
    clips = [samples_of(data_root / "speech" / file) for file in files]
    joined = torch.cat(clips)
    parts = [(0, len(clips[0])), (len(clips[0]), len(joined)), (0, len(joined)), (0, 100)]
    found = backend.detect_languages(joined, parts)
    assert [next(iter(each)) for each in found[:2]] == ["de", "fr"]
    assert all(next(iter(each.values())) > 0.9 for each in found[:2])
    assert all(sum(each.values()) == pytest.approx(1.0, abs=1e-3) for each in found)


def test_a_model_of_one_language_knows_no_other(faster):
    assert faster["tiny.en"].languages == ("en",)
    assert faster["tiny.en"].detect_languages(torch.zeros(9), [(0, 9)]) == [{"en": 1.0}]


def test_options_reach_the_model(data_root, faster):
    samples = samples_of(data_root / "speech/de/leopard_test_de.wav")
    (translated,) = faster["base"].transcribe(
        samples, Options("de", task="translate", temperature=(0.0,))
    )
    assert {"the", "of"} <= set(words_of(translated.text).split())
    samples = samples_of(data_root / "speech/en/librivox_austen_0870.wav")
    plain, hinted, beamed = (
        "".join(x.text for x in faster["tiny.en"].transcribe(samples, options))
        for options in (
            Options("en", temperature=(0.0,)),
            Options(
                "en", temperature=(0.0,), initial_prompt="MISTER JOHN DASHWOOD SPEAKS IN CAPITALS."
            ),
            Options("en", temperature=(0.0,), beam_size=5),
        )
    )
    assert "Dashwood" in plain
    assert hinted != plain
    assert words_of(beamed).split()[-4:] == words_of(plain).split()[-4:]


@pytest.mark.parametrize("n_samples", [0, 1, 159, SAMPLE_RATE])
def test_nothing_is_said_in_nothing(faster, n_samples):
    assert faster["base"].transcribe(torch.zeros(n_samples), Options("en")) == []
    (found,) = faster["base"].detect_languages(torch.zeros(n_samples), [(0, n_samples)])
    assert len(found) == 99


# --- loading --------------------------------------------------------------------------------------


@pytest.fixture
def loader(monkeypatch) -> list[dict]:
    """What faster-whisper's loader is asked for, on a machine with two graphics processors."""
    faster_whisper = pytest.importorskip("faster_whisper")
    asked = []

    def load(model, **settings):
        asked.append({"model": model, **settings})
        words = SimpleNamespace(token_to_id=lambda token: None if "yue" in token else 1)
        return SimpleNamespace(hf_tokenizer=words, supported_languages=["en", "de", "yue"])

    monkeypatch.setattr(faster_whisper, "WhisperModel", load)
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 2)
    return asked


@pytest.mark.parametrize(
    ("device", "compute_type", "expected"),
    [
        (None, None, ("cuda", 0, "float16")),
        ("cpu", None, ("cpu", 0, "float32")),
        ("cuda", None, ("cuda", 0, "float16")),
        ("cuda:1", None, ("cuda", 1, "float16")),
        (torch.device("cuda", 1), None, ("cuda", 1, "float16")),
        ("cuda:1", "int8_float16", ("cuda", 1, "int8_float16")),
        (torch.device("cpu"), "int8", ("cpu", 0, "int8")),
    ],
)
def test_devices_and_types_are_told_as_ctranslate2_names_them(
    loader, device, compute_type, expected
):
    backend = FasterWhisper("base", device, compute_type=compute_type)
    (asked,) = loader
    assert (asked["device"], asked["device_index"], asked["compute_type"]) == expected
    assert asked["model"] == "base"
    assert asked["cpu_threads"] == torch.get_num_threads()
    assert backend.model == "base"
    assert backend.languages == ("en", "de")


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:2", r"device='cuda:2': CTranslate2 finds 2 CUDA devices"),
        ("mps", r"device='mps': faster-whisper computes on cpu and cuda only"),
        ("gpu", r"device='gpu': Expected one of cpu, cuda"),
    ],
)
def test_devices_that_are_not_there_are_refused(loader, device, message):
    with pytest.raises(ParameterError, match=message):
        FasterWhisper("base", device)
    assert loader == []


def test_without_graphics_processors_the_cpu_computes(loader, monkeypatch):
    monkeypatch.setattr("ctranslate2.get_cuda_device_count", lambda: 0)
    FasterWhisper("base")
    assert loader[0]["device"] == "cpu"
    with pytest.raises(ParameterError, match="device='cuda': CTranslate2 finds 0 CUDA devices"):
        FasterWhisper("base", "cuda")


def test_another_type_of_numbers_is_what_is_computed_in(folders):
    backend = FasterWhisper(str(folders["tiny.en"]), "cpu", compute_type="int8")
    assert backend._loaded.model.compute_type.startswith("int8")
    with pytest.raises(ParameterError, match=r"compute_type='float17': faster-whisper cannot load"):
        FasterWhisper(str(folders["tiny.en"]), "cpu", compute_type="float17")


def test_what_is_no_folder_with_a_model_is_refused(tmp_path):
    checkpoint = tmp_path / "base.pt"
    checkpoint.write_bytes(b"PK")
    with pytest.raises(ParameterError, match=r"base\.pt.*openai-whisper's: take backend='whisper'"):
        FasterWhisper(str(checkpoint))
    with pytest.raises(ParameterError, match=r"small\.pt.*openai-whisper's"):
        FasterWhisper("small.pt")
    with pytest.raises(ParameterError, match=r"the folder holds no model\.bin"):
        FasterWhisper(str(tmp_path))
    with pytest.raises(ParameterError, match="there is no such folder"):
        FasterWhisper(str(tmp_path / "nowhere"))
    pytest.importorskip("faster_whisper")
    (tmp_path / "model.bin").write_bytes(b"\x06\x00\x00\x00nonsense")
    with pytest.raises(ParameterError, match=r"cannot load it: .*; give another folder"):
        FasterWhisper(str(tmp_path))
    with pytest.raises(
        ParameterError, match=r"'basee'.*Invalid model size 'basee', expected one of"
    ):
        FasterWhisper("basee")


def test_a_name_without_a_connection_is_refused_with_the_remedy(tmp_path):
    pytest.importorskip("faster_whisper")
    code = "from audiotorch.transcribe.faster import FasterWhisper; FasterWhisper('base')"
    # Nothing listens there.
    away = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | away,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("audiotorch.errors.ParameterError: model='base' on device='cpu'")
    assert last.endswith("the folder of a CTranslate2 model needs none")


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'audiotorch\[faster\]'"):
        FasterWhisper("base", "cpu")


def test_openai_whisper_is_not_needed(folders):
    code = (
        "import sys; sys.modules['whisper'] = None\n"
        "import torch\nfrom audiotorch.transcribe.backends import Options\n"
        "from audiotorch.transcribe.faster import FasterWhisper\n"
        "print(FasterWhisper(sys.argv[1]).transcribe(torch.zeros(16000), Options('en')))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(folders["tiny.en"])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "[]\n", result.stderr


# --- the weights of these tests -------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_converted_words_are_whispers_own(data_root, folders, openai, model):
    from conftest import table
    from tokenizers import Tokenizer
    from whisper.tokenizer import get_tokenizer

    known = openai[model]
    theirs = get_tokenizer(known.is_multilingual, num_languages=known.num_languages)
    ours = Tokenizer.from_file(str(folders[model] / "tokenizer.json"))
    texts = [row["transcript"] for row in table(data_root / "speech/transcripts.csv")]
    for text in [*texts, " It's 3,000.50 €\n\n  of ♪♪ code_x ", "don't We'LL 1234567"]:
        numbers = theirs.encode(text)
        assert ours.encode(text, add_special_tokens=False).ids == numbers
        assert ours.decode(numbers) == text
    assert ours.token_to_id("<|notimestamps|>") == theirs.no_timestamps
    assert ours.get_vocab_size() == known.dims.n_vocab
