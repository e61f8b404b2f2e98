from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from muarl_cli.benchmarks.shared_db import Base, View


class Item(BaseModel):
    id: str
    amount: float
    tags: list[str] = []


class Database(BaseModel):
    items: dict[str, Item] = {}
    others: dict[str, Item] = {}


RAW = {
    "items": {f"i{n}": {"id": f"i{n}", "amount": n, "tags": ["a"]} for n in range(5)},
    "others": {"i0": {"id": "i0", "amount": 1}},
}

_keys = st.sampled_from(["i0", "i1", "i4", "new"])
_steps = st.lists(st.tuples(st.sampled_from(["read", "add", "tag", "put", "delete", "scan"]), _keys), max_size=12)


def _apply(table: dict[str, Item], step: str, key: str) -> None:
    if step == "put":
        table[key] = Item(id=key, amount=3)
    elif step == "scan":
        assert [record.id for record in table.values()] == list(table)
    elif key in table:
        if step == "add":
            table[key].amount += 1
        elif step == "tag":
            table[key].tags.append("b")
        elif step == "delete":
            del table[key]
        else:
            assert table[key].id == key


@given(_steps)
def test_a_view_behaves_like_a_private_deep_copy_and_the_base_never_changes(steps: list[tuple[str, str]]) -> None:
    base = Base(Database, RAW)
    before = base.digest()
    view, plain = View(base), Database.model_validate(RAW)
    for step, key in steps:
        _apply(view.items, step, key)
        _apply(plain.items, step, key)
    assert {k: v.model_dump() for k, v in view.items.items()} == {k: v.model_dump() for k, v in plain.items.items()}
    assert set(view.items) == set(plain.items) and len(view.items) == len(plain.items)
    assert base.digest() == before
    changed = plain.model_dump() != Database.model_validate(RAW).model_dump()
    assert (view.fingerprint() != View(base).fingerprint()) == changed
    assert bool(view.diff()) == changed


@given(_steps, st.randoms())
def test_equal_states_have_equal_fingerprints_whatever_the_order(steps: list[tuple[str, str]], rng: object) -> None:
    base = Base(Database, RAW)
    one, two = View(base), View(base)
    adds = [key for step, key in steps if step == "add" and key != "new"]
    for key in adds:
        one.items[key].amount += 1
    rng.shuffle(adds)  # type: ignore[attr-defined]
    for key in adds:
        two.items[key].amount += 1
        two.others.get("i0")
    assert one.fingerprint() == two.fingerprint()


def test_equal_keys_of_two_tables_are_two_places() -> None:
    base = Base(Database, RAW)
    one, two = View(base), View(base)
    one.items["i0"].amount = 7
    two.others["i0"].amount = 7
    assert one.fingerprint() != two.fingerprint()
