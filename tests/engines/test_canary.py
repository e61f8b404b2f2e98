"""The canary's file: what is read is what was written, and a damaged one is never a silent pass."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from engines.small_models import make_model
from hypothesis import given
from hypothesis import strategies as st

from muarl_cli.engines.canary import DECIMALS, NAME, TOLERANCE, Canary, canary_of, read_canary, write_canary
from muarl_cli.errors import ExitCode, MuarlError

CANARIES = st.integers(2, 60).flatmap(
    lambda n: st.builds(
        Canary,
        st.tuples(*[st.integers(0, 200_000)] * n),
        st.tuples(*[st.floats(-100, 0)] * (n - 1)),
        st.sampled_from(sorted(TOLERANCE)),
    )
)


@given(CANARIES)
def test_a_canary_comes_back_from_its_file_to_the_decimals_that_are_kept(canary: Canary) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_canary(Path(name), canary)
        found = read_canary(Path(name))
    assert found is not None and (found.ids, found.dtype) == (canary.ids, canary.dtype)
    assert found.distance(canary.logprobs) <= 0.5 * 10**-DECIMALS * 1.001 < min(TOLERANCE.values()) / 20


def test_the_same_weights_leave_the_same_file_and_others_another(tmp_path: Path) -> None:
    files = []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_canary(folder, canary_of(make_model(seed), "fp32"))
        files.append((folder / NAME).read_bytes())
    assert files[0] == files[1] != files[2] and len(files[0]) < 2000


def test_no_file_is_no_canary(tmp_path: Path) -> None:
    assert read_canary(tmp_path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "muarl.canary/9.0"},
        {"dtype": "fp8"},
        {"logprobs": [-1.0]},
        {"logprobs": ["much"]},
        {"ids": [], "logprobs": []},
        {"ids": 5},
        {"schema": None},
    ],
)
def test_a_file_that_is_no_canary_is_an_error_that_names_it(tmp_path: Path, change: dict[str, object]) -> None:
    write_canary(tmp_path, Canary((1, 2, 3), (-1.0, -2.0), "fp32"))
    (tmp_path / NAME).write_text(json.dumps(json.loads((tmp_path / NAME).read_text()) | change))
    with pytest.raises(MuarlError, match=NAME) as caught:
        read_canary(tmp_path)
    assert caught.value.code is ExitCode.BAD_DATA and caught.value.where == str(tmp_path)


def test_half_a_file_is_an_error_too(tmp_path: Path) -> None:
    write_canary(tmp_path, Canary((1, 2, 3), (-1.0, -2.0), "fp32"))
    for text in ((tmp_path / NAME).read_text()[:40], "[]", "7", ""):
        (tmp_path / NAME).write_text(text)
        with pytest.raises(MuarlError, match="damaged"):
            read_canary(tmp_path)


def test_a_distance_that_is_no_number_is_no_pass() -> None:
    canary = Canary((1, 2, 3), (-1.0, -2.0), "bf16")
    with pytest.raises(MuarlError, match="policy's weights"):
        canary.compare([float("nan"), -2.0], "http://here")
