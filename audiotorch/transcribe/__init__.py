"""Speech to text with Whisper: one recording, or a folder of them."""

from audiotorch.transcribe.backends import BACKENDS, Backend, Options, open_backend
from audiotorch.transcribe.folder import FolderReport, transcribe_folder
from audiotorch.transcribe.formats import FORMATS, write_transcript
from audiotorch.transcribe.recording import Transcriber, detect_language, transcribe
from audiotorch.transcribe.result import LanguageGuess, Segment, Transcript, Word
from audiotorch.transcribe.scoring import Reference, Scores, format_scores, read_references, score
from audiotorch.transcribe.voice import GATES, open_gate

__all__ = [
    "BACKENDS",
    "FORMATS",
    "GATES",
    "Backend",
    "FolderReport",
    "LanguageGuess",
    "Options",
    "Reference",
    "Scores",
    "Segment",
    "Transcriber",
    "Transcript",
    "Word",
    "detect_language",
    "format_scores",
    "open_backend",
    "open_gate",
    "read_references",
    "score",
    "transcribe",
    "transcribe_folder",
    "write_transcript",
]
