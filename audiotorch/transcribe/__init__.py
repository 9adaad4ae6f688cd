"""Speech to text with Whisper: one recording, or a folder of them."""

from audiotorch.transcribe.backends import BACKENDS, Backend, Options, open_backend
from audiotorch.transcribe.folder import FolderReport, transcribe_folder
from audiotorch.transcribe.recording import Transcriber, detect_language, transcribe
from audiotorch.transcribe.result import LanguageGuess, Segment, Transcript, Word

__all__ = [
    "BACKENDS",
    "Backend",
    "FolderReport",
    "LanguageGuess",
    "Options",
    "Segment",
    "Transcriber",
    "Transcript",
    "Word",
    "detect_language",
    "open_backend",
    "transcribe",
    "transcribe_folder",
]
