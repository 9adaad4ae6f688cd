"""The `audiotorch` command: info, train, predict, export."""

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from audiotorch.errors import AudioTorchError, DecodeError, ParameterError, printable

if TYPE_CHECKING:
    from audiotorch.pipeline import Prediction

__all__ = ["main"]

MODEL_SUFFIXES = (".ts", ".pt2")
DONE, SOME_FAILED, WRONG_USE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141
TOP = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `audiotorch` command line.

    Args:
        argv: the arguments after the program's name; None takes those of the process.

    Returns:
        The exit status: 0 all done, 1 some inputs failed (they are listed), 2 wrong use or
        nothing to work on, 130 interrupted, 141 the reader of the output went away.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _print_any_text()
    try:
        if arguments[:1] == ["train"]:
            # Hydra has its own grammar (`key=value`, `--multirun`) and its own --help.
            return _train(arguments[1:])
        options = _parser().parse_args(arguments)
        status: int = options.run(options)
        sys.stdout.flush()
    except AudioTorchError as error:
        _complain(str(error))
        return WRONG_USE
    except BrokenPipeError:
        _silence_stdout()
        return PIPE_CLOSED
    except OSError as error:  # such as a full disk, or a folder without permission
        _complain(str(error))
        return WRONG_USE
    except KeyboardInterrupt:
        _complain("interrupted")
        return INTERRUPTED
    return status


class _Parser(argparse.ArgumentParser):
    """Tells wrong use in one line, as every other mistake is told."""

    def error(self, message: str) -> NoReturn:
        raise ParameterError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="audiotorch",
        description="From audio files to trained, exported models.",
        epilog="Exit status: 0 all done, 1 some inputs failed (listed), 2 wrong use.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('audiotorch')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_info(commands)
    commands.add_parser(
        "train", help="train a model; takes Hydra overrides: audiotorch train data.root=clips"
    )
    _add_predict(commands)
    _add_export(commands)
    return parser


# argparse names the type of `add_subparsers` privately.
_Commands = Any


def _add_info(commands: _Commands) -> None:
    parser = commands.add_parser(
        "info",
        help="say what audio and model files are",
        description="Say what audio files (rate, channels, length, format) and exported models "
        "(labels, sample rate, features, training figures) are.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="audio or model file, or run")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=_info)


def _add_predict(commands: _Commands) -> None:
    parser = commands.add_parser(
        "predict",
        help="label recordings with an exported model",
        description="Label recordings, at any sample rate and channel count. A table, or with "
        "--json one object a line: file label confidence probabilities, or file error. Files "
        "that cannot be read are reported, the others still answered.",
    )
    parser.add_argument("model", metavar="MODEL", help="exported .ts file, or a run directory")
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="FILE_OR_FOLDER",
        help="recordings; folders are searched for audio files at any depth, hidden ones left out",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument(
        "--batch-size", type=_positive, default=16, metavar="N", help="clips at a time (16)"
    )
    parser.set_defaults(run=_predict)


def _add_export(commands: _Commands) -> None:
    parser = commands.add_parser(
        "export",
        help="write a training checkpoint as model files",
        description="Write a checkpoint as a TorchScript file, which runs without audiotorch in "
        "Python and C++, and as a torch.export program (.pt2) beside it.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help=".ckpt file, or a run directory")
    parser.add_argument("--out", default="model.ts", help="file to write (model.ts)")
    parser.add_argument(
        "--input-sample-rate",
        type=_positive,
        metavar="HZ",
        help="rate of the audio that the file will be given; default: the model's own",
    )
    parser.set_defaults(run=_export)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of at least 1")
    return int(text)


def _train(arguments: Sequence[str]) -> int:
    from audiotorch.training.train import main as train_main

    return int(train_main(list(arguments)) or DONE)


def _info(options: argparse.Namespace) -> int:
    rows: list[dict[str, Any]] = []
    failed = False
    for file in options.files:
        try:
            rows.append(_describe(file))
        except AudioTorchError as error:
            failed = True
            rows.append({"file": file, "error": str(error)})
    if options.json:
        for row in rows:
            print(json.dumps(row))
    else:
        if audio := [row for row in rows if "codec" in row]:
            _print_audio_table(audio)
        for row in rows:
            if "labels" in row:
                _print_model(row)
            elif "error" in row:
                _complain(row["error"])
    return SOME_FAILED if failed else DONE


def _describe(file: str) -> dict[str, Any]:
    path = Path(file)
    if path.is_dir() or path.suffix.lower() in MODEL_SUFFIXES:
        from audiotorch.export import read_metadata

        model = _find_model(file)
        return {"file": os.fspath(model), **read_metadata(model)}
    from audiotorch.audio.io import info

    return {**asdict(info(file)), "file": file}


def _print_audio_table(rows: Sequence[dict[str, Any]]) -> None:
    width = _file_width(row["file"] for row in rows)
    print(f"{'file':{width}}  {'Hz':>6}  channels  {'seconds':>9}  container  codec")
    for row in rows:
        print(
            f"{printable(row['file']):{width}}  {row['sample_rate']:6d}  {row['n_channels']:8d}  "
            f"{row['duration_seconds']:9.3f}  {row['container']:9}  {row['codec']}"
        )


def _print_model(row: dict[str, Any]) -> None:
    print(printable(row["file"]))
    for key, value in row.items():
        if key == "labels":
            value = f"{len(value)}: {', '.join(value)}"
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if key not in ("file", "format"):
            print(f"  {key:14}  {printable(text)}")


def _predict(options: argparse.Namespace) -> int:
    model = _find_model(options.model)
    files = _find_audio(options.sources)
    # Imported here: the mistakes above are told before torch is loaded.
    import torch

    from audiotorch.export import load_pipeline
    from audiotorch.pipeline import predict

    if options.device == "cuda" and not torch.cuda.is_available():
        raise ParameterError("--device cuda: this machine has no CUDA device; use --device cpu")
    module = load_pipeline(model).to(options.device)
    width = _file_width(files)
    label_width = max([len("label"), *(len(printable(label)) for label in module.labels)])
    progress = _Progress(len(files))
    failed = False
    if not options.json:
        print(f"{'file':{width}}  {'label':{label_width}}  confidence  top {TOP}")
    with progress:
        for start in range(0, len(files), options.batch_size):
            chunk = files[start : start + options.batch_size]
            answers = predict(module, chunk, device=options.device, batch_size=options.batch_size)
            progress.clear()
            for answer in answers:
                failed = failed or answer.error is not None
                if options.json:
                    print(json.dumps(_as_json(answer)))
                elif answer.error is not None:
                    _complain(answer.error)
                else:
                    print(_as_row(answer, width, label_width))
            sys.stdout.flush()
            progress.advance(len(chunk))
    return SOME_FAILED if failed else DONE


def _as_json(answer: "Prediction") -> dict[str, Any]:
    if answer.error is not None:
        return {"file": answer.file, "error": answer.error}
    return {
        "file": answer.file,
        "label": answer.label,
        "confidence": answer.confidence,
        "probabilities": answer.probabilities,
    }


def _as_row(answer: "Prediction", width: int, label_width: int) -> str:
    ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:TOP]
    top = "  ".join(f"{printable(label)} {probability:.3f}" for label, probability in ranked)
    label = printable(answer.label or "")
    return (
        f"{printable(answer.file):{width}}  {label:{label_width}}  {answer.confidence:10.3f}  {top}"
    )


def _find_model(name: str) -> Path:
    """The exported file that a MODEL argument means."""
    path = Path(name)
    if not path.is_dir():
        return path
    if not (path / "model.ts").is_file():
        raise DecodeError(f"{name!r} holds no model.ts: give a run directory or a .ts file")
    return path / "model.ts"


def _find_audio(sources: Iterable[str]) -> list[str]:
    """Files as they are given, folders as the audio files in them, sorted."""
    from audiotorch.audio.io import AUDIO_SUFFIXES

    files: list[str] = []
    for source in sources:
        if os.path.isdir(source):
            files.extend(sorted(_walk(source, AUDIO_SUFFIXES)))
        else:
            files.append(source)
    if not files:
        named = ", ".join(repr(source) for source in sources)
        raise ParameterError(
            f"no audio files under {named}: give files, or a folder that holds some "
            f"({' '.join(AUDIO_SUFFIXES)})"
        )
    return files


def _walk(folder: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    for parent, folders, names in os.walk(folder, onerror=_refuse):
        # Hidden: thumbnails' and synchronisers' folders, macOS's "._clip.wav" beside clip.wav.
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield os.path.join(parent, name)


def _refuse(error: OSError) -> NoReturn:
    raise error


def _export(options: argparse.Namespace) -> int:
    from audiotorch.export import export
    from audiotorch.training.checkpoint import find_checkpoint, load_checkpoint_pipeline

    checkpoint = find_checkpoint(options.checkpoint)
    path = export(
        load_checkpoint_pipeline(checkpoint),
        options.out,
        input_sample_rate=options.input_sample_rate,
        metrics=_training_metrics(checkpoint),
    )
    print(
        f"{printable(os.fspath(path))}  (and {printable(path.with_suffix('.pt2').name)} beside it)"
    )
    return DONE


def _training_metrics(checkpoint: Path) -> dict[str, Any]:
    """The figures of the run that a checkpoint lies in, if it is the one they were taken on."""
    from audiotorch.training.checkpoint import find_checkpoint

    run = checkpoint.parent.parent
    file = run / "metrics.json"
    if not file.is_file() or find_checkpoint(run).resolve() != checkpoint.resolve():
        return {}
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DecodeError(
            f"{os.fspath(file)!r} is not JSON ({error}); restore or remove it"
        ) from error
    return metrics if isinstance(metrics, dict) else {}


def _file_width(files: Iterable[str]) -> int:
    return max([len("file"), *(len(printable(file)) for file in files)])


def _complain(text: str) -> None:
    """Say what is wrong in one line."""
    print(f"audiotorch: {printable(' '.join(text.split()))}", file=sys.stderr)


def _print_any_text() -> None:
    """Write out what the terminal's encoding lacks instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    # Python flushes stdout once more at its end, which would fail again and be reported.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


class _Progress:
    """A bar on stderr if that is a terminal; wiped before results, which may go there too."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._shown = sys.stderr.isatty()

    def __enter__(self) -> "_Progress":
        self.advance(0)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def advance(self, count: int) -> None:
        self._done += count
        if self._shown:
            bar = "#" * (30 * self._done // max(1, self._total))
            sys.stderr.write(f"\r[{bar:30}] {self._done}/{self._total}")
            sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
