"""Groups of seeds on a CPU are equal where they can be."""

from ooorl.runner.seed_groups import seed_group


def test_small_networks_share_a_program_in_equal_groups_and_large_ones_do_not():
    small, large = ({'agent': {'agent': 'bc', 'hidden': hidden}} for hidden in ([64, 96], [64, 97]))
    assert [seed_group(small, num) for num in (1, 2, 3, 4, 5, 6, 7, 8, 10, 11)] == [4, 4, 3, 4, 5, 3, 7, 4, 5, 4]
    assert seed_group(large, 5) == seed_group({'agent': {'agent': 'bc'}}, 5) == 1
