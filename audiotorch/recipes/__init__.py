"""The functions of an introductory article on audio with librosa, as drop-ins: faster, and right.

Numpy in and out: `y` is a float array `(n,)`, `sr` its rate in Hz, as `librosa.load` gives them.
Numbers are librosa's. What a data scientist writes with them:

    features, labels, class_names = load_audio_dataset("recordings")
    info = train_audio_classifier(features, labels, class_names, "logistic")
    predict_audio_file(info, "new.wav")["predicted_class"]

`info["model"]` is a fitted scikit-learn Pipeline of vectors. To ship it as one module of waveforms,
and as a file that needs neither scikit-learn nor audiotorch, put it behind the same features:

    pipeline = at.Pipeline(
        at.SummaryVector(22050),
        ClassicModel(info["model"], len(info["class_names"])),  # of audiotorch.models
        labels=info["class_names"],
        sample_rate=22050,
    )
    at.export(pipeline, "model.ts")

Where only normal sounds are at hand:

    info = build_audio_anomaly_detector(normal_files)
    score_audio_anomaly(info, "new.wav")["label"]

What people say, through Whisper:

    transcribe_audio("talk.mp3", "base")["text"]
    records = batch_transcribe_directory("recordings", "transcripts.jsonl")
"""

from audiotorch.recipes.anomaly import build_audio_anomaly_detector, score_audio_anomaly
from audiotorch.recipes.classifier import (
    load_audio_dataset,
    predict_audio_file,
    train_audio_classifier,
)
from audiotorch.recipes.clips import (
    apply_noise_reduction,
    extract_all_librosa_features,
    extract_audio_features_summary,
    normalize_audio,
    pad_or_trim,
    remove_silence,
)
from audiotorch.recipes.speech import batch_transcribe_directory, transcribe_audio

__all__ = [
    "apply_noise_reduction",
    "batch_transcribe_directory",
    "build_audio_anomaly_detector",
    "extract_all_librosa_features",
    "extract_audio_features_summary",
    "load_audio_dataset",
    "normalize_audio",
    "pad_or_trim",
    "predict_audio_file",
    "remove_silence",
    "score_audio_anomaly",
    "train_audio_classifier",
    "transcribe_audio",
]
