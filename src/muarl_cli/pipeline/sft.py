"""Fine-tuning: from logged conversations to a checkpoint.

Invariant: what was sampled by a policy with the same tokenizer is trained on as sampled; everything else is rendered
once. The held-out episodes are of tasks that no training episode is about. A killed run goes on from its newest
checkpoint to the same bits.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from muarl_cli.conversation.episode import Episode
from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.hashing import digest
from muarl_cli.pipeline.parties import Talker
from muarl_cli.pipeline.policy import DTYPES, Policy, load_policy
from muarl_cli.pipeline.sft_rows import agent_share, held_out, rows_of
from muarl_cli.pipeline.team import Team, model_on, optimiser_of, prepared, run_together
from muarl_cli.pipeline.token_balance import sft_balance
from muarl_cli.records import checkpoint
from muarl_cli.records.lineage import Lineage, Parent, TrainedSet, read_lineage, write_lineage
from muarl_cli.records.log import artifact_hash, iter_episodes, parse_where
from muarl_cli.records.run import RunFolder
from muarl_cli.settings.models import FREE_KEYS, Sft
from muarl_cli.training.steps import sft_steps
from muarl_cli.worlds.catalog import scenario_of

STAGE = "sft"
MADE_HERE = Path("tiny")
"""stands for the folder of a model that no folder was read for"""
BASE = "base"
"""folder, inside the run's, of the tiny model that a run began with"""


def plan(settings: Sft) -> dict[str, Any]:
    """What a run would do, from reading the data. Raises `MuarlError` where a run would find nothing to learn from;
    `steps` is None where only the clock ends it."""
    train, held, tokens = 0, 0, 0
    for episode in _episodes(settings):
        apart = held_out(settings, episode)
        train, held = train + (not apart), held + apart
        tokens += sum(len(event.text) for event in episode.events) // 4
    _require_some(settings, train, held)
    return {
        "episodes": train + held,
        "held_out": held,
        "tokens_per_epoch_about": tokens,
        "steps": sft_steps(train, settings.batch, settings.epochs, settings.max_steps) or None,
        "stop_after_seconds": settings.stop_after_seconds or None,
        "not_known_yet": f"how many episodes are longer than {settings.max_length} tokens and left out",
        "model": settings.model or "tiny, made here",
    }


def _require_some(settings: Sft, train: int, held: int) -> None:
    """Raises `MuarlError` where, of the episodes that `where` names, there is none to learn from."""
    if train:
        return
    fault = f"all {held} episodes are held out" if held else f"no episode passes where={settings.where!r}"
    raise MuarlError(
        fault,
        where=", ".join(settings.data),
        why=f"their tasks fall into eval_share={settings.eval_share:g}" if held else "",
        next_step="give more data, or set eval_share=0" if held else "loosen --where, or give other data",
        code=ExitCode.BAD_DATA,
    )


def run(settings: Sft, out: Path, talk: Talker) -> dict[str, Any]:
    if not settings.data:
        raise MuarlError(
            "there is nothing to learn from",
            next_step="name an episode log or a run folder with --data",
            code=ExitCode.USAGE,
        )
    return run_together(settings, partial(_trainer, settings, None), partial(_lead, settings, out, talk))


def _lead(settings: Sft, out: Path, talk: Talker, team: Team) -> dict[str, Any]:
    with RunFolder.open(out, STAGE, settings.model_dump(mode="json"), free=FREE_KEYS) as folder:
        if folder.summary is not None:
            talk.say("nothing to do: this run is complete")
            return folder.summary
        episodes = list(_episodes(settings))
        apart = sum(held_out(settings, episode) for episode in episodes)
        _require_some(settings, len(episodes) - apart, apart)
        talk.say(f"{len(episodes)} episodes")
        started = checkpoint.load_latest(out, talk.warn)
        policy = _start(settings, episodes, started, talk)
        if not settings.model and started is None:
            _keep_base(out / BASE, policy, folder, settings.seed)
        policy.model = prepared(policy.model, settings)
        rows = rows_of(settings, policy.chat(), policy.revision, episodes, talk)
        train, held, long = rows.train, rows.held, rows.long
        summary = _train(
            _Run(settings, out, folder, policy, _lineage(settings, folder, episodes), started, team), train, held, talk
        )
        summary |= {"episodes": len(episodes), "left_out": len(long), "agent_share": agent_share(train)}
        if rows.unsaid:
            summary["not_expressible"] = rows.unsaid
        others = {"held_out": held, "too_long": long}
        summary["tokens"] = sft_balance(rows.of, train, others, folder.metrics())
        write_lineage(out, _lineage(settings, folder, episodes))
        talk.say(f"next: muarl rollout --model {out}, muarl rl-train --model {out}, muarl eval --model {out}")
        return folder.finish(summary)


def _episodes(settings: Sft) -> Iterator[Episode]:
    where = parse_where(settings.where) if settings.where else None
    for place in settings.data:
        for episode in iter_episodes(place, where, rows=place != "-"):
            if episode.valid:
                yield episode


def _start(settings: Sft, episodes: Sequence[Episode], started: checkpoint.Checkpoint | None, talk: Talker) -> Policy:
    """The model to go on with: the run's own checkpoint, the named model, or a tiny one made from nothing."""
    if started is not None:
        talk.say(f"resuming from step {started.step}")
        return load_policy(str(started.folder), settings.rendering, settings.dtype, talk, chat=settings.chat)
    if settings.model:
        return load_policy(settings.model, settings.rendering, settings.dtype, talk, chat=settings.chat)
    from muarl_cli.training.tiny_model import TinySpec, new_model
    from muarl_cli.training.tokenizer import make_tokenizer
    from muarl_cli.training.warmup import WarmupSpec, copy_warmup

    own = settings.tiny
    tokenizer = make_tokenizer(texts_of(episodes), own.vocab)
    spec = TinySpec(own.layers, own.width, own.heads, own.kv_heads, own.head_size, own.vocab, settings.max_length)
    model = new_model(spec, tokenizer, settings.seed)
    talk.say(f"a tiny model: {sum(p.numel() for p in model.parameters()):,} weights, {len(tokenizer)} tokens")
    if own.warmup_steps:
        with talk.progress(own.warmup_steps, "copy warm-up") as bar:
            for row in copy_warmup(
                model, tokenizer, WarmupSpec(own.warmup_steps, own.warmup_lr, own.warmup_batch), settings.seed
            ):
                bar.advance(loss=round(row["loss"], 3), accuracy=round(row["accuracy"], 3))
    rendering = "compact" if settings.rendering == "auto" else settings.rendering
    dtype = DTYPES["float32" if settings.dtype == "auto" else settings.dtype]
    dialect = "nonthinking" if settings.chat == "auto" else settings.chat
    return Policy(model, tokenizer, MADE_HERE, rendering, dtype, dialect)


def _keep_base(place: Path, policy: Policy, folder: RunFolder, seed: int) -> None:
    """Leave the tiny model as it was before the first step, so that it can be scored beside what it became. Its lineage
    says that it was trained on no task. Written aside and renamed: there or not, never half."""
    from muarl_cli.training.tiny_model import save_model

    if place.exists():  # an earlier, interrupted start of this run made the same one
        return
    aside = place.with_name(f".{place.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    save_model(policy.model, policy.tokenizer, aside, policy.rendering, dialect=policy.dialect)
    _leave_canary(policy.model, aside)
    own = Lineage.make(stage=STAGE, run_id=folder.run_id, settings_hash=folder.settings_hash, seeds={"seed": seed})
    write_lineage(aside, own)
    os.replace(aside, place)


def texts_of(episodes: Sequence[Episode]) -> list[str]:
    """The texts of episodes as a tokenizer meets them, turn by turn, with the role names between them."""
    from muarl_cli.conversation.tools import ToolCall
    from muarl_cli.training.chat_format import compact_tool
    from muarl_cli.training.hermes import render_call

    texts: list[str] = []
    scenarios = sorted({e.scenario for e in episodes})
    for name in scenarios:
        scenario = scenario_of(*name.split(":", 1))
        system = "\n".join([scenario.compact, *(compact_tool(tool) for tool in scenario.tools)])
        texts += [f"system\n{system}"] * (1 + len(episodes) // 20)
    texts += ["\n\n", "\n"] * len(episodes)
    for episode in episodes:
        for event in episode.events:
            if event.text:
                texts.append(f"{'assistant' if event.actor == 'agent' else 'user'}\n\n{event.text}")
            if event.call and event.call.arguments is not None:
                texts.append(render_call(ToolCall(event.call.id, event.call.name, event.call.arguments)))
    return texts


def _lineage(settings: Sft, folder: RunFolder, episodes: Sequence[Episode]) -> Lineage:
    parents: list[tuple[Parent, Lineage | None]] = []
    trained = []
    hashes = {e.task_hash for e in episodes}
    for place in settings.data:
        known = None if place == "-" else read_lineage(Path(place) if Path(place).is_dir() else Path(place).parent)
        artifact = "" if place == "-" else artifact_hash(place)
        parents.append((Parent("data", Path(place).name, artifact), known))
        marks = known.marks_of(hashes) if known else [mark_only(h) for h in sorted(hashes)]
        trained.append(TrainedSet.of(artifact or digest(sorted(hashes)), STAGE, marks))
    if settings.model:
        path = checkpoint.resolve_model_path(Path(settings.model), lambda line: None)
        parents.append((Parent("model", path.name, ""), read_lineage(path)))
    return Lineage.make(
        stage=STAGE,
        run_id=folder.run_id,
        settings_hash=folder.settings_hash,
        seeds={"seed": settings.seed},
        parents=parents,
        trained_on=trained,
    )


def mark_only(task_hash: str) -> Any:
    """A task of which nothing but its hash is known."""
    from muarl_cli.records.lineage import TaskMark

    return TaskMark(task_hash)


@dataclass
class _Run:
    settings: Sft
    out: Path
    folder: RunFolder
    policy: Policy
    lineage: Lineage
    started: checkpoint.Checkpoint | None
    team: Team

    @property
    def model_folder(self) -> Path:
        """Where the other ranks find the model that this one has."""
        return self.out / BASE if self.policy.folder == MADE_HERE else self.policy.folder


def _trainer(settings: Sft, own: Any, ranks: Any, folder: str, dtype: str, train: Sequence[TokenRow]) -> Any:
    """This rank's trainer; `own` is the model on rank 0, the others load it from `folder`."""
    from muarl_cli.training.sft import SftSpec, SftTrainer

    spec = SftSpec(
        batch=settings.batch,
        micro_batch_tokens=settings.micro_batch_tokens,
        epochs=settings.epochs,
        max_steps=settings.max_steps,
        lr=settings.lr,
        schedule=settings.schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        betas=(settings.betas[0], settings.betas[1]),
        grad_clip=settings.grad_clip,
    )
    model = model_on(ranks, own, folder, dtype, settings)
    return SftTrainer(model, train, spec, settings.seed, optimiser_of(settings, ranks))


def _train(own: _Run, train: Sequence[TokenRow], held: Sequence[TokenRow], talk: Talker) -> dict[str, Any]:
    settings, team = own.settings, own.team
    make = partial(_trainer, settings, own.policy.model)
    trainer = team.open(make, str(own.model_folder), dtype_of(own.policy.model), train)
    best, spent = None, 0.0
    if own.started is not None:
        state = own.started.state
        team("read", str(own.started.folder / checkpoint.TRAINER), state["trainer"])
        best, spent = state["best"], state["seconds"]
        if state["is_best"]:
            checkpoint.mark_again(own.out, own.started.step, checkpoint.Mark.BEST)
    own.folder.keep_metrics_until(trainer.position.step)
    begun = time.monotonic() - spent
    box = settings.stop_after_seconds
    row: dict[str, Any] = next(iter(own.folder.metrics()[-1:]), {})
    with talk.progress(trainer.total_steps, "steps") as bar:
        bar.advance(trainer.position.step)
        while not trainer.done and not (box and time.monotonic() - begun >= box):
            row = dict(team("step", min(1.0, (time.monotonic() - begun) / box) if box else None))
            step = trainer.position.step
            last = trainer.done or bool(box and time.monotonic() - begun >= box)
            if held and (last or (settings.eval_every and step % settings.eval_every == 0)):
                row |= {f"eval_{name}": value for name, value in team("eval_loss", held).items()}
            own.folder.log_metrics(step, {name: value for name, value in row.items() if name != "step"})
            bar.advance(loss=round(row.get("loss", float("nan")), 4))
            if last or (settings.save_every and step % settings.save_every == 0):
                better = "eval_loss" in row and (best is None or row["eval_loss"] < best)
                best = row["eval_loss"] if better else best
                is_best = better or not held
                state = {
                    "best": best,
                    "is_best": is_best,
                    "seconds": time.monotonic() - begun if box else 0.0,
                }
                save(own, step, state, checkpoint.Mark.BEST if is_best else None)
    return {
        "steps": trainer.position.step,
        "loss": row.get("loss"),
        "eval_loss": row.get("eval_loss"),
        "eval_accuracy": row.get("eval_accuracy"),
        "checkpoint": checkpoint_hash(own.out, talk),
    }


def checkpoint_hash(out: Path, talk: Talker) -> str | None:
    """Hash of the newest checkpoint's manifest."""
    newest = checkpoint.load_latest(out, talk.warn)
    return newest.hash if newest else None


def save(own: Any, step: int, state: dict[str, Any], mark: checkpoint.Mark | None) -> None:
    """Write a checkpoint: an ordinary model folder, the optimiser as safetensors (a file a rank), the rest as JSON."""
    from muarl_cli.training.shard_files import shard_name
    from muarl_cli.training.tiny_model import save_model

    policy: Policy = own.policy
    weights = None if own.team.trainer.optimiser.whole_model else own.team("weights")
    state = json.loads(json.dumps(state))

    def write_optimiser(path: Path) -> None:
        state["trainer"] = own.team("write", str(path.parent))

    def write_model(folder: Path) -> None:
        save_model(policy.model, policy.tokenizer, folder, policy.rendering, weights, policy.dialect)
        _leave_canary(policy.model, folder)

    checkpoint.save(
        own.out,
        step,
        write_model=write_model,
        write_tensors={shard_name(own.team.ranks): write_optimiser},
        state=state,
        lineage=own.lineage,
        keep_last=own.settings.keep,
        mark=mark,
    )


def _leave_canary(model: Any, folder: Path) -> None:
    """What the model that was just written to `folder` computes, for those who will play it on a server. Of a model
    that is divided among processes no one holds enough to compute: the written one is loaded for that."""
    from muarl_cli.engines.canary import canary_of, write_canary
    from muarl_cli.training.tiny_model import load_model

    dtype = dtype_of(model)
    divided = any(hasattr(weight, "ds_id") for weight in model.parameters())
    write_canary(folder, canary_of(load_model(folder, dtype) if divided else model, dtype))


def dtype_of(model: Any) -> str:
    """The number type of a model's weights, as `load_model` names it."""
    return DTYPES[str(next(model.parameters()).dtype).removeprefix("torch.")]
