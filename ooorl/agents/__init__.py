"""Agents: losses and an update, one algorithm a file."""
