import functools
import inspect
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from audiotorch.errors import ParameterError
from audiotorch.models.classic import CLASSIFIERS, build_classifier
from audiotorch.models.detectors import DETECTORS
from audiotorch.training.anomaly import AnomalyTask
from audiotorch.training.build import build, build_pipeline, config_dir
from audiotorch.training.classic import ClassicTask
from audiotorch.training.tasks import ClassificationTask


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", list(overrides))


@pytest.fixture(autouse=True)
def _recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIOTORCH_DATA", "/recordings")


def test_groups_are_the_documented_ones():
    assert {path.name for path in config_dir().iterdir() if path.is_dir()} == {
        "data",
        "preprocess",
        "features",
        "model",
        "task",
        "trainer",
        "experiment",
        "sweep",
    }
    assert choices("experiment") == [
        "anomaly_demo",
        "commands",
        "commands_classic",
        "demo",
        "esc10",
        "esc10_classic",
        "fsdd",
        "fsdd_classic",
        "heart",
        "machine",
    ]


def task_of(config: DictConfig, experiment: str | None) -> str:
    """The task that a model implies; a detector's experiment makes one of neighbours too."""
    target = config.model._target_
    if experiment in ("machine", "heart", "anomaly_demo") or "Autoencoder" in target:
        return "AnomalyTask"
    kinds = {"build_classifier": "ClassicTask", "build_detector": "AnomalyTask"}
    return kinds.get(target.rpartition(".")[2], "ClassificationTask")


@pytest.mark.parametrize("experiment", [None, *choices("experiment")])
def test_every_experiment_takes_every_model_and_features(experiment: str | None):
    preset = [] if experiment is None else [f"experiment={experiment}"]
    models, features = choices("model"), choices("features")
    # All pairs take a minute a preset; none depends on both.
    pairs = [(model, features[0]) for model in models] + [(models[0], name) for name in features]
    for model, name in pairs:
        config = composed(*preset, f"model={model}", f"features={name}")
        OmegaConf.resolve(config)
        assert config.model == model_alone(model)
        task = task_of(config, experiment)
        assert config.task._target_.endswith(f".{task}")
        assert config.data.sample_rate == config.features.sample_rate


@functools.cache
def model_alone(name: str) -> DictConfig:
    return composed(f"model={name}").model


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_classifier_has_a_file_that_says_its_settings(name: str):
    section = composed(f"model={name}").model
    assert section.name == name
    built = build(section, without=("scale",), scale=True)
    plain = build_classifier(name)
    assert str(built[-1].get_params()) == str(plain[-1].get_params()).replace(
        "'n_jobs': None", f"'n_jobs': {section.get('n_jobs')}"
    )


def sections() -> list[tuple[str, str]]:
    groups = ("data", "features", "model", "task", "trainer")
    return [(group, choice) for group in groups for choice in choices(group)]


@pytest.mark.parametrize(("group", "choice"), sections())
def test_keys_are_arguments_of_the_target(group: str, choice: str):
    section = composed(f"{group}={choice}")[group]
    assert_keys_fit(section, {"init_from"} if group == "model" else set())


def assert_keys_fit(section: DictConfig, others: set[str]) -> None:
    plain = OmegaConf.to_container(section, resolve=False)
    if str(plain["_target_"]).rpartition(".")[2][0].isupper():
        target = get_class(plain["_target_"])
        known = set()
        for cls in target.__mro__:  # `**settings` pass on to the base class
            parameters = inspect.signature(cls.__init__).parameters
            known |= parameters.keys()
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                break
        keys = {key for key in plain if not key.startswith("_")}
        assert keys - others <= known
    for key, value in plain.items():
        if isinstance(value, dict) and "_target_" in value:
            assert_keys_fit(section[key], set())


STEPS = {
    "none": [],
    "trim": ["RemoveSilence", "Normalize"],
    "clean": ["ReduceNoise", "RemoveSilence", "Normalize"],
    "speech": ["RemoveSilence", "PreEmphasis", "Normalize"],
    "loudness": ["NormalizeLoudness"],
}


@pytest.mark.parametrize("preprocess", choices("preprocess"))
def test_preprocessing_takes_the_rate_of_any_features(preprocess: str):
    presets = [f"features={choice}" for choice in choices("features")]
    for preset in [*presets, *(f"experiment={choice}" for choice in choices("experiment"))]:
        config = composed(preset, f"preprocess={preprocess}")
        for step in config.pipeline.preprocess or []:
            assert_keys_fit(step, set())
            assert step.get("sample_rate", config.data.sample_rate) == config.features.sample_rate


@pytest.mark.parametrize("preprocess", choices("preprocess"))
def test_preprocessing_is_in_the_pipeline(preprocess: str):
    config = composed(f"preprocess={preprocess}", "features=mfcc_stats", "model=linear")
    pipeline = build_pipeline(config, ["no", "yes"], trusted=False)
    assert [type(step).__name__ for step in pipeline.preprocess.steps] == STEPS[preprocess]


def test_a_step_of_the_preprocessing_can_be_set():
    config = composed("preprocess=trim", "pipeline.preprocess.0.top_db=35.5")
    pipeline = build_pipeline(config, ["no", "yes"], trusted=False)
    assert pipeline.preprocess.steps[0].top_db == 35.5


@pytest.mark.parametrize("choice", choices("data"))
def test_data_instantiates(choice: str):
    data = build(composed(f"data={choice}").data)
    assert data.augment is not None
    assert data.sample_rate == 22050


IMAGES = ("log_mel", "mel_image", "word_image", "word_image_8k")
FITTED = sorted({"fusion", *DETECTORS, *CLASSIFIERS})
READS_IMAGES = (
    "cnn",
    "cnn_ensemble",
    "timm",
    *(f"autoencoder_{k}" for k in ("conv", "dense", "idnn")),
)


@pytest.mark.parametrize("features", choices("features"))
@pytest.mark.parametrize("model", [name for name in choices("model") if name not in FITTED])
def test_pipeline_and_task_instantiate(model: str, features: str):
    if model == "timm":
        pytest.importorskip("timm", reason="the extra timm is not installed")
    if model in READS_IMAGES and features not in IMAGES:
        pytest.skip("a model for images does not take vectors")
    config = composed(f"model={model}", f"features={features}")
    if features == "embedding":
        with pytest.raises(ParameterError, match=r"features\.run=runs"):
            build_pipeline(config, ["no", "yes"], trusted=False)
        return
    pipeline = build_pipeline(config, ["no", "yes"], trusted=False)
    assert pipeline.sample_rate == config.features.sample_rate
    if model.startswith("autoencoder"):
        assert pipeline.task == "anomaly"
        assert isinstance(build(config.task), AnomalyTask)
        return
    task = build(config.task, pipeline=pipeline, class_counts=None, seed=0)
    assert isinstance(task, ClassificationTask)


@pytest.mark.parametrize("model", FITTED)
def test_fitted_models_and_their_tasks_instantiate(model: str):
    detector = model == "fusion" or (model in DETECTORS and model not in CLASSIFIERS)
    config = composed(f"model={model}")
    pipeline = build_pipeline(config, [], trusted=False, model=nn.Identity())
    assert pipeline.sample_rate == config.features.sample_rate
    assert pipeline.task == ("anomaly" if detector else "classification")
    assert isinstance(build(config.task), AnomalyTask if detector else ClassicTask)


def test_trainers_instantiate():
    trainer = instantiate(composed("trainer=default").trainer, precision="32-true", logger=False)
    assert trainer.max_epochs == 30
    assert composed("trainer=ddp").trainer.strategy == "ddp"
    assert composed("trainer=ddp").trainer.max_epochs == 30


def test_manifest_replaces_the_environment_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AUDIOTORCH_DATA")
    for experiment in ("fsdd", "esc10", "commands"):
        config = composed(f"experiment={experiment}", "data.manifest=own.csv")
        OmegaConf.resolve(config)
        assert config.data.manifest == "own.csv"


def test_a_setting_of_the_command_line_wins_over_an_experiment():
    config = composed("experiment=demo", "model=mlp", "trainer.max_epochs=3", "data.root=there")
    assert config.model._target_.endswith("MLP")
    assert (config.trainer.max_epochs, config.data.root) == (3, "there")


def test_sweep_composes_with_its_plugin():
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra sweep is missing")
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("train", ["sweep=optuna"], return_hydra_config=True)
    for key in config.hydra.sweeper.params:
        assert OmegaConf.select(config, key) is not None


def test_config_dir_of_a_wheel_lies_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    package = tmp_path / "audiotorch"
    package.mkdir()
    monkeypatch.setattr("audiotorch.__file__", str(package / "__init__.py"))
    assert config_dir() == tmp_path / "configs"
    (package / "configs").mkdir()
    assert config_dir() == package / "configs"
