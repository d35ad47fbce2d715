"""Policies out of run directories, as files that need neither ooorl nor its data: `ooorl export`.

A file holds one policy of one phase and seed, with normalisers, sampler, re-ranking and the action box inside: a function of raw
observations and, where the policy draws, of noise. It is traced from what `ooorl eval` plays with, so that every
agent, policy and wrapper comes along; what a format cannot say is refused in a sentence.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner.deployed import Deployed, load
from ooorl.runner.export import draws, formats, parity
from ooorl.runner.export.operations import size

FORMATS = {'npz': formats.npz, 'stablehlo': formats.stablehlo, 'onnx': formats.onnx}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Portable:
    """A policy ready to be written.

    Attributes:
      function: `(observation[B, O], *noise) -> (action[B, A],)`, traceable for any number of rows B.
      shapes: of its arguments, with a symbolic B.
      about: plain data for whoever uses the file: sizes, box, shapes of the noise, where it comes from.
      who: the policy in words.
    """

    function: Callable
    shapes: list
    about: dict
    who: str


def export(run_dir, kind: str, out=None, *, phase: str | None = None, seed: int | None = None) -> dict:
    """Writes a policy of a run in format `kind` and checks it: returns the parity report, which `export.json` holds as well.

    Args:
      run_dir: of the run.
      kind: a name of `FORMATS`.
      out: folder to write to; None for `export/<phase>-<seed>-<kind>` in the run directory.
      phase, seed: as for `ooorl.load`.

    Raises:
      UsageError: where the run holds no such policy, or the format cannot say what it does.
    """
    if kind not in FORMATS:
        raise UsageError(f'--format must be one of {", ".join(FORMATS)}; got {kind!r}')
    policy = load(run_dir, phase=phase, seed=seed, purpose='export')
    portable = portable_of(policy, str(run_dir))
    folder = Path(out) if out else Path(run_dir) / 'export' / f'{policy.phase.replace("@", "-")}-{policy.seed}-{kind}'
    if folder.exists() and not folder.is_dir():
        raise UsageError(f'--out needs a folder; {folder} is a file; name another')
    folder.mkdir(parents=True, exist_ok=True)
    exported = FORMATS[kind](portable, folder)
    report = {**portable.about, 'format': kind, **parity.compared(policy, portable, exported)}
    writers.write_json(folder / 'export.json', report)
    return report | {'folder': str(folder)}


def portable_of(policy: Deployed, source: str) -> Portable:
    """The policy as a function of observations and noise."""
    dim = policy.interface['observation_dim']
    who, key = f'phase {policy.phase!r}', jax.random.key(0)
    draws.refuse_callbacks(draws.traced(policy.best_action, jnp.zeros((1, dim)), key), who)
    (rows,) = jax.export.symbolic_shape('b')
    observation = jax.ShapeDtypeStruct((rows, dim), jnp.float32)
    traced = draws.traced(policy.best_action, observation, key)
    noise = draws.noises(traced)
    explicit = draws.explicit(traced)
    interface = {name: value for name, value in policy.interface.items() if name not in ('observation_mean', 'observation_std')}
    about = {
        **interface, 'chunk': policy.chunk, 'noise': [[size(n) for n in own.shape] for own in noise],
        'noise_kinds': [own.kind for own in noise], 'phase': policy.phase, 'seed': policy.seed, 'source': source,
    }  # fmt: skip
    return Portable(
        function=lambda observation, *given: explicit([observation, key], given),
        shapes=[observation, *(jax.ShapeDtypeStruct(own.shape, own.dtype) for own in noise)],
        about=json.loads(json.dumps(about)),
        who=who,
    )
