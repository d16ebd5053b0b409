//! Backends die in every way there is: they are found out in time, and each of their sessions goes where the order says.

mod addresses;
mod deaths;
mod failback;
mod farm;
mod flapping;
mod kinds;
mod load;
mod maintenance;
mod nodes;
mod paces;
mod thresholds;
mod ways;
