"""Benchmarks made by others: their tasks, worlds and rules of scoring, behind the scenario protocol.

Data and tools come from the benchmark's own package at run time; nothing of theirs is kept here. What is ours is the
thin layer that makes a world cheap to open and a reward computable offline.
"""
