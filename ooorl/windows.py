"""What a window of rows comes to: one row a decision, with the rewards of all its steps."""

import jax.numpy as jnp

from ooorl.types import Array, Transition


def lived_steps(windows: Transition) -> Array:
    """`[B, h]`: 1 on the steps that belong to the window and come before or at the MDP's end."""
    going = jnp.cumprod((windows.discount > 0).astype(jnp.float32), axis=-1)
    return windows.extras['valid'] * jnp.concatenate([jnp.ones_like(going[:, :1]), going[:, :-1]], axis=-1)


def one_decision(windows: Transition, gamma: float, ends: str = 'keep', chunk: int | None = None) -> Transition:
    """Windows `[B, h]` as of `replay.sample_windows` as the rows `[B]` that `wrap.chunked` makes of them.

    `extras['weight']` `[B]` says how much a row counts and, where ends are kept, `extras['known']` which numbers of its action
    were carried out. The action `[B, chunk * A]` is that of the first `chunk` steps, None for all of them. A record may go on
    behind the MDP's end, as where rewards of a task are given to recorded play: such steps are part of the action. They earn
    nothing where ends are kept, and what the record says where they are dropped.
    """
    rows, length = windows.reward.shape
    lived, recorded, reward = lived_steps(windows), windows.extras['valid'], jnp.zeros(rows)
    earning = recorded if ends == 'drop' else lived
    for step in range(length):
        reward = reward + gamma**step * (earning * windows.reward)[:, step]
    ended = (lived * (windows.discount == 0)).max(axis=-1)
    discount = gamma ** (length - 1) * jnp.where(lived > 0, windows.discount, 1.0).prod(axis=-1)
    extras = {name: column[:, 0] for name, column in windows.extras.items() if name != 'valid'}
    for name in ('label', 'next_candidates', 'next_place'):
        if name in extras:
            extras[name] = windows.extras[name][:, -1]
    extras['weight'] = recorded[:, -1] if ends == 'drop' else jnp.maximum(recorded[:, -1], ended)
    # Zeros where steps are recorded would tell the critic which windows end: standing still could look like the goal.
    action = (windows.action * recorded[..., None])[:, :chunk]
    if ends == 'keep':
        extras['known'] = jnp.broadcast_to(recorded[:, :chunk, None], action.shape).reshape(rows, -1)
    return Transition(
        observation=windows.observation[:, 0],
        action=action.reshape(rows, -1),
        reward=reward,
        discount=discount,
        next_observation=windows.next_observation[:, -1],
        extras=extras,
    )
