"""The recovery folder is made, locked and compared; one that does not fit is refused in one sentence."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow, Stream
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from flows.recovery import store
from flows.recovery.store import PAGE_BYTES, Held, Place, claim, place
from operators.errors import ConfigError, FatalError
from tests.conftest import ROOT

Layout = Literal["shared", "own"]


def take(folder: Path, process: int = 0, processes: int = 1, layout: Layout = "shared", **other: Any) -> Held:
    fields = {"shards": 4, "pane_s": 10, "source": "kafka c1 llm.telemetry", **other}
    held = claim(Place(folder, process, processes), layout=layout, **fields)
    assert held is not None
    return held


def refused(folder: Path, *args: Any, **fields: Any) -> str:
    with pytest.raises(ConfigError) as error:
        take(folder, *args, **fields).release()
    text = str(error.value)
    assert "\n" not in text
    return text


def parts(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.glob("part-*.sqlite3"))


# --- the place of this process -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        ([], {}, Place(None, 0, 1)),
        (["flows.main", "-r", "state", "-s", "5", "-b", "0"], {}, Place(Path("state"), 0, 1)),
        (["flows.main", "--recovery-directory=state"], {}, Place(Path("state"), 0, 1)),
        (["flows.main", "-i", "1", "-a", "h0:1;h1:1;h2:1"], {}, Place(None, 1, 3, ("h0:1", "h1:1", "h2:1"))),
        (["flows.main"],
         {"BYTEWAX_RECOVERY_DIRECTORY": "s", "BYTEWAX_PROCESS_ID": "2", "BYTEWAX_ADDRESSES": "a:1;b:1;c:1"},
         Place(Path("s"), 2, 3, ("a:1", "b:1", "c:1"))),
        (["flows.main", "-r", "mine", "-i", "0"], {"BYTEWAX_RECOVERY_DIRECTORY": "s", "BYTEWAX_PROCESS_ID": "2"},
         Place(Path("mine"), 0, 1)),
        (["flows.main"], {"BYTEWAX_POD_NAME": "sentinel-2", "BYTEWAX_STATEFULSET_NAME": "sentinel"}, Place(None, 2, 1)),
    ],
)  # fmt: skip
def test_the_place_follows_the_arguments_of_bytewax(argv: list[str], environ: dict[str, str], expected: Place) -> None:
    assert place(argv, environ) == expected


def test_the_hosts_of_pods_are_counted(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("pod-0.sentinel:9999\npod-1.sentinel:9999\n")
    environ = {
        "BYTEWAX_POD_NAME": "pod-1",
        "BYTEWAX_STATEFULSET_NAME": "pod",
        "BYTEWAX_HOSTFILE_PATH": str(hosts),
    }
    assert place(["flows.main"], environ) == Place(None, 1, 2, ("pod-0.sentinel:9999", "pod-1.sentinel:9999"))


# --- making a store ------------------------------------------------------------------------------------------------


def test_without_a_folder_there_is_nothing_to_claim() -> None:
    assert claim(Place(None, 0, 1), 4, 10, "x", "shared") is None


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_shared_folder_has_a_partition_for_each_process(tmp_path: Path, processes: int) -> None:
    folder = tmp_path / "deep" / "state"
    helds = [take(folder, i, processes) for i in range(processes)]
    for held in helds:
        held.check()
        held.release()
    assert parts(folder) == [f"part-{i}.sqlite3" for i in range(processes)]
    assert not (folder / "making").exists()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest == {
        "shards": 4, "pane_s": 10, "source": "kafka c1 llm.telemetry", "partitions": processes, "learned": {},
        "row_keys": [], "topics": {}, "version": 1,
    }  # fmt: skip
    for i in range(processes):
        take(folder, i, processes).release()  # again


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_a_folder_of_its_own_has_the_partition_of_its_process(tmp_path: Path, processes: int) -> None:
    for i in range(processes):
        folder = tmp_path / f"volume-{i}"
        take(folder, i, processes, "own").release()
        assert parts(folder) == [f"part-{i}.sqlite3"]
        take(folder, i, processes, "own").release()


def test_a_shared_store_may_be_used_by_another_number_of_processes(tmp_path: Path) -> None:
    take(tmp_path, 0, 2).release()
    take(tmp_path, 0, 1).release()
    take(tmp_path, 2, 3).release()


def test_bytewax_resumes_from_what_was_made(tmp_path: Path) -> None:
    take(tmp_path).release()

    def run(out: list[int]) -> None:
        flow = Dataflow("numbers")
        numbers: Stream[int] = op.input("in", flow, TestingSource([1, TestingSource.EOF(), 2], batch_size=1))
        sink: TestingSink[int] = TestingSink(out)
        op.output("out", numbers, sink)
        run_main(flow, recovery_config=RecoveryConfig(str(tmp_path)))  # type: ignore[no-untyped-call]

    first: list[int] = []
    run(first)
    second: list[int] = []
    take(tmp_path).release()
    run(second)
    assert (first, second) == ([1], [2])
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as part:
        assert part.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
        assert part.execute("PRAGMA journal_mode").fetchone() == ("wal",)


# --- refusing a store ----------------------------------------------------------------------------------------------


def test_an_error_of_sqlite_while_a_store_is_made_is_told_in_one_sentence(tmp_path: Path) -> None:
    part = tmp_path / "part-0.sqlite3"
    part.write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match=r"part-0\.sqlite3 cannot be made: file is not a database; check the disk"):
        store._enlarge_pages(part)


def test_a_second_flow_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    held = take(tmp_path)
    said = refused(tmp_path)
    held.release()
    assert "is in use by another flow; stop that one first, or give -r another folder" in said
    take(tmp_path).release()


def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from flows.recovery.store import *; "
        "held = claim(Place(Path(sys.argv[1]), 0, 1), 4, 10, 'kafka c1 llm.telemetry', 'shared'); "
        "print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert other.stdout is not None and other.stdin is not None
    with other.stdin, other.stdout:
        assert other.stdout.readline() == b"held\n"
        assert "is in use" in refused(tmp_path)
        other.kill()
        other.wait()
    take(tmp_path).release()


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"shards": 64}, "was made with recovery.shards = 4, now it is 64; set it back, or give -r a new folder"),
        ({"pane_s": 60}, "was made with time.pane_s = 10, now it is 60"),
        ({"source": "files a"}, "was made with the source = 'kafka c1 llm.telemetry', now it is 'files a'"),
    ],
)
def test_a_store_of_other_settings_is_refused(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    take(tmp_path).release()
    assert said in refused(tmp_path, **other)
    take(tmp_path).release()  # a refusal leaves no lock and changes nothing


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 2)  # type: ignore[no-untyped-call]
    before = {p.name: p.read_bytes() for p in tmp_path.glob("part-*")}
    assert "was not made by this program (it has partitions but no manifest.json)" in refused(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("part-*")} == before


def listed(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "names", [["passwd"], ["a", "b", "passwd"], [".hidden"], ["part-0.db"], ["process-0.lock", "x"]]
)
def test_a_folder_that_is_not_empty_and_not_ours_is_refused_and_left_alone(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text(name)
    before = listed(tmp_path)
    assert "is not empty and no recovery folder of this program (it holds " in refused(tmp_path)
    assert listed(tmp_path) == before


def test_the_manifest_of_another_program_is_refused_and_nothing_is_put_beside_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "page", "version": "1.0"}')
    before = listed(tmp_path)
    assert "has version '1.0', this release reads 1" in refused(tmp_path)
    assert listed(tmp_path) == before


def test_a_fresh_volume_and_the_files_of_a_dead_start_are_taken(tmp_path: Path) -> None:
    for folder in ("lost+found", "making"):
        (tmp_path / folder).mkdir()
    for name in ("process-0.lock", "setup.lock", "room-7.tmp", "manifest.json.tmp", "part-0.sqlite3-wal"):
        (tmp_path / name).touch()
    take(tmp_path).release()
    assert parts(tmp_path) == ["part-0.sqlite3"]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "{}", '{"shards": 4}', '{"version": 1, "partitions": "many"}', "\x00",
        '{"version": 1, "row_keys": 12}', '{"version": 1, "row_keys": [12, 0]}', '{"version": 1, "row_keys": ["12"]}',
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    take(tmp_path).release()
    (tmp_path / "manifest.json").write_text(text)
    said = refused(tmp_path)
    assert "manifest.json cannot be read" in said and "restore it, or give -r a new folder" in said


def test_the_number_of_keys_of_rows_is_that_of_the_first_start(tmp_path: Path) -> None:
    first, later = take(tmp_path, row_keys=(12, 3)), take(tmp_path, 1, 2, row_keys=(62, 3))
    assert first.row_keys == later.row_keys == (12, 3)
    first.release()
    later.release()


def test_a_number_of_keys_for_another_number_of_widths_is_refused(tmp_path: Path) -> None:
    take(tmp_path, row_keys=(12,)).release()
    assert "manifest.json cannot be read (row_keys = (12,))" in refused(tmp_path, row_keys=(12, 3))


def test_a_store_of_a_release_that_knew_no_keys_of_rows_gets_their_number(tmp_path: Path) -> None:
    take(tmp_path, learned={"a": "b"}).release()
    path = tmp_path / "manifest.json"
    old = json.loads(path.read_text())
    del old["row_keys"]
    path.write_text(json.dumps(old))
    held = take(tmp_path, row_keys=(12, 3))
    assert held.row_keys == (12, 3)
    held.release()
    assert json.loads(path.read_text()) == {**old, "row_keys": [12, 3]}


def test_the_store_of_another_release_is_refused(tmp_path: Path) -> None:
    take(tmp_path).release()
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    assert "has version 2, this release reads 1; run the release that made it" in refused(tmp_path)


def test_a_shared_folder_must_hold_all_partitions(tmp_path: Path) -> None:
    take(tmp_path, 0, 3).release()
    (tmp_path / "part-1.sqlite3").unlink()
    said = refused(tmp_path)
    assert "must hold all of its 3 partitions, it holds part-0.sqlite3, part-2.sqlite3" in said
    for file in tmp_path.glob("part-*"):
        file.unlink()
    assert "it holds none" in refused(tmp_path)


def test_a_volume_of_another_process_is_refused(tmp_path: Path) -> None:
    take(tmp_path, 1, 2, "own").release()
    said = refused(tmp_path, 0, 2, "own")
    assert "of process 0 of 2 must hold exactly part-0.sqlite3, it holds part-1.sqlite3; mount the volume" in said
    (tmp_path / "part-1.sqlite3").unlink()
    assert "it holds none" in refused(tmp_path, 1, 2, "own")


def test_volumes_do_not_rescale_by_themselves(tmp_path: Path) -> None:
    take(tmp_path, 0, 2, "own").release()
    assert "has 2 partitions, too few for 3 processes" in refused(tmp_path, 0, 3, "own")
    assert "must hold exactly part-0.sqlite3, part-1.sqlite3, it holds part-0.sqlite3" in refused(tmp_path, 0, 1, "own")


def test_a_volume_has_its_share_of_more_partitions_than_processes(tmp_path: Path) -> None:
    for i in range(2):
        take(tmp_path / str(i), i, 2, "own", partitions=5).release()
    assert parts(tmp_path / "0") == ["part-0.sqlite3", "part-2.sqlite3", "part-4.sqlite3"]
    assert parts(tmp_path / "1") == ["part-1.sqlite3", "part-3.sqlite3"]
    said = refused(tmp_path / "0", 0, 2, "own", partitions=6)
    assert "was made with recovery.partitions = 5, now it is 6; set it back" in said
    assert "too few for 3 processes" in refused(tmp_path / "new", 0, 3, "own", partitions=2)


@pytest.mark.parametrize("layout", ["own", "shared"])
def test_a_process_without_an_address_is_refused(tmp_path: Path, layout: Layout) -> None:
    """There are more replicas than lines of addresses."""
    assert "process 2, counted from 0, of 2: there are fewer addresses" in refused(tmp_path, 2, 2, layout)
    assert list(tmp_path.iterdir()) == []


def test_a_volume_is_not_a_shared_folder(tmp_path: Path) -> None:
    take(tmp_path, 1, 2, "own").release()
    assert "must hold all of its 2 partitions" in refused(tmp_path, 1, 2, "shared")


def test_volumes_brought_together_are_a_shared_store(tmp_path: Path) -> None:
    for i in range(2):
        take(tmp_path / str(i), i, 2, "own").release()
    for file in (tmp_path / "1").glob("part-*"):
        shutil.move(file, tmp_path / "0" / file.name)
    take(tmp_path / "0", 0, 1).release()


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used: " in refused(tmp_path / "file" / "state")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert "cannot be used: Permission denied" in refused(tmp_path / "closed")


def test_a_folder_that_was_removed_under_a_running_flow_is_noticed(tmp_path: Path) -> None:
    held = take(tmp_path / "state")
    held.check()
    shutil.rmtree(tmp_path / "state")
    with pytest.raises(FatalError, match="was removed while the flow ran"):
        held.check()
    held.release()


def test_learned_state_of_another_form_is_refused_unless_it_may_be_learned_anew(tmp_path: Path) -> None:
    take(tmp_path, learned={"detect.metrics": "a"}).release()
    said = refused(tmp_path, learned={"detect.metrics": "b"})
    assert "detect.metrics was a, now it is b" in said and "recovery.relearn = true" in said
    take(tmp_path, learned={"detect.metrics": "b"}, relearn=True).release()
    take(tmp_path, learned={"detect.metrics": "b"}).release()


# --- crashes while a store is made -----------------------------------------------------------------------------------


class Power(Exception):
    """Stands for the death of the process."""


@pytest.mark.parametrize("moves", range(4))
def test_a_half_made_store_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moves: int) -> None:
    """Two partitions and the manifest are moved into place; the process dies before, between or after these moves."""
    done = 0
    replace = Path.replace

    def failing(self: Path, target: Path) -> Path:
        nonlocal done
        if done == moves:
            raise Power
        done += 1
        return replace(self, target)

    def no_more(*_: object) -> None:
        raise Power

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        patch.setattr(shutil, "rmtree", no_more)
        with pytest.raises(Power):
            take(tmp_path, 0, 2)
    assert (tmp_path / "making").is_dir()
    take(tmp_path, 0, 2).release()
    assert parts(tmp_path) == ["part-0.sqlite3", "part-1.sqlite3"]
    assert not (tmp_path / "making").exists()
    for part in parts(tmp_path):
        with sqlite3.connect(tmp_path / part) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    take(tmp_path, 1, 2).release()


def test_how_many_partitions_topics_had_at_the_first_start_stays(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    held = take(folder)
    assert held.topics == {}
    assert held.keep({"alerts": 1}) == held.topics == {"alerts": 1}
    assert held.keep({"alerts": 3, "letters": 2}) == {"alerts": 1, "letters": 2}
    held.release()
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["topics"]  # stores of earlier releases have none
    (folder / "manifest.json").write_text(json.dumps(manifest))
    held = take(folder)
    assert held.keep({"alerts": 3}) == {"alerts": 3}
    held.release()
    assert not list(folder.glob("*.tmp"))
