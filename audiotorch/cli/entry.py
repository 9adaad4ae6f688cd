"""The `audiotorch` command line: the parser of all commands, and how they end."""

import argparse
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from audiotorch.cli.bench import add_bench
from audiotorch.cli.check import add_check
from audiotorch.cli.detect import add_detect
from audiotorch.cli.export import add_export
from audiotorch.cli.features import add_features
from audiotorch.cli.info import add_info
from audiotorch.cli.plot import add_plot
from audiotorch.cli.predict import add_predict
from audiotorch.cli.report import add_report
from audiotorch.cli.serve import add_serve
from audiotorch.cli.terminal import (
    DONE,
    INTERRUPTED,
    PIPE_CLOSED,
    WRONG_USE,
    complain,
    print_any_text,
    silence_stdout,
)
from audiotorch.cli.transcribe import add_transcribe
from audiotorch.errors import AudioTorchError, ParameterError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `audiotorch` command line.

    Args:
        argv: the arguments after the program's name; None takes those of the process.

    Returns:
        The exit status: 0 all done, 1 some inputs failed (they are listed), 2 wrong use or
        nothing to work on, 130 interrupted, 141 the reader of the output went away.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    print_any_text()
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        return _run(arguments)


def _run(arguments: list[str]) -> int:
    try:
        if arguments[:1] == ["train"]:
            # Hydra has its own grammar (`key=value`, `--multirun`) and its own --help.
            return _train(arguments[1:])
        options = _parser().parse_args(arguments)
        status: int = options.run(options)
        print(end="", flush=True)  # of a stdout that was closed nothing is asked
    except AudioTorchError as error:
        complain(str(error))
        return WRONG_USE
    except BrokenPipeError:
        silence_stdout()
        return PIPE_CLOSED
    except OSError as error:  # such as a full disk, or a folder without permission
        complain(str(error))
        return WRONG_USE
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    return status


def _show_warning(message: Warning | str, *details: Any, **_: Any) -> None:
    """Our own warnings are for users, in a line; others are for who wrote what they are about."""
    if isinstance(message, AudioTorchError):
        complain(str(message))
    else:
        print(warnings.formatwarning(message, *details[:3]), end="", file=sys.stderr)


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
    add_info(commands)
    add_check(commands)
    add_plot(commands)
    add_features(commands)
    commands.add_parser(
        "train", help="train a model; takes Hydra overrides: audiotorch train data.root=clips"
    )
    add_predict(commands)
    add_detect(commands)
    add_transcribe(commands)
    add_export(commands)
    add_serve(commands)
    add_report(commands)
    add_bench(commands)
    return parser


def _train(arguments: Sequence[str]) -> int:
    from audiotorch.report import write_report
    from audiotorch.training.train import main as train_main

    return int(train_main(list(arguments), write_report) or DONE)
