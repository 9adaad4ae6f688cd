import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from audiotorch.batch import place
from audiotorch.errors import ParameterError
from audiotorch.transcribe import lines as module
from audiotorch.transcribe.lines import (
    Lines,
    Task,
    encode,
    error_line,
    read_lines,
    result_line,
    transcript_of,
)
from audiotorch.transcribe.result import Segment, Transcript, Word

SETTINGS = {"model": "tiny.en", "language": None, "temperature": (0.0, 0.2)}
NAMES = ["a.wav", 'new\nline, "quote" \\.wav', "犬 🎧.wav", "\udcff broken.wav", "\u2028 \x85 \x7f"]
FIRST = "filepath filename language text n_segments duration_s".split()
REST = "language_probability real_time_factor speech_s segments task model size mtime_ns settings"


def transcript(file: str = "a.wav", text: str = "né 犬") -> Transcript:
    words = (Word(f" {text}", 0.0, 0.5, 0.25), Word(".", 0.5, 0.75, 1.0))
    segments = (
        Segment(0.0, 0.75, f" {text}.", "en", -0.5, 1.25, 0.0, 0.2, words, 1),
        Segment(0.75, 1.0, " ok", "en"),
    )
    return Transcript(
        file, f"{text}. ok", "en", None, 1.5, None, 0.125, "transcribe", "x", segments
    )


def line(file: str = "a.wav", text: str = "né 犬", size: int = 10) -> dict:
    return result_line(Task(file, size, 20), transcript(file, text), SETTINGS, words=True)


def read(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n") or not text
    return [json.loads(part) for part in text.splitlines()]


# --- a line ---------------------------------------------------------------------------------------


def test_line_has_the_keys_of_the_article_first():
    found = line()
    assert list(found) == [*FIRST, *REST.split()]
    assert [found[name] for name in FIRST] == ["a.wav", "a.wav", "en", "né 犬. ok", 2, 1.5]
    assert found["segments"][0]["words"][0]["word"] == " né 犬"
    bare = result_line(Task("x/a.wav", 1, 2), transcript(), SETTINGS)
    assert bare["filename"] == "a.wav"
    assert all("words" not in segment for segment in bare["segments"])
    wrong = error_line(Task("x/a.wav", 1, 2), "x/a.wav: empty", SETTINGS)
    assert list(wrong) == ["filepath", "filename", "error", "size", "mtime_ns", "settings"]


def test_transcript_comes_back_from_its_line():
    assert transcript_of(json.loads(encode(line()))) == transcript()


@pytest.mark.parametrize("name", NAMES)
def test_any_name_and_text_is_one_line_of_utf8(name):
    found = line(name, f"text of {name}")
    data = encode(found)
    assert len(data.decode("utf-8").splitlines()) == 1
    assert json.loads(data) == json.loads(json.dumps(found))
    assert "犬".encode() in encode(line(text="犬"))


def test_what_is_no_number_is_null():
    data = encode({"a": float("nan"), "b": [float("inf"), (1.5, float("-inf"))], "c": {"d": 1e300}})
    assert json.loads(data) == {"a": None, "b": [None, [1.5, None]], "c": {"d": 1e300}}


# --- the file -------------------------------------------------------------------------------------


def test_lines_are_there_for_the_next_job(tmp_path):
    out = tmp_path / "x.jsonl"
    with Lines(out, SETTINGS) as lines:
        assert not out.exists()
        for name in NAMES:
            lines.append(line(name))
        lines.append(error_line(Task("bad.wav", 10, 20), "bad.wav: empty", SETTINGS))
        lines.finish()
    assert [found["filepath"] for found in read(out)] == [*NAMES, "bad.wav"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]
    with Lines(out, SETTINGS) as lines:
        for name in NAMES:
            assert lines.finished(Task(name, 10, 20))
            assert lines.finished(Task(os.path.abspath(name), 10, 20))
            assert not lines.finished(Task(name, 11, 20))
            assert not lines.finished(Task(name, 10, 21))
            assert transcript_of(lines.read(name)) == transcript(name)
        assert not lines.finished(Task("bad.wav", 10, 20))
        assert not lines.finished(Task("other.wav", 10, 20))
        assert lines.read("other.wav") is None
    with Lines(out, {**SETTINGS, "language": "en"}) as lines:
        assert not lines.finished(Task("a.wav", 10, 20))
        assert lines.has_text("./a.wav")
        assert not lines.has_text("bad.wav")
    assert [found["filename"] for found in read_lines(out, ["./a.wav", "b.wav"])] == ["a.wav"]


def test_output_cut_anywhere_loses_what_was_cut(tmp_path):
    out = tmp_path / "x.jsonl"
    with Lines(out, SETTINGS) as lines:
        for name in "abc":
            lines.append(line(name))
    whole = out.read_bytes()
    for cut in sorted(
        {*range(0, len(whole), 13), *range(len(whole) // 3 - 3, len(whole) // 3 + 3)}
    ):
        out.write_bytes(whole[:cut])
        with Lines(out, SETTINGS) as lines:
            kept = [name for name in "abc" if lines.finished(Task(name, 10, 20))]
            # A line that lacks nothing but its end is whole.
            assert len(kept) == (whole[:cut] + b"\n").count(b"}}\n")
            lines.append(line("new"))
            lines.finish()
        assert [found["filepath"] for found in read(out)] == [*kept, "new"]


@pytest.mark.parametrize("tail", [b"\0" * 100, b'{"fi', b'{"filepath": "b", "text": "\xe7\x8a'])
def test_what_a_power_failure_leaves_is_cut_off(tmp_path, tail):
    out = tmp_path / "x.jsonl"
    out.write_bytes(encode(line()) + tail)
    with Lines(out, SETTINGS):
        pass
    assert out.read_bytes() == encode(line())


def test_blank_lines_go_at_the_end(tmp_path):
    out = tmp_path / "x.jsonl"
    out.write_bytes(encode(line("a")) + b"\n" + encode(line("b")) + b"\r\n")
    with Lines(out, SETTINGS) as lines:
        lines.append(line("c"))
        lines.finish()
    assert out.read_bytes() == b"".join(encode(line(name)) for name in "abc")


@pytest.mark.parametrize(
    "content",
    [
        b"file,text\na.wav,hello\n",
        b"hello",
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + bytes(range(256)),
        b'{"filepath": "a.wav", "text": "a manifest"}\n',
        b'[{"filepath": "a.wav"}]\n',
        b"[" * 100_000 + b"\n",
        b'{"audio": "a.wav"}',
        b'{"filepath": "a.wav", "text": "a manifest"}',
        b"\xff\xfe\n",
        b"7\n",
        encode(line()) + b"notes\n",
        encode(line()) + b"\0\0\n" + encode(line("b")),
    ],
)
def test_other_files_are_refused_and_left(tmp_path, content):
    out = tmp_path / "x.jsonl"
    out.write_bytes(content)
    with pytest.raises(ParameterError, match=r"line \d is none of a transcription"):
        Lines(out, SETTINGS)
    assert out.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="is a folder; name a file"):
        Lines(tmp_path, SETTINGS)
    with pytest.raises(ParameterError, match="its folder does not exist"):
        Lines(tmp_path / "no" / "x.jsonl", SETTINGS)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ParameterError, match="no file that can be replaced"):
        Lines(tmp_path / "pipe", SETTINGS)
    (tmp_path / "x.jsonl").touch(mode=0o444)
    with pytest.raises(ParameterError, match="write-protected"):
        Lines(tmp_path / "x.jsonl", SETTINGS)


def test_what_stdout_leads_to_is_told_as_it_was_given(tmp_path):
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(ParameterError, match=f"out='/dev/fd/{write_end}': is no file that"):
            Lines(f"/dev/fd/{write_end}", SETTINGS)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_byte_order_mark_goes_at_the_end(tmp_path):
    out = tmp_path / "x.jsonl"
    out.write_bytes(b"\xef\xbb\xbf" + encode(line("a")) + encode(line("b")))
    with Lines(out, SETTINGS) as lines:
        assert lines.read("a") == json.loads(encode(line("a")))
        lines.finish()
    assert out.read_bytes() == encode(line("a")) + encode(line("b"))


def test_empty_file_is_taken(tmp_path):
    out = tmp_path / "x.jsonl"
    out.touch()
    with Lines(out, SETTINGS) as lines:
        lines.append(line())
    assert len(read(out)) == 1


def test_later_line_counts_and_stays_alone(tmp_path):
    out = tmp_path / "x.jsonl"
    with Lines(out, SETTINGS) as lines:
        for name in "abc":
            lines.append(line(name))
        lines.append(line("./b", "again", size=11))
        assert lines.read("b")["text"] == "again. ok"
    out.chmod(0o640)
    assert [found["filepath"] for found in read(out)] == ["a", "b", "c", "./b"]
    with Lines(out, SETTINGS) as lines:
        assert lines.finished(Task("b", 11, 20))
        lines.finish()
    assert [found["filepath"] for found in read(out)] == ["a", "c", "./b"]
    assert out.stat().st_mode & 0o777 == 0o640
    with Lines(out, SETTINGS) as lines:
        lines.finish({module.key("b")})
    assert [found["filepath"] for found in read(out)] == ["./b"]


def test_link_to_an_output_stays_a_link(tmp_path):
    real, link = tmp_path / "real.jsonl", tmp_path / "link.jsonl"
    link.symlink_to(real)
    with Lines(link, SETTINGS) as lines:
        lines.append(line("a"))
        lines.append(line("a"))
        with pytest.raises(ParameterError, match="another job"):
            Lines(real, SETTINGS)
        lines.finish()
    assert link.is_symlink()
    assert len(read(real)) == 1


# --- a full disk ----------------------------------------------------------------------------------


def full_disk(handle, data=b""):
    if data:
        handle.write(data[:30])
    raise OSError(28, "No space left on device")


def test_full_disk_leaves_whole_lines_and_room_helps(tmp_path, monkeypatch):
    out = tmp_path / "x.jsonl"
    with Lines(out, SETTINGS) as lines:
        lines.append(line("a"))
        before = out.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(module, "write_all", full_disk)
            with pytest.raises(OSError, match=r"x.jsonl: cannot be written \(No space left"):
                lines.append(line("b"))
        assert out.read_bytes() == before
        assert not lines.has_text("b")
        lines.append(line("c"))
    assert [found["filepath"] for found in read(out)] == ["a", "c"]


def test_interrupt_leaves_whole_lines(tmp_path, monkeypatch):
    def interrupt(handle, data=b"x" * 40):
        if isinstance(data, bytes) and not isinstance(handle, int):
            handle.write(data[:30])
        raise KeyboardInterrupt

    out = tmp_path / "x.jsonl"
    for target, expected in (((module, "write_all"), ["a"]), ((os, "fsync"), ["a", "b"])):
        out.unlink(missing_ok=True)
        with Lines(out, SETTINGS) as lines:
            lines.append(line("a"))
            with monkeypatch.context() as patch:
                patch.setattr(*target, interrupt)
                with pytest.raises(KeyboardInterrupt):
                    lines.append(line("b"))
        assert [found["filepath"] for found in read(out)] == expected


def test_full_disk_at_the_end_leaves_the_output_as_it_was(tmp_path, monkeypatch):
    out = tmp_path / "x.jsonl"
    with Lines(out, SETTINGS) as lines:
        lines.append(line("a"))
        lines.append(line("a", "again"))
        before = out.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(place.os, "fsync", full_disk)
            with pytest.raises(OSError, match="cannot be written"):
                lines.finish()
        assert out.read_bytes() == before
        lines.finish()
    assert [found["text"] for found in read(out)] == ["again. ok"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


# --- two jobs -------------------------------------------------------------------------------------


def test_output_is_written_by_one_job_only(tmp_path):
    out = tmp_path / "x.jsonl"
    refused = []

    def other():
        try:
            Lines(out, SETTINGS).close()
        except ParameterError as error:
            refused.append(str(error))

    with Lines(out, SETTINGS) as lines:
        lines.append(line("a"))
        lines.append(line("a"))
        lines.finish()  # another file under the same name
        for _ in range(2):
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        assert len(refused) == 2
        assert "another job is writing this output" in refused[0]
    other()
    assert len(refused) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def test_lock_of_a_killed_job_is_none(tmp_path):
    out = tmp_path / "x.jsonl"
    code = f"""
import time
from audiotorch.transcribe.lines import Lines
with Lines({str(out)!r}, {{}}):
    print("held", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ParameterError, match="another job"):
        Lines(out, SETTINGS)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    assert (tmp_path / ".x.jsonl.lock").exists()
    with Lines(out, SETTINGS) as lines:
        lines.append(line())
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def test_many_jobs_at_once_never_hold_the_same_output(tmp_path):
    out = tmp_path / "x.jsonl"
    held, together = [], []

    def job():
        for _ in range(100):
            try:
                with Lines(out, SETTINGS):
                    held.append(1)
                    together.append(len(held))
                    held.pop()
            except ParameterError:
                continue

    threads = [threading.Thread(target=job) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(together) == {1}
