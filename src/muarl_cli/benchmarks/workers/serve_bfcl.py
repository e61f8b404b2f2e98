"""BFCL's own code (`bfcl-eval`, in an environment of its own), served: its data, its executor and its checkers.

The official executor evaluates strings of Python, so a call reaches it only when its name is a public method of the
entry's classes and its argument names are identifiers; values are JSON, whose `repr` is a literal. Every trial has
instances under a name of its own, which are dropped when it closes.
"""

import ast
import contextlib
import hashlib
import importlib
import inspect
import json
import keyword
import os
import platform
import sys
import types
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

UNSAFE = "muarl_refused_call()"
"""stands for a call that is never evaluated; evaluating it is an unknown name, an error like the original's"""
CHECKED = "muarl"
"""the model name that the parallel checker looks up"""


class Host:
    """One version of the package. `entries[category]` are the official entries with tools and gold; `root` is a folder
    for what the package writes when it is imported."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        os.environ["BFCL_PROJECT_ROOT"] = str(root)
        for name in ("tree_sitter", "tree_sitter_java", "tree_sitter_javascript", "tenacity"):
            sys.modules.setdefault(name, MagicMock())  # parsers of Java and JavaScript answers, retries: never used
        from bfcl_eval.constants import category_mapping as names
        from bfcl_eval.constants import default_prompts, eval_config
        from bfcl_eval.eval_checker.multi_turn_eval import multi_turn_checker, multi_turn_utils

        self.prefix = names.VERSION_PREFIX
        self.config, self.prompts, self.utils = eval_config, default_prompts, multi_turn_utils
        self.checker = multi_turn_checker.multi_turn_checker
        self.entries: dict[str, dict[str, Any]] = {}
        self.trials: dict[str, dict[str, Any]] = {}
        self.check_number = 0

    def hello(self) -> dict[str, Any]:
        """Who serves."""
        return {"python": platform.python_version(), "revision": self.prefix}

    # -- data --------------------------------------------------------------------------------------------------------

    def load(self, category: str) -> dict[str, Any]:
        """What the runner needs of a category: questions, tools as the official loop offers them, gold calls."""
        from bfcl_eval.model_handler import utils as model_utils

        entries = self._official(category)
        answers = {e["id"]: e["ground_truth"] for e in self._lines(self.config.POSSIBLE_ANSWER_PATH, category)}
        self.entries[category] = {entry["id"]: {**entry, "ground_truth": answers[entry["id"]]} for entry in entries}
        style = self._style()
        found = []
        for entry in self.entries[category].values():
            held = entry.get("missed_function") or {}
            functions = [*entry["function"], *(doc for docs in held.values() for doc in docs)]
            tools = model_utils.convert_to_tool(functions, model_utils.GORILLA_TO_OPENAPI, style)
            found.append(
                {
                    "id": entry["id"],
                    "turns": self._turns(entry),
                    "tools": tools,
                    "held": {turn: [doc["name"] for doc in docs] for turn, docs in held.items()},
                    "classes": entry.get("involved_classes", []),
                    **self._gold(entry, category),
                }
            )
        limit = self.prompts.MAXIMUM_STEP_LIMIT
        return {"prefix": self.prefix, "step_limit": limit, "entries": found}

    def _official(self, category: str) -> list[dict[str, Any]]:
        """Entries with their function documents, as this version's own loader makes them."""
        with contextlib.suppress(ImportError):  # V4
            from bfcl_eval.utils import load_dataset_entry

            return load_dataset_entry(category)
        return self._official_v3(category)

    def _official_v3(self, category: str) -> list[dict[str, Any]]:
        """V3 has the steps of loading in its command line, which imports every vendor's client: done here."""
        from bfcl_eval.constants.category_mapping import MULTI_TURN_FUNC_DOC_FILE_MAPPING as FILES
        from bfcl_eval.model_handler.utils import func_doc_language_specific_pre_processing as hinted

        entries = self._lines(self.config.PROMPT_PATH, category)
        for entry in entries:
            if category.startswith("multi_turn"):
                paths = [self.config.MULTI_TURN_FUNC_DOC_PATH / FILES[name] for name in entry["involved_classes"]]
                docs = [json.loads(line) for path in paths for line in path.read_text().splitlines() if line.strip()]
                held = entry.get("missed_function", {})
                missing = {name for names in held.values() for name in names}
                by_name = {doc["name"]: doc for doc in docs}
                entry["missed_function"] = {turn: [by_name[n] for n in names] for turn, names in held.items()}
                entry["function"] = [doc for doc in docs if doc["name"] not in missing]
                for docs in entry["missed_function"].values():
                    hinted(docs, category)  # V3 adds the hint whenever it compiles the tools
            hinted(entry["function"], category)
        return entries

    def _lines(self, folder: Path, category: str) -> list[dict[str, Any]]:
        text = (folder / f"{self.prefix}_{category}.json").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.strip()]

    def _style(self) -> Any:
        with contextlib.suppress(ImportError):
            from bfcl_eval.constants.enums import ModelStyle

            return ModelStyle.OPENAI_COMPLETIONS
        from bfcl_eval.model_handler.model_style import ModelStyle

        return getattr(ModelStyle, "OPENAI_COMPLETIONS", None) or ModelStyle.OpenAI_Completions

    def _turns(self, entry: Any) -> list[Any]:
        held = entry.get("missed_function") or {}
        more = [{"role": "user", "content": self.prompts.DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC}]
        return [more if str(i) in held else messages for i, messages in enumerate(entry["question"])]

    def _gold(self, entry: Any, category: str) -> dict[str, Any]:
        if category == "parallel":
            return {"gold": [[self._possible(answer) for answer in entry["ground_truth"]]], "writes": [], "states": []}
        trial = self._opened(f"gold_{entry['id']}", category, entry["id"])
        gold, writes, initial = [], [], self.state(f"gold_{entry['id']}")
        for turn in entry["ground_truth"]:
            calls, changed = [], []
            for text in turn:
                call = self._parsed(text, trial)
                calls.append(call)
                changed.append(bool(self.call(f"gold_{entry['id']}", **call)["writes"]))
            gold.append(calls)
            writes.append(changed)
        final = self.state(f"gold_{entry['id']}")
        self.close(f"gold_{entry['id']}")
        return {"gold": gold, "writes": writes, "states": [initial, final]}

    def _parsed(self, text: str, trial: dict[str, Any]) -> dict[str, Any]:
        node: Any = ast.parse(text.strip(), mode="eval").body
        name = node.func.id
        parameters = list(inspect.signature(trial["methods"][name]).parameters)
        given = dict(zip(parameters, node.args, strict=False)) | {k.arg: k.value for k in node.keywords}
        return {"name": name, "arguments": {key: ast.literal_eval(value) for key, value in given.items()}}

    @staticmethod
    def _possible(answer: dict[str, Any]) -> dict[str, Any]:
        """One call that the parallel category accepts: the first possible value each, optional ones left out."""
        ((name, arguments),) = answer.items()
        plain = {key: _first(values) for key, values in arguments.items() if values and values[0] != ""}
        return {"name": name.replace(".", "_"), "arguments": plain}

    # -- execution ---------------------------------------------------------------------------------------------------

    def open(self, trial: str, category: str, entry: str) -> None:
        """Fresh instances under the trial's own name."""
        self._opened(trial, category, entry)

    def _opened(self, trial: str, category: str, entry: str) -> dict[str, Any]:
        official = self.entries[category][entry]
        _, instances = self._execute(trial, official, [])
        methods = {
            name: method
            for instance in instances.values()
            for name, method in inspect.getmembers(instance, inspect.ismethod)
            if not name.startswith("_")
        }
        self.trials[trial] = {"entry": official, "instances": instances, "methods": methods, "known": {}}
        self._changed(self.trials[trial])
        return self.trials[trial]

    def call(self, trial: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Execute one call; which public attributes of which class it changed."""
        own = self.trials[trial]
        if not self._safe(own["methods"], name, arguments):
            problem = f"name '{name}' is not defined" if name not in own["methods"] else "invalid syntax"
            return {"text": f"Error during execution: {problem}", "ok": False, "writes": []}
        (text,), _ = self._execute(trial, own["entry"], [written(name, arguments)])
        return {"text": text, "ok": not failed(text), "writes": self._changed(own)}

    def state(self, trial: str) -> str:
        """A hash of what the official state check compares."""
        return hash_of(sorted(self.trials[trial]["known"].items()))

    def close(self, trial: str) -> None:
        self.trials.pop(trial, None)
        self._forget(f"{trial}_")

    def check(self, category: str, entry: str, turns: list[Any]) -> dict[str, Any]:
        """The official verdict. `turns`: turn -> step -> calls as {"name", "arguments"}, decodable steps only."""
        official = self.entries[category][entry]
        if category == "parallel":
            return self._check_parallel(official, turns)
        gold = official["ground_truth"]
        if len(turns) != len(gold):
            return {"valid": False, "error_type": "multi_turn:force_terminated"}
        methods = self._opened("check_methods", category, entry)["methods"]
        self.close("check_methods")
        self.check_number += 1
        name = f"check{self.check_number}"
        decoded = [[[self._string(methods, call) for call in step] for step in turn] for turn in turns]
        try:
            verdict = self.checker(decoded, gold, plain(official), category, name)
        finally:
            self._forget(f"{name}_")
        return {
            "valid": bool(verdict["valid"]),
            "error_type": verdict.get("error_type", ""),
            "error_message": str(verdict.get("error_message", ""))[:500],
        }

    def _check_parallel(self, official: dict[str, Any], turns: list[Any]) -> dict[str, Any]:
        checker = self._ast_checker()
        steps = [step for turn in turns for step in turn]
        answer = [{call["name"]: call["arguments"]} for call in steps[0]] if steps else []
        verdict = checker.ast_checker(
            official["function"], answer, official["ground_truth"], self._python(), "parallel", CHECKED
        )
        error = verdict.get("error", "")
        return {
            "valid": bool(verdict["valid"]),
            "error_type": verdict.get("error_type", ""),
            "error_message": str(error)[:500],
        }

    def _ast_checker(self) -> Any:
        """The official module; the table of all models, which imports their vendors, has the one row it looks up."""
        name = "bfcl_eval.constants.model_config"
        if name not in sys.modules:
            table: Any = types.ModuleType(name)
            table.MODEL_CONFIG_MAPPING = {CHECKED: types.SimpleNamespace(underscore_to_dot=True)}
            sys.modules[name] = table
        return importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker")

    def _python(self) -> Any:
        with contextlib.suppress(ImportError):
            from bfcl_eval.constants.enums import Language

            return Language.PYTHON
        return "Python"

    def _string(self, methods: Any, call: dict[str, Any]) -> str:
        safe = self._safe(methods, call["name"], call["arguments"])
        return written(call["name"], call["arguments"]) if safe else UNSAFE

    @staticmethod
    def _safe(methods: Any, name: str, arguments: dict[str, Any]) -> bool:
        return name in methods and all(key.isidentifier() and not keyword.iskeyword(key) for key in arguments)

    def _execute(self, trial: str, entry: Any, calls: list[str]) -> Any:
        long_context = "long_context" in entry["id"] or "composite" in entry["id"]
        return self.utils.execute_multi_turn_func_call(
            calls, entry["initial_config"], entry["involved_classes"], trial, entry["id"], long_context=long_context
        )

    def _changed(self, own: dict[str, Any]) -> list[list[str]]:
        """[class, attribute] of the public attributes that differ from when this was last asked."""
        now = {
            f"{kind}.{name}": hash_of(value)
            for kind, instance in own["instances"].items()
            for name, value in vars(instance).items()
            if not name.startswith("_")
        }
        before, own["known"] = own["known"], now
        return [place.split(".", 1) for place in now if now[place] != before.get(place)]

    def _forget(self, prefix: str) -> None:
        space = vars(self.utils)
        for name in [name for name in space if name.startswith(prefix) and name.endswith("_instance")]:
            del space[name]


def written(name: str, arguments: dict[str, Any]) -> str:
    """The call as the official decoder writes it."""
    return f"{name}({','.join(f'{key}={value!r}' for key, value in arguments.items())})"


def failed(text: str) -> bool:
    if text.startswith("Error during execution"):
        return True
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        return isinstance(value, dict) and "error" in value
    return False


def hash_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(canonical(value), sort_keys=True).encode()).hexdigest()[:16]


def canonical(value: Any) -> Any:
    """A JSON value that is equal where the official state check finds equality; back references are left out."""
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    public = {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_") and k != "parent"}
    return [type(value).__name__, canonical(public)] if public else repr(value)


def plain(entry: Any) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in ("function", "ground_truth")}


def _first(values: list[Any]) -> Any:
    """The first possible value; one that is a mapping holds possible values itself."""
    value = values[0]
    if isinstance(value, dict):
        return {key: _first(inner) for key, inner in value.items() if inner and inner[0] != ""}
    if isinstance(value, list):
        return [_first([item]) if isinstance(item, dict) else item for item in value]
    return value
