from __future__ import annotations

from pathlib import Path

import pytest

from muarl_cli.engines.address import VENDOR, engine_address, resolve_address
from muarl_cli.engines.wire import Wire, open_wire
from muarl_cli.errors import ExitCode, MuarlError


def test_a_flag_wins_over_the_environment_which_wins_over_the_vendor() -> None:
    env = {"OPENAI_BASE_URL": "https://llm.example.org/v1/", "OPENAI_API_KEY": "k"}
    assert resolve_address("http://127.0.0.1:9/v1", env).url == "http://127.0.0.1:9/v1"
    assert resolve_address("", env).url == "https://llm.example.org/v1"
    assert resolve_address("", {"OPENAI_API_KEY": "k"}).url == VENDOR


@pytest.mark.parametrize(
    "url", ["http://localhost:1/v1", "http://127.0.0.1/v1", "http://[::1]:8000/v1", "http://127.9.9.9"]
)
def test_plain_http_is_fine_on_this_machine_and_costs_nothing(url: str) -> None:
    address = resolve_address(url, {})
    assert address.loopback and not address.paid


@pytest.mark.parametrize(
    "host", ["llm.example.org", "10.0.0.7:8000", "localhost.example.org", "127.0.0.1.example.org", "0.0.0.0:80"]
)
def test_plain_http_to_another_machine_is_refused(host: str) -> None:
    with pytest.raises(MuarlError, match="TLS"):
        resolve_address(f"http://{host}/v1", {"OPENAI_API_KEY": "k"})
    with pytest.raises(MuarlError, match="TLS") as refused:
        engine_address(f"http://{host}/v1", {})
    assert refused.value.where == "--engine"


def test_an_engine_on_another_machine_costs_nothing_and_is_not_sent_the_vendors_key() -> None:
    address = engine_address("https://gpu7.example.org:8000/v1/", {"OPENAI_API_KEY": "sk-canary"})
    assert address.url == "https://gpu7.example.org:8000/v1"
    assert not address.loopback and not address.paid and address.key == "none"
    assert engine_address("http://127.0.0.1:8000/v1", {"VLLM_API_KEY": "mine"}).key == "mine"
    assert Wire(address).ledger is None


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8000", "https://me:secret@example.org/v1", "https://"])
def test_other_addresses_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(MuarlError) as refused:
        resolve_address(url, {"OPENAI_API_KEY": "k"})
    assert refused.value.code is ExitCode.CONFIG
    assert "secret" not in str(refused.value)


def test_a_missing_key_is_named_by_its_variable() -> None:
    with pytest.raises(MuarlError) as missing:
        resolve_address("https://llm.example.org/v1", {})
    assert missing.value.code is ExitCode.AUTH
    assert "OPENAI_API_KEY" in str(missing.value)


def test_the_key_never_shows() -> None:
    address = resolve_address("https://llm.example.org/v1", {"OPENAI_API_KEY": "sk-canary"})
    assert "sk-canary" not in repr(address)
    assert address.key == "sk-canary"


def test_only_a_paid_address_keeps_a_ledger_and_takes_prices_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("MUARL_PRICES", "mine=1/x")
    open_wire("http://127.0.0.1:1/v1", max_usd=0.0, ledger=tmp_path / "spend.jsonl")
    with pytest.raises(MuarlError, match="no price"):
        open_wire("https://llm.example.org/v1", max_usd=1.0, ledger=tmp_path / "spend.jsonl")
    monkeypatch.setenv("MUARL_PRICES", "mine=1/2")
    open_wire("https://llm.example.org/v1", max_usd=1.0, ledger=tmp_path / "spend.jsonl")
    with pytest.raises(MuarlError, match="no cap"):
        open_wire("https://llm.example.org/v1", max_usd=float("nan"), ledger=tmp_path / "spend.jsonl")


def test_a_paid_address_without_a_ledger_is_refused() -> None:
    with pytest.raises(MuarlError) as refused:
        Wire(resolve_address("https://llm.example.org/v1", {"OPENAI_API_KEY": "k"}))
    assert "--max-usd" in refused.value.next_step
