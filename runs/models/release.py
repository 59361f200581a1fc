"""An immutable version of an agent."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import User


class Release(models.Model):
    """`spec` is the validated `release:` block, `tools` pins each tool's version id. A trigger refuses UPDATE and DELETE."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    agent = models.ForeignKey("Agent", on_delete=models.PROTECT, related_name="releases")
    number = models.PositiveIntegerField()
    spec = models.JSONField()
    tools = models.JSONField()  # {tool name: version id}
    model_versions = models.JSONField(default=dict, db_default={})  # {model name: version id}; empty: made before models had versions
    sha256 = models.CharField(max_length=64)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["agent", "number"], name="one_release_per_number")]

    def __str__(self) -> str:
        return f"{self.agent_id} r{self.number}"

    @property
    def release_id(self) -> str:
        return encode("rel", self.id)
