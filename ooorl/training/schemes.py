"""Schemes of phases beside those in `phases`: distillation, WSRL."""

from ooorl.errors import UsageError
from ooorl.training.phases import Phase
from ooorl.training.sampling import Sampling
from ooorl.types import Agent


def distil(
    teacher: Agent | None,
    student: Agent,
    *,
    num_updates: int,
    teacher_updates: int = 0,
    returns: Agent | None = None,
    return_updates: int = 0,
    sampling: Sampling = Sampling(),
    return_sampling: Sampling | None = None,
    student_sampling: Sampling | None = None,
) -> tuple[Phase, ...]:
    """A teacher learns offline, a model of returns beside it, and then a student from both (`agents.distill`).

    1. `teacher`: the teacher on the data set.
    2. `returns`: the model of returns on the same data; none where the student takes no account of them.
    3. `distil`: the student, given the final states of both.

    Without a teacher the first is left out, and the student takes from `Setup.given['teacher']`, an earlier run's. To distil the
    agent of any other phase, write the last one by hand: `Phase(..., agent=student, sources=(its name,))`.
    """
    learning = () if teacher is None else (
        Phase(name='teacher', agent=teacher, num_updates=teacher_updates, sampling=sampling),
    )
    helping = () if returns is None else (
        Phase(name='returns', agent=returns, num_updates=return_updates, sampling=return_sampling or sampling),
    )
    return (
        *learning,
        *helping,
        Phase(
            name='distil', agent=student, num_updates=num_updates, sources=('teacher', *(phase.name for phase in helping)),
            sampling=student_sampling or sampling,
        ),
    )


def wsrl(
    offline: Agent,
    online: Agent,
    *,
    offline_updates: int,
    warm_up_steps: int,
    num_env_steps: int,
    num_updates: int,
    cycle_steps: int = 1,
    sampling: Sampling = Sampling(),
    online_sampling: Sampling,
    store: str = 'online',
) -> tuple[Phase, ...]:
    """WSRL: pessimistic pretraining, a few steps of the pretrained policy, then online learning without the data set.

    1. `offline`: the pessimist learns on the data set.
    2. `warm-up`: `warm_up_steps` of its own stochastic policy, in which nothing learns; not the random steps of other schemes.
    3. `online`: another agent with states of the same form goes on with all of it, optimisers included, and collects what is left
       of `num_env_steps`; `online_sampling` leaves the data set out.

    Source: Zhou et al., arXiv:2412.07762.

    Raises:
      UsageError: if the warm-up takes all steps.
    """
    if not 0 < warm_up_steps < num_env_steps:
        raise UsageError(f'warm_up_steps must be at least 1 and less than num_env_steps, {num_env_steps}; got {warm_up_steps}')
    return (
        Phase(name='offline', agent=offline, num_updates=offline_updates, sampling=sampling),
        Phase(name='warm-up', agent=online, num_updates=0, num_env_steps=warm_up_steps, start='offline', store=store),
        Phase(
            name='online', agent=online, num_updates=num_updates, num_env_steps=num_env_steps - warm_up_steps,
            cycle_steps=cycle_steps, start='warm-up', store=store, sampling=online_sampling,
        ),
    )
