"""What the launchers do when commands fail, jobs end and people press Ctrl-C; the commands are stand-ins."""

import re
import shlex
import signal
import subprocess
import sys

import pytest
from launching import StandIns, checkout, launched, start, wait_for

JOB = ["--", "train", "--config=c", "--workdir=/a 'b' $c"]
RUN = ["train", "--distributed", "--start-timeout=1800", *JOB[2:]]
QUEUED = ["--name=run", "--project=p", "--zone=z", "--accelerator-type=v6e-16", "--runtime-version=r", "--poll=0.01"]
GKE = [
    *("--name=run", "--project=p", "--zone=z", "--location=l", "--cluster=c", "--image=i", "--poll=0.01"),
    *("--tpu=tpu-v6e-slice", "--topology=4x4"),
]
SLURM = ["--name=run", "--python=python3", "--poll=0.01"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkout(tmp_path_factory.mktemp("checkout"))


def verbs(stand_ins, tool):
    """What was done, in order: the one word of each call that says it."""
    words = r"create|list|scp|install|start|watch|stop|delete|logs|get-credentials|get|build|push|apply"
    return [re.search(rf"\b({words})\b", line.split("--command=")[-1])[1] for line in stand_ins.lines(f"{tool} ")]


def test_queued_waits_runs_and_deletes(folder, tmp_path):
    states = [{"out": state} for state in ("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")]
    stand_ins = StandIns(tmp_path / "bin", [["list", states]])
    code, _, err = launched(folder, "tpu.queued", [*QUEUED, *JOB], stand_ins)
    assert code == 0, err
    assert verbs(stand_ins, "gcloud") == ["create", *["list"] * 3, "scp", "install", "start", "watch", "stop", "delete"]
    assert err.count("PROVISIONING") == 1


def test_queued_quotes_twice(folder, tmp_path):
    """Once for the shell on the hosts, and not at all for gcloud: what arrives there are the words of the job."""
    stand_ins = StandIns(tmp_path / "bin", [["list", [{"out": "ACTIVE"}]]])
    launched(folder, "tpu.queued", [*QUEUED, *JOB], stand_ins)
    remote = next(word for word in stand_ins.calls()[-4]["words"] if word.startswith("--command="))
    command = remote.removeprefix("--command=").replace("bash hallujax/launch/tpu/worker.sh", "printf '%s\\n'")
    words = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()
    assert words[0] == "start" and words[2:] == RUN


def test_queued_asks_for_new_machines_after_a_preemption(folder, tmp_path):
    states = [{"out": state} for state in ("ACTIVE", "SUSPENDING", "SUSPENDED", "ACTIVE")]
    script = [["worker.sh watch", [{"code": 255}, {"code": 0}]], [" list ", states]]
    stand_ins = StandIns(tmp_path / "bin", script)
    code, _, err = launched(folder, "tpu.queued", [*QUEUED, *JOB], stand_ins)
    assert code == 0, err
    run = ["scp", "install", "start", "watch"]
    assert verbs(stand_ins, "gcloud") == [
        *("create", "list", *run),
        *("list", "list", "delete", "create", "list", *run),
        *("stop", "delete"),
    ]


def test_queued_starts_again_on_the_same_machines_when_told_to_leave(folder, tmp_path):
    script = [["worker.sh watch", [{"code": 143}, {"code": 42}, {"code": 0}]], [" list ", [{"out": "ACTIVE"}]]]
    stand_ins = StandIns(tmp_path / "bin", script)
    code, _, err = launched(folder, "tpu.queued", [*QUEUED, *JOB], stand_ins)
    assert code == 0, err
    seen = verbs(stand_ins, "gcloud")
    assert seen.count("create") == 1 and seen.count("start") == 3 and seen.count("delete") == 1


@pytest.mark.parametrize("failing, code", [("worker.sh watch", 3), ("worker.sh install", 1)])
def test_queued_does_not_repeat_a_failure(folder, tmp_path, failing, code):
    stand_ins = StandIns(tmp_path / "bin", [[failing, [{"code": code}]], [" list ", [{"out": "ACTIVE"}]]])
    found, _, err = launched(folder, "tpu.queued", [*QUEUED, *JOB], stand_ins)
    assert found == code and f"exit code {code}" in err
    assert len(stand_ins.lines(failing)) == 1
    assert verbs(stand_ins, "gcloud")[-1] == "delete"


def test_queued_waits_for_a_list_that_lags_and_ends_with_a_request_that_fails(folder, tmp_path):
    states = [{"out": state} for state in ("", "", "WAITING_FOR_RESOURCES", "FAILED")]
    stand_ins = StandIns(tmp_path / "bin", [[" list ", states]])
    code, _, err = launched(folder, "tpu.queued", [*QUEUED, *JOB], stand_ins)
    assert code == 1 and "the request run failed" in err
    assert verbs(stand_ins, "gcloud") == ["create", *["list"] * 4, "delete"]


def test_slurm_that_forgets_a_job_is_not_asked_for_ever(folder, tmp_path):
    stand_ins = StandIns(tmp_path / "bin", [["sbatch", [{"out": "17"}]], ["scontrol", [{"code": 1}]]])
    code, _, err = launched(folder, "gpu.slurm", [*SLURM, f"--folder={tmp_path}", *JOB], stand_ins)
    assert code == 1 and "does not know of job 17" in err
    assert len(stand_ins.lines("scontrol")) == 20


def test_queued_gives_up_in_the_end(folder, tmp_path):
    stand_ins = StandIns(tmp_path / "bin", [["worker.sh watch", [{"code": 137}]], [" list ", [{"out": "ACTIVE"}]]])
    code, _, _ = launched(folder, "tpu.queued", [*QUEUED, "--max-restarts=3", *JOB], stand_ins)
    assert code == 137 and len(stand_ins.lines("worker.sh watch")) == 4


def test_copying_is_tried_again(folder, tmp_path):
    script = [[" scp ", [{"code": 1}, {"code": 1}, {"code": 0}]], [" list ", [{"out": "ACTIVE"}]]]
    stand_ins = StandIns(tmp_path / "bin", script)
    assert launched(folder, "tpu.queued", [*QUEUED, *JOB], stand_ins)[0] == 0
    assert len(stand_ins.lines(" scp ")) == 3


def test_what_another_made_is_left_alone(folder, tmp_path):
    """A request of that name is there already: not ours to delete."""
    stand_ins = StandIns(tmp_path / "bin", [[" create ", [{"code": 1}]]])
    for form, words in (("tpu.queued", QUEUED), ("tpu.gke", GKE)):
        code, _, err = launched(folder, form, [*words, *JOB], stand_ins)
        assert code == 1 and "create" in err
    assert not stand_ins.lines(" delete ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("form, words, blocking", [("tpu.queued", QUEUED, "watch"), ("tpu.gke", GKE, "kubectl logs")])
def test_a_signal_cleans_up_and_a_second_one_does_not_prevent_it(folder, tmp_path, number, form, words, blocking):
    script = [[blocking, [{"sleep": 60}]], [" delete ", [{"sleep": 1}]], [" list ", [{"out": "ACTIVE"}]]]
    stand_ins = StandIns(tmp_path / "bin", script)
    process = start(folder, form, [*words, *JOB], stand_ins)
    wait_for(lambda: stand_ins.lines(blocking))
    process.send_signal(number)
    wait_for(lambda: stand_ins.lines(" delete "))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert len(stand_ins.lines(" delete ")) == 1
    assert "stopping, and cleaning up" in err


def test_gke_follows_the_logs_over_a_restart(folder, tmp_path):
    states = [{"out": state} for state in ("0/", "1/", "1/Completed")]
    script = [["kubectl logs", [{"code": 1}, {"out": "step 1"}, {"out": "step 2"}]], ["kubectl get", states]]
    stand_ins = StandIns(tmp_path / "bin", script)
    code, out, err = launched(folder, "tpu.gke", [*GKE, *JOB], stand_ins)
    assert code == 0, err
    assert out.split("\n\n")[-1].split() == ["step", "1", "step", "2"]
    assert verbs(stand_ins, "kubectl") == ["create", *["logs", "get"] * 3, "delete"]
    assert verbs(stand_ins, "docker") == ["build", "push"]
    build, create = stand_ins.calls()[0], stand_ins.calls()[3]
    assert build["bytes"] > 10_000  # the archive of the commit
    container = create["manifest"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == RUN


def test_gke_says_that_the_job_failed(folder, tmp_path):
    stand_ins = StandIns(tmp_path / "bin", [["kubectl get", [{"out": "/Failed"}]]])
    code, _, err = launched(folder, "tpu.gke", [*GKE, *JOB], stand_ins)
    assert code == 1 and "run is Failed" in err


@pytest.mark.parametrize("failing", ["docker build", "docker push"])
def test_no_image_no_job(folder, tmp_path, failing):
    stand_ins = StandIns(tmp_path / "bin", [[failing, [{"code": 7}]]])
    code, _, err = launched(folder, "tpu.gke", [*GKE, *JOB], stand_ins)
    assert code == 7 and failing in err
    assert not stand_ins.lines("kubectl")


def test_detached_leaves_it_and_clean_up_ends_it(folder, tmp_path):
    stand_ins = StandIns(tmp_path / "bin")
    assert launched(folder, "tpu.gke", [*GKE, "--detach", *JOB], stand_ins)[0] == 0
    assert not stand_ins.lines("delete")
    assert launched(folder, "tpu.gke", [*GKE, "--clean-up"], stand_ins)[0] == 0
    assert verbs(stand_ins, "kubectl") == ["create", "delete"]


def test_slurm_reports_the_exit_code_of_the_job(folder, tmp_path):
    over = "JobId=17 JobState=FAILED Reason=NonZeroExitCode ExitCode=3:0 "
    states = [{"out": "JobId=17 JobState=PENDING ExitCode=0:0 "}, {"out": over}]
    stand_ins = StandIns(tmp_path / "bin", [["sbatch", [{"out": "17;big"}]], ["scontrol", states]])
    shared = tmp_path / "shared folder"
    code, _, err = launched(folder, "gpu.slurm", [*SLURM, f"--folder={shared}", *JOB], stand_ins)
    assert code == 3 and "job 17 is FAILED" in err
    (copy,) = (shared / "code").iterdir()
    assert (copy / "launch" / "gpu" / "train.sbatch").exists()
    sbatch = next(call["words"] for call in stand_ins.calls() if call["words"][0] == "sbatch")
    assert sbatch[-6:] == ["hallujax.cli", *RUN] and f"PYTHONPATH={copy}" in sbatch


def test_a_signal_cancels_the_slurm_job(folder, tmp_path):
    script = [["sbatch", [{"out": "17"}]], ["scontrol", [{"out": "JobState=RUNNING ExitCode=0:0 "}]]]
    stand_ins = StandIns(tmp_path / "bin", script)
    process = start(folder, "gpu.slurm", [*SLURM, f"--folder={tmp_path}", *JOB], stand_ins)
    wait_for(lambda: stand_ins.lines("scontrol"))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert stand_ins.lines("scancel") == ["scancel 17"]


def test_a_checkout_with_changes_is_launched_only_if_asked_to(tmp_path):
    changed = checkout(tmp_path / "checkout")
    (changed / "new file.py").write_text("changed = True\n")
    (changed / "pyproject.toml").unlink()
    stand_ins = StandIns(tmp_path / "bin", [["sbatch", [{"out": "17"}]]])
    words = [*SLURM, "--detach", f"--folder={tmp_path / 'shared'}"]
    code, _, err = launched(changed, "gpu.slurm", [*words, *JOB], stand_ins)
    assert code == 2 and "2 files differ" in err and "pyproject.toml" in err
    assert not stand_ins.calls()
    assert launched(changed, "gpu.slurm", [*words, "--with-changes", *JOB], stand_ins)[0] == 0
    (copy,) = (tmp_path / "shared" / "code").iterdir()
    assert "-changes-" in copy.name
    assert (copy / "new file.py").exists() and not (copy / "pyproject.toml").exists()
    status = subprocess.check_output(["git", "-C", changed, "status", "--porcelain"], text=True)
    assert status.splitlines() == [" D pyproject.toml", '?? "new file.py"']  # nothing was staged
    assert launched(changed, "gpu.slurm", [*words, "--revision=HEAD", *JOB], stand_ins)[0] == 0
    assert {(path / "new file.py").exists() for path in (tmp_path / "shared" / "code").iterdir()} == {True, False}


def test_flags_from_a_file(folder, tmp_path):
    flags = tmp_path / "mine"
    flags.write_text("# mine\n\n" + "\n".join(GKE[1:]) + "\n")
    code, out, _ = launched(folder, "tpu.gke", [f"@{flags}", "--name=run", "--dry-run", *JOB])
    assert code == 0 and "--project=p" in out


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--name=Run", *QUEUED[1:], *JOB], "small letters"),
        (QUEUED, "comes after --"),
        ([*QUEUED, "--revision=nothing", *JOB], "nothing"),
        ([*QUEUED, "--", "train", "--workdir=runs"], "absolute path"),
        ([*QUEUED, "--detach", *JOB], "must stay"),
        ([*QUEUED, "--", "serve", "--workdir=/runs"], "serve does not"),
        ([*QUEUED, "--", "train", "--workdir", "s3://bucket/run"], "absolute path"),
    ],
)
def test_what_is_wrong_is_one_line(folder, tmp_path, words, complaint):
    stand_ins = StandIns(tmp_path / "bin")
    code, _, err = launched(folder, "tpu.queued", words, stand_ins)
    assert code == 2 and complaint in err and "Traceback" not in err
    assert not stand_ins.calls()


@pytest.mark.parametrize(
    "form, words", [("tpu.queued", QUEUED), ("tpu.gke", GKE), ("gpu.slurm", [*SLURM, "--folder=/f"])]
)
def test_a_workdir_may_be_in_a_bucket(folder, form, words):
    code, out, err = launched(folder, form, [*words, "--dry-run", "--", "train", "--config=c", "--workdir=gs://b/run"])
    assert code == 0 and "--workdir=gs://b/run" in out, err


def test_xpk_is_given_a_command_that_its_shell_can_stop(folder, tmp_path):
    """XPK runs `(COMMAND) &` in bash and sends SIGTERM to the number it gets: that must be python, not a shell."""
    stand_ins = StandIns(tmp_path / "bin")
    words = ["--name=run", "--project=p", "--zone=z", "--cluster=c", "--image=i", "--tpu-type=v6e-16", "--poll=0.01"]
    launched(folder, "tpu.xpk", [*words, "--detach", *JOB], stand_ins)
    (create,) = (call["words"] for call in stand_ins.calls() if call["words"][:3] == ["xpk", "workload", "create"])
    command = next(word for word in create if word.startswith("--command=")).removeprefix("--command=")
    assert command.startswith("exec hallujax ")
    python = f"{shlex.quote(sys.executable)} -c 'import os; print(os.getpid())'"
    wrapped = f"({command.replace('hallujax', python, 1)}) & echo $!; wait"
    numbers = subprocess.run(["bash", "-c", wrapped], capture_output=True, text=True, check=True).stdout.split()
    assert len(numbers) == 2 and numbers[0] == numbers[1]
