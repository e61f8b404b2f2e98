"""muarl: train agents that use tools while talking to a user (MUA-RL, arXiv 2508.18669).

One conversation loop; five stages that differ only in who plays the agent, who plays the user, which world answers
the tools, and what is done with the record.
"""

__version__ = "0.1.0"
