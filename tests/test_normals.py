"""Which clips a detector is fitted on, calibrated on and judged by."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiotorch.data import AudioDataModule, Clip
from audiotorch.data.normals import split_normals
from audiotorch.errors import ParameterError


def fifth(n: int) -> int:
    return round(n / 5)


def clips(n: int, label: str = "normal", **fields) -> list[Clip]:
    return [Clip(Path(f"/{label}/{i:03}.wav"), label, **fields) for i in range(n)]


def grouped(n_groups: int, per_group: int) -> list[Clip]:
    return [
        Clip(Path(f"/normal/{g}-{i}.wav"), "normal", f"g{g}")
        for g in range(n_groups)
        for i in range(per_group)
    ]


def labels(part: list[Clip]) -> set[str]:
    return {clip.label for clip in part}


def test_only_normal_clips_are_fitted_on_and_held_back():
    splits = split_normals(clips(50) + clips(20, "fault"), fifth)
    assert labels(splits.train) == labels(splits.val) == {"normal"}
    assert len(splits.test) == 10 + 20  # a fifth of the normals, and all anomalies
    assert len(splits.val) == 8
    parts = [clip.path for part in (splits.train, splits.val, splits.test) for clip in part]
    assert len(set(parts)) == 70
    assert splits.validation == "clip"


def test_without_anomalies_nothing_is_kept_for_a_test():
    splits = split_normals(clips(60), lambda n: 19)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (41, 19, 0)
    assert len(split_normals(clips(60), fifth, test_fraction=0.25).test) == 15


def test_whole_groups_are_tested_and_held_back():
    splits = split_normals(grouped(20, 3) + clips(5, "fault"), fifth)
    groups = [{clip.group for clip in part} for part in (splits.train, splits.val)]
    tested = {clip.group for clip in splits.test if clip.label == "normal"}
    assert not groups[0] & groups[1]
    assert not tested & (groups[0] | groups[1])
    assert (len(tested), len(groups[1]), splits.validation) == (4, 3, "group")


def test_few_groups_are_told():
    splits = split_normals(grouped(2, 20), fifth)
    assert splits.validation == "clip"
    assert "2 groups" in splits.notes[0]


def test_a_test_part_decides_which_anomalies_count():
    train = clips(20, group="1") + clips(6, "rain", group="1")
    test = [Clip(Path(f"/t/{i}.wav"), ["dog", "normal"][i % 2], "2") for i in range(8)]
    splits = split_normals(train + test, fifth, test_group="2")
    assert (len(splits.test), len(splits.train) + len(splits.val)) == (8, 20)
    assert "6 anomalies outside the test part" in splits.notes[0]
    one_class = split_normals(train + test, fifth, normal=["dog", "rain"], test_group=2)
    assert len(one_class.train) + len(one_class.val) == 6


def test_the_table_may_hold_back_itself():
    part = [*clips(10, split="train"), Clip(Path("/v.wav"), "normal", split="dev")]
    splits = split_normals(part, fifth)
    assert [clip.path.name for clip in splits.val] == ["v.wav"]
    assert splits.validation == "given"


def test_parts_do_not_hang_on_the_order_of_files():
    some = clips(30) + clips(9, "fault")
    mixed = [some[i] for i in np.random.default_rng(0).permutation(len(some))]
    assert split_normals(some, fifth) == split_normals(mixed, fifth)
    assert split_normals(some, fifth) != split_normals(some, fifth, seed=1)


@pytest.mark.parametrize(
    ("some", "options", "message"),
    [
        (clips(9, "a") + clips(9, "b"), {}, r"none of the labels \['a', 'b'\] is 'normal'"),
        (clips(9), {"normal": "ok"}, r"normal=\['ok'\]: must be among"),
        (clips(9), {"normal": []}, r"normal=\[\]"),
        (clips(9, "Anomalies"), {}, "the only label, 'Anomalies', sounds like"),
        (clips(2), {}, "2 normal clips"),
        (clips(3) + clips(9, "fault"), {}, "2 normal clips"),
    ],
)
def test_too_little_is_refused(some, options, message):
    with pytest.raises(ParameterError, match=message):
        split_normals(some, fifth, **options)


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 4000), 8000)


def test_a_folder_of_nothing_but_normal_recordings(tmp_path, caplog):
    for i in range(12):
        write(tmp_path / f"{i}.wav")
    data = AudioDataModule(tmp_path, sample_rate=8000)
    data.for_detection(fifth)
    with caplog.at_level(logging.INFO):
        data.setup()
    assert data.labels == ["normal", "anomaly"]
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (10, 2, 0)
    assert "10 to fit on, 2 held back for the threshold (clip)" in caplog.text
    assert data.fixed_schedule


def test_machines_come_from_the_table_or_the_path(tmp_path):
    rows = ["file,label,machine"]
    for machine in "ab":
        for i in range(4):
            for label in ("normal", "anomaly"):
                write(tmp_path / machine / label / f"{i}.wav")
                rows.append(f"{machine}/{label}/{i}.wav,{label},{machine}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    table = AudioDataModule(
        manifest=tmp_path / "labels.csv", machine_column="machine", sample_rate=8000
    )
    regex = r"(?P<machine>\w+)/(?P<label>\w+)/"
    pattern = AudioDataModule(tmp_path, pattern="*/*/*.wav", regex=regex, sample_rate=8000)
    for data in (table, pattern):
        data.for_detection(fifth)
        data.setup()
        assert {clip.machine for clip in data.test_set.clips} == {"a", "b"}
        assert int(data.test_set.targets.sum()) == 8
    assert table.splits == pattern.splits


def test_normal_clips_of_subjects_with_anomalies_are_tested_with_them():
    ill = [Clip(Path(f"/fault/{g}.wav"), "fault", f"g{g}") for g in (2, 5, 11, 13, 17, 19)]
    splits = split_normals(grouped(20, 3) + ill, fifth)
    known = {clip.group for clip in splits.train + splits.val}
    assert not known & {clip.group for clip in splits.test}
    assert len([clip for clip in splits.test if clip.label == "normal"]) == 6 * 3
    assert not splits.notes


def test_subjects_who_are_on_both_sides_are_told():
    ill = [Clip(Path(f"/fault/{g}.wav"), "fault", f"g{g}") for g in range(15)]
    splits = split_normals(grouped(20, 3) + ill, fifth)
    tested = {clip.group for clip in splits.test if clip.label == "normal"}
    assert len(tested) == 4
    assert tested <= {f"g{g}" for g in range(15)}
    assert "anomalies of 11 groups are tested whose normal clips" in splits.notes[0]


def test_recordings_beside_class_folders_are_told(tmp_path, caplog):
    for i in range(9):
        write(tmp_path / f"{i}.wav")
        write(tmp_path / "anomaly" / f"{i}.wav")
    data = AudioDataModule(tmp_path)
    data.for_detection(fifth)
    with pytest.raises(ParameterError, match="the only label, 'anomaly'"):
        data.setup()
    assert "9 audio files lie in no class folder and are left out" in caplog.text
