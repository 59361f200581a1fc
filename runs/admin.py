"""The admin of this room: agents and their releases, models, and runs to look at."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from pydantic import ValidationError

from tenants import controls
from tenants.by_tenant import SEEN_TENANTS, ByTenant, ReadOnly
from tenants.errors import Refused
from tenants.roles import Role
from tools.acting import acting
from tools.catalog import check_reachable

from . import releases
from .catalog import ModelSpec
from .models import Agent, ModelDefinition, Release, Run

if TYPE_CHECKING:
    Form = forms.ModelForm[Any]
else:
    Form = forms.ModelForm


@admin.register(Agent)
class AgentPage(ReadOnly):
    tenant_path = None
    list_display = ("name", "live", "tenants", "created_at")
    list_select_related = ("live",)
    search_fields = ("name",)
    ordering = ("name",)
    actions = ("roll_back",)

    @admin.action(description="Roll back to the release that was live before", permissions=["view"])
    def roll_back(self, request: HttpRequest, queryset: QuerySet[Agent]) -> None:
        for agent in queryset:
            try:
                previous = releases.rollback(acting(request, None), agent.live or agent)
            except Refused as refused:
                messages.error(request, refused.message)
            else:
                messages.success(request, f"{previous} is live again.")


@admin.register(Release)
class ReleasePage(ReadOnly):
    tenant_path = None
    list_display = ("agent", "number", "live", "sha256", "created_by", "created_at")
    list_filter = ("agent",)
    list_select_related = ("agent", "created_by")
    ordering = ("-id",)
    actions = ("promote",)

    @admin.display(boolean=True)
    def live(self, release: Release) -> bool:
        return release.agent.live_id == release.id

    @admin.action(description="Promote: new runs of the agent get this release", permissions=["view"])
    def promote(self, request: HttpRequest, queryset: QuerySet[Release]) -> None:
        if queryset.count() != 1:
            messages.error(request, "Choose one release.")
            return
        release = queryset.get()
        try:
            moved = releases.promote(acting(request, None), release)
        except Refused as refused:
            messages.error(request, refused.message)
        else:
            messages.success(request, f"{release} is live." if moved else f"{release} was live already.")


class ModelForm(Form):
    def clean(self) -> dict[str, Any] | None:
        data = super().clean() or {}
        fields = {key: data[key] for key in ModelSpec.model_fields if data.get(key) not in (None, "")}
        prices = {"input": data.get("price_input"), "output": data.get("price_output")}
        if any(price is not None for price in prices.values()):
            fields["price_per_mtok_usd"] = prices
        try:
            check_reachable(ModelSpec.model_validate(fields).base_url)
        except ValidationError as error:
            for found in error.errors(include_url=False, include_input=False):
                self.add_error(None, f"{'.'.join(str(part) for part in found['loc'])}: {found['msg']}")
        except Refused as refused:
            self.add_error(None, refused.message)
        return data


@admin.register(ModelDefinition)
class ModelDefinitionPage(ByTenant):
    tenant_path = None
    change_role = None
    fixed = ("name",)
    form = ModelForm
    audited = (
        "name",
        "provider",
        "base_url",
        "model",
        "credential",
        "tier",
        "price_input",
        "price_output",
        "timeout_s",
        "retry",
        "max_concurrency",
    )
    fields = audited
    list_display = ("name", "provider", "model", "base_url", "tier", "price_input", "price_output", "timeout_s")
    ordering = ("name",)

    def touched(self, obj: ModelDefinition) -> None:
        controls.bump(None)


@admin.register(Run)
class RunPage(ReadOnly):
    """To find a run by its row; the console shows what happened in it."""

    view_role = Role.VIEWER
    list_display = ("run_id", "tenant", "agent", "state", "outcome", "step", "cost_micro", "created_at")
    list_filter = (SEEN_TENANTS, "state", ("agent", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("tenant", "agent")
    ordering = ("-id",)
    show_full_result_count = False
