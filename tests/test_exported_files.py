import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch
from test_export import LABELS, RATE, make_pipeline, signal

from audiotorch.errors import DecodeError
from audiotorch.export import export, load_pipeline
from audiotorch.pipeline import Pipeline, predict


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return make_pipeline().eval()


@pytest.fixture(scope="module")
def model_file(pipeline, tmp_path_factory) -> Path:
    return export(pipeline, tmp_path_factory.mktemp("run") / "model.ts")


class Bomb:
    def __reduce__(self):
        return (os._exit, (66,))


def write_other(kind: str, path: Path, model_file: Path) -> None:
    content = model_file.read_bytes()
    if kind == "text":
        path.write_text("no model")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    elif kind == "checkpoint":
        torch.save({"state_dict": Bomb()}, path)
    elif kind == "foreign json":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("model/extra/metadata.json", '{"format": "other"}')
    elif kind == "later version":
        with zipfile.ZipFile(path, "w") as archive:
            metadata = '{"format": "audiotorch", "format_version": 99}'
            archive.writestr("model/extra/metadata.json", metadata)
    elif kind == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "a")
    elif kind == "program":
        path.write_bytes(model_file.with_suffix(".pt2").read_bytes())
    elif kind in ("no code", "flipped bit"):
        with zipfile.ZipFile(model_file) as archive:
            members = archive.infolist()
        damaged = bytearray(content)
        if kind == "no code":
            code = next(member for member in members if member.filename.endswith("pipeline.py"))
            damaged[code.header_offset : code.header_offset + 30] = bytes(30)
        else:
            weight = max(members, key=lambda member: member.file_size)
            damaged[weight.header_offset + weight.file_size // 2] ^= 1
        path.write_bytes(damaged)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("empty", "is not a model file, or is truncated"),
        ("text", "is not a model file, or is truncated"),
        ("truncated", "is not a model file, or is truncated"),
        ("pickle", "is not a model file, or is truncated"),
        ("checkpoint", "not written by audiotorch|no readable metadata"),
        ("other zip", "no readable metadata"),
        ("foreign json", "was not written by audiotorch"),
        ("later version", "format version 99.*export it again or update"),
        ("program", r"is a torch\.export program.*\.ts file"),
        ("no code", "is damaged and does not load"),
        ("flipped bit", "is damaged and does not load.*wrong checksum"),
    ],
)
def test_other_files_are_refused_by_name(model_file, tmp_path, kind, message):
    path = tmp_path / "other.ts"
    write_other(kind, path, model_file)
    with pytest.raises(DecodeError, match=message) as caught:
        load_pipeline(path)
    assert "other.ts" in str(caught.value)


def run_without_audiotorch(tmp_path: Path, program: str, *arguments: str) -> str:
    """Output of a Python process that has torch, stands elsewhere and cannot find audiotorch."""
    guard = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'audiotorch':\n"
        "            raise ImportError('audiotorch is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-c", guard + program, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_runs_in_python_without_audiotorch(pipeline, model_file, tmp_path):
    waveform = signal(2, 0.8, seed=9)
    np.save(tmp_path / "waveform.npy", waveform.numpy())
    answer = run_without_audiotorch(
        tmp_path,
        "import json, numpy, torch\n"
        "module = torch.jit.load(sys.argv[1])\n"
        "waveform = torch.from_numpy(numpy.load('waveform.npy'))\n"
        "answer = module(waveform, torch.tensor([6400, 5000]))\n"
        "assert 'audiotorch' not in sys.modules\n"
        "print(json.dumps([module.sample_rate, module.labels, module.task, answer.tolist()]))\n",
        str(model_file),
    )
    rate, labels, task, probabilities = json.loads(answer)
    assert (rate, labels, task) == (RATE, LABELS, "classification")
    with torch.no_grad():
        eager = pipeline(waveform, torch.tensor([6400, 5000]))
    torch.testing.assert_close(torch.tensor(probabilities), eager, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def cpp_program(tmp_path_factory) -> Path:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    # Not torch.utils.cpp_extension, which looks for CUDA and warns.
    root = Path(torch.__file__).parent
    include = root / "include"
    program = tmp_path_factory.mktemp("cpp") / "predict"
    command = [
        compiler, "-std=c++20", "-O0",
        f"-D_GLIBCXX_USE_CXX11_ABI={torch.compiled_with_cxx11_abi():d}",
        f"-isystem{include}", f"-isystem{include / 'torch/csrc/api/include'}",
        str(Path(__file__).with_name("predict.cpp")), "-o", str(program),
        f"-L{root / 'lib'}", f"-Wl,-rpath,{root / 'lib'}", "-ltorch", "-ltorch_cpu", "-lc10",
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return program


@pytest.mark.parametrize("seconds", [0.2, 1.0, 2.7])
def test_cpp_program_gives_the_same_probabilities(
    cpp_program, pipeline, model_file, tmp_path, seconds
):
    waveform = signal(1, seconds, seed=3)
    (tmp_path / "samples.f32").write_bytes(waveform.numpy().tobytes())
    command = [str(cpp_program), str(model_file), str(tmp_path / "samples.f32")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = [line.rpartition(" ") for line in ran.stdout.splitlines()]
    assert [label for label, _, _ in lines] == LABELS
    with torch.no_grad():
        eager = pipeline(waveform, torch.tensor([waveform.shape[1]]))[0]
    assert [float(number) for _, _, number in lines] == pytest.approx(eager.tolist(), abs=1e-5)


def predict_files(folder: Path) -> list[Path]:
    """One sound at three rates and channel counts, and two files that cannot be answered."""
    generator = np.random.default_rng(5)
    sound = np.cumsum(generator.standard_normal(44100)) / 400
    sound = np.clip(sound - sound.mean(), -0.9, 0.9)
    soundfile.write(folder / "a.wav", sound, 44100, "FLOAT")
    soundfile.write(folder / "b.wav", np.stack([sound, sound], 1), 44100, "FLOAT")
    soundfile.write(folder / "c.flac", soxr.resample(sound, 44100, 16000), 16000, "PCM_24")
    (folder / "broken.wav").write_bytes(b"RIFF nothing")
    soundfile.write(folder / "empty.wav", np.zeros((0, 1)), RATE)
    return [folder / name for name in ("a.wav", "broken.wav", "b.wav", "empty.wav", "c.flac")]


def test_predict_takes_any_rate_and_reports_bad_files(pipeline, model_file, tmp_path):
    files = predict_files(tmp_path)
    eager = predict(pipeline, files, batch_size=2)
    scripted = predict(load_pipeline(model_file), files, batch_size=3)
    for answers in (eager, scripted):
        assert [Path(answer.file).name for answer in answers] == [file.name for file in files]
        assert [answer.error is None for answer in answers] == [True, False, True, False, True]
        assert "broken.wav" in answers[1].error
        good = [answers[i] for i in (0, 2, 4)]
        for answer in good:
            assert list(answer.probabilities) == LABELS
            assert answer.label == max(answer.probabilities, key=answer.probabilities.get)
            assert answer.confidence == max(answer.probabilities.values())
            assert list(answer.probabilities.values()) == pytest.approx(
                list(good[0].probabilities.values()), abs=2e-2
            )
        assert good[0].probabilities == pytest.approx(good[1].probabilities, abs=1e-5)
    for one, other in zip(eager, scripted, strict=True):
        if one.error is None:
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
