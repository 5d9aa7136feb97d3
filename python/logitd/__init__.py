"""logitd: next-token distributions of every position of a text.

    import logitd

    with logitd.Server("smollm2") as server, server.client() as client:    # or logitd.Client("http://…")
        dist = client.distribution("The capital of France is", temperatures=[0.5, 1])
        print(dist.top())                      # the most likely tokens after the last one
        print(dist.entropy, dist.surprisal)    # NumPy arrays [positions, temperatures], nats

In a notebook a distribution shows itself as coloured text; ``logitd.widget(dist, client)`` adds hover and a temperature
slider. ``python -m logitd "a text"`` prints it in a terminal.
"""

from logitd._replies import FullRows, Position
from logitd._requests import Retry
from logitd._widget import widget
from logitd.async_client import AsyncClient
from logitd.client import Client
from logitd.distribution import (
    Candidate,
    Distribution,
    NotAsked,
    Summary,
    Token,
    kl_divergence,
    load,
    log_softmax,
)
from logitd.errors import (
    ApiError,
    BadRequest,
    Busy,
    ConnectionFailed,
    LogitdError,
    ServerFailed,
    ServerStartFailed,
    TooLarge,
    Unauthorized,
)
from logitd.server import Server
from logitd.vocab import Vocab

__version__ = "0.1.0"
__all__ = [
    "ApiError",
    "AsyncClient",
    "BadRequest",
    "Busy",
    "Candidate",
    "Client",
    "ConnectionFailed",
    "Distribution",
    "FullRows",
    "LogitdError",
    "NotAsked",
    "Position",
    "Retry",
    "Server",
    "ServerFailed",
    "ServerStartFailed",
    "Summary",
    "Token",
    "TooLarge",
    "Unauthorized",
    "Vocab",
    "kl_divergence",
    "load",
    "log_softmax",
    "widget",
]
