//! Bounds that hold whatever peers do.

use super::Node;
use crate::binding::StreamId;

impl Node {
    /// Whether a stream was forgotten because everyone has all of it.
    pub(super) fn has_dropped(&self, stream: StreamId) -> bool {
        self.dropped.contains_key(&stream)
    }

    /// What takes more memory than it may.
    pub(super) fn over_limits(&self) -> Option<String> {
        for (id, stream) in &self.streams {
            let is_own = id.node == self.config.id;
            let most = if is_own { self.config.log_events } else { self.config.cache_events };
            // Events that are not durable yet cannot be forgotten.
            let waiting = stream.log.last() - stream.sendable();
            if stream.log.len() as u64 > most as u64 * 9 / 8 + 1 + waiting {
                return Some(format!("{} events of {id:?} are kept, limit {most}", stream.log.len()));
            }
        }
        if self.streams.len() > self.config.most_streams {
            return Some(format!("{} streams", self.streams.len()));
        }
        let held = self.peers.values().filter_map(|peer| peer.held.as_ref()).map(|(_, _, chunk)| chunk.len());
        let most = self.config.message_bytes + 64 * 1024;
        held.max().filter(|&longest| longest > most).map(|longest| format!("{longest} bytes held for a peer"))
    }

    /// What it has not and others have, for failed plays.
    pub(super) fn difficulties(&self) -> String {
        let mut lines = vec![format!(
            "node {} {:?} import {:?}",
            self.config.id.0,
            self.standing,
            self.snapshot_progress()
        )];
        for (id, stream) in &self.streams {
            let told: Vec<String> = self
                .peers
                .iter()
                .map(|(peer, p)| format!("{}:{}/{}", peer.0, p.told.event(*id), p.reached.event(*id)))
                .collect();
            lines.push(format!(
                "  {}.{} has {}..={} told {} want {:?}",
                id.node.0,
                id.epoch,
                stream.log.first(),
                stream.log.last(),
                told.join(" "),
                stream.want
            ));
        }
        lines.push(format!("  dropped {:?}", self.dropped));
        lines.join("\n")
    }
}
