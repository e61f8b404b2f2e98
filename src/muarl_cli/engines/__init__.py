"""The engine room: tokens in, tokens and log-probabilities out.

Text exists only at the edges: an engine is given token ids and gives back what it sampled, so that what is trained on
is what was sampled. Every engine declares what it can do (`Capabilities`).
"""
