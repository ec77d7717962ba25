"""Idempotency keys: what makes a command that is sent twice the same command."""

from hashlib import blake2b

from tvops.engine.records import CLIENT_ID_SIZE


def client_key(account: int, client_id: bytes | str) -> tuple[int, int]:
    """Give `key_high` and `key_low` of the command that ``account`` named ``client_id``.

    The key is the 128-bit BLAKE2b (RFC 7693) of the account as u4, little-endian, and the id. `key_high` is
    never 0, which stands for "no key".

    Raises:
        ValueError: the id is empty, longer than `CLIENT_ID_SIZE` bytes or not ASCII.
    """
    name = client_id.encode("ascii") if isinstance(client_id, str) else client_id
    if not 0 < len(name) <= CLIENT_ID_SIZE:
        raise ValueError(f"a client order id has 1 to {CLIENT_ID_SIZE} bytes, not {len(name)}")
    digest = blake2b(account.to_bytes(4, "little") + name, digest_size=16).digest()
    return int.from_bytes(digest[:8], "little") or 1, int.from_bytes(digest[8:], "little")
