"""`audiotorch serve`: a local page to try a model, and its JSON endpoint."""

import argparse

from audiotorch.cli.arguments import Commands, add_device, check_device, find_model, seconds
from audiotorch.cli.terminal import DONE
from audiotorch.errors import printable

__all__ = ["add_serve"]


def add_serve(commands: Commands) -> None:
    """Add the command to the parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "serve",
        help="a local page to try a model, and its JSON endpoint for programs",
        description="Serve a page that takes a file or records from the microphone, and shows the "
        "spectrogram, the probabilities over time and the explanation; POST /predict is the same "
        "for programs. Listens on this machine alone; with --host 0.0.0.0 everybody in the "
        "network may ask, unencrypted. Pages of other sites are refused. Ends with Ctrl-C.",
    )
    parser.add_argument("model", metavar="MODEL", help="exported .ts file, or a run directory")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument(
        "--port", type=_port, default=8000, metavar="N", help="8000; 0 is any that is free"
    )
    parser.add_argument(
        "--max-mb", type=_megabytes, default=50.0, metavar="N", help="largest upload in MB (50)"
    )
    parser.add_argument(
        "--max-seconds", type=seconds, default=120.0, metavar="S", help="longest recording (120)"
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="S",
        help="longest upload, and longest wait for an answer (60)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name that the server goes by, such as the one behind a proxy",
    )
    add_device(parser)
    parser.set_defaults(run=_serve)


def _serve(options: argparse.Namespace) -> int:
    from audiotorch.serve import address_of, create_app, open_port, run_server

    model = find_model(options.model)
    listener = open_port(options.host, options.port)
    with listener:
        check_device(options.device)
        app = create_app(
            model,
            max_bytes=round(options.max_mb * 1e6),
            max_seconds=options.max_seconds,
            time_limit=options.timeout,
            device=options.device,
            host=options.host,
            names=options.allow_host,
        )
        address, name = address_of(listener), printable(str(model))
        run_server(app, listener, lambda: print(f"{name}: {address} (Ctrl-C ends it)", flush=True))
    return DONE


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 1 << 16):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number from 0 to 65535")
    return int(text)


def _megabytes(text: str) -> float:
    value = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
    if not 1e-3 <= value <= 1e5:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of MB from 0.001 to 100000")
    return value
