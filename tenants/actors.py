"""Who is acting: one value for every surface (key, session, command line)."""

from dataclasses import dataclass

from .errors import Refused
from .models import Tenant, User
from .roles import Role, at_least, may
from .scope import ALL, Tenants


@dataclass(frozen=True, slots=True)
class Actor:
    """A person in a tenant with a role, narrowed by a key's scopes (None: not narrowed)."""

    user: User
    tenant: Tenant
    role: str
    scopes: frozenset[str] | None = None
    request_id: str = ""

    @property
    def platform_admin(self) -> bool:
        return self.user.is_platform_admin

    def can(self, scope: str) -> bool:
        """By role and by key, both; a platform admin has every role."""
        by_role = self.platform_admin or may(self.role, scope)
        return self.user.is_active and by_role and (self.scopes is None or scope in self.scopes)

    def has_role(self, needed: Role) -> bool:
        return self.platform_admin or at_least(self.role, needed)

    def need(self, scope: str) -> None:
        """Raises Refused(403) unless `can(scope)`."""
        if not self.can(scope):
            raise Refused("scope_missing", f"This needs the scope {scope}, held by your role and your key.", 403, scope=scope)

    def sees(self, tenant_id: object) -> bool:
        return self.platform_admin or tenant_id == self.tenant.id

    @property
    def tenants(self) -> Tenants:
        """Whose rows this actor may meet at all: what `tenants.scope` is told."""
        return ALL if self.platform_admin else (self.tenant.id,)
