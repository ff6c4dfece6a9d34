"""Makes real hosts on one machine, and takes them away: each has its own address, name, processes, mounts and sshd.

A host is a network namespace joined to the others by a bridge that lies in a namespace of its own, so that no packet
reaches the machine's interfaces. What a host has for itself: its host name, its process ids, `/tmp`, `/dev/shm`,
`/run` and the home folder, all in memory and gone when it dies. The rest of the file system is the machine's; the
folder `shared` stands for the network file system of a cluster.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

HOUSE = Path(__file__).parents[2]
HOME = Path.home()
HIDDEN = (Path("/tmp"), Path("/dev/shm"), Path("/run"), HOME)  # each host has its own
PREFIX = "convscout"
NETWORK = "198.18.0"  # set aside for tests (RFC 2544), and known in the namespaces only
TOOLS = ("ip", "nsenter", "unshare", "setpriv", "mount", "sshd", "ssh-keygen", "rsync")
START_SECONDS = 60.0

# Runs as the first process of a host; the shell also buries the processes that nobody waits for.
INIT = """
set -eu
hostname {name}
mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
{keep}
for folder in {hidden}; do mount -t tmpfs -o mode=1777 tmpfs "$folder"; done
{bring_back}
mount --bind {base}/names /etc/hosts
chmod 700 {home}
cp {base}/profile {home}/.bashrc
cp {base}/key {home}/.ssh-key
mkdir -p /run/sshd
ip link set lo up
ip link set eth0 up
{sshd} -D -f {base}/sshd_config &
touch {base}/{name}.up
while true; do wait || true; sleep 0.2; done
"""

SSHD = """
Port 22
HostKey {base}/key
AuthorizedKeysFile {base}/key.pub
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile none
MaxStartups 100
"""


def missing() -> str | None:
    """Return why hosts cannot be made here, or None where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "making network namespaces needs Linux, and root"
    absent = [tool for tool in TOOLS if _tool(tool) is None]
    if absent:
        return f"{', '.join(absent)} not found: needs iproute2, util-linux, openssh-server and rsync"
    tried = subprocess.run(["unshare", "--net", "--pid", "--fork", "true"], capture_output=True, text=True, check=False)
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


class Hosts:
    """Some hosts on a network of their own; none is left when the `with` block ends, or its process dies.

    `folder` keeps keys and logs and holds `shared`, which all hosts see at the same path. `environment` is what their
    login shells have, beside the virtual environment of this process and the house on their path.
    """

    def __init__(self, folder: Path, names: Iterable[str], environment: Mapping[str, str] | None = None) -> None:
        self.names = list(names)
        self.base = folder / "hosts"
        self.shared = folder / "shared"
        self.address = {name: f"{NETWORK}.{number}" for number, name in enumerate(self.names, 10)}
        path = f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        found = os.pathsep.join([str(HOUSE), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {"PATH": path, "PYTHONPATH": found, "HOME": str(HOME), **(environment or {})}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> "Hosts":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Make the network and boot every host; each answers to ssh at the end."""
        sweep()
        for made in (self.base, self.shared):
            made.mkdir(parents=True, exist_ok=True)
        self._write_files()
        try:
            _run("ip", "netns", "add", self._space())
            self._in_space(self._space(), "ip", "link", "add", "bridge", "type", "bridge")
            self._in_space(self._space(), "ip", "link", "set", "bridge", "up")
            for name in self.names:
                self.boot(name)
        except BaseException:
            self.stop()
            raise

    def boot(self, name: str) -> None:
        """Start a host that is not running: empty, as a machine that has just been delivered."""
        space, ready = self._space(name), self.base / f"{name}.up"
        ready.unlink(missing_ok=True)
        _run("ip", "netns", "add", space)
        end = ("peer", "name", "eth0", "netns", space)
        self._in_space(self._space(), "ip", "link", "add", "name", name, "type", "veth", *end)
        self._in_space(self._space(), "ip", "link", "set", "dev", name, "master", "bridge", "up")
        self._in_space(space, "ip", "address", "add", f"{self.address[name]}/24", "dev", "eth0")
        apart = ("--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc")
        with open(self.base / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{space}", "unshare", *apart]
                + ["bash", "-c", self._init(name)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end_time = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self._processes[name].poll() is not None or time.monotonic() > end_time:
                raise RuntimeError(f"the host {name} did not start: {(self.base / f'{name}.log').read_text()}")
            time.sleep(0.02)

    def popen(self, name: str, command: str, log: Path | None = None) -> subprocess.Popen[str]:
        """Start a shell command on a host, as its user, in the home folder; what it says goes to a file or a pipe."""
        inside = ("--net", "--pid", "--mount", "--uts", "--ipc")
        variables = [f"{key}={value}" for key, value in self.environment.items()]
        line = f"cd {shlex.quote(str(HOME))}; {command}"
        output = open(log, "ab") if log else subprocess.PIPE  # noqa: SIM115
        try:
            return subprocess.Popen(
                ["nsenter", f"--target={self.pid(name)}", *inside, "env", "-i", *variables, "bash", "-c", line],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        finally:
            if log:
                output.close()  # type: ignore[union-attr]

    def run(self, name: str, command: str, timeout: float = 240.0, check: bool = True) -> str:
        """Return what a shell command on a host says; AssertionError where it fails, unless not `check`."""
        process = self.popen(name, command)
        try:
            said, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end_group(process)
            said, _ = process.communicate()
            raise AssertionError(f"{name}: {command}: no end within {timeout:.0f} s:\n{said}") from None
        assert not check or process.returncode == 0, f"{name}: {command}: exit {process.returncode}:\n{said}"
        return said

    def pid(self, name: str) -> int:
        """Return the first process of a host, as this machine numbers it."""
        unshare = self._processes[name].pid
        return int(Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()[0])

    def cut(self, name: str) -> None:
        """Pull the network cable of a host: nothing gets out of it or in."""
        self._in_space(self._space(), "ip", "link", "set", "dev", name, "down")

    def restore(self, name: str) -> None:
        """Plug the cable in again."""
        self._in_space(self._space(), "ip", "link", "set", "dev", name, "up")

    def kill(self, name: str) -> None:
        """Let a whole host die at once, without a last word on the network."""
        if self._processes[name].poll() is None:
            self.cut(name)
            os.kill(self.pid(name), signal.SIGKILL)  # the first process of a process namespace takes all others along
        self._remove(name)

    def stop(self) -> None:
        """End all hosts and their network."""
        for name in list(self._processes):
            self._remove(name)
        _remove_spaces(f"{PREFIX}-{os.getpid()}-")

    def _remove(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()  # and, by --kill-child, the host's first process
        process.wait()
        self._in_space(self._space(), "ip", "link", "delete", "dev", name)  # the kernel would, at some later moment
        _remove_spaces(self._space(name))

    def _space(self, name: str = "") -> str:
        return f"{PREFIX}-{os.getpid()}-{name}"

    def _in_space(self, space: str, *command: str) -> None:
        _run("nsenter", f"--net=/run/netns/{space}", *command)

    def _init(self, name: str) -> str:
        wanted = {HOUSE.resolve(), Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), self.base, self.shared}
        kept = [path for path in sorted(wanted) if any(path.is_relative_to(hidden) for hidden in HIDDEN)]
        numbered = [(number, shlex.quote(str(path))) for number, path in enumerate(kept)]
        return INIT.format(
            name=name,
            base=shlex.quote(str(self.base)),
            home=shlex.quote(str(HOME)),
            sshd=_tool("sshd"),
            hidden=" ".join(shlex.quote(str(folder)) for folder in HIDDEN),
            keep="\n".join(f"mkdir /mnt/{each}; mount --bind {path} /mnt/{each}" for each, path in numbered),
            bring_back="\n".join(f"mkdir -p {path}; mount --move /mnt/{each} {path}" for each, path in numbered),
        )

    def _write_files(self) -> None:
        for old in ("key", "key.pub"):
            (self.base / old).unlink(missing_ok=True)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.base / "key"))
        (self.base / "sshd_config").write_text(SSHD.format(base=self.base))
        names = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in self.address.items())]
        (self.base / "names").write_text("\n".join(names) + "\n")
        exports = [f"export {key}={shlex.quote(value)}" for key, value in self.environment.items()]
        (self.base / "profile").write_text("\n".join(exports) + "\n")


def sweep() -> None:
    """Remove what tests left whose process is gone; their hosts have died with it."""
    for space in _spaces():
        owner = re.fullmatch(rf"{PREFIX}-(\d+)-.*", space)
        if owner and not Path(f"/proc/{owner[1]}").exists():
            _remove_spaces(space)


def _spaces() -> list[str]:
    folder = Path("/run/netns")
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def _remove_spaces(prefix: str) -> None:
    for space in _spaces():
        if space.startswith(prefix):
            said = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False).stdout
            for pid in said.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _run("ip", "netns", "delete", space)


def _end_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _tool(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
