"""A SLURM of one node with two processors: munged, slurmctld and slurmd of one's own, without systemd or cgroups."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
JobRequeue=1
KillWait=60
SchedulerParameters=sched_interval=2,batch_sched_delay=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def daemon(name: str) -> str:
    """Return where a daemon is; skip where it is not."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"no {name}: install slurmctld, slurmd, slurm-client and munge")
    return path


def free_ports(count: int) -> list[int]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def running(words: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon in the foreground; end it by its process id."""
    with log.open("wb") as out, subprocess.Popen(words, stdout=out, stderr=out) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start a SLURM, whose configuration `SLURM_CONF` names."""
    munged, slurmctld, slurmd = (daemon(name) for name in DAEMONS)
    if os.geteuid() != 0:
        pytest.skip("only root may start slurmd")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key, configuration, host = folder / "munge.key", folder / "slurm.conf", socket.gethostname().split(".")[0]
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration.write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports(2)))
    munge = [munged, "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    os.environ["SLURM_CONF"] = str(configuration)
    with (
        running(munge, folder / "munged.out"),
        running([slurmctld, "-D", "-c"], folder / "slurmctld.out"),
        running([slurmd, "-D", "-N", host], folder / "slurmd.out"),
    ):
        wait_for_node(folder)
        yield
    del os.environ["SLURM_CONF"]


def wait_for_node(folder: Path) -> None:
    """Wait until the node takes jobs."""
    for _ in range(120):
        told = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True, check=False)
        if told.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in folder.glob("*.out"))
    pytest.fail(f"no idle node: {told.stdout} {told.stderr}\n{logs}")
