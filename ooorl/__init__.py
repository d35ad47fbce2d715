"""ooorl: offline and online reinforcement learning for continuous control in JAX."""
