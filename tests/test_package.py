import ast
import doctest
import importlib
import importlib.util
import inspect
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import audiotorch

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "audiotorch"
OPTIONAL = ("lightning", "hydra", "sklearn", "matplotlib", "whisper", "timm", "librosa")
OPTIONAL += ("tensorboard", "torchmetrics", "rich", "pandas", "scipy", "pyarrow")
OPTIONAL += ("fastapi", "uvicorn")
PUBLIC = {"load", "info", "save", "ToMono", "Resample", "PadOrTrim", "Normalize", "features"}
PUBLIC |= {"Pipeline", "Prediction", "export", "load_pipeline", "predict", "timeline"}
PUBLIC |= {"AudioFeatures", "PreEmphasis", "ReduceNoise", "RemoveSilence", "NormalizeLoudness"}
PUBLIC |= {"stream", "check", "Quality", "Finding", "TruncationWarning"}
PUBLIC |= {"AudioTorchError", "ParameterError", "DecodeError", "MissingDependencyError"}
# The order of the design; a module may import from its own room and from lower ones.
LEVELS = {
    "errors": 0,
    "audio": 1,
    "features": 2,
    "data": 3,
    "models": 4,
    "answers": 4,
    "pipeline": 5,
    "export": 6,
    "batch": 6,
    "plot": 6,
    "explain": 6,
    "transcribe": 7,
    "training": 7,  # a run ends in exported files and figures
    "recipes": 8,
    "report": 8,
    "serve": 8,
    "bench": 9,
    "cli": 10,
}
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(audiotorch.__path__, prefix="audiotorch.")
)

# What users import from: audiotorch, its packages and its top modules.
PACKAGES = ["audiotorch", *(name for name in MODULES if name.count(".") == 1)]


def run(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "default", "-c", code, *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


# --- names and imports ----------------------------------------------------------------------------


def test_every_listed_name_exists():
    assert set(audiotorch.__all__) >= PUBLIC
    assert sorted(set(audiotorch.__all__)) == sorted(audiotorch.__all__)
    for name in audiotorch.__all__:
        assert getattr(audiotorch, name) is not None
    assert audiotorch.export is importlib.import_module("audiotorch.export").export
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", audiotorch.__version__)


def test_errors_are_also_the_builtin_ones():
    for error, builtin in (
        (audiotorch.ParameterError, ValueError),
        (audiotorch.DecodeError, RuntimeError),
        (audiotorch.MissingDependencyError, ImportError),
    ):
        assert issubclass(error, builtin)
        assert issubclass(error, audiotorch.AudioTorchError)


@pytest.mark.parametrize("name", MODULES)
def test_every_module_lists_its_names(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    for listed in module.__all__:
        assert hasattr(module, listed), f"{name} has no {listed}"


def test_import_is_light_and_silent():
    code = f"""
import sys
import audiotorch
audiotorch.features.MFCC, audiotorch.Pipeline, audiotorch.export
import audiotorch.models
import audiotorch.data.manifest
print("LOADED", sorted(set({OPTIONAL}) & set(sys.modules)))
"""
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "LOADED []\n"
    assert result.stderr == ""


def room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules of audiotorch that a file imports, anywhere in it, but for typing alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            for alias in node.names:
                # `from audiotorch import features` names a room by its alias.
                names_room = node.module == "audiotorch"
                yield f"audiotorch.{alias.name}" if names_room else str(node.module), node.lineno


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in LEVELS, f"{own}: give it a place in the order"
    for name, line in imports(path):
        if name.split(".")[0] == "audiotorch" and room(name) in LEVELS and room(name) != own:
            assert LEVELS[room(name)] < LEVELS[own], f"{path}:{line}: {own} imports {name}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_files_and_functions_are_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node) is not None
            body = node.body[1:] if docstring else node.body
            if body:
                size = body[-1].end_lineno - body[0].lineno + 1
                assert size <= 45, f"{path}:{node.lineno}: {node.name} has {size} lines"


# --- docstrings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["audiotorch", *MODULES])
def test_doctests(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(importlib.import_module(name), verbose=False)
    assert results.failed == 0


def public_members(module: object) -> Iterator[tuple[str, object]]:
    """Classes and functions in a module's `__all__`, and the public methods of those classes."""
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            yield name, value
        if inspect.isclass(value):
            for key, member in vars(value).items():
                if not key.startswith("_") and inspect.isfunction(inspect.unwrap(member)):
                    yield f"{name}.{key}", getattr(value, key)


def undocumented(value: object) -> list[str]:
    """Parameters that no line of a Google section `Args:` names; fields count as parameters."""
    if inspect.isclass(value) and (issubclass(value, Exception) or "__init__" not in vars(value)):
        return []
    if getattr(value, "_is_protocol", False):  # nobody constructs one
        return []
    section = re.search(
        r"^(?:Args|Attributes):\n((?:[ ]+.*\n?|\n)*)", inspect.getdoc(value) or "", re.MULTILINE
    )
    text = section.group(1) if section else ""
    names = [name for name in inspect.signature(value).parameters if name not in ("self", "cls")]
    return [name for name in names if not re.search(rf"^\s+\**{name}: \S", text, re.MULTILINE)]


@pytest.mark.parametrize("name", MODULES)
def test_public_names_have_docstrings(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert [path for path, value in public_members(module) if not inspect.getdoc(value)] == []


@pytest.mark.parametrize("name", PACKAGES)
def test_parameters_of_exported_names_are_documented(name):
    module = importlib.import_module(name)
    # Methods such as forward point to their class's docstring, or do what Lightning defines.
    found = [(path, undocumented(value)) for path, value in public_members(module)]
    assert [f"{path}({p})" for path, names in found if "." not in path for p in names] == []


# --- the wheel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_the_package_and_its_configs(wheel):
    names = set(wheel.namelist())
    files = [path for path in PACKAGE.rglob("*") if path.is_file()]
    sources = [path for path in files if "__pycache__" not in path.parts]
    expected = {path.relative_to(ROOT).as_posix() for path in sources}
    configs = (ROOT / "configs").rglob("*.yaml")
    expected |= {f"audiotorch/{path.relative_to(ROOT).as_posix()}" for path in configs}
    assert "audiotorch/configs/train.yaml" in expected
    assert expected <= names
    others = {name for name in names - expected if ".dist-info/" not in name}
    assert others == set()


def test_wheel_installs_the_command(wheel):
    (entry_points,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    text = wheel.read(entry_points).decode()
    assert "[console_scripts]" in text
    target = re.search(r"^audiotorch\s*=\s*([\w.]+):(\w+)$", text, re.MULTILINE)
    assert target is not None
    assert callable(getattr(importlib.import_module(target.group(1)), target.group(2)))


def test_wheel_says_what_it_needs(wheel):
    (metadata,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    text = wheel.read(metadata).decode()
    assert re.search(r"^Requires-Python: (<3\.14,>=3\.11|>=3\.11,<3\.14)$", text, re.MULTILINE)
    for extra in ("bench", "dev", "plot", "scale", "serve", "table", "timm", "whisper"):
        assert f"Provides-Extra: {extra}\n" in text
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())


# --- README ---------------------------------------------------------------------------------------

BLOCK = re.compile(
    r"(<!-- (?:not run|speech) -->\s*\n)?^```(python|bash)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)

# One process for all blocks: importing torch and lightning anew for each would take a minute.
DRIVER = """
import json, math, re, shlex, sys, time
from audiotorch.cli import main
from audiotorch.export import export
from audiotorch.training import results

def run_command(line):
    words = shlex.split(line, comments=True)
    assert words[0] == "audiotorch", f"only audiotorch's own commands can be run: {line}"
    # Shorter trainings, in the same proportion: the words are what is tested.
    shorter = lambda match: f"{match[1]}={math.ceil(int(match[2]) / 10)}"
    words = [re.sub(r"^(trainer.max_epochs)=(\\d+)$", shorter, word) for word in words[1:]]
    if words[0] == "train":
        # Where nothing reads the run's files below, export would only cost time.
        folders = [word.partition("=")[2] for word in words if word.startswith("hydra.run.dir=")]
        read = folders and f"{folders[0]}/model.ts" in sys.argv[1]
        results.export = export if read else lambda pipeline, path, **options: path
    assert main(words) == 0, f"exit status is not 0: {line}"

for language, text in json.loads(sys.argv[1]):
    started = time.process_time()
    print(f"--- {language}\\n{text}", flush=True)
    if language == "python":
        exec(compile(text, "README.md", "exec"), {"__name__": "__main__"})
    else:
        for line in text.replace("\\\\\\n", " ").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                run_command(line)
    print(f"--- {time.process_time() - started:.1f} s of CPU time", flush=True)
print("ALL DONE")
"""


def readme_blocks(mark: str = "") -> list[tuple[str, str]]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [
        (language, body)
        for found, language, body in BLOCK.findall(text)
        if found.strip() == (mark and f"<!-- {mark} -->")
    ]


def test_readme_has_every_block_understood():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    opened = [line for line in text.splitlines() if line.startswith("```")][::2]
    assert len(BLOCK.findall(text)) == len(opened), "a block is neither python nor bash"
    languages = [language for language, _ in readme_blocks()]
    assert "python" in languages
    assert "bash" in languages


def test_readme_blocks_run_in_order(tmp_path):
    result = run(DRIVER, json.dumps(readme_blocks()), cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert result.stdout.endswith("ALL DONE\n")


def test_readme_blocks_on_speech_run_in_order(tmp_path, data_root, whisper_weights):
    """With the checkpoint's path in place of its name, by which it would be downloaded."""
    speech = data_root / "speech"
    shutil.copy(speech / "en/jfk.flac", tmp_path / "talk.flac")
    (tmp_path / "talks").mkdir()
    for name in ("cards_001.wav", "LJ002-0020.wav"):
        shutil.copy(speech / "en" / name, tmp_path / "talks" / name)
    table = "file,transcript\ncards_001.wav,ten of clubs\nLJ002-0020.wav,in eighteen thirteen\n"
    (tmp_path / "transcripts.csv").write_text(table, encoding="utf-8")
    blocks = readme_blocks("speech")
    assert {language for language, _ in blocks} == {"python", "bash"}
    path = str(whisper_weights / "base.pt")
    option = f"--model {shlex.quote(path)}"
    named = [
        (language, body.replace('"base"', repr(path)).replace("--model base", option))
        for language, body in blocks
    ]
    result = run(DRIVER, json.dumps(named), cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    assert "ask not what your country can do for you" in result.stdout
    assert len((tmp_path / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert (tmp_path / "results/talks/cards_001.wav.srt").exists()


def test_readme_links_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith(("http://", "https://")):
            assert (ROOT / target).exists(), f"README links to {target}, which is not there"
