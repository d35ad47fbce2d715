"""Commands that readers are shown are commands, and the nine ways through lead somewhere."""

import re
import shlex

import numpy as np
import pytest
from conftest import ROOT

from ooorl.runner import cli, presets
from ooorl.runner.cli import main

PAGES = ['README.md', *sorted(f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md') if path.name not in ('api.md',))]
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```', re.MULTILINE | re.DOTALL)
# Minutes, a download or processes of their own; what comes after a run of one's own data `test_fqe` goes through.
ELSEWHERE = ('demo', 'medium-v2', 'umaze-v2', 'sweep.toml', 'fqe', 'data check', 'export')
SHORT = ['--set', 'offline.num_updates=10', '--set', 'agent.hidden=[8]', '--set', 'agent.sampling.batch_size=8']


def commands(page):
    """The command lines of a page's blocks, without their comments."""
    for kind, code in BLOCK.findall((ROOT / page).read_text(encoding='utf-8')):
        if kind in ('', 'bash'):
            lines = (line.partition('  #')[0].strip() for line in code.splitlines())
            yield from (line for line in lines if line.startswith('ooorl ') and ' ... ' not in line and not line.endswith('...'))


def slug(heading):
    return re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')


@pytest.mark.parametrize('page', PAGES)
def test_commands_that_are_shown_are_commands(page):
    for line in commands(page):
        words = shlex.split(line)[1:]
        if words == ['--version']:
            continue
        arguments = cli._parser().parse_args(words)
        named = str(getattr(arguments, 'config', ''))
        if named.endswith('.toml') and named.startswith('configs/'):
            assert (ROOT / named).is_file(), line
        elif named and '.' not in named and '/' not in named:
            name, _, variant = named.partition('@')
            assert not variant or variant in presets.read(name)['variants'], line


def test_settings_that_take_the_place_of_others_exist():
    known = set(re.findall(r'^\| `(\w+)`', (ROOT / 'docs' / 'config.md').read_text(encoding='utf-8'), re.MULTILINE))
    text = (ROOT / 'docs' / 'migration.md').read_text(encoding='utf-8')
    named = re.findall(r'`(?:agent|dataset|offline|finetune|evaluation|run)\.([a-z_.]+)', text)
    tables = {'sampling', 'online_sampling', 'reward'}
    assert len(named) > 30 and {part for name in named for part in name.split('.')} <= known | tables


def test_links_lead_to_files_and_headings():
    for page in [*(ROOT / name for name in PAGES), *sorted((ROOT / 'experiments').glob('*.md'))]:
        for target, anchor in re.findall(r'\]\((?!\w+:)([^)#\s]*)#?([\w\-]*)\)', page.read_text(encoding='utf-8')):
            path = page.parent / target if target else page
            assert path.exists(), f'{page.name}: {target}'
            headings = re.findall(r'^#+ (.*)$', path.read_text(encoding='utf-8'), re.MULTILINE) if anchor else []
            assert not anchor or anchor in map(slug, headings), f'{page.name}: {target}#{anchor}'


def test_the_nine_ways_are_gone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('ooorl.reporting.figures.svg', lambda drawn: '<svg></svg>')
    generator = np.random.default_rng(0)
    np.savez(
        'mine.npz', observations=generator.normal(size=(80, 3)), actions=generator.uniform(-1, 1, (80, 2)),
        rewards=generator.normal(size=80), terminals=np.arange(80) % 8 == 7,
    )  # fmt: skip
    for kind, code in BLOCK.findall((ROOT / 'docs' / 'journeys.md').read_text(encoding='utf-8')):
        if kind == 'python':
            namespace = {}
            exec(compile(code, 'journeys.md', 'exec'), namespace)
            assert namespace['action'].shape == (2,)
    for line in commands('docs/journeys.md'):
        words = shlex.split(line)[1:]
        if any(part in line for part in ELSEWHERE):
            continue
        assert main([*words, *(SHORT if words[0] == 'run' else ())]) == 0, line
    told = capsys.readouterr().out
    assert 'memory plan' in told and 'action variance' in told
    assert (tmp_path / 'results.tex').is_file() and (tmp_path / 'compared.html').is_file()
