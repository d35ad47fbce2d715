"""The tables of a config file as frozen dataclasses; every field says its unit and default."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from ooorl.agents import CRITICS
from ooorl.agents.prior_data import PriorDataConfig
from ooorl.data.action_box import stated
from ooorl.errors import UsageError
from ooorl.nn.losses import AGGREGATES
from ooorl.policies import POLICIES
from ooorl.runner import memory
from ooorl.runner.seed_list import parse_seeds
from ooorl.runner.signal_tables import DETECTORS, SIGNALS, BonusConfig, CautiousConfig
from ooorl.runner.steering import SteeredConfig
from ooorl.runner.without_resets import LivesConfig
from ooorl.training.sampling import Sampling
from ooorl.training.spread import SHARED
from ooorl.validation import check_choice, check_not_negative, check_positive, check_regions, check_share, check_unit
from ooorl.wrap import CHUNK_ENDS

RETURN_RANGE = 'return_range'
MOST_BINS = 10_000
SCHEMES = ('offline', 'finetune', 'online', 'ooo', 'distil', 'wsrl')
WHERE_GIVEN = ('lives', 'steered')  # tables that mean something by being there
QUIET_SCHEMES = ('offline', 'distil')  # those that collect nothing


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The `[run]` table."""

    scheme: str = 'ooo'  # 'offline', 'finetune', 'online', 'ooo', 'distil' or 'wsrl'
    seeds: str = '0:1'  # 'a:b' counts from a to b - 1; or a comma-separated list
    updates_per_round: int = 1_000  # updates in one dispatch
    evaluate_every: int = 0  # updates between evaluations within a phase; 0 means at the end of each phase only
    seed_group: int = 0  # seeds mapped together on a CPU; 0 chooses: about 4 where no network is wider than 96, else 1
    store: str = ''  # RUN_DIR or RUN_DIR:store, what an earlier run collected: read in place of collecting; 'offline' and 'ooo'
    devices: str = 'seeds'  # what several devices share out: the 'seeds', or the rows of each 'batch'
    hosts: int = 1  # processes on several machines that work on this run together, each started with this command
    checkpoint_seconds: float = 60.0  # time between checkpoints within a phase; each phase ends with one
    memory_limit: str = ''  # '8GB': what the run may take; more is refused before it starts; empty: what is free

    def __post_init__(self):
        check_choice(SCHEMES, scheme=self.scheme)
        check_choice(SHARED, devices=self.devices)
        check_positive(updates_per_round=self.updates_per_round, hosts=self.hosts)
        if self.store and self.scheme not in ('offline', 'ooo'):
            raise UsageError(f"store is for schemes 'offline' and 'ooo', which can do without collecting; got {self.scheme!r}")
        check_not_negative(seed_group=self.seed_group)
        check_not_negative(evaluate_every=self.evaluate_every, checkpoint_seconds=self.checkpoint_seconds)
        parse_seeds(self.seeds)
        if self.memory_limit:
            memory.parsed(self.memory_limit)


@dataclass(frozen=True, kw_only=True)
class EnvironmentConfig:
    """The `[environment]` table."""

    id: str = ''  # a compiled task, a D4RL task of ours, or any gymnasium id, also `module:Id`; empty for none
    num_envs: int = 1  # copies stepped side by side, per seed
    workers: int = 0  # processes beside the main one that step environments on the host; -1: one for each further core
    settings: Mapping = dataclasses.field(default_factory=dict)  # keyword settings of the environment

    def __post_init__(self):
        check_positive(num_envs=self.num_envs)
        if self.workers < -1:
            raise UsageError(f'workers must be 0 or more, or -1 for all cores; got {self.workers}')
        _refuse_workers(self.settings)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """The `[evaluation]` table."""

    num_episodes: int = 10  # per seed and evaluation; 0 for no evaluation
    copies: int = 0  # of an environment on the host, per seed; its episodes take turns. 0: up to 32, or 8 a core, for all seeds
    settings: Mapping = dataclasses.field(default_factory=dict)  # instead of the environment's settings, key by key
    task: str = ''  # catalogue id whose reference scores normalise; empty: that of dataset.task in its own environment

    def __post_init__(self):
        check_not_negative(num_episodes=self.num_episodes, copies=self.copies)
        _refuse_workers(self.settings)


def _refuse_workers(settings):
    if 'workers' in settings:
        raise UsageError('workers is a key of [environment], for collection and evaluation; got it among settings; move it')


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """The `[dataset]` table; `--dataset PATH` fills `path`."""

    path: str = ''  # D4RL HDF5, npz, Minari or a LeRobot folder; found by content
    task: str = ''  # or a catalogue id: fetched where needed, with the catalogue's corrections
    scripted: str = ''  # or data made on the spot: a task's name, such as 'u_maze' or 'goal_maze'
    settings: Mapping = dataclasses.field(default_factory=dict)  # of the scripted data; `seed` among them
    clip_actions: bool = False  # clip actions that leave their box instead of refusing the file
    action_low: float | tuple[float, ...] | None = None  # lower bounds of actions; none: as the file or the environment says
    action_high: float | tuple[float, ...] | None = None  # upper bounds; actions are rescaled from this box to [-1, 1]
    observation_keys: tuple[str, ...] = ()  # of Minari's dict observations or LeRobot's features: which, one behind the other
    replay: str = 'refuse'  # data that do not replay in the environment: 'refuse' or 'warn'; 'off': only sizes are compared
    terminal_ends_episode: bool | None = None  # of a file: False where episodes go on after terminal rows; None: found out
    drop_discs: tuple[tuple[float, ...], ...] = ()  # [x, y, radius]: rows whose observation begins with such x, y are removed
    drop_boxes: tuple[tuple[float, ...], ...] = ()  # [low x, low y, high x, high y], likewise
    first_rows: int | None = None  # of each episode only so many rows, from its start; the cut is no end of the MDP
    combinations: Mapping = dataclasses.field(default_factory=dict)  # sub-table: which combinations of factors are learnt from

    def __post_init__(self):
        if sum(map(bool, (self.path, self.task, self.scripted))) > 1:
            raise UsageError('[dataset] takes one of path, task and scripted; got several; keep one')
        if self.terminal_ends_episode is not None and (self.task or self.scripted):
            raise UsageError('terminal_ends_episode is for a file given by path; the catalogue decides it for a task; remove it')
        stated(self.action_low, self.action_high)
        check_choice(('refuse', 'warn', 'off'), replay=self.replay)
        check_regions(self.drop_discs, self.drop_boxes)
        if self.first_rows is not None:
            check_positive(first_rows=self.first_rows)


@dataclass(frozen=True, kw_only=True)
class OfflineConfig:
    """The `[offline]` table, scheme 'offline'."""

    num_updates: int = 1_000_000  # of the agent


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """The `[finetune]` table, scheme 'finetune'."""

    offline_updates: int = 1_000_000  # on the data set, before the first environment step
    num_env_steps: int = 1_000_000  # environment steps a seed, all copies together
    num_updates: int = 1_000_000  # online
    cycle_steps: int = 1  # steps of every copy between two blocks of updates
    fresh_optimizers: bool = False  # new optimiser states online, parameters kept


@dataclass(frozen=True, kw_only=True)
class OnlineConfig:
    """The `[online]` table, scheme 'online'."""

    num_env_steps: int = 1_000_000  # environment steps a seed, all copies together; random ones count beside
    num_updates: int = 1_000_000  # spread evenly over the steps
    cycle_steps: int = 1  # steps of every copy between two blocks of updates
    random_steps: int = 5_000  # uniformly random steps before the first update


@dataclass(frozen=True, kw_only=True)
class OOOConfig:
    """The `[ooo]` table, scheme 'ooo'."""

    pretrain_updates: int = 1_000_000  # 0: no pretraining, which is how to go without a data set
    random_steps: int = 0  # uniformly random steps before exploration, beside num_env_steps; OOO's RLPD 5000
    num_env_steps: int = 1_000_000  # environment steps of exploration a seed, all copies together
    explore_updates: int = 1_000_000  # of the explorer, spread evenly over the steps
    retrain_updates: int = 1_000_000  # of each fresh exploiter
    # Environment steps to retrain at, random ones counted, from scratch; empty: at the end; 0: data set only.
    retrain_at: tuple[int, ...] = ()
    cycle_steps: int = 1  # steps of every copy between two blocks of updates
    without_bonus: bool = False  # compare: the explorer's agent without its bonus, pretrained and fine-tuned at equal steps
    retrain_without_bonus: bool = False  # compare: retraining on what the explorer without bonus collected


@dataclass(frozen=True, kw_only=True)
class DistilSchemeConfig:
    """The `[distil]` table, scheme 'distil': all on the data set."""

    teacher: str = ''  # RUN_DIR or RUN_DIR:phase of an earlier run, whose policy teaches; empty: [teacher] is trained first
    digest: str = ''  # of that policy's parameters, filled in, so that a resumed run finds the same one
    teacher_updates: int = 1_000_000  # of the agent in [teacher]
    return_updates: int = 100_000  # of the one in [returns], where there is such a table
    num_updates: int = 100_000  # of the student

    def __post_init__(self):
        check_positive(teacher_updates=self.teacher_updates, return_updates=self.return_updates, num_updates=self.num_updates)


@dataclass(frozen=True, kw_only=True)
class WSRLSchemeConfig:
    """The `[wsrl]` table, scheme 'wsrl'; [agent] is of agent 'wsrl', whose settings are also those of the pretraining."""

    offline_updates: int = 1_000_000  # of Cal-QL (`calibrate = false`: CQL) on the data set
    warm_up_steps: int = 5_000  # of the pretrained policy, before anything learns online
    num_env_steps: int = 1_000_000  # environment steps a seed, all copies together, the warm-up's among them
    num_updates: int = 995_000  # online, of `utd` q steps each, without the data set
    cycle_steps: int = 1  # steps of every copy between two blocks of updates


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """The `[report]` table: what the map of visited states shows."""

    map_columns: tuple[int, ...] = ()  # two observation columns; empty for no map
    map_seed: int = 0  # position in the list of seeds
    walls: tuple = ()  # segments [x0, y0, x1, y1]
    goal: tuple[float, ...] = ()  # [x, y] of its centre
    goal_radius: float = 0.0  # in the units of the columns
    axes: tuple[str, ...] = ('x', 'y')  # what the two columns are called

    def __post_init__(self):
        check_not_negative(map_seed=self.map_seed, goal_radius=self.goal_radius)
        for name, sizes in (('map_columns', (0, 2)), ('goal', (0, 2)), ('axes', (2,))):
            if len(getattr(self, name)) not in sizes:
                raise UsageError(f'{name} must have 2 entries; got {len(getattr(self, name))}')
        if not all(isinstance(wall, tuple | list) and len(wall) == 4 for wall in self.walls):
            raise UsageError('walls must be segments [x0, y0, x1, y1]; got others')


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """Keys of an agent table beside those of the agent's own config."""

    agent: str = 'iql'  # a name of `ooorl.agents.ALGORITHMS`, or `module:builder`
    normalise_observation: bool = False  # by mean and deviation of the data set
    terminal_reward: float | None = None  # raw reward that alone ends the MDP; None: as stored
    ema_rate: float | None = None  # share of the policy in the slow copy of it that acts, after each update; absent: no copy
    monte_carlo_share: float = 0.0  # share of each phase's updates, its first ones, whose targets are the returns that were seen
    chunk: int = 1  # steps that one decision covers, whole chunks being learnt and carried out; 5 for OGBench's manipulation
    chunk_executed: int | None = None  # of a chunk's steps, its first ones, carried out before it decides again; absent: all
    backup_steps: int | None = None  # steps that one Bellman backup spans, at least chunk; absent: chunk. More is biased
    chunk_ends: str = 'keep'  # a chunk that an episode's end cuts short: 'keep', or 'drop' as published (see wrap.chunked)

    def __post_init__(self):
        check_positive(chunk=self.chunk, chunk_executed=self.chunk_executed, backup_steps=self.backup_steps)
        check_share(ema_rate=self.ema_rate)
        check_unit(monte_carlo_share=self.monte_carlo_share)
        check_choice(CHUNK_ENDS, chunk_ends=self.chunk_ends)


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Sub-table `reward` of an agent: r' = scale * r + shift on sampled batches."""

    scale: float | str = 1.0  # factor, greater than 0; 'return_range': 1000 / (largest - smallest return of the data's episodes)
    shift: float = 0.0  # added after scaling

    def __post_init__(self):
        if isinstance(self.scale, str):
            check_choice((RETURN_RANGE,), scale=self.scale)


@dataclass(frozen=True, kw_only=True)
class BoundsConfig:
    """Sub-table `bounds` of an agent; a bound that is absent comes from the data's rewards (`wrap.value_bounds`)."""

    low: float | None = None  # in the agent's reward units
    high: float | None = None  # likewise

    def __post_init__(self):
        if self.low is not None and self.high is not None:
            _check_order(self.low, self.high)


def _check_order(low, high):
    if not low < high:
        raise UsageError(f'low must be less than high; got {low} and {high}')


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """The key of sub-table `policy` beside those of the policy itself, which takes the place of the agent's default one."""

    kind: str = 'gaussian'  # a name of `ooorl.policies.POLICIES`


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The key of sub-table `critic` beside those of the critic itself, for agents that take any (PA-RL)."""

    kind: str = 'calql'  # a name of `ooorl.agents.CRITICS`


@dataclass(frozen=True, kw_only=True)
class RerankedConfig:
    """Sub-table `reranked`: act with the best of several draws under the agent's own Q (IDQL, IFQL)."""

    num_candidates: int = 32  # draws for each action
    value: str = 'min'  # over the members of Q: 'min', 'mean', or 'lower' = mean - rho std
    rho: float = 0.5  # of 'lower'
    collecting: bool = False  # while collecting data too, not only in evaluation

    def __post_init__(self):
        check_positive(num_candidates=self.num_candidates)
        check_not_negative(rho=self.rho)
        check_choice(AGGREGATES, value=self.value)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Sub-table `head`: a classification critic on [low, high]."""

    low: float  # smallest value the head can express
    high: float  # largest
    num_bins: int = 101  # K
    sigma_ratio: float = 0.75  # width of the smoothing Gaussian over the width of a bin

    def __post_init__(self):
        check_positive(sigma_ratio=self.sigma_ratio)
        _check_order(self.low, self.high)
        if not 2 <= self.num_bins <= MOST_BINS:
            raise UsageError(f'num_bins must lie between 2 and {MOST_BINS}; got {self.num_bins}')


TABLES = {
    'run': RunConfig,
    'environment': EnvironmentConfig,
    'evaluation': EvaluationConfig,
    'dataset': DatasetConfig,
    'offline': OfflineConfig,
    'finetune': FinetuneConfig,
    'online': OnlineConfig,
    'ooo': OOOConfig,
    'distil': DistilSchemeConfig,
    'wsrl': WSRLSchemeConfig,
    'lives': LivesConfig,
    'steered': SteeredConfig,
    'report': ReportConfig,
}
# Tables of agents that a scheme takes, where these are not [agent] alone; those in OPTIONAL may be left out.
AGENTS_OF = {'ooo': ('explore', 'exploit'), 'distil': ('teacher', 'returns', 'student')}
OPTIONAL = ('returns',)
AGENT_TABLES = ('agent', *(name for names in AGENTS_OF.values() for name in names))
SUB_TABLES = {
    'reward': RewardConfig,
    'bounds': BoundsConfig,
    'head': HeadConfig,
    'reranked': RerankedConfig,
    'prior': PriorDataConfig,
    'sampling': Sampling,
    'online_sampling': Sampling,
}
# Sub-tables in which one key chooses what the others mean: (the config of that key, its name, what it chooses among).
CHOSEN = {
    'bonus': (BonusConfig, 'signal', SIGNALS),
    'cautious': (CautiousConfig, 'signal', DETECTORS),
    'policy': (PolicyConfig, 'kind', {name: entry.config for name, entry in POLICIES.items()}),
    'critic': (CriticConfig, 'kind', {name: entry.config for name, entry in CRITICS.items()}),
}
