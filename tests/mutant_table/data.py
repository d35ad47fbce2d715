# ruff: noqa: E501 - an edit stays on one line, as the line that it changes does
"""Wrong changes of data/."""

from mutant_table.entry import mutants

TABLE = [
    *mutants(
        'data/ogbench.py', ('data/test_ogbench.py::test_labels_and_rows_are_those_of_the_package',),
        ('the last row of an episode is kept', 'kept = ~ends', 'kept = np.ones(len(ends), bool)'),
        ('ends are marked a row late', 'boundary=ends[following]', 'boundary=ends[kept]'),
        ('labels are of the successor', 'column[kept] for column in labeller', 'column[np.flatnonzero(kept) + 1] for column in labeller'),
    ),
    *mutants(
        'data/shards.py', ('data/test_ogbench.py::test_a_make_is_the_same_for_every_number_of_processes_and_after_an_interruption',),
        ('parts of another plan are taken', "elif kept.read_text(encoding='utf-8') != text:", "elif not text:"),
    ),
]
