"""The `millwright` command: one word, then the part of the product that answers. Parts are imported only when called,
so that the gateway's commands never pay for the server's libraries."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from protocol.errors import MillwrightError

if TYPE_CHECKING:
    from protocol.schedules import Schedule, Shop

COMMANDS = {
    "demo": (
        "server.demo.__main__",
        "the whole loop on this machine: plant, broker, two gateways, server, training",
        "demo",
    ),
    "drill": (
        "server.drill.__main__",
        "break a small site on purpose, and read the books: what is lost, what comes twice",
        "demo",
    ),
    "agent": ("edge_agent.__main__", "run, check or ask the agent of this gateway", None),
    "doctor": ("edge_agent.doctor", "what runs models on this machine, what does not and why", None),
    "server": ("server.__main__", "run the central server, its training worker, or its migrations", "server"),
    "plant": ("edge_agent.devices.__main__", "a simulated plant, or a replay of recorded files, over MQTT", None),
    "train": (
        "server.workbench.__main__",
        "train forecasters, a recommender or a reader of notes on a file of your own",
        "train",
    ),
    "export": ("server.workbench.exporting", "make a model that you bring small, and prove it right", "train"),
    "inspect": ("edge_agent.once.inspect_bundle", "what bundles are: their card, read without running them", None),
    "verify": ("edge_agent.once.verify_bundle", "whether bundles are whole and right on this machine", None),
    "forecast": ("edge_agent.once.forecast", "forecast a file of your own with trained bundles, and say why", None),
    "recommend": ("edge_agent.once.recommend", "rank items for a user with a trained bundle, and say why", None),
    "notes": ("edge_agent.once.notes", "read notes with a trained bundle: what failed, how sure, which words", None),
    "purchase": ("edge_agent.once.purchase", "which parts to buy, from whom, how many and when, and why", None),
    "schedule": ("edge_agent.once.schedule", "plan a shop of your own: what to run when, with a Gantt picture", None),
    "report": ("edge_agent.once.report", "read fault reports, and check every claim of them offline", None),
    "plan": ("edge_agent.once.plan", "how to make, how to mend, or a part's measures, from what a plant can do", None),
    "schema": ("protocol.schemas", "write JSON Schema and AsyncAPI of the wire", None),
}
"""command -> (module with main(argv) -> int, what it does, the extra that installs what it needs)."""


def cp_sat(shop: Shop, **options: Any) -> Schedule:
    """The server's scheduler, for a command that may not import the server. Loaded when called."""
    from server.scheduling import solve

    return solve(shop, **options)


def usage() -> str:
    """The help text."""
    lines = ["usage: millwright COMMAND [ARGUMENT ...]", ""]
    lines += [f"  {name:9} {what}" for name, (_, what, _) in COMMANDS.items()]
    return "\n".join([*lines, "", "`millwright COMMAND --help` tells more. `millwright --version` prints the version."])


def version() -> str:
    """The installed version."""
    from importlib.metadata import version as installed

    return installed("millwright")


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Exit status: 0 done, 1 it ran and something was not right, 2 wrong usage or settings."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"millwright {version()}")
        return 0
    if arguments[0] not in COMMANDS:
        print(f"millwright: no command {arguments[0]!r}\n\n{usage()}", file=sys.stderr)
        return 2
    module, _, extra = COMMANDS[arguments[0]]
    try:
        part = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").split(".")[0] in {"edge_agent", "protocol", "server", "export"}:
            raise
        print(f"millwright {arguments[0]} needs {error.name}: pip install 'millwright[{extra}]'", file=sys.stderr)
        return 2
    try:
        if arguments[0] == "schedule":
            return int(part.main(arguments[1:], cp_sat=cp_sat))
        return int(part.main(arguments[1:]))
    except MillwrightError as error:
        print(f"millwright {arguments[0]}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
