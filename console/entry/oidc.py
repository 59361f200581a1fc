"""Sign-in through the operator's identity provider. It opens the door to who is a user here already, and makes nobody.

The exchange of the code is allauth's, over `requests`: with the issuer that the environment names, and nobody else (docs/adr/0002).
"""

from typing import Any

from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.providers.openid_connect import views
from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import resolve_url
from django.views.decorators.http import require_safe
from requests import RequestException, Session

from tenants.models import User

PROVIDER = "oidc"
TIMEOUT_S = 10


class Impatient(Session):
    """No answer is no sign-in, soon; and a redirect leads nowhere else."""

    def request(self, *args: Any, **kwargs: Any) -> Any:
        kwargs |= {"timeout": TIMEOUT_S, "allow_redirects": False}
        return super().request(*args, **kwargs)


class Adapter(DefaultSocialAccountAdapter):
    """`SOCIALACCOUNT_ADAPTER`. Everything ends here: allauth neither signs in nor stores an account."""

    def get_requests_session(self) -> Session:
        made = Impatient()
        made.trust_env = False
        return made

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return False

    def pre_social_login(self, request: HttpRequest, sociallogin: Any) -> None:
        from console.pages.session import admitted

        user = person(sociallogin.account.extra_data)
        next_url = str(sociallogin.state.get("next") or "")
        raise ImmediateHttpResponse(admitted(request, user, "identity provider", next_url) if user else refused())

    def on_authentication_error(self, request: HttpRequest, provider: Any, *args: Any, **kwargs: Any) -> None:
        raise ImmediateHttpResponse(refused())


def person(claims: dict[str, Any]) -> User | None:
    """The one active user with the e-mail address that the provider has verified. Two of them: nobody."""
    token, info = claims.get("id_token") or {}, claims.get("userinfo") or {}
    if token and info and token.get("sub") != info.get("sub"):
        return None
    said = info or token
    email = said.get("email")
    if said.get("email_verified") is not True or not isinstance(email, str) or not email.strip():
        return None
    found = list(User.objects.filter(email__iexact=email.strip(), is_active=True)[:2])
    return found[0] if len(found) == 1 else None


def refused() -> HttpResponse:
    return HttpResponseRedirect(f"{resolve_url('sign-in')}?refused=1")


@require_safe
def begin(request: HttpRequest, provider_id: str) -> HttpResponse:
    """To the provider. A link of another site does not start it."""
    if not settings.OIDC_ISSUER:
        raise Http404
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return HttpResponseRedirect(resolve_url("sign-in"))
    return answered(views.login, request, provider_id)


@require_safe
def back(request: HttpRequest, provider_id: str) -> HttpResponse:
    """From the provider, with a code and the state that the session knows."""
    if not settings.OIDC_ISSUER:
        raise Http404
    return answered(views.callback, request, provider_id)


def answered(view: Any, request: HttpRequest, provider_id: str) -> HttpResponse:
    try:
        answer: HttpResponse = view(request, provider_id)
    except (RequestException, KeyError, ValueError):
        return refused()
    return answer
