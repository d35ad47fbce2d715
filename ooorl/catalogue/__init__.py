"""Tasks as data: files, sizes, horizons, reference scores, conventions. Imports nothing else of the project.

The facts are those of the D4RL and OGBench benchmarks and of the incomplete-data tasks of OOO. A file's checksum is the one that
others have recorded (`checksums`), or it is recorded when the file is first seen, and compared from then on (`ooorl.data.pull`).
"""

import difflib
import fnmatch
from dataclasses import dataclass, replace

from ooorl.catalogue import checksums, conventions, ogbench

HOST = "https://rail.eecs.berkeley.edu/datasets/offline_rl/"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One task: what its data are, where they lie and how a score is counted.

    Attributes:
      id: the name under which the task is known.
      family: gym_mujoco, antmaze, maze2d, adroit, adroit_binary, kitchen, sparse or ogbench.
      environment: the id of the environment to evaluate in.
      address: where the file can be fetched; None where there is none.
      file: the file's name; None for a task without data.
      checksum: the file's SHA-256; None where nobody has recorded it.
      rows: rows in the file; None where not known.
      rows_known: verified or inferred (from a published size), recalled (not checked) or unknown.
      observation_dim, action_dim: O and A.
      horizon: the time limit of an episode in the environment.
      reference_min, reference_max: the scores that normalise to 0 and 100; None where none are agreed on.
      scored: what these speak of: the `return` of an episode, `reward_max`, the largest reward of its steps, or `success`.
      base: id of the task whose file this task's data are made from; None where it has its own.
      conventions: what a reader of the file must know, one sentence each.
      fixups: `(name, parameters)` of the corrections to apply in order; see `FIXUPS`.
    """

    id: str
    family: str
    environment: str
    address: str | None = None
    file: str | None = None
    checksum: str | None = None
    rows: int | None = None
    rows_known: str = "unknown"
    observation_dim: int
    action_dim: int
    horizon: int
    reference_min: float | None = None
    reference_max: float | None = None
    scored: str = "return"
    base: str | None = None
    conventions: tuple[str, ...] = ()
    fixups: tuple[tuple[str, dict], ...] = ()


FIXUPS = {
    "goes_on_after_terminal": "episodes go on after a terminal row: only time-outs end them",
    "clip_actions": "actions are clipped to [-1, 1], as the environment does",
    "terminal_at_reward": "the MDP ends only at a given reward; other terminal rows become cuts",
    "remove_regions": "rows whose first two observation entries lie in given discs or boxes are removed",
    "first_rows": "only the first rows of every episode are kept; the cut is no end of the MDP",
    "subsample": "a random part of the rows is kept, drawn with a fixed seed",
}

def _task(task_id, sizes, references=(None, None), folder=None, file=None, rows=(None, "unknown"), **facts):
    """An entry from grouped facts; `sizes` is O, A and the horizon."""
    return Entry(
        id=task_id,
        address=None if folder is None else f"{HOST}{folder}/{file}",
        file=file,
        checksum=checksums.KNOWN.get(f"{folder}/{file}"),
        rows=rows[0],
        rows_known=rows[1],
        observation_dim=sizes[0],
        action_dim=sizes[1],
        horizon=sizes[2],
        reference_min=references[0],
        reference_max=references[1],
        **facts,
    )


_CLIP, _GOES_ON = ("clip_actions", {}), ("goes_on_after_terminal", {})


def _gym_mujoco():
    names = (
        # name, environment, O, A, reference min and max, rows of medium-replay and medium-expert
        ("halfcheetah", "HalfCheetah-v4", 17, 6, (-280.178953, 12135.0), 202_000, (2_000_000, "verified")),
        ("hopper", "Hopper-v4", 11, 3, (-20.272305, 3234.3), 402_000, (1_999_906, "verified")),
        ("walker2d", "Walker2d-v4", 17, 6, (1.629008, 4592.3), 302_000, (1_999_995, "verified")),
        ("ant", "ooorl/AntPadded-v0", 111, 8, (-325.6, 3879.7), 302_000, (None, "unknown")),
    )
    padded = "observations are 27 entries of state and 84 contact forces, which today's environment gives as 0."
    for name, environment, observation_dim, action_dim, references, replay_rows, mixed in names:
        known = "recalled" if name == "ant" else "inferred"
        kinds = {
            "random": (1_000_000, "recalled"),
            "medium": (1_000_000, known),
            "medium-replay": (replay_rows, "recalled" if name == "ant" else "verified"),
            "medium-expert": mixed,
            "expert": (1_000_000, known),
            "full-replay": (1_000_000, "recalled"),
        }
        for kind, rows in kinds.items():
            yield _task(
                f"{name}-{kind}-v2",
                (observation_dim, action_dim, 1000),
                references,
                "gym_mujoco_v2",
                f"{name}_{kind.replace('-', '_')}-v2.hdf5",
                rows,
                family="gym_mujoco",
                environment=environment,
                conventions=(*conventions.GYM, padded) if name == "ant" else conventions.GYM,
            )


def _antmaze():
    names = (
        ("umaze", "Umaze", "u-maze", False, False, 700),
        ("umaze-diverse", "Umaze", "u-maze", True, True, 700),
        ("medium-play", "Medium", "big-maze", True, False, 1000),
        ("medium-diverse", "Medium", "big-maze", True, True, 1000),
        ("large-play", "Large", "hardest-maze", True, False, 1000),
        ("large-diverse", "Large", "hardest-maze", True, True, 1000),
    )
    early = ("timeouts are not at the true ends of episodes in version 0: use version 2.",)
    spikes = ("rewards are single rows: the episodes do not stay at the goal.",)
    for version, folder, suffix in ((0, "ant_maze_new", ""), (2, "ant_maze_v2", "_fixed")):
        for name, size, maze, starts, goals, horizon in names:
            known = "verified" if version == 2 and name in ("medium-diverse", "large-diverse") else "recalled"
            notes = (early if version == 0 else ()) + (spikes if name == "umaze-diverse" else ())
            yield _task(
                f"antmaze-{name}-v{version}",
                (29, 8, horizon),
                (0.0, 1.0),
                folder,
                f"Ant_maze_{maze}_noisy_multistart_{starts}_multigoal_{goals}_sparse{suffix}.hdf5",
                (1_000_000, known),
                family="antmaze",
                environment=f"ooorl/AntMaze{size}-v0",
                conventions=conventions.ANTMAZE + notes,
                fixups=(_GOES_ON,),
            )


def _maze2d():
    names = (
        ("umaze", "Umaze", 300, 1_000_000, (23.85, 161.86), (68.537689, 193.66285642381482)),
        ("medium", "Medium", 600, 2_000_000, (13.13, 277.39), (44.264742, 297.4552547777125)),
        ("large", "Large", 800, 4_000_000, (6.7, 273.99), (30.569041, 303.4857382709002)),
    )
    for name, size, horizon, rows, sparse, dense in names:
        for reward, references in (("sparse", sparse), ("dense", dense)):
            middle, ending = ("", "") if reward == "sparse" else ("-dense", "Dense")
            yield _task(
                f"maze2d-{name}{middle}-v1",
                (4, 2, horizon),
                references,
                "maze2d",
                f"maze2d-{name}-{reward}-v1.hdf5",
                (rows, "verified" if (name, reward) == ("large", "sparse") else "recalled"),
                family="maze2d",
                environment=f"ooorl/Maze2d{size}{ending}-v0",
                conventions=conventions.MAZE2D,
            )


def _adroit():
    names = (
        ("pen", "Pen", (45, 24, 100), (96.262799, 3076.8331017826877), (5_000, "recalled")),
        ("door", "Door", (39, 28, 200), (-56.512833, 2880.5693087298737), (6_729, "verified")),
        ("hammer", "Hammer", (46, 26, 200), (-274.856578, 12794.134825156867), (11_310, "recalled")),
        ("relocate", "Relocate", (39, 30, 200), (-6.425911, 4233.877797728884), (9_942, "recalled")),
    )
    for name, title, sizes, references, human in names:
        many = (None, "unknown") if name == "pen" else (1_000_000, "recalled")
        for kind, rows in (("human", human), ("cloned", many), ("expert", many)):
            yield _task(
                f"{name}-{kind}-v1",
                sizes,
                references,
                "hand_dapg_v1",
                f"{name}-{kind}-v1.hdf5",
                rows,
                family="adroit",
                environment=f"ooorl/Adroit{title}-v0",
                conventions=conventions.ADROIT,
                fixups=(_CLIP,),
            )
    for (name, title, sizes, _, _), rows in zip(names[:2] + names[3:], (94_378, 96_000, 98_937), strict=True):
        yield _task(
            f"{name}-binary-v0",
            sizes,
            rows=(rows, "recalled"),
            family="adroit_binary",
            environment=f"ooorl/Adroit{title}Binary-v0",
            conventions=conventions.BINARY,
            fixups=(_CLIP,),
        )


def _kitchen():
    names = (
        ("complete", "Complete", "mini_kitchen_microwave_kettle_light_slider-v0.hdf5", 3_680),
        ("partial", "Partial", "kitchen_microwave_kettle_light_slider-v0.hdf5", 136_950),
        ("mixed", "Mixed", "kitchen_microwave_kettle_bottomburner_light-v0.hdf5", 136_950),
    )
    for name, title, file, rows in names:
        facts = {"family": "kitchen", "environment": f"ooorl/Kitchen{title}-v0", "conventions": conventions.KITCHEN}
        entry = _task(
            f"kitchen-{name}-v0", (60, 9, 280), (0.0, 4.0), "kitchen", file, (rows, "verified"), **facts
        )
        yield entry
        yield replace(
            entry,
            id=f"kitchen-{name}-cumulative-v0",
            environment=f"ooorl/Kitchen{title}Cumulative-v0",
            base=entry.id,
            horizon=1000,
            scored="reward_max",
            conventions=(*conventions.KITCHEN, *conventions.CUMULATIVE),
            fixups=(("terminal_at_reward", {"reward": 4.0}),),
        )


def _incomplete(entries):
    """The tasks with a hole in their data, and the two without data, that OOO is judged on."""
    goal = ("remove_regions", {"discs": ((32.0, 24.0, 2.5),)})
    corners = ((0.5, 0.5, 1.5, 1.5), (6.5, 0.5, 7.5, 1.5))
    missing = ("remove_regions", {"discs": ((7.0, 9.0, 1.25),), "boxes": corners})
    yield replace(
        entries["antmaze-large-diverse-v2"],
        id="antmaze-goal-missing-large-v2",
        base="antmaze-large-diverse-v2",
        rows=942_157,
        rows_known="recalled",
        fixups=(_GOES_ON, goal),
    )
    yield replace(
        entries["maze2d-large-v1"],
        id="maze2d-missing-data-large-v1",
        base="maze2d-large-v1",
        rows=None,
        rows_known="unknown",
        conventions=(*conventions.MAZE2D, *conventions.MISSING_DATA_GUESS),
        fixups=(("subsample", {"rows": 500_000, "seed": 0}), missing),
    )
    yield replace(
        entries["hammer-expert-v1"],
        id="hammer-truncated-expert-v1",
        base="hammer-expert-v1",
        rows=100_000,
        rows_known="recalled",
        fixups=(_CLIP, ("first_rows", {"rows": 20})),
    )
    for name, environment, sizes, line in (
        ("halfcheetah-sparse-v2", "ooorl/SparseHalfCheetah-v0", (17, 6, 1000), 20),
        ("ant-sparse-v2", "ooorl/SparseAnt-v0", (112, 8, 1000), 10),
    ):
        rule = f"reward 1 on every step spent more than {line} m beyond the start; there are no data."
        yield _task(name, sizes, rows=(0, "verified"), family="sparse", environment=environment, conventions=(rule,))


def _ogbench():
    for task_id, family, kind, task in ogbench.tasks():
        facts, file = ogbench.FAMILIES[family], f"{family}-{kind}-v0.npz"
        length, episodes = facts.data[kind]
        entry = _task(
            task_id,
            (facts.observation_dim, facts.action_dim, facts.horizon),
            (0.0, 1.0),
            rows=(length * episodes, "inferred" if facts.scripted else "recalled"),
            family="ogbench",
            environment=ogbench.environment(family, task),
            scored="success",
            conventions=ogbench.CONVENTIONS,
        )
        yield replace(entry, file=file, address=ogbench.HOST + file)


def _entries():
    entries = {}
    for family in (_gym_mujoco, _antmaze, _maze2d, _adroit, _kitchen, _ogbench):
        entries |= {entry.id: entry for entry in family()}
    return entries | {entry.id: entry for entry in _incomplete(entries)}


ENTRIES = _entries()


def lookup(task_id: str) -> Entry:
    """The entry of a task.

    Raises:
      KeyError: with a sentence that gives the nearest known names.
    """
    if task_id in ENTRIES:
        return ENTRIES[task_id]
    near = difflib.get_close_matches(str(task_id), ENTRIES, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `ooorl data list` (list_tasks()) gives all names."
    raise KeyError(f"A task of the catalogue is needed; got {task_id!r}{hint}")


def find(pattern: str = "*") -> tuple[Entry, ...]:
    """The entries whose id matches a shell pattern, or contains it where it has no wildcard."""
    shell = pattern if set("*?[") & set(pattern) else f"*{pattern}*"
    return tuple(entry for entry in ENTRIES.values() if fnmatch.fnmatchcase(entry.id, shell))


def normalised_score(task_id: str, scores):
    """100 * (scores - reference_min) / (reference_max - reference_min), for a number or an array.

    Scores are what the entry's `scored` says: returns for nearly all tasks.

    Nothing is clipped: good policies exceed 100 where the reference is not the optimum.

    Raises:
      KeyError: where the task is unknown, or has no reference scores.
    """
    entry = lookup(task_id)
    if entry.reference_min is None or entry.reference_max is None:
        raise KeyError(f"A task with reference scores is needed; {task_id} has none; report the raw score.")
    return 100.0 * (scores - entry.reference_min) / (entry.reference_max - entry.reference_min)
