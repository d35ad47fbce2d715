"""Policies: things that draw actions and can be fitted to actions."""
