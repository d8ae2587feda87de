"""`hilo bots`: who answers here, and where each bot's log is (F5)."""

from __future__ import annotations

from app.cli.failures import DONE, WrongUsage, codes
from app.cli.options import Bot, Data, Json, group, installation_of

bots = group("bots", "The bots of this installation.")


@bots.callback()
def _bots() -> None:
    pass


@bots.command("list", epilog=codes(unreachable="(never)"))
def list_bots(*, data: Data = None, bot: Bot = None, as_json: Json = False) -> int:
    """List the bots: channel, path of the webhooks, model, where the log is, what its table gives.

    Nothing is opened: a bot that has never run is listed, too.
    """
    from app.bots import configured
    from app.cli import output
    from app.stores import log_place

    found = [
        one for one in configured(installation_of(data, None)) if bot in {None, one.settings.bot}
    ]
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
    if not rows:
        msg = f"there is no bot {bot!r}: hilo bots list, without --bot, lists them"
        raise WrongUsage(msg)
    if as_json:
        output.write_json(rows)
        return DONE
    shown = [{**row, "own": ", ".join(row["own"])} for row in rows]
    output.write_table(tuple(shown[0]), [tuple(row.values()) for row in shown])
    return DONE
