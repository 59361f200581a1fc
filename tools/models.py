"""What an agent may touch: tools, their immutable versions, and the permissions people edit."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from tenants.ids import new_id
from tenants.models import Tenant


class McpServer(models.Model):
    """An MCP server whose tools may be imported. `enabled` off refuses every call of its tools, also of running runs."""

    class Transport(models.TextChoices):
        STREAMABLE_HTTP = "streamable_http"
        STDIO = "stdio"  # a program on this machine: known, and refused with not_supported

    name = models.CharField(primary_key=True, max_length=32)
    url = models.CharField(max_length=2000)
    credential = models.CharField(max_length=100, blank=True, default="")  # its name; resolved in the tenant of the run
    transport = models.CharField(max_length=16, choices=Transport.choices, default=Transport.STREAMABLE_HTTP)
    tenants = ArrayField(models.CharField(max_length=63), default=list, blank=True)  # empty: every tenant
    enabled = models.BooleanField(default=True)
    protocol_version = models.CharField(max_length=32, blank=True, default="")  # as agreed when it was last seen
    last_seen_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=500, blank=True, default="")  # of the last refresh; empty: it answered
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class Tool(models.Model):
    """A name and a pointer to the version that new releases pin. `enabled` off refuses every call, also of running runs.

    An imported tool is not `classified` until a person has said what it does. `origin` says where it comes from:
    `{"kind": "mcp", "server", "tool", "sha256", "definition"}`, the last two pinned (null: not seen yet), or
    `{"kind": "openapi", "document", "operation", "sha256"}`. `pending` is a definition that the other side changed to,
    waiting for a person: `{"sha256", "definition" (null: gone), "diff", "rejected"}`; until then the tool stays off.
    """

    name = models.CharField(primary_key=True, max_length=64)
    enabled = models.BooleanField(default=True)
    classified = models.BooleanField(default=True)
    origin = models.JSONField(null=True)
    pending = models.JSONField(null=True)
    tenants = ArrayField(models.CharField(max_length=63), default=list, blank=True)  # empty: every tenant sees it
    current = models.ForeignKey("ToolVersion", on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(enabled=False) | models.Q(classified=True, pending__isnull=True), name="on_when_a_person_knows_it"
            )
        ]

    def __str__(self) -> str:
        return self.name


class ToolVersion(models.Model):
    """Immutable (a trigger refuses UPDATE and DELETE); `sha256` pins name, description, effect, schemas and endpoint."""

    class EffectChoice(models.TextChoices):
        READ = "read"
        WRITE = "write"
        IRREVERSIBLE = "irreversible"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    tool = models.ForeignKey(Tool, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    description = models.TextField()
    effect = models.CharField(max_length=16, choices=EffectChoice.choices)
    idempotency = models.CharField(max_length=8, default="none")
    adapter = models.JSONField()
    input_schema = models.JSONField()
    output_schema = models.JSONField(null=True)
    timeout_s = models.FloatField()
    retry = models.JSONField(default=dict)
    labels = ArrayField(models.CharField(max_length=40), default=list)
    duplicate_when = models.TextField(blank=True, default="")
    credential = models.CharField(max_length=100, blank=True, default="")
    verify = models.JSONField(null=True)
    preview = models.JSONField(null=True)  # what it would change: see `tools.spec.Preview`
    compensate = models.JSONField(null=True)  # how it is undone: see `tools.spec.Compensate`
    effect_key = models.CharField(max_length=200, blank=True, default="")
    effect_window_s = models.FloatField(default=86400)
    idempotency_window_s = models.FloatField(default=23 * 3600)
    sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tool", "number"], name="one_version_per_number")]

    def __str__(self) -> str:
        return f"{self.tool_id} v{self.number}"


class Permission(models.Model):
    """Tool x tenant x agent -> decision. Rows tighten the effect's default; only an admin's row with `loosen` widens it."""

    class Decision(models.TextChoices):
        ALLOW = "allow"
        ASK = "ask"
        DRAFT = "draft"  # not sent: kept and shown as a recommended action
        DENY = "deny"

    tool = models.ForeignKey(Tool, on_delete=models.CASCADE, related_name="permissions")
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, null=True, blank=True)  # null: every tenant
    agent = models.CharField(max_length=64, blank=True, default="")  # empty: every agent
    user_role = models.CharField(max_length=64, blank=True, default="")  # role of the user the run acts for
    decision = models.CharField(max_length=8, choices=Decision.choices)
    approvers = models.PositiveSmallIntegerField(default=1)
    when = models.TextField(blank=True, default="")  # CEL over args, call, run, now
    loosen = models.BooleanField(default=False)
    group = models.CharField(max_length=64, blank=True, default="")  # the tenant's approvers who decide; a key of the database knows them
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["tool", "tenant", "agent", "user_role", "when"],
                name="one_permission_per_place",
                nulls_distinct=False,
            ),
            models.CheckConstraint(condition=models.Q(approvers__gte=1, approvers__lte=9), name="approvers_1_to_9"),
            models.CheckConstraint(
                condition=models.Q(group="") | models.Q(decision="ask", tenant__isnull=False), name="group_decides_for_its_tenant"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.decision} {self.tool_id} for {self.agent or 'every agent'}"


class Breaker(models.Model):
    """Whether calls of one tenant to one host:port are sent. Engines count in memory; the row is what they tell each other."""

    class State(models.TextChoices):
        CLOSED = "closed"  # calls go out
        OPEN = "open"  # none goes out before `probe_at`; runs wait without using up attempts
        HALF_OPEN = "half_open"  # one engine sends one probe; its answer closes or opens it

    class Forced(models.TextChoices):
        OPEN = "open"
        CLOSED = "closed"

    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE)
    host_port = models.CharField(max_length=260)
    state = models.CharField(max_length=10, choices=State.choices, default=State.CLOSED)
    forced = models.CharField(max_length=6, choices=Forced.choices, blank=True, default="")  # a person's word; empty: as measured
    opened_at = models.DateTimeField(null=True)
    probe_at = models.DateTimeField(null=True)
    sends = models.IntegerField(default=0)  # in the window that opened it
    failures = models.IntegerField(default=0)
    reason = models.CharField(max_length=300, blank=True, default="")
    changed_by = models.CharField(max_length=150, blank=True, default="")
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["tenant", "host_port"], name="one_breaker_per_host")]

    def __str__(self) -> str:
        return f"{self.host_port} of {self.tenant_id}"


class Rule(models.Model):
    """A condition over a call (or a final answer) and everything its run did before. Only tightens what permissions say."""

    class On(models.TextChoices):
        CALL = "call"
        ANSWER = "answer"  # the final answer: ask, or deny to withhold it

    class Decision(models.TextChoices):
        ASK = "ask"
        DRAFT = "draft"
        DENY = "deny"

    name = models.CharField(max_length=64)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, null=True, blank=True)  # null: every tenant
    on = models.CharField(max_length=8, choices=On.choices, default=On.CALL)
    decision = models.CharField(max_length=8, choices=Decision.choices)
    approvers = models.PositiveSmallIntegerField(default=1)
    when = models.TextField()  # CEL over args, call, run, day and now; of an answer: answer, run, day and now
    enabled = models.BooleanField(default=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "name"], name="one_rule_per_name", nulls_distinct=False),
            models.CheckConstraint(condition=models.Q(approvers__gte=1, approvers__lte=9), name="rule_approvers_1_to_9"),
        ]

    def __str__(self) -> str:
        return self.name


class PolicyVersion(models.Model):
    """All permissions and rules of one scope after one change. Append only; going back to one makes a new one."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, null=True)  # null: the rows of every tenant
    number = models.PositiveIntegerField()
    document = models.JSONField()  # {permissions: [...], rules: [...]}
    changed_by = models.CharField(max_length=150)
    reason = models.CharField(max_length=1000, blank=True, default="")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "number"], name="one_policy_version_per_number", nulls_distinct=False)
        ]

    def __str__(self) -> str:
        return f"policy v{self.number}"
