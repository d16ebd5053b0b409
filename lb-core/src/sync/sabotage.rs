//! Bugs that tests put in on purpose, to see that they are caught.

/// One bug; see where it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Sabotage {
    /// A batch is applied although its first event does not follow.
    GapCheckSkipped,
    /// A node that lost its log begins again at event 1 of a former epoch.
    NumberReused,
    /// A record of a snapshot replaces a newer one.
    SnapshotOverNewer,
    /// A deletion leaves no tombstone.
    TombstoneForgotten,
    /// A tombstone ends when the others think that the record would have.
    TombstoneEndsEarly,
    /// An event leaves the node before it is durable.
    SentBeforeDurable,
    /// Of two records the one that came last holds.
    LastWriterWins,
    /// Expiry travels as the sender's clock says.
    AbsoluteExpiry,
    /// The vector of a snapshot is taken when its first chunk comes, not when it is complete.
    VectorBeforeSnapshot,
    /// A snapshot says nothing of failovers.
    SnapshotWithoutMarks,
    /// A failover moves records that were bound after it, too.
    FailoverForgetsEpoch,
    /// The log of a dead node's events is not served to others.
    CacheNotServed,
    /// A node that comes back does not age lifetimes by its downtime.
    DowntimeForgotten,
    /// A node tells that a server failed although others say that it serves.
    FailureAlone,
}

#[cfg(test)]
impl Sabotage {
    /// All of them.
    pub(crate) const ALL: [Self; 14] = [
        Self::GapCheckSkipped,
        Self::NumberReused,
        Self::SnapshotOverNewer,
        Self::TombstoneForgotten,
        Self::TombstoneEndsEarly,
        Self::SentBeforeDurable,
        Self::LastWriterWins,
        Self::AbsoluteExpiry,
        Self::VectorBeforeSnapshot,
        Self::SnapshotWithoutMarks,
        Self::FailoverForgetsEpoch,
        Self::CacheNotServed,
        Self::DowntimeForgotten,
        Self::FailureAlone,
    ];
}
