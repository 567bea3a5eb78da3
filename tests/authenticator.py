"""An authenticator app (TOTP) with the secret of one user."""

from __future__ import annotations

import time

import pyotp


class Authenticator:
    """Shows codes; each call of `next_code` shows one of a later time step, as if the user had waited for it.

    The service accepts the codes of the step before the present one, of this one and of the next. So only the first
    two codes are accepted unless time passes.
    """

    def __init__(self, secret: str) -> None:
        self._codes = pyotp.TOTP(secret)
        self._last_step = 0

    def code(self, steps: int = 0) -> str:
        """Return the code of the present time step, or of one that many steps later."""
        return self._codes.at(time.time(), counter_offset=steps)

    def next_code(self) -> str:
        self._last_step = max(self._last_step + 1, self._codes.timecode(time.time()))
        return self._codes.generate_otp(self._last_step)

    def wrong_code(self) -> str:
        """Return a code of none of the accepted time steps."""
        accepted = {self.code(steps) for steps in range(-2, 4)}
        return next(code for code in ("000000", "111111", *map(str, range(222_222, 222_300))) if code not in accepted)
