"""HTTP and WebSockets of one web process."""

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "console.settings")

from django.conf import settings

if not settings.configured:  # else the settings of whoever imports this hold
    os.environ.setdefault("SIGNALBOX_ROLE", "web")

from django.core.asgi import get_asgi_application

http = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import WebsocketDenier  # noqa: E402
from django.urls import path, re_path  # noqa: E402

from console.api.gateway import BodyLimit  # noqa: E402
from console.csp import RefusedSockets  # noqa: E402
from console.live.consumer import Live  # noqa: E402

sockets = RefusedSockets(URLRouter([path("ws", Live.as_asgi()), re_path("", WebsocketDenier.as_asgi())]))

application = ProtocolTypeRouter({"http": BodyLimit(http), "websocket": sockets})  # type: ignore[arg-type]
