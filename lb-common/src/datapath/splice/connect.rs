//! The program that chooses the backend and sends it a SYN.
use super::super::{Env, Verdict, count};
use crate::abi::Outcome;
#[inline(always)]
pub(crate) fn run<E: Env>(env: &E) -> Verdict {
    count::end(env, Outcome::NotHeld)
}
