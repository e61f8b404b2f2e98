"""A `Host` for `workers/serving.py` that serves a counter as a world, and misbehaves when it is asked to.

Nothing but the standard library: it runs in a process of its own.
"""

import os
import time


class Host:
    def __init__(self, root):
        self.root, self.counters = root, {}

    def hello(self):
        if not self.root.exists():
            raise FileNotFoundError(f"{self.root} is not there")
        return {"python": "3", "revision": "r1", "domains": ["counter"]}

    def spec(self, domain):
        number = {"type": "object", "properties": {"by": {"type": "integer"}}, "required": ["by"]}
        tool = {"name": "add", "description": "Adds to the counter.", "parameters": number, "class": "write"}
        bad = [{**tool, "name": name} for name in ("die", "hang", "break")]
        look = {"name": "look", "description": "Shows it.", "parameters": {"type": "object"}, "class": "read"}
        return {
            "policy": "Count.",
            "greeting": "Hi!",
            "guidelines": "Be a user.",
            "tools": [tool, look, *bad],
            "terminal": [],
            "splits": ["test"],
        }

    def tasks(self, domain, split):
        gold = [{"name": "look", "arguments": {}}, {"name": "add", "arguments": {"by": 2}}]
        row = {"brief": {"instruction": "Count two."}, "prompt": "p ###STOP###", "writes": [1], "initial": {"at": 0}}
        return [
            {"id": str(n), **row, "gold": gold, "communicate": ["two"], "bases": ["db", "communicate"]}
            for n in range(6)
        ]

    def open(self, episode, domain, split, task):
        print("what served code prints must not reach the protocol")
        self.counters[episode] = 0

    def call(self, episode, name, arguments, requestor):
        if name == "die":
            os._exit(3)
        if name == "hang":
            time.sleep(60)
        if name == "break":
            raise RuntimeError("a bug of the served code")
        self.counters[episode] += arguments.get("by", 0)
        writes = [{"entity": "counter", "id": "1", "owner": "u"}] if name == "add" else []
        return {"text": str(self.counters[episode]), "ok": True, "writes": writes}

    def state(self, episode):
        return str(self.counters[episode])

    def reward(self, episode, messages, outputs):
        final = self.counters[episode]
        said = any("two" in (m.get("content") or "") for m in messages if m["role"] == "assistant")
        met = final == 2 and (said or not outputs)
        return {
            "reward": float(met),
            "state": {"initial": "0", "final": str(final), "gold": "2"},
            "detail": {"bases": {"db": final == 2, "communicate": said}},
        }

    def drop(self, episode):
        self.counters.pop(episode, None)

    def held(self):
        return len(self.counters)

    def pid(self):
        return os.getpid()
