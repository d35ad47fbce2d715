"""A run directory: everything that a run writes, and how it is interrupted and resumed.

The directory holds `config.toml` (resolved), `metrics.jsonl`, `metrics.csv`, TensorBoard events, `summary.json`, `checkpoint/`,
`report.html` and, where a map is asked for, `states.npz`. Rows of metrics hold no times, so a run that was interrupted and
resumed leaves the same rows as one that was not. These names are an interface.
"""

import contextlib
import difflib
import signal
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tomli_w

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner import config
from ooorl.runner.prepare import Prepared
from ooorl.runner.summary import summarise, visited
from ooorl.training import checkpoint, rounds
from ooorl.training import run as running
from ooorl.training.phases import round_sizes


class Interrupted(Exception):
    """A signal asked the run to stop; it has been checkpointed. `number` is the signal's."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def execute(prepared: Prepared, out: Path, *, resume: bool = False, quiet: bool = False) -> dict:
    """Runs a prepared config in directory `out` and returns the summary.

    Raises:
      UsageError: if `out` holds another run, or with `resume` one of another config.
      Diverged: with the last good checkpoint named.
      Interrupted: after SIGTERM or SIGINT, once a checkpoint is on the disk.
    """
    out = Path(out)
    text = tomli_w.dumps(prepared.config)
    _open_directory(out, text, resume)
    state, meta = _restored(prepared.setup, out) if resume else (None, _new_meta())
    _write_text(out / 'config.toml', text)
    writer = writers.MetricsWriter(out)
    writer.truncate(meta['offset'])
    session = _Session(prepared, out, writer, state, meta)
    with _signals() as caught, writer:
        state = session.loop(caught, quiet)
    return finish(prepared, out, state, session.meta)


def _write_text(path, text):
    with writers.atomically(path) as file:
        file.write(text)


def _deciding(text):
    """What decides the results in a config: complete with settings that came later, without those that change no result.

    So a run may go on with more cores or fewer, and after an upgrade. A text that makes no sense comes back as it is.
    """
    try:
        table = config.resolve(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, UsageError):
        return text
    table['environment'].pop('workers')
    return tomli_w.dumps(table)


def _open_directory(out, text, resume):
    existing = out / 'config.toml'
    if not resume:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(
                f'--out needs a new or empty directory; {out} holds {"another run" if existing.is_file() else "other files"}; '
                'choose another one, or go on with --resume'
            )
        return
    if not existing.is_file():
        raise UsageError(f'--resume needs the directory of a run; {out} holds no config.toml; start it without --resume')
    before, text = _deciding(existing.read_text(encoding='utf-8')), _deciding(text)
    if before != text:
        changes = difflib.unified_diff(before.splitlines(), text.splitlines(), 'config.toml', 'this config', lineterm='', n=0)
        shown = ' | '.join(line for line in changes if line[:1] in '+-' and line[:3] not in ('+++', '---'))
        raise UsageError(
            f'--resume needs the config the run was started with; this one differs ({shown}); undo that or use another --out'
        )


def _new_meta():
    return {'phase': 0, 'round': 0, 'under_way': False, 'offset': 0, 'seconds': {}, 'compile_seconds': {}}


def _restored(setup, out):
    found = checkpoint.restore(
        out / 'checkpoint', lambda meta: rounds.template(setup, meta['phase'], meta['under_way'])
    )
    if found is None:
        return None, _new_meta()
    (agent, finished, stores, collectors), meta = found
    return rounds.RunState(meta['phase'], meta['round'], agent, finished, stores, collectors), meta


class _Session:
    """The loop over events: writes rows, checkpoints now and then, shows progress."""

    def __init__(self, prepared, out, writer, state, meta):
        self.prepared, self.out, self.writer, self.state, self.meta = prepared, out, writer, state, meta
        self.saved_at = time.monotonic()

    def loop(self, caught, quiet):
        setup = self.prepared.setup
        events = running.iterate(setup, resume=self.state)
        first = 0 if self.state is None else self.state.phase
        try:
            for number in range(first, len(setup.phases)):
                self._phase(events, setup.phases[number], caught, quiet)
        except running.Diverged as error:
            good = checkpoint.newest(self.out / 'checkpoint')
            where = 'no checkpoint was written before' if good is None else f'the last good checkpoint is {good}'
            raise running.Diverged(f'{error}; {where}') from None
        return self.state

    def _phase(self, events, phase, caught, quiet):
        setup = self.prepared.setup
        sizes = round_sizes(phase, setup)
        resumed = self.state is not None and self.state.round or 0
        total, done = (updates or cycles for updates, cycles in (sizes.done(len(sizes)), sizes.done(resumed)))
        unit = 'updates' if phase.num_updates else 'cycles'
        with _progress(f'{phase.name:<16}', total, done, unit, quiet) as advance:
            for event in events:
                self._record(event)
                size = sizes[(event.state.round or len(sizes)) - 1]
                advance(size[0] or size[1], note(event.rows))
                stop = caught.number
                late = time.monotonic() - self.saved_at > self.prepared.config['run']['checkpoint_seconds']
                if event.phase_done or stop or late:
                    self.save()
                if stop:
                    raise Interrupted(stop)
                if event.phase_done:
                    return

    def _record(self, event):
        self.state = event.state
        self.writer.write(event.rows)
        for name, seconds in (('seconds', event.seconds), ('compile_seconds', event.compile_seconds)):
            self.meta[name][event.phase.name] = self.meta[name].get(event.phase.name, 0.0) + seconds

    def save(self):
        """Puts rows and state on the disk, in this order: a checkpoint never promises rows that are not there."""
        state = self.state
        self.meta |= {
            'phase': state.phase, 'round': state.round, 'under_way': state.agent is not None, 'offset': self.writer.offset(),
        }
        number = state.phase * 1_000_000 + state.round
        checkpoint.save(self.out / 'checkpoint', number, (state.agent, state.finished, state.stores, state.collectors), self.meta)
        self.saved_at = time.monotonic()


def _progress(description, total, done, unit, quiet):
    if quiet:
        return contextlib.nullcontext(lambda num, note='': None)
    return writers.progress(description, total, completed=done, unit=unit)


def note(rows) -> str:
    """A short word on the newest evaluation in `rows`, for the progress line."""
    rows = [row for row in rows if row['kind'] == 'eval']
    if not rows:
        return ''
    success = np.mean([row['success'] for row in rows])
    if any('normalised' in row for row in rows):
        return f'normalised score {np.mean([row["normalised"] for row in rows]):.1f}'
    return f'success {success:.2f}, return {np.mean([row["return"] for row in rows]):.2f}'


class _Caught:
    number = 0


class _signals:
    """While inside, SIGTERM and SIGINT are noted instead of obeyed; the run stops at the end of the round."""

    def __enter__(self):
        caught = _Caught()

        def catch(number, frame):
            del frame
            if caught.number == number == signal.SIGINT:
                raise KeyboardInterrupt  # asked twice: stop at once, the last checkpoint stands
            caught.number = number

        try:
            self._before = {number: signal.signal(number, catch) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread: somebody else handles signals
            self._before = {}
        return caught

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


def finish(prepared: Prepared, out: Path, state: rounds.RunState, meta: Mapping) -> dict:
    """Writes `metrics.csv`, `summary.json`, the map and the report of a complete run; returns the summary."""
    from ooorl.reporting import report

    writers.write_csv(out / 'metrics.jsonl', out / 'metrics.csv')
    summary = summarise(prepared, writers.read_rows(out / 'metrics.jsonl'), meta)
    writers.write_json(out / 'summary.json', summary)
    columns = prepared.config['report']['map_columns']
    if columns:
        np.savez_compressed(out / 'states.npz', **visited(prepared, state, columns))
    report.report([out], out / 'report.html')
    return summary


