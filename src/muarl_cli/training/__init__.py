"""The training room: the token-exact chat format, the tiny model, SFT and GRPO.

Nothing here runs a conversation or writes a run folder: trainers take token rows and give metrics and state, tensors
and JSON, which other rooms store.
"""
