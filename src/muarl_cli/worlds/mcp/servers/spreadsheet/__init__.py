"""Workbooks of a chain of branches."""
