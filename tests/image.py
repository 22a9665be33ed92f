"""The image without a container engine: the Dockerfile's own steps, run in a folder that stands for its root.

This needs only Linux and root, for mount and process namespaces and `chroot`. The base image is this machine's `/usr`
with the running Python. One step differs: the packages of `requirements.lock` are not fetched again but linked from the
environment of the tests.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT

_HEREDOC = re.compile(r'<<"(\w+)"')
_INSTALL = " && /opt/venv/bin/pip install "
_BASE_PATH = "/base/bin:/usr/sbin:/usr/bin"
_NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a Dockerfile; `body` is its here-document."""

    name: str
    text: str
    body: str = ""

    def words(self) -> list[str]:
        """The arguments, from the JSON form or the shell form."""
        return list(json.loads(self.text)) if self.text.startswith("[") else shlex.split(self.text)


@dataclass(slots=True)
class Image:
    """A built root folder, and the Dockerfile's settings for running it; `base` is the image that it is made from."""

    root: Path
    base: str = ""
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": _BASE_PATH})
    folder: str = "/"
    user: str = "0:0"
    volumes: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)
    stop_signal: str = ""


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, in order: lines are joined, comments left out."""
    found: list[Instruction] = []
    lines = iter(text.splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        whole = line
        while whole.endswith("\\"):
            whole = whole[:-1].rstrip() + " " + next(lines).strip()
        name, _, rest = whole.partition(" ")
        body = ""
        if name == "COPY" and (mark := _HEREDOC.search(rest)):
            kept = []
            while (next_line := next(lines)) != mark[1]:
                kept.append(next_line)
            body = "\n".join(kept) + "\n"
        found.append(Instruction(name, rest, body))
    return found


def bases(dockerfile: str, arguments: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """The name of each stage and the image that it is made from, given these build arguments."""
    given: dict[str, str] = {}
    found: list[tuple[str, str]] = []
    for step in instructions(dockerfile):
        if step.name == "ARG":
            assert not found, "an argument of a stage, which this builder does not know"
            name, _, default = step.text.partition("=")
            given[name] = (arguments or {}).get(name, default)
        elif step.name == "FROM":
            base, _, stage = step.text.partition(" AS ")
            found.append((stage or str(len(found)), re.sub(r"\$\{(\w+)\}", lambda name: given[name[1]], base)))
    return found


def build(dockerfile: str, folder: Path) -> Image:
    """The last stage of the Dockerfile, built below `folder`. Raises if a step fails or is of an unknown kind."""
    stages: dict[str, Image] = {}
    image: Image | None = None
    of_stages = iter(bases(dockerfile))
    for step in instructions(dockerfile):
        if step.name == "ARG":
            continue
        if step.name == "FROM":
            name, base = next(of_stages)
            image = stages[name] = Image(folder / name, base)
            _base(image.root)
            continue
        assert image is not None, "a Dockerfile begins with FROM"
        _do(step, image, stages)
    assert image is not None
    return image


def _do(step: Instruction, image: Image, stages: Mapping[str, Image]) -> None:
    match step.name:
        case "RUN":
            _run(step.text, image)
        case "COPY":
            _copy(step, image, stages)
        case "WORKDIR":
            image.folder = step.text
            _inside(image, step.text).mkdir(parents=True, exist_ok=True)
        case "ENV":
            for pair in step.words():
                key, _, value = pair.partition("=")
                image.environment[key] = value.replace("$PATH", image.environment["PATH"])
        case "LABEL":
            image.labels |= {key: value for key, _, value in (pair.partition("=") for pair in step.words())}
        case "USER":
            image.user = step.text
        case "VOLUME":
            image.volumes = step.words()
        case "STOPSIGNAL":
            image.stop_signal = step.text
        case "HEALTHCHECK":
            image.health = list(json.loads(step.text.partition(" CMD ")[2]))
        case "ENTRYPOINT":
            image.entrypoint = step.words()
        case "CMD":
            image.command = step.words()
        case other:
            raise AssertionError(f"the Dockerfile has {other}, which this builder does not know")


def _base(root: Path) -> None:
    """Make the base image: mount points, this machine's accounts, and `python`."""
    for name in ("usr", "etc", "proc", "dev", "tmp", "base/bin"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group", "shadow", "gshadow", "login.defs", "ld.so.cache", "ld.so.conf"):
        if Path("/etc", name).exists():
            shutil.copy(Path("/etc", name), root / "etc" / name)
    (root / "base/bin/python").symlink_to(Path(sys.executable).resolve())
    for place in _borrowed():
        (root / place.relative_to("/")).mkdir(parents=True, exist_ok=True)


def _borrowed() -> list[Path]:
    """Folders of this machine that the image sees read-only: the running Python, and its packages."""
    places = {Path(sys.base_prefix).resolve(), Path(sysconfig.get_path("platlib")).resolve()}
    return sorted(p for p in places if not p.is_relative_to("/usr"))


def _inside(image: Image, path: str) -> Path:
    return image.root / str(Path(image.folder, path)).lstrip("/")


def _run(command: str, image: Image) -> None:
    """Do a RUN; if it installs packages, do the part before the installation and link the packages."""
    before, installs, rest = command.partition(_INSTALL)
    subprocess.run(_enter(image, ["sh", "-ec", before], user="0:0", read_only=False), check=True)
    if installs:
        _link_packages(_inside(image, rest.rpartition(" -r ")[2]), image.root / "opt/venv")


def _link_packages(lock: Path, environment: Path) -> None:
    """Link each package of the lock that is for this Python; fails unless its version is that of the lock."""
    (target,) = environment.glob("lib/python*/site-packages")
    for name, version in re.findall(r"(?m)^([a-z0-9.-]+)==(\S+)(?: \\)?$", lock.read_text()):
        package = importlib.metadata.distribution(name)
        assert package.version == version, f"{name} is {package.version} here, {version} in the lock: make .venv/.dev"
        assert package.files is not None
        for top in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
            if not (target / top).exists():
                (target / top).symlink_to(Path(str(package.locate_file(top))).resolve())


def _copy(step: Instruction, image: Image, stages: Mapping[str, Image]) -> None:
    *sources, to = step.words()
    if step.body:
        _inside(image, to).write_text(step.body)
        return
    from_stage = ROOT
    if sources[0].startswith("--from="):
        from_stage = stages[sources.pop(0).removeprefix("--from=")].root
    for source in sources:
        found, target = from_stage / source.lstrip("/"), _inside(image, to)
        if not found.is_dir():
            shutil.copy(found, target / found.name if target.is_dir() else target)
            continue
        shutil.copytree(found, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))


def _enter(
    image: Image,
    command: Sequence[str],
    user: str,
    read_only: bool,
    environment: Mapping[str, str] | None = None,
    volumes: Mapping[str, Path] | None = None,
) -> list[str]:
    """The command wrapped to run in new namespaces: with its own loopback and process 1, and the image's root."""
    root = shlex.quote(str(image.root))
    lines = [f"mount --bind {root} {root}"]
    lines += [f"mount --rbind /{name} {root}/{name}" for name in ("dev", "proc")]
    for place in [Path("/usr"), *_borrowed()]:
        lines += [f"mount --bind {place} {root}{place}", f"mount -o remount,ro,bind {root}{place}"]
    if read_only:
        lines.append(f"mount -o remount,ro,bind {root}")
    for place_inside, outside in (volumes or {}).items():
        lines.append(f"mount --bind {shlex.quote(str(outside))} {root}{place_inside}")
    pairs = [f"{key}={value}" for key, value in (image.environment | dict(environment or {})).items()]
    go = f"cd {shlex.quote(image.folder)} && exec env -i {shlex.join(pairs)} {shlex.join(command)}"
    loopback = "import socket,fcntl,struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 1))"
    lines.append(f"{shlex.quote(sys.executable)} -c {shlex.quote(loopback)}")
    as_user = ["chroot", f"--userspec={user}", "--groups=", str(image.root), "/bin/sh", "-c", go]
    limits = ["setpriv", "--no-new-privs"] if read_only else []
    lines.append(f"exec {shlex.join([*limits, *as_user])}")
    return [*_NAMESPACES, "sh", "-ec", "\n".join(lines)]


class Container:
    """The image run as with `--read-only`, with its declared volumes in folders below `folder`."""

    def __init__(self, image: Image, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.image = image
        self._environment = environment
        owner, _, group = image.user.partition(":")
        self.volumes = {place: folder / place.strip("/").replace("/", "-") for place in image.volumes}
        for outside in self.volumes.values():
            outside.mkdir(parents=True, exist_ok=True)
            os.chown(outside, int(owner), int(group))

    def command(self, *arguments: str) -> list[str]:
        """The command that runs the image with these arguments, by default its own."""
        inside = [*self.image.entrypoint, *(arguments or self.image.command)]
        return _enter(self.image, inside, self.image.user, True, self._environment, self.volumes)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the image to its end."""
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=100, check=False)

    def healthy(self, process: int) -> bool:
        """The result of the image's health check for the container with this process 1."""
        pairs = [f"{key}={value}" for key, value in self.image.environment.items()]
        beside = ["nsenter", "-t", str(process), "-m", "-n", "-p", f"--root=/proc/{process}/root", "env", "-i", *pairs]
        return (
            subprocess.run([*beside, *self.image.health], capture_output=True, timeout=30, check=False).returncode == 0
        )


def first_process(unshare: int) -> int | None:
    """The id, as seen from outside, of the container's process 1; None until it exists."""
    try:
        children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None
