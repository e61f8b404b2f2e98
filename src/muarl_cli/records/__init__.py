"""Records: the episode log, checkpoints, lineage, run folders and the spend ledger.

Nothing acknowledged is lost. Records know nothing of engines or training, and never import torch: whoever owns tensors
passes a callback that writes them.
"""
