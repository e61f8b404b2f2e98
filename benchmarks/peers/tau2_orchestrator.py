"""TAU2's own runner in a process of its own, for `benchmarks/tau2_served.py --upstream` to race.

Runs in an environment that has tau2's dependencies and needs nothing of this project:

    python benchmarks/peers/tau2_orchestrator.py CHECKOUT TASKS URL --in-flight 32 --models fake-agent fake-user

TASKS is a JSON list of task records, URL an OpenAI-compatible server. Prints versions, then one JSON object for each
line of standard input. {"graded": true, "first": 32} plays the first 32 tasks with `run_tasks`: one thread a
conversation, its world built and its reward found on the way. Not graded, everything is built before the clock runs and
the orchestrators alone are timed. The answer says how long it took, how much CPU of this process, and for each task the
replies of agent and user and the reward.

What could slow it down for no merit of ours is taken away: results are not saved, nothing is shown, both models have a
price (an unknown one costs an exception and a printed line a call), and the HTTP pool that it sets to ten connections
has one for each conversation.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

PRICE = {"input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6, "litellm_provider": "openai", "mode": "chat"}


def played(simulation) -> list:
    """Replies of the agent and of the user, and the reward; the greeting is nobody's reply."""
    roles = [message.role for message in simulation.messages]
    reward = simulation.reward_info.reward if simulation.reward_info else None
    return [roles.count("assistant") - 1, roles.count("user"), reward]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("url")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--models", nargs=2, metavar=("AGENT", "USER"), required=True)
    options = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads what it shows
    os.environ |= {"TAU2_DATA_DIR": str(options.checkout / "data"), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    sys.path.insert(0, str(options.checkout / "src"))
    from loguru import logger

    logger.remove()
    import httpx
    import litellm
    from tau2.data_model.simulation import TextRunConfig
    from tau2.data_model.tasks import Task
    from tau2.runner import build_orchestrator, run_tasks

    logger.remove()  # importing it adds one again; the runner has its own, at the level of its default
    tasks = [Task.model_validate(record) for record in json.loads(options.tasks.read_text())]
    limits = httpx.Limits(max_keepalive_connections=options.in_flight, max_connections=options.in_flight)
    litellm.client_session = httpx.Client(limits=limits)
    litellm.register_model(dict.fromkeys(options.models, PRICE))
    agent, user = (f"openai/{name}" for name in options.models)
    served = {"api_base": options.url, "api_key": "x", "temperature": 0.0}
    config = TextRunConfig(
        domain="retail",
        llm_agent=agent,
        llm_args_agent=served | {"max_tokens": 1024},
        llm_user=user,
        llm_args_user=served | {"max_tokens": 256},
        max_concurrency=options.in_flight,
        max_retries=0,
    )

    def graded(chosen: list):
        return lambda: run_tasks(config, chosen, console_display=False).simulations

    def alone(chosen: list):
        waiting = [build_orchestrator(config, task, seed=config.seed) for task in chosen]

        def talk() -> list:
            with ThreadPoolExecutor(options.in_flight) as threads:
                return list(threads.map(lambda one: one.run(), waiting))

        return talk

    build_orchestrator(config, tasks[0], seed=config.seed).run()  # what is loaded at the first call
    print(json.dumps({"litellm": metadata.version("litellm"), "python": sys.version.split()[0]}), file=answers)
    for line in sys.stdin:
        asked = json.loads(line)
        play = (graded if asked["graded"] else alone)(tasks[: asked["first"]])
        began = time.perf_counter(), time.process_time()
        simulations = play()
        seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        told = {one.task_id: played(one) for one in simulations}
        print(json.dumps({"seconds": seconds, "cpu": cpu, "played": told}), file=answers)


if __name__ == "__main__":
    main()
