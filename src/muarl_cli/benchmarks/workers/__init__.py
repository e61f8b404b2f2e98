"""Programs that other interpreters run: they serve a benchmark's own code over stdin and stdout (`worlds.server`).

They must import nothing of this package, and nothing but the standard library before they are asked for something.
"""
