"""`tvops keys`: API keys of the stack."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from tvops.settings import Settings

T = TypeVar("T")

app = typer.Typer(help="Make, list and revoke API keys of a running stack.", no_args_is_help=True)

_DATA_DIR = typer.Option(None, help="Data directory of the stack.")
_CONFIG = typer.Option(None, help="Settings file (YAML); default: $TVOPS_CONFIG.")


@app.command()
def create(
    account: str = typer.Option(..., help="Name of the account; a new name makes a new account."),
    admin: bool = typer.Option(False, "--admin", help="Let the key set risk limits, halt and kill as well."),
    data_dir: str | None = _DATA_DIR,
    config: Path | None = _CONFIG,
) -> None:
    """Make a key and print it. It is shown this once; only its hash is kept."""
    from tvops.engine.gateway.auth import create_key

    key, stored = _with_ledger(data_dir, config, lambda ledger: create_key(ledger, account, admin))
    typer.echo(key)
    role = "admin key" if stored.admin else "key"
    typer.echo(f"{role} {stored.id} of account {stored.name} (number {stored.account})", err=True)


@app.command(name="list")
def list_all(
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    data_dir: str | None = _DATA_DIR,
    config: Path | None = _CONFIG,
) -> None:
    """List the keys that are valid."""
    from tvops.engine.gateway.auth import list_keys
    from tvops.json_text import json_line

    keys = _with_ledger(data_dir, config, list_keys)
    rows: list[dict[str, Any]] = [
        {"id": k.id, "account": k.name, "number": k.account, "admin": k.admin, "created": k.created} for k in keys
    ]
    if as_json:
        typer.echo(json_line(rows))
        return
    for row in rows:
        kind = "admin" if row["admin"] else "-"
        typer.echo(f"{row['id']}  {row['account']:<32}  {row['number']:>5}  {kind:<5}  {row['created']}")


@app.command()
def revoke(
    key_id: str = typer.Argument(help="Id of the key, as `tvops keys list` shows it."),
    data_dir: str | None = _DATA_DIR,
    config: Path | None = _CONFIG,
) -> None:
    """Make a key worthless. A running stack notices within seconds."""
    from tvops.engine.gateway.auth import revoke_key

    _with_ledger(data_dir, config, lambda ledger: revoke_key(ledger, key_id))
    typer.echo(f"key {key_id} is revoked", err=True)


def _with_ledger(data_dir: str | None, config: Path | None, work: Callable[[Redis], Awaitable[T]]) -> T:
    import asyncio

    from tvops.settings import load_settings

    settings = load_settings({"data_dir": data_dir}, file=config)

    async def run() -> T:
        client = _connect(settings)
        try:
            return await work(client)
        finally:
            await client.aclose()

    return asyncio.run(run())


def _connect(settings: Settings) -> Redis:
    """Connect to the ledger server of the stack: its own, or the external one."""
    from redis.asyncio import Redis

    from tvops.engine.bus.server_config import socket_in
    from tvops.errors import ServerError, SettingsError

    if settings.ledger_url:
        try:
            return Redis.from_url(settings.ledger_url, socket_timeout=settings.redis_socket_timeout)
        except ValueError as error:
            raise SettingsError(f"ledger_url: is no server URL: {error}") from None
    written = settings.data_path / "valkey" / "ledger" / "valkey.conf"
    try:
        socket = socket_in(written.read_text())
    except OSError:
        socket = None
    if socket is None or not socket.exists():
        raise ServerError(f"data directory {settings.data_path}: no stack runs here; start tvops serve first")
    return Redis(unix_socket_path=str(socket), socket_timeout=settings.redis_socket_timeout)
