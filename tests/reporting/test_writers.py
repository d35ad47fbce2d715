"""The files of a run directory: exact, resumable, and never half-written."""

import csv
import io
import json
import struct

import numpy as np
import pytest

from ooorl.errors import UsageError
from ooorl.reporting import writers


def _row(updates, **metrics):
    return {"kind": "train", "phase": "pretrain", "seed": 0, "updates": updates, "env_steps": 0, **metrics}


def _events(directory):
    """The tags of all scalar events below `directory`, with step and value."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(directory.glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + size])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 12 + size + 4  # length, its checksum, the record, its checksum
    return found


def test_float32_round_trips_exactly_and_briefly(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    path = tmp_path / "metrics.jsonl"
    with writers.MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write([_row(0, **{f"m{i}": value for i, value in enumerate(values)})])
    back = list(writers.read_rows(path)[0].values())[5:]
    np.testing.assert_array_equal(np.array(back, np.float32).view(np.uint32), values.view(np.uint32))
    assert writers.plain(np.float32(0.1)) == 0.1
    assert writers.plain(np.float64(0.1) + 0.2) == 0.30000000000000004


def test_values_without_a_json_number_are_strings_and_come_back(tmp_path):
    with writers.MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write(
            [_row(1, a=np.float32("nan"), b=float("inf"), c=-np.float32("inf"), d=None, e=np.bool_(True))]
        )
    text = (tmp_path / "metrics.jsonl").read_text()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    row = json.loads(text, parse_constant=refuse)
    assert [row[name] for name in "abcde"] == ["NaN", "Infinity", "-Infinity", None, True]
    back = writers.read_rows(tmp_path / "metrics.jsonl")[0]
    assert np.isnan(back["a"]) and back["b"] == np.inf and back["c"] == -np.inf


def test_jax_scalars_are_written(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    assert writers.plain({"x": jnp.float32(0.3), "n": jnp.int32(4), "h": jnp.bfloat16(0.5)}) == {
        "x": 0.3,
        "n": 4,
        "h": 0.5,
    }


def test_resumed_bytes_equal_uninterrupted_bytes(tmp_path):
    rows = [_row(step, loss=np.float32(1 / (step + 1))) for step in range(10)]
    with writers.MetricsWriter(tmp_path / "whole", tensorboard=False) as writer:
        writer.write(rows)

    killed = writers.MetricsWriter(tmp_path / "cut", tensorboard=False)
    killed.write(rows[:4])
    offset = killed.offset()
    killed.write(rows[4:7])
    killed._file.write(b'{"kind": "tr')  # a line cut short
    killed._file.close()
    with writers.MetricsWriter(tmp_path / "cut", tensorboard=False) as resumed:
        resumed.truncate(offset)
        assert resumed.offset() == offset
        resumed.write(rows[4:])
    for name in ("metrics.jsonl", "metrics.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_truncate_refuses_a_file_that_is_not_the_checkpoints(tmp_path):
    with writers.MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write([_row(0)])
        size = writer.offset()
        for offset in (size + 1, size - 1):
            with pytest.raises(UsageError, match="checkpoint"):
                writer.truncate(offset)
        assert writer.offset() == size


def test_tensorboard_events_follow_the_rows_also_after_truncation(tmp_path):
    writer = writers.MetricsWriter(tmp_path)
    writer.write([_row(5, **{"critic/loss": 0.5})])
    offset = writer.offset()
    writer.write([_row(10, **{"critic/loss": 0.25})])
    writer.truncate(offset)
    writer.write([{**_row(20), "kind": "eval", "success": 1.0}])
    writer.write([{**_row(20), "kind": "episodes", "env_steps": 7, "return": -3.0, "note": "text"}])
    writer.close()
    assert _events(tmp_path / "tensorboard") == [
        ("pretrain/seed0/critic/loss", 5, 0.5),
        ("pretrain/seed0/eval/success", 20, 1.0),
        ("pretrain/seed0/episodes/return", 7, -3.0),
    ]


def test_a_full_disk_is_an_error_where_it_happens_and_nobody_waits(tmp_path):
    resource = pytest.importorskip("resource")
    writer, before = writers.MetricsWriter(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # what a process may write to one file
    try:
        with pytest.raises(OSError, match="too large"):
            for number in range(1000):
                writer.write([_row(number, loss=0.5)])
                writer.offset()
        with pytest.raises(OSError, match="too large"):
            writer.write([_row(number, loss=0.5) for number in range(1000)])
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.close()  # has been closed
    assert [row["updates"] for row in writers.read_rows(writer.path)][:3] == [0, 1, 2]


def test_csv_has_the_union_of_columns(tmp_path):
    with writers.MetricsWriter(tmp_path, tensorboard=False) as writer:
        writer.write([{"loss": 1.5, **_row(1)}, {**_row(2), "kind": "eval", "success": float("nan")}])
        writer.close()
    rows = list(csv.DictReader(io.StringIO((tmp_path / "metrics.csv").read_text())))
    assert list(rows[0]) == ["kind", "phase", "seed", "updates", "env_steps", "loss", "success"]
    assert (rows[0]["loss"], rows[0]["success"]) == ("1.5", "")
    assert (rows[1]["loss"], rows[1]["success"]) == ("", "NaN")


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "summary.json"
    writers.write_json(path, {"scores": np.array([[0.1, np.nan]], np.float32), "path": tmp_path / "a"})
    before = path.read_bytes()
    with pytest.raises(UsageError, match="object"):
        writers.write_json(path, {"bad": object()})
    with pytest.raises(RuntimeError), writers.atomically(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["summary.json"]
    assert np.isnan(writers.read_json(path)["scores"][0][1])


def test_progress_without_a_terminal_prints_now_and_then(monkeypatch):
    now = [0.0]
    out = io.StringIO()
    lines = writers._lines("pretrain", 1000, 0, "updates", 30.0, out, clock=lambda: now[0])
    advance = next(lines)
    for _ in range(8):
        now[0] += 10.0
        advance(100, note="success 40 %")
    assert out.getvalue().splitlines() == [
        "pretrain: 300/1,000 updates (30%), 10/s, 70 s left | success 40 %",
        "pretrain: 600/1,000 updates (60%), 10/s, 40 s left | success 40 %",
    ]
    advance(200)
    assert next(lines, None) is None
    assert out.getvalue().splitlines()[-1] == "pretrain: 1,000/1,000 updates (100%), 12/s | success 40 %"


def test_progress_on_a_terminal_shows_rate_and_note():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    out = Terminal()
    with writers.progress("explore", 100, unit="env steps", file=out) as advance:
        advance(60)
        advance(40, note="success 7 %")
    assert "explore" in out.getvalue() and "100%" in out.getvalue() and "success 7 %" in out.getvalue()
