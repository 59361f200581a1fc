"""HTTP and WebSockets of one web process."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

from django.core.asgi import get_asgi_application

http = get_asgi_application()

from channels.routing import ProtocolTypeRouter  # noqa: E402

from console.api.gateway import BodyLimit  # noqa: E402

application = ProtocolTypeRouter({"http": BodyLimit(http)})
