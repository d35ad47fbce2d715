# ruff: noqa: E501 - an edit stays on one line, as the line that it changes does
"""Wrong changes of envs/."""

from mutant_table.entry import mutants

TABLE = [
    *mutants(
        'envs/steered.py', ('agents/test_dsrl.py',),
        ('unbounded', 'decoded(state.observation, bound * action)', 'decoded(state.observation, action)'),
        ('decoded where the episode ended', 'SteeredState(inner, timestep.observation), timestep', 'SteeredState(inner, timestep.next_observation), timestep'),
    ),
    *mutants(
        'envs/ogbench/single_task.py', ('data/test_ogbench.py::test_rewards_are_those_of_the_state_that_is_acted_in', 'data/test_ogbench.py::test_sparse_rewards_tell_only_whether_all_is_done', 'data/test_ogbench.py::test_recorded_actions_from_recorded_states_give_the_same'),
        ('sparse rewards pay for parts', "-(labels['rewards'] != 0)", "-(labels['rewards'] < -1)"),
        ('sparse steps pay for parts', 'reward = -float(reward != 0.0)', 'reward = -float(reward < -1.0)'),
        ('success of an earlier state', 'self._inner.post_step()', 'self._inner.pre_step()'),
    ),
    *mutants(
        'envs/ogbench/repeatable.py', ('data/test_ogbench.py::test_an_episode_follows_from_its_words', 'data/test_ogbench.py::test_episodes_follow_from_the_seed_whatever_was_before'),
        ('the action space is not seeded', 'env.action_space.seed(second)', 'env.action_space.seed(None)'),
        ("numpy's generator is left as the environment had it", 'np.random.set_state(outside)', 'np.random.set_state(self._state)'),
    ),
    *mutants(
        'envs/ogbench/shared_model.py', ('data/test_ogbench.py::test_copies_share_a_model_and_nothing_that_is_written_into_it',),
        ('what a copy wrote is forgotten', '_put(original.in_turn._own, original.arrays)', 'pass'),
        ('what another copy wrote stays', '_put(original.arrays, self._own)', 'pass'),
    ),
    *mutants(
        'envs/gymnasium_adapter.py', ('training/test_evaluate.py::test_scores_of_an_episode_do_not_depend_on_how_many_copies_take_turns',),
        ('every turn plays the first episodes', 'first + i % row', 'i % row'),
    ),
    *mutants(
        'envs/ogbench/oracles.py', ('data/test_ogbench.py::test_scenes_whose_cube_is_out_of_sight_are_made_anew', 'data/test_ogbench.py::test_stitched_goals_lie_four_cells_away'),
        ('cubes out of sight are kept', 'return not ((y >= 0.29)', 'return not ((y >= 2.9)'),
        ('a cube in the drawer is out of sight', '(z < 0.06) | (z > 0.08)', '(z < 0.08) | (z > 0.08)'),
        ('goals a cell further', 'for _ in range(distance):', 'for _ in range(distance + 1):'),
    ),
]
