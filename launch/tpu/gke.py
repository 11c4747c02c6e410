"""Cloud TPUs on GKE, through JobSet and Kueue: any generation, one slice or several.

    python -m launch.tpu.gke @launch/tpu/mine --name admd --tpu tpu-v6e-slice --topology 4x4 \\
        -- train --config=... --workdir=/runs/admd --config.data.directory=/runs/data

The cluster has JobSet and Kueue and a queue (`launch/tpu/kueue.yaml`, or all of it by `xpk cluster create`), and node
pools of the topology.
"""

import argparse
import json
import math
from typing import Any

from launch.commands import RESTARTED, Commands, carried_out, say
from launch.image import built_and_pushed
from launch.options import commands, elsewhere, google, image, main, together
from launch.tpu.jobset import followed

SECONDS_TO_SAVE = 120  # after SIGTERM; Kubernetes' 30 are few for a large checkpoint


def manifest(options: argparse.Namespace, image: str, job: list[str]) -> dict[str, Any]:
    """The JobSet: a Job a slice, a pod a host, all restarted together."""
    chips = math.prod(options.topology)
    per_host = min(chips, options.chips_per_host)
    claims = [claim.partition("=") for claim in options.claim]
    container = {
        "name": "hallujax",
        "image": image,
        "args": together(job),
        "resources": {"limits": {"google.com/tpu": per_host}},
        "securityContext": {"privileged": True, "runAsUser": 0},  # the devices are root's
        "volumeMounts": [{"name": f"claim{i}", "mountPath": path} for i, (_, _, path) in enumerate(claims)],
    }
    node = {
        "cloud.google.com/gke-tpu-accelerator": options.tpu,
        "cloud.google.com/gke-tpu-topology": "x".join(map(str, options.topology)),
    }
    taints = ["google.com/tpu"]
    if options.spot:
        node["cloud.google.com/gke-spot"] = "true"
        taints.append("cloud.google.com/gke-spot")
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": SECONDS_TO_SAVE,
        "hostNetwork": True,  # between slices the pods' own network is the slower one
        "dnsPolicy": "ClusterFirstWithHostNet",
        "nodeSelector": node,
        "tolerations": [{"key": taint, "operator": "Exists", "effect": "NoSchedule"} for taint in taints],
        "containers": [container],
        "volumes": [
            {"name": f"claim{i}", "persistentVolumeClaim": {"claimName": name}} for i, (name, _, _) in enumerate(claims)
        ],
    }
    slices = {
        "parallelism": chips // per_host,
        "completions": chips // per_host,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        # A failure of the job's own (a wrong flag, damaged data, numbers not finite) fails the JobSet at once ...
        "podFailurePolicy": {
            "rules": [
                {
                    "action": "FailJob",
                    "onExitCodes": {"containerName": "hallujax", "operator": "NotIn", "values": list(RESTARTED)},
                }
            ]
        },
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": options.name,
            "namespace": options.namespace,
            "labels": {"kueue.x-k8s.io/queue-name": options.queue},
            "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            # ... and all else, a preempted or lost host among it, restarts all pods.
            "failurePolicy": {
                "maxRestarts": options.max_restarts,
                "rules": [{"name": "own", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
            },
            "ttlSecondsAfterFinished": 24 * 3600,
            "replicatedJobs": [{"name": "slice", "replicas": options.slices, "template": {"spec": slices}}],
        },
    }


def started(run: Commands, options: argparse.Namespace, job: list[str]) -> None:
    """Builds and pushes the image and hands the JobSet to the cluster."""
    image = built_and_pushed(run, options, "video,gcs,tpu")
    reach(run, options)
    text = json.dumps(manifest(options, image, job), indent=1)
    run.make("kubectl", "create", "--filename=-", stdin=text)


def reach(run: Commands, options: argparse.Namespace) -> None:
    """Points kubectl at the cluster."""
    where = [f"--location={options.location}", f"--project={options.project}"]
    run.run("gcloud", "container", "clusters", "get-credentials", options.cluster, *where)


def _topology(text: str) -> list[int]:
    return [int(side) for side in text.split("x")]


def launch() -> int:
    """Reads the command line and carries it out; returns 0 if the job completed."""
    parser = elsewhere("tpu.gke", "Trains on Cloud TPUs of a GKE cluster, through JobSet and Kueue.")
    google(parser)
    image(parser)
    parser.add_argument("--cluster", required=True)
    parser.add_argument("--location", required=True, help="of the cluster: a region, or a zone")
    parser.add_argument("--queue", default="multislice-queue", help="Kueue's LocalQueue (%(default)s)")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--tpu", required=True, help="tpu-v5-lite-podslice, tpu-v5p-slice, tpu-v6e-slice, tpu7x, ...")
    parser.add_argument("--topology", required=True, type=_topology, help="of a slice, in chips: 4x4, 2x2x4, ...")
    parser.add_argument("--chips-per-host", type=int, default=4, help="fewer if the slice has fewer (%(default)s)")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--spot", action="store_true", help="on preemptible nodes")
    parser.add_argument("--claim", action="append", default=[], metavar="CLAIM=PATH", help="volume that all pods share")
    options, job = parser.read()
    run = commands(options)

    def work() -> int:
        if options.clean_up:
            reach(run, options)
            return 0
        started(run, options, job)
        if options.detach:
            say(f"launch: kubectl get jobset {options.name}; --clean-up ends and deletes it")
            return 0
        return followed(run, options.name, options.namespace)

    def clean_up() -> None:
        if options.clean_up or (run.made and not options.detach):
            where = f"--namespace={options.namespace}"
            run.run("kubectl", "delete", "jobset", options.name, where, "--ignore-not-found", check=False)

    return carried_out(work, clean_up)


if __name__ == "__main__":
    main(launch)
