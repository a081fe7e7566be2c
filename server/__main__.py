"""`millwright server run | worker | migrate`."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path

from protocol.errors import MillwrightError
from server import config
from server.config import Settings
from server.database import Database


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 wrong settings."""
    parser = argparse.ArgumentParser(prog="millwright server", description="The central server.")
    parser.add_argument("command", choices=["run", "worker", "migrate"])
    parser.add_argument("--config", type=Path, help="server.toml; MILLWRIGHT_* variables win over it")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(argv)
    logging.basicConfig(level=options.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = config.load(options.config)
    except MillwrightError as error:
        sys.stderr.write(f"millwright server: {error}\n")
        return 2
    if options.command == "worker":
        return work(settings)
    migrate(settings)
    return serve(settings) if options.command == "run" else 0


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

    database = Database(settings.database)
    intake = Intake(settings, database) if settings.intake else None
    app = create_app(settings, database, intake)
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", server_header=False)
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
