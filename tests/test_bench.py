import copy
import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

import audiotorch as at
from audiotorch.bench import measures, parity, quantities, recipe, rules
from audiotorch.bench.clips import Corpus, data_root, find_clips, five_seconds
from audiotorch.bench.measures import Comparison
from audiotorch.bench.memory import MemoryRow
from audiotorch.bench.parity import Task, run_parity
from audiotorch.bench.peers import PEERS, run_peers
from audiotorch.bench.quantities import QUANTITIES
from audiotorch.bench.recipe import run_recipe
from audiotorch.bench.references import REFERENCES, Sound, summary_of
from audiotorch.bench.results import (
    failures_told,
    memory_table,
    parity_tables,
    recipe_table,
    speed_tables,
)
from audiotorch.bench.rules import RULES, Measured, Rule, judge, measure
from audiotorch.bench.speed import Deviation, alternate, batches_of, run_speed
from audiotorch.bench.table import hardware, markdown, versions, write_section
from audiotorch.cli import main
from audiotorch.errors import ParameterError

RATE = 22050
QUICK = ("rms", "mel_spectrogram", "spectral_rolloff")


def noise(n_samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n_samples)).astype(np.float32)


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    """Three clips as if they were of `esc10`, of different lengths; one lasts 0.1 s."""
    folder = tmp_path / "data" / "esc10"
    folder.mkdir(parents=True)
    for name, seconds, rate in (("a", 2.0, RATE), ("b", 0.1, 44100), ("c", 1.0, 16000)):
        soundfile.write(folder / f"{name}.wav", noise(round(seconds * rate)), rate)
    monkeypatch.setenv("AUDIOTORCH_DATA", os.fspath(folder.parent))
    return folder.parent


# --- recordings -----------------------------------------------------------------------------------


def test_clips_are_those_listed_evenly_spread(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    names = [f"{k}.wav" for k in range(9)]
    (folder / "labels.csv").write_text("file,digit\n" + "".join(f"{n},0\n" for n in names))
    corpus = Corpus("digits", "labels.csv", count=5)
    found = [clip.path.name for clip in find_clips(tmp_path, corpora=[corpus])]
    assert found == ["0.wav", "2.wav", "4.wav", "6.wav", "8.wav"]
    found = [clip.name for clip in find_clips(tmp_path, 2, [corpus])]
    assert found == ["0, digits", "8, digits"]


def test_folder_without_listing_is_searched(tmp_path):
    folder = tmp_path / "music" / "audio"
    folder.mkdir(parents=True)
    for name in ("b.wav", "a.FLAC", ".hidden.wav", "c.txt", "d.m4a"):
        (folder / name).touch()
    found = find_clips(tmp_path, corpora=[Corpus("music"), Corpus("missing")])
    assert [clip.path.name for clip in found] == ["a.FLAC", "b.wav"]


def test_missing_recordings_are_told(tmp_path, monkeypatch):
    with pytest.raises(ParameterError, match=r"no recordings in any of esc10 .* there"):
        find_clips(tmp_path)
    monkeypatch.delenv("AUDIOTORCH_DATA", raising=False)
    with pytest.raises(ParameterError, match=r"AUDIOTORCH_DATA='': set it to the folder"):
        data_root()


def test_first_channel_is_taken(tmp_path):
    folder = tmp_path / "machines"
    folder.mkdir()
    left, right = noise(800), noise(800, seed=1)
    soundfile.write(folder / "two.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    (first,) = find_clips(tmp_path, corpora=[Corpus("machines", first_channel=True)])
    (both,) = find_clips(tmp_path, corpora=[Corpus("machines")])
    assert np.array_equal(first.read(None)[0], left)
    assert np.allclose(both.read(None)[0], (left + right) / 2, atol=1e-7)


def test_clips_to_time_last_five_seconds(root):
    clips = five_seconds(root, 10)
    assert [clip.shape for clip in clips] == [(110250,)] * 3
    assert clips[0][: 2 * RATE].any()
    assert not clips[0][2 * RATE :].any()


# --- rules ----------------------------------------------------------------------------------------


def compared(rule: Rule, *pairs: tuple[list[float], list[float]]) -> rules.Outcome:
    """Judge answers beside what they must be, each pair one clip's."""
    found = []
    for place, (ours, expected) in enumerate(pairs):
        arrays = np.array([ours]), np.array([expected])
        found.append(measure(rule, Comparison(*arrays, Sound(noise(10), RATE)), f"clip {place}"))
    return judge(rule, found)


def test_rules_cover_all_features():
    ruled = {rule.quantity for rule in RULES}
    assert ruled >= set(at.FEATURES)
    assert ruled == set(REFERENCES) == set(QUANTITIES)


def test_worst_clip_decides():
    rule = Rule("rms", measures.absolute, 0.1, " dB")
    outcome = compared(rule, ([1.0], [1.05]), ([2.0, 3.0], [2.0, 2.91]))
    assert (outcome.holds, outcome.figure, outcome.where) == (True, "0.09", "clip 1")
    assert outcome.use == pytest.approx(0.9)
    assert rule.text == "within 0.1 dB"
    assert rule.told(outcome) == "0.09 dB"
    assert not compared(rule, ([1.0], [1.05]), ([2.0], [2.2])).holds


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_nan_breaks_a_rule(share):
    rule = Rule("rms", measures.absolute, 0.1, share=share)
    assert not compared(rule, ([np.nan], [1.0])).holds


def test_share_of_values_decides():
    rule = Rule("rms", measures.absolute, 0.0, share=0.75, of="frames")
    outcome = compared(rule, ([1.0, 2.0], [1.0, 2.0]), ([3.0, 4.0], [3.0, 9.0]))
    assert (outcome.holds, outcome.figure, outcome.where) == (True, "75 %", "clip 1")
    assert rule.text == "75 % of frames equal"
    assert rule.told(outcome) == "75 % of frames equal"
    assert not compared(rule, ([1.0], [1.0]), ([3.0, 4.0], [8.0, 9.0])).holds


def test_less_than_all_is_never_told_as_all():
    rule = Rule("rms", measures.absolute, 0.0, share=0.5)
    all_but_one = judge(rule, [Measured("clip", 1.0, 9_999_999, 10_000_000)])
    assert all_but_one.figure == "99.9999 %"


def test_rule_of_equality():
    rule = Rule("zero_crossing_rate", measures.absolute, 0.0)
    assert compared(rule, ([0.5], [0.5])).holds
    assert not compared(rule, ([0.5], [0.5000001])).holds
    assert rule.text == "equal"


def test_no_clip_is_no_evidence():
    assert not judge(RULES[0], []).holds


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"rms: shape \(1, 2\), must be \(1, 1\)"):
        compared(Rule("rms", measures.absolute, 1.0), ([1.0, 2.0], [1.0]))


def test_columns_are_taken_in_units_of_their_spread():
    rule = Rule("rms", measures.absolute, 0.1, spread=True)
    # Spreads are 1 and 100.
    outcome = compared(rule, ([0.0, 5.0], [0.0, 0.0]), ([2.05, 200.0], [2.0, 200.0]))
    assert (outcome.holds, outcome.where) == (True, "clip 0")
    assert outcome.use == pytest.approx(0.5)
    assert not compared(rule, ([1.0], [1.0]), ([1.001], [1.0])).holds, "a column that never varies"


def test_rolloff_is_counted_in_bins():
    comparison = Comparison(
        np.array([[1000.0, 1010.766]]), np.array([[1000.0, 1000.0]]), Sound(noise(10), RATE)
    )
    assert measures.bins_off(comparison).tolist() == [[0.0, 1.0]]


def test_chroma_counts_where_the_tuning_is_equal():
    sound = Sound(noise(RATE), RATE)
    expected = sound.chroma
    alike = Comparison(expected + 1e-6, expected, sound)
    assert measures.chroma(alike).max() <= 1.1e-6
    assert measures.chroma_tuning(alike).tolist() == [0.0]
    tuned = librosa.feature.chroma_stft(y=sound.waveform, sr=RATE, tuning=0.31)
    other = Comparison(tuned, expected, sound)
    assert measures.chroma(other).size == 0
    assert measures.chroma_tuning(other).tolist() == [1.0]
    wrong = Comparison(expected + 0.1, expected, sound)
    assert measures.chroma(wrong).max() > 0.09
    assert measures.chroma_tuning(wrong).tolist() == [0.0]


def test_tonnetz_counts_where_librosa_determines_it():
    y = np.concatenate([noise(RATE), np.zeros(3 * RATE, dtype=np.float32)])
    sound = Sound(y, RATE)
    in_single, in_double = (REFERENCES["tonnetz"](s) for s in (sound, sound.other_precision))
    silent = np.abs(in_single - in_double).max(axis=0) > 1e-2
    assert silent.any()
    comparison = Comparison(in_double, in_single, sound)
    assert measures.tonnetz_determined(comparison).max() <= 1e-2
    wrong = Comparison(in_single + 0.1 * ~silent, in_single, sound)
    errors = measures.tonnetz_determined(wrong)
    assert errors.shape == (6, (~silent).sum())
    assert errors.min() > 0.09


def test_summary_has_its_columns_in_order():
    clip = noise(RATE)
    names = quantities.build("summary_vector", RATE).names
    expected = dict(zip(names, summary_of(clip, RATE), strict=True))
    rolloff = librosa.feature.spectral_rolloff(y=clip, sr=RATE)
    assert expected["spectral_rolloff_mean"] == pytest.approx(rolloff.mean())
    assert expected["spectral_rolloff_std"] == pytest.approx(rolloff.std())
    mfcc = librosa.feature.mfcc(y=clip, sr=RATE, n_mfcc=13)
    assert expected["delta2_mfcc_min_12"] == pytest.approx(
        librosa.feature.delta(mfcc, order=2)[12].min()
    )


# --- comparing ------------------------------------------------------------------------------------


def test_clips_are_compared_alone_and_in_a_batch(root):
    done = []
    report = run_parity(find_clips(root), Task.of(QUICK), advance=done.append)
    assert report.n_clips == sum(done) == 3
    assert {rule.quantity for rule in report.parity} == set(QUICK)
    assert all(len(found) == 3 for found in report.parity.values())
    assert all(len(found) == 3 for found in report.batches.values())
    text, holds = parity_tables(Task.of(QUICK), report)
    assert holds, text
    assert "| `rms` | within 1e-06 of the value | " in text
    assert "librosa 0.11" in text


def test_work_can_be_spread_over_processes(root, monkeypatch):
    task = pickle.loads(pickle.dumps(Task.of(["rms"])))
    alone = run_parity(find_clips(root), task)
    assert pickle.loads(pickle.dumps(alone)).parity == alone.parity

    def threads(jobs, mp_context, initializer):
        return ThreadPoolExecutor(jobs)

    # New processes would import everything anew.
    monkeypatch.setattr(parity, "ProcessPoolExecutor", threads)
    several = run_parity(find_clips(root), task, jobs=2)
    assert sorted(several.parity[task.rules[0]]) == sorted(alone.parity[task.rules[0]])
    assert several.n_clips == 3


def test_wrong_numbers_are_found(root, monkeypatch):
    monkeypatch.setitem(
        parity.REFERENCES, "rms", lambda sound: 1.001 * librosa.feature.rms(y=sound.waveform)
    )
    text, holds = parity_tables(Task.of(["rms"]), run_parity(find_clips(root), Task.of(["rms"])))
    assert not holds
    assert "| no |" in text


def test_what_leaks_between_clips_is_found(root, monkeypatch):
    module = at.features.RMS(RATE)

    def leaking(waveform, lengths=None):
        rms = module(waveform, lengths)
        return rms / rms.amax()

    monkeypatch.setattr(parity, "build", lambda name, rate: leaking)
    report = run_parity(find_clips(root), Task.of(["rms"]))
    assert not judge(*next(iter(report.batches.items()))).holds


def test_bad_clips_do_not_end_the_run(root, monkeypatch):
    (root / "esc10" / "d.wav").write_bytes(b"no audio")
    reference = REFERENCES["rms"]

    def refuses_long(sound):
        if len(sound.waveform) > 1.5 * RATE:
            raise RuntimeError("too long")
        return reference(sound)

    monkeypatch.setitem(parity.REFERENCES, "rms", refuses_long)
    task = Task.of(["rms", "mel_spectrogram"])
    report = run_parity(find_clips(root), task)
    text, holds = parity_tables(task, report)
    assert not holds
    assert "no (1 failed)" in text
    assert report.n_clips == 3
    told = sorted(failures_told(report))
    assert told[0].startswith("decoding, d, esc10: DecodeError: ")
    assert told[1] == "rms, a, esc10: RuntimeError: too long"


def test_like_failures_are_told_once():
    failures = [parity.Failure("cqt", name, "ValueError: too short") for name in "ab"]
    assert failures_told(parity.Report(failures=failures)) == [
        "cqt, a and 1 more: ValueError: too short"
    ]


def test_what_both_refuse_is_counted(tmp_path):
    (tmp_path / "esc10").mkdir()
    soundfile.write(tmp_path / "esc10" / "low.wav", noise(8000), 8000)
    task = Task.of(["spectral_contrast"], native=True)
    report = run_parity(find_clips(tmp_path), task)
    assert report.refused == {"spectral_contrast": 1}
    assert not report.failures
    assert "refused by both: 1 |" in parity_tables(task, report)[0]


def test_double_precision_and_native_rates(root):
    task = Task.of(["mel_spectrogram"], native=True, double=True)
    (rule,) = task.rules
    assert rule.limit == 1e-7
    report = run_parity(find_clips(root), task)
    assert judge(rule, report.parity[rule]).holds
    text, holds = parity_tables(task, report)
    assert holds
    assert "each at its own sample rate, float64" in text


def test_unknown_quantities_are_refused():
    with pytest.raises(ParameterError, match=r"features=\['loudness'\]: unknown; .* rms "):
        Task.of(["rms", "loudness"])


# --- speed and memory -----------------------------------------------------------------------------


def test_sides_take_turns_on_the_same_clips():
    calls = []
    batches = batches_of([noise(100, seed) for seed in range(16)])
    assert [len(batch.clips) for batch in batches] == [4, 4, 4, 4]
    looked = []
    timing = alternate(
        lambda batch: calls.append("ours") or "a",
        lambda batch: calls.append("theirs") or "b",
        batches,
        lambda batch, ours, theirs: looked.append((batch, ours, theirs)),
    )
    assert calls[-8:] == ["theirs", "ours", "ours", "theirs"] * 2
    assert looked == [(batch, "a", "b") for batch in batches]
    assert len(timing.ratios) == len(timing.ours) == 4


def test_few_clips_come_again():
    batches = batches_of([noise(100), noise(100, 1)])
    assert [len(batch.clips) for batch in batches] == [2, 2, 2, 2]
    assert torch.equal(batches[0].waveform[1], torch.from_numpy(noise(100, 1)))


def test_deviation_is_that_nearest_to_its_limit():
    clip = noise(RATE)
    expected = {name: REFERENCES[name](Sound(clip, RATE)) for name in ("rms", "mfcc")}
    deviation = Deviation()
    ours = copy.deepcopy(expected)
    ours["mfcc"][0, 0] += 1e-3
    deviation.add(ours, expected, clip)
    assert deviation.told() == "`mfcc` 0.001 dB"
    ours["mfcc"][0, 0] += 1.0
    deviation.add(ours, expected, clip)
    assert deviation.told() == "`mfcc` 1 dB, more than allowed"


@pytest.mark.parametrize("n_threads", [1, 2])
def test_work_is_timed_against_librosa(n_threads):
    before = torch.get_num_threads()
    clips = [noise(RATE, seed) for seed in range(4)]
    done = []
    rows = run_speed(clips, ["mel", "load"], n_threads, advance=done.append)
    assert torch.get_num_threads() == before
    assert done == [1, 1]
    for row in rows:
        assert min(row.timing.ours) > 0
        assert "more than allowed" not in row.deviation
    text = speed_tables(rows, [], len(clips), n_threads)
    assert "| `MelSpectrogram`, 128 bands | " in text
    assert hardware() in text


def test_unknown_work_is_refused():
    with pytest.raises(ParameterError, match=r"work=\['fft'\]: unknown; known are summary table"):
        run_speed([noise(100)], ["fft"])


def test_peers_are_timed_and_compared():
    peer = PEERS[0]
    assert (peer.package, peer.whole) == ("torchaudio", True)
    missing = replace(peer, package="no_such_package")
    rows = run_peers([noise(RATE, seed) for seed in range(4)], [peer, missing])
    (row,) = rows
    assert row.theirs.endswith("of the clip's maximum")
    assert "| torchaudio | mel, whole batch | " in speed_tables([], rows, 4, 1)


@pytest.fixture
def digits(root, monkeypatch) -> Path:
    """Two digits as if they were of `fsdd`, five clips each; some last less than 0.5 s."""
    folder = root / "fsdd"
    folder.mkdir()
    listing = ["file,digit"]
    for place in range(10):
        time = np.arange(2000 + 500 * place) / 8000
        tone = np.sin(2 * np.pi * (300 + 600 * (place % 2)) * time)
        soundfile.write(folder / f"{place}.wav", tone * (0.1 + noise(len(time), place)), 8000)
        listing.append(f"{place}.wav,{place % 2}")
    (folder / "labels.csv").write_text("\n".join(listing))
    monkeypatch.setattr(recipe, "CLASSIFIERS", ("logistic",))
    return root


def test_recipes_are_timed_against_librosa(digits):
    done = []
    vectors, training, both = rows = run_recipe(digits, 100, 2, done.append)
    assert done == [1]
    assert {(row.corpus, row.n_clips) for row in rows} == {("fsdd", 10)}
    assert "more than allowed" not in vectors.told
    assert training.told == both.told == "accuracy 100.0 %, on librosa's vectors 100.0 %"
    for side in ("ours", "theirs"):
        parts = [np.array(getattr(row.timing, side)) for row in rows]
        assert len(parts[0]) == 3
        np.testing.assert_allclose(parts[0] + parts[1], parts[2])
    text = recipe_table(rows, 2)
    assert "2 threads on each side" in text
    assert "| fsdd, 10 | `logistic`, all | " in text


def test_recipes_need_recordings(root):
    with pytest.raises(ParameterError, match="holds none of fsdd esc10 arabic_commands"):
        run_recipe(root, 10)


def test_command_times_recipes(digits, capsys):
    assert main(["bench", "--recipe", "--threads", "1"]) == 0
    assert "| fsdd, 10 | vectors | " in capsys.readouterr().out


def test_memory_is_bounded():
    row = MemoryRow("summary", (200, 400), (300_000_000, 320_000_000), (0, 20_000_000))
    assert memory_table([row])[1]
    text, bounded = memory_table([row, row._replace(growth=(300_000_000, 600_000_000))])
    assert not bounded
    assert "| 300 and 600 | 0.0 and 20.0 | no: " in text
    assert not row._replace(growth=(1_600_000_000, 1_600_000_000)).holds


# --- tables and command ---------------------------------------------------------------------------


def test_cells_cannot_break_a_table():
    assert markdown(("a",), [["x | y\nz"]]) == "| a |\n| --- |\n| x \\| y z |\n"


def test_versions_of_what_is_installed():
    assert versions(["librosa", "no_such_package"]).startswith(f"librosa {librosa.__version__}, P")


def test_section_of_a_document_is_replaced(tmp_path):
    document = tmp_path / "README.md"
    document.write_text(
        "# a\n<!-- benchmark: speed -->\n<!-- /benchmark: speed -->\n"
        "<!-- benchmark: parity -->\nold\n<!-- /benchmark: parity -->\nend\n"
    )
    document.chmod(0o640)
    for text in ("first\n", "| table |\n"):
        write_section(document, "parity", text)
    assert document.read_text() == (
        "# a\n<!-- benchmark: speed -->\n<!-- /benchmark: speed -->\n"
        "<!-- benchmark: parity -->\n\n| table |\n\n<!-- /benchmark: parity -->\nend\n"
    )
    assert document.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    with pytest.raises(ParameterError, match=r"README\.md'.*: needs the lines <!-- benchmark: x"):
        write_section(document, "x", "text")


def test_command_writes_tables(root, tmp_path, capsys):
    document = tmp_path / "doc.md"
    document.write_text("<!-- benchmark: parity -->\n<!-- /benchmark: parity -->\n")
    arguments = ["--parity", "--jobs", "1", "--features", "rms", "--write", str(document)]
    assert main(["bench", *arguments]) == 0
    assert "| `rms` |" in document.read_text()
    assert "| `rms` |" in capsys.readouterr().out


def test_command_tells_broken_rules_by_its_status(root, monkeypatch):
    monkeypatch.setitem(parity.REFERENCES, "rms", lambda sound: np.zeros((1, 1)))
    assert main(["bench", "--parity", "--jobs", "1", "--features", "rms"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"nothing to do"),
        (["--parity", "--features", "loud"], r"features=\['loud'\]: unknown"),
        (["--parity", "--write", "missing.md"], r"'missing.md': there is no such file"),
        (["--speed", "--threads", "0"], r"must be a whole number"),
        (["missing.ts"], r"missing\.ts"),
    ],
)
def test_wrong_use_is_told(root, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_librosa_is_asked_for(root, monkeypatch, capsys):
    monkeypatch.setattr("audiotorch.cli.bench.find_spec", lambda name: None)
    assert main(["bench", "--parity"]) == 2
    assert "pip install 'audiotorch[bench]'" in capsys.readouterr().err
