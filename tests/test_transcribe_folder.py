import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fake_whisper import RATE, FakeWhisper, write_clip

from audiotorch.audio import load
from audiotorch.errors import DecodeError, ParameterError, TruncationWarning
from audiotorch.transcribe import folder as module
from audiotorch.transcribe import lines as lines_module
from audiotorch.transcribe import workers as workers_module
from audiotorch.transcribe.folder import transcribe_files, transcribe_folder
from audiotorch.transcribe.recording import Transcriber

TESTS = Path(__file__).parent


@pytest.fixture
def clips(tmp_path) -> Path:
    for seed in range(6):
        write_clip(tmp_path / "clips" / f"{seed}.wav", seed)
    return tmp_path / "clips"


def read(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def texts(path: Path) -> dict[str, str]:
    """Text or error by file, each of which stands once."""
    found = [(line["filepath"], line.get("text", line.get("error"))) for line in read(path)]
    assert len(dict(found)) == len(found)
    return dict(found)


def run(sources, out, fake: FakeWhisper | None = None, **options):
    options = {"gate": "none", "workers": 1, **options}
    return transcribe_folder(sources, out, model=fake or FakeWhisper(), **options)


@pytest.fixture
def calls(tmp_path) -> Path:
    """A folder that gets a file for each transcript made."""
    folder = tmp_path / "calls"
    folder.mkdir()
    return folder


def n_calls(folder: Path) -> int:
    found = list(folder.iterdir())
    for path in found:
        path.unlink()
    return len(found)


# --- lines ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("extensions", ["wav", ".WAV", ["wav"], iter([".oga", ".wav"])])
def test_folders_are_searched_for_suffixes_however_spelt(clips, tmp_path, extensions):
    os.rename(clips / "0.wav", clips / "0.WAV")
    os.rename(clips / "1.wav", clips / "1.flac")
    run(clips, tmp_path / "x.jsonl", extensions=extensions)
    names = ["0.WAV", "2.wav", "3.wav", "4.wav", "5.wav"]
    assert list(texts(tmp_path / "x.jsonl")) == [str(clips / name) for name in names]


def test_each_file_has_the_line_that_its_transcript_makes(clips, tmp_path):
    out = tmp_path / "x.jsonl"
    told = []
    report = run(clips, out, word_timestamps=True, advance=lambda *more: told.append(more))
    assert (report.n_new, report.n_skipped, report.failures) == (6, 0, [])
    assert report.audio_seconds == pytest.approx(0.6)
    assert report.real_time_factor > 0
    assert told[0] == (0, 0.0)
    assert [sum(part) for part in zip(*told, strict=True)] == pytest.approx([6, 0.6])
    lines = read(out)
    assert [line["filepath"] for line in lines] == [str(clips / f"{i}.wav") for i in range(6)]
    assert list(lines[0])[:6] == "filepath filename language text n_segments duration_s".split()
    transcriber = Transcriber(FakeWhisper(), word_timestamps=True, gate="none")
    for line in lines:
        alone = transcriber(line["filepath"])
        assert line["filename"] == os.path.basename(line["filepath"])
        assert (line["text"], line["language"]) == (alone.text, alone.language)
        assert line["duration_s"] == alone.duration_seconds == 0.1
        assert line["n_segments"] == len(line["segments"]) == 1
        assert line["segments"][0]["words"][0]["word"] == alone.words[0].word
        assert line["segments"][0]["avg_logprob"] is None  # NaN
        state = os.stat(line["filepath"])
        assert (line["size"], line["mtime_ns"]) == (state.st_size, state.st_mtime_ns)
    assert "犬" in out.read_text(encoding="utf-8")
    found = list(transcribe_files([clips / "3.wav"], model=FakeWhisper(), gate="none"))
    assert [line["text"] for line in found] == [lines[3]["text"]]


def test_bad_files_are_lines_too_and_are_tried_again(clips, tmp_path, calls):
    write_clip(clips / "2.wav", 2, first=7)
    (clips / "3.wav").write_bytes(b"RIFF no audio")
    (clips / "4.wav").write_bytes(b"")
    out = tmp_path / "x.jsonl"
    report = run(clips, out, FakeWhisper(failing={7: "raise"}, folder=str(calls)))
    assert (report.n_new, n_calls(calls)) == (3, 4)
    names = [os.path.basename(failure.file) for failure in report.failures]
    assert names == ["2.wav", "3.wav", "4.wav"]
    found = texts(out)
    for failure in report.failures:
        assert found[failure.file] == failure.error
        assert failure.file in failure.error
    assert "ZeroDivisionError" in found[str(clips / "2.wav")]
    assert "empty" in found[str(clips / "4.wav")]
    errors = [line for line in read(out) if "error" in line]
    assert {tuple(line) for line in errors} == {
        ("filepath", "filename", "error", "size", "mtime_ns", "settings")
    }
    write_clip(clips / "4.wav", 4)
    report = run(clips, out, FakeWhisper(folder=str(calls)))
    assert (report.n_new, report.n_skipped, n_calls(calls)) == (2, 3, 2)
    assert [failure.file for failure in report.failures] == [str(clips / "3.wav")]
    assert len(texts(out)) == 6


def test_odd_files_do_not_stop_the_job(clips, tmp_path):
    names = ['new\nline "quoted".wav', "犬 🎧.wav", os.fsdecode(b"\xff\xfe.wav"), "\u2028.wav"]
    for name in names:
        write_clip(clips / "odd" / name)
    write_clip(clips / "folder.wav" / "in.wav")
    (clips / "loop.wav").symlink_to("loop.wav")
    (clips / "odd" / "up").symlink_to(clips, target_is_directory=True)
    (clips / "dangling.wav").symlink_to("nowhere")
    out = clips / "out.jsonl"  # in the folder that is searched
    missing = clips / "missing.wav"
    report = run([clips, missing, "nul\0.wav"], out, formats=["json", "txt"])
    assert report.n_new == 6 + 4 + 1
    failed = {os.path.basename(failure.file) for failure in report.failures}
    assert failed == {"loop.wav", "dangling.wav", "missing.wav", "nul\0.wav"}
    found = texts(out)
    assert {os.path.basename(name) for name in found} >= {*names, "in.wav"}
    assert len(found) == 15
    again = run([clips, missing], out, formats=["json", "txt"])
    assert (again.n_new, again.n_skipped, len(again.failures)) == (0, 11, 3)
    assert texts(out) == found


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_that_may_not_be_read_is_told(clips, tmp_path):
    (clips / "1.wav").chmod(0)
    report = run(clips, tmp_path / "x.jsonl")
    assert (report.n_new, len(report.failures)) == (5, 1)


def test_file_given_twice_has_one_line(clips, tmp_path, monkeypatch):
    out = tmp_path / "x.jsonl"
    monkeypatch.chdir(clips)
    told = []
    sources = ["0.wav", "./0.wav", clips / "0.wav", "../clips/0.wav", ".", "1.wav"]
    report = run(sources, out, advance=lambda count, _: told.append(count))
    assert (report.n_new, report.n_skipped) == (6, 0)
    assert sum(told) == 4 + 6 + 1
    assert [line["filepath"] for line in read(out)] == [f"{i}.wav" for i in range(6)]
    assert run(clips, out).n_skipped == 6
    assert len(read(out)) == 6


def test_cut_off_recording_is_told_and_used(clips, tmp_path):
    write_clip(clips / "0.wav", 0, n_samples=16000)
    content = (clips / "0.wav").read_bytes()
    (clips / "0.wav").write_bytes(content[: len(content) // 2])
    for workers in (1, 2):
        with pytest.warns(TruncationWarning, match=r"0\.wav"):
            report = run(clips, tmp_path / f"{workers}.jsonl", workers=workers)
        assert report.n_new == 6
    assert texts(tmp_path / "1.jsonl") == texts(tmp_path / "2.jsonl")


# --- resuming -------------------------------------------------------------------------------------


def test_finished_files_are_skipped_unless_they_or_the_settings_changed(clips, tmp_path, calls):
    out = tmp_path / "x.jsonl"
    fake = FakeWhisper(folder=str(calls))
    run(clips, out, fake)
    assert n_calls(calls) == 6
    before = out.read_bytes()
    assert run(clips, out, fake).n_skipped == 6
    assert out.read_bytes() == before
    os.utime(clips / "1.wav", ns=(1, 1))
    write_clip(clips / "2.wav", 9, n_samples=3200)
    write_clip(clips / "6.wav", 6)
    report = run(clips, out, fake)
    assert (report.n_new, report.n_skipped, n_calls(calls)) == (3, 4, 3)
    assert len(texts(out)) == 7
    for changed in ({"word_timestamps": True}, {"language": "en"}, {"gate": "energy"}):
        assert run(clips, out, fake, **changed).n_skipped == 0
        assert run(clips, out, fake, **changed).n_skipped == 7
    assert len(texts(out)) == 7


def test_lines_of_other_files_stay(clips, tmp_path):
    out = tmp_path / "x.jsonl"
    run([clips / "0.wav", clips / "1.wav"], out)
    run([clips / "1.wav", clips / "2.wav"], out, language="en")
    found = {line["filename"]: line["language"] for line in read(out)}
    assert found == {"0.wav": "ja", "1.wav": "en", "2.wav": "en"}


def test_without_resume_all_is_done_again_and_old_lines_go_at_the_end(clips, tmp_path, calls):
    out = tmp_path / "x.jsonl"
    run(clips, out)
    fake = FakeWhisper(folder=str(calls))
    write_clip(clips / "1.wav", 1, first=7)
    with pytest.raises(KeyboardInterrupt):
        run(clips, out, FakeWhisper(failing={7: "interrupt"}), resume=False)
    assert {line["filename"] for line in read(out)} == {f"{i}.wav" for i in range(6)}
    report = run([clips / "1.wav", clips / "2.wav"], out, fake, resume=False)
    assert (report.n_new, report.n_skipped, n_calls(calls)) == (2, 0, 2)
    assert [line["filename"] for line in read(out)] == ["1.wav", "2.wav"]
    out.write_text("file,text\n")
    with pytest.raises(ParameterError, match="name another --out"):
        run(clips, out, resume=False)
    assert out.read_text() == "file,text\n"


def test_text_of_a_file_that_is_gone_stays(clips, tmp_path):
    out = tmp_path / "x.jsonl"
    files = sorted(clips.iterdir())
    run(files, out)
    found = texts(out)
    files[2].unlink()
    files[3].write_bytes(b"")
    report = run(files, out, formats=["txt"])
    assert [failure.file for failure in report.failures] == [str(file) for file in files[2:4]]
    now = texts(out)
    assert now[str(files[2])] == found[str(files[2])]
    assert "empty" in now[str(files[3])]


def test_nothing_is_loaded_when_all_is_done(clips, tmp_path, monkeypatch):
    out = tmp_path / "x.jsonl"
    model = tmp_path / "model.pt"
    model.write_bytes(b"no model")
    with monkeypatch.context() as patch:
        patch.setattr(workers_module, "Transcriber", lambda **_: Transcriber(FakeWhisper()))
        transcribe_folder(clips, out, model=model, gate="none", workers=1)
    before = out.read_bytes()
    report = transcribe_folder(clips, out, model=str(model), gate="none", formats=["srt"])
    assert (report.n_new, report.n_skipped) == (0, 6)
    assert len(list((tmp_path / "x").rglob("*.srt"))) == 6
    for workers in (1, 2):
        model.write_bytes(b"no checkpoint")
        with pytest.raises(DecodeError, match=r"model\.pt: cannot be read as a Whisper"):
            transcribe_folder(clips, out, model=model, gate="none", workers=workers)
        assert out.read_bytes() == before
        with pytest.raises(DecodeError):
            transcribe_folder(clips, tmp_path / "new.jsonl", model=model, workers=workers)
        assert not (tmp_path / "new.jsonl").exists()


def test_full_disk_ends_the_job_and_what_was_done_is_kept(clips, tmp_path, monkeypatch):
    out = tmp_path / "x.jsonl"
    run(clips, tmp_path / "whole.jsonl")
    write_all = lines_module.write_all

    def full(handle, data):
        if out.read_bytes().count(b"\n") == 3:
            handle.write(data[:40])
            raise OSError(28, "No space left on device")
        write_all(handle, data)

    with monkeypatch.context() as patch:
        patch.setattr(lines_module, "write_all", full)
        with pytest.raises(OSError, match="what was done is kept"):
            run(clips, out, workers=2)
    assert len(texts(out)) == 3
    assert run(clips, out).n_skipped == 3
    assert texts(out) == texts(tmp_path / "whole.jsonl")


# --- further files --------------------------------------------------------------------------------


def test_further_files_have_names_of_their_own(clips, tmp_path, monkeypatch):
    write_clip(clips / "deep" / "0.wav", 9)
    soundfile.write(clips / "0.flac", load(clips / "0.wav", None)[0][0].numpy(), RATE)
    elsewhere = write_clip(tmp_path / "other" / "0.wav", 10)
    out = tmp_path / "results" / "x.jsonl"
    out.parent.mkdir()
    inside = write_clip(out.parent / "in" / "0.wav", 11)
    monkeypatch.chdir(clips)
    report = run([".", elsewhere, inside], out, formats=["srt", "txt", "json"])
    assert report.n_new == 10
    found = sorted(path.relative_to(out.parent) for path in (out.parent / "x").rglob("*.txt"))
    outside = Path("x/_outside") / str(tmp_path).lstrip("/")
    names = [f"clips/{i}.wav.txt" for i in range(6)]
    names += ["clips/0.flac.txt", "clips/deep/0.wav.txt", "other/0.wav.txt"]
    assert found == sorted([Path("x/in/0.wav.txt"), *(outside / name for name in names)])
    by_file = {line["filepath"]: line["text"] for line in read(out)}
    assert (out.parent / outside / "clips/deep/0.wav.txt").read_text("utf-8").strip() == by_file[
        "deep/0.wav"
    ]
    assert not [path for path in out.parent.rglob(".*")]


def test_further_files_are_made_again_without_a_model(clips, tmp_path, calls):
    out = tmp_path / "x.jsonl"
    fake = FakeWhisper(folder=str(calls))
    options = {"formats": ["srt", "json"], "word_timestamps": True}
    run(clips, out, fake, **options)
    assert n_calls(calls) == 6
    made = {path: path.read_bytes() for path in (tmp_path / "x").rglob("*.*")}
    assert len(made) == 12
    for path in list(made)[::3]:
        path.unlink()
    report = run(clips, out, fake, **options)
    assert (report.n_skipped, n_calls(calls)) == (6, 0)
    assert {path: path.read_bytes() for path in (tmp_path / "x").rglob("*.*")} == made
    (clips / "0.wav").write_bytes(b"")
    run(clips, out, fake, **options)
    assert len(list((tmp_path / "x").rglob("*.*"))) == 10


def test_further_files_are_there_before_the_line(clips, tmp_path, monkeypatch):
    out = tmp_path / "x.jsonl"
    append = lines_module.Lines.append
    seen = []

    def watched(self, line):
        seen.append((tmp_path / "x" / "clips" / f"{line['filename']}.srt").exists())
        append(self, line)

    monkeypatch.setattr(lines_module.Lines, "append", watched)
    run(clips, out, formats="srt")
    assert seen == [True] * 6


def test_wrong_further_files_are_refused(clips, tmp_path):
    with pytest.raises(ParameterError, match="'doc' unknown; must be of txt srt vtt tsv json"):
        run(clips, tmp_path / "x.jsonl", formats=["srt", "doc"])
    (tmp_path / "x").write_text("a file")
    with pytest.raises(ParameterError, match="is a file; name another --out"):
        run(clips, tmp_path / "x.jsonl", formats=["srt"])


def test_further_files_of_the_longest_names_are_told_apart(tmp_path, calls):
    names = ["n" * 250 + f"{i}.wav" for i in range(2)] + ["é" * 125 + ".wav"]
    for name in names:
        write_clip(tmp_path / "clips" / name, len(name))
    fake = FakeWhisper(folder=str(calls))
    report = run(tmp_path / "clips", tmp_path / "y.jsonl", fake, formats=["srt", "json"])
    assert (report.n_new, report.failures, n_calls(calls)) == (3, [], 3)
    found = [path.name for path in (tmp_path / "y").rglob("*.srt")]
    assert len(found) == 3
    assert all(len(os.fsencode(name)) <= 255 for name in found)
    assert "\ufffd" not in "".join(found)
    again = run(tmp_path / "clips", tmp_path / "y.jsonl", fake, formats=["srt", "json"])
    assert (again.n_skipped, n_calls(calls)) == (3, 0)


# --- workers --------------------------------------------------------------------------------------


def test_workers_give_the_same_texts(clips, tmp_path):
    run(clips, tmp_path / "1.jsonl")
    report = run(clips, tmp_path / "2.jsonl", workers=2)
    assert report.n_new == 6
    assert texts(tmp_path / "1.jsonl") == texts(tmp_path / "2.jsonl")


def test_worker_that_dies_costs_its_file_until_the_next_time(clips, tmp_path, calls):
    for i, first in ((1, 7), (2, 8), (3, 7)):
        write_clip(clips / f"{i}.wav", i, first=first)
    out = tmp_path / "x.jsonl"
    fake = FakeWhisper(failing={7: "kill once", 8: "exit"}, folder=str(calls))
    report = run(clips, out, fake, workers=2)
    told = {os.path.basename(failure.file): failure.error for failure in report.failures}
    assert report.n_new == 4
    assert "was killed" in told.get("1.wav", told.get("3.wav", ""))
    assert "broke down (status 3)" in told["2.wav"]
    assert len(texts(out)) == 6
    report = run(clips, out, fake, workers=2)
    assert (report.n_new, report.n_skipped) == (1, 4)
    assert [os.path.basename(failure.file) for failure in report.failures] == ["2.wav"]


def test_settings_that_cannot_be_sent_are_refused(clips, tmp_path):
    fake = FakeWhisper()
    fake.lock = (i for i in range(3))
    with pytest.raises(ParameterError, match="use workers=1"):
        run(clips, tmp_path / "x.jsonl", fake, workers=2)
    with pytest.raises(ParameterError, match="workers=0: must be at least 1"):
        run(clips, tmp_path / "x.jsonl", workers=0)
    assert not (tmp_path / "x.jsonl").exists()


def test_number_of_workers_goes_by_cores_files_and_memory(monkeypatch, tmp_path):
    sensible = workers_module.sensible_workers
    monkeypatch.setattr(workers_module, "n_cores", lambda: 8)
    monkeypatch.setattr(workers_module, "_free_bytes", lambda: 16 << 30)
    many = ["no.wav"] * 100
    assert sensible("tiny.en", "cpu", many) == 8
    assert sensible("large-v3", "cpu", many) == 1
    assert sensible("medium", "cpu", many) == 3
    assert sensible("turbo", None, many) in (1, 2)
    assert sensible("base", "cuda:1", many) == 1
    # A few short files are done before another process has started; long ones are not.
    found = [sensible(name, "cpu", many[:3]) for name in ("tiny.en", "base", "small")]
    assert found == [1, 1, 3]
    assert [sensible("tiny.en", "cpu", many[:n]) for n in (7, 8, 16)] == [1, 2, 4]
    recording = tmp_path / "hour.wav"
    with recording.open("wb") as file:
        file.truncate(100 << 20)
    assert sensible("tiny.en", "cpu", [str(recording)] * 2) == 2
    path = tmp_path / "mine.pt"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    assert sensible(str(path), "cpu", many) == 1
    monkeypatch.undo()
    assert workers_module._free_bytes() > 1 << 20


def script(clips: Path, out: Path, **options: object) -> list[str]:
    """A process that transcribes; not in a file, so that no worker could run it again."""
    fake = options.pop("fake", "FakeWhisper()")
    code = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
from fake_whisper import FakeWhisper
from audiotorch.transcribe.folder import transcribe_folder
transcribe_folder({str(clips)!r}, {str(out)!r}, model={fake}, gate="none", **{options!r})
"""
    return [sys.executable, "-c", code]


def wait_for(what, seconds: float = 60.0):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_workers_go_away_with_their_parent(clips, tmp_path, calls, number):
    fake = f"FakeWhisper(seconds=60, folder={str(calls)!r})"
    process = subprocess.Popen(
        script(clips, tmp_path / "x.jsonl", fake=fake, workers=2),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for(lambda: len(list(calls.iterdir())) == 2)
    workers = [int(path.name.split("-")[0]) for path in calls.iterdir()]
    assert process.pid not in workers
    assert all(alive(pid) for pid in workers)
    process.send_signal(number)
    process.communicate(timeout=30)
    wait_for(lambda: not any(alive(pid) for pid in workers), 10)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_go_away_with_their_parent_before_they_listen(clips, tmp_path):
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "torch.py").write_text(
        f"import os, time\nopen(os.path.join({str(slow)!r}, str(os.getpid())), 'w').close()\n"
        "time.sleep(60)\n"
    )
    *command, code = script(clips, tmp_path / "x.jsonl", workers=2)
    call = "\ntranscribe_folder("
    code = code.replace(call, f"\nsys.path.insert(0, {str(slow)!r}){call}")
    process = subprocess.Popen([*command, code])
    wait_for(lambda: len(list(slow.glob("[0-9]*"))) == 2)
    workers = [int(path.name) for path in slow.glob("[0-9]*")]
    process.kill()
    process.wait()
    wait_for(lambda: not any(alive(pid) for pid in workers), 10)


def test_script_without_a_guard_is_not_run_again_by_workers(clips, tmp_path):
    _, _, code = script(clips, tmp_path / "x.jsonl", workers=2)
    path = tmp_path / "script.py"
    path.write_text(f"print('once')\n{code}")
    ran = subprocess.run(
        [sys.executable, path], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "once\n", "")
    assert len(texts(tmp_path / "x.jsonl")) == 6


# --- kills ----------------------------------------------------------------------------------------

# Forks that are killed: to import everything anew for each would take a minute.
KILLER = """
import os, random, signal, sys, time
import torch
sys.path.insert(0, {tests!r})
from fake_whisper import FakeWhisper
from audiotorch.transcribe import open_backend, transcribe_folder
from audiotorch.transcribe.voice import open_gate

torch.set_num_threads(1)
model = {model}
open_gate({gate!r})

def job():
    options = dict(model=model, gate={gate!r}, workers=1, formats=["srt"])
    transcribe_folder({sources!r}, {out!r}, **options)

def n_done():
    return open({out!r}, "rb").read().count(b"\\n") if os.path.exists({out!r}) else 0

moments = random.Random({seed})
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        job()
        os._exit(0)
    # However fast the machine is: after some more lines, or while the job begins.
    enough = n_done() + min(moments.randint(0, {n_lines}), {n_files} - n_done() - 1)
    until = time.monotonic() + 30
    while n_done() < enough and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(moments.uniform(0.0, {seconds}))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    print(os.WIFSIGNALED(status), n_done(), flush=True)
job()
"""


def kill_ten_times(sources: list[str], out: Path, model: str, **how: object) -> int:
    """Start a job again and again; return how often it was killed in the middle."""
    names = {"tests": str(TESTS), "sources": sources, "out": str(out)}
    code = KILLER.format(model=model, **names, **how)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    kills = [line.split() for line in ran.stdout.splitlines()]
    assert len(kills) == 10
    return len({done for killed, done in kills if killed == "True"})


@pytest.mark.parametrize("seed", [0, 1])
def test_ten_kills_lose_nothing(tmp_path, seed):
    for i in range(60):
        write_clip(tmp_path / "clips" / f"{i:02}.wav", i)
    clips, out, whole = str(tmp_path / "clips"), tmp_path / "x.jsonl", tmp_path / "whole.jsonl"
    fake = "FakeWhisper(seconds=0.01)"
    run(clips, whole)
    n_times = kill_ten_times(
        [clips], out, fake, n_files=60, gate="none", n_lines=4, seconds=0.05, seed=seed
    )
    assert n_times >= 3
    assert texts(out) == texts(whole)
    assert len(texts(out)) == 60
    assert len(list((tmp_path / "x").rglob("*.srt"))) == 60
    assert [path for path in tmp_path.rglob("*") if path.name.startswith(".")] == []


# Whisper leaves the file of its tokens open.
def test_ten_kills_of_a_real_model_lose_nothing(data_root, whisper_weights, tmp_path):
    names = "cards_001 cards_002 cards_003 sr_english LJ002-0020 librivox_austen_0880".split()
    sources = [str(data_root / "speech" / "en" / f"{name}.wav") for name in names]
    whole, out = tmp_path / "whole.jsonl", tmp_path / "x.jsonl"
    model = str(whisper_weights / "tiny.en.pt")
    transcribe_folder(sources, whole, model=model, workers=1)
    backend = f"open_backend({model!r})"
    n_times = kill_ten_times(
        sources, out, backend, n_files=6, gate="auto", n_lines=1, seconds=0.2, seed=1
    )
    assert n_times >= 3
    assert texts(out) == texts(whole)
    assert all(texts(out).values())


# --- real recordings ------------------------------------------------------------------------------


def test_bad_recordings_among_good_ones(data_root, whisper_weights, tmp_path):
    import av

    clips = tmp_path / "clips"
    clips.mkdir()
    speech = data_root / "speech" / "en" / "cards_001.wav"
    (clips / "a.wav").write_bytes(speech.read_bytes())
    soundfile.write(clips / "b.flac", *soundfile.read(speech))
    (clips / "corrupt.flac").write_bytes(os.urandom(5000))
    soundfile.write(clips / "empty.wav", np.zeros(0), RATE)
    soundfile.write(clips / "silent.wav", np.zeros(3 * RATE), RATE)
    (clips / "zero.mp3").touch()
    with av.open(str(clips / "video.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    out = tmp_path / "x.jsonl"
    report = transcribe_folder(clips, out, model=whisper_weights / "tiny.en.pt", workers=2)
    found = {line["filename"]: line for line in read(out)}
    assert {os.path.basename(failure.file) for failure in report.failures} == {
        "corrupt.flac", "zero.mp3", "video.mp4", "empty.wav",
    }  # fmt: skip
    for failure in report.failures:
        assert found[os.path.basename(failure.file)]["error"] == failure.error
        assert failure.file in failure.error
    assert "empty" in found["zero.mp3"]["error"]
    assert "holds no samples" in found["empty.wav"]["error"]
    assert found["silent.wav"]["text"] == ""
    assert found["silent.wav"]["duration_s"] == 3.0
    assert found["a.wav"]["text"] == found["b.flac"]["text"] != ""
    assert module.Lines(out, {}).has_text(str(clips / "a.wav"))
