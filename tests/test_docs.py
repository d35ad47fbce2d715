"""The code that readers are shown runs as it stands there, and the pages made from the code are up to date."""

import functools
import os
import re
import subprocess
import sys

import pytest
from conftest import PATIENCE, ROOT

from ooorl.agents import ALGORITHMS
from ooorl.envs import scripted
from ooorl.runner import settings
from ooorl.runner.cli import main
from ooorl.runner.describe import settings_of
from ooorl.training.preflight import check

BLOCK = re.compile(r'^```(python|toml)\n(.*?)^```', re.MULTILINE | re.DOTALL)


def blocks(page):
    return BLOCK.findall((ROOT / page).read_text(encoding='utf-8'))


def test_the_readmes_programs_run_as_printed(monkeypatch):
    # As printed, but with fewer episodes: how many there are is nothing that a reader sees.
    monkeypatch.setattr(scripted, 'u_maze_offline', functools.partial(scripted.u_maze_offline, num_episodes=8))
    program = '\n'.join(code for kind, code in blocks('README.md') if kind == 'python')
    namespace = {}
    exec(compile(program, 'README.md', 'exec'), namespace)
    assert namespace['action'].shape == (6,)
    assert namespace['metrics']['q/loss'].shape == (32,)
    check(namespace['setup'])


def test_the_page_on_writing_an_algorithm_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for _, code in blocks('docs/algorithm.md'):
        name = re.match(r'# (\w+\.\w+)\n', code)
        if name:
            (tmp_path / name[1]).write_text(code, encoding='utf-8')
        else:
            exec(compile(code, 'algorithm.md', 'exec'), {})
    short = ['--set', 'offline.num_updates=10', '--set', 'run.updates_per_round=5', '--set', 'evaluation.num_episodes=2']
    assert main(['run', 'one_step.toml', '--out', 'out', *short]) == 0
    assert (tmp_path / 'out' / 'report.html').exists()


@pytest.mark.parametrize('page', ['config.md', 'api.md'])
def test_pages_made_from_the_code_are_up_to_date(page):
    program = f'import generate; print(generate.PAGES[{page!r}](), end="")'
    done = subprocess.run(
        [sys.executable, '-c', program], cwd=ROOT / 'docs', capture_output=True, text=True, encoding='utf-8', check=True
    )
    assert done.stdout == (ROOT / 'docs' / page).read_text(encoding='utf-8'), f'docs/{page} is stale; make docs writes it anew'


def test_every_page_has_its_place_on_the_site_and_links_lead_somewhere():
    pages = {path.name for path in (ROOT / 'docs').glob('*.md')}
    listed = re.findall(r'- (\w+\.md)', (ROOT / 'mkdocs.yml').read_text(encoding='utf-8'))
    assert sorted(listed) == sorted(pages)
    links = {link for page in pages for link in re.findall(r'\]\((\w+\.md)', (ROOT / 'docs' / page).read_text(encoding='utf-8'))}
    assert links <= pages


def test_every_setting_says_what_it_means():
    kinds = [settings.AgentConfig, *settings.TABLES.values(), *settings.SUB_TABLES.values()]
    kinds += [algorithm.config for algorithm in ALGORITHMS.values()]
    kinds += [kind for own, _, chosen in settings.CHOSEN.values() for kind in (own, *chosen.values())]
    assert not [f'{kind.__name__}.{s.name}' for kind in kinds for s in settings_of(kind) if not s.meaning]


def test_the_site_builds_and_is_read_without_a_network(tmp_path):
    quiet = {**os.environ, 'NO_MKDOCS_2_WARNING': '1'}  # on its makers' plans
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=PATIENCE)
    assert built.returncode == 0, built.stderr
    pages = {page.name: page.read_text(encoding='utf-8') for page in tmp_path.glob('*.html')}
    assert {path.stem for path in (ROOT / 'docs').glob('*.md')} <= {name.removesuffix('.html') for name in pages}
    fetched = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)="(?:https?:)?//[^"]*"')
    assert {name: found for name, text in pages.items() if (found := fetched.findall(text))} == {}
    styles = ''.join(path.read_text(encoding='utf-8') for path in tmp_path.rglob('*.css'))
    assert styles and not re.search(r'url\(["\']?(?:https?:)?//', styles)
