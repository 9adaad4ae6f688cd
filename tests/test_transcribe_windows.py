"""Windows are cut where nobody speaks, and nothing that is said is left out."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from audiotorch.transcribe.voice import FRAME, Gate
from audiotorch.transcribe.windows import MAX_SAMPLES, Window, WindowCutter

RATE = 16000


class LevelGate(Gate):
    """Speech is what is loud: the tests say where somebody speaks."""

    _context = 0

    def _judge(self, samples: Tensor) -> Tensor:
        return (samples.reshape(-1, FRAME).abs().mean(dim=1) > 0.1).float()


def recording(*stretches: tuple[str, float]) -> Tensor:
    """Speech and pauses in turn, in whole frames; samples tell their place."""
    levels = [
        torch.full((round(seconds * RATE / FRAME) * FRAME,), float(kind == "speech"))
        for kind, seconds in stretches
    ]
    samples = torch.cat(levels)
    return samples * (0.5 + 1e-7 * torch.arange(len(samples)))


def cut(samples: Tensor, block: int = 30 * RATE, gate: Gate | None = None) -> list[Window]:
    cutter = WindowCutter(gate)
    windows = [window for part in samples.split(block) for window in cutter.feed(part)]
    return windows + cutter.finish()


def spans(windows: list[Window]) -> list[tuple[float, float]]:
    return [(w.start / RATE, (w.start + len(w.samples)) / RATE) for w in windows]


@pytest.mark.parametrize("seconds", [0.5, 11.0, 29.952])
def test_a_short_recording_is_one_window_as_it_is(seconds):
    samples = recording(("pause", 0.192), ("speech", seconds - 0.192))
    (window,) = cut(samples, gate=LevelGate())
    assert window.start == 0
    assert torch.equal(window.samples, samples)


def test_thirty_seconds_to_the_sample_are_one_window():
    samples = torch.full((MAX_SAMPLES,), 0.5)
    assert len(cut(samples, gate=LevelGate())) == 1
    assert len(cut(torch.full((MAX_SAMPLES + 1,), 0.5), gate=LevelGate())) == 2


def test_what_holds_no_speech_gives_no_window():
    assert cut(torch.zeros(0), gate=LevelGate()) == []
    assert cut(torch.zeros(100), gate=LevelGate()) == []
    assert cut(torch.zeros(3600 * RATE), gate=LevelGate()) == []


def test_long_pauses_are_left_out_but_for_a_second():
    samples = recording(
        *(("pause", 60.0), ("speech", 4.8), ("pause", 3.2), ("speech", 6.4), ("pause", 20.0)),
        *(("speech", 3.2), ("pause", 90.0)),
    )
    (first, second) = spans(cut(samples, gate=LevelGate()))
    assert first == pytest.approx((59.0, 75.4), abs=0.04)
    assert second == pytest.approx((93.4, 98.6), abs=0.04)


def test_a_window_is_cut_in_the_middle_of_the_last_clear_gap():
    samples = recording(
        *(("speech", 12.0), ("pause", 1.6), ("speech", 10.0), ("pause", 0.8), ("speech", 3.0)),
        *(("pause", 0.16), ("speech", 12.0)),
    )
    (first, second) = spans(cut(samples, gate=LevelGate()))
    assert first == pytest.approx((0.0, 24.0), abs=0.04)
    assert second[0] == first[1]


def test_without_a_clear_gap_late_enough_the_longest_one_is_taken():
    samples = recording(
        *(("speech", 12.0), ("pause", 0.64), ("speech", 10.0), ("pause", 0.16), ("speech", 15.0))
    )
    (first, second) = spans(cut(samples, gate=LevelGate()))
    assert first[1] == second[0] == pytest.approx(12.32, abs=0.04)


def test_without_any_gap_the_most_quiet_moment_is_cut():
    samples = torch.full((40 * RATE,), 0.5)
    samples[25 * RATE : 25 * RATE + RATE // 4] = 0.2
    for gate in (LevelGate(), None):
        (first, second) = spans(cut(samples, gate=gate))
        assert first[1] == second[0] == pytest.approx(25.125, abs=0.06)


def test_without_a_gate_everything_is_in_a_window():
    samples = torch.rand(100 * RATE, generator=torch.Generator().manual_seed(0))
    windows = cut(samples)
    assert torch.equal(torch.cat([window.samples for window in windows]), samples)
    assert max(len(window.samples) for window in windows) <= MAX_SAMPLES


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.1, 40.0), st.floats(0.05, 12.0)), min_size=1, max_size=12),
    st.integers(5_000, 700_000),
)
def test_all_speech_is_in_windows_and_blocks_change_nothing(turns, block):
    samples = recording(
        *(each for speech, pause in turns for each in (("speech", speech), ("pause", pause)))
    )
    windows = cut(samples, gate=LevelGate())
    covered = np.zeros(len(samples), int)
    for window in windows:
        stop = window.start + len(window.samples)
        assert torch.equal(window.samples, samples[window.start : stop])
        assert len(window.samples) <= MAX_SAMPLES
        covered[window.start : stop] += 1
    assert covered.max(initial=0) <= 1
    assert (covered[samples.numpy() > 0.1] == 1).all()
    # A pause that lies in a window without reason would be one that Whisper fills with words.
    again = cut(samples, block, gate=LevelGate())
    assert spans(again) == spans(windows)


def test_a_window_is_parted_at_its_gaps():
    samples = recording(
        *(("speech", 3.2), ("pause", 0.32), ("speech", 1.28), ("pause", 0.64), ("speech", 4.8))
    )
    (window,) = cut(samples, gate=LevelGate())
    pieces = window.pieces(2.5)
    assert spans(pieces) == [
        pytest.approx((0.0, 3.36), abs=0.04),
        pytest.approx((3.36, 10.24), abs=0.04),
    ]
    assert [piece.within(window) for piece in pieces] == [
        (piece.start, piece.start + len(piece.samples)) for piece in pieces
    ]
    assert torch.equal(pieces[0].joined(pieces[1]).samples, samples)
    first, second = window.halves()
    assert (first.start + len(first.samples)) / RATE == pytest.approx(5.12, abs=0.04)
    assert torch.equal(first.joined(second).samples, samples)
    assert second.halves() is None


def test_a_window_tells_where_it_holds_speech():
    samples = recording(("pause", 1.6), ("speech", 3.2), ("pause", 1.6), ("speech", 3.2))
    samples = torch.cat([samples, torch.zeros(2 * RATE)])
    (window,) = cut(samples, gate=LevelGate())
    assert window.speech_end == pytest.approx(9.6, abs=0.04)
    assert window.loudest(0.0, 1.0) == 0.0
    assert window.loudest(0.0, 2.0) == 1.0
    assert window.uncovered([]) == pytest.approx(6.4, abs=0.04)
    assert window.uncovered([(0.0, 5.0)]) == pytest.approx(3.2, abs=0.04)
    assert window.uncovered([(0.0, 20.0)]) == 0.0
    (short,) = cut(torch.full((1700,), 0.5), gate=LevelGate())
    assert short.speech_seconds == len(short.samples) / RATE
    bare = Window(0, samples, None)
    assert (bare.speech_end, bare.loudest(0.0, 1.0), bare.uncovered([])) == (None, 1.0, 0.0)
    assert (bare.pieces(2.5), bare.halves()) == ([bare], None)
    assert bare.speech_seconds == len(samples) / RATE
