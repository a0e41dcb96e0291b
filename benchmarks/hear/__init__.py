"""The HEAR benchmark in one command: see README.md of this folder."""
