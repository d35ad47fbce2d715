"""The comparisons beside OGBench's released code and of its published size: what of them can be worked out by hand."""

import json
import math
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from conftest import ROOT

from ooorl.types import Transition


def test_windows_end_with_their_episode_and_repeat_its_last_row(script):
    released = script('experiments/ogbench_released')
    number, boundary = np.arange(7.0), np.array([0, 0, 1, 0, 0, 0, 1.0])
    data = Transition(number[:, None], number[:, None], number, number, number[:, None], {'boundary': boundary})
    found = released.windows_at(data, np.array([0, 3, 5]))
    assert found.reward.tolist() == [[0, 1, 2, 2, 2], [3, 4, 5, 6, 6], [5, 6, 6, 6, 6]]
    assert found.extras['valid'].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]


def test_parameters_are_carried_to_where_the_released_code_has_them(script):
    """Our flow reads (action, observation, time), theirs (observation, action, time); our edit's heads are one layer."""
    flow = {'Dense_0': {'kernel': np.array([[1.0], [2.0], [3.0], [4.0]])}, 'Dense_3': {'bias': np.zeros(2)}}  # 2 of the action
    edit = {'Dense_0': 'first', 'Dense_3': {'kernel': np.array([[1.0, 2.0, 3.0, 4.0]]), 'bias': np.arange(4.0)}}
    critic = SimpleNamespace(q=({'params': {'w': 1.0}}, {'params': {'w': 2.0}}), target_q=({'params': {'w': 3.0}},))
    state = SimpleNamespace(
        policy={'params': {'body': flow}}, edit={'network': {'params': edit}}, critic=critic, log_temperature=0.5,
    )  # fmt: skip
    found = script('experiments/ogbench_released').carried_edit(state)
    assert found['modules_actor_bc_flow']['mlp']['Dense_0']['kernel'].tolist() == [[3], [1], [2], [4]]
    heads = found['modules_edit_actor']
    assert heads['MLP_0'] == {'Dense_0': 'first'} and heads['OutputDenseMean']['kernel'].tolist() == [[1, 2]]
    assert heads['OutputDenseLogStd']['bias'].tolist() == [2, 3]
    assert found['modules_critic']['value_net']['w'].tolist() == [1, 2]
    assert found['modules_target_critic']['value_net']['w'].tolist() == [3]
    critic.value = {'params': {'w': 4.0}}
    ifql = script('experiments/ogbench_released').carried_ifql(state)
    assert ifql['modules_value'] == {'value_net': {'w': 4.0}} and set(ifql) == {
        'modules_actor_flow', 'modules_value', 'modules_critic', 'modules_target_critic',
    }


def test_the_two_distributions_have_their_densities(script):
    released = script('experiments/ogbench_released')
    squashed = released.Squashed(released.Normal(np.array([0.5]), np.array([2.0])), None)
    squashed.drawn = np.array([1.5])
    normal = -0.5 * 0.25 - math.log(2.0) - 0.5 * math.log(2.0 * math.pi)  # half a deviation from the mean
    assert float(squashed.log_prob(None)) == pytest.approx(normal - math.log(1.0 - math.tanh(1.5) ** 2), rel=1e-5)


def test_trees_lie_apart_by_their_difference_beside_the_second(script):
    ours, theirs = {'a': np.array([3.0, 0.0]), 'b': np.array([1.0])}, {'a': np.array([0.0, 4.0]), 'b': np.array([1.0])}
    assert script('experiments/ogbench_released')._apart(ours, theirs) == pytest.approx(math.sqrt(25.0 / 17.0))


class _State(NamedTuple):
    policy: np.ndarray
    policy_opt: np.ndarray
    target_q: np.ndarray
    q: dict


def test_what_the_published_size_costs_is_counted_and_told(script):
    scaling = script('experiments/ogbench_scaling')
    state = _State(np.zeros((3, 4)), np.zeros(100), np.zeros(50), {'kernel': np.zeros(5), 'bias': np.zeros(1)})
    assert scaling._numbers(state) == 18, 'optimisers and slow copies are none of the parameters'
    held = json.loads((ROOT / 'experiments' / 'results' / 'ogbench_scaling.json').read_text(encoding='utf-8'))
    told = scaling.table(held).splitlines()
    assert told[2] == '| scene:1:ifql:small | 599,580 | 155 | 1.12, 1.48 | 281, 328 | 1,254 |'
    assert told[3] == '| scene:1:ifql:full | 9,912,356 | 5.23 | 10.1, 13.7 | 2,290, 2,340 | 2,076 |'
