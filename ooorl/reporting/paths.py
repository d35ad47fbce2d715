"""From noise to action: the paths of a teacher of many steps and the one jump of its student, in the plane of actions."""

import numpy as np

from ooorl.reporting.figures import COLOURS, Panel, figure, finish

CAPTION = (
    "Each line leads one draw of noise to an action: bent, the teacher's ({steps} steps); straight, the student's single one, "
    "with a dot where it ends. Dots of both colours in the same places: it ends where its teacher does; orange ones in a heap "
    "between the blue: it has become the mean of several ways. Grey dots are actions of the data nearby, the square holds all "
    "actions. Noisy actions are drawn at a scale on which all noise has deviation 1; a student that is given less noise than its "
    "teacher begins near the middle."
)


def denoising(states):
    """`(panels, caption)` of the paths in `states`, the arrays of a run's `states.npz`; no panels where there are none.

    Args:
      states: `paths_teacher` `[places, draws, steps + 1, 2]`, `paths_student` `[places, draws, 2, 2]`, `paths_data`
        `[places, rows, 2]` and `paths_at` `[places, O]`.
    """
    if not {'paths_teacher', 'paths_student', 'paths_data', 'paths_at'} <= set(states):
        return [], ''
    teacher, student, data, at = (np.asarray(states[f'paths_{name}'], float) for name in ('teacher', 'student', 'data', 'at'))
    # One far beginning would leave the square, in which everything ends, a small part of the picture.
    reach = 1.05 * max(1.0, np.quantile(np.abs(teacher), 0.97), np.abs(student[:, :, -1]).max())
    found = [_panel(*place, reach) for place in zip(teacher, student, data, at, strict=True)]
    return found, CAPTION.format(steps=teacher.shape[-2] - 1)


def _panel(teacher, student, data, at, reach):
    drawn, panel = figure(3.6)
    panel.plot([-1, 1, 1, -1, -1], [-1, -1, 1, 1, -1], color='#888888', lw=0.8)
    panel.scatter(*data.T, s=9, color='#999999', alpha=0.45, lw=0, label='actions of the data')
    for line in teacher:
        panel.plot(*line.T, color=COLOURS[0], lw=0.7, alpha=0.75)
    for start, end in student:
        panel.plot(*zip(start, end, strict=True), color=COLOURS[1], lw=0.7, alpha=0.6)
    panel.scatter(*teacher[:, -1].T, s=14, color=COLOURS[0], lw=0, zorder=4, label=f'teacher: {teacher.shape[1] - 1} steps')
    panel.scatter(*student[:, -1].T, s=14, color=COLOURS[1], lw=0, zorder=5, label='student: one jump')
    panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect='equal')
    panel.legend(fontsize=8, frameon=False, loc='lower left', borderaxespad=0.1, handletextpad=0.1)
    finish(panel, 'first number of the action', 'second number', grid=False)
    where = ', '.join(f'{number:.2g}' for number in at[:4]) + ('…' if len(at) > 4 else '')
    gap = np.linalg.norm(student[:, -1] - teacher[:, -1], axis=-1).mean()
    alt = f'{len(teacher)} paths of the teacher and jumps of the student; of the same noise they end {gap:.2g} apart on average.'
    return Panel(f'at the observation ({where})', alt, drawn)
