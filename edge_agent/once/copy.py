"""`millwright agent copy --config agent.toml --to DIR …`: a copy of a gateway to try something out on. The original may be
running; it is not disturbed. The copy finds the broker and the server that it is told here, and no other. Exit status: 0
done, 2 it cannot be copied."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_agent import config
from edge_agent.copying import Addresses, copied
from protocol.errors import BadSettings, MillwrightError


def main(argv: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="millwright agent copy", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="agent.toml of the original")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="an empty folder, or none yet")
    parser.add_argument("--plant-port", type=int, required=True, help="the plant's broker of the copy, on 127.0.0.1")
    parser.add_argument("--uplink-port", type=int, required=True, help="the server's broker of the copy, on 127.0.0.1")
    parser.add_argument("--server-url", required=True, help="the server of the copy")
    parser.add_argument("--server-root", type=Path, required=True, metavar="FILE", help="whose signatures count there")
    parser.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="what opens that server")
    parser.add_argument("--spare-mib", type=int, default=0, help="room that must be left beside the copy")
    options = parser.parse_args(argv)
    addresses = Addresses(
        plant_port=options.plant_port,
        uplink_port=options.uplink_port,
        server_url=options.server_url,
        server_root=str(options.server_root.resolve()),
        token_file=str(options.token_file.resolve()),
    )
    try:
        if options.config.is_dir():
            raise BadSettings(
                f"{options.config} is a folder; give the gateway's agent.toml, whose data_dir says where its files are"
            )
        made = copied(config.load(options.config), options.to.resolve(), addresses, options.spare_mib * 2**20)
    except MillwrightError as error:
        sys.stderr.write(f"millwright agent copy: {error}\n")
        return 2
    sys.stdout.write(
        f"{made.gateway} copied to {options.to}: {made.bytes} bytes, {len(made.signals)} signals to play\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
