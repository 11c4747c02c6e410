"""What is handed to Kubernetes, against schemas: its own for Job and pod, one of the fields used for the rest."""

import copy
import json

import jsonschema
import kubernetes_validate
import pytest
import yaml
from launching import HERE, ROOT

from launch.commands import RESTARTED

SCHEMA = json.loads((HERE / "jobset.schema.json").read_text())


def valid(resource):
    jsonschema.validate(resource, {"$ref": f"#/$defs/{resource['kind']}", "$defs": SCHEMA["$defs"]})
    for replicated in resource["spec"].get("replicatedJobs", []):
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slice"}, **replicated["template"]}
        kubernetes_validate.validate(job, "1.34", strict=True)


def jobset(name):
    return json.loads((HERE / "goldens" / f"{name}.sh").read_text().split("<<'END'\n")[1].split("\nEND\n")[0])


def template(resource):
    return resource["spec"]["replicatedJobs"][0]["template"]["spec"]


@pytest.mark.parametrize("name", ["gke", "gke_spot_slices"])
def test_jobsets_are_valid_and_typing_errors_are_not(name):
    valid(jobset(name))
    wrong = []
    for _ in range(5):
        wrong.append(copy.deepcopy(jobset(name)))
    wrong[0]["spec"]["failurePolicy"]["maxRestart"] = 5
    wrong[1]["spec"]["replicatedJobs"][0]["replica"] = 2
    template(wrong[2])["backofLimit"] = 0
    template(wrong[3])["template"]["spec"]["containers"][0]["arg"] = ["train"]
    template(wrong[4])["template"]["spec"]["restartPolicy"] = 3
    for resource in wrong:
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            valid(resource)


def test_the_queue_is_valid_and_the_one_that_jobs_ask_for():
    resources = list(yaml.safe_load_all((ROOT / "launch" / "tpu" / "kueue.yaml").read_text()))
    for resource in resources:
        valid(resource)
    flavour, queue, local = resources
    labels = template(jobset("gke"))["template"]["spec"]["nodeSelector"]
    assert flavour["spec"]["nodeLabels"] == labels
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    assert local["metadata"]["name"] == jobset("gke")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]


def test_a_pod_a_host_of_four_chips():
    slices = template(jobset("gke_spot_slices"))  # 2x2x4 chips
    assert slices["parallelism"] == slices["completions"] == 4
    limits = slices["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"google.com/tpu": 4}


def test_everybody_restarts_after_the_same_exit_codes():
    rule = template(jobset("gke"))["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert rule["operator"] == "NotIn" and rule["values"] == sorted(RESTARTED)
    script = (ROOT / "launch" / "gpu" / "train.sbatch").read_text()
    assert f"\n{' | '.join(map(str, RESTARTED))})" in script
    xpk = {42, *range(127, 256)}  # its own rule
    assert set(RESTARTED) <= xpk
