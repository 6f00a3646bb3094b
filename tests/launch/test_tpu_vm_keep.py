"""`tpu_vm.sh run --keep` against a small cloud of two workers, where worker.sh runs for real."""

import signal
import subprocess

import pytest
from support.stand_ins import StandIns, project_copy
from support.workers import TRAINS, UV, WITHIN_S, Machine, wait_until

CLOUD = """
cd "$CLOUD"
made() { echo READY > node; mkdir -p workers/0 workers/1; }
if [ -e fails ] && [[ "$*" == *$(cat fails)* ]]; then rm fails; exit 1; fi
case "$3 $4" in
  *list) [ ! -e offline ] || exit 1 ;;&
  "queued-resources list") cat queue 2>/dev/null || true ;;
  "tpu-vm list") cat node 2>/dev/null || true ;;
  "queued-resources create") echo ACTIVE > queue; made ;;
  "tpu-vm create") made ;;
  *delete) rm -rf queue node workers ;;
  "tpu-vm scp") for worker in workers/*; do cp -r "$PROJECT/$6" "$worker/rlif_jax/"; done ;;
  "tpu-vm ssh")
    if [ -e closed ]; then echo "Permission denied (publickey)" >&2; exit 255; fi
    status=0
    for word in "$@"; do case $word in --command=*) command=${word#*=} ;; esac; done
    for worker in "$PWD"/workers/*; do
      (cd "$worker" && HOME=$worker RLIF_HOME=$worker/rlif_jax bash -c "$command") || status=$?
    done
    exit $status ;;
esac
"""
"""What gcloud does; listing fails while there is `offline`, ssh while there is `closed`, and once
what `fails` says."""

SPOT = ("--name=paper", "--zone=us-west4-a", "--topology=v5e:2x4", "--spot")
RUN = ("--config=configs/tests_passed.py", "--run-dir=gs://bucket/run")


class Cloud:
    def __init__(self, folder):
        self.folder, self.project = folder / "cloud", folder / "project"
        self.folder.mkdir()
        self.project.mkdir()
        project_copy(self.project)
        (folder / "trainer").write_text(TRAINS)
        self.stand_ins = StandIns(folder)
        self.stand_ins.environment |= {
            "CLOUD": str(self.folder),
            "PROJECT": str(self.project),
            "TRAINER": str(folder / "trainer"),
        }
        self.stand_ins.add("gcloud", CLOUD)
        self.stand_ins.add("uv", UV)
        self.workers = [Machine(self.folder / "workers" / n / "rlif_jax") for n in ("0", "1")]
        self.keeper: subprocess.Popen[str] | None = None

    def keep(self, *flags, run=RUN, starts=1):
        """Start the launcher, and wait until the trainer runs on both workers."""
        words = ["launch/tpu_vm.sh", "run", "--keep", "--poll=0", *SPOT, *flags, *run]
        with (self.folder / "said").open("w") as said:
            self.keeper = subprocess.Popen(
                words, cwd=self.project, env=self.stand_ins.environment, stdout=said, stderr=said
            )
        self.wait_for_starts(starts)

    def wait_for_starts(self, count):
        wait_until(lambda: all(len(one.starts) == count for one in self.workers), f"start {count}")

    def take_away(self, queued=False):
        """What preemption does."""
        for worker in self.workers:
            worker.kill()
        if queued:
            (self.folder / "node").unlink()
            (self.folder / "queue").write_text("SUSPENDED\n")
        else:
            (self.folder / "node").write_text("PREEMPTED\n")

    def exit_with(self, status):
        for worker in self.workers:
            worker.exit_with(status)

    @property
    def over(self):
        """The launcher's exit status, when it has ended."""
        return self.keeper.wait(WITHIN_S)

    def called(self, words):
        return sum(f"gcloud compute tpus {words} " in call for call in self.stand_ins.calls)

    @property
    def builds(self):
        return sum(call.startswith("uv build") for call in self.stand_ins.calls)

    @property
    def said(self):
        return (self.folder / "said").read_text()


@pytest.fixture
def cloud(tmp_path):
    one = Cloud(tmp_path)
    yield one
    if one.keeper and one.keeper.poll() is None:
        one.keeper.send_signal(signal.SIGKILL)
        one.keeper.wait()
    for worker in one.workers:
        worker.kill()


@pytest.mark.parametrize("kind", ["tpu-vm", "queued-resources"])
def test_a_slice_that_is_taken_away_is_made_anew(cloud, kind):
    queued = kind == "queued-resources"
    cloud.keep(*(["--queued"] if queued else []))
    cloud.take_away(queued)
    wait_until(lambda: cloud.called(f"{kind} create") == 2, "a second slice")
    cloud.wait_for_starts(1)
    assert cloud.called(f"{kind} delete") == 1
    cloud.exit_with(0)
    assert cloud.over == 0
    assert cloud.called(f"{kind} delete") == 1, "what is finished is left for its owner"
    assert cloud.builds == 1, "the second slice gets the wheel of the first"
    assert cloud.workers[0].starts == [f"-m rlif_jax.train {' '.join(RUN)}"]


def test_it_deletes_a_finished_slice_if_asked(cloud):
    cloud.keep("--delete-after")
    cloud.exit_with(0)
    assert cloud.over == 0
    assert cloud.called("tpu-vm delete") == 1 and not (cloud.folder / "node").exists()


def test_a_slice_that_cannot_be_deleted_at_once_is_deleted_later(cloud):
    cloud.keep("--delete-after")
    (cloud.folder / "fails").write_text("tpu-vm delete")
    cloud.exit_with(0)
    assert cloud.over == 0
    assert cloud.called("tpu-vm delete") == 2 and not (cloud.folder / "node").exists()
    assert "it could not be deleted, and costs money; trying again" in cloud.said


def test_a_slice_that_its_owner_deletes_is_not_made_anew(cloud):
    cloud.keep()
    for worker in cloud.workers:
        worker.kill()
    words = ("launch/tpu_vm.sh", "delete", *SPOT[:2])
    assert cloud.stand_ins.run(*words, cwd=cloud.project).returncode == 0
    assert cloud.over == 130
    assert cloud.called("tpu-vm create") == 1 and not (cloud.folder / "node").exists()
    cloud.keep()  # a new command makes it
    cloud.exit_with(0)
    assert cloud.over == 0 and cloud.called("tpu-vm create") == 2


def test_a_slice_that_cannot_be_asked_is_not_watched_for_ever(cloud):
    cloud.keep()
    (cloud.folder / "closed").touch()
    assert cloud.over == 1
    assert "it gave no answer: Permission denied (publickey)" in cloud.said
    assert "no answer 30 times in a row" in cloud.said and "costs money" in cloud.said


@pytest.mark.parametrize("status", [2, 7])
def test_a_run_that_cannot_go_on_is_over(cloud, status):
    """Bad input, and a restart loop that gave up: nothing is deleted, so that one can look."""
    loop = cloud.project / "launch" / "until_finished.sh"
    text = loop.read_text().replace("restarts=10 pause=15", "restarts=1 pause=0")
    assert text != loop.read_text()
    loop.write_text(text)
    cloud.keep("--delete-after")
    cloud.exit_with(status)
    assert cloud.over == status
    assert cloud.called("tpu-vm delete") == 0
    assert f"the run is over, with exit status {status}" in cloud.said


def test_stopping_ends_it(cloud):
    cloud.keep()
    stop = ("launch/tpu_vm.sh", "stop", *SPOT[:2])
    assert cloud.stand_ins.run(*stop, cwd=cloud.project).returncode == 0
    assert cloud.over == 130
    assert [len(one.starts) for one in cloud.workers] == [1, 1]


def test_after_a_stop_the_same_command_resumes(cloud):
    cloud.keep()
    cloud.stand_ins.run("launch/tpu_vm.sh", "stop", *SPOT[:2], cwd=cloud.project)
    assert cloud.over == 130
    cloud.keep(starts=2)
    cloud.exit_with(0)
    assert cloud.over == 0
    assert cloud.called("tpu-vm create") == 1


def test_another_run_on_a_slice_is_not_finished_by_the_first(cloud):
    cloud.keep()
    cloud.exit_with(0)
    assert cloud.over == 0
    for worker in cloud.workers:
        (worker.home / "exit").unlink()
    cloud.keep(run=(*RUN, "--seed=2"), starts=2)
    assert cloud.workers[0].starts[-1].endswith("--seed=2")
    cloud.exit_with(0)
    assert cloud.over == 0
    cloud.keep(run=(*RUN, "--seed=2"), starts=2)
    assert cloud.over == 0
    assert [len(one.starts) for one in cloud.workers] == [2, 2], "it is finished already"


def test_another_run_that_is_alive_is_left_alone(cloud):
    cloud.keep()
    cloud.keeper.kill()
    cloud.keeper.wait()
    cloud.keep(run=(*RUN, "--seed=2"))
    assert cloud.over == 2
    assert "a run with other flags is alive on paper; stop it first" in cloud.said
    assert [len(one.starts) for one in cloud.workers] == [1, 1]


def test_a_run_that_the_machine_stopped_starts_again(cloud):
    """The trainer ended with 130, but nobody said stop: the slice has had a notice."""
    cloud.keep()
    cloud.exit_with(130)
    wait_until(lambda: all(len(one.starts) >= 2 for one in cloud.workers), "a second start")
    cloud.exit_with(0)
    assert cloud.over == 0


def test_one_worker_that_went_down_is_revived(cloud):
    cloud.keep()
    cloud.workers[1].kill()
    wait_until(lambda: len(cloud.workers[1].starts) == 2, "a second start there")
    cloud.exit_with(0)
    assert cloud.over == 0
    assert [len(one.starts) for one in cloud.workers] == [1, 2]
    assert "that failed" not in cloud.said, "the other worker is left alone"


def test_a_cloud_without_an_answer_changes_nothing(cloud):
    cloud.keep()
    (cloud.folder / "offline").touch()
    wait_until(lambda: cloud.said.count("the slice is unknown") > 1, "looks in vain")
    (cloud.folder / "offline").unlink()
    cloud.exit_with(0)
    assert cloud.over == 0
    assert (cloud.called("tpu-vm create"), cloud.called("tpu-vm delete")) == (1, 0)


def test_a_full_zone_is_asked_again(cloud):
    (cloud.folder / "fails").write_text("tpu-vm create")
    cloud.keep()
    assert "it could not be made; trying again" in cloud.said
    assert cloud.called("tpu-vm create") == 2
    cloud.exit_with(0)
    assert cloud.over == 0


@pytest.mark.parametrize("part", ["mkdir", "tpu-vm scp", "worker.sh install", "worker.sh revive"])
def test_a_part_of_the_setup_that_fails_is_done_again(cloud, part):
    (cloud.folder / "fails").write_text(part)
    cloud.keep()
    assert "that failed; trying again" in cloud.said
    done = [n for n, call in enumerate(cloud.stand_ins.calls) if part in call]
    assert len(done) == 2
    assert " list " in cloud.stand_ins.calls[done[0] + 1], "no further part comes after it"
    cloud.exit_with(0)
    assert cloud.over == 0


def test_a_launcher_that_is_started_again_finds_the_run(cloud):
    cloud.keep()
    cloud.keeper.kill()
    cloud.keeper.wait()
    before = cloud.called("tpu-vm create")
    cloud.keep()
    cloud.exit_with(0)
    assert cloud.over == 0
    assert cloud.called("tpu-vm create") == before == 1
    assert cloud.builds == 1, "the wheel of the first is the wheel of the run"
    assert [len(one.starts) for one in cloud.workers] == [1, 1]
