"""The log: what is acknowledged stays, what is damaged is owed again, and reading goes on."""

from __future__ import annotations

import io
import os
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from records._work import make_episode

from muarl_cli.conversation.ends import EndReason
from muarl_cli.conversation.protocols import TokenRow
from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.log import LOG_NAME, Damage, EpisodeLog, artifact_hash, iter_episodes, parse_where
from muarl_cli.records.verdicts import read_verdicts, write_verdicts


def _write(folder: Path, count: int, rows: bool = False) -> list[str]:
    with EpisodeLog.open(folder) as log:
        log.append_many(make_episode(i, rows=rows) for i in range(count))
    return [make_episode(i).episode_id for i in range(count)]


def test_episodes_come_back_in_order_and_with_their_token_rows(tmp_path: Path) -> None:
    with EpisodeLog.open(tmp_path) as log:
        for i in range(3):
            assert log.append(make_episode(i, rows=True))
        assert list(log.episodes(rows=True)) == [make_episode(i, rows=True) for i in range(3)]
        assert log.read(make_episode(1).episode_id, rows=True) == make_episode(1, rows=True)
    with EpisodeLog.open(tmp_path) as log:
        assert log.tokens_of(make_episode(2).episode_id) == make_episode(2, rows=True).rows
        assert log.report.lines() == []
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600] * 4


def test_the_same_id_is_written_once(tmp_path: Path) -> None:
    with EpisodeLog.open(tmp_path) as log:
        assert log.append_many([make_episode(0), make_episode(0), make_episode(1)]) == 2
        assert not log.append(make_episode(1))
        assert len(log) == 2
    assert (tmp_path / LOG_NAME).read_bytes().count(b"\n") == 2


def test_a_valid_attempt_replaces_an_invalid_one_and_is_final(tmp_path: Path) -> None:
    fault = make_episode(0, rows=True, reason=EndReason.INFRA_FAULT)
    again = replace(make_episode(0, rows=True), attempt=1, rows=(TokenRow((9,), (3,), (-1.0,)),))
    with EpisodeLog.open(tmp_path) as log:
        log.append(fault)
        assert log.done_ids() == set() and log.done_ids(valid_only=False) == {fault.episode_id}
        assert log.append(again)
        assert not log.append(replace(again, attempt=2))
    with EpisodeLog.open(tmp_path) as log:
        assert list(log.episodes(rows=True)) == [again]


def test_first_valid_record_of_an_id_wins_in_a_joined_file(tmp_path: Path) -> None:
    _write(tmp_path / "a", 2)
    with EpisodeLog.open(tmp_path / "b") as log:
        log.append(replace(make_episode(1), attempt=7))
    joined = tmp_path / "joined.jsonl"
    joined.write_bytes(b"".join((tmp_path / x / LOG_NAME).read_bytes() for x in "ab"))
    assert [episode.attempt for episode in iter_episodes(joined)] == [0, 0]


def test_a_log_cut_at_any_byte_opens_and_owes_exactly_the_incomplete_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "fsync", lambda fd: None
    )  # thousands of opens; what is flushed when is another test's matter
    episodes = [replace(make_episode(i), events=()) for i in range(3)]
    with EpisodeLog.open(tmp_path / "whole") as log:
        log.append_many(episodes)
    whole = (tmp_path / "whole" / LOG_NAME).read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    for cut in range(ends[0], len(whole) + 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / LOG_NAME).write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        torn = cut - ends[complete - 1]
        with EpisodeLog.open(folder) as log:
            assert log.done_ids() == {episode.episode_id for episode in episodes[:complete]}
            assert log.report.torn_bytes == torn
        assert (folder / LOG_NAME).read_bytes() == whole[: ends[complete - 1]]
        if torn:
            assert (folder / log.report.torn_file).read_bytes() == whole[ends[complete - 1] : cut]


def test_a_resumed_log_ends_as_the_undisturbed_one(tmp_path: Path) -> None:
    _write(tmp_path / "straight", 5, rows=True)
    _write(tmp_path / "cut", 5, rows=True)
    path = tmp_path / "cut" / LOG_NAME
    path.write_bytes(path.read_bytes()[:-100])
    with EpisodeLog.open(tmp_path / "cut") as log:
        assert log.append_many(make_episode(i, rows=True) for i in range(5)) == 1
    assert artifact_hash(tmp_path / "cut") == artifact_hash(tmp_path / "straight")
    assert path.read_bytes() == (tmp_path / "straight" / LOG_NAME).read_bytes()


def test_flipped_bits_cost_their_own_line_and_no_other(tmp_path: Path) -> None:
    ids = _write(tmp_path, 6)
    path = tmp_path / LOG_NAME
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 10]
    dice = random.Random(3)
    for _ in range(200):
        at = dice.randrange(len(whole))
        path.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << dice.randrange(8))]) + whole[at + 1 :])
        hit = sum(end <= at for end in ends)
        lost = {ids[hit]} | ({ids[min(hit + 1, 5)]} if at + 1 == ends[hit] else set())  # a lost newline joins two lines
        damage: list[Damage] = []
        assert {e.episode_id for e in iter_episodes(path, on_damage=damage.append)} == set(ids) - lost
        assert damage


def test_damage_in_the_middle_is_reported_left_alone_and_owed_again(tmp_path: Path) -> None:
    ids = _write(tmp_path, 3)
    path = tmp_path / LOG_NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"half": \n' + lines[1].replace(b"renew", b"steal") + lines[2])
    before = path.read_bytes()
    with EpisodeLog.open(tmp_path) as log:
        assert log.done_ids() == {ids[0], ids[2]}
        assert log.report.damaged == 2 and "owed again" in log.report.lines()[0]
        assert path.read_bytes() == before
        assert log.append_many(make_episode(i) for i in range(3)) == 1
        assert log.done_ids() == set(ids)


def test_a_log_of_another_major_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    import zlib

    _write(tmp_path, 1)
    path = tmp_path / LOG_NAME
    body = path.read_bytes().replace(b"episode/1.0", b"episode/9.0").rsplit(b',"crc"', 1)[0] + b"}"
    foreign = body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)
    path.write_bytes(foreign)
    with pytest.raises(MuarlError, match=r"9\.0"):
        EpisodeLog.open(tmp_path)
    assert path.read_bytes() == foreign


def test_rows_that_are_lost_or_altered_are_noticed(tmp_path: Path) -> None:
    ids = _write(tmp_path, 2, rows=True)
    shard = next(tmp_path.glob("tokens-*"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with EpisodeLog.open(tmp_path) as log, pytest.raises(MuarlError, match="token rows"):
        [log.tokens_of(key) for key in ids]
    shard.write_bytes(b"junk")
    with EpisodeLog.open(tmp_path) as log:
        assert log.done_ids() == set() and log.report.without_tokens == 2
        assert log.report.damaged_shards == (shard.name,)
        assert log.append_many(make_episode(i, rows=True) for i in range(2)) == 2
        assert [log.tokens_of(key) for key in ids] == [make_episode(i, rows=True).rows for i in range(2)]
    assert (tmp_path / f"{LOG_NAME}.torn-1").read_bytes().count(b"\n") == 2
    shard.unlink()
    for other in tmp_path.glob("tokens-*"):
        other.unlink()
    with EpisodeLog.open(tmp_path, need_tokens=False) as log:
        assert log.done_ids() == set(ids)


def test_many_small_shards_become_few_and_lose_no_row(tmp_path: Path) -> None:
    with EpisodeLog.open(tmp_path) as log:
        for i in range(70):
            log.append(make_episode(i, rows=True))
        assert len(list(tmp_path.glob("tokens-*"))) < 20
        for i in range(70):
            assert log.tokens_of(make_episode(i).episode_id) == make_episode(i, rows=True).rows
    with EpisodeLog.open(tmp_path) as log:
        assert len(log) == 70 and log.report.without_tokens == 0


def test_token_rows_that_are_not_finite_or_not_parallel_are_refused(tmp_path: Path) -> None:
    with EpisodeLog.open(tmp_path) as log:
        for row in (TokenRow((1,), (3,), (float("nan"),)), TokenRow((1, 2), (3,), (0.0,))):
            with pytest.raises(MuarlError):
                log.append(replace(make_episode(0), rows=(row,)))
        assert log.append(make_episode(0))


def test_the_hash_depends_on_content_and_rows_but_not_on_order_or_time(tmp_path: Path) -> None:
    def written(name: str, order: list[int], change: Callable[..., object] = lambda e: e) -> str:
        with EpisodeLog.open(tmp_path / name) as log:
            for i in order:
                log.append(change(make_episode(i, rows=True)))  # type: ignore[arg-type]
        return artifact_hash(tmp_path / name)

    first = written("a", [0, 1, 2])
    assert written("b", [2, 0, 1], lambda e: replace(e, volatile={"seconds": 9, "host": "elsewhere"})) == first
    assert written("c", [0, 1]) != first
    assert written("d", [0, 1, 2], lambda e: replace(e, rows=())) != first
    assert written("e", [0, 1, 2], lambda e: replace(e, reward=0.25)) != first


def test_only_one_writer_holds_a_log_and_readers_pass(tmp_path: Path) -> None:
    with EpisodeLog.open(tmp_path) as log:
        log.append(make_episode(0))
        with pytest.raises(MuarlError) as caught:
            EpisodeLog.open(tmp_path)
        assert caught.value.code is ExitCode.BUSY
        assert len(list(iter_episodes(tmp_path))) == 1
    EpisodeLog.open(tmp_path).close()


def test_threads_may_share_a_log(tmp_path: Path) -> None:
    with EpisodeLog.open(tmp_path) as log:
        threads = [
            threading.Thread(target=lambda k=k: [log.append(make_episode(8 * k + i)) for i in range(8)])
            for k in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {e.episode_id for e in iter_episodes(tmp_path)} == {make_episode(i).episode_id for i in range(32)}


def test_a_log_is_read_from_standard_input_and_from_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = _write(tmp_path, 3)
    data = (tmp_path / LOG_NAME).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert [e.episode_id for e in iter_episodes("-", parse_where("reward=1"))] == [ids[1]]
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(data,))
    writer.start()
    assert [e.episode_id for e in iter_episodes(fifo)] == ids
    writer.join()


def test_a_missing_log_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(MuarlError) as caught:
        list(iter_episodes(tmp_path))
    assert caught.value.code is ExitCode.MISSING_INPUT and LOG_NAME in caught.value.next_step


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0, 1, 2, 3]),
        ("reward=1", [1]),
        ("reward>=0.5,valid=true", [1]),
        ("reward!=1", [0, 2, 3]),
        ("reward=null", [3]),
        ("valid=false", [3]),
        ("end.reason=user_stop", [0, 1, 2]),
        ("scenario=library, usage.turns<=3", [0, 1]),
        ("detail.db==1,reward<2", [1]),
        ("detail.nothing>0", []),
        ("accepted=true", [2]),
        ("verdict.layers.tool>0.5", [0]),
        ("task_id=t2", [2]),
        ("agent.kind=oracle,rollout>1,seed<1003", [2]),
    ],
)
def test_filters_pick_the_episodes_they_describe(tmp_path: Path, text: str, expected: list[int]) -> None:
    episodes = [make_episode(i, reason=EndReason.USER_FAULT if i == 3 else EndReason.USER_STOP) for i in range(3)]
    episodes = [replace(e, reward=float(i == 1)) for i, e in enumerate(episodes)]
    episodes.append(make_episode(3, reason=EndReason.USER_FAULT))
    with EpisodeLog.open(tmp_path) as log:
        log.append_many(episodes)
    verdicts = {
        episodes[0].episode_id: {"accepted": False, "layers": {"tool": 1.0}},
        episodes[2].episode_id: {"accepted": True, "layers": {"tool": 0.0}},
    }
    write_verdicts(tmp_path, verdicts)
    assert read_verdicts(tmp_path) == verdicts
    found = [e.episode_id for e in iter_episodes(tmp_path, parse_where(text))]
    assert found == [episodes[i].episode_id for i in expected]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rewrad=1", "'reward'"),
        ("reason=user_stop", "'end.reason'"),
        ("reward", "field=value"),
        ("task_id>t2", "texts"),
        ("reward=zero", "reward=1"),
        ("usage.turns!=few", "usage.turns=1"),
        ("accepted=maybe", "accepted=false"),
    ],
)
def test_a_filter_that_makes_no_sense_is_explained(text: str, said: str) -> None:
    with pytest.raises(MuarlError) as caught:
        parse_where(text)
    assert said in caught.value.next_step


def test_a_broken_verdict_names_its_line(tmp_path: Path) -> None:
    write_verdicts(tmp_path, {"a": {"accepted": True}})
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(path.read_bytes() + b'{"accepted": 1}\n')
    with pytest.raises(MuarlError) as caught:
        read_verdicts(tmp_path)
    assert caught.value.where.endswith(":2")
