"""Talk and data: what a person reads goes to stderr, what a program reads goes to stdout.

Invariant: with `--json`, stdout holds exactly one JSON document, whatever libraries print (their prints are led to
stderr on the level of the file descriptor); and no text from a model, a file or a server can move the cursor, change
colours or forge a line, since control characters are taken out and rich markup is never read.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from muarl_cli.hashing import canonical
from muarl_cli.plain_text import clean as clean

LOOK_EVERY = 0.5
"""seconds between two looks at what is being watched"""
LINE_EVERY = 10.0
"""seconds between two plain progress lines where stderr is no terminal"""
QUIET_FOR = 1.0
"""seconds before any progress is shown at all"""


class Progress:
    """How far something is. `advance` may be called as often as one likes; drawing is rate limited. With `watch` it is
    drawn again while nothing advances."""

    def __init__(self, total: int, label: str) -> None:
        self.total, self.label, self.done = total, label, 0
        self.figures: dict[str, Any] = {}
        self.started = time.monotonic()
        self._live: Callable[[], Mapping[str, Any]] | None = None
        self._over = threading.Event()
        self._drawing = threading.Lock()
        self._watcher: threading.Thread | None = None

    def advance(self, n: int = 1, **figures: Any) -> None:
        """`n` more are done; `figures` are shown beside (reward=0.61, faults=2)."""
        self.done += n
        self.figures.update(figures)
        self._look()

    def watch(self, live: Callable[[], Mapping[str, Any]]) -> None:
        """Also show what `live` says, asked from another thread, whether anything advances or not."""
        self._live = live
        self._watcher = threading.Thread(target=self._keep_looking, name="muarl-progress", daemon=True)
        self._watcher.start()

    def draw(self) -> None:
        """Show the state; the base shows nothing."""

    def close(self) -> None:
        """Called once at the end."""
        self._over.set()
        if self._watcher is not None:
            self._watcher.join()

    def figures_text(self) -> str:
        shown = {**self.figures, **(self._live() if self._live else {})}
        return "  ".join(f"{clean(name, True)} {_short(value)}" for name, value in shown.items())

    def _keep_looking(self) -> None:
        while not self._over.wait(LOOK_EVERY):
            self._look()

    def _look(self) -> None:
        if time.monotonic() - self.started >= QUIET_FOR:
            with self._drawing:
                self.draw()


class _Lines(Progress):
    """One plain line every ten seconds."""

    def __init__(self, total: int, label: str, stream: IO[str]) -> None:
        super().__init__(total, label)
        self.stream, self.last = stream, self.started

    def draw(self) -> None:
        now = time.monotonic()
        if now - self.last < LINE_EVERY:
            return
        self.last = now
        whole = f"/{self.total}" if self.total else ""
        line = f"{clean(self.label, True)}: {self.done}{whole}  {now - self.started:.0f} s  {self.figures_text()}"
        left = (
            (now - self.started) / self.done * (self.total - self.done) if self.done < self.total and self.done else 0
        )
        print(f"{line.rstrip()}{f'  {left:.0f} s left' if left else ''}", file=self.stream, flush=True)


class _Bar(Progress):
    """A bar on a terminal, which appears after a second."""

    def __init__(self, total: int, label: str, console: Any) -> None:
        super().__init__(total, label)
        self.console = console
        self.bar: Any = None
        self.task: Any = None

    def draw(self) -> None:
        if self.bar is None:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress
            from rich.text import Text

            class Lines(RichProgress):
                """The bar, and under it what is watched: one line of a narrow terminal holds no more."""

                def get_renderables(lines) -> Iterator[Any]:  # `self` is the one outside
                    yield from super().get_renderables()
                    if self._live is not None and lines.tasks:
                        yield Text(lines.tasks[0].fields["figures"], no_wrap=True, overflow="ellipsis")

            columns = [TextColumn("{task.fields[figures]}", markup=False)] if self._live is None else []
            self.bar = Lines(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                *columns,
                console=self.console,
                refresh_per_second=4,
                transient=True,
            )
            self.task = self.bar.add_task(clean(self.label, True), total=self.total or None, figures="")
            self.bar.start()
        self.bar.update(self.task, completed=self.done, figures=self.figures_text())

    def close(self) -> None:
        super().close()
        if self.bar is not None:
            self.bar.stop()


class Talk:
    """What a stage says: `say` and `warn` to a person, `progress` for patience, `show` and `result` at the end."""

    def __init__(self, json: bool = False, out: IO[str] | None = None, err: IO[str] | None = None) -> None:
        self.json = json
        self._out, self._err = out, err

    @property
    def out(self) -> IO[str]:
        """Where data goes."""
        return self._out or sys.stdout

    @property
    def err(self) -> IO[str]:
        """Where talk goes."""
        return self._err or sys.stderr

    def say(self, text: object) -> None:
        """A line for the person at the terminal."""
        print(clean(text), file=self.err, flush=True)

    def warn(self, text: object) -> None:
        """A line that should not be missed."""
        print(f"warning: {clean(text)}", file=self.err, flush=True)

    @property
    def console(self) -> Any:
        """A rich console for tables that are results: stdout, or stderr with `--json`, where stdout is data alone."""
        return _console(self.err if self.json else self.out)

    def show(self, item: object) -> None:
        """Print a table or another rich object, or text, as part of the result for a person."""
        self.console.print(clean(item) if isinstance(item, str) else item, markup=False, highlight=False)

    @contextmanager
    def progress(self, total: int, label: str) -> Iterator[Progress]:
        """A bar on a terminal, else a plain line every ten seconds; nothing under a second. `total` 0 = not known."""
        terminal = self.err.isatty() and os.environ.get("TERM") != "dumb"
        shown = _Bar(total, label, _console(self.err)) if terminal else _Lines(total, label, self.err)
        try:
            yield shown
        finally:
            shown.close()

    def result(self, data: Mapping[str, Any]) -> None:
        """The result: one JSON document with `--json`, else one `name: value` line a figure. What stands under `full`
        is for programs; a person has seen it as tables."""
        if self.json:
            print(json.dumps(canonical(_plain(data)), ensure_ascii=True, allow_nan=False), file=self.out, flush=True)
            return
        for line in _lines(_plain({name: value for name, value in data.items() if name not in ("full", "layers")})):
            print(line, file=self.out, flush=True)

    @contextmanager
    def data_only(self) -> Iterator[None]:
        """With `--json`: whatever prints to stdout inside, in Python or in C, comes out on stderr; not so `result`."""
        if not self.json or self._out is not None:
            yield
            return
        sys.stdout.flush()
        try:
            real = os.dup(1)
        except OSError:  # no stdout at all
            yield
            return
        stdout = sys.stdout
        os.dup2(2, 1)
        with os.fdopen(real, "w", encoding="utf-8") as stream:
            self._out, sys.stdout = stream, sys.stderr
            try:
                yield
            finally:
                self._out, sys.stdout = None, stdout
                stream.flush()
                os.dup2(stream.fileno(), 1)


def _console(stream: IO[str]) -> Any:
    from rich.console import Console

    # Off a terminal there is no width to fit into: wide rows stay on one line, for grep and diff.
    return Console(file=stream, markup=False, highlight=False, emoji=False, width=None if stream.isatty() else 160)


def _plain(value: Any) -> Any:
    """JSON-safe: paths and enums become text, not-a-number becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in (sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    return str(value)


def _lines(value: Any, prefix: str = "") -> Iterator[str]:
    for key, item in value.items():
        name = f"{prefix}{clean(key, True)}"
        if isinstance(item, dict) and item:
            yield from _lines(item, f"{name}.")
        else:
            yield f"{name}: {_short(item)}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, dict)):
        return clean(json.dumps(value), True)
    return clean("" if value is None else value, True)
