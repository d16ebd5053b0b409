//! Holds: room for bytes that wait.

use super::super::Env;
use super::super::flow::Live;

/// Gives back the hold of a flow that is over.
#[inline(never)]
pub(crate) fn abandon<E: Env>(_env: &E, _live: &Live) {}
