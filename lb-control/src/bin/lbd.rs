//! lbd
fn main() {}
