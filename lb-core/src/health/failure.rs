//! Why a backend is held to be dead.

use core::fmt;
use core::time::Duration;

/// Why a probe failed, or what packets said.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Failure {
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    Silent(Duration),
    /// The network does not lead there.
    Unreachable,
    /// The connection was cut.
    Cut,
    /// No TLS, or not the right one.
    Tls(String),
    /// What came back is not of the protocol.
    Garbled(String),
    /// Another status than expected.
    Status(u16),
    /// The body is not as expected.
    Body,
    /// The service says of itself that it does not serve.
    NotServing,
    /// A command ended with this code; `None` = by a signal.
    Exit(Option<i32>),
    /// This host could not even ask.
    Own(String),
    /// Its TCP timestamps cannot carry its number.
    Timestamps(&'static str),
    /// Backends did not answer the balancer's own SYNs, or refused them.
    Traffic,
}

impl Failure {
    /// Whether it says nothing of the backend.
    pub const fn is_own(&self) -> bool {
        match self {
            Self::Own(_) => true,
            Self::Refused
            | Self::Silent(_)
            | Self::Unreachable
            | Self::Cut
            | Self::Tls(_)
            | Self::Garbled(_)
            | Self::Status(_)
            | Self::Body
            | Self::NotServing
            | Self::Exit(_)
            | Self::Timestamps(_)
            | Self::Traffic => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("refused the connection"),
            Self::Silent(after) => write!(f, "no answer within {after:?}"),
            Self::Unreachable => f.write_str("not reachable"),
            Self::Cut => f.write_str("cut the connection"),
            Self::Tls(why) => write!(f, "TLS: {why}"),
            Self::Garbled(why) => write!(f, "not an answer of the protocol: {why}"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Body => f.write_str("the body is not as expected"),
            Self::NotServing => f.write_str("says that it does not serve"),
            Self::Exit(Some(code)) => write!(f, "the command ended with {code}"),
            Self::Exit(None) => f.write_str("the command was ended by a signal"),
            Self::Own(why) => write!(f, "cannot be probed: {why}"),
            Self::Timestamps(why) => write!(f, "TCP timestamps: {why}"),
            Self::Traffic => f.write_str("does not answer the balancer's connections"),
        }
    }
}
