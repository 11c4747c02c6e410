"""The container image of one revision."""

import argparse

from launch.commands import Commands
from launch.revision import revision


def built_and_pushed(commands: Commands, options: argparse.Namespace, extras: str) -> str:
    """Builds `launch/Dockerfile` from git, not from the working tree, and pushes it; returns the image with its tag.

    Args:
      commands: run the build.
      options: with `image`, `built`, `revision` and `with_changes`.
      extras: hallujax's extras for the accelerator, of pyproject.toml.
    """
    if options.built:
        return f"{options.image}:{options.built}"
    code = revision(options.revision, options.with_changes)
    image = f"{options.image}:{code.name}"
    arguments = [f"--build-arg=EXTRAS={extras}", f"--build-arg=REVISION={code.name}"]
    commands.pipe(code.archive(), ["docker", "build", f"--tag={image}", "--file=launch/Dockerfile", *arguments, "-"])
    commands.run("docker", "push", image, attempts=3)
    return image
