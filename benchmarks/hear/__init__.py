"""The HEAR benchmark in one command; README.md says what it does.

To be read in this order: `__main__` (the commands), `task` (what a task is), `check` (is it right),
`run` with `kit`, `module` and `results` (the two stages), then the offline tasks: `build`,
`scene_tasks`, `event_tasks`, and `evidence`, which runs them.
"""
