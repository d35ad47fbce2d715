"""Whether an exported policy is the one that was trained, and how long an action takes."""

import time

import jax
import jax.numpy as jnp
import numpy as np

from ooorl.runner.export import draws

ROWS = 1000  # observations that are compared
CALLS = 200  # single actions that are timed, after some that are not


def compared(policy, portable, exported) -> dict:
    """The largest difference of actions over `ROWS` observations, in the units of the action box, and latencies of one action.

    Both sides get the same noise: that which the policy itself draws.

    Args:
      policy: `deployed.Deployed`.
      portable: what was written.
      exported: `(observation, noise) -> action`, read from the file.
    """
    observation, how = _observations(policy.interface)
    key = jax.random.key(policy.seed)
    traced = draws.traced(policy.best_action, jax.ShapeDtypeStruct(observation.shape, jnp.float32), key)
    (action,), noise = jax.jit(lambda o, k: draws.recorded(traced, [o, k]))(observation, key)
    found = np.asarray(exported(observation, [np.asarray(n) for n in noise]))
    single = [np.zeros([n[0] if isinstance(n, list) else n for n in shape], np.float32) for shape in portable.about['noise']]
    times = _latencies(lambda: exported(observation[:1], single))
    own = _latencies(lambda: policy(observation[:1], key))
    return {
        'observations': f'{ROWS}, {how}',
        'largest_difference': float(np.abs(found - np.asarray(action)).max()),
        'finite': bool(np.isfinite(found).all()),
        'latency_ms': times,
        'latency_ms_of_ooorl_load': own,
    }


def _observations(interface):
    generator, size = np.random.default_rng(0), interface['observation_dim']
    noise = generator.standard_normal((ROWS, size))
    if 'observation_mean' not in interface:
        return noise.astype(np.float32), 'standard normal'
    seen = np.asarray(interface['observation_mean']) + np.asarray(interface['observation_std']) * noise
    return seen.astype(np.float32), 'normal, with mean and deviation of the data'


def _latencies(act):
    for _ in range(10):
        act()
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        act()
        times.append(1000.0 * (time.perf_counter() - began))
    return {'p50': round(float(np.quantile(times, 0.5)), 4), 'p99': round(float(np.quantile(times, 0.99)), 4)}
