"""Starts `hallujax` elsewhere: `python -m launch.FORM [FLAGS] -- HALLUJAX ARGUMENTS`, in a checkout.

Python, and its standard library alone, because most of this is quoting (a command within ssh within gcloud), JSON and
clean-up after Ctrl-C. Shell is what others run: SLURM the batch script, TPU VMs `tpu/worker.sh`.
"""
