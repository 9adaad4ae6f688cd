"""What becomes of a window where Whisper goes astray, told by a model that says what it is told."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from audiotorch.transcribe.backends import TEMPERATURES, Options
from audiotorch.transcribe.hearing import Listener
from audiotorch.transcribe.result import Segment, Word
from audiotorch.transcribe.voice import FRAME
from audiotorch.transcribe.windows import Window

RATE = 16000
GOOD = {"avg_logprob": -0.3, "compression_ratio": 1.4}


class Told:
    """A backend that answers with what a function says of a window's first value and length."""

    model = "told"

    def __init__(
        self,
        say: Callable[[Tensor, Options], list[Segment]],
        languages: Callable[[Tensor], dict[str, float]] = lambda samples: {"en": 0.9, "de": 0.1},
    ) -> None:
        self.languages = ("en", "de", "fr")
        self.asked: list[tuple[float, Options]] = []
        self._say, self._languages = say, languages

    def detect_languages(self, samples, parts):
        return [self._languages(samples[start:stop]) for start, stop in parts]

    def transcribe(self, samples, options):
        self.asked.append((len(samples) / RATE, options))
        return self._say(samples, options)


def window(*stretches: tuple[float, float], start: int = 0) -> Window:
    """Seconds of a value each: the sign is what is said, 0 is silence."""
    samples = torch.cat(
        [torch.full((round(s * RATE / FRAME) * FRAME,), value) for value, s in stretches]
    )
    return Window(start, samples, (samples[::FRAME] != 0).float())


def segment(start: float, end: float, text: str, language: str = "en", **numbers) -> Segment:
    return Segment(start, end, text, language, **{**GOOD, **numbers})


def texts(heard) -> list[str]:
    return [each.text for part in heard for each in part.segments]


def test_times_are_the_recordings_and_end_with_it():
    words = (Word(" one", 0.5, 1.0, 0.9), Word(" two", 3.5, 9.0, 0.9))
    told = Told(lambda samples, options: [segment(0.5, 9.0, " one two", words=words)])
    (heard,) = Listener(told, Options("en"), "en").hear(window((0.5, 4.0), start=10 * RATE))
    (found,) = heard.segments
    assert (found.start, found.end) == (10.5, 14.0)
    assert [(word.start, word.end) for word in found.words] == [(10.5, 11.0), (13.5, 14.0)]
    assert heard.language == "en"
    assert heard.probability is None
    assert heard.speech_seconds == 4.0


def test_pauses_around_words_are_none_of_theirs():
    words = (
        Word(" one", 0.0, 4.6, 0.9),
        Word(" two", 4.6, 9.0, 0.9),
        Word(" three", 9.0, 9.5, 0.9),
    )
    text = " one two three and many more words that the same model heard there"
    told = Told(lambda samples, options: [segment(0.0, 9.5, text, words=words)])
    spoken = window((0.0, 3.0), (0.5, 1.0), (0.0, 1.0), (0.5, 3.0), (0.0, 1.6))
    ((found,),) = (part.segments for part in Listener(told, Options("en"), "en").hear(spoken))
    times = [(word.start, word.end) for word in found.words]
    assert times[0] == pytest.approx((3.0, 4.0), abs=0.05)
    assert times[1] == pytest.approx((5.0, 8.0), abs=0.05)
    assert times[2] == (9.0, 9.5)  # where the gate hears nobody nothing is known better
    assert (found.start, found.end) == (times[0][0], 9.5)
    told = Told(lambda samples, options: [segment(0.0, 9.5, text)])
    ((found,),) = (part.segments for part in Listener(told, Options("en"), "en").hear(spoken))
    assert (found.start, found.end) == pytest.approx((3.0, 8.0), abs=0.05)


def test_what_cannot_have_been_said_is_left_out():
    told = Told(
        lambda samples, options: [
            segment(0.0, 4.0, " heard"),
            segment(11.0, 12.0, " in the silence"),
            segment(30.0, 32.0, " behind the end"),
        ]
    )
    heard = Listener(told, Options("en"), "en").hear(window((0.5, 4.0), (0.0, 12.0)))
    assert texts(heard) == [" heard"]
    assert told.asked[0][1].speech_end == pytest.approx(4.0)


def test_a_text_that_repeats_itself_is_heard_again_in_halves():
    def say(samples, options):
        signs = (samples[::FRAME] != 0).int()
        n_times = int((signs.diff() == 1).sum()) + int(signs[0])
        text, ratio = " ten of clubs" * n_times, 3.0 if n_times > 2 else 1.5
        return [segment(0.0, len(samples) / RATE, text, compression_ratio=ratio)]

    told = Told(say)
    spoken = window(*[(0.5, 1.0), (0.0, 1.0)] * 6)
    heard = Listener(told, Options("en"), "en").hear(spoken)
    assert "".join(texts(heard)) == " ten of clubs" * 6
    assert {options.temperature for _, options in told.asked} == {(0.0,)}
    starts = [each.start for part in heard for each in part.segments]
    assert starts == sorted(starts)


def test_speech_without_text_is_heard_again_in_halves():
    def say(samples, options):
        if len(samples) > 11 * RATE:
            return [segment(0.0, 4.0, " the first sentence, and then nothing")]
        return [segment(0.0, len(samples) / RATE, " a whole sentence is said in this half")]

    told = Told(say)
    heard = Listener(told, Options("en"), "en").hear(window((0.5, 8.0), (0.0, 1.0), (0.5, 8.0)))
    assert texts(heard) == [" a whole sentence is said in this half"] * 2


def test_halves_that_bring_nothing_change_nothing():
    told = Told(lambda samples, options: [segment(0.0, len(samples) / RATE, " slow")])
    heard = Listener(told, Options("en"), "en").hear(window((0.5, 5.0), (0.0, 1.0), (0.5, 5.0)))
    # Twice the word is more than once: it is believed.
    assert texts(heard) == [" slow"] * 2
    told = Told(
        lambda samples, options: [
            segment(0.0, 9.0, " slow speech" if len(samples) > 9 * RATE else " slow")
        ]
    )
    heard = Listener(told, Options("en"), "en").hear(window((0.5, 5.0), (0.0, 1.0), (0.5, 5.0)))
    assert texts(heard) == [" slow speech"]


def test_what_has_no_halves_is_tried_at_other_temperatures_with_a_seed():
    drawn = []

    def say(samples, options):
        if len(options.temperature) > 1:
            drawn.append(float(torch.rand(1)))
        return [segment(0.0, 3.0, " improbable", avg_logprob=-1.5)]

    told = Told(say)
    before = torch.random.get_rng_state()
    for _ in range(2):
        heard = Listener(told, Options("en"), "en").hear(window((0.5, 3.0)))
    assert texts(heard) == [" improbable"]
    assert [options.temperature for _, options in told.asked] == [(0.0,), TEMPERATURES] * 2
    assert drawn[0] == drawn[1]
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_temperature_that_was_given_alone_is_the_only_one():
    told = Told(lambda samples, options: [segment(0.0, 3.0, " odd", avg_logprob=-1.5)])
    options = Options("en", temperature=(0.4,))
    assert texts(Listener(told, options, "en").hear(window((0.5, 3.0)))) == [" odd"]
    assert [options.temperature for _, options in told.asked] == [(0.4,)]


def test_a_loop_stays_once():
    loop = [segment(0.0, 1.0, " thank you", compression_ratio=9.0) for _ in range(30)]
    told = Told(lambda samples, options: loop)
    assert texts(Listener(told, Options("en"), "en").hear(window((0.5, 2.0)))) == [" thank you"]
    spoken = [" well,", " la", *[" la"] * 99]
    words = tuple(Word(word, i, i + 1.0, 0.5) for i, word in enumerate(spoken))
    inside = segment(0.0, 2.0, " well, la la" + " la" * 98, compression_ratio=9.0, words=words)
    told = Told(lambda samples, options: [inside])
    heard = Listener(told, Options("en"), "en").hear(window((0.5, 2.0)))
    assert texts(heard) == [" well, la"]
    assert [word.word for word in heard[0].segments[0].words] == [" well,", " la"]
    words = tuple(Word(letter, i, i + 1.0, 0.5) for i, letter in enumerate("ご覧" * 60))
    inside = segment(0.0, 2.0, "ご覧" * 60, compression_ratio=9.0, words=words)
    told = Told(lambda samples, options: [inside])
    heard = Listener(told, Options("en"), "en").hear(window((0.5, 2.0)))
    assert texts(heard) == ["ご覧"]
    assert [word.word for word in heard[0].segments[0].words] == ["ご", "覧"]


def test_repetition_that_fits_the_time_stays():
    spoken = [segment(i, i + 1.0, " ten of clubs", compression_ratio=2.0) for i in range(10)]
    told = Told(lambda samples, options: spoken)
    assert (
        texts(Listener(told, Options("en"), "en").hear(window((0.5, 10.0))))
        == [" ten of clubs"] * 10
    )


# --- languages ------------------------------------------------------------------------------------


def by_sign(sure: float = 0.99):
    """English is above 0, German below; of a mixture the model says what there is more of."""

    def languages(samples):
        share = float((samples > 0).sum() / (samples != 0).sum())
        share = 0.5 + (share - 0.5) * (2 * sure - 1)
        found = {"en": share, "de": 1.0 - share}
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    return languages


def in_its_language(samples, options):
    """Text is probable in the language that is spoken."""
    share = float((samples > 0).sum() / (samples != 0).sum())
    right = share if options.language == "en" else 1.0 - share
    return [
        segment(
            0.0,
            len(samples) / RATE,
            f" {options.language}"
            + "".join(f" {chr(97 + i) * 14}" for i in range(len(samples) // RATE)),
            options.language,
            avg_logprob=-0.1 - 0.8 * (1.0 - right),
        )
    ]


def test_the_language_is_heard_once_for_a_window():
    told = Told(in_its_language, by_sign())
    heard = Listener(told, Options("en"), None).hear(
        window((-0.5, 5.0), (0.0, 0.5), (-0.5, 5.0), (0.0, 0.5), (-0.5, 4.0))
    )
    assert [(part.language, round(part.probability, 2)) for part in heard] == [("de", 0.99)]
    assert len(told.asked) == 1


def test_a_window_in_two_languages_is_parted():
    told = Told(in_its_language, by_sign())
    heard = Listener(told, Options("en"), None).hear(
        window((0.5, 5.0), (0.0, 0.5), (0.5, 4.0), (0.0, 0.5), (-0.5, 8.0))
    )
    assert [part.language for part in heard] == ["en", "de"]
    assert [each.language for part in heard for each in part.segments] == ["en", "de"]
    assert heard[1].segments[0].start == pytest.approx(10.0, abs=0.1)


def test_a_part_stays_in_the_windows_language_where_that_explains_it_better():
    def same(samples, options):
        text = "".join(f" {chr(97 + i) * 14}" for i in range(len(samples) // RATE))
        return [segment(0.0, 17.0, text, avg_logprob=-0.9 if options.language == "de" else -0.3)]

    told = Told(same, by_sign())
    heard = Listener(told, Options("en"), None).hear(
        window((0.5, 6.0), (0.0, 0.5), (-0.5, 4.0), (0.0, 0.5), (0.5, 6.0))
    )
    assert [part.language for part in heard] == ["en"]


def test_a_noisy_window_does_not_change_the_language():
    told = Told(in_its_language, by_sign(0.6))
    listener = Listener(told, Options("en"), None)
    assert listener.hear(window((0.5, 5.0)))[0].language == "en"
    (unsure,) = listener.hear(window((-0.5, 5.0)))
    assert (unsure.language, round(unsure.probability, 2)) == ("en", 0.4)
    told._languages = by_sign(0.95)
    assert listener.hear(window((-0.5, 5.0)))[0].language == "de"


def test_a_language_that_was_given_is_not_asked_for():
    def refuse(samples):
        raise AssertionError

    told = Told(in_its_language, refuse)
    assert Listener(told, Options("de"), "de").hear(window((0.5, 5.0)))[0].language == "de"
    told.languages = ("en",)
    assert Listener(told, Options("en"), None).hear(window((0.5, 5.0)))[0].language == "en"


def test_text_is_the_prompt_of_the_next_window_where_that_is_asked_for():
    for conditions, expected in ((True, [None, " one"]), (False, [None, None])):
        told = Told(lambda samples, options: [segment(0.0, 1.0, " one")])
        listener = Listener(told, Options("en"), "en", condition_on_previous_text=conditions)
        for _ in range(2):
            listener.hear(window((0.5, 1.0)))
        assert [options.initial_prompt for _, options in told.asked] == expected
