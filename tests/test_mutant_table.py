"""Every entry of the table of mutants still applies: its old text is there once, its tests are there."""

from collections import Counter

from conftest import ROOT
from mutant_table import TABLE
from mutants import stale


def test_every_edit_is_of_a_text_that_is_there_exactly_once():
    assert [mutant.name for mutant in TABLE if stale(mutant)] == []


def test_every_edit_has_a_name_of_its_own_changes_something_and_is_run_against_tests_that_are_there():
    assert [name for name, count in Counter(mutant.name for mutant in TABLE).items() if count > 1] == []
    assert [mutant.name for mutant in TABLE if mutant.old == mutant.new] == []
    files = {test.partition('::')[0] for mutant in TABLE for test in mutant.tests}
    assert [name for name in files if not (ROOT / 'tests' / name).is_file()] == []
