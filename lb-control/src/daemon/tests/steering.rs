//! What an administrator says to one node of a cluster holds on all of them.

use super::cluster::{DOWN, invitation, join, node, node_over};
use super::drain::{sessions, wait_until};
use super::*;
use lb_core::health::State;
use std::time::Duration;
use tokio::time::sleep;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_one_node_holds_on_all() {
    let (a, b) = join(node("lb1").await, node("lb2").await).await;
    a.lbctl("drain web be2").await.unwrap();
    b.sees(|row| row["admin"] == "draining").await;
    // Who comes later hears of it, too.
    let c = node("lb3").await;
    let command = invitation(&a.lbctl("cluster token").await.unwrap());
    c.lbctl(&command).await.unwrap();
    c.sees(|row| row["admin"] == "draining").await;
    c.lbctl("weight web be2 7").await.unwrap();
    a.sees(|row| row["weight"] == 7 && row["admin"] == "draining").await;
    b.lbctl("undrain web be2").await.unwrap();
    for rig in [&a, &c] {
        rig.sees(|row| row["admin"] == "enabled" && row["weight"] == 7).await;
    }
    b.lbctl("maintenance web be2").await.unwrap();
    for rig in [&a, &c] {
        rig.sees(|row| row["admin"] == "disabled" && row["state"] == "down").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_sessions_go_back_once_and_only_where_all_nodes_see_their_backend() {
    const COUNT: usize = 60;
    let (slot, generation) = place("be2").await;
    // They have been idle for two hours of three.
    let all: Vec<_> = (0..COUNT as u32).map(|n| (0x0a00_0000 + n, slot, generation)).collect();
    let lines = "lifetime = \"3h\"\nhealth = { kind = \"tcp\", failback = \"when-idle\", idle = \"30m\" }";
    let (a, b) = join(node_over("lb1", lines, "", &all).await, node_over("lb2", lines, "", &[]).await).await;
    let moved = |rows: &[(String, String, u64)]| rows.iter().filter(|row| row.2 == 2).count();
    wait_until(&b, |rows| rows.len() == COUNT).await;
    for rig in [&a, &b] {
        rig.finds(DOWN).await;
    }
    for rig in [&a, &b] {
        wait_until(rig, |rows| rows.len() == COUNT && rows.iter().all(|row| row.1 == "be1" && row.2 == 1))
            .await;
    }
    a.finds(State::Up).await;
    sleep(Duration::from_secs(12)).await;
    for rig in [&a, &b] {
        assert_eq!(moved(&sessions(rig).await), 0, "one of the two cannot reach it");
    }
    b.finds(State::Up).await;
    // The weight of their first is three of four.
    wait_until(&a, |rows| moved(rows) > COUNT / 2).await;
    sleep(Duration::from_secs(12)).await;
    let there = sessions(&a).await;
    assert!(there.iter().all(|row| (row.1 == "be2") == (row.2 == 2)), "{there:?}");
    wait_until(&b, |rows| *rows == *there).await;
}
