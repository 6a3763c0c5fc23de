"""The one exception that means: the user can fix this."""


class UserError(ValueError):
    """A mistake the user can correct; its text names file, key, value and the fix.

    Commands and stage scripts print it as one line and exit with code 2, without a traceback.
    """
