"""Would the tests notice? Makes each of the wrong changes of `mutant_table/` in a copy of the code and runs its tests.

    make mutants                                       what has no result yet, whose edit has changed, and what survived
    python tests/mutants.py --fresh --jobs 4           everything anew
    python tests/mutants.py --only agents/td3          those whose name starts so

A mutant is killed when a test fails or does not end, and survives when all pass; the table may say why one does. An edit
whose old text is no longer found exactly once is stale: mend the table. Results are written to
`mutants_result.json` as they come. Exit code 1: stale edits, broken tests, or fewer killed than 95 %.
"""

import argparse
import compileall
import hashlib
import json
import os
import py_compile
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / 'tests' / 'mutants_result.json'
LIMIT_S = 900.0
CACHE = Path(tempfile.gettempdir()) / f'ooorl-mutants-{os.getuid()}'


def prepare_imports():
    """What all tests import is imported once, here; each mutant is a fork of this process."""
    os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1')
    os.environ['JAX_NUM_CPU_DEVICES'] = '1'
    os.environ.setdefault('OOORL_SHARED', str(ROOT.parent / 'shared'))
    import flax.linen  # noqa: F401
    import hypothesis  # noqa: F401
    import jax
    import optax  # noqa: F401
    import pytest  # noqa: F401
    import scipy.stats  # noqa: F401

    # Programs are found again by their content: a mutant compiles what differs.
    jax.config.update('jax_compilation_cache_dir', str(CACHE))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def copied() -> Path:
    """A copy of the code and its tests, with byte code that is checked by content."""
    place = Path(tempfile.mkdtemp(prefix='ooorl-mutant-'))
    for name in ('ooorl', 'tests', 'configs', 'experiments', 'docs', 'pyproject.toml'):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns('__pycache__'))
        elif source.is_file():
            shutil.copy(source, place / name)
    compileall.compile_dir(place / 'ooorl', quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    return place


def tested(place: Path, tests, write: bool) -> tuple[str, str, float]:
    """Runs pytest in a fork: ('passed', 'failed', 'error' or 'timeout', the first test that failed, seconds)."""
    start, report = time.perf_counter(), place / 'report.json'
    report.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        _be_child(place, tests, report, write)
    status = _waited(child)
    seconds = time.perf_counter() - start
    if status is None:
        return 'timeout', '', seconds
    failed = json.loads(report.read_text())['failed'] if report.exists() else ''
    return {0: 'passed', 1: 'failed'}.get(os.waitstatus_to_exitcode(status), 'error'), failed, seconds


def _waited(child):
    """The status of a child, or None where it had to be ended."""
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _be_child(place, tests, report, write):
    import pytest

    os.setsid()
    os.chdir(place)
    log = os.open(place / 'log.txt', os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.dont_write_bytecode = not write
    sys.path[:] = [str(place), *(path for path in sys.path if Path(path or '.').resolve() not in (ROOT, ROOT / 'tests'))]

    class First:
        def pytest_runtest_logreport(self, report=None, path=report):
            if report.failed and not path.exists():
                path.write_text(json.dumps({'failed': report.nodeid}))

    selected = [str(place / 'tests' / test) for test in tests]
    code = pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '-c', str(place / 'pyproject.toml'), *selected], plugins=[First()])
    os._exit(int(code))


def digest(mutant) -> str:
    """Changes with the edit and with what is run against it."""
    return hashlib.sha256('\0'.join([mutant.old, mutant.new, *mutant.tests]).encode()).hexdigest()[:12]


def stale(mutant) -> bool:
    """Whether the edit no longer applies."""
    return (ROOT / 'ooorl' / mutant.file).read_text(encoding='utf-8').count(mutant.old) != 1


def run_one(mutant, place: Path) -> dict:
    """The result of one mutant."""
    path = place / 'ooorl' / mutant.file
    text = path.read_text(encoding='utf-8')
    path.write_text(text.replace(mutant.old, mutant.new), encoding='utf-8')
    try:
        outcome, failed, seconds = tested(place, mutant.tests, write=False)
    finally:
        path.write_text(text, encoding='utf-8')
    result = {'status': 'survived' if outcome == 'passed' else 'killed', 'seconds': round(seconds, 1), 'digest': digest(mutant)}
    if outcome != 'passed':
        result['by'] = failed or outcome
    return result


def baseline(mutants, place: Path) -> list[str]:
    """The test files that fail without any edit."""
    broken = []
    for tests in sorted({mutant.tests for mutant in mutants}):
        outcome, failed, seconds = tested(place, tests, write=True)
        print(f'unchanged: {outcome} {failed} {", ".join(tests)} ({seconds:.0f} s)', flush=True)
        broken += [] if outcome == 'passed' else [failed or ', '.join(tests)]
    return broken


def summary(table, results) -> int:
    """Prints the score and the survivors; the exit code."""
    outdated = [mutant.name for mutant in table if stale(mutant)]
    # A result of another edit, or of other tests, says nothing.
    known = {m.name: results[m.name] for m in table if results.get(m.name, {}).get('digest') == digest(m)}
    survived = [mutant for mutant in table if known.get(mutant.name, {}).get('status') == 'survived']
    killed = sum(result['status'] == 'killed' for result in known.values())
    share = killed / max(len(known), 1)
    print(f'{killed} of {len(known)} mutants killed, {share:.1%}; {len(table) - len(known)} of {len(table)} not run as they are')
    for mutant in survived:
        print(f'survived: {mutant.name}: {mutant.excuse or "no reason known"}')
    for name in outdated:
        print(f'stale, its old text is not there exactly once: {name}')
    return int(bool(outdated) or share < 0.95)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--jobs', type=int, default=1)
    parser.add_argument('--fresh', action='store_true', help='run also what has a result')
    parser.add_argument('--only', default='', help='the start of names')
    parser.add_argument('--report', action='store_true', help='run nothing')
    parser.add_argument('--no-baseline', action='store_true', help='trust that the tests pass without an edit')
    given = parser.parse_args()
    from mutant_table import TABLE

    results = json.loads(RESULTS.read_text(encoding='utf-8')) if RESULTS.exists() else {}
    results = {mutant.name: results[mutant.name] for mutant in TABLE if mutant.name in results}

    def wanted(mutant):
        old = results.get(mutant.name, {})
        known = old.get('digest') == digest(mutant) and old.get('status') == 'killed'
        return mutant.name.startswith(given.only) and not stale(mutant) and (given.fresh or not known)

    todo = [] if given.report else [mutant for mutant in TABLE if wanted(mutant)]
    if todo:
        prepare_imports()
        places = [copied() for _ in range(given.jobs)]
        broken = [] if given.no_baseline else baseline(todo, places[0])
        if broken:
            print(f'these fail without any edit: {", ".join(broken)}')
            return 1

        def work(mutant):
            place = places.pop()
            result = run_one(mutant, place)
            places.append(place)
            results[mutant.name] = result
            RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + '\n', encoding='utf-8')
            print(f'{result["status"]}: {mutant.name} ({result["seconds"]} s) {result.get("by", "")}', flush=True)

        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(work, todo))
        for place in places:
            shutil.rmtree(place)
    return summary(TABLE, results)


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT / 'tests'))
    sys.exit(main())
