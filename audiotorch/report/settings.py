"""What ends every report of a run: its settings, sizes and versions, and how to use the model."""

import shlex
from collections.abc import Mapping
from typing import Any

from audiotorch.report.audio import Budget
from audiotorch.report.cards import picture_of
from audiotorch.report.page import Facts, Section, Table, Text
from audiotorch.report.record import RunRecord, number, numbers

__all__ = ["closing", "kind_of_model", "sizes", "training"]

_SIZES = {
    "train_clips": "clips trained on",
    "val_clips": "clips of the validation",
    "test_clips": "clips of the test",
    "n_parameters": "parameters",
    "epochs": "epochs",
    "exported_epoch": "epoch handed out",
    "copies": "augmented copies of each clip",
    "seconds": "seconds",
}
_NO_CLIPS = ("val_clips", "test_clips", "copies", "n_parameters")  # 0 of these is no news


def closing(record: RunRecord) -> list[Section]:
    """Return the last sections: how to use the model, versions and configuration.

    Args:
        record: of the run.
    """
    settings = [[name, value] for name, value in _flat(record.config).items()]
    chosen = {str(name): str(value) for name, value in numbers(record.metrics, "settings").items()}
    versions = {str(k): str(v) for k, v in numbers(record.metrics, "versions").items()}
    model = record.folder / "model.ts"
    command = "detect" if record.is_detector else "predict"
    use: list[Any] = [
        Facts(
            {
                "in a shell": f"audiotorch {command} {shlex.quote(str(model))} FILE_OR_FOLDER",
                "in Python": "audiotorch.predict("
                f"audiotorch.load_pipeline({str(model)!r}), FILE)[0]",
            }
        )
    ]
    if not model.exists():
        use.append(Text("model.ts is not in the run's directory any more; train again."))
    setup: list[Any] = [Facts(versions)] if versions else []
    if chosen:
        setup += [Text("The search chose:"), Facts(chosen)]
    if settings:
        setup.append(Table(["setting", "value"], settings, "Settings"))
    sections = [Section("Use the model", use)]
    return [*sections, Section("Configuration", setup)] if setup else sections


def training(record: RunRecord, budget: Budget) -> list[Section]:
    """Return the curves of a training over its epochs; nothing of models without epochs.

    Args:
        record: of the run.
        budget: of the page.
    """
    from audiotorch import plot

    if number(record.metrics, "epochs") is None:
        return []
    about = "training curves"
    picture = picture_of(lambda: plot.training_curves(record.folder), about, budget)
    return [Section("Training", [picture])]


def sizes(record: RunRecord) -> dict[str, str]:
    """Return clips, parameters, epochs and seconds, as text by name.

    Args:
        record: of the run.
    """
    found = {}
    for key, name in _SIZES.items():
        value = number(record.metrics, key)
        if value is not None and (value or key not in _NO_CLIPS):
            found[name] = f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"
    return found


def kind_of_model(record: RunRecord) -> str:
    """Return model and features in words, as far as the configuration tells them.

    Args:
        record: of the run.
    """
    names = [_kind(numbers(record.config, part)) for part in ("model", "features")]
    return " on ".join(name for name in names if name)


def _kind(settings: Mapping[str, Any]) -> str:
    named = settings.get("name") or str(settings.get("_target_") or "").rpartition(".")[2]
    return str(named)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as one level with dotted names."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = "" if value is None else str(value)
    return flat
