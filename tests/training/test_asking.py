"""Somebody is asked: the answers are used, kept, and not needed twice; silence loses nothing."""

import io
import json

import jax
import numpy as np
import pytest
from line_world import LineEnv
from small import trees_equal
from test_lives import SPEC, line

from ooorl.envs import host, make_task
from ooorl.errors import UsageError
from ooorl.training.asking import Question, asked, outcomes, remembered, scripted, terminal
from ooorl.training.interventions import wandering
from ooorl.training.lives import Rules, column, endless
from ooorl.training.phases import Phase, Setup
from ooorl.training.run import iterate, run

KEY = jax.random.key(0)
FALL = [[1, -1], [0.5, -1], [1, -1], [0, 1], [0, -1], [0, -1], [0, -1]]  # as in test_lives: lost with the third step


def _played(expert, actions, rules, task=None, **settings):
    """Time steps of the one copy, and what it cost."""
    environment = asked(task or line(), rules, expert, **settings)
    state, _ = environment.reset(KEY)
    steps = []
    for action in actions:
        state, timestep = environment.step(state, np.array([[action]], np.float32), KEY)
        steps.append(timestep)
    return steps, {name: int(value[0]) for name, value in environment.counts(state).items()}


def test_the_scripted_expert_is_the_compiled_one():
    rules = Rules(horizon=10, patience=2)
    steps, counts = _played(scripted(line().irreversible), FALL, rules)
    compiled, step = endless(line(), rules), None
    state, _ = compiled.reset(KEY)
    step = jax.jit(compiled.step)
    for ours, action in zip(steps, FALL, strict=True):
        state, theirs = step(state, np.array([action], np.float32), KEY)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), ours, jax.tree.map(np.asarray, theirs))
    expected = {name: int(value) for name, value in compiled.counts(state).items()}
    assert counts == {**expected, 'contradictions': 0, 'unlabelled_lives': 0} and counts['label_queries'] == 3


class _Line(LineEnv):
    """`test_lives.line` for gymnasium."""

    def step(self, action):
        self.position = self.position if self.position[0] >= 2 else self.position + np.float32(action)
        success = bool(self.position[0] <= -2)
        return self.position.copy(), float(success), success, False, {'success': success}


def test_lives_on_the_host_are_those_of_the_compiled_task_until_it_ends_itself():
    rules, bad = Rules(horizon=10, patience=2), line().irreversible
    actions = [*FALL, [-1, -1], [-1, -1], [0.5, -1]]
    ours = _played(scripted(bad), actions, rules, task=outcomes(SPEC, 10, bad), host=host(_Line, (1, 1), horizon=10))
    theirs = _played(scripted(bad), actions, rules)
    for mine, other in zip(ours[0][:-2], theirs[0], strict=False):
        jax.tree.map(np.testing.assert_array_equal, mine, other)
    # The compiled task's success ends a value; where the host begins again by itself a life is over.
    assert ours[0][-2].terminated.item() and ours[0][-2].observation[0, 0, 0] == 0 and theirs[0][-2].observation[0, 0, 0] == -2
    assert column(ours[0][-1].observation, 'life').item() == 2 and ours[0][-1].next_observation[0, 0, 0] == 0.5
    assert ours[1]['horizon'] == theirs[1]['horizon'] + 1
    with pytest.raises(UsageError, match='lives of one policy that success does not end'):
        asked(line(), Rules(horizon=10, end_at_success=True), scripted(bad), host=host(_Line, (1, 1), horizon=10))


def test_a_person_who_never_answers_loses_nothing():
    steps, counts = _played(lambda question: None, FALL, Rules(horizon=10, patience=2))
    assert column(steps[-1].observation, 'told')[0, 0] == -1 and column(steps[-1].observation, 'life')[0, 0] == 1
    assert (counts['unlabelled_lives'], counts['label_queries'], counts['interventions']) == (1, 0, 1)


def test_contradictions_are_counted_and_their_labels_not_used():
    # In a life of eight states the last is said to be fine and, on asking further, an earlier one not.
    calm = [[0.0, -1]] * 8
    steps, counts = _played(lambda question: question.number == 3, calm, Rules(horizon=8), audits=3)
    assert (counts['contradictions'], counts['unlabelled_lives'], counts['label_queries']) == (1, 1, 4)
    assert column(steps[-1].observation, 'told')[0, 0] == -1
    every = _played(lambda question: question.number >= 6, calm, Rules(horizon=8), mode='exhaustive')[1]
    assert every['label_queries'] == 8 and every['unlabelled_lives'] == 0


def test_answers_are_kept_at_once_and_asked_for_once(tmp_path):
    path, heard = tmp_path / 'answers.jsonl', []

    def person(question):
        if len(heard) == 2:
            raise KeyboardInterrupt
        heard.append(question.number)
        return question.number >= 2

    with pytest.raises(KeyboardInterrupt):
        _played(remembered(person, path), FALL, Rules(horizon=10, patience=2))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [[0, 0, 0, 5, True], [0, 0, 0, 2, True]]
    with path.open('a') as file:
        file.write('[0, 0, 0')  # killed while it wrote
    later = []
    again = remembered(lambda question: later.append(question.number) or False, path)
    steps, counts = _played(again, FALL, Rules(horizon=10, patience=2))
    assert later == [1] and counts['label_queries'] == 3 and column(steps[-1].observation, 'told')[0, 0] == 2
    path.write_text('["what"]\n')
    with pytest.raises(UsageError, match='answers must be lines'):
        remembered(person, path)


def test_the_terminal_asks_until_it_understands(tmp_path):
    question, out = Question(3, 0, 1, 4, 9, np.zeros(2, np.float32)), io.StringIO()
    lines = io.StringIO('what?\nY\nno\n\n')
    expert = terminal(make_task('ooorl/PointMassCliffs-v0'), lines=lines, out=out, picture=tmp_path / 'q.png')
    assert [expert(question) for _ in range(4)] == [True, False, None, None]
    assert 'state 5 of 9 of life 2, seed 3' in out.getvalue() and (tmp_path / 'q.png').stat().st_size > 200


def test_a_run_killed_while_it_waits_goes_on_from_its_checkpoint(tmp_path):
    answered, patience = [], [5]

    def person(question):
        if len(answered) == patience[0]:
            raise KeyboardInterrupt
        answered.append(tuple(question[:4]))
        return bool(question.observation[0] >= 2.0)

    def setup(expert):
        environment = asked(line(), Rules(horizon=6), expert, seeds=(0, 1))
        phase = Phase(name='live', agent=wandering(environment.spec), num_updates=0, num_env_steps=24, store='online')
        return Setup(phases=(phase,), seeds=(0, 1), environment=environment, updates_per_round=4)

    plain, kept = run(setup(lambda question: bool(question.observation[0] >= 2.0))), None
    with pytest.raises(KeyboardInterrupt):
        for event in iterate(setup(remembered(person, tmp_path / 'answers'))):
            kept = jax.tree.map(np.array, event.state)
    patience[0] = 10**6
    final = run(setup(remembered(person, tmp_path / 'answers')), resume=kept)
    assert trees_equal(jax.tree.map(np.asarray, final), jax.tree.map(np.asarray, plain))
    assert len(set(answered)) == len(answered)  # nobody was asked twice
