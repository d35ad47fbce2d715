"""Episodes of OGBench's scripted controllers, as its data are made: each a function of (recipe, seed, episode).

Settings are those of the commands published with the package (seohongpark/ogbench@1d41409, `data_gen_scripts`). A row is the
observation, the action and the simulator's state before the step.
"""

from functools import lru_cache

import numpy as np

from ooorl.envs.ogbench import repeatable, require_package

Columns = dict[str, np.ndarray]

# p(stack) of an episode is uniform in these bounds.
_STACKING = {'single': (0.0, 0.0), 'double': (0.0, 0.25), 'triple': (0.05, 0.35), 'quadruple': (0.1, 0.5)}
_ATTEMPTS = 1000


def episode(family: str, kind: str, num_rows: int, words: tuple[int, ...], options: dict) -> tuple[Columns, dict]:
    """One episode of `num_rows` rows and what is to be said of it.

    Args:
      family: one of `FAMILIES`.
      kind: of data, one of the family's.
      num_rows: steps taken; the last row is marked in `terminals`, which means time-out.
      words: integers that seed it.
      options: `noise`, and of manipulation `p_random_action`, `noise_smoothing` and `min_norm` where the kind has them.
    """
    play = _maze_episode if family.startswith('pointmaze') else _hand_episode
    env, draws = _environment(family)
    for attempt in range(_ATTEMPTS):
        seed = draws.seed(env, (*words, attempt))
        with draws.drawn():
            columns, facts = play(env, family, kind, num_rows, seed, **options)
        if family != 'scene' or _cube_is_visible(columns['qpos']):
            break
    return _stored(columns), {**facts, 'thrown_away': attempt}


@lru_cache(maxsize=1)
def _environment(family):
    settings = {} if family.startswith('pointmaze') else {'mode': 'data_collection'}
    return repeatable.made(f'{family}-v0', terminate_at_goal=False, **settings), repeatable.Draws()


def _stored(columns):
    kinds = {'button_states': np.int64}
    stored = {name: np.array(rows, kinds.get(name, np.float32)) for name, rows in columns.items()}
    return {**stored, 'terminals': np.arange(len(stored['actions'])) == len(stored['actions']) - 1}


def _cube_is_visible(qpos):
    """Whether the cube of a scene stays in view, or in the drawer."""
    _, y, z = np.array(qpos)[:, 14:17].T
    return not ((y >= 0.29) | ((y <= -0.3) & ((z < 0.06) | (z > 0.08)))).any()


def _hand_episode(env, family, kind, num_rows, seed, *, noise, p_random_action, **settings):
    observation, info = env.reset(seed=seed)
    stacking = {'p_stack': np.random.uniform(*_STACKING.get(family.removeprefix('cube-'), (0.5, 0.5)))}
    deviation = np.zeros(5)
    if kind == 'noisy':
        deviation = np.random.uniform(0, noise) * np.array([1.0, 1.0, 1.0, 3.0, 10.0])
    else:
        settings['noise'] = noise
    oracles = _oracles(env, family, kind, settings)
    oracle, done_targets = oracles[info['privileged/target_task']], 0
    oracle.reset(observation, info)
    columns = {name: [] for name in ('observations', 'actions', 'qpos', 'qvel')}
    if 'prev_button_states' in info:
        columns['button_states'] = []
    for _ in range(num_rows):
        if np.random.rand() < p_random_action:
            action = env.action_space.sample()
        else:
            action = np.array(oracle.select_action(observation, info))
            action = action + np.random.normal(0.0, deviation) if kind == 'noisy' else action
        action = np.clip(action, -1.0, 1.0)
        following, _, _, _, info = env.step(action)
        if oracle.done:
            target = env.set_new_target(**stacking)
            oracle = oracles[target[1]['privileged/target_task']]
            oracle.reset(*target)
            done_targets += 1
        row = {'observations': observation, 'actions': action}
        row |= {name: info[f'prev_{name}'] for name in columns if name not in row}
        for name, values in columns.items():
            values.append(row[name])
        observation = following
    return columns, {'targets': done_targets}


def _oracles(env, family, kind, settings):
    """The controllers of a family by the task that each does."""
    import importlib

    folder, suffix = ('markov', 'Markov') if kind == 'noisy' else ('plan', 'Plan')
    found = {}
    for task in {'cube': ('cube',), 'scene': ('cube', 'button', 'drawer', 'window')}.get(family.partition('-')[0], ('button',)):
        module = importlib.import_module(f'{require_package().__name__}.manipspace.oracles.{folder}.{task}_{folder}')
        own = dict(settings)
        if family.startswith('puzzle'):
            own['gripper_always_closed'] = True
        if (family, kind, task) == ('scene', 'noisy', 'cube'):
            own['max_step'] = 100
        found[task] = getattr(module, f'{task.capitalize()}{suffix}Oracle')(env=env, **own)
    return found


def _maze_episode(env, family, kind, num_rows, seed, *, noise):
    free = [tuple(cell) for cell in np.argwhere(env.maze_map == 0).tolist()]
    corners = [cell for cell in free if not _is_hallway(env.maze_map, *cell)]
    start = free[np.random.randint(len(free))]
    goals = corners if kind == 'navigate' else cells_at(env.maze_map, start, 4) or [start]
    places = {'init_ij': start, 'goal_ij': goals[np.random.randint(len(goals))]}
    observation, _ = env.reset(seed=seed, options={'task_info': places})
    columns, reached = {name: [] for name in ('observations', 'actions', 'qpos', 'qvel')}, 0
    for _ in range(num_rows):
        position = env.get_xy()
        direction = env.get_oracle_subgoal(position, env.cur_goal_xy)[0] - position
        direction = direction / (np.linalg.norm(direction) + 1e-6)
        action = np.clip(direction + np.random.normal(0.0, noise, 2), -1.0, 1.0)
        following, _, _, _, info = env.step(action)
        reached += int(info['success'])
        if info['success'] and kind == 'navigate':
            env.set_goal(goal_xy=env.add_noise(env.ij_to_xy(goals[np.random.randint(len(goals))])))
        for name, value in zip(columns, (observation, action, info['prev_qpos'], info['prev_qvel']), strict=True):
            columns[name].append(value)
        observation = following
    return columns, {'targets': reached if kind == 'navigate' else int(reached > 0)}


def _is_hallway(walls, i, j):
    """Whether a free cell is open on two opposite sides and walled on the other two."""
    along, across = (walls[i - 1, j], walls[i + 1, j]), (walls[i, j - 1], walls[i, j + 1])
    return sorted((along, across)) == [(0, 0), (1, 1)]


def cells_at(walls: np.ndarray, start: tuple[int, int], distance: int) -> list[tuple[int, int]]:
    """The free cells whose shortest way from `start` has `distance` steps, in the order in which a search meets them."""
    seen, ring = {start}, [start]
    for _ in range(distance):
        following = []
        for i, j in ring:
            for cell in ((i - 1, j), (i, j - 1), (i + 1, j), (i, j + 1)):
                if walls[cell] == 0 and cell not in seen:
                    seen.add(cell)
                    following.append(cell)
        ring = following
    return ring
