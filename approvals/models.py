"""The human gate's own record: a snapshot of what was asked, and who said what. Outlives the run it belongs to."""

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from tenants.ids import encode, new_id
from tenants.models import Tenant, User


class Approval(models.Model):
    class State(models.TextChoices):
        PENDING = "pending"  # waits for people; expiry, cancellation or a decision moves it on; a crash leaves it waiting
        APPROVED = "approved"  # enough people said yes; the engine consumes it when it dispatches
        REJECTED = "rejected"  # one person said no: final
        EXPIRED = "expired"  # nobody answered in time: the same as no
        VOID = "void"  # what was asked is no longer what would be sent, or the run is gone
        CONSUMED = "consumed"  # dispatched under this approval; never used again

    class Kind(models.TextChoices):
        CALL = "call"  # one call of a tool
        ANSWER = "answer"  # the run's final answer, before anybody gets it
        BUDGET = "budget"  # more of the run's limits; `args` says how much of which

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    kind = models.CharField(max_length=8, choices=Kind.choices, db_default=Kind.CALL.value)
    run_id = models.UUIDField()
    step = models.IntegerField()
    ord = models.IntegerField()
    agent = models.CharField(max_length=64)
    tool = models.CharField(max_length=64)
    tool_version_id = models.UUIDField(null=True)  # null: not about a tool
    effect = models.CharField(max_length=16)
    args = models.BinaryField()  # exactly the bytes that will be sent
    digest = models.CharField(max_length=64)
    sealed = models.JSONField(default=dict)  # the fields under the digest: says what moved when it drifts
    proposed = models.BinaryField(null=True)  # what the model proposed, where a person edited it
    edited_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")  # may not be the only one to approve it
    replaces = models.UUIDField(null=True)  # the request that this one was edited from, or asks anew
    group = models.CharField(max_length=64, blank=True, default="")  # the named group that decides; empty: everybody with the role
    grant = models.ForeignKey("StandingGrant", on_delete=models.PROTECT, null=True, related_name="uses")  # approved by it
    preview = models.JSONField(null=True)  # what the tool says the call would change: {at, before, after} or {at, error}
    reminders = models.PositiveSmallIntegerField(db_default=0)  # sent so far
    escalated_at = models.DateTimeField(null=True)
    risk = models.CharField(max_length=8, default="normal")  # normal | high
    why = models.TextField()  # why people are asked
    evidence = models.JSONField(default=list)  # [{step, ord, tool, result_sha256}]: the calls before this one
    starter_id = models.BigIntegerField(null=True)  # who started the run: may not decide
    needed = models.PositiveSmallIntegerField(default=1)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    expires_at = models.DateTimeField()
    created_at = models.DateTimeField(db_default=Now())
    decided_at = models.DateTimeField(null=True)
    void_reason = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["run_id", "step", "ord"],
                condition=models.Q(state__in=["pending", "approved"]),
                name="one_open_approval_per_call",
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["tenant", "expires_at"], condition=models.Q(state="pending"), name="approvals_waiting"),
            models.Index(fields=["run_id"], name="approvals_of_run"),
        ]

    def __str__(self) -> str:
        return self.approval_id

    @property
    def approval_id(self) -> str:
        return encode("apr", self.id)


class ApprovalDecision(models.Model):
    """One person's verdict. Append only; one per person and approval."""

    class Verdict(models.TextChoices):
        APPROVE = "approve"
        REJECT = "reject"

    approval = models.ForeignKey(Approval, on_delete=models.PROTECT, related_name="decisions")
    user = models.ForeignKey(User, on_delete=models.PROTECT)
    verdict = models.CharField(max_length=8, choices=Verdict.choices)
    digest = models.CharField(max_length=64)  # the digest this person was shown
    reason = models.TextField(blank=True, default="")
    surface = models.CharField(max_length=12, blank=True, default="")  # page, api, chat ...
    break_glass = models.BooleanField(db_default=False)  # decided alone, against the rules, for a reason; reviewed afterwards
    for_user = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")  # by delegation
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["approval", "user"], name="one_verdict_per_person")]


class Group(models.Model):
    """Named people of a tenant who decide together."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    name = models.CharField(max_length=64)
    people = models.ManyToManyField(User, related_name="approver_groups", blank=True)
    escalates_to = models.CharField(max_length=64, blank=True, default="")  # another group, when half of the time is over

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "name"], name="one_group_per_name")]

    def __str__(self) -> str:
        return self.name


class Delegation(models.Model):
    """One person decides for another until it ends. Never more than the other may."""

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    of = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    to = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    until = models.DateTimeField()
    reason = models.CharField(max_length=300, blank=True, default="")
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())


class GlassReview(models.Model):
    """A verdict that broke the glass, until somebody else has looked at it."""

    approval = models.OneToOneField(Approval, on_delete=models.PROTECT, related_name="glass")
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    reviewed_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    reviewed_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=1000, blank=True, default="")

    class Meta:
        indexes: ClassVar = [models.Index(fields=["tenant"], condition=models.Q(reviewed_at__isnull=True), name="glass_open")]


class Opening(models.Model):
    """When a person first had a request on their screen."""

    approval = models.ForeignKey(Approval, on_delete=models.CASCADE, related_name="openings")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["approval", "user"], name="first_opening")]


class StandingGrant(models.Model):
    """A yes in advance: to one tool of one agent in one tenant, under a condition, so many times, until then."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT)
    agent = models.CharField(max_length=64)
    tool = models.CharField(max_length=64)
    when = models.TextField(blank=True, default="")  # CEL over args; empty: any arguments
    most = models.PositiveIntegerField()
    used = models.PositiveIntegerField(db_default=0)
    expires_at = models.DateTimeField()
    reason = models.TextField()
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    revoked_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar = [models.CheckConstraint(condition=models.Q(used__lte=models.F("most")), name="grant_not_overused")]

    def __str__(self) -> str:
        return encode("grt", self.id)
