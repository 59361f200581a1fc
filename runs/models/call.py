from typing import ClassVar

from django.db import models

from runs.states import CallState

from .run import Run


class Call(models.Model):
    """One model or tool call. `ord` 0 is the model call of the step, 1.. its tool calls. Content lives here and only here."""

    pk = models.CompositePrimaryKey("run_id", "step", "ord")
    run = models.ForeignKey(Run, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="calls")
    step = models.IntegerField()
    ord = models.IntegerField()
    tenant_id = models.UUIDField()
    state = models.CharField(max_length=20, choices=[(s.value, s.value) for s in CallState])
    name = models.CharField(max_length=128)  # the tool's name, or the model definition's
    tool_version_id = models.UUIDField(null=True)
    effect = models.CharField(max_length=16)
    provider_id = models.CharField(max_length=128, null=True)  # noqa: DJ001 - the model's id of the call; null for model calls
    args = models.BinaryField(null=True)  # the exact bytes that are sent
    proposed = models.BinaryField(null=True)  # what the model asked for, where a person sent something else
    idem_key = models.CharField(max_length=32, null=True)  # noqa: DJ001 - null for reads: unique where present
    decision = models.JSONField(null=True)  # {decision, why, by, approvers, rev}
    approval_id = models.UUIDField(null=True)
    attempt = models.IntegerField(db_default=0)  # sends so far, over retries and takeovers
    fence = models.BigIntegerField()
    dispatched_at = models.DateTimeField(null=True)
    send_deadline = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    result = models.JSONField(null=True)
    error_class = models.CharField(max_length=24, null=True)  # noqa: DJ001 - null: no error
    latency_ms = models.IntegerField(null=True)
    tokens_in = models.IntegerField(db_default=0)
    tokens_out = models.IntegerField(db_default=0)
    cost_micro = models.BigIntegerField(db_default=0)

    class Meta:
        db_table = "call"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant_id", "idem_key"], condition=models.Q(idem_key__isnull=False), name="call_key")
        ]
        indexes: ClassVar = [
            # what was kept for a person instead of sent
            models.Index(fields=["tenant_id", "-run_id"], condition=models.Q(error_class="drafted"), name="call_drafted"),
            models.Index(  # what a tenant's runs changed, and when
                fields=["tenant_id", "dispatched_at"],
                condition=~models.Q(effect="read") & models.Q(dispatched_at__isnull=False),
                name="call_writes",
            ),
        ]
