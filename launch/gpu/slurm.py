"""A SLURM cluster: one process a GPU, on any number of nodes. To be run on a login node; folders must be shared.

    python -m launch.gpu.slurm --name admd --folder /shared/me/admd --nodes 2 --gpus-per-node 8 --time 24:00:00 \\
        --sbatch=--partition=gpu -- train --config=... --workdir=/shared/me/admd/run
"""

import argparse
import contextlib
import pathlib
import re
import shlex
import subprocess
from collections.abc import Iterator

from launch.commands import Commands, Failed, carried_out, say
from launch.options import commands, elsewhere, main, together
from launch.revision import revision

OVER = (
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
)


def submitted(run: Commands, options: argparse.Namespace, job: list[str]) -> str:
    """Copies the code, installs what it needs, hands the job to SLURM; returns its number."""
    code = revision(options.revision, options.with_changes)
    copy = options.folder / "code" / code.name  # a job that waits in the queue is not changed by later edits
    run.run("mkdir", "-p", str(copy))
    run.pipe(code.archive(), ["tar", "--extract", f"--directory={copy}"])
    python = shlex.split(options.python)
    if not python:
        environment = options.folder / "environment"
        run.run(options.base_python, "-m", "venv", str(environment))
        run.run(f"{environment}/bin/pip", "install", "--quiet", f"{copy}[{options.extras}]", attempts=3)
        python = [f"{environment}/bin/python"]
    variables = [f"PYTHONPATH={copy}", f"HALLUJAX_REVISION={code.name}", "PYTHONUNBUFFERED=1"]
    number = run.read(
        "sbatch",
        "--parsable",
        f"--job-name={options.name}",
        f"--nodes={options.nodes}",
        f"--ntasks-per-node={options.gpus_per_node}",
        f"--gpus-per-node={options.gpus_per_node}",
        f"--cpus-per-task={options.cpus_per_gpu}",
        f"--time={options.time}",
        f"--output={options.folder}/%j.log",
        f"--chdir={copy}",  # where configs/ is that of this revision
        *options.sbatch,
        f"{copy}/launch/gpu/train.sbatch",
        str(options.max_restarts),
        *("env", *variables, *python, "-m", "hallujax.cli", *together(job)),
        dry="JOB",
    )
    if not number:
        raise Failed("sbatch did not take the job")
    return number.split(";")[0]  # NUMBER;CLUSTER where there are several


def followed(run: Commands, options: argparse.Namespace, number: str) -> int:
    """Prints the job's log until it is over; returns its exit code."""
    with _printed(run, f"{options.folder}/{number}.log"):
        unanswered = 0
        while unanswered < 20:
            dry = "JobState=COMPLETED ExitCode=0:0"
            state = run.read("scontrol", "--oneliner", "show", "job", number, dry=dry)
            unanswered = unanswered + 1 if state is None else 0
            found = re.search(r"\bJobState=(\w+)", state or "")
            if found and found[1] in OVER:
                code, number_of_signal = map(int, re.search(r"\bExitCode=(\d+):(\d+)", state).groups())
                say(f"launch: job {number} is {found[1]}")
                return code or (128 + number_of_signal if number_of_signal else int(found[1] != "COMPLETED"))
            run.wait()
    raise Failed(f"SLURM does not know of job {number} any more; {options.folder}/{number}.log may say why")


@contextlib.contextmanager
def _printed(run: Commands, log: str) -> Iterator[None]:
    words = ["tail", "--follow=name", "--retry", "--lines=+1", "--quiet", log]
    if run.dry_run:
        run.run(*words)
        yield
        return
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as tail:
        try:
            yield
            run.wait()  # for the last lines
        finally:
            tail.terminate()


def launch() -> int:
    """Reads the command line and carries it out; returns the job's exit code."""
    parser = elsewhere("gpu.slurm", "Trains on a SLURM cluster, one process a GPU.")
    parser.add_argument(
        "--folder", type=pathlib.Path, required=True, help="shared: code, environment and logs go there"
    )
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--gpus-per-node", type=int, default=8)
    parser.add_argument("--cpus-per-gpu", type=int, default=8)
    parser.add_argument("--time", default="24:00:00", help="limit; the job saves and is requeued before (%(default)s)")
    parser.add_argument("--sbatch", action="append", default=[], help="another of its flags: --sbatch=--partition=gpu")
    parser.add_argument("--base-python", default="python3.11", help="that makes the environment (%(default)s)")
    parser.add_argument("--extras", default="video,cuda12", help="of hallujax that are installed (%(default)s)")
    parser.add_argument(
        "--python", default="", help="words that start a Python which has everything: nothing is installed"
    )
    options, job = parser.read()
    run = commands(options)
    if options.clean_up:
        return run.run("scancel", f"--name={options.name}", "--me", check=False)
    started = None

    def work() -> int:
        nonlocal started
        started = submitted(run, options, job)
        if options.detach:
            say(f"launch: job {started}, its log {options.folder}/{started}.log; scancel {started} ends it")
            return 0
        return followed(run, options, started)

    def clean_up() -> None:
        if started and not options.detach:
            run.run("scancel", started, check=False)  # nothing happens to what is over already

    return carried_out(work, clean_up)


if __name__ == "__main__":
    main(launch)
