"""`audiotorch bench`: are the numbers librosa's, and how fast do they come."""

import argparse
from importlib.util import find_spec
from pathlib import Path

from audiotorch.cli.arguments import Commands, find_model, positive
from audiotorch.cli.terminal import DONE, SOME_FAILED, Progress, complain
from audiotorch.errors import MissingDependencyError, ParameterError

__all__ = ["add_bench"]


def add_bench(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        help="measure equality with librosa, and speed",
        description="Measure whether the numbers are librosa's and how fast they come, on the "
        "recordings below $AUDIOTORCH_DATA; or time an exported model. Tables are printed, and "
        "with --write put into a document. Exit status 1: a rule does not hold, or a clip failed.",
    )
    parser.add_argument(
        "model", nargs="?", metavar="MODEL", help="time this exported .ts file, or run directory"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="length of the model's clip (1)")
    parser.add_argument("--runs", type=positive, default=200, help="timed calls of a model (200)")
    _add_parity(parser)
    _add_speed(parser)
    parser.add_argument(
        "--anomaly",
        nargs="?",
        const="",
        metavar="A,B",
        help="how good detectors of anomalies are: all protocols, or some of machine, esc10, "
        "heart_yaseen, heart_pascal_b",
    )
    _add_speech(parser)
    parser.add_argument(
        "--write",
        type=Path,
        metavar="FILE",
        help="put tables between FILE's lines <!-- benchmark: parity --> or speed, and "
        "<!-- /benchmark: parity --> or speed",
    )
    parser.set_defaults(run=_bench)


def _add_parity(parser: argparse.ArgumentParser) -> None:
    parity = parser.add_argument_group("equality with librosa")
    parity.add_argument("--parity", action="store_true", help="compare clip by clip")
    parity.add_argument(
        "--limit", type=positive, metavar="N", help="at most N clips of each corpus"
    )
    parity.add_argument("--features", metavar="A,B", help="only these quantities")
    parity.add_argument("--double", action="store_true", help="in float64")
    parity.add_argument(
        "--native", action="store_true", help="at each clip's sample rate, not at 22050 Hz"
    )
    parity.add_argument("--jobs", type=positive, default=2, metavar="N", help="processes (2)")


def _add_speed(parser: argparse.ArgumentParser) -> None:
    speed = parser.add_argument_group("speed and memory")
    speed.add_argument("--speed", action="store_true", help="time against librosa and others")
    speed.add_argument(
        "--clips",
        type=positive,
        default=200,
        metavar="N",
        help="clips (200); of each set for --recipe",
    )
    speed.add_argument("--work", metavar="A,B", help="only these rows")
    speed.add_argument(
        "--threads",
        type=_numbers,
        default=[1],
        metavar="N,M",
        help="threads on each side; several numbers, several tables (1)",
    )
    speed.add_argument("--compile", action="store_true", help="rows of compiled modules too")
    speed.add_argument(
        "--recipe", action="store_true", help="time the article's recipe, from folders to a model"
    )
    speed.add_argument(
        "--memory", action="store_true", help="peak memory of extraction, for N and 2 N clips"
    )


def _add_speech(parser: argparse.ArgumentParser) -> None:
    speech = parser.add_argument_group("speech to text")
    speech.add_argument(
        "--transcribe", action="store_true", help="time and score transcripts beside bare Whisper's"
    )
    speech.add_argument(
        "--weights",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="checkpoint of openai-whisper; after it, folder of a CTranslate2 model to compare "
        "with it; may be given several times",
    )
    speech.add_argument("--rounds", type=positive, default=3, metavar="N", help="repetitions (3)")
    speech.add_argument(
        "--minutes",
        type=float,
        default=30.0,
        metavar="N",
        help="length of the long file whose memory is measured (30); 0 leaves it out",
    )


def _numbers(text: str) -> list[int]:
    return [positive(number.strip()) for number in text.split(",")]


def _bench(options: argparse.Namespace) -> int:
    compares = options.parity or options.speed or options.recipe or options.memory
    if not (options.model or compares or options.anomaly is not None or options.transcribe):
        raise ParameterError(
            "nothing to do: give a MODEL, --parity, --speed, --recipe, --memory, --anomaly or "
            "--transcribe"
        )
    if options.write is not None and not options.write.is_file():
        raise ParameterError(f"--write {str(options.write)!r}: there is no such file")
    if options.model:
        from audiotorch.bench.exported import time_exported

        print(time_exported(find_model(options.model), options.seconds, options.runs), end="")
    if options.anomaly is not None:
        _publish(_anomaly(options.anomaly), "anomaly", options.write)
    holds = True
    if options.transcribe:
        text, holds = _transcribe(options)
        _publish(text, "transcribe", options.write)
    if compares:
        _need_librosa()
    if options.parity:
        holds = _parity(options) and holds
    texts = []
    if options.speed:
        texts.append(_speed(options))
    if options.recipe:
        texts.append(_recipe(options))
    if options.memory:
        text, bounded = _memory(options)
        texts.append(text)
        holds = holds and bounded
    if texts:
        _publish("\n".join(texts), "speed", options.write)
    return DONE if holds else SOME_FAILED


def _need_librosa() -> None:
    if find_spec("librosa") is None:
        raise MissingDependencyError(
            "the benchmark compares with librosa: pip install 'audiotorch[bench]'"
        )


def _parity(options: argparse.Namespace) -> bool:
    from audiotorch.bench.clips import data_root, find_clips
    from audiotorch.bench.parity import Task, run_parity
    from audiotorch.bench.results import failures_told, parity_tables

    names = _names(options.features)
    task = Task.of(names, native=options.native, double=options.double)
    clips = find_clips(data_root(), options.limit)
    with Progress(len(clips)) as progress:
        report = run_parity(clips, task, options.jobs, progress.advance)
    text, holds = parity_tables(task, report)
    _publish(text, "parity", options.write)
    for line in failures_told(report):
        complain(line)
    return holds


def _speed(options: argparse.Namespace) -> str:
    from audiotorch.bench.clips import data_root, five_seconds
    from audiotorch.bench.peers import PEERS, run_peers
    from audiotorch.bench.results import speed_tables
    from audiotorch.bench.speed import run_speed
    from audiotorch.bench.works import WORKS

    names = _names(options.work) or list(WORKS)
    peers = PEERS if options.work is None else ()
    clips = five_seconds(data_root(), options.clips)
    texts = []
    for n_threads in options.threads:
        with Progress(len(names) + len(peers)) as progress:
            rows = run_speed(clips, names, n_threads, options.compile, progress.advance)
            others = run_peers(clips, peers, n_threads, progress.advance)
        texts.append(speed_tables(rows, others, len(clips), n_threads))
    return "\n".join(texts)


def _recipe(options: argparse.Namespace) -> str:
    from audiotorch.bench.clips import data_root
    from audiotorch.bench.recipe import SETS, run_recipe
    from audiotorch.bench.results import recipe_table

    texts = []
    for n_threads in options.threads:
        with Progress(len(SETS)) as progress:
            rows = run_recipe(data_root(), options.clips, n_threads, progress.advance)
        texts.append(recipe_table(rows, n_threads))
    return "\n".join(texts)


def _memory(options: argparse.Namespace) -> tuple[str, bool]:
    from audiotorch.bench.memory import run_memory
    from audiotorch.bench.results import memory_table

    rows = run_memory(options.clips, max(options.threads))
    return memory_table(rows)


def _anomaly(text: str) -> str:
    from audiotorch.bench.anomaly import PROTOCOLS, run_anomaly
    from audiotorch.bench.clips import data_root
    from audiotorch.bench.results import anomaly_tables
    from audiotorch.bench.threads import use_one_thread

    use_one_thread()
    names = _names(text or None)
    with Progress(len(names or PROTOCOLS)) as progress:
        figures = run_anomaly(data_root(), names, progress.advance)
    return anomaly_tables(figures)


def _transcribe(options: argparse.Namespace) -> tuple[str, bool]:
    from audiotorch.bench.clips import data_root
    from audiotorch.bench.results import speech_tables
    from audiotorch.bench.speech import run_long, run_speech
    from audiotorch.bench.threads import threads

    if missing := [str(path) for path in options.weights if not path.exists()]:
        raise ParameterError(f"--weights {missing[0]!r}: there is no such file or folder")
    with Progress(2 * len(options.weights)) as progress, threads(options.threads[0]):
        reports = run_speech(data_root(), options.weights, options.rounds, progress.advance)
        long = []
        for path in options.weights if options.minutes > 0 else ():
            long.append(run_long(data_root(), path, options.minutes))
            progress.advance(1)
    return speech_tables(reports, long)


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _publish(text: str, section: str, document: Path | None) -> None:
    print(text)
    if document is not None:
        from audiotorch.bench.table import write_section

        write_section(document, section, text)
