"""The list of packages, which pyproject.toml cannot compute: everything under src/ plus the two data folders that lie
at the top of the repository. All other metadata is in pyproject.toml."""

from setuptools import find_packages, setup

setup(packages=[*find_packages("src"), "muarl_cli.stages", "muarl_cli.templates"])
