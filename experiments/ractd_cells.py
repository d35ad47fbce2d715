"""What `ractd.py` trains: tasks, plans, students that differ in a detail, rivals of the same network."""

TASKS = {
    'hopper': ('Hopper-v4', ''),
    'halfcheetah': ('HalfCheetah-v4', ''),
    'maze2d': ('ooorl/Maze2dUmaze-v0', 'maze2d-umaze-v1'),
    'pointmaze': ('pointmaze-medium-navigate-singletask-task1-v0', ''),
    'pointmaze3': ('pointmaze-medium-navigate-singletask-task3-v0', ''),
    'hopper16': ('Hopper-v4', ''),
    'rooms': ('ooorl/GoalMaze-v0', ''),
}
# What a task's tables of agents have beside the config's: plans of several steps.
PLANS = {
    'pointmaze3': dict.fromkeys(('teacher', 'returns', 'student'), {'chunk': 25}),
    'hopper16': dict.fromkeys(('teacher', 'student'), {'chunk': 16, 'chunk_executed': 1}),
    'rooms': dict.fromkeys(('teacher', 'returns', 'student'), {'chunk': 8}),
}
# What is made by a script needs no file: another config, with what all tasks have alike.
ROOMS = (
    'run.seeds="0:5"', 'evaluation.num_episodes=100', 'distil.num_updates=8000', 'student.reward_weight=0.5',
    'student.policy.start_noise=1.0',
)  # fmt: skip
WHOLE = ('hopper', 'halfcheetah', 'hopper16')  # the data's episodes are whole ones, from the environment's starts
# What is another than in RACTD, of the student that is trained.
PLAIN = {'reward_weight': 0.0}
CONSISTENCY = {'denoising_weight': 0.0, 'start_noise': 80.0}  # that term alone, from the noise that paths begin with
ABLATION = {
    'one_step': {'reward_on': 'one_step'},
    'one_step_much': {'reward_on': 'one_step', 'policy': {'start_noise': 80.0}},
    'reward_2': {'reward_weight': 2.0},
    'slow_targets': {'target_rate': 0.001},
    'no_denoising': {'policy': {'denoising_weight': 0.0}},
    'ctm_denoising': {'policy': {'denoise': 'level'}},
    'ctm_denoising_much': {'policy': {'denoise': 'level', 'start_noise': 80.0}},
    'no_denoising_much': {'policy': CONSISTENCY},
    'consistency_much': {'reward_weight': 0.0, 'policy': CONSISTENCY},
    'consistency_much_square': {'reward_weight': 0.0, 'policy': {**CONSISTENCY, 'distance': 'square'}},
}
# How else what is trained is asked: the same weights.
TEACHERS = {
    'teacher, Heun': {},
    'teacher, Heun from noise 1': {'start_noise': 1.0},
    'teacher, DDIM-15': {'sampler': 'ddim', 'num_steps': 15},
    'teacher, DDIM-5': {'sampler': 'ddim', 'num_steps': 5},
    'teacher, DDIM-5 from noise 1': {'sampler': 'ddim', 'num_steps': 5, 'start_noise': 1.0},
    'teacher, DDIM-1 from noise 1': {'sampler': 'ddim', 'num_steps': 1, 'start_noise': 1.0},
}
STUDENTS = {'from noise 80': {'start_noise': 80.0}, 'two calls': {'chain': [0.885]}}
# Times of a mean flow that are often near 0 and 1, between which it acts (3 % of rows within .05; as published 2 in a million).
ENDS = {'time_mean': 0.0, 'time_std': 3.0}
OFQL = {
    'agent': 'td3', 'policy_delay': 1, 'target_noise': 0.0, 'policy_action': 'sample', 'policy_value': 'mean',
    'q_normalisation': 0.1, 'cloning_weight': 1.0, 'cloning_reduce': 'mean', 'policy': {'kind': 'mean_flow', 'ema_rate': 0.005},
}  # fmt: skip
RIVALS = {
    'fql': {'agent': 'fql', 'normalise_q': True, 'distil_weight': 1.0, 'aggregate': 'min'},
    'ofql': OFQL,
    'ofql_weak': {**OFQL, 'q_normalisation': 0.01},  # its authors try 0.001 to 0.5
    'ofql_ends': {**OFQL, 'policy': {**OFQL['policy'], **ENDS}},
    'gaussian': {'agent': 'bc', 'policy': {'kind': 'gaussian'}, 'learning_rate': 1e-3, 'schedule': 'cosine'},
    'mean_flow': {'agent': 'bc', 'policy': {'kind': 'mean_flow', 'ema_rate': 0.005}, 'learning_rate': 3e-4},
    'mean_flow_ends': {'agent': 'bc', 'policy': {'kind': 'mean_flow', 'ema_rate': 0.005, **ENDS}, 'learning_rate': 3e-4},
}  # fmt: skip
