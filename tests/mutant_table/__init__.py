"""The wrong changes that the tests must notice: see `mutants.py`. Each is a mistake that somebody could make. A file a room."""

from mutant_table import agents, data, envs, ground, nn, policies, reporting, runner, signals, training

ROOMS = (agents, data, envs, ground, nn, policies, reporting, runner, signals, training)
TABLE = [mutant for room in ROOMS for mutant in room.TABLE]
