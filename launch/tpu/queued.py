"""Cloud TPU VMs by queued resources, v4 to v6e; later generations are to be had on GKE alone.

    python -m launch.tpu.queued @launch/tpu/mine --name admd --accelerator-type v6e-16 \\
        --runtime-version v2-alpha-tpuv6e --setup 'mkdir -p ~/runs && gcsfuse my-bucket ~/runs' \\
        -- train --config=... --workdir=/home/me/runs/admd

This process is what asks for new machines after a preemption: run it where it can stay. They cost money until it has
deleted them, which it does whatever ends it but SIGKILL and power cuts; then `--clean-up`.
"""

import argparse
import pathlib
import shlex
import tempfile

from launch.commands import RESTARTED, Commands, Failed, carried_out, say
from launch.options import commands, elsewhere, google, main, together
from launch.revision import Revision, revision

WORKER = "bash hallujax/launch/tpu/worker.sh"


class Machines:
    """One queued resource: the hosts of a slice."""

    def __init__(self, run: Commands, options: argparse.Namespace):
        self._run = run
        self._options = options
        self._where = [f"--project={options.project}", f"--zone={options.zone}"]
        self._seen = False  # since they were asked for: the list may come to know of them a little later

    def ask(self) -> None:
        """Asks for them.

        Raises:
          Failed: above all if there are some of this name already.
        """
        options = self._options
        self._seen = False
        self._run.make(
            *("gcloud", "compute", "tpus", "queued-resources", "create", options.name, *self._where),
            f"--node-id={options.name}",
            f"--accelerator-type={options.accelerator_type}",
            f"--runtime-version={options.runtime_version}",
            *options.create,
        )

    def state(self) -> str | None:
        """What Google says they are; empty if there are none, None if it did not answer."""
        found = f"--filter=name~/queuedResources/{self._options.name}$"
        query = ["list", *self._where, found, "--format=value(state.state)"]
        return self._run.read("gcloud", "compute", "tpus", "queued-resources", *query, dry="ACTIVE")

    def wait_for(self) -> None:
        """Waits until they are there; asks again if they were taken away: what is suspended is never given back.

        Raises:
          Failed: if they cannot be had, or not as they were asked for.
        """
        said = None
        while (state := self.state()) != "ACTIVE":
            self._seen = self._seen or bool(state)
            if state == "FAILED":
                raise Failed(
                    f"the request {self._options.name} failed; gcloud compute tpus queued-resources describe says why"
                )
            if state == "SUSPENDED" or (state == "" and self._seen):
                self.delete()
                self.ask()
            if state != said:
                say(f"launch: {self._options.name}: {state or 'asked for'}")
                said = state
            self._run.wait()

    def ssh(self, command: str) -> int:
        """Runs a command on all hosts at once; 0, or the first host's exit code that is not."""
        words = ["ssh", self._options.name, *self._where, "--worker=all", *self._options.ssh, f"--command={command}"]
        return self._run.run("gcloud", "compute", "tpus", "tpu-vm", *words, check=False)

    def copy(self, path: pathlib.Path) -> int:
        """Copies a file into the home folder of all hosts; 0, or an exit code."""
        words = [
            "scp",
            str(path),
            f"{self._options.name}:{path.name}",
            *self._where,
            "--worker=all",
            *self._options.ssh,
        ]
        return self._run.run("gcloud", "compute", "tpus", "tpu-vm", *words, attempts=5, check=False)

    def delete(self) -> None:
        """Deletes them, whatever they do."""
        words = ["delete", self._options.name, *self._where, "--force", "--quiet"]
        self._run.run("gcloud", "compute", "tpus", "queued-resources", *words, attempts=3, check=False)


def one_start(run: Commands, machines: Machines, options: argparse.Namespace, code: Revision, job: list[str]) -> int:
    """Brings code to machines that are there, starts the job and prints what it prints; returns its exit code."""
    with tempfile.TemporaryDirectory() as folder:
        archive = pathlib.Path("." if run.dry_run else folder) / "hallujax.tar"
        run.run(*code.archive(), f"--output={archive}")
        if failed := machines.copy(archive):
            return failed
    unpack = "rm -rf hallujax && mkdir hallujax && tar -xf hallujax.tar -C hallujax"
    for step in (
        f"{unpack} && {WORKER} install",
        options.setup,
        f"{WORKER} start {code.name} {shlex.join(together(job))}",
    ):
        if step and (failed := machines.ssh(step)):
            return failed
    return machines.ssh(f"{WORKER} watch")


def launch() -> int:
    """Reads the command line and carries it out; returns the job's exit code."""
    parser = elsewhere("tpu.queued", "Trains on Cloud TPU VMs that are asked for by a queued resource.")
    google(parser)
    parser.add_argument("--accelerator-type", required=True, help="v4-16, v5litepod-16, v5p-16, v6e-16, ...")
    parser.add_argument("--runtime-version", required=True, help="tpu-ubuntu2204-base (v4), v2-alpha-tpuv5-lite, ...")
    parser.add_argument("--create", action="append", default=[], help="another flag of the request: --create=--spot")
    parser.add_argument("--ssh", action="append", default=[], help="another flag of ssh and scp: --ssh=--internal-ip")
    parser.add_argument(
        "--setup", default="", help="shell command on every host before the job: to mount a bucket, ..."
    )
    options, job = parser.read()
    if options.detach:
        parser.error("this process asks for new machines after a preemption, and deletes them in the end: it must stay")
    run = commands(options)
    machines = Machines(run, options)
    running = options.clean_up

    def work() -> int:
        nonlocal running
        if options.clean_up:
            return 0
        code = revision(options.revision, options.with_changes)
        machines.ask()
        for restart in range(options.max_restarts + 1):
            machines.wait_for()
            running = True
            ended = one_start(run, machines, options, code, job)
            if ended == 0:
                return 0
            run.wait()
            if ended not in RESTARTED and machines.state() == "ACTIVE":
                raise Failed(f"exit code {ended}", ended)
            say(f"launch: exit code {ended}; restart {restart + 1} of {options.max_restarts}")
        return ended

    def clean_up() -> None:
        if running:
            machines.ssh(f"{WORKER} stop")  # with time to save, which the end of a machine leaves less of
        if running or run.made:
            machines.delete()

    return carried_out(work, clean_up)


if __name__ == "__main__":
    main(launch)
