"""What decides: the Policy interface and its implementations. Of `hal`, only `hal.spec` is known here."""
