"""Copies of the metrics for TensorBoard, Weights & Biases and Trackio; `metrics.jsonl` is the record.

Invariant: a tracker never ends a run. One that is not installed, or raises, is named once and left out from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self


class Tracker(Protocol):
    """What is asked of each."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class _TensorBoard:
    """Event files under OUT/tensorboard."""

    def __init__(self, folder: Path, name: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        for key, value in numbers.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Logging:
    """wandb, and trackio, which has its interface."""

    def __init__(self, module: Any, **where: Any) -> None:
        self._module = module
        module.init(project="muarl", **where)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._module.log(dict(numbers), step=step)

    def close(self) -> None:
        self._module.finish()


def _wandb(folder: Path, name: str) -> Tracker:
    import wandb

    return _Logging(wandb, dir=str(folder), name=name, id=name, resume="allow")


def _trackio(folder: Path, name: str) -> Tracker:
    import trackio

    return _Logging(trackio, name=name, resume="allow")


TRACKERS: Mapping[str, Callable[[Path, str], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _wandb,
    "trackio": _trackio,
}


class Trackers:
    """The trackers of a run, as a context; `name` stands for the run, so that a resumed one goes on in its curves."""

    def __init__(self, names: Sequence[str], folder: Path, name: str, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._open: dict[str, Tracker] = {}
        for each in names:
            self._safely(each, partial(self._begin, each, folder, name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name, tracker in list(self._open.items()):
            self._safely(name, tracker.close)

    def log(self, step: int, row: Mapping[str, Any]) -> None:
        """The numbers of a row; those of a mapping inside it as `mapping/key`."""
        numbers = dict(_numbers(row))
        for name, tracker in list(self._open.items()):
            self._safely(name, partial(tracker.log, step, numbers))

    def _begin(self, each: str, folder: Path, name: str) -> None:
        self._open[each] = TRACKERS[each](folder, name)

    def _safely(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as error:  # whatever somebody else's package raises: the run is worth more than its copy
            self._open.pop(name, None)
            why = f"{type(error).__name__}: {error}"[:200]
            self._warn(f"the tracker {name} is left out ({why}); metrics.jsonl has everything")


def _numbers(row: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{path}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{path}{key}", float(value)
