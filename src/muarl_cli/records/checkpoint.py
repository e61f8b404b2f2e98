"""Checkpoints: a folder that is complete and verified, or not there.

`checkpoints/step-000120/` is an ordinary Hugging Face folder (model, tokenizer, chat template) with `lineage.json`,
`manifest.json` and a `trainer/` folder beside: safetensors and JSON only. Invariant: everything is written aside and
flushed, the manifest last, then renamed; loading takes the newest one whose manifest verifies and names those it passed
over; nothing old is deleted before the new one verified.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import canonical
from muarl_cli.records import strict_json
from muarl_cli.records.files import FOLDER_MODE, disk_error, fsync_file, fsync_folder, replace_file, sha256_of
from muarl_cli.records.lineage import NAME as LINEAGE
from muarl_cli.records.lineage import Lineage, read_lineage
from muarl_cli.records.safetensors_file import is_pickle, read_header

FOLDER, MANIFEST, LATEST, TRAINER, STATE = (
    "checkpoints",
    "manifest.json",
    "LATEST",
    "trainer",
    "state.json",
)
SCHEMA = "muarl.checkpoint/1.0"
_STEP = re.compile(r"step-(\d{6,})")
_MAX_JSON = 256 << 20


class Mark(StrEnum):
    """What a checkpoint is kept for beside being new; the name of a file in `checkpoints/` that names it."""

    BEST = "BEST"
    """its loss on what was held out is the lowest: the one to use"""
    HIGHEST = "HIGHEST"
    """conversations earned most while it was being made; the newest is the one to use"""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    folder: Path
    step: int
    hash: str
    """SHA-256 of its manifest: stands for its whole content"""

    @property
    def state(self) -> dict[str, Any]:
        """The JSON state it was saved with; raises `MuarlError`."""
        value: dict[str, Any] = _read_json(self.folder / TRAINER / STATE)
        return value

    @property
    def lineage(self) -> Lineage | None:
        return read_lineage(self.folder)

    def tensors(self, name: str) -> Path:
        """The safetensors file that was saved under `name`; raises `MuarlError` where there is none."""
        path = self.folder / TRAINER / f"{name}.safetensors"
        if not path.is_file():
            raise MuarlError(
                f"the checkpoint has no {name!r} tensors", where=str(self.folder), code=ExitCode.MISSING_INPUT
            )
        return path


def save(
    run: Path,
    step: int,
    *,
    write_model: Callable[[Path], object],
    write_tensors: Mapping[str, Callable[[Path], object]],
    state: Mapping[str, Any],
    lineage: Lineage,
    keep_last: int,
    mark: Mark | None = None,
) -> Checkpoint:
    """Save step `step` of the run folder `run`, verify it, then delete what the keep rule no longer wants.

    `write_model(folder)` writes a Hugging Face folder; each of `write_tensors[name](path)` one safetensors file;
    `state` is JSON (random states, data position, counters). `mark` says that it is now the one of that kind. Kept:
    the `keep_last` newest and what is marked. Raises `MuarlError` with all older checkpoints as they were.
    """
    root = run / FOLDER
    name = f"step-{step:06d}"
    aside = root / f".tmp-{os.getpid()}-{name}"
    try:
        root.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        for leftover in root.glob(".tmp-*"):
            shutil.rmtree(leftover)
        aside.mkdir(mode=FOLDER_MODE)
        write_model(aside)
        (aside / TRAINER).mkdir(mode=FOLDER_MODE, exist_ok=True)
        for label, write in write_tensors.items():
            write(aside / TRAINER / f"{label}.safetensors")
        replace_file(aside / TRAINER / STATE, strict_json.dumps(canonical(dict(state))).encode("ascii"))
        replace_file(aside / LINEAGE, lineage.to_json())
        _seal(aside, step)
        _put(aside, root / name)
        fsync_folder(root)
        made = verify(root / name)
        _point(root, LATEST, name)
        if mark is not None:
            _point(root, mark, name)
        _delete_old(root, keep_last)
        return made
    except OSError as error:
        raise disk_error(error, root / name, _size(aside)) from error
    except Exception as error:
        if "os error 28" in str(error):  # how the safetensors library says that the disk is full
            raise disk_error(OSError(errno.ENOSPC, str(error)), root / name, _size(aside)) from error
        raise


def mark_again(run: Path, step: int, mark: Mark) -> None:
    """Mark the checkpoint of `step`: for a run that was killed between writing and marking it."""
    _point(run / FOLDER, mark, f"step-{step:06d}")


def _seal(folder: Path, step: int) -> None:
    """Flush every file and folder, then write the manifest over all of them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    _refuse_pickles(folder, files)
    listed = []
    for path in files:
        path.chmod(0o600)
        fsync_file(path)
        listed.append(
            {"name": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        )
    for sub in [path for path in folder.rglob("*") if path.is_dir()]:
        fsync_folder(sub)
    manifest = {"schema": SCHEMA, "step": step, "files": listed}
    replace_file(folder / MANIFEST, (strict_json.dumps(manifest) + "\n").encode("ascii"))


def _put(aside: Path, place: Path) -> None:
    if place.exists():  # a step that is done again, after its first version was found damaged
        old = place.with_name(f".tmp-old-{place.name}")
        os.rename(place, old)
        try:
            os.rename(aside, place)
        except OSError:
            os.rename(old, place)
            raise
        shutil.rmtree(old)
    else:
        os.rename(aside, place)


def _point(root: Path, pointer: str, name: str) -> None:
    replace_file(root / pointer, f"{name}\n".encode("ascii"))


def _pointed(root: Path, pointer: str) -> Path | None:
    try:
        name = (root / pointer).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return root / name if _STEP.fullmatch(name) and (root / name).is_dir() else None


def _delete_old(root: Path, keep_last: int) -> None:
    marked = [_pointed(root, mark) for mark in Mark]
    for folder in steps(root.parent)[max(1, keep_last) :]:
        if folder not in marked:
            gone = (
                root / f".tmp-old-{folder.name}"
            )  # renamed first: a half-deleted folder is never taken for a checkpoint
            os.rename(folder, gone)
            shutil.rmtree(gone)


def steps(run: Path) -> list[Path]:
    """The checkpoint folders of a run, newest first, verified or not."""
    root = run / FOLDER
    found = [(int(m.group(1)), p) for p in root.iterdir() if (m := _STEP.fullmatch(p.name))] if root.is_dir() else []
    return [path for _, path in sorted(found, reverse=True)]


def verify(folder: Path) -> Checkpoint:
    """Check a checkpoint folder against its manifest, byte for byte; raises `MuarlError` (BAD_DATA) saying why not."""
    try:
        return _verified(folder)
    except OSError as error:
        raise _bad(folder, f"{Path(error.filename or folder).name}: {error.strerror}") from error


def _verified(folder: Path) -> Checkpoint:
    manifest = _read_json(folder / MANIFEST)
    try:
        if str(manifest["schema"]).split(".")[:2] != SCHEMA.split(".")[:2]:
            raise _bad(folder, f"its format is {manifest['schema']!r}, not {SCHEMA}")
        listed = {entry["name"]: (entry["bytes"], entry["sha256"]) for entry in manifest["files"]}
        step = int(manifest["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise _bad(folder, f"its manifest is incomplete: {error}") from error
    present = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if (path.is_file() or path.is_symlink()) and path != folder / MANIFEST
    }
    _refuse_pickles(folder, list(present.values()))
    if odd := sorted(set(listed) ^ set(present)):
        raise _bad(folder, f"{odd[0]} is {'missing' if odd[0] in listed else 'not in the manifest'}")
    for name, (size, sha256) in listed.items():
        if present[name].stat().st_size != size or sha256_of(present[name]) != sha256:
            raise _bad(folder, f"{name} differs from what was saved")
        if name.endswith(".safetensors"):
            read_header(present[name])
    return Checkpoint(folder, step, sha256_of(folder / MANIFEST))


def load_latest(run: Path, on_skip: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint that verifies, or None where the run has none at all.

    Each one passed over is named to `on_skip`. Raises `MuarlError` where there are checkpoints and none verifies:
    starting from scratch would train again on what was consumed.
    """
    folders = steps(run)
    for folder in folders:
        try:
            return verify(folder)
        except MuarlError as bad:
            on_skip(f"skipped {folder.name}: {bad.why or bad.what}")
    if folders:
        raise MuarlError(
            "no checkpoint of this run is intact",
            where=str(run / FOLDER),
            why=f"{len(folders)} were tried",
            next_step="restore one, or start again with another --out",
            code=ExitCode.BAD_DATA,
        )
    return None


def resolve_model_path(path: Path, on_skip: Callable[[str], None]) -> Path:
    """The folder to load a model from: a run folder (its best checkpoint, else its newest), a checkpoint or the name of
    a marked one (`RUN/checkpoints/HIGHEST`), or a plain Hugging Face folder with safetensors weights. Verified; raises
    `MuarlError` saying what is missing."""
    if path.name in list(Mark) and path.is_file():
        path = _pointed(path.parent, path.name) or path
    if not path.is_dir():
        raise MuarlError(
            f"there is no model folder {str(path)!r}",
            next_step="give a run folder, a checkpoint folder or a Hugging Face folder; a model name needs --base-url",
            code=ExitCode.MISSING_INPUT,
        )
    if (path / MANIFEST).is_file():
        return verify(path).folder
    if (path / FOLDER).is_dir():
        best = _pointed(path / FOLDER, Mark.BEST)
        if best is not None:
            try:
                return verify(best).folder
            except MuarlError as bad:
                on_skip(f"skipped {best.name} (best): {bad.why or bad.what}")
        found = load_latest(path, on_skip)
        if found is not None:
            return found.folder
        raise MuarlError(
            "the run has no checkpoint yet",
            where=str(path),
            next_step="run its stage to the end first, or give another folder",
            code=ExitCode.MISSING_INPUT,
        )
    return _plain_folder(path)


def _plain_folder(path: Path) -> Path:
    if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise MuarlError(
            f"{path} holds no model",
            why="it has none of checkpoints/, manifest.json, config.json and adapter_config.json",
            next_step="give a run folder, a checkpoint folder or a Hugging Face folder",
            code=ExitCode.MISSING_INPUT,
        )
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        _refuse_pickles(path, sorted(path.iterdir()))
        raise MuarlError(f"{path} has no *.safetensors weights", code=ExitCode.MISSING_INPUT)
    for file in weights:
        read_header(file)
    return path


def newest_checkpoint(runs: Path, stages: tuple[str, ...] = ("rl-train", "sft")) -> Path | None:
    """The run folder under `runs` that finished last, of the given stages, and has a checkpoint; None for none."""
    return newest_run(runs, stages, lambda run: bool(steps(run)))


def newest_run(runs: Path, stages: tuple[str, ...], usable: Callable[[Path], bool]) -> Path | None:
    """The usable run folder under `runs` (at any of three levels) that finished last, of the given stages; a tie goes
    to the stage named first."""
    found: list[tuple[float, int, Path]] = []
    for level in ("*", "*/*", "*/*/*"):
        for summary in runs.glob(f"{level}/summary.json"):
            run = summary.parent
            try:
                lineage = read_lineage(run)
            except MuarlError:
                continue
            if lineage and lineage.stage in stages and usable(run):
                found.append((summary.stat().st_mtime, -stages.index(lineage.stage), run))
    return max(found)[2] if found else None


def _refuse_pickles(folder: Path, files: list[Path]) -> None:
    for path in files:
        if is_pickle(path):
            raise MuarlError(
                f"{path.name} is refused: loading it could run code",
                where=str(folder),
                why="weights and states are read from safetensors and JSON only",
                next_step="convert it to safetensors on a machine that may run it, and remove the file",
                code=ExitCode.BAD_DATA,
            )


def _read_json(path: Path) -> Any:
    try:
        return strict_json.loads(path.read_bytes(), _MAX_JSON)
    except FileNotFoundError:
        raise _bad(path.parent, f"{path.name} is missing") from None
    except ValueError as error:
        raise _bad(path.parent, f"{path.name}: {error}") from error


def _bad(folder: Path, why: str) -> MuarlError:
    return MuarlError(
        f"the checkpoint {folder.name} is not intact",
        where=str(folder),
        why=why,
        next_step="use another checkpoint of the run",
        code=ExitCode.BAD_DATA,
    )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
