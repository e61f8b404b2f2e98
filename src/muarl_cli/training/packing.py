"""Token rows as one flat line without padding, on which rows that begin alike share their beginning.

The conversations of a scenario all begin with the same policy text and tool schemas, those of a task with the same user
too. Here the common beginning of a micro-batch's rows stands once, as a *root*; each row goes on from it as a *span*
that sees the root and itself. What is computed is what the plain model computes on each row alone, for fewer tokens:
causal attention never looks ahead, so a beginning does not depend on what follows it, and gradients add up in it.

Invariant: every agent token of every row appears exactly once, whatever is shared. A row's first token is never
predicted, whoever owns it. Oracle: tests/training/test_packing.py against the plain forward pass, row by row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from muarl_cli.beginnings import common_length
from muarl_cli.conversation.protocols import Owner, TokenRow

SHORTEST_ROOT = 32
"""tokens; a shorter common beginning is not worth an attention call of its own"""
_FAMILY = 64
"""rows whose first tokens are the same this far can share a root"""


@dataclass(frozen=True)
class Span:
    """Tokens [start, end) of the line. They see [root_start, root_end), and themselves causally."""

    start: int
    end: int
    root_start: int = 0
    root_end: int = 0


@dataclass(frozen=True)
class Packed:
    """A micro-batch of T tokens with N agent tokens in it. All tensors are flat; N-long ones are in the rows' order.

    The prediction of agent token n is made at `places[n]`; `item[n]` is its row's index in what was packed, `nth[n]`
    counts the agent tokens within that row.
    """

    ids: Tensor
    """(T,)"""
    positions: Tensor
    """(T,) the place of each token in its own row"""
    spans: tuple[Span, ...]
    places: Tensor
    """(N,)"""
    targets: Tensor
    """(N,)"""
    sampled: Tensor
    """(N,) log-probabilities that the tokens were sampled with"""
    item: Tensor
    """(N,)"""
    nth: Tensor
    """(N,)"""
    most: int
    """the largest N among the micro-batches that all processes have under way: sharded weights are gathered by all or
    none, so that all must call the head equally often"""


def agent_places(row: TokenRow) -> numpy.ndarray:
    """The places of a row's tokens that carry a loss: (n,) integers, ascending."""
    return numpy.flatnonzero(numpy.array(row.owners[1:], dtype=numpy.int64) == Owner.AGENT) + 1


def agent_tokens(row: TokenRow) -> int:
    """How many tokens of a row carry a loss."""
    return row.owners[1:].count(int(Owner.AGENT))


def common_root(rows: Sequence[TokenRow]) -> int:
    """How many tokens all rows begin with."""
    return common_length(min(row.ids for row in rows), max(row.ids for row in rows))


@dataclass(frozen=True)
class Family:
    """Rows of one micro-batch, as indices, that share their first `root` tokens (0: they share nothing)."""

    root: int
    members: tuple[int, ...]

    def tokens(self, lengths: Sequence[int]) -> int:
        return self.root + sum(lengths[i] - self.root for i in self.members)


def plan(
    rows: Sequence[TokenRow],
    units: Sequence[int],
    budget: int,
    share: bool = True,
    only: Collection[int] | None = None,
) -> list[tuple[Family, ...]]:
    """Which rows go into which micro-batch of at most `budget` tokens, and what they share there.

    `units` numbers what must not be split (the rows of an episode, where a loss needs all of them); a unit larger than
    the budget goes alone. Rows without agent tokens are left out, and where `only` is given all that it does not name.
    Largest first, so that memory runs out at once or never. A pure function of its arguments.
    """
    lengths = [len(row.ids) for row in rows]
    kept = [i for i, row in enumerate(rows) if agent_tokens(row) and (only is None or i in only)]
    whole: dict[int, list[int]] = {}
    for i in kept:
        whole.setdefault(units[i], []).append(i)
    families: dict[tuple[int, ...], list[list[int]]] = {}
    for members in whole.values():
        starts = {rows[i].ids[:_FAMILY] for i in members}
        key = starts.pop() if share and len(starts) == 1 else ()
        families.setdefault(key, []).append(members)
    chunks: list[Family] = []
    loose = list(families.pop((), []))
    for together in families.values():
        root = common_root([rows[i] for unit in together for i in unit]) if sum(map(len, together)) > 1 else 0
        if root < SHORTEST_ROOT:
            loose += together
        else:
            chunks += _chunks(together, root, lengths, budget)
    chunks += _chunks(loose, 0, lengths, budget)
    return _filled(chunks, lengths, budget)


def _chunks(units: Sequence[list[int]], root: int, lengths: Sequence[int], budget: int) -> Iterator[Family]:
    """Families of whole units within the budget, longest units first."""
    open_: list[int] = []
    size = root
    for unit in sorted(units, key=lambda unit: (-sum(lengths[i] for i in unit), unit[0])):
        more = sum(lengths[i] - root for i in unit)
        if open_ and size + more > budget:
            yield Family(root, tuple(open_))
            open_, size = [], root
        open_ += unit
        size += more
    if open_:
        yield Family(root, tuple(open_))


def _filled(chunks: Sequence[Family], lengths: Sequence[int], budget: int) -> list[tuple[Family, ...]]:
    """Chunks that fit together in one micro-batch, first fit, largest first."""
    batches: list[tuple[int, list[Family]]] = []
    for chunk in sorted(chunks, key=lambda chunk: (-chunk.tokens(lengths), chunk.members[0])):
        size = chunk.tokens(lengths)
        for number, (used, members) in enumerate(batches):
            if used + size <= budget:
                batches[number] = (used + size, [*members, chunk])
                break
        else:
            batches.append((size, [chunk]))
    return [tuple(members) for _, members in batches]


def pack(
    rows: Sequence[TokenRow], families: Sequence[Family], device: torch.device | str, most: int | None = None
) -> Packed:
    """The rows named by `families` as one line; `item` counts in `rows`. No families at all are one token without a
    loss: what a process computes that has nothing left while others have."""
    spans: list[Span] = []
    lines: dict[str, list[numpy.ndarray]] = {name: [] for name in ("ids", "positions", *_BY_TOKEN)}

    def add(own: numpy.ndarray, first: int, begin: int, seen: tuple[int, int] = (0, 0)) -> int:
        """A span of tokens whose first one is the `first` of its row; where it ends on the line."""
        lines["ids"].append(own)
        lines["positions"].append(numpy.arange(first, first + len(own)))
        spans.append(Span(begin, begin + len(own), *seen))
        return begin + len(own)

    end = 0
    for family in families:
        root, seen = end, (end, end + family.root) if family.root else (0, 0)
        if family.root:
            end = add(_whole(rows[family.members[0]].ids[: family.root]), 0, end)
        for index in family.members:
            row, start, ids = rows[index], end, _whole(rows[index].ids)
            if len(ids) > family.root:
                end = add(ids[family.root :], family.root, start, seen)
            places = agent_places(row)
            before = places - 1
            lines["places"].append(numpy.where(before < family.root, root + before, start + before - family.root))
            lines["targets"].append(ids[places])
            lines["sampled"].append(numpy.array(row.logprobs, dtype=numpy.float32)[places])
            lines["item"].append(numpy.full(len(places), index))
            lines["nth"].append(numpy.arange(len(places)))
    if not families:
        add(_whole([0]), 0, 0)
    whole = {name: torch.from_numpy(_joined(name, parts)).to(device) for name, parts in lines.items()}
    return Packed(spans=tuple(spans), most=len(whole["places"]) if most is None else most, **whole)


_BY_TOKEN = ("places", "targets", "sampled", "item", "nth")


def _whole(numbers: Sequence[int]) -> numpy.ndarray:
    return numpy.array(numbers, dtype=numpy.int64)


def _joined(name: str, parts: Sequence[numpy.ndarray]) -> numpy.ndarray:
    return numpy.concatenate([numpy.empty(0, dtype=numpy.float32 if name == "sampled" else numpy.int64), *parts])


def rank_shares(rows: Sequence[TokenRow], units: Sequence[int], size: int) -> list[set[int]]:
    """Which rows each of `size` processes computes: about equally many tokens, units whole, and those that begin alike
    on the same process, where they share their beginning. A pure function of its arguments."""
    whole: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        if agent_tokens(row):
            whole.setdefault(units[i], []).append(i)
    alike = sorted(whole.values(), key=lambda unit: (rows[unit[0]].ids, unit[0]))
    costs, before = [], None
    for unit in alike:
        root = 0 if before is None else common_length(rows[before].ids, rows[unit[0]].ids)
        costs.append(sum(len(rows[i].ids) - (root if root >= SHORTEST_ROOT else 0) for i in unit))
        before = unit[0]
    shares: list[set[int]] = [set() for _ in range(size)]
    done, total = 0, sum(costs)
    for unit, cost in zip(alike, costs, strict=True):
        middle = done + cost / 2
        shares[min(size - 1, int(middle * size / total))].update(unit)
        done += cost
    return shares


def micro_batches(
    rows: Sequence[TokenRow],
    budget: int,
    device: torch.device | str,
    units: Sequence[int] | None = None,
    share: bool = True,
    rank: int = 0,
    size: int = 1,
) -> Iterator[Packed]:
    """The rows that have agent tokens, within `budget` tokens each; see `plan`. Of `size` processes, the one numbered
    `rank` gets its share, and as many micro-batches as every other; those that it lacks are empty."""
    units = range(len(rows)) if units is None else units
    if size == 1:
        for families in plan(rows, units, budget, share):
            yield pack(rows, families, device)
        return
    plans = [plan(rows, units, budget, share, only) for only in rank_shares(rows, units, size)]
    for number in range(max(map(len, plans))):
        together = [plan_[number] if number < len(plan_) else () for plan_ in plans]
        most = max(sum(agent_tokens(rows[i]) for family in each for i in family.members) for each in together)
        yield pack(rows, together[rank], device, most)
