import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "long_recording.py"
SHORT, LONG = 5 / 60, 40 / 60


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> dict[str, list[dict]]:
    """What works took of five minutes and of forty. Times are not looked at: machines differ."""
    folder = tmp_path_factory.mktemp("long")
    command = [sys.executable, SCRIPT, "--json", "--folder", folder, "--hop", "10"]
    command += ["--repeats", "2", "--hours"]
    ran = subprocess.run(
        [*command, str(SHORT), str(LONG)], capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode in (0, 1), ran.stderr
    assert list(folder.iterdir()) == []
    found: dict[str, list[dict]] = {}
    for line in ran.stdout.splitlines():
        row = json.loads(line)
        found.setdefault(row["work"], []).append(row)
    assert set(found) == {"make the file", "features", "prediction", "read 10 s"}, ran.stderr
    return found


@pytest.mark.parametrize("work", ["features", "prediction", "read 10 s"])
def test_memory_is_bounded(rows, work):
    short, long = rows[work]
    assert (short["hours"], long["hours"]) == (SHORT, LONG)
    assert long["peak_mb"] < 1000
    # The waveform of 35 more minutes takes 185 MB at 22,050 Hz, 741 MB as it is decoded.
    assert long["own_mb"] < short["own_mb"] + 50
