"""Domain errors: a stable code, a sentence that names the cure, and the HTTP status that a surface should use."""

from typing import Any


class Refused(Exception):
    """An expected refusal. `fields` are extra members of the problem document (JSON values)."""

    def __init__(self, code: str, message: str, status: int = 422, **fields: Any) -> None:
        super().__init__(message)
        self.code, self.message, self.status, self.fields = code, message, status, fields


class NotFound(Refused):
    """Absent, or another tenant's: the caller cannot tell which."""

    def __init__(self, what: str) -> None:
        super().__init__("not_found", f"There is no such {what}.", 404)
