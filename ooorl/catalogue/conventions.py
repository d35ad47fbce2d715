"""What readers of D4RL's files must know, one sentence each. Imports nothing."""

GYM = (
    "terminals mark falls, timeouts the limit of 1000 steps; the last row may end mid-episode with neither.",
    "next_observations are in the file; the usual D4RL loader ignores them.",
)
ANTMAZE = (
    "rewards[t] = terminals[t] = the successor lies within 0.5 of the goal.",
    "episodes last 1001 rows and go on after the goal.",
    "usual practice subtracts 1 from the reward.",
)
MAZE2D = (
    "one continuous trajectory without terminals; timeouts mark waypoints, not time limits.",
    "rewards[t] is counted at observations[t], the environment's at the successor.",
    "the reference maximum is too low: a correct controller scores above 100.",
)
ADROIT = (
    "no row is terminal but a dropped pen; human demonstrations are longer than the horizon.",
    "human actions leave [-1, 1] and are to be clipped.",
)
BINARY = (
    "reward = success - 1, in {-1, 0}; nothing is terminal.",
    "rows: the first 90 % of the demonstrations and of the cloned episodes.",
    "published as pickled trajectories, which are not loaded here: save them as an npz file of plain arrays.",
)
KITCHEN = (
    "terminals are True on the last step of every demonstration, whether or not its tasks are done.",
    "the file's reward is the number of tasks satisfied now, the environment's +1 once per task.",
)
CUMULATIVE = (
    "the environment pays the number of tasks completed so far on every step and does not end.",
    "the score is the largest reward of an episode, not the return.",
)
MISSING_DATA_GUESS = (
    "the published file keeps 481,287 of 500,000 random rows: it lacks those around the goal, and in the top-left and"
    " bottom-left of the layout as printed.",
    "a guess: the radius (1.25) and the corners (one cell each), chosen so that about as many rows go.",
)
