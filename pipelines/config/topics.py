"""The part of the configuration about a Kafka topic that rows come from."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from pipelines.config.alert_channels import Secret
from pipelines.config.values import Section

_SECRET = re.compile(r"password|secret|\.key\.pem$|token", re.IGNORECASE)


class TopicSection(Section):
    """A topic whose messages are JSON objects; the extra `stream` reads it."""

    name: str = Field(min_length=1)
    """The topic."""

    servers: str = Field(min_length=1)
    """Some brokers as host:port, separated by commas."""

    client: dict[str, str] = Field(default={})
    """Settings of librdkafka, such as security.protocol: SASL_SSL."""

    secrets: dict[str, Secret] = Field(default={})
    """Settings of librdkafka that are secret, such as sasl.password: "${KAFKA_PASSWORD}" or file:PATH."""

    @field_validator("client", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """A number or a truth value as librdkafka writes it."""
        if not isinstance(value, dict):
            return value
        return {
            name: str(each).lower() if isinstance(each, bool | int | float) else each for name, each in value.items()
        }

    @field_validator("client")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if _SECRET.search(name):
                raise ValueError(f"{name} is a secret. Write it under `secrets`, as ${{NAME}} or file:PATH.")
        return value

    @property
    def settings(self) -> dict[str, str]:
        """All settings of librdkafka; a missing secret is an error now."""
        return self.client | {name: secret.get_secret_value() for name, secret in self.secrets.items()}
