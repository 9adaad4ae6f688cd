"""Hydra around a job: one clear line for wrong use, tracebacks for what nobody expected."""

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from audiotorch.errors import AudioTorchError, ParameterError, printable
from audiotorch.training.build import config_dir

__all__ = ["check_kinds", "explain", "run_hydra"]

# What a wrong configuration or a full disk raises. Anything else is a fault of ours and keeps its
# traceback.
_WRONG_USE = (
    AudioTorchError,
    HydraException,
    OmegaConfBaseException,
    MisconfigurationException,
    OSError,
)


_INTERRUPTED = 130


def run_hydra(job: Callable[[DictConfig], Any], argv: Sequence[str]) -> int:
    """Compose `train.yaml` with overrides and run the job, once or as a sweep.

    Args:
        job: called with each composed configuration.
        argv: Hydra's command line, without the program's name.

    Returns:
        0, 2 after one line on stderr for every run that was refused, or 130 when interrupted.
    """
    refused: list[str] = []

    def guarded(config: DictConfig) -> Any:
        # Hydra would add lines of its own to an error that leaves the job.
        try:
            check_kinds(config)
            return job(config)
        except BrokenPipeError:  # Nobody reads on; no matter of the run.
            raise
        except _WRONG_USE as error:
            refused.append(explain(error))
            return None
        except SystemExit as error:
            # What Lightning makes of Ctrl-C.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            raise

    with _process_state(argv):
        try:
            entry = hydra.main(
                version_base="1.3", config_path=str(config_dir()), config_name="train"
            )
            entry(guarded)()
        except BrokenPipeError:
            raise
        except _WRONG_USE as error:
            refused.append(explain(error))
        except ValueError as error:
            # Hydra's own complaint about `experiment=null`.
            if "Config group override" in str(error):
                refused.append("a group cannot be null: leave it out, or remove it with ~GROUP")
            elif isinstance(error.__cause__, OSError):  # Hydra's log in a read-only directory.
                refused.append(explain(error.__cause__))
            elif not refused:  # Else it is a sweeper's, that refused runs have no figure.
                raise
        except KeyboardInterrupt:
            print(
                "audiotorch train: interrupted; networks go on with ckpt_path=RUN_DIR",
                file=sys.stderr,
            )
            return _INTERRUPTED
    for line in refused:
        print(f"audiotorch train: {printable(line)}", file=sys.stderr)
    return 2 if refused else 0


@contextmanager
def _process_state(argv: Sequence[str]) -> Iterator[None]:
    """What Hydra reads from and leaves in the process, put back afterwards."""
    program, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # Who closes the output early (`| head`) wants no traceback for each line that is not read.
    logging_errors, logging.raiseExceptions = logging.raiseExceptions, False
    # Lightning starts further DDP processes with sys.argv: it must be a file that runs this job.
    sys.argv = [str(Path(__file__).with_name("train.py")), *argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = program
        logging.raiseExceptions = logging_errors
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        GlobalHydra.instance().clear()


def explain(error: BaseException) -> str:
    """One line that says what is wrong and what to write instead."""
    text = str(error).strip()
    if isinstance(error, AudioTorchError):
        return _one_line(text)
    unread = re.search(r"Error parsing override '(.*)'$", text, re.MULTILINE)
    if unread:
        return (
            f"Error parsing override '{unread[1]}': write NAME=VALUE; a value with blanks or "
            "brackets needs quotes inside the shell's, 'NAME=\"VALUE\"'"
        )
    missing = re.search(r"Environment variable '(\w+)' not found", text)
    if missing:
        return (
            f"the environment variable {missing[1]} is not set: set it to the folder that holds "
            "the data sets, or name the table with data.manifest="
        )
    unknown = re.search(r"Could not override '([^']+)'", text) or re.search(
        r"Key '([^']+)' is not in struct", text
    )
    if unknown:
        return _unknown_key(unknown[1])
    choice = re.search(r"Could not find '([^']+)'", text)
    if choice:
        return _unknown_choice(choice[1])
    return _one_line(text)


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def check_kinds(config: DictConfig) -> None:
    """Refuse text where every choice of a setting has a number, a truth value or a list.

    Args:
        config: the composed configuration.

    Raises:
        ParameterError: such a setting; the text names an admissible value.
    """
    for key, default in _defaults().items():
        value = OmegaConf.select(config, key)
        if isinstance(default, bool) and isinstance(value, str):
            raise ParameterError(f"{key}={value!r}: must be true or false")
        if isinstance(default, int | float) and isinstance(value, str):
            raise ParameterError(f"{key}={value!r}: must be a number, such as {default}")
        if isinstance(default, list) and isinstance(value, str | int | float):
            raise ParameterError(f"{key}={value!r}: must be a list, such as {default}")


def _unknown_key(key: str) -> str:
    near = difflib.get_close_matches(key, _keys(), n=1, cutoff=0.5)
    if not near:  # The right name in the wrong place.
        last = key.rsplit(".", 1)[-1]
        near = [known for known in _keys() if known.rsplit(".", 1)[-1] == last][:1]
    advice = f"did you mean '{near[0]}'?" if near else "see audiotorch train --cfg job"
    if near == [key]:
        group = key.partition(".")[0]
        advice = f"only other choices of {group}= have it (with -m and several models, ++{key}=)"
    return f"unknown setting '{key}': {advice}"


def _unknown_choice(name: str) -> str:
    group, _, choice = name.rpartition("/")
    if not group:
        return f"unknown setting '{name}': write NAME=VALUE"
    if group.startswith("hydra/"):
        return f"{group}={choice} needs a plugin of Hydra: pip install 'audiotorch[sweep]'"
    known = sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))
    near = difflib.get_close_matches(choice, known, n=1)
    advice = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown choice {group}={choice}: {advice}available: {', '.join(known)}"


def _keys() -> list[str]:
    """Every setting that some choice of the groups has, and the groups."""
    groups = {path.name for path in config_dir().iterdir() if path.is_dir()}
    return sorted(_defaults().keys() | groups)


def _defaults() -> dict[str, Any]:
    """Every setting with its value; text and nothing win where the choices of a group differ.

    Nothing stands as well for what is a list in one choice and a number in another.
    """
    found: dict[str, Any] = {}
    for path in sorted(config_dir().rglob("*.yaml")):
        group = path.parent.relative_to(config_dir()).as_posix()
        if group in ("experiment", "sweep"):
            continue
        prefix = "" if group == "." else f"{group}."
        for key, value in _flat(OmegaConf.to_container(OmegaConf.load(path)), prefix):
            before = found.get(key, 0)
            if not isinstance(before, str | None):
                differ = isinstance(before, list) != isinstance(value, list)
                found[key] = None if key in found and differ else value
    return found


def _flat(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if key in ("defaults", "hydra") or str(key).startswith("_"):
            continue
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
