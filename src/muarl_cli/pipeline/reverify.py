"""Verification once more, from the log alone: what was accepted must pass the filters again.

Nothing is believed that the run said about itself: verdicts are made anew from `episodes.jsonl`, the scenario and the
task, and the calls are carried out again on fresh worlds. Invariant: log and verdicts are left as they are.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.pipeline.verification import write_card
from muarl_cli.records.run import read_settings
from muarl_cli.reports.run_view import load_runs
from muarl_cli.verification.filters import chain
from muarl_cli.verification.replay import replay, state
from muarl_cli.verification.subject import Filter, Subject
from muarl_cli.verification.verify import verify


def run(folder: Path, accept: str, benchmarks: bool = False) -> dict[str, Any]:
    """Verify all accepted episodes of a run again.

    `accept` names the filters, as the setting does; empty = those of the run. With `benchmarks` the card is written
    again, with the overlap with every benchmark that is installed. Returns `{"accepted", "passed", "carried
    out", "failed": {episode id: reasons}, "refused_for", "twice"}`. Raises `MuarlError` where there is nothing to
    verify.
    """
    settings = read_settings(folder) or {}
    if "accept" not in settings and not accept:
        raise MuarlError(
            "this is no folder of synth-coldstart",
            where=str(folder),
            next_step="name one, or say with --accept verified which filters are meant",
            code=ExitCode.MISSING_INPUT,
        )
    accept = accept or str(settings["accept"])
    view = load_runs([folder])[0]
    chosen = [e for e in view.episodes if view.verdicts.get(e.episode_id, {}).get("accepted")]
    if not chosen:
        raise MuarlError("no episode was accepted", where=str(folder), code=ExitCode.MISSING_INPUT)
    checks = dict(chain(accept, int(settings.get("max_message_words", 1 << 30))))
    if accept != "all":
        checks |= {Filter.STATE: state, Filter.REPLAY: replay}
    failed: dict[str, list[str]] = {}
    codes: Counter[str] = Counter()
    carried_out = 0
    for episode in chosen:
        scenario, task = view.tasks.get(episode.task_hash, (None, None))
        if scenario is None:
            failed[episode.episode_id] = [f"state/no_task: the task {episode.task_id} is not known here"]
            codes["state/no_task"] += 1
            continue
        subject = Subject(episode, scenario, task)
        verified = verify(subject, checks)
        carried_out += accept != "all" and subject.replayed is not None
        if not verified.accepted:
            failed[episode.episode_id] = [str(reason) for reason in verified.reasons]
            codes.update({reason.key for reason in verified.reasons})
    if benchmarks:
        scenarios = {f"{s.source}:{s.name}": s for s, _ in view.tasks.values()}
        write_card(folder, view.episodes, view.verdicts, [scenarios[name] for name in sorted(scenarios)], settings["split"], True)
    ids = Counter(e.episode_id for e in view.episodes)
    return {
        "filters": [f.value for f in checks],
        "accepted": len(chosen),
        "passed": len(chosen) - len(failed),
        "carried_out_again": carried_out,
        "refused_for": dict(sorted(codes.items())),
        "twice": sum(n - 1 for n in ids.values()),
        "failed": failed,
    }
