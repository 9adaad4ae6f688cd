"""FFmpeg's containers, opened so that nothing but the given file is read.

FFmpeg gets the bytes of one open file, and an explicit list of containers and audio codecs: no
playlist, no script that names other files, no network, no video decoder.
"""

from functools import lru_cache
from typing import Any, BinaryIO, NoReturn

from audiotorch.errors import DecodeError

__all__ = ["CONTAINERS", "SUFFIXES", "ffmpeg_reason", "open_container"]

# FFmpeg's name of a container -> ours. What is not here is refused: scripts, playlists, and
# headerless streams that any bytes would pass for.
CONTAINERS = {
    "aac": "AAC",
    "ac3": "AC3",
    "aiff": "AIFF",
    "amr": "AMR",
    "ape": "APE",
    "asf": "ASF",
    "au": "AU",
    "avi": "AVI",
    "caf": "CAF",
    "dsf": "DSF",
    "dts": "DTS",
    "dtshd": "DTSHD",
    "eac3": "EAC3",
    "flac": "FLAC",
    "flv": "FLV",
    "iff": "IFF",
    "loas": "LOAS",
    "matroska,webm": "MATROSKA",
    "mlp": "MLP",
    "mov,mp4,m4a,3gp,3g2,mj2": "MP4",
    "mp3": "MP3",
    "mpc": "MPC",
    "mpc8": "MPC",
    "mpeg": "MPEG",
    "mpegts": "MPEGTS",
    "mxf": "MXF",
    "nistsphere": "NIST",
    "nut": "NUT",
    "ogg": "OGG",
    "oma": "OMA",
    "qcp": "QCP",
    "shn": "SHN",
    "tak": "TAK",
    "truehd": "TRUEHD",
    "tta": "TTA",
    "voc": "VOC",
    "w64": "W64",
    "wav": "WAV",
    "wsd": "WSD",
    "wv": "WAVPACK",
    "xwma": "XWMA",
}
SUFFIXES: tuple[str, ...] = tuple(
    ".m4a .m4b .mp4 .m4v .mov .3gp .3g2 .aac .ac3 .eac3 .ec3 .amr .ape .wma .asf .wmv .avi .dsf "
    ".dts .flv .mka .mkv .webm .weba .mp2 .mpc .mpg .mpeg .mts .m2ts .mxf .spx .tak .tta "
    ".wv".split()
)
"""Lower-case suffixes of the files that only FFmpeg reads."""

_BUFFER = 1 << 17  # bytes that FFmpeg asks of the file at a time


def open_container(handle: BinaryIO, name: str) -> tuple[Any, Any]:
    """Open a container and its first sound track; every other track is left undecoded.

    Args:
        handle: seekable binary file, read from its start.
        name: what messages call it.

    Returns:
        PyAV's container and stream.

    Raises:
        DecodeError: FFmpeg finds none of the listed containers, or no sound it can decode.
    """
    import av

    # Bare FLAC frames bear no mark; their checksums refuse anything else.
    bare = name.startswith("<") or name.lower().endswith(".flac")
    hints: list[str | None] = [None, "flac"] if bare else [None]
    try:
        container = _first_that_opens(handle, hints)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise DecodeError(
            f"{name}: not a readable audio file: {ffmpeg_reason(error)}; check that it is whole, "
            "and convert what is rare to WAV or FLAC"
        ) from error
    tracks = container.streams.audio
    if not tracks or tracks[0].codec_context is None:
        container.close()
        reason = "its sound is in a coding that FFmpeg lacks" if tracks else "it holds no sound"
        raise DecodeError(f"{name}: not a readable audio file: {reason}")
    tracks[0].codec_context.thread_count = 1  # callers decode several files at a time
    for other in container.streams:
        if other is not tracks[0]:
            other.discard = av.stream.Discard.all
    return container, tracks[0]


def _first_that_opens(handle: BinaryIO, hints: list[str | None]) -> Any:
    import av

    for hint in hints:
        handle.seek(0)
        try:
            return av.open(
                handle,
                format=hint,
                container_options={
                    "format_whitelist": ",".join(CONTAINERS),
                    "codec_whitelist": _audio_codecs(),
                    "protocol_whitelist": "none",
                },
                io_open=_refuse_other_files,
                metadata_errors="replace",
                buffer_size=_BUFFER,
            )
        except av.error.InvalidDataError:
            if hint == hints[-1]:
                raise
    raise AssertionError("no hints")


@lru_cache(maxsize=1)
def _audio_codecs() -> str:
    """Every audio decoder, and with that no other."""
    import av

    names = []
    for name in av.codecs_available:
        try:
            decoder = av.codec.Codec(name, "r")
        except av.codec.codec.UnknownCodecError:  # it only encodes
            continue
        if decoder.type == "audio":
            names.append(name)
    return ",".join(sorted(names))


def _refuse_other_files(url: str, *_: object) -> NoReturn:
    raise PermissionError(f"this file names another, {url!r}")


def ffmpeg_reason(error: Exception) -> str:
    """FFmpeg's own words, without its numbers and our handle's missing name.

    Args:
        error: what PyAV raised.
    """
    log = getattr(error, "log", None)
    text = log[2].strip() if log else getattr(error, "strerror", None) or str(error)
    return str(text)
