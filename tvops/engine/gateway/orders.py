"""Finding orders by the names that clients give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvops.engine.gateway.problems import refuse
from tvops.engine.gateway.views import STATUS_NAMES
from tvops.engine.records import CLIENT_ID_SIZE, Status

if TYPE_CHECKING:
    from tvops.engine.projections.orders import OrderTable

CLIENT_PREFIX = "client:"
LIVE = (Status.OPEN, Status.PARTIALLY_FILLED)


def find_order(orders: OrderTable, account: int, name: str) -> Any:
    """Give the ORDER row of the account's order ``name``: its order id, or `client:` and its client order id.

    Raises:
        ProblemError: the account has no such order, or it is not listed any more.
    """
    row: Any = None
    if name.startswith(CLIENT_PREFIX):
        client_id = name[len(CLIENT_PREFIX) :]
        if client_id.isascii() and 0 < len(client_id) <= CLIENT_ID_SIZE:
            row = orders.by_client_id(account, client_id)
    elif name.isascii() and name.isdigit() and len(name) < 20 and int(name) < 1 << 63:
        row = orders.row(int(name))
    if row is None or row["account"] != account:
        raise refuse(
            "order_not_found", f"order {name[:48]!r}: this account has none with this id, or not any more"
        )
    return row


def find_live_order(orders: OrderTable, account: int, name: str) -> Any:
    """Give the ORDER row of an order that is open.

    Raises:
        ProblemError: there is no such order, or it is not open.
    """
    row = find_order(orders, account, name)
    if row["status"] not in LIVE:
        raise refuse("order_not_open", f"order {name[:48]!r}: it is {STATUS_NAMES[int(row['status'])]}")
    return row
