"""Where numbers come from: the commit of the package's own files, the config as it lies in the run directory."""

import hashlib
import subprocess

from ooorl.runner.provenance import git_commit, provenance


def git(folder, *arguments):
    identity = ('-c', 'user.name=a', '-c', 'user.email=a@b.c', '-c', 'commit.gpgsign=false')
    return subprocess.run(['git', '-C', folder, *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def test_commit_of_the_files_and_whether_they_changed(tmp_path):
    package = tmp_path / 'package'
    package.mkdir()
    (package / '__init__.py').write_text('a = 1\n')
    assert git_commit(package) is None  # no clone
    git(tmp_path, 'init', '-q')
    (tmp_path / 'other').write_text('')
    git(tmp_path, 'add', 'other')
    git(tmp_path, 'commit', '-qm', 'one')
    assert git_commit(package) is None  # somebody else's repository
    git(tmp_path, 'add', '-A')
    git(tmp_path, 'commit', '-qm', 'two')
    head = git(tmp_path, 'rev-parse', 'HEAD')
    assert git_commit(package) == head
    (tmp_path / 'other').write_text('changed, but not ours')
    assert git_commit(package) == head
    (package / '__init__.py').write_text('a = 2\n')
    assert git_commit(package) == f'{head}, with uncommitted changes'
    assert git_commit(tmp_path / 'nowhere') is None


def test_facts_name_the_config_and_the_machine():
    facts = provenance('name = "ü"\n')
    assert facts['config SHA-256'] == hashlib.sha256('name = "ü"\n'.encode()).hexdigest()
    assert facts['processor'] and facts['cores'].split()[0].isdecimal()
