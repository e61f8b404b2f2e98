"""Small chat templates in the manner of several model families, and some that must not be trained with.

Each is ours. `FIT` pass the probes; `UNFIT` name the probe that must refuse them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muarl_cli.conversation.protocols import Stage
from muarl_cli.training.tokenizer import make_tokenizer

CONTROLS = (
    "<|begin|>",
    "<|head|>",
    "<|body|>",
    "<|eot|>",
    "[INST]",
    "[/INST]",
    "[CALLS]",
    "[RESULT]",
    "[/RESULT]",
    "</s>",
)

_SYSTEM = """{%- if tools %}
{{- '<|im_start|>system\\n' + (messages[0].content if messages[0].role == 'system' else '') }}
{{- '\\n# Tools' }}{%- for tool in tools %}{{- '\\n' + tool | tojson }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
"""
_CALL = """{{- '\\n' if m.content or not loop.first else '' }}
{{- '<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' }}
{{- c.function.arguments | tojson }}{{- '}\\n</tool_call>' }}"""
_TAGGED = """{{- '\\n\\n' if m.content and loop.first else '' }}{{- '' if loop.first else '\\n' }}
{{- '<tool_call>\\n<function=' + c.function.name + '>\\n' }}
{%- for k, v in c.function.arguments | items %}{{- '<parameter=' + k + '>\\n' }}
{{- v | tojson if v is mapping or (v is sequence and v is not string) else v | string }}{{- '\\n</parameter>\\n' }}
{%- endfor %}{{- '</function>\\n</tool_call>' }}"""
_KEYED = """{{- '\\n' if m.content or not loop.first else '' }}{{- '<tool_call>' + c.function.name + '\\n' }}
{%- for k, v in c.function.arguments | items %}{{- '<arg_key>' + k + '</arg_key>\\n' }}
{{- '<arg_value>' + (v if v is string else v | tojson) + '</arg_value>\\n' }}{%- endfor %}{{- '</tool_call>' }}"""
_PYTHON = """{{- '<tool_call>[' if loop.first else ', ' }}{{- c.function.name + '(' }}
{%- for k, v in c.function.arguments | items %}{{- ', ' if not loop.first else '' }}{{- k + '=' }}
{%- if v is string %}{{- "'" + v | replace('\\\\', '\\\\\\\\') | replace("'", "\\\\'")
    | replace('\\n', '\\\\n') + "'" }}
{%- else %}{{- v | tojson if v is mapping or v is iterable else v | string }}{%- endif %}{%- endfor %}{{- ')' }}
{{- ']</tool_call>' if loop.last else '' }}"""
_CHATML = (
    _SYSTEM
    + """{%- for m in messages %}
{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\\n' + CONTENT }}
{%- for c in m.tool_calls or [] %}CALL{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{{- '<|im_start|>tool\\n<tool_response>\\n' + CONTENT + '\\n</tool_response><|im_end|>\\n' }}
{%- elif m.role == 'user' %}{{- '<|im_start|>user\\n' + CONTENT + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
)


def _chatml(content: str = "m.content", call: str = _CALL) -> str:
    return _CHATML.replace("CONTENT", content).replace("CALL", call)


_THINKS = (
    _SYSTEM
    + """{%- set ns = namespace(last=messages | length, asked=false) %}
{%- for m in messages[::-1] %}{%- if not ns.asked and m.role == 'user' %}
{%- set ns.asked = true %}{%- set ns.last = messages | length - loop.index %}{%- endif %}{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.last and (loop.last or m.reasoning_content) %}
{{- '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{%- endif %}{{- m.content }}
{%- for c in m.tool_calls or [] %}CALL{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- elif m.role == 'user' %}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
).replace("CALL", _CALL)
_OPENED = (
    _SYSTEM
    + """{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}
{%- for m in messages %}
{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}
{%- if loop.index0 > ns.last %}{{- '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}
{%- else %}LEFT{%- endif %}{{- m.content }}
{%- for c in m.tool_calls or [] %}CALL{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}{{- '<|im_start|>tool\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'user' %}{{- '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}
{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\nPROMPT' }}{%- endif %}"""
)


def _opened(prompt: str, left: str = "") -> str:
    """Thoughts begin in the prompt; `left` is what stands before an earlier turn in their place."""
    return _OPENED.replace("PROMPT", prompt).replace("LEFT", left).replace("CALL", _TAGGED)


_HEADS = """{{- '<|begin|>' }}{%- for m in messages %}
{%- set role = 'ipython' if m.role == 'tool' else m.role %}{{- '<|head|>' + role + '<|body|>\\n\\n' }}
{%- if m.role == 'system' and tools %}{{- 'Functions:\\n' }}
{%- for t in tools %}{{- t | tojson + '\\n' }}{%- endfor %}{%- endif %}
{%- if m.role == 'tool' %}{{- m.content | tojson }}{%- else %}{{- m.content | trim }}{%- endif %}
{%- for c in m.tool_calls or [] %}{{- '\\n' if m.content or not loop.first else '' }}
{{- '{"name": "' + c.function.name + '", "parameters": ' + c.function.arguments | tojson + '}' }}{%- endfor %}
{{- '<|eot|>' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|head|>assistant<|body|>\\n\\n' }}{%- endif %}"""
_LISTED = """{%- for m in messages %}
{%- if m.role == 'system' %}{{- '[INST]' + m.content + (tools | tojson if tools else '') + '[/INST]' }}
{%- elif m.role == 'user' %}{{- '[INST]' + m.content + '[/INST]' }}
{%- elif m.role == 'tool' %}{{- '[RESULT]' + m.content + '[/RESULT]' }}
{%- else %}{{- m.content }}{%- if m.tool_calls %}{{- '[CALLS][' }}{%- for c in m.tool_calls %}
{{- ', ' if not loop.first else '' }}{{- {'name': c.function.name, 'arguments': c.function.arguments} | tojson }}
{%- endfor %}{{- ']' }}{%- endif %}{{- '</s>' }}{%- endif %}{%- endfor %}"""

_SORTED = """<tool_call>
{{- {'name': c.function.name, 'arguments': c.function.arguments} | tojson(sort_keys=true) }}{{- '</tool_call>' }}"""

FIT: Mapping[str, str] = {
    "Qwen3 with thinking": _THINKS,
    "ChatML with Hermes calls": _chatml(),
    "strips blanks": _chatml("(m.content | trim)"),
    "sorts JSON keys": _chatml(call=_SORTED),
    "calls in one list": _LISTED,
    "Llama 3 like": _HEADS,
    "calls between tags": _chatml(call=_TAGGED),
    "arguments as keys and values": _chatml(call=_KEYED),
    "calls as Python": _chatml(call=_PYTHON),
    "opens the thought in the prompt": _opened("<think>\\n"),
    "closes the thought in the prompt": _opened("<think>\\n\\n</think>\\n\\n"),
    "leaves a mark of a thought": _opened(
        "<think>\\n",
        "{{- '<think></think>' + ('\\n' if m.tool_calls or m.reasoning_content else '') }}",
    ),
}
FORGETFUL = (
    "Qwen3 with thinking",
    "opens the thought in the prompt",
    "closes the thought in the prompt",
    "leaves a mark of a thought",
)
"""those that tell earlier turns otherwise once the user has spoken"""
UNFIT: Mapping[str, tuple[str, str]] = {
    "ordinary text around turns": (
        "end of turn",
        """{%- for m in messages %}{{- '### ' + m.role + ':\\n' + m.content + '\\n\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '### assistant:\\n' }}{%- endif %}""",
    ),
    "counts the messages": ("say", "{{- messages | length }}" + _chatml()),
    "forgets words": (
        "several calls",
        _chatml("(m.content if m.role != 'assistant' or loop.index0 + 3 > messages | length else '...')"),
    ),
    "takes one call a turn": (
        "several calls",
        _chatml(call="{%- if loop.length > 1 %}{{- raise_exception('one call a turn') }}{%- endif %}" + _CALL),
    ),
    "names the tool beside its result": (
        "several calls",
        _chatml("((m.name + ': ' if m.role == 'tool' else '') + m.content)"),
    ),
    "leaves calls out": ("call", _chatml(call="")),
    "writes every value as words": (
        "round trip",
        _chatml(call=_TAGGED.replace("v | tojson if v is mapping", "v | string if v is mapping")),
    ),
    "drops empty values": (
        "round trip",
        _chatml(call=_TAGGED.replace("arguments | items %}", "arguments | items if v %}")),
    ),
    "has tools in the first user turn": (
        "system",
        _chatml("(m.content + (tools | tojson if tools and loop.index == 2 else ''))"),
    ),
    "cuts words": ("user", _chatml("(m.content if m.content is none else m.content | replace('  ', ' '))")),
}


def template_tokenizer(template: str | None = None) -> Any:
    """A small tokenizer that knows the control tokens of all these templates."""
    texts = ['{"name": "get_order", "arguments": {"order_id": "1"}}', "Hello, return order 48213 and wait. 東京 größer"]
    tokenizer = make_tokenizer(texts * 12, 420)
    tokenizer.add_special_tokens({"additional_special_tokens": list(CONTROLS)})
    tokenizer.chat_template = template
    return tokenizer


def forged(chat: Any) -> int:
    """Control tokens more in turns that say them all than in turns that say nothing of the kind."""
    controls = {chat.tokenizer.convert_tokens_to_ids(token) for token in chat.controls}

    def count(text: str) -> int:
        pieces = [*chat.user(text), *chat.results([text]), *chat.greeting(text)]
        pieces += chat.begin(Stage("x", text, "x", (), "", 0))
        return sum(token in controls for ids, _ in pieces for token in ids)

    return count("".join(chat.controls)) - count("plain")
