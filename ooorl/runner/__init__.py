"""The command line and the run directory: config files to agents, phases and results."""
