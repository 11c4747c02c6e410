"""Where compiled programs are kept."""

import os

from hallujax import paths

LEAST_SECONDS = 0.1  # of compilation that are worth a file: jax's own second leaves small networks' programs out


def compile_cache() -> None:
    """Keeps compiled programs between runs, on a local disk; `JAX_COMPILATION_CACHE_DIR` says where else."""
    import jax

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(paths.cache("xla")))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
