//! A data plane that fails on purpose.
