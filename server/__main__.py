"""`millwright server run | worker | migrate | keys`; `server.identity_commands` has those about gateways' identities."""

from __future__ import annotations

import argparse
import gc
import hashlib
import logging
import signal
import sys
import threading
from pathlib import Path

from protocol.errors import MillwrightError
from server import config, identity_commands
from server.config import Settings
from server.database import Database

log = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 wrong settings."""
    words = sys.argv[1:] if argv is None else argv
    if words and words[0] in identity_commands.COMMANDS:
        return identity_commands.main(words, migrate)
    parser = argparse.ArgumentParser(
        prog="millwright server",
        description="The central server.",
        epilog=f"Also: {', '.join(identity_commands.COMMANDS)}; each has its own --help.",
    )
    parser.add_argument("command", choices=["run", "worker", "migrate", "keys"])
    parser.add_argument("--config", type=Path, help="server.toml; MILLWRIGHT_* variables win over it")
    parser.add_argument(
        "--renew", type=Path, metavar="ROOT_KEY", help="keys: new signing keys, named by a root that this key signs"
    )
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(words)
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = config.load(options.config)
        if options.command == "keys":
            return keys(settings, options.renew)
        if options.command == "run":
            ready_to_sign(settings)
    except MillwrightError as error:
        sys.stderr.write(f"millwright server: {error}\n")
        return 2
    if options.command == "worker":
        return work(settings)
    migrate(settings)
    return serve(settings) if options.command == "run" else 0


def keys(settings: Settings, root_key: Path | None) -> int:
    """Makes the keys that sign models, or new ones after an old one was seen; says what to do with them."""
    from server import signing

    folder = settings.key_folder
    root = signing.renew_keys(folder, root_key) if root_key is not None else signing.make_keys(folder)
    sys.stdout.write(f"root {root}\nsha256 {hashlib.sha256(root.read_bytes()).hexdigest()}\n")
    if root_key is None:
        sys.stdout.write(
            f"Move {folder / 'root.key'} to a safe place that no network reaches; only `--renew` needs it.\n"
            f"Give {root} to every gateway ([server] root), or let `millwright agent trust` fetch it and compare the sum.\n"
        )
    return 0


def ready_to_sign(settings: Settings) -> None:
    """At the first start there are no keys yet; later they must fit their root."""
    from server import signing
    from server.seal import Seal

    folder = settings.key_folder
    if not (folder / signing.ROOT_FILE).exists():
        log.warning("made the keys that sign models in %s; copy %s to every gateway", folder, signing.make_keys(folder))
    if (folder / "root.key").exists():
        log.warning("%s lies on the server: move it to a safe place that no network reaches", folder / "root.key")
    signing.SignedList(folder, settings.artifact_folder / "trust")
    Seal.of(folder)


def migrate(settings: Settings) -> None:
    """Brings the database to this version's schema."""
    from alembic import command
    from alembic.config import Config

    alembic = Config()
    alembic.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    alembic.attributes["url"] = settings.database
    command.upgrade(alembic, "head")


def serve(settings: Settings) -> int:
    """API, console and, unless switched off, the MQTT intake, until SIGTERM or SIGINT."""
    import uvicorn

    from server.app import create_app
    from server.broker import Intake
    from server.refusals import Refusals

    # what stays is not looked through again and again, and rows that come and go by the thousand are less often
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    database = Database(settings.database)
    refusals = Refusals()
    intake = Intake(settings, database, refusals) if settings.intake else None
    app = create_app(settings, database, intake, refusals)
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        server_header=False,
        ssl_certfile=settings.tls_cert or None,
        ssl_keyfile=settings.tls_key or None,
    )
    database.close()
    return 0


def work(settings: Settings) -> int:
    """The training worker, until SIGTERM or SIGINT."""
    from server.worker import run_worker

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    database = Database(settings.database)
    run_worker(settings, database, stop)
    database.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
