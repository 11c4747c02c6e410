"""Cloud TPUs through XPK, which makes the JobSet itself; for a cluster of `xpk cluster create`.

python -m launch.tpu.xpk @launch/tpu/mine --name admd --tpu-type v6e-16 -- train --config=... --workdir=...
"""

import argparse
import shlex

from launch.commands import Commands, carried_out, say
from launch.image import built_and_pushed
from launch.options import commands, elsewhere, google, image, main, together
from launch.tpu.gke import SECONDS_TO_SAVE
from launch.tpu.jobset import followed


def started(run: Commands, options: argparse.Namespace, job: list[str]) -> None:
    """Builds and pushes the image and hands the workload to XPK."""
    image = built_and_pushed(run, options, "video,gcs,tpu")
    run.make(
        "xpk",
        "workload",
        "create",
        *_where(options),
        f"--workload={options.name}",
        f"--tpu-type={options.tpu_type}",
        f"--num-slices={options.slices}",
        f"--docker-image={image}",
        f"--max-restarts={options.max_restarts}",  # after exit codes 42 and 127 to 255
        f"--termination-grace-period-seconds={SECONDS_TO_SAVE}",
        *(f"--storage={storage}" for storage in options.storage),
        # XPK signals the shell around the command: by exec that is python.
        f"--command=exec {shlex.join(['hallujax', *together(job)])}",
    )


def _where(options: argparse.Namespace) -> list[str]:
    return [f"--cluster={options.cluster}", f"--project={options.project}", f"--zone={options.zone}"]


def launch() -> int:
    """Reads the command line and carries it out; returns 0 if the job completed."""
    parser = elsewhere("tpu.xpk", "Trains on Cloud TPUs of a GKE cluster, through XPK.")
    google(parser)
    image(parser)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--tpu-type", required=True, help="v5litepod-16, v5p-8, v6e-16, tpu7x-4x4x4, ...")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--storage", action="append", default=[], help="name of an XPK storage to mount")
    options, job = parser.read()
    run = commands(options)

    def work() -> int:
        if options.clean_up:
            return 0
        started(run, options, job)
        if options.detach:
            say("launch: xpk workload list; --clean-up ends and deletes it")
            return 0
        return followed(run, options.name, "default")

    def clean_up() -> None:
        if options.clean_up or (run.made and not options.detach):
            delete = ["xpk", "workload", "delete", *_where(options), f"--workload={options.name}", "--force"]
            run.run(*delete, check=False)

    return carried_out(work, clean_up)


if __name__ == "__main__":
    main(launch)
