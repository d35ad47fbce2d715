"""Many runs as one: tasks x presets x settings x seeds as cells, run once each by whoever finds them free."""
