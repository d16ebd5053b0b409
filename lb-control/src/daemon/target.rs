//! Watches that the interfaces which packets leave by take what the program sends there: one that does not loses it silently.

use crate::admin::Facts;
use crate::dataplane::AttachMode;
use crate::net::interface::{Interface, name_of, takes_redirects};
use crate::reconcile::{Handle, HopState, View};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

/// When it looks again: the ways to the backends are known soon after the start, and the other end of a veth changes without notice.
const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(30);

/// Starts to look, now and then; ends with the reconciler.
pub(super) fn start(reconciler: &Handle, facts: watch::Sender<Facts>, tasks: &mut JoinSet<()>) {
    let reconciler = reconciler.clone();
    tasks.spawn(async move {
        let mut pause = SOON;
        while let Ok(view) = reconciler.view().await {
            note(&facts, warnings(&view).await);
            tokio::time::sleep(pause).await;
            pause = LATER;
        }
    });
}

/// Publishes the warnings, and logs what is new.
fn note(facts: &watch::Sender<Facts>, now: Vec<String>) {
    facts.send_if_modified(|facts| {
        if facts.warnings == now {
            return false;
        }
        now.iter().filter(|text| !facts.warnings.contains(text)).for_each(|text| warn!("{text}"));
        if now.is_empty() {
            info!("every interface takes what is sent to it");
        }
        facts.warnings = now;
        true
    });
}

/// A sentence for every interface that loses what is sent to it.
async fn warnings(view: &View) -> Vec<String> {
    // The stack's own way of sending needs nothing from the driver.
    if view.attachments.iter().all(|attachment| attachment.mode == AttachMode::Generic) {
        return Vec::new();
    }
    let targets = targets(view);
    let mut found = Vec::new();
    for &ifindex in &targets {
        match takes_redirects(ifindex) {
            Ok(Some(false)) => {}
            Ok(Some(true) | None) => continue,
            Err(error) => {
                debug!(ifindex, %error, "cannot ask whether the interface takes frames");
                continue;
            }
        }
        let Some(name) = name_of(ifindex) else { continue };
        let Ok(interface) = Interface::find(&name).await else { continue };
        let is_veth = interface.kind.as_deref() == Some("veth");
        // With one interface packets go back by the driver's own way, which every native program has; a veth has not.
        if is_veth || targets.len() > 1 {
            found.push(sentence(&interface, is_veth));
        }
    }
    found
}

/// Interfaces that packets leave by.
pub(super) fn targets(view: &View) -> BTreeSet<u32> {
    let attached = view.attachments.iter().map(|attachment| attachment.ifindex);
    let ways =
        view.services.iter().flat_map(|service| &service.backends).filter_map(|backend| match backend.hop {
            HopState::Resolved { hop, .. } => Some(hop.ifindex),
            HopState::Unresolved => None,
        });
    attached.chain(ways).collect()
}

fn sentence(interface: &Interface, is_veth: bool) -> String {
    let name = &interface.name;
    if is_veth {
        return format!(
            "interface {name} loses what the program sends there: the other end of this veth takes frames only with GRO (`ethtool -K PEER gro on` \
             in its namespace) or an XDP program of its own, and {name} needs as many receive queues as that end has transmit queues"
        );
    }
    let driver = interface.driver.as_deref().or(interface.kind.as_deref()).unwrap_or("unknown");
    format!(
        "interface {name} loses what the program sends there: its driver ({driver}) does not take redirected frames; name it in `interfaces`, since some drivers \
         take them only with a program attached, or start lbd with `--mode skb`"
    )
}
