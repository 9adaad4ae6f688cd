"""Running medians by minima and maxima of whole rows: exact, and without a sort per window."""

from typing import List, Tuple

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError

__all__ = ["MedianFilter", "Merge"]

# A wire below all others; it only shifts which wires Batcher's merge pairs.
_LOWEST = -1
_Step = Tuple[bool, int, int]


class MedianFilter(nn.Module):
    """Running median along the first axis, each clip continued by its mirror image.

    Windows overlap, so most of the work is shared. Rows are cut into tiles of `tile` outputs, the
    largest power of two that divides `kernel_size + 1`: 16 of them for 31. All windows of a tile
    have a core in common, which is sorted once, out of blocks that are sorted once for all tiles.
    Then the tile is halved again and again: either half takes in the sorted block that only its own
    windows have in common, and keeps the ranks in which the median may still be. For 31 that is 21
    minima or maxima per output.

    Args:
        kernel_size: window, at least 1. The window of output `i` starts at `i - kernel_size // 2`;
            of an even number of values the upper middle one is taken.

    Shape:
        - Input: `(padded, width)`, the rows that `positions` names, and the number `n` of outputs
        - Output: `(n, width)`

    Raises:
        ParameterError: `kernel_size` below 1.

    Reference:
        Adams (2021), Fast median filters using separable sorting networks: the tiles, here in one
        dimension. Same values as `scipy.ndimage.median_filter(mode="reflect")`; but that reads
        foreign memory where the window reaches twice its length or more past the end.

    Example:
        >>> median = MedianFilter(3)
        >>> rows = torch.tensor([[5.0], [1.0], [4.0], [2.0]])
        >>> median(rows[median.positions(4, torch.tensor([4]))[:, 0]], 4).flatten()
        tensor([5., 4., 2., 2.])
    """

    parts: List[int]

    def __init__(self, kernel_size: int) -> None:
        super().__init__()
        if kernel_size < 1:
            raise ParameterError(f"kernel_size={kernel_size}: must be at least 1")
        tile = 1
        while (kernel_size + 1) % (2 * tile) == 0 and 4 * tile <= kernel_size + 1:
            tile *= 2
        self.kernel_size = kernel_size
        self.tile = tile
        self.n_blocks = (kernel_size + 1) // tile
        halves = [tile >> i for i in range(1, tile.bit_length())]
        self.sorts = nn.ModuleList([Merge(half, half) for half in reversed(halves)])
        # The core is n_blocks - 1 blocks. Runs of 1, 2, 4, ... blocks are sorted for all tiles.
        left = self.n_blocks - 1
        n_runs = max(left - 1, 1).bit_length()
        self.runs = nn.ModuleList([Merge(tile << i, tile << i) for i in range(n_runs - 1)])
        self.parts = []
        joins, size, lowest = [], 0, kernel_size // 2 - tile + 1
        while left:
            part = min(left.bit_length(), n_runs) - 1
            left -= 1 << part
            # Of the core, `tile` ranks can hold a median.
            ranks = () if left else (lowest, lowest + tile)
            joins.append(Merge(size, tile << part, *ranks))
            size += tile << part
            self.parts.append(part)
        self.joins = nn.ModuleList(joins)
        self.splits = nn.ModuleList([Merge(2 * half, half, half, 2 * half) for half in halves])

    def positions(self, n: int, counts: Tensor) -> Tensor:
        """Return which row of each clip stands where in the padded input.

        Args:
            n: rows of the longest clip.
            counts: int64, rows of each clip.

        Shape:
            - Input: `(batch,)`
            - Output: `(padded, batch)`, int64: a clip's own rows, mirrored at its ends with the end
              repeated, again and again where the clip is shorter than the window.
        """
        n_tiles = (n + self.tile - 1) // self.tile
        size = (n_tiles + self.n_blocks) * self.tile
        position = torch.arange(size, device=counts.device) - (self.kernel_size // 2 + 1)
        period = 2 * counts.clamp(min=1)
        position = position.unsqueeze(-1).remainder(period)
        return torch.minimum(position, period - 1 - position)

    def forward(self, rows: Tensor, n: int) -> Tensor:
        """Return the medians; shapes as in the class docstring."""
        n_tiles = (n + self.tile - 1) // self.tile
        blocks = [[rows]]  # sorted blocks of 1, 2, 4, ... rows
        for sort in self.sorts:
            pairs = [wire.unfold(0, 2, 2) for wire in blocks[-1]]
            blocks.append(sort([p[..., 0] for p in pairs], [p[..., 1] for p in pairs]))
        # The first block of the first tile's windows is half outside of the core.
        runs = [[wire[1:] for wire in blocks[-1]]]
        for i, merge in enumerate(self.runs):
            size = runs[-1][0].shape[0] - (1 << i)
            first = [wire[:size] for wire in runs[-1]]
            runs.append(merge(first, [wire[1 << i :] for wire in runs[-1]]))
        core: List[Tensor] = []
        start = 0
        for i, merge in enumerate(self.joins):
            part = self.parts[i]
            core = merge(core, [wire[start : start + n_tiles] for wire in runs[part]])
            start += 1 << part
        for i, merge in enumerate(self.splits):
            more = [self._extras(wire, n_tiles, i) for wire in blocks[-2 - i]]
            core = merge([wire.unsqueeze(0) for wire in core], more)
        # Halves stand in front, the last split first: that is how memory stays in one piece.
        medians = core[0]
        order = [i - 1 for i in range(medians.dim() - 1, 0, -1)] + [medians.dim() - 1]
        return medians.permute(order).flatten(0, -2)[:n]

    def _extras(self, block: Tensor, n_tiles: int, level: int) -> Tensor:
        """Lay out what the halves of each tile take in at this level: views, no copies.

        The lower half of tile `i` of its level takes in block `2 i + 1`, the upper one the block
        `width - 1` further on, where `width` is the size of two halves' windows together.
        """
        width = self.n_blocks << (level + 1)
        pairs = block[1:].unfold(0, width, 2)[: n_tiles << level, :, :: width - 1]
        pairs = pairs.unflatten(0, [n_tiles] + [2] * level)
        last = level + 2
        return pairs.permute([last] + [level - i for i in range(level)] + [0, level + 1])


class Merge(nn.Module):
    """Merge two sorted lists of tensors, element by element, and keep some ranks.

    Batcher's odd-even merge, without the steps that no kept rank depends on. A step is the minimum
    or the maximum of two tensors: so outputs are values of the inputs, bit by bit, and a NaN
    spreads. Steps are data, not code: scripted, they stay a short loop.

    Args:
        n_first: length of the first list.
        n_second: length of the second.
        low: lowest rank kept, from 0.
        high: one above the highest rank kept; `None` = all.

    Shape:
        - Input: lists of tensors that broadcast against each other
        - Output: `high - low` tensors, ascending

    Reference:
        Batcher (1968), Sorting networks and their applications. Knuth, The Art of Computer
        Programming 3, 5.3.4, for lists of any lengths.

    Example:
        >>> first, second = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])
        >>> Merge(2, 2, 1, 3)(list(first), list(second))
        [tensor(2.), tensor(3.)]
    """

    steps: List[List[int]]
    kept: List[int]

    def __init__(
        self, n_first: int, n_second: int, low: int = 0, high: int | None = None
    ) -> None:
        super().__init__()
        ranks = slice(low, n_first + n_second if high is None else high)
        # Shifted by one wire, the merge often has fewer steps that matter for the middle ranks.
        programs = [_program(n_first, n_second, ranks, shift) for shift in (0, 1)]
        self.steps, self.kept = min(programs, key=lambda program: len(program[0]))

    def forward(self, first: List[Tensor], second: List[Tensor]) -> List[Tensor]:
        """Return the kept ranks; shapes as in the class docstring."""
        wires = first + second
        for step in self.steps:
            is_maximum, a, b, slot = step
            if is_maximum == 1:
                value = torch.maximum(wires[a], wires[b])
            else:
                value = torch.minimum(wires[a], wires[b])
            if slot == len(wires):
                wires.append(value)
            else:
                wires[slot] = value
        return [wires[slot] for slot in self.kept]


def _program(
    n_first: int, n_second: int, ranks: slice, shift: int
) -> tuple[list[list[int]], list[int]]:
    """Return the steps `[is_maximum, a, b, slot]` of a merge, and the slots of the kept ranks."""
    n_inputs = n_first + n_second
    # A wire is its number: inputs first, then the outputs of the steps.
    wires: list[_Step | None] = [None] * n_inputs
    second = list(range(n_first, n_inputs))
    merged = _merge(list(range(n_first)), [_LOWEST] * shift + second, wires)
    kept = [wire for wire in merged if wire != _LOWEST][ranks]
    needed = set(kept)
    for wire in range(len(wires) - 1, n_inputs - 1, -1):
        step = wires[wire]
        if wire in needed and step is not None:
            needed.update(step[1:])
    return _place(wires, n_inputs, sorted(w for w in needed if w >= n_inputs), kept)


def _merge(first: list[int], second: list[int], wires: list[_Step | None]) -> list[int]:
    """Merge two sorted lists of wires; the steps go to the end of `wires`."""
    if not first or not second:
        return first + second
    if len(first) == len(second) == 1:
        return _order(first[0], second[0], wires)
    evens = _merge(first[0::2], second[0::2], wires)
    odds = _merge(first[1::2], second[1::2], wires)
    merged = evens[:1]
    for i in range(max(len(odds), len(evens) - 1)):
        pair = odds[i : i + 1] + evens[i + 1 : i + 2]
        merged += _order(pair[0], pair[1], wires) if len(pair) == 2 else pair
    return merged


def _order(a: int, b: int, wires: list[_Step | None]) -> list[int]:
    if _LOWEST in (a, b):
        return sorted((a, b))
    wires.append((False, a, b))
    wires.append((True, a, b))
    return [len(wires) - 2, len(wires) - 1]


def _place(
    wires: list[_Step | None], n_inputs: int, steps: list[int], kept: list[int]
) -> tuple[list[list[int]], list[int]]:
    """Give each wire a slot, that of a dead one where possible: memory stays small and in cache."""
    reads = {wire: (wires[wire] or (False, 0, 0)) for wire in steps}
    last = {read: i for i, wire in enumerate(steps) for read in reads[wire][1:]}
    last.update((wire, len(steps)) for wire in kept)
    slots = {wire: wire for wire in range(n_inputs)}
    free = [wire for wire in range(n_inputs) if wire not in last]
    n_slots = n_inputs
    program = []
    for i, wire in enumerate(steps):
        is_maximum, a, b = reads[wire]
        entry = [int(is_maximum), slots[a], slots[b]]
        free += [slots[read] for read in (a, b) if last[read] == i]
        if not free:
            free.append(n_slots)
            n_slots += 1
        slots[wire] = free.pop()
        program.append([*entry, slots[wire]])
    return program, [slots[wire] for wire in kept]
