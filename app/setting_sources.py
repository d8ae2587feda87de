"""The variables of the settings, and where the value of each came from."""

from __future__ import annotations

from pydantic import AliasChoices
from pydantic_settings import DotEnvSettingsSource, EnvSettingsSource

from app.settings import PREFIX, Settings


def environment_name(name: str) -> str:
    """Return the environment variable of a setting."""
    alias = Settings.model_fields[name].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return f"{PREFIX}{name}".upper()


def sources(settings: Settings) -> dict[str, str]:
    """Return, for each setting, where its value came from: environment, .env file or default."""
    from_env = EnvSettingsSource(Settings)()
    from_file = DotEnvSettingsSource(Settings)()
    found: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        keys = {name}
        if isinstance(field.validation_alias, AliasChoices):
            keys |= {str(choice) for choice in field.validation_alias.choices}
        if keys & from_env.keys():
            found[name] = "environment"
        elif keys & from_file.keys():
            found[name] = ".env file"
        elif getattr(settings, name) != field.get_default(call_default_factory=False):
            found[name] = "command line"
        else:
            found[name] = "default"
    return found
