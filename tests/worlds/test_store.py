"""The store: a fingerprint is what a computation from scratch says, whatever happened on the way."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from muarl_cli.worlds.store import Base, Store

BASE: dict[str, dict[str, dict[str, Any]]] = {
    "orders": {str(n): {"owner": str(n % 3), "items": [{"name": "lamp", "n": n}]} for n in range(6)},
    "people": {str(n): {"name": f"p{n}"} for n in range(3)},
    "empty": {},
}
TABLE = st.sampled_from(["orders", "people", "empty", "brand new"])
KEY = st.sampled_from([str(n) for n in range(8)])
VALUE = st.one_of(st.integers(-5, 5), st.floats(-5, 5), st.text(max_size=3), st.lists(st.integers(0, 3), max_size=2))
RECORD = st.dictionaries(st.sampled_from(["owner", "items", "x"]), VALUE, max_size=3)
PUT = st.tuples(st.just("put"), TABLE, KEY, RECORD)
DELETE = st.tuples(st.just("delete"), TABLE, KEY)
READ = st.tuples(st.sampled_from(["get", "items", "find"]), TABLE, KEY)
STEPS = st.lists(PUT | DELETE | READ, max_size=20)


def apply(store: Store, model: dict[str, dict[str, Any]], steps: list[tuple[Any, ...]], reads: bool = True) -> None:
    """Carry out the steps on the store and on a plain dictionary."""
    for step in steps:
        match step:
            case ("put", table, key, record):
                store.put(table, key, record)
                model.setdefault(table, {})[key] = copy.deepcopy(record)
            case ("delete", table, key):
                store.delete(table, key)
                model.get(table, {}).pop(key, None)
            case ("get", table, key) if reads:
                assert store.get(table, key) == model.get(table, {}).get(key)
            case ("items", table, _) if reads:
                assert dict(store.items(table)) == model.get(table, {})
            case ("find", table, key) if reads:
                wanted = {k: r for k, r in model.get(table, {}).items() if r.get("owner") == key}
                assert dict(store.find(table, {"owner": key})) == wanted
                assert store.find(table, {"owner": key}) == [row for row in store.items(table) if row[0] in wanted]


@given(STEPS)
@settings(max_examples=200)
def test_the_fingerprint_equals_that_of_a_base_built_from_scratch(steps: list[tuple[Any, ...]]) -> None:
    store, model = Store(Base(BASE)), copy.deepcopy(BASE)
    apply(store, model, steps)
    assert store.fingerprint() == Store(Base(model)).fingerprint()


@given(STEPS)
@settings(max_examples=100)
def test_reads_never_matter_and_the_base_is_never_changed(steps: list[tuple[Any, ...]]) -> None:
    base, before = Base(BASE), copy.deepcopy(BASE)
    reading, silent = Store(base), Store(base)
    apply(reading, copy.deepcopy(BASE), steps)
    apply(silent, copy.deepcopy(BASE), steps, reads=False)
    assert reading.fingerprint() == silent.fingerprint()
    assert before == BASE and Store(base).fingerprint() == Store(Base(before)).fingerprint()


@given(st.dictionaries(st.tuples(TABLE, KEY), RECORD, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_the_order_of_writes_to_different_records_never_matters(records: dict[Any, Any], rng: Any) -> None:
    base = Base(BASE)
    forward, shuffled = Store(base), Store(base)
    order = list(records)
    for place in order:
        forward.put(*place, records[place])
    rng.shuffle(order)
    for place in order:
        shuffled.put(*place, records[place])
    assert forward.fingerprint() == shuffled.fingerprint()


@given(STEPS)
@settings(max_examples=50)
def test_undoing_every_write_gives_the_first_fingerprint_and_an_empty_diff(steps: list[tuple[Any, ...]]) -> None:
    store = Store(Base(BASE))
    before = store.fingerprint()
    apply(store, copy.deepcopy(BASE), steps, reads=False)
    for step in steps:
        if step[0] in ("put", "delete"):
            original = BASE.get(step[1], {}).get(step[2])
            if original is None:
                store.delete(step[1], step[2])
            else:
                store.put(step[1], step[2], original)
    assert store.fingerprint() == before
    assert store.diff() == []


def test_25_and_25_0_are_the_same_state_and_so_are_keys_in_another_order() -> None:
    base = Base({"t": {"a": {"n": 25, "m": [1, {"x": 2}]}}})
    store = Store(base)
    store.put("t", "a", {"m": [1.0, {"x": 2.0}], "n": 25.0})
    assert store.fingerprint() == Store(base).fingerprint()
    assert store.diff() == []
    store.put("t", "a", {"n": "25", "m": [1, {"x": 2}]})
    assert store.fingerprint() != Store(base).fingerprint()


def test_a_record_that_moves_to_another_key_or_table_is_another_state() -> None:
    one = {"n": 1}
    states = [{"t": {"a": one}}, {"t": {"b": one}}, {"u": {"a": one}}, {"t": {"a": one, "b": one}}]
    assert len({Store(Base(tables)).fingerprint() for tables in states}) == 4


def test_what_get_returns_is_private() -> None:
    store = Store(Base(BASE))
    record = store.get("orders", "1")
    assert record is not None
    record["items"][0]["n"] = 99
    for _, found in store.find("orders", {"owner": "1"}):
        found["items"].clear()
    assert store.get("orders", "1") == BASE["orders"]["1"]
    put = {"items": [1]}
    store.put("orders", "1", put)
    put["items"].append(2)
    assert store.get("orders", "1") == {"items": [1]}


def test_two_stores_of_one_base_do_not_see_each_other() -> None:
    base = Base(BASE)
    one, other = Store(base), Store(base)
    one.put("people", "0", {"name": "x"})
    one.delete("people", "1")
    assert other.get("people", "0") == {"name": "p0"} and other.get("people", "1") == {"name": "p1"}


def test_the_diff_names_what_changed_in_sorted_order() -> None:
    store = Store(Base(BASE))
    store.put("people", "9", {"name": "new"})
    store.delete("people", "2")
    store.put("orders", "0", BASE["orders"]["0"])
    assert store.diff() == [
        {"table": "people", "id": "2", "before": {"name": "p2"}, "after": None},
        {"table": "people", "id": "9", "before": None, "after": {"name": "new"}},
    ]
