"""The conversation room: messages, events, the loop and its scheduler.

Agents, users and worlds are known here as protocols only; nothing in this package imports an engine, a trainer or a
concrete scenario.
"""
