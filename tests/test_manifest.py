"""Clips from folders, patterns and tables, and their splits."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from audiotorch.data.manifest import (
    Clip,
    check_clips,
    from_folder,
    from_glob,
    from_table,
    sort_labels,
)
from audiotorch.data.splits import split_clips
from audiotorch.errors import ParameterError

DATA = os.environ.get("AUDIOTORCH_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="AUDIOTORCH_DATA names no recordings")


def touch(root, *names):
    """Empty files: manifests look at names only."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def clips_of(labels, groups=None, splits=None):
    """Clips in memory, one for each label given."""
    n = len(labels)
    return [
        Clip(Path(f"/x/{labels[i]}/{i:05d}.wav"), labels[i], g, s)
        for i, g, s in zip(range(n), groups or [None] * n, splits or [None] * n, strict=True)
    ]


# --- folders -------------------------------------------------------------------------------------


def test_folder_reads_classes_recursively_and_sorted(tmp_path):
    touch(tmp_path, "dog bark/a.wav", "dog bark/deep/B.FLAC", "rain/c.ogg", "rain/d.mp3")
    touch(tmp_path, "rain/notes.txt", "rain/._c.ogg", ".cache/e.wav", "readme.md")
    clips = from_folder(tmp_path)
    assert [(c.label, c.path.name) for c in clips] == [
        ("dog bark", "a.wav"),
        ("dog bark", "B.FLAC"),
        ("rain", "c.ogg"),
        ("rain", "d.mp3"),
    ]
    assert all(c.path.is_absolute() and c.group is None and c.split is None for c in clips)


def test_folder_without_audio_is_named_in_the_log(tmp_path, caplog):
    touch(tmp_path, "a/1.wav", "a/2.wav", "b/1.wav", "b/2.wav", "figures/x.png")
    assert {c.label for c in from_folder(tmp_path)} == {"a", "b"}
    assert "figures holds no audio" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "the folder is empty; put the recordings"),
        (["a/readme.txt"], r"holds no file ending in \.wav"),
        (["1.wav", "2.wav"], "2 audio files lie in no class folder; make one folder per class"),
        (["a/1.wav", "a/2.wav"], r"1 class \['a'\]; there must be at least two"),
        (["a/1.wav", "a/2.wav", "b/1.wav"], "'b' has one clip only; every class must have"),
        (["Dog/1.wav", "Dog/2.wav", "dog/3.wav", "dog/4.wav"], r"\['Dog', 'dog'\] differ only by"),
        (["dog/1.wav", "dog/2.wav", "dog /3.wav", "c/1.wav"], r"\['dog', 'dog '\] differ only by"),
    ],
)
def test_folder_refusals(tmp_path, names, message):
    with pytest.raises(ParameterError, match=message):
        from_folder(touch(tmp_path, *names))


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"must be an existing folder; check data.root"):
        from_folder(tmp_path / "none")


def test_labels_in_two_unicode_forms_are_refused():
    with pytest.raises(ParameterError, match="differ only by"):
        check_clips(clips_of(["caf\u00e9", "cafe\u0301", "x", "x"]), "here")


def test_labels_sort_as_numbers_only_if_all_are():
    assert sort_labels(["10", "2", "-1", "2"]) == ["-1", "2", "10"]
    assert sort_labels(["10", "2", "a"]) == ["10", "2", "a"]


# --- patterns ------------------------------------------------------------------------------------


def test_glob_takes_label_and_group_from_the_path(tmp_path):
    touch(tmp_path, "s1/yes_0.wav", "s1/no_0.wav", "s2/yes_1.wav", "s2/no_1.wav", "s2/list.txt")
    clips = from_glob(tmp_path, "**/*", regex=r"^(?P<group>\w+)/(?P<label>[a-z]+)_")
    assert [(c.label, c.group) for c in clips] == [
        ("no", "s1"),
        ("yes", "s1"),
        ("no", "s2"),
        ("yes", "s2"),
    ]


@pytest.mark.parametrize(
    ("pattern", "regex", "message"),
    [
        ("*.wav", "(?P<label", "must be a regular expression"),
        ("*.wav", "(.*)", r"must hold a named group; write \(\?P<label>"),
        ("*.wav", "(?P<label>[a-z])[0-9]", "but not 'odd.wav'; widen the expression"),
        ("*.flac", "(?P<label>.)", "matches none; check the pattern"),
        ("../*.wav", "(?P<label>.)", "must stay below root"),
        ("*.wav", "(?P<label>[0-9]?)", "has an empty label"),
    ],
)
def test_glob_refusals(tmp_path, pattern, regex, message):
    touch(tmp_path, "a1.wav", "a2.wav", "b1.wav", "b2.wav", "odd.wav")
    with pytest.raises(ParameterError, match=message):
        from_glob(tmp_path, pattern, regex=regex)


# --- tables --------------------------------------------------------------------------------------

ROWS = [("a/1.wav", "0", "ann", "train"), ("a/2.wav", "0", "bob", "test")]
ROWS += [("b/1.wav", "1", "ann", "train"), ("b/2.wav", "1", "", "test")]


def table_text(kind):
    if kind == "jsonl":
        keys = ("where", "digit", "who", "part")
        # Numbers as numbers, as programs write them.
        rows = [dict(zip(keys, (r[0], int(r[1]), r[2] or None, r[3]), strict=True)) for r in ROWS]
        return "\n".join(json.dumps(row) for row in rows) + "\n\n"
    sep = {"csv": ",", "tsv": "\t", "semicolon": ";"}[kind]
    lines = [sep.join(("where", " digit", "who", "part"))] + [sep.join(row) for row in ROWS]
    return "\ufeff" + "\r\n".join(lines) + "\r\n\r\n"


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "jsonl"])
def test_table_formats_agree(tmp_path, kind):
    touch(tmp_path, *(row[0] for row in ROWS))
    suffix = "csv" if kind == "semicolon" else kind
    table = write(tmp_path / f"list.{suffix}", table_text(kind))
    clips = from_table(table, "where", "digit", "who", "part")
    assert clips == [
        Clip(tmp_path / "a/1.wav", "0", "ann", "train"),
        Clip(tmp_path / "a/2.wav", "0", "bob", "test"),
        Clip(tmp_path / "b/1.wav", "1", "ann", "train"),
        Clip(tmp_path / "b/2.wav", "1", None, "test"),
    ]


def test_table_root_moves_relative_names(tmp_path):
    touch(tmp_path / "audio", *(row[0] for row in ROWS))
    table = write(tmp_path / "list.csv", table_text("csv"))
    clips = from_table(table, "where", "digit", root=tmp_path / "audio")
    assert all(clip.path.is_file() for clip in clips)
    with pytest.raises(ParameterError, match=r"none of its 4 files exists.*set data.root"):
        from_table(table, "where", "digit")


@pytest.mark.parametrize(
    ("name", "text", "columns", "message"),
    [
        ("t.csv", "path,lable\na,b\n", {}, r"which has \['path', 'lable'\]; set data.file_column"),
        ("t.csv", "file,Lable\na,b\n", {}, "did you mean 'Lable'.*set data.label_column"),
        ("t.csv", "file,label\na,b\n", {"group_column": "who"}, "group_column='who': must be"),
        ("t.csv", "file,label\n1.wav,a\n2.wav,\n", {}, "line 3: column 'label' is empty"),
        ("t.csv", "file,label\n1.wav,a\n2.wav\n", {}, "line 3: column 'label' is empty"),
        ("t.csv", "file,label\n1.wav,a\nx/../1.wav,b\n", {}, "line 3.*listed in line 2 already"),
        ("t.csv", "file,label\n", {}, "has no rows"),
        ("t.csv", "", {}, "has no rows"),
        ("t.csv", "file,label\n1.wav,a\n2.wav,A\n", {}, "differ only by case"),
        ("t.csv", "file,label\n1.wav,a\n2.wav,a \n", {}, "differ only by case"),
        ("t.jsonl", '{"file": "1.wav", "label": "a"}\n{"file"\n', {}, "line 2: must be JSON"),
        ("t.jsonl", "[1]\n", {}, "line 1: must be one object"),
        ("t.jsonl", '{"file": "1.wav", "label": null}\n', {}, "line 1: column 'label' is empty"),
        ("t.xlsx", "x", {}, "must end in .csv, .tsv or .jsonl"),
    ],
)
def test_table_refusals(tmp_path, name, text, columns, message):
    touch(tmp_path, "1.wav", "2.wav")
    with pytest.raises(ParameterError, match=message):
        from_table(write(tmp_path / name, text), **columns)


def test_table_missing_or_not_text_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="must be an existing file"):
        from_table(tmp_path / "none.csv")
    (tmp_path / "t.csv").write_bytes("file,label\nm\u00fcll,a\n".encode("latin-1"))
    with pytest.raises(ParameterError, match="must be UTF-8"):
        from_table(tmp_path / "t.csv")


@needs_data
def test_real_tables_and_folders_agree_with_their_files():
    digits = from_table(f"{DATA}/fsdd/labels.csv", label_column="digit", group_column="speaker")
    assert sort_labels(c.label for c in digits) == [str(i) for i in range(10)]
    assert Counter(c.group for c in digits) == dict.fromkeys(
        ("george", "jackson", "lucas", "nicolas", "yweweler"), 500
    )
    table = from_table(f"{DATA}/esc10/labels.csv", label_column="class_name", group_column="fold")
    folder = from_folder(f"{DATA}/esc10")
    assert {c.path for c in table} == {c.path for c in folder}
    assert "001 - Dog bark" in {c.label for c in folder}
    assert soundfile.info(str(folder[0].path)).samplerate == 44100


# --- splits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(50, 30, 20), (7, 7, 7), (100, 3, 2), (13, 57, 131)])
@pytest.mark.parametrize("fraction", [0.1, 0.15, 0.3])
def test_stratified_counts_are_sklearns(counts, fraction):
    labels = [c for c, n in zip("abc", counts, strict=True) for _ in range(n)]
    clips = clips_of(labels)
    splits = split_clips(clips, validation="clip", val_fraction=fraction)
    oracle = StratifiedShuffleSplit(1, test_size=fraction, random_state=0)
    _, chosen = next(oracle.split(np.zeros(len(labels)), labels))
    assert len(splits.val) == len(chosen)
    ours, theirs = Counter(c.label for c in splits.val), Counter(labels[i] for i in chosen)
    # Equal remainders are broken at random there.
    assert all(abs(ours[c] - theirs[c]) <= 1 for c in "abc")


def test_test_fraction_is_stratified_too():
    splits = split_clips(clips_of(["a"] * 60 + ["b"] * 40), test_fraction=0.2)
    assert Counter(c.label for c in splits.test) == {"a": 12, "b": 8}
    assert Counter(c.label for c in splits.val) == {"a": 7, "b": 5}
    assert splits.validation == "clip"
    assert splits.notes == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_groups_never_stand_on_both_sides(data):
    n_groups = data.draw(st.integers(2, 14))
    row = st.tuples(st.sampled_from("abc"), st.integers(0, n_groups - 1))
    rows = data.draw(st.lists(row, min_size=4, max_size=80))
    labels, groups = [r[0] for r in rows], [f"g{r[1]}" for r in rows]
    clips = clips_of(labels, groups)
    seed = data.draw(st.integers(0, 5))
    spread = all(
        len({g for c, g in zip(labels, groups, strict=True) if c == x}) > 1 for x in labels
    )
    if len(set(labels)) < 2 or len(set(groups)) < 2:
        with pytest.raises(ParameterError, match="must be at least"):
            split_clips(clips, validation="group", seed=seed)
        return
    if not spread:
        return  # whether a group can go depends on the others: see the tests below
    splits = split_clips(clips, validation="group", seed=seed)
    assert not {c.group for c in splits.train} & {c.group for c in splits.val}
    assert {c.label for c in splits.train} == set(labels)
    assert sorted(splits.train + splits.val) == sorted(clips)
    shuffled = data.draw(st.permutations(clips))
    again = split_clips(shuffled, validation="group", seed=seed)
    assert again == splits


def test_group_validation_covers_every_class_and_its_share():
    labels = [c for _ in range(20) for c in "abcd" for _ in range(3)]
    groups = [f"s{i // 12}" for i in range(240)]
    splits = split_clips(clips_of(labels, groups))
    assert splits.validation == "group"
    assert {c.label for c in splits.val} == set("abcd")
    assert 0.1 <= len(splits.val) / 240 <= 0.2
    other = split_clips(clips_of(labels, groups), seed=1)
    assert {c.group for c in other.val} != {c.group for c in splits.val}


def test_few_groups_validate_by_clip_and_say_so():
    labels, groups = ["a", "b"] * 20, [f"s{i // 8}" for i in range(40)]
    splits = split_clips(clips_of(labels, groups), test_group="s4")
    assert splits.validation == "clip"
    assert {c.group for c in splits.test} == {"s4"}
    assert splits.notes == ["validation figure is on seen groups (clip validation with 4 groups)"]


def test_eight_groups_with_a_class_each_fall_back_to_clips():
    labels = [f"bird{i // 6}" for i in range(48)]
    splits = split_clips(clips_of(labels, labels))
    assert splits.validation == "clip"
    assert "every group holds the only clips of some class" in splits.notes[0]
    with pytest.raises(ParameterError, match=r"every group holds the only clips.*='clip'"):
        split_clips(clips_of(labels, labels), validation="group")


@pytest.mark.parametrize("test_group", [3, "3", ["3"], (3, 1)])
def test_test_groups_are_compared_as_text(test_group):
    splits = split_clips(
        clips_of(["a", "b"] * 8, ["1", "1", "2", "2", "3", "3", "4", "4"] * 2),
        test_group=test_group,
    )
    wanted = {"3", "1"} if isinstance(test_group, tuple) else {"3"}
    assert {c.group for c in splits.test} == wanted
    assert not {c.group for c in splits.train + splits.val} & wanted


def test_given_splits_are_kept():
    parts = ["Training", "valid", "test", "train"] * 10
    splits = split_clips(clips_of(["a", "b", "b", "b", "b", "a", "a", "a"] * 5, splits=parts))
    assert splits.validation == "given"
    assert [len(p) for p in (splits.train, splits.val, splits.test)] == [20, 10, 10]
    everything = split_clips(
        clips_of(["a", "b", "b", "b", "b", "a", "a", "a"] * 5, splits=parts), validation="none"
    )
    assert [len(p) for p in (everything.train, everything.val, everything.test)] == [30, 0, 10]
    assert everything.validation == "none"


def test_only_a_given_validation_part_where_asked_for():
    labels = ["a", "b"] * 10
    parts = ["train"] * 12 + ["val"] * 8
    splits = split_clips(clips_of(labels, splits=parts), validation="given")
    assert (splits.validation, len(splits.val)) == ("given", 8)
    groups = [f"s{k}" for k in range(20)]  # else they would be parted by group
    splits = split_clips(clips_of(labels, groups), validation="given")
    assert (splits.validation, splits.val, len(splits.train)) == ("none", [], 20)
    assert splits.notes == []


def test_given_test_part_only_has_validation_carved_from_train():
    labels, parts = ["a", "b"] * 20, ["train"] * 30 + ["test"] * 10
    groups = ["ann", "ann", "bob", "bob"] * 10
    splits = split_clips(clips_of(labels, groups, parts))
    assert (splits.validation, len(splits.val), len(splits.test)) == ("clip", 5, 10)
    assert any("test figure is on seen groups (2 groups" in note for note in splits.notes)


def test_one_training_clip_of_each_class_stays():
    splits = split_clips(clips_of(["a"] * 2 + ["b"] * 30), validation="clip", val_fraction=0.5)
    assert Counter(c.label for c in splits.train) == {"a": 1, "b": 15}
    tiny = split_clips(clips_of(["a", "b"] * 2, ["s", "s", "t", "t"]), test_group="t")
    assert (tiny.validation, tiny.val) == ("none", [])
    assert "too few clips for a validation part" in tiny.notes[0]


def source_clips(names):
    return [Clip(Path(f"/x/{label}/{name}.wav"), label) for label in "ab" for name in names]


@pytest.mark.parametrize(
    ("names", "warned"),
    [
        ([f"rec{i:02d}_{take}" for i in range(10) for take in range(6)], True),
        ([f"1-{100000 + i}-{take}" for i in range(20) for take in "ABC"], True),
        ([f"clip_{i:04d}" for i in range(60)], False),  # one counter for the whole class
        ([f"1-{100000 + 7 * i}" for i in range(60)], False),  # identifiers, not counters
    ],
)
def test_sources_on_both_sides_are_warned_of(names, warned):
    splits = split_clips(source_clips(names))
    assert any("share a source with training clips" in note for note in splits.notes) is warned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_group": "zoe"}, r"test_group=\['zoe'\]: must be among the groups \['s0', 's1'\]"),
        ({"validation": "speaker"}, "must be 'given', 'group', 'clip', 'none'"),
        ({"val_fraction": 0.0}, "must be above 0"),
        ({"test_fraction": 0.9}, "must be from 0 to 0.5"),
        ({"test_group": ["s0", "s1"]}, r"classes \['a', 'b'\] have no training clip"),
        ({"test_group": "s1", "validation": "group"}, "has 1 groups, must be at least 2"),
    ],
)
def test_split_refusals(options, message):
    with pytest.raises(ParameterError, match=message):
        split_clips(clips_of(["a", "a", "b", "b"] * 3, ["s0", "s1"] * 6), **options)


def test_split_column_refusals():
    with pytest.raises(ParameterError, match=r"split '3'.*set data.group_column"):
        split_clips(clips_of(["a", "b"], splits=["train", "3"]))
    with pytest.raises(ParameterError, match=r"classes \['b'\] have no training clip"):
        split_clips(clips_of(["a", "a", "b"], splits=["train", "train", "test"]))
    given_test = clips_of(["a", "b"] * 4, ["s", "s", "t", "t"] * 2, ["train"] * 6 + ["test"] * 2)
    with pytest.raises(ParameterError, match="names 2 test clips already; leave out"):
        split_clips(given_test, test_group="s")
    with pytest.raises(ParameterError, match=r"the clips have no groups; set data.group_column"):
        split_clips(clips_of(["a", "b"] * 4), test_group="s")


def test_unused_test_fraction_is_noted():
    splits = split_clips(clips_of(["a", "b"] * 9, ["s", "s", "t"] * 6), test_fraction=0.2)
    assert splits.test == []
    assert "test_fraction=0.2 is not used" in splits.notes[0]
