"""How a person wants the console shown, and from where a key is taken."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models

from tenants.models import ApiKey, User


class Preference(models.Model):
    """Of a person, for every browser of theirs. Without a row everything is as `console.preferences.USUAL` says."""

    class Clock(models.TextChoices):
        HOURS_24 = "24", "24 hours: 17:05"
        HOURS_12 = "12", "12 hours: 05:05 pm"

    class Times(models.TextChoices):
        RELATIVE = "relative", "How long ago, within a day"
        ABSOLUTE = "absolute", "Always the time"

    class Density(models.TextChoices):
        COMFORTABLE = "comfortable", "Comfortable"
        COMPACT = "compact", "Compact: more rows on a screen"

    class Theme(models.TextChoices):
        AUTO = "auto", "As the system has it"
        LIGHT = "light", "Light"
        DARK = "dark", "Dark"

    user = models.OneToOneField(User, on_delete=models.CASCADE, primary_key=True, related_name="preference")
    own_zone = models.CharField(max_length=64, default="local")  # an IANA name, or `local`: the zone of the browser
    in_utc = models.BooleanField(default=True)  # the button in the top bar; their own zone is kept meanwhile
    clock = models.CharField(max_length=2, choices=Clock.choices, default=Clock.HOURS_24)
    times = models.CharField(max_length=8, choices=Times.choices, default=Times.RELATIVE)
    density = models.CharField(max_length=11, choices=Density.choices, default=Density.COMFORTABLE)
    theme = models.CharField(max_length=5, choices=Theme.choices, default=Theme.AUTO)
    single_keys = models.BooleanField(default=True)
    title_count = models.BooleanField(default=False)  # "(5) Runs": how many approvals wait
    desktop_notices = models.BooleanField(default=False)  # each browser asks its person once more

    def __str__(self) -> str:
        return str(self.user)


class KeyAllowlist(models.Model):
    """The networks that a key is taken from. A key without a row is taken from anywhere."""

    MOST: ClassVar[int] = 20
    key = models.OneToOneField(ApiKey, on_delete=models.CASCADE, primary_key=True, related_name="allowlist")
    networks = ArrayField(models.CharField(max_length=43))  # CIDR, one spelling each

    def __str__(self) -> str:
        return f"{self.key_id}: {', '.join(self.networks)}"
