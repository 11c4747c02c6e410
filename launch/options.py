"""The flags that the launchers share, and how a command line is read."""

import argparse
import re
import sys
from collections.abc import Sequence

from launch.commands import Commands, Failed, say

SEVERAL = ("train", "table", "evaluate")  # the commands that run in several processes


class Parser(argparse.ArgumentParser):
    """Flags, also from files: `@FILE` stands for its lines, a flag each, `#` for comments."""

    def __init__(self, form: str, summary: str):
        super().__init__(
            prog=f"python -m launch.{form}",
            usage=f"python -m launch.{form} [@FILE] [FLAGS] -- HALLUJAX ARGUMENTS",
            description=summary,
            fromfile_prefix_chars="@",
        )
        self.add_argument("--dry-run", action="store_true", help="print the commands, one a line, and run none")
        self.elsewhere = False

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        line = arg_line.strip()
        return [line] if line and not line.startswith("#") else []

    def read(self, arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
        """The flags, and what comes after `--`: the job, as arguments of `hallujax`."""
        words = list(sys.argv[1:] if arguments is None else arguments)
        cut = words.index("--") if "--" in words else len(words)
        options, job = self.parse_args(words[:cut]), words[cut + 1 :]
        if not job and not getattr(options, "clean_up", False):
            self.error("what is to be run comes after --, for example: -- train --config=... --workdir=...")
        if job and job[0] not in SEVERAL and (self.elsewhere or options.processes > 1):
            self.error(f"of hallujax's commands {', '.join(SEVERAL)} run in several processes, {job[0]} does not")
        folders = re.findall(r"--workdir[= ](\S*)", " ".join(job)) if self.elsewhere else []
        if any(not folder.startswith(("/", "gs://")) for folder in folders):
            self.error(
                "--workdir must be an absolute path, or gs://BUCKET/FOLDER: the job runs within its copy of the code, "
                "which is replaced"
            )
        return options, job


def elsewhere(form: str, summary: str) -> Parser:
    """The flags of every launcher that starts a job on machines other than this one."""
    parser = Parser(form, summary)
    parser.elsewhere = True
    parser.add_argument("--name", required=True, type=_name, help="of the job, and of what is made for it")
    parser.add_argument("--detach", action="store_true", help="leave once it is started; --clean-up stops it later")
    parser.add_argument("--clean-up", action="store_true", help="only stop and delete what --name made")
    parser.add_argument("--max-restarts", type=int, default=50, help="after preemptions and crashes (%(default)s)")
    parser.add_argument("--poll", type=float, default=15, help="seconds between two looks at the job (%(default)s)")
    code = parser.add_mutually_exclusive_group()
    code.add_argument("--revision", help="commit to run (HEAD, of a checkout without changes)")
    code.add_argument("--with-changes", action="store_true", help="run what the checkout holds, committed or not")
    return parser


def together(job: Sequence[str]) -> list[str]:
    """The job as one of several processes, which the cluster knows; half an hour for the last host to be there."""
    return [job[0], "--distributed", "--start-timeout=1800", *job[1:]]


def google(parser: Parser) -> None:
    """The flags of what runs on Google Cloud."""
    parser.add_argument("--project", required=True)
    parser.add_argument("--zone", required=True, help="of the TPUs")


def image(parser: Parser) -> None:
    """The flags that say which container image is run."""
    parser.add_argument("--image", required=True, help="REGISTRY/NAME to push to; its tag becomes the revision")
    parser.add_argument("--built", metavar="TAG", help="run this tag of it, and build nothing")


def commands(options: argparse.Namespace) -> Commands:
    """What runs, or prints, this launch's commands."""
    return Commands(options.dry_run, options.poll)


def main(launch) -> None:
    """Runs a launcher's `launch() -> exit code`; what is wrong with the checkout or the flags is one line."""
    try:
        sys.exit(launch())
    except Failed as failure:
        say(f"launch: {failure}")
        sys.exit(failure.code)


def _name(text: str) -> str:
    if not re.fullmatch("[a-z]([-a-z0-9]{0,30}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError("small letters, digits and hyphens, a letter first, 32 at most")
    return text
