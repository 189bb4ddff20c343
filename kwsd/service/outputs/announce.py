"""Announces the Wyoming service on the local network (mDNS), where Home Assistant finds it."""

import logging
import socket
from ipaddress import ip_address

from zeroconf import Error
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

log = logging.getLogger("kwsd")

_TYPE = "_wyoming._tcp.local."
_MDNS = ("224.0.0.251", 5353)


class Announcement:
    """The announcement of a listening socket."""

    def __init__(self) -> None:
        self._zeroconf: AsyncZeroconf | None = None

    async def start(self, listener: socket.socket) -> None:
        """Announce. A network that does not allow it costs the announcement, which is logged."""
        host, port = listener.getsockname()[:2]
        machine = socket.gethostname().partition(".")[0]
        name, server = f"kwsd on {machine}.{_TYPE}", f"{machine}-kwsd.local."
        try:
            address = _own_address() if ip_address(host).is_unspecified else host
            info = AsyncServiceInfo(_TYPE, name, port, parsed_addresses=[address], server=server)
            self._zeroconf = AsyncZeroconf()
            await self._zeroconf.async_register_service(info, allow_name_change=True)
        except (OSError, Error) as error:
            log.warning("zeroconf: wyoming is not announced (%s)", error)

    async def stop(self) -> None:
        if self._zeroconf:
            await self._zeroconf.async_close()


def _own_address() -> str:
    """The address of this machine in the network of mDNS. Nothing is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_MDNS)
        return str(probe.getsockname()[0])
