"""A file is read and no other: scripts, playlists and links under a song's name open nothing.

FFmpeg by itself follows them, also out of bytes. Each case lies in a folder of its own beside a
recording that it names; a process of its own loads every case, while the kernel tells who opens
the recordings (inotify), Python what it opens (an audit hook), strace what sockets are made, and
a server who calls.
"""

import base64
import ctypes
import ctypes.util
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from decoders import encode

from audiotorch.audio.io import load

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's reports of opened files are Linux's"
)

TESTS = Path(__file__).resolve().parent
STRACE = shutil.which("strace")
SONG_NAMES = ("song.mp3", "song.wav", "song.m4a")
# Under these names FFmpeg believes in a playlist that it would not follow under others.
TELLING_NAMES = {
    "hls": "song.m3u8",
    "dash": "song.mpd",
    "sdp": "song.sdp",
    "concat": "song.ffconcat",
}

CHILD = """
import io, json, os, sys, time
import audiotorch as at
from audiotorch.audio.io import stream
at.load(os.path.join(sys.argv[1], "warm.wav"))
at.load(os.path.join(sys.argv[1], "warm.m4a"))
seen = []
def hook(event, arguments):
    if event == "open" or event.startswith(("socket.", "subprocess.", "os.exec", "urllib.")):
        seen.append([event, str(arguments[0]) if arguments else ""])
sys.addaudithook(hook)
print("READY", flush=True)
sys.stdin.readline()
report = []
for folder, name in json.loads(sys.argv[2]):
    os.chdir(folder)
    content = open(name, "rb").read() if os.path.isfile(name) else None
    forms = {"path": lambda: name}
    if content is not None:
        forms |= {"bytes": lambda: content, "file": lambda: io.BytesIO(content)}
        forms["opened"] = lambda: open(name, "rb")
    for form, make in forms.items():
        for read in (at.load, at.info, lambda source: list(stream(source, 1.0))):
            source = make()
            seen.clear()
            start = time.monotonic()
            try:
                outcome = ["loaded", str(read(source))[:200]]
            except Exception as error:
                outcome = [type(error).__name__, str(error)]
            report.append([folder, name, form, *outcome, list(seen), time.monotonic() - start])
            if form == "opened":
                source.close()
print(json.dumps(report))
"""

NAIVE = """
import io, os, sys
import av
av.logging.set_level(av.logging.PANIC)
print("READY", flush=True)
sys.stdin.readline()
os.chdir(sys.argv[1])
with eval(sys.argv[2]) as container:
    print(sum(frame.samples for frame in container.decode(container.streams.audio[0])))
"""


def sine(n: int = 48000) -> np.ndarray:
    return 0.3 * np.sin(np.arange(n) * 0.05, dtype=np.float32)[None]


# --- the attacks ----------------------------------------------------------------------------------


def scripts(folder: Path, port: int) -> dict[str, bytes]:
    """Text files that name `secret.*` in their folder, a port, or carry data."""
    wav = base64.b64encode((folder / "secret.wav").read_bytes()[:4000])
    hls = (
        b"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n%s#EXTINF:1.0,\n%s\n#EXT-X-ENDLIST\n"
    )
    url = f"http://127.0.0.1:{port}/secret.ts".encode()
    here = os.fsencode(folder)
    dash = b"""<?xml version="1.0"?>
<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"
 minBufferTime="PT1S" profiles="urn:mpeg:dash:profile:isoff-main:2011"><Period>
<AdaptationSet mimeType="audio/mp4"><Representation id="1" codecs="mp4a.40.2" bandwidth="64000"
 audioSamplingRate="48000"><BaseURL>secret.mp4</BaseURL></Representation></AdaptationSet>
</Period></MPD>"""
    return {
        "concat": b"ffconcat version 1.0\nfile secret.wav\n",
        "concat-absolute": b"ffconcat version 1.0\nfile '%s/secret.wav'\n" % here,
        "concat-http": b"ffconcat version 1.0\nfile %s\n" % url,
        "hls": hls % (b"", b"secret.ts"),
        "hls-file": hls % (b"", b"file://%s/secret.ts" % here),
        "hls-data": hls % (b"", b"data:audio/x-wav;base64," + wav),
        "hls-http": hls % (b"", url),
        "hls-concat": hls % (b"", b"concat:secret.ts|secret.ts"),
        "hls-map": hls % (b'#EXT-X-MAP:URI="secret.mp4"\n', b"secret.mp4"),
        "hls-key": hls % (b'#EXT-X-KEY:METHOD=AES-128,URI="secret.wav"\n', b"secret.ts"),
        "hls-master": b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n%s\n" % url,
        "m3u": b"#EXTM3U\n#EXTINF:1,song\nsecret.wav\n",
        "dash": dash,
        "dash-http": dash.replace(b"secret.mp4", url),
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        b"m=audio %d RTP/AVP 0\na=rtpmap:0 PCMU/8000\n" % port,
        "asx": b'<asx version="3.0"><entry><ref href="secret.wav"/></entry></asx>',
        "pls": b"[playlist]\nNumberOfEntries=1\nFile1=secret.wav\n",
        "rtsp": b"RTSPtext\nrtsp://127.0.0.1:%d/x\n" % port,
        "cue": b'FILE "secret.wav" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    }


def box(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", 8 + len(payload)) + kind + payload


def linked_movie(path: Path) -> bytes:
    """A QuickTime file whose samples lie in `secret.raw` beside it, by an alias record."""
    content = bytearray(encode(path, sine(), 48000, "pcm_s16be").read_bytes())
    path.unlink()
    name = b"secret.raw"
    alias = bytes(10) + bytes([4]) + b"disk".ljust(27, b"\0") + bytes(12)
    alias += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16)
    alias += struct.pack(">hh", 1, 1) + bytes(16)
    alias += struct.pack(">hh", 2, len(name) + 1) + b"/" + name + b"\0" + struct.pack(">hh", -1, 0)
    old = content.index(b"dref") - 4
    (n_old,) = struct.unpack_from(">I", content, old)
    new = box(b"dref", bytes(4) + struct.pack(">I", 1) + box(b"alis", bytes(4) + alias))
    content[old : old + n_old] = new
    for kind in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        at = content.rindex(kind, 0, old) - 4
        (n,) = struct.unpack_from(">I", content, at)
        struct.pack_into(">I", content, at, n + len(new) - n_old)
    return bytes(content)


def plain_names(port: int) -> list[str]:
    """Strings that FFmpeg takes for protocols and patterns; to us no file has such a name."""
    return [
        "concat:secret.wav|secret.wav",
        "subfile,,start,0,end,0,,:secret.wav",
        f"http://127.0.0.1:{port}/secret.wav",
        f"tcp://127.0.0.1:{port}",
        "file:secret.wav",
        "pipe:0",
        "fd:0",
        "cache:secret.wav",
        "async:secret.wav",
        "crypto:secret.wav",
        "data:audio/x-wav;base64,UklGRg==",
        "sine=frequency=440",
        "lavfi:sine",
        "secret%d.wav",
        "secret*.wav",
        "-",
    ]


# --- who opens what -------------------------------------------------------------------------------


class Watch:
    """The kernel's report of files that anyone opens while it stands."""

    IN_OPEN = 0x20

    def __init__(self, paths: list[Path]) -> None:
        libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK)
        self.paths = {
            libc.inotify_add_watch(self.descriptor, os.fsencode(path), self.IN_OPEN): path
            for path in paths
        }
        assert self.descriptor >= 0
        assert min(self.paths) >= 0

    def opened(self) -> set[Path]:
        """Close the watch and tell."""
        found = set()
        try:
            while events := os.read(self.descriptor, 1 << 16):
                at = 0
                while at < len(events):
                    number, _, _, n_name = struct.unpack_from("iIII", events, at)
                    found.add(self.paths[number])
                    at += 16 + n_name
        except BlockingIOError:
            return found
        finally:
            os.close(self.descriptor)
        return found


def run_watched(code: str, arguments: list[str], secrets: list[Path], log: Path):
    """Run code in a process of its own: its output, the secrets opened, its lines of strace."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    if STRACE:
        command = [STRACE, "-f", "-qq", "-o", str(log), "-e", "trace=network", *command]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as child:
        ready = child.stdout.readline()
        before = log.stat().st_size if STRACE else 0
        watch = Watch(secrets)
        output, errors = child.communicate("go\n", timeout=300)
    opened = watch.opened()
    assert ready == "READY\n", errors
    assert child.returncode == 0, errors
    calls = log.read_text()[before:].splitlines() if STRACE else []
    sockets = [
        line for line in calls if any(f" {k}(" in line for k in ("socket", "connect", "bind"))
    ]
    return output, opened, sockets


@pytest.fixture(scope="module")
def server():
    """A port and who called it."""
    callers: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        stopped = threading.Event()

        def answer() -> None:
            while not stopped.is_set():
                try:
                    connection, address = listener.accept()
                except TimeoutError:
                    continue
                callers.append(str(address))
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1], callers
        stopped.set()
        thread.join()


def fill(folder: Path) -> list[Path]:
    """The recordings that a case's script may name."""
    folder.mkdir(parents=True)
    secrets = [
        encode(folder / "secret.wav", sine(), 48000, "pcm_s16le"),
        encode(folder / "secret.ts", sine(), 48000, "aac"),
        encode(folder / "secret.mp4", sine(), 48000, "aac"),
    ]
    raw = folder / "secret.raw"
    raw.write_bytes((sine(96000)[0] * 32767).astype(">i2").tobytes())
    return [*secrets, raw]


@pytest.fixture(scope="module")
def attacks(tmp_path_factory, server):
    """Every attack made: folder and name of each, and all that none may open."""
    root = tmp_path_factory.mktemp("attacks")
    port, _ = server
    cases, secrets = [], []
    for kind in (*scripts_of_one(root / "kinds", port), "movie", "names"):
        folder = root / kind
        secrets += fill(folder)
        if kind == "names":
            cases += [[str(folder), name] for name in plain_names(port)]
            continue
        content = linked_movie(folder / "link.mov") if kind == "movie" else None
        names = [*SONG_NAMES, *(["song.mov"] if kind == "movie" else [])]
        if kind.split("-")[0] in TELLING_NAMES:
            names.append(TELLING_NAMES[kind.split("-")[0]])
        for name in names:
            (folder / name).write_bytes(content or scripts(folder, port)[kind])
            cases.append([str(folder), name])
    encode(root / "warm.wav", sine(), 48000, "pcm_s16le")
    encode(root / "warm.m4a", sine(), 48000, "aac")
    return root, cases, secrets


def scripts_of_one(folder: Path, port: int) -> list[str]:
    fill(folder)
    return list(scripts(folder, port))


@pytest.fixture(scope="module")
def outcome(attacks):
    root, cases, secrets = attacks
    output, opened, sockets = run_watched(
        CHILD, [str(root), json.dumps(cases)], secrets, root / "strace.log"
    )
    return json.loads(output), opened, sockets


@pytest.mark.parametrize("content", ["script", "link"])
def test_the_watch_sees_what_ffmpeg_alone_opens(content, attacks):
    root, _, _ = attacks
    source = {
        "script": "av.open(io.BytesIO(open('song.mp3', 'rb').read()))",
        "link": "av.open('song.mov', options={'enable_drefs': '1'})",
    }[content]
    folder = root / {"script": "concat", "link": "movie"}[content]
    secret = folder / {"script": "secret.wav", "link": "secret.raw"}[content]
    output, opened, _ = run_watched(
        NAIVE, [str(folder), source], [secret], root / f"naive-{content}.log"
    )
    assert opened == {secret}
    assert int(output) == 48000


def test_every_attack_is_refused_by_name(outcome):
    report, _, _ = outcome
    wrong = []
    for folder, name, form, kind, text, _, seconds in report:
        label = name if form in ("path", "opened") else "<"
        if kind != "DecodeError" or not text.startswith(label) or seconds > 10:
            wrong.append((Path(folder).name, name, form, kind, text, round(seconds, 1)))
    assert not wrong, wrong


def test_no_attack_opens_another_file(outcome):
    report, opened, _ = outcome
    assert not opened, {f"{path.parent.name}/{path.name}" for path in opened}
    for folder, name, form, _, _, seen, _ in report:
        own = {name, os.path.join(folder, name)} if form == "path" else set()
        others = [path for event, path in seen if event == "open" and path not in own]
        # Python's own modules, loaded late, are no file of the attack's.
        others = [path for path in others if not path.startswith((sys.prefix, sys.base_prefix))]
        assert not others, (folder, name, form, others)


def test_no_attack_calls_anyone(outcome, server):
    report, _, sockets = outcome
    assert not server[1]
    assert not sockets
    for folder, name, form, _, _, seen, _ in report:
        assert not [event for event in seen if event[0] != "open"], (folder, name, form)


def test_a_name_like_a_protocol_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, codec, kind in (
        ("concat:a.wav|b.wav", "pcm_s16le", "wav"),
        ("http:x.m4a", "aac", "ipod"),
        ("pipe:0", "alac", "ipod"),
        ("take%03d.mka", "flac", "matroska"),
    ):
        encode(Path("plain"), sine(), 48000, codec, container=kind)
        expected = load("plain", None)[0]
        os.rename("plain", name)
        waveform, rate = load(name, None)
        assert rate == 48000
        assert waveform.equal(expected)
        assert expected.shape[1] >= 48000
