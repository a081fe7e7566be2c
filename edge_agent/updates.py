"""Models come and go without a moment in which none serves.

A bundle is fetched with resume, checked against the digest the server announced, proven by its golden vectors, written
(temporary file, fsync, rename) and only then swapped in. The previous one stays on disk and comes back when the new one
does not load. A refused digest is remembered and not fetched again until the server wants something else."""

from __future__ import annotations

import logging
import os
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.calls import NO_ANSWER, opened
from edge_agent.config import RuntimeSettings
from edge_agent.runtimes import LoadedModel, load
from edge_agent.runtimes.engine import ONE_THREAD
from protocol.bundles import MAX_BUNDLE_BYTES
from protocol.errors import BadBundle, Reason, Refused, TryLater
from protocol.twin import Assignment, Desired, ModelStatus, Role, RunningModel
from protocol.unreadable import UNREADABLE

log = logging.getLogger(__name__)
Fetch = Callable[[Assignment], bytes]


@dataclass(frozen=True)
class Change:
    """What happened to a slot: `model` to serve or shadow from now on, None to empty it."""

    slot: str
    role: Role
    model: LoadedModel | None


class Ledger(msgspec.Struct, kw_only=True):
    """active.json: the applied twin version, and per slot what runs, what ran before, what was refused and why."""

    applied: int = 0
    active: dict[str, Assignment] = {}
    previous: dict[str, Assignment] = {}
    refused: dict[str, str] = {}


def read_ledger(folder: Path) -> Ledger:
    """The active.json of a folder of bundles; an empty one where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / "active.json").read_bytes(), type=Ledger)
    except (*UNREADABLE, FileNotFoundError):
        return Ledger()


class Updates:
    """Owner of the folder of bundles. `apply` may take long and belongs on a thread of its own."""

    def __init__(
        self,
        folder: Path,
        fetch: Fetch,
        now_ms: Callable[[], int],
        runtime: RuntimeSettings = ONE_THREAD,
    ) -> None:
        self._folder = folder
        self._fetch = fetch
        self._runtime = runtime
        self._now_ms = now_ms
        folder.mkdir(parents=True, exist_ok=True)
        self._ledger = read_ledger(folder)
        self._running: dict[str, RunningModel] = {}
        self._changes: list[Change] = []

    @property
    def applied_version(self) -> int:
        """The newest desired document that was gone through, refusals included."""
        return self._ledger.applied

    def restore(self) -> list[Change]:
        """At start: what was active, else what was before it. What does not come back is fetched again as soon as the server
        says what it wants."""
        changes: list[Change] = []
        was = self._ledger.applied
        for slot, active in list(self._ledger.active.items()):
            del self._ledger.active[slot]
            for assignment in (active, self._ledger.previous.get(slot)):
                if assignment is None:
                    continue
                try:
                    archive = self._path(assignment).read_bytes()
                    changes.append(self._serve(assignment, load(archive, assignment.digest, self._runtime)))
                    self._ledger.active[slot] = assignment
                    break
                except (OSError, BadBundle) as error:
                    self._note(assignment, ModelStatus.REFUSED, str(error))
                    log.warning("%s v%d does not come back: %s", slot, assignment.version, error)
            if self._ledger.active.get(slot) != active:
                self._ledger.applied = max(was - 1, 0)
        return changes

    def apply(self, desired: Desired) -> list[Change]:
        """Goes through a desired document. Returns the changes to make between two buckets; raises TryLater if the
        server could not be reached or the disk does not take a bundle (call again: changes that were made by then are
        returned by the call that succeeds), Refused (stale_version) for a document of the past."""
        if desired.version <= self._ledger.applied:
            raise Refused(Reason.STALE_VERSION, f"desired {desired.version} is not newer than {self._ledger.applied}")
        wanted = {a.slot: a for a in desired.models}
        for slot in [s for s in self._ledger.active if s not in wanted]:
            self._changes.append(Change(slot, self._ledger.active.pop(slot).role, None))
            self._running.pop(slot, None)
        for slot, assignment in wanted.items():
            active = self._ledger.active.get(slot)
            same = active is not None and (active.digest, active.role) == (assignment.digest, assignment.role)
            if same and slot in self._running:
                continue
            if assignment.digest in self._ledger.refused:
                self._note(assignment, ModelStatus.REFUSED, self._ledger.refused[assignment.digest])
                continue
            change = self._take(assignment)
            if change is not None:
                self._changes.append(change)
        self._ledger.refused = {
            a.digest: self._ledger.refused[a.digest] for a in desired.models if a.digest in self._ledger.refused
        }
        self._save(desired.version)
        self._sweep()
        changes, self._changes = self._changes, []
        return changes

    def status(self) -> list[RunningModel]:
        """What really runs, slot by slot; `results` is filled in by the agent, who counts them."""
        return list(self._running.values())

    def _take(self, assignment: Assignment) -> Change | None:
        try:
            archive = self._fetch(assignment)
            model = load(archive, assignment.digest, self._runtime)
            passport = model.passport
            if (passport.slot, passport.version) != (assignment.slot, assignment.version):
                raise BadBundle(
                    Reason.BAD_ARCHIVE,
                    f"the bundle is {passport.slot} v{passport.version}, not what the server announced",
                )
        except BadBundle as error:
            self._ledger.refused[assignment.digest] = str(error)
            self._note(assignment, ModelStatus.REFUSED, str(error))
            log.warning("%s v%d refused: %s", assignment.slot, assignment.version, error)
            return None
        try:
            write_durably(self._path(assignment), archive)
        except OSError as error:
            raise TryLater(f"cannot keep {assignment.slot} v{assignment.version}: {error.strerror}") from error
        before = self._ledger.active.get(assignment.slot)
        if before is not None and before.digest != assignment.digest:
            self._ledger.previous[assignment.slot] = before
        self._ledger.active[assignment.slot] = assignment
        return self._serve(assignment, model)

    def _serve(self, assignment: Assignment, model: LoadedModel) -> Change:
        status = ModelStatus.SERVING if assignment.role is Role.SERVING else ModelStatus.SHADOW
        self._note(assignment, status, "", model)
        if model.engine:
            log.info("%s v%d runs on %s: %s", assignment.slot, assignment.version, model.engine, model.engine_why)
        return Change(assignment.slot, assignment.role, model)

    def _note(self, assignment: Assignment, status: ModelStatus, error: str, model: LoadedModel | None = None) -> None:
        name = assignment.slot if status is not ModelStatus.REFUSED else f"{assignment.slot}#refused"
        if status is not ModelStatus.REFUSED:
            self._running.pop(f"{assignment.slot}#refused", None)
        self._running[name] = RunningModel(
            slot=assignment.slot,
            role=assignment.role,
            algorithm=model.passport.algorithm if model else "",
            version=assignment.version,
            digest=assignment.digest,
            status=status,
            since_ms=self._now_ms(),
            error=error[:4000],
            engine=model.engine if model else "",
            engine_why=model.engine_why[:4000] if model else "",
        )

    def _path(self, assignment: Assignment) -> Path:
        return self._folder / f"{assignment.digest}.bundle"

    def _save(self, applied: int) -> None:
        done = msgspec.structs.replace(self._ledger, applied=applied)
        try:
            write_durably(self._folder / "active.json", msgspec.json.encode(done))
        except OSError as error:
            raise TryLater(f"cannot keep what is active: {error.strerror}") from error
        self._ledger = done

    def _sweep(self) -> None:
        keep = {a.digest for a in (*self._ledger.active.values(), *self._ledger.previous.values())}
        for file in self._folder.glob("*.bundle"):
            if file.stem not in keep:
                file.unlink(missing_ok=True)


def write_durably(path: Path, payload: bytes) -> None:
    """The file is either the old one or the whole new one, also after a power cut."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def http_fetch(
    base_url: str, token: str, part_folder: Path, timeout_s: float = 30.0, context: ssl.SSLContext | None = None
) -> Fetch:
    """Fetches over HTTP(S) into a .part file and resumes it after a cut. Raises TryLater when the server is away (Redirected
    when it sends elsewhere), BadBundle when it sends more than it announced."""
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"server url {base_url!r} must be http:// or https://")

    def fetch(assignment: Assignment) -> bytes:
        part_folder.mkdir(parents=True, exist_ok=True)
        part = part_folder / f"{assignment.digest}.part"
        have = part.stat().st_size if part.exists() else 0
        if have >= assignment.size:
            part.unlink()
            have = 0
        headers = {"Authorization": f"Bearer {token}"} | ({"Range": f"bytes={have}-"} if have else {})
        request = urllib.request.Request(base_url.rstrip("/") + assignment.path, headers=headers)  # noqa: S310 - checked above
        limit = min(assignment.size, MAX_BUNDLE_BYTES)
        try:
            with opened(request, timeout_s, context) as answer:
                resumed = answer.status == 206
                with part.open("ab" if resumed else "wb") as file:
                    size = have if resumed else 0
                    while chunk := answer.read(65536):
                        size += len(chunk)
                        if size > limit:
                            raise BadBundle(
                                Reason.TOO_LARGE, f"the server sends more than the {limit} bytes it announced"
                            )
                        file.write(chunk)
        except BadBundle:
            part.unlink(missing_ok=True)
            raise
        except NO_ANSWER as error:
            raise TryLater(f"cannot fetch {assignment.slot} v{assignment.version}: {error}") from error
        archive = part.read_bytes()
        if len(archive) < assignment.size:
            raise TryLater(f"{len(archive)} of {assignment.size} bytes so far")
        part.unlink()
        return archive

    return fetch
