"""Who must have a second factor, and who has one."""

from allauth.mfa.models import Authenticator
from django.conf import settings

from tenants.models import User
from tenants.roles import Role

Kind = Authenticator.Type


def kinds(user: User) -> set[str]:
    """What the person has besides the password; recovery codes alone are nothing."""
    return set(Authenticator.objects.filter(user=user).exclude(type=Kind.RECOVERY_CODES).values_list("type", flat=True))


def owed(user: User) -> bool:
    """Whether nothing works for this person before they have set up a second factor."""
    return required(user) and not kinds(user)


def required(user: User) -> bool:
    """Of everybody above viewer, where REQUIRE_MFA is on."""
    return bool(settings.REQUIRE_MFA) and (user.is_platform_admin or user.is_staff or above_viewer(user))


def above_viewer(user: User) -> bool:
    return user.memberships.exclude(role=Role.VIEWER).exists()
