"""Who people of a list are: numbers and names, opened at the edge for whoever has the keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from app.projections import clients
from app.projections.presenting import reason_of
from eventstore.errors import KeyringError
from eventstore.handles import Handle, preferred_first

if TYPE_CHECKING:
    from app.installation import Installation
    from app.projections import Views
    from app.projections.clients import ClientView
    from eventstore.sealing import Sealer

CLIENTS: Final = "client_view"
"""The read model that names come from."""

_PHONE: Final = "phone"


class Identity(msgspec.Struct, frozen=True):
    """Who somebody is, in clear, with the names of `hilo users show`."""

    handles: tuple[Handle, ...] = ()
    name: str | None = None
    """The address book's."""
    user_name: str | None = None
    """What they call themselves."""
    hidden: str | None = None
    """Why they could not be opened; None: they were."""

    @property
    def number(self) -> str:
        """Their number, as a command takes it; a lid if no number is known."""
        if not self.handles:
            return f"«{self.hidden}»" if self.hidden else "none"
        first = preferred_first(self.handles)[0]
        return first.value if first.kind == _PHONE else f"{first.value}@{first.kind}"

    @property
    def called(self) -> str:
        """The one name to show: theirs, if the address book has none."""
        if self.hidden:
            return f"«{self.hidden}»"
        return self.name or self.user_name or "not told"

    def as_json(self) -> dict[str, object]:
        """Return the fields as JSON has them; `hidden` only if there is a reason."""
        shown: dict[str, object] = {
            "handles": [{"kind": h.kind, "value": h.value} for h in self.handles],
            "name": self.name,
            "user_name": self.user_name,
        }
        return shown | {"hidden": self.hidden} if self.hidden else shown


def identities(here: Installation, views: Views, pseudonyms: Sequence[str]) -> dict[str, Identity]:
    """Return who the people of one page of a list are, by pseudonym.

    A few reads for each of them, whoever else there is. Raises as `Installation.keyring` does if
    there are no keys; of whoever alone cannot be opened (forgotten, expired) it is told why.
    """
    sealer = here.sealer
    known = clients.clients_of(views, pseudonyms)
    return {name: _identity(here, sealer, name, known.get(name)) for name in pseudonyms}


def _identity(
    here: Installation, sealer: Sealer, pseudonym: str, view: ClientView | None
) -> Identity:
    handles: tuple[Handle, ...] = ()
    try:
        handles = here.keyring.handles_of(pseudonym)
        if view is None:
            return Identity(handles)
        opened = clients.open_client(view, here.log, sealer)
    except KeyringError as error:
        return Identity(handles, hidden=reason_of(error))
    return Identity(handles, opened.name or None, opened.user_name)
