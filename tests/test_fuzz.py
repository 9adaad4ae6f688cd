import io
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import fuzzer
import numpy as np
import pytest
import soundfile

COUNT = 300


def test_damaged_files_load_or_are_refused():
    if sys.platform == "win32":
        pytest.skip("waits on pipes as Windows cannot")
    failures, ends = fuzzer.run(seed=1, count=COUNT, jobs=2)
    with tempfile.TemporaryDirectory() as folder:
        seeds = fuzzer.corpus(Path(folder))
        told = [(f, fuzzer.make_case(seeds, f.seed, f.index)[1]) for f in failures]
    assert not told
    assert sum(ends.values()) == COUNT
    # Damage that is all refused, or all survived, would test little.
    assert min(ends["refused"], ends["loaded"] + ends["warned"]) > COUNT // 10


def test_a_case_is_the_same_again(tmp_path):
    seeds = fuzzer.corpus(tmp_path)
    for index in range(20):
        first, second = (fuzzer.make_case(seeds, 0, index) for _ in range(2))
        assert first[:3] == second[:3]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crash: status -11"),
        ("import time; time.sleep(60)", "hangs"),
        ("kept = b'x' * (2 << 30); input()", "over 1024 MB"),
        ("raise KeyError('x')", "KeyError: 'x'"),
    ],
)
def test_the_fuzzer_sees_what_goes_wrong(code, message, monkeypatch, tmp_path):
    script = tmp_path / "worker.py"
    tests = str(Path(__file__).parent)
    script.write_text(
        f"import sys; sys.path.insert(0, {tests!r}); import fuzzer\n"
        f"def broken(*_):\n    {code}\n"
        "fuzzer.check_case = broken\n"
        "fuzzer.corpus = lambda folder: [fuzzer.Seed('a.wav', b'RIFF')]\n"
        "fuzzer._work(0)\n"
    )
    monkeypatch.setattr(fuzzer, "__file__", str(script))
    # Two gigabytes take a busy machine some seconds.
    monkeypatch.setattr(fuzzer, "CASE_SECONDS", 2.0 if message == "hangs" else 60.0)
    monkeypatch.setattr(fuzzer, "MEGABYTES", 1024)
    failures, ends = fuzzer.run(seed=0, count=1, jobs=1)
    assert ends["failed"] == 1
    assert failures[0].what.startswith(message)


@pytest.mark.parametrize("rate", [1, 2, 2_147_483_647])
def test_a_wrong_rate_fills_no_memory(rate, tmp_path):
    """A few bytes in a header turn a second of sound into half a day of it."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(60_000), 8000, format="WAV")
    content = bytearray(file.getvalue())
    struct.pack_into("<I", content, 24, rate)
    path = tmp_path / "slow.wav"
    path.write_bytes(content)
    code = (
        "import sys, audiotorch as at\n"
        "from fuzzer import peak_megabytes\n"
        "from audiotorch.audio.io import stream\n"
        "for read in (at.load, lambda p: next(stream(p, 1.0, 22050))):\n"
        "    try:\n        read(sys.argv[1])\n"
        "    except at.DecodeError as error:\n        assert 'Hz' in str(error)\n"
        "print(peak_megabytes())\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parent.parent), str(Path(__file__).parent)]
        ),
    }
    command = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < fuzzer.MEGABYTES
