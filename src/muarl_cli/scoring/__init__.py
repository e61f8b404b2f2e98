"""Scoring: statistics over tasks, the summary of an evaluation, behaviour metrics.

Everything here is a function of stored episodes; nothing knows an engine, a trainer or a model.
"""
