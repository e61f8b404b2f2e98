"""Crashes: killed writers, full disks, failing system calls. What was acknowledged is there, once, and readable."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from records._faults import Crash, fault
from records._work import make_episode

from muarl_cli.errors import ExitCode, MuarlError
from muarl_cli.records.log import LOG_NAME, EpisodeLog, artifact_hash, iter_episodes

WRITER = Path(__file__).with_name("_work.py")


@pytest.mark.parametrize(("size", "rows"), [(0, "rows"), (20_000, "plain"), (200_000, "plain")])
def test_killed_writers_lose_nothing_acknowledged_and_leave_nothing_twice(tmp_path: Path, size: int, rows: str) -> None:
    dice = random.Random(size)
    count, acknowledged = 400, set()
    for _ in range(8):
        command = [sys.executable, str(WRITER), str(tmp_path / "log"), str(count), str(size), rows]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout
        lines = [writer.stdout.readline() for _ in range(dice.randrange(1, 12))]
        time.sleep(dice.random() * 0.01)  # where in the next record the kill falls
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
        writer.wait()
        acknowledged |= {int(line) for line in lines if line.endswith("\n") and line.strip().isdigit()}
        found = [episode.episode_id for episode in iter_episodes(tmp_path / "log", on_damage=lambda damage: None)]
        assert len(found) == len(set(found))
        assert {make_episode(i).episode_id for i in acknowledged} <= set(found)
    assert acknowledged
    with EpisodeLog.open(tmp_path / "log") as log, EpisodeLog.open(tmp_path / "straight") as straight:
        episodes = [make_episode(i, size=size, rows=rows == "rows") for i in range(min(count, len(log) + 5))]
        log.append_many(episodes)
        straight.append_many(episodes)
        assert log.done_ids() == straight.done_ids()
    assert artifact_hash(tmp_path / "log") == artifact_hash(tmp_path / "straight")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("short", [False, True])
def test_a_failing_system_call_leaves_the_log_old_or_new(tmp_path: Path, code: int, lasting: bool, short: bool) -> None:
    ids = [make_episode(i).episode_id for i in range(3)]
    for nth in range(1, 100):
        folder = tmp_path / str(nth)
        with EpisodeLog.open(folder) as log:
            log.append_many(make_episode(i, rows=True) for i in range(2))
            before = (folder / LOG_NAME).read_bytes()
            acknowledged = False
            with fault(nth, lambda: OSError(code, os.strerror(code)), lasting, short) as failed:
                try:
                    acknowledged = log.append(make_episode(2, rows=True))
                except MuarlError as error:
                    assert error.code is ExitCode.TEMPORARY and "resumes" in error.next_step
            assert acknowledged == (not failed)
            if not acknowledged and not lasting:
                assert (folder / LOG_NAME).read_bytes() == before
                assert log.append(make_episode(2, rows=True))  # the same log goes on once the disk does
        with EpisodeLog.open(folder) as log:
            assert set(ids[:2]) <= log.done_ids() <= set(ids)
            assert acknowledged <= (ids[2] in log)
            for i, key in enumerate(ids):
                if key in log:
                    assert log.tokens_of(key) == make_episode(i, rows=True).rows
            log.append(make_episode(2, rows=True))
            assert log.done_ids() == set(ids)
        if not failed:
            break
    else:
        pytest.fail("never a clean pass")


def test_a_process_that_ends_at_any_system_call_leaves_the_log_old_or_new(tmp_path: Path) -> None:
    ids = [make_episode(i).episode_id for i in range(3)]
    for nth in range(1, 100):
        folder = tmp_path / str(nth)
        log = EpisodeLog.open(folder)
        log.append_many(make_episode(i, rows=True) for i in range(2))
        acknowledged = False
        with fault(nth, Crash, lasting=True, short=True) as failed:
            try:
                acknowledged = log.append(make_episode(2, rows=True))
            except Crash:
                acknowledged = False
        log.close()
        with EpisodeLog.open(folder) as again:
            assert set(ids[:2]) <= again.done_ids() and acknowledged <= (ids[2] in again)
            again.append(make_episode(2, rows=True))
            assert [again.tokens_of(key) for key in ids] == [make_episode(i, rows=True).rows for i in range(3)]
            assert not list(folder.glob(".*.tmp-*"))
        if not failed:
            break
    else:
        pytest.fail("never a clean pass")


def test_a_crash_while_repairing_loses_neither_records_nor_torn_bytes(tmp_path: Path) -> None:
    for nth in range(1, 100):
        folder = tmp_path / str(nth)
        with EpisodeLog.open(folder) as log:
            log.append_many(make_episode(i) for i in range(2))
        path = folder / LOG_NAME
        path.write_bytes(path.read_bytes() + b'{"torn')
        with fault(nth, Crash, lasting=True, short=True) as failed, suppress(Crash):
            EpisodeLog.open(folder).close()
        with EpisodeLog.open(folder) as log:
            assert len(log) == 2
        assert any(aside.read_bytes() == b'{"torn' for aside in folder.glob(f"{LOG_NAME}.torn-*"))
        if not failed:
            break
    else:
        pytest.fail("never a clean pass")


def test_a_crash_while_merging_shards_loses_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # the calls are still counted and failed; only the disk is spared
    for nth in range(1, 100):
        folder = tmp_path / str(nth)
        log = EpisodeLog.open(folder)
        for i in range(15):
            log.append(make_episode(i, rows=True))
        with fault(nth, Crash, lasting=True) as failed, suppress(Crash):
            log.append(make_episode(15, rows=True))
        log.close()
        with EpisodeLog.open(folder) as again:
            assert again.report.without_tokens == 0 and len(again) >= 15
            for key in again.done_ids():
                assert again.tokens_of(key)
        if not failed:
            break
    else:
        pytest.fail("never a clean pass")


def test_a_file_size_limit_stops_a_writer_with_a_message_and_the_log_goes_on_after_it(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        f"sys.argv = ['x', {str(tmp_path)!r}, '99', '500', 'plain'];"
        f"exec(compile(open({str(WRITER)!r}).read(), 'writer', 'exec'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "free at least" in done.stderr and "could not write" in done.stderr
    acknowledged = [int(line) for line in done.stdout.split() if line.isdigit()]
    assert 0 < len(acknowledged) < 99
    with EpisodeLog.open(tmp_path) as log:
        assert len(log) == len(acknowledged) and log.report.lines() == []
        assert log.append(make_episode(99))
