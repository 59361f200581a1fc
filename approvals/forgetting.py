"""What a request showed of something that is to be forgotten. The digest stays: it still says that what was approved was sent."""

from uuid import UUID

from .models import Approval


def arguments(run_id: UUID, step: int, ord: int, instead: bytes) -> None:
    """Of every request about this call. What its tool previewed goes as well."""
    asked = Approval.objects.filter(run_id=run_id, step=step, ord=ord)
    asked.update(args=instead, preview=None)
    asked.filter(proposed__isnull=False).update(proposed=instead)
