"""The five stages as functions: settings in, artifacts out. They compose the other rooms and hold no logic.

Each stage is a module with `plan(settings) -> dict` (counts, tokens, cost, disk; touches nothing) and
`run(settings, out, talk) -> dict` (does it, or goes on where it stopped; returns the summary).
"""
