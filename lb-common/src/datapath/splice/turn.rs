//! The program that turns a backend's answer round.
use super::super::{Env, Verdict, count};
use crate::abi::Outcome;
#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    count::end(env, Outcome::Swallowed)
}
