"""`hilo bots`: who answers here, and where each bot's log is (F5)."""

from __future__ import annotations

from app.cli.failures import DONE, codes
from app.cli.options import Data, Json, group, installation_of

bots = group("bots", "The bots of this installation.")


@bots.callback()
def _bots() -> None:
    pass


@bots.command("list", epilog=codes(unreachable="(never)"))
def list_bots(*, data: Data = None, as_json: Json = False) -> int:
    """List the bots: channel, path of the webhooks, model, where the log is, what its table gives.

    Nothing is opened: a bot that has never run is listed, too.
    """
    from app.bots import configured
    from app.cli import output
    from app.stores import log_place

    found = configured(installation_of(data, None))
    rows = [
        {
            "bot": one.settings.bot,
            "channel": one.settings.channel,
            "webhooks": f"/webhooks/{one.settings.bot}/whapi",
            "model": one.settings.model,
            "log": log_place(one.settings),
            "own": sorted(one.given),
        }
        for one in found
    ]
    if as_json:
        output.write_json(rows)
        return DONE
    shown = [{**row, "own": ", ".join(row["own"])} for row in rows]
    output.write_table(tuple(shown[0]), [tuple(row.values()) for row in shown])
    return DONE
