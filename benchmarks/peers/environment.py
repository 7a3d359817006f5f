"""The virtual environment of the comparison: torch, metabench from this checkout, and the peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("easyfsl==1.5.0", "higher==0.2.1", "learn2learn==0.2.0")
#: Written last, with the peers that could not be installed and why; another recipe makes another environment.
_COMPLETE = "complete.json"
_RECIPE = 1


class EnvironmentFailed(Exception):
    """torch or metabench cannot be installed: there is nothing to compare."""


def default_folder() -> Path:
    """Return where the environment is, unless the user says so otherwise."""
    try:
        import platformdirs
    except ImportError:  # this Python need have nothing installed
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metabench" / "peers"
    return Path(platformdirs.user_cache_dir("metabench")) / "peers"


class Environment:
    """A virtual environment in a folder.

    Args:
        folder: made, or used again where it is complete.

    Attributes:
        folder: where it is.
        missing: peers that cannot be imported, and why.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: dict[str, str] = {}

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def prepare(self) -> None:
        """Make the environment, unless it is complete; find out which peers can be imported.

        Raises:
            EnvironmentFailed: torch or metabench cannot be installed.
        """
        complete = self.folder / _COMPLETE
        recipe = {"recipe": _RECIPE, "packages": list(PACKAGES), "repository": str(REPOSITORY)}
        before = json.loads(complete.read_text()) if complete.is_file() else {}
        failed: dict[str, str] = before.get("failed", {})
        if {name: before.get(name) for name in recipe} != recipe:
            failed = self._install()
            complete.write_text(json.dumps({**recipe, "failed": failed}))
        for package in (requirement.split("==")[0] for requirement in PACKAGES):
            if (problem := failed.get(package) or self._import_problem(package)) is not None:
                self.missing[package] = problem

    def versions(self) -> dict[str, str]:
        """Return the installed versions of what is compared."""
        code = (
            "import importlib.metadata as m, json, sys\n"
            "found = {d.metadata['Name'].lower(): d.version for d in m.distributions()}\n"
            "print(json.dumps({n: found[n] for n in sys.argv[1:] if n in found}))"
        )
        names = ["metabench", "torch", *(requirement.split("==")[0] for requirement in PACKAGES)]
        output = subprocess.run([self.python, "-c", code, *names], capture_output=True, text=True, check=True).stdout
        versions: dict[str, str] = json.loads(output)
        return versions

    def _install(self) -> dict[str, str]:
        _tell(f"making an environment in {self.folder} (once, some minutes)")
        if not self.python.exists():
            venv.create(self.folder, with_pip=True)
        try:
            # In the order of what depends on what; editable, so that it is always this checkout that is measured.
            self._pip("torch", "torchvision")
            self._pip("--editable", str(REPOSITORY))
        except subprocess.CalledProcessError as error:
            raise EnvironmentFailed(f"torch or metabench cannot be installed: {_reason(error)}") from error
        installers: dict[str, Callable[[str], None]] = {"learn2learn": self._install_learn2learn}
        failed = {}
        for requirement in PACKAGES:
            name = requirement.split("==")[0]
            try:
                installers.get(name, self._pip_constrained)(requirement)
            except (subprocess.CalledProcessError, OSError) as error:
                failed[name] = f"it cannot be installed: {_reason(error)}"
        return failed

    def _pip_constrained(self, *arguments: str) -> None:
        """Install a peer without changing torch and NumPy, which all contestants share."""
        with tempfile.TemporaryDirectory() as folder:
            frozen = subprocess.run(
                [self.python, "-m", "pip", "freeze", "--exclude-editable"], capture_output=True, text=True, check=True
            ).stdout.splitlines()
            constraints = Path(folder) / "constraints.txt"
            constraints.write_text("\n".join(line for line in frozen if line.startswith(("torch", "numpy"))))
            self._pip(*arguments, "--constraint", str(constraints))

    def _install_learn2learn(self, requirement: str) -> None:
        """Build learn2learn from its Cython sources.

        The C files in its archive were made by a Cython that knows no Python from 3.11 on. Without them, and asked for
        ``build_ext``, its setup.py makes them anew; nothing else is changed. Of its dependencies only those are
        installed that importing it takes: the others (qpth, gsutil) are for what is not compared here, and bring
        an older NumPy.
        """
        self._pip_constrained("cython<3", "setuptools<81", "wheel", "gym", "requests", "scipy", "tqdm")
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            self._run(
                "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--no-build-isolation",
                "--dest", str(work), requirement,
            )  # fmt: skip
            with tarfile.open(next(work.glob("*.tar.gz"))) as archive:
                archive.extractall(work, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(work)
            source = next(path for path in work.iterdir() if path.is_dir())
            for generated in (source / "learn2learn" / "data").glob("*.c"):
                generated.unlink()
            self._run("setup.py", "--quiet", "build_ext", "bdist_wheel", "--dist-dir", str(work / "wheels"), cwd=source)
            self._pip("--no-deps", str(next((work / "wheels").glob("*.whl"))))

    def _import_problem(self, package: str) -> str | None:
        """Return why a package cannot be imported, or None."""
        done = subprocess.run([self.python, "-c", f"import {package}"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return None
        return f"it cannot be imported: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"

    def _pip(self, *arguments: str) -> None:
        _tell(f"pip install {' '.join(arguments)}")
        self._run("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)

    def _run(self, *arguments: str, cwd: Path | None = None) -> None:
        subprocess.run([self.python, *arguments], cwd=cwd, check=True, capture_output=True, text=True)


def _reason(error: Exception) -> str:
    """Return the line of a failed command's output that says most."""
    lines = [line for line in str(getattr(error, "stderr", "") or error).splitlines() if line.strip()]
    telling = [line for line in lines if "error" in line.lower()]
    return (telling or lines or [str(error)])[-1].strip()


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
