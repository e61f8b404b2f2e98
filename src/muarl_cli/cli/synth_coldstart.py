"""`muarl synth-coldstart`: a teacher demonstrates; what it wins is kept.

Examples:
  muarl synth-coldstart --profile tiny --scenarios retail,library --count 200 --out runs/cold
  muarl synth-coldstart --scenarios 9 --teacher-model gpt-4o --user-model gpt-4o --max-usd 5
"""

from __future__ import annotations

from muarl_cli.cli import options as o
from muarl_cli.cli.launch import stage_command

synth_coldstart = stage_command(
    "synth_coldstart",
    o.flag("scenarios", str, "the first N of the printed order, or names separated by commas"),
    o.flag("count", int, "accepted trajectories wanted"),
    o.flag("agent", str, "scripted teachers, as careful=0.4,hasty=0.6", setting="teacher.agent"),
    o.flag("teacher_model", str, "a teacher model instead", setting="teacher.model"),
    o.flag("teacher_base_url", str, "address that serves the teacher", setting="teacher.base_url"),
    o.flag("queries", str, "template, or written by the teacher model"),
    o.flag("tools", str, "executable, or simulated by --tool-model"),
    o.flag("tool_model", str, "a model that plays the tools", setting="tool.model"),
    o.flag("tool_base_url", str, "address that serves the tool model", setting="tool.base_url"),
    o.flag("judges_models", str, "models that vote, separated by commas", setting="judges.models"),
    o.flag("accept", str, "verified, outcome or all"),
    *o.USER,
    *o.TALKING,
)
