"""A JobSet from its start to its end."""

import datetime

from launch.commands import Commands, say


def followed(run: Commands, name: str, namespace: str) -> int:
    """Prints the logs of a JobSet's pods, over its restarts, until it has ended; returns 0 if it completed, else 1."""
    where = f"--namespace={namespace}"
    fields = "--output=jsonpath={.status.restarts}/{.status.terminalState}"
    since: list[str] = []
    restarts = ""
    while True:
        # Ends when the pods do, and fails while there are none: in the queue, or between two starts.
        logs = ["--follow", "--prefix", "--ignore-errors", "--tail=-1", "--max-log-requests=1000", *since]
        selector = f"--selector=jobset.sigs.k8s.io/jobset-name={name}"
        if run.run("kubectl", "logs", where, selector, *logs, check=False) == 0:
            since = [f"--since-time={datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"]
        state = run.read("kubectl", "get", "jobset", name, where, "--ignore-not-found", fields, dry="0/Completed")
        if state is not None:
            count, there, ended = state.partition("/")
            if ended or not there:
                say(f"launch: {name} is {ended or 'not there any more'}")
                return int(ended != "Completed")
            if count != restarts:
                restarts, since = count, []
                say(f"launch: restarts so far: {count or 0}")
        run.wait()
