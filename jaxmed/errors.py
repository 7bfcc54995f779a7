"""The one exception for what a user can fix."""


class UserError(ValueError):
    """Something in the input, the configuration or the workdir is wrong; the message names it and the fix."""
