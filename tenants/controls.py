"""The revision each dispatch is checked against. Whoever changes what a run may do bumps it in the same transaction."""

from contextlib import nullcontext

from django.db import connection

from .models import Controls, Tenant
from .scope import installation_wide

UPSERT = """
insert into controls (tenant_id, rev)
select id, 2 from tenants_tenant where %(tenant)s::uuid is null or id = %(tenant)s::uuid order by id
on conflict (tenant_id) do update set rev = controls.rev + 1
"""


def bump(tenant: Tenant | None) -> None:
    """Every decision made before this is made again. None: in every tenant, for what belongs to the installation."""
    with installation_wide() if tenant is None else nullcontext(), connection.cursor() as cursor:
        cursor.execute(UPSERT, {"tenant": tenant.id if tenant else None})


def ensure(tenant: Tenant) -> None:
    """A new tenant gets its row, so that engines find a revision."""
    Controls.objects.get_or_create(tenant=tenant)
