"""Mail by SMTP: text and HTML, with a sparkline of the risk."""

from __future__ import annotations

import io
import smtplib
import socket
import ssl
from collections.abc import Sequence
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from pipelines.alerts.message.message import Message
from pipelines.alerts.message.templating import render
from pipelines.alerts.network.addresses import ForbiddenAddressError, IpNetwork, networks_of
from pipelines.alerts.network.connection import Deadline, dial
from pipelines.alerts.network.errors import DeliveryError
from pipelines.config.alert_channels import EmailSection
from pipelines.config.alerting import AlertsSection


def mail_of(
    message: Message, *, sender: str, to: Sequence[str], now: datetime, templates: Path | None = None
) -> EmailMessage:
    """The mail about an alert; its Message-ID is the alert's id, so mail programs can tell a second copy."""
    domain = sender.rpartition("@")[2].rstrip(">")
    mail = EmailMessage()
    mail["Subject"] = " ".join(message.title.split())[:200]
    mail["From"], mail["To"] = sender, ", ".join(to)
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{message.id}@{domain}>"
    if message.kind in ("worse", "again", "recovered"):
        mail["References"] = f"<{message.incident}@{domain}>"
    mail["X-Alert-Severity"] = message.severity
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(render("text.j2", message, folder=templates))
    mail.add_alternative(render("mail.html.j2", message, folder=templates), subtype="html")
    return mail


class EmailChannel:
    """Sends mail, each over a connection of its own.

    - ``section``: Server, account and addresses.
    - ``timeout``: Seconds to wait.
    - ``allowed``: Private networks that may be sent to; mail servers are often in one.
    - ``templates``: A folder with templates of your own.
    - ``context``: Another one than the system's, for tests.
    """

    def __init__(
        self,
        section: EmailSection,
        *,
        timeout: float,
        allowed: Sequence[IpNetwork],
        templates: Path | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.section = section
        self._timeout = timeout
        self._allowed = allowed
        self._templates = templates
        self._context = context

    def send(self, message: Message, *, now: datetime) -> None:
        """Send one mail to all.

        Raises ``DeliveryError`` if the server did not take it.
        """
        section = self.section
        mail = mail_of(message, sender=section.sender, to=section.to, now=now, templates=self._templates)
        try:
            with self._connect() as server:
                if section.password is not None:
                    server.login(section.user, section.password.get_secret_value())
                refused = server.send_message(mail)
        except smtplib.SMTPAuthenticationError as error:
            raise DeliveryError(f"{section.host} does not accept the user and the password any more.") from error
        except smtplib.SMTPRecipientsRefused as error:
            raise DeliveryError(f"{section.host} refused all recipients.", kind=_kind(error)) from error
        except smtplib.SMTPResponseException as error:
            permanent = isinstance(error, smtplib.SMTPDataError) and error.smtp_code >= 500
            raise DeliveryError(
                f"{section.host} answered {error.smtp_code}.", kind="refused" if permanent else "later"
            ) from error
        except ForbiddenAddressError as error:
            raise DeliveryError(str(error)) from error
        except ssl.SSLCertVerificationError as error:
            raise DeliveryError(f"The certificate of {section.host} is not to be trusted.") from error
        except (OSError, smtplib.SMTPException) as error:
            raise DeliveryError(f"{section.host} cannot be used: {type(error).__name__}.") from error
        if refused:  # some have it: sending again would reach them twice
            raise DeliveryError(
                f"{section.host} refused {', '.join(sorted(refused))}; the others have it.", kind="refused"
            )

    def close(self) -> None:
        """Nothing is held."""

    def _connect(self) -> smtplib.SMTP:
        section, context = self.section, self._context or ssl.create_default_context()
        if section.tls == "tls":
            return _SmtpTls(section.host, section.port, allowed=self._allowed, timeout=self._timeout, context=context)
        server = _Smtp(section.host, section.port, allowed=self._allowed, timeout=self._timeout)
        if section.tls == "starttls":
            try:
                server.starttls(context=context)
            except BaseException:
                server.close()
                raise
        return server


class _Replies(io.RawIOBase):
    """What a server sends, each piece read within what is left of the deadline: smtplib's own file knows none."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._deadline.left())
        return self._connection.recv_into(buffer)


class _Smtp(smtplib.SMTP):
    """Connects to allowed addresses only, and ends with a deadline. The methods are smtplib's own hooks for this."""

    def __init__(self, host: str, port: int, *, allowed: Sequence[IpNetwork], timeout: float) -> None:
        self._allowed = allowed
        self._deadline = Deadline(3 * timeout, step=timeout)
        super().__init__(host, port, timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        del timeout
        return dial(host, port, deadline=self._deadline, allowed=self._allowed)

    def send(self, s: Any) -> None:
        """Send before the deadline."""
        if self.sock is not None:
            self.sock.settimeout(self._deadline.left())
        super().send(s)

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply before the deadline."""
        if self.file is None and self.sock is not None:
            self.file = io.BufferedReader(_Replies(self.sock, self._deadline))
        return super().getreply()


class _SmtpTls(_Smtp):
    """With TLS from the first byte."""

    def __init__(
        self, host: str, port: int, *, allowed: Sequence[IpNetwork], timeout: float, context: ssl.SSLContext
    ) -> None:
        self._context = context
        super().__init__(host, port, allowed=allowed, timeout=timeout)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        return self._context.wrap_socket(super()._get_socket(host, port, timeout), server_hostname=host)


def _kind(error: smtplib.SMTPRecipientsRefused) -> Any:
    codes = [code for code, _ in error.recipients.values()]
    return "refused" if codes and all(code >= 500 for code in codes) else "later"


def open_channel(section: EmailSection, alerts: AlertsSection, number: int) -> EmailChannel:
    """The channel of a configuration."""
    del number
    return EmailChannel(
        section,
        timeout=alerts.retry.timeout,
        allowed=networks_of(alerts.allow_addresses),
        templates=alerts.templates,
    )
