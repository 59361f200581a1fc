"""Questions to the list of runs that people keep."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant, User


class SavedView(models.Model):
    """A name for the filters and columns of an address of the list. `shared`: everybody of the tenant has it as a tab."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    owner = models.ForeignKey(User, on_delete=models.CASCADE)
    name = models.CharField(max_length=40)
    query = models.TextField()  # as in an address, without its question mark
    shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "owner", "name"], name="one_view_per_name_and_owner")]

    def __str__(self) -> str:
        return self.name

    @property
    def view_id(self) -> str:
        return encode("viw", self.id)
