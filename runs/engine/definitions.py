"""What a run is driven by: its immutable release (cached for ever), and the mutable controls (cached per revision)."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from uuid import UUID

from runs import switches
from runs.inference.prices import price_of
from runs.inference.types import ModelEndpoint, ToolOffer
from runs.models import ModelDefinition, ModelVersion, Release, ReleaseMove
from runs.spec import ReleaseSpec
from runs.stops import SwitchOn
from tenants.credentials import open_all
from tenants.models import Controls, EgressAllow, Tenant
from tools import catalog, rules, schemas
from tools.definitions import Credential, RetryPolicy, ToolDefinition
from tools.models import ToolVersion
from tools.policy import PermissionRow, RuleRow
from tools.redaction import NOTHING, Redactor

from .circuits import Circuits

KEPT = 512


@dataclass(frozen=True, slots=True)
class ReleaseView:
    """A release with its tools' definitions and compiled schemas at hand."""

    id: UUID
    agent: str
    number: int
    spec: ReleaseSpec
    tools: Mapping[str, ToolDefinition]
    offers: tuple[ToolOffer, ...]
    validators: Mapping[str, schemas.Validator]
    models: Mapping[str, Mapping[str, Any]]  # model -> its pinned fields; a model of a release from before has none
    credentials: Mapping[str, str]  # tool -> name of the credential, resolved in the run's tenant


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The controls of one tenant at one revision. A dispatch carries `rev`; the journal refuses it when it is no longer that."""

    tenant: UUID
    slug: str
    rev: int
    secret: bytes
    rows: tuple[PermissionRow, ...]
    rules: tuple[RuleRow, ...]
    enabled: frozenset[str]
    allow: frozenset[str]
    endpoints: Mapping[str, ModelEndpoint]
    lacking: Mapping[str, str]  # model -> the credential it names and this tenant does not have
    credentials: Mapping[str, Credential] = field(repr=False)
    moves: Mapping[UUID, UUID] = field(default_factory=dict)  # a release that was taken back -> the one its runs go on with
    switches: tuple[SwitchOn, ...] = ()  # kill switches that are on and concern this tenant
    redactor: Redactor = NOTHING  # of all its credentials: what comes from outside passes it before anything else sees it

    def policy_of(self, tool: str) -> str:
        """A hash of everything that people wrote about calls of this tool."""
        rows = [asdict(row) for row in self.rows if row.tool == tool]
        return hashlib.sha256(repr((rows, self.rules, tool in self.enabled)).encode()).hexdigest()[:32]


def load_release(release_id: UUID) -> ReleaseView:
    release = Release.objects.get(id=release_id)
    spec = ReleaseSpec.model_validate(release.spec)
    versions = ToolVersion.objects.select_related("tool").in_bulk([UUID(v) for v in release.tools.values()])
    tools = {v.tool_id: catalog.definition(v) for v in versions.values()}
    pins = ModelVersion.objects.filter(id__in=release.model_versions.values())
    return ReleaseView(
        release.id,
        release.agent_id,
        release.number,
        spec,
        tools,
        tuple(ToolOffer(t.name, t.description, dict(t.input_schema)) for name in spec.tools if (t := tools.get(name))),
        {name: schemas.compile(dict(t.input_schema)) for name, t in tools.items()},
        {version.model: pinned_fields(version.content) for version in pins},
        {v.tool_id: v.credential for v in versions.values() if v.credential},
    )


def pinned_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a version says of `ModelEndpoint`."""
    fields = {name: content[name] for name in ("provider", "base_url", "model", "timeout_s")}
    return fields | {"retry": RetryPolicy.from_json(content["retry"])}


def with_tool(view: ReleaseView, version_id: UUID) -> ReleaseView:
    """The release and one more tool, which undoes what the release did: for the one call of such a run, offered to no model."""
    version = ToolVersion.objects.select_related("tool").get(id=version_id)
    added = catalog.definition(version)
    credentials = {name: held for name, held in view.credentials.items() if name != added.name}
    return replace(
        view,
        tools={**view.tools, added.name: added},
        validators={**view.validators, added.name: schemas.compile(dict(added.input_schema))},
        credentials=credentials | ({added.name: version.credential} if version.credential else {}),
    )


def load_snapshot(tenant_id: UUID) -> Snapshot:
    tenant = Tenant.objects.get(id=tenant_id)
    rev = Controls.objects.get(tenant_id=tenant_id).rev  # read first: what changes after it makes the journal say `recheck`
    opened = open_all(tenant_id).values()
    credentials = {c.name: Credential(c.name, c.kind, c.secret, c.header, c.version) for c in opened}  # type: ignore[arg-type]
    models = list(ModelDefinition.objects.all())
    return Snapshot(
        tenant_id,
        tenant.slug,
        rev,
        bytes(tenant.secret),
        tuple(catalog.load_permissions(tenant.slug)),
        rules.load(tenant),
        catalog.enabled_tools(tenant.slug),
        frozenset(EgressAllow.objects.values_list("host_port", flat=True)),
        {m.name: endpoint(m, credentials) for m in models},
        {m.name: m.credential for m in models if m.credential and m.credential not in credentials},
        credentials,
        dict(ReleaseMove.objects.values_list("release_id", "to_id")),
        switches.active(tenant_id),
        Redactor(credentials.values()),
    )


def endpoint(model: ModelDefinition, credentials: Mapping[str, Credential]) -> ModelEndpoint:
    return ModelEndpoint(
        name=model.name,
        provider=model.provider,
        base_url=model.base_url,
        model=model.model,
        credential=credentials.get(model.credential),
        price=price_of(model.provider, model.model, model.price_input, model.price_output),
        timeout_s=model.timeout_s,
        retry=RetryPolicy.from_json(model.retry),
        max_concurrency=model.max_concurrency,
    )


class Definitions:
    """Caches of one engine. `orm` runs a function in the engine's own threads."""

    def __init__(self, orm: Callable[..., Any], circuits: Circuits) -> None:
        self.orm, self.circuits = orm, circuits
        self.releases: OrderedDict[UUID, ReleaseView] = OrderedDict()
        self.snapshots: dict[UUID, Snapshot] = {}

    async def release(self, release_id: UUID) -> ReleaseView:
        view = self.releases.get(release_id)
        if view is None:
            view = await self.orm(load_release, release_id)
            self.releases[release_id] = view
            if len(self.releases) > KEPT:
                self.releases.popitem(last=False)
        return view

    async def snapshot(self, tenant_id: UUID, rev: int | None = None) -> Snapshot:
        """The controls at `rev`; None: as they are now."""
        held = self.snapshots.get(tenant_id)
        if held is None or rev is None or held.rev != rev:
            held = await self.orm(load_snapshot, tenant_id)
            self.snapshots[tenant_id] = held
            await self.circuits.refresh()  # a person's word on a breaker is a change of the controls, too
        return held
