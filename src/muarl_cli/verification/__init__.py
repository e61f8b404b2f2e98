"""Verification of demonstrations: filters in order of cost, each with its reason, and the card of what was kept."""
