"""The command line: one file a subcommand, which reads options, resolves settings, calls a stage and prints the result.

Nothing heavy is imported before a command has been chosen: `muarl --help` costs the interpreter, typer and little else.
"""
