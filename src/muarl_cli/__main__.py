"""`python -m muarl_cli` is `muarl`."""

from muarl_cli.cli.app import entry

if __name__ == "__main__":
    entry()
