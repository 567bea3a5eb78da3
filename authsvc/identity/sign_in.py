"""Sign-ins that the OpenID provider or the directory decides, up to the user of this service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from authsvc.errors import Conflict, Forbidden, Unauthenticated
from authsvc.identity.admission import admit
from authsvc.identity.ldap import Directory
from authsvc.identity.oidc import Provider

if TYPE_CHECKING:
    from collections.abc import Mapping

    from authsvc.activity.failed_sign_ins import FailedSignIns
    from authsvc.identity.confirmed import ConfirmedIdentity
    from authsvc.identity.oidc import PendingSignIn
    from authsvc.policy.snapshot import UserPolicy
    from authsvc.settings import Settings
    from authsvc.storage.policy_cache import PolicyCache


class ExternalSignIns:
    """The provider and the directory of the settings, each None if there is none.

    `slots` is how many sign-ins may wait for each of them at a time.
    """

    def __init__(self, settings: Settings, policy: PolicyCache, slots: int, failures: FailedSignIns) -> None:
        self.provider = Provider(settings, slots) if settings.oidc_issuer else None
        self.directory = Directory(settings, slots) if settings.ldap_url else None
        self._policy = policy
        self._failures = failures

    def with_provider(
        self,
        provider: Provider,
        pending: PendingSignIn,
        answer: Mapping[str, str],
        redirect_uri: str,
        address: str | None,
    ) -> tuple[UserPolicy, str]:
        """Return the user with whom the browser comes back from the provider, and the ID token.

        Errors are those of `Provider.finish` and `admit`.
        """
        confirmed = provider.finish(pending, answer, redirect_uri)
        return self._admitted(confirmed.identity, address), confirmed.id_token

    def with_directory_password(self, username: str, password: str, address: str | None) -> UserPolicy | None:
        """Return the user of the directory with these credentials; None if they are wrong.

        Other errors are those of `Directory.confirm` and `admit`.
        """
        identity = self.directory.confirm(username, password) if self.directory else None
        return self._admitted(identity, address) if identity else None

    def _admitted(self, identity: ConfirmedIdentity, address: str | None) -> UserPolicy:
        try:
            username = admit(identity, address)
        except (Forbidden, Conflict, Unauthenticated) as error:
            self._failures.note(identity.username or "", address, error.code)
            raise
        self._policy.catch_up()
        return self._policy.snapshot.users[username]
