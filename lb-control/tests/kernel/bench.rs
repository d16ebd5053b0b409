//! That a million bindings can be listed while people wait.
