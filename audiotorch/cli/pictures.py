"""Pictures of what answers rest on: where they go, and drawing them beside the answers."""

import argparse
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audiotorch.errors import AudioTorchError, ParameterError, TruncationWarning

if TYPE_CHECKING:
    from audiotorch.answers import Prediction
    from audiotorch.explain import ClassExplanation, Explanation

__all__ = ["Explainer", "picture_paths"]

# Of pictures that are not drawn: no names for a folder.
_OTHER_KINDS = (".jpg", ".jpeg", ".svg", ".pdf", ".gif", ".webp", ".tif", ".tiff", ".bmp")
_NAME_BYTES = 220  # file systems take 255, and a picture is written under a longer name first


class Explainer:
    """Answers files and, where pictures are wanted, draws what the answers rest on.

    Args:
        options: of the command.
        module: Pipeline, eager or exported.
        pictures: where each file's picture goes; none are drawn where it is empty.
        settings: further ones of `predict`.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        module: Any,
        pictures: Mapping[str, Path],
        **settings: Any,
    ) -> None:
        self.found: dict[str, ClassExplanation | Explanation] = {}
        self._module = module
        self._settings = {"device": options.device, "batch_size": options.batch_size}
        self._further = settings
        self._pictures = pictures

    def __call__(self, files: list[str]) -> "list[Prediction]":
        """Answer a batch of files."""
        from audiotorch.answers import predict

        answers = predict(self._module, files, **self._settings, **self._further)
        if not self._pictures:
            return answers
        return [answer if answer.error else self._explained(answer) for answer in answers]

    def _explained(self, answer: "Prediction") -> "Prediction":
        """The answer, once its picture is drawn, or what is wrong."""
        from audiotorch.explain import explain_class, explain_detection
        from audiotorch.plot import explanation, save_figure

        file = answer.file
        with warnings.catch_warnings():
            # Told when the file was answered.
            warnings.simplefilter("ignore", TruncationWarning)
            try:
                if self._module.task == "anomaly":
                    found: Any = explain_detection(self._module, file, **self._settings)
                else:
                    # Of the whole recording, also where a part of it is explained.
                    label = max(answer.probabilities, key=answer.probabilities.__getitem__)
                    found = explain_class(self._module, file, label=label, **self._settings)
            except AudioTorchError as error:
                return replace(answer, error=str(error))
        save_figure(explanation(found, Path(file).name), self._pictures[file])
        self.found[file] = found
        return answer


def picture_paths(
    target: str | None, files: Sequence[str], check: Callable[[], None]
) -> dict[str, Path]:
    """Return where each file's picture goes; what is wrong with that is told before any work.

    Args:
        target: a .png, for one file, or a folder; `None` = no pictures.
        files: what is drawn; those of one name in several folders get pictures of several names.
        check: refuses a model that cannot be explained.

    Raises:
        ParameterError: another kind of file, one for several files, or no place to write to.
        MissingDependencyError: matplotlib is not installed.
    """
    if target is None:
        return {}
    from audiotorch.plot import new_figure

    check()
    new_figure(1.0, 1.0)
    path = Path(target)
    if not target or (path.suffix.lower() in _OTHER_KINDS and not path.is_dir()):
        raise ParameterError(f"--explain {target!r}: must end in .png, or be a folder")
    one = path.suffix.lower() == ".png" and not path.is_dir()
    if one:
        if len(set(files)) > 1:
            raise ParameterError(
                f"--explain {target}: is one picture for {len(set(files))} files; give a folder"
            )
    elif path.exists() and not path.is_dir():
        raise ParameterError(f"--explain {target!r}: must end in .png, or be a folder")
    _make_folder(target, path.parent if one else path)
    return {files[0]: path} if one else _one_each(path, files)


def _one_each(folder: Path, files: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    taken: set[str] = set()
    for file in dict.fromkeys(files):
        stem = os.fsdecode(os.fsencode(Path(file).name)[:_NAME_BYTES])
        name, number = f"{stem}.png", 2
        # On some systems names that differ in case alone are the same.
        while name.casefold() in taken:
            name, number = f"{stem}_{number}.png", number + 1
        taken.add(name.casefold())
        found[file] = folder / name
    return found


def _make_folder(target: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise ParameterError(
            f"--explain {target}: its folder cannot be made ({error.strerror}); name another place"
        ) from error
    if not writable:
        raise ParameterError(f"--explain {target}: the folder is read-only; name another place")
