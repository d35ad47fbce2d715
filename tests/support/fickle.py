"""Given policies for config files, good and bad, that a test can tell when to fail."""

import numpy as np

STATE = {'calls': 0, 'good': None, 'answer': None}


def begin(good, answer=None):
    """From now on `good` calls are answered well (None: all), later ones by `answer(shape)`."""
    STATE.update(calls=0, good=good, answer=answer)


def fickle(observation, num, seed):
    """The policy: uniform actions of two numbers."""
    STATE['calls'] += 1
    shape = (num, len(observation), 2)
    if STATE['good'] is not None and STATE['calls'] > STATE['good']:
        return STATE['answer'](shape)
    return np.random.default_rng(seed).uniform(-1.0, 1.0, shape)
