"""A run directory: everything that a run writes, and how it is interrupted and resumed.

The directory holds `config.toml` (resolved), `metrics.jsonl`, `metrics.csv`, TensorBoard events, `summary.json`, `checkpoint/`,
`report.html` and, where a map is asked for, `states.npz`. Rows of metrics hold no times, so a run that was interrupted and
resumed leaves the same rows as one that was not. These names are an interface.
"""

import contextlib
import time
from pathlib import Path

import numpy as np
import tomli_w

from ooorl.errors import UsageError
from ooorl.mapping import is_first_host, num_cores, num_hosts
from ooorl.reporting import writers
from ooorl.runner import hosts, place, run_directory
from ooorl.runner.interruption import Interrupted, noted
from ooorl.runner.paths import denoising_paths
from ooorl.runner.prepare import Prepared
from ooorl.runner.summary import summarise, visited, whole_times
from ooorl.training import checkpoint, rounds
from ooorl.training import run as running
from ooorl.training.phases import round_sizes
from ooorl.training.stopwatch import Stopwatch, added, total


def execute(
    prepared: Prepared, out: Path, *, resume: bool = False, quiet: bool = False, began: float | None = None
) -> dict | None:
    """Runs a prepared config in directory `out` and returns the summary; None on all hosts but the first, which write nothing.

    SIGTERM and SIGINT are acted on between two parts of a round, which last about `programs.PART_SECONDS` (one update or one
    cycle of collection at least), and while programs are compiled and policies evaluated.

    Args:
      prepared: what to run.
      out: the run directory.
      resume: go on from its last checkpoint.
      quiet: show no progress.
      began: when this process began, of `time.monotonic`, so that times include what came before; now if not given.

    Raises:
      UsageError: if `out` holds another run, with `resume` one of another config or one that is damaged, if another process
        writes there, or if it is deleted.
      Diverged: with the last good checkpoint named.
      Interrupted: after SIGTERM or SIGINT, once a checkpoint is on the disk. Summary and report are written then, too.
    """
    out, text = Path(out), tomli_w.dumps(prepared.config)
    if not is_first_host():
        return hosts.follow(prepared.setup, _restored(prepared.setup, out)[0] if resume else None)
    with run_directory.opened(out, text, resume) as held:
        state, meta = _restored(prepared.setup, out) if resume else (None, place.new())
        _write_text(out / 'config.toml', text)  # first of all: without it neither a fresh start nor --resume takes the directory
        writer = writers.MetricsWriter(out)
        writer.truncate(meta['offset'], meta['digest'])
        session = _Session(prepared, held, writer, state, meta, Stopwatch(began))
        try:
            with writer:
                session.run(quiet)
        except (Interrupted, running.Diverged) as stop:
            held.check()
            _finish(session, *_unfinished(stop))
            raise
        return _finish(session)


def _unfinished(stop):
    if isinstance(stop, Interrupted):
        return 'interrupted', 'This run was interrupted; the same command with --resume goes on.'
    return 'diverged', f'This run diverged: {stop}'


def _write_text(path, text):
    with writers.atomically(path) as file:
        file.write(text)


def _restored(setup, out):
    found = checkpoint.restore(out / 'checkpoint', place.template_of(setup))
    if found is None:
        _refuse_lost(setup, out)
        return None, place.new()
    (agent, finished, stores, collectors, known, sums), meta = found
    diverged = {name: tuple(seeds) for name, seeds in meta.get('diverged', {}).items()}
    arrays = agent, finished, stores, collectors
    state = rounds.RunState(meta['phase'], meta['round'], *arrays, diverged, meta['done'], known, sums)
    return state, meta | {'times': _newest_times(out, meta['times'])}


def _newest_times(out, times):
    """Times of the sessions before: of the last summary where that was written after the checkpoint."""
    try:
        written = writers.read_json(out / 'summary.json')['times_by_phase']
        return max(times, written, key=total)
    except (OSError, UsageError, LookupError, AttributeError, TypeError):
        return times


def _refuse_lost(setup, out):
    """A run without any checkpoint begins anew, unless it has come further than a run without checkpoints can."""
    metrics, first = out / 'metrics.jsonl', setup.phases[0].name
    rows = writers.read_rows(metrics) if metrics.is_file() else []
    if (out / 'summary.json').exists() or any(row.get('phase') != first for row in rows):
        raise UsageError(
            f'--resume needs a checkpoint; {out} has lost those of its run; everything was left as it is; restore '
            f'{out / "checkpoint"} or start anew with another --out'
        )


class _Session:
    """The loop over events: writes rows, checkpoints now and then, shows progress."""

    def __init__(self, prepared, held, writer, state, meta, watch):
        self.prepared, self.held, self.writer, self.state, self.meta = prepared, held, writer, state, meta
        self.watch, self._before = watch, meta['times']
        self.saver = checkpoint.Saver(held.out / 'checkpoint')
        self.saved_at = time.monotonic()

    def times(self):
        """Seconds by phase and activity up to now, of this session and those before."""
        return added(self._before, self.watch.lap())

    def run(self, quiet):
        """The whole run; whatever ends it, the last checkpoint that was begun is on the disk afterwards."""
        try:
            with noted() as caught:
                self._loop(caught, quiet)
        except running.Diverged as error:
            raise running.Diverged(f'{error}; {self._last_good()}') from None
        except running.Failed as error:
            if self.state is not None and running.stands(self.state):
                self.save()
                self.saver.wait()
            raise UsageError(f'{error}; {self._last_good()}') from None
        finally:
            with self.watch.on('checkpoint'):
                self.saver.close()

    def _last_good(self):
        good = checkpoint.newest(self.saver.directory)
        return 'no checkpoint was written before' if good is None else f'the last good checkpoint is {good}'

    def _loop(self, caught, quiet):
        setup = self.prepared.setup
        stopped, ahead = lambda: bool(caught.number), num_cores() > 1 and num_hosts() == 1
        events = running.iterate(setup, resume=self.state, stopped=stopped, watch=self.watch, ahead=ahead)
        first = 0 if self.state is None else self.state.phase
        for number in range(first, len(setup.phases)):
            self._phase(events, setup.phases[number], caught, quiet)

    def _phase(self, events, phase, caught, quiet):
        sizes, unit = round_sizes(phase, self.prepared.setup), 'updates' if phase.num_updates else 'cycles'
        resumed, counted = self.state or running.initial(self.prepared.setup), 0 if phase.num_updates else 1
        per_step = sizes[0][0] // max(sizes[0][1], 1) if counted == 0 and sizes[0][1] else 1
        done = sizes.done(resumed.round)[counted] + resumed.done * per_step
        with _progress(f'{phase.name:<16}', sizes.done(len(sizes))[counted], done, unit, quiet) as advance:
            for event in events:
                self._record(event)
                advance(event.steps, note(event.rows))
                stop = caught.number
                late = time.monotonic() - self.saved_at > self.prepared.config['run']['checkpoint_seconds']
                if event.phase_done or stop or late:
                    self.save()
                if stop:
                    with self.watch.on('checkpoint'):
                        self.saver.wait()
                    raise Interrupted(stop)
                if event.phase_done:
                    return

    def _record(self, event):
        self.state = event.state
        self.writer.write(event.rows)

    def save(self):
        """Puts rows and state on the disk, in this order: a checkpoint never promises rows that are not there."""
        with self.watch.on('checkpoint'):
            self._save(self.state)

    def _save(self, state):
        self.held.check()
        self.meta |= {
            **place.of(state), 'times': self.times(), 'offset': self.writer.offset(), 'digest': self.writer.digest(),
        }  # fmt: skip
        self.meta['number'] += 1
        arrays = (state.agent, state.finished, state.stores, state.collectors, state.known, state.sums)
        self.saver.save(self.meta['number'], arrays, self.meta)
        self.saved_at = time.monotonic()


def _progress(description, total, done, unit, quiet):
    if quiet:
        return contextlib.nullcontext(lambda num, note='': None)
    return writers.progress(description, total, completed=done, unit=unit)


def note(rows) -> str:
    """A short word on the newest evaluation in `rows`, for the progress line."""
    lost = len({row['seed'] for row in rows if row.get('finite') == 0.0})
    said = f'{lost} seed{"s" * (lost > 1)} diverged' if lost else ''
    rows = [row for row in rows if row['kind'] == 'eval' and 'return' in row]
    if not rows:
        return said
    parts = [f'success {np.mean([row["success"] for row in rows]):.2f}, return {np.mean([row["return"] for row in rows]):.2f}']
    if any('normalised' in row for row in rows):
        parts = [f'normalised score {np.mean([row["normalised"] for row in rows]):.1f}']
    return ', '.join([*parts, said] if said else parts)


def _finish(session, status='complete', note=None):
    """Writes `metrics.csv`, the map, the report and `summary.json`; returns the summary.

    The summary is written before the report, in case that is interrupted, and again with all times. A directory that was deleted
    meanwhile is not made again.
    """
    from ooorl.reporting import report

    held, prepared = session.held, session.prepared
    out, columns = held.out, prepared.config['report']['map_columns']
    session.watch.enter('')
    with session.watch.on('report'):
        held.check()
        writers.write_csv(out / 'metrics.jsonl', out / 'metrics.csv')
        summary = summarise(prepared, writers.read_rows(out / 'metrics.jsonl'), session.times())
        summary |= {'status': status, 'notes': [note, *summary['notes']] if note else summary['notes']}
        held.check()
        writers.write_json(out / 'summary.json', summary)
        states = visited(prepared, session.state, columns) if columns else {}
        states |= denoising_paths(prepared, session.state)
        held.check()
        if states:
            _write_map(out / 'states.npz', states)
        report.report([out], out / 'report.html')
    summary |= whole_times(session.times())
    held.check()
    writers.write_json(out / 'summary.json', summary)
    return summary


def _write_map(path, arrays):
    with writers.atomically(path, 'wb') as file:
        np.savez_compressed(file, **arrays)
