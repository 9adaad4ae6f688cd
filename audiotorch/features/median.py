"""Running medians by minima and maxima of whole rows: exact, and without a sort per window."""

from functools import lru_cache
from typing import List, Tuple

import torch
from torch import Tensor, nn

from audiotorch.errors import ParameterError

__all__ = ["MedianFilter", "Merge"]

# A wire below all others; it only shifts which wires Batcher's merge pairs.
_LOWEST = -1
_Step = Tuple[bool, int, int]


class MedianFilter(nn.Module):
    """Running median along the middle axis, each clip continued by its mirror image.

    Windows overlap, so most of the work is shared. Rows are cut into tiles of `tile` outputs, the
    largest power of two that divides `kernel_size + 1`: 16 of them for 31. All windows of a tile
    have a core in common, which is sorted once, out of blocks that are sorted once for all tiles.
    Then the tile is halved again and again: either half takes in the sorted block that only its own
    windows have in common, and keeps the ranks in which the median may still be. For 31 that is 21
    minima or maxima per output, each over long rows of memory.

    Args:
        kernel_size: window, at least 1. The window of output `i` starts at `i - kernel_size // 2`;
            of an even number of values the upper middle one is taken.

    Shape:
        - Input: `(batch, n, width)` and counts `(batch,)`, or `(1,)` for all alike: how many of
          the `n` are a clip's own; the end is repeated by the mirror.
        - Output: `(batch, n, width)`; what is past a clip's own count has no meaning.

    Raises:
        ParameterError: `kernel_size` below 1.

    Reference:
        Adams (2021), Fast median filters using separable sorting networks: the tiles, here in one
        dimension. Same values as `scipy.ndimage.median_filter(mode="reflect")`; but that reads
        foreign memory where a clip is so short that the window holds it more than twice.

    Example:
        >>> median = MedianFilter(3)
        >>> median(torch.tensor([[[5.0], [1.0], [4.0], [2.0]]]), torch.tensor([4])).flatten()
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

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return the medians; shapes as in the class docstring."""
        if not torch.jit.is_scripting():
            if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
                medians: Tensor = _median_filter(x, counts, self.kernel_size)
                return medians
        return self.compute(x, counts)

    def compute(self, x: Tensor, counts: Tensor) -> Tensor:
        """Return the same as `forward`."""
        batch, n, width = x.shape
        n_tiles = (n + self.tile - 1) // self.tile
        clip = torch.arange(batch, device=x.device)
        rows = self._positions(n_tiles + self.n_blocks, counts) + n * clip
        rows = x.flatten(0, 1).index_select(0, rows.flatten()).reshape(self.tile, -1)
        medians = self._filter(rows, n_tiles, batch * width).reshape(-1, width)
        # Back from lanes: output i is in lane i % tile of tile i // tile.
        i = torch.arange(n, device=x.device)
        order = (i % self.tile * n_tiles + i // self.tile) * batch + clip.unsqueeze(-1)
        return medians.index_select(0, order.flatten()).reshape(batch, n, width)

    def _positions(self, n_tiles: int, counts: Tensor) -> Tensor:
        """Return the row of each clip that stands in each lane of each tile, `(lanes, batch)`.

        Lane `l` holds row `l` of every tile, so that shifts by tiles are shifts along a lane. The
        first tile begins with what the first window has, and one more.
        """
        lane = torch.arange(self.tile, device=counts.device).unsqueeze(-1)
        tile = torch.arange(n_tiles, device=counts.device)
        position = (lane + self.tile * tile).reshape(-1, 1) - (self.kernel_size // 2 + 1)
        period = 2 * counts.clamp(min=1)
        position = position.remainder(period)
        return torch.minimum(position, period - 1 - position)

    def _filter(self, rows: Tensor, n_tiles: int, unit: int) -> Tensor:
        """Return medians `(tile, n_tiles * unit)` of lanes, where a tile is `unit` numbers long."""
        # Sorted blocks of 1, 2, 4, ... rows: each wire (blocks of a tile, all tiles).
        blocks = [[rows]]
        for sort in self.sorts:
            blocks.append(sort([w[0::2] for w in blocks[-1]], [w[1::2] for w in blocks[-1]]))
        # The first tile is before the core: half of it are extras of the first lower half.
        runs = [[w[:, unit:] for w in blocks[-1]]]
        for i, merge in enumerate(self.runs):
            shift = unit << i
            runs.append(merge([w[:, :-shift] for w in runs[-1]], [w[:, shift:] for w in runs[-1]]))
        size = n_tiles * unit
        core: List[Tensor] = []
        start = 0
        for i, merge in enumerate(self.joins):
            part = self.parts[i]
            core = merge(core, [w[:, start : start + size] for w in runs[part]])
            start += unit << part
        far = self.n_blocks * unit
        for i, merge in enumerate(self.splits):
            # A lower half takes in the odd block of its own tile, an upper half the even one at the
            # other end of the windows.
            wires = blocks[-2 - i]
            extras = [torch.stack((w[1::2, :size], w[0::2, far:]), dim=1) for w in wires]
            core = [w.flatten(0, 1) for w in merge([w.unsqueeze(1) for w in core], extras)]
        return core[0]


# An operator of its own: the compiler would spoil the order in which rows pass through the cache.
@torch.library.custom_op("audiotorch::median_filter", mutates_args=())
def _median_filter(x: Tensor, counts: Tensor, kernel_size: int) -> Tensor:
    return _filter_of(kernel_size).compute(x, counts)


@_median_filter.register_fake
def _like(x: Tensor, counts: Tensor, kernel_size: int) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@lru_cache(maxsize=8)
def _filter_of(kernel_size: int) -> MedianFilter:
    return MedianFilter(kernel_size)


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

    def __init__(self, n_first: int, n_second: int, low: int = 0, high: int | None = None) -> None:
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
    # A wire is its number: the inputs first, then the outputs of all steps in turn.
    n_inputs = n_first + n_second
    steps: dict[int, _Step] = {}
    second = [_LOWEST] * shift + list(range(n_first, n_inputs))
    merged = _merge(list(range(n_first)), second, steps, n_inputs)
    kept = [wire for wire in merged if wire != _LOWEST][ranks]
    needed = set(kept)
    for wire in reversed(steps):
        if wire in needed:
            needed.update(steps[wire][1:])
    return _place({wire: steps[wire] for wire in steps if wire in needed}, n_inputs, kept)


def _merge(
    first: list[int], second: list[int], steps: dict[int, _Step], n_inputs: int
) -> list[int]:
    """Merge two sorted lists of wires, and put what that takes into `steps`."""

    def order(a: int, b: int) -> list[int]:
        if _LOWEST in (a, b):
            return sorted((a, b))
        low = n_inputs + len(steps)
        steps[low], steps[low + 1] = (False, a, b), (True, a, b)
        return [low, low + 1]

    if not first or not second:
        return first + second
    if len(first) == len(second) == 1:
        return order(first[0], second[0])
    evens = _merge(first[0::2], second[0::2], steps, n_inputs)
    odds = _merge(first[1::2], second[1::2], steps, n_inputs)
    merged = evens[:1]
    for i in range(max(len(odds), len(evens) - 1)):
        pair = odds[i : i + 1] + evens[i + 1 : i + 2]
        merged += order(pair[0], pair[1]) if len(pair) == 2 else pair
    return merged


def _place(
    steps: dict[int, _Step], n_inputs: int, kept: list[int]
) -> tuple[list[list[int]], list[int]]:
    """Give each wire a slot, that of a dead wire where possible, so that memory stays in cache."""
    last_use = {read: wire for wire in steps for read in steps[wire][1:]}
    last_use.update(dict.fromkeys(kept, -1))
    slots = {wire: wire for wire in range(n_inputs)}
    free = [wire for wire in range(n_inputs) if wire not in last_use]
    program = []
    for wire, (is_maximum, a, b) in steps.items():
        free += [slots[read] for read in (a, b) if last_use[read] == wire]
        slot = free.pop() if free else max(slots.values()) + 1
        program.append([int(is_maximum), slots[a], slots[b], slot])
        slots[wire] = slot
    return program, [slots[wire] for wire in kept]
