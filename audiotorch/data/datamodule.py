"""Recordings to batches for Lightning: decoding at start, splits, data loaders."""

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from audiotorch.data.dataset import AudioDataset, Batch, EpochSampler, WaveformStore, collate
from audiotorch.data.manifest import (
    NORMAL,
    Clip,
    check_clips,
    from_folder,
    from_glob,
    from_table,
    sort_labels,
)
from audiotorch.data.normals import ANOMALY, split_normals
from audiotorch.data.splits import MIN_GROUPS, Splits, group_count, split_clips
from audiotorch.errors import ParameterError, printable

__all__ = ["AudioDataModule", "AudioDataset", "Batch", "EpochSampler", "collate"]

log = logging.getLogger(__name__)


class AudioDataModule(LightningDataModule):
    """Recordings as training, validation and test batches.

    `setup` decodes every file once, lists those that cannot be used with their reasons, and splits
    the rest (see `split_clips`). Then these are set: `labels` (sorted), `splits`, `failures` (path
    and reason), `class_counts` (training clips of each class), `given_labels` (by path: of a
    detector, which knows only normal and anomaly, what the data calls a clip) and `fixed_schedule`
    (whether the validation figure must not stop training or pick the epoch, since it is on seen
    groups or there is none).

    Args:
        root: folder of class folders; with `pattern`, where it starts; with `manifest`, what its
            relative file names start from.
        manifest: CSV, TSV or JSON-lines table, see `from_table`.
        pattern: glob pattern below `root`, see `from_glob`.
        regex: regular expression with the named groups `label` and `group` for `pattern`.
        file_column: the table's column of file names.
        label_column: the table's column of classes.
        group_column: the table's column of groups.
        split_column: the table's column of parts.
        test_group: group or groups that are kept for the test.
        validation: `given`, `group`, `clip`, `none`, or None to choose by the data.
        val_fraction: share of the training part that validates.
        test_fraction: share that tests where neither groups nor parts are known.
        sample_rate: rate of the waveforms in Hz; files at other rates are resampled.
        min_duration: seconds below which a file counts as too short.
        max_duration: longest training waveform in seconds: of a longer clip each epoch takes a new
            random part. Evaluation takes whole clips, as `predict` does.
        batch_size: clips in a batch of one process.
        num_workers: processes that build batches; 0 builds them in the main process.
        balanced: whether training draws every class equally often.
        on_error: `skip` trains without the files that cannot be used, `raise` refuses them.
        cache_gb: memory for decoded waveforms, in units of 1e9 bytes; beyond it files are decoded
            at each access.
        seed: what splits, order and crops are keyed by.
        augment: augmentation for the task to apply to training batches; kept as it is.
        machine_column: the table's column of machines, each of which a detector is judged by.
        normal: labels that a detector takes for normal; None takes `normal`, or the only one.

    Raises:
        ParameterError: in the constructor, a setting out of range; in `setup`, what the readers and
            `split_clips` refuse, bad files with `on_error="raise"`, or too few good ones.
    """

    labels: list[str]
    splits: Splits
    failures: list[tuple[Path, str]]
    given_labels: dict[Path, str]
    class_counts: Tensor
    fixed_schedule: bool

    def __init__(
        self,
        root: str | Path | None = None,
        manifest: str | Path | None = None,
        *,
        pattern: str | None = None,
        regex: str | None = None,
        file_column: str = "file",
        label_column: str = "label",
        group_column: str | None = None,
        split_column: str | None = None,
        test_group: str | int | Iterable[str | int] | None = None,
        validation: str | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.0,
        sample_rate: int = 22050,
        min_duration: float = 0.05,
        max_duration: float | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        balanced: bool = False,
        on_error: str = "skip",
        cache_gb: float = 2.0,
        seed: int = 42,
        augment: nn.Module | None = None,
        machine_column: str | None = None,
        normal: str | Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        self.root = root
        self.manifest = manifest
        self.pattern = pattern
        self.regex = regex
        self.columns = (file_column, label_column, group_column, split_column)
        self.test_group = test_group
        self.validation = validation
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.sample_rate = sample_rate
        self.min_duration = min_duration
        self.max_duration = max_duration
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.balanced = balanced
        self.on_error = on_error
        self.cache_gb = cache_gb
        self.seed = seed
        self.augment = augment
        self.machine_column = machine_column
        self.normal = normal
        self.held_back: Callable[[int], int] | None = None
        self._store: WaveformStore | None = None
        self._check_settings()

    def for_detection(self, held_back: Callable[[int], int]) -> None:
        """Part the clips for a detector, see `split_normals`; call it before `setup`.

        Args:
            held_back: how many of so many normal recordings the threshold needs.
        """
        self.held_back = held_back

    def read_clips(self) -> list[Clip]:
        """List the clips that root, manifest and pattern name."""
        detection = self.held_back is not None
        if self.manifest is not None:
            if self.pattern is not None or self.regex is not None:
                raise ParameterError(
                    f"pattern={self.pattern!r}, regex={self.regex!r}: must be left out where "
                    "data.manifest lists the files"
                )
            return from_table(
                self.manifest,
                *self.columns,
                root=self.root,
                machine_column=self.machine_column,
                detection=detection,
            )
        if self.root is None:
            raise ParameterError(
                "root=None: name the recordings: data.root=FOLDER (one folder per class), or "
                "data.manifest=TABLE"
            )
        if self.regex is not None:
            return from_glob(
                self.root, self.pattern or "**/*", regex=self.regex, detection=detection
            )
        if self.pattern is not None:
            raise ParameterError(
                f"pattern={self.pattern!r}: needs data.regex with (?P<label>...) to take the class "
                "from the path"
            )
        return from_folder(self.root, detection)

    def setup(self, stage: str | None = None) -> None:
        """Read, decode and split the recordings; further calls do nothing.

        Args:
            stage: Lightning's name of the stage; all stages share one set-up.
        """
        if self._store is not None:
            return
        clips = self.read_clips()
        store = WaveformStore(self.sample_rate, self.cache_gb)
        self.failures = store.read([clip.path for clip in clips], self.min_duration)
        clips = self._without_failures(clips)
        self.given_labels = {clip.path: clip.label for clip in clips}
        self.splits = self._split(clips)
        self.labels = sort_labels(clip.label for clip in clips)
        if self.held_back is not None:
            self.labels = [NORMAL, ANOMALY]
        self._store = store
        self.train_set = self._dataset(self.splits.train, self.max_duration)
        self.val_set = self._dataset(self.splits.val)
        self.test_set = self._dataset(self.splits.test)
        self.class_counts = torch.bincount(self.train_set.targets, minlength=len(self.labels))
        groups = group_count(self.splits.train + self.splits.val)
        mode = self.splits.validation
        self.fixed_schedule = mode == "none" or (mode == "clip" and 0 < groups < MIN_GROUPS)
        # A threshold holds for clips that have chosen nothing.
        self.fixed_schedule |= self.held_back is not None
        self._log_splits()

    def _split(self, clips: list[Clip]) -> Splits:
        if self.held_back is not None:
            return split_normals(
                clips,
                self.held_back,
                normal=self.normal,
                test_group=self.test_group,
                test_fraction=self.test_fraction,
                seed=self.seed,
            )
        return split_clips(
            clips,
            test_group=self.test_group,
            validation=self.validation,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.seed,
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled training batches; the order depends on seed and epoch."""
        sampler = EpochSampler(
            self.train_set.targets, self.batch_size, seed=self.seed, balanced=self.balanced
        )
        return self._loader(self.train_set, sampler)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Validation batches in order; an empty list without validation clips."""
        return self._loader(self.val_set) if len(self.val_set) else []

    def test_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """Test batches in order; an empty list without test clips."""
        return self._loader(self.test_set) if len(self.test_set) else []

    def _loader(
        self, dataset: AudioDataset, sampler: EpochSampler | None = None
    ) -> DataLoader[Batch]:
        return DataLoader(
            dataset,  # type: ignore[arg-type]
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _dataset(self, clips: Sequence[Clip], max_duration: float | None = None) -> AudioDataset:
        return AudioDataset(
            clips,
            self.labels,
            self.sample_rate,
            max_duration=max_duration,
            seed=self.seed,
            store=self._store,
        )

    def _without_failures(self, clips: list[Clip]) -> list[Clip]:
        if not self.failures:
            return clips
        lines = [printable(f"{path}: {reason}") for path, reason in self.failures]
        summary = f"{len(lines)} of {len(clips)} files cannot be used"
        if self.on_error == "raise":
            more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
            raise ParameterError(
                f"{summary}: {'; '.join(lines[:5])}{more}. Mend or remove them, or set "
                "data.on_error=skip"
            )
        log.warning("%s and are skipped:\n  %s", summary, "\n  ".join(lines))
        bad = {path for path, _ in self.failures}
        good = [clip for clip in clips if clip.path not in bad]
        if not good:
            raise ParameterError(f"{summary}, so nothing is left: {'; '.join(lines[:5])}")
        check_clips(good, f"{summary} ({lines[0]}); of the rest", self.held_back is not None)
        return good

    def _log_splits(self) -> None:
        if self.held_back is not None:
            anomalies = sum(clip.label == ANOMALY for clip in self.splits.test)
            log.info(
                "normal clips: %d to fit on, %d held back for the threshold (%s), %d to test; "
                "%d anomalies to test",
                len(self.splits.train),
                len(self.splits.val),
                self.splits.validation,
                len(self.splits.test) - anomalies,
                anomalies,
            )
        else:
            log.info(
                "%d classes; clips: %d train, %d validation (%s), %d test",
                len(self.labels),
                len(self.splits.train),
                len(self.splits.val),
                self.splits.validation,
                len(self.splits.test),
            )
        for note in self.splits.notes:
            log.warning("%s", printable(note))

    def _check_settings(self) -> None:
        for name, least in (("sample_rate", 1), ("batch_size", 1), ("num_workers", 0), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ParameterError(f"{name}={value!r}: must be an integer of at least {least}")
        for name in ("min_duration", "cache_gb"):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= 0):
                raise ParameterError(f"{name}={value!r}: must be finite and at least 0")
        longest = self.max_duration
        number = isinstance(longest, int | float) and longest > 0
        if longest is not None and not (number and longest >= self.min_duration):
            raise ParameterError(
                f"max_duration={longest!r}: must be positive seconds of at least "
                f"min_duration={self.min_duration}, or null for whole clips"
            )
        for name in ("root", "manifest", "pattern", "regex"):
            value = getattr(self, name)
            if not isinstance(value, str | Path | None):
                raise ParameterError(f"{name}={value!r}: must be one name, in quotes if need be")
        if self.on_error not in ("skip", "raise"):
            raise ParameterError(f"on_error={self.on_error!r}: must be 'skip' or 'raise'")
