//! A million bindings can be listed while people wait.

use crate::{
    migrate::bind,
    sandbox::{SIZES, Sandbox},
};
use lb_control::dataplane::{DataPlane, Sizes};
use std::time::{Duration, Instant};

#[test]
fn a_million_bindings_are_filled_and_listed_within_seconds() {
    const MANY: u64 = 1_000_000;
    let sandbox = Sandbox::new();
    let mut plane = sandbox.open(Sizes { bindings: 1 << 20, ..SIZES });
    let start = Instant::now();
    for chunk in 0..MANY / 10_000 {
        bind(&mut plane, chunk * 10_000 + 1..=(chunk + 1) * 10_000);
    }
    let filled = start.elapsed();
    let start = Instant::now();
    let (mut count, mut cursor) = (0, None);
    loop {
        let page = plane.bindings(cursor, 8_192).expect("listed");
        count += page.rows.len() as u64;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let listed = start.elapsed();
    assert_eq!(count, MANY);
    println!("filled in {filled:?}, listed in {listed:?}");
    assert!(listed < Duration::from_secs(10), "listing took {listed:?}");
}
