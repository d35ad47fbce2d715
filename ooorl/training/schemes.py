"""Schemes of phases beside those in `phases`: distillation."""

from ooorl.training.learn import Sampling
from ooorl.training.phases import Phase
from ooorl.types import Agent


def distil(
    teacher: Agent,
    student: Agent,
    *,
    teacher_updates: int,
    num_updates: int,
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

    To distil the agent of any other phase, write the last one by hand: `Phase(..., agent=student, sources=(its name,))`.
    """
    helping = () if returns is None else (
        Phase(name='returns', agent=returns, num_updates=return_updates, sampling=return_sampling or sampling),
    )
    return (
        Phase(name='teacher', agent=teacher, num_updates=teacher_updates, sampling=sampling),
        *helping,
        Phase(
            name='distil', agent=student, num_updates=num_updates, sources=('teacher', *(phase.name for phase in helping)),
            sampling=student_sampling or sampling,
        ),
    )
