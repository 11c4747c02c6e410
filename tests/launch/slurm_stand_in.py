"""sbatch, srun, scontrol and scancel of a cluster of one machine and one job; they really start what they are given.

The command is this file's name; the job's state is `job.json` beside it.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

HERE = pathlib.Path(sys.argv[0]).parent
STATE = HERE / "job.json"


def read():
    return json.loads(STATE.read_text())


def write(**changes):
    partial = STATE.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps((read() if STATE.exists() else {}) | changes))
    partial.replace(STATE)


def flags(words):
    """{flag: value} of the words before the first that is none, and what follows."""
    count = next(i for i, word in enumerate(words) if not word.startswith("--"))
    return dict(word.partition("=")[::2] for word in words[:count]), words[count:]


def free_number():
    """A job number whose port, as jax computes it from the number, is free."""
    for number in range(1, 4096):
        try:
            socket.create_server(("127.0.0.1", 61440 + number)).close()
            return number
        except OSError:
            continue


def sbatch(words):
    given, (script, *arguments) = flags(words)
    number = free_number()
    spool = HERE / "spool"  # as SLURM does, so that the script cannot find what lay beside it
    shutil.copy(script, spool)
    write(number=number, state="RUNNING", code=0, restarts=0, tasks=[], given=given)
    own = subprocess.Popen([sys.executable, sys.argv[0], "batch", str(spool), *arguments], start_new_session=True)
    write(runner=own.pid)
    print(number)


def batch(spool, arguments):
    """What runs on the first node: the script, again after each `scontrol requeue`."""
    job = read()
    given, number = job["given"], job["number"]
    environment = os.environ | {
        "SLURM_JOB_ID": str(number),
        "SLURM_NTASKS": str(int(given["--nodes"]) * int(given["--ntasks-per-node"])),
        "SLURM_CPUS_PER_TASK": given["--cpus-per-task"],
    }
    while True:
        with open(given["--output"].replace("%j", str(number)), "a") as log:
            restarts = read()["restarts"]
            again = {"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}
            words = ["bash", spool, *arguments]
            done = subprocess.run(words, cwd=given["--chdir"], env=environment | again, stdout=log, stderr=log)
        if read()["state"] != "REQUEUED":
            write(state="FAILED" if done.returncode else "COMPLETED", code=done.returncode)
            return
        write(state="RUNNING", restarts=restarts + 1, tasks=[])


def srun(words):
    _, command = flags(words)
    place = {"SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_NUM_NODES": "1"}
    tasks = [
        subprocess.Popen(command, env=os.environ | place | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)})
        for i in range(int(os.environ["SLURM_NTASKS"]))
    ]
    write(tasks=[task.pid for task in tasks])
    codes = [task.wait() for task in tasks]
    sys.exit(max(code if code >= 0 else 128 - code for code in codes))


def scontrol(words):
    if words[0] == "requeue":
        write(state="REQUEUED")
    else:
        job = read()
        print(f"JobId={job['number']} JobState={job['state']} ExitCode={job['code']}:0 ")


def scancel(words):
    job = read()
    if job["state"] == "RUNNING":
        write(state="CANCELLED")
        for task in job["tasks"]:
            os.kill(task, signal.SIGTERM)


if __name__ == "__main__":
    if sys.argv[1] == "batch":
        batch(sys.argv[2], sys.argv[3:])
    else:
        globals()[pathlib.Path(sys.argv[0]).name](sys.argv[1:])
