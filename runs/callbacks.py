"""Where a run's caller wants to be told of its states. Checked when the run is accepted; `console.notify` does the telling."""

from typing import Annotated

from pydantic import Field, field_validator

from tenants.errors import Refused
from tenants.models import Credential, Tenant
from tools.catalog import check_reachable
from tools.spec import destination

from .limits import Strict


class Callback(Strict):
    """`secret_name`: the tenant's credential that signs, `whsec_` and base64 or any other text."""

    url: Annotated[str, Field(max_length=2000)]
    secret_name: Annotated[str, Field(min_length=1, max_length=100)]

    @field_validator("url")
    @classmethod
    def can_be_sent_to(cls, url: str) -> str:
        destination(url)
        return url


def check(tenant: Tenant, callback: Callback) -> None:
    """Refuses: egress_refused, callback_secret_missing 422. A name is judged by what it resolves to, each time it is called."""
    check_reachable(callback.url)
    if not Credential.objects.filter(tenant=tenant, name=callback.secret_name).exists():
        message = f"There is no credential {callback.secret_name} in this tenant to sign the callback with. An admin can add it."
        raise Refused("callback_secret_missing", message, secret_name=callback.secret_name)
