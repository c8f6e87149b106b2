"""Why a policy succeeds in one place and fails in another: traces of its inference, and what is compared."""
