"""TRL's asynchronous rollout loop at a given shape: prints one JSON object.

Runs in an environment of its own, which has TRL (1.16), aiohttp and nothing of this project:

    python benchmarks/peers/trl_rollout.py --turns 9 --episodes 64 --in-flight 32 --first 800 --tokens 100

Its `_generate_one` holds every conversation, token ids in and out over HTTP, one tool call a turn; its tokenizer is a
byte-pair one made on the spot, under TRL's own Qwen3 template. A server in a process of its own answers with the same
tool call until the last turn. `--first` is how many tokens the first prompt has, `--tokens` how many each turn adds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CALL = '<tool_call>\n{"name": "look_up", "arguments": {"key": "1234"}}\n</tool_call><|im_end|>'
LAST = "done, anything else?<|im_end|>"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>", "<think>", "</think>"]


def tokenizer_of(text: str):
    import trl
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    from trl.chat_template_utils import add_response_schema

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator([text], trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet))
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.chat_template = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text()
    return add_response_schema(made)


def serve(replies: list[list[int]], marker: int, markers: int, latency: float) -> None:
    """Answer with `replies[0]` until the prompt holds so many markers, then with `replies[1]`."""

    class Connection(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport, self.data = transport, bytearray()

        def data_received(self, data):
            self.data += data
            end = self.data.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.data[:end]).lower()
            size = int(head[head.find(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
            if len(self.data) < end + 4 + size:
                return
            body = bytes(self.data[end + 4 : end + 4 + size])
            del self.data[: end + 4 + size]
            ids = replies[body.count(b" %d," % marker) >= markers]
            choice = {"token_ids": ids, "logprobs": {"token_logprobs": [-0.1] * len(ids)}, "finish_reason": "stop"}
            answer = json.dumps({"choices": [choice]}).encode()
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
            asyncio.get_running_loop().call_later(latency, self.transport.write, head + answer)

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()

    asyncio.run(run())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--first", type=int, default=800)
    parser.add_argument("--tokens", type=int, default=430)
    options = parser.parse_args()
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import aiohttp
    from trl.chat_template_utils import get_training_chat_template
    from trl.experimental.async_grpo.async_rollout_worker import _AsyncRolloutLoop

    words = "order 4711 holds a lamp, a table and two chairs; it was sent on monday and paid by card. "
    tokenizer = tokenizer_of(words + CALL + '{"role": "system"} you are a service agent of a shop')
    per_word = len(tokenizer(words * 10)["input_ids"]) / 10
    rest = options.tokens - len(tokenizer(CALL)["input_ids"])
    answer = words * max(1, round(rest / per_word))

    def look_up(key: str) -> str:
        """
        Look something up.

        Args:
            key: what to look up
        """
        return answer

    replies = [tokenizer(text)["input_ids"] for text in (CALL, LAST)]
    marker = tokenizer.convert_tokens_to_ids("</tool_call>")
    loop = object.__new__(_AsyncRolloutLoop)
    loop.tokenizer, loop.tools, loop.model_name, loop.lora_name = tokenizer, [look_up], "m", None
    loop.chat_template, loop.chat_template_kwargs = get_training_chat_template(tokenizer), {}
    loop.max_tokens, loop.temperature, loop.top_p, loop.top_k, loop.min_p = 64, 1.0, 1.0, 0, None
    loop.repetition_penalty, loop.request_timeout, loop.max_tool_calling_iterations = 1.0, 60, None
    loop._fork_threshold_tokens, loop._counters = 64, defaultdict(float)
    loop._rates = defaultdict(lambda: [0.0, 0.0])
    loop._push_rollout_metrics = lambda **figures: None
    loop._tool_pool = ThreadPoolExecutor(options.in_flight)
    seen: list[int] = []

    async def everyone() -> None:
        waiting = iter(range(options.episodes))

        async def worker() -> None:
            for _ in waiting:
                prompt = [{"role": "user", "content": words * max(1, round(options.first / per_word))}]
                _, _, rows, calls, failed, _ = await loop._generate_one(prompt, {"look_up": look_up}, [look_up])
                assert calls == options.turns - 1 and not failed, (calls, failed)
                seen.append(len(rows[-1].input_ids))

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2 * options.in_flight)) as session:
            loop.session = session
            await asyncio.gather(*(worker() for _ in range(options.in_flight)))

    first = tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tools=[look_up], chat_template=loop.chat_template, return_dict=False
    )
    markers = first.count(marker) + options.turns - 1  # the template's own example of a call is no call
    shape = json.dumps([replies, marker, markers, options.latency])
    server = subprocess.Popen([sys.executable, __file__, "serve", shape], stdout=subprocess.PIPE, text=True)
    try:
        loop.vllm_server_url = server.stdout.readline().strip()
        began = time.perf_counter(), time.process_time()
        asyncio.run(everyone())
        seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    finally:
        server.terminate()
        server.wait(30)
    calls = options.turns * options.episodes
    print(
        json.dumps(
            {
                "calls_per_s": round(calls / seconds, 1),
                "cpu_ms_per_call": round(1000 * cpu / calls, 2),
                "tokens": max(seen),
                "turns": options.turns,
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(*json.loads(sys.argv[2]))
    else:
        main()
