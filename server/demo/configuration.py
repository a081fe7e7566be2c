"""Settings of the demo's server and agents, and the files that the simulated plant writes for them."""

from __future__ import annotations

from protocol.errors import NeedsPerson
from server.demo.processes import Processes
from server.demo.run import EDITED_REPORTS, Demo

LIVES = """lives = "{folder}/lives"
life_settings = ["flow"]
life_conditions = 6
life_renewed_by = ["replace-bearing"]
"""
"""How the server learns from the pumps' recorded lives; flow tells the load."""
WRITING = f"""first_write_after_edits = {EDITED_REPORTS}
writer_steps = 90
writer_layers = 2
writer_width = 96
"""
"""So few reports teach a writer so small a lesson: it is to serve before the demo ends."""


def configure(demo: Demo) -> None:
    """Settings of server and agents; mapping files come from the plant's own command."""
    folder = demo.folder
    (folder / "admin.token").write_text(demo.admin_token)
    (folder / "gateway.token").write_text(demo.gateway_token)
    for secret in ("admin.token", "gateway.token"):
        (folder / secret).chmod(0o600)
    step_ms, season, first, again = (300_000, 288, 1200, 6000) if demo.options.replay else (900_000, 96, 150, 130)
    (folder / "server.toml").write_text(
        f"""database = "sqlite:///{folder}/server.db"
artifacts = "{folder}/artifacts"
admin_token_file = "{folder}/admin.token"
gateway_token_file = "{folder}/gateway.token"
port = {demo.http_port}
[broker]
port = {demo.mqtt_port}
[training]
step_ms = {step_ms}
season_steps = {season}
window_length = 48
horizon_steps = 12
first_after_buckets = {first}
retrain_after_buckets = {again}
retrain_after_feedback = 8
first_recommend_after_orders = 100
first_read_after_notes = 100
lstm_epochs = 12
max_windows = 4000
seed = {demo.options.seed}
"""
        + ("" if demo.options.replay else LIVES.format(folder=folder) + WRITING)
    )
    for line in demo.lines:
        (folder / line).mkdir(exist_ok=True)
        (folder / line / "agent.toml").write_text(
            f"""site = "demo"
gateway = "{line}"
data_dir = "data"
mapping = "{folder}/{line}.mapping.toml"
{"" if demo.options.replay else f'catalogue = "{folder}/{line}.catalogue.toml"'}
step_ms = {step_ms}
[clock]
simulated = true
[plant]
port = {demo.mqtt_port}
[uplink]
port = {demo.mqtt_port}
[server]
url = "{demo.url}"
token_file = "{folder}/gateway.token"
root = "{folder}/keys/root.json"
[forecast]
season_steps = {season}
every_steps = {12 if demo.options.replay else 4}
horizon_steps = 12
[watch]
false_alarms_per_machine_month = {0.5 if demo.options.replay else 30}
untaught_buckets = {0 if demo.options.replay else 12}
[share]
block_steps = {48 if demo.options.replay else 8}
"""
        )
    if demo.options.replay:
        (folder / "line-1.mapping.toml").write_text(
            '[[source]]\ntopic = "plant/line-1/{machine}/telemetry"\neach = "$.tags.*"\nsignal = "@key"\n'
            'value = "$.value"\nunit = "$.unit"\nroot_time = "$.timestamp"\n'
        )
    else:
        made = Processes(folder)
        made.python("mapping", "edge_agent.devices", "mapping", "--out", str(folder), "--seed", str(demo.options.seed))
        made.python(
            "lives", "edge_agent.devices", "lives", "--out", f"{folder}/lives", "--seed", str(demo.options.seed)
        )
        for what in ("mapping", "lives"):
            if made.running[what].wait(60) != 0:
                raise NeedsPerson(f"no {what} files: {made.tail(what)}")
