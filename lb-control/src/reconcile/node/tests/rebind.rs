//! Who moves the sessions of a backend that stops serving.

use super::*;
use crate::reconcile::spawn;

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
