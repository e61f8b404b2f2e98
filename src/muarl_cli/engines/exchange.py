"""Weights on their way to an engine outside of this process: a folder that both sides can read.

Invariants: every delivery has a folder of its own, whose name never comes again, so that nothing computed with other
weights can be taken for its (vLLM names cached prefixes by an adapter's name and path); full weights are gone once they
are loaded, an adapter stays until the next one is served, since an engine may have to read it again.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

Writer = Callable[[Path], None]
"""writes what is to be served into an empty folder: a Hugging Face folder, or an adapter"""


class Exchange:
    """Deliveries through `folder`; None makes a temporary one, which `close` removes."""

    def __init__(self, folder: Path | None) -> None:
        self._own = folder is None
        # absolute: a server has a working directory of its own
        self.folder = Path(tempfile.mkdtemp(prefix="muarl-weights-")) if folder is None else folder.resolve()
        self._kept: Path | None = None

    @asynccontextmanager
    async def delivery(self, write: Writer, version: str, adapter: bool) -> AsyncIterator[Path]:
        """The folder with the weights of `version`, until they are loaded; an adapter's until the next delivery."""
        folder = self.folder / f"weights-{version}-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        try:
            await asyncio.to_thread(write, folder)
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # the last adapter is still the one that plays
            raise
        self._drop_kept()
        self._kept = folder
        if not adapter:
            self._drop_kept()

    def close(self) -> None:
        """Leave nothing behind; the engine will not read again."""
        self._drop_kept()
        if self._own:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _drop_kept(self) -> None:
        if self._kept is not None:
            shutil.rmtree(self._kept, ignore_errors=True)
        self._kept = None
