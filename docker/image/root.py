"""Write a root file system that holds this environment, its Python and the libraries that both load, and no more.

No shell, no package manager and nothing of a distribution beside: what is not there is no megabyte and no way in. Run
by the environment's own Python, `python root.py FOLDER`, in the build stage of an image; `strip`, `ldd`, `ldconfig` and
`dpkg-query` have to be there. What lies under FOLDER afterwards is the whole image.
"""

import compileall
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

USER = "ferserve"
USER_ID = 10001
ELF = b"\x7fELF"
STDLIB_LEFT_OUT = (
    *("__pycache__", "site-packages", "dist-packages"),  # bytecode is made anew
    *("test", "tests", "_test*.so", "idlelib", "turtledemo", "tkinter", "_tkinter*.so", "lib2to3", "pydoc_data"),
    *("ensurepip", "config-*"),  # to install and to build with
    # each with libraries of its own
    *("_curses*.so", "readline*.so", "_dbm*.so", "_gdbm*.so", "nis*.so", "ossaudiodev*.so"),
)
"""Of Python's own library: what no server imports."""
SYSTEM_FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nonexistent\n{USER}:x:{USER_ID}:{USER_ID}:{USER}:/:/nonexistent\n",
    "etc/group": f"root:x:0:\n{USER}:x:{USER_ID}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
AUTHORITIES_FROM = Path("/usr/sbin/update-ca-certificates")
LICENCES = "LICENCES.txt"


def write_root(root: Path) -> None:
    """Write everything under `root`, which is not there yet.

    Raises:
        FileNotFoundError: a library that something asks for is nowhere.
    """
    environment = Path(sys.prefix)
    shutil.copytree(environment, _within(root, environment), symlinks=True)
    _copy_python(root)
    libraries = sorted(_libraries(root))
    for library in libraries:
        _copy(library, root)
    for program in list(_programs(root)):
        _strip(program)
    for name, text in SYSTEM_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for folder in ("dev", "proc", "sys"):
        (root / folder).mkdir()
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    _copy(AUTHORITIES, root)
    _index_libraries(root, libraries)
    _list_licences(root, [*libraries, AUTHORITIES_FROM])


def _within(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _copy(path: Path, root: Path) -> None:
    """The file under its own name, links followed."""
    target = _within(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, target)


def _copy_python(root: Path) -> None:
    """The interpreter that the environment's links lead to, and its own library."""
    program = Path(sys.prefix, "bin", "python")
    while program.is_relative_to(sys.prefix):
        program = program.parent / program.readlink()
    _copy(program, root)
    stdlib = Path(sysconfig.get_path("stdlib"))
    inside = _within(root, stdlib)
    shutil.copytree(stdlib, inside, ignore=shutil.ignore_patterns(*STDLIB_LEFT_OUT))
    compileall.compile_dir(
        inside,
        quiet=1,
        stripdir=str(root),
        prependdir="/",
        # The root will be read-only, and times of files may change on the way into an image.
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def _programs(root: Path) -> Iterator[Path]:
    """Everything that the loader maps: programs and libraries."""
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(len(ELF)) == ELF:
                    yield path


def _strip(program: Path) -> None:
    """Take out symbols and debugging information that only a debugger reads: some wheels are mostly that."""
    stripped = program.with_name(f"{program.name}.stripped")
    subprocess.run(["strip", "--strip-unneeded", "-o", str(stripped), str(program)], check=True)  # noqa: S603, S607
    if _run("ldd", str(stripped)).returncode == 0:
        stripped.replace(program)
    else:  # what wheels were given by patchelf is laid out as strip cannot keep it; there is little to take out there
        stripped.unlink()


def _libraries(root: Path) -> set[Path]:
    """Libraries of the system that programs under `root` ask for, directly or not.

    Each is asked about where it was copied from, for its own folder may hold what it asks for.
    """
    inside = {path.name for path in _programs(root)}
    found = set()
    for program in _programs(root):
        origin = Path("/", program.relative_to(root))
        for line in _run("ldd", str(origin)).stdout.splitlines():
            missing = re.match(r"\s*(\S+) => not found", line)
            if missing and missing[1] not in inside:
                raise FileNotFoundError(f"{origin} asks for {missing[1]}, which is nowhere")
            path = re.match(r"\s*(?:\S+ => )?(/\S+) \(0x", line)
            if path and not Path(path[1]).is_relative_to(sys.prefix):
                found.add(Path(path[1]))
    return found


def _index_libraries(root: Path, libraries: list[Path]) -> None:
    folders = sorted({str(library.parent) for library in libraries})
    (root / "etc" / "ld.so.conf").write_text("\n".join(folders) + "\n", encoding="utf-8")
    subprocess.run(["ldconfig", "-X", "-r", str(root)], check=True)  # noqa: S603, S607


def _list_licences(root: Path, files: list[Path]) -> None:
    """Behind the environment's own list: Python, and each package that a file came from, whose text is copied.

    Raises:
        FileNotFoundError: a file belongs to no package, so that nobody can say on what terms it is here.
    """
    owners = {_owner(file) for file in files if not file.name.startswith("libpython")}
    lines = [f"Python {sys.version.split()[0]}: PSF-2.0"]
    for name, version in sorted(owners):
        text = Path("/usr/share/doc", name, "copyright")
        _copy(text, root)
        lines.append(f"{name} {version} (Debian): {text}")
    with (_within(root, Path(sys.prefix)) / LICENCES).open("a", encoding="utf-8") as listed:
        listed.writelines(f"{line}\n" for line in lines)


def _owner(file: Path) -> tuple[str, str]:
    """Debian's package and its version; it knows a file by the path of before or after /usr took in /lib."""
    for known in (file, Path("/usr", file.relative_to("/")), Path("/", *file.parts[2:])):
        found = _run("dpkg-query", "--search", str(known)).stdout
        if found:
            name = found.partition(":")[0]
            return name, _run("dpkg-query", "--show", "--showformat=${Version}\n", name).stdout.split()[0]
    raise FileNotFoundError(f"expected a package of Debian's that {file} came with, found none")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 -- the build's own tools


def size_bytes(root: Path) -> int:
    """What all files hold, each counted once."""
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    write_root(Path(sys.argv[1]))
    sys.stdout.write(f"{size_bytes(Path(sys.argv[1])) / 1e6:.0f} MB in all\n")
