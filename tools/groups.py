"""Groups of approvers, as far as this room knows them: by a foreign key of the database, which refuses a name that is not there."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import IntegrityError, transaction

from tenants.errors import Refused

KEY = "permission_names_a_group"  # of console's migration 0005


@contextmanager
def known() -> Iterator[None]:
    """Around the writing of permissions. Refuses: unknown_group 422."""
    try:
        with transaction.atomic():
            yield
    except IntegrityError as error:
        if KEY not in str(error):
            raise
        raise Refused("unknown_group", "There is no such group of approvers in this tenant. Make it first, under groups.", 422) from None
