"""Fetching against a server of our own: resume, mirrors, refusals, and what is left on disk."""

import dataclasses
import functools
import http.server
import json
import sys
import threading
import types

import h5py
import numpy as np
import pytest

from ooorl import catalogue, data
from ooorl.catalogue import checksums
from ooorl.data import pull as puller
from ooorl.data.convert import convert
from ooorl.errors import UsageError
from ooorl.runner.cli import main

TASK = "door-human-v1"
FILE = "door-human-v1.hdf5"


def good_file(path):
    rng = np.random.default_rng(0)
    timeouts = np.zeros(400, bool)
    timeouts[99::100] = True
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(400, 39)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, (400, 28)).astype(np.float32)
        file["rewards"] = rng.normal(size=400).astype(np.float32)
        file["terminals"] = np.zeros(400, bool)
        file["timeouts"] = timeouts
    return path.read_bytes()


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, behaviour, *arguments):
        self.behaviour = behaviour
        super().__init__(*arguments)

    def do_GET(self):
        self.behaviour["requests"].append((self.path, self.headers.get("Range")))
        if self.behaviour.get("to"):
            self.send_response(302)
            self.send_header("Location", self.behaviour["to"])
            self.end_headers()
            return
        if self.behaviour.get("status"):
            self.send_error(self.behaviour["status"])
            return
        content, tag = self.behaviour["content"], self.behaviour.get("tag", '"one"')
        start = 0
        if self.headers.get("Range") and self.headers.get("If-Range") == tag:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", tag)
        self.end_headers()
        content = content[start : self.behaviour.get("break_at", len(content))]
        for piece in range(0, len(content), self.behaviour.get("piece", len(content) or 1)):
            self.wfile.write(content[piece : piece + self.behaviour.get("piece", len(content))])
            self.wfile.flush()
            self.behaviour["gate"].wait(self.behaviour.get("pause", 0.0))

    def log_message(self, *arguments):
        del arguments


@pytest.fixture(autouse=True)
def _unrecorded(monkeypatch):
    """The file here is a small one of that name, which nobody has recorded."""
    monkeypatch.setitem(catalogue.ENTRIES, TASK, dataclasses.replace(catalogue.ENTRIES[TASK], checksum=None))


@pytest.fixture
def server(tmp_path, monkeypatch):
    behaviour = {"content": good_file(tmp_path / "source.hdf5"), "requests": [], "gate": threading.Event()}
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, behaviour))
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    behaviour["folder"] = tmp_path / "cache"
    monkeypatch.setenv("OOORL_DATA", str(behaviour["folder"]))
    monkeypatch.setenv("OOORL_MIRROR", f"http://127.0.0.1:{running.server_port}/files/")
    monkeypatch.delenv("OOORL_OFFLINE", raising=False)
    yield behaviour
    running.shutdown()
    running.server_close()
    thread.join()


def refused(match):
    with pytest.raises(UsageError, match=match) as caught:
        puller.pull(TASK)
    assert "\n" not in str(caught.value)


def test_a_file_is_fetched_once_and_its_checksum_written_beside_it(server):
    seen = []
    path = puller.pull(TASK, progress=lambda done, total: seen.append((done, total)))
    assert puller.pull(TASK) == path
    assert server["requests"] == [(f"/files/{FILE}", None)]
    assert seen[-1] == (len(server["content"]),) * 2
    record = json.loads((server["folder"] / f"{FILE}.json").read_text())
    assert record["bytes"] == len(server["content"]) and len(record["sha256"]) == 64
    assert sorted(p.name for p in server["folder"].iterdir()) == [FILE, f"{FILE}.json"]
    assert [row["at_hand"] for row in puller.list_tasks("door-*-v1")] == [True, False, False]


def test_a_transfer_that_broke_off_goes_on_where_it_stopped(server):
    server["break_at"] = 3000
    refused("broke off at 3000 of .* run again to go on")
    assert not (server["folder"] / FILE).exists()
    server["break_at"] = len(server["content"])
    path = puller.pull(TASK)
    assert server["requests"][-1] == (f"/files/{FILE}", "bytes=3000-")
    with open(path, "rb") as file:
        assert file.read() == server["content"]


def test_a_file_that_changed_on_the_server_is_not_glued_to_an_old_part(server, tmp_path):
    server["break_at"] = 3000
    refused("broke off")
    server["content"] = server["content"][:-1] + bytes([server["content"][-1] ^ 1])
    server["tag"], server["break_at"] = '"two"', len(server["content"])
    with open(puller.pull(TASK), "rb") as file:
        assert file.read() == server["content"]


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusing_server_is_named_with_what_to_do(server, status):
    server["status"] = status
    refused(rf"answers {status} .*OOORL_MIRROR.*by hand at .*{FILE}")
    assert list(server["folder"].iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>please sign in</html>", b"", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_no_hdf5_file_is_removed(server, content):
    server["content"] = content
    refused("cannot be used")
    assert list(server["folder"].iterdir()) == []


def test_a_known_checksum_must_match(server, monkeypatch):
    changed = dataclasses.replace(catalogue.ENTRIES[TASK], checksum="0" * 64)
    monkeypatch.setitem(catalogue.ENTRIES, TASK, changed)
    refused("checksum is not the catalogue's")
    (server["folder"] / FILE).write_bytes(server["content"])
    refused(f"it is another file: name it by its path, with --like {TASK}")


def test_checksums_that_others_have_recorded():
    known = {entry.id: entry.checksum for entry in catalogue.ENTRIES.values() if entry.checksum}
    assert {key.rpartition("/")[2] for key in checksums.KNOWN} <= {entry.file for entry in catalogue.ENTRIES.values()}
    assert known["hopper-medium-v2"].startswith("5bdf1bc4") and known["antmaze-umaze-v2"].startswith("5ef15257")
    assert known["hammer-truncated-expert-v1"] == known["hammer-expert-v1"]
    assert all(set(own) <= set("0123456789abcdef") and len(own) == 64 for own in known.values())


def test_ogbenchs_files_are_npz(server, tmp_path):
    task = "cube-single-play-singletask-v0"
    columns = {"observations": np.ones((6, 28)), "actions": np.zeros((6, 5)), "qpos": np.ones((6, 21))}
    np.savez(tmp_path / "made.npz", **columns, terminals=np.arange(6) == 5)
    whole = (tmp_path / "made.npz").read_bytes()
    server["content"] = whole[:-30]
    with pytest.raises(UsageError, match="no whole HDF5 or npz file"):
        puller.pull(task)
    server["content"] = whole
    assert puller.pull(task).endswith("cube-single-play-v0.npz") and puller.verified(task)[0][1]


def test_a_file_that_changed_since_it_was_first_seen_is_refused(server):
    path = puller.pull(TASK)
    with open(path, "r+b") as file:
        file.seek(2000)
        file.write(b"changed")
    refused("has changed since it was first seen")


def test_a_server_that_is_not_there(server, monkeypatch):
    monkeypatch.setenv("OOORL_MIRROR", "http://127.0.0.1:9")
    refused("cannot be read.*run again to go on from 0 bytes")


def test_a_server_that_drips_is_left_and_the_part_kept(server, monkeypatch):
    monkeypatch.setenv("OOORL_PULL_SECONDS", "0.3")
    server["piece"], server["pause"] = 64, 0.05
    refused("not whole after 0.3 s; OOORL_PULL_SECONDS allows more.*run again to go on from [1-9]")
    server["gate"].set()
    monkeypatch.delenv("OOORL_PULL_SECONDS")
    with open(puller.pull(TASK), "rb") as file:
        assert file.read() == server["content"]
    for text in ("soon", "0", "inf", "nan"):
        (server["folder"] / FILE).unlink(missing_ok=True)
        monkeypatch.setenv("OOORL_PULL_SECONDS", text)
        refused(f"takes a number of seconds above 0; got '{text}'")


def test_the_catalogues_addresses_have_tls_and_keep_it(server):
    import urllib.request

    assert all(entry.address is None or entry.address.startswith("https://") for entry in catalogue.ENTRIES.values())
    handler, request = puller._NeverToPlain(), urllib.request.Request("https://example.org/a.hdf5")
    with pytest.raises(OSError, match="has no TLS"):
        handler.redirect_request(request, None, 302, "Found", {}, "http://example.org/a.hdf5")
    assert handler.redirect_request(request, None, 302, "Found", {}, "https://example.org/b.hdf5").full_url.endswith("b.hdf5")


def test_a_mirror_without_tls_may_redirect(server):
    server["to"] = "/elsewhere"
    refused("answers 302|cannot be read")
    assert len(server["requests"]) > 1


def test_offline_says_which_file_to_put_where(server, monkeypatch):
    monkeypatch.setenv("OOORL_OFFLINE", "1")
    refused(f"OOORL_OFFLINE is set .* put {FILE} by hand at .*cache.*{FILE}")
    assert server["requests"] == []
    server["folder"].mkdir()
    (server["folder"] / FILE).write_bytes(server["content"])
    assert puller.pull(TASK).endswith(FILE)
    assert server["requests"] == []


def test_tasks_without_data_and_unknown_tasks(server):
    with pytest.raises(UsageError, match="there are no data"):
        puller.pull("ant-sparse-v2")
    with pytest.raises(UsageError, match="did you mean door-human-v1"):
        puller.pull("door-humans-v1")
    with pytest.raises(UsageError, match="matches a task"):
        puller.list_tasks("nothing")


def test_a_task_is_loaded_by_its_id(server):
    from ooorl.data import load_task

    dataset = load_task(TASK)
    assert dataset.name == TASK and dataset.num_rows == 396 and dataset.num_episodes == 4
    with pytest.raises(UsageError, match="size 45 are needed by pen-human-v1"):
        load_task("pen-human-v1", path=puller.pull(TASK))


def test_files_that_changed_are_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("OOORL_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=r"none of 'door-\*' is in"):
        puller.verified("door-*")
    good_file(tmp_path / FILE)
    ((path, is_sound, told),) = puller.verified("door-*")
    assert path == str(tmp_path / FILE) and is_sound and "nobody has recorded" in told
    puller.pull(TASK)
    assert main(["data", "verify", TASK]) == 0 and "as in its record" in capsys.readouterr().out
    with h5py.File(path, "a") as file:
        file["rewards"][0] = 5.0
    assert main(["data", "verify"]) == 1 and "WRONG, its record has SHA-256" in capsys.readouterr().out
    (tmp_path / FILE).write_bytes(b"")
    assert main(["data", "verify", path]) == 1 and "no whole HDF5 or npz file" in capsys.readouterr().out


def test_minari_ids_are_found_in_its_cache_and_fetched_by_its_package(tmp_path, monkeypatch, capsys):
    name, root = 'ours/point/medium-v0', tmp_path / 'minari'
    monkeypatch.setenv('MINARI_DATASETS_PATH', str(root))
    arrays = {'observations': np.eye(6), 'actions': np.zeros((6, 1)), 'rewards': np.ones(6), 'terminals': np.arange(6) % 3 == 2}
    np.savez(tmp_path / 'a.npz', **arrays)

    def download(asked):
        if asked != name:
            raise ValueError(f'{asked} is not there')
        (root / 'ours' / 'point').mkdir(parents=True)
        convert(tmp_path / 'a.npz', root / name)

    monkeypatch.setitem(sys.modules, 'minari', types.SimpleNamespace(download_dataset=download))
    with pytest.raises(UsageError, match=f'nor is a data set of this id in Minari.s cache; .* `ooorl data pull {name}`'):
        data.load(name)
    monkeypatch.setenv('OOORL_OFFLINE', '1')
    with pytest.raises(UsageError, match='OOORL_OFFLINE is set and it is not in'):
        puller.pull(name)
    monkeypatch.delenv('OOORL_OFFLINE')
    with pytest.raises(UsageError, match=r'cannot be downloaded \(ours/point/expert-v0 is not there\)'):
        puller.pull('ours/point/expert-v0')
    assert puller.pull(name) == str(root / name)
    assert data.load(name).num_rows == 6 and data.sha256(name) == data.load(name).sha256
    monkeypatch.setitem(sys.modules, 'minari', None)
    assert puller.pull(name) == str(root / name)
    with pytest.raises(UsageError, match='the package minari is not here; pip install'):
        puller.pull('ours/point/expert-v0')
