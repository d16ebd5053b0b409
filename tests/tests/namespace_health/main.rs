//! Backends die in every way there is: they are found out in time, and each of their sessions goes where the order says.

mod failures;
mod farm;
mod load;
mod maintenance;
mod ways;
