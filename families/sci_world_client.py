"""Py4J's client to a Java process, without its second try: what fails ends it, and leaves nothing open.

Py4J's own answers a lost connection by opening another and sending the command again. To a process
that is gone that leaves a socket to the collector and a traceback in the log; to one that lives, a
command that changes the world would be done twice. Not here: the process (``sci_world_jvm.py``).
"""

from __future__ import annotations

from py4j.java_gateway import GatewayClient, GatewayConnection, GatewayParameters, JavaGateway
from py4j.protocol import Py4JError

__all__ = ["Client", "Py4JError", "connected", "first_line"]


class Client(GatewayClient):  # type: ignore[misc]  # Py4J has no types
    """Sends each command once.

    Raises:
        Py4JNetworkError: the process cannot be reached, or did not answer; so does every later call.
    """

    def send_command(self, command: str, retry: bool = True, binary: bool = False) -> str:
        """Send a command and wait for its answer. Streams (``binary``) and retries are not used."""
        connection = self._get_connection()
        try:
            answer: str = connection.send_command(command)
        except BaseException:  # an interrupt too: the answer would be taken for the next command's
            connection.close(reset=True)
            self.end()
            raise
        self._give_back_connection(connection)
        return answer

    def end(self) -> None:
        """Close every connection and open no other. Twice is fine."""
        self.is_connected = False
        self.close()

    def _create_connection(self) -> GatewayConnection:
        connection = GatewayConnection(self.gateway_parameters, self.gateway_property)
        try:
            connection.start()
        except BaseException:
            connection.socket.close()
            self.end()
            raise
        return connection


def connected(port: int, token: str, seconds: float) -> tuple[JavaGateway, Client]:
    """The gateway to a Java process, and the client below it; neither reaches out yet.

    Args:
        port: Where it listens on the loopback device.
        token: What it wants to be greeted with.
        seconds: The longest wait for an answer.
    """
    parameters = GatewayParameters(
        port=port, auth_token=token, auto_field=False, read_timeout=seconds
    )
    gateway, client = (
        JavaGateway(gateway_parameters=parameters),
        Client(gateway_parameters=parameters),
    )
    gateway.set_gateway_client(client)
    return gateway, client


def first_line(error: Exception) -> str:
    """What an error says; Py4J asks the process for what a Java exception says."""
    try:
        return str(error).partition("\n")[0]
    except Py4JError:
        return "it ended before it said why"
