"""PostgreSQL arrays in the binary format with fixed element types.

psycopg chooses an array's type from its values, so one statement would be prepared for every combination it meets, and it escapes
text elements one by one. A list of these classes has one type whatever is in it: one prepared statement, one plan, less CPU.
"""

import struct
from collections.abc import Callable
from typing import Any, ClassVar
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.adapt import Dumper
from psycopg.pq import Format

NULL = b"\xff\xff\xff\xff"
_int8 = struct.Struct("!q").pack
_float8 = struct.Struct("!d").pack
_header = struct.Struct("!iiiii").pack
_length = struct.Struct("!i").pack
EMPTY = {element: struct.pack("!iii", 0, 0, element) for element in (2950, 20, 701, 25, 17)}


class Column(list[Any]):
    """One column of a batch; `element` is the OID of its items, `oid` that of the array."""

    oid: ClassVar[int]
    element: ClassVar[int]
    item: Callable[[Any], bytes]

    def binary(self) -> bytes:
        if not self:
            return EMPTY[self.element]
        pack = type(self).item
        parts, nulls = [b""], 0
        for value in self:
            if value is None:
                nulls = 1
                parts.append(NULL)
            else:
                item = pack(value)
                parts += (_length(len(item)), item)
        parts[0] = _header(1, nulls, self.element, len(self), 1)
        return b"".join(parts)


def _uuid(value: UUID) -> bytes:
    return value.bytes


class Uuids(Column):
    oid, element = 2951, 2950
    item = staticmethod(_uuid)


class Ints(Column):
    oid, element = 1016, 20
    item = staticmethod(_int8)


class Floats(Column):
    oid, element = 1022, 701
    item = staticmethod(_float8)


class Texts(Column):
    oid, element = 1009, 25
    item = staticmethod(str.encode)


class Blobs(Column):
    oid, element = 1001, 17
    item = staticmethod(bytes)


class ColumnDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: Column) -> bytes:
        return obj.binary()


def register(connection: AsyncConnection[Any]) -> None:
    """Teach one connection these types."""
    for column in (Uuids, Ints, Floats, Texts, Blobs):
        dumper = type(f"{column.__name__}Dumper", (ColumnDumper,), {"oid": column.oid})
        connection.adapters.register_dumper(column, dumper)
