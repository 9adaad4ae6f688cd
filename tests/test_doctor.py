import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile

from audiotorch.data import Clip, check_dataset, take_inventory
from audiotorch.data.comparison import Excerpt, overlap_of_copies
from audiotorch.data.fingerprint import Folder, find_candidates
from audiotorch.errors import ParameterError

DUPLICATES = ("duplicate", "near_duplicate", "duplicate_across_labels", "duplicate_across_splits")
RATE = 16000


def named(report, name: str) -> list[set[str]]:
    """The files of each finding of a name, without their folders."""
    return [{Path(file).name for file in f.files} for f in report.findings if f.name == name]


def names(report) -> set[str]:
    return {finding.name for finding in report.findings}


def write(path: Path, samples: np.ndarray, rate: int = RATE, **format: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(path, "w", rate, channels, **format) as file:
        for start in range(0, len(samples), 1 << 15):  # Vorbis keeps a whole call on the stack
            file.write(samples[start : start + (1 << 15)])
    return path


def noise(seed: int, seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * rate))


def excerpt(path: Path) -> Excerpt:
    samples, rate = soundfile.read(path, always_2d=True)
    return Excerpt(samples.mean(axis=1), rate)


# --- planted faults in real recordings ------------------------------------------------------------

# Two clips of this set are one recording under two names: see the test of the whole set.
TWICE = ("2-28314-A", "2-30322-A")


@pytest.fixture(scope="module")
def originals(data_root, tmp_path_factory) -> Path:
    """Real clips in class folders: among them takes of one word, and parts of one recording."""
    root = tmp_path_factory.mktemp("doctor") / "clips"
    for folder in sorted((data_root / "esc10").glob("0*")):
        files = [f for f in sorted(folder.glob("*.ogg")) if f.stem not in TWICE]
        copy_all(files[:4], root / folder.name)
    recordings = data_root / "fsdd/recordings"
    for digit in (6, 7, 9):
        for speaker in ("george", "nicolas", "yweweler"):
            files = [recordings / f"{digit}_{speaker}_{take}.wav" for take in range(30, 40)]
            copy_all(files, root / f"digit {digit}")
    copy_all(
        [f for f in (data_root / "speech/en").glob("*.wav") if "jfk" not in f.name], root / "en"
    )
    copy_all(sorted((data_root / "machine_sounds").glob("mimii*/*/*.flac")), root / "machine")
    return root


def copy_all(files: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, file in enumerate(files):
        shutil.copy(file, folder / f"{i}_{file.name}")


def test_clean_recordings_have_no_duplicates_and_no_problems(originals):
    report = check_dataset(take_inventory([originals]).clips)
    assert not names(report) & {*DUPLICATES, "unreadable", "truncated", "lying", "silence"}
    assert names(report) >= {"mixed_sample_rates", "mixed_channels", "too_short"}
    assert report.facts["sample_rates"].keys() >= {"8000", "16000", "44100"}
    assert report.facts["labels"]["digit 7"] == 30
    assert sum(bar["n_files"] for bar in report.facts["lengths"]) == len(report.files)


COPIES = {
    "mp3": lambda x, rate: (x, rate, {"format": "MP3", "subtype": "MPEG_LAYER_III"}),
    "vorbis": lambda x, rate: (x, rate, {"format": "OGG", "subtype": "VORBIS"}),
    "quiet": lambda x, rate: (0.05 * x, rate, {"format": "WAV", "subtype": "PCM_16"}),
    "24 bit": lambda x, rate: (0.7 * x, rate, {"format": "FLAC", "subtype": "PCM_24"}),
    "clipped": lambda x, rate: (
        np.clip(6 * x / np.abs(x).max(), -1, 1),
        rate,
        {"format": "WAV", "subtype": "PCM_16"},
    ),
    "upsampled": lambda x, rate: (
        0.9 * scipy.signal.resample_poly(x, 2, 1),
        2 * rate,
        {"format": "WAV", "subtype": "PCM_16"},
    ),
    "downsampled": lambda x, rate: (
        0.9 * scipy.signal.resample_poly(x, 1, 2),
        rate // 2,
        {"format": "WAV", "subtype": "PCM_16"},
    ),
    "padded": lambda x, rate: (
        np.pad(x, (rate // 3, rate // 7)),
        rate,
        {"format": "WAV", "subtype": "PCM_16"},
    ),
    "trimmed": lambda x, rate: (
        x[len(x) // 20 : -len(x) // 8],
        rate,
        {"format": "WAV", "subtype": "PCM_16"},
    ),
}
SUFFIXES = {"MP3": ".mp3", "OGG": ".ogg", "WAV": ".wav", "FLAC": ".flac"}


@pytest.mark.parametrize("kind", COPIES)
def test_every_copy_is_found_and_no_other(originals, tmp_path, kind):
    """One copy of each third clip, in its own class."""
    root = tmp_path / "clips"
    shutil.copytree(originals, root)
    planted = []
    for file in sorted(root.rglob("*.*"))[::3]:
        samples, rate = soundfile.read(file, always_2d=True)
        samples, rate, format = COPIES[kind](samples.mean(axis=1), rate)
        copy = file.with_name(f"{file.name} {kind}{SUFFIXES[format['format']]}")
        planted.append({file.name, write(copy, samples, rate, **format).name})
    report = check_dataset(take_inventory([root]).clips)
    found = named(report, "near_duplicate")
    assert sorted(map(sorted, found)) == sorted(map(sorted, planted))
    assert not names(report) & {"duplicate", "duplicate_across_labels", "unreadable", "lying"}


def test_planted_faults_are_told_by_name(originals, tmp_path):
    root = tmp_path / "clips"
    shutil.copytree(originals, root)
    wavs = sorted(root.glob("digit 7/*.wav"))
    oggs = sorted(root.glob("00*/*.ogg"))
    shutil.copy(wavs[0], root / "digit 7/again.wav")
    samples, rate = soundfile.read(wavs[1], dtype="int16")
    write(root / "digit 7/as.flac", samples, rate, format="FLAC", subtype="PCM_16")
    shutil.copy(wavs[2], root / "digit 9/swapped.wav")
    music, rate_of_music = soundfile.read(oggs[0])
    coded = root / oggs[5].parent.name / "swapped.mp3"
    write(coded, music, rate_of_music, format="MP3", subtype="MPEG_LAYER_III")
    renamed = root / "en/renamed.wav"
    write(renamed, noise(1), format="MP3", subtype="MPEG_LAYER_III")
    for i in range(2):
        write(root / f"en/silent {i}.wav", np.zeros(RATE), format="WAV", subtype="PCM_16")
    (root / "en/broken.flac").write_bytes(b"fLaC" + bytes(100))
    whole = oggs[1].read_bytes()
    (root / "en/cut.ogg").write_bytes(whole[: len(whole) // 2])
    report = check_dataset(take_inventory([root]).clips)
    # The cut one is half of a clip of another class; what is left of it is the same recording.
    across = named(report, "duplicate_across_labels")
    assert {wavs[2].name, "swapped.wav"} in across
    assert {oggs[0].name, "swapped.mp3"} in across
    assert all("swapped" in str(group) or "cut.ogg" in group for group in across)
    assert named(report, "duplicate") == [
        {"again.wav", wavs[0].name},
        {"as.flac", wavs[1].name},
    ]
    assert not named(report, "near_duplicate")
    assert named(report, "lying") == [{"renamed.wav"}]
    assert named(report, "silence") == [{"silent 0.wav", "silent 1.wav"}]
    assert named(report, "unreadable") == [{"broken.flac"}]
    assert named(report, "truncated") == [{"cut.ogg"}]
    reasons = {f.name: f.reasons for f in report.findings}
    assert reasons["lying"] == ("It is named .wav and holds MP3: rename it.",)
    assert "broken.flac" in reasons["unreadable"][0]
    order = [finding.name for finding in report.findings]
    assert order.index("unreadable") < order.index("duplicate_across_labels")
    assert order.index("duplicate_across_labels") < order.index("duplicate")


@pytest.mark.parametrize(
    ("corpus", "pattern", "truth"),
    [
        # The speech of 1961 that is there three times, by the set's own description.
        ("speech", "*/*", [{"jfk.flac", "jfk.mp3", "jfk_16k.wav"}]),
        # FireBurning.wav and FireBurning_v2.wav of one author; they correlate to 0.97.
        ("esc10", "010*/*.ogg", [{"2-28314-A.ogg", "2-30322-A.ogg"}]),
        ("music_beats", "audio/*.wav", [{"sample.wav", "sample_22050.wav"}]),
        ("machine_sounds", "*/*/*.flac", []),
        ("arabic_commands", "audio/no/*.flac", []),
    ],
)
def test_real_sets(data_root, corpus, pattern, truth):
    files = [f for f in (data_root / corpus).glob(pattern) if f.suffix != ".raw"]
    report = check_dataset(files)
    found = [group for name in DUPLICATES for group in named(report, name)]
    assert found == truth


def test_higher_quality_versions_are_near_duplicates(data_root):
    files = sorted((data_root / "music_examples/audio").glob("*.ogg"))
    truth = [{f.name, f.name.replace(".hq.ogg", ".ogg")} for f in files if ".hq." in f.name]
    assert named(check_dataset(files), "near_duplicate") == truth


# --- fingerprints and comparison ------------------------------------------------------------------


def test_fold_is_the_transform_of_the_whole_clip():
    samples = noise(0, 1.3).astype(np.float32)
    folder = Folder(RATE)
    for block in np.array_split(samples, [10, 700, 6000, 6001]):
        folder.add(block)
    found = folder.spectra()
    time = np.arange(len(samples)) / RATE
    hertz = np.arange(8, 608) / 0.32
    for row, signal in zip(found, (samples.astype(float), np.sign(samples)), strict=True):
        direct = np.exp(-2j * np.pi * hertz[:, None] * time) @ signal
        # Only their smooth course and the norm are divided out.
        assert np.abs(np.angle(row * direct.conj())).max() < 1e-3


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 22050, 44100, 48000, 11127, 96000])
def test_fingerprints_agree_at_every_rate(rate):
    low = scipy.signal.resample_poly(noise(3, 2.0, 4000), 1, 1)
    up = scipy.signal.resample(low, round(len(low) * rate / 4000))
    prints = []
    for samples, own in ((low, 4000), (np.pad(up, (rate // 5, rate // 3)), rate)):
        folder = Folder(own)
        folder.add(samples.astype(np.float32))
        prints.append(folder.spectra())
    (candidate,) = find_candidates(prints)
    assert candidate.agreement > 0.9


def test_no_fingerprints_of_silence_and_of_very_short_clips():
    for samples in (np.zeros(RATE), np.full(RATE, 0.2), noise(0, 0.09)):
        folder = Folder(RATE)
        folder.add(samples.astype(np.float32))
        assert folder.spectra() is None
    assert find_candidates([]) == []


def test_takes_of_a_word_are_no_copies(data_root):
    """Not even compared directly, whatever their fingerprints say."""
    files = sorted((data_root / "fsdd/recordings").glob("9_nicolas_*.wav"))[:24]
    clips = [excerpt(file) for file in files]
    assert all(overlap_of_copies(a, b) == 0 for i, a in enumerate(clips) for b in clips[:i])


def test_a_hum_proves_nothing():
    """Two parts of one hum, of 2 and of 40 harmonics: alike after every period."""
    time = np.arange(3 * RATE) / RATE
    for n_harmonics in (1, 2, 40):
        phases = np.random.default_rng(n_harmonics).uniform(0, 2 * np.pi, n_harmonics)
        one, other = (
            sum(np.sin(2 * np.pi * 50 * (k + 1) * (time + at) + p) for k, p in enumerate(phases))
            + noise(seed, 3.0) / 20
            for seed, at in ((1, 0.0), (2, 0.123))
        )
        assert overlap_of_copies(Excerpt(one, RATE), Excerpt(other, RATE)) == 0


def test_overlap_is_the_share_of_the_shorter_one():
    samples = noise(0, 10.0)
    whole = Excerpt(samples, RATE)
    assert overlap_of_copies(whole, Excerpt(samples[30000:90000], RATE)) == pytest.approx(
        1, abs=0.01
    )
    first, second = Excerpt(samples[:100000], RATE), Excerpt(samples[25000:], RATE)
    assert overlap_of_copies(first, second) == pytest.approx(0.75, abs=0.01)
    third = Excerpt(samples[60000:], RATE)
    assert overlap_of_copies(first, third) == 0  # 40 %
    assert overlap_of_copies(whole, Excerpt(-samples, RATE)) == pytest.approx(1, abs=0.01)


# --- the report -----------------------------------------------------------------------------------


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Noise in two classes, without any fault."""
    for i in range(6):
        write(tmp_path / f"set/{'ab'[i % 2]}/{i}.wav", noise(i), format="WAV", subtype="PCM_16")
    return tmp_path / "set"


def test_clean_set_has_no_findings(corpus):
    report = check_dataset(take_inventory([corpus]).clips)
    assert report.findings == ()
    assert report.facts["labels"] == {"a": 3, "b": 3}
    assert report.facts["bit_depths"] == {"16": 6}
    assert report.facts["duration_seconds"] == 6


def test_same_report_for_any_number_of_jobs_and_any_order(corpus):
    shutil.copy(corpus / "a/0.wav", corpus / "b/copy.wav")
    samples, rate = soundfile.read(corpus / "a/2.wav")
    write(corpus / "a/loud.wav", 1.5 * samples, rate, format="WAV", subtype="PCM_24")
    clips = take_inventory([corpus]).clips
    told = []
    for jobs, ordered in ((1, clips), (2, clips), (5, clips[::-1])):
        done: list[int] = []
        told.append(check_dataset(ordered, jobs=jobs, advance=done.append))
        assert sum(done) == len(clips)
    assert told[0] == told[1] == told[2]
    assert names(told[0]) == {"duplicate_across_labels", "near_duplicate"}
    assert json.loads(json.dumps(told[0].as_dict())) == told[0].as_dict()


def test_splits_are_worse_than_labels(corpus):
    shutil.copy(corpus / "a/0.wav", corpus / "b/leak.wav")
    clips = [
        Clip(clip.path, clip.label, split="test" if clip.path.name == "leak.wav" else "train")
        for clip in take_inventory([corpus]).clips
    ]
    (finding,) = check_dataset(clips).findings
    assert finding.name == "duplicate_across_splits"
    assert finding.message == (
        "2 files are one recording, sample for sample, under the labels a, b, in the splits test, "
        "train"
    )


def test_split_folders(corpus, tmp_path):
    for split in ("train", "Test"):
        shutil.copytree(corpus, tmp_path / "data" / split)
    clips = take_inventory([tmp_path / "data"]).clips
    assert {(clip.split, clip.label) for clip in clips} == {
        (split, label) for split in ("train", "Test") for label in "ab"
    }
    assert len(named(check_dataset(clips), "duplicate_across_splits")) == 6


def test_flat_folder_and_single_files_have_no_labels(corpus):
    (corpus / "a/notes.txt").write_text("no audio")
    inventory = take_inventory([corpus / "a", corpus / "b/1.wav", corpus / "a/0.wav"])
    assert [clip.label for clip in inventory.clips] == [""] * 4
    assert inventory.passed_over == {".txt": 1}
    assert check_dataset(inventory.clips).files[0].label is None


def test_table_with_bad_rows(corpus):
    table = corpus / "table.csv"
    rows = [
        "path,kind,part,who",
        "a/0.wav,a,train,x",
        "a/0.wav,a,train,x",
        ",a,train,",
        "a/2.wav,,train,",
    ]
    rows += ["gone.wav,b,test,", "b/1.wav,b,test,y"]
    table.write_text("\n".join(rows))
    inventory = take_inventory([table], "path", "kind", "who", "part")
    assert [(c.path.name, c.label, c.split, c.group) for c in inventory.clips] == [
        ("0.wav", "a", "train", "x"),
        ("1.wav", "b", "test", "y"),
        ("gone.wav", "b", "test", None),
    ]
    report = check_dataset(inventory.clips, faults=inventory.faults)
    assert names(report) == {"unreadable", "bad_row", "single_clip_label"}
    (bad,) = (f for f in report.findings if f.name == "bad_row")
    assert [reason.split(": ")[0][-6:] for reason in bad.reasons] == ["line 3", "line 4", "line 5"]
    with pytest.raises(ParameterError, match="column 'path' is empty"):
        from_strict(table)


def from_strict(table: Path) -> None:
    from audiotorch.data import from_table

    rows = table.read_text().splitlines()
    table.write_text("\n".join([rows[0], *rows[3:]]))
    from_table(table, "path", "kind")


def test_label_findings(tmp_path):
    for seed, (label, count) in enumerate((("dog", 12), ("Dog ", 2), ("cat", 1))):
        for i in range(count):
            path = tmp_path / label / f"{i}.wav"
            write(path, noise(100 * seed + i, 0.6), format="WAV", subtype="PCM_16")
    report = check_dataset(take_inventory([tmp_path]).clips)
    told = {finding.name: finding.message for finding in report.findings}
    assert told.keys() == {"single_clip_label", "similar_labels", "imbalanced_labels"}
    assert told["single_clip_label"] == "1 label(s) with one clip: cat"
    assert told["similar_labels"] == "labels 'Dog ', 'dog' differ by case or blanks only"
    assert told["imbalanced_labels"] == "dog has 12 clips, but cat 1"


def test_non_finite_samples_and_empty_files(tmp_path):
    bad = noise(0)
    bad[500] = np.nan
    write(tmp_path / "nan.wav", bad, format="WAV", subtype="FLOAT")
    write(tmp_path / "empty.wav", np.zeros(0), format="WAV", subtype="PCM_16")
    (tmp_path / "no bytes.wav").touch()
    report = check_dataset(sorted(tmp_path.iterdir()))
    assert {name: named(report, name) for name in names(report)} == {
        "non_finite": [{"nan.wav"}],
        "empty": [{"empty.wav"}],
        "unreadable": [{"no bytes.wav"}],
    }


@pytest.mark.parametrize(
    ("suffix", "format", "subtype", "lies"),
    [
        (".WAV", "WAV", "PCM_16", False),
        (".wav", "WAVEX", "PCM_24", False),
        (".wav", "RF64", "PCM_16", False),
        (".oga", "OGG", "VORBIS", False),
        (".opus", "OGG", "OPUS", False),
        (".opus", "OGG", "VORBIS", True),
        (".flac", "WAV", "PCM_16", True),
        (".mp3", "WAV", "PCM_16", True),
        (".m4a", "FLAC", "PCM_16", True),
        (".aif", "AIFF", "PCM_16", False),
        (".recording", "WAV", "PCM_16", False),
    ],
)
def test_suffix_against_content(tmp_path, suffix, format, subtype, lies):
    path = write(tmp_path / f"a{suffix}", noise(0), format=format, subtype=subtype)
    assert names(check_dataset([path])) == ({"lying"} if lies else set())


def test_many_copies_are_one_group(tmp_path):
    samples = noise(0, 1.0)
    for i in range(60):
        write(tmp_path / f"{i}.wav", samples * (1 - i / 100), format="WAV", subtype="PCM_16")
    (finding,) = check_dataset(sorted(tmp_path.iterdir())).findings
    assert finding.name == "near_duplicate"
    assert len(finding.files) == 60


def test_long_recording_is_read_in_blocks(tmp_path):
    """Folded and measured block by block: equal to what the whole gives."""
    samples = np.tile(noise(0, 10.0, 8000), 60) * np.linspace(0.5, 1, 4_800_000)
    paths = [
        write(tmp_path / "long.wav", samples, 8000, format="WAV", subtype="PCM_16"),
        write(tmp_path / "long.flac", 0.5 * samples, 8000, format="FLAC", subtype="PCM_16"),
    ]
    report = check_dataset(paths)
    assert named(report, "near_duplicate") == [{"long.wav", "long.flac"}]
    assert report.facts["duration_seconds"] == 1200


def test_refusals(corpus):
    with pytest.raises(ParameterError, match="at least one recording"):
        check_dataset([])
    with pytest.raises(ParameterError, match="jobs=0"):
        check_dataset([corpus / "a/0.wav"], jobs=0)
    with pytest.raises(ParameterError, match="no such threshold"):
        check_dataset([corpus / "a/0.wav"], loudness=3)
    (corpus / "empty").mkdir()
    with pytest.raises(ParameterError, match="no audio files under"):
        take_inventory([corpus / "empty"])
    assert names(check_dataset([corpus / "a/0.wav"], min_duration=2.0)) == {"too_short"}
    assert names(check_dataset([corpus / "none.wav"])) == {"unreadable"}
