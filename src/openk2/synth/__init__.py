"""The data factory: domains -> tools -> agents -> tasks -> trajectories -> judged data. No model is needed, and an
endpoint upgrades any of it."""
