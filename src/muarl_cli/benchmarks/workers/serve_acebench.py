"""ACEBench's own code, from a checkout, served: its classes, its executor, its checker.

The official executor evaluates text that a model wrote, after rewriting it; some forms of argument (arithmetic, nested
calls, mappings) would be evaluated as Python. Those are refused before, with the official error text; everything else
goes through the official code. Every trial has instances of its own.
"""

import ast
import contextlib
import hashlib
import importlib
import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

KINDS = ("multi_turn", "multi_step")
REFUSED = "an argument of this form is not evaluated"
TURN_ERROR = "Error during execution: {str(e)}"
"""what the official multi-turn executor answers to any error, its braces unfilled"""
SAVED = {
    "BaseApi": ("wifi", "logged_in"),
    "MessageApi": ("inbox",),
    "ReminderApi": ("reminder_list",),
    "FoodPlatform": ("users", "logged_in_users", "orders"),
    "Travel": ("users", "reservations"),
}
"""the official table of what the end state is; its module imports vendors' clients"""

REPAIRS = (
    (("'Super Supreme'", "'Super Supreme Pizza'"),),
    (("get_earliest_message_id", "get_latest_message_id"), ("message_id=3", "message_id=4")),
)
"""what milestones get wrong, tried where nothing else reaches the expected state: a product that no shop has, and the
deletion of the message that the question says to keep"""


class Host:
    """A checkout. Entries are known by language, kind and id."""

    def __init__(self, root: Path) -> None:
        self.root = root
        sys.path.insert(0, str(root))
        for name in ("openai", "wcwidth", "dotenv"):
            sys.modules.setdefault(name, MagicMock())  # clients and drawing: never used here
        self.agents = {k: importlib.import_module(f"model_inference.{k}.APIModel_agent") for k in KINDS}
        self.users = importlib.import_module("model_inference.multi_turn.APIModel_user")
        self.prompts = {
            "en": importlib.import_module("model_inference.prompt_en"),
            "zh": importlib.import_module("model_inference.prompt_zh"),
        }
        self.executors = {
            "multi_turn": importlib.import_module("model_inference.multi_turn.execution_role").EXECUTION,
            "multi_step": importlib.import_module("model_inference.multi_step.execution_role_step").EXECUTION_STEP,
        }
        self.spaces = {k: importlib.import_module(f"model_inference.{k}.{k}_utils") for k in KINDS}
        self.checker = importlib.import_module("model_eval.checker").agent_checker
        self.entries: dict[str, dict[str, Any]] = {}
        self.trials: dict[str, dict[str, Any]] = {}

    def hello(self) -> dict[str, Any]:
        """Who serves, and which commit."""
        command = ["git", "-C", str(self.root), "rev-parse", "--short=8", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True)
        return {"python": platform.python_version(), "revision": found.stdout.strip() or "unknown"}

    # -- data --------------------------------------------------------------------------------------------------------

    def load(self, language: str, kind: str) -> list[dict[str, Any]]:
        """The entries of a language and kind, with the official prompts and a gold that was tried out."""
        folder = self.root / "data_all" / f"data_{language}"
        data = _lines(folder / f"data_agent_{kind}.json")
        answers = {row["id"]: row for row in _lines(folder / "possible_answer" / f"data_agent_{kind}.json")}
        found = []
        for entry in data:
            answer = answers[entry["id"]]
            self.entries[f"{language}:{entry['id']}"] = {"data": entry, "answer": answer, "kind": kind}
            gold, writes, states, passed = self._gold(language, kind, entry, answer)
            found.append(
                {
                    "id": entry["id"],
                    "question": entry["question"],
                    "functions": entry["function"],
                    "classes": entry["involved_classes"],
                    "milestones": answer["mile_stone"],
                    "gold": gold,
                    "writes": writes,
                    "states": states,
                    "gold_passes": passed,
                    "prompts": self._prompts(language, kind, entry),
                }
            )
        return found

    def _prompts(self, language: str, kind: str, entry: dict[str, Any]) -> dict[str, str]:
        """The official texts: the agent's system prompt, what stands around the history, the user's system prompt."""
        agent, upper, classes = self.agents[kind], language.upper(), entry["involved_classes"]
        if kind == "multi_step":
            upper = "ZH"  # officially the language is not passed on: the Chinese prompt serves both
        system = getattr(agent, f"MULTI_TURN_AGENT_PROMPT_SYSTEM_{upper}")
        rules = ""
        if kind == "multi_turn":
            for name, label in (("Travel", "TRAVEL"), ("BaseApi", "BASE")):
                if name in classes:
                    rules += getattr(self.prompts[language], f"{label}_PROMPT_{upper}")
        around = getattr(agent, f"MULTI_TURN_AGENT_PROMPT_USER_{upper}")
        before, after = around.format(functions=entry["function"], history="\0").split("\0")
        user = ""
        if kind == "multi_turn":
            label = "BASE" if "BaseApi" in classes else "TRAVEL"
            user = getattr(self.users, f"SYSTEM_PROMPT_{label}_{upper}").format(instruction=entry["question"])
        return {"system": system + rules, "rules": rules, "before": before, "after": after, "user": user}

    def _gold(self, language: str, kind: str, entry: dict[str, Any], answer: dict[str, Any]) -> Any:
        """The first of the milestone lists that reaches the expected state: as written with quotes mended, then with
        the logins it takes for granted, then with what is known to be wrong put right; where none does, the first."""
        stones = answer["mile_stone"]
        lists = stones if stones and isinstance(stones[0], list) else [stones]
        plain = [[_mended(stone) for stone in one] for one in lists]
        ready = [_with_logins(entry, answer, one) for one in plain]
        tried = [self._try(language, kind, entry, one) for one in (*plain, *ready)]
        for repair in REPAIRS:
            if not any(one[3] for one in tried):
                mended = [[_replaced(text, repair) for text in one] for one in ready]
                tried += [self._try(language, kind, entry, one) for one in mended]
        return next((one for one in tried if one[3]), tried[0])

    def _try(self, language: str, kind: str, entry: dict[str, Any], texts: list[str]) -> Any:
        name = f"gold_{entry['id']}"
        self.open(name, language, entry["id"])
        initial = self.state(name)
        gold, writes = [], []
        for text in texts:
            calls = _parsed(text)
            done = self.execute(name, text)
            gold += calls
            writes += [bool(done["writes"]) and i == len(calls) - 1 for i in range(len(calls))]
        verdict = self.check(name, texts)
        states = [initial, self.state(name)]
        self.close(name)
        return gold, writes, states, verdict["valid"]

    # -- execution ---------------------------------------------------------------------------------------------------

    def open(self, trial: str, language: str, entry: str) -> None:
        """Fresh instances under the trial's own name."""
        known = self.entries[f"{language}:{entry}"]
        data, kind = known["data"], known["kind"]
        executor = self.executors[kind](trial, data["initial_config"], data["involved_classes"], "0", language)
        self.spaces[kind].execute_agent_func_call(
            [], data["initial_config"], data["involved_classes"], trial, "0", language=language
        )
        self.trials[trial] = {**known, "executor": executor, "known": {}, "saved": False}
        self._changed(self.trials[trial], trial)

    def decode(self, kind: str, text: str) -> bool:
        """Whether the official multi-turn loop sends this message of the agent to execution, not to the user."""
        if kind == "multi_step" or not re.search(r"\[.*\]", text):
            return kind == "multi_step"
        agent = object.__new__(self.agents[kind].APIAgent_turn)
        with contextlib.suppress(Exception):
            if _unsafe(text):
                return True
            agent.decode_function_list(text)
            return True
        return False

    def execute(self, trial: str, text: str) -> dict[str, Any]:
        """Carry out one message of the agent: its calls, the answer to each, and the official reply as text."""
        own = self.trials[trial]
        kind = own["kind"]
        if _unsafe(text):
            answers: Any = list(TURN_ERROR) if kind == "multi_turn" else [f"Error during execution: {REFUSED}"]
        else:
            reply, instances = own["executor"].respond([{"message": text}])
            answers = reply["message"]
            own["saved"] = own["saved"] or (isinstance(instances, dict) and bool(instances))
        calls = []
        with contextlib.suppress(Exception):
            calls = _parsed(text)
        if isinstance(answers, str):  # the reminder that answers what is no call
            return {"calls": [], "texts": [], "ok": False, "reply": str(answers), "writes": []}
        failed = answers == list(TURN_ERROR)
        texts = [TURN_ERROR] if failed else [a if isinstance(a, str) else json.dumps(a) for a in answers]
        ok = not failed and not any(_failed(answer) for answer in answers)
        return {
            "calls": calls,
            "texts": texts,
            "ok": ok,
            "reply": str(answers),
            "writes": self._changed(own, trial),
        }

    def words(self, text: str) -> str:
        """What the official multi-step executor answers to a message without a call."""
        executor = object.__new__(self.executors["multi_step"])
        with contextlib.suppress(Exception):
            if not _unsafe(text) and executor.decode_function_list(text) == []:
                return "[]"
        return str(executor.respond([{"message": ")("}])[0]["message"])

    def state(self, trial: str) -> str:
        """A hash of what the official end state is."""
        return _hash(sorted(self.trials[trial]["known"].items()))

    def close(self, trial: str) -> None:
        own = self.trials.pop(trial, None)
        if own:
            space = vars(self.spaces[own["kind"]])
            for name in [n for n in space if n.startswith(f"{trial}_0_")]:
                del space[name]

    # -- scores ------------------------------------------------------------------------------------------------------

    def check(self, trial: str, process: list[str]) -> dict[str, Any]:
        """The official verdict on the trial's end state and on the messages that went to execution, in order.

        `strict` is the same with classes compared that the answer misspells, which the official check passes over.
        """
        own = self.trials[trial]
        truth = own["answer"]["ground_truth"]
        truth = truth if isinstance(truth, list) else [truth]
        result = self.result(trial)
        valid, errors = self._end_to_end(result, truth)
        known = {_plain_name(name): name for name in SAVED}
        mended = [{known.get(_plain_name(k), k): v for k, v in row.items()} for row in truth]
        return {
            "valid": valid,
            "process": 1.0 if valid else _process(process, own["answer"]["mile_stone"]),
            "strict": valid and self._end_to_end(result, mended)[0],
            "errors": errors[:3],
        }

    def result(self, trial: str) -> list[dict[str, Any]]:
        """The end state as the official result files hold it: classes with their saved attributes, as JSON values;
        empty where nothing was ever executed."""
        own = self.trials[trial]
        if not own["saved"]:
            return []
        rows = [
            {name: {key: value for key, value in vars(instance).items() if key in SAVED[name]}}
            for name, instance in self._instances(own, trial).items()
        ]
        return json.loads(json.dumps(rows))

    def _end_to_end(self, result: list[dict[str, Any]], truth: list[dict[str, Any]]) -> tuple[bool, list[str]]:
        """As `eval_main.agent_eval`: as many classes as expected, and each one found equal; a class of the answer that
        the result does not have is passed over."""
        if len(truth) != len(result):
            return False, ["wrong number of class"]
        errors: list[str] = []
        for expected in truth:
            match = next((row for row in result if set(row) == set(expected)), None)
            verdict: Any = self.checker(match, expected) if match else {"valid": True}
            if not verdict["valid"]:
                errors += [str(error)[:300] for error in verdict["error"]]
        return not errors, errors

    def _instances(self, own: dict[str, Any], trial: str) -> dict[str, Any]:
        space = vars(self.spaces[own["kind"]])
        return {name: space[f"{trial}_0_{name.lower()}_instance"] for name in own["data"]["involved_classes"]}

    def _changed(self, own: dict[str, Any], trial: str) -> list[list[str]]:
        """[class, attribute] of the saved attributes that differ from when this was last asked."""
        now = {
            f"{kind}.{name}": _hash(value)
            for kind, instance in self._instances(own, trial).items()
            for name, value in vars(instance).items()
            if name in SAVED[kind]
        }
        before, own["known"] = own["known"], now
        return [place.split(".", 1) for place in now if now[place] != before.get(place)]


def _tree(text: str) -> list[ast.expr]:
    """The calls of a message as the official decoder finds them; raises where it would."""
    func = text[1:] if text[0] == " " else text
    func = func if func.startswith("[") else "[" + func
    func = func if func.endswith("]") else func + "]"
    body = ast.parse(func.strip("[]'"), mode="eval").body
    return list(body.elts) if isinstance(body, (ast.Tuple, ast.List)) else [body]


def _unsafe(text: str) -> bool:
    """Whether the official code would evaluate more than one plain call with literal arguments."""
    try:
        nodes = _tree(text)
    except Exception:
        return False  # the official decoder gives up as well
    for node in (n for n in nodes if isinstance(n, ast.Call)):
        for argument in node.keywords:
            if isinstance(argument.value, (ast.Dict, ast.Call)):
                return True
            inner = list(ast.walk(argument.value))
            if any(isinstance(one, ast.Lambda) for one in inner):
                return True
            if any(isinstance(one, ast.BinOp) and not _arithmetic(one) for one in inner):
                return True
            if argument.arg is None or not argument.arg.isidentifier():
                return True
    return False


def _arithmetic(node: ast.AST) -> bool:
    """Whether it is a sum, a difference, a product or a quotient of plain numbers, which may be evaluated."""
    if isinstance(node, ast.BinOp):
        plain = isinstance(node.op, (ast.Add, ast.Sub, ast.Mult, ast.Div))
        return plain and _arithmetic(node.left) and _arithmetic(node.right)
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _parsed(text: str) -> list[dict[str, Any]]:
    """The calls of a message as names and plain arguments, for the log."""
    calls = []
    for node in _tree(text):
        if isinstance(node, ast.Call):
            arguments = {keyword.arg or "": _literal(keyword.value) for keyword in node.keywords}
            calls.append({"name": ast.unparse(node.func), "arguments": arguments})
    return calls


def _literal(node: ast.expr) -> Any:
    with contextlib.suppress(ValueError, TypeError, SyntaxError):
        return json.loads(json.dumps(ast.literal_eval(node)))
    return ast.unparse(node)


def _mended(stone: str) -> str:
    """A milestone with its values quoted anew where a quote inside of one breaks it."""
    with contextlib.suppress(SyntaxError, ValueError, IndexError):
        _tree(stone.strip())
        return stone.strip()
    values = re.compile(r"(\w+)='(.*?)'(?=\s*,\s*\w+=|\s*\)\s*[\],])", re.DOTALL)
    return values.sub(lambda found: f"{found[1]}={json.dumps(found[2], ensure_ascii=False)}", stone.strip())


def _replaced(text: str, repair: tuple[tuple[str, str], ...]) -> str:
    for wrong, right in repair:
        text = text.replace(wrong, right)
    return text


def _with_logins(entry: dict[str, Any], answer: dict[str, Any], texts: list[str]) -> list[str]:
    """The texts, with the calls in front without which they cannot work: what the expected state has switched on, and
    whom it has logged in."""
    truth = answer["ground_truth"] if isinstance(answer["ground_truth"], list) else [answer["ground_truth"]]
    expected = {_plain_name(name): value for row in truth for name, value in row.items()}
    device, food = expected.get("base", {}), expected.get("foodplatform", {})
    initial = entry["initial_config"].get("BaseApi", {})
    steps = {"logged_in": "login_device", "wifi": "turn_on_wifi"}
    calls = [f"{call}()" for key, call in steps.items() if device.get(key) and not initial.get(key, key == "logged_in")]
    for user in food.get("logged_in_users", ()):
        password = food["users"][user]["password"]
        calls.append(f"login_food_platform(username={user!r}, password={password!r})")
    missing = [call for call in calls if not any(call.split(", ")[0] in text for text in texts)]
    if any(call.startswith("login_food") for call in missing):  # which the device has to be on for, now and not later
        missing = calls
    return [f"[{call}]" for call in missing] + texts


def _process(process: list[str], stones: list[Any]) -> float:
    """As `eval_main.agent_eval_process`: the share of the milestones that were sent word for word and in order; the
    best of the alternatives, each rounded to three digits."""
    if stones and isinstance(stones[0], list):
        return max(round(_share(process, one), 3) for one in stones)
    return _share(process, stones)


def _share(process: list[str], stones: list[str]) -> float:
    found = at = 0
    for stone in stones:
        while at < len(process):
            at += 1
            if process[at - 1].strip() == stone.strip():
                found += 1
                break
    return found / len(stones) if stones else 1.0


def _failed(answer: Any) -> bool:
    if isinstance(answer, str):
        return answer.startswith("Error during execution")
    return isinstance(answer, dict) and answer.get("status") is False


def _plain_name(name: str) -> str:
    """A class name without what the answers misspell."""
    return re.sub(r"(ap|p)?i$", "", name.lower())


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
