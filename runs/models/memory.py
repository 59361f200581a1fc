"""What agents keep between runs, and which calls had to do with it. `runs.memory` is the only writer."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant, User


class MemoryItem(models.Model):
    """One value under one key. Who reads it: runs of the same tenant, agent, session and user (`subject`) as the run that wrote it.

    A reference belongs to no session; one without a subject is for every run of its agent.
    """

    class Kind(models.TextChoices):
        SESSION = "session"  # of one conversation
        REFERENCE = "reference"  # points at something in another system, and is never that thing itself

    class Sensitivity(models.TextChoices):
        NORMAL = "normal"
        SENSITIVE = "sensitive"  # sealed; shown by right alone, and each view is audited

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    agent = models.CharField(max_length=64)
    session = models.CharField(max_length=128, blank=True, default="")
    subject = models.CharField(max_length=200, blank=True, default="")  # id of the user that the run acted for
    key = models.CharField(max_length=128)
    value = models.JSONField(null=True)  # null: sealed
    sealed = models.BinaryField(null=True)  # bound to the tenant and to this row
    sensitivity = models.CharField(max_length=12, choices=Sensitivity.choices, default=Sensitivity.NORMAL)
    labels = ArrayField(models.CharField(max_length=40), default=list)  # the taint of the run that wrote it: whoever reads it takes it on
    owner = models.CharField(max_length=200)  # the user that the run acted for, else who started it
    run_id = models.UUIDField()  # the call that wrote it last
    step = models.IntegerField()
    ord = models.IntegerField()
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    corrected_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True)  # the person who wrote it after that call did

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "kind", "agent", "session", "subject", "key"], name="one_memory_per_key"),
            models.CheckConstraint(
                condition=models.Q(sensitivity="normal", sealed__isnull=True) | models.Q(sensitivity="sensitive", value__isnull=True),
                name="sensitive_memory_is_sealed",
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "-id"], name="memory_by_tenant"),
            models.Index(fields=["expires_at"], name="memory_expiry"),
        ]

    def __str__(self) -> str:
        return self.memory_id

    @property
    def memory_id(self) -> str:
        return encode("mem", self.id)

    @property
    def source_run(self) -> str:
        return encode("agt", self.run_id)

    @property
    def sensitive(self) -> bool:
        return self.sensitivity == self.Sensitivity.SENSITIVE


class MemoryUse(models.Model):
    """A call that read, wrote or forgot an item. Outlives the item until its run has ended, so that what the run kept of it goes too."""

    class Did(models.TextChoices):
        READ = "read"
        WROTE = "wrote"
        FORGOT = "forgot"

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, db_index=False)
    run_id = models.UUIDField()
    step = models.IntegerField()
    ord = models.IntegerField()
    item_id = models.UUIDField()
    did = models.CharField(max_length=8, choices=Did.choices)
    gone = models.BooleanField(db_default=False)  # the item was deleted
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["run_id", "step", "ord", "item_id"], name="one_memory_use_per_call")]
        indexes: ClassVar = [
            models.Index(fields=["item_id"], name="memory_use_of_item"),
            models.Index(fields=["id"], condition=models.Q(gone=True), name="memory_use_gone"),
        ]

    @property
    def source_run(self) -> str:
        return encode("agt", self.run_id)
