"""Starts `hallujax` elsewhere: `python -m launch.FORM [FLAGS] -- HALLUJAX ARGUMENTS`, from a checkout; `launch/README.md`.

Python, and its standard library alone, because most of this is quoting (a command within ssh within gcloud), JSON and
clean-up after Ctrl-C; the only shell is the script that SLURM runs.
"""
