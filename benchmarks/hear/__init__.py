"""The HEAR benchmark in one command; README.md says what it does.

To be read in this order: `__main__` (the commands), `tasks_format` (what a task is), `check` and
`check_files` (is it right), `run` with `kit`, `probe` and `results` (the two stages), then the
offline tasks: `build`, `scene_tasks`, `event_tasks`, and what they say: `evidence`.
"""
