//! Who moves the sessions of a backend that stops serving.

use super::*;
use crate::reconcile::replication::Report;
use crate::reconcile::spawn;
use lb_common::abi::BindingWord;

/// So many requests that what else is to be done was chosen between two of them.
const REQUESTS: usize = 100;

/// Whether the reconciler goes through the table when a backend stops serving.
async fn moves(is_clustered: bool) -> bool {
    let plane = Shared::new();
    let (handle, thread) = spawn(Box::new(plane.clone()), None).expect("it starts");
    handle.apply(two_services()).await.expect("applied");
    let feed = match is_clustered {
        true => Some(handle.replicate().await.expect("the reconciler runs")),
        false => None,
    };
    handle.set_admin("s1", "b1", Some(Admin::Disabled)).await.expect("taken out");
    for _ in 0..REQUESTS {
        handle.outcomes().await.expect("counted");
    }
    drop((handle, feed));
    thread.join().expect("it ends when nobody needs it");
    plane.lock().calls().contains(&Operation::Rebind)
}

#[tokio::test]
async fn sessions_are_moved_at_once_on_a_single_node_only() {
    assert!(moves(false).await);
    assert!(!moves(true).await, "others may reach the backend");
}

#[tokio::test]
async fn a_walk_tells_of_uses_before_the_binding_was_acknowledged_too() {
    const HOUR: u64 = 3_600_000_000_000;
    let mut desired = two_services();
    desired.services.iter_mut().for_each(|service| service.lifetime = Duration::from_nanos(HOUR));
    let (word, began) = (BindingWord::new(0, 1, 0), crate::dataplane::clock::monotonic_ns());
    // One was used since the walk before this, and of two that are not acknowledged one was, too.
    let mut plane = Memory::new(SIZES);
    for (session, word, left) in [
        (1, word, HOUR / 120),
        (2, word, HOUR * 2),
        (3, word.with(BindingWord::UNSYNCED), HOUR / 120),
        (4, word.with(BindingWord::UNSYNCED), HOUR * 2),
    ] {
        plane.bind(BindingKey::new(desired.services[0].id, session), word, began + left);
    }
    let (handle, _thread) = spawn(Box::new(plane), None).expect("it starts");
    handle.apply(desired).await.expect("applied");
    let mut feed = handle.replicate().await.expect("the reconciler runs");
    feed.page(None, Some(began)).await.expect("asked");
    let rows = loop {
        match feed.report().await.expect("the reconciler runs") {
            Report::Page(part) => break part.expect("read").rows,
            Report::Made(_) => feed.done(),
            _ => {}
        }
    };
    let mut found: Vec<u64> = rows.iter().map(|held| held.key.session).collect();
    found.sort_unstable();
    assert_eq!(found, [2, 4]);
}
