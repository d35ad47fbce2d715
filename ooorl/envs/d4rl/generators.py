"""Behaviour in environments, recorded as columns in D4RL's layout.

Each generator gives `(columns, behaviours)`: the columns by their name in a file, and for every behaviour
policy what it did: `{"name", "sha256", "episodes", "mean_return", ...}`.
"""

import warnings
from collections.abc import Sequence

import gymnasium
import numpy as np

from ooorl.envs.d4rl import antmaze, maze2d, mazes
from ooorl.envs.d4rl.controllers import AntNavigator, PointController
from ooorl.envs.d4rl.parallel import ParallelSimulation
from ooorl.errors import UsageError

MAX_POINT_COPIES, POINT_STREAM_ROWS = 256, 2000
MAX_ANTS, ANT_EPISODE_ROWS = 128, 1001

Columns = dict[str, np.ndarray]


def point_rows(maze_name, rows, random, *, dense, noise, num_threads=None) -> tuple[Columns, list]:
    """Point masses driven to one random target after another.

    Copies run side by side and lie one behind the other in the columns. As in D4RL a time-out marks a reached
    target (the copy goes on from there), nothing is terminal, and the reward is that of the row's own
    observation, towards the evaluation's goal.
    """
    maze = mazes.find_maze(maze_name)
    num = int(np.clip(rows // POINT_STREAM_ROWS, 1, MAX_POINT_COPIES))
    length, free = -(-rows // num), mazes.cells(maze, '.')
    simulation = ParallelSimulation(maze2d.build_model(maze), 1, num_threads)
    controller = PointController(maze, random)

    def places():
        return free[random.integers(len(free), size=num)] + random.uniform(-0.1, 0.1, (num, 2))

    state = np.concatenate([places(), 0.1 * random.standard_normal((num, 2))], axis=1)
    controller.aim(state[:, :2], places())
    observations, goals = np.empty((num, length + 1, 4), np.float32), np.empty((num, length, 2), np.float32)
    actions, timeouts = np.empty((num, length, 2), np.float32), np.zeros((num, length), bool)
    observations[:, 0] = state
    for t in range(length):
        action, reached = controller.act(state)
        if noise:
            action = np.clip(action + noise * random.standard_normal(action.shape), -1.0, 1.0)
        actions[:, t], goals[:, t], timeouts[:, t] = action, controller.target, reached
        state = state.copy()
        state[:, 2:] = np.clip(state[:, 2:], -maze2d.MAX_SPEED, maze2d.MAX_SPEED)
        state = simulation.step(state, actions[:, t].astype(np.float64))
        observations[:, t + 1] = state
        if reached.any():
            controller.retarget(reached, state[:, :2], places())
    simulation.close()
    targets = int(timeouts.sum())
    timeouts[:, -1] = True
    columns = _stacked(observations, actions, timeouts, goals, rows)
    columns['timeouts'][-1] = True
    goal = np.array(maze.point_goal, np.float64)
    columns['rewards'] = maze2d.reward_at(columns['observations'][:, :2], goal, dense).astype(np.float32)
    columns['terminals'] = np.zeros(rows, bool)
    return columns, [{'name': 'waypoint controller', 'targets_reached': targets, 'rows': rows}]


def ant_rows(
    maze_name, rows, random, policies, *, noise, start_anywhere, goal_anywhere, num_threads=None
) -> tuple[Columns, list]:
    """Ants walked to goals by a goal-reaching policy, in episodes of 1001 rows that go on after the goal.

    The last episode may be unfinished, and then has no time-out: readers know by the equal distances of
    time-outs that terminal rows do not end these episodes.

    `infos/goal` is where the ant was sent. Reward and terminal are those of the evaluation's goal (the goal
    cell's position + 0.75 per axis), judged on the successor.
    """
    maze, (policy,) = mazes.find_maze(maze_name), policies
    check_sizes(policies, 29, 8)
    model = antmaze.build_model(maze)
    simulation = ParallelSimulation(model, antmaze.FRAME_SKIP, num_threads)
    navigator = AntNavigator(maze, policy, noise, random)
    parts, reached, episodes = [], 0, -(-rows // ANT_EPISODE_ROWS)
    for first in range(0, episodes, MAX_ANTS):
        num = min(MAX_ANTS, episodes - first)
        state, goal = _ant_starts(maze, model, num, random, start_anywhere, goal_anywhere)
        observations = np.empty((num, ANT_EPISODE_ROWS + 1, 29), np.float32)
        actions, arrived = np.empty((num, ANT_EPISODE_ROWS, 8), np.float32), np.zeros(num, bool)
        observations[:, 0] = state
        for t in range(ANT_EPISODE_ROWS):
            actions[:, t] = navigator.act(state, goal)
            state = simulation.step(state, actions[:, t].astype(np.float64))
            observations[:, t + 1] = state
            arrived |= np.linalg.norm(state[:, :2] - goal, axis=1) <= antmaze.GOAL_RADIUS
        timeouts = np.zeros((num, ANT_EPISODE_ROWS), bool)
        timeouts[:, -1] = True
        goals = np.repeat(goal[:, None].astype(np.float32), ANT_EPISODE_ROWS, axis=1)
        parts.append(_stacked(observations, actions, timeouts, goals, num * ANT_EPISODE_ROWS))
        reached += int(arrived.sum())
    simulation.close()
    columns = {name: np.concatenate([part[name] for part in parts])[:rows] for name in parts[0]}
    evaluation_goal = antmaze.cell_position(maze.ant_goal) + 0.75
    distance = np.linalg.norm(columns['next_observations'][:, :2] - evaluation_goal, axis=1)
    columns['rewards'] = (distance <= antmaze.GOAL_RADIUS).astype(np.float32)
    columns['terminals'] = columns['rewards'] > 0
    score = {'episodes': episodes, 'own_goal_reached': reached / episodes}
    return columns, [{'name': policy.name, 'sha256': policy.sha256, **score}]


def _ant_starts(maze, model, num, random, start_anywhere, goal_anywhere):
    state = np.zeros((num, model.nq + model.nv))
    state[:, : model.nq] = model.qpos0 + random.uniform(-0.1, 0.1, (num, model.nq))
    state[:, model.nq :] = 0.1 * random.standard_normal((num, model.nv))
    free = mazes.cells(maze, '.')
    if start_anywhere:
        start = antmaze.cell_position(free[random.integers(len(free), size=num)])
        state[:, :2] = np.maximum(start + random.uniform(0.0, 0.25 * antmaze.CELL_SIZE, (num, 2)), 0.0)
    cells = free if goal_anywhere else np.array(maze.ant_data_goals)
    return state, antmaze.sample_goal(cells[random.integers(len(cells), size=num)], random)


def _stacked(observations, actions, timeouts, goals, rows) -> Columns:
    """The first `rows` rows of streams `[N, T, ...]` one behind the other; `observations` has T + 1 rows."""
    columns = {
        'observations': observations[:, :-1],
        'actions': actions,
        'next_observations': observations[:, 1:],
        'timeouts': timeouts,
        'infos/goal': goals,
    }
    return {name: column.reshape(-1, *column.shape[2:])[:rows] for name, column in columns.items()}


def policy_rows(environment, rows, seed, random, policies: Sequence, *, greedy) -> tuple[Columns, list]:
    """Episodes of trained policies in a gymnasium environment.

    Each policy gives an equal share of the rows, in turn; without policies actions are uniform. `infos/qpos` and
    `infos/qvel` are the state before the step, and beside them lies what the resets of an Adroit task place. The last row of
    each share is a time-out where its episode did not end there.
    """
    with warnings.catch_warnings():
        # gymnasium advises the -v5 environments; D4RL's are -v4.
        warnings.simplefilter('ignore', DeprecationWarning)
        env = gymnasium.make(environment)
    check_sizes(policies, env.observation_space.shape[0], env.action_space.shape[0])
    if not policies:
        bounds, actors = [0, rows], [None]
    else:
        bounds, actors = np.linspace(0, rows, len(policies) + 1).astype(int), list(policies)
    columns = _empty_columns(env, rows)
    behaviours = []
    for index, actor in enumerate(actors):
        first, last = bounds[index], bounds[index + 1]
        returns = _record(env, columns, first, last, [seed, index], random, actor, greedy)
        mean = float(np.mean(returns)) if returns else None
        name, sha256 = (actor.name, actor.sha256) if actor else ('uniform actions', None)
        score = {'rows': int(last - first), 'episodes': len(returns), 'mean_return': mean}
        behaviours.append({'name': name, 'sha256': sha256, **score})
    env.close()
    return columns, behaviours


def check_sizes(policies, observation_size: int, action_size: int):
    """Refuses policies of other sizes."""
    for policy in policies:
        if (policy.observation_size, policy.action_size) != (observation_size, action_size):
            raise UsageError(
                f'the policy must read {observation_size} numbers and give {action_size}; {policy.name} '
                f'reads {policy.observation_size} and gives {policy.action_size}: give another file'
            )


def _empty_columns(env, rows) -> Columns:
    num_observed, num_actions = env.observation_space.shape[0], env.action_space.shape[0]
    model = env.unwrapped.model
    return {
        'observations': np.empty((rows, num_observed), np.float32),
        'actions': np.empty((rows, num_actions), np.float32),
        'next_observations': np.empty((rows, num_observed), np.float32),
        'rewards': np.empty(rows, np.float32),
        'terminals': np.zeros(rows, bool),
        'timeouts': np.zeros(rows, bool),
        'infos/qpos': np.empty((rows, model.nq)),
        'infos/qvel': np.empty((rows, model.nv)),
        **{f'infos/{name}': np.empty((rows, *part.shape)) for name, part in _placed(env)},
    }


def _placed(env) -> list:
    """`(name, numbers)` of what resets place in the model, where they do."""
    return env.unwrapped.placement() if hasattr(env.unwrapped, 'placement') else []


def _record(env, columns, first, last, entropy, random, actor, greedy) -> list[float]:
    """Fills rows `first` to `last` with episodes, the last one cut, and gives the whole ones' returns."""
    data, returns, total = env.unwrapped.data, [], 0.0
    observation, _ = env.reset(seed=int(np.random.SeedSequence(entropy).generate_state(1)[0] >> 1))
    for row in range(first, last):
        if actor is None:
            action = random.uniform(-1.0, 1.0, columns['actions'].shape[1])
        else:
            action = actor.mode(observation) if greedy else actor.sample(observation, random)
        action = action.astype(np.float32)
        columns['observations'][row], columns['actions'][row] = observation, action
        columns['infos/qpos'][row], columns['infos/qvel'][row] = data.qpos, data.qvel
        for name, part in _placed(env):
            columns[f'infos/{name}'][row] = part
        observation, reward, terminated, truncated, _ = env.step(action)
        total += float(reward)
        columns['rewards'][row], columns['next_observations'][row] = reward, observation
        columns['terminals'][row] = terminated
        columns['timeouts'][row] = not terminated and (truncated or row == last - 1)
        if terminated or truncated:
            returns.append(total)
            total = 0.0
            observation, _ = env.reset()
    return returns
