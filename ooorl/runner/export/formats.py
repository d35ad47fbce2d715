"""The files: npz with a runner that needs numpy only, StableHLO, ONNX. Each function writes and gives the file back as one.

What comes back is `(observation[B, O], [noise, ...]) -> action`, numpy arrays, read from what was written.
"""

import json
from importlib import resources
from pathlib import Path

import jax
import numpy as np

from ooorl.errors import UsageError
from ooorl.reporting import writers
from ooorl.runner.export import array_runner, draws, onnx_file
from ooorl.runner.export.operations import operations_of, without_draws


def npz(portable, folder: Path):
    """`policy.npz`, the operations as JSON beside their constants, and `policy.py`, which runs it with numpy alone."""
    program, constants = operations_of(draws.traced(portable.function, *portable.shapes), portable.who)
    about = json.dumps({**portable.about, 'program': program._asdict()})
    with writers.atomically(folder / 'policy.npz', 'wb') as file:
        np.savez(file, about=about, **constants)
    with writers.atomically(folder / 'policy.py') as file:
        file.write(resources.files('ooorl.runner.export').joinpath('array_runner.py').read_text(encoding='utf-8'))
    return array_runner.load(folder / 'policy.npz')


def stablehlo(portable, folder: Path):
    """`policy.stablehlo`, for `jax.export.deserialize`, and the same module as MLIR bytecode for others, `policy.mlirbc`.

    Raises:
      UsageError: where the package `flatbuffers` is missing, or the policy draws by itself.
    """
    try:
        import flatbuffers  # noqa: F401 - jax needs it to write its own container
    except ImportError:
        raise UsageError('export to stablehlo needs the package flatbuffers; pip install "ooorl[export]"') from None
    # Draws that stay inside would be the same for ever.
    without_draws(draws.traced(portable.function, *portable.shapes), portable.who, {})
    exported = jax.export.export(jax.jit(portable.function), platforms=('cpu', 'cuda', 'tpu'))(*portable.shapes)
    with writers.atomically(folder / 'policy.stablehlo', 'wb') as file:
        file.write(exported.serialize())
    with writers.atomically(folder / 'policy.mlirbc', 'wb') as file:
        file.write(exported.mlir_module_serialized)
    again = jax.export.deserialize(bytearray((folder / 'policy.stablehlo').read_bytes()))
    compiled = jax.jit(again.call)
    return lambda observation, noise: np.asarray(compiled(observation, *noise)[0])


def onnx(portable, folder: Path):
    """`policy.onnx`: inputs `observation` and `noise_0`, ..., output `action`; the first axis of `observation` is free.

    Raises:
      UsageError: where the packages `onnx` and `onnxruntime` are missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UsageError('export to onnx needs the packages onnx and onnxruntime; pip install "ooorl[export]"') from None
    program, constants = operations_of(draws.traced(portable.function, *portable.shapes), portable.who)
    model = onnx_file.model_of(program, constants, portable)
    with writers.atomically(folder / 'policy.onnx', 'wb') as file:
        file.write(model.SerializeToString())
    session = onnxruntime.InferenceSession(str(folder / 'policy.onnx'), providers=['CPUExecutionProvider'])
    names = [one.name for one in session.get_inputs()]

    def act(observation, noise):
        given = {'observation': observation} | {f'noise_{number}': array for number, array in enumerate(noise)}
        return session.run(None, {name: np.asarray(given[name], np.float32) for name in names})[0]

    return act
